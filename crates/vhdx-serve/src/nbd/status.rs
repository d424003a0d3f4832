//! `NBD_CMD_BLOCK_STATUS`: the map of an export.

use std::ops::Range;

use vhdx_mmap::{ErrorKind, Location, PayloadBlockState, Result, Run};

use super::MAX_EXTENTS;
use crate::Export;

/// What `NBD_CMD_BLOCK_STATUS` can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    Allocation,
    Layer,
}

impl Context {
    pub(super) const ALL: [Self; 2] = [Self::Allocation, Self::Layer];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Allocation => "base:allocation",
            Self::Layer => "vhdx:layer",
        }
    }

    pub(super) const fn id(self) -> u32 {
        match self {
            Self::Allocation => 1,
            Self::Layer => 2,
        }
    }
}

/// Most runs that are looked at for one reply.
const MOST_RUNS: usize = 1 << 20;

/// Returns lengths and statuses of a range that is not empty, from its start on: at most the whole range, at least one.
/// Neighbours differ.
pub(super) fn extents(export: &Export, range: Range<u64>, context: Context, is_one: bool) -> Result<Vec<(u64, u32)>> {
    let past = range.end;
    extents_past(export, range, past, context, is_one)
}

/// Returns what [`extents`] returns, with a last one that may go on past the range, up to `past`.
fn extents_past(
    export: &Export,
    range: Range<u64>,
    past: u64,
    context: Context,
    is_one: bool,
) -> Result<Vec<(u64, u32)>> {
    let mut found: Vec<(u64, u32)> = Vec::new();
    let (mut at, mut looked_at) = (range.start, 0_usize);
    // Each pass ends with the range, with what may follow it, with a limit, or at a block that cannot be read.
    while at < past {
        let (from, border) = (at, if at < range.end { range.end } else { past });
        let mut stopped = false;
        for run in export.range().extents(at..border) {
            looked_at = looked_at.saturating_add(1);
            let (end, status) = match &run {
                Ok(run) => (run.end(), status(run, context)),
                // Lost tables: what was found before may be wrong, too.
                Err(error) if matches!(error.kind(), ErrorKind::Lost) => return Err(error.clone()),
                // A read of this block fails, later ones may not.
                Err(error) => (export.end_of_block(at, border), unreadable(error.layer(), context)),
            };
            let is_same = found.last().is_some_and(|(_, last)| *last == status);
            let is_too_much = found.len() >= if is_one { 1 } else { MAX_EXTENTS } || at >= range.end;
            if is_too_much && !is_same || looked_at > MOST_RUNS {
                stopped = true;
                break;
            }
            let length = end.saturating_sub(at);
            match found.last_mut() {
                Some((before, _)) if is_same => *before = before.saturating_add(length),
                _ => found.push((length, status)),
            }
            at = end;
        }
        if stopped {
            // A walk checks at its end that the tables were read as they are in the files, and this one had no end.
            for run in export.range().extents(from..at) {
                if let Err(error) = run
                    && matches!(error.kind(), ErrorKind::Lost)
                {
                    return Err(error);
                }
            }
            break;
        }
    }
    Ok(found)
}

/// Shortest request whose reply may go on past its range: shorter ones are of clients that read what they ask for.
const LONG: u64 = 1 << 30;

/// Longest extent that a reply with 32 bits for it has: a multiple of every sector size.
const MOST_32: u64 = 0xffff_0000;

/// How far past a long range its last extent is followed: requests for the rest of it need no walk of their own.
const AHEAD: u64 = 1 << 37;

/// Extents for replies whose lengths have 32 bits. A client that asks for the map of a large disk asks thousands of
/// times, mostly for the rest of one extent, so the last one that was found is kept.
#[derive(Debug, Default)]
pub(super) struct ShortExtents {
    /// The last extent of the last long range in each context.
    last: Vec<(Context, Range<u64>, u32)>,
}

