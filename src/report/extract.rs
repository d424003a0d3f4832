//! A disk that was extracted: `vhdx extract`.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::ops::Extracted;

use super::diff::merged_in_use;
use super::share::in_order;
use super::{
    Fields, HashLayer, LogUse, MergeError, NameBytes, OffsetSpan, Report, Schema, Share, by_algorithm, in_use,
    lost_bytes, text_of,
};

/// An image and the output that its disk was written to.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Extract {
    /// Name of this format.
    pub schema: Schema<Self>,
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// Size of the disk, in bytes.
    pub virtual_size: u64,
    /// What was done with the log.
    pub log: LogUse,
    /// Whether another program had a file of the chain open for writing; none if unknown.
    pub in_use: Option<bool>,
    /// The images of the chain, from this one to the base.
    pub chain: Vec<HashLayer>,
    /// The part of the disk that was extracted.
    pub range: OffsetSpan,
    /// Path of the output; `-` for standard output.
    pub output: String,
    /// Bytes of the path of the output, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<NameBytes>,
    /// Format of the output.
    pub format: ExtractFormat,
    /// Length of the output, in bytes.
    pub output_length: u64,
    /// Space that the output occupies, in bytes; none for a stream or a device.
    pub output_actual_size: Option<u64>,
    /// Number of bytes that were copied from files, or shared with them.
    pub data_bytes: u64,
    /// Number of zeros that were in no file, or in holes of one; and of bytes that are lost.
    pub zero_bytes: u64,
    /// Number of those bytes of `zero-bytes` that are lost; absent unless the image was salvaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_bytes: Option<u64>,
    /// Number of those bytes of `data-bytes` that the output shares with the image.
    pub shared_bytes: u64,
    /// Duration of the work, in seconds.
    pub seconds: f64,
    /// Whether the output was read again and compared.
    pub verified: bool,
    /// Digests of the output in hexadecimal, by algorithm.
    pub digests: Fields<String>,
    /// The share of the disk that was written; absent if it is the whole disk, or a range that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

impl Report for Extract {
    const SCHEMA: &'static str = "vhdx-mmap/extract/1";
}

/// Format of an extracted disk.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ExtractFormat {
    /// The bytes of the disk.
    Raw,
    /// A fixed VHD.
    Vhd,
}

/// Output of an extraction.
#[derive(Clone, Copy, Debug)]
pub struct ExtractOutput<'a> {
    /// Path of the output.
    pub path: &'a Path,
    /// Format of the output.
    pub format: ExtractFormat,
    /// Length of the output, in bytes.
    pub length: u64,
    /// Space that the output occupies, in bytes; none for a stream or a device.
    pub actual_size: Option<u64>,
    /// Whether the output was read again and compared.
    pub verified: bool,
    /// Duration of the work, in seconds.
    pub seconds: f64,
}

impl Extract {
    /// Describes a range of a disk that was extracted.
    #[must_use]
    pub fn of(disk: &Disk, range: Range<u64>, extracted: &Extracted, output: &ExtractOutput<'_>) -> Self {
        Self {
            schema: Schema::default(),
            filename: text_of(disk.image().path()),
            filename_bytes: disk.image().path().and_then(NameBytes::of),
            virtual_size: disk.size(),
            log: disk.image().log_state().into(),
            in_use: in_use(disk),
            chain: disk.layers().iter().map(HashLayer::of).collect(),
            lost_bytes: lost_bytes(disk, range.clone()),
            range: range.into(),
            output: text_of(Some(output.path)),
            output_bytes: NameBytes::of(output.path),
            format: output.format,
            output_length: output.length,
            output_actual_size: output.actual_size,
            data_bytes: extracted.data,
            zero_bytes: extracted.zero,
            shared_bytes: extracted.shared,
            seconds: output.seconds,
            verified: output.verified,
            digests: by_algorithm(&extracted.digests),
            share: None,
        }
    }

    /// Sets the share of the disk that was written.
    #[must_use]
    pub fn share(mut self, share: Share) -> Self {
        self.share = Some(share);
        self
    }

    /// Merges the reports of all shares of a disk, in any order: whether all of the output was written. Bytes are
    /// added; `seconds` is that of the longest work, and `output_actual_size` the largest.
    ///
    /// # Errors
    /// Fails if a share is missing or occurs twice, if shares overlap or are of different disks or states of their
    /// files, or if they were written to different outputs.
    pub fn merge(shares: Vec<Self>) -> Result<Self, MergeError> {
        let mut shares = in_order(shares, |report| report.share.as_ref())?.into_iter();
        let first = shares.next().map(|(_, report)| report);
        let Some(mut whole) = first else { return Err(MergeError::new(0, "there is nothing to merge")) };
        for (number, next) in shares {
            let place = |report: &Self| (report.output.clone(), report.output_bytes.clone(), report.output_length);
            if place(&next) != place(&whole) || next.format != whole.format {
                return Err(MergeError::new(number, "the share was written to another output"));
            }
            whole.data_bytes = whole.data_bytes.saturating_add(next.data_bytes);
            whole.zero_bytes = whole.zero_bytes.saturating_add(next.zero_bytes);
            whole.lost_bytes = match (whole.lost_bytes, next.lost_bytes) {
                (None, None) => None,
                (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
            };
            whole.shared_bytes = whole.shared_bytes.saturating_add(next.shared_bytes);
            whole.output_actual_size = whole.output_actual_size.max(next.output_actual_size);
            whole.seconds = whole.seconds.max(next.seconds);
            whole.verified &= next.verified;
            whole.in_use = merged_in_use(whole.in_use, next.in_use);
        }
        whole.range = OffsetSpan { offset: 0, length: whole.virtual_size };
        whole.share = None;
        Ok(whole)
    }
}
