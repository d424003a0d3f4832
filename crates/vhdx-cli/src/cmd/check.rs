//! `vhdx check`: lists every problem of images and their chains.

use std::io::Write;
use std::path::Path;

use vhdx_mmap::ops::{self, CheckOptions, CheckReport};
use vhdx_mmap::report::{Check, CheckFailure, CheckResult};
use vhdx_mmap::{Finding, Image, LogPolicy, MetadataOverrides, Severity, Source, Strictness};

use crate::args::{CheckArgs, Common};
use crate::bulk;
use crate::exit::{Exit, Failure};
use crate::json;
use crate::open;
use crate::progress::Work;
use crate::size::{counted, human};
use crate::term::{self, escape};

pub(crate) fn run(args: &CheckArgs, common: &Common) -> Result<Exit, Failure> {
    let pool = bulk::pool(common, usize::MAX)?;
    let (mut results, mut worst) = (Vec::new(), Exit::Done);
    for image in &args.images {
        let exit = match pool.install(|| check_image(image, args, common)) {
            Ok((report, exit)) => {
                if args.output.is_json() {
                    results.push(CheckResult::Checked(Box::new(Check::of(&report, args.strict))));
                } else {
                    as_text(image, &report, args.strict)?;
                }
                exit
            }
            Err(fatal @ (Failure::ClosedPipe { .. } | Failure::Interrupted { .. })) => return Err(fatal),
            // Check the other images, too.
            Err(failure) => {
                if let (true, Failure::Message { text, .. }) = (args.output.is_json(), &failure) {
                    results.push(CheckResult::Failed(CheckFailure::of(image, text)));
                }
                failure.report();
                Exit::NotChecked
            }
        };
        if rank(exit) > rank(worst) {
            worst = exit;
        }
    }
    if args.output.is_json() {
        match results.as_slice() {
            [result] if args.images.len() == 1 => json::print(result)?,
            all => json::print(&all)?,
        }
    }
    Ok(worst)
}

/// Order of results: the worst result of several images decides the exit code.
fn rank(exit: Exit) -> u8 {
    match exit {
        Exit::Done => 0,
        Exit::Leaks => 1,
        Exit::NotSupported => 2,
        Exit::NotChecked => 3,
        _ => 4,
    }
}

fn check_image(image: &Path, args: &CheckArgs, common: &Common) -> Result<(CheckReport, Exit), Failure> {
    let source = open::source(image, common)?;
    let is_shown = args.payload && !common.quiet;
    let work = Work::new(if is_shown { estimated_size(&source) } else { 0 }, !is_shown);
    let options =
        CheckOptions::new(open::options(common)).payload(args.payload).scan(bulk::scan_options(args.cache, &work));
    let report = ops::check(source.clone(), &options);
    work.finish();
    let report = report.map_err(|error| Failure::of_scan(image, &error, &work));
    let report = match report {
        Ok(report) => {
            // Nothing has been printed yet.
            report.files.iter().try_for_each(open::reject_as_output)?;
            let files = report.files.clone();
            let unchanged = Ok(report);
            files.iter().fold(unchanged, |result, file| open::fail_if_source_changed(file, result))?
        }
        failed => open::fail_if_source_changed(&source, failed)?,
    };
    let exit = exit_of(&report, args.strict);
    Ok((report, exit))
}

/// Estimate of the bytes to read, for the progress bar. A log that changes the size is ignored.
fn estimated_size(source: &Source) -> u64 {
    let opened =
        Image::open_with(source.clone(), LogPolicy::Ignore, Strictness::Salvage, &MetadataOverrides::default());
    opened.map_or(0, |image| image.virtual_disk_size())
}

fn exit_of(report: &CheckReport, strict: bool) -> Exit {
    if !report.is_vhdx {
        return Exit::NotChecked;
    }
    match report.worst() {
        Some(Severity::Corruption) => Exit::Corruption,
        _ if strict && report.count(Severity::Warning) > 0 => Exit::Corruption,
        Some(Severity::Unsupported) => Exit::NotSupported,
        Some(Severity::Unchecked) => Exit::NotChecked,
        Some(Severity::Leak) => Exit::Leaks,
        None | Some(Severity::Note | Severity::Warning) => Exit::Done,
    }
}

fn as_text(image: &Path, report: &CheckReport, strict: bool) -> Result<(), Failure> {
    let mut out = term::stdout();
    let name = escape(&image.to_string_lossy());
    for finding in &report.findings {
        let style = match finding.severity {
            Severity::Corruption | Severity::Unsupported => term::ERROR,
            Severity::Note => term::HINT,
            _ => term::WARNING,
        };
        write!(out, "{style}{}:{style:#} {name}: {}", finding.severity.as_str(), escape(&finding.to_string()))?;
        if let Some(range) = &finding.range {
            let length = range.end.saturating_sub(range.start);
            write!(out, ", disk offset {:#x}, length {length:#x}", range.start)?;
        }
        writeln!(out)?;
    }
    for ((rule, severity), count) in &report.counts {
        let is_same = |finding: &&Finding| (finding.rule, finding.severity) == (*rule, *severity);
        let printed = u64::try_from(report.findings.iter().filter(is_same).count()).unwrap_or(0);
        if *count > printed {
            let more = count.saturating_sub(printed);
            writeln!(out, "{}: {name}: {more} more of the same rule [{}]", severity.as_str(), rule.code())?;
        }
    }
    let count = |severity| report.count(severity);
    if !report.is_vhdx {
        writeln!(out, "{name}: not a VHDX image")?;
    } else if report.corruptions(strict) > 0 {
        let errors = report.corruptions(strict);
        let verb = if errors == 1 { "was" } else { "were" };
        writeln!(out, "{name}: {} {verb} found on the image.", counted(errors, "error"))?;
    } else if count(Severity::Unsupported) > 0 {
        writeln!(out, "{name}: the image needs a feature that is not supported.")?;
    } else if count(Severity::Unchecked) > 0 {
        writeln!(out, "{name}: no errors were found, but the check is incomplete.")?;
    } else if count(Severity::Leak) > 0 {
        let leaked = human(report.unreferenced.saturating_mul(1 << 20));
        let leaks = count(Severity::Leak);
        let verb = if leaks == 1 { "was" } else { "were" };
        writeln!(
            out,
            "{name}: no errors, but {} {verb} found ({leaked} that nothing refers to).",
            counted(leaks, "leak")
        )?;
    } else {
        writeln!(out, "{name}: no errors were found on the image.")?;
    }
    if report.blocks > 0 {
        let (blocks, allocated, fragmented) = (report.blocks, report.allocated_blocks, report.fragmented_blocks);
        let blocks = counted(blocks, "block");
        writeln!(out, "{name}: {allocated} of {blocks} allocated, {fragmented} fragmented.")?;
    }
    out.flush()?;
    Ok(())
}
