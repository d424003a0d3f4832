//! What is on a disk, for people: partitions, file systems, and how to mount them.

use std::io::{self, Write};

use vhdx_mmap::Image;
use vhdx_mmap::ops::{DiskLayout, Partition, PartitionTable, Volume, VolumeDetails};

use super::lines::{line, marked};
use crate::size::{counted, human};
use crate::term::escape;
use crate::usage;

pub(super) fn write(out: &mut impl Write, layout: &DiskLayout, image: &Image) -> io::Result<()> {
    let Some(table) = &layout.partition_table else { return whole_disk(out, layout) };
    let sector_size = image.logical_sector_size();
    let backup = if table.is_backup { " (backup copy)" } else { "" };
    let count = u64::try_from(table.partitions.len()).unwrap_or(u64::MAX);
    let scheme = table.scheme.as_str();
    line(out, "contents", format_args!("{scheme} partition table{backup}, {}", counted(count, "partition")))?;
    partitions(out, table, image.virtual_disk_size())?;
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
    if let Some(volume) = layout.volume {
        let text = format!(
            "the whole disk also holds {volume}: that or the partition table is a remnant; look for files in both"
        );
        marked(out, "warning", &text)?;
    }
    Ok(())
}

fn whole_disk(out: &mut impl Write, layout: &DiskLayout) -> io::Result<()> {
    match (layout.volume, &layout.volume_error) {
        (Some(volume), _) => {
            line(out, "contents", format_args!("{volume}, on the whole disk, without partition table"))?;
        }
        (None, Some(error)) => marked(out, "contents", &format!("unknown: {error}"))?,
        (None, None) => line(out, "contents", "no partition table, no known file system")?,
    }
    let Some(details) = &layout.details else { return Ok(()) };
    let facts = facts(layout.volume, details);
    if !facts.is_empty() {
        line(out, "volume", facts.join(", "))?;
    }
    notes(out, details, "the file system")
}

fn partitions(out: &mut impl Write, table: &PartitionTable, disk_size: u64) -> io::Result<()> {
    for Partition { number, start, len: length, kind, name, volume, details, volume_error, .. } in &table.partitions {
        let outside = if start.saturating_add(*length) > disk_size { ", reaches past the end of the disk" } else { "" };
        let name = if name.is_empty() { String::new() } else { format!(" \"{}\"", escape(name)) };
        let mut holds = match (volume, volume_error) {
            (Some(volume), _) => vec![volume.to_string()],
            (None, Some(error)) => vec![format!("unknown: {}", escape(error))],
            (None, None) => vec!["no known file system".to_owned()],
        };
        holds.extend(details.iter().flat_map(|details| facts(*volume, details)));
        let holds = holds.join(", ");
        writeln!(out, "  {number}: at {start:#x}, {}, {kind}{name}: {holds}{outside}", human(*length))?;
    }
    for Partition { number, details, .. } in &table.partitions {
        let Some(details) = details else { continue };
        notes(out, details, &format!("partition {number}"))?;
    }
    Ok(())
}

/// What a volume says about itself.
fn facts(volume: Option<Volume>, details: &VolumeDetails) -> Vec<String> {
    let quoted = |what: &str, text: &String| format!("{what} \"{}\"", escape(text));
    let plain = |what: &str, text: &String| format!("{what} {}", escape(text));
    let is_serial = matches!(volume, Some(Volume::Ntfs | Volume::Refs | Volume::Fat | Volume::Fat32 | Volume::ExFat));
    let name = match volume {
        Some(Volume::Zfs) => "pool",
        Some(Volume::MdRaid) => "name",
        _ => "label",
    };
    let all = [
        details.level.as_ref().map(|level| escape(level)),
        details.version.as_ref().map(|version| plain("version", version)),
        details.group.as_ref().map(|group| quoted("volume group", group)),
        details.label.as_ref().map(|label| quoted(name, label)),
        details.uuid.as_ref().map(|uuid| plain(if is_serial { "serial number" } else { "UUID" }, uuid)),
        (!details.partitions.is_empty()).then(|| plain("logical partitions", &details.partitions.join(" "))),
        details.usage.as_ref().and_then(usage::text),
        details.error.as_ref().map(|error| plain("more is unknown:", error)),
    ];
    all.into_iter().flatten().collect()
}

/// Why files cannot be read; and how to mount a file system whose journal has changes.
fn notes(out: &mut impl Write, details: &VolumeDetails, what: &str) -> io::Result<()> {
    if let Some(error) = &details.usage_error {
        marked(out, "note", &format!("the files of {what} cannot be read: {error}"))?;
    }
    match (details.needs_recovery, &details.mount_options) {
        (Some(true), Some(options)) => {
            let text = format!("the journal of {what} needs recovery: `mount {options}` reads it without a change");
            marked(out, "journal", &text)
        }
        _ => Ok(()),
    }
}
