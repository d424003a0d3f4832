//! Reads of a file piece by piece, into memory of the caller.
//!
//! A mapping is the fastest access to bytes in memory. If they are not in memory, or have to be copied anyway, they are
//! read in large pieces: that is as fast as the medium, failures are errors instead of signals, and the memory of this
//! process does not grow.

use std::fs::File;
use std::io;

use super::salvage::PAGE;
use super::{Door, Source};
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::{to_u64, to_usize_saturating};

/// Length of the reads that search the first unreadable byte, in bytes.
const SEARCHED_AT_ONCE: u64 = 1 << 20;

impl Source {
    /// Fills `buffer` with the bytes at `offset`. A mapped file is read, too, so that none of its pages is mapped.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`] at the first byte that the file or its medium does not have any more; [`ErrorKind::Io`] if
    /// reading fails otherwise.
    pub(crate) fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let read = self.read_raw(offset, buffer);
        read.map_err(|error| self.unreadable(offset, to_u64(buffer.len()), error))
    }

    /// Copies the bytes at `offset` before the first one that cannot be read into `buffer`, and returns their number.
    ///
    /// # Errors
    /// The errors of [`Source::read_exact_at`], if the first byte cannot be read.
    pub(super) fn read_before_loss(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let Err(error) = self.read_exact_at(offset, buffer) else { return Ok(buffer.len()) };
        let good = error.offset().and_then(|at| at.checked_sub(offset)).filter(|good| *good > 0);
        let Some(good) = good.and_then(|good| buffer.get_mut(..usize::try_from(good).ok()?)) else { return Err(error) };
        self.read_exact_at(offset, good).map(|()| good.len())
    }

    /// Fills `buffer` with the bytes at `offset`, with the original error.
    pub(super) fn read_raw(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if let Some(file) = self.own_file() {
            return read_exact_at(file, buffer, offset);
        }
        if let Door::Reader(reader) = &self.0.door {
            return reader.read_exact_at(buffer, offset);
        }
        let bytes = self.borrow(offset, to_u64(buffer.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    /// Returns the error for `length` bytes at `offset` that cannot all be read. If the file has become shorter, or its
    /// medium fails, the first missing byte is lost, as for readers of a mapping.
    pub(crate) fn unreadable(&self, offset: u64, length: u64, error: io::Error) -> Error {
        let lost = match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let end = self.check_still_has(self.len()).err().and_then(|lost| lost.offset());
                end.map(|end| end.max(offset))
            }
            _ if is_failure_of_medium(&error) => Some(self.first_unreadable(offset, length)),
            _ => None,
        };
        match lost {
            Some(at) => Error::at(Structure::File, at, ErrorKind::Lost),
            None => Error::at(Structure::File, offset, ErrorKind::Io(error.into())),
        }
    }

    /// Returns the offset of the first unreadable byte of `length` bytes at `offset`, which cannot be read as a whole:
    /// `offset`, or the beginning of a page.
    #[cold]
    fn first_unreadable(&self, offset: u64, length: u64) -> u64 {
        let mut buffer = vec![0; to_usize_saturating(length.min(SEARCHED_AT_ONCE))];
        let mut can_read = |start: u64, end: u64| {
            let piece = buffer.get_mut(..to_usize_saturating(end.saturating_sub(start)));
            piece.is_some_and(|piece| self.read_raw(start, piece).is_ok())
        };
        let (mut start, last) = (offset, offset.saturating_add(length));
        let mut end = start;
        while start < last {
            end = start.saturating_add(SEARCHED_AT_ONCE).min(last);
            if !can_read(start, end) {
                break;
            }
            start = end;
        }
        loop {
            let next_page = (start | PAGE.saturating_sub(1)).saturating_add(1);
            if end <= next_page {
                // If nothing is left, all of it could be read after all.
                return if start < last { start } else { offset };
            }
            let middle = start.saturating_add(end.saturating_sub(start) / 2) & !PAGE.saturating_sub(1);
            let middle = middle.max(next_page);
            if can_read(start, middle) { start = middle } else { end = middle }
        }
    }

    /// Borrows the bytes from `offset` on, if the source can borrow and contains them.
    pub(crate) fn borrow(&self, offset: u64, length: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.as_bytes()?.get(start..)?.get(..usize::try_from(length).ok()?)
    }

    /// Returns whether the page at `offset` is in the page cache, so that access to the mapping does not wait for the
    /// medium. Returns true if that is unknown, since asking would gain nothing.
    pub(crate) fn is_cached(&self, offset: u64) -> bool {
        self.own_file().is_none_or(|file| is_cached(file, offset))
    }

    /// Turns the read-ahead of the system off (`true`) or on, for a file that is read piece by piece. It is off while
    /// an image is opened.
    pub(crate) fn read_exactly(&self, is_wanted: bool) {
        if let (Door::File, Some(file)) = (&self.0.door, self.own_file()) {
            read_exactly(file, is_wanted);
        }
    }

    /// Informs the system that these bytes of the file are about to be read. They may be in memory already, or past the
    /// end of the file.
    pub(crate) fn will_need(&self, offset: u64, length: u64) {
        match (&self.0.door, self.own_file()) {
            (Door::Reader(reader), _) => reader.will_need(offset, length),
            // A length of 0 would mean the whole file.
            (_, Some(file)) if length > 0 => will_need(file, offset, length),
            _ => {}
        }
    }

    /// Informs the system that these bytes are not needed in the page cache any more.
    pub(crate) fn uncache(&self, offset: u64, length: u64) {
        if let Some(file) = self.own_file() {
            uncache(file, offset, length);
        }
    }
}

