//! What the log holds, entry by entry, for people who want to know why it was or was not replayed.

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

/// Everything in a log that is, or begins like, an entry.
#[derive(Debug)]
pub struct LogReport {
    header: CurrentHeader,
    placement: Result<()>,
    replay: Result<()>,
    entries: Vec<LogReportEntry>,
}

/// One entry, or what begins like one.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct LogReportEntry {
    /// Where it begins, in bytes from the beginning of the log.
    pub offset: u64,
    /// Whether it counts, and if not, why.
    pub status: EntryStatus,
    /// What it says, unless it is broken.
    pub content: Option<EntryContent>,
}

/// The fields of a valid entry.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EntryContent {
    /// Length in bytes.
    pub len: u64,
    /// Where the oldest entry lies that was still needed when this one was written, in bytes from the beginning of the
    /// log.
    pub tail: u64,
    /// Its number.
    pub sequence_number: u64,
    /// How many changes it makes.
    pub descriptors: u32,
    /// The log to which it belongs.
    pub log_guid: Uuid,
    /// How long the file was known to be, in bytes.
    pub flushed_file_offset: u64,
    /// How long the file should be, in bytes.
    pub last_file_offset: u64,
}

/// Whether an entry counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryStatus {
    /// Part of the active sequence: to be replayed.
    Active,
    /// Valid and of this log, but older than the tail of the active sequence, or not part of it at all.
    Stale,
    /// Valid, but of another log: left from an earlier session.
    OtherLog,
    /// Not valid.
    Broken(LogEntryError),
}

impl LogReport {
    /// Reads the log of a file. Nothing behind the headers needs to be in order for that.
    ///
    /// # Errors
    /// As for [`Image::open`](crate::Image::open), if the file is not a VHDX or has no current header.
    pub fn read(source: Source) -> Result<Self> {
        let mut entries = Vec::new();
        let report = Self::visit(source, |entry| entries.push(entry))?;
        Ok(Self { entries, ..report })
    }

    /// The same, with the entries shown to `found` instead of kept: a log may hold a million of them.
    ///
    /// # Errors
    /// As for [`LogReport::read`].
    pub(crate) fn visit(source: Source, found: impl FnMut(LogReportEntry)) -> Result<Self> {
        let view = View::new(source);
        let mut warnings = Warnings::default();
        let report = Self::of(&view, &mut warnings, found);
        lost::check(view.source(), &view.failed_reads(), &warnings)?;
        report
    }

    fn of(view: &View, warnings: &mut Warnings, found: impl FnMut(LogReportEntry)) -> Result<Self> {
        identifier::read(view, warnings)?;
        let header = header::select(view, warnings)?;
        let placement = header.check_log_alignment().and_then(|()| header.check_log_place(view.length()));
        let (mut active, mut replay) = (Vec::new(), Ok(()));
        if header.is_dirty() {
            // A sequence is the active one also where the file has lost its end since.
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

    /// The current header, which says where the log lies and whether it is in use.
    #[must_use]
    pub fn header(&self) -> &CurrentHeader {
        &self.header
    }

    /// Why there are no entries, if the log's place makes no sense.
    #[must_use]
    pub fn placement_error(&self) -> Option<&Error> {
        self.placement.as_ref().err()
    }

    /// Why the log can't be replayed, if it has to be and can't.
    #[must_use]
    pub fn replay_error(&self) -> Option<&Error> {
        self.replay.as_ref().err()
    }

    /// The entries, in the order of their places.
    #[must_use]
    pub fn entries(&self) -> &[LogReportEntry] {
        &self.entries
    }
}

/// Shows everything that begins like an entry; `active` are the places of those to be replayed, in order.
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
