//! The blocks of a disk, with runs of unallocated zero blocks.

use std::iter::Peekable;
use std::ops::Range;

use crate::disk::{Disk, Extents};
use crate::error::Result;
use crate::format::PayloadBlockState;

/// A block, or several consecutive ones that are zero, not in a file, and in the same state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockRun {
    /// Number of the first block.
    pub(super) block: u64,
    /// Number of blocks: one, unless they are zero.
    pub(super) count: u64,
    /// Offset in the disk, in bytes.
    pub(super) start: u64,
    /// Length of all blocks, in bytes.
    pub(super) length: u64,
    /// Their state in the opened image.
    pub(super) state: PayloadBlockState,
    /// Whether no layer has bytes for them.
    pub(super) is_zero: bool,
}

impl BlockRun {
    /// Returns their range of the disk, in bytes.
    pub(super) fn range(&self) -> Range<u64> {
        self.start..self.start.saturating_add(self.length)
    }

    /// Returns the length of each of the blocks: for the last block of the disk, only the part that belongs to it.
    pub(super) fn length_of_each(&self) -> u64 {
        self.length.checked_div(self.count).unwrap_or(self.length)
    }
}

/// Returns the blocks of a range of the disk that begins at a block, and ends at a block or at the end of the disk.
pub(super) fn block_runs(disk: &Disk, range: Range<u64>) -> BlockRuns<'_> {
    let extents = disk.extents(range.clone()).peekable();
    BlockRuns { disk, extents, position: range.start, end: range.end.min(disk.size()) }
}

#[derive(Debug)]
pub(super) struct BlockRuns<'d> {
    disk: &'d Disk,
    /// The extents that reach past the position.
    extents: Peekable<Extents<&'d Disk>>,
    position: u64,
    end: u64,
}

impl BlockRuns<'_> {
    fn run(&mut self) -> Result<BlockRun> {
        let (start, block_size) = (self.position, self.disk.block_size());
        let block = start.checked_div(block_size).unwrap_or(0);
        let (state, _) = self.disk.image().block_state(block)?;
        let (mut is_zero, mut until) = (true, start);
        let block_end = start.saturating_add(block_size).min(self.end);
        // All extents that overlap the block.
        while until < block_end {
            let Some(extent) =
                self.extents.next_if(|extent| extent.as_ref().map_or(true, |extent| extent.end() <= block_end))
            else {
                // It continues in the next block.
                if let Some(Ok(extent)) = self.extents.peek() {
                    is_zero &= !extent.is_data();
                    until = extent.end();
                }
                break;
            };
            let extent = extent?;
            is_zero &= !extent.is_data();
            until = extent.end();
        }
        let mut run = BlockRun { block, count: 1, start, length: block_end.saturating_sub(start), state, is_zero };
        // As many following whole blocks as the last extent has, if they are in the same state.
        if is_zero {
            let whole_blocks = until.saturating_sub(block_end).checked_div(block_size).unwrap_or(0);
            let same_state_count = self.disk.image().same_state_count(block, whole_blocks)?;
            run.count = run.count.saturating_add(same_state_count);
            run.length = run.length.saturating_add(same_state_count.saturating_mul(block_size));
        }
        Ok(run)
    }
}

impl Iterator for BlockRuns<'_> {
    type Item = Result<BlockRun>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.end {
            return None;
        }
        let run = self.run();
        match &run {
            Ok(run) => {
                self.position = run.start.saturating_add(run.length);
                let position = self.position;
                while self
                    .extents
                    .next_if(|extent| extent.as_ref().is_ok_and(|extent| extent.end() <= position))
                    .is_some()
                {}
            }
            Err(_) => self.position = self.end,
        }
        Some(run)
    }
}
