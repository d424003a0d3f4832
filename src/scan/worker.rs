//! Getting at the bytes of a unit: lent by the mapping, or read into memory of the worker's own.

use crate::disk::{Place, Segment};
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::{to_u64, to_usize_saturating};
use crate::source::{Buffer, SourceRef, any_lost, whole_pages};

use super::behind::Left;
use super::plan::{Stretch, UNIT};

/// How bytes that are in a mapped file are got at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Lent by the mapping where the system has them in memory, read where it does not: what is fastest if they are looked
    /// at once. Reading keeps the medium busier than page faults do, and makes the system keep them in larger pages.
    Lend,
    /// Always read: what is fastest if they are to be copied anyhow, since no page has to be mapped for it.
    Read,
}

/// What a worker reads into memory of its own for one unit, at most: what is beyond is lent all the same. Only a unit whose
/// sectors come from many layers has so much.
const MOST_READ: u64 = 16 * UNIT;

/// Runs that lie closer to each other than this are read as one piece.
const MOST_GAP: u64 = 64 << 10;

/// A part of a file in which bytes of a unit lie.
#[derive(Debug)]
struct Hull<'a> {
    source: SourceRef<'a>,
    layer: usize,
    start: u64,
    end: u64,
    /// Where in the memory of the worker it was read to; none if the mapping lends it.
    read_to: Option<usize>,
}

impl Hull<'_> {
    fn length(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Reads only what the unit has in it, to where it lies in `memory`.
    fn read_apart<const N: usize>(&self, stretches: &[Stretch<'_, N>], memory: &mut [u8]) -> Result<()> {
        for stretch in stretches {
            for place in stretch.places {
                let Place::File(source, offset) = place else { continue };
                if self.contains(source, offset, stretch.length) {
                    let at = to_usize_saturating(offset.saturating_sub(self.start));
                    let end = at.saturating_add(to_usize_saturating(stretch.length));
                    source.read_exact_at(offset, memory.get_mut(at..end).unwrap_or_default())?;
                }
            }
        }
        Ok(())
    }

    /// Hulls may overlap, so one that has the first byte need not have the last.
    fn contains(&self, source: SourceRef<'_>, offset: u64, length: u64) -> bool {
        self.source.is(source) && self.start <= offset && offset.saturating_add(length) <= self.end
    }
}

/// The bytes of a unit in each of `N` contents: pieces of equal length side by side, in order.
pub(crate) type Pieces<'b, const N: usize> = Vec<[Segment<'b>; N]>;

/// A worker's hold of the bytes of one unit.
#[derive(Debug, Default)]
pub(super) struct Loaded<'a> {
    hulls: Vec<Hull<'a>>,
    read: Buffer,
}

