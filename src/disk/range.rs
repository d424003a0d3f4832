//! A part of a disk as a disk of its own: a partition, an export, a share of the work.

use std::ops::{Deref, Range, RangeBounds};

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::to_usize_saturating;

use super::{Disk, Reader, Run, bounds};

/// A range of bytes of a disk. Offsets count from its first byte, and nothing outside of it can be reached.
///
/// Holds the disk by any pointer: `&Disk`, `Arc<Disk>`, `Box<Disk>`.
#[derive(Clone, Debug)]
pub struct DiskRange<D> {
    disk: D,
    start: u64,
    end: u64,
}

impl<D: Deref<Target = Disk>> DiskRange<D> {
    /// The bytes of `disk` in `range`.
    ///
    /// # Errors
    /// [`ErrorKind::OutsideDisk`] if the range ends past the end of the disk.
    pub fn new(disk: D, range: Range<u64>) -> Result<Self> {
        let size = disk.size();
        if range.end > size {
            return Err(Error::of(Structure::Disk, ErrorKind::OutsideDisk { end: range.end, size }));
        }
        Ok(Self { start: range.start.min(range.end), end: range.end, disk })
    }

    /// The whole disk.
    pub fn whole(disk: D) -> Self {
        let end = disk.size();
        Self { disk, start: 0, end }
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Where the range begins in the disk, in bytes.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Size of the range, in bytes.
    pub fn size(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// A part of the range, as far as it lies inside.
    #[must_use]
    pub fn part(&self, range: impl RangeBounds<u64>) -> Self
    where
        D: Clone,
    {
        let Range { start, end } = self.in_disk(range);
        Self { disk: self.disk.clone(), start, end }
    }

    /// The place in the disk of a range that counts from the first byte of this one, as far as it lies inside.
    fn in_disk(&self, range: impl RangeBounds<u64>) -> Range<u64> {
        let (start, end) = bounds(range, self.size());
        self.start.saturating_add(start)..self.start.saturating_add(end)
    }

    /// Copies bytes from `offset` on into `buffer`, and returns how many: all that `buffer` has room for, or as many as
    /// there are up to the end of the range. As [`Disk::read_at`].
    ///
    /// # Errors
    /// As for [`Disk::read_at`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let most = to_usize_saturating(self.size().saturating_sub(offset)).min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        if buffer.is_empty() { Ok(0) } else { self.disk.read_at(buffer, self.start.saturating_add(offset)) }
    }

    /// Borrows the bytes of a range: [`Disk::slice`].
    ///
    /// # Errors
    /// [`ErrorKind::OutsideDisk`] if they end past the end of this range; otherwise as for [`Disk::slice`].
    pub fn slice(&self, offset: u64, length: u64) -> Result<Option<&[u8]>> {
        if offset.checked_add(length).is_none_or(|end| end > self.size()) {
            let kind = ErrorKind::OutsideDisk { end: offset.saturating_add(length), size: self.size() };
            return Err(Error::of(Structure::Disk, kind));
        }
        self.disk.slice(self.start.saturating_add(offset), length)
    }

    /// The extents of a part of the range, in order: [`Disk::extents`], with starts that count from its first byte.
    pub fn extents(&self, range: impl RangeBounds<u64>) -> impl Iterator<Item = Result<Run>> {
        let moved = |run: Run| Run { start: run.start.saturating_sub(self.start), ..run };
        self.disk.extents(self.in_disk(range)).map(move |run| run.map(moved))
    }

    /// The extent at `offset`, at most `most` bytes of it: [`Disk::extent_at`].
    ///
    /// # Errors
    /// As for [`Disk::extent_at`].
    pub fn extent_at(&self, offset: u64, most: u64) -> Result<Option<Run>> {
        self.extents(offset..offset.saturating_add(most)).next().transpose()
    }

    /// The content of a part of the range, borrowed: [`Disk::segments`].
    pub fn segments(&self, range: impl RangeBounds<u64>) -> super::Segments<&Disk> {
        self.disk.segments(self.in_disk(range))
    }

    /// Checks that what was borrowed of the range, before this call, was really what the files hold: [`Disk::check_lost`].
    ///
    /// # Errors
    /// As for [`Disk::check_lost`].
    pub fn check_lost(&self, range: impl RangeBounds<u64>) -> Result<()> {
        self.disk.check_lost(self.in_disk(range))
    }

    /// The range as a stream.
    pub fn reader(&self) -> Reader<&Disk> {
        Reader::of(DiskRange { disk: &*self.disk, start: self.start, end: self.end })
    }

    /// The range as a stream that owns what this holds the disk by.
    pub fn into_reader(self) -> Reader<D> {
        Reader::of(self)
    }
}
