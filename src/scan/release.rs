//! Letting go of what the work has left behind, in large pieces.
//!
//! Every call that takes pages from a mapping interrupts the other threads, and one that takes a part of a large page makes
//! the system cut it into small ones first. So the ranges are collected, and neighbours become one.

use std::sync::Mutex;

use crate::source::Source;
use crate::threads::lock;

/// How much may wait to be let go of, in bytes.
const MOST_WAITING: u64 = 16 << 20;

/// A range of a file that is not needed any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Released<'a> {
    pub(super) source: &'a Source,
    pub(super) start: u64,
    pub(super) end: u64,
    /// Whether it counts as memory of this process, since the mapping has lent it.
    pub(super) is_lent: bool,
    /// Whether the system's own copy is to go, too.
    pub(super) uncache: bool,
}

impl Released<'_> {
    fn length(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether `next` goes on where this one ends, or overlaps it, and the same has to be done with it.
    fn goes_on_in(&self, next: &Self) -> bool {
        std::ptr::eq(self.source, next.source)
            && next.start <= self.end
            && (self.is_lent, self.uncache) == (next.is_lent, next.uncache)
    }

    fn release(&self) {
        if self.is_lent {
            self.source.forget(self.start, self.end);
        }
        if self.uncache {
            self.source.uncache(self.start, self.length());
        }
    }
}

/// Lets go of all these ranges.
pub(super) fn release(mut left: Vec<Released<'_>>) {
    left.sort_unstable_by_key(|range| (std::ptr::from_ref(range.source).addr(), range.start));
    let mut before: Option<Released<'_>> = None;
    for range in left {
        match &mut before {
            Some(before) if before.goes_on_in(&range) => before.end = before.end.max(range.end),
            _ => {
                before.iter().for_each(Released::release);
                before = Some(range);
            }
        }
    }
    before.iter().for_each(Released::release);
}

/// What waits to be let go of.
#[derive(Debug, Default)]
pub(super) struct ReleaseQueue<'a>(Mutex<(Vec<Released<'a>>, u64)>);

impl<'a> ReleaseQueue<'a> {
    /// Adds what a worker has left behind.
    pub(super) fn add(&self, left: impl Iterator<Item = Released<'a>>) {
        let mut waiting = lock(&self.0);
        for range in left {
            waiting.1 = waiting.1.saturating_add(range.length());
            waiting.0.push(range);
        }
        if waiting.1 >= MOST_WAITING {
            let (ranges, _) = std::mem::take(&mut *waiting);
            drop(waiting);
            release(ranges);
        }
    }
}

impl Drop for ReleaseQueue<'_> {
    fn drop(&mut self) {
        release(std::mem::take(&mut lock(&self.0).0));
    }
}
