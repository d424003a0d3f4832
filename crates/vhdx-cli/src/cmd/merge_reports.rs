//! `vhdx merge` of results of check, diff and extract.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vhdx_mmap::Severity;
use vhdx_mmap::report::{Check, Diff, Extract, MergeError, Report};

use crate::exit::{Exit, Failure};
use crate::json;

/// Kind of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Check,
    Diff,
    Extract,
}

/// What a document says of its kind.
#[derive(Deserialize)]
struct Probe {
    schema: Value,
}

/// The kind of a file, if it is the result of check, diff or extract. What can be read once only, such as a pipe, is
/// none: shards of digests and manifests are read from it.
pub(super) fn kind_of(path: &Path) -> Option<Kind> {
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut document = serde_json::Deserializer::from_reader(BufReader::new(File::open(path).ok()?));
    let probe = Probe::deserialize(&mut document).ok()?;
    match probe.schema.as_str()? {
        name if name == Check::SCHEMA => Some(Kind::Check),
        name if name == Diff::SCHEMA => Some(Kind::Diff),
        name if name == Extract::SCHEMA => Some(Kind::Extract),
        _ => None,
    }
}

/// Merges results of one kind, and prints the result of one run.
pub(super) fn run(kind: Kind, paths: &[PathBuf]) -> Result<Exit, Failure> {
    match kind {
        Kind::Check => {
            let merged = merged(paths, Check::merge)?;
            json::print(&merged)?;
            Ok(exit_of(&merged))
        }
        Kind::Diff => {
            json::print(&merged(paths, Diff::merge)?)?;
            Ok(Exit::Done)
        }
        Kind::Extract => {
            json::print(&merged(paths, Extract::merge)?)?;
            Ok(Exit::Done)
        }
    }
}

fn merged<R: DeserializeOwned>(
    paths: &[PathBuf],
    merge: impl FnOnce(Vec<R>) -> Result<R, MergeError>,
) -> Result<R, Failure> {
    let unusable = |path: &Path, what: String| Failure::new(Exit::Corrupt, format!("{}: {what}", path.display()));
    let read = |path: &PathBuf| {
        let file = File::open(path)
            .map_err(|error| Failure::new(Exit::NoInput, format!("{}: cannot be opened: {error}", path.display())))?;
        serde_json::from_reader(BufReader::new(file))
            .map_err(|error| unusable(path, format!("not a result of a share, or truncated: {error}")))
    };
    let reports = paths.iter().map(read).collect::<Result<Vec<R>, _>>()?;
    merge(reports).map_err(|error| {
        let path = paths.get(error.document).map_or(Path::new("shares"), PathBuf::as_path);
        unusable(path, error.to_string())
    })
}

/// The exit code that the check of the whole image has.
fn exit_of(report: &Check) -> Exit {
    let has = |severity| report.counts.iter().any(|count| count.severity == severity && count.count > 0);
    match () {
        () if report.format.is_none() => Exit::NotChecked,
        () if report.corruptions > 0 => Exit::Corruption,
        () if has(Severity::Unsupported) => Exit::NotSupported,
        () if has(Severity::Unchecked) => Exit::NotChecked,
        () if has(Severity::Leak) => Exit::Leaks,
        () => Exit::Done,
    }
}
