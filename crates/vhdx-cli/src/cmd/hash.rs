//! `vhdx hash`: prints digests, and writes manifests and shards.

use std::io::{self, Write};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use vhdx_mmap::ops::manifest::{self, Root, Shard};
use vhdx_mmap::ops::{self, Digest};
use vhdx_mmap::report::Hash;
use vhdx_mmap::{Disk, Input, ScanError};

use crate::args::{Common, HashArgs};
use crate::bulk::{self, DigestLine};
use crate::exit::{Exit, Failure};
use crate::json;
use crate::open;
use crate::progress::Work;
use crate::salvage;
use crate::target::{Consent, Destination};
use crate::term::{self, escape};

pub(crate) fn run(args: &HashArgs, common: &Common) -> Result<Exit, Failure> {
    bulk::reject_duplicates(&args.algorithms)?;
    salvage::reject_several_images(&args.salvage, &args.images)?;
    if args.file && args.salvage.salvage {
        let failure = Failure::usage("--file cannot be combined with --salvage");
        return Err(failure.with_hint("leave out --file, and hash the file itself with sha256sum"));
    }
    let pool = bulk::pool(common, usize::MAX)?;
    if args.manifest.is_some() || args.shard.is_some() {
        let [image] = args.images.as_slice() else {
            return Err(Failure::usage(format!(
                "--manifest, --shard: several images (found {}, expected 1)",
                args.images.len()
            )));
        };
        return pool.install(|| match (&args.manifest, args.shard) {
            (Some(manifest), shard) => write_manifest(image, manifest, shard, args, common),
            (None, Some(shard)) => write_shard(image, shard, args, common),
            (None, None) => Ok(Exit::Done),
        });
    }
    let (mut reports, mut first_failure) = (Vec::new(), None);
    for image in &args.images {
        match pool.install(|| hash_image(image, args, common)) {
            Ok((report, exit)) => {
                reports.extend(report);
                if exit != Exit::Done {
                    first_failure.get_or_insert(exit);
                }
            }
            Err(fatal @ (Failure::ClosedPipe { .. } | Failure::Interrupted { .. })) => return Err(fatal),
            // Hash the other images, too; the first failure decides the exit code.
            Err(failure) => {
                let exit = failure.report();
                first_failure.get_or_insert(exit);
            }
        }
    }
    if args.output.is_json() {
        match reports.as_slice() {
            [report] if args.images.len() == 1 => json::print(report)?,
            [] if args.images.len() == 1 => {}
            all => json::print(&all)?,
        }
    }
    Ok(first_failure.unwrap_or(Exit::Done))
}

/// Hashes one image. Prints the digests, or returns them as JSON.
fn hash_image(image: &Path, args: &HashArgs, common: &Common) -> Result<(Option<Hash>, Exit), Failure> {
    let disk = open::salvaged(image, common, &args.salvage)?;
    salvage::prepare(&args.salvage, &disk, None)?;
    let range = bulk::range_of(args.range, disk.size())?;
    let content = Input::disk(&disk).range(range.clone());
    let file = args.file.then(|| Input::raw(disk.image().source()));
    let length = content.len().saturating_add(file.map_or(0, |file| file.len()));
    let work = Work::new(length, common.quiet);
    let options = bulk::scan_options(args.cache, &work);
    let hash = |content| ops::hash(content, &args.algorithms, &options);
    let of_disk = hash(content);
    let of_file = file.map(hash).transpose();
    work.finish();
    let failed = |error| Failure::of_scan(image, &error, &work);
    let digests = of_disk.and_then(|of_disk| Ok((of_disk, of_file?))).map_err(failed);
    let (of_disk, of_file) = open::fail_if_changed(disk.layers(), digests)?;
    // Digests are printed even if the loss map cannot be written.
    let finish = || salvage::finish(image, &disk, range.clone(), &args.salvage).unwrap_or_else(Failure::report);
    if args.output.is_json() {
        let mut report = Hash::of(&disk).disk(range.start..range.start.saturating_add(content.len()), &of_disk);
        if let Some(of_file) = &of_file {
            report = report.file(disk.image().source().len(), of_file);
        }
        return Ok((Some(report), finish()));
    }
    // The digest of a part must not look like that of the whole disk.
    let part = args.range.map(|_| format!("disk {}:{}", range.start, content.len()));
    let disk_tag = match (&part, &of_file) {
        (Some(part), _) => Some(part.as_str()),
        (None, Some(_)) => Some("disk"),
        (None, None) => (of_disk.len() > 1).then_some(""),
    };
    print(&of_disk, image, disk_tag)?;
    if let Some(of_file) = of_file {
        print(&of_file, image, Some("file"))?;
    }
    Ok((None, finish()))
}

