//! Work on whole disks. Reports are those of the command, as JSON.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Cursor, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use vhdx_mmap::ops::manifest::{self, Root};
use vhdx_mmap::ops::{self, Algorithm, CheckOptions, Digest, ExtractOptions, Sparse, Target, TargetContent};
use vhdx_mmap::report::{
    Check, Compare, CompareEnd, CompareEntry, CompareStart, Info, Verify, VerifyEnd, VerifyEntry, VerifyStart,
};
use vhdx_mmap::{Input, ScanOptions, Source};

use crate::disk::DiskBase;
use crate::ending;
use crate::error::{self, of_path};
use crate::json::json;
use crate::open::State;
use crate::work::run;

/// Returns the algorithms with these names.
pub(crate) fn algorithms(names: &[String]) -> PyResult<Vec<Algorithm>> {
    if names.is_empty() {
        return Err(PyValueError::new_err("no algorithm was requested"));
    }
    let mut found = Vec::new();
    for name in names {
        let algorithm = Algorithm::ALL.iter().copied().find(|algorithm| algorithm.as_str() == name.as_str());
        let known: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.as_str()).collect();
        let algorithm = algorithm.ok_or_else(|| {
            PyValueError::new_err(format!("unknown algorithm (found {name:?}, expected one of {})", known.join(", ")))
        })?;
        if found.contains(&algorithm) {
            return Err(PyValueError::new_err(format!("{name} was requested twice")));
        }
        found.push(algorithm);
    }
    Ok(found)
}

/// Names of algorithms, and digests in hexadecimal.
pub(crate) type Digests = Vec<(&'static str, String)>;

pub(crate) fn pairs(digests: &[Digest]) -> Digests {
    digests.iter().map(|digest| (digest.algorithm().as_str(), digest.to_string())).collect()
}

/// Returns the input of a range of a disk, which must be inside of it.
fn input(state: &State, offset: u64, length: Option<u64>) -> PyResult<Input<'_>> {
    let size = state.disk.size();
    let end = length.map_or(Some(size), |length| offset.checked_add(length));
    match end.filter(|end| *end <= size && offset <= *end) {
        Some(end) => Ok(Input::disk(&state.disk).range(offset..end)),
        None => Err(PyValueError::new_err(format!("the range goes past the end of the disk ({size} bytes)"))),
    }
}

/// Describe an image of a chain, as `vhdx info` does.
#[pyfunction]
pub(crate) fn info(py: Python<'_>, disk: &DiskBase, layer: usize) -> PyResult<String> {
    let state = disk.state()?;
    let how = state.how(None, None, 0);
    let layer = state.layer.saturating_add(layer);
    json(&run(py, &how, |_| Ok(Info::of_layer(&state.chain, layer)?))?)
}

/// Detect partitions and volumes.
#[pyfunction]
pub(crate) fn layout(py: Python<'_>, disk: &DiskBase) -> PyResult<String> {
    let state = disk.state()?;
    let layout = ending::detach(py, || ops::detect(&state.disk))?;
    json(&layout.map_err(|error| state.error(py, &error))?)
}

/// Compute digests.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "called with names by Python")]
pub(crate) fn hash<'py>(
    py: Python<'py>,
    disk: &DiskBase,
    names: Vec<String>,
    offset: u64,
    length: Option<u64>,
    file: bool,
    progress: Option<Bound<'py, PyAny>>,
    threads: Option<usize>,
) -> PyResult<Digests> {
    let state = disk.state()?;
    let algorithms = algorithms(&names)?;
    let input = if file { Input::raw(state.disk.image().source()) } else { input(&state, offset, length)? };
    let how = state.how(progress, threads, input.len());
    let digests = run(py, &how, |options| ops::hash(input, &algorithms, options))?;
    state.fail_if_changed(py)?;
    Ok(pairs(&digests))
}

