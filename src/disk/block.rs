//! Blocks of a disk.

use crate::error::Result;
use crate::format::PayloadBlockState;

use super::{Disk, Segments};

/// Block of a disk: the range that one payload block of the opened image covers (MS-VHDX 2.4.1).
#[derive(Clone, Copy, Debug)]
pub struct Block<'d> {
    disk: &'d Disk,
    index: u64,
    start: u64,
    length: u64,
    state: PayloadBlockState,
}

impl<'d> Block<'d> {
    pub(super) fn new(disk: &'d Disk, index: u64) -> Result<Self> {
        let (state, _) = disk.image().payload_block(index)?;
        let start = index.saturating_mul(disk.block_size());
        let length = disk.block_size().min(disk.size().saturating_sub(start));
        Ok(Self { disk, index, start, length, state })
    }

    /// Returns the number of the block, from 0.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Returns the offset of the block in the disk, in bytes.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Returns the length of the block, in bytes: the block size, except for the last block of the disk.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Returns the state of the block in the opened image. The content may come from parents, in part or as a whole.
    #[must_use]
    pub fn state(&self) -> PayloadBlockState {
        self.state
    }

    /// Returns the content of the block.
    #[must_use]
    pub fn segments(&self) -> Segments<&'d Disk> {
        self.disk.segments(self.start..self.start.saturating_add(self.length))
    }
}
