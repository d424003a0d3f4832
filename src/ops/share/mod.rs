//! Shares of the work on a disk, for workers that share nothing but its files: a shard, and the range that it covers.

mod shard;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::error::Error;
use crate::scan::ScanError;

pub(super) use shard::{MOST_SHARDS, boundaries};
pub use shard::{NotAShard, Shard};

/// A share of the work on a disk: the number of a shard, and the range of the disk that it covers.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Share {
    /// Number of the shard, and number of shards.
    #[serde(flatten)]
    pub shard: Shard,
    /// Offset of the share in the disk, in bytes.
    pub offset: u64,
    /// Length in bytes.
    #[serde(rename = "length")]
    pub len: u64,
}

impl Share {
    pub(in crate::ops) fn new(shard: Shard, range: Range<u64>) -> Self {
        Self { shard, offset: range.start, len: range.end.saturating_sub(range.start) }
    }

    /// Returns the share of a shard. It has about the same amount of data as all others, begins at a block of the disk,
    /// and equals the split with the same number of a [`Plan`](super::plan::Plan) of as many splits.
    ///
    /// # Errors
    /// Fails if the map of the disk cannot be read.
    pub fn of(disk: &Disk, shard: Shard) -> Result<Self, Error> {
        Ok(Self::new(shard, shard.range_of(disk, disk.block_size(), false)?))
    }

    /// Returns the range of the disk, in bytes.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.len)
    }

    /// Checks that results of the share can be merged: it lies in the disk, and begins and ends at multiples of `step`
    /// or at the end of the disk.
    pub(in crate::ops) fn check(&self, disk: &Disk, step: u64) -> Result<(), ScanError> {
        let (Range { start, end }, size) = (self.range(), disk.size());
        let is_border = |place: u64| place == size || place.is_multiple_of(step);
        if end <= size && is_border(start) && is_border(end) {
            return Ok(());
        }
        let text = format!(
            "share {} cannot be merged (found {start} to {end}, expected multiples of {step} up to {size})",
            self.shard
        );
        Err(ScanError::bad_manifest(None, 0, text))
    }
}

/// A part of the work on a disk, before the disk is opened.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// A shard: its range follows from the map of the disk.
    Shard(Shard),
    /// A share whose range is known, such as that of a split.
    Share(Share),
}

impl Portion {
    /// Returns the share of the disk.
    ///
    /// # Errors
    /// Those of [`Share::of`].
    pub fn share(&self, disk: &Disk) -> Result<Share, Error> {
        match self {
            Self::Shard(shard) => Share::of(disk, *shard),
            Self::Share(share) => Ok(*share),
        }
    }
}

impl From<Shard> for Portion {
    fn from(shard: Shard) -> Self {
        Self::Shard(shard)
    }
}

impl From<Share> for Portion {
    fn from(share: Share) -> Self {
        Self::Share(share)
    }
}
