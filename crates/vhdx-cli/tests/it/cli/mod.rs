//! The command as its users run it: output, files that it leaves, and exit codes.
#![cfg(unix)]

mod chain;
mod compare;
mod container;
mod device;
mod diff;
mod endings;
mod extract;
mod failures;
mod files;
mod folders;
mod general;
mod hash;
#[cfg(target_os = "linux")]
mod in_use;
mod info;
mod inputs;
mod links;
mod log;
mod logical;
mod map;
mod mistaken;
#[cfg(target_os = "linux")]
mod mount;
mod names;
mod partitions;
mod plan;
mod progress;
mod quiet;
mod read;
mod scripts;
#[cfg(target_os = "linux")]
mod serve;
mod share;
#[cfg(target_os = "linux")]
mod stops;
mod target;
mod terminal;
mod usage;
mod verify;
mod vhd;
mod volume_details;
mod volumes;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::kit::builder::Spec;
use crate::kit::{Block, Fill, MIB};
use crate::support::{Ran, run, vhdx};

/// Words of an argument list, some of which are paths.
macro_rules! args {
    ($($arg:expr),* $(,)?) => {
        vec![$(std::ffi::OsString::from($arg)),*]
    };
}
use args;

/// Runs the command.
#[track_caller]
fn vhdx_run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Ran {
    run(&mut vhdx(args))
}

/// Builds an image and writes it to a folder.
fn write_image(folder: &Path, name: &str, spec: &Spec) -> PathBuf {
    let path = folder.join(name);
    spec.build().bytes.write_file(&path).unwrap();
    path
}

/// An image of a disk that holds these bytes at these offsets, and zeros elsewhere.
fn disk_with(size: u64, pieces: &[(u64, &[u8])]) -> Spec {
    let mut blocks: BTreeMap<u64, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
    for (offset, bytes) in pieces {
        let (mut at, mut rest) = (*offset, *bytes);
        while !rest.is_empty() {
            let room = usize::try_from(MIB - at % MIB).unwrap();
            let (piece, after) = rest.split_at(rest.len().min(room));
            blocks.entry(at / MIB).or_default().push((at % MIB, piece.to_vec()));
            at += u64::try_from(piece.len()).unwrap();
            rest = after;
        }
    }
    let mut spec = Spec::empty(size);
    for (number, pieces) in blocks {
        spec = spec.block(number, Block::full().fill(Fill::Pieces(pieces)));
    }
    spec
}

/// A block with these sectors present.
fn part(sectors: Range<u64>) -> Block {
    Block::partial(std::slice::from_ref(&sectors))
}

/// Content of the disk of a specification.
fn content(spec: &Spec) -> Vec<u8> {
    let model = spec.build().model;
    crate::kit::Model::read(&[&model], 0, usize::try_from(model.size).unwrap()).unwrap()
}

/// What documents say of a file that no program writes to: a container does not see the locks of programs outside.
fn not_in_use() -> Value {
    let sees_all = std::fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name.as_os_str() == "pid:[4026531836]");
    if sees_all { false.into() } else { Value::Null }
}

/// Keys of every document that say what made it, and when.
const STAMP: [&str; 3] = ["tool", "version", "time"];

/// Keys of an object, in order, without those that say what made the document.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).filter(|key| !STAMP.contains(key)).collect()
}

/// Asserts that the JSON has these values. It may have more keys.
#[track_caller]
fn assert_has(report: &Value, expected: &Value) {
    match (report, expected) {
        (Value::Object(_), Value::Object(expected)) => {
            expected.iter().for_each(|(key, expected)| assert_has(&report[key], expected));
        }
        (Value::Array(report), Value::Array(expected)) => {
            assert_eq!(report.len(), expected.len());
            report.iter().zip(expected).for_each(|(report, expected)| assert_has(report, expected));
        }
        _ => assert_eq!(report, expected),
    }
}

/// Names in a folder, in order.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Asserts that a run failed with this exit code and these words on standard error.
#[track_caller]
fn assert_fails(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.status.code(), Some(code), "{}", ran.err);
    for word in words {
        assert!(ran.err.contains(word), "no {word:?} in: {}", ran.err);
    }
}

/// Asserts that a text has these lines.
#[track_caller]
fn assert_lines(text: &str, expected: &[&str]) {
    for line in expected {
        assert!(text.lines().any(|found| found == *line), "no line {line:?} in:\n{text}");
    }
}
