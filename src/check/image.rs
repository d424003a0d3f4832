//! Check of one file: everything that reads depend on, and everything else.

use std::mem::offset_of;

use crate::error::{Error, ErrorKind, Structure};
use crate::format::{
    BatEntry, FileIdentifier, Header, KIB_64, MIB, MetadataEntry, MetadataTableHeader, RegionTableEntry,
    RegionTableHeader, header_offset, region_table_offset,
};
use crate::num::to_u64;
use crate::source::{Bytes, View};
use crate::zero::is_zero;

use crate::error::{Rule, Severity};
use crate::image::{EntryStatus, Image, ImageKind, LogEntryError, LogReport, LogState, header, log, metadata};

use super::bat::BatSummary;
use super::finding::Findings;
use super::slots::Slots;

/// Summary of the check of one file, without the findings.
#[derive(Clone, Debug)]
pub(crate) struct Examined {
    pub(crate) bat: BatSummary,
    /// End of the last structure that something refers to, in bytes.
    pub(crate) end: u64,
    /// Number of MiB that nothing refers to.
    pub(crate) unreferenced: u64,
}

impl Image {
    /// Looks for all problems that were not found when the image was opened, except in the content of blocks. With the
    /// feature `rayon`, the threads of the current pool do it.
    pub(crate) fn examine(&self, findings: &mut Findings) -> Examined {
        self.check_identity(findings);
        self.check_headers(findings);
        self.check_unused(findings);
        self.check_regions(findings);
        self.check_log(findings);
        let slots = Slots::new(self.view.length());
        let bat = self.bat_by_the_book().examine(&slots, findings);
        for (start, end, _) in self.regions.reserved.ranges() {
            slots.mark(*start, *end);
        }
        let unreferenced = self.check_unreferenced(&slots, findings);
        // The bytes that were read may not have been those of the file.
        let failed = self.view.failed_reads().first_but_for(&[]);
        if let Err(lost) = self.source().check_lost().and(failed.map_or(Ok(()), Err)) {
            findings.reject(Rule::Medium, lost, None);
        }
        // A chain may have hundreds of files.
        self.view.forget(0, self.source().len());
        Examined { bat, end: slots.used_end().min(self.source().len()), unreferenced }
    }

    /// Returns the first block that overlaps another block or structure, and what it overlaps. Entries that violate the
    /// format are left out. A table that was lost during the search is the error.
    pub(crate) fn first_shared_block(&self) -> Option<Error> {
        let shared = self.bat_by_the_book().first_shared(self.reserved_for_salvage.as_ref());
        self.check_bat().and(shared).unwrap_or_else(Some)
    }

    /// Checks the creator and the identities.
    fn check_identity(&self, findings: &mut Findings) {
        let creator_at = to_u64(offset_of!(FileIdentifier, creator));
        let length = to_u64(size_of::<FileIdentifier>()).saturating_sub(creator_at);
        if let Ok(bytes) = self.view.bytes(Structure::FileIdentifier, creator_at, length) {
            let mut units = bytes.chunks_exact(2).map(|unit| unit != [0, 0]);
            let named = units.by_ref().take_while(|is_set| *is_set).count();
            let what = if units.any(|is_set| is_set) {
                Some("there is data after the end of Creator")
            } else if named == 0 {
                Some("Creator is empty")
            } else if self.creator.chars().any(char::is_control) {
                Some("Creator has control characters")
            } else {
                None
            };
            if let Some(what) = what {
                let detail = Error::at(Structure::FileIdentifier, creator_at, ErrorKind::Text { what });
                findings.add(Rule::CreatorText, detail, None);
            }
        }
        // If no header is valid, that was reported.
        let is_known = self.warnings.as_slice().iter().all(|warning| warning.rule != Rule::Headers);
        let nil = [
            (self.header.data_write_guid.is_nil(), "DataWriteGuid is nil: the image cannot have children"),
            (self.header.file_write_guid.is_nil(), "FileWriteGuid is nil"),
        ];
        for (_, what) in nil.into_iter().filter(|(is_nil, _)| *is_nil && is_known) {
            let structure = Structure::Header(self.header.copy);
            let detail = Error::at(structure, header_offset(self.header.copy), ErrorKind::Text { what });
            findings.add(Rule::NilIdentity, detail, None);
        }
        if self.virtual_disk_id.is_some_and(|id| id.is_nil()) {
            let detail = Error::of(Structure::MetadataItem("VirtualDiskId"), ErrorKind::Text { what: "nil" });
            findings.add(Rule::NilIdentity, detail, None);
        }
    }

