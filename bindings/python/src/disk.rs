//! The disk: what `vhdx_mmap.Disk` is made of.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use vhdx_mmap::Location;
use vhdx_mmap::report::LogUse;

use crate::buffer::{self, Data};
use crate::ending;
use crate::error;
use crate::open::{Options, State};
use crate::rows::{Cut, Lost, Rows, SegmentIter, Zeros};
use crate::split::SplitBase;
use crate::walk::Selection;

/// A disk. `vhdx_mmap.Disk` is the class to use.
#[pyclass(frozen, subclass, weakref, module = "vhdx_mmap._native")]
pub(crate) struct DiskBase(RwLock<Option<Arc<State>>>);

impl DiskBase {
    /// Returns the open disk. No call of the library or of Python is made while the lock is held.
    pub(crate) fn state(&self) -> PyResult<Arc<State>> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        state.as_ref().map(Arc::clone).ok_or_else(|| PyValueError::new_err("the disk is closed"))
    }
}

/// Returns the end of a range, which must be inside of the disk.
fn end_of(py: Python<'_>, state: &State, offset: u64, length: Option<u64>) -> PyResult<u64> {
    let size = state.disk.size();
    let end = match length {
        Some(length) => offset.checked_add(length),
        None => Some(size),
    };
    end.filter(|end| *end <= size && offset <= *end).ok_or_else(|| {
        let found = end.map_or(u64::MAX, |end| end.max(offset));
        let text =
            format!("the range goes past the end of the disk (found an end of {found}, expected at most {size})");
        error::exception(py, "InvalidRequestError", &text, None)
    })
}

