//! `vhdx hash`: prints digests, and writes manifests and shards.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;
use vhdx_mmap::ops::manifest::{self, Root};
use vhdx_mmap::ops::plan::Share;
use vhdx_mmap::ops::{self, Digest};
use vhdx_mmap::report::Hash;
use vhdx_mmap::{Input, ScanError};

use crate::args::{Common, HashArgs, SumFormat, Task};
use crate::bulk::{self, Pool};
use crate::exit::{Exit, Failure};
use crate::findings::{self, Tally};
use crate::folder::{self, Manifests};
use crate::json::{self, Reports};
use crate::many;
use crate::open;
use crate::progress::Work;
use crate::salvage;
use crate::share;
use crate::sums::{self, Form, SumLine};
use crate::target::{Consent, Destination};
use crate::term;

pub(crate) fn run(args: &HashArgs, common: &Common) -> Result<Exit, Failure> {
    bulk::reject_duplicates(&args.algorithms)?;
    salvage::reject_several_images(&args.salvage, &args.images, args.folders)?;
    if args.file && args.salvage.salvage {
        let failure = Failure::usage("--file cannot be combined with --salvage");
        return Err(failure.with_hint("leave out --file, and hash the file itself with sha256sum"));
    }
    if args.format == SumFormat::Sha256sum && (args.file || args.range.is_some()) {
        let failure = Failure::usage("--format sha256sum: cannot say what a digest is of (found --file or --range)");
        return Err(failure.with_hint("leave out --format"));
    }
    let pool = bulk::all_threads(common)?;
    if args.share.result.is_some() && args.manifest.is_some() {
        return Err(Failure::usage("--result cannot be combined with --manifest, which names the file"));
    }
    if args.manifest.is_some() || args.share.task.is_some() {
        if let Some(manifests) = &args.manifest
            && (args.folders.recursive || args.images.len() > 1)
        {
            return write_manifests(manifests, args, common, &pool);
        }
        let [image] = args.images.as_slice() else {
            return Err(Failure::usage(format!("--shard: several images (found {}, expected 1)", args.images.len())));
        };
        return pool.install(|| match (&args.manifest, &args.share.task) {
            (Some(manifest), _) => {
                // The manifest may go to standard output.
                let place = args.output.place().filter(|_| manifest != Path::new("-"));
                let written = write_manifest(image, manifest, args, common).and_then(|hashed| {
                    term::print_names(&hashed.text)?;
                    hashed.report.map_or(Ok(()), |report| json::print(&report))?;
                    Ok(hashed.exit)
                });
                json::or_failed::<Hash>(place, image, written)
            }
            (None, Some(task)) => write_share(image, task, args, common),
            (None, None) => Ok(Exit::Done),
        });
    }
    let is_list = args.images.len() > 1 || args.folders.recursive;
    let at_once = many::images_at_once(common);
    of_each_image(is_list, at_once, args, common, |image| hash_image(image, args, common, &pool))
}

/// What is printed about one image.
struct Hashed {
    /// Lines of text, with the bytes of the name.
    text: Vec<u8>,
    report: Option<Hash>,
    exit: Exit,
}

/// Calls `hash` for each image, for up to `at_once` of them at the same time, and prints what it returns. Other images
/// follow one that fails; the first failure decides the exit code.
fn of_each_image(
    is_list: bool,
    at_once: usize,
    args: &HashArgs,
    common: &Common,
    hash: impl Fn(&Path) -> Result<Hashed, Failure> + Sync,
) -> Result<Exit, Failure> {
    let mut reports = args.output.is_json().then(|| Reports::begin(is_list));
    let (mut first_failure, mut tally) = (None, Tally::default());
    folder::for_each_image(&args.images, args.folders, common, at_once, hash, |image, hashed| {
        let is_whole = hashed.as_ref().is_ok_and(|hashed| hashed.exit == Exit::Done);
        tally.add(if is_whole { "hashed" } else { "failed" });
        match hashed {
            Ok(Hashed { text, report, exit }) => {
                term::print_names(&text)?;
                if let (Some(reports), Some(report)) = (&mut reports, report) {
                    reports.item(&report)?;
                }
                if exit != Exit::Done {
                    first_failure.get_or_insert(exit);
                }
            }
            Err(fatal @ (Failure::ClosedPipe { .. } | Failure::Interrupted { .. })) => return Err(fatal),
            Err(failure) => {
                if let Some(reports) = &mut reports {
                    reports.failed::<Hash>(image, &failure)?;
                }
                let exit = failure.report();
                first_failure.get_or_insert(exit);
            }
        }
        Ok(())
    })?;
    match reports {
        Some(reports) => reports.end()?,
        None => findings::close(tally.line(), common),
    }
    Ok(first_failure.unwrap_or(Exit::Done))
}

