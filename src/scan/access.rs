//! How a worker gets bytes that are in the page cache: borrowed from the mapping, or read into its memory.
//!
//! Which is faster depends on the sizes of the pages in the page cache, and so on the file system, on how the file was
//! written, and on the age of the page cache. So it is measured: the first units try both in turn, the faster way
//! stays, and both are tried again now and then. The result of the work is the same.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::num::to_u64;
use crate::source::Source;
use crate::threads::lock;

use super::input::{Origin, Piece};
use super::options::Access;

/// Number of measured costs of each way that are kept. The median of them decides.
const KEPT: usize = 7;

/// Both ways are tried again after this number of units.
const TRIED_AGAIN: u64 = 64;

/// Units with bytes of more files than this are borrowed.
const MOST_FILES: usize = 4;

/// Largest number of combinations of files that are measured. Units with others are borrowed.
const MOST_COMBINATIONS: usize = 64;

/// Units with fewer bytes in files, in bytes, are not measured: the work done once for each unit counts too much.
const LEAST_MEASURED: u64 = 256 << 10;

/// The costs of both ways in one scan.
#[derive(Debug, Default)]
pub(super) struct AccessMeter<'a> {
    /// For each combination of files that units consist of.
    known: Mutex<Vec<(Files<'a>, Costs)>>,
    /// Cost of giving borrowed pages back, which is done for many units at once. Part of the cost of borrowing.
    release: AtomicU64,
}

/// The mapped files with bytes of a unit, in the order in which they occur in it.
type Files<'a> = Vec<&'a Source>;

/// A unit that is measured.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    files: Files<'a>,
    way: Access,
    bytes: u64,
    begin: Instant,
}

