//! The content of a disk, for several threads.

use std::ops::RangeBounds;
use std::sync::Arc;

use rayon::iter::ParallelIterator;
use rayon::iter::plumbing::{Folder, UnindexedConsumer, UnindexedProducer, bridge_unindexed};

use crate::error::Result;

use super::pieces::{Pieces, SEGMENT_GRAIN};
use super::{Disk, Run, Segment};

impl Disk {
    /// Returns the content of a range of the disk, for several threads: the segments of [`Disk::segments`], each with
    /// its offset in the disk, cut at multiples of 8 MiB of the disk. The pieces are the same for any number of
    /// threads, and rayon's adaptors that keep the order keep the order of the disk. The work is divided by the bytes
    /// in files: unallocated space is free.
    ///
    /// Borrowed pages stay mapped. For a single pass over a large disk, `Input::scan` (feature `ops`) limits this
    /// memory, and reads uncached data in the order of the file.
    ///
    /// An error ends only the part of the range that contains it; adaptors like `try_for_each` end all parts.
    pub fn par_segments(&self, range: impl RangeBounds<u64>) -> ParSegments<'_> {
        let (start, end) = self.bounds(range);
        ParSegments { disk: self, start, end }
    }
}

/// Parallel iterator over segments. Made by [`Disk::par_segments`].
#[derive(Clone, Copy, Debug)]
pub struct ParSegments<'d> {
    disk: &'d Disk,
    start: u64,
    end: u64,
}

impl<'d> ParallelIterator for ParSegments<'d> {
    type Item = Result<(u64, Segment<'d>)>;

    fn drive_unindexed<C: UnindexedConsumer<Self::Item>>(self, consumer: C) -> C::Result {
        let cuts = cuts(self.disk, self.start, self.end);
        let parts = cuts.len().saturating_sub(1);
        bridge_unindexed(Parts { disk: self.disk, cuts: cuts.into(), first: 0, parts }, consumer)
    }
}

/// Largest number of parts.
const MOST_PARTS: usize = 4096;

/// Returns the bounds of parts with about the same amount of data: the beginning of the range first, its end last.
/// Bounds are multiples of [`SEGMENT_GRAIN`], so they make no further pieces.
fn cuts(disk: &Disk, start: u64, end: u64) -> Vec<u64> {
    let (mut cuts, mut grain, mut weight) = (vec![start], SEGMENT_GRAIN, 0_u64);
    // A map that cannot be read makes one part, which returns the error.
    for extent in disk.extents(start..end).map_while(Result::ok).filter(Run::is_data) {
        let (mut at, extent_end) = (extent.start, extent.start.saturating_add(extent.len));
        while at < extent_end {
            let next = at.saturating_add(1).next_multiple_of(SEGMENT_GRAIN).min(extent_end);
            weight = weight.saturating_add(next.saturating_sub(at));
            at = next;
            if weight >= grain && at.is_multiple_of(SEGMENT_GRAIN) && at < end {
                cuts.push(at);
                weight = 0;
                if cuts.len() > MOST_PARTS {
                    // Every other cut is enough from now on.
                    let mut odd = false;
                    cuts.retain(|_| {
                        odd = !odd;
                        odd
                    });
                    grain = grain.saturating_mul(2);
                }
            }
        }
    }
    cuts.push(end);
    cuts
}

/// A range of parts.
#[derive(Clone, Debug)]
struct Parts<'d> {
    disk: &'d Disk,
    cuts: Arc<[u64]>,
    first: usize,
    parts: usize,
}

impl<'d> UnindexedProducer for Parts<'d> {
    type Item = Result<(u64, Segment<'d>)>;

    fn split(self) -> (Self, Option<Self>) {
        let head = self.parts >> 1;
        if head == 0 {
            return (self, None);
        }
        let tail =
            Self { first: self.first.saturating_add(head), parts: self.parts.saturating_sub(head), ..self.clone() };
        (Self { parts: head, ..self }, Some(tail))
    }

    fn fold_with<F: Folder<Self::Item>>(self, mut folder: F) -> F {
        let cuts = self.cuts.get(self.first..).unwrap_or_default();
        for (start, end) in cuts.iter().zip(cuts.iter().skip(1)).take(self.parts) {
            if folder.full() {
                break;
            }
            folder = folder.consume_iter(Pieces::new(self.disk, *start, *end));
        }
        folder
    }
}