fn print(digests: &[Digest], image: &Path, tag: Option<&str>) -> Result<(), Failure> {
    let name = image.to_string_lossy();
    let mut out = term::stdout();
    for digest in digests {
        writeln!(out, "{}", term::escape_on_terminal(DigestLine { digest, name: &name, tag }.to_string()))?;
    }
    out.flush()?;
    Ok(())
}

/// Writes a manifest, or a shard of one.
fn write_manifest(
    image: &Path,
    manifest: &Path,
    shard: Option<Shard>,
    args: &HashArgs,
    common: &Common,
) -> Result<Exit, Failure> {
    let disk = open::salvaged(image, common, &args.salvage)?;
    salvage::prepare(&args.salvage, &disk, Some(manifest).filter(|out| *out != Path::new("-")))?;
    let work = Work::new(disk.size(), common.quiet);
    let options = bulk::scan_options(args.cache, &work);
    let create = |out: &mut dyn Write| manifest::create_manifest(&disk, &args.algorithms, shard, &options, out);
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
        print_manifest_roots(image, &disk, &roots, args)?;
    }
    salvage::finish(image, &disk, 0..disk.size(), &args.salvage)
}

/// Prints the roots of a manifest. They have other names than digests of the disk.
fn print_manifest_roots(image: &Path, disk: &Disk, roots: &[Root], args: &HashArgs) -> Result<(), Failure> {
    if args.output.is_json() {
        return json::print(&Hash::of(disk).root(roots));
    }
    print_roots(&image.to_string_lossy(), roots)
}

pub(super) fn print_roots(name: &str, roots: &[Root]) -> Result<(), Failure> {
    let mut out = term::stdout();
    for Root { name: algorithm, digest } in roots {
        writeln!(out, "{algorithm} ({}) = {digest}", escape(name))?;
    }
    out.flush()?;
    Ok(())
}

fn write_shard(image: &Path, shard: Shard, args: &HashArgs, common: &Common) -> Result<Exit, Failure> {
    if let Some(other) = args.algorithms.iter().find(|algorithm| !algorithm.is_mergeable()) {
        let text = format!("{other}: cannot be merged from shards (expected crc32 or blake3)");
        return Err(Failure::usage(text).with_hint("pass --manifest FILE to use other algorithms with --shard"));
    }
    let disk = open::salvaged(image, common, &args.salvage)?;
    salvage::prepare(&args.salvage, &disk, None)?;
    let work = Work::new(disk.size().checked_div(shard.count().into()).unwrap_or(0), common.quiet);
    let options = bulk::scan_options(args.cache, &work);
    let about = serde_json::to_value(Hash::of(&disk)).map_err(io::Error::from)?;
    let done = manifest::hash_shard(&disk, &args.algorithms, shard, about, &options, &mut json::stdout());
    work.finish();
    let failed = |error| Failure::of_manifest(image, Path::new(crate::exit::STANDARD_OUTPUT), error, &work);
    open::fail_if_changed(disk.layers(), done.map_err(failed))?;
    salvage::finish(image, &disk, 0..disk.size(), &args.salvage)
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
    let name = about.get("filename").and_then(Value::as_str).unwrap_or("-");
    print(digests, Path::new(name), (digests.len() > 1).then_some(""))
}
