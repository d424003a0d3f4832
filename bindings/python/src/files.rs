//! Files in a disk.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use self_cell::self_cell;
use vhdx_files::{Content, FileKind, Metadata, Node, Times, Volume as FileSystem, Walk};
use vhdx_mmap::DiskRange;

use crate::buffer;
use crate::disk::DiskBase;
use crate::ending;
use crate::error::{self, IntoPy};

/// A file system in a disk. `vhdx_mmap.Volume` is the class to use.
#[pyclass(frozen, subclass, module = "vhdx_mmap._native")]
pub(crate) struct VolumeBase(Arc<dyn FileSystem>);

/// Name, node and kind of an entry of a directory.
type EntryRow<'py> = (Bound<'py, PyString>, u64, Option<&'static str>);

/// A name as text: bytes that are no UTF-8 become surrogates, as `os.fsdecode` does it.
fn text<'py>(py: Python<'py>, name: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let bytes = PyBytes::new(py, name);
    PyString::from_encoded_object(bytes.as_any(), Some(c"utf-8"), Some(c"surrogateescape"))
}

fn times<'py>(py: Python<'py>, times: &Times) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let all = [
        ("modified", times.modified),
        ("accessed", times.accessed),
        ("changed", times.changed),
        ("created", times.created),
    ];
    for (name, time) in all {
        dict.set_item(name, time.map(|time| (time.seconds, time.nanoseconds)))?;
    }
    Ok(dict)
}

fn stat<'py>(py: Python<'py>, node: Node, found: &Metadata) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("node", node.0)?;
    dict.set_item("kind", found.kind.as_str())?;
    dict.set_item("size", found.size)?;
    dict.set_item("allocated", found.allocated)?;
    dict.set_item("mode", found.mode)?;
    dict.set_item("owner", found.owner)?;
    dict.set_item("links", found.links)?;
    dict.set_item("device", found.device)?;
    dict.set_item("dos_attributes", found.dos_attributes)?;
    dict.set_item("is_encrypted", found.is_encrypted)?;
    dict.set_item("times", times(py, &found.times)?)?;
    dict.set_item("name_times", found.name_times.as_ref().map(|found| times(py, found)).transpose()?)?;
    Ok(dict)
}

impl VolumeBase {
    /// Calls the file system without the interpreter.
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&dyn FileSystem) -> vhdx_files::Result<T> + Send,
    ) -> PyResult<T> {
        ending::detach(py, || work(&*self.0))?.or_raise(py)
    }
}

#[pymethods]
impl VolumeBase {
    /// Open the file system at a range of a disk.
    #[new]
    fn new(py: Python<'_>, disk: &Bound<'_, DiskBase>, offset: u64, length: u64) -> PyResult<Self> {
        let state = disk.get().state()?;
        let end = offset.saturating_add(length).min(state.disk.size());
        let volume = ending::detach(py, || {
            let range = DiskRange::new(Arc::clone(&state.disk), offset.min(end)..end)?;
            vhdx_files::open(range)
        })?;
        Ok(Self(Arc::from(volume.or_raise(py)?)))
    }

