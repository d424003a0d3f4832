//! Shares of the work: what a report of one says, and the order in which reports are merged.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::ops::plan;

/// The share of the work that a report is about.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Share {
    /// Number of the shard, from 1.
    pub index: u32,
    /// Number of shards.
    pub count: u32,
    /// Offset of the share in the disk, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Size of the disk, in bytes.
    pub disk_size: u64,
    /// SHA-256 of the states of the files of the chain, without their times.
    pub state: String,
}

impl Share {
    /// Describes a share of a disk.
    #[must_use]
    pub fn of(disk: &Disk, share: &plan::Share) -> Self {
        Self::new(share, disk.size(), plan::state_of(&disk.fingerprint()))
    }

    pub(super) fn new(share: &plan::Share, disk_size: u64, state: String) -> Self {
        let plan::Share { shard, offset, len: length, .. } = *share;
        Self { index: shard.index(), count: shard.count(), offset, length, disk_size, state }
    }

    /// Returns the range of the disk, in bytes.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.length)
    }
}

/// Reason why reports of shares cannot be merged.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeError {
    /// Place of the report with the problem among those that were given, from 0.
    pub document: usize,
    /// The problem.
    pub what: String,
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for MergeError {}

impl MergeError {
    pub(super) fn new(document: usize, what: impl Into<String>) -> Self {
        Self { document, what: what.into() }
    }
}

/// A report of a share, and its place among those that were given.
pub(super) type Numbered<R> = (usize, R);

/// Puts reports into the order of their shares, and checks that these are all shares of one work on one disk, once
/// each, without a gap or an overlap.
pub(super) fn in_order<R>(
    reports: Vec<R>,
    share_of: impl Fn(&R) -> Option<&Share>,
) -> Result<Vec<Numbered<R>>, MergeError> {
    let mut numbered: Vec<Numbered<R>> = reports.into_iter().enumerate().collect();
    let whole = numbered.iter().find(|(_, report)| share_of(report).is_none());
    if let Some((number, _)) = whole {
        return Err(MergeError::new(*number, "not a result of a share: there is nothing to merge"));
    }
    let first = numbered.first().and_then(|(_, report)| share_of(report)).cloned();
    let Some(first) = first else { return Err(MergeError::new(0, "there is nothing to merge")) };
    for (number, report) in &numbered {
        let Some(share) = share_of(report) else { continue };
        if (&share.state, share.disk_size) != (&first.state, first.disk_size) {
            return Err(MergeError::new(*number, "the share is of another disk, or of another state of its files"));
        }
        if share.count != first.count {
            let (index, count) = (share.index, share.count);
            let text = format!("wrong share (found {index}/{count}, expected a share of {})", first.count);
            return Err(MergeError::new(*number, text));
        }
    }
    numbered.sort_by_key(|(_, report)| share_of(report).map(|share| share.index));
    let (mut position, mut expected) = (0, 1_u32);
    for (number, report) in &numbered {
        let Some(share) = share_of(report) else { continue };
        let count = share.count;
        if share.index < expected {
            return Err(MergeError::new(*number, format!("share {}/{count} occurs twice", share.index)));
        }
        if share.index > expected {
            return Err(MergeError::new(*number, format!("share {expected}/{count} is missing")));
        }
        if share.offset != position {
            let what = if share.offset < position { "overlaps the share before it" } else { "leaves a gap before it" };
            let text = format!("share {expected}/{count} {what} (found offset {}, expected {position})", share.offset);
            return Err(MergeError::new(*number, text));
        }
        position = share.range().end;
        expected = expected.saturating_add(1);
    }
    let last = expected.saturating_sub(1);
    if last != first.count {
        return Err(MergeError::new(0, format!("share {expected}/{} is missing", first.count)));
    }
    if position != first.disk_size {
        let text = format!("the shares do not cover the disk (found {position} bytes, expected {})", first.disk_size);
        return Err(MergeError::new(0, text));
    }
    Ok(numbered)
}
