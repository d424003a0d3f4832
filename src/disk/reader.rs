//! A disk as a stream.

use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::ops::{Deref, Range};

use crate::num::to_u64;
use crate::zero::zero_pages;

use super::{Disk, Segment};

/// How far [`BufRead::fill_buf`] looks ahead. It lends what is there, so this bounds work, not memory.
const LOOK_AHEAD: u64 = 1 << 20;

/// A disk as a stream that can be read and sought in. Holds the disk by any pointer: `&Disk`, `Arc<Disk>`, `Box<Disk>`.
///
/// [`BufRead`] lends the bytes of the mapping itself: no buffer is filled. If some of them turn out to be lost
/// ([`Disk::check_lost`]), the next call says so, also at the end of the disk.
#[derive(Clone, Debug)]
pub struct Reader<D> {
    disk: D,
    position: u64,
    /// What was lent last: somebody may have looked at it.
    lent: Range<u64>,
}

impl<D: Deref<Target = Disk>> Reader<D> {
    /// A stream that begins at the beginning of the disk.
    pub fn new(disk: D) -> Self {
        Self { disk, position: 0, lent: 0..0 }
    }

    /// That what was lent last was not lost when somebody looked at it.
    fn check_lent(&mut self) -> io::Result<()> {
        let lent = std::mem::take(&mut self.lent);
        Ok(self.disk.check_lost(lent)?)
    }

    /// The disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }
}

impl<D: Deref<Target = Disk>> Read for Reader<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check_lent()?;
        let read = self.disk.read_at(self.position, buffer)?;
        self.position = self.position.saturating_add(to_u64(read));
        Ok(read)
    }
}

impl<D: Deref<Target = Disk>> BufRead for Reader<D> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.check_lent()?;
        let ahead = self.position..self.position.saturating_add(LOOK_AHEAD);
        Ok(match self.disk.segments(ahead).next().transpose()? {
            Some(Segment::Data(bytes)) => {
                self.lent = self.position..self.position.saturating_add(to_u64(bytes.len()));
                bytes
            }
            Some(Segment::Zero(length)) => {
                let zeros = zero_pages(length);
                self.lent = self.position..self.position.saturating_add(to_u64(zeros.len()));
                zeros
            }
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
        self.check_lent()?;
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
