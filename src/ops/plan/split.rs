//! Splits, and what is checked of plans and splits that come from elsewhere.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::num::to_u64;
use crate::ops::share::{MOST_SHARDS, Shard};

use super::{Plan, PlannedDisk, PlannedRange, Share, range_of};

/// One split of a plan: all that a worker needs to do its share of the work. It can be serialized.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", try_from = "UncheckedSplit")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Split {
    /// The files of the disk.
    #[serde(flatten)]
    pub(super) disk: PlannedDisk,
    /// Number of bytes after the split that a search reads, too.
    pub(super) overlap: u64,
    /// Number of splits of the plan.
    pub(super) count: u32,
    /// The range of the disk.
    #[serde(flatten)]
    pub(super) range: PlannedRange,
}

impl Split {
    /// Returns the files of the disk.
    #[must_use]
    pub fn disk(&self) -> &PlannedDisk {
        &self.disk
    }

    /// Returns the number of the split and the number of splits, as a shard of the work.
    #[must_use]
    pub fn shard(&self) -> Shard {
        // Both were checked.
        Shard::new(self.range.index, self.count).unwrap_or(Shard::ONLY)
    }

    /// Returns the share of the work.
    #[must_use]
    pub fn share(&self) -> Share {
        Share::new(self.shard(), self.range())
    }

    /// Returns the range of the disk that belongs to this split alone, in bytes.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        range_of(&self.range)
    }

    /// Returns the range of the disk that a search in this split reads, in bytes: its own range, and the overlap after
    /// it. A match counts if it begins in the own range. So each match that is at most one byte longer than the overlap
    /// is found once, wherever it lies.
    #[must_use]
    pub fn search_range(&self) -> Range<u64> {
        let Range { start, end } = self.range();
        let overlap = if start == end { 0 } else { self.overlap };
        start..end.saturating_add(overlap).min(self.disk.virtual_size)
    }

    /// Returns the number of bytes in the own range that are in files.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.range.data_bytes
    }
}

/// Error: the values in a plan or a split contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPlan(String);

impl fmt::Display for InvalidPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidPlan {}

/// The fields of a [`Split`], not validated.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(super) struct UncheckedSplit {
    #[serde(flatten)]
    disk: PlannedDisk,
    overlap: u64,
    count: u32,
    #[serde(flatten)]
    range: PlannedRange,
}

/// The fields of a [`Plan`], not validated.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(super) struct UncheckedPlan {
    #[serde(flatten)]
    disk: PlannedDisk,
    data_bytes: u64,
    overlap: u64,
    splits: Vec<PlannedRange>,
}

/// Checks that a range begins and ends where the range of a split can.
fn check_range(disk: &PlannedDisk, range: &PlannedRange) -> Result<(), InvalidPlan> {
    let size = disk.virtual_size;
    let end = range.offset.checked_add(range.len).filter(|end| *end <= size);
    let is_border = |place: u64| place == size || place.checked_rem(disk.block_size) == Some(0);
    match end {
        Some(end) if is_border(range.offset) && is_border(end) => Ok(()),
        _ => Err(InvalidPlan(format!(
            "split {}: its range is not a range of blocks of the disk (found {} bytes at {}, expected multiples of {} \
             up to {size})",
            range.index, range.len, range.offset, disk.block_size
        ))),
    }
}

impl TryFrom<UncheckedSplit> for Split {
    type Error = InvalidPlan;

    fn try_from(found: UncheckedSplit) -> Result<Self, InvalidPlan> {
        let UncheckedSplit { disk, overlap, count, range } = found;
        if Shard::new(range.index, count).is_none() {
            let text = format!("found split {} of {count}, expected 1 to {MOST_SHARDS}", range.index);
            return Err(InvalidPlan(text));
        }
        if disk.layers.is_empty() {
            return Err(InvalidPlan("the split names no files".to_owned()));
        }
        check_range(&disk, &range)?;
        Ok(Self { disk, overlap, count, range })
    }
}

impl TryFrom<UncheckedPlan> for Plan {
    type Error = InvalidPlan;

    fn try_from(found: UncheckedPlan) -> Result<Self, InvalidPlan> {
        let UncheckedPlan { disk, data_bytes, overlap, splits } = found;
        let mut position = 0;
        for (expected, range) in (1_u32..).zip(&splits) {
            if range.index != expected {
                return Err(InvalidPlan(format!("found split {}, expected {expected}", range.index)));
            }
            check_range(&disk, range)?;
            if range.offset != position {
                let what = if range.offset < position { "overlaps the split before it" } else { "leaves a gap" };
                let found = range.offset;
                return Err(InvalidPlan(format!(
                    "split {expected} {what} (found offset {found}, expected {position})"
                )));
            }
            position = range_of(range).end;
        }
        let is_too_many = to_u64(splits.len()) > u64::from(MOST_SHARDS);
        if position != disk.virtual_size || splits.is_empty() || is_too_many || disk.layers.is_empty() {
            let (size, count) = (disk.virtual_size, splits.len());
            let text = format!("the splits do not cover the disk (found {position} bytes in {count}, expected {size})");
            return Err(InvalidPlan(text));
        }
        Ok(Self { disk, data_bytes, overlap, splits })
    }
}
