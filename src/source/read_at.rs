//! What a caller's own source of bytes has to offer.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::read::read_exact_at;
use crate::num::to_u64;

/// Bytes that can be read at any offset: of an object store, over HTTP, inside another file. For
/// [`Source::from_reader`](crate::Source::from_reader).
///
/// Several threads read at the same time. The bytes must stay the same for as long as the source lives.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// If it is not known.
    #[expect(
        clippy::len_without_is_empty,
        reason = "an empty source is an error of opening it, and nobody asks before"
    )]
    fn len(&self) -> io::Result<u64>;

    /// Fills all of `buf` with the bytes at `offset`.
    ///
    /// # Errors
    /// If any of them can't be read: [`io::ErrorKind::UnexpectedEof`] where the source ends before them. What `buf`
    /// holds then has no meaning.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// A hint: the end of the hole in which `offset` lies, at most `end`; `offset` itself where it lies in data, or where
    /// that is not known. The bytes of a hole are zeros, and are not read.
    fn hole_end(&self, offset: u64, end: u64) -> u64 {
        let _ = end;
        offset
    }

    /// A hint: the end of the data in which `offset` lies, at most `end`; `end` where that is not known.
    fn data_end(&self, offset: u64, end: u64) -> u64 {
        let _ = offset;
        end
    }

    /// A hint: `len` bytes at `offset` are about to be read, in pieces.
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
