//! Reads from a failing medium.

use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::num::to_u64;

use super::Source;

/// Unit in which media fail, in bytes: most have sectors of this size, and the system reads no less.
pub(super) const PAGE: u64 = 4096;

/// The ranges of a file that one salvage could not read so far. They belong to the layer that is salvaged, not to the
/// [`Source`]: another handle to the same file does not know them.
#[derive(Debug, Default)]
pub(crate) struct LostRanges(
    /// Start and end of each range: disjoint, and not adjacent.
    Mutex<BTreeMap<u64, u64>>,
);

impl LostRanges {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the first range of `length` bytes at `offset` that could not be read so far.
    pub(crate) fn first_in(&self, offset: u64, length: u64) -> Option<Range<u64>> {
        let end = offset.saturating_add(length);
        let lost = self.lock();
        let before = lost.range(..=offset).next_back().filter(|(_, lost_end)| **lost_end > offset);
        let (start, lost_end) = before.or_else(|| lost.range(offset..end).next())?;
        Some((*start).max(offset)..(*lost_end).min(end))
    }

    fn add(&self, mut start: u64, mut end: u64) {
        let mut lost = self.lock();
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

    /// Reads the bytes at `offset` that the medium returns, page by page in the end. The others are zero, and lost.
    fn read(&self, source: &Source, offset: u64, buffer: &mut [u8]) {
        if source.read_raw(offset, buffer).is_ok() {
            return;
        }
        let length = to_u64(buffer.len());
        if length <= PAGE.saturating_sub(offset % PAGE) {
            buffer.fill(0);
            self.add(offset, offset.saturating_add(length));
            return;
        }
        // In two halves, at a page: readable parts are read in large pieces.
        let middle = offset.saturating_add(length / 2) & !PAGE.saturating_sub(1);
        let middle = middle.max((offset | PAGE.saturating_sub(1)).saturating_add(1));
        let at = usize::try_from(middle.saturating_sub(offset)).unwrap_or(buffer.len());
        let (head, rest) = buffer.split_at_mut(at.min(buffer.len()));
        self.read(source, offset, head);
        self.read(source, middle, rest);
    }
}

/// A source as one layer reads it: strictly, or with zeros for bytes that the medium does not return.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceRef<'a> {
    source: &'a Source,
    /// The ranges that a salvage could not read. `None`: failures are errors.
    lost: Option<&'a LostRanges>,
}

impl<'a> SourceRef<'a> {
    pub(crate) fn new(source: &'a Source, lost: Option<&'a LostRanges>) -> Self {
        Self { source, lost }
    }

    /// Returns the source.
    pub(crate) fn source(self) -> &'a Source {
        self.source
    }

    /// Returns whether unreadable bytes are zero, and recorded as lost.
    pub(crate) fn is_salvaged(self) -> bool {
        self.lost.is_some()
    }

    /// Returns whether both read the same source for the same layer.
    pub(crate) fn is(self, other: Self) -> bool {
        std::ptr::eq(self.source, other.source) && self.is_salvaged() == other.is_salvaged()
    }

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    /// The errors of [`Source::read_exact_at`]; in a salvage, only if the source is a copy in memory that ends before
    /// them.
    pub(crate) fn read_exact_at(self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match self.lost.filter(|_| !self.source.is_in_memory()) {
            Some(lost) => {
                lost.read(self.source, offset, buffer);
                Ok(())
            }
            None => self.source.read_exact_at(offset, buffer),
        }
    }
}

impl Deref for SourceRef<'_> {
    type Target = Source;

    fn deref(&self) -> &Source {
        self.source
    }
}

impl<'a> From<&'a Source> for SourceRef<'a> {
    /// Makes a strict reader.
    fn from(source: &'a Source) -> Self {
        Self { source, lost: None }
    }
}

#[cfg(test)]
mod tests {
    use super::LostRanges;

    #[test]
    fn ranges_that_touch_become_one() {
        let lost = LostRanges::default();
        for (start, end) in [(10, 20), (30, 40), (20, 25), (28, 30), (0, 5), (24, 29), (35, 38)] {
            lost.add(start, end);
        }
        let all: Vec<_> = lost.lock().iter().map(|(start, end)| (*start, *end)).collect();
        assert_eq!(all, [(0, 5), (10, 40)]);
        assert_eq!(lost.first_in(3, 4), Some(3..5));
        assert_eq!(lost.first_in(5, 30), Some(10..35));
        assert_eq!(lost.first_in(40, u64::MAX), None);
    }
}
