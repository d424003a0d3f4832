//! Where the bytes come from: paths, bytes, and file objects of Python.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString};
use vhdx_mmap::{ReadAt, Source};

use crate::ending;
use crate::work::lock;

/// What one call of a file object reads at most, in bytes: what it returns has to be in memory.
const MOST_READ: usize = 8 << 20;

/// A source, and whether it runs code of Python when it is read.
pub(crate) struct Opened {
    pub(crate) source: Source,
    pub(crate) calls_python: bool,
}

/// Whose turn it is to use a file object. It has one position, so one thread at a time may use it.
type Turn = Arc<Mutex<()>>;

/// The turns of all file objects in use, by their addresses: several disks may read one object, as its own image and as
/// a parent. An address stays that of the object while a turn of it is in use, since the disk with the turn holds the
/// object. Locked only by threads that hold the interpreter.
static TURNS: Mutex<BTreeMap<usize, Weak<Mutex<()>>>> = Mutex::new(BTreeMap::new());

/// A file object of Python.
struct FileObject {
    /// Before `object`, so that it is dropped first.
    turn: Turn,
    object: Py<PyAny>,
    has_read: bool,
    length: u64,
}

/// Returns the turn of an object, which the caller holds.
fn turn_of(object: &Bound<'_, PyAny>) -> Turn {
    let mut turns = lock(&TURNS);
    turns.retain(|_, turn| turn.strong_count() > 0);
    let address = object.as_ptr().addr();
    if let Some(turn) = turns.get(&address).and_then(Weak::upgrade) {
        return turn;
    }
    let turn = Turn::default();
    turns.insert(address, Arc::downgrade(&turn));
    turn
}

impl FileObject {
    fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let has_read = object.hasattr("read")?;
        if !(has_read || object.hasattr("readinto")?) || !object.hasattr("seek")? {
            let kind = object.get_type().name()?;
            let text = format!("expected a path, bytes, or an object with seek and read or readinto, found {kind}");
            return Err(PyTypeError::new_err(text));
        }
        let turn = turn_of(object);
        let held = object.clone().unbind();
        let length = ending::detach(object.py(), || Self::length(&turn, &held))??;
        Ok(Self { turn, object: held, has_read, length })
    }

    /// Asks for the length. Another disk may be using the object meanwhile.
    fn length(turn: &Turn, object: &Py<PyAny>) -> PyResult<u64> {
        let _turn = lock(turn);
        Python::attach(|py| {
            // Some file objects return nothing from `seek`.
            let end = object.call_method1(py, "seek", (0, 2))?;
            let end = if end.is_none(py) { object.call_method0(py, "tell")? } else { end };
            end.extract(py)
        })
    }

    /// Reads at most `most` bytes from the position on, and returns the number of bytes.
    fn read_some(&self, py: Python<'_>, buffer: &mut [u8]) -> PyResult<usize> {
        let object = self.object.bind(py);
        let most = buffer.len().min(MOST_READ);
        let too_many = |found: usize| {
            PyValueError::new_err(format!("the file object returned too many bytes (found {found}, asked for {most})"))
        };
        if self.has_read {
            let read = object.call_method1("read", (most,))?;
            let bytes = read.cast::<PyBytes>()?.as_bytes();
            let to = buffer.get_mut(..bytes.len()).filter(|to| to.len() <= most);
            to.ok_or_else(|| too_many(bytes.len()))?.copy_from_slice(bytes);
            return Ok(bytes.len());
        }
        let array = PyByteArray::new_with(py, most, |_| Ok(()))?;
        let read = object.call_method1("readinto", (&array,))?.extract::<Option<usize>>()?.unwrap_or(0);
        let bytes = array.to_vec();
        let (from, to) = (bytes.get(..read), buffer.get_mut(..read));
        to.zip(from).map(|(to, from)| to.copy_from_slice(from)).ok_or_else(|| too_many(read))?;
        Ok(read)
    }

    fn read(&self, py: Python<'_>, mut buffer: &mut [u8], offset: u64) -> PyResult<io::Result<()>> {
        self.object.call_method1(py, "seek", (offset,))?;
        while !buffer.is_empty() {
            let read = self.read_some(py, buffer)?;
            if read == 0 {
                return Ok(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            buffer = buffer.get_mut(read..).unwrap_or_default();
        }
        Ok(Ok(()))
    }
}

impl ReadAt for FileObject {
    fn len(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        // Who comes here does not hold the interpreter (`DiskBase::detached`), so that nobody who waits for this turn
        // keeps the one who has it from running.
        let _turn = lock(&self.turn);
        let read = Python::try_attach(|py| self.read(py, buffer, offset));
        read.ok_or_else(|| io::Error::other("the interpreter ends"))?.map_err(io::Error::other)?
    }
}

/// Returns the path that an object is, if it is one. Bytes are not: they are content.
pub(crate) fn path_of(object: &Bound<'_, PyAny>) -> PyResult<Option<PathBuf>> {
    if object.is_instance_of::<PyString>() || object.hasattr("__fspath__")? {
        return object.extract().map(Some);
    }
    Ok(None)
}

/// Returns the content that an object is, if it is bytes, a bytearray or a memoryview.
fn content_of(object: &Bound<'_, PyAny>) -> PyResult<Option<Vec<u8>>> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Some(bytes.as_bytes().to_vec()));
    }
    if object.is_instance_of::<PyByteArray>() || object.is_instance_of::<pyo3::types::PyMemoryView>() {
        let bytes = object.call_method0("__bytes__").or_else(|_| object.py().get_type::<PyBytes>().call1((object,)))?;
        return Ok(Some(bytes.cast::<PyBytes>()?.as_bytes().to_vec()));
    }
    Ok(None)
}

