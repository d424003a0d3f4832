//! Use of the file per MiB: blocks are aligned to 1 MiB, so one bit for each is enough.

use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::FromZeros;

use crate::format::MIB;
use crate::num::to_usize_saturating;

/// Length of the part of a file that is tracked: 256 TiB, four times the largest disk.
pub(crate) const MOST_ACCOUNTED: u64 = 1 << 48;

/// The MiB of a file: each is unused, in use, or in use more than once.
#[derive(Debug)]
pub(crate) struct Slots {
    count: u64,
    used: Vec<AtomicU64>,
    shared: Vec<AtomicU64>,
}

impl Slots {
    /// Makes a table for a file of `length` bytes; the last MiB may be partial.
    pub(crate) fn new(length: u64) -> Self {
        let count = length.min(MOST_ACCOUNTED).div_ceil(MIB);
        // Zeroed memory from the system takes no space before it is written to: a replay may make a file of any length.
        let words = || AtomicU64::new_vec_zeroed(to_usize_saturating(count.div_ceil(64))).unwrap_or_default();
        Self { count, used: words(), shared: words() }
    }

    /// Marks the MiB that contain the bytes from `start` to `end` as in use; those in use before become shared.
    pub(crate) fn claim(&self, start: u64, end: u64) {
        for slot in self.range(start, end) {
            if set(&self.used, slot) {
                set(&self.shared, slot);
            }
        }
    }

    /// Marks the MiB that contain the bytes from `start` to `end` as in use, which may be shared.
    pub(crate) fn mark(&self, start: u64, end: u64) {
        for slot in self.range(start, end) {
            set(&self.used, slot);
        }
    }

    /// Returns the shared MiB between `start` and `end`, by number.
    pub(crate) fn shared(&self, start: u64, end: u64) -> impl Iterator<Item = u64> {
        self.range(start, end).filter(|slot| is_set(&self.shared, *slot))
    }

    /// Returns whether any of the MiB between `start` and `end` is in use.
    pub(crate) fn is_used(&self, start: u64, end: u64) -> bool {
        self.range(start, end).any(|slot| is_set(&self.used, slot))
    }

    pub(crate) fn has_shared(&self) -> bool {
        self.shared.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Returns the end of the last MiB in use.
    pub(crate) fn used_end(&self) -> u64 {
        let last = (0_u64..).zip(&self.used).filter(|(_, word)| word.load(Ordering::Relaxed) != 0).last();
        last.map_or(0, |(index, word)| {
            let bits = 64_u64.saturating_sub(word.load(Ordering::Relaxed).leading_zeros().into());
            index.saturating_mul(64).saturating_add(bits).saturating_mul(MIB)
        })
    }

    /// Returns the runs of unused MiB: first byte and end.
    pub(crate) fn unused(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut slot = 0;
        std::iter::from_fn(move || {
            slot = self.next(slot, false)?;
            let end = self.next(slot, true).unwrap_or(self.count);
            let run = (slot.saturating_mul(MIB), end.saturating_mul(MIB));
            slot = end;
            Some(run)
        })
    }

    /// Returns the first MiB from `slot` on that is in use, or unused.
    fn next(&self, mut slot: u64, used: bool) -> Option<u64> {
        while slot < self.count {
            let word = self.used.get(to_usize_saturating(slot / 64)).map_or(0, |word| word.load(Ordering::Relaxed));
            let wanted = if used { word } else { !word };
            let rest = wanted >> (slot % 64);
            if rest != 0 {
                return Some(slot.saturating_add(rest.trailing_zeros().into())).filter(|slot| *slot < self.count);
            }
            slot = (slot / 64).saturating_add(1).saturating_mul(64);
        }
        None
    }

    fn range(&self, start: u64, end: u64) -> std::ops::Range<u64> {
        let last = end.div_ceil(MIB).min(self.count);
        (start / MIB).min(last)..last
    }
}

/// Sets a bit, and returns whether it was set before.
fn set(words: &[AtomicU64], slot: u64) -> bool {
    let bit = 1_u64 << (slot % 64);
    let word = words.get(to_usize_saturating(slot / 64));
    // Reading is cheap; writing takes the word from all other threads.
    let is_set = |word: &AtomicU64| word.load(Ordering::Relaxed) & bit != 0;
    word.is_some_and(|word| is_set(word) || word.fetch_or(bit, Ordering::Relaxed) & bit != 0)
}

fn is_set(words: &[AtomicU64], slot: u64) -> bool {
    let word = words.get(to_usize_saturating(slot / 64));
    word.is_some_and(|word| word.load(Ordering::Relaxed) >> (slot % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::{MIB, Slots};

    #[test]
    fn unused_and_shared_slots_are_known() {
        let slots = Slots::new(200 * MIB - 5);
        slots.mark(0, MIB);
        slots.claim(3 * MIB, 5 * MIB);
        slots.claim(4 * MIB, 4 * MIB + 1);
        slots.claim(70 * MIB, 190 * MIB);
        slots.claim(195 * MIB, 1 << 62);
        let unused: Vec<_> = slots.unused().map(|(start, end)| (start / MIB, end / MIB)).collect();
        assert_eq!(unused, [(1, 3), (5, 70), (190, 195)]);
        assert_eq!((slots.shared(3 * MIB, 5 * MIB).next(), slots.shared(0, 4 * MIB).next()), (Some(4), None));
        assert!(slots.has_shared());
        assert_eq!(slots.used_end(), 200 * MIB);
        let words = Slots::new(1 << 63).used.len();
        assert!(words <= 1 << 22, "{words} words");
    }
}
