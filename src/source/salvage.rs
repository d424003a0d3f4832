//! Reading what a failing medium still gives.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::num::to_u64;

use super::Source;
use super::read::read_exact_at;

/// What media give or do not give as a whole, in bytes: most have sectors of this size, and the system reads no less.
pub(super) const PAGE: u64 = 4096;

/// Whether a source is being salvaged, and what of it was lost so far.
#[derive(Debug, Default)]
pub(super) struct Salvage {
    is_on: AtomicBool,
    /// Beginnings and ends: disjoint, and no two touch.
    lost: Mutex<BTreeMap<u64, u64>>,
}

impl Salvage {
    fn lost(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, mut start: u64, mut end: u64) {
        let mut lost = self.lost();
        if let Some((before, before_end)) = lost.range(..=start).next_back().map(|(start, end)| (*start, *end))
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((next, next_end)) = lost.range(start..=end).next().map(|(start, end)| (*start, *end)) {
            end = end.max(next_end);
            lost.remove(&next);
        }
        lost.insert(start, end);
    }
}

impl Source {
    /// From now on, what the medium does not give is zero, and is remembered as lost.
    pub(crate) fn begin_salvage(&self) {
        self.0.salvage.is_on.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_salvaged(&self) -> bool {
        self.0.salvage.is_on.load(Ordering::Relaxed)
    }

    /// The first of `length` bytes at `offset` that were lost so far.
    pub(crate) fn first_unread(&self, offset: u64, length: u64) -> Option<Range<u64>> {
        let end = offset.saturating_add(length);
        let lost = self.0.salvage.lost();
        let before = lost.range(..=offset).next_back().filter(|(_, lost_end)| **lost_end > offset);
        let (start, lost_end) = before.or_else(|| lost.range(offset..end).next())?;
        Some((*start).max(offset)..(*lost_end).min(end))
    }

    /// Reads what can be read of the bytes at `offset`, page by page in the end: what is lost is zero.
    pub(super) fn read_what_is_left(&self, file: &File, offset: u64, buffer: &mut [u8]) {
        if read_exact_at(file, buffer, offset).is_ok() {
            return;
        }
        let length = to_u64(buffer.len());
        if length <= PAGE.saturating_sub(offset % PAGE) {
            buffer.fill(0);
            self.0.salvage.lose(offset, offset.saturating_add(length));
            return;
        }
        // In two, at a page: what is good is read in pieces as large as can be.
        let middle = offset.saturating_add(length / 2) & !PAGE.saturating_sub(1);
        let middle = middle.max((offset | PAGE.saturating_sub(1)).saturating_add(1));
        let at = usize::try_from(middle.saturating_sub(offset)).unwrap_or(buffer.len());
        let (head, rest) = buffer.split_at_mut(at.min(buffer.len()));
        self.read_what_is_left(file, offset, head);
        self.read_what_is_left(file, middle, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::Salvage;

    #[test]
    fn what_is_lost_is_one_range_wherever_it_touches() {
        let salvage = Salvage::default();
        for (start, end) in [(10, 20), (30, 40), (20, 25), (28, 30), (0, 5), (24, 29), (35, 38)] {
            salvage.lose(start, end);
        }
        let lost: Vec<_> = salvage.lost().iter().map(|(start, end)| (*start, *end)).collect();
        assert_eq!(lost, [(0, 5), (10, 40)]);
    }
}
