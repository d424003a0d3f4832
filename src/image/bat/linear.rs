//! Blocks where a fixed image has them: one after the other, for images whose BAT is lost.

use std::ops::ControlFlow;

use crate::format::{BatEntry, MIB, U64};

use super::{Bat, EntryRun};

/// State FULLY_PRESENT (MS-VHDX 2.5.1.1).
const FULLY_PRESENT: u64 = 6;

/// Most entries that are made at once.
const MADE_AT_ONCE: usize = 512;

impl Bat<'_> {
    /// Returns the entry of a payload block, or the entry that the caller assumes for a block that is not present.
    #[inline]
    pub(super) fn assumed(&self, block: u64, entry: BatEntry) -> BatEntry {
        match self.assumed_start {
            Some(start) if entry.state() == 0 => {
                BatEntry(start.saturating_add(self.geometry.block_start(block)) | FULLY_PRESENT)
            }
            _ => entry,
        }
    }

    /// Returns the first entries of a run, with those that the caller assumes.
    pub(super) fn assumed_entries(&self, block: u64, run: &EntryRun<'_>) -> Vec<U64> {
        let most = usize::try_from(run.count()).unwrap_or(usize::MAX).min(MADE_AT_ONCE);
        let found = |index: usize| match run {
            EntryRun::Zero(_) => 0,
            EntryRun::Entries(entries) => entries.get(index).map_or(0, |entry| entry.get()),
        };
        let entry = |(block, index)| U64::new(self.assumed(block, BatEntry(found(index))).0);
        (block..).zip(0..most).map(entry).collect()
    }

    /// Returns the file offset of block 0 of a fixed image: what the entries say that are left, or else the first space
    /// between the structures that is large enough for all blocks, or the largest.
    pub(crate) fn linear_start(&self) -> u64 {
        let length = self.geometry.virtual_disk_size;
        let is_clear =
            |start: &u64| *start >= MIB && self.reserved.overlap(*start, start.saturating_add(length)).is_none();
        let mut left = None;
        let walked = self.entry_runs(0, self.geometry.payload_blocks(), 0, |first, run| {
            if let EntryRun::Entries(entries) = run {
                let numbered = (first..).zip(entries).map(|(block, entry)| (block, BatEntry(entry.get())));
                let start = |(block, entry): (u64, BatEntry)| {
                    entry.file_offset().checked_sub(self.geometry.block_start(block)).filter(|_| entry.is_allocated())
                };
                left = numbered.filter_map(start).find(is_clear);
            }
            if left.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        // Entries that cannot be read say nothing.
        drop(walked);
        left.unwrap_or_else(|| {
            let ranges = self.reserved.ranges();
            let ends = ranges.iter().map(|(_, end, _)| *end);
            let nexts = ranges.iter().skip(1).map(|(start, ..)| *start).chain([self.view.source().len()]);
            let spaces = ends.zip(nexts).map(|(end, next)| {
                let start = end.checked_next_multiple_of(MIB).unwrap_or(!MIB.saturating_sub(1));
                (start, next.saturating_sub(start))
            });
            let spaces: Vec<(u64, u64)> = spaces.collect();
            let large = spaces.iter().find(|(_, space)| *space >= length);
            large.or(spaces.iter().max_by_key(|(_, space)| *space)).map_or(MIB, |(start, _)| *start)
        })
    }
}
