//! The record of the lost pages of one mapping: written by a signal handler, read by all threads.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Number of ranges that one mapping keeps apart. Each range of zeros is one mapping of the process, and so is the part
/// of the file before it: a file whose medium fails everywhere takes about 260 of the 65,530 that Linux allows by
/// default.
const RANGES: usize = 128;

/// Lost pages of one mapping.
///
/// Entries only grow: a read after a page was recorded finds it.
pub(super) struct LostPages {
    /// Number of entries that were made. It changes last: a thread that sees it change sees the entry.
    faults: AtomicUsize,
    /// Each is a [`PageRange`] as a number, or 0. The empty entries are the last ones.
    ranges: [AtomicU64; RANGES],
    /// The first page of the lost rest of the mapping; `u64::MAX` while there is none.
    rest: AtomicU64,
}

/// One or more consecutive pages, in a number that one atomic operation can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageRange {
    pub(super) first: u64,
    /// Not 0.
    pub(super) count: u64,
}

/// Bits of the count: 1 TiB in pages of 4 KiB. The other 36 bits number the pages of 256 TiB, more than a process can
/// map.
const COUNT_BITS: u32 = 28;
const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;
const MAX_FIRST: u64 = u64::MAX >> COUNT_BITS;

impl PageRange {
    /// Makes a range. Returns `None` if it is empty or too long for its number.
    pub(super) fn new(first: u64, count: u64) -> Option<Self> {
        (first <= MAX_FIRST && (1..=MAX_COUNT).contains(&count)).then_some(Self { first, count })
    }

    fn from_number(number: u64) -> Option<Self> {
        Self::new(number >> COUNT_BITS, number & MAX_COUNT)
    }

    fn number(self) -> u64 {
        self.first << COUNT_BITS | self.count
    }

    fn end(self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// Returns both ranges as one, if they touch and one number can hold them.
    fn union(self, other: Self) -> Option<Self> {
        if self.first > other.end() || other.first > self.end() {
            return None;
        }
        let (first, end) = (self.first.min(other.first), self.end().max(other.end()));
        Self::new(first, end.abs_diff(first))
    }
}

impl LostPages {
    pub(super) const fn none() -> Self {
        Self {
            faults: AtomicUsize::new(0),
            ranges: [const { AtomicU64::new(0) }; RANGES],
            rest: AtomicU64::new(u64::MAX),
        }
    }

    pub(super) fn clear(&self) {
        self.faults.store(0, Ordering::Relaxed);
        self.ranges.iter().for_each(|range| range.store(0, Ordering::Relaxed));
        self.rest.store(u64::MAX, Ordering::Relaxed);
    }

    /// Records a range as lost. Returns false, and records nothing, if there is no space: then only a longer range,
    /// which touches a recorded one, or [`LostPages::add_rest`] can succeed.
    #[must_use]
    pub(super) fn add(&self, lost: PageRange) -> bool {
        let with_lost = |number| match PageRange::from_number(number) {
            Some(known) => known.union(lost).map(PageRange::number),
            None => Some(lost.number()),
        };
        let mut ranges = self.ranges.iter();
        let has_room = ranges.any(|range| range.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_lost).is_ok());
        if has_room {
            self.faults.fetch_add(1, Ordering::Release);
        }
        has_room
    }

    /// Records all pages from `first` on as lost.
    pub(super) fn add_rest(&self, first: u64) {
        self.rest.fetch_min(first, Ordering::Relaxed);
        self.faults.fetch_add(1, Ordering::Release);
    }

    /// Returns the first lost byte of the mapping, from `start` on and before `end`, with pages of `page_size` bytes.
    pub(super) fn first_in(&self, start: u64, end: u64, page_size: u64) -> Option<u64> {
        if self.faults.load(Ordering::Acquire) == 0 || start >= end {
            return None;
        }
        let ranges = self.ranges.iter().map_while(|range| PageRange::from_number(range.load(Ordering::Relaxed)));
        let rest = self.rest.load(Ordering::Relaxed);
        let lost = ranges.map(|range| (range.first, range.end())).chain([(rest, u64::MAX)]);
        let first_of = |(first, last_end): (u64, u64)| {
            let at = first.saturating_mul(page_size).max(start);
            Some(at).filter(|at| *at < end && *at < last_end.saturating_mul(page_size))
        };
        lost.filter_map(first_of).min()
    }
}

