//! Detection of lost pages, and of changes to a file while it is read.

use std::io;

use super::open::OpenFile;
use super::{Door, Source};
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::{to_u64, to_usize_saturating};

#[cfg(all(unix, feature = "mmap"))]
use super::guard::any_known_lost;
#[cfg(all(unix, feature = "mmap"))]
pub(crate) use super::guard::any_lost;

/// Returns whether any page of any mapping was ever lost.
#[cfg(not(all(unix, feature = "mmap")))]
pub(crate) const fn any_lost() -> bool {
    false
}

#[cfg(not(all(unix, feature = "mmap")))]
const fn any_known_lost() -> bool {
    false
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
        if let Door::Reader(reader) = &self.0.door {
            let now = reader.len().map_err(length_unknown)?;
            return if now < self.len() { Err(Error::at(Structure::File, now, ErrorKind::Lost)) } else { Ok(()) };
        }
        self.check_length(self.len())
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

    /// Returns whether the file is as long as when it was mapped. The answer is certain for bytes that were read before
    /// the call: if a file ends in the middle of a page, the rest of that page reads as zeros without a signal.
    ///
    /// # Errors
    /// Fails if the system does not report the length.
    pub(crate) fn is_whole(&self) -> Result<bool> {
        let Some(open) = self.own_open_file() else { return Ok(true) };
        Ok(open.length_now().map_err(length_unknown)? >= self.len())
    }

    /// Checks that the first `length` bytes, which existed when the file was mapped, still exist. If the file has
    /// become shorter, bytes past its end are lost, also in its last page, which can still be accessed.
    pub(crate) fn check_length(&self, length: u64) -> Result<()> {
        let Some(open) = self.own_open_file() else { return Ok(()) };
        let now = open.length_now().map_err(length_unknown)?;
        if now < length.min(self.len()) { Err(Error::at(Structure::File, now, ErrorKind::Lost)) } else { Ok(()) }
    }
}

/// Returns the error for a length that the system does not report.
fn length_unknown(error: io::Error) -> Error {
    Error::of(Structure::File, ErrorKind::Io(error.into()))
}
