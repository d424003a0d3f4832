//! `vhdx map`: prints the allocation map.

use std::io::Write;

use vhdx_mmap::report::{MapEnd, MapEntry, MapStart, MapState, MapTotals};
use vhdx_mmap::{Disk, Layer, Location, Run};

use crate::args::{Common, MapArgs};
use crate::exit::{Exit, Failure};
use crate::json::{self, Listing};
use crate::open;
use crate::salvage;
use crate::size::{counted, human as size};
use crate::term::{self, escape};

pub(crate) fn run(args: &MapArgs, common: &Common) -> Result<Exit, Failure> {
    let disk = open::salvaged(&args.image, common, &args.salvage)?;
    salvage::prepare(&args.salvage, &disk, None)?;
    let start = args.start_offset;
    if start > disk.size() {
        let text = format!("--start-offset: past the end of the disk (found {start}, expected up to {})", disk.size());
        return Err(Failure::usage(text));
    }
    let end = args.max_length.map_or(disk.size(), |length| start.saturating_add(length));
    let extents = disk.extents(start..end).map(|extent| extent.map_err(|error| Failure::of_image(&args.image, &error)));
    let finish = || salvage::finish(&args.image, &disk, start..end.min(disk.size()), &args.salvage);
    if args.output.json {
        let exit = document(&disk, extents)?;
        return Ok(if exit == Exit::Done { finish().unwrap_or_else(Failure::report) } else { exit });
    }
    if args.output.is_json() {
        return match open::fail_if_changed(disk.layers(), json(&disk, extents)) {
            // The array is open, so that no object can follow.
            Err(failure @ Failure::Message { .. }) => Ok(failure.report()),
            printed => Ok(printed.and_then(|()| finish()).unwrap_or_else(Failure::report)),
        };
    }
    open::fail_if_changed(disk.layers(), human(&disk, extents))?;
    finish()
}

/// An object with totals, and with what says what the map is of.
fn document(disk: &Disk, mut extents: impl Iterator<Item = Result<Run, Failure>>) -> Result<Exit, Failure> {
    let mut listing = Listing::begin(json::stdout(), &MapStart::of(disk), Some("extents"))?;
    let mut totals = MapTotals::default();
    let listed = extents.try_for_each(|extent| {
        let extent = extent?;
        totals.add(&extent);
        Ok(listing.item(&MapEntry::of(disk, &extent))?)
    });
    match open::fail_if_changed(disk.layers(), listed) {
        Ok(()) => listing.end(&MapEnd::of(totals))?,
        Err(failure) => return listing.abort(failure),
    }
    Ok(Exit::Done)
}

/// An array, as `qemu-img map` prints it.
fn json(disk: &Disk, extents: impl Iterator<Item = Result<Run, Failure>>) -> Result<(), Failure> {
    let mut out = json::stdout();
    let mut before = "[";
    for extent in extents {
        let extent = match extent {
            Ok(extent) => extent,
            Err(failure) => {
                // The array stays incomplete, so that no program takes a part of the map for all of it.
                writeln!(out)?;
                out.flush()?;
                return Err(failure);
            }
        };
        out.write_all(before.as_bytes())?;
        json::write_line(&mut out, &MapEntry::of(disk, &extent))?;
        before = ",\n";
    }
    // A disk of 0 bytes has no extents.
    writeln!(out, "{}", if before == "[" { "[]" } else { "]" })?;
    out.flush()?;
    Ok(())
}

fn human(disk: &Disk, extents: impl Iterator<Item = Result<Run, Failure>>) -> Result<(), Failure> {
    let files: Vec<String> = files(disk).iter().map(|file| escape(file)).collect();
    let title = term::TITLE;
    let mut out = term::stdout();
    writeln!(
        out,
        "{title}{:<18} {:<18} {:<18} {:<17} {:>5}  File{title:#}",
        "Offset", "Length", "Mapped to", "State", "Layer"
    )?;
    let mut totals = MapTotals::default();
    for extent in extents {
        let extent = match extent {
            Ok(extent) => extent,
            Err(failure) => {
                out.flush()?;
                return Err(failure);
            }
        };
        totals.add(&extent);
        let place = match extent.file_offset() {
            Some(offset) => format!("{offset:#x}"),
            None if matches!(extent.at, Location::Log(_)) => "log".to_owned(),
            None => "-".to_owned(),
        };
        let state = MapState::of(&extent).map_or("past parent end", MapState::as_str);
        let file = files.get(extent.layer).map_or("-", String::as_str);
        let (start, length) = (extent.start, extent.len);
        writeln!(out, "{start:<#18x} {length:<#18x} {place:<18} {state:<17} {:>5}  {file}", extent.layer)?;
    }
    let MapTotals { extents, data_bytes, zero_bytes, unallocated_bytes, lost_bytes, .. } = totals;
    let (data, zeros, unallocated) = (size(data_bytes), size(zero_bytes), size(unallocated_bytes));
    let lost = if lost_bytes > 0 { format!(", {} lost", size(lost_bytes)) } else { String::new() };
    writeln!(out, "{}: {data} data, {zeros} zeros, {unallocated} unallocated{lost}", counted(extents, "extent"))?;
    out.flush()?;
    Ok(())
}

/// Files of the layers.
fn files(disk: &Disk) -> Vec<String> {
    let name = |layer: &Layer| layer.image().path().map_or("-".into(), |path| path.to_string_lossy().into_owned());
    disk.layers().iter().map(name).collect()
}
