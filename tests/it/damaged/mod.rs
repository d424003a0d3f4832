//! Checks and salvages: a check finds every problem that prevents reading an image, and a salvage returns what is left.

mod codes;
mod cuts;
mod rules;

use std::path::Path;

use vhdx_mmap::ops::{self, CheckOptions, CheckReport};
use vhdx_mmap::{Disk, Error, ErrorKind, OpenOptions, Segment, Severity, Strictness};

use crate::support::map;

/// Checks the image in a file.
fn check(path: &Path, options: &OpenOptions) -> CheckReport {
    ops::check(map(path), &CheckOptions::new(options.clone())).unwrap()
}

/// Returns the first error in reading a disk from end to end.
fn first_error(disk: &Result<Disk, Error>) -> Option<String> {
    match disk {
        Ok(disk) => disk.segments(..).find_map(Result::err).map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

/// Asserts that a check calls an image readable if, and only if, it can be read; `disk` is the result of opening it.
pub(crate) fn check_agrees(path: &Path, options: &OpenOptions, disk: &Result<Disk, Error>) -> Result<(), String> {
    let report = check(path, options);
    let is_readable = report.worst() < Some(Severity::Unchecked);
    match first_error(disk) {
        Some(error) if is_readable => Err(format!("the check finds nothing, but: {error}")),
        // A valid leaf may need a damaged parent.
        None if report.worst() >= Some(Severity::Unsupported) => {
            let finding = report.findings.iter().find(|finding| finding.severity >= Severity::Unsupported);
            // Overlapping blocks can be read, and so can those of which nothing is needed, or that the table has lost.
            let is_overlap = report.counts.keys().all(|(check, severity)| {
                *severity < Severity::Unsupported || ["V68", "V69", "V70", "V72", "L4"].contains(&check.code())
            });
            if is_overlap { Ok(()) } else { Err(format!("it can be read, but the check says: {}", finding.unwrap())) }
        }
        _ => Ok(()),
    }
}

/// Asserts that a salvage returns everything that can be read otherwise, and lists all other ranges as lost.
pub(crate) fn salvage_agrees(path: &Path, options: &OpenOptions, disk: &Result<Disk, Error>) -> Result<(), String> {
    let salvaged = Disk::open(map(path), &options.clone().strictness(Strictness::Salvage));
    let (disk, salvaged) = match (disk, salvaged) {
        (Ok(_), Err(error)) => return Err(format!("it can be opened, but not to be salvaged: {error}")),
        (Err(_), Err(_)) => return Ok(()),
        (Err(_), Ok(salvaged)) => return covers(&salvaged),
        (Ok(disk), Ok(salvaged)) => (disk, salvaged),
    };
    covers(&salvaged)?;
    let mut at = 0;
    while at < disk.size() {
        let length = STEP.min(disk.size() - at);
        same_or_lost(disk, &salvaged, at, length)?;
        at += length;
    }
    Ok(())
}

/// Number of bytes that are compared at once.
const STEP: u64 = 256 << 10;

/// Asserts that a salvage returns what can be read of some bytes, and lists the others as lost.
fn same_or_lost(disk: &Disk, salvaged: &Disk, at: u64, length: u64) -> Result<(), String> {
    let room = usize::try_from(length).unwrap();
    let (mut found, mut expected) = (vec![0xa5; room], vec![0x5a; room]);
    salvaged.read_at(&mut found, at).map_err(|error| format!("salvaged at {at:#x}: {error}"))?;
    match disk.read_at(&mut expected, at) {
        Ok(_) if found == expected => Ok(()),
        Ok(_) => Err(format!("another byte is salvaged at {at:#x}")),
        Err(_) if length > 4096 => {
            let mut step = at;
            while step < at + length {
                let end = (step + 4096).min(at + length);
                same_or_lost(disk, salvaged, step, end - step)?;
                step = end;
            }
            Ok(())
        }
        // A part of 4 KiB may be lost.
        Err(_) if salvaged.losses(at..at + length).next().is_some() => Ok(()),
        // Blocks that only overlap a claimed structure are read, and reported.
        Err(error) if matches!(error.kind(), ErrorKind::Overlap { .. }) && !ops::shared_blocks(salvaged).is_empty() => {
            Ok(())
        }
        Err(error) => Err(format!("not lost at {at:#x}, but: {error}")),
    }
}

/// Asserts that all of a salvaged disk can be read, and its losses are in order and inside it.
fn covers(disk: &Disk) -> Result<(), String> {
    let mut at = 0_u64;
    // A disk may claim to be 64 TiB long.
    for segment in disk.segments(..).take(10_000) {
        at += segment.as_ref().map(Segment::len).map_err(|error| format!("salvaged at {at:#x}: {error}"))?;
    }
    let mut before = 0;
    for loss in disk.losses(..).take(10_000) {
        if loss.range.start < before || loss.range.end <= loss.range.start || loss.range.end > disk.size() {
            return Err(format!("a loss at {:x?}", loss.range));
        }
        before = loss.range.end;
    }
    Ok(())
}
