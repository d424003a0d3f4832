//! `vhdx verify`: compares disks with a manifest or a list of digests.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Stdout, Write};
use std::ops::Range;
use std::path::Path;

use vhdx_mmap::ops::manifest::{self, Mismatch, Verified};
use vhdx_mmap::ops::{self, Algorithm};
use vhdx_mmap::report::{Failed, OffsetSpan, OrFailed, Verify, VerifyEnd, VerifyEntry, VerifyStart, VerifySum};

use crate::args::{Common, InputFormat, VerifyArgs};
use crate::bulk::{self, Pool};
use crate::exit::{Exit, Failure};
use crate::findings::{self, Tally};
use crate::folder::{self, Manifests};
use crate::json::{self, Listing, Reports};
use crate::many;
use crate::open::{self, Operand};
use crate::progress::Work;
use crate::size::counted;
use crate::sums::{self, Sum, SumOf};
use crate::term::{self, TextOut, escape};

pub(crate) fn run(args: &VerifyArgs, common: &Common) -> Result<Exit, Failure> {
    let pool = bulk::all_threads(common)?;
    match (&args.manifest, &args.check) {
        (Some(manifest), _) => with_manifests(manifest, args, common, &pool),
        (_, Some(list)) => with_list(list, args, common, &pool),
        _ => Err(Failure::usage("no input (expected IMAGE and --manifest, or --check)")),
    }
}

