//! The plan of work on whole disks: the data to process, cut into units of equal length.
//!
//! A disk can have more runs than memory can hold (for instance, every other sector may be one), so the plan is made
//! window by window. Units are cut at the same positions for any number of threads, layers or files: at multiples of
//! [`UNIT`], counted from the beginning of the input.

use std::path::Path;

use crate::error::{Error, Result};

use super::input::{Input, Origin, Piece, Pieces};

/// Largest length of a unit, in bytes: large enough that work done once for each unit does not matter, and small enough
/// that its bytes stay in the cache of a core from one step to the next.
pub(crate) const UNIT: u64 = 1 << 20;

/// Largest number of runs, and of units, in a window. May be exceeded by one unit.
const MOST_PIECES: usize = 1 << 16;

/// Shorter holes of a file, in bytes, are read like data.
const MIN_HOLE: u64 = 64 << 10;

/// A run of bytes that is contiguous in each of `N` inputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct AlignedRun<'a, const N: usize> {
    pub(super) length: u64,
    /// Each of this length.
    pub(super) pieces: [Piece<'a>; N],
}

impl<const N: usize> AlignedRun<'_, N> {
    /// Returns whether there is nothing to read: zeros that are not in a file in all inputs, or the same bytes of the
    /// same file.
    fn is_idle(&self) -> bool {
        let all_zero = self.pieces.iter().all(|piece| matches!(piece.origin, Origin::Zero));
        all_zero
            || (N > 1 && self.pieces.iter().zip(self.pieces.iter().skip(1)).all(|(one, other)| is_same(one, other)))
    }
}

fn is_same(one: &Piece<'_>, other: &Piece<'_>) -> bool {
    match (one.origin, other.origin) {
        (Origin::File(source, offset), Origin::File(other_source, other_offset)) => {
            // A salvage has zeros where the other one fails.
            offset == other_offset
                && source.is_salvaged() == other_source.is_salvaged()
                && source.is_same_as(other_source.source())
        }
        _ => false,
    }
}

/// `N` inputs side by side, the shorter ones followed by zeros.
struct Zip<'a, const N: usize> {
    sides: [Side<'a>; N],
}

struct Side<'a> {
    path: Option<&'a Path>,
    pieces: Pieces<'a>,
    piece: Option<Piece<'a>>,
}

impl<'a, const N: usize> Zip<'a, N> {
    fn next(&mut self) -> Option<Result<AlignedRun<'a, N>>> {
        for side in &mut self.sides {
            if side.piece.is_none() {
                match side.pieces.next().transpose() {
                    Ok(piece) => side.piece = piece,
                    Err(error) => return Some(Err(error.in_file(side.path))),
                }
            }
        }
        let length = self.sides.iter().filter_map(|side| side.piece).map(|piece| piece.length).min()?;
        let zero = Piece { length, layer: 0, origin: Origin::Zero };
        let pieces = self.sides.each_ref().map(|side| side.piece.map_or(zero, |piece| Piece { length, ..piece }));
        for side in &mut self.sides {
            side.piece = side.piece.and_then(|piece| piece.after(length));
        }
        Some(Ok(AlignedRun { length, pieces }))
    }
}

/// A unit of work: at most [`UNIT`] bytes, unless there is nothing to read in it.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// Start, counted from the beginning of the input.
    pub(super) start: u64,
    pub(super) length: u64,
    /// Indices of its pieces in the window. Empty for a unit with nothing to read.
    pub(super) pieces: std::ops::Range<usize>,
    /// Whether its bytes were not in the page cache when the plan was made. Only determined on request.
    pub(super) was_cold: bool,
}

impl Unit {
    pub(super) fn is_idle(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// A part of the plan.
#[derive(Debug, Default)]
pub(super) struct Window<'a> {
    /// The pieces of every run, one after the other of each input.
    pieces: Vec<Piece<'a>>,
    /// In the order of the input.
    pub(super) units: Vec<Unit>,
    /// Number of bytes to read.
    data: u64,
}

impl<'a> Window<'a> {
    /// Returns a unit, and the pieces of its runs, one after the other of each input.
    #[expect(clippy::indexing_slicing, reason = "numbers of units come from this window")]
    pub(super) fn unit(&self, index: usize) -> (&Unit, &[Piece<'a>]) {
        let unit = &self.units[index];
        (unit, self.pieces.get(unit.pieces.clone()).unwrap_or_default())
    }

    /// Returns the indices of the units with work, in the order of the input.
    pub(super) fn in_order(&self) -> Vec<usize> {
        let has_work = |index: &usize| self.units.get(*index).is_some_and(|unit| !unit.is_idle());
        (0..self.units.len()).filter(has_work).collect()
    }

    /// Returns the indices of the units with work, in the order of their bytes in the files.
    pub(super) fn in_file_order(&self) -> Vec<usize> {
        let mut order = self.in_order();
        order.sort_by_cached_key(|index| self.unit(*index).1.iter().find_map(Piece::in_file));
        order
    }
}

/// How a plan is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planning {
    /// Number of bytes to read in one window. May be exceeded by one unit.
    pub(super) window: u64,
    /// Whether zeros are visited, too: they are cut into units then.
    pub(super) visit_zeros: bool,
    /// Whether to determine which data is in the page cache.
    pub(super) find_cold: bool,
}

/// Makes the plan of work on `N` inputs of the same length, side by side.
pub(super) struct Planner<'a, const N: usize> {
    zip: Zip<'a, N>,
    planning: Planning,
    position: u64,
    pending: Option<AlignedRun<'a, N>>,
    failed: Option<Error>,
    is_done: bool,
}

