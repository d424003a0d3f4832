//! Checking and salvaging: that a check finds what keeps an image from being read, and that a salvage gives what is left.

mod codes;
mod cuts;
mod rules;

use std::path::Path;

use vhdx_mmap::ops::{self, CheckOptions, CheckReport};
use vhdx_mmap::{Disk, Error, ErrorKind, OpenOptions, Segment, Severity, Strictness};

use crate::support::map;

/// The check of an image in a file.
fn check(path: &Path, options: &OpenOptions) -> CheckReport {
    ops::check(map(path), &CheckOptions::new(options.clone())).unwrap()
}

/// What keeps a disk from being read from end to end.
fn first_error(disk: &Result<Disk, Error>) -> Option<String> {
    match disk {
        Ok(disk) => disk.segments(..).find_map(Result::err).map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

/// A check calls an image readable if, and only if, it can be read; `disk` is what opening it gave.
pub(crate) fn check_agrees(path: &Path, options: &OpenOptions, disk: &Result<Disk, Error>) -> Result<(), String> {
    let report = check(path, options);
    let is_readable = report.worst() < Some(Severity::Unchecked);
    match first_error(disk) {
        Some(error) if is_readable => Err(format!("the check finds nothing, but: {error}")),
        // A leaf that is in order may need a parent that is not.
        None if report.worst() >= Some(Severity::Unsupported) => {
            let told = report.findings.iter().find(|finding| finding.severity >= Severity::Unsupported);
            // Blocks that share their place can be read, and so can those of which nothing is needed.
            let is_overlap = report.counts.keys().all(|(check, severity)| {
                *severity < Severity::Unsupported || ["V68", "V69", "V72"].contains(&check.code())
            });
            if is_overlap { Ok(()) } else { Err(format!("it can be read, but the check says: {}", told.unwrap())) }
        }
        _ => Ok(()),
    }
}

/// A salvage gives everything that can be read otherwise, and everything but what it says is lost.
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

/// How much is compared at once, in bytes.
const STEP: u64 = 256 << 10;

/// What can be read of some bytes is what is salvaged, and what can't be is lost.
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
        // Of 4 KiB, a part may be lost.
        Err(_) if salvaged.losses(at..at + length).next().is_some() => Ok(()),
        // What only a claim is against is read, and told of.
        Err(error) if matches!(error.kind(), ErrorKind::Overlap { .. }) && !ops::shared_blocks(salvaged).is_empty() => {
            Ok(())
        }
        Err(error) => Err(format!("not lost at {at:#x}, but: {error}")),
    }
}

/// All of a disk that is being salvaged can be read, and its losses are in order and inside of it.
fn covers(disk: &Disk) -> Result<(), String> {
    let mut at = 0_u64;
    // A disk may say that it is 64 TiB long.
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
