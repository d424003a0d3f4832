//! Tables without copies: streams of Arrow.

use std::ffi::CStr;
use std::sync::Arc;

use arrow_array::builder::{BinaryViewBuilder, Int8Builder, UInt64Builder};
use arrow_array::ffi::FFI_ArrowSchema;
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::types::Int8Type;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Int8Array, RecordBatch, RecordBatchIterator,
    RecordBatchReader, StringArray, UInt16Array, UInt64Array,
};
use arrow_buffer::Buffer;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use vhdx_mmap::{Location, PayloadBlockState, Run};

use crate::ending;
use crate::walk::{KINDS, Selection, Walk, kind_of};

/// Rows of a batch.
const ROWS: usize = 1 << 16;

/// Rows of a batch with payload, of which each is a buffer of its own.
const ROWS_WITH_PAYLOAD: usize = 1 << 10;

const STREAM: &CStr = c"arrow_array_stream";
const SCHEMA: &CStr = c"arrow_schema";

fn external(error: vhdx_mmap::Error) -> ArrowError {
    ArrowError::ExternalError(Box::new(error))
}

/// Makes the capsule of a stream.
pub(crate) fn stream<'py>(
    py: Python<'py>,
    reader: impl RecordBatchReader + Send + 'static,
) -> PyResult<Bound<'py, PyCapsule>> {
    PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(reader)), STREAM)
}

/// Makes the capsule of a schema.
pub(crate) fn schema<'py>(py: Python<'py>, schema: &Schema) -> PyResult<Bound<'py, PyCapsule>> {
    let schema = FFI_ArrowSchema::try_from(schema).map_err(|error| PyValueError::new_err(error.to_string()))?;
    PyCapsule::new_with_value(py, schema, SCHEMA)
}

fn names() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8))
}

/// The columns of extents or blocks.
pub(crate) fn schema_of(rows: &Selection) -> Schema {
    let mut fields = Vec::new();
    if rows.block_size.is_some() {
        fields.push(Field::new("block", DataType::UInt64, false));
    }
    fields.extend([
        Field::new("offset", DataType::UInt64, false),
        Field::new("length", DataType::UInt64, false),
        Field::new("kind", names(), false),
        Field::new("layer", DataType::UInt16, false),
        Field::new("state", names(), true),
        Field::new("file_offset", DataType::UInt64, true),
    ]);
    if rows.has_payload {
        fields.push(Field::new("payload", DataType::BinaryView, true));
    }
    Schema::new(fields)
}

/// Extents or blocks, batch by batch.
pub(crate) struct RowBatches {
    rows: Selection,
    walk: Walk,
    schema: SchemaRef,
    kinds: ArrayRef,
    states: ArrayRef,
    /// The runs of a batch, and the number of rows of each.
    runs: Vec<(Run, u64)>,
    /// The columns of the last batch that is equal in all rows but for where they are.
    uniform: Option<(Uniform, Vec<ArrayRef>)>,
    is_done: bool,
}

/// What the rows of a batch have in common if it is one run that is in no file. A disk has millions of such rows, and
/// batch after batch shares their columns.
#[derive(PartialEq, Eq)]
struct Uniform {
    length: u64,
    rows: u64,
    kind: i8,
    layer: usize,
    state: Option<PayloadBlockState>,
}

impl Uniform {
    fn of(runs: &[(Run, u64)]) -> Option<Self> {
        let [(run, rows)] = runs else { return None };
        let uniform = Self { length: run.len, rows: *rows, kind: kind_of(run), layer: run.layer, state: run.state };
        run.file_offset().is_none().then_some(uniform)
    }
}

/// The number of a state in [`PayloadBlockState::ALL`].
fn number_of(state: PayloadBlockState) -> Option<i8> {
    let number = PayloadBlockState::ALL.iter().position(|other| *other == state)?;
    i8::try_from(number).ok()
}

impl RowBatches {
    pub(crate) fn new(rows: Selection) -> Self {
        let states: Vec<&str> = PayloadBlockState::ALL.iter().map(|state| state.as_str()).collect();
        Self {
            walk: rows.walk(),
            schema: Arc::new(schema_of(&rows)),
            kinds: Arc::new(StringArray::from(KINDS.to_vec())),
            states: Arc::new(StringArray::from(states)),
            runs: Vec::new(),
            uniform: None,
            is_done: false,
            rows,
        }
    }

