//! Output of `vhdx info` for people.

use std::fmt::Display;
use std::io::{self, Write};

use vhdx_mmap::ops::DiskLayout;
use vhdx_mmap::report::InfoBlocks;
use vhdx_mmap::{Image, ImageKind, LogState};

use super::Facts;
use crate::size::{counted, human};
use crate::term::{self, escape};

pub(super) fn write(out: &mut impl Write, facts: &Facts<'_>) -> io::Result<()> {
    let image = facts.layer.image();
    let header = image.header();
    line(out, "image", escape(&facts.path.to_string_lossy()))?;
    line(out, "file format", format_args!("vhdx ({})", image.kind().as_str()))?;
    line(out, "virtual size", human(image.virtual_disk_size()))?;
    if let Some(actual_size) = facts.actual_size {
        line(out, "disk size", human(actual_size))?;
    }
    line(out, "file length", human(image.source().len()))?;
    line(out, "block size", human(image.block_size()))?;
    let physical = image.physical_sector_size().map_or_else(|| "unknown".to_owned(), |size| size.to_string());
    line(out, "sector size", format_args!("{} logical, {physical} physical", image.logical_sector_size()))?;
    let counts = match facts.blocks.as_ref().map(InfoBlocks::counts) {
        Some(counts) => counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", "),
        None => "unknown: the BAT is damaged".to_owned(),
    };
    line(out, "blocks", format_args!("{} ({counts})", image.payload_blocks()))?;
    line(out, "creator", escape(image.creator()))?;
    let disk_id = image.virtual_disk_id().map_or_else(|| "none".to_owned(), |id| id.to_string());
    line(out, "virtual disk id", disk_id)?;
    line(out, "data write guid", header.data_write_guid)?;
    line(out, "file write guid", header.file_write_guid)?;
    let (copy, number) = (header.copy, header.sequence_number);
    line(out, "header in use", format_args!("{copy} (sequence number {number})"))?;
    line(out, "region table in use", image.region_table_copy())?;
    line(out, "log", log(facts))?;
    parent(out, facts)?;
    match &facts.contents {
        Some(Ok(found)) => contents(out, found, image)?,
        Some(Err(error)) => marked(out, "contents", &format!("unknown: {}", facts.why_unknown(error)))?,
        None => {}
    }
    for warning in facts.layer.warnings() {
        marked(out, warning.severity.as_str(), &warning.to_string())?;
    }
    Ok(())
}

fn line(out: &mut impl Write, key: &str, value: impl Display) -> io::Result<()> {
    let title = term::TITLE;
    writeln!(out, "{title}{key}:{title:#} {value}")
}

fn marked(out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
    let style = term::WARNING;
    writeln!(out, "{style}{label}:{style:#} {}", escape(text))
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
        Err(error) => marked(out, "parent locator", &error.to_string())?,
    }
    match (&facts.parent, facts.broken) {
        (Some(parent), _) => line(out, "backing file", escape(&parent.to_string_lossy()))?,
        (None, Some(error)) => marked(out, "backing file", &error.to_string())?,
        (None, None) => line(out, "backing file", "not searched (--parents none)")?,
    }
    let chain: Vec<String> = facts.chain.iter().map(|path| escape(&path.to_string_lossy())).collect();
    line(out, "chain", chain.join(" -> "))
}

fn contents(out: &mut impl Write, contents: &DiskLayout, image: &Image) -> io::Result<()> {
    let (disk_size, sector_size) = (image.virtual_disk_size(), image.logical_sector_size());
    let volume = contents.volume.map(|volume| volume.as_str());
    let Some(table) = &contents.partition_table else {
        return match volume {
            Some(volume) => line(out, "contents", format_args!("{volume}, on the whole disk, without partition table")),
            None => line(out, "contents", "no partition table, no known file system"),
        };
    };
    let backup = if table.is_backup { " (backup copy)" } else { "" };
    let count = u64::try_from(table.partitions.len()).unwrap_or(u64::MAX);
    line(
        out,
        "contents",
        format_args!("{} partition table{backup}, {}", table.scheme.as_str(), counted(count, "partition")),
    )?;
    for partition in &table.partitions {
        let holds = partition.volume.map_or("no known file system", |volume| volume.as_str());
        let end = partition.start.saturating_add(partition.length);
        let outside = if end > disk_size { ", reaches past the end of the disk" } else { "" };
        let name = if partition.name.is_empty() { String::new() } else { format!(" \"{}\"", escape(&partition.name)) };
        writeln!(
            out,
            "  {}: at {:#x}, {}, {}{name}: {holds}{outside}",
            partition.number,
            partition.start,
            human(partition.length),
            partition.kind
        )?;
    }
    if !table.is_protected {
        marked(out, "warning", "the protective MBR has no GPT entry: some systems will not find the partition table")?;
    }
    if table.sector_size != sector_size {
        let text = format!(
            "the partition table has a wrong sector size (found {}, expected {sector_size}): systems will not find its \
             partitions",
            table.sector_size
        );
        marked(out, "warning", &text)?;
    }
    if let Some(volume) = volume {
        let text = format!(
            "the whole disk also holds {volume}: that or the partition table is a remnant; look for files in both"
        );
        marked(out, "warning", &text)?;
    }
    Ok(())
}
