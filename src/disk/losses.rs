//! Lost ranges of a disk.

use std::iter::FusedIterator;
use std::ops::Range;

use crate::error::{Error, ErrorKind, Structure};

use super::Disk;
use super::runs::{Location, Run, Walk};

/// Lost range of a disk: it cannot be read.
#[non_exhaustive]
#[derive(Debug)]
pub struct Loss {
    /// The range, in bytes of the disk.
    pub range: Range<u64>,
    /// Reason for the loss. Neighbouring ranges with reasons of one kind, such as BAT entries in the same state, are
    /// one loss with the reason of the first range.
    pub reason: Error,
}

/// Iterator over the lost ranges of a range, in order. Made by [`Disk::losses`].
#[derive(Debug)]
pub struct Losses<'d> {
    disk: &'d Disk,
    walk: Walk,
    /// Rest of a run of which a part is lost.
    rest: Option<Run>,
    /// A loss that may continue in the next range.
    pending: Option<Loss>,
    /// End of the last loss.
    listed_to: u64,
}

impl<'d> Losses<'d> {
    pub(super) fn new(disk: &'d Disk, start: u64, end: u64) -> Self {
        Self { disk, walk: Walk::new(start, end), rest: None, pending: None, listed_to: start }
    }

    /// Returns the next loss, not joined with its neighbours.
    fn next_one(&mut self) -> Option<Loss> {
        loop {
            let run = match self.rest.take() {
                Some(rest) => rest,
                None => match self.walk.next(self.disk)? {
                    Ok(run) => run,
                    // The map is unknown from here on.
                    Err(reason) => {
                        let unknown = self.walk.unknown();
                        return Some(Loss { range: unknown.start.max(self.listed_to)..unknown.end, reason });
                    }
                },
            };
            match run.at {
                Location::Lost => {
                    let unknown = || Error::of(Structure::Disk, ErrorKind::NoParentAttached);
                    let reason = self.walk.take_lost().unwrap_or_else(unknown);
                    return Some(Loss { range: run.start..run.end(), reason });
                }
                Location::File(offset) => {
                    let layer = self.disk.layers().get(run.layer)?;
                    if let Some(lost) = layer.first_unread(offset, run.len) {
                        let start = run.start.saturating_add(lost.start.saturating_sub(offset));
                        let end = run.start.saturating_add(lost.end.saturating_sub(offset));
                        self.rest = run.after(end.saturating_sub(run.start));
                        let reason = Error::at(Structure::File, lost.start, ErrorKind::MediumFailed);
                        let reason = reason.in_layer(run.layer, layer.image().path());
                        return Some(Loss { range: start..end, reason });
                    }
                }
                Location::Log(_) | Location::Zero => {}
            }
        }
    }
}

impl Iterator for Losses<'_> {
    type Item = Loss;

    /// Returns the next loss. Neighbours whose reasons differ only in their locations are joined.
    fn next(&mut self) -> Option<Loss> {
        loop {
            let next = self.next_one();
            self.listed_to = next.as_ref().map_or(self.listed_to, |loss| loss.range.end);
            match (self.pending.take(), next) {
                (None, None) => return None,
                (Some(before), None) => return Some(before),
                (None, Some(next)) => self.pending = Some(next),
                (Some(mut before), Some(next)) => {
                    let goes_on = before.range.end == next.range.start && is_same(&before.reason, &next.reason);
                    if !goes_on {
                        self.pending = Some(next);
                        return Some(before);
                    }
                    before.range.end = next.range.end;
                    self.pending = Some(before);
                }
            }
        }
    }
}

impl FusedIterator for Losses<'_> {}

/// Returns whether two reasons are equal except for their locations. A table may be damaged from end to end, and a loss
/// for each of its entries would be of no use.
fn is_same(one: &Error, other: &Error) -> bool {
    use ErrorKind::{
        Io, Lost, MediumFailed, NoParentAttached, NoSectorBitmap, OutOfBounds, Overlap, PartiallyPresentWithoutParent,
        ReservedState,
    };

    let is_one = match (one.kind(), other.kind()) {
        (NoParentAttached, NoParentAttached)
        | (MediumFailed, MediumFailed)
        | (Lost, Lost)
        | (PartiallyPresentWithoutParent, PartiallyPresentWithoutParent) => true,
        (Io(cause), Io(other)) => cause.kind() == other.kind(),
        (ReservedState { state }, ReservedState { state: other })
        | (NoSectorBitmap { state }, NoSectorBitmap { state: other }) => state == other,
        (OutOfBounds { limit, .. }, OutOfBounds { limit: other, .. }) => limit == other,
        (Overlap { with, .. }, Overlap { with: other, .. }) => is_same_sort(*with, *other),
        _ => one.offset() == other.offset() && one.to_string() == other.to_string(),
    };
    is_one && one.layer() == other.layer() && is_same_sort(one.structure(), other.structure())
}

/// Returns whether two structures are of the same kind.
fn is_same_sort(one: Structure, other: Structure) -> bool {
    use Structure::{BitmapBatEntry, PayloadBatEntry, PayloadBlock, SectorBitmap};

    match (one, other) {
        (PayloadBatEntry(_), PayloadBatEntry(_))
        | (BitmapBatEntry(_), BitmapBatEntry(_))
        | (PayloadBlock(_), PayloadBlock(_))
        | (SectorBitmap(_), SectorBitmap(_)) => true,
        _ => one == other,
    }
}