/// Verifies one image against a manifest, or several against those in a folder.
fn with_manifests(manifest: &Path, args: &VerifyArgs, common: &Common, pool: &Pool) -> Result<Exit, Failure> {
    let is_list = args.images.len() > 1 || args.folders.recursive;
    if is_list {
        folder::require_folder_of_manifests(manifest, args.images.len())?;
    }
    let mut reports = args.output.is_json().then(|| Reports::begin(is_list));
    let (mut worst, mut manifests, mut tally) = (None, Manifests::new(manifest), Tally::default());
    // All threads work on one image, whose mismatches are printed as they are found.
    let verify = |_: &Path| Ok(());
    folder::for_each_image(&args.images, args.folders, common, 1, verify, |image, found| {
        let verified = found.and_then(|()| {
            let own = if is_list { manifests.of(image, &args.images)? } else { manifest.to_path_buf() };
            pool.install(|| with_manifest(image, &own, is_list, &mut reports, args, common))
        });
        tally.add(match verified {
            Ok(Exit::Done) => "OK",
            Ok(Exit::Mismatch) => "with mismatches",
            _ => "not verified",
        });
        match verified {
            Ok(Exit::Done) => {}
            Ok(exit) => worst = Some(exit),
            Err(fatal @ (Failure::ClosedPipe { .. } | Failure::Interrupted { .. })) => return Err(fatal),
            // Verify the other images, too. A mismatch decides the exit code, or else the first failure.
            Err(failure) => {
                if let Some(reports) = &mut reports {
                    reports.failed::<Verify>(image, &failure)?;
                }
                let exit = failure.report();
                worst.get_or_insert(exit);
            }
        }
        Ok(())
    })?;
    match reports {
        Some(reports) => reports.end()?,
        None => findings::close(tally.line(), common),
    }
    Ok(worst.unwrap_or(Exit::Done))
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

fn with_manifest(
    image: &Path,
    manifest: &Path,
    is_list: bool,
    reports: &mut Option<Reports>,
    args: &VerifyArgs,
    common: &Common,
) -> Result<Exit, Failure> {
    let disk = open::disk(image, common)?;
    let input = File::open(manifest).map_err(|error| unreadable(manifest, &error))?;
    if !input.metadata().is_ok_and(|metadata| metadata.is_file()) {
        let text = format!("{}: not a regular file (a manifest is read twice)", manifest.display());
        return Err(Failure::new(Exit::NoInput, text));
    }
    let input = BufReader::new(input);
    let work = Work::new(disk.size(), "verify", image, common);
    let options = bulk::scan_options(args.cache, &work);
    let mut out = match reports {
        Some(reports) => {
            Out::Json(Listing::begin(reports.next()?, &VerifyStart::of(&disk, manifest), Some("mismatches"))?)
        }
        None => Out::Text(term::stdout()),
    };
    let mut failed = None;
    let name = if is_list { format!("{}: ", escape(&image.to_string_lossy())) } else { String::new() };
    let on_mismatch = |mismatch: Mismatch| {
        if failed.is_none() {
            failed = print_mismatch(&mut out, &name, &mismatch).err();
        }
    };
    let verified = manifest::verify(&disk, input, &options, on_mismatch);
    work.finish();
    if let Some(failure) = failed {
        return Err(failure);
    }
    let verified = verified.map_err(|error| Failure::of_manifest(image, manifest, error, &work));
    let verified = match (open::fail_if_changed(disk.layers(), verified), out) {
        (Ok(verified), opened) => {
            out = opened;
            verified
        }
        (Err(failure), Out::Json(listing)) => return listing.abort(failure),
        (Err(failure), Out::Text(_)) => return Err(failure),
    };
    if !verified.is_same_image && !common.quiet {
        let text = format!("{}: the manifest is of a different image, or of a different state", image.display());
        term::message("note", term::HINT, &escape(&text));
    }
    end(out, image, &verified, common)
}

fn print_mismatch(out: &mut Out, name: &str, mismatch: &Mismatch) -> Result<(), Failure> {
    let (start, end) = (mismatch.range.start, mismatch.range.end);
    let length = end.saturating_sub(start);
    let (found, expected) = (mismatch.found, mismatch.expected);
    match out {
        Out::Json(listing) => Ok(listing.item(&VerifyEntry::of(mismatch))?),
        Out::Text(out) => {
            let algorithm = found.algorithm();
            writeln!(
                out,
                "{name}block {} at {start:#x}, {length:#x} bytes: {algorithm} mismatch (found {found}, expected \
                 {expected})",
                mismatch.block
            )?;
            Ok(())
        }
    }
}

fn end(out: Out, image: &Path, verified: &Verified, common: &Common) -> Result<Exit, Failure> {
    let (matches, range) = (verified.mismatches == 0, &verified.range);
    match out {
        Out::Json(listing) => listing.end(&VerifyEnd::of(verified))?,
        Out::Text(_) if matches && common.quiet => {}
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

fn with_list(list: &Path, args: &VerifyArgs, common: &Common, pool: &Pool) -> Result<Exit, Failure> {
    let input: Box<dyn BufRead> = if list == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(list).map_err(|error| unreadable(list, &error))?))
    };
    let parsed = sums::parse(input, args.algorithm).map_err(|error| unreadable(list, &error))?;
    let bad = |line: &u64| format!("{}: line {line}: not a digest and a name", list.display());
    let mut worst = parsed.bad_lines.first().map(|line| {
        Failure::new(Exit::Corrupt, bad(line)).with_hint("write lists with `vhdx hash` or sha256sum").report()
    });
    if parsed.sums.is_empty() {
        return Err(Failure::new(Exit::Corrupt, format!("{}: no digests found", list.display())));
    }
    let bad = parsed.bad_lines.iter().map(|line| OrFailed::Failed(Failed::<VerifySum>::of(list, &bad(line))));
    let mut reports: Vec<OrFailed<VerifySum>> = bad.collect();
    // A file may be on several lines.
    let mut verdicts: HashMap<&Path, Verdict> = HashMap::new();
    let mut judge = |name, verdict: Verdict| {
        let of_file = verdicts.entry(name).or_insert(verdict);
        *of_file = verdict.max(*of_file);
    };
    // Digests of the same disk on adjacent lines are computed in one pass.
    let groups = parsed.sums.chunk_by(|a, b| (&a.name, a.of, &a.range) == (&b.name, b.of, &b.range));
    let mut groups = groups.filter_map(|group| Some((group.first()?, group)));
    let work = |(first, group): (_, &[Sum])| (first, check(first, group, args, common, pool));
    many::in_order(many::images_at_once(common).min(parsed.sums.len()), &mut groups, work, |(first, checked)| {
        match checked {
            Ok(results) => {
                for report in results {
                    if !report.ok {
                        worst = Some(Exit::Mismatch);
                    }
                    judge(&first.name, if report.ok { Verdict::Ok } else { Verdict::Mismatch });
                    let is_silent = args.output.is_json() || report.ok && common.quiet;
                    if !is_silent {
                        print_sum(&first.name, &report)?;
                    }
                    reports.push(OrFailed::Done(Box::new(report)));
                }
            }
            Err(fatal @ (Failure::ClosedPipe { .. } | Failure::Interrupted { .. })) => return Err(fatal),
            Err(failure) => {
                // Verify the others, too. A mismatch decides the exit code, or else the first failure.
                judge(&first.name, Verdict::NotVerified);
                if let Failure::Message { text, .. } = &failure {
                    let of = unmatched(possible(first, common));
                    let report = VerifySum::unreadable(&first.name, of, text);
                    let report = report.looks_like(failure.looks_like(&first.name));
                    reports.push(OrFailed::Done(Box::new(report)));
                }
                let exit = failure.report();
                worst.get_or_insert(exit);
                if !args.output.is_json() {
                    sums::print_line("", &first.name, ": FAILED to open or read")?;
                }
            }
        }
        Ok(())
    })?;
    if args.output.is_json() {
        json::print_all(&reports)?;
    } else {
        let mut tally = Tally::default();
        verdicts.values().for_each(|verdict| tally.add(verdict.as_str()));
        let unused = match u64::try_from(parsed.bad_lines.len()).unwrap_or(u64::MAX) {
            0 => String::new(),
            lines => format!("; {} of the list not used", counted(lines, "line")),
        };
        // Raw disks may be among them.
        findings::close(tally.line_of("files").map(|line| line + &unused), common);
    }
    Ok(worst.unwrap_or(Exit::Done))
}

