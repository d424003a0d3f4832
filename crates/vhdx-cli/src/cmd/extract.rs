//! `vhdx extract`: writes a disk to a file, a device or a stream.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;
use vhdx_mmap::ops::{self, Digest, ExtractOptions, Extracted, Reflink, Sparse, vhd};
use vhdx_mmap::report::{Extract, ExtractFormat, ExtractOutput, Share};
use vhdx_mmap::{Disk, Input, Layer, ScanError};

use crate::args::{Common, ExtractArgs, ReflinkChoice, SparseChoice};
use crate::bulk;
use crate::container;
use crate::exit::{Exit, Failure};
use crate::json::Place;
use crate::open::{self, actual_size};
use crate::progress::Work;
use crate::salvage;
use crate::share;
use crate::size::{counted, human};
use crate::sums::{Form, SumLine};
use crate::target::{Consent, Destination, Target};
use crate::term::{self, escape};

use super::files;

/// More threads than this wait for each other: the system serialises writes to a file.
const MAX_THREADS: usize = 4;

pub(crate) fn run(args: &ExtractArgs, common: &Common) -> Result<Exit, Failure> {
    let started = Instant::now();
    bulk::reject_duplicates(&args.hash)?;
    let (disk, share) = match &args.share.task {
        Some(task) => {
            reject_for_shares(args)?;
            task.open(&args.image, common, &args.salvage).map(|(disk, share)| (disk, Some(share)))?
        }
        None => (open::salvaged(&args.image, common, &args.salvage)?, None),
    };
    let disk = Arc::new(disk);
    let range = share.as_ref().map_or_else(|| bulk::range_of(args.range, disk.size()), |share| Ok(share.range()))?;
    let consent = Consent { force: args.force, in_place: args.no_create };
    let destination = match &share {
        Some(_) => Destination::shared(&args.out, disk.layers())?,
        None => Destination::new(&args.out, disk.layers(), consent)?,
    };
    let format = container::of_output(args)?;
    let output = share::Output::new(args.share.result.as_deref(), disk.layers())?;
    if format == ExtractFormat::Vhd && range.is_empty() {
        return Err(Failure::usage("--format vhd: a VHD cannot be empty (found a disk or range of 0 bytes)"));
    }
    let whole = if share.is_some() { 0..disk.size() } else { range.clone() };
    let trailer = Trailer::new(&disk, &whole, format);
    for note in trailer.notes.iter().filter(|_| !common.quiet) {
        term::message("note", term::HINT, note);
    }
    salvage::prepare(&args.salvage, &disk, Some(&args.out).filter(|_| !destination.is_stream()).map(PathBuf::as_path))?;
    let output_length = trailer.append_to(Input::disk(&disk).range(whole)).len();
    let content = match &share {
        // The last one writes what follows the disk.
        Some(share) if share.range().end == disk.size() && share.shard.index() == share.shard.count() => {
            trailer.append_to(Input::disk(&disk)).range(range.start..)
        }
        Some(_) => Input::disk(&disk).range(range.clone()),
        None => trailer.append_to(Input::disk(&disk).range(range.clone())),
    };
    let place = if share.is_some() { range.start } else { 0 };
    let work = Work::new(content.len(), "extract", &args.image, common);
    let mut data = 0;
    if destination.is_stream() {
        reject_for_streams(args)?;
    } else {
        // A signal must not leave a partial file.
        work.listen().map_err(|error| Failure::new(Exit::Io, format!("signal handler: {error}")))?;
        // Before the output is created: the space it needs, and whether all BAT entries can be read.
        let measured = ops::measure(&disk, range.clone()).map_err(|error| Failure::of_image(&args.image, &error))?;
        data = if args.sparse == Some(SparseChoice::None) {
            content.len()
        } else {
            measured.data.min(occupied_space(&disk))
        };
    }
    let target = destination.open(output_length, data, !trailer.footer.is_empty())?;

    let options = extract_options(args, &work);
    let done = match (target.content(), args.fill) {
        (None, Some(fill)) => bulk::pool(common, MAX_THREADS).map_err(Stop::from).and_then(|pool| {
            let rest = |content| trailer.append_to(content);
            Ok(pool.install(|| salvage::fill_stream(&disk, range.clone(), rest, fill, target.file(), &options))?)
        }),
        _ => write(content, &target, place, args, &options, common),
    };
    work.finish();
    let done = done.and_then(|extracted| {
        let verified = if args.verify { verify(content, &target, place, args, common, &work) } else { Ok(()) };
        open::fail_if_changed(disk.layers(), verified)?;
        if let Some(fill) = args.fill.filter(|_| !destination.is_stream()) {
            salvage::fill(&disk, range.clone(), fill, target.file()).map_err(ScanError::Write)?;
        }
        // A signal that arrived outside of the passes, such as while the file was synced.
        work.signal().map_or(Ok(extracted), |signal| Err(Failure::Interrupted { signal }.into()))
    });
    match done {
        Ok(extracted) => {
            // The loss map is written first: a disk with losses never exists without it.
            let covered = range.clone();
            let exit = salvage::finish(&args.image, &disk, range, &args.salvage);
            let is_file = target.file().metadata().is_ok_and(|metadata| metadata.is_file());
            let actual_size = if is_file { actual_size(target.file()) } else { None };
            target.complete(args.sync)?;
            if args.salvage.salvage && !common.quiet {
                files::locate::tell_damaged(&disk, &args.image, covered.clone());
            }
            if args.output.is_json() || args.share.result.is_some() {
                let written = ExtractOutput {
                    path: &args.out,
                    format,
                    length: output_length,
                    actual_size,
                    verified: args.verify,
                    seconds: started.elapsed().as_secs_f64(),
                };
                let report = Extract::of(&disk, covered, &extracted, &written);
                if let Some(share) = &share {
                    output.print(&report.share(Share::of(&disk, share)))?;
                    output.complete()?;
                } else {
                    let place = if args.out == Path::new("-") { Place::Error } else { Place::Output };
                    place.print(&report)?;
                }
                // The document is complete, even if the loss map could not be written.
                return Ok(exit.unwrap_or_else(Failure::report));
            }
            print_digests(&extracted.digests, args)?;
            exit
        }
        Err(error) => {
            if let Some(left) = target.partial_output() {
                term::message("warning", term::WARNING, &escape(&left));
            }
            let error = match error {
                Stop::Failed(failure) => return Err(failure),
                Stop::Extract(error) => error,
            };
            let failure = match error {
                ScanError::Cancelled => Failure::Interrupted { signal: work.signal().unwrap_or(0) },
                error if destination.is_stream() => {
                    Failure::of_bulk_output(&args.image, &destination.to_string(), error)
                }
                ScanError::Read(error) => Failure::of_image(&args.image, &error),
                error => Failure::new(Exit::Io, format!("{destination}: {error}")),
            };
            open::fail_if_changed(disk.layers(), Err(failure))
        }
    }
}

