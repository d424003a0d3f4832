//! `vhdx df`: the file systems in disks.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use vhdx_files::About;
use vhdx_mmap::Disk;

use crate::args::{Common, DfArgs};
use crate::exit::{Exit, Failure};
use crate::files::{self, FilePath, Part};
use crate::json::Reports;
use crate::size::short;
use crate::term::{self, escape};

/// The file systems of an image.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Df {
    schema: &'static str,
    filename: String,
    volumes: Vec<Row>,
}

/// A file system.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    /// Number of the partition; none for the whole disk.
    partition: Option<u32>,
    #[serde(rename = "type")]
    kind: Option<&'static str>,
    label: String,
    uuid: String,
    size: Option<u64>,
    used: Option<u64>,
    free: Option<u64>,
    /// What the image and its parents hold of it.
    allocated: u64,
    /// What they hold although the file system does not use it: at least this much could be given back.
    reclaimable: Option<u64>,
    is_replayed: bool,
    error: Option<String>,
}

pub(crate) fn run(args: &DfArgs, common: &Common) -> Result<Exit, Failure> {
    let mut reports = args.output.is_json().then(|| Reports::begin(args.images.len() > 1));
    let mut exit = Exit::Done;
    let mut table = Vec::new();
    for image in &args.images {
        let made = files::disk(image, args.disk, common).and_then(|disk| rows(&disk, image));
        match made {
            Ok(volumes) => {
                if volumes.iter().any(|row| row.error.is_some()) {
                    exit = Exit::Corrupt;
                }
                let df = Df { schema: "vhdx-files/df/1", filename: image.to_string_lossy().into_owned(), volumes };
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

fn rows(disk: &Arc<Disk>, image: &Path) -> Result<Vec<Row>, Failure> {
    let from = FilePath { image: image.to_path_buf(), part: None, path: Vec::new() };
    files::parts(disk, image)?.iter().map(|part| row(disk, part, &from)).collect()
}

fn row(disk: &Arc<Disk>, part: &Part, from: &FilePath) -> Result<Row, Failure> {
    let failed = |error: vhdx_mmap::Error| Failure::of_image(&from.image, &error);
    let range = part.range(disk).map_err(failed)?;
    let mut allocated = 0_u64;
    for extent in range.extents(..) {
        let extent = extent.map_err(failed)?;
        if extent.is_data() {
            allocated = allocated.saturating_add(extent.len);
        }
    }
    let about = part.is_readable().then(|| files::open_part(disk, part, from));
    let (about, error) = match about {
        Some(Ok(volume)) => (Some(volume.about().clone()), None),
        Some(Err(Failure::Message { text, .. })) => (None, Some(text)),
        Some(Err(other)) => return Err(other),
        None => (None, None),
    };
    let of = |of: fn(&About) -> Option<u64>| about.as_ref().and_then(of);
    let used = of(|about| about.used);
    Ok(Row {
        partition: part.number,
        kind: part.kind.map(|kind| kind.as_str()),
        label: about.as_ref().map(|about| about.label.clone()).or_else(|| part.label.clone()).unwrap_or_default(),
        uuid: about.as_ref().map(|about| about.uuid.clone()).unwrap_or_default(),
        size: of(|about| Some(about.size)),
        used,
        free: of(|about| about.used.map(|used| about.size.saturating_sub(used))),
        allocated,
        reclaimable: used.map(|used| allocated.saturating_sub(used)),
        is_replayed: about.as_ref().is_some_and(|about| about.is_replayed),
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
