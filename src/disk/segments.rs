//! The content of a disk: bytes lent from the files, and lengths of zeros.

use std::iter::FusedIterator;

use crate::error::{Error, Result, Structure};
use crate::num::to_u64;
use crate::source::{Run, any_lost};
use crate::zero::zero_pages;

use super::chain::Layer;
use super::cursor::{Content, Cursor, Piece};
use super::runs::Pieces;

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

/// The segments of a range, in order, each as long as can be. Made by [`Disk::segments`](super::Disk::segments).
#[derive(Debug)]
pub struct Segments<'d> {
    disk: &'d super::Disk,
    pieces: Pieces<'d>,
    /// Data whose bytes have not been lent yet.
    data: Option<Piece>,
    /// Zeros that have not been handed out yet: more may follow.
    zeros: u64,
    /// What was lent last. Somebody may have looked at it.
    lent: &'d [u8],
    /// Why there is nothing behind them.
    failed: Option<Error>,
    /// The range of the disk, until somebody has asked whether all that was lent of it was really there.
    unchecked: Option<(u64, u64)>,
}

impl<'d> Segments<'d> {
    pub(super) fn new(disk: &'d super::Disk, start: u64, end: u64) -> Self {
        let pieces = Pieces::new(Cursor::new(disk, start, end));
        Self { disk, pieces, data: None, zeros: 0, lent: &[], failed: None, unchecked: Some((start, end)) }
    }

    /// What was lost of all that was lent, if something was. Asked once, behind the last segment.
    fn check_all(&mut self) -> Option<Error> {
        let (start, end) = self.unchecked.take()?;
        self.disk.check_lost(start..end).err()
    }

    /// The bytes at the beginning of a piece.
    #[inline]
    fn bytes(&self, piece: &Piece) -> Result<Run<'d>> {
        match (self.disk.layer_image(piece.layer), piece.content) {
            (Some(image), Content::File(offset) | Content::Log(offset)) => {
                let run = image.run(offset, piece.length).map_err(|error| error.in_layer(piece.layer, image.path()));
                if let (Ok(Run::Data(bytes)), Content::File(_)) = (&run, piece.content) {
                    // The borrower may go through them.
                    image.source().will_walk(offset, offset.saturating_add(to_u64(bytes.len())));
                }
                run
            }
            _ => Ok(Run::Zero(piece.length)),
        }
    }

    /// That what was lent last was not lost when somebody looked at it.
    #[cold]
    fn check_lent(&mut self) -> Result<()> {
        let lent = std::mem::take(&mut self.lent);
        let mut layers = self.disk.layers().iter().map(Layer::image).enumerate();
        layers.try_for_each(|(layer, image)| match image.source().place_of(lent) {
            Some(offset) => {
                let checked = image.source().check(Structure::File, offset, to_u64(lent.len()));
                checked.map_err(|error| error.in_layer(layer, image.path()))
            }
            // It is another layer's, or from a log.
            None => Ok(()),
        })
    }

    fn end(&mut self) {
        self.unchecked = None;
        self.pieces = Pieces::new(Cursor::new(self.disk, 0, 0));
        self.data = None;
    }

    /// The zeros that are not handed out yet.
    #[inline]
    fn take_zeros(&mut self) -> Option<Segment<'d>> {
        let length = std::mem::take(&mut self.zeros);
        (length > 0).then_some(Segment::Zero(length))
    }
}

impl<'d> Iterator for Segments<'d> {
    type Item = Result<Segment<'d>>;

    /// The next segment. An error is the last item, and comes after all that is good before it. If a part of the segment
    /// before was lost while it was looked at, that is the error; behind the last segment, the same is asked for all of them.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if any_lost()
            && let Err(error) = self.check_lent()
        {
            self.end();
            return Some(Err(error));
        }
        loop {
            if self.failed.is_some() {
                return self.take_zeros().map(Ok).or_else(|| self.failed.take().map(Err));
            }
            let piece = match self.data.take() {
                Some(piece) => piece,
                None => match self.pieces.next() {
                    Some(Ok(piece)) => piece,
                    Some(Err(error)) => {
                        self.unchecked = None;
                        self.failed = Some(error);
                        continue;
                    }
                    None => return self.take_zeros().map(Ok).or_else(|| self.check_all().map(Err)),
                },
            };
            match self.bytes(&piece) {
                Ok(Run::Data(_)) if self.zeros > 0 => {
                    self.data = Some(piece);
                    return self.take_zeros().map(Ok);
                }
                Ok(Run::Data(bytes)) => {
                    self.lent = bytes;
                    self.data = piece.behind(to_u64(bytes.len()));
                    return Some(Ok(Segment::Data(bytes)));
                }
                Ok(Run::Zero(length)) => {
                    self.data = piece.behind(length);
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

impl FusedIterator for Segments<'_> {}
