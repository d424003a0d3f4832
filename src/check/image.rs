//! Check of one file: everything that reads depend on, and everything else.

use std::mem::offset_of;

use crate::error::{Error, ErrorKind, Structure};
use crate::format::{
    BatEntry, FileIdentifier, Header, KIB_64, MIB, MetadataEntry, MetadataTableHeader, RegionTableEntry,
    RegionTableHeader, header_offset, region_table_offset,
};
use crate::num::to_u64;

use crate::error::{Rule, Severity};
use crate::image::{EntryStatus, Image, ImageKind, LogEntryError, LogReport, LogState, header, log, metadata};

use super::bat::BatSummary;
use super::finding::Findings;
use super::slots::Slots;
use super::survey::{Absent, Counts, Look};

/// Summary of the check of one file, without the findings.
#[derive(Clone, Debug)]
pub(crate) struct Examined {
    pub(crate) bat: BatSummary,
    /// End of the last structure that something refers to, in bytes.
    pub(crate) end: u64,
    /// Number of bytes in the MiB that nothing refers to, and that are not zero.
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
        self.check_unneeded_bitmaps(&slots, findings);
        let unreferenced = self.check_unreferenced(&slots, &bat.counts, findings);
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
        // Without its signature, the identifier is lost.
        let has_identifier = self.warnings.as_slice().iter().all(|warning| warning.rule != Rule::Signature);
        if has_identifier && let Ok(bytes) = self.view.bytes(Structure::FileIdentifier, creator_at, length) {
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
        let is_known = self.header.is_known();
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
            if let Ok(Some((offset, found))) = self.view.first_set(structure, start, end) {
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
        if let Some(copy) = self.regions.copy {
            let (table, structure) = (region_table_offset(copy), Structure::RegionTable(copy));
            let table_end = table.saturating_add(KIB_64);
            let unused = table.saturating_add(used);
            empty(Rule::NotEmpty, structure, unused, table_end, "the unused part of the region table");
        }
        let tables_end = region_table_offset(2).saturating_add(KIB_64);
        empty(Rule::NotEmpty, Structure::HeaderSection, tables_end, MIB, "the rest of the header section");
        let entries = to_u64(self.metadata_entries).saturating_mul(to_u64(size_of::<MetadataEntry>()));
        let used = to_u64(size_of::<MetadataTableHeader>()).saturating_add(entries);
        let start = self.regions.metadata.offset;
        let table_end = start.saturating_add(MetadataTableHeader::TABLE_LENGTH);
        let structure = Structure::MetadataTable;
        let unused = start.saturating_add(used);
        // Windows leaves a copy of the last entry after it.
        let entry = |at| self.view.bytes(structure, at, to_u64(size_of::<MetadataEntry>())).ok();
        let last = unused.saturating_sub(to_u64(size_of::<MetadataEntry>()));
        let is_copy = self.metadata_entries > 0 && entry(last).is_some_and(|last| entry(unused) == Some(last));
        let unused = unused.saturating_add(if is_copy { to_u64(size_of::<MetadataEntry>()) } else { 0 });
        empty(Rule::NotEmpty, structure, unused, table_end, "the unused part of the metadata table");
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
            LogState::Clean | LogState::Ignored | LogState::Unknown => u64::MAX,
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

    /// Checks entries of sector bitmap blocks in an image without parent.
    fn check_unneeded_bitmaps(&self, slots: &Slots, findings: &mut Findings) {
        let bat = self.bat_by_the_book();
        if self.geometry.kind == ImageKind::Differencing {
            return;
        }
        // Entries may name the same place many times.
        let mut look = Look::new(self.view.length());
        let parts = bat.in_parts(|first, end| bat.unneeded_bitmaps(first, end));
        for (chunk, entry) in parts.into_iter().flatten() {
            findings.push(bat.unneeded_bitmap(chunk, entry, slots, &mut look));
        }
    }

    /// Checks space that nothing refers to, and returns the number of bytes in its MiB that are not zero.
    fn check_unreferenced(&self, slots: &Slots, counts: &Counts, findings: &mut Findings) -> u64 {
        let length = self.source().len();
        let used_end = slots.used_end();
        let absent = self.bat_by_the_book().absent(counts);
        if absent.is_some() {
            self.bat_by_the_book().mark_old_places(counts, slots);
        }
        let bat = self.bat_by_the_book();
        let absent = absent.and_then(|absent| absent.with_content(&bat, slots, &mut Look::new(u64::MAX)));
        let absent = absent.map(|(absent, _)| absent);
        // What may be content of blocks that have lost their entries: its length, and its first byte that is not zero.
        let (mut lost, mut first_lost) = (0_u64, None);
        let mut unreferenced = 0_u64;
        // End of the known zeros: there may be millions of runs in one hole.
        let mut zero_end = 0;
        for (start, end) in Absent::unused(absent, slots, length) {
            let may_be_lost = absent.is_some_and(|absent| absent.fits(&self.view, start, end));
            let is_tail = start >= used_end && !length.is_multiple_of(MIB);
            let rule = if is_tail { Rule::Trailing } else { Rule::Unreferenced };
            // Start of a run that is zero as a whole, or not zero in each MiB.
            let (mut at, mut run_start, mut was_empty) = (start, start, true);
            let mut report = |start, end: u64, is_empty: bool| {
                if may_be_lost && !is_empty {
                    return;
                }
                let kind = ErrorKind::Unreferenced { length: end.saturating_sub(start), is_zero: is_empty };
                let severity = if is_empty { Severity::Note } else { Severity::Leak };
                findings.report(rule, severity, || (Error::at(Structure::File, start, kind), None));
            };
            if may_be_lost {
                lost = lost.saturating_add(end.saturating_sub(start));
            }
            while at < end {
                if at >= zero_end {
                    zero_end = self.view.known_zero_end(at, length);
                }
                let is_hole = at < zero_end;
                let next = if is_hole { zero_end.min(end) } else { at.saturating_add(MIB).min(end) };
                let set = if is_hole { Ok(None) } else { self.view.first_set(Structure::File, at, next) };
                // What cannot be read may be anything; that is reported elsewhere.
                let is_empty = matches!(set, Ok(None));
                if may_be_lost {
                    first_lost = first_lost.or(set.ok().flatten().map(|(offset, _)| offset));
                }
                if is_empty != was_empty && at > run_start {
                    report(run_start, at, was_empty);
                    run_start = at;
                }
                was_empty = is_empty;
                unreferenced = unreferenced.saturating_add(if is_empty { 0 } else { next.saturating_sub(at) });
                at = next;
            }
            if at > run_start {
                report(run_start, at, was_empty);
            }
        }
        if let (Some(absent), Some(first)) = (absent, first_lost) {
            findings.push(absent.finding(lost, first));
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
