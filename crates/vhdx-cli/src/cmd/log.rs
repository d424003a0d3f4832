//! `vhdx log`: lists the entries of the log.

use std::io::Write;

use vhdx_mmap::report::Log;
use vhdx_mmap::{EntryStatus, LogReport, LogReportEntry};

use crate::args::{Common, LogArgs};
use crate::exit::{Exit, Failure};
use crate::json;
use crate::open;
use crate::size::human;
use crate::term;

pub(crate) fn run(args: &LogArgs, common: &Common) -> Result<Exit, Failure> {
    let source = open::source(&args.image, common)?;
    let report = LogReport::read(source.clone()).map_err(|error| Failure::of_image(&args.image, &error));
    let report = open::fail_if_source_changed(&source, report)?;
    if args.output.is_json() {
        json::print(&Log::of(source.path(), &report))?
    } else {
        as_table(&report)?
    }
    Ok(Exit::Done)
}

fn status(entry: &LogReportEntry) -> String {
    match entry.status {
        EntryStatus::Active => "active".to_owned(),
        EntryStatus::Stale => "stale".to_owned(),
        EntryStatus::OtherLog => "other log".to_owned(),
        EntryStatus::Broken(error) => format!("broken: {error:#}"),
        _ => "unknown".to_owned(),
    }
}

fn as_table(report: &LogReport) -> Result<(), Failure> {
    let header = report.header();
    let title = term::TITLE;
    let mut out = term::stdout();
    writeln!(out, "{title}log:{title:#} {}", Log::verdict_of(report))?;
    writeln!(out, "{title}LogGuid:{title:#} {}", header.log_guid)?;
    writeln!(out, "{title}location:{title:#} {} at {:#x}", human(u64::from(header.log_length)), header.log_offset)?;
    if report.entries().is_empty() {
        writeln!(out, "no entries")?;
    } else {
        writeln!(
            out,
            "{title}{:>10} {:>10} {:>10} {:>20} {:>6} {:>12} {:>12}  {:<36}  Status{title:#}",
            "Offset", "Length", "Tail", "SequenceNumber", "Descs", "Flushed", "Last", "LogGuid"
        )?;
    }
    for entry in report.entries() {
        let offset = entry.offset;
        match &entry.content {
            Some(content) => writeln!(
                out,
                "{offset:#10x} {:#10x} {:#10x} {:>20} {:>6} {:#12x} {:#12x}  {}  {}",
                content.len,
                content.tail,
                content.sequence_number,
                content.descriptors,
                content.flushed_file_offset,
                content.last_file_offset,
                content.log_guid,
                status(entry)
            )?,
            None => writeln!(
                out,
                "{offset:#10x} {:>10} {:>10} {:>20} {:>6} {:>12} {:>12}  {:<36}  {}",
                "-",
                "-",
                "-",
                "-",
                "-",
                "-",
                "-",
                status(entry)
            )?,
        }
    }
    out.flush()?;
    Ok(())
}
