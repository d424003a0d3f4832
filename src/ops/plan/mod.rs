//! Plans: the work on a disk, divided into splits for workers that share nothing but its files.
//!
//! [`Plan::new`] divides a disk into splits with about the same amount of data. A plan, and each [`Split`] of it, can
//! be serialized. A split says everything that a worker needs: the paths of all files of the chain, their states, and
//! its range of the disk. [`Split::open`] opens exactly these files, searches for no parents, and fails if a file has
//! changed.
//!
//! Every split begins at a block of the disk, so that all results of shares can be merged:
//!
//! | result | of a share | merged |
//! |---|---|---|
//! | CRC-32, BLAKE3 | [`hash_share`](super::manifest::hash_share) | [`merge`](super::manifest::merge()) |
//! | manifest | [`create_manifest_of`](super::manifest::create_manifest_of) | [`merge`](super::manifest::merge()) |
//! | findings | [`CheckOptions::share`](super::CheckOptions::share) | `report::Check::merge` |
//! | changed ranges | [`content_changes_in`](super::content_changes_in) | `report::Diff::merge` |
//! | extracted bytes | [`extract_to_file`](super::extract_to_file) | `report::Extract::merge` |
//!
//! Merged results equal those of one run. Counters of bytes (data, zeros, changes) are added.
//!
//! ```no_run
//! use std::sync::Arc;
//! use vhdx_mmap::ops::plan::{Plan, PlanOptions, Split};
//! use vhdx_mmap::{Disk, OpenOptions, Parents, ScanOptions, Source};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let disk = Disk::open(Source::open("disk.avhdx")?, &OpenOptions::new().parents(Parents::Beside))?;
//! let plan = Plan::new(&disk, &PlanOptions::splits(8))?;
//! let texts: Vec<String> = plan.splits().map(|split| serde_json::to_string(&split)).collect::<Result<_, _>>()?;
//!
//! // On another machine:
//! let split: Split = serde_json::from_str(&texts[3])?;
//! let disk = split.open()?;
//! split.input(&disk).scan(&ScanOptions::new(), |_, segments| segments.len(), |_, _| {})?;
//! # Ok(())
//! # }
//! ```

mod open;
mod split;

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{ChainFingerprint, Disk, Layer, LayerFingerprint};
use crate::error::Error;
use crate::image::LogState;
use crate::num::{to_u64, to_usize_saturating};
use crate::source::{NameBytes, text_of};

use super::extract::measure;
use super::hash::{Algorithm, Digest, Running};
use super::share::{MOST_SHARDS, Shard, boundaries};

pub use super::share::{Portion, Share};
pub use split::{InvalidPlan, Split};

/// How a disk is divided.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    count: Count,
    /// Number of bytes after a split that a search reads, too.
    pub overlap: u64,
    /// Whether the times of the files are part of the plan. Without them, copies of the files may be read, too.
    pub times: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Splits(u32),
    Data(u64),
}

impl PlanOptions {
    /// Divides a disk into this number of splits, between 1 and 2^20; other numbers count as the nearest of these. Some
    /// splits are empty if the disk has fewer blocks.
    #[must_use]
    pub fn splits(count: u32) -> Self {
        Self { count: Count::Splits(count.clamp(1, MOST_SHARDS)), overlap: 0, times: true }
    }

    /// Divides a disk into splits with about this number of bytes of data, at least 1, but into no more than 2^20.
    #[must_use]
    pub fn split_size(data: u64) -> Self {
        Self { count: Count::Data(data.max(1)), overlap: 0, times: true }
    }

    /// Sets the number of bytes after a split that a search reads, too: one less than the longest match.
    #[must_use]
    pub fn overlap(mut self, overlap: u64) -> Self {
        self.overlap = overlap;
        self
    }

    /// Leaves the times of the files out of the plan: for workers that read copies of the files.
    #[must_use]
    pub fn without_times(mut self) -> Self {
        self.times = false;
        self
    }

    fn count(&self, data: u64) -> u32 {
        match self.count {
            Count::Splits(count) => count,
            Count::Data(size) => u32::try_from(data.div_ceil(size)).unwrap_or(u32::MAX).clamp(1, MOST_SHARDS),
        }
    }
}

/// The files of a disk, and the state in which they were when a plan was made.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlannedDisk {
    /// Size of the disk, in bytes.
    pub virtual_size: u64,
    /// Block size of the opened image, in bytes. Splits begin at multiples of it.
    pub block_size: u64,
    /// Whether changes in the logs were left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub log_ignored: bool,
    /// SHA-256 of the states of the files, without their times: results of shares of one disk have the same.
    pub state: String,
    /// The files: that of the opened image first, that of its base last.
    pub layers: Vec<PlannedLayer>,
}

/// A file of a disk, and its state.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlannedLayer {
    /// Absolute path of the file; `-` for bytes without a file.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filename_bytes: Option<NameBytes>,
    /// State of the file.
    #[serde(flatten)]
    pub fingerprint: LayerFingerprint,
}

impl PlannedLayer {
    fn of(layer: &Layer, fingerprint: LayerFingerprint) -> Self {
        // The folder of a worker is another one.
        let path = layer.image().path().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()));
        let path: Option<&Path> = path.as_deref();
        Self { filename: text_of(path), filename_bytes: path.and_then(NameBytes::of), fingerprint }
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.filename_bytes.as_ref().map_or_else(|| PathBuf::from(&self.filename), NameBytes::to_path)
    }
}