/// Result of all lines of one file: the worst counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    Mismatch,
    NotVerified,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Mismatch => "with mismatches",
            Self::NotVerified => "not verified",
        }
    }
}

fn print_sum(name: &Path, report: &VerifySum) -> Result<(), Failure> {
    let result = if report.ok { "OK" } else { "FAILED" };
    let of = match report.range {
        Some(OffsetSpan { offset, length, .. }) => format!(" (bytes {offset}:{length})"),
        None if report.of == SumOf::File => " (file)".to_owned(),
        None => String::new(),
    };
    let algorithm = report.algorithm.map_or("", Algorithm::as_str);
    sums::print_line("", name, &format!("{of}: {result} ({algorithm})"))
}

/// Compares a disk or file with the digests of `group`. Where a line does not say of which of them its digest is, or by
/// which algorithm, each possibility is tried.
fn check(
    first: &Sum,
    group: &[Sum],
    args: &VerifyArgs,
    common: &Common,
    pool: &Pool,
) -> Result<Vec<VerifySum>, Failure> {
    let mut results: Vec<Option<VerifySum>> = group.iter().map(|_| None).collect();
    let mut failed = None;
    for of in possible(first, common) {
        match compare(*of, (first, group), &mut results, args, common, pool) {
            Ok(()) => {}
            Err(failure @ Failure::Message { .. }) => drop(failed.get_or_insert(failure)),
            Err(fatal) => return Err(fatal),
        }
    }
    match failed {
        // A file that can be read is no substitute for its disk, unless the digests are of the file.
        Some(failure) if results.iter().any(|result| !result.as_ref().is_some_and(|result| result.ok)) => Err(failure),
        _ => {
            let of = unmatched(possible(first, common));
            let label = |result: VerifySum| if result.ok { result } else { result.relabel(of) };
            Ok(results.into_iter().flatten().map(label).collect())
        }
    }
}

/// What a digest is of that matches nothing.
fn unmatched(possible: &[SumOf]) -> SumOf {
    match possible {
        [only] => *only,
        _ => SumOf::DiskOrFile,
    }
}

/// What the digests of a name may be of. A raw disk is its file.
fn possible(sum: &Sum, common: &Common) -> &'static [SumOf] {
    match sum.of {
        Some(SumOf::File) => &[SumOf::File],
        None if !open::is_raw(&sum.name, common) => &[SumOf::Disk, SumOf::File],
        _ => &[SumOf::Disk],
    }
}

/// Compares a disk or file with those digests that have not matched yet.
fn compare(
    of: SumOf,
    (first, group): (&Sum, &[Sum]),
    results: &mut [Option<VerifySum>],
    args: &VerifyArgs,
    common: &Common,
    pool: &Pool,
) -> Result<(), Failure> {
    let path = first.name.as_path();
    let is_open = |result: &Option<VerifySum>| !result.as_ref().is_some_and(|result| result.ok);
    if !results.iter().any(is_open) {
        return Ok(());
    }
    // The list may contain raw disks, too.
    let input = match of {
        SumOf::File => Operand::Raw(open::source(path, common)?),
        _ => open::input(path, InputFormat::Auto, common)?,
    };
    let mut compare = |as_blake3: bool| {
        let expected = |sum: &Sum| if as_blake3 { sum.as_blake3() } else { sum.digest };
        let open = group.iter().zip(results.iter_mut());
        let mut open: Vec<_> =
            open.filter(|(sum, result)| is_open(result) && (sum.may_be_blake3 || !as_blake3)).collect();
        if open.is_empty() {
            return Ok(());
        }
        let algorithms: Vec<Algorithm> = open.iter().map(|(sum, _)| expected(sum).algorithm()).collect();
        let whole = input.content();
        let content = match &first.range {
            Some(range) if range.end > whole.len() => {
                let text = format!("{}: bytes {range:?} are not in the disk ({} bytes)", path.display(), whole.len());
                return Err(Failure::new(Exit::Corrupt, text));
            }
            Some(range) => whole.range(range.clone()),
            None => whole,
        };
        let work = Work::new(content.len(), "verify", path, common);
        let options = bulk::scan_options(args.cache, &work);
        let found = pool.install(|| ops::hash(content, &algorithms, &options));
        work.finish();
        for ((sum, result), found) in open.iter_mut().zip(found.map_err(|error| Failure::of_scan(path, &error, &work))?)
        {
            let report = VerifySum::of(path, of, &expected(sum), &found).range(sum.range.clone());
            if report.ok || result.is_none() {
                **result = Some(report);
            }
        }
        Ok(())
    };
    let compared = compare(false).and_then(|()| compare(true));
    input.fail_if_changed(compared)
}