/// Opens what a caller of Python gave. `is_mapped` is the promise of that caller that nothing changes the file.
pub(crate) fn open(object: &Bound<'_, PyAny>, is_mapped: bool) -> PyResult<vhdx_mmap::Result<Opened>> {
    let py = object.py();
    if let Some(path) = path_of(object)? {
        let source = ending::detach(py, || if is_mapped { map(&path) } else { Source::open(&path) })?;
        return Ok(source.map(|source| Opened { source, calls_python: false }));
    }
    if is_mapped {
        return Err(PyValueError::new_err("mmap=True needs a path: only files can be mapped"));
    }
    if let Some(bytes) = content_of(object)? {
        return Ok(Ok(Opened { source: Source::from_vec(bytes), calls_python: false }));
    }
    let reader = FileObject::new(object)?;
    Ok(Source::from_reader(reader).map(|source| Opened { source, calls_python: true }))
}

/// Maps a file.
#[expect(unsafe_code, reason = "the caller of Python makes the promise of `Source::map` by `mmap=True`")]
pub(crate) fn map(path: &std::path::Path) -> vhdx_mmap::Result<Source> {
    guard();
    // SAFETY: `mmap=True` is the caller's promise that nothing changes or shortens the file while the disk and what is
    // borrowed from it live; it is documented as such, and nothing maps a file without it. A file that is shortened all
    // the same is an error, since the guard has been installed.
    unsafe { Source::map(path) }
}

/// Allows to map the parents that a search finds.
#[expect(unsafe_code, reason = "the caller of Python makes the promise of `OpenOptions::map_parents` by `mmap=True`")]
pub(crate) fn map_parents(options: vhdx_mmap::OpenOptions) -> vhdx_mmap::OpenOptions {
    // SAFETY: as in `map`: `mmap=True` is the promise for all files of the chain.
    unsafe { options.map_parents() }
}

/// Installs the handler that turns the loss of a mapped page into an error, on top of handlers that were installed
/// since. Where the system refuses it, a mapping works without it.
pub(crate) fn guard() -> bool {
    #[cfg(unix)]
    return vhdx_mmap::guard_mappings().is_ok();
    #[cfg(not(unix))]
    return false;
}
