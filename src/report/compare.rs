//! The comparison of two disks: `vhdx compare`.

use serde::{Deserialize, Serialize};

use crate::ops::Difference;
use crate::scan::Input;

use super::{NameBytes, Report, Schema, text_of};

/// The comparison of two disks.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Compare {
    /// The keys before the list.
    #[serde(flatten)]
    pub start: CompareStart,
    /// The ranges that differ, in order; absent unless all were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differences: Option<Vec<CompareEntry>>,
    /// The keys after the list.
    #[serde(flatten)]
    pub end: CompareEnd,
}

impl Report for Compare {
    const SCHEMA: &'static str = "vhdx-mmap/compare/1";
}

/// The keys of a comparison before the list `differences`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CompareStart {
    /// Name of this format.
    pub schema: Schema<Compare>,
    /// Paths of the first and the second disk.
    pub filenames: [String; 2],
    /// Bytes of the paths that are not Unicode; absent if both are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filenames_bytes: Option<[Option<NameBytes>; 2]>,
    /// Sizes of the first and the second disk, in bytes.
    pub virtual_sizes: [u64; 2],
    /// Whether another program has a file of the first or the second chain open for writing; none if unknown.
    #[serde(default)]
    pub in_use: [Option<bool>; 2],
}

/// A range in which two disks differ.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CompareEntry {
    /// Start in the disk, in bytes.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Offset of the first byte that differs.
    pub first: u64,
}

/// The keys of a comparison after the list `differences`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CompareEnd {
    /// Whether the disks are identical; a shorter disk is compared as if zeros followed it.
    pub identical: bool,
    /// Offset of the first byte that differs, in bytes; none if no content differs or none was compared.
    pub first_difference: Option<u64>,
    /// Sum of the lengths of all ranges that differ, in bytes; absent unless all were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differing_bytes: Option<u64>,
    /// False if the content was not compared because the sizes differ; otherwise absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_size: Option<bool>,
}

impl Compare {
    /// A whole report from its parts.
    #[must_use]
    pub fn of(start: CompareStart, differences: Option<Vec<CompareEntry>>, end: CompareEnd) -> Self {
        Self { start, differences, end }
    }
}

impl CompareStart {
    /// Describes what is compared.
    #[must_use]
    pub fn of(one: Input<'_>, other: Input<'_>) -> Self {
        Self {
            schema: Schema::default(),
            filenames: [text_of(one.path()), text_of(other.path())],
            filenames_bytes: Some([one.path(), other.path()].map(|path| path.and_then(NameBytes::of)))
                .filter(|bytes| bytes.iter().any(Option::is_some)),
            virtual_sizes: [one.len(), other.len()],
            in_use: [one.in_use(), other.in_use()],
        }
    }
}

impl CompareEntry {
    /// Describes a range that differs.
    #[must_use]
    pub fn of(difference: &Difference) -> Self {
        let range = &difference.range;
        Self { start: range.start, length: range.end.saturating_sub(range.start), first: difference.first }
    }
}

impl CompareEnd {
    /// Describes the result: the offset of the first byte that differs, and the sum of the lengths of all ranges, if
    /// all were requested.
    #[must_use]
    pub const fn of(first_difference: Option<u64>, differing_bytes: Option<u64>) -> Self {
        Self { identical: first_difference.is_none(), first_difference, differing_bytes, same_size: None }
    }

    /// Describes two disks whose content was not compared because their sizes differ.
    #[must_use]
    pub const fn of_other_size() -> Self {
        Self { identical: false, first_difference: None, differing_bytes: None, same_size: Some(false) }
    }
}
