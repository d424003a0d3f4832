//! `vhdx extract`.

use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;

use uuid::Uuid;
use vhdx_mmap::ops::{self, Digest, ExtractOptions, Extracted, Reflink, Sparse, vhd};
use vhdx_mmap::{Disk, Input, Layer, ScanError};

use crate::args::{Common, DiskFormat, ExtractArgs, ReflinkChoice, SparseChoice};
use crate::bulk::{self, DigestLine};
use crate::exit::{Exit, Failure};
use crate::open::{self, actual_size};
use crate::progress::Work;
use crate::salvage;
use crate::size::human;
use crate::target::{Consent, Destination, Target};
use crate::term::{self, escape};

/// More threads than this only wait for each other: the system writes to a file one by one.
const MOST_THREADS: usize = 4;

pub(crate) fn run(args: &ExtractArgs, common: &Common) -> Result<Exit, Failure> {
    bulk::refuse_twice(&args.hash)?;
    let disk = open::salvaged(&args.image, common, &args.salvage)?;
    let range = bulk::range_of(args.range, disk.size())?;
    if args.format == DiskFormat::Vhd && range.is_empty() {
        return Err(Failure::usage("a VHD of no bytes is none"));
    }
    let trailer = Trailer::new(&disk, &range, args.format);
    for note in trailer.notes.iter().filter(|_| !common.quiet) {
        term::tell("note", term::HINT, note);
    }
    let consent = Consent { force: args.force, in_place: args.no_create };
    let destination = Destination::new(&args.out, disk.layers(), consent)?;
    salvage::prepare(&args.salvage, &disk, Some(&args.out).filter(|_| !destination.is_stream()).map(PathBuf::as_path))?;
    let content = trailer.behind(Input::disk(&disk).range(range.clone()));
    let work = Work::new(content.len(), common.quiet);
    let mut data = 0;
    if destination.is_stream() {
        refuse_for_streams(args)?;
    } else {
        // From here on there is something to clean up.
        work.listen().map_err(|error| Failure::new(Exit::Io, format!("signals: {error}")))?;
        // Found out before anything is made: how much room it takes, and whether the map can be read to its end.
        let measured = ops::measure(&disk, range.clone()).map_err(|error| Failure::of_image(&args.image, &error))?;
        data =
            if args.sparse == Some(SparseChoice::None) { content.len() } else { measured.data.min(stored_by(&disk)) };
    }
    let target = destination.open(content.len(), data, !trailer.footer.is_empty())?;

    let options = extract_options(args, &work);
    let done = match (target.content(), args.fill) {
        (None, Some(fill)) => bulk::pool(common, MOST_THREADS).map_err(Ended::from).and_then(|pool| {
            let rest = |content| trailer.behind(content);
            Ok(pool.install(|| salvage::fill_stream(&disk, range.clone(), rest, fill, target.file(), &options))?)
        }),
        _ => write(content, &target, args, &options, common),
    };
    work.finish();
    let done = done.and_then(|extracted| {
        let verified = if args.verify { verify(content, &target, args, common, &work) } else { Ok(()) };
        open::fail_if_changed(disk.layers(), verified)?;
        if let Some(fill) = args.fill.filter(|_| !destination.is_stream()) {
            salvage::fill(&disk, range.clone(), fill, target.file()).map_err(ScanError::Write)?;
        }
        // What came when there was nobody to hear it, as while a file was brought to its medium.
        work.signal().map_or(Ok(extracted), |signal| Err(Failure::Interrupted { signal }.into()))
    });
    match done {
        Ok(extracted) => {
            // Whoever finds the disk finds what it has lost.
            let told = salvage::finish(&args.image, &disk, range, &args.salvage);
            target.complete(args.sync)?;
            print_digests(&extracted.digests, &destination)?;
            told
        }
        Err(error) => {
            if let Some(left) = target.left_as() {
                term::tell("warning", term::WARNING, &escape(&left));
            }
            let error = match error {
                Ended::Failed(failure) => return Err(failure),
                Ended::Extract(error) => error,
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

/// Why the work ended before its end.
enum Ended {
    Extract(ScanError),
    Failed(Failure),
}

impl From<ScanError> for Ended {
    fn from(error: ScanError) -> Self {
        Self::Extract(error)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What can't be had of what takes bytes in order only.
fn refuse_for_streams(args: &ExtractArgs) -> Result<(), Failure> {
    let refused = [(args.verify, "--verify"), (args.direct, "--direct"), (args.no_create, "--no-create")];
    match refused.into_iter().find(|(is_given, _)| *is_given) {
        Some((_, name)) => Err(Failure::usage(format!("{name}: needs a file or a device, and this is a stream"))),
        None => Ok(()),
    }
}

fn extract_options<'w>(args: &ExtractArgs, work: &'w Work) -> ExtractOptions<'w> {
    let sparse = match args.sparse {
        None | Some(SparseChoice::Zeros) => Sparse::Zeros,
        Some(SparseChoice::Blocks) => Sparse::Blocks,
        Some(SparseChoice::None) => Sparse::None,
    };
    // Zeros inside of blocks can't be found where nobody looks at the blocks, and neither can what a medium has lost.
    let may_share =
        args.reflink == ReflinkChoice::Auto && args.sparse != Some(SparseChoice::Zeros) && !args.salvage.salvage;
    let reflink = if may_share { Reflink::Auto } else { Reflink::Never };
    let scan = bulk::scan_options(args.cache, work);
    ExtractOptions::new().scan(scan).sparse(sparse).reflink(reflink).hash(args.hash.clone())
}

fn write(
    content: Input<'_>,
    target: &Target,
    args: &ExtractArgs,
    options: &ExtractOptions<'_>,
    common: &Common,
) -> Result<Extracted, Ended> {
    let pool = bulk::pool(common, MOST_THREADS)?;
    let file = target.file();
    let Some(before) = target.content() else {
        return Ok(pool.install(|| ops::extract_to_stream(content, file, options))?);
    };
    let direct = args.direct.then(|| target.open_direct()).transpose()?;
    let to = ops::Target::new(file, before).direct(direct.as_ref());
    Ok(pool.install(|| ops::extract_to_file(content, &to, options))?)
}

/// Reads the target again and compares it with what should be there.
fn verify(
    content: Input<'_>,
    target: &Target,
    args: &ExtractArgs,
    common: &Common,
    work: &Work,
) -> Result<(), Failure> {
    let Some(path) = target.path() else { return Ok(()) };
    let unreadable = |error: &dyn std::fmt::Display| Failure::new(Exit::Io, format!("{}: {error}", args.out.display()));
    target.file().sync_all().map_err(|error| unreadable(&error))?;
    forget_cached(target);
    let written = open::map(path).map_err(|error| unreadable(&error))?;
    let work = work.next(content.len(), common.quiet);
    let written = Input::raw(&written).range(..content.len());
    let pool = bulk::pool(common, usize::MAX)?;
    let found = pool.install(|| ops::first_difference(content, written, &bulk::scan_options(args.cache, &work)));
    work.finish();
    match found.map_err(|stopped| Failure::of_stopped(&args.image, &stopped, &work))? {
        None => Ok(()),
        Some(position) => {
            let text = format!("{}: byte {position} reads back as another than was written", args.out.display());
            Err(Failure::new(Exit::Io, text).with_hint("the medium, or what it is attached by, is not in order"))
        }
    }
}

/// What is on the medium already need not be in memory, and is read from there then.
fn forget_cached(target: &Target) {
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::fs::fadvise(target.file(), 0, None, rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = target;
}

/// Prints digests: on standard output, unless that has got the disk.
fn print_digests(digests: &[Digest], destination: &Destination) -> Result<(), Failure> {
    let name = match destination {
        Destination::Standard => "-".to_owned(),
        other => other.to_string(),
    };
    let tag = (digests.len() > 1).then_some("");
    let mut lines = String::new();
    for digest in digests {
        lines.push_str(&term::escape_on_terminal(DigestLine { digest, name: &name, tag }.to_string()));
        lines.push('\n');
    }
    if matches!(destination, Destination::Standard) {
        eprint_all(&lines)
    } else {
        let mut out = term::stdout();
        out.write_all(lines.as_bytes())?;
        out.flush()?;
        Ok(())
    }
}

fn eprint_all(text: &str) -> Result<(), Failure> {
    Ok(std::io::stderr().write_all(text.as_bytes())?)
}

/// How many bytes the files of a disk take on their media, or 2^64-1 where that is not known: what is zero because it is a
/// hole in one of them does not become data.
fn stored_by(disk: &Disk) -> u64 {
    let stored = |layer: &Layer| actual_size(layer.image().source().file()?);
    disk.layers().iter().try_fold(0_u64, |sum, layer| Some(sum.saturating_add(stored(layer)?))).unwrap_or(u64::MAX)
}

/// What comes behind the disk: nothing, or what makes a VHD of it.
struct Trailer {
    /// Zeros before the footer.
    padding: u64,
    /// Empty, or what makes a VHD of it.
    footer: Vec<u8>,
    /// What the user should know of it.
    notes: Vec<String>,
}

impl Trailer {
    fn new(disk: &Disk, range: &Range<u64>, format: DiskFormat) -> Self {
        /// What Hyper-V takes; Azure takes more.
        const MOST_OF_HYPER_V: u64 = 2040 << 30;

        let length = range.end.saturating_sub(range.start);
        if format == DiskFormat::Raw {
            return Self { padding: 0, footer: Vec::new(), notes: Vec::new() };
        }
        let size = vhd::padded_size(length);
        let padding = size.saturating_sub(length);
        let image = disk.image();
        let unique_id: Uuid = image.virtual_disk_id().unwrap_or(image.header().data_write_guid);
        let mut notes = Vec::new();
        if image.logical_sector_size() != 512 {
            let text = "the disk has sectors of 4096 bytes, a VHD has sectors of 512: partitions may not be found";
            notes.push(text.to_owned());
        }
        if padding > 0 {
            notes.push(format!("{padding} zero bytes are added, since Azure takes whole MiB: {}", human(size)));
        }
        if size > MOST_OF_HYPER_V {
            notes.push("Hyper-V takes no VHD of more than 2040 GiB".to_owned());
        }
        Self { padding, footer: vhd::fixed_footer(size, unique_id).to_vec(), notes }
    }

    /// The content with this behind it.
    fn behind<'c>(&'c self, content: Input<'c>) -> Input<'c> {
        content.followed_by(self.padding, &self.footer)
    }
}
