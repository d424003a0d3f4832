//! The content of a disk: bytes lent from the files, and lengths of zeros.

use std::iter::FusedIterator;
use std::ops::{Deref, RangeBounds};

use crate::error::{Error, Result};
use crate::num::to_u64;
use crate::source::{Bytes, any_lost};
use crate::zero::zero_pages;

use super::Disk;
use super::runs::{Run, Walk};

/// A run of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'d> {
    /// These bytes, which are in a file or were rebuilt from its log. They may be zeros all the same.
    Data(&'d [u8]),
    /// So many zeros, which are nowhere.
    Zero(u64),
}

impl<'d> Segment<'d> {
    /// Length in bytes, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Data(bytes) => to_u64(bytes.len()),
            Self::Zero(length) => *length,
        }
    }

    /// The content as slices, zeros included: those are lent from shared pages, piece by piece.
    pub fn slices(self) -> impl Iterator<Item = &'d [u8]> {
        let (data, mut zeros) = match self {
            Self::Data(bytes) => (Some(bytes), 0),
            Self::Zero(length) => (None, length),
        };
        let pages = std::iter::from_fn(move || {
            let pages = zero_pages(zeros);
            zeros = zeros.saturating_sub(to_u64(pages.len()));
            Some(pages).filter(|pages| !pages.is_empty())
        });
        data.into_iter().chain(pages)
    }

    /// The segment in two: `at` bytes, and the rest. None if there would be no rest, or nothing before it.
    pub(crate) fn split_at(self, at: u64) -> Option<(Self, Self)> {
        if at == 0 || at >= self.len() {
            return None;
        }
        match self {
            Self::Data(bytes) => {
                let (head, rest) = bytes.split_at_checked(usize::try_from(at).ok()?)?;
                Some((Self::Data(head), Self::Data(rest)))
            }
            Self::Zero(length) => Some((Self::Zero(at), Self::Zero(length.checked_sub(at)?))),
        }
    }
}

/// The segments of a range, in order, each as long as can be. Made by [`Disk::segments`].
///
/// With `D = &Disk` it is an iterator. With any other owner of a disk, such as `Arc<Disk>`, [`Segments::next_segment`] gives
/// the same segments, each borrowed for as long as the caller looks at it.
#[derive(Clone, Debug)]
pub struct Segments<D> {
    disk: D,
    walk: SegmentWalk,
}

#[derive(Clone, Debug)]
struct SegmentWalk {
    walk: Walk,
    /// Data whose bytes have not been given out yet.
    data: Option<Run>,
    /// Zeros that have not been given out yet: more may follow.
    zeros: u64,
    /// What was borrowed last. Somebody may have looked at it.
    borrowed: Option<Run>,
    /// Why there is nothing after them.
    failed: Option<Error>,
    /// The range of the disk, until somebody has asked whether all that was borrowed of it was really there.
    unchecked: Option<(u64, u64)>,
}

impl<D: Deref<Target = Disk>> Segments<D> {
    /// The content of a range of bytes of the disk: [`Disk::segments`], for any owner of a disk.
    pub fn new(disk: D, range: impl RangeBounds<u64>) -> Self {
        let (start, end) = disk.bounds(range);
        let (data, zeros, borrowed, failed) = (None, 0, None, None);
        let walk = Walk::new(start, end);
        Self { disk, walk: SegmentWalk { walk, data, zeros, borrowed, failed, unchecked: Some((start, end)) } }
    }

    /// The next segment. An error is the last item, and comes after all that is good before it. If a part of the segment
    /// before was lost while it was looked at, that is the error; after the last segment, the same is asked for all of them.
    #[inline]
    pub fn next_segment(&mut self) -> Option<Result<Segment<'_>>> {
        self.walk.next(&self.disk)
    }
}

impl SegmentWalk {
    /// What was lost of all that was borrowed, if something was. Asked once, after the last segment.
    fn check_all(&mut self, disk: &Disk) -> Option<Error> {
        let (start, end) = self.unchecked.take()?;
        disk.check_lost(start..end).err()
    }

    /// That what was borrowed last was not lost when somebody looked at it.
    #[cold]
    fn check_borrowed(&mut self, disk: &Disk) -> Result<()> {
        match self.borrowed.take() {
            Some(run) => disk.check_run(&run),
            None => Ok(()),
        }
    }

    fn end(&mut self) {
        self.unchecked = None;
        self.walk = Walk::new(0, 0);
        self.data = None;
    }

    /// The zeros that are not given out yet.
    #[inline]
    fn take_zeros<'d>(&mut self) -> Option<Segment<'d>> {
        let length = std::mem::take(&mut self.zeros);
        (length > 0).then_some(Segment::Zero(length))
    }

    #[inline]
    fn next<'d>(&mut self, disk: &'d Disk) -> Option<Result<Segment<'d>>> {
        if any_lost()
            && let Err(error) = self.check_borrowed(disk)
        {
            self.end();
            return Some(Err(error));
        }
        loop {
            if self.failed.is_some() {
                return self.take_zeros().map(Ok).or_else(|| self.failed.take().map(Err));
            }
            let run = match self.data.take() {
                Some(run) => run,
                None => match self.walk.next_joined(disk, Run::goes_on_in) {
                    Some(Ok(run)) => run,
                    Some(Err(error)) => {
                        self.unchecked = None;
                        self.failed = Some(error);
                        continue;
                    }
                    None => return self.take_zeros().map(Ok).or_else(|| self.check_all(disk).map(Err)),
                },
            };
            match disk.borrow_run(&run) {
                Ok(Bytes::Data(_)) if self.zeros > 0 => {
                    self.data = Some(run);
                    return self.take_zeros().map(Ok);
                }
                Ok(Bytes::Data(bytes)) => {
                    let length = to_u64(bytes.len());
                    self.borrowed = Some(Run { len: length, ..run });
                    self.data = run.after(length);
                    return Some(Ok(Segment::Data(bytes)));
                }
                Ok(Bytes::Zero(length)) => {
                    self.data = run.after(length);
                    self.zeros = self.zeros.saturating_add(length);
                }
                Err(error) => {
                    self.end();
                    self.failed = Some(error);
                }
            }
        }
    }
}

impl<'d> Iterator for Segments<&'d Disk> {
    type Item = Result<Segment<'d>>;

    /// As [`Segments::next_segment`].
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.walk.next(self.disk)
    }
}

impl FusedIterator for Segments<&Disk> {}
