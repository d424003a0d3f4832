//! Plans and splits: the work on a disk, divided for workers that share nothing but its files. Results of shares are
//! those of the command, as JSON.

use std::fs::{File, OpenOptions};
use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vhdx_mmap::ops::manifest::{self, Merged};
use vhdx_mmap::ops::plan::{self, PlanOptions, Share};
use vhdx_mmap::ops::{self, CheckOptions, ExtractOptions, Sparse, Target, TargetContent};
use vhdx_mmap::report::{
    self, Check, Diff, DiffEnd, DiffEntry, DiffMode, DiffStart, Extract, ExtractFormat, ExtractOutput, Hash,
    MergeError, Report,
};
use vhdx_mmap::{FileId, Input};

use crate::disk::DiskBase;
use crate::error::{self, of_path};
use crate::json::{invalid, json};
use crate::open::State;
use crate::ops::{Digests, algorithms, pairs};
use crate::split::{PlanBase, SplitBase};
use crate::work::{How, run};

/// Divide the work on a disk: into a number of splits, or by the bytes of data in each.
#[pyfunction]
pub(crate) fn make_plan(
    py: Python<'_>,
    disk: &DiskBase,
    splits: Option<u32>,
    split_size: Option<u64>,
    overlap: u64,
    times: bool,
) -> PyResult<PlanBase> {
    let state = disk.state()?;
    let options = match (splits, split_size) {
        (Some(count), None) => PlanOptions::splits(count),
        (None, Some(size)) => PlanOptions::split_size(size),
        _ => return Err(PyValueError::new_err("splits, split_size: expected one of them")),
    };
    let options = options.overlap(overlap);
    let options = if times { options } else { options.without_times() };
    let plan = state.detached(py, || plan::Plan::new(&state.disk, &options))?;
    state.fail_if_changed(py)?;
    Ok(PlanBase(plan))
}

/// Returns the share of a split, if the disk is that of the split.
fn share_of(py: Python<'_>, state: &State, split: &SplitBase) -> PyResult<Share> {
    split.0.check(&state.disk).map_err(|error| state.error(py, &error))?;
    Ok(split.0.share())
}

fn how_of<'py>(state: &State, share: &Share, progress: Option<Bound<'py, PyAny>>, threads: Option<usize>) -> How<'py> {
    state.how(progress, threads, share.len)
}

/// Compute the mergeable digests of a share.
#[pyfunction]
pub(crate) fn hash_share(
    py: Python<'_>,
    disk: &DiskBase,
    split: &SplitBase,
    names: Vec<String>,
    progress: Option<Bound<'_, PyAny>>,
    threads: Option<usize>,
) -> PyResult<String> {
    let (state, algorithms) = (disk.state()?, algorithms(&names)?);
    if let Some(other) = algorithms.iter().find(|algorithm| !algorithm.is_mergeable()) {
        return Err(PyValueError::new_err(format!("{other} cannot be merged from shares (expected crc32 or blake3)")));
    }
    let share = share_of(py, &state, split)?;
    let about = serde_json::to_value(Hash::of(&state.disk)).map_err(invalid)?;
    let mut out = Vec::new();
    run(py, &how_of(&state, &share, progress, threads), |options| {
        manifest::hash_share(&state.disk, &algorithms, &share, about, options, &mut out)
    })?;
    state.fail_if_changed(py)?;
    String::from_utf8(out).map_err(invalid)
}

/// Make the share of a manifest.
#[pyfunction]
pub(crate) fn manifest_share<'py>(
    py: Python<'py>,
    disk: &DiskBase,
    split: &SplitBase,
    names: Vec<String>,
    progress: Option<Bound<'py, PyAny>>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyBytes>> {
    let (state, algorithms) = (disk.state()?, algorithms(&names)?);
    let share = share_of(py, &state, split)?;
    let mut out = Vec::new();
    run(py, &how_of(&state, &share, progress, threads), |options| {
        manifest::create_manifest_of(&state.disk, &algorithms, Some(&share), options, &mut out)
    })?;
    state.fail_if_changed(py)?;
    Ok(PyBytes::new(py, &out))
}

