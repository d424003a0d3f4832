//! Reports: what the command `vhdx` prints as JSON, as types that can be serialized (feature `serde`).
//!
//! Each report has a constructor from objects of this crate: `Info::of` makes one from a [`Chain`](crate::Chain). Its
//! keys and values are those of the page `docs/json.md`. The key `schema` names the format of a report:
//! [`Report::SCHEMA`]. `Info` and reports of work on whole disks need the feature `ops`, too. Strings from an image may
//! contain any character, also those that control a terminal.
//!
//! A list that may have an entry for every block of a disk is not kept in memory. Such a report has three parts:
//! [`LossMapStart`] has the keys before the list, [`LossMapEntry`] is one entry, and [`LossMapEnd`] has the keys after
//! the list. The map of a disk that `--output json` prints has entries only, as that of qemu-img: [`MapEntry`].
//!
//! The feature `schema` adds `schemas`: a JSON Schema for each command.
//!
//! ```no_run
//! use vhdx_mmap::{Chain, OpenOptions, Source, report::Info};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let chain = Chain::open(Source::open("disk.vhdx")?, &OpenOptions::new())?;
//! println!("{}", serde_json::to_string_pretty(&Info::of(&chain)?)?);
//! # Ok(())
//! # }
//! ```

mod chain;
#[cfg(feature = "ops")]
mod check;
#[cfg(feature = "ops")]
mod check_merge;
#[cfg(feature = "ops")]
mod checkpoints;
#[cfg(feature = "ops")]
mod compare;
#[cfg(feature = "ops")]
mod diff;
#[cfg(feature = "ops")]
mod extract;
mod failed;
mod fields;
#[cfg(feature = "ops")]
mod forest;
#[cfg(feature = "ops")]
mod hash;
#[cfg(feature = "ops")]
mod info;
#[cfg(feature = "ops")]
mod list;
mod log;
mod loss_map;
mod map;
#[cfg(feature = "ops")]
mod merge;
#[cfg(feature = "ops")]
mod plan;
#[cfg(feature = "schema")]
mod schema;
#[cfg(feature = "ops")]
mod share;
#[cfg(feature = "ops")]
mod verify;
mod words;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use chain::{Chain, ChainLayer};
#[cfg(feature = "ops")]
pub use check::{Check, CheckCount, CheckFailure, CheckFinding, CheckResult, CheckShare};
#[cfg(feature = "ops")]
pub use checkpoints::InfoCheckpoints;
#[cfg(feature = "ops")]
pub use compare::{Compare, CompareEnd, CompareEntry, CompareStart};
#[cfg(feature = "ops")]
pub use diff::{Diff, DiffEnd, DiffEntry, DiffMode, DiffStart};
#[cfg(feature = "ops")]
pub use extract::{Extract, ExtractFormat, ExtractOutput};
pub use failed::{Aborted, Failed, LooksLike, OrFailed};
pub use fields::Fields;
#[cfg(feature = "ops")]
pub use forest::{ForestFailure, ForestImageEntry, ForestParentState, ImageForest};
#[cfg(feature = "ops")]
use hash::by_algorithm;
#[cfg(feature = "ops")]
pub use hash::{Hash, HashLayer};
#[cfg(feature = "ops")]
pub use info::{
    Info, InfoBlocks, InfoChild, InfoContents, InfoData, InfoFile, InfoHeader, InfoLog, InfoNothing, InfoParent,
    InfoRegionTable, InfoSpecific, InfoWarning,
};
#[cfg(feature = "ops")]
pub use list::List;
pub use log::{Log, LogEntry, LogEntryStatus};
pub use loss_map::{LossMap, LossMapEnd, LossMapEntry, LossMapStart};
pub use map::{Map, MapEnd, MapEntry, MapStart, MapState, MapTotals};
#[cfg(feature = "ops")]
pub use merge::Merge;
#[cfg(feature = "ops")]
pub use plan::{Plan, Split};
#[cfg(feature = "schema")]
pub use schema::{schema_of, schemas};
#[cfg(feature = "ops")]
pub use share::{MergeError, Share};
#[cfg(feature = "ops")]
pub use verify::{Verify, VerifyEnd, VerifyEntry, VerifyStart, VerifySum, VerifySumOf};

use crate::disk::Disk;
#[cfg(feature = "ops")]
use crate::error::{Error, ErrorKind};
use crate::image::LogState;
pub use crate::source::{NameBytes, path_of_bytes};
use crate::source::{Source, text_of};

