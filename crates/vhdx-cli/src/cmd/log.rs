//! `vhdx log`.

use std::io::Write;

use vhdx_mmap::LogReport;
use vhdx_mmap::report::{Log, LogEntry, LogEntryStatus};

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
    let log = Log::of(&report);
    if args.output.is_json() {
        json::print(&log)?
    } else {
        as_table(&log)?
    }
    Ok(Exit::Done)
}

fn status(entry: &LogEntry) -> String {
    match (entry.status, &entry.reason) {
        (LogEntryStatus::Active, _) => "active".to_owned(),
        (LogEntryStatus::Stale, _) => "stale".to_owned(),
        (LogEntryStatus::OtherLog, _) => "other log".to_owned(),
        (_, reason) => format!("broken: {}", reason.as_deref().unwrap_or("not known")),
    }
}

fn as_table(log: &Log) -> Result<(), Failure> {
    let title = term::TITLE;
    let mut out = term::stdout();
    writeln!(out, "{title}log:{title:#} {}", log.verdict)?;
    writeln!(out, "{title}LogGuid:{title:#} {}", log.log_guid)?;
    writeln!(out, "{title}place:{title:#} {} at {:#x}", human(u64::from(log.log_length)), log.log_offset)?;
    if log.entries.is_empty() {
        writeln!(out, "no entries")?;
    } else {
        writeln!(
            out,
            "{title}{:>10} {:>10} {:>10} {:>20} {:>6} {:>12} {:>12}  {:<36}  Status{title:#}",
            "Offset", "Length", "Tail", "SequenceNumber", "Descs", "Flushed", "Last", "LogGuid"
        )?;
    }
    for entry in &log.entries {
        let offset = entry.offset;
        match &entry.content {
            Some(content) => writeln!(
                out,
                "{offset:#10x} {:#10x} {:#10x} {:>20} {:>6} {:#12x} {:#12x}  {}  {}",
                content.length,
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
