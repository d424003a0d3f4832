//! A disk block by block.

use crate::error::Result;
use crate::format::PayloadBlockState;

use super::{Disk, Segments};

/// A block of a disk: as much of it as one payload block of the image that was opened can hold (MS-VHDX 2.4.1).
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

    /// Its number, from 0.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Where it begins in the disk, in bytes.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// How many bytes of it belong to the disk: the block size, but for the last one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Its state in the image that was opened. Its content may be that of parents, in part or as a whole.
    #[must_use]
    pub fn state(&self) -> PayloadBlockState {
        self.state
    }

    /// Its content.
    #[must_use]
    pub fn segments(&self) -> Segments<&'d Disk> {
        self.disk.segments(self.start..self.start.saturating_add(self.length))
    }
}
