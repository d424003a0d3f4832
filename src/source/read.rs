//! Reading a file piece by piece, into memory that others lend.
//!
//! A mapping is the fastest way to bytes that are in memory already. Where they are not, or where they have to be copied
//! anyhow, the system is asked for them in large pieces: that is as fast as the medium, an error of it is an error here and
//! no signal, and the memory of this process does not grow.

use std::fs::File;
use std::io;

use super::Source;
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::to_u64;

impl Source {
    /// Copies the bytes at `offset` into all of `buffer`: read from the file where it is mapped, so that no page of it is.
    ///
    /// # Errors
    /// [`Category::Io`](crate::Category::Io) if the system reports an error, or the file has become shorter.
    pub(crate) fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let copied = match self.mapped_file() {
            Some(file) => read_exact_at(file, buffer, offset),
            None => match self.in_memory(offset, to_u64(buffer.len())) {
                Some(bytes) => {
                    buffer.copy_from_slice(bytes);
                    Ok(())
                }
                None => Err(io::ErrorKind::UnexpectedEof.into()),
            },
        };
        copied.map_err(|error| self.unreadable(offset, error))
    }

    /// What it means that the bytes at `offset` can't be read: where a file that is mapped has become shorter, they are lost as
    /// they would be for whoever touches them.
    pub(crate) fn unreadable(&self, offset: u64, error: io::Error) -> Error {
        let is_shorter = error.kind() == io::ErrorKind::UnexpectedEof;
        match self.check_length(self.length()).err().and_then(|lost| lost.offset()).filter(|_| is_shorter) {
            Some(end) => Error::at(Structure::File, end.max(offset), ErrorKind::Lost),
            None => Error::at(Structure::File, offset, ErrorKind::Io(error.into())),
        }
    }

    /// The bytes from `offset` on, if the source has them.
    pub(crate) fn in_memory(&self, offset: u64, length: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.as_bytes().get(start..)?.get(..usize::try_from(length).ok()?)
    }

    /// The file, if it is mapped: where the bytes are a copy, it does not count any more.
    pub(crate) fn mapped_file(&self) -> Option<&File> {
        self.file().filter(|_| self.is_mapped())
    }

    /// Whether the system has the page at `offset` in memory, so that the mapping shows it without waiting for the medium.
    /// Yes where it can't be told, for then nothing is gained by asking.
    pub(crate) fn is_cached(&self, offset: u64) -> bool {
        self.mapped_file().is_none_or(|file| is_cached(file, offset))
    }

    /// Tells the system that these bytes of the file are about to be looked at, so that it reads them at once. They may as
    /// well be elsewhere in memory already, or not be there.
    pub(crate) fn will_need(&self, offset: u64, length: u64) {
        // No length would mean all of the file.
        if let Some(file) = self.mapped_file().filter(|_| length > 0) {
            will_need(file, offset, length);
        }
    }

    /// Tells the system that nobody needs its copy of these bytes of the file any more.
    pub(crate) fn uncache(&self, offset: u64, length: u64) {
        if let Some(file) = self.mapped_file() {
            uncache(file, offset, length);
        }
    }
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

/// Where the system cannot read at an offset, the threads that share a handle share its position: one that moves it between the
/// seek and the read of another makes that one read other bytes. So only one thread at a time does both.
#[cfg(any(test, not(any(unix, windows))))]
fn read_exact_by_seeking(mut file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    use std::sync::{Mutex, PoisonError};

    // One lock for all files: the same position can belong to several handles.
    static POSITION: Mutex<()> = Mutex::new(());

    let _locked = POSITION.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}

#[cfg(not(any(unix, windows)))]
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    read_exact_by_seeking(file, bytes, offset)
}

/// Fills `bytes` by reads at offsets, each of which may give less than it was asked for.
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
    // Nothing is there where the file has become shorter: reading will say so.
    !matches!(read, Ok(0) | Err(Errno::AGAIN))
}

#[cfg(not(target_os = "linux"))]
fn is_cached(_: &File, _: u64) -> bool {
    true
}

/// It is advice: where it fails, nothing is lost but memory of the machine.
#[cfg(target_os = "linux")]
fn uncache(file: &File, offset: u64, length: u64) {
    let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(length), rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn uncache(_: &File, _: u64, _: u64) {}

/// It is advice: where it fails, the bytes are read when they are looked at.
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
    fn what_is_in_memory_is_copied_and_what_is_not_is_an_error() {
        let source = Source::from_vec((0..100).collect());
        let mut buffer = [0; 4];
        source.read_exact_at(96, &mut buffer).unwrap();
        assert_eq!(buffer, [96, 97, 98, 99]);
        let error = source.read_exact_at(97, &mut buffer).unwrap_err();
        assert_eq!((error.category(), error.structure(), error.offset()), (Category::Io, Structure::File, Some(97)));
    }

    #[test]
    fn short_and_interrupted_reads_go_on_where_they_stopped() {
        let content: Vec<u8> = (0..100).collect();
        let calls = Cell::new(0);
        // Every other call is interrupted, the others give three bytes at most.
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
    fn threads_that_share_a_position_read_what_they_asked_for() {
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