    /// Checks that two valid headers differ only in values that change.
    fn check_headers(&self, findings: &mut Findings) {
        let (Ok(one), Ok(other)) = (header::read(&self.view, 1), header::read(&self.view, 2)) else { return };
        let differ = [
            (one.version != other.version, "the two headers have different versions"),
            (
                (one.log_offset, one.log_length) != (other.log_offset, other.log_length),
                "the two headers have different logs",
            ),
        ];
        for (_, what) in differ.into_iter().filter(|(differ, _)| *differ) {
            findings.add(Rule::HeadersDiffer, Error::of(Structure::Headers, ErrorKind::Text { what }), None);
        }
    }

    /// Checks the reserved parts of the header section, of the tables and of the BAT region.
    fn check_unused(&self, findings: &mut Findings) {
        let mut empty = |check, structure, start, end, what| {
            // Unreadable bytes are reported elsewhere.
            if let Ok(Some((offset, found))) = first_set(&self.view, structure, start, end) {
                findings.add(check, Error::at(structure, offset, ErrorKind::NotEmpty { found, what }), None);
            }
        };
        let identifier_end = to_u64(size_of::<FileIdentifier>());
        empty(
            Rule::NotEmpty,
            Structure::FileIdentifier,
            identifier_end,
            KIB_64,
            "the rest of the file type identifier",
        );
        for copy in [1, 2] {
            let (start, structure) = (header_offset(copy), Structure::Header(copy));
            let checked_end = start.saturating_add(Header::CHECKED_LENGTH);
            if header::read(&self.view, copy).is_ok() {
                let fields_end = start.saturating_add(to_u64(size_of::<Header>()));
                empty(Rule::HeaderReserved, structure, fields_end, checked_end, "the reserved part of the header");
            }
            empty(Rule::NotEmpty, structure, checked_end, start.saturating_add(KIB_64), "the gap after the header");
        }
        let entries = to_u64(self.regions.all.len()).saturating_mul(to_u64(size_of::<RegionTableEntry>()));
        let used = to_u64(size_of::<RegionTableHeader>()).saturating_add(entries);
        let table = region_table_offset(self.regions.copy);
        let structure = Structure::RegionTable(self.regions.copy);
        let table_end = table.saturating_add(KIB_64);
        empty(Rule::NotEmpty, structure, table.saturating_add(used), table_end, "the unused part of the region table");
        let tables_end = region_table_offset(2).saturating_add(KIB_64);
        empty(Rule::NotEmpty, Structure::HeaderSection, tables_end, MIB, "the rest of the header section");
        let entries = to_u64(self.metadata_entries).saturating_mul(to_u64(size_of::<MetadataEntry>()));
        let used = to_u64(size_of::<MetadataTableHeader>()).saturating_add(entries);
        let start = self.regions.metadata.offset;
        let table_end = start.saturating_add(MetadataTableHeader::TABLE_LENGTH);
        let structure = Structure::MetadataTable;
        empty(
            Rule::NotEmpty,
            structure,
            start.saturating_add(used),
            table_end,
            "the unused part of the metadata table",
        );
        for (start, end) in metadata::unused(&self.view, &self.regions.metadata, self.metadata_entries) {
            empty(
                Rule::NotEmpty,
                Structure::MetadataRegion,
                start,
                end,
                "a part of the metadata region without an item",
            );
        }
        let bat = &self.regions.bat;
        let used = self.geometry.bat_entries().saturating_mul(BatEntry::LENGTH);
        let end = bat.offset.saturating_add(bat.len.into());
        empty(
            Rule::NotEmpty,
            Structure::Bat,
            bat.offset.saturating_add(used),
            end,
            "the unused part of the BAT region",
        );
        if self.geometry.kind == ImageKind::Differencing
            && let Some(last) = self.geometry.payload_blocks().checked_sub(1)
        {
            // The last chunk has entries for as many blocks as any other.
            let entry = |index: u64| bat.offset.saturating_add(index.saturating_mul(BatEntry::LENGTH));
            let start = entry(self.geometry.payload_index(last).saturating_add(1));
            let end = entry(self.geometry.bitmap_index(self.geometry.chunk_of(last)));
            empty(Rule::NotEmpty, Structure::Bat, start, end, "an entry of the BAT after that of the last block");
        }
    }

