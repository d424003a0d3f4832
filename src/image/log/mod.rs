//! The log (MS-VHDX 2.3): changes to the structures of the file that may not be in the file yet.
//!
//! The log is replayed in memory. The file is not changed.

mod entry;
mod report;
mod sequence;
mod unapplied;

use std::cell::Cell;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::{MIB, SECTOR_4K, header_offset};
use crate::num::to_u64;
use crate::source::{Overlay, View};

use super::header::{self, CurrentHeader, Other};
use super::warning::Warnings;
use crate::error::{Rule, Severity};
use entry::{Entry, Ring};

pub use entry::LogEntryError;
pub use report::{EntryContent, EntryStatus, LogReport, LogReportEntry};

/// Policy for dirty logs, which hold changes that may not be in the file yet.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogPolicy {
    /// Replay the log in memory, and read the disk as it is after a replay.
    #[default]
    Replay,
    /// Refuse the image, with [`ErrorKind::DirtyLog`].
    Refuse,
    /// Read the file without a replay. Its content is usually not that of the disk at any time: for examinations.
    Ignore,
}

/// State of the log when the image was opened.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogState {
    /// The log is clean.
    Clean,
    /// The log was replayed in memory.
    Replayed(Replay),
    /// The log is dirty, but was ignored on request: the content may be stale, in part or as a whole.
    Ignored,
    /// Both headers are lost, so that nothing is known of the log: the content may be stale.
    Unknown,
}

/// Summary of a log replay.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Number of replayed entries, from the tail to the head of the active sequence.
    pub entries: u64,
    /// Sequence number of the first entry.
    pub first_sequence_number: u64,
    /// Sequence number of the last entry.
    pub last_sequence_number: u64,
    /// Number of sectors of 4 KiB that the entries write; one that is written twice counts twice.
    pub data_sectors: u64,
    /// Number of ranges that the entries fill with zeros.
    pub zero_ranges: u64,
    /// Growth of the file, in bytes.
    pub growth: u64,
}

/// Applies `policy` to the log. Afterwards, `view` shows the file after a replay.
///
/// # Errors
/// [`ErrorKind::DirtyLog`] by policy, [`ErrorKind::NoActiveSequence`] if the log is dirty and there is nothing to
/// replay, [`ErrorKind::FileTooShort`] if the file was truncated since; others if the location of the log is wrong.
pub(crate) fn replay(
    view: &mut View,
    header: &CurrentHeader,
    policy: LogPolicy,
    warnings: &mut Warnings,
) -> Result<LogState> {
    if !header.is_known() {
        return Ok(LogState::Unknown);
    }
    if policy != LogPolicy::Ignore && other_header_counted(view, header, warnings)? {
        return Ok(LogState::Ignored);
    }
    if !header.is_dirty() || policy == LogPolicy::Ignore {
        warnings.add_if_err(Rule::LogVersion, header.check_log_version());
        warnings.add_if_err(Rule::LogAlignment, header.check_log_alignment());
        warnings.add_if_err(Rule::LogPlace, header.check_log_place(view.length()));
        return Ok(if header.is_dirty() { LogState::Ignored } else { LogState::Clean });
    }
    let log_guid = header.log_guid;
    if policy == LogPolicy::Refuse {
        let detail = Error::at(Structure::Log, header.log_offset, ErrorKind::DirtyLog { log_guid });
        return Err(warnings.fatal(Rule::LogRefused, detail));
    }
    let active = active_sequence(view, header, warnings);
    // Cannot be replayed, and is read anyway: without a replay.
    let Some(active) = warnings.recover(Rule::LogSequence, active)? else { return Ok(LogState::Ignored) };
    let (overlay, mut summary) = changes_of(&Ring::new(view, header), &active);
    let before = view.length();
    let last = active.last().map_or((0, 0), |last| (last.flushed_file_offset, last.last_file_offset));
    // Bytes that were in the file once, and are missing now, are not zero: they are lost.
    view.replay(overlay, last.1, last.0);
    summary.growth = view.length().saturating_sub(before);
    Ok(LogState::Replayed(summary))
}

/// Checks whether the other header, which is damaged, was the current one, and its log has changes that are not in the
/// file: they would silently be left out. If that is uncertain, there is a warning.
///
/// # Errors
/// Fails if that is certain.
fn other_header_counted(view: &View, header: &CurrentHeader, warnings: &mut Warnings) -> Result<bool> {
    let copy = 3_u8.saturating_sub(header.copy);
    let detail = |what| Error::at(Structure::Header(copy), header_offset(copy), ErrorKind::Text { what });
    let (is_settled, may_be_newer) = match header::other(view, header) {
        Other::Valid => return Ok(false),
        Other::Lost => (false, true),
        // The active sequence of this log is found with either header.
        Other::Damaged(says, _) if says.is_dirty() && says.log_guid == header.log_guid => return Ok(false),
        Other::Damaged(says, looks_like_one) => {
            let CurrentHeader { log_offset, log_length, log_version, .. } = *header;
            let with_log_of_current = CurrentHeader { log_offset, log_length, log_version, ..says.clone() };
            let has_same_place = (says.log_offset, says.log_length) == (log_offset, log_length);
            let places = [Some(&says).filter(|_| !has_same_place), Some(&with_log_of_current)];
            let places = places.into_iter().flatten().filter(|says| says.is_dirty());
            let named: Vec<Option<bool>> = places.map(|says| unapplied::is_unapplied(view, says)).collect();
            let is_newer = says.sequence_number > header.sequence_number;
            if says.is_dirty() && is_newer && named.contains(&Some(true)) {
                let what = "damaged, and was the current header: its log holds changes";
                warnings.reject(Rule::HeaderCopies, detail(what))?;
                return Ok(true);
            }
            let is_over = !named.contains(&Some(true)) && (!says.is_dirty() || named.contains(&Some(false)));
            (looks_like_one && is_over, is_newer || !looks_like_one)
        }
    };
    let is_missed = || !is_settled && unapplied::has_another(view, header, true);
    // The changes of this header's log may have been made long ago, and undone by a later session.
    let is_undone = || {
        header.is_dirty()
            && may_be_newer
            && unapplied::has_another(view, header, false)
            && unapplied::is_unapplied(view, header) == Some(true)
    };
    if is_missed() || is_undone() {
        // A sequence of an earlier session looks the same.
        let what = "damaged, and may have been the current header: the log holds changes that are not in the file";
        warnings.add_as(Rule::HeaderCopies, Severity::Unchecked, detail(what));
    }
    Ok(false)
}

