//! The content of a log: `vhdx log`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::image::{EntryContent, EntryStatus, LogReport, LogReportEntry};

use super::{NameBytes, Report, Schema, text_of};

/// The log of an image and its entries.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Log {
    /// Name of this format.
    pub schema: Schema<Self>,
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// Whether the log has changes.
    pub dirty_flag: bool,
    /// Identity of the log; nil if it has no changes.
    pub log_guid: Uuid,
    /// File offset of the log, in bytes.
    pub log_offset: u64,
    /// Length of the log, in bytes.
    pub log_length: u32,
    /// One sentence: whether the log has to be replayed, and whether it can be.
    pub verdict: String,
    /// The entries, in the order of their offsets.
    pub entries: Vec<LogEntry>,
}

impl Report for Log {
    const SCHEMA: &'static str = "vhdx-mmap/log/1";
}

/// An entry of a log, or what begins like one.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogEntry {
    /// Start of the entry, in bytes from the start of the log.
    pub offset: u64,
    /// Whether the entry is replayed.
    pub status: LogEntryStatus,
    /// Why the entry is broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The fields of the entry; none if it is broken.
    #[serde(flatten)]
    pub content: Option<EntryContent>,
}

/// Whether an entry is replayed.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LogEntryStatus {
    /// The entry is replayed.
    Active,
    /// The entry belongs to this log, but is not replayed.
    Stale,
    /// The entry belongs to another session.
    OtherLog,
    /// The entry is not valid.
    Broken,
}

impl Log {
    /// Describes the log of the image at a path; none for bytes without a file.
    #[must_use]
    pub fn of(image: Option<&Path>, report: &LogReport) -> Self {
        let header = report.header();
        Self {
            schema: Schema::default(),
            filename: text_of(image),
            filename_bytes: image.and_then(NameBytes::of),
            dirty_flag: header.is_dirty(),
            log_guid: header.log_guid,
            log_offset: header.log_offset,
            log_length: header.log_length,
            verdict: Self::verdict_of(report),
            entries: report.entries().iter().map(LogEntry::of).collect(),
        }
    }

    /// One sentence: whether a log has to be replayed, and whether it can be.
    #[must_use]
    pub fn verdict_of(report: &LogReport) -> String {
        if !report.header().is_dirty() {
            return "clean: nothing to replay".to_owned();
        }
        if let Some(error) = report.replay_error() {
            return format!("dirty, and cannot be replayed: {error:#}");
        }
        let active = report.entries().iter().filter(|entry| entry.status == EntryStatus::Active).count();
        format!("dirty: {active} {} to replay", if active == 1 { "entry" } else { "entries" })
    }
}

impl LogEntry {
    /// Describes an entry: one of [`LogReport::entries`].
    #[must_use]
    pub fn of(entry: &LogReportEntry) -> Self {
        let (status, reason) = match entry.status {
            EntryStatus::Active => (LogEntryStatus::Active, None),
            EntryStatus::Stale => (LogEntryStatus::Stale, None),
            EntryStatus::OtherLog => (LogEntryStatus::OtherLog, None),
            EntryStatus::Broken(error) => (LogEntryStatus::Broken, Some(format!("{error:#}"))),
        };
        Self { offset: entry.offset, status, reason, content: entry.content.clone() }
    }
}