/// Compare a disk with another, or with a raw file.
#[pyfunction]
pub(crate) fn compare<'py>(
    py: Python<'py>,
    disk: &DiskBase,
    other: &Bound<'py, PyAny>,
    every: bool,
    progress: Option<Bound<'py, PyAny>>,
    threads: Option<usize>,
) -> PyResult<String> {
    let state = disk.state()?;
    let (mut second, mut raw) = (None, None);
    match other.cast::<DiskBase>() {
        Ok(other) => second = Some(other.get().state()?),
        Err(_) => raw = Some(Source::open(other.extract::<PathBuf>()?).map_err(|error| error::of(py, &error))?),
    }
    let one = Input::disk(&state.disk);
    let two = match (&second, &raw) {
        (Some(second), _) => Input::disk(&second.disk),
        (None, Some(raw)) => Input::raw(raw),
        (None, None) => return Err(PyValueError::new_err("nothing to compare with")),
    };
    let how = state.how(progress, threads, one.len().max(two.len()));
    let (mut entries, mut first, mut bytes) = (Vec::new(), None, 0_u64);
    run(py, &how, |options: &ScanOptions<'_>| {
        ops::compare(one, two, options, |difference| {
            first.get_or_insert(difference.first);
            let entry = CompareEntry::of(&difference);
            bytes = bytes.saturating_add(entry.length);
            entries.push(entry);
            if every { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    })?;
    state.fail_if_changed(py)?;
    if let Some(second) = &second {
        second.fail_if_changed(py)?;
    }
    let end = CompareEnd::of(first, every.then_some(bytes));
    json(&Compare::of(CompareStart::of(one, two), every.then_some(entries), end))
}

/// List the ranges that differ from an ancestor: offset, length, and whether it is zeros now.
#[pyfunction]
pub(crate) fn changes<'py>(
    py: Python<'py>,
    disk: &DiskBase,
    ancestor: usize,
    content: bool,
    progress: Option<Bound<'py, PyAny>>,
    threads: Option<usize>,
) -> PyResult<Vec<(u64, u64, bool)>> {
    let state = disk.state()?;
    let how = state.how(progress, threads, state.disk.size());
    let mut rows = Vec::new();
    run(py, &how, |options| {
        let add = |change: ops::Change| {
            let length = change.range.end.saturating_sub(change.range.start);
            rows.push((change.range.start, length, change.is_zero));
            ControlFlow::Continue(())
        };
        if content {
            ops::content_changes(&state.disk, ancestor, options, add)
        } else {
            ops::allocated_changes(&state.disk, ancestor, add)
        }
    })?;
    state.fail_if_changed(py)?;
    Ok(rows)
}

/// Check an image and its chain.
#[pyfunction]
pub(crate) fn check<'py>(
    py: Python<'py>,
    disk: &DiskBase,
    payload: bool,
    progress: Option<Bound<'py, PyAny>>,
    threads: Option<usize>,
) -> PyResult<String> {
    let state = disk.state()?;
    let source = state.disk.image().source().clone();
    let how = state.how(progress, threads, state.disk.size());
    let report = run(py, &how, |options| {
        ops::check(source, &CheckOptions::new(state.options.clone()).payload(payload).scan(*options))
    });
    state.check_finder()?;
    let report = report?;
    state.fail_if_changed(py)?;
    json(&Check::of(&report, false))
}

/// A new file that is removed unless it is complete.
struct NewFile {
    /// Where it is written.
    temporary: PathBuf,
    path: PathBuf,
    is_kept: bool,
}