    /// Adds the bytes of a run: in place, or null where there are none.
    fn add_payload(&self, payload: &mut BinaryViewBuilder, run: &Run) -> Result<(), ArrowError> {
        if !matches!(run.at, Location::File(_) | Location::Log(_)) {
            payload.append_null();
            return Ok(());
        }
        let bytes = self.rows.disk.shared_slice(run.start, run.len).map_err(external)?;
        let Some(bytes) = bytes.filter(|bytes| bytes.run().len == run.len) else {
            // Sectors of a replayed log lie apart: these few bytes are copied.
            let length = usize::try_from(run.len).map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
            let mut copy = vec![0; length];
            self.rows.disk.read_at(&mut copy, run.start).map_err(external)?;
            return payload.try_append_value(copy);
        };
        let length = u32::try_from(bytes.len()).map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
        let block = payload.append_block(Buffer::from(Bytes::from_owner(bytes)));
        payload.try_append_view(block, 0, length)
    }

    /// Takes the runs of the next batch from the walk.
    fn take_runs(&mut self) -> Result<(), ArrowError> {
        let most = to_u64(if self.rows.has_payload { ROWS_WITH_PAYLOAD } else { ROWS });
        self.runs.clear();
        let mut count = 0;
        while count < most {
            // A run with payload is one row, so that its bytes are one value.
            let rows = if self.rows.has_payload { 1 } else { most.saturating_sub(count) };
            let Some(next) = self.walk.next_rows(rows) else {
                self.is_done = true;
                break;
            };
            let (run, rows) = next.map_err(external)?;
            self.runs.push((run, rows));
            count = count.saturating_add(rows);
        }
        Ok(())
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        self.take_runs()?;
        let (Some((first, _)), Some((last, _))) = (self.runs.first(), self.runs.last()) else { return Ok(None) };
        let (start, end) = (first.start, last.end());
        let mut arrays: Vec<ArrayRef> = Vec::new();
        if self.rows.block_size.is_some() {
            arrays.push(Arc::new(column(&self.runs, |run, _| (self.walk.block_of(run).unwrap_or(0), 1))));
        }
        arrays.push(Arc::new(column(&self.runs, |run, rows| (run.start, each(run, rows)))));
        arrays.extend(self.facts()?);
        if self.rows.has_payload {
            let mut payload = BinaryViewBuilder::new();
            self.runs.iter().try_for_each(|(run, _)| self.add_payload(&mut payload, run))?;
            arrays.push(Arc::new(payload.finish()));
            // The first bytes of each value are in the table: they must be those of the file.
            self.rows.disk.check_lost(start..end).map_err(external)?;
        }
        RecordBatch::try_new(Arc::clone(&self.schema), arrays).map(Some)
    }

    /// Returns the columns after those that say where the rows are.
    fn facts(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        let uniform = Uniform::of(&self.runs);
        if let (Some(uniform), Some((known, arrays))) = (&uniform, &self.uniform)
            && uniform == known
        {
            return Ok(arrays.clone());
        }
        let arrays = Facts::of(&self.runs).finish(&self.kinds, &self.states)?;
        self.uniform = uniform.map(|uniform| (uniform, arrays.clone()));
        Ok(arrays)
    }
}

fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Length of each of the rows of a run, which are equal.
fn each(run: &Run, rows: u64) -> u64 {
    run.len.checked_div(rows).unwrap_or(run.len)
}

/// Returns `rows` numbers, from `first` on, at a distance of `step`.
fn row(first: u64, step: u64, rows: u64) -> impl Iterator<Item = u64> {
    (0..rows).map(move |number| first.saturating_add(number.saturating_mul(step)))
}

/// Returns a column of where the rows of all runs are: `of` says where the first of a run is, and the distance of the
/// others.
fn column(runs: &[(Run, u64)], of: impl Fn(&Run, u64) -> (u64, u64)) -> UInt64Array {
    let count = runs.iter().map(|(_, rows)| usize::try_from(*rows).unwrap_or(0)).sum();
    let mut values = Vec::with_capacity(count);
    for (run, rows) in runs {
        let (first, step) = of(run, *rows);
        values.extend(row(first, step, *rows));
    }
    UInt64Array::from(values)
}

