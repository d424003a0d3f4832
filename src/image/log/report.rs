//! Report on the log, entry by entry: it shows why the log was or was not replayed.

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::format::SECTOR_4K;
use crate::source::{Source, View};

use super::super::header::{self, CurrentHeader};
use super::super::warning::{Strictness, Warnings};
use super::super::{identifier, lost};
use super::entry::{Entry, LogEntryError, Ring};
use super::sequence;
use crate::error::Rule;

/// Report on a log: everything that is, or begins like, an entry.
#[derive(Debug)]
pub struct LogReport {
    header: CurrentHeader,
    placement: Result<()>,
    replay: Result<()>,
    entries: Vec<LogReportEntry>,
}

/// Entry of a log, or something that begins like one.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct LogReportEntry {
    /// Offset from the beginning of the log, in bytes.
    pub offset: u64,
    /// Whether the entry is replayed, and if not, why.
    pub status: EntryStatus,
    /// Fields of the entry. `None` if it is invalid.
    pub content: Option<EntryContent>,
}

/// Fields of a valid log entry (MS-VHDX 2.3.1.1).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EntryContent {
    /// Length in bytes.
    #[cfg_attr(feature = "serde", serde(rename = "length"))]
    pub len: u64,
    /// Offset of the oldest entry that was still needed when this one was written, in bytes from the beginning of the
    /// log.
    pub tail: u64,
    /// Sequence number.
    pub sequence_number: u64,
    /// Number of changes.
    pub descriptors: u32,
    /// LogGuid of the log to which the entry belongs.
    pub log_guid: Uuid,
    /// FlushedFileOffset: length of the file that is certain to be on the medium, in bytes.
    pub flushed_file_offset: u64,
    /// LastFileOffset: length that the file must have to contain all structures, in bytes.
    pub last_file_offset: u64,
}

/// State of a log entry.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryStatus {
    /// Part of the active sequence: replayed.
    Active,
    /// Valid and of this log, but older than the tail of the active sequence, or not part of it.
    Stale,
    /// Valid, but of another log: left from an earlier session.
    OtherLog,
    /// Invalid.
    Broken(LogEntryError),
}

impl LogReport {
    /// Reads the log of a file. Structures after the headers need not be valid.
    ///
    /// # Errors
    /// The errors of [`Image::open`](crate::Image::open), if the file is not a VHDX file or has no current header.
    pub fn read(source: Source) -> Result<Self> {
        let mut entries = Vec::new();
        let report = Self::visit(source, |entry| entries.push(entry))?;
        Ok(Self { entries, ..report })
    }

    /// Reads the log of a file, and shows the entries to `found` instead of keeping them: a log may hold a million of
    /// them.
    ///
    /// # Errors
    /// The errors of [`LogReport::read`].
    pub(crate) fn visit(source: Source, found: impl FnMut(LogReportEntry)) -> Result<Self> {
        let view = View::new(source);
        let mut warnings = Warnings::default();
        let report = Self::of(&view, &mut warnings, found);
        let read = lost::check(view.source(), &view.failed_reads(), &warnings);
        read.and(report).map_err(|error| error.in_file(view.source().path()))
    }

    fn of(view: &View, warnings: &mut Warnings, found: impl FnMut(LogReportEntry)) -> Result<Self> {
        identifier::read(view, warnings)?;
        let header = header::select(view, warnings)?;
        let placement = header.check_log_alignment().and_then(|()| header.check_log_place(view.length()));
        let (mut active, mut replay) = (Vec::new(), Ok(()));
        if header.is_dirty() {
            // The active sequence does not change if the file is truncated later.
            let mut noted = Warnings::new(Strictness::Salvage);
            match super::active_sequence(view, &header, &mut noted) {
                Ok(entries) => {
                    active.extend(entries.iter().map(|entry| entry.start));
                    let too_short = noted.into_list().into_iter().find(|noted| noted.rule == Rule::LogFileLength);
                    replay = too_short.map_or(Ok(()), |noted| Err(noted.detail));
                }
                Err(error) => replay = Err(error),
            }
        }
        active.sort_unstable();
        if placement.is_ok() {
            visit_entries(view, &header, &active, found);
        }
        Ok(Self { header, placement, replay, entries: Vec::new() })
    }

    /// Returns the current header, with the location of the log and its LogGuid.
    #[must_use]
    pub fn header(&self) -> &CurrentHeader {
        &self.header
    }

    /// Returns why there are no entries, if the location of the log is invalid.
    #[must_use]
    pub fn placement_error(&self) -> Option<&Error> {
        self.placement.as_ref().err()
    }

    /// Returns why a dirty log cannot be replayed, if it cannot.
    #[must_use]
    pub fn replay_error(&self) -> Option<&Error> {
        self.replay.as_ref().err()
    }

    /// Returns the entries, in the order of their offsets.
    #[must_use]
    pub fn entries(&self) -> &[LogReportEntry] {
        &self.entries
    }
}

/// Shows everything that begins like an entry; `active` contains the offsets of those to replay, in order.
fn visit_entries(view: &View, header: &CurrentHeader, active: &[u64], mut found: impl FnMut(LogReportEntry)) {
    let ring = Ring::new(view, header);
    sequence::for_each_beginning(&ring, |index| {
        let read = Entry::read(&ring, index, None);
        let status = match &read {
            Err(flaw) => EntryStatus::Broken(*flaw),
            Ok(entry) if entry.log_guid != header.log_guid => EntryStatus::OtherLog,
            Ok(_) if active.binary_search(&index).is_ok() => EntryStatus::Active,
            Ok(_) => EntryStatus::Stale,
        };
        let content = read.ok().map(|entry| EntryContent {
            len: entry.length.saturating_mul(SECTOR_4K),
            tail: entry.tail.saturating_mul(SECTOR_4K),
            sequence_number: entry.sequence_number,
            descriptors: entry.descriptors,
            log_guid: entry.log_guid,
            flushed_file_offset: entry.flushed_file_offset,
            last_file_offset: entry.last_file_offset,
        });
        found(LogReportEntry { offset: index.saturating_mul(SECTOR_4K), status, content });
    });
}