/// Why the extraction stopped.
enum Stop {
    Extract(ScanError),
    Failed(Failure),
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        Self::Extract(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Fails if an option is given that a stream cannot support.
fn reject_for_streams(args: &ExtractArgs) -> Result<(), Failure> {
    let refused = [(args.verify, "--verify"), (args.direct, "--direct"), (args.no_create, "--no-create")];
    match refused.into_iter().find(|(is_given, _)| *is_given) {
        Some((_, name)) => Err(Failure::usage(format!("{name}: the output is a stream (expected a file or a device)"))),
        None => Ok(()),
    }
}

/// Fails if an option is given that cannot be combined with --shard and --split.
fn reject_for_shares(args: &ExtractArgs) -> Result<(), Failure> {
    if !args.no_create {
        return Err(Failure::usage("--shard and --split write into one file that other machines write to as well")
            .with_hint("pass --in-place (-n), which writes into an existing file"));
    }
    if !args.hash.is_empty() {
        return Err(Failure::usage("--hash cannot be combined with --shard or --split")
            .with_hint("`vhdx hash --shard` computes digests of shares, and `vhdx merge` that of the disk"));
    }
    Ok(())
}

fn extract_options<'w>(args: &ExtractArgs, work: &'w Work) -> ExtractOptions<'w> {
    let sparse = match args.sparse {
        None | Some(SparseChoice::Zeros) => Sparse::Zeros,
        Some(SparseChoice::Blocks) => Sparse::Blocks,
        Some(SparseChoice::None) => Sparse::None,
    };
    // Shared blocks are not read, so zero pages and unreadable ranges inside them would not be found.
    let may_share =
        args.reflink == ReflinkChoice::Auto && args.sparse != Some(SparseChoice::Zeros) && !args.salvage.salvage;
    let reflink = if may_share { Reflink::Auto } else { Reflink::Never };
    let scan = bulk::scan_options(args.cache, work);
    ExtractOptions::new().scan(scan).sparse(sparse).reflink(reflink).hash(args.hash.clone())
}

