//! A disk as a stream.

use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::ops::Deref;

use crate::num::to_u64;
use crate::zero::zero_pages;

use super::{Disk, Segment};

/// How far [`BufRead::fill_buf`] looks ahead. It lends what is there, so this bounds work, not memory.
const LOOK_AHEAD: u64 = 1 << 20;

/// A disk as a stream that can be read and sought in. Holds the disk by any pointer: `&Disk`, `Arc<Disk>`, `Box<Disk>`.
///
/// [`BufRead`] lends the bytes of the mapping itself: no buffer is filled.
#[derive(Clone, Debug)]
pub struct Reader<D> {
    disk: D,
    position: u64,
}

impl<D: Deref<Target = Disk>> Reader<D> {
    /// A stream that begins at the beginning of the disk.
    pub fn new(disk: D) -> Self {
        Self { disk, position: 0 }
    }

    /// The disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }
}

impl<D: Deref<Target = Disk>> Read for Reader<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.disk.read_at(self.position, buffer)?;
        self.position = self.position.saturating_add(to_u64(read));
        Ok(read)
    }
}

impl<D: Deref<Target = Disk>> BufRead for Reader<D> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let ahead = self.position..self.position.saturating_add(LOOK_AHEAD);
        Ok(match self.disk.segments(ahead).next().transpose()? {
            Some(Segment::Data(bytes)) => bytes,
            Some(Segment::Zero(length)) => zero_pages(length),
            None => &[],
        })
    }

    fn consume(&mut self, amount: usize) {
        self.position = self.position.saturating_add(to_u64(amount));
    }
}

impl<D: Deref<Target = Disk>> Seek for Reader<D> {
    /// Seeks to any place, also behind the end, where there is nothing to read.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(distance) => self.disk.size().checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        let before_zero = || io::Error::new(io::ErrorKind::InvalidInput, "seek to before the beginning of the disk");
        self.position = position.ok_or_else(before_zero)?;
        Ok(self.position)
    }
}
