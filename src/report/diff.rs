//! The changes of a disk since an ancestor: `vhdx diff`.

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::ops::Change;

use super::{NameBytes, Report, Schema, in_use, text_of};

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
}

/// What counts as a change.
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
        }
    }
}

impl DiffEntry {
    /// Describes a change.
    #[must_use]
    pub fn of(change: &Change) -> Self {
        let range = &change.range;
        Self { start: range.start, length: range.end.saturating_sub(range.start), zero: change.is_zero }
    }
}

impl DiffEnd {
    /// Adds a change.
    pub fn add(&mut self, change: &Change) {
        let length = change.range.end.saturating_sub(change.range.start);
        self.changed_ranges = self.changed_ranges.saturating_add(1);
        self.changed_bytes = self.changed_bytes.saturating_add(length);
        self.zero_bytes = self.zero_bytes.saturating_add(if change.is_zero { length } else { 0 });
    }
}
