//! `vhdx log`: lists the entries of the log.

use std::io::Write;

use serde::Serialize;
use uuid::Uuid;
use vhdx_mmap::{EntryStatus, LogReport, LogReportEntry};

use crate::args::{Common, LogArgs};
use crate::exit::{Exit, Failure};
use crate::json;
use crate::open;
use crate::size::{counted, human};
use crate::term;

pub(crate) fn run(args: &LogArgs, common: &Common) -> Result<Exit, Failure> {
    let source = open::source(&args.image, common)?;
    let report = LogReport::read(source.clone()).map_err(|error| Failure::of_image(&args.image, &error));
    let report = open::fail_if_source_changed(&source, report)?;
    if args.output.is_json() {
        as_json(&report)?
    } else {
        as_table(&report)?
    }
    Ok(Exit::Done)
}

/// State of the log, and whether it can be replayed.
fn verdict(report: &LogReport) -> String {
    if !report.header().is_dirty() {
        return "not in use: nothing to replay".to_owned();
    }
    if let Some(error) = report.replay_error() {
        return format!("in use, and cannot be replayed: {error}");
    }
    let active = report.entries().iter().map(|entry| u64::from(entry.status == EntryStatus::Active)).sum();
    format!("in use: {} to replay", counted(active, "entry"))
}

fn status(entry: &LogReportEntry) -> String {
    match entry.status {
        EntryStatus::Active => "active".to_owned(),
        EntryStatus::Stale => "stale".to_owned(),
        EntryStatus::OtherLog => "other log".to_owned(),
        EntryStatus::Broken(error) => format!("broken: {error}"),
    }
}

fn as_table(report: &LogReport) -> Result<(), Failure> {
    let header = report.header();
    let title = term::TITLE;
    let mut out = term::stdout();
    writeln!(out, "{title}log:{title:#} {}", verdict(report))?;
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

/// JSON output.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    in_use: bool,
    log_guid: Uuid,
    log_offset: u64,
    log_length: u32,
    verdict: String,
    entries: Vec<Entry>,
}

/// An entry in the JSON output: its fields, or why it is broken.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    offset: u64,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    content: Option<Content>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Content {
    length: u64,
    tail: u64,
    sequence_number: u64,
    descriptors: u32,
    log_guid: Uuid,
    flushed_file_offset: u64,
    last_file_offset: u64,
}

fn as_json(report: &LogReport) -> Result<(), Failure> {
    let header = report.header();
    json::print(&Report {
        in_use: header.is_dirty(),
        log_guid: header.log_guid,
        log_offset: header.log_offset,
        log_length: header.log_length,
        verdict: verdict(report),
        entries: report.entries().iter().map(entry_as_json).collect(),
    })
}

fn entry_as_json(entry: &LogReportEntry) -> Entry {
    let (status, reason) = match entry.status {
        EntryStatus::Active => ("active", None),
        EntryStatus::Stale => ("stale", None),
        EntryStatus::OtherLog => ("other-log", None),
        EntryStatus::Broken(error) => ("broken", Some(error.to_string())),
    };
    let content = entry.content.as_ref().map(|content| Content {
        length: content.len,
        tail: content.tail,
        sequence_number: content.sequence_number,
        descriptors: content.descriptors,
        log_guid: content.log_guid,
        flushed_file_offset: content.flushed_file_offset,
        last_file_offset: content.last_file_offset,
    });
    Entry { offset: entry.offset, status, reason, content }
}
