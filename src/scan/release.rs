//! Release of memory after use, in large pieces.
//!
//! Every call that takes pages from a mapping interrupts the other threads, and a call for a part of a large page makes
//! the system split it first. So the ranges are collected, and neighbours are joined.

use std::sync::Mutex;

use crate::source::Source;
use crate::threads::lock;

use super::access::AccessMeter;

/// Number of bytes that may wait for their release.
const MOST_WAITING: u64 = 16 << 20;

/// A range of a file that is not needed any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Released<'a> {
    pub(super) source: &'a Source,
    pub(super) start: u64,
    pub(super) end: u64,
    /// Whether it counts as memory of this process, since it was borrowed from the mapping.
    pub(super) is_borrowed: bool,
    /// Whether it is dropped from the page cache, too.
    pub(super) uncache: bool,
}

impl Released<'_> {
    fn length(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Returns whether `next` continues or overlaps this range, and needs the same treatment.
    fn goes_on_in(&self, next: &Self) -> bool {
        std::ptr::eq(self.source, next.source)
            && next.start <= self.end
            && (self.is_borrowed, self.uncache) == (next.is_borrowed, next.uncache)
    }

    fn release(&self) {
        if self.is_borrowed {
            self.source.forget(self.start, self.end);
        }
        if self.uncache {
            self.source.uncache(self.start, self.length());
        }
    }
}

/// Releases all these ranges.
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

/// Ranges that wait for their release.
#[derive(Debug, Default)]
pub(super) struct ReleaseQueue<'a>(Mutex<(Vec<Released<'a>>, u64)>);

impl<'a> ReleaseQueue<'a> {
    /// Adds the ranges that a worker has finished.
    pub(super) fn add(&self, left: impl Iterator<Item = Released<'a>>, meter: &AccessMeter<'a>) {
        let mut waiting = lock(&self.0);
        for range in left {
            waiting.1 = waiting.1.saturating_add(range.length());
            waiting.0.push(range);
        }
        if waiting.1 >= MOST_WAITING {
            let (ranges, bytes) = std::mem::take(&mut *waiting);
            drop(waiting);
            if ranges.iter().all(|range| range.is_borrowed && !range.uncache) {
                meter.release(bytes, || release(ranges));
            } else {
                release(ranges);
            }
        }
    }
}

impl Drop for ReleaseQueue<'_> {
    fn drop(&mut self) {
        release(std::mem::take(&mut lock(&self.0).0));
    }
}
