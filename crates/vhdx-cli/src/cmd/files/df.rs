//! `vhdx df`: the file systems in disks.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use vhdx_files::Place;
use vhdx_files::report::{Df, DfRow};
use vhdx_mmap::Disk;
use vhdx_mmap::ops::Usage;
use vhdx_mmap::report::Schema;

use crate::args::{Common, DfArgs, JournalArgs};
use crate::exit::{Exit, Failure};
use crate::files::{self, FilePath};
use crate::json::Reports;
use crate::size::short;
use crate::term::{self, escape};

pub(crate) fn run(args: &DfArgs, common: &Common) -> Result<Exit, Failure> {
    let mut reports = args.output.is_json().then(|| Reports::begin(args.images.len() > 1));
    let mut exit = Exit::Done;
    let mut table = Vec::new();
    for image in &args.images {
        let made = files::disk(image, args.disk, common).and_then(|disk| rows(&disk, image, args.disk.journal));
        match made {
            Ok(volumes) => {
                let (volumes, failed): (Vec<DfRow>, Vec<Option<Exit>>) = volumes.into_iter().unzip();
                // What is not supported is said, and no damage.
                exit = match failed.into_iter().flatten().find(|failed| *failed != Exit::Unsupported) {
                    Some(_) => Exit::Corrupt,
                    None => exit,
                };
                let df = Df { schema: Schema::default(), filename: image.to_string_lossy().into_owned(), volumes };
                match &mut reports {
                    Some(reports) => reports.item(&df)?,
                    None => table.push(df),
                }
            }
            Err(failure) => {
                if let Some(reports) = &mut reports {
                    reports.failed::<Df>(image, &failure)?;
                }
                if args.images.len() == 1 || !matches!(failure, Failure::Message { .. }) {
                    return Err(failure);
                }
                exit = failure.report();
            }
        }
    }
    match reports {
        Some(reports) => reports.end()?,
        None => print(&table, args)?,
    }
    Ok(exit)
}

fn rows(disk: &Arc<Disk>, image: &Path, journal: JournalArgs) -> Result<Vec<(DfRow, Option<Exit>)>, Failure> {
    let from = FilePath { image: image.to_path_buf(), part: None, path: Vec::new() };
    files::places(disk, image)?.iter().map(|place| row(place, &from, journal)).collect()
}

/// Describes a place; and why its file system cannot be read, if it cannot.
fn row(place: &Place, from: &FilePath, journal: JournalArgs) -> Result<(DfRow, Option<Exit>), Failure> {
    let allocated = match &place.storage {
        Ok(storage) => vhdx_files::allocated(storage).map_err(|error| files::failure(from, b"", error))?,
        Err(_) => 0,
    };
    let opened = (place.is_readable() || place.storage.is_err()).then(|| files::open_place(place, from, journal));
    let (about, error, exit) = match opened {
        Some(Ok(volume)) => (Some(volume.about().clone()), None, None),
        Some(Err(Failure::Message { text, exit, .. })) => (None, Some(text), Some(exit)),
        Some(Err(other)) => return Err(other),
        None => (None, None, None),
    };
    let usage = about.as_ref().map(|about| Usage::new(about.size, about.used, allocated));
    let row = DfRow {
        partition: place.partition,
        logical_volume: place.logical_uuid.as_ref().map(|_| place.name.clone()),
        kind: place.kind.map(|kind| kind.as_str()),
        label: about.as_ref().map(|about| about.label.clone()).or_else(|| place.label.clone()).unwrap_or_default(),
        uuid: about.as_ref().map(|about| about.uuid.clone()).unwrap_or_default(),
        size: usage.map(|usage| usage.size),
        used: usage.and_then(|usage| usage.used),
        free: usage.and_then(|usage| usage.free),
        allocated,
        reclaimable: usage.and_then(|usage| usage.reclaimable),
        is_replayed: about.as_ref().is_some_and(|about| about.is_replayed),
        warnings: about.iter().flat_map(|about| &about.warnings).map(|warning| warning.as_str()).collect(),
        note: place.note.clone(),
        error,
    };
    Ok((row, exit))
}

fn print(images: &[Df], args: &DfArgs) -> Result<(), Failure> {
    let mut out = term::stdout();
    let title = term::TITLE;
    writeln!(
        out,
        "{title}{:<28} {:<9} {:>10} {:>10} {:>10} {:>5} {:>10} {:>11}  LABEL{title:#}",
        "FILE SYSTEM", "TYPE", "SIZE", "USED", "FREE", "USE%", "ALLOCATED", "RECLAIMABLE"
    )?;
    let size = |size: Option<u64>| match size {
        None => "-".to_owned(),
        Some(size) if args.bytes => size.to_string(),
        Some(size) => short(size),
    };
    for df in images {
        for row in &df.volumes {
            let number = row.partition.map(|number| number.to_string());
            let place = number.or_else(|| row.logical_volume.clone()).map(|name| format!(":{name}:"));
            let place = place.unwrap_or_default();
            let name = escape(&format!("{}{place}", df.filename));
            let percent = row
                .size
                .zip(row.used)
                .and_then(|(size, used)| u128::from(used).saturating_mul(100).checked_div(u128::from(size)));
            writeln!(
                out,
                "{name:<28} {:<9} {:>10} {:>10} {:>10} {:>5} {:>10} {:>11}  {}",
                row.kind.unwrap_or("-"),
                size(row.size),
                size(row.used),
                size(row.free),
                percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
                size(Some(row.allocated)),
                size(row.reclaimable),
                escape(&row.label),
            )?;
            for text in row.note.iter().chain(&row.error) {
                writeln!(out, "  {}", escape(text))?;
            }
        }
    }
    Ok(out.flush()?)
}
