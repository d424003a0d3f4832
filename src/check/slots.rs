//! Which MiB of a file belong to something: blocks lie on multiples of 1 MiB, so one bit for each is enough.

use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::FromZeros;

use crate::format::MIB;
use crate::num::to_usize_saturating;

/// How much of a file is kept account of: 256 TiB, four times the largest disk.
pub(crate) const MOST_ACCOUNTED: u64 = 1 << 48;

/// The MiB of a file, each in use or not, or in use more than once.
#[derive(Debug)]
pub(crate) struct Slots {
    count: u64,
    used: Vec<AtomicU64>,
    shared: Vec<AtomicU64>,
}

impl Slots {
    /// Those of a file of `length` bytes; the last one may be one in part.
    pub(crate) fn new(length: u64) -> Self {
        let count = length.min(MOST_ACCOUNTED).div_ceil(MIB);
        // Memory that the system gives as zeros takes no room before something is written there: a replay may make a file
        // of any length.
        let words = || AtomicU64::new_vec_zeroed(to_usize_saturating(count.div_ceil(64))).unwrap_or_default();
        Self { count, used: words(), shared: words() }
    }

    /// Takes the MiB that the bytes from `start` to `end` touch; those that somebody else has taken are shared from now on.
    pub(crate) fn claim(&self, start: u64, end: u64) {
        for slot in self.range(start, end) {
            if set(&self.used, slot) {
                set(&self.shared, slot);
            }
        }
    }

    /// The same, but to be shared is no fault.
    pub(crate) fn mark(&self, start: u64, end: u64) {
        for slot in self.range(start, end) {
            set(&self.used, slot);
        }
    }

    /// The MiB between `start` and `end` that are shared, by number.
    pub(crate) fn shared(&self, start: u64, end: u64) -> impl Iterator<Item = u64> {
        self.range(start, end).filter(|slot| is_set(&self.shared, *slot))
    }

    pub(crate) fn has_shared(&self) -> bool {
        self.shared.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Where the last MiB that is in use ends.
    pub(crate) fn used_end(&self) -> u64 {
        let last = (0_u64..).zip(&self.used).filter(|(_, word)| word.load(Ordering::Relaxed) != 0).last();
        last.map_or(0, |(index, word)| {
            let bits = 64_u64.saturating_sub(word.load(Ordering::Relaxed).leading_zeros().into());
            index.saturating_mul(64).saturating_add(bits).saturating_mul(MIB)
        })
    }

    /// The runs of MiB that nobody uses: first byte and end.
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

    /// The first from `slot` on that is used, or not.
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

/// Sets a bit, and says whether it was set before.
fn set(words: &[AtomicU64], slot: u64) -> bool {
    let bit = 1_u64 << (slot % 64);
    let word = words.get(to_usize_saturating(slot / 64));
    // To look costs nothing; to write takes the word from all other threads.
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
    fn what_nobody_uses_and_what_two_use_is_known() {
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
