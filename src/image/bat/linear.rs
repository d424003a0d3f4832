//! Blocks where a fixed image has them: one after the other, for images whose BAT is lost.

use std::ops::ControlFlow;

use crate::error::Structure;
use crate::format::{BatEntry, MIB, U64};
use crate::num::to_u64;

use super::{Bat, EntryRun};

/// State FULLY_PRESENT (MS-VHDX 2.5.1.1).
const FULLY_PRESENT: u64 = 6;

/// Most bytes that are looked at before and after a disk.
const MOST_COMPARED: u64 = 64 * MIB;

/// Most entries that are made at once.
const MADE_AT_ONCE: usize = 512;

impl Bat<'_> {
    /// Returns whether an entry says what its block holds. NOT_PRESENT and UNDEFINED do not; nor does a block without
    /// content whose entry has bits that nothing writes there: it is damaged.
    pub(crate) fn says_content(&self, entry: BatEntry) -> bool {
        match entry.state() {
            0 | 1 => false,
            2 | 3 => entry.reserved() == 0 && entry.file_offset() < self.view.length(),
            _ => true,
        }
    }

    /// Returns the entry of a payload block, or the entry that the caller assumes for a block whose entry does not say
    /// what it holds.
    #[inline]
    pub(super) fn assumed(&self, block: u64, entry: BatEntry) -> BatEntry {
        match self.assumed_start {
            Some(start) if !self.says_content(entry) => {
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
    /// space between the structures that is large enough for all of them. Between the last two, the content decides: a
    /// disk begins with a boot sector or a partition table, and what is before and after it is zero.
    pub(crate) fn linear_start(&self) -> (u64, Option<u64>) {
        if let Some(found) = self.start_by_entries() {
            return found;
        }
        let at_end = self.start_by_end();
        let in_space = self.start_by_space();
        let start = match at_end.zip(in_space).filter(|(at_end, in_space)| at_end != in_space) {
            Some((at_end, in_space)) if self.begins_before(at_end, in_space) => in_space,
            _ => at_end.or(in_space).unwrap_or(MIB),
        };
        (start, at_end.or(in_space).into_iter().chain(in_space).find(|other| *other != start))
    }

    /// Whether the content says that block 0 is at `in_space`, and not at `at_end`.
    fn begins_before(&self, at_end: u64, in_space: u64) -> bool {
        let file = self.view.source().len();
        match (self.begins_a_disk(in_space), self.begins_a_disk(at_end)) {
            (is_here, is_there) if is_here != is_there => is_here,
            _ => {
                let is_set = |start: u64, end: u64| {
                    let end = end.min(start.saturating_add(MOST_COMPARED));
                    matches!(self.view.first_set(Structure::File, start, end), Ok(Some(_)))
                };
                let behind = in_space.saturating_add(self.geometry.virtual_disk_size);
                in_space < at_end && is_set(in_space, at_end) && !is_set(behind, file)
            }
        }
    }

    /// Whether a boot sector or a partition table is here.
    fn begins_a_disk(&self, start: u64) -> bool {
        let has = |at: u64, signature: &[u8]| {
            let found = self.view.copy(Structure::File, start.saturating_add(at), to_u64(signature.len()));
            found.is_ok_and(|found| found == signature)
        };
        has(510, b"\x55\xaa") || has(u64::from(self.geometry.logical_sector_size), b"EFI PART")
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
