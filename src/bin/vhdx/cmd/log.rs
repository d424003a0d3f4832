//! `vhdx log`.

use std::io::Write;

use serde_json::{Value, json};
use vhdx_mmap::{EntryStatus, LogReport, LogReportEntry};

use crate::args::{Common, LogArgs};
use crate::exit::{Exit, Failure};
use crate::open;
use crate::size::human;
use crate::term;

pub(crate) fn run(args: &LogArgs, common: &Common) -> Result<Exit, Failure> {
    let source = open::source(&args.image, common)?;
    let report = LogReport::read(source).map_err(|error| Failure::of_image(&args.image, &error))?;
    if args.output.is_json() {
        as_json(&report)?
    } else {
        as_table(&report)?
    }
    Ok(Exit::Done)
}

/// What becomes of the log, in words.
fn verdict(report: &LogReport) -> String {
    if !report.header().is_dirty() {
        return "not in use: nothing to replay".to_owned();
    }
    if let Some(error) = report.placement_error() {
        return format!("in use, and out of place: {error}");
    }
    match report.entries().iter().filter(|entry| entry.status == EntryStatus::Active).count() {
        0 => "in use, but without a complete sequence to replay: the image is corrupt".to_owned(),
        active => format!("in use: {active} entries to replay"),
    }
}

fn status(entry: &LogReportEntry) -> String {
    match entry.status {
        EntryStatus::Active => "active".to_owned(),
        EntryStatus::Stale => "stale".to_owned(),
        EntryStatus::OtherLog => "other log".to_owned(),
        EntryStatus::Broken(flaw) => format!("broken: {flaw}"),
    }
}

fn as_table(report: &LogReport) -> Result<(), Failure> {
    let header = report.header();
    let title = term::TITLE;
    let mut out = term::stdout();
    writeln!(out, "{title}log:{title:#} {}", verdict(report))?;
    writeln!(out, "{title}LogGuid:{title:#} {}", header.log_guid)?;
    writeln!(out, "{title}place:{title:#} {} at {:#x}", human(u64::from(header.log_length)), header.log_offset)?;
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

fn as_json(report: &LogReport) -> Result<(), Failure> {
    let header = report.header();
    let entries: Vec<Value> = report.entries().iter().map(entry_as_json).collect();
    let value = json!({
        "in-use": header.is_dirty(),
        "log-guid": header.log_guid,
        "log-offset": header.log_offset,
        "log-length": header.log_length,
        "verdict": verdict(report),
        "entries": entries,
    });
    term::print_json(&value)
}

fn entry_as_json(entry: &LogReportEntry) -> Value {
    let (status, reason) = match entry.status {
        EntryStatus::Active => ("active", None),
        EntryStatus::Stale => ("stale", None),
        EntryStatus::OtherLog => ("other-log", None),
        EntryStatus::Broken(flaw) => ("broken", Some(flaw.to_string())),
    };
    let mut value = json!({ "offset": entry.offset, "status": status });
    if let (Some(fields), Some(content)) = (value.as_object_mut(), &entry.content) {
        fields.insert("length".to_owned(), content.length.into());
        fields.insert("tail".to_owned(), content.tail.into());
        fields.insert("sequence-number".to_owned(), content.sequence_number.into());
        fields.insert("descriptors".to_owned(), content.descriptors.into());
        fields.insert("log-guid".to_owned(), json!(content.log_guid));
        fields.insert("flushed-file-offset".to_owned(), content.flushed_file_offset.into());
        fields.insert("last-file-offset".to_owned(), content.last_file_offset.into());
    } else if let (Some(fields), Some(reason)) = (value.as_object_mut(), reason) {
        fields.insert("reason".to_owned(), reason.into());
    }
    value
}