#[cfg(test)]
mod tests {
    use super::{LostPages, MAX_COUNT, MAX_FIRST, PageRange, RANGES};

    const PAGE: u64 = 4096;

    fn range(first: u64, count: u64) -> PageRange {
        PageRange::new(first, count).unwrap()
    }

    /// Whether a page is lost.
    fn has(lost: &LostPages, page: u64) -> bool {
        let start = page.saturating_mul(PAGE);
        lost.first_in(start, start.saturating_add(PAGE), PAGE).is_some()
    }

    #[test]
    fn ranges_that_touch_become_one_and_others_stay_apart() {
        assert_eq!(range(5, 2).union(range(7, 1)), Some(range(5, 3)));
        assert_eq!(range(7, 1).union(range(5, 2)), Some(range(5, 3)));
        assert_eq!(range(5, 9).union(range(6, 1)), Some(range(5, 9)));
        assert_eq!(range(6, 1).union(range(5, 9)), Some(range(5, 9)));
        assert_eq!(range(5, 2).union(range(8, 1)), None);
        assert_eq!(range(8, 1).union(range(5, 2)), None);
        assert_eq!(range(0, MAX_COUNT).union(range(MAX_COUNT, 1)), None);
    }

    #[test]
    fn range_survives_its_number() {
        for known in [range(0, 1), range(0, MAX_COUNT), range(MAX_FIRST, 1), range(MAX_FIRST, MAX_COUNT)] {
            assert_eq!(PageRange::from_number(known.number()), Some(known));
        }
        assert_eq!(PageRange::from_number(0), None);
        for (first, count) in [(3, 0), (MAX_FIRST + 1, 1), (3, MAX_COUNT + 1)] {
            assert_eq!(PageRange::new(first, count), None);
        }
    }

    #[test]
    fn pages_in_a_row_take_one_entry_in_any_order() {
        let lost = LostPages::none();
        for page in (1000..2000).chain((0..1000).rev()) {
            assert!(lost.add(range(5000 + page, 1)));
        }
        // All other entries are free.
        for number in 1..u64::try_from(RANGES).unwrap() {
            assert!(lost.add(range(100_000 * number, 1)));
        }
        assert!(!has(&lost, 4999) && has(&lost, 5000) && has(&lost, 6999) && !has(&lost, 7000));
    }

    #[test]
    fn full_record_takes_ranges_that_touch_others_and_the_rest() {
        let (lost, room) = (LostPages::none(), u64::try_from(RANGES).unwrap());
        for number in 0..room {
            assert!(lost.add(range(10 * number, 1)));
        }
        assert!(!lost.add(range(10 * room, 1)) && !has(&lost, 10 * room));
        // A span that contains one of the others.
        assert!(!has(&lost, 25) && lost.add(range(16, 16)));
        assert!(!has(&lost, 15) && has(&lost, 16) && has(&lost, 25) && has(&lost, 31) && !has(&lost, 32));
        lost.add_rest(10 * room - 3);
        assert!(!has(&lost, 10 * room - 4) && has(&lost, 10 * room - 3) && has(&lost, 1 << 50));
        lost.add_rest(10 * room);
        assert!(has(&lost, 10 * room - 3), "a loss stays");
        lost.add_rest(0);
        assert!(has(&lost, 15));
        lost.clear();
        assert_eq!(lost.first_in(0, u64::MAX, PAGE), None);
    }

    #[test]
    fn first_lost_byte_is_in_requested_range() {
        let lost = LostPages::none();
        assert!(lost.add(range(30, 2)) && lost.add(range(10, 2)));
        assert_eq!(lost.first_in(0, 100 * PAGE, PAGE), Some(10 * PAGE));
        assert_eq!(lost.first_in(11 * PAGE + 5, 100 * PAGE, PAGE), Some(11 * PAGE + 5));
        assert_eq!(lost.first_in(12 * PAGE, 100 * PAGE, PAGE), Some(30 * PAGE));
        assert_eq!(lost.first_in(12 * PAGE, 30 * PAGE, PAGE), None);
        assert_eq!(lost.first_in(12 * PAGE, 30 * PAGE + 1, PAGE), Some(30 * PAGE));
        assert_eq!(lost.first_in(32 * PAGE, u64::MAX, PAGE), None);
        assert_eq!(lost.first_in(10 * PAGE, 10 * PAGE, PAGE), None);
    }
}
