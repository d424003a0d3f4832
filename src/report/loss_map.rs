//! The loss map of a salvaged disk: `--loss-map`.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, Loss};

use super::{NameBytes, Report, Schema, Span, text_of};

/// What of a disk can't be read.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LossMap {
    /// The keys before the list.
    #[serde(flatten)]
    pub start: LossMapStart,
    /// The lost ranges, in order.
    pub losses: Vec<LossMapEntry>,
    /// The keys after the list.
    #[serde(flatten)]
    pub end: LossMapEnd,
}

impl Report for LossMap {
    const SCHEMA: &'static str = "vhdx-mmap/loss-map/1";
}

/// The keys of a loss map before the list `losses`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LossMapStart {
    /// Name of this format.
    pub schema: Schema<LossMap>,
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// Size of the disk, in bytes.
    pub virtual_size: u64,
    /// The part of the disk that the map covers.
    pub range: Span,
}

/// Lost range of a disk: it cannot be read.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LossMapEntry {
    /// Start in the disk, in bytes.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Layer that should have the bytes: 0 is the image that was opened, 1 its parent.
    pub layer: usize,
    /// The structure that is damaged or can't be read.
    pub structure: String,
    /// File offset of the damage, in bytes.
    pub offset: Option<u64>,
    /// The error.
    pub reason: String,
}

/// The keys of a loss map after the list `losses`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LossMapEnd {
    /// Sum of the lengths, in bytes.
    pub lost_bytes: u64,
    /// The rest of the range, in bytes: what can be read, zeros included.
    pub recovered_bytes: u64,
}

impl LossMap {
    /// Lists what of a range can't be read, all of it in memory.
    #[must_use]
    pub fn of(disk: &Disk, range: Range<u64>) -> Self {
        let losses: Vec<LossMapEntry> = disk.losses(range.clone()).map(|loss| LossMapEntry::of(&loss)).collect();
        let lost_bytes = losses.iter().fold(0_u64, |sum, loss| sum.saturating_add(loss.length));
        let end = LossMapEnd::of(range.clone(), lost_bytes);
        Self { start: LossMapStart::of(disk, range), losses, end }
    }
}

impl LossMapStart {
    /// Describes the image, and the range that the map covers.
    #[must_use]
    pub fn of(disk: &Disk, range: Range<u64>) -> Self {
        Self {
            schema: Schema::default(),
            filename: text_of(disk.image().path()),
            filename_bytes: disk.image().path().and_then(NameBytes::of),
            virtual_size: disk.size(),
            range: range.into(),
        }
    }
}

impl LossMapEntry {
    /// Describes a lost range: one of [`Disk::losses`].
    #[must_use]
    pub fn of(loss: &Loss) -> Self {
        Self {
            start: loss.range.start,
            length: loss.range.end.saturating_sub(loss.range.start),
            layer: loss.reason.layer(),
            structure: loss.reason.structure().to_string(),
            offset: loss.reason.offset(),
            reason: format!("{:#}", loss.reason),
        }
    }
}

impl LossMapEnd {
    /// Ends a list of these lengths in all, of a range of the disk.
    #[must_use]
    pub fn of(range: Range<u64>, lost_bytes: u64) -> Self {
        let length = range.end.saturating_sub(range.start);
        Self { lost_bytes, recovered_bytes: length.saturating_sub(lost_bytes) }
    }
}
