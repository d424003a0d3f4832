//! The command, as its users run it: what it prints, what it leaves behind, and how it ends.
#![cfg(unix)]

mod chain;
mod compare;
mod device;
mod diff;
mod endings;
mod extract;
mod general;
mod hash;
mod info;
mod inputs;
mod log;
mod map;
mod partitions;
mod read;
mod share;
#[cfg(target_os = "linux")]
mod stops;
mod target;
mod terminal;
mod verify;
mod vhd;
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

/// Builds an image and writes it under a name.
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
            let (piece, behind) = rest.split_at(rest.len().min(room));
            blocks.entry(at / MIB).or_default().push((at % MIB, piece.to_vec()));
            at += u64::try_from(piece.len()).unwrap();
            rest = behind;
        }
    }
    let mut spec = Spec::empty(size);
    for (number, pieces) in blocks {
        spec = spec.block(number, Block::full().fill(Fill::Pieces(pieces)));
    }
    spec
}

/// A block of which these sectors are present.
fn part(sectors: Range<u64>) -> Block {
    Block::partial(std::slice::from_ref(&sectors))
}

/// All that the disk of a specification holds.
fn content(spec: &Spec) -> Vec<u8> {
    let model = spec.build().model;
    crate::kit::Model::read(&[&model], 0, usize::try_from(model.size).unwrap()).unwrap()
}

/// The keys of an object, in their order.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// That what is told has these values; it may have more keys.
#[track_caller]
fn assert_has(told: &Value, expected: &Value) {
    match (told, expected) {
        (Value::Object(_), Value::Object(expected)) => {
            expected.iter().for_each(|(key, expected)| assert_has(&told[key], expected));
        }
        (Value::Array(told), Value::Array(expected)) => {
            assert_eq!(told.len(), expected.len());
            told.iter().zip(expected).for_each(|(told, expected)| assert_has(told, expected));
        }
        _ => assert_eq!(told, expected),
    }
}

/// The names in a folder, in order.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// That a run failed with this exit code, and said these words on standard error.
#[track_caller]
fn assert_fails(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.status.code(), Some(code), "{}", ran.err);
    for word in words {
        assert!(ran.err.contains(word), "no {word:?} in: {}", ran.err);
    }
}

/// That a text holds these lines.
#[track_caller]
fn assert_lines(text: &str, expected: &[&str]) {
    for line in expected {
        assert!(text.lines().any(|found| found == *line), "no line {line:?} in:\n{text}");
    }
}
