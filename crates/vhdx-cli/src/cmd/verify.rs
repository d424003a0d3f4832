//! `vhdx verify`: compares disks with a manifest or a list of digests.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Stdout, Write};
use std::ops::Range;
use std::path::Path;

use vhdx_mmap::ops::manifest::{self, Mismatch, Verified};
use vhdx_mmap::ops::{self, Algorithm, Digest};
use vhdx_mmap::report::{VerifyEnd, VerifyEntry, VerifyStart, VerifySum};
use vhdx_mmap::{Input, Source};

use crate::args::{Common, InputFormat, VerifyArgs};
use crate::bulk;
use crate::exit::{Exit, Failure};
use crate::json::{self, Listing};
use crate::open;
use crate::progress::Work;
use crate::size::counted;
use crate::sums::{self, Sum, SumOf};
use crate::term::{self, TextOut, escape};

pub(crate) fn run(args: &VerifyArgs, common: &Common) -> Result<Exit, Failure> {
    let pool = bulk::pool(common, usize::MAX)?;
    match (&args.image, &args.manifest, &args.check) {
        (Some(image), Some(manifest), _) => pool.install(|| with_manifest(image, manifest, args, common)),
        (_, _, Some(list)) => pool.install(|| with_list(list, args, common)),
        _ => Err(Failure::usage("no input (expected IMAGE and --manifest, or --check)")),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::NoInput, format!("{}: cannot be read: {error}", path.display()))
        .with_hint("check the path and its permissions")
}

/// Output of mismatches, written as they are found.
enum Out {
    Text(TextOut),
    Json(Listing<BufWriter<Stdout>>),
}

fn with_manifest(image: &Path, manifest: &Path, args: &VerifyArgs, common: &Common) -> Result<Exit, Failure> {
    let disk = open::disk(image, common)?;
    let input = File::open(manifest).map_err(|error| unreadable(manifest, &error))?;
    if !input.metadata().is_ok_and(|metadata| metadata.is_file()) {
        let text = format!("{}: not a regular file (a manifest is read twice)", manifest.display());
        return Err(Failure::new(Exit::NoInput, text));
    }
    let input = BufReader::new(input);
    let work = Work::new(disk.size(), common.quiet);
    let options = bulk::scan_options(args.cache, &work);
    let mut out = if args.output.is_json() {
        Out::Json(Listing::begin(json::stdout(), &VerifyStart::of(&disk, manifest), Some("mismatches"))?)
    } else {
        Out::Text(term::stdout())
    };
    let mut failed = None;
    let on_mismatch = |mismatch: Mismatch| {
        if failed.is_none() {
            failed = print_mismatch(&mut out, &mismatch).err();
        }
    };
    let verified = manifest::verify(&disk, input, &options, on_mismatch);
    work.finish();
    if let Some(failure) = failed {
        return Err(failure);
    }
    let verified = verified.map_err(|error| Failure::of_manifest(image, manifest, error, &work));
    let verified = open::fail_if_changed(disk.layers(), verified)?;
    if !verified.is_same_image && !common.quiet {
        let text = format!("{}: the manifest is of a different image, or of a different state", image.display());
        term::message("note", term::HINT, &escape(&text));
    }
    end(out, image, &verified)
}

fn print_mismatch(out: &mut Out, mismatch: &Mismatch) -> Result<(), Failure> {
    let (start, end) = (mismatch.range.start, mismatch.range.end);
    let length = end.saturating_sub(start);
    let (found, expected) = (mismatch.found, mismatch.expected);
    match out {
        Out::Json(listing) => Ok(listing.item(&VerifyEntry::of(mismatch))?),
        Out::Text(out) => {
            let algorithm = found.algorithm();
            writeln!(
                out,
                "block {} at {start:#x}, {length:#x} bytes: {algorithm} mismatch (found {found}, expected {expected})",
                mismatch.block
            )?;
            Ok(())
        }
    }
}