/// Hashes one image.
fn hash_image(image: &Path, args: &HashArgs, common: &Common, pool: &Pool) -> Result<Hashed, Failure> {
    let disk = open::salvaged(image, common, &args.salvage)?;
    salvage::prepare(&args.salvage, &disk, None)?;
    let range = bulk::range_of(args.range, disk.size())?;
    let content = Input::disk(&disk).range(range.clone());
    let file = args.file.then(|| Input::raw(disk.image().source()));
    let length = content.len().saturating_add(file.map_or(0, |file| file.len()));
    let work = Work::new(length, "hash", image, common);
    let options = bulk::scan_options(args.cache, &work);
    let hash = |content| pool.install(|| ops::hash(content, &args.algorithms, &options));
    let digests = hash(content).and_then(|of_disk| Ok((of_disk, file.map(hash).transpose()?)));
    work.finish();
    let digests = digests.map_err(|error| Failure::of_scan(image, &error, &work));
    let (of_disk, of_file) = open::fail_if_changed(disk.layers(), digests)?;
    let mut hashed = Hashed { text: Vec::new(), report: None, exit: Exit::Done };
    if args.output.is_json() {
        let covered = range.start..range.start.saturating_add(content.len());
        let mut report = Hash::of(&disk).disk(covered.clone(), &of_disk).losses(&disk, covered);
        if let Some(of_file) = &of_file {
            report = report.file(disk.image().source().len(), of_file);
        }
        hashed.report = Some(report);
    } else {
        // Neither the digest of a part nor that of the disk must look like another one.
        let tag = args.range.map_or_else(|| "disk".to_owned(), |_| format!("disk {}:{}", range.start, content.len()));
        let form = if args.format == SumFormat::Bsd { Form::Tagged(&tag) } else { Form::Plain };
        hashed.text = lines(&of_disk, image, form);
        if let Some(of_file) = of_file {
            hashed.text.extend(lines(&of_file, image, Form::of_file(image, of_file.len())));
        }
    }
    // Digests are printed even if the loss map cannot be written.
    hashed.exit = salvage::finish(image, &disk, range, &args.salvage).unwrap_or_else(Failure::report);
    Ok(hashed)
}

fn lines(digests: &[Digest], name: &Path, form: Form<'_>) -> Vec<u8> {
    digests.iter().flat_map(|digest| SumLine { digest, name, form }.to_bytes()).collect()
}

/// Writes a manifest of each image into a folder.
fn write_manifests(manifests: &Path, args: &HashArgs, common: &Common, pool: &Pool) -> Result<Exit, Failure> {
    folder::require_folder_of_manifests(manifests, args.images.len())?;
    let own = Mutex::new(Manifests::new(manifests));
    // All threads work on one manifest.
    of_each_image(true, 1, args, common, |image| {
        let manifest = own.lock().unwrap_or_else(PoisonError::into_inner).of(image, &args.images)?;
        let folder = manifest.parent().unwrap_or(manifests);
        std::fs::create_dir_all(folder).map_err(|error| {
            Failure::new(Exit::CannotCreate, format!("{}: cannot be created: {error}", folder.display()))
        })?;
        pool.install(|| write_manifest(image, &manifest, args, common))
    })
}