#[pymethods]
impl DiskBase {
    #[new]
    #[pyo3(signature = (
        source, *, parents = Vec::new(), beside = false, finder = None, log = "replay", strictness = "strict",
        mmap = false, expect = None, layer = 0, split = None, planned = false
    ))]
    #[expect(clippy::too_many_arguments, reason = "each is an option by its name")]
    fn new(
        source: &Bound<'_, PyAny>,
        parents: Vec<PathBuf>,
        beside: bool,
        finder: Option<Bound<'_, PyAny>>,
        log: &str,
        strictness: &str,
        mmap: bool,
        expect: Option<&str>,
        layer: usize,
        split: Option<&SplitBase>,
        planned: bool,
    ) -> PyResult<Self> {
        if let Ok(disk) = source.cast::<DiskBase>() {
            return disk.get().ancestor(source.py(), layer);
        }
        let split = split.map(|split| &split.0);
        let options = Options {
            paths: parents,
            beside,
            finder,
            log,
            strictness,
            is_mapped: mmap,
            expect,
            split,
            is_planned: planned,
        };
        State::open(source, &options).map(|state| Self(RwLock::new(Some(Arc::new(state)))))
    }

    /// Close the disk. Views that exist keep its files open until they are gone.
    fn close(&self) {
        let state = self.0.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(state);
    }

    #[getter]
    fn closed(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    #[getter]
    fn size(&self) -> PyResult<u64> {
        Ok(self.state()?.disk.size())
    }

    #[getter]
    fn block_size(&self) -> PyResult<u64> {
        Ok(self.state()?.disk.block_size())
    }

    #[getter]
    fn sector_size(&self) -> PyResult<u32> {
        Ok(self.state()?.disk.image().logical_sector_size())
    }

    #[getter]
    fn physical_sector_size(&self) -> PyResult<Option<u32>> {
        Ok(self.state()?.disk.image().physical_sector_size())
    }

    #[getter]
    fn kind(&self) -> PyResult<&'static str> {
        Ok(self.state()?.disk.image().kind().as_str())
    }

    #[getter]
    fn log_state(&self) -> PyResult<&'static str> {
        Ok(log_state(self.state()?.disk.image()))
    }

    #[getter]
    fn can_borrow(&self) -> PyResult<bool> {
        Ok(self.state()?.disk.can_borrow())
    }

    #[getter]
    fn is_salvaged(&self) -> PyResult<bool> {
        Ok(self.state()?.disk.is_salvaged())
    }

    #[getter]
    fn calls_python(&self) -> PyResult<bool> {
        Ok(self.state()?.calls_python())
    }

    /// The layers as tuples: path, kind, state of the log, size, block size, length of the file, DataWriteGuid, how the
    /// image was found, stored name of the parent.
    #[expect(clippy::type_complexity, reason = "a row for Python")]
    fn layer_rows(
        &self,
        py: Python<'_>,
    ) -> PyResult<
        Vec<(Option<PathBuf>, &'static str, &'static str, u64, u64, u64, String, Option<&'static str>, Option<String>)>,
    > {
        let state = self.state()?;
        let mut rows = Vec::new();
        for layer in state.disk.layers() {
            let image = layer.image();
            let locator = ending::detach(py, || image.parent_locator())?.ok().flatten();
            rows.push((
                image.path().map(PathBuf::from),
                image.kind().as_str(),
                log_state(image),
                image.virtual_disk_size(),
                image.block_size(),
                image.source().len(),
                image.header().data_write_guid.to_string(),
                layer.link().map(|link| link.found_by.as_str()),
                locator.map(|locator| locator.name().to_owned()),
            ));
        }
        Ok(rows)
    }

    /// The identity of the image, and that of the parent that it stores.
    fn identities(&self, py: Python<'_>) -> PyResult<(String, Option<String>)> {
        let state = self.state()?;
        let image = state.disk.image();
        let locator = state.detached(py, || image.parent_locator())?;
        let parent = locator.map(|locator| locator.parent_linkage.to_string());
        Ok((image.header().data_write_guid.to_string(), parent))
    }

    /// What the image stores about its parent: keys and values.
    fn locator_rows(&self, py: Python<'_>) -> PyResult<Vec<(String, String)>> {
        let state = self.state()?;
        let locator = state.detached(py, || state.disk.image().parent_locator())?;
        Ok(locator.map(|locator| locator.entries).unwrap_or_default())
    }

    /// The warnings as tuples: layer, code, severity, text.
    fn warning_rows(&self) -> PyResult<Vec<(usize, &'static str, &'static str, String)>> {
        let state = self.state()?;
        let rows = state.disk.warnings().map(|(layer, warning)| {
            (layer, warning.rule.code(), warning.severity.as_str(), format!("{:#}", warning.detail))
        });
        Ok(rows.collect())
    }

    /// The lost ranges of a salvaged disk as tuples: offset, length, reason.
    fn loss_rows(&self, py: Python<'_>) -> PyResult<Vec<(u64, u64, String)>> {
        let state = self.state()?;
        ending::detach(py, || {
            let losses = state.disk.losses(..).map(|loss| {
                let range = loss.range;
                (range.start, range.end.saturating_sub(range.start), format!("{:#}", loss.reason))
            });
            losses.collect()
        })
    }

    /// The fingerprint of the chain, as JSON.
    fn fingerprint_json(&self) -> PyResult<String> {
        serde_json::to_string(&self.state()?.disk.fingerprint())
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn ancestor(&self, py: Python<'_>, layer: usize) -> PyResult<Self> {
        let state = self.state()?;
        let Some(disk) = state.disk.ancestor(layer) else {
            let layers = state.disk.layers().len();
            let text = format!("no such layer (found {layer}, expected less than {layers})");
            return Err(error::exception(py, "InvalidRequestError", &text, None));
        };
        Ok(Self(RwLock::new(Some(Arc::new(state.with(disk, layer))))))
    }

    /// Copy at most `length` bytes from `offset` on: fewer at the end of the disk, none past it.
    fn pread<'py>(&self, py: Python<'py>, length: u64, offset: u64) -> PyResult<Bound<'py, PyBytes>> {
        let state = self.state()?;
        let most = length.min(state.disk.size().saturating_sub(offset));
        let most = usize::try_from(most).map_err(|_| error::too_long())?;
        PyBytes::new_with(py, most, |buffer| {
            let read = if state.is_quick(buffer.len()) {
                state.disk.read_at(buffer, offset).map_err(|error| state.error(py, &error))?
            } else {
                state.detached(py, || state.disk.read_at(buffer, offset))?
            };
            if read == most { Ok(()) } else { Err(PyValueError::new_err("the disk ended early")) }
        })
    }

    /// Fill a writable buffer from `offset` on, and return the number of bytes: fewer than it has at the end of the
    /// disk.
    fn readinto_at(&self, buffer: &Bound<'_, PyAny>, offset: u64) -> PyResult<usize> {
        let state = self.state()?;
        let read = buffer::fill(buffer, |memory| state.disk.read_at(memory, offset))?;
        read.map_err(|error| state.error(buffer.py(), &error))
    }

    /// Borrow bytes where they lie.
    fn view<'py>(&self, py: Python<'py>, offset: u64, length: u64) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state()?;
        end_of(py, &state, offset, Some(length))?;
        let borrowed = if state.calls_python() {
            ending::detach(py, || state.disk.shared_slice(offset, length))?
        } else {
            state.disk.shared_slice(offset, length)
        };
        let Some(bytes) = borrowed.map_err(|error| state.error(py, &error))? else {
            return Ok(Bound::new(py, Zeros { offset, length: 0 })?.into_any());
        };
        let run = bytes.run();
        if !run.is_data() {
            let run = state.detached(py, || state.disk.extent_at(offset, length))?.unwrap_or(run);
            return Ok(match run.at {
                Location::Lost => Bound::new(py, Lost { offset, length: run.len })?.into_any(),
                _ if run.len == length => Bound::new(py, Zeros { offset, length })?.into_any(),
                _ => Bound::new(py, Cut { offset, length: run.len })?.into_any(),
            });
        }
        if run.len == length {
            return Ok(Bound::new(py, Data::new(bytes))?.into_any());
        }
        Ok(Bound::new(py, Cut { offset, length: run.len })?.into_any())
    }

    /// Raise LostDataError if bytes of a range that were viewed before this call were not those of the files.
    #[pyo3(signature = (offset = 0, length = None))]
    fn check_lost(&self, py: Python<'_>, offset: u64, length: Option<u64>) -> PyResult<()> {
        let state = self.state()?;
        let end = end_of(py, &state, offset, length)?;
        state.detached(py, || state.disk.check_lost(offset..end))
    }

    /// Whether a file of the disk was changed since it was opened.
    fn has_changed(&self, py: Python<'_>) -> PyResult<bool> {
        let state = self.state()?;
        let mut layers = state.disk.layers().iter();
        Ok(ending::detach(py, || {
            layers.try_fold(false, |changed, layer| layer.image().source().has_changed().map(|now| changed || now))
        })??)
    }

    #[pyo3(signature = (offset = 0, length = None))]
    fn segments(&self, py: Python<'_>, offset: u64, length: Option<u64>) -> PyResult<SegmentIter> {
        let rows = self.rows(py, offset, length, false, false)?;
        Ok(SegmentIter::new(&rows.0))
    }

    /// Extents of a range; with `blocks`, cut at the ends of blocks; with `payload`, with their bytes as a column.
    #[pyo3(signature = (offset = 0, length = None, blocks = false, payload = false))]
    fn rows(&self, py: Python<'_>, offset: u64, length: Option<u64>, blocks: bool, payload: bool) -> PyResult<Rows> {
        let state = self.state()?;
        let end = end_of(py, &state, offset, length)?;
        if payload && !state.disk.can_borrow() {
            let text = "bytes cannot be borrowed (expected a disk that was opened with mmap=True, or from bytes)";
            return Err(error::exception(py, "NotLendable", text, None));
        }
        let block_size = blocks.then(|| state.disk.block_size());
        let disk = Arc::clone(&state.disk);
        let calls_python = state.calls_python();
        Ok(Rows(Selection { disk, start: offset, end, block_size, has_payload: payload, calls_python }))
    }
}

fn log_state(image: &vhdx_mmap::Image) -> &'static str {
    match LogUse::from(image.log_state()) {
        LogUse::Clean => "clean",
        LogUse::Replayed => "replayed",
        LogUse::Ignored => "ignored",
        _ => "unknown",
    }
}
