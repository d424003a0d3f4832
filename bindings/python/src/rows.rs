//! Extents and blocks, as objects and as rows.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use vhdx_mmap::{Disk, Location, PayloadBlockState, Run};

use crate::arrow;
use crate::ending;
use crate::error::{self, IntoPy};
use crate::walk::{KINDS, Selection, Walk, kind_of, split};
use crate::work::lock;

/// What lies at a range of a disk.
#[pyclass(frozen, eq, hash, get_all, module = "vhdx_mmap", name = "Extent")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Extent {
    /// Offset in the disk, in bytes.
    offset: u64,
    /// Length in bytes.
    length: u64,
    /// `data`: in a file. `log`: in the replayed log. `zero`: zeros that are nowhere. `lost`: cannot be read.
    kind: &'static str,
    /// The layer that defines it; 0 is the opened image.
    layer: usize,
    /// State of the block in that layer, as MS-VHDX names it.
    state: Option<&'static str>,
    /// Offset in the file of the layer, in bytes, of data.
    file_offset: Option<u64>,
    /// Number of the block, if blocks were asked for.
    block: Option<u64>,
}

impl Extent {
    fn new(run: &Run, block: Option<u64>) -> Self {
        let kind = usize::try_from(kind_of(run)).ok().and_then(|kind| KINDS.get(kind)).copied().unwrap_or("lost");
        Self {
            offset: run.start,
            length: run.len,
            kind,
            layer: run.layer,
            state: run.state.map(PayloadBlockState::as_str),
            file_offset: run.file_offset(),
            block,
        }
    }
}

#[pymethods]
impl Extent {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str) {
        ("offset", "length", "kind")
    }

    /// Whether a file or its log has the bytes.
    #[getter]
    fn is_data(&self) -> bool {
        self.file_offset.is_some() || self.kind == "log"
    }

    fn __repr__(&self) -> String {
        let none = || "None".to_owned();
        format!(
            "Extent(offset={}, length={}, kind='{}', layer={}, state={}, file_offset={}, block={})",
            self.offset,
            self.length,
            self.kind,
            self.layer,
            self.state.map_or_else(none, |state| format!("'{state}'")),
            self.file_offset.map_or_else(none, |offset| offset.to_string()),
            self.block.map_or_else(none, |block| block.to_string()),
        )
    }
}

/// Extents or blocks of a disk: iterate over them, or pass them to whatever reads Arrow streams.
///
/// `pyarrow.table(rows)`, `polars.DataFrame(rows)`, `duckdb.sql("FROM rows")`, and pandas by
/// `pandas.DataFrame.from_arrow(rows)` read them without a loop in Python.
#[pyclass(frozen, module = "vhdx_mmap", name = "Rows")]
pub(crate) struct Rows(pub(crate) Selection);

#[pymethods]
impl Rows {
    fn __iter__(&self) -> RowIter {
        RowIter(Mutex::new(Some(self.0.walk())))
    }

    /// The rows as a stream of Arrow.
    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // The protocol allows to ignore a schema that cannot be had.
        let _ = requested_schema;
        arrow::stream(py, arrow::RowBatches::new(self.0.clone()))
    }

    /// The names and types of the columns, as a schema of Arrow.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        arrow::schema(py, &arrow::schema_of(&self.0))
    }
}

#[pyclass(frozen, module = "vhdx_mmap._native")]
pub(crate) struct RowIter(Mutex<Option<Walk>>);

#[pymethods]
impl RowIter {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Extent>> {
        let next = ending::detach(py, || {
            let mut walk = lock(&self.0);
            let next = walk.as_mut().and_then(|walk| {
                let run = walk.next()?;
                Some(run.map(|run| Extent::new(&run, walk.block_of(&run))))
            });
            if !matches!(next, Some(Ok(_))) {
                *walk = None;
            }
            next
        })?;
        next.transpose().map_err(|error| error::of(py, &error))
    }
}