impl<'a> Loaded<'a> {
    /// Takes hold of the bytes of a unit, and lets go of those that were held before.
    pub(super) fn load<const N: usize>(&mut self, stretches: &[Stretch<'a, N>], access: Access) -> Result<()> {
        self.hulls = hulls(stretches);
        let mut needed = 0_usize;
        for hull in &mut self.hulls {
            let end = needed.saturating_add(to_usize_saturating(whole_pages(hull.length())));
            let has_room = to_u64(end) <= MOST_READ;
            let must_read = access == Access::Read || hull.source.is_salvaged();
            let last = hull.end.saturating_sub(1);
            if has_room && (must_read || !hull.source.is_cached(hull.start) || !hull.source.is_cached(last)) {
                hull.read_to = Some(needed);
                needed = end;
            }
        }
        let mut memory = if needed > 0 { self.read.reserve(needed) } else { &mut [] };
        for hull in self.hulls.iter().filter(|hull| hull.read_to.is_some()) {
            let taken = to_usize_saturating(whole_pages(hull.length())).min(memory.len());
            let (piece, rest) = memory.split_at_mut(taken);
            let wanted = piece.get_mut(..to_usize_saturating(hull.length())).unwrap_or_default();
            let read = hull.source.read_exact_at(hull.start, wanted);
            // It may be for what lies between, which is of no interest.
            let read = read.or_else(|_| hull.read_apart(stretches, wanted));
            let file = hull.source.source().path();
            read.map_err(|error| error.in_layer(hull.layer, file).in_file(file.filter(|_| N > 1)))?;
            memory = rest;
        }
        Ok(())
    }

    /// The bytes of the unit that was loaded, which has these stretches.
    pub(super) fn pieces<'b, const N: usize>(&'b self, stretches: &[Stretch<'b, N>]) -> Result<Pieces<'b, N>> {
        stretches.iter().map(|stretch| self.piece(stretch)).collect()
    }

    fn piece<'b, const N: usize>(&'b self, stretch: &Stretch<'b, N>) -> Result<[Segment<'b>; N]> {
        let mut piece = [Segment::Zero(stretch.length); N];
        let length = to_usize_saturating(stretch.length);
        for (segment, place) in piece.iter_mut().zip(stretch.places) {
            let bytes = match place {
                Place::Zero => continue,
                Place::Memory(bytes) => bytes.get(..length),
                Place::File(source, offset) => {
                    let hull = self.hulls.iter().rev().find(|hull| hull.contains(source, offset, stretch.length));
                    match hull.and_then(|hull| Some((hull.read_to?, offset.checked_sub(hull.start)?))) {
                        Some((at, within)) => self.read.get(at.saturating_add(to_usize_saturating(within)), length),
                        None => source.source().in_memory(offset, stretch.length),
                    }
                }
            };
            // Runs lie in their files, so this can't be; if it is, nobody shall get fewer bytes than there are.
            let missing = || ErrorKind::OutOfBounds { length: stretch.length, limit: 0 };
            *segment = Segment::Data(bytes.ok_or_else(|| Error::of(Structure::File, missing()))?);
        }
        Ok(piece)
    }

    /// That nothing was lost of what the mappings lent of the unit that was loaded, which has these stretches. Asked behind a
    /// look at the bytes, it is certain.
    pub(super) fn check<const N: usize>(&self, stretches: &[Stretch<'_, N>]) -> Result<()> {
        self.check_lengths::<N>()?;
        if !any_lost() {
            return Ok(());
        }
        for stretch in stretches {
            for (place, layer) in stretch.places.into_iter().zip(stretch.layers) {
                let Place::File(source, offset) = place else { continue };
                let hull = self.hulls.iter().rev().find(|hull| hull.contains(source, offset, stretch.length));
                if hull.is_some_and(|hull| hull.read_to.is_some()) {
                    continue;
                }
                let file = source.path();
                let checked = source.check(Structure::File, offset, stretch.length);
                checked.map_err(|error| error.in_layer(layer, file).in_file(file.filter(|_| N > 1)))?;
            }
        }
        Ok(())
    }

    /// That no file has become shorter of which the unit has bytes: in its last page, that can't be seen when it is touched.
    fn check_lengths<const N: usize>(&self) -> Result<()> {
        // Files are few, and what a unit has of one is asked for once.
        let mut ends: Vec<(SourceRef<'_>, usize, u64)> = Vec::new();
        for hull in self.hulls.iter().filter(|hull| hull.read_to.is_none()) {
            match ends.iter_mut().find(|(source, ..)| source.is(hull.source)) {
                Some((_, _, end)) => *end = hull.end.max(*end),
                None => ends.push((hull.source, hull.layer, hull.end)),
            }
        }
        ends.into_iter().try_for_each(|(source, layer, end)| {
            let file = source.path();
            let checked = source.check_length(end);
            checked.map_err(|error| error.in_layer(layer, file).in_file(file.filter(|_| N > 1)))
        })
    }

    /// What is not needed any more, since nobody looks at these bytes again; with `uncache`, nor at the system's own copy.
    pub(super) fn leave(&mut self, uncache: bool) -> impl Iterator<Item = Left<'a>> {
        self.hulls.drain(..).filter_map(move |hull| {
            let Hull { source, start, end, .. } = hull;
            let is_lent = hull.read_to.is_none();
            (is_lent || uncache).then_some(Left { source: source.source(), start, end, is_lent, uncache })
        })
    }
}

/// The parts of the files that a unit has bytes in.
fn hulls<'a, const N: usize>(stretches: &[Stretch<'a, N>]) -> Vec<Hull<'a>> {
    let mut hulls: Vec<Hull<'a>> = Vec::new();
    for stretch in stretches {
        for (place, layer) in stretch.places.into_iter().zip(stretch.layers) {
            let Place::File(source, start) = place else { continue };
            let end = start.saturating_add(stretch.length);
            let near = |hull: &&mut Hull<'_>| {
                hull.source.is(source)
                    && start <= hull.end.saturating_add(MOST_GAP)
                    && hull.start <= end.saturating_add(MOST_GAP)
            };
            // From the last one on: the next run of a file mostly lies behind the last one.
            match hulls.iter_mut().rev().find(near) {
                Some(hull) => {
                    hull.start = hull.start.min(start);
                    hull.end = hull.end.max(end);
                }
                None => hulls.push(Hull { source, layer, start, end, read_to: None }),
            }
        }
    }
    hulls
}

/// The bytes of a unit as one slice: lent where they lie together, put together in `whole` where they do not.
pub(crate) fn contiguous<'b>(pieces: &Pieces<'b, 1>, whole: &'b mut Buffer) -> &'b [u8] {
    if let [[Segment::Data(bytes)]] = pieces.as_slice() {
        return bytes;
    }
    let length = pieces.iter().fold(0_u64, |sum, [piece]| sum.saturating_add(piece.len()));
    let all = whole.reserve(to_usize_saturating(length));
    let (length, mut rest) = (all.len(), all);
    for [piece] in pieces {
        let (to, behind) = rest.split_at_mut(to_usize_saturating(piece.len()).min(rest.len()));
        match piece {
            Segment::Data(bytes) => to.copy_from_slice(bytes),
            Segment::Zero(_) => to.fill(0),
        }
        rest = behind;
    }
    whole.get(0, length).unwrap_or_default()
}
