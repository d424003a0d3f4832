//! `vhdx check`: lists every problem of images and their chains.

use std::io::Write;
use std::path::Path;

use vhdx_mmap::ops::{self, CheckOptions, CheckReport};
use vhdx_mmap::report::{Check, CheckFailure, CheckResult};
use vhdx_mmap::{
    ErrorKind, Finding, Image, LogPolicy, LogState, MetadataOverrides, Rule, Severity, Source, Strictness,
};

use crate::args::{CheckArgs, Common, ProgressChoice};
use crate::bulk::{self, Pool};
use crate::exit::{Exit, Failure};
use crate::findings::{self, Tally};
use crate::folder;
use crate::json::{self, Reports};
use crate::many;
use crate::mistaken;
use crate::open;
use crate::progress::Work;
use crate::share;
use crate::size::{counted, human};
use crate::term::{self, escape};

pub(crate) fn run(args: &CheckArgs, common: &Common) -> Result<Exit, Failure> {
    let pool = bulk::all_threads(common)?;
    if let (Some(_), [image]) = (&args.share.task, args.images.as_slice()) {
        return check_share(image, args, common, &pool);
    }
    let is_list = args.images.len() > 1 || args.folders.recursive;
    let mut reports = args.output.is_json().then(|| Reports::begin(is_list));
    let (mut worst, mut tally, mut out) = (Exit::Done, Tally::default(), term::stdout());
    let check = |image: &Path| check_image(image, args, common, &pool);
    folder::for_each_image(
        &args.images,
        args.folders,
        common,
        many::images_at_once(common),
        check,
        |image, checked| {
            let exit = match checked {
                Ok(Checked { text, report, exit }) => {
                    if let (Some(reports), Some(report)) = (&mut reports, report) {
                        reports.item(&report)?;
                    }
                    out.write_all(&text)?;
                    out.flush()?;
                    exit
                }
                Err(fatal @ (Failure::ClosedPipe { .. } | Failure::Interrupted { .. })) => return Err(fatal),
                // Check the other images, too.
                Err(failure) => {
                    if let (Some(reports), Failure::Message { text, .. }) = (&mut reports, &failure) {
                        reports.item(&CheckResult::Failed(CheckFailure::of(image, text)))?;
                    }
                    failure.report();
                    Exit::NotChecked
                }
            };
            tally.add_checked(exit);
            if rank(exit) > rank(worst) {
                worst = exit;
            }
            Ok(())
        },
    )?;
    if let Some(reports) = reports {
        reports.end()?;
    } else if let Some(line) = tally.line().filter(|_| !common.quiet) {
        writeln!(out, "{line}")?;
        out.flush()?;
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

/// What is printed about one image. The files of its chain are closed.
struct Checked {
    text: Vec<u8>,
    report: Option<CheckResult>,
    exit: Exit,
}

/// Checks an image with the content of a share of its disk.
fn check_share(image: &Path, args: &CheckArgs, common: &Common, pool: &Pool) -> Result<Exit, Failure> {
    if args.folders.recursive {
        return Err(Failure::usage("--shard and --split are for one image (found --recursive)"));
    }
    let output = share::Output::new(args.share.result.as_deref(), &[])?;
    match check_image(image, args, common, pool) {
        Ok(Checked { text, report, exit }) => {
            report.map_or(Ok(()), |report| output.print(&report))?;
            output.complete()?;
            let mut out = term::stdout();
            out.write_all(&text)?;
            out.flush()?;
            Ok(exit)
        }
        Err(failure @ Failure::Message { .. }) => {
            if let (true, Failure::Message { text, .. }) = (args.output.is_json(), &failure) {
                json::print(&CheckResult::Failed(CheckFailure::of(image, text)))?;
            }
            failure.report();
            Ok(Exit::NotChecked)
        }
        Err(fatal) => Err(fatal),
    }
}

fn check_image(image: &Path, args: &CheckArgs, common: &Common, pool: &Pool) -> Result<Checked, Failure> {
    let source = open::source(image, common)?;
    let reads_content = args.payload || args.share.task.is_some();
    let work = if reads_content && common.progress() != ProgressChoice::None {
        Work::new(estimated_size(&source), "check", image, common)
    } else {
        Work::unmeasured("check", image)
    };
    let scan = bulk::scan_options(args.cache, &work);
    let options = match &args.share.task {
        Some(task) => CheckOptions::new(task.open_options(common)).scan(scan).share(task.portion()),
        None => CheckOptions::new(open::options(common)).scan(scan).payload(args.payload),
    };
    open::warn_if_in_use(&source, common);
    let report = pool.install(|| ops::check(source.clone(), &options));
    work.finish();
    let report = report.map_err(|error| Failure::of_scan(image, &error, &work));
    let report = match report {
        Ok(report) => {
            // Nothing has been printed yet.
            report.files.iter().try_for_each(open::reject_as_output)?;
            report.files.iter().skip(1).for_each(|parent| open::warn_if_in_use(parent, common));
            let files = report.files.clone();
            let unchanged = Ok(report);
            files.iter().fold(unchanged, |result, file| open::fail_if_source_changed(file, result))?
        }
        failed => open::fail_if_source_changed(&source, failed)?,
    };
    let mut checked = Checked { text: Vec::new(), report: None, exit: exit_of(&report, args.strict) };
    if let Some(path) = &args.share.result {
        share::reject_files(path, &report.files)?;
    }
    if args.output.is_json() || args.share.result.is_some() {
        checked.report = Some(CheckResult::Checked(Box::new(Check::of(&report, args.strict))));
    } else {
        as_text(&mut checked.text, image, &report, args.strict, common)?;
    }
    Ok(checked)
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

fn as_text(
    out: &mut impl Write,
    image: &Path,
    report: &CheckReport,
    strict: bool,
    common: &Common,
) -> Result<(), Failure> {
    let name = escape(&image.to_string_lossy());
    if let Some(format) = report.looks_like {
        let step = escape(&mistaken::step(image, format, true));
        writeln!(out, "{name}: not a VHDX image (looks like {}): {step}", format.name)?;
        return Ok(());
    }
    let is_shown = |rule, severity| {
        let is_error = strict && severity == Severity::Warning;
        // These were asked for, by --payload.
        let is_wanted = rule == Rule::ZeroBlock && !common.quiet;
        is_error || is_wanted || findings::is_shown(severity, common)
    };
    // What a truncated file has lost explains most of the rest.
    let is_truncated = |finding: &&Finding| matches!(finding.detail.kind(), ErrorKind::Truncated { .. });
    let (first, others): (Vec<_>, Vec<_>) = report.findings.iter().partition(is_truncated);
    for finding in first.into_iter().chain(others).filter(|finding| is_shown(finding.rule, finding.severity)) {
        let style = match finding.severity {
            Severity::Corruption | Severity::Unsupported => term::ERROR,
            Severity::Note => term::HINT,
            _ => term::WARNING,
        };
        let text = escape(&findings::text_of(finding));
        writeln!(out, "{style}{}:{style:#} {name}: {text}", finding.severity.as_str())?;
    }
    for ((rule, severity), count) in report.counts.iter().filter(|((rule, severity), _)| is_shown(*rule, *severity)) {
        let is_same = |finding: &&Finding| (finding.rule, finding.severity) == (*rule, *severity);
        let printed = u64::try_from(report.findings.iter().filter(is_same).count()).unwrap_or(0);
        if *count > printed {
            let more = count.saturating_sub(printed);
            writeln!(out, "{}: {name}: {more} more of the same rule [{}]", severity.as_str(), rule.code())?;
        }
    }
    if !common.quiet {
        summary(out, &name, report, strict, common)?;
    }
    Ok(())
}

fn summary(
    out: &mut impl Write,
    name: &str,
    report: &CheckReport,
    strict: bool,
    common: &Common,
) -> Result<(), Failure> {
    let count = |severity| report.count(severity);
    let shown = report.counts.get(&(Rule::ZeroBlock, Severity::Note)).copied().unwrap_or(0);
    if let Some(line) = findings::hidden_notes(count(Severity::Note).saturating_sub(shown), common) {
        writeln!(out, "{name}: {line}.")?;
    }
    for (layer, state) in report.logs.iter().enumerate() {
        let file = report.files.get(layer).and_then(Source::path).filter(|_| layer > 0);
        let of = file.map_or_else(String::new, |path| format!(" of {}", escape(&path.to_string_lossy())));
        match state {
            LogState::Replayed(replay) => {
                let entries = counted(replay.entries, "entry");
                writeln!(out, "{name}: the log{of} is dirty: {entries} replayed in memory.")?;
            }
            LogState::Ignored => writeln!(out, "{name}: the log{of} is dirty, and was ignored.")?,
            // Clean; or unknown: that both headers are lost is a finding.
            _ => {}
        }
    }
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
        let (leaked, leaks) = (human(report.leaked_bytes), count(Severity::Leak));
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
    Ok(())
}