impl<'a> AccessMeter<'a> {
    /// Decides how the bytes of a unit are accessed, if `wanted` allows both ways. The unit is measured if there is a
    /// trial, which has begun.
    pub(super) fn choose(&self, pieces: &[Piece<'a>], wanted: Access) -> (Access, Option<Trial<'a>>) {
        if wanted == Access::Read {
            return (wanted, None);
        }
        let Some((files, bytes)) = mapped_files(pieces) else { return (wanted, None) };
        let Some((way, is_measured)) = self.next_way(&files) else { return (wanted, None) };
        if !is_measured || bytes < LEAST_MEASURED {
            return (way, None);
        }
        // Reading from the medium takes its own time.
        if !is_cached(pieces) {
            return (wanted, None);
        }
        (way, Some(Trial { files, way, bytes, begin: Instant::now() }))
    }

    /// Returns the way for the next unit with these files, and whether it is measured.
    fn next_way(&self, files: &[&'a Source]) -> Option<(Access, bool)> {
        let release = self.release.load(Ordering::Relaxed);
        let mut known = lock(&self.known);
        if let Some(costs) = costs_of(&mut known, files) {
            return Some(costs.next(release));
        }
        let mut costs = Costs::default();
        let next = costs.next(release);
        (known.len() < MOST_COMBINATIONS).then(|| {
            known.push((files.to_vec(), costs));
            next
        })
    }

    /// Notes what the bytes of a unit have cost, from the choice until now.
    pub(super) fn finish(&self, trial: Trial<'a>) {
        let Trial { files, way, bytes, begin } = trial;
        if let Some(costs) = costs_of(&mut lock(&self.known), &files) {
            costs.note(way, cost(bytes, begin.elapsed()));
        }
    }

    /// Gives this number of borrowed bytes back by `release`, and notes what that has cost.
    pub(super) fn release(&self, bytes: u64, release: impl FnOnce()) {
        // The time is only asked for where there are mapped files: not every system has a clock.
        let begin = (!lock(&self.known).is_empty()).then(Instant::now);
        release();
        if let Some(begin) = begin {
            self.release.store(cost(bytes, begin.elapsed()), Ordering::Relaxed);
        }
    }
}

fn costs_of<'k>(known: &'k mut [(Files<'_>, Costs)], files: &[&Source]) -> Option<&'k mut Costs> {
    let is_same = |one: &[&Source]| {
        one.len() == files.len() && one.iter().zip(files).all(|(one, other)| std::ptr::eq(*one, *other))
    };
    known.iter_mut().find(|(known, _)| is_same(known)).map(|(_, costs)| costs)
}

/// Returns the mapped files with bytes of a unit, and the number of these bytes. Returns `None` if there are none or
/// too many.
fn mapped_files<'a>(pieces: &[Piece<'a>]) -> Option<(Files<'a>, u64)> {
    let (mut files, mut bytes) = (Files::new(), 0_u64);
    for piece in pieces {
        let Origin::File(source, _) = piece.origin else { continue };
        // Others have no choice.
        if !source.source().is_mapped() || source.is_salvaged() {
            continue;
        }
        bytes = bytes.saturating_add(piece.length);
        if !files.iter().any(|file| std::ptr::eq(*file, source.source())) {
            files.push(source.source());
        }
    }
    (1..=MOST_FILES).contains(&files.len()).then_some((files, bytes))
}

/// Returns whether the first and the last byte of every piece are in the page cache.
fn is_cached(pieces: &[Piece<'_>]) -> bool {
    pieces.iter().all(|piece| match piece.origin {
        Origin::File(source, offset) => {
            let last = offset.saturating_add(piece.length).saturating_sub(1);
            source.is_cached(offset) && source.is_cached(last)
        }
        _ => true,
    })
}

/// Returns the cost of 1 MiB, in nanoseconds.
fn cost(bytes: u64, elapsed: Duration) -> u64 {
    let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
    nanoseconds.saturating_mul(1 << 20).checked_div(bytes).unwrap_or(0)
}

/// The last costs of both ways for one combination of files.
#[derive(Clone, Debug, Default)]
struct Costs {
    /// Number of units so far.
    units: u64,
    costs: [Vec<u64>; 2],
}

impl Costs {
    /// Returns the way for the next unit, and whether it is measured.
    fn next(&mut self, release: u64) -> (Access, bool) {
        let number = self.units;
        self.units = number.saturating_add(1);
        if number < to_u64(2 * KEPT) {
            return (if number.is_multiple_of(2) { Access::Borrow } else { Access::Read }, true);
        }
        let best = self.best(release);
        match number % TRIED_AGAIN {
            0 => (best, true),
            1 => (if best == Access::Read { Access::Borrow } else { Access::Read }, true),
            _ => (best, false),
        }
    }

    /// Notes the cost of a unit that was accessed in this way.
    fn note(&mut self, way: Access, cost: u64) {
        let [borrow, read] = &mut self.costs;
        let kept = if way == Access::Borrow { borrow } else { read };
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push(cost);
    }

    /// Returns the faster way. If one of them was never measured, bytes are borrowed.
    fn best(&self, release: u64) -> Access {
        let [borrow, read] = self.costs.each_ref().map(|kept| median(kept));
        match (borrow, read) {
            (Some(borrow), Some(read)) if read < borrow.saturating_add(release) => Access::Read,
            _ => Access::Borrow,
        }
    }
}

fn median(costs: &[u64]) -> Option<u64> {
    let mut sorted = costs.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Access, Costs, KEPT, TRIED_AGAIN, cost};

    /// Shows `units` units to the meter, of which each way costs this much. Returns how often each was chosen.
    fn run(costs: &mut Costs, units: u64, borrow: u64, read: u64) -> [usize; 2] {
        let ways: Vec<Access> = (0..units)
            .map(|_| {
                let (way, is_measured) = costs.next(0);
                if is_measured {
                    costs.note(way, if way == Access::Borrow { borrow } else { read });
                }
                way
            })
            .collect();
        [Access::Borrow, Access::Read].map(|wanted| ways.iter().filter(|way| **way == wanted).count())
    }

    #[test]
    fn both_ways_are_tried_and_the_faster_one_stays() {
        let first = u64::try_from(2 * KEPT).unwrap();
        for (borrow, read, faster) in [(50, 90, 0), (90, 50, 1)] {
            let mut costs = Costs::default();
            assert_eq!(run(&mut costs, first, borrow, read), [KEPT, KEPT]);
            let chosen = run(&mut costs, 10 * TRIED_AGAIN, borrow, read);
            // Once for each time that both are tried again.
            assert_eq!(chosen[1 - faster], 10, "{borrow} or {read}");
        }
    }

    #[test]
    fn a_way_that_becomes_slower_is_left() {
        let mut costs = Costs::default();
        run(&mut costs, 2 * TRIED_AGAIN, 50, 90);
        run(&mut costs, 8 * TRIED_AGAIN, 200, 90);
        assert_eq!(costs.best(0), Access::Read);
        run(&mut costs, 8 * TRIED_AGAIN, 50, 90);
        assert_eq!(costs.best(0), Access::Borrow);
    }

    #[test]
    fn giving_pages_back_is_a_cost_of_borrowing() {
        let mut costs = Costs::default();
        run(&mut costs, TRIED_AGAIN, 50, 60);
        assert_eq!(costs.best(0), Access::Borrow);
        assert_eq!(costs.best(11), Access::Read);
    }

    #[test]
    fn one_slow_unit_does_not_decide() {
        let mut costs = Costs::default();
        for way in [Access::Borrow, Access::Read] {
            (0..KEPT).for_each(|_| costs.note(way, if way == Access::Borrow { 50 } else { 60 }));
        }
        costs.note(Access::Borrow, 1_000_000);
        assert_eq!(costs.best(0), Access::Borrow);
        let microsecond = Duration::from_micros(1);
        assert_eq!([1 << 20, 1 << 19, 0].map(|bytes| cost(bytes, microsecond)), [1000, 2000, 0]);
    }

    #[test]
    fn without_a_measurement_bytes_are_borrowed() {
        let mut costs = Costs::default();
        assert_eq!(costs.best(0), Access::Borrow);
        costs.note(Access::Read, 1);
        assert_eq!(costs.best(0), Access::Borrow);
    }
}