impl NewFile {
    /// Creates a file. What is there already is replaced only if `overwrite` says so, and only at the end.
    fn create(path: &Path, overwrite: bool) -> std::io::Result<(Self, File)> {
        if !overwrite {
            let file = File::create_new(path)?;
            return Ok((Self { temporary: path.to_owned(), path: path.to_owned(), is_kept: false }, file));
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::create_new(&temporary)?;
        Ok((Self { temporary, path: path.to_owned(), is_kept: false }, file))
    }

    fn keep(mut self) -> std::io::Result<()> {
        if self.temporary != self.path {
            fs::rename(&self.temporary, &self.path)?;
        }
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // The failure is reported by another error already.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Write a disk or a range of it to a new raw file. Returns the number of bytes of data and of zeros, and digests.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "called with names by Python")]
pub(crate) fn extract<'py>(
    py: Python<'py>,
    disk: &DiskBase,
    path: PathBuf,
    offset: u64,
    length: Option<u64>,
    sparse: bool,
    overwrite: bool,
    names: Vec<String>,
    progress: Option<Bound<'py, PyAny>>,
    threads: Option<usize>,
) -> PyResult<(u64, u64, Digests)> {
    let state = disk.state()?;
    let hash = if names.is_empty() { Vec::new() } else { algorithms(&names)? };
    let input = input(&state, offset, length)?;
    let (new, file) = NewFile::create(&path, overwrite).map_err(|error| of_path(error, &path))?;
    file.set_len(input.len())?;
    let how = state.how(progress, threads, input.len());
    let extracted = run(py, &how, |options| {
        let sparse = if sparse { Sparse::Zeros } else { Sparse::None };
        let options = ExtractOptions::new().scan(*options).sparse(sparse).hash(hash);
        ops::extract_to_file(input, &Target::new(&file, TargetContent::Zeros), &options)
    })?;
    state.fail_if_changed(py)?;
    new.keep()?;
    Ok((extracted.data, extracted.zero, pairs(&extracted.digests)))
}

/// Make a manifest, and return it, or write it to a new file. The second value has the roots.
#[pyfunction]
#[expect(clippy::type_complexity, reason = "a row for Python")]
pub(crate) fn create_manifest<'py>(
    py: Python<'py>,
    disk: &DiskBase,
    names: Vec<String>,
    path: Option<PathBuf>,
    overwrite: bool,
    progress: Option<Bound<'py, PyAny>>,
    threads: Option<usize>,
) -> PyResult<(Option<Py<PyBytes>>, Vec<(String, String)>)> {
    let state = disk.state()?;
    let algorithms = algorithms(&names)?;
    let how = state.how(progress, threads, state.disk.size());
    let create = |out: &mut (dyn Write + Send)| -> PyResult<Vec<Root>> {
        let mut out = out;
        let roots =
            run(py, &how, |options| manifest::create_manifest(&state.disk, &algorithms, None, options, &mut out))?;
        state.fail_if_changed(py)?;
        Ok(roots)
    };
    let (bytes, roots) = match path {
        Some(path) => {
            let (new, file) = NewFile::create(&path, overwrite).map_err(|error| of_path(error, &path))?;
            let mut out = BufWriter::new(file);
            let roots = create(&mut out)?;
            out.flush()?;
            drop(out);
            new.keep()?;
            (None, roots)
        }
        None => {
            let mut out = Vec::new();
            let roots = create(&mut out)?;
            (Some(PyBytes::new(py, &out).unbind()), roots)
        }
    };
    Ok((bytes, roots.into_iter().map(|root| (root.name, root.digest)).collect()))
}

/// Compare a disk with a manifest: bytes, or the path of a file.
#[pyfunction]
pub(crate) fn verify<'py>(
    py: Python<'py>,
    disk: &DiskBase,
    of: &Bound<'py, PyAny>,
    progress: Option<Bound<'py, PyAny>>,
    threads: Option<usize>,
) -> PyResult<String> {
    let state = disk.state()?;
    let how = state.how(progress, threads, state.disk.size());
    let mut mismatches = Vec::new();
    let (verified, path) = match of.cast::<PyBytes>() {
        Ok(bytes) => {
            let bytes = bytes.as_bytes().to_vec();
            let verified = run(py, &how, |options| {
                manifest::verify(&state.disk, Cursor::new(bytes), options, |found| {
                    mismatches.push(VerifyEntry::of(&found));
                })
            })?;
            (verified, PathBuf::new())
        }
        Err(_) => {
            let path: PathBuf = of.extract()?;
            let file = BufReader::new(File::open(&path).map_err(|error| of_path(error, &path))?);
            let verified = run(py, &how, |options| {
                manifest::verify(&state.disk, file, options, |found| mismatches.push(VerifyEntry::of(&found)))
            })?;
            (verified, path)
        }
    };
    state.fail_if_changed(py)?;
    json(&Verify::of(VerifyStart::of(&state.disk, &path), mismatches, VerifyEnd::of(&verified)))
}