impl PlannedDisk {
    fn of(disk: &Disk, times: bool) -> Self {
        let mut fingerprint = disk.fingerprint();
        if !times {
            fingerprint.layers.iter_mut().for_each(|layer| layer.modified = None);
        }
        let is_ignored = |layer: &Layer| matches!(layer.image().log_state(), LogState::Ignored | LogState::Unknown);
        Self {
            virtual_size: disk.size(),
            block_size: disk.block_size(),
            log_ignored: disk.layers().iter().any(is_ignored),
            state: state_of(&fingerprint),
            layers: disk.layers().iter().zip(fingerprint.layers).map(|(one, of)| PlannedLayer::of(one, of)).collect(),
        }
    }

    /// Returns the fingerprint of the chain.
    #[must_use]
    pub fn fingerprint(&self) -> ChainFingerprint {
        ChainFingerprint { layers: self.layers.iter().map(|layer| layer.fingerprint.clone()).collect() }
    }
}

/// Returns a digest of the states of the files of a chain, without their times: SHA-256, in lower-case hexadecimal.
/// Shares that were computed from copies of the files have the same.
#[must_use]
pub fn state_of(fingerprint: &ChainFingerprint) -> String {
    let mut fingerprint = fingerprint.clone();
    fingerprint.layers.iter_mut().for_each(|layer| layer.modified = None);
    let mut running = Running::new(Algorithm::Sha256);
    running.update(&serde_json::to_vec(&fingerprint).unwrap_or_default());
    running.finish().as_ref().map(Digest::to_string).unwrap_or_default()
}

/// A range of a disk that is one split of a plan.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlannedRange {
    /// Number of the split, from 1.
    pub index: u32,
    /// Offset in the disk, in bytes.
    pub offset: u64,
    /// Length in bytes, without the overlap.
    #[serde(rename = "length")]
    pub len: u64,
    /// Number of bytes in it that are in files.
    pub data_bytes: u64,
}

/// Work on a disk, divided into splits. It can be serialized; what is deserialized is consistent: the splits cover the
/// disk, and none overlaps another.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", try_from = "split::UncheckedPlan")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Plan {
    /// The files of the disk.
    #[serde(flatten)]
    disk: PlannedDisk,
    /// Number of bytes of the disk that are in files.
    data_bytes: u64,
    /// Number of bytes after a split that a search reads, too.
    overlap: u64,
    /// The splits, in the order of the disk.
    splits: Vec<PlannedRange>,
}

impl Plan {
    /// Divides a disk into splits with about the same amount of data. Only the tables of the disk are read.
    ///
    /// # Errors
    /// Fails if the map of the disk cannot be read.
    pub fn new(disk: &Disk, options: &PlanOptions) -> Result<Self, Error> {
        let data_bytes = measure(disk, 0..disk.size())?.data;
        let count = options.count(data_bytes);
        let places = boundaries(disk, count, 0..=count, disk.block_size(), false)?;
        let ranges = places.iter().zip(places.iter().skip(1)).map(|(start, end)| *start..*end);
        let mut splits: Vec<PlannedRange> = Vec::with_capacity(to_usize_saturating(count.into()));
        for (index, range) in (1..).zip(ranges) {
            let len = range.end.saturating_sub(range.start);
            splits.push(PlannedRange { index, offset: range.start, len, data_bytes: measure(disk, range)?.data });
        }
        disk.check_tables(0..disk.size())?;
        Ok(Self { disk: PlannedDisk::of(disk, options.times), data_bytes, overlap: options.overlap, splits })
    }

    /// Returns the files of the disk.
    #[must_use]
    pub fn disk(&self) -> &PlannedDisk {
        &self.disk
    }

    /// Returns the number of bytes of the disk that are in files.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Returns the ranges of the splits, in the order of the disk.
    #[must_use]
    pub fn ranges(&self) -> &[PlannedRange] {
        &self.splits
    }

    /// Returns the splits, in the order of the disk.
    pub fn splits(&self) -> impl Iterator<Item = Split> + '_ {
        self.splits.iter().map(|range| self.split_of(*range))
    }

    /// Returns the split with a number, from 1. Returns `None` if there is no such split.
    #[must_use]
    pub fn split(&self, index: u32) -> Option<Split> {
        let place = usize::try_from(index).ok()?.checked_sub(1)?;
        self.splits.get(place).map(|range| self.split_of(*range))
    }

    /// Returns the split of a shard, if the shards are as many as the splits.
    #[must_use]
    pub fn split_of_shard(&self, shard: Shard) -> Option<Split> {
        self.split(shard.index()).filter(|_| u64::from(shard.count()) == to_u64(self.splits.len()))
    }

    fn split_of(&self, range: PlannedRange) -> Split {
        let count = u32::try_from(self.splits.len()).unwrap_or(MOST_SHARDS);
        Split { disk: self.disk.clone(), overlap: self.overlap, count, range }
    }
}

/// Returns the range of a planned range.
fn range_of(range: &PlannedRange) -> Range<u64> {
    range.offset..range.offset.saturating_add(range.len)
}