fn write(
    content: Input<'_>,
    target: &Target,
    place: u64,
    args: &ExtractArgs,
    options: &ExtractOptions<'_>,
    common: &Common,
) -> Result<Extracted, Stop> {
    let pool = bulk::pool(common, MAX_THREADS)?;
    let file = target.file();
    let Some(before) = target.content() else {
        return Ok(pool.install(|| ops::extract_to_stream(content, file, options))?);
    };
    let direct = args.direct.then(|| target.open_direct()).transpose()?;
    let to = ops::Target::new(file, before).at(place).direct(direct.as_ref());
    Ok(pool.install(|| ops::extract_to_file(content, &to, options))?)
}

/// Reads the output again, and compares it with the disk.
fn verify(
    content: Input<'_>,
    target: &Target,
    place: u64,
    args: &ExtractArgs,
    common: &Common,
    work: &Work,
) -> Result<(), Failure> {
    let Some(path) = target.path() else { return Ok(()) };
    let unreadable = |error: &dyn std::fmt::Display| Failure::new(Exit::Io, format!("{}: {error}", args.out.display()));
    target.file().sync_all().map_err(|error| unreadable(&error))?;
    drop_cached(target);
    let written = open::map(path).map_err(|error| unreadable(&error))?;
    let work = work.next(content.len(), "verify", &args.out, common);
    let written = Input::raw(&written).range(place..place.saturating_add(content.len()));
    let pool = bulk::all_threads(common)?;
    let found = pool.install(|| ops::first_difference(content, written, &bulk::scan_options(args.cache, &work)));
    work.finish();
    match found.map_err(|error| Failure::of_scan(&args.image, &error, &work))? {
        None => Ok(()),
        Some(position) => {
            let text = format!("{}: byte {position} differs from the byte that was written", args.out.display());
            Err(Failure::new(Exit::Io, text).with_hint("possible faulty drive, cable or controller"))
        }
    }
}

/// Drops the output from the page cache, so that it is read from the drive.
fn drop_cached(target: &Target) {
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::fs::fadvise(target.file(), 0, None, rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = target;
}

/// Prints digests on standard output, or on standard error if the disk went to standard output.
fn print_digests(digests: &[Digest], args: &ExtractArgs) -> Result<(), Failure> {
    let form = Form::of_file(&args.out, digests.len());
    for digest in digests {
        let line = SumLine { digest, name: &args.out, form };
        if args.out == Path::new("-") {
            // The exit code does not depend on who reads standard error.
            drop(std::io::stderr().write_all(&line.to_bytes()));
        } else {
            line.print()?;
        }
    }
    Ok(())
}

/// Space that the files of a disk occupy, in bytes, or `u64::MAX` if unknown. Holes in them are zeros, and occupy no
/// space in the output either.
fn occupied_space(disk: &Disk) -> u64 {
    let stored = |layer: &Layer| actual_size(layer.image().source().file()?);
    disk.layers().iter().try_fold(0_u64, |sum, layer| Some(sum.saturating_add(stored(layer)?))).unwrap_or(u64::MAX)
}

/// Bytes after the disk: none, or padding and footer of a VHD.
struct Trailer {
    /// Number of zeros before the footer.
    padding: u64,
    /// Footer of a VHD, or empty.
    footer: Vec<u8>,
    /// Notes for the user.
    notes: Vec<String>,
}

impl Trailer {
    fn new(disk: &Disk, range: &Range<u64>, format: ExtractFormat) -> Self {
        /// Limit of Hyper-V; that of Azure is higher.
        const HYPER_V_MAX: u64 = 2040 << 30;

        let length = range.end.saturating_sub(range.start);
        if format == ExtractFormat::Raw {
            return Self { padding: 0, footer: Vec::new(), notes: Vec::new() };
        }
        let size = vhd::padded_size(length);
        let padding = size.saturating_sub(length);
        let image = disk.image();
        let unique_id: Uuid = image.virtual_disk_id().unwrap_or(image.header().data_write_guid);
        let mut notes = Vec::new();
        if image.logical_sector_size() != 512 {
            let text =
                "the disk has 4096-byte sectors, a VHD has 512-byte sectors: systems may not find its partitions";
            notes.push(text.to_owned());
        }
        if padding > 0 {
            notes.push(format!(
                "{} added, since Azure requires whole MiB: {}",
                counted(padding, "zero byte"),
                human(size)
            ));
        }
        if size > HYPER_V_MAX {
            notes.push("Hyper-V does not support a VHD of more than 2040 GiB".to_owned());
        }
        Self { padding, footer: vhd::fixed_footer(size, unique_id).to_vec(), notes }
    }

    /// Appends padding and footer to the content.
    fn append_to<'c>(&'c self, content: Input<'c>) -> Input<'c> {
        content.followed_by(self.padding, &self.footer)
    }
}