/// Returns whether an error means that the medium failed.
fn is_failure_of_medium(error: &io::Error) -> bool {
    #[cfg(unix)]
    let failed = rustix::io::Errno::IO.raw_os_error();
    // ERROR_CRC.
    #[cfg(not(unix))]
    let failed = 23;
    error.raw_os_error() == Some(failed)
}

#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;

    read_in_pieces(|piece, at| file.seek_read(piece, at), bytes, offset)
}

/// If the system cannot read at an offset, threads that share a handle share its position. A thread that moves it
/// between the seek and the read of another thread would make that one read other bytes. So only one thread at a time
/// does both.
#[cfg(any(test, not(any(unix, windows))))]
fn read_exact_by_seeking(mut file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    use std::sync::{Mutex, PoisonError};

    // One lock for all files: several handles can share a position.
    static POSITION: Mutex<()> = Mutex::new(());

    let _locked = POSITION.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}

#[cfg(not(any(unix, windows)))]
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    read_exact_by_seeking(file, bytes, offset)
}

/// Fills `bytes` by reads at offsets, each of which may return fewer bytes than requested.
#[cfg(any(test, windows))]
fn read_in_pieces(
    read_at: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    mut bytes: &mut [u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match read_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                bytes = bytes.get_mut(length..).unwrap_or_default();
                offset = offset.saturating_add(to_u64(length));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Asks for the byte without waiting for it.
#[cfg(target_os = "linux")]
fn is_cached(file: &File, offset: u64) -> bool {
    use rustix::io::{Errno, ReadWriteFlags};

    let mut byte = [0];
    let read = rustix::io::preadv2(file, &mut [io::IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT);
    // A file that has become shorter has no byte there: reading it will fail.
    !matches!(read, Ok(0) | Err(Errno::AGAIN))
}

#[cfg(not(target_os = "linux"))]
fn is_cached(_: &File, _: u64) -> bool {
    true
}

/// Advice: if it fails, the bytes stay in the page cache.
#[cfg(target_os = "linux")]
fn uncache(file: &File, offset: u64, length: u64) {
    let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(length), rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn uncache(_: &File, _: u64, _: u64) {}

/// It is advice: where it fails, more is read than needed.
#[cfg(target_os = "linux")]
fn read_exactly(file: &File, is_wanted: bool) {
    let advice = if is_wanted { rustix::fs::Advice::Random } else { rustix::fs::Advice::Normal };
    let _ = rustix::fs::fadvise(file, 0, None, advice);
}

#[cfg(not(target_os = "linux"))]
fn read_exactly(_: &File, _: bool) {}

/// Advice: if it fails, the bytes are read when they are needed.
#[cfg(target_os = "linux")]
fn will_need(file: &File, offset: u64, length: u64) {
    let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(length), rustix::fs::Advice::WillNeed);
}

#[cfg(not(target_os = "linux"))]
fn will_need(_: &File, _: u64, _: u64) {}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{self, Write};

    use super::{Source, read_exact_by_seeking, read_in_pieces};
    use crate::error::{Category, Structure};

    #[test]
    fn bytes_in_memory_are_copied_and_others_are_an_error() {
        let source = Source::from_vec((0..100).collect());
        let mut buffer = [0; 4];
        source.read_exact_at(96, &mut buffer).unwrap();
        assert_eq!(buffer, [96, 97, 98, 99]);
        let error = source.read_exact_at(97, &mut buffer).unwrap_err();
        assert_eq!((error.category(), error.structure(), error.offset()), (Category::Io, Structure::File, Some(97)));
    }

    #[test]
    fn short_and_interrupted_reads_continue() {
        let content: Vec<u8> = (0..100).collect();
        let calls = Cell::new(0);
        // Every other call is interrupted, the others return three bytes at most.
        let read_at = |piece: &mut [u8], offset: u64| {
            calls.set(calls.get() + 1);
            if calls.get() % 2 == 1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let rest = &content[usize::try_from(offset).unwrap()..];
            let length = rest.len().min(piece.len()).min(3);
            piece[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        };
        let mut buffer = [0; 10];
        read_in_pieces(read_at, &mut buffer, 90).unwrap();
        assert_eq!(buffer, content[90..]);
        assert_eq!(calls.get(), 8);
        let error = read_in_pieces(read_at, &mut buffer, 91).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let failing = |_: &mut [u8], _: u64| Err(io::ErrorKind::PermissionDenied.into());
        let error = read_in_pieces(failing, &mut buffer, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        read_in_pieces(failing, &mut [], 0).unwrap();
    }

    #[test]
    fn threads_with_shared_position_read_correct_bytes() {
        const PIECE: usize = 64;

        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..=255).flat_map(|number| [number; PIECE]).collect();
        file.write_all(&content).unwrap();
        // Another handle, with the same position.
        let clone = file.try_clone().unwrap();
        std::thread::scope(|scope| {
            for (first, file) in [(0, &file), (1, &file), (2, &clone), (3, &clone)] {
                scope.spawn(move || {
                    for round in 0..5000_u64 {
                        let number = u8::try_from((first + 7 * round) % 256).unwrap();
                        let mut buffer = [0; PIECE];
                        let offset = u64::from(number) * u64::try_from(PIECE).unwrap();
                        read_exact_by_seeking(file, &mut buffer, offset).unwrap();
                        assert_eq!(buffer, [number; PIECE]);
                    }
                });
            }
        });
        let error = read_exact_by_seeking(&file, &mut [0; PIECE], 16_383).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
