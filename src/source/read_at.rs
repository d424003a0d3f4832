//! Interface to a caller's own source of bytes.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::read::read_exact_at;
use crate::num::to_u64;

/// Bytes that can be read at any offset: of an object store, over HTTP, inside another file. For
/// [`Source::from_reader`](crate::Source::from_reader).
///
/// Several threads read at the same time. The bytes must not change while the source exists.
#[expect(clippy::len_without_is_empty, reason = "opening an empty source is an error, so callers do not need it")]
pub trait ReadAt: Send + Sync {
    /// Returns the length in bytes.
    ///
    /// # Errors
    /// Fails if the length is unknown.
    fn len(&self) -> io::Result<u64>;

    /// Fills all of `buf` with the bytes at `offset`.
    ///
    /// # Errors
    /// Fails if any of the bytes cannot be read: with [`io::ErrorKind::UnexpectedEof`] if the source ends before them.
    /// The content of `buf` is undefined then.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Returns, as a hint, the end of the hole that contains `offset`, at most `end`. Returns `offset` if it is in
    /// data, or if nothing is known. The bytes of a hole are zeros, and are not read.
    fn hole_end(&self, offset: u64, end: u64) -> u64 {
        let _ = end;
        offset
    }

    /// Returns, as a hint, the end of the data that contains `offset`, at most `end`. Returns `end` if nothing is
    /// known.
    fn data_end(&self, offset: u64, end: u64) -> u64 {
        let _ = offset;
        end
    }

    /// Receives a hint: `len` bytes at `offset` are about to be read, in pieces.
    fn will_need(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
}

/// A regular file.
impl ReadAt for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        read_exact_at(self, buf, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> io::Result<u64> {
        Ok(to_u64(self.as_slice().len()))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = usize::try_from(offset).ok().and_then(|start| self.get(start..)?.get(..buf.len()));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl<R: ReadAt + ?Sized> ReadAt for Arc<R> {
    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buf, offset)
    }

    fn hole_end(&self, offset: u64, end: u64) -> u64 {
        (**self).hole_end(offset, end)
    }

    fn data_end(&self, offset: u64, end: u64) -> u64 {
        (**self).data_end(offset, end)
    }

    fn will_need(&self, offset: u64, len: u64) {
        (**self).will_need(offset, len);
    }
}