/// Returns the entries to replay, in order: at least one.
fn active_sequence(view: &View, header: &CurrentHeader, warnings: &mut Warnings) -> Result<Vec<Entry>> {
    let too_long = |error: &Error| matches!(error.kind(), ErrorKind::UnsupportedValue { .. });
    header.check_log_version().map_err(|error| warnings.fatal(Rule::LogVersionInUse, error))?;
    header.check_log_alignment().map_err(|error| warnings.fatal(Rule::LogAlignment, error))?;
    header.check_log_length().map_err(|error| {
        let check = if too_long(&error) { Rule::LogTooLong } else { Rule::LogLength };
        warnings.fatal(check, error)
    })?;
    header.check_log_place(view.length()).map_err(|error| warnings.fatal(Rule::LogPlace, error))?;
    let ring = Ring::new(view, header);
    let entries = sequence::valid_entries(&ring, Some(header.log_guid));
    let active = sequence::find_active(&entries, ring.sectors());
    let active: Vec<Entry> =
        active.unwrap_or_default().iter().filter_map(|index| entries.get(*index)).cloned().collect();
    let Some(last) = active.last() else {
        let kind = ErrorKind::NoActiveSequence { log_guid: header.log_guid, entries: to_u64(entries.len()) };
        return Err(warnings.fatal(Rule::LogSequence, Error::at(Structure::Log, header.log_offset, kind)));
    };
    check_file_lengths(&ring, last, view.length(), warnings)?;
    // A power failure can tear the last entries that were being written, and leave one of them complete. Or one was
    // damaged later: then the changes of all entries after it are lost.
    if let Some(newer) = entries.iter().find(|entry| entry.sequence_number > last.sequence_number) {
        let detail = not_replayed_though_newer(ring.file_offset(newer.start));
        warnings.add_as(Rule::LogEntrySequence, Severity::Warning, detail);
    }
    Ok(active)
}

/// Makes the warning about an entry at this file offset.
pub(crate) fn not_replayed_though_newer(offset: u64) -> Error {
    let what = "not replayed, although newer than the replayed entries: an entry before it is invalid";
    Error::at(Structure::LogEntry, offset, ErrorKind::Text { what })
}

/// Checks that the file is at least as long as when the last entry was written.
fn check_file_lengths(ring: &Ring<'_>, last: &Entry, file_length: u64, warnings: &mut Warnings) -> Result<()> {
    for (field, value) in [("FlushedFileOffset", last.flushed_file_offset), ("LastFileOffset", last.last_file_offset)] {
        if !value.is_multiple_of(MIB) {
            let kind = ErrorKind::Field { field, found: value, expected: "a multiple of 1 MiB" };
            warnings.add(Rule::LogFileOffsets, Error::at(Structure::LogEntry, ring.file_offset(last.start), kind));
        }
    }
    if file_length < last.flushed_file_offset {
        let kind = ErrorKind::FileTooShort { found: file_length, expected: last.flushed_file_offset };
        warnings.reject(Rule::LogFileLength, Error::at(Structure::LogEntry, ring.file_offset(last.start), kind))?;
    }
    Ok(())
}

/// Combines the changes of these entries, made in this order.
fn changes_of(ring: &Ring<'_>, active: &[Entry]) -> (Overlay, Replay) {
    let (mut changes, mut looked_at) = (Vec::new(), 0_u64);
    for entry in active {
        changes.extend(entry.changes(ring));
        looked_at = looked_at.saturating_add(entry.length);
        if looked_at >= entry::STEP {
            ring.forget(0, ring.sectors());
            looked_at = 0;
        }
    }
    let data_sectors = to_u64(changes.iter().filter(|change| change.sector.is_some()).count());
    let number_of = |entry: Option<&Entry>| entry.map_or(0, |entry| entry.sequence_number);
    let summary = Replay {
        entries: to_u64(active.len()),
        first_sequence_number: number_of(active.first()),
        last_sequence_number: number_of(active.last()),
        data_sectors,
        zero_ranges: to_u64(changes.len()).saturating_sub(data_sectors),
        growth: 0,
    };
    // Sectors are made in the order of their file offsets, and may be anywhere in the log.
    let made = Cell::new(0_u64);
    let overlay = Overlay::new(&changes, |rebuild| {
        made.set(made.get().saturating_add(1));
        if made.get().is_multiple_of(entry::STEP) {
            ring.forget(0, ring.sectors());
        }
        // Sectors that cannot be read any more are not zero: opening checks for losses at the end, and fails.
        rebuild.sector(ring).unwrap_or_else(|| Box::new([0; 4096]))
    });
    (overlay, summary)
}

/// Converts bytes to sectors of the log.
const fn sectors(bytes: u64) -> u64 {
    bytes / SECTOR_4K
}