/// A report that names its format.
pub trait Report {
    /// The format and its version, such as `vhdx-mmap/info/1`. The number counts up when a key changes its meaning.
    const SCHEMA: &'static str;
}

/// The name of the format of the report `R`: [`Report::SCHEMA`], under the key `schema`. A report of another format
/// cannot be deserialized as `R`.
pub struct Schema<R>(PhantomData<fn() -> R>);

impl<R: Report> Schema<R> {
    /// The name.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        R::SCHEMA
    }
}

// Derived, these would ask the report for the same.
impl<R> Clone for Schema<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Schema<R> {}

impl<R> Default for Schema<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R> PartialEq for Schema<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<R> Eq for Schema<R> {}

impl<R: Report> fmt::Debug for Schema<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(R::SCHEMA, f)
    }
}

impl<R: Report> Serialize for Schema<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(R::SCHEMA)
    }
}

impl<'de, R: Report> Deserialize<'de> for Schema<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = String::deserialize(deserializer)?;
        if found == R::SCHEMA {
            Ok(Self::default())
        } else {
            Err(D::Error::invalid_value(Unexpected::Str(&found), &R::SCHEMA))
        }
    }
}

/// A range of the disk.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Span {
    /// Start in the disk, in bytes.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
}

impl From<Range<u64>> for Span {
    fn from(range: Range<u64>) -> Self {
        Self { start: range.start, length: range.end.saturating_sub(range.start) }
    }
}

/// A range of the disk, as the reports about digests write it.
#[cfg(feature = "ops")]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OffsetSpan {
    /// Start in the disk, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

#[cfg(feature = "ops")]
impl From<Range<u64>> for OffsetSpan {
    fn from(range: Range<u64>) -> Self {
        Self { offset: range.start, length: range.end.saturating_sub(range.start) }
    }
}

/// What was done with the log of an image.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LogUse {
    /// The log has no changes.
    Clean,
    /// The changes of the log were replayed in memory.
    Replayed,
    /// The log has changes, which were ignored: what is read may be stale or torn.
    Ignored,
    /// Both headers are lost, so that nothing is known of the log: what is read may be stale.
    Unknown,
}

impl From<&LogState> for LogUse {
    fn from(state: &LogState) -> Self {
        match state {
            LogState::Clean => Self::Clean,
            LogState::Replayed(_) => Self::Replayed,
            LogState::Ignored => Self::Ignored,
            LogState::Unknown => Self::Unknown,
        }
    }
}

/// What a truncated file has lost.
#[cfg(feature = "ops")]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Truncated {
    /// Length of the file, in bytes.
    pub file_end: u64,
    /// File offset at which the last block ends, in bytes.
    pub blocks_end: u64,
    /// Number of blocks that are present.
    pub blocks_present: u64,
    /// Number of those whose bytes are missing, in whole or in part.
    pub blocks_missing: u64,
    /// Number of bytes of the disk that are missing.
    pub bytes_missing: u64,
}

#[cfg(feature = "ops")]
impl Truncated {
    /// Describes an error of the kind [`ErrorKind::Truncated`].
    fn of(error: &Error) -> Option<Self> {
        match *error.kind() {
            ErrorKind::Truncated { file_end, blocks_end, allocated, incomplete, missing } => Some(Self {
                file_end,
                blocks_end,
                blocks_present: allocated,
                blocks_missing: incomplete,
                bytes_missing: missing,
            }),
            _ => None,
        }
    }
}

/// Whether another program has a file of the disk's chain open for writing; none if unknown.
fn in_use(disk: &Disk) -> Option<bool> {
    Source::any_in_use(disk.layers().iter().map(|layer| layer.image().source()))
}

/// Number of bytes of a range that are lost; none unless the disk was opened to salvage it.
#[cfg(feature = "ops")]
fn lost_bytes(disk: &Disk, range: std::ops::Range<u64>) -> Option<u64> {
    let add = |sum: u64, loss: crate::disk::Loss| sum.saturating_add(loss.range.end.saturating_sub(loss.range.start));
    disk.is_salvaged().then(|| disk.losses(range).fold(0, add))
}

/// Number of entries of a log that were replayed.
#[cfg(feature = "ops")]
fn entries_replayed(state: &LogState) -> u64 {
    match state {
        LogState::Replayed(replay) => replay.entries,
        LogState::Clean | LogState::Ignored | LogState::Unknown => 0,
    }
}
