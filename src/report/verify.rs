//! Comparison with known digests: `vhdx verify`.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::error::OtherFormat;
use crate::ops::manifest::{Mismatch, Verified};
use crate::ops::{Algorithm, Digest};

use super::{LooksLike, NameBytes, OffsetSpan, Report, Schema, in_use, text_of};

/// The comparison of a disk with a manifest.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Verify {
    /// The keys before the list.
    #[serde(flatten)]
    pub start: VerifyStart,
    /// The blocks that differ, in order, an entry for each algorithm.
    pub mismatches: Vec<VerifyEntry>,
    /// The keys after the list.
    #[serde(flatten)]
    pub end: VerifyEnd,
}

impl Report for Verify {
    const SCHEMA: &'static str = "vhdx-mmap/verify/1";
}

/// The keys of a comparison with a manifest before the list `mismatches`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VerifyStart {
    /// Name of this format.
    pub schema: Schema<Verify>,
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// Path of the manifest.
    pub manifest: String,
    /// Bytes of the path of the manifest, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_bytes: Option<NameBytes>,
    /// Size of the disk, in bytes.
    pub virtual_size: u64,
    /// Whether another program has a file of the chain open for writing; none if unknown.
    #[serde(default)]
    pub in_use: Option<bool>,
}

/// A block that differs from the manifest.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VerifyEntry {
    /// Number of the block in the manifest.
    pub block: u64,
    /// Start in the disk, in bytes.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Algorithm of both digests.
    pub algorithm: Algorithm,
    /// Digest in the manifest, in hexadecimal.
    pub expected: String,
    /// Digest of the block, in hexadecimal.
    pub found: String,
}

/// The keys of a comparison with a manifest after the list `mismatches`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VerifyEnd {
    /// Whether the manifest was made from this state of this image.
    pub same_image: bool,
    /// The part of the disk that the manifest covers.
    pub range: OffsetSpan,
    /// Number of blocks that were compared.
    pub blocks: u64,
    /// Number of blocks that differ.
    pub mismatching_blocks: u64,
    /// True without mismatches.
    pub ok: bool,
}

/// The comparison of a disk or file with one digest of a list.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VerifySum {
    /// Name of this format.
    pub schema: Schema<Self>,
    /// Path of the image or file.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// What the digest is of.
    pub of: VerifySumOf,
    /// Algorithm of both digests; absent if the file can't be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// Digest in the list, in hexadecimal; absent if the file can't be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// Digest of the content, in hexadecimal; absent if the file can't be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// Whether both digests are equal.
    pub ok: bool,
    /// The part of the disk that the digests cover; absent if they are of all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<OffsetSpan>,
    /// Why the file can't be read; otherwise absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the file is, if it is not a VHDX image; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looks_like: Option<LooksLike>,
}

impl Report for VerifySum {
    const SCHEMA: &'static str = "vhdx-mmap/verify-sum/1";
}

/// What a digest of a list is of.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum VerifySumOf {
    /// The disk of an image, or a raw disk.
    Disk,
    /// The bytes of a file.
    File,
    /// One of the two: the list does not say which, and neither matches.
    DiskOrFile,
}

impl Verify {
    /// A whole report from its parts.
    #[must_use]
    pub fn of(start: VerifyStart, mismatches: Vec<VerifyEntry>, end: VerifyEnd) -> Self {
        Self { start, mismatches, end }
    }
}

impl VerifyStart {
    /// Describes a disk that is compared with the manifest at `manifest`.
    #[must_use]
    pub fn of(disk: &Disk, manifest: &Path) -> Self {
        Self {
            schema: Schema::default(),
            filename: text_of(disk.image().path()),
            filename_bytes: disk.image().path().and_then(NameBytes::of),
            manifest: text_of(Some(manifest)),
            manifest_bytes: NameBytes::of(manifest),
            virtual_size: disk.size(),
            in_use: in_use(disk),
        }
    }
}

impl VerifyEntry {
    /// Describes a block that differs.
    #[must_use]
    pub fn of(mismatch: &Mismatch) -> Self {
        let range = &mismatch.range;
        Self {
            block: mismatch.block,
            start: range.start,
            length: range.end.saturating_sub(range.start),
            algorithm: mismatch.found.algorithm(),
            expected: mismatch.expected.to_string(),
            found: mismatch.found.to_string(),
        }
    }
}

impl VerifyEnd {
    /// Describes the result of a comparison.
    #[must_use]
    pub fn of(verified: &Verified) -> Self {
        Self {
            same_image: verified.is_same_image,
            range: verified.range.clone().into(),
            blocks: verified.blocks,
            mismatching_blocks: verified.mismatches,
            ok: verified.mismatches == 0,
        }
    }
}

impl VerifySum {
    /// Compares the digest of a content with that of a list. A name that is not Unicode has its bytes replaced.
    #[must_use]
    pub fn of(filename: &Path, of: VerifySumOf, expected: &Digest, found: &Digest) -> Self {
        Self {
            schema: Schema::default(),
            filename: text_of(Some(filename)),
            filename_bytes: NameBytes::of(filename),
            of,
            algorithm: Some(found.algorithm()),
            expected: Some(expected.to_string()),
            found: Some(found.to_string()),
            ok: expected.bytes() == found.bytes(),
            range: None,
            error: None,
            looks_like: None,
        }
    }

    /// Says that the digests are of a part of the disk.
    #[must_use]
    pub fn range(mut self, range: Option<Range<u64>>) -> Self {
        self.range = range.map(OffsetSpan::from);
        self
    }

    /// Says anew what the digest is of.
    #[must_use]
    pub fn relabel(mut self, of: VerifySumOf) -> Self {
        self.of = of;
        self
    }

    /// Describes a file that can't be read.
    #[must_use]
    pub fn unreadable(filename: &Path, of: VerifySumOf, error: &str) -> Self {
        Self {
            schema: Schema::default(),
            filename: text_of(Some(filename)),
            filename_bytes: NameBytes::of(filename),
            of,
            algorithm: None,
            expected: None,
            found: None,
            ok: false,
            range: None,
            error: Some(error.to_owned()),
            looks_like: None,
        }
    }

    /// Adds what the file is, if it is not a VHDX image ([`Error::looks_like`](crate::Error::looks_like)).
    #[must_use]
    pub fn looks_like(mut self, format: Option<OtherFormat>) -> Self {
        self.looks_like = format.map(LooksLike::of);
        self
    }
}
