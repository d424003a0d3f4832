//! The changes of a disk since an ancestor: `vhdx diff`.

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::ops::Change;

use super::share::in_order;
use super::{MergeError, NameBytes, Report, Schema, Share, in_use, text_of};

/// The changes of a disk since an ancestor.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Diff {
    /// The keys before the list.
    #[serde(flatten)]
    pub start: DiffStart,
    /// The changed ranges, in order.
    pub changes: Vec<DiffEntry>,
    /// The keys after the list.
    #[serde(flatten)]
    pub end: DiffEnd,
}

impl Report for Diff {
    const SCHEMA: &'static str = "vhdx-mmap/diff/1";
}

/// The keys of a list of changes before the list `changes`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiffStart {
    /// Name of this format.
    pub schema: Schema<Diff>,
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// Path of the ancestor; none for a parent that was not found.
    pub ancestor: Option<String>,
    /// Bytes of the path of the ancestor, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ancestor_bytes: Option<NameBytes>,
    /// Layer of the ancestor: 1 is the parent.
    pub ancestor_depth: usize,
    /// Size of the disk, in bytes.
    pub virtual_size: u64,
    /// Whether another program has a file of the chain open for writing; none if unknown.
    #[serde(default)]
    pub in_use: Option<bool>,
    /// What counts as a change.
    pub mode: DiffMode,
    /// The share of the disk whose changes are listed; absent if it is the whole disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

/// What counts as a change.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DiffMode {
    /// Bytes that differ.
    Content,
    /// Everything that the layers above the ancestor hold.
    Allocated,
}

/// A changed range.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiffEntry {
    /// Start in the disk, in bytes.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Whether the disk has zeros without data there.
    pub zero: bool,
}

/// The keys of a list of changes after the list `changes`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiffEnd {
    /// Number of ranges.
    pub changed_ranges: u64,
    /// Sum of the lengths, in bytes.
    pub changed_bytes: u64,
    /// Number of those bytes that are zeros without data.
    pub zero_bytes: u64,
}

impl Diff {
    /// A whole report from its parts.
    #[must_use]
    pub fn of(start: DiffStart, changes: Vec<DiffEntry>, end: DiffEnd) -> Self {
        Self { start, changes, end }
    }

    /// Merges the reports of all shares of a disk, in any order, into that of the whole disk. A change that reaches
    /// from one share into the next is one change again.
    ///
    /// # Errors
    /// Fails if a share is missing or occurs twice, if shares overlap or are of different disks, states of their files,
    /// ancestors or modes, or if a change lies outside of its share.
    pub fn merge(shares: Vec<Self>) -> Result<Self, MergeError> {
        let shares = in_order(shares, |report| report.start.share.as_ref())?;
        let (mut changes, mut end): (Vec<DiffEntry>, _) = (Vec::new(), DiffEnd::default());
        let kind = |start: &DiffStart| (start.ancestor_depth, start.mode);
        let first = shares.first().map(|(_, report)| report.start.clone());
        let Some(mut start) = first else { return Err(MergeError::new(0, "there is nothing to merge")) };
        for (number, report) in shares {
            if kind(&report.start) != kind(&start) {
                return Err(MergeError::new(number, "the share is of another ancestor, or of another mode"));
            }
            let mut place = report.start.share.as_ref().map(Share::range).unwrap_or_default();
            for change in report.changes {
                let change_end = change.start.checked_add(change.length);
                place.start = match change_end.filter(|end| change.start >= place.start && *end <= place.end) {
                    Some(end) => end,
                    None => return Err(MergeError::new(number, "a change lies outside of the share")),
                };
                match changes.last_mut() {
                    Some(before) if before.continues_in(&change) => {
                        before.length = before.length.saturating_add(change.length);
                    }
                    _ => changes.push(change),
                }
            }
            start.in_use = merged_in_use(start.in_use, report.start.in_use);
        }
        changes.iter().for_each(|change| end.add_entry(change));
        start.share = None;
        Ok(Self { start, changes, end })
    }
}

/// Whether some worker saw a program that had a file open for writing; none if some worker could not know.
pub(super) fn merged_in_use(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

impl DiffStart {
    /// Describes a disk and the layer that it is compared with.
    #[must_use]
    pub fn of(disk: &Disk, ancestor: usize, mode: DiffMode) -> Self {
        Self {
            schema: Schema::default(),
            filename: text_of(disk.image().path()),
            filename_bytes: disk.image().path().and_then(NameBytes::of),
            ancestor: disk.layers().get(ancestor).map(|layer| text_of(layer.image().path())),
            ancestor_bytes: disk.layers().get(ancestor).and_then(|layer| NameBytes::of(layer.image().path()?)),
            ancestor_depth: ancestor,
            virtual_size: disk.size(),
            in_use: in_use(disk),
            mode,
            share: None,
        }
    }

    /// Sets the share of the disk whose changes are listed.
    #[must_use]
    pub fn share(mut self, share: Share) -> Self {
        self.share = Some(share);
        self
    }
}

impl DiffEntry {
    /// Describes a change.
    #[must_use]
    pub fn of(change: &Change) -> Self {
        let range = &change.range;
        Self { start: range.start, length: range.end.saturating_sub(range.start), zero: change.is_zero }
    }

    fn continues_in(&self, next: &Self) -> bool {
        self.start.checked_add(self.length) == Some(next.start) && self.zero == next.zero
    }
}

impl DiffEnd {
    /// Adds a change.
    pub fn add(&mut self, change: &Change) {
        self.add_entry(&DiffEntry::of(change));
    }

    fn add_entry(&mut self, change: &DiffEntry) {
        self.changed_ranges = self.changed_ranges.saturating_add(1);
        self.changed_bytes = self.changed_bytes.saturating_add(change.length);
        self.zero_bytes = self.zero_bytes.saturating_add(if change.zero { change.length } else { 0 });
    }
}
