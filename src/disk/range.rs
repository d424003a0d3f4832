//! Ranges of a disk as disks of their own: a partition, an export, a share of the work.

use std::ops::{Deref, Range, RangeBounds};

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::to_usize_saturating;

use super::{Disk, Run, bounds};

/// Range of a disk. Offsets count from the first byte of the range, and bytes outside it cannot be reached.
///
/// The range holds the disk by any pointer: `&Disk`, `Arc<Disk>`, `Box<Disk>`.
#[derive(Clone, Debug)]
pub struct DiskRange<D> {
    disk: D,
    start: u64,
    end: u64,
}

impl<D: Deref<Target = Disk>> DiskRange<D> {
    /// Makes a range of `disk`.
    ///
    /// # Errors
    /// [`ErrorKind::OutsideDisk`] if the range goes past the end of the disk.
    pub fn new(disk: D, range: Range<u64>) -> Result<Self> {
        let size = disk.size();
        if range.end > size {
            return Err(Error::of(Structure::Disk, ErrorKind::OutsideDisk { end: range.end, size }));
        }
        Ok(Self { start: range.start.min(range.end), end: range.end, disk })
    }

    /// Makes a range of the whole disk.
    pub fn whole(disk: D) -> Self {
        let end = disk.size();
        Self { disk, start: 0, end }
    }

    /// Returns the disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Returns the offset of the range in the disk, in bytes.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Returns the size of the range, in bytes.
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

    /// Converts a range that counts from the first byte of this one to a range of the disk, limited to this range.
    fn in_disk(&self, range: impl RangeBounds<u64>) -> Range<u64> {
        let (start, end) = bounds(range, self.size());
        self.start.saturating_add(start)..self.start.saturating_add(end)
    }

    /// Copies bytes from `offset` on into `buffer`, and returns their number: the length of `buffer`, or fewer at the
    /// end of the range. See [`Disk::read_at`].
    ///
    /// # Errors
    /// The errors of [`Disk::read_at`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let most = to_usize_saturating(self.size().saturating_sub(offset)).min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        if buffer.is_empty() { Ok(0) } else { self.disk.read_at(buffer, self.start.saturating_add(offset)) }
    }

    /// Borrows the bytes of a part of the range. See [`Disk::slice`].
    ///
    /// # Errors
    /// [`ErrorKind::OutsideDisk`] if the bytes go past the end of this range; otherwise the errors of [`Disk::slice`].
    pub fn slice(&self, offset: u64, length: u64) -> Result<Option<&[u8]>> {
        if offset.checked_add(length).is_none_or(|end| end > self.size()) {
            let kind = ErrorKind::OutsideDisk { end: offset.saturating_add(length), size: self.size() };
            return Err(Error::of(Structure::Disk, kind));
        }
        self.disk.slice(self.start.saturating_add(offset), length)
    }

    /// Returns the extents of a part of the range, in order, with starts that count from its first byte. See
    /// [`Disk::extents`].
    pub fn extents(&self, range: impl RangeBounds<u64>) -> impl Iterator<Item = Result<Run>> {
        self.disk.extents(self.in_disk(range)).map(|run| run.map(|run| self.relative(run)))
    }

    /// Returns the runs of a part of the range as they are found, with starts that count from its first byte. See
    /// [`Disk::runs`].
    pub fn runs(&self, range: impl RangeBounds<u64>) -> impl Iterator<Item = Result<Run>> {
        self.disk.runs(self.in_disk(range)).map(|run| run.map(|run| self.relative(run)))
    }

    /// Returns a run of the disk with a start that counts from the first byte of the range.
    fn relative(&self, run: Run) -> Run {
        Run { start: run.start.saturating_sub(self.start), ..run }
    }

    /// Returns the extent at `offset`, at most `most` bytes of it. See [`Disk::extent_at`].
    ///
    /// # Errors
    /// The errors of [`Disk::extent_at`].
    pub fn extent_at(&self, offset: u64, most: u64) -> Result<Option<Run>> {
        self.extents(offset..offset.saturating_add(most)).next().transpose()
    }

    /// Returns the content of a part of the range, borrowed. See [`Disk::segments`].
    pub fn segments(&self, range: impl RangeBounds<u64>) -> super::Segments<&Disk> {
        self.disk.segments(self.in_disk(range))
    }

    /// Checks that the bytes that were borrowed of the range before this call were those of the files. See
    /// [`Disk::check_lost`].
    ///
    /// # Errors
    /// The errors of [`Disk::check_lost`].
    pub fn check_lost(&self, range: impl RangeBounds<u64>) -> Result<()> {
        self.disk.check_lost(self.in_disk(range))
    }

    /// Returns the same range, with a borrowed disk.
    pub(super) fn by_ref(&self) -> DiskRange<&Disk> {
        DiskRange { disk: &*self.disk, start: self.start, end: self.end }
    }
}
