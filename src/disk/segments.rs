//! The content of a disk: bytes borrowed from the files, and lengths of zeros.

use std::iter::FusedIterator;
use std::ops::{Deref, RangeBounds};

use crate::error::{Error, Result};
use crate::num::to_u64;
use crate::source::{Bytes, any_lost};
use crate::zero::zero_pages;

use super::Disk;
use super::runs::{Run, Walk};

/// Run of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'d> {
    /// Bytes in a file or rebuilt from its log. They may be zeros.
    Data(&'d [u8]),
    /// Number of zeros that are not in a file.
    Zero(u64),
}

impl<'d> Segment<'d> {
    /// Returns the length in bytes, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Data(bytes) => to_u64(bytes.len()),
            Self::Zero(length) => *length,
        }
    }

    /// Returns the content as slices. Zeros are borrowed from shared pages, piece by piece.
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

    /// Splits the segment into its first `at` bytes and the rest. Returns `None` if one of them would be empty.
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

/// Iterator over the segments of a range, in order, each as long as possible. Made by [`Disk::segments`].
///
/// With `D = &Disk`, this type is an iterator. With other owners of a disk, such as `Arc<Disk>`,
/// [`Segments::next_segment`] returns the segments, each borrowed until the next call.
#[derive(Clone, Debug)]
pub struct Segments<D> {
    disk: D,
    walk: SegmentWalk,
}

#[derive(Clone, Debug)]
struct SegmentWalk {
    walk: Walk,
    /// Data that was not returned yet.
    data: Option<Run>,
    /// Number of zeros that were not returned yet: more may follow.
    zeros: u64,
    /// The run that was borrowed last. The caller may have read it.
    borrowed: Option<Run>,
    /// Error to return after the pending items.
    failed: Option<Error>,
    /// The range of the disk, until all borrowed bytes of it were checked.
    unchecked: Option<(u64, u64)>,
}

impl<D: Deref<Target = Disk>> Segments<D> {
    /// Makes an iterator over the segments of a range of the disk, for any owner of a disk. See [`Disk::segments`].
    pub fn new(disk: D, range: impl RangeBounds<u64>) -> Self {
        let (start, end) = disk.bounds(range);
        let (data, zeros, borrowed, failed) = (None, 0, None, None);
        let walk = Walk::new(start, end);
        Self { disk, walk: SegmentWalk { walk, data, zeros, borrowed, failed, unchecked: Some((start, end)) } }
    }

    /// Returns the next segment. An error is the last item. It is an error if a part of the previous segment was lost
    /// while the caller read it; after the last segment, all segments are checked.
    #[inline]
    pub fn next_segment(&mut self) -> Option<Result<Segment<'_>>> {
        self.walk.next(&self.disk)
    }
}

impl SegmentWalk {
    /// Returns the error if any borrowed byte was lost. Checked once, after the last segment.
    fn check_all(&mut self, disk: &Disk) -> Option<Error> {
        let (start, end) = self.unchecked.take()?;
        disk.check_borrowed(start..end, disk.layers().len()).err()
    }

    /// Checks that the bytes that were borrowed last were not lost when the caller read them.
    #[cold]
    fn check_borrowed(&mut self, disk: &Disk) -> Result<()> {
        match self.borrowed.take() {
            Some(run) => disk.check_run(&run),
            None => Ok(()),
        }
    }

    /// Keeps an error, to be returned after the pending items. If borrowed bytes were lost, that is the error.
    #[cold]
    fn fail(&mut self, disk: &Disk, error: Error) {
        self.failed = Some(self.check_all(disk).unwrap_or(error));
    }

    fn end(&mut self) {
        self.unchecked = None;
        self.walk = Walk::new(0, 0);
        self.data = None;
    }

    /// Returns the zeros that were not returned yet.
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
                        self.fail(disk, error);
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
                    self.fail(disk, error);
                    self.end();
                }
            }
        }
    }
}

impl<'d> Iterator for Segments<&'d Disk> {
    type Item = Result<Segment<'d>>;

    /// Calls [`Segments::next_segment`].
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.walk.next(self.disk)
    }
}

impl FusedIterator for Segments<&Disk> {}
