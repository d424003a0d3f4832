//! `vhdx df`: the file systems in disks.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use vhdx_files::report::{Df, DfRow};
use vhdx_mmap::Disk;
use vhdx_mmap::ops::Usage;
use vhdx_mmap::report::Schema;

use crate::args::{Common, DfArgs, JournalArgs};
use crate::exit::{Exit, Failure};
use crate::files::{self, FilePath, Part};
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
                if volumes.iter().any(|row| row.error.is_some()) {
                    exit = Exit::Corrupt;
                }
                let df = Df { schema: Schema::default(), filename: image.to_string_lossy().into_owned(), volumes };
                match &mut reports {
                    Some(reports) => reports.item(&df)?,
                    None => table.push(df),
                }
            }
            Err(failure @ Failure::Message { .. }) if args.images.len() > 1 => exit = failure.report(),
            Err(failure) => return Err(failure),
        }
    }
    match reports {
        Some(reports) => reports.end()?,
        None => print(&table, args)?,
    }
    Ok(exit)
}

fn rows(disk: &Arc<Disk>, image: &Path, journal: JournalArgs) -> Result<Vec<DfRow>, Failure> {
    let from = FilePath { image: image.to_path_buf(), part: None, path: Vec::new() };
    files::parts(disk, image)?.iter().map(|part| row(disk, part, &from, journal)).collect()
}

fn row(disk: &Arc<Disk>, part: &Part, from: &FilePath, journal: JournalArgs) -> Result<DfRow, Failure> {
    let failed = |error: vhdx_mmap::Error| Failure::of_image(&from.image, &error);
    let range = part.range(disk).map_err(failed)?;
    let allocated = vhdx_files::allocated(&range).map_err(|error| files::failure(from, b"", error))?;
    let about = part.is_readable().then(|| files::open_part(disk, part, from, journal));
    let (about, error) = match about {
        Some(Ok(volume)) => (Some(volume.about().clone()), None),
        Some(Err(Failure::Message { text, .. })) => (None, Some(text)),
        Some(Err(other)) => return Err(other),
        None => (None, None),
    };
    let usage = about.as_ref().map(|about| Usage::new(about.size, about.used, allocated));
    Ok(DfRow {
        partition: part.number,
        kind: part.kind.map(|kind| kind.as_str()),
        label: about.as_ref().map(|about| about.label.clone()).or_else(|| part.label.clone()).unwrap_or_default(),
        uuid: about.as_ref().map(|about| about.uuid.clone()).unwrap_or_default(),
        size: usage.map(|usage| usage.size),
        used: usage.and_then(|usage| usage.used),
        free: usage.and_then(|usage| usage.free),
        allocated,
        reclaimable: usage.and_then(|usage| usage.reclaimable),
        is_replayed: about.as_ref().is_some_and(|about| about.is_replayed),
        warnings: about.iter().flat_map(|about| &about.warnings).map(|warning| warning.as_str()).collect(),
        error,
    })
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
            let place = row.partition.map(|number| format!(":{number}:")).unwrap_or_default();
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
            if let Some(error) = &row.error {
                writeln!(out, "  {}", escape(error))?;
            }
        }
    }
    Ok(out.flush()?)
}