    /// What the file system says about itself.
    fn about<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let about = self.0.about();
        let dict = PyDict::new(py);
        dict.set_item("kind", about.kind.as_str())?;
        dict.set_item("label", &about.label)?;
        dict.set_item("uuid", &about.uuid)?;
        dict.set_item("size", about.size)?;
        dict.set_item("used", about.used)?;
        dict.set_item("block_size", about.block_size)?;
        dict.set_item("is_replayed", about.is_replayed)?;
        dict.set_item("is_experimental", about.is_experimental)?;
        dict.set_item("ignores_case", about.ignores_case)?;
        Ok(dict)
    }

    /// Find a file by its path, which is bytes.
    fn lookup(&self, py: Python<'_>, path: &[u8], follow: bool) -> PyResult<u64> {
        let path = path.to_vec();
        let found = self.call(py, move |volume| {
            if follow { vhdx_files::lookup(volume, &path) } else { vhdx_files::lookup_link(volume, &path) }
        });
        found.map(|node| node.0)
    }

    fn stat<'py>(&self, py: Python<'py>, node: u64) -> PyResult<Bound<'py, PyDict>> {
        let found = self.call(py, |volume| volume.metadata(Node(node)))?;
        stat(py, Node(node), &found)
    }

    /// The entries of a directory: name, node, kind.
    fn entries<'py>(&self, py: Python<'py>, node: u64) -> PyResult<Vec<EntryRow<'py>>> {
        let entries = self.call(py, |volume| volume.entries(Node(node)))?;
        entries
            .into_iter()
            .map(|entry| Ok((text(py, &entry.name)?, entry.node.0, entry.kind.map(FileKind::as_str))))
            .collect()
    }

    fn link_target<'py>(&self, py: Python<'py>, node: u64) -> PyResult<Bound<'py, PyString>> {
        let target = self.call(py, |volume| volume.link_target(Node(node)))?;
        text(py, &target)
    }

    fn attributes<'py>(&self, py: Python<'py>, node: u64) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for attribute in self.call(py, |volume| volume.attributes(Node(node)))? {
            dict.set_item(text(py, &attribute.name)?, PyBytes::new(py, &attribute.value))?;
        }
        Ok(dict)
    }

    fn streams(&self, py: Python<'_>, node: u64) -> PyResult<Vec<(String, u64)>> {
        let streams = self.call(py, |volume| volume.streams(Node(node)))?;
        Ok(streams.into_iter().map(|stream| (stream.name, stream.size)).collect())
    }

    /// Walk through a tree from a node on.
    fn walk(slf: &Bound<'_, Self>, node: u64, deepest: usize) -> Tree {
        let volume = Arc::clone(&slf.get().0);
        let tree = TreeCell::new(volume, |volume| Walk::new(&**volume, Node(node)).deepest(deepest));
        Tree(std::sync::Mutex::new(tree))
    }

    /// Open the content of a file.
    fn open(&self, py: Python<'_>, node: u64, stream: Option<String>) -> PyResult<FileBase> {
        let volume = Arc::clone(&self.0);
        let opened =
            ending::detach(py, || OpenFile::try_new(volume, |volume| volume.open(Node(node), stream.as_deref())))?;
        opened.or_raise(py).map(FileBase)
    }
}

self_cell!(
    struct TreeCell {
        owner: Arc<dyn FileSystem>,
        #[not_covariant]
        dependent: Walk,
    }
);

/// A walk through a tree of files.
#[pyclass(frozen, module = "vhdx_mmap._native")]
pub(crate) struct Tree(std::sync::Mutex<TreeCell>);

#[pymethods]
impl Tree {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The next file: its path, and what its file system says about it, or the exception that says why not.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyString>, Bound<'py, PyAny>)>> {
        let next = ending::detach(py, || crate::work::lock(&self.0).with_dependent_mut(|_, walk| walk.next()))?;
        Ok(Some(match next {
            None => return Ok(None),
            Some(Ok(found)) => (text(py, &found.path)?, stat(py, found.node, &found.metadata)?.into_any()),
            Some(Err(unread)) => {
                (text(py, &unread.path)?, error::of_files(py, &unread.error).into_value(py).into_bound(py).into_any())
            }
        }))
    }
}

self_cell!(
    struct OpenFile {
        owner: Arc<dyn FileSystem>,
        #[not_covariant]
        dependent: Content,
    }
);

/// The content of a file, open.
#[pyclass(frozen, module = "vhdx_mmap._native")]
pub(crate) struct FileBase(OpenFile);

#[pymethods]
impl FileBase {
    #[getter]
    fn size(&self) -> u64 {
        self.0.with_dependent(|_, content| content.size())
    }

    /// Fill a writable buffer from `offset` on, and return the number of bytes.
    fn readinto_at(&self, buffer: &Bound<'_, PyAny>, offset: u64) -> PyResult<usize> {
        let read = buffer::fill(buffer, |memory| self.0.with_dependent(|_, content| content.read_at(memory, offset)))?;
        read.or_raise(buffer.py())
    }

    /// The run at `offset`: its length, and whether it may hold anything but zeros.
    fn run_at(&self, offset: u64) -> Option<(u64, bool)> {
        self.0.with_dependent(|_, content| content.run_at(offset))
    }

    /// Where the content lies: offset in the file, length, offset in the volume or none for zeros.
    fn runs(&self) -> PyResult<Vec<(u64, u64, Option<u64>)>> {
        self.0.with_dependent(|_, content| {
            let unmapped = || PyValueError::new_err("the content is not on the disk as it is read");
            let (_, runs) = content.runs().ok_or_else(unmapped)?;
            Ok(runs.iter().map(|run| (run.start, run.length, run.at)).collect())
        })
    }
}
