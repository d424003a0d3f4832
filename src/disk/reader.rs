//! Streams over a disk.

use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::ops::{Deref, Range};

use crate::num::to_u64;
use crate::zero::zero_pages;

use super::{Disk, DiskRange, Segment};

/// How far [`BufRead::fill_buf`] looks ahead if bytes are borrowed, in bytes. This limits work, not memory.
const LOOK_AHEAD: u64 = 1 << 20;

/// How much [`BufRead::fill_buf`] reads at once if nothing can be borrowed, in bytes.
const READ_AHEAD: usize = 64 << 10;

/// Stream over a disk or a part of it, with [`Read`] and [`Seek`]. The stream holds the disk by any pointer: `&Disk`,
/// `Arc<Disk>`, `Box<Disk>`.
///
/// If bytes can be borrowed ([`Disk::can_borrow`]), [`BufRead`] borrows those of the file itself, without a buffer. If
/// some of them were lost ([`Disk::check_lost`]), the next call fails, also at the end of the disk.
#[derive(Clone, Debug)]
pub struct Reader<D> {
    range: DiskRange<D>,
    position: u64,
    /// The range that was borrowed last: the caller may have read it.
    borrowed: Range<u64>,
    /// If nothing can be borrowed: the bytes that were read ahead.
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<D: Deref<Target = Disk>> DiskRange<D> {
    /// Returns the range as a stream.
    pub fn reader(&self) -> Reader<&Disk> {
        Reader::of(self.by_ref())
    }

    /// Returns the range as a stream that owns the pointer to the disk.
    pub fn into_reader(self) -> Reader<D> {
        Reader::of(self)
    }
}

impl<D: Deref<Target = Disk>> Reader<D> {
    /// Makes a stream at the beginning of the disk.
    pub fn new(disk: D) -> Self {
        Self::of(DiskRange::whole(disk))
    }

    fn of(range: DiskRange<D>) -> Self {
        Self { range, position: 0, borrowed: 0..0, buffer: Vec::new(), buffer_at: 0 }
    }

    /// Returns the disk.
    pub fn disk(&self) -> &Disk {
        self.range.disk()
    }

    /// Checks that the bytes that were borrowed last were not lost when the caller read them.
    fn check_borrowed(&mut self) -> io::Result<()> {
        let borrowed = std::mem::take(&mut self.borrowed);
        Ok(self.range.check_lost(borrowed)?)
    }

    /// Returns the bytes that were read ahead, from the position on.
    fn buffered(&self) -> &[u8] {
        let within = self.position.checked_sub(self.buffer_at).and_then(|within| usize::try_from(within).ok());
        within.and_then(|within| self.buffer.get(within..)).unwrap_or_default()
    }

    fn read_ahead(&mut self) -> io::Result<&[u8]> {
        if self.buffered().is_empty() {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize(READ_AHEAD, 0);
            let read = self.range.read_at(&mut buffer, self.position)?;
            buffer.truncate(read);
            (self.buffer, self.buffer_at) = (buffer, self.position);
        }
        Ok(self.buffered())
    }
}

impl<D: Deref<Target = Disk>> Read for Reader<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check_borrowed()?;
        let read = self.range.read_at(buffer, self.position)?;
        self.position = self.position.saturating_add(to_u64(read));
        Ok(read)
    }
}

impl<D: Deref<Target = Disk>> BufRead for Reader<D> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.check_borrowed()?;
        if !self.disk().can_borrow() {
            return self.read_ahead();
        }
        let ahead = self.position..self.position.saturating_add(LOOK_AHEAD);
        let bytes = match self.range.segments(ahead).next().transpose()? {
            Some(Segment::Data(bytes)) => bytes,
            Some(Segment::Zero(length)) => zero_pages(length),
            None => return Ok(&[]),
        };
        self.borrowed = self.position..self.position.saturating_add(to_u64(bytes.len()));
        Ok(bytes)
    }

    fn consume(&mut self, amount: usize) {
        self.position = self.position.saturating_add(to_u64(amount));
    }
}

impl<D: Deref<Target = Disk>> Seek for Reader<D> {
    /// Seeks to any offset, also past the end, where reads return no bytes.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.check_borrowed()?;
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(distance) => self.range.size().checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        let before_zero = || io::Error::new(io::ErrorKind::InvalidInput, "seek to before the beginning of the disk");
        self.position = position.ok_or_else(before_zero)?;
        Ok(self.position)
    }
}
