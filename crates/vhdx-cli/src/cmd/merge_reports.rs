//! `vhdx merge` of results of check, diff and extract.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
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

/// A result that was opened: a file, or a pipe, which can be read only once.
pub(super) struct Input {
    pub(super) path: PathBuf,
    /// The kind; `None` of shards of digests and manifests, and of what is no result.
    pub(super) kind: Option<Kind>,
    /// What was read to find out, and the rest.
    pub(super) content: Chain<Cursor<Vec<u8>>, BufReader<File>>,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |text: String| Failure::new(Exit::NoInput, format!("{}: {text}", path.display()));
        let file = File::open(path).map_err(|error| failed(format!("cannot be opened: {error}")))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(failed("is a directory".to_owned()));
        }
        let mut rest = BufReader::new(file);
        let (head, kind) = kind_of(&mut rest).map_err(|error| failed(format!("cannot be read: {error}")))?;
        Ok(Self { path: path.to_owned(), kind, content: Cursor::new(head).chain(rest) })
    }
}

/// Reads as much as is needed to know the kind: the first line of shards of digests and manifests, which can be long;
/// the whole of other results.
fn kind_of(content: &mut impl BufRead) -> io::Result<(Vec<u8>, Option<Kind>)> {
    let mut head = Vec::new();
    if content.fill_buf()?.first() != Some(&b'{') {
        return Ok((head, None));
    }
    content.read_until(b'\n', &mut head)?;
    if serde_json::from_slice::<IgnoredAny>(&head).is_err() {
        content.read_to_end(&mut head)?;
    }
    let probe = serde_json::from_slice::<Probe>(&head).ok();
    let kind = match probe.as_ref().and_then(|probe| probe.schema.as_str()) {
        Some(name) if name == Check::SCHEMA => Some(Kind::Check),
        Some(name) if name == Diff::SCHEMA => Some(Kind::Diff),
        Some(name) if name == Extract::SCHEMA => Some(Kind::Extract),
        _ => None,
    };
    Ok((head, kind))
}

/// Merges results of one kind, and prints the result of one run.
pub(super) fn run(kind: Kind, inputs: Vec<Input>) -> Result<Exit, Failure> {
    match kind {
        Kind::Check => {
            let merged = merged(inputs, Check::merge)?;
            json::print(&merged)?;
            Ok(exit_of(&merged))
        }
        Kind::Diff => {
            json::print(&merged(inputs, Diff::merge)?)?;
            Ok(Exit::Done)
        }
        Kind::Extract => {
            json::print(&merged(inputs, Extract::merge)?)?;
            Ok(Exit::Done)
        }
    }
}

fn merged<R: DeserializeOwned>(
    inputs: Vec<Input>,
    merge: impl FnOnce(Vec<R>) -> Result<R, MergeError>,
) -> Result<R, Failure> {
    let unusable = |path: &Path, what: String| Failure::new(Exit::Corrupt, format!("{}: {what}", path.display()));
    let (mut paths, mut reports) = (Vec::new(), Vec::new());
    for Input { path, content, .. } in inputs {
        let report = serde_json::from_reader(content);
        reports
            .push(report.map_err(|error| unusable(&path, format!("not a result of a share, or truncated: {error}")))?);
        paths.push(path);
    }
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
