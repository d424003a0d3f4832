//! Opens images with the options of a caller of Python.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use vhdx_mmap::ops::plan;
use vhdx_mmap::{Chain, ChainFingerprint, Disk, LogPolicy, OpenOptions, ParentRequest, Parents, Source, Strictness};

use crate::ending;
use crate::error;
use crate::source;
use crate::work::{How, lock};

/// What is copied without letting other threads go on, in bytes: to let them costs more than the copy.
const QUICK: usize = 4096;

/// A disk that is open.
pub(crate) struct State {
    pub(crate) chain: Arc<Chain>,
    /// Number of the layer of the chain that is the first one of the disk.
    pub(crate) layer: usize,
    pub(crate) disk: Arc<Disk>,
    pub(crate) options: OpenOptions,
    finder: Finder,
}

/// What a search of a caller of Python leaves behind.
#[derive(Clone, Default)]
struct Finder {
    calls_python: Arc<AtomicBool>,
    raised: Arc<Mutex<Option<PyErr>>>,
}

impl Finder {
    /// Asks the caller of Python for a parent. An exception waits in `raised` for the call that started the search.
    fn ask(&self, callback: &Py<PyAny>, request: &ParentRequest<'_>, is_mapped: bool) -> Option<Source> {
        let asked = Python::try_attach(|py| {
            let arguments = PyDict::new(py);
            let locator = request.locator;
            arguments.set_item("layer", request.layer)?;
            arguments.set_item("child", request.child.path())?;
            arguments.set_item("relative_path", locator.relative_path.as_deref())?;
            arguments.set_item("volume_path", locator.volume_path.as_deref())?;
            arguments.set_item("absolute_path", locator.absolute_win32_path.as_deref())?;
            arguments.set_item("identity", locator.parent_linkage.to_string())?;
            let found = callback.bind(py).call((), Some(&arguments))?;
            if found.is_none() {
                return Ok(None);
            }
            let is_path = found.hasattr("__fspath__")? || found.is_instance_of::<PyString>();
            let is_mapped = is_mapped && is_path;
            let opened = source::open(&found, is_mapped)?.map_err(|error| error::of(py, &error))?;
            if opened.calls_python {
                self.calls_python.store(true, Ordering::Relaxed);
            }
            Ok(Some(opened.source))
        });
        match asked.unwrap_or_else(|| Err(PyOSError::new_err("the interpreter ends"))) {
            Ok(found) => found,
            Err(raised) => {
                lock(&self.raised).get_or_insert(raised);
                None
            }
        }
    }

    fn check(&self) -> PyResult<()> {
        lock(&self.raised).take().map_or(Ok(()), Err)
    }
}

/// The options of `vhdx_mmap.open`.
pub(crate) struct Options<'py> {
    /// Files and folders that the caller named.
    pub(crate) paths: Vec<PathBuf>,
    /// Whether the folder of the child is searched.
    pub(crate) beside: bool,
    pub(crate) finder: Option<Bound<'py, PyAny>>,
    pub(crate) log: &'py str,
    pub(crate) strictness: &'py str,
    pub(crate) is_mapped: bool,
    /// The fingerprint that is expected, as JSON.
    pub(crate) expect: Option<&'py str>,
    /// The split whose disk this must be.
    pub(crate) split: Option<&'py plan::Split>,
    /// Whether the files are those that the split names, and no others.
    pub(crate) is_planned: bool,
}

fn unknown(option: &str, found: &str, expected: &str) -> PyErr {
    PyValueError::new_err(format!("{option}: unknown value (found {found:?}, expected {expected})"))
}

