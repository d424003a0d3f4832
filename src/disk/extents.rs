//! The map of a disk: what lies where, without a look at the content.

use std::iter::{FusedIterator, Peekable};

use crate::error::Result;
use crate::format::PayloadBlockState;

use super::cursor::{Content, Cursor, Piece};

/// A run of the disk, all of it in one layer, in one state, and, if it is data, in one piece in the file.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the disk, in bytes.
    pub start: u64,
    /// Length in bytes, at least 1.
    pub length: u64,
    /// The layer that answers for it: 0 is the image that was opened.
    pub layer: usize,
    /// Where its bytes begin in that layer's file, in bytes; none for zeros, and for what is not in its place in the file.
    pub file_offset: Option<u64>,
    /// Whether its bytes are not in their place in the file, since the layer's log holds them.
    pub in_log: bool,
    /// The state of the layer's payload blocks; none behind the end of a parent that is smaller than its child.
    pub state: Option<PayloadBlockState>,
    /// Whether it can't be read, and is taken for zeros: only in a disk that is being salvaged.
    pub is_lost: bool,
}

impl Extent {
    /// Whether a file or its log holds bytes for it. Everything else reads as zeros.
    #[must_use]
    pub fn is_data(&self) -> bool {
        self.file_offset.is_some() || self.in_log
    }

    /// Whether some layer has decided what it reads as, be it data or zeros. What is not present is zero because nobody
    /// ever wrote to it.
    #[must_use]
    pub fn is_present(&self) -> bool {
        !matches!(self.state, None | Some(PayloadBlockState::NotPresent))
    }
}

/// The extents of a range, in order, each as long as can be. Made by [`Disk::extents`](super::Disk::extents).
#[derive(Debug)]
pub struct Extents<'d> {
    pieces: Peekable<Cursor<'d>>,
}

impl<'d> Extents<'d> {
    pub(super) fn new(cursor: Cursor<'d>) -> Self {
        Self { pieces: cursor.peekable() }
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut run = match self.pieces.next()? {
            Ok(piece) => piece,
            Err(error) => return Some(Err(error)),
        };
        while let Some(Ok(next)) = self.pieces.next_if(|next| next.as_ref().is_ok_and(|next| is_one(&run, next))) {
            run.length = run.length.saturating_add(next.length);
        }
        let Piece { start, length, layer, state, content } = run;
        let file_offset = match content {
            Content::File(offset) => Some(offset),
            Content::Log(_) | Content::Zero | Content::Lost => None,
        };
        let in_log = matches!(content, Content::Log(_));
        let is_lost = content == Content::Lost;
        Some(Ok(Extent { start, length, layer, file_offset, in_log, state, is_lost }))
    }
}

impl FusedIterator for Extents<'_> {}

fn is_one(run: &Piece, next: &Piece) -> bool {
    let is_alike = |content| run.content == content && next.content == content;
    let both_zero = is_alike(Content::Zero) || is_alike(Content::Lost);
    (run.goes_on_in(next) || both_zero) && run.layer == next.layer && run.state == next.state
}