    /// Checks that there are only regions that the format defines.
    fn check_regions(&self, findings: &mut Findings) {
        let known = [RegionTableEntry::BAT.to_uuid(), RegionTableEntry::METADATA.to_uuid()];
        // Required ones were reported when the image was opened.
        for region in self.regions.all.iter().filter(|region| !region.required && !known.contains(&region.guid)) {
            findings.report(Rule::RegionUnknown, Severity::Note, || {
                let kind = ErrorKind::UnknownOptional { id: region.guid };
                (Error::at(Structure::OtherRegion, region.offset, kind), None)
            });
        }
    }

    /// Checks entries of the log that are not replayed.
    fn check_log(&self, findings: &mut Findings) {
        let at = |offset: u64| self.header.log_offset.saturating_add(offset);
        let is_dirty = self.header.is_dirty();
        if is_dirty && (self.header.check_log_version().is_err() || self.header.check_log_length().is_err()) {
            // The format of the log is unknown, so nothing was searched in it.
            return;
        }
        let newest = match &self.log_state {
            LogState::Replayed(replay) => replay.last_sequence_number,
            LogState::Clean | LogState::Ignored => u64::MAX,
        };
        let (mut stale, mut count, mut newer) = (None, 0_u64, 0_u64);
        let visited = LogReport::visit(self.source().clone(), |entry| {
            if !is_dirty {
                stale.get_or_insert(entry.offset);
                count = count.saturating_add(1);
                return;
            }
            let (check, kind) = match entry.status {
                EntryStatus::Active => return,
                EntryStatus::OtherLog => {
                    (Rule::LogEntryGuid, ErrorKind::Text { what: "not replayed: entry of another log" })
                }
                EntryStatus::Stale if entry.content.is_some_and(|content| content.sequence_number > newest) => {
                    newer = newer.saturating_add(1);
                    // The first of them was reported when the image was opened.
                    if newer > 1 {
                        let detail = log::not_replayed_though_newer(at(entry.offset));
                        findings.add_as(Rule::LogEntrySequence, Severity::Warning, detail, None);
                    }
                    return;
                }
                EntryStatus::Stale => {
                    let what = "not replayed: older than the tail, or not part of a sequence";
                    (Rule::LogEntrySequence, ErrorKind::Text { what })
                }
                EntryStatus::Broken(flaw) => (rule_of(flaw), ErrorKind::BrokenEntry { flaw: flaw.to_string() }),
            };
            findings.add(check, Error::at(Structure::LogEntry, at(entry.offset), kind), None);
        });
        // If the log was not found, that was reported when the image was opened.
        drop(visited);
        if let Some(first) = stale {
            let detail = Error::at(Structure::Log, at(first), ErrorKind::StaleEntries { count });
            findings.add(Rule::StaleLog, detail, None);
        }
    }

