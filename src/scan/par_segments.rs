//! The content of a disk, for many threads at once.

use std::ops::RangeBounds;

use rayon::iter::ParallelIterator;
use rayon::iter::plumbing::{Folder, UnindexedConsumer, UnindexedProducer, bridge_unindexed};

use crate::disk::{Disk, Segment};
use crate::error::Result;

use super::pieces::{Pieces, SEGMENT_GRAIN};

impl Disk {
    /// The content of a range of bytes of the disk, for many threads at once: what [`Disk::segments`] gives, each with its
    /// place in the disk, and cut at multiples of [`SEGMENT_GRAIN`]. The pieces are the same for any number of threads, and
    /// rayon's adaptors that keep the order keep that of the disk.
    ///
    /// An error ends the part of the range in which it is, and no other; `try_for_each` and the like end the whole.
    pub fn par_segments(&self, range: impl RangeBounds<u64>) -> ParSegments<'_> {
        let (start, end) = self.bounds(range);
        ParSegments { disk: self, start, end }
    }
}

/// A parallel iterator over segments. Made by [`Disk::par_segments`].
#[derive(Clone, Copy, Debug)]
pub struct ParSegments<'d> {
    disk: &'d Disk,
    start: u64,
    end: u64,
}

impl<'d> ParallelIterator for ParSegments<'d> {
    type Item = Result<(u64, Segment<'d>)>;

    fn drive_unindexed<C: UnindexedConsumer<Self::Item>>(self, consumer: C) -> C::Result {
        bridge_unindexed(self, consumer)
    }
}

impl<'d> UnindexedProducer for ParSegments<'d> {
    type Item = Result<(u64, Segment<'d>)>;

    fn split(self) -> (Self, Option<Self>) {
        let middle = self.start.midpoint(self.end).next_multiple_of(SEGMENT_GRAIN);
        if middle <= self.start || middle >= self.end {
            return (self, None);
        }
        (Self { end: middle, ..self }, Some(Self { start: middle, ..self }))
    }

    fn fold_with<F: Folder<Self::Item>>(self, folder: F) -> F {
        folder.consume_iter(Pieces::new(self.disk, self.start, self.end))
    }
}
