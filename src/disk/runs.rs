//! The content of a disk as places in files: what bulk work is planned from, without a look at the content.

use std::iter::Peekable;

use crate::error::Result;
use crate::num::{to_u64, to_usize_saturating};
use crate::source::{SourceRef, Stored};

use super::Disk;
use super::cursor::{Content, Cursor, Piece};

/// The pieces of a range, those of data with all that follow them in the same file.
#[derive(Debug)]
pub(super) struct Pieces<'d>(Peekable<Cursor<'d>>);

impl<'d> Pieces<'d> {
    pub(super) fn new(cursor: Cursor<'d>) -> Self {
        Self(cursor.peekable())
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let mut run = match self.0.next()? {
            Ok(piece) => piece,
            Err(error) => return Some(Err(error)),
        };
        while let Some(Ok(next)) = self.0.next_if(|next| next.as_ref().is_ok_and(|next| run.goes_on_in(next))) {
            run.length = run.length.saturating_add(next.length);
        }
        Some(Ok(run))
    }
}

/// Where the bytes of a run are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'d> {
    /// They are zeros, which are nowhere.
    Zero,
    /// In a mapped file, from this offset on.
    File(SourceRef<'d>, u64),
    /// In memory.
    Memory(&'d [u8]),
}

/// A run of content, all of it in one place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlacedRun<'d> {
    /// Length in bytes, at least 1.
    pub(crate) length: u64,
    pub(crate) place: Place<'d>,
    /// The layer of the chain that has it.
    pub(crate) layer: usize,
}

/// The runs of a range, in order. An error is the last item.
#[derive(Debug)]
pub(crate) struct PlacedRuns<'d> {
    disk: &'d Disk,
    pieces: Pieces<'d>,
    /// What is left of the last piece: of what the log holds, only a sector lies together.
    rest: Option<Piece>,
}

impl<'d> PlacedRuns<'d> {
    fn place(&self, piece: &Piece) -> Result<PlacedRun<'d>> {
        let layer = piece.layer;
        let run = |length, place| PlacedRun { length, place, layer };
        let (Some(of), Content::File(offset) | Content::Log(offset)) = (self.disk.layers().get(layer), piece.content)
        else {
            return Ok(run(piece.length, Place::Zero));
        };
        let (image, file) = (of.image(), of.file());
        let stored = image.stored(offset, piece.length).map_err(|error| error.in_layer(layer, image.path()))?;
        Ok(match stored {
            Stored::File(bytes) if file.is_mapped() => run(to_u64(bytes.len()), Place::File(file, offset)),
            Stored::File(bytes) | Stored::Log(bytes) => run(to_u64(bytes.len()), Place::Memory(bytes)),
            Stored::Nowhere(length) => run(length, Place::Zero),
        })
    }
}

impl<'d> Iterator for PlacedRuns<'d> {
    type Item = Result<PlacedRun<'d>>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = match self.rest.take() {
            Some(rest) => rest,
            None => match self.pieces.next()? {
                Ok(piece) => piece,
                Err(error) => return Some(Err(error)),
            },
        };
        let placed = self.place(&piece);
        if let Ok(run) = &placed {
            self.rest = piece.behind(run.length);
        }
        Some(placed)
    }
}

impl Disk {
    /// The places of a range of bytes of the disk, in order.
    pub(crate) fn placed_runs(&self, start: u64, end: u64) -> PlacedRuns<'_> {
        PlacedRuns { disk: self, pieces: Pieces::new(self.cursor(start..end)), rest: None }
    }
}

impl Place<'_> {
    /// The place of what comes `length` bytes behind.
    pub(crate) fn behind(self, length: u64) -> Self {
        match self {
            Self::Zero => Self::Zero,
            Self::File(source, offset) => Self::File(source, offset.saturating_add(length)),
            Self::Memory(bytes) => Self::Memory(bytes.get(to_usize_saturating(length)..).unwrap_or_default()),
        }
    }
}