impl<'a, const N: usize> Planner<'a, N> {
    pub(super) fn new(inputs: [Input<'a>; N], planning: Planning) -> Self {
        let sides = inputs.map(|input| Side { path: input.path(), pieces: input.pieces(), piece: None });
        Self { zip: Zip { sides }, planning, position: 0, pending: None, failed: None, is_done: false }
    }

    /// Returns the next window. An error comes after all valid windows.
    pub(super) fn next_window(&mut self) -> Option<Result<Window<'a>>> {
        let mut window = Window::default();
        let mut open = UnitBuilder::at(self.position);
        while !self.is_done {
            if open.is_empty() && self.is_full(&window) {
                break;
            }
            match self.next_run() {
                Some(Ok(run)) => {
                    self.position = self.position.saturating_add(run.length);
                    open.add(&mut window, run);
                    if self.position.is_multiple_of(UNIT) {
                        open.close(&mut window, self.planning, self.position);
                    }
                }
                Some(Err(error)) => (self.failed, self.is_done) = (Some(error), true),
                None => self.is_done = true,
            }
        }
        open.close(&mut window, self.planning, self.position);
        if window.units.is_empty() { self.failed.take().map(Err) } else { Some(Ok(window)) }
    }

    fn is_full(&self, window: &Window<'a>) -> bool {
        window.data >= self.planning.window || window.pieces.len() >= MOST_PIECES || window.units.len() >= MOST_PIECES
    }

    /// Returns the next run: within one unit, or as many whole units as there are with nothing to read.
    fn next_run(&mut self) -> Option<Result<AlignedRun<'a, N>>> {
        let whole = match self.pending.take() {
            Some(run) => run,
            None => match self.zip.next()? {
                Ok(run) => run,
                Err(error) => return Some(Err(error)),
            },
        };
        let in_unit = UNIT.saturating_sub(self.position & UNIT.saturating_sub(1));
        let mut length = whole.length;
        let mut pieces = whole.pieces;
        for piece in &mut pieces {
            if let Origin::File(source, offset) = piece.origin
                && length >= MIN_HOLE
            {
                match source.hole_end(offset, offset.saturating_add(length)).saturating_sub(offset) {
                    0 => {}
                    hole => (piece.origin, length) = (Origin::Zero, hole),
                }
            }
        }
        let mut run = AlignedRun { length, pieces };
        let is_long = in_unit == UNIT && length >= UNIT && run.is_idle() && !self.planning.visit_zeros;
        run.length = if is_long { length & !UNIT.saturating_sub(1) } else { length.min(in_unit) };
        run.pieces = run.pieces.map(|piece| Piece { length: run.length, ..piece });
        if let Some(left) = whole.length.checked_sub(run.length).filter(|left| *left > 0) {
            let after = |piece: Piece<'a>| Piece { length: left, origin: piece.origin.after(run.length), ..piece };
            self.pending = Some(AlignedRun { length: left, pieces: whole.pieces.map(after) });
        }
        Some(Ok(run))
    }
}

/// A unit in the making.
struct UnitBuilder {
    start: u64,
    first: Option<usize>,
    is_idle: bool,
}

impl UnitBuilder {
    fn at(start: u64) -> Self {
        Self { start, first: None, is_idle: true }
    }

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn add<'a, const N: usize>(&mut self, window: &mut Window<'a>, run: AlignedRun<'a, N>) {
        self.first.get_or_insert(window.pieces.len());
        let is_idle = run.is_idle();
        if !is_idle {
            window.data = window.data.saturating_add(run.length);
        }
        self.is_idle &= is_idle;
        window.pieces.extend_from_slice(&run.pieces);
    }

    /// Adds the unit to the window, if it is not empty, and begins the next one.
    fn close(&mut self, window: &mut Window<'_>, planning: Planning, end: u64) {
        let Self { start, first, is_idle } = std::mem::replace(self, Self::at(end));
        let Some(first) = first else { return };
        let mut pieces = first..window.pieces.len();
        let length = end.saturating_sub(start);
        if is_idle && !planning.visit_zeros {
            window.pieces.truncate(first);
            if let Some(before) = window.units.last_mut().filter(|unit| unit.is_idle()) {
                before.length = before.length.saturating_add(length);
                return;
            }
            pieces = 0..0;
        }
        let was_cold = planning.find_cold
            && window
                .pieces
                .get(pieces.clone())
                .unwrap_or_default()
                .iter()
                .any(|piece| matches!(piece.origin, Origin::File(source, offset) if !source.is_cached(offset)));
        window.units.push(Unit { start, length, pieces, was_cold });
    }
}