/// Check an image and its chain, with the content of a share.
#[pyfunction]
pub(crate) fn check_share(
    py: Python<'_>,
    disk: &DiskBase,
    split: &SplitBase,
    progress: Option<Bound<'_, PyAny>>,
    threads: Option<usize>,
) -> PyResult<String> {
    let state = disk.state()?;
    let share = share_of(py, &state, split)?;
    let source = state.disk.image().source().clone();
    let report = run(py, &how_of(&state, &share, progress, threads), |options| {
        ops::check(source, &CheckOptions::new(state.options.clone()).scan(*options).share(share))
    });
    state.check_finder()?;
    let report = report?;
    state.fail_if_changed(py)?;
    json(&Check::of(&report, false))
}

/// List the ranges of a share that differ from an ancestor.
#[pyfunction]
pub(crate) fn diff_share(
    py: Python<'_>,
    disk: &DiskBase,
    split: &SplitBase,
    ancestor: usize,
    content: bool,
    progress: Option<Bound<'_, PyAny>>,
    threads: Option<usize>,
) -> PyResult<String> {
    let state = disk.state()?;
    let share = share_of(py, &state, split)?;
    let (mut changes, mut end) = (Vec::new(), DiffEnd::default());
    run(py, &how_of(&state, &share, progress, threads), |options| {
        let add = |change: ops::Change| {
            end.add(&change);
            changes.push(DiffEntry::of(&change));
            ControlFlow::Continue(())
        };
        if content {
            ops::content_changes_in(&state.disk, ancestor, share.range(), options, add)
        } else {
            ops::allocated_changes_in(&state.disk, ancestor, share.range(), add)
        }
    })?;
    state.fail_if_changed(py)?;
    let mode = if content { DiffMode::Content } else { DiffMode::Allocated };
    let start = DiffStart::of(&state.disk, ancestor, mode).share(report::Share::of(&state.disk, &share));
    json(&Diff::of(start, changes, end))
}

/// Opens the file that all shares are written to. Another worker may make it at the same time.
fn target_of(state: &State, path: &Path) -> PyResult<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|error| of_path(error, path))?;
    let own = FileId::of(path).ok();
    if own.is_some() && state.disk.layers().iter().any(|layer| layer.image().source().id() == own) {
        return Err(PyValueError::new_err(format!("{}: is the image itself or one of its parents", path.display())));
    }
    let size = state.disk.size();
    match file.metadata()?.len() {
        found if found > size => {
            let text = format!("{}: too large (found {found} bytes, expected at most {size})", path.display());
            return Err(PyValueError::new_err(text));
        }
        found if found < size => file.set_len(size)?,
        _ => {}
    }
    Ok(file)
}

/// Write a share to its place in a raw file of the disk.
#[pyfunction]
pub(crate) fn extract_share(
    py: Python<'_>,
    disk: &DiskBase,
    split: &SplitBase,
    path: PathBuf,
    sparse: bool,
    progress: Option<Bound<'_, PyAny>>,
    threads: Option<usize>,
) -> PyResult<String> {
    let (state, started) = (disk.state()?, Instant::now());
    let share = share_of(py, &state, split)?;
    let file = target_of(&state, &path)?;
    let extracted = run(py, &how_of(&state, &share, progress, threads), |options| {
        let sparse = if sparse { Sparse::Zeros } else { Sparse::None };
        let options = ExtractOptions::new().scan(*options).sparse(sparse);
        let target = Target::new(&file, TargetContent::Anything).at(share.offset);
        ops::extract_to_file(Input::disk(&state.disk).range(share.range()), &target, &options)
    })?;
    state.fail_if_changed(py)?;
    let written = ExtractOutput {
        path: &path,
        format: ExtractFormat::Raw,
        length: state.disk.size(),
        actual_size: None,
        verified: false,
        seconds: started.elapsed().as_secs_f64(),
    };
    let report = Extract::of(&state.disk, share.range(), &extracted, &written);
    json(&report.share(report::Share::of(&state.disk, &share)))
}

