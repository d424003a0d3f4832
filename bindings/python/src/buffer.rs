//! The buffer protocol: the only unsafe code of this crate, besides the promise of `mmap=True` in `source.rs`.

use std::ffi::c_int;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;
use vhdx_mmap::SharedBytes;

use crate::ending;
use crate::error::IntoPy;

/// Bytes of a disk where they lie: in the mapping, in memory, or in the replayed log. Nothing is copied.
///
/// `memoryview(data)`, `numpy.frombuffer(data, ...)` and everything else that reads buffers see the same memory. The
/// bytes keep the files of the disk open. If a mapped file becomes shorter meanwhile, they turn into zeros:
/// `check_lost()`, or the end of a `with` block, raises `LostDataError` then.
#[pyclass(frozen, module = "vhdx_mmap", name = "Data")]
pub(crate) struct Data {
    bytes: SharedBytes,
    #[pyo3(get)]
    offset: u64,
    #[pyo3(get)]
    length: u64,
}

impl Data {
    pub(crate) fn new(bytes: SharedBytes) -> Self {
        let (offset, length) = (bytes.offset(), bytes.run().len);
        Self { bytes, offset, length }
    }
}

#[pymethods]
impl Data {
    #[classattr]
    fn __match_args__() -> (&'static str,) {
        ("memory",)
    }

    /// The bytes, read-only.
    #[getter]
    fn memory<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        PyMemoryView::from(slf.as_any())
    }

    fn __len__(&self) -> usize {
        self.bytes.len()
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        Self::memory(slf)
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, PyAny>) -> PyResult<()> {
        self.check_lost(py)
    }

    /// Raise LostDataError if bytes that were read before this call were not those of the file.
    fn check_lost(&self, py: Python<'_>) -> PyResult<()> {
        ending::detach(py, || self.bytes.check_lost())?.or_raise(py)
    }

    fn __repr__(&self) -> String {
        format!("Data(offset={}, length={})", self.offset, self.length)
    }

    #[expect(unsafe_code, reason = "the buffer protocol is one of C")]
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no place for the buffer"));
        }
        let bytes: &[u8] = &slf.get().bytes;
        let length = isize::try_from(bytes.len()).map_err(|_| crate::error::too_long())?;
        let start = bytes.as_ptr().cast_mut().cast();
        // SAFETY: `view` is a place for a buffer: the interpreter passes it, and it is not null. `start` and `length`
        // are those of a slice. The slice lives as long as its `SharedBytes`, which is in the frozen object `slf`, and
        // `PyBuffer_FillInfo` takes a reference to that object, which is given back with the buffer. The last argument
        // but one says that the memory is read-only, so no program writes to it. The thread holds the interpreter.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, length, 1, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// Calls `fill` with the memory of a buffer, without the interpreter. Returns what it returns.
#[expect(unsafe_code, reason = "the memory of a buffer that another thread may see has no safe type")]
pub(crate) fn fill<T: Send>(buffer: &Bound<'_, PyAny>, fill: impl FnOnce(&mut [u8]) -> T + Send) -> PyResult<T> {
    let py = buffer.py();
    let held = PyBuffer::<u8>::get(buffer)?;
    if held.readonly() {
        return Err(PyTypeError::new_err("the buffer is read-only (expected a writable one, such as a bytearray)"));
    }
    if !held.is_c_contiguous() {
        return Err(PyBufferError::new_err("the buffer is not contiguous"));
    }
    let (start, length) = (held.buf_ptr().cast::<u8>(), held.item_count());
    if length == 0 {
        // An empty buffer may have no address.
        return Ok(fill(&mut []));
    }
    // SAFETY: `held` is a contiguous buffer of `length` items of one byte, and not read-only, so `start` is valid for
    // writes of `length` bytes, aligned, and initialised. `held` keeps the memory in place until it is dropped below:
    // its owner must not move or free it while it is exported. No other reference of this crate is to it. That no other
    // thread reads or writes it meanwhile, as for `readinto` of files, is what the documentation of `readinto_at` asks
    // of the caller.
    let memory = unsafe { std::slice::from_raw_parts_mut(start, length) };
    let filled = ending::detach(py, || fill(memory));
    drop(held);
    filled
}
