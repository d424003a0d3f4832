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

    /// Returns whether the table has no entry of a payload block, and the caller assumes where the block is.
    #[inline]
    pub(super) fn lacks_entry(&self, block: u64) -> bool {
        self.assumed_start.is_some() && {
            let length = self.length.min(self.view.length().saturating_sub(self.offset));
            self.geometry.payload_index(block) >= length / BatEntry::LENGTH
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

    /// Returns the file offset of block 0 of a fixed image, and another one if the evidence disagrees. Evidence is what
    /// most of the entries say that are left, or else that the blocks end with the file, or that they are in the first
    /// space between the structures that is large enough for all of them.
    pub(crate) fn linear_start(&self) -> (u64, Option<u64>) {
        if let Some(found) = self.start_by_entries() {
            return found;
        }
        let at_end = self.start_by_end();
        let in_space = self.start_by_space();
        let start = at_end.or(in_space).unwrap_or(MIB);
        (start, in_space.filter(|other| *other != start))
    }

    /// Returns whether all blocks fit between the structures from this file offset on.
    fn is_clear(&self, start: u64) -> bool {
        let length = self.geometry.virtual_disk_size;
        start >= MIB && self.reserved.overlap(start, start.saturating_add(length)).is_none()
    }

    /// Returns where most of the entries have block 0, and the first other place that an entry has.
    fn start_by_entries(&self) -> Option<(u64, Option<u64>)> {
        let for_each = |each: &mut dyn FnMut(u64)| {
            let walked = self.entry_runs(0, self.geometry.payload_blocks(), 0, |first, run| {
                if let EntryRun::Entries(entries) = run {
                    for (block, entry) in (first..).zip(entries).map(|(block, entry)| (block, BatEntry(entry.get()))) {
                        let start = entry.file_offset().checked_sub(self.geometry.block_start(block));
                        if let Some(start) = start.filter(|start| entry.is_allocated() && self.is_clear(*start)) {
                            each(start);
                        }
                    }
                }
                ControlFlow::Continue(())
            });
            // Entries that cannot be read say nothing.
            drop(walked);
        };
        // The place that more than half of the entries have, if there is one (Boyer and Moore).
        let (mut most, mut votes) = (None, 0_u64);
        for_each(&mut |start| {
            if votes == 0 {
                most = Some(start);
            }
            votes = if most == Some(start) { votes.saturating_add(1) } else { votes.saturating_sub(1) };
        });
        let most = most?;
        let mut other = None;
        for_each(&mut |start| other = other.or(Some(start).filter(|start| *start != most)));
        Some((most, other))
    }

    /// Returns where block 0 is if the last one ends with the file.
    fn start_by_end(&self) -> Option<u64> {
        let (file, disk) = (self.view.source().len(), self.geometry.virtual_disk_size);
        let whole = self.geometry.block_start(self.geometry.payload_blocks());
        let starts = [whole, disk].into_iter().filter_map(|length| file.checked_sub(length));
        let mut starts = starts.filter(|start| start.is_multiple_of(MIB) && self.is_clear(*start));
        starts.next()
    }

    /// Returns the beginning of the first space that is large enough, or of the largest.
    fn start_by_space(&self) -> Option<u64> {
        let length = self.geometry.virtual_disk_size;
        let ranges = self.reserved.ranges();
        let ends = ranges.iter().map(|(_, end, _)| *end);
        let nexts = ranges.iter().skip(1).map(|(start, ..)| *start).chain([self.view.source().len()]);
        let spaces = ends.zip(nexts).map(|(end, next)| {
            let start = end.checked_next_multiple_of(MIB).unwrap_or(!MIB.saturating_sub(1));
            (start, next.saturating_sub(start))
        });
        let spaces: Vec<(u64, u64)> = spaces.collect();
        let large = spaces.iter().find(|(_, space)| *space >= length);
        large.or(spaces.iter().max_by_key(|(_, space)| *space)).map(|(start, _)| *start)
    }
}
