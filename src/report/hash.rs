//! Digests of a disk: `vhdx hash`, and `vhdx merge` of their shards.

use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk::{Disk, Layer};
use crate::ops::Digest;
use crate::ops::manifest::Root;

use super::{Fields, LogUse, NameBytes, OffsetSpan, Report, Schema, in_use, lost_bytes, text_of};

/// An image and the digests of its disk.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hash {
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
    #[serde(default)]
    pub in_use: Option<bool>,
    /// The images of the chain, from this one to the base.
    pub chain: Vec<HashLayer>,
    /// The part of the disk that the digests cover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<OffsetSpan>,
    /// Digests of the disk in hexadecimal, by algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Fields<String>>,
    /// Number of bytes of the range that are lost, and zeros in the digests; absent unless the image was salvaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_bytes: Option<u64>,
    /// Length of the image file, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_length: Option<u64>,
    /// Digests of the image file in hexadecimal, by algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Fields<String>>,
    /// Of a manifest: digests of all block digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Vec<Root>>,
}

impl Report for Hash {
    const SCHEMA: &'static str = "vhdx-mmap/hash/1";
}

/// An image of the chain of a hashed disk.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HashLayer {
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// Identity of the content; none if both headers are lost.
    pub data_write_guid: Option<Uuid>,
    /// What was done with the log.
    pub log: LogUse,
}

impl Hash {
    /// Describes a disk; without digests yet. This is also what a shard says about the image: the `about` of
    /// [`hash_shard`](crate::ops::manifest::hash_shard).
    #[must_use]
    pub fn of(disk: &Disk) -> Self {
        Self {
            schema: Schema::default(),
            filename: text_of(disk.image().path()),
            filename_bytes: disk.image().path().and_then(NameBytes::of),
            virtual_size: disk.size(),
            log: disk.image().log_state().into(),
            chain: disk.layers().iter().map(HashLayer::of).collect(),
            range: None,
            in_use: in_use(disk),
            disk: None,
            lost_bytes: None,
            file_length: None,
            file: None,
            root: None,
        }
    }

    /// Path of the image.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.filename_bytes.as_ref().map_or_else(|| PathBuf::from(&self.filename), NameBytes::to_path)
    }

    /// Adds the digests of a range of the disk.
    #[must_use]
    pub fn disk(mut self, range: Range<u64>, digests: &[Digest]) -> Self {
        self.range = Some(range.into());
        self.disk = Some(by_algorithm(digests));
        self
    }

    /// Adds the number of bytes of a range (in bytes) that are lost, if the disk was opened to salvage it.
    #[must_use]
    pub fn losses(mut self, disk: &Disk, range: Range<u64>) -> Self {
        self.lost_bytes = lost_bytes(disk, range);
        self
    }

    /// Adds the digests of the image file, whose length is in bytes.
    #[must_use]
    pub fn file(mut self, length: u64, digests: &[Digest]) -> Self {
        self.file_length = Some(length);
        self.file = Some(by_algorithm(digests));
        self
    }

    /// Adds the digests of all block digests of a manifest.
    #[must_use]
    pub fn root(mut self, roots: &[Root]) -> Self {
        self.root = Some(roots.to_vec());
        self
    }
}

impl HashLayer {
    pub(super) fn of(layer: &Layer) -> Self {
        let image = layer.image();
        Self {
            filename: text_of(image.path()),
            filename_bytes: image.path().and_then(NameBytes::of),
            data_write_guid: image.header().known_data_write_guid(),
            log: image.log_state().into(),
        }
    }
}

pub(super) fn by_algorithm(digests: &[Digest]) -> Fields<String> {
    digests.iter().map(|digest| (digest.algorithm().as_str(), digest.to_string())).collect()
}
