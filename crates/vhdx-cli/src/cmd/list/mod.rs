//! `vhdx list`: one row for each image.

mod table;

use std::cmp::Reverse;
use std::io::{BufWriter, Stdout, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use vhdx_mmap::Error;
use vhdx_mmap::ops::inventory::{Health, InventoryOptions, InventoryRow, Listing, RowContent};
use vhdx_mmap::ops::{DiskLayout, Usage};
use vhdx_mmap::report::{List, LogUse};

use crate::args::{Common, ListArgs, ListFormat, SortKey};
use crate::bulk;
use crate::exit::{Exit, Failure};
use crate::folder;
use crate::json;
use crate::open;
use crate::progress::Work;
use crate::size::counted;
use crate::term::{escape, name_for_output, write_csv_field};
use crate::usage;

use table::Table;

pub(crate) fn run(args: &ListArgs, common: &Common) -> Result<Exit, Failure> {
    folder::reject_links(&args.paths, common)?;
    let pool = bulk::all_threads(common)?;
    let work = Work::unmeasured("list", args.paths.first().map_or(Path::new(""), PathBuf::as_path));
    let mut options = InventoryOptions::new(open::unmapped_options(common))
        .deep(args.deep)
        .scan(bulk::scan_options(args.cache, &work));
    if args.has_usage() {
        options = options.examine(vhdx_files::add_usage);
    }
    let listing = pool.install(|| Listing::of(&args.paths));
    let mut output = Output::begin(args)?;
    let (mut rows, mut failed) = (Vec::new(), None);
    let mut on_row = |row: InventoryRow| {
        if args.sort.is_some() {
            rows.push(row);
            return ControlFlow::Continue(());
        }
        match output.row(&row) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    };
    let listed = pool.install(|| listing.rows(&options, &mut on_row));
    if let Some(failure) = failed {
        return Err(failure);
    }
    listed.map_err(|error| Failure::new(Exit::Io, error.to_string()))?;
    if let Some(key) = args.sort {
        sort(&mut rows, key);
        rows.iter().try_for_each(|row| output.row(row))?;
    }
    let exit = output.end()?;
    folder::report_links(listing.links(), common);
    Ok(folder::report_empty(listing.empty(), exit))
}

/// Sorts rows: sizes and counts in descending order, the worst health first. Rows of images that cannot be opened come
/// first, too.
fn sort(rows: &mut [InventoryRow], key: SortKey) {
    let image = |row: &InventoryRow| row.image.as_ref().ok().map(|_| ()).is_some();
    let size = |row: &InventoryRow, of: fn(&RowContent) -> Option<u64>| {
        (image(row), Reverse(row.image.as_ref().ok().and_then(of)))
    };
    match key {
        SortKey::Name => rows.sort_by(|one, other| one.path.cmp(&other.path)),
        SortKey::Kind => rows.sort_by_key(|row| row.image.as_ref().ok().map(|image| image.kind.as_str())),
        SortKey::Virtual => rows.sort_by_key(|row| size(row, |image| Some(image.virtual_size))),
        SortKey::File => rows.sort_by_key(|row| (row.file_size.is_some(), Reverse(row.file_size))),
        SortKey::Allocated => rows.sort_by_key(|row| size(row, |image| image.allocated)),
        SortKey::Checkpoints => rows.sort_by_key(|row| size(row, |image| u64::try_from(image.checkpoints).ok())),
        SortKey::Health => rows.sort_by_key(|row| (image(row), Reverse(row.image.as_ref().ok().map(|row| row.health)))),
    }
}

/// Output of the rows, written as they are found.
struct Output {
    out: Out,
    is_deep: bool,
    has_usage: bool,
    /// Exit code of the first image that cannot be opened.
    exit: Exit,
    images: u64,
    failed: u64,
    healthy: u64,
}

enum Out {
    Table(Table),
    Csv(BufWriter<Stdout>),
    Json(BufWriter<Stdout>),
}

impl Output {
    fn begin(args: &ListArgs) -> Result<Self, Failure> {
        let out = match args.format() {
            ListFormat::Human => Out::Table(Table::begin()?),
            ListFormat::Json => Out::Json(json::stdout()),
            ListFormat::Csv => {
                let mut out = json::stdout();
                let columns = COLUMNS.iter().chain(if args.deep { DEEP_COLUMNS } else { &[] });
                let columns = columns.chain(if args.has_usage() { USAGE_COLUMNS } else { &[] });
                writeln!(out, "{}", columns.copied().collect::<Vec<_>>().join(","))?;
                Out::Csv(out)
            }
        };
        let has_usage = args.has_usage();
        Ok(Self { out, is_deep: args.deep, has_usage, exit: Exit::Done, images: 0, failed: 0, healthy: 0 })
    }

    fn row(&mut self, row: &InventoryRow) -> Result<(), Failure> {
        self.images = self.images.saturating_add(1);
        match &row.image {
            Ok(image) if image.health == Health::Ok => self.healthy = self.healthy.saturating_add(1),
            Ok(_) => {}
            Err(error) => {
                self.failed = self.failed.saturating_add(1);
                if self.exit == Exit::Done {
                    self.exit = error.category().into();
                }
            }
        }
        match &mut self.out {
            Out::Table(table) => table.row(row)?,
            Out::Csv(out) => {
                write_csv(out, row, self.is_deep, self.has_usage)?;
                out.flush()?;
            }
            Out::Json(out) => {
                json::write_document(out, &List::of(row))?;
                writeln!(out)?;
                // Another program may act on each row at once.
                out.flush()?;
            }
        }
        Ok(())
    }

    fn end(self) -> Result<Exit, Failure> {
        match self.out {
            Out::Table(table) => {
                let others = self.images.saturating_sub(self.healthy).saturating_sub(self.failed);
                let mut summary = format!("{}: {} ok", counted(self.images, "image"), self.healthy);
                for (count, what) in [(others, "with problems"), (self.failed, "cannot be opened")] {
                    if count > 0 {
                        summary.push_str(&format!(", {count} {what}"));
                    }
                }
                table.end(&summary)?;
            }
            Out::Csv(mut out) | Out::Json(mut out) => out.flush()?,
        }
        Ok(self.exit)
    }
}

const COLUMNS: &[&str] = &[
    "filename",
    "kind",
    "virtual_size",
    "file_length",
    "actual_size",
    "allocated_size",
    "log",
    "parent",
    "checkpoints",
    "health",
    "contents",
    "problem",
    "error",
    "in_use",
];

const DEEP_COLUMNS: &[&str] = &["sha256", "zero_blocks", "fragmented_blocks"];

/// Sums over the file systems of a disk, in bytes.
const USAGE_COLUMNS: &[&str] = &["file_systems_size", "used", "free", "reclaimable"];

fn write_csv(out: &mut impl Write, row: &InventoryRow, is_deep: bool, has_usage: bool) -> std::io::Result<()> {
    write_csv_field(out, &name_for_output(row.path.as_os_str().as_encoded_bytes()), true)?;
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let image = row.image.as_ref().ok();
    let of_image = |of: &dyn Fn(&RowContent) -> String| image.map(of).unwrap_or_default();
    let mut fields = vec![
        of_image(&|image| image.kind.as_str().to_owned()),
        number(image.map(|image| image.virtual_size)),
        number(row.file_size),
        number(row.actual_size),
        number(image.and_then(|image| image.allocated)),
        of_image(&|image| log(image).to_owned()),
        of_image(&|image| image.parent.as_str().to_owned()),
        of_image(&|image| image.checkpoints.to_string()),
        of_image(&|image| image.health.as_str().to_owned()),
        of_image(&contents),
        of_image(&|image| image.problem.as_ref().map(shown).unwrap_or_default()),
        row.image.as_ref().err().map(shown).unwrap_or_default(),
        row.in_use.map(|in_use| in_use.to_string()).unwrap_or_default(),
    ];
    if is_deep {
        let digest = image.and_then(|image| image.digests.as_ref()?.first());
        fields.push(digest.map(ToString::to_string).unwrap_or_default());
        fields.push(number(image.and_then(|image| image.zero_blocks)));
        fields.push(number(image.and_then(|image| image.fragmented_blocks)));
    }
    if has_usage {
        let layout = image.and_then(|image| image.layout.as_ref().ok());
        let of: [fn(&Usage) -> Option<u64>; 4] =
            [|usage| Some(usage.size), |usage| usage.used, |usage| usage.free, |usage| usage.reclaimable];
        fields.extend(of.iter().map(|of| number(layout.and_then(|layout| usage::sum(layout, of)))));
    }
    for field in fields {
        write_csv_field(out, escape(&field).as_bytes(), false)?;
    }
    writeln!(out)
}

/// State of the log.
/// What is wrong with an image. Its name is in the row.
fn shown(error: &Error) -> String {
    format!("{error:#}")
}

fn log(image: &RowContent) -> &'static str {
    match LogUse::from(&image.log) {
        LogUse::Clean => "clean",
        LogUse::Replayed => "replayed",
        LogUse::Ignored => "ignored",
        _ => "unknown",
    }
}

/// Partitions and file systems, in few words.
fn contents(image: &RowContent) -> String {
    let layout: &DiskLayout = match &image.layout {
        Ok(layout) => layout,
        Err(_) => return "unknown".to_owned(),
    };
    let volume = layout.volume.map(|volume| volume.as_str());
    let Some(table) = &layout.partition_table else { return volume.unwrap_or_default().to_owned() };
    let volumes: Vec<&str> = table.partitions.iter().filter_map(|partition| Some(partition.volume?.as_str())).collect();
    let scheme = table.scheme.as_str();
    match (volumes.as_slice(), table.partitions.len()) {
        ([], 0) => format!("{scheme}, empty"),
        ([], count) => format!("{scheme}: {}", counted(u64::try_from(count).unwrap_or(u64::MAX), "partition")),
        (volumes, _) => format!("{scheme}: {}", volumes.join(", ")),
    }
}