impl Options<'_> {
    fn parents(&self, finder: &Finder) -> Parents {
        let mut searches = Vec::new();
        let (folders, files): (Vec<_>, Vec<_>) = self.paths.iter().cloned().partition(|path| path.is_dir());
        if !files.is_empty() {
            searches.push(Parents::Explicit(files));
        }
        if self.beside {
            searches.push(Parents::Beside);
        }
        if !folders.is_empty() {
            searches.push(Parents::Within(folders));
        }
        if let Some(callback) = &self.finder {
            let (callback, finder, is_mapped) = (callback.clone().unbind(), finder.clone(), self.is_mapped);
            searches.push(Parents::With(Arc::new(move |request| Ok(finder.ask(&callback, request, is_mapped)))));
        }
        if searches.is_empty() { Parents::None } else { Parents::FirstOf(searches) }
    }

    fn open_options(&self, finder: &Finder) -> PyResult<OpenOptions> {
        let log = match self.log {
            "replay" => LogPolicy::Replay,
            "refuse" => LogPolicy::Refuse,
            "ignore" => LogPolicy::Ignore,
            other => return Err(unknown("log", other, "\"replay\", \"refuse\" or \"ignore\"")),
        };
        let strictness = match self.strictness {
            "strict" => Strictness::Strict,
            "salvage" => Strictness::Salvage,
            other => return Err(unknown("strictness", other, "\"strict\" or \"salvage\"")),
        };
        let mut options = OpenOptions::new().log_policy(log).strictness(strictness).parents(self.parents(finder));
        if let Some(expected) = self.expect {
            let fingerprint: ChainFingerprint = serde_json::from_str(expected)
                .map_err(|error| PyValueError::new_err(format!("expect: not a fingerprint ({error})")))?;
            options = options.expect(fingerprint);
        }
        options = match (self.split, self.is_mapped) {
            (None, _) => options,
            (Some(split), _) if !self.is_planned => split.expect(options),
            (Some(split), true) => split.open_options(options, source::map),
            (Some(split), false) => split.open_options(options, |path| Source::open(path)),
        };
        Ok(if self.is_mapped { source::map_parents(options) } else { options })
    }
}

impl State {
    pub(crate) fn open(object: &Bound<'_, PyAny>, options: &Options<'_>) -> PyResult<Self> {
        let py = object.py();
        let finder = Finder::default();
        let open_options = options.open_options(&finder)?;
        let path = source::path_of(object)?;
        let failed = |error: vhdx_mmap::Error| error::in_image(py, &error, path.as_deref());
        let opened = source::open(object, options.is_mapped)?.map_err(failed)?;
        finder.calls_python.store(opened.calls_python, Ordering::Relaxed);
        let chain = ending::detach(py, || Chain::open(opened.source, &open_options))?;
        finder.check()?;
        let chain = chain.map_err(failed)?;
        let disk = Disk::from_chain(&chain).map_err(failed)?;
        if let Some(split) = options.split {
            split.check(&disk).map_err(failed)?;
        }
        Ok(Self { chain: Arc::new(chain), layer: 0, disk: Arc::new(disk), options: open_options, finder })
    }

    /// The disk of an ancestor, `layer` layers below.
    pub(crate) fn with(&self, disk: Disk, layer: usize) -> Self {
        Self {
            chain: Arc::clone(&self.chain),
            layer: self.layer.saturating_add(layer),
            disk: Arc::new(disk),
            options: self.options.clone(),
            finder: self.finder.clone(),
        }
    }

    /// How an operation on this disk runs.
    pub(crate) fn how<'py>(&self, progress: Option<Bound<'py, PyAny>>, threads: Option<usize>, total: u64) -> How<'py> {
        How { progress, threads, total, image: self.disk.image().path().map(PathBuf::from) }
    }

    /// Makes the exception of an error of this disk.
    pub(crate) fn error(&self, py: Python<'_>, error: &vhdx_mmap::Error) -> PyErr {
        error::in_image(py, error, self.disk.image().path())
    }

    /// Runs work that may read files: without the interpreter, so that readers of Python, which need it, can be called,
    /// and other threads go on.
    pub(crate) fn detached<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce() -> vhdx_mmap::Result<T> + Send,
    ) -> PyResult<T> {
        ending::detach(py, work)?.map_err(|error| self.error(py, &error))
    }

    /// Whether a read of `length` bytes is done before other threads could go on: it is copied from memory.
    pub(crate) fn is_quick(&self, length: usize) -> bool {
        length <= QUICK && !self.calls_python() && self.disk.can_borrow()
    }

    /// Whether a read may run code of Python. The thread that reads then must not hold the interpreter.
    pub(crate) fn calls_python(&self) -> bool {
        self.finder.calls_python.load(Ordering::Relaxed)
    }

    /// Raises what a search of the caller has raised.
    pub(crate) fn check_finder(&self) -> PyResult<()> {
        self.finder.check()
    }

    /// Fails if a file of the disk was changed since it was opened.
    pub(crate) fn fail_if_changed(&self, py: Python<'_>) -> PyResult<()> {
        for layer in self.disk.layers() {
            let source = layer.image().source();
            if ending::detach(py, || source.has_changed())?? {
                let name = source.path().map_or_else(|| "the image".to_owned(), |path| path.display().to_string());
                return Err(error::exception(py, "ChangedError", &format!("{name}: changed while it was read"), None));
            }
        }
        Ok(())
    }
}