/// Writes a manifest, or a shard of one. Returns the digests of all block digests.
fn write_manifest(image: &Path, manifest: &Path, args: &HashArgs, common: &Common) -> Result<Hashed, Failure> {
    let (disk, share) = match &args.share.task {
        Some(task) => task.open(image, common, &args.salvage).map(|(disk, share)| (disk, Some(share)))?,
        None => (open::salvaged(image, common, &args.salvage)?, None),
    };
    let mut hashed = Hashed { text: Vec::new(), report: None, exit: Exit::Done };
    salvage::prepare(&args.salvage, &disk, Some(manifest).filter(|out| *out != Path::new("-")))?;
    let range = share.as_ref().map_or(0..disk.size(), Share::range);
    let work = Work::new(range.end.saturating_sub(range.start), "hash", image, common);
    let options = bulk::scan_options(args.cache, &work);
    let create =
        |out: &mut dyn Write| manifest::create_manifest_of(&disk, &args.algorithms, share.as_ref(), &options, out);
    let failed = |error: ScanError| Failure::of_manifest(image, manifest, error, &work);
    if manifest == Path::new("-") {
        let created = create(&mut json::stdout());
        work.finish();
        open::fail_if_changed(disk.layers(), created.map_err(failed))?;
    } else {
        let consent = Consent { force: args.force, in_place: false };
        let destination = Destination::new(manifest, disk.layers(), consent)?;
        // A signal must not leave a partial manifest.
        work.listen().map_err(|error| Failure::new(Exit::Io, format!("signal handler: {error}")))?;
        let target = destination.open(0, 0, false)?;
        let created = create(&mut std::io::BufWriter::new(target.file()));
        work.finish();
        let roots = open::fail_if_changed(disk.layers(), created.map_err(failed))?;
        target.complete(false)?;
        if args.output.is_json() {
            hashed.report = Some(Hash::of(&disk).losses(&disk, range.clone()).root(&roots));
        } else {
            hashed.text = root_lines(image, &roots);
        }
    }
    hashed.exit = salvage::finish(image, &disk, range, &args.salvage)?;
    Ok(hashed)
}

/// Lines with the roots of a manifest. They have other names than digests of the disk.
pub(super) fn root_lines(name: &Path, roots: &[Root]) -> Vec<u8> {
    let line = |Root { name: algorithm, digest, .. }: &Root| {
        sums::line(&format!("{algorithm} ("), name, &format!(") = {digest}"))
    };
    roots.iter().flat_map(line).collect()
}

fn write_share(image: &Path, task: &Task, args: &HashArgs, common: &Common) -> Result<Exit, Failure> {
    if let Some(other) = args.algorithms.iter().find(|algorithm| !algorithm.is_mergeable()) {
        let text = format!("{other}: cannot be merged from shards (expected crc32 or blake3)");
        return Err(Failure::usage(text).with_hint("pass --manifest FILE to use other algorithms with --shard"));
    }
    let (disk, share) = task.open(image, common, &args.salvage)?;
    salvage::prepare(&args.salvage, &disk, args.share.result.as_deref())?;
    let output = share::Output::new(args.share.result.as_deref(), disk.layers())?;
    let parts = share.shard.count();
    let work = Work::new(disk.size().checked_div(parts.into()).unwrap_or(0), "hash", image, common);
    let options = bulk::scan_options(args.cache, &work);
    let about = serde_json::to_value(Hash::of(&disk)).map_err(io::Error::from)?;
    let mut out = output.stream();
    let done = match task.shard() {
        // Its range depends on whether zeros have to be processed.
        Some(shard) => manifest::hash_shard(&disk, &args.algorithms, shard, about, &options, &mut out),
        None => manifest::hash_share(&disk, &args.algorithms, &share, about, &options, &mut out),
    };
    drop(out);
    work.finish();
    let name = args.share.result.as_deref().unwrap_or(Path::new(crate::exit::STANDARD_OUTPUT));
    let failed = |error| Failure::of_manifest(image, name, error, &work);
    open::fail_if_changed(disk.layers(), done.map_err(failed))?;
    let exit = salvage::finish(image, &disk, 0..disk.size(), &args.salvage)?;
    output.complete()?;
    Ok(exit)
}

/// Prints the digests of merged shards like those of one run.
pub(super) fn print_merged(digests: &[Digest], about: &Value, as_json: bool) -> Result<(), Failure> {
    if as_json {
        // Shards that another program made may say something else about the image, or nothing.
        let report = Hash::deserialize(about).map_err(|error| {
            let text = format!("the shards do not say what `vhdx hash` says about an image: {error}");
            Failure::new(Exit::Corrupt, text).with_hint("leave out --output json: the digests can be printed as text")
        })?;
        let size = report.virtual_size;
        return json::print(&report.disk(0..size, digests));
    }
    let known = Hash::deserialize(about).map(|report| report.path());
    let named = || about.get("filename").and_then(Value::as_str).unwrap_or("-").into();
    Ok(term::print_names(&lines(digests, &known.unwrap_or_else(|_| named()), Form::Tagged("disk")))?)
}
