//! Detection of lost pages, and of changes to a file while it is read.

use std::io;

use super::open::OpenFile;
use super::{Door, Source};
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::{to_u64, to_usize_saturating};

#[cfg(all(unix, feature = "mmap"))]
use super::guard::any_known_lost;
#[cfg(all(unix, feature = "mmap"))]
pub(crate) use super::guard::{any_lost, losses_known};

/// Returns whether any page of any mapping was ever lost.
#[cfg(not(all(unix, feature = "mmap")))]
pub(crate) const fn any_lost() -> bool {
    false
}

#[cfg(not(all(unix, feature = "mmap")))]
const fn any_known_lost() -> bool {
    false
}

/// Returns the number of known losses.
#[cfg(not(all(unix, feature = "mmap")))]
pub(crate) const fn losses_known() -> usize {
    0
}

impl Source {
    /// Checks that all bytes that were ever read were those of the file. See
    #[cfg_attr(all(unix, feature = "mmap"), doc = "[`guard_mappings`](super::guard_mappings).")]
    #[cfg_attr(not(all(unix, feature = "mmap")), doc = "`guard_mappings`.")]
    ///
    /// # Errors
    /// [`ErrorKind::Lost`], with the offset of the first page that could not be read, or of the end of the file if it
    /// has become shorter.
    pub fn check_lost(&self) -> Result<()> {
        self.check(Structure::File, 0, self.len())?;
        self.check_still_has(self.len())
    }

    /// Returns whether the file has been changed since it was opened, according to its size and the time of its last
    /// change; for a block device, only its size. Bytes in memory never change.
    ///
    /// # Errors
    /// Fails if the system does not report size or time.
    pub fn has_changed(&self) -> io::Result<bool> {
        self.own_open_file().map_or(Ok(false), OpenFile::has_changed)
    }

    /// Checks that none of the bytes from `offset` on, which have been read, was lost.
    #[inline]
    pub(crate) fn check(&self, what: Structure, offset: u64, length: u64) -> Result<()> {
        if any_lost() { self.check_pages(what, offset, length) } else { Ok(()) }
    }

    #[cold]
    fn check_pages(&self, what: Structure, offset: u64, length: u64) -> Result<()> {
        let lost = self.first_lost(offset, offset.saturating_add(length));
        lost.map_or(Ok(()), |at| Err(Error::at(what, at, ErrorKind::Lost)))
    }

    /// Returns the bytes of `bytes`, which begin at `offset`, before the first one that is known to be lost.
    ///
    /// # Errors
    /// Fails if the first byte is lost.
    #[inline]
    pub(crate) fn good<'b>(&self, what: Structure, offset: u64, bytes: &'b [u8]) -> Result<&'b [u8]> {
        if any_known_lost() { self.good_pages(what, offset, bytes) } else { Ok(bytes) }
    }

    #[cold]
    fn good_pages<'b>(&self, what: Structure, offset: u64, bytes: &'b [u8]) -> Result<&'b [u8]> {
        match self.first_lost(offset, offset.saturating_add(to_u64(bytes.len()))) {
            None => Ok(bytes),
            Some(at) if at > offset => Ok(bytes.get(..to_usize_saturating(at.abs_diff(offset))).unwrap_or(bytes)),
            Some(at) => Err(Error::at(what, at, ErrorKind::Lost)),
        }
    }

    fn first_lost(&self, start: u64, end: u64) -> Option<u64> {
        match &self.0.door {
            #[cfg(feature = "mmap")]
            Door::Mapped(mapping) => mapping.first_lost(start, end),
            _ => {
                let _ = (start, end);
                None
            }
        }
    }

    /// Returns the current length, which for a reader is a question to the caller's code.
    fn length_now(&self) -> Result<u64> {
        let length = match (&self.0.door, self.own_open_file()) {
            (Door::Reader(reader), _) => reader.len(),
            (_, Some(open)) => open.length_now(),
            _ => Ok(self.len()),
        };
        length.map_err(|error| Error::of(Structure::File, ErrorKind::Io(error.into())))
    }

    /// Returns whether the source is as long as when it was made. If not, bytes of a mapping that are past the end of
    /// the file are known to be lost from now on.
    ///
    /// # Errors
    /// Fails if the length is unknown.
    pub(crate) fn is_whole(&self) -> Result<bool> {
        Ok(self.still_has()? >= self.len())
    }

    /// Returns whether all bytes that were read before this call, and that lie before the end of `bytes`, are those of
    /// the file: certain if true, unknown if false. `bytes` are borrowed from this source, at offset `after` or later.
    #[inline]
    pub(crate) fn still_reaches(&self, bytes: &[u8], after: u64) -> bool {
        match &self.0.door {
            #[cfg(feature = "mmap")]
            Door::Mapped(mapping) => mapping.still_reaches(bytes, after) && !any_lost(),
            _ => {
                let _ = (bytes, after);
                false
            }
        }
    }

    fn still_has(&self) -> Result<u64> {
        let now = self.length_now()?;
        #[cfg(feature = "mmap")]
        if let Door::Mapped(mapping) = &self.0.door
            && now < self.len()
        {
            mapping.record_end(now);
        }
        Ok(now)
    }

    /// Checks that the first `length` bytes, which existed when the source was made, still exist.
    pub(crate) fn check_still_has(&self, length: u64) -> Result<()> {
        let now = self.still_has()?;
        if now < length.min(self.len()) { Err(Error::at(Structure::File, now, ErrorKind::Lost)) } else { Ok(()) }
    }

    /// Checks that the first `length` bytes of a mapped file still exist. The answer is certain for bytes that were
    /// read before the call: if a file ends in the middle of a page, the rest of that page reads as zeros without a
    /// signal. Other sources need no such check, since reading past their end fails.
    #[inline]
    pub(crate) fn check_mapped(&self, length: u64) -> Result<()> {
        if self.is_mapped() { self.check_still_has(length) } else { Ok(()) }
    }
}
