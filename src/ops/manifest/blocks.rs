//! The blocks of a disk, those together that are zero and nowhere.

use std::iter::Peekable;
use std::ops::Range;

use crate::disk::{Disk, Extents};
use crate::error::Result;
use crate::format::PayloadBlockState;

/// A block, or several in a row that are zero, nowhere, and in the same state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockRun {
    /// The number of the first one.
    pub(super) block: u64,
    /// How many they are: one, unless they are zero.
    pub(super) count: u64,
    /// Where they begin in the disk, in bytes.
    pub(super) start: u64,
    /// Length of all of them, in bytes.
    pub(super) length: u64,
    /// Their state in the image that was opened.
    pub(super) state: PayloadBlockState,
    /// Whether no layer holds anything of them.
    pub(super) is_zero: bool,
}

impl BlockRun {
    /// Where they are in the disk, in bytes.
    pub(super) fn range(&self) -> Range<u64> {
        self.start..self.start.saturating_add(self.length)
    }

    /// Length of each of the blocks: of the last one of the disk, only what belongs to it.
    pub(super) fn length_of_each(&self) -> u64 {
        self.length.checked_div(self.count).unwrap_or(self.length)
    }
}

/// The blocks of a range of the disk that begins where a block does, and ends where one does or where the disk does.
pub(super) fn block_runs(disk: &Disk, range: Range<u64>) -> BlockRuns<'_> {
    let extents = disk.extents(range.clone()).peekable();
    BlockRuns { disk, extents, position: range.start, end: range.end.min(disk.size()) }
}

#[derive(Debug)]
pub(super) struct BlockRuns<'d> {
    disk: &'d Disk,
    /// Those that reach behind the position.
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
        // All extents that the block has a part in.
        while until < block_end {
            let Some(extent) =
                self.extents.next_if(|extent| extent.as_ref().map_or(true, |extent| extent.end() <= block_end))
            else {
                // It goes on in the next block.
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
        // As many whole blocks behind it as the last extent has, if they are in the same state.
        if is_zero {
            let whole_blocks = until.saturating_sub(block_end).checked_div(block_size).unwrap_or(0);
            let alike = self.disk.image().same_state_count(block, whole_blocks)?;
            run.count = run.count.saturating_add(alike);
            run.length = run.length.saturating_add(alike.saturating_mul(block_size));
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