/// The columns of a batch that do not say where the rows are.
struct Facts {
    lengths: Vec<u64>,
    kinds: Vec<i8>,
    layers: Vec<u16>,
    states: Int8Builder,
    places: UInt64Builder,
}

impl Facts {
    fn of(runs: &[(Run, u64)]) -> Self {
        let mut facts = Self {
            lengths: Vec::new(),
            kinds: Vec::new(),
            layers: Vec::new(),
            states: Int8Builder::new(),
            places: UInt64Builder::new(),
        };
        runs.iter().for_each(|(run, rows)| facts.add(run, *rows));
        facts
    }

    /// Adds a run as `rows` rows of equal length.
    fn add(&mut self, run: &Run, rows: u64) {
        let length = each(run, rows);
        let count = usize::try_from(rows).unwrap_or(1);
        self.lengths.extend(std::iter::repeat_n(length, count));
        self.kinds.extend(std::iter::repeat_n(kind_of(run), count));
        self.layers.extend(std::iter::repeat_n(u16::try_from(run.layer).unwrap_or(u16::MAX), count));
        match run.state.and_then(number_of) {
            Some(state) => self.states.append_value_n(state, count),
            None => self.states.append_nulls(count),
        }
        match run.file_offset() {
            Some(place) => row(place, length, rows).for_each(|place| self.places.append_value(place)),
            None => self.places.append_nulls(count),
        }
    }

    fn finish(mut self, kinds: &ArrayRef, states: &ArrayRef) -> Result<Vec<ArrayRef>, ArrowError> {
        let kinds = DictionaryArray::<Int8Type>::try_new(Int8Array::from(self.kinds), Arc::clone(kinds))?;
        let states = DictionaryArray::<Int8Type>::try_new(self.states.finish(), Arc::clone(states))?;
        Ok(vec![
            Arc::new(UInt64Array::from(self.lengths)),
            Arc::new(kinds),
            Arc::new(UInt16Array::from(self.layers)),
            Arc::new(states),
            Arc::new(self.places.finish()),
        ])
    }
}

impl Iterator for RowBatches {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let batch = if self.rows.calls_python {
            // Readers of Python are called without the interpreter, whatever program pulls the stream.
            Python::try_attach(|py| ending::detach(py, || self.batch()).ok())
                .flatten()
                .unwrap_or_else(|| Err(ArrowError::ComputeError("the interpreter ends".to_owned())))
        } else {
            self.batch()
        };
        self.is_done |= batch.is_err();
        batch.transpose()
    }
}

impl RecordBatchReader for RowBatches {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// A table that Python has made: changes, or the lines of a manifest.
#[pyclass(frozen, module = "vhdx_mmap._native")]
pub(crate) struct Table(RecordBatch);

#[pymethods]
impl Table {
    /// Make a table of columns: name, type (`bool`, `u64`, `text` or `bytes`) and values.
    #[new]
    fn new(columns: Vec<(String, String, Bound<'_, PyAny>)>) -> PyResult<Self> {
        let (mut fields, mut arrays) = (Vec::<Field>::new(), Vec::<ArrayRef>::new());
        for (name, kind, values) in columns {
            let (kind, array): (DataType, ArrayRef) = match kind.as_str() {
                "bool" => (DataType::Boolean, Arc::new(BooleanArray::from(values.extract::<Vec<bool>>()?))),
                "u64" => (DataType::UInt64, Arc::new(UInt64Array::from(values.extract::<Vec<u64>>()?))),
                "text" => (DataType::Utf8, Arc::new(StringArray::from(values.extract::<Vec<String>>()?))),
                "bytes" => {
                    let values: Vec<Vec<u8>> = values.extract()?;
                    let values = values.iter().map(Vec::as_slice).collect();
                    (DataType::Binary, Arc::new(BinaryArray::from_vec(values)))
                }
                other => return Err(PyValueError::new_err(format!("unknown type of a column (found {other:?})"))),
            };
            fields.push(Field::new(name, kind, false));
            arrays.push(array);
        }
        let table = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays);
        table.map(Self).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        let batch = self.0.clone();
        let schema = batch.schema();
        stream(py, RecordBatchIterator::new(std::iter::once(Ok(batch)), schema))
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        schema(py, &self.0.schema())
    }
}