/// What a document says of its kind.
#[derive(Deserialize)]
struct Probe {
    schema: serde_json::Value,
}

/// Merges reports of one kind.
fn merged<R: DeserializeOwned + Serialize>(
    py: Python<'_>,
    documents: &[Vec<u8>],
    merge: impl FnOnce(Vec<R>) -> Result<R, MergeError>,
) -> PyResult<Vec<u8>> {
    let bad = |number: usize, what: &dyn ToString| {
        error::exception(py, "ManifestError", &format!("result {number}: {}", what.to_string()), None)
    };
    let mut reports = Vec::new();
    for (number, document) in documents.iter().enumerate() {
        reports.push(serde_json::from_slice(document).map_err(|error| bad(number, &error))?);
    }
    let merged = merge(reports).map_err(|error| bad(error.document, &error))?;
    serde_json::to_vec(&merged).map_err(invalid)
}

/// Merge the results of all shares. Returns their kind and the result of one run: of `digests` as pairs, else as bytes.
#[pyfunction]
pub(crate) fn merge<'py>(
    py: Python<'py>,
    documents: Vec<Vec<u8>>,
) -> PyResult<(&'static str, Bound<'py, PyBytes>, Digests)> {
    let kind = documents.first().and_then(|first| serde_json::from_slice::<Probe>(first).ok());
    let report = match kind.as_ref().and_then(|kind| kind.schema.as_str()) {
        Some(name) if name == Check::SCHEMA => Some(merged(py, &documents, Check::merge)?),
        Some(name) if name == Diff::SCHEMA => Some(merged(py, &documents, Diff::merge)?),
        Some(name) if name == Extract::SCHEMA => Some(merged(py, &documents, Extract::merge)?),
        _ => None,
    };
    if let Some(report) = report {
        return Ok(("report", PyBytes::new(py, &report), Vec::new()));
    }
    let (mut out, documents) = (Vec::new(), documents.into_iter().map(Cursor::new).collect());
    let how = How { progress: None, threads: None, total: 0, image: None };
    match run(py, &how, |options| manifest::merge_with(documents, options, &mut out))? {
        Merged::Digests { digests, .. } => Ok(("digests", PyBytes::new(py, &[]), pairs(&digests))),
        _ => Ok(("manifest", PyBytes::new(py, &out), Vec::new())),
    }
}

/// Compute digests of each of several ranges, given as offset and length. What cannot be read is its exception.
#[pyfunction]
pub(crate) fn hash_each<'py>(
    py: Python<'py>,
    disk: &DiskBase,
    names: Vec<String>,
    ranges: Vec<(u64, u64)>,
    threads: Option<usize>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let (state, algorithms) = (disk.state()?, algorithms(&names)?);
    let total = ranges.iter().fold(0_u64, |sum, (_, length)| sum.saturating_add(*length));
    let size = state.disk.size();
    if ranges.iter().any(|(offset, length)| offset.checked_add(*length).is_none_or(|end| end > size)) {
        return Err(PyValueError::new_err(format!("a range goes past the end of the disk ({size} bytes)")));
    }
    let how = state.how(None, threads, total);
    let found = run(py, &how, |options| {
        let mut found = Vec::new();
        for (offset, length) in &ranges {
            let input = Input::disk(&state.disk).range(*offset..offset.saturating_add(*length));
            found.push(match ops::hash(input, &algorithms, options) {
                Err(vhdx_mmap::ScanError::Read(error)) => Err(error),
                other => Ok(other?),
            });
        }
        Ok(found)
    })?;
    state.fail_if_changed(py)?;
    let as_python = |found: vhdx_mmap::Result<Vec<ops::Digest>>| match found {
        Ok(digests) => {
            let texts: Vec<String> = digests.iter().map(ToString::to_string).collect();
            texts.into_pyobject(py).map(Bound::into_any)
        }
        Err(error) => Ok(state.error(py, &error).into_value(py).into_bound(py).into_any()),
    };
    found.into_iter().map(as_python).collect()
}
