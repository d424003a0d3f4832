//! Output of `vhdx info` for people.

use std::io::{self, Write};

use vhdx_mmap::report::InfoBlocks;
use vhdx_mmap::{FoundBy, ImageKind, LogState, Rule, Severity};

use super::lines::{line, marked};
use super::{Facts, contents};
use crate::args::Common;
use crate::findings;
use crate::siblings;
use crate::size::{counted, human};
use crate::term::escape;

/// What is shown in place of a value that the image has lost.
const UNKNOWN: &str = "unknown";

pub(super) fn write(out: &mut impl Write, facts: &Facts<'_>, common: &Common) -> io::Result<()> {
    let image = facts.layer.image();
    let header = image.header();
    line(out, "image", escape(&facts.path.to_string_lossy()))?;
    // The rest looks healthy if the file was truncated.
    for finding in facts.content.iter().filter(|_| !common.quiet) {
        marked(out, "warning", &findings::text_of(finding))?;
    }
    line(out, "file format", format_args!("vhdx ({})", image.kind().as_str()))?;
    line(out, "virtual size", human(image.virtual_disk_size()))?;
    if let Some(actual_size) = facts.actual_size {
        line(out, "disk size", human(actual_size))?;
    }
    line(out, "file length", human(image.source().len()))?;
    line(out, "block size", human(image.block_size()))?;
    let physical = image.physical_sector_size().map_or_else(|| "unknown".to_owned(), |size| size.to_string());
    line(out, "sector size", format_args!("{} logical, {physical} physical", image.logical_sector_size()))?;
    if image.logical_sector_size() == 4096 {
        let device = "QEMU and KVM -device …,logical_block_size=4096,physical_block_size=4096";
        line(out, "for its raw disk", format_args!("{device}; losetup --sector-size 4096"))?;
    }
    let counts = match facts.blocks.as_ref().map(InfoBlocks::counts) {
        Some(counts) => counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", "),
        None => "unknown: the BAT is damaged".to_owned(),
    };
    line(out, "blocks", format_args!("{} ({counts})", image.payload_blocks()))?;
    let has_identifier = facts.layer.warnings().all(|warning| warning.rule != Rule::Signature);
    line(out, "creator", if has_identifier { escape(image.creator()) } else { UNKNOWN.to_owned() })?;
    let disk_id = image.virtual_disk_id().map_or_else(|| "none".to_owned(), |id| id.to_string());
    line(out, "virtual disk id", disk_id)?;
    if header.is_known() {
        line(out, "data write guid", header.data_write_guid)?;
        line(out, "file write guid", header.file_write_guid)?;
        let (copy, number) = (header.copy, header.sequence_number);
        line(out, "header in use", format_args!("{copy} (sequence number {number})"))?;
    } else {
        line(out, "data write guid", UNKNOWN)?;
        line(out, "header in use", "none: both are damaged")?;
    }
    let copy = image.region_table_copy().map_or_else(|| "none: both are damaged".to_owned(), |copy| copy.to_string());
    line(out, "region table in use", copy)?;
    line(out, "log", log(facts))?;
    if image.source().in_use() == Some(true) {
        marked(out, "in use", "another program has the file open for writing")?;
    }
    for parent in &facts.parents_in_use {
        let text = format!("another program has {} open for writing", parent.display());
        marked(out, "parent in use", &text)?;
    }
    parent(out, facts)?;
    match &facts.contents {
        Some(Ok(found)) => contents::write(out, found, image)?,
        Some(Err(error)) => marked(out, "contents", &format!("unknown: {}", facts.why_unknown(error)))?,
        None => {}
    }
    if let Some(found) = &facts.checkpoints {
        if let Some(text) = siblings::depending(found) {
            line(out, "checkpoints", escape(&text))?;
        }
        if let Some(text) = siblings::stale(found) {
            marked(out, "warning", &text)?;
        }
        for text in [siblings::unknown(found), siblings::damaged(found, common)].into_iter().flatten() {
            marked(out, "note", &text)?;
        }
    }
    let mut notes = 0_u64;
    for finding in &facts.findings {
        notes = notes.saturating_add(u64::from(finding.severity == Severity::Note));
        if findings::is_shown(finding.severity, common) {
            marked(out, finding.severity.as_str(), &findings::text_of(finding))?;
        }
    }
    if let Some(text) = findings::hidden_notes(notes, common) {
        line(out, "notes", text)?;
    }
    Ok(())
}

fn log(facts: &Facts<'_>) -> String {
    let image = facts.layer.image();
    match image.log_state() {
        LogState::Clean => "clean".to_owned(),
        LogState::Ignored => "dirty, ignored: content may be stale or torn".to_owned(),
        LogState::Replayed(replay) => {
            let (first, last) = (replay.first_sequence_number, replay.last_sequence_number);
            let grown = if replay.growth > 0 {
                format!(", file extended by {}", counted(replay.growth, "byte"))
            } else {
                String::new()
            };
            let sectors = counted(replay.data_sectors, "sector");
            let (entries, zero_ranges) = (counted(replay.entries, "entry"), counted(replay.zero_ranges, "zero range"));
            format!("dirty, replayed in memory: {entries} ({first} to {last}), {sectors}, {zero_ranges}{grown}")
        }
        _ => "unknown, since both headers are damaged: content may be stale".to_owned(),
    }
}

fn parent(out: &mut impl Write, facts: &Facts<'_>) -> io::Result<()> {
    let image = facts.layer.image();
    if image.kind() != ImageKind::Differencing {
        return Ok(());
    }
    match image.parent_locator() {
        Ok(Some(locator)) => {
            for (key, value) in &locator.entries {
                line(out, &format!("parent locator {}", escape(key)), escape(value))?;
            }
        }
        Ok(None) => {}
        Err(error) => marked(out, "parent locator", &format!("{error:#}"))?,
    }
    match (&facts.parent, facts.broken) {
        (Some((parent, found_by)), _) => {
            let how =
                if *found_by == Some(FoundBy::Identity) { " (found by identity, under another name)" } else { "" };
            line(out, "backing file", format_args!("{}{how}", escape(&parent.to_string_lossy())))?;
        }
        (None, Some(error)) => marked(out, "backing file", &format!("{error:#}"))?,
        (None, None) => line(out, "backing file", "not searched (--parents none)")?,
    }
    let chain: Vec<String> = facts.chain.iter().map(|path| escape(&path.to_string_lossy())).collect();
    line(out, "chain", chain.join(" -> "))
}