fn end(out: Out, image: &Path, verified: &Verified) -> Result<Exit, Failure> {
    let (matches, range) = (verified.mismatches == 0, &verified.range);
    match out {
        Out::Json(listing) => listing.end(&VerifyEnd::of(verified))?,
        Out::Text(mut out) => {
            let name = escape(&image.to_string_lossy());
            if *range != (0..verified.manifest.virtual_size) {
                let Range { start, end } = range;
                writeln!(out, "{name}: only bytes {start:#x} to {end:#x}, the range of this shard")?;
            }
            let blocks = counted(verified.blocks, "block");
            if matches {
                writeln!(out, "{name}: OK ({blocks})")?;
            } else {
                writeln!(out, "{name}: FAILED ({} of {blocks})", verified.mismatches)?;
            }
            out.flush()?;
        }
    }
    Ok(if matches { Exit::Done } else { Exit::Mismatch })
}

fn with_list(list: &Path, args: &VerifyArgs, common: &Common) -> Result<Exit, Failure> {
    let input: Box<dyn BufRead> = if list == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(list).map_err(|error| unreadable(list, &error))?))
    };
    let parsed = sums::parse(input, args.algorithm).map_err(|error| unreadable(list, &error))?;
    let mut worst = parsed.first_bad_line.map(|line| {
        let text = format!("{}: line {line}: not a digest and a name", list.display());
        Failure::new(Exit::Corrupt, text).with_hint("write lists with `vhdx hash` or sha256sum").report()
    });
    if parsed.sums.is_empty() {
        return Err(Failure::new(Exit::Corrupt, format!("{}: no digests found", list.display())));
    }
    let mut reports = Vec::new();
    // Digests of the same disk on adjacent lines are computed in one pass.
    for group in parsed.sums.chunk_by(|a, b| (&a.name, a.of) == (&b.name, b.of)) {
        let Some(first) = group.first() else { continue };
        match hash(first, group, args, common) {
            Ok(found) => {
                for (sum, found) in group.iter().zip(found) {
                    let found = if sum.may_be_blake3 && sum.digest != found {
                        // SHA-256 and BLAKE3 digests have the same length.
                        hash(first, &[sum.as_blake3()], args, common)?.pop().unwrap_or(found)
                    } else {
                        found
                    };
                    let report = VerifySum::of(Path::new(&sum.name), sum.of, &sum.digest, &found);
                    if !report.ok {
                        worst.get_or_insert(Exit::Mismatch);
                    }
                    if !args.output.is_json() {
                        print_sum(sum, found.algorithm(), report.ok)?;
                    }
                    reports.push(report);
                }
            }
            Err(fatal @ (Failure::ClosedPipe { .. } | Failure::Interrupted { .. })) => return Err(fatal),
            Err(failure) => {
                // Verify the others, too; the first failure decides the exit code.
                let exit = failure.report();
                worst.get_or_insert(exit);
                reports.push(VerifySum::unreadable(Path::new(&first.name), first.of));
                if !args.output.is_json() {
                    let mut out = term::stdout();
                    writeln!(out, "{}: FAILED to open or read", escape(&first.name))?;
                    out.flush()?;
                }
            }
        }
    }
    if args.output.is_json() {
        json::print(&reports)?;
    }
    Ok(worst.unwrap_or(Exit::Done))
}

fn print_sum(sum: &Sum, algorithm: Algorithm, matches: bool) -> Result<(), Failure> {
    let mut out = term::stdout();
    let result = if matches { "OK" } else { "FAILED" };
    let of = if sum.of == SumOf::File { " (file)" } else { "" };
    writeln!(out, "{}{of}: {result} ({algorithm})", escape(&sum.name))?;
    Ok(out.flush()?)
}

/// Computes the digests of `group`, which are of one disk or file.
fn hash(first: &Sum, group: &[Sum], args: &VerifyArgs, common: &Common) -> Result<Vec<Digest>, Failure> {
    let path = Path::new(&first.name);
    let algorithms: Vec<Algorithm> = group.iter().map(|sum| sum.digest.algorithm()).collect();
    let compute = |content: Input<'_>| {
        let work = Work::new(content.len(), common.quiet);
        let found = ops::hash(content, &algorithms, &bulk::scan_options(args.cache, &work));
        work.finish();
        found.map_err(|error| Failure::of_scan(path, &error, &work))
    };
    match first.of {
        // The list may contain raw disks, too.
        SumOf::Disk => {
            let input = open::input(path, InputFormat::Auto, common)?;
            input.fail_if_changed(compute(input.content()))
        }
        SumOf::File => {
            let source: Source = open::source(path, common)?;
            open::fail_if_source_changed(&source, compute(Input::raw(&source)))
        }
    }
}