/// Zeros that are in no file: as many as `length` says.
#[pyclass(frozen, eq, hash, get_all, module = "vhdx_mmap", name = "Zeros")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Zeros {
    /// Offset in the disk, in bytes.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) length: u64,
}

/// Bytes that do not lie together: only the first `length` of those that were asked for do. Ask for these, or use
/// `segments`.
#[pyclass(frozen, eq, hash, get_all, module = "vhdx_mmap", name = "Cut")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Cut {
    /// Offset in the disk, in bytes.
    pub(crate) offset: u64,
    /// Number of bytes that lie together.
    pub(crate) length: u64,
}

/// Bytes of a salvaged disk that cannot be read.
#[pyclass(frozen, eq, hash, get_all, module = "vhdx_mmap", name = "Lost")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Lost {
    /// Offset in the disk, in bytes.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) length: u64,
}

macro_rules! repr {
    ($($name:ident),+) => {$(
        #[pymethods]
        impl $name {
            #[classattr]
            fn __match_args__() -> (&'static str,) {
                ("length",)
            }

            fn __len__(&self) -> PyResult<usize> {
                usize::try_from(self.length).map_err(|_| error::too_long())
            }

            fn __repr__(&self) -> String {
                format!(concat!(stringify!($name), "(offset={}, length={})"), self.offset, self.length)
            }
        }
    )+};
}

repr!(Zeros, Cut, Lost);

/// Segments of a range, in order.
#[pyclass(frozen, module = "vhdx_mmap._native")]
pub(crate) struct SegmentIter {
    disk: Arc<Disk>,
    range: Range<u64>,
    walk: Mutex<Option<Walk>>,
}

impl SegmentIter {
    pub(crate) fn new(rows: &Selection) -> Self {
        Self { disk: Arc::clone(&rows.disk), range: rows.start..rows.end, walk: Mutex::new(Some(rows.walk())) }
    }

    fn next(&self) -> Option<vhdx_mmap::Result<Segment>> {
        let mut walk = lock(&self.walk);
        let next = match walk.as_mut()?.next() {
            Some(Ok(run)) => walk.as_mut().map(|walk| self.segment(walk, run)),
            Some(Err(error)) => Some(Err(error)),
            // All segments are checked once: what was lost meanwhile is no content.
            None => self.disk.check_lost(self.range.clone()).err().map(Err),
        };
        if !matches!(next, Some(Ok(_))) {
            *walk = None;
        }
        next
    }

    fn segment(&self, walk: &mut Walk, run: Run) -> vhdx_mmap::Result<Segment> {
        Ok(match run.at {
            Location::File(_) | Location::Log(_) => {
                let bytes = self.disk.shared_slice(run.start, run.len)?;
                let Some(bytes) = bytes else { return Ok(Segment::Lost(run)) };
                let length = bytes.run().len;
                if length < run.len {
                    walk.rest = Some(Ok(split(run, length).1));
                }
                Segment::Data(bytes)
            }
            Location::Zero => {
                let mut zeros = run;
                while let Some(next) = walk.next() {
                    match next {
                        Ok(next) if next.at == Location::Zero => zeros.len = zeros.len.saturating_add(next.len),
                        // An error comes after the zeros before it.
                        next => {
                            walk.rest = Some(next);
                            break;
                        }
                    }
                }
                Segment::Zeros(zeros)
            }
            _ => Segment::Lost(run),
        })
    }
}

enum Segment {
    Data(vhdx_mmap::SharedBytes),
    Zeros(Run),
    Lost(Run),
}

#[pymethods]
impl SegmentIter {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(next) = ending::detach(py, || self.next())? else { return Ok(None) };
        Ok(Some(match next.or_raise(py)? {
            Segment::Data(bytes) => Bound::new(py, crate::buffer::Data::new(bytes))?.into_any(),
            Segment::Zeros(run) => Bound::new(py, Zeros { offset: run.start, length: run.len })?.into_any(),
            Segment::Lost(run) => Bound::new(py, Lost { offset: run.start, length: run.len })?.into_any(),
        }))
    }
}