impl ShortExtents {
    /// Returns what [`extents`] returns. The last extent may go on past a long range, as the protocol allows: a client
    /// that asks for the map of a large disk needs half as many requests.
    pub(super) fn of(&mut self, export: &Export, range: Range<u64>, context: Context) -> Result<Vec<(u64, u32)>> {
        let length = range.end.saturating_sub(range.start);
        if length < LONG {
            return extents(export, range, context, false);
        }
        let mut found = match self.known(export, &range, context) {
            Some(extent) => vec![extent],
            None => {
                let past = range.end.saturating_add(AHEAD).min(export.range().size());
                let found = extents_past(export, range.clone(), past, context, false)?;
                self.keep(range.start, &found, context);
                found
            }
        };
        let sum = found.iter().fold(0_u64, |sum, (length, _)| sum.saturating_add(*length));
        let Some((last, status)) = found.last_mut().filter(|_| sum > length) else { return Ok(found) };
        // Only what begins inside the range may be in the reply: two extents, if one cannot have this length.
        let (longer, inside) = (*last, last.saturating_sub(sum.saturating_sub(length)));
        let first = inside.saturating_sub(1 << 16);
        if longer <= MOST_32 || first == 0 {
            *last = longer.min(MOST_32).max(inside);
        } else {
            let second = (longer.saturating_sub(first).min(MOST_32), *status);
            *last = first;
            found.push(second);
        }
        Ok(found)
    }

    /// Returns the extent that the range begins with, if it is known and has all of the range.
    fn known(&self, export: &Export, range: &Range<u64>, context: Context) -> Option<(u64, u32)> {
        let (_, extent, status) = self.last.iter().find(|(of, ..)| *of == context)?;
        let has_all = extent.start <= range.start && range.end <= extent.end;
        // The tables of a file that has become shorter are read again, and those of a salvage always: what they have
        // lost is no error there.
        let is_valid =
            has_all && !export.range().disk().is_salvaged() && export.range().check_lost(range.clone()).is_ok();
        is_valid.then(|| (extent.end.saturating_sub(range.start), *status))
    }

    fn keep(&mut self, start: u64, found: &[(u64, u32)], context: Context) {
        self.last.retain(|(of, ..)| *of != context);
        let Some(((length, status), before)) = found.split_last() else { return };
        let start = before.iter().fold(start, |at, (length, _)| at.saturating_add(*length));
        self.last.push((context, start..start.saturating_add(*length), *status));
    }
}

fn status(run: &Run, context: Context) -> u32 {
    match context {
        // NBD_STATE_HOLE and NBD_STATE_ZERO.
        Context::Allocation if run.at == Location::Zero => 3,
        Context::Allocation => 0,
        Context::Layer => layer_status(run),
    }
}

fn unreadable(layer: usize, context: Context) -> u32 {
    match context {
        Context::Allocation => 0,
        Context::Layer => encode(layer, None, 3),
    }
}

/// Returns the status of a run in the context `vhdx:layer`:
///
/// - bits 0 to 15: the layer that defines the content; 0 is the image of the export, 1 its parent;
/// - bits 16 to 18: the state of the block in that layer, as in the BAT: 0 not present, 1 undefined, 2 zero, 3
///   unmapped, 6 fully present, 7 partially present;
/// - bit 19: the state is unknown, and bits 16 to 18 are 0: past the end of a smaller parent, or lost;
/// - bits 20 and 21: the location of the bytes: 0 file, 1 log, 2 unallocated (zeros), 3 cannot be read.
#[must_use]
pub fn layer_status(run: &Run) -> u32 {
    let location = match run.at {
        Location::File(_) => 0,
        Location::Log(_) => 1,
        Location::Zero => 2,
        _ => 3,
    };
    encode(run.layer, run.state, location)
}

fn encode(layer: usize, state: Option<PayloadBlockState>, location: u32) -> u32 {
    let layer = u32::try_from(layer).unwrap_or(u32::MAX).min(0xffff);
    let state = match state {
        Some(PayloadBlockState::NotPresent) => 0,
        Some(PayloadBlockState::Undefined) => 1,
        Some(PayloadBlockState::Zero) => 2,
        Some(PayloadBlockState::Unmapped) => 3,
        Some(PayloadBlockState::FullyPresent) => 6,
        Some(PayloadBlockState::PartiallyPresent) => 7,
        _ => 8,
    };
    layer | state << 16 | location << 20
}
