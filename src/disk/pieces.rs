//! Segments in pieces of limited length.

use crate::error::Result;

use super::{Disk, Segment, Segments};

/// Segments are cut at multiples of this number of bytes of the disk: 8 MiB. So one long run keeps several threads
/// busy, and the cuts do not depend on the threads.
pub(super) const SEGMENT_GRAIN: u64 = 8 << 20;

/// Segments of a range with their offsets in the disk, cut at multiples of [`SEGMENT_GRAIN`].
#[derive(Debug)]
pub(super) struct Pieces<'d> {
    segments: Segments<&'d Disk>,
    position: u64,
    rest: Option<Segment<'d>>,
}

impl<'d> Pieces<'d> {
    pub(super) fn new(disk: &'d Disk, start: u64, end: u64) -> Self {
        Self { segments: disk.segments(start..end), position: start, rest: None }
    }
}

impl<'d> Iterator for Pieces<'d> {
    type Item = Result<(u64, Segment<'d>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let segment = match self.rest.take() {
            Some(rest) => rest,
            None => match self.segments.next()? {
                Ok(segment) => segment,
                Err(error) => return Some(Err(error)),
            },
        };
        let position = self.position;
        let cut = position.saturating_add(1).next_multiple_of(SEGMENT_GRAIN).saturating_sub(position);
        let piece = match segment.split_at(cut) {
            Some((piece, remaining)) => {
                self.rest = Some(remaining);
                piece
            }
            None => segment,
        };
        self.position = position.saturating_add(piece.len());
        Some(Ok((position, piece)))
    }
}