    /// Checks space that nothing refers to, and returns the number of MiB of it that are not zero.
    fn check_unreferenced(&self, slots: &Slots, findings: &mut Findings) -> u64 {
        let length = self.source().len();
        let used_end = slots.used_end();
        let mut unreferenced = 0_u64;
        // End of the known zeros: there may be millions of runs in one hole.
        let mut zero_end = 0;
        for (start, end) in slots.unused() {
            let end = end.min(length);
            // Start of a run that is zero as a whole, or not zero in each MiB.
            let (mut at, mut run_start, mut was_empty) = (start, start, true);
            let mut report = |start, end: u64, is_empty| {
                let kind = ErrorKind::Unreferenced { length: end.saturating_sub(start), is_zero: is_empty };
                let severity = if is_empty { Severity::Note } else { Severity::Leak };
                findings.report(Rule::Unreferenced, severity, || (Error::at(Structure::File, start, kind), None));
            };
            while at < end {
                if at >= zero_end {
                    zero_end = self.view.known_zero_end(at, length);
                }
                let is_hole = at < zero_end;
                let next = if is_hole { zero_end.min(end) } else { at.saturating_add(MIB).min(end) };
                let is_empty = is_hole || is_zero_between(&self.view, at, next);
                if is_empty != was_empty && at > run_start {
                    report(run_start, at, was_empty);
                    run_start = at;
                }
                was_empty = is_empty;
                unreferenced = unreferenced.saturating_add(u64::from(!is_empty));
                at = next;
            }
            if at > run_start {
                report(run_start, at, was_empty);
            }
        }
        if !length.is_multiple_of(MIB) && used_end < length {
            let is_zero = is_zero_between(&self.view, used_end, length);
            let kind = ErrorKind::Unreferenced { length: length.saturating_sub(used_end), is_zero };
            findings.add(Rule::Trailing, Error::at(Structure::File, used_end, kind), None);
        }
        unreferenced
    }
}

/// Returns the rule that an invalid log entry breaks.
fn rule_of(flaw: LogEntryError) -> Rule {
    match flaw {
        LogEntryError::OtherLog => Rule::LogEntryGuid,
        LogEntryError::SequenceNumber => Rule::LogEntrySequence,
        LogEntryError::Tail => Rule::LogEntryTail,
        LogEntryError::DescriptorRange(_) => Rule::LogDescriptor,
        LogEntryError::DescriptorPlace(_) => Rule::LogDescriptorPlace,
        _ => Rule::LogEntry,
    }
}

/// Returns whether all bytes between `start` and `end` can be read, and are zero.
fn is_zero_between(view: &View, start: u64, end: u64) -> bool {
    matches!(first_set(view, Structure::File, start, end), Ok(None))
}

/// Returns offset and value of the first nonzero byte between `start` and `end`.
///
/// # Errors
/// Fails if a byte before it cannot be read.
fn first_set(view: &View, structure: Structure, start: u64, end: u64) -> Result<Option<(u64, u8)>, Error> {
    let (mut at, mut kept_from, mut memory) = (start, start, Vec::new());
    while at < end {
        at = at.max(view.known_zero_end(at, end));
        if at >= end {
            break;
        }
        view.will_need(at, end.saturating_sub(at).min(MIB));
        match view.run(structure, at, end.saturating_sub(at).min(MIB), &mut memory)? {
            Bytes::Zero(length) => at = at.saturating_add(length.max(1)),
            Bytes::Data(bytes) => {
                if !is_zero(bytes) {
                    let found = bytes.iter().zip(at..).find(|(byte, _)| **byte != 0);
                    return Ok(found.map(|(byte, at)| (at, *byte)));
                }
                let length = to_u64(bytes.len());
                view.check(structure, at, length)?;
                at = at.saturating_add(length.max(1));
            }
        }
        view.forget(kept_from, at);
        kept_from = at;
    }
    Ok(None)
}
