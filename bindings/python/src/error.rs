//! Errors of the library as exceptions of Python. The classes are in `vhdx_mmap.errors`.

use std::io;
use std::path::Path;

use pyo3::exceptions::{PyException, PyMemoryError, PyOSError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use vhdx_mmap::{Category, Error, ErrorKind, ScanError};

/// The values that an error found and expected, for attributes.
#[derive(Default)]
struct Values {
    found: Option<Value>,
    expected: Option<Value>,
}

enum Value {
    Number(u64),
    Text(String),
}

impl Values {
    fn numbers(found: impl Into<u64>, expected: impl Into<u64>) -> Self {
        Self { found: Some(Value::Number(found.into())), expected: Some(Value::Number(expected.into())) }
    }

    fn mixed(found: impl Into<u64>, expected: &str) -> Self {
        Self { found: Some(Value::Number(found.into())), expected: Some(Value::Text(expected.to_owned())) }
    }

    fn texts(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { found: Some(Value::Text(found.into())), expected: Some(Value::Text(expected.into())) }
    }

    fn found(found: impl Into<u64>) -> Self {
        Self { found: Some(Value::Number(found.into())), expected: None }
    }

    fn of(kind: &ErrorKind) -> Self {
        match kind {
            ErrorKind::FileTooShort { found, expected } | ErrorKind::BatTooSmall { found, expected } => {
                Self::numbers(*found, *expected)
            }
            ErrorKind::Checksum { found, expected } | ErrorKind::SectorSizeMismatch { found, expected } => {
                Self::numbers(*found, *expected)
            }
            ErrorKind::Signature { found, expected } => {
                let text = found.get(..expected.len()).unwrap_or(found);
                Self::texts(text.escape_ascii().to_string(), *expected)
            }
            ErrorKind::Field { found, expected, .. } | ErrorKind::UnsupportedValue { found, expected, .. } => {
                Self::mixed(*found, expected)
            }
            ErrorKind::OutOfBounds { length, limit } => Self::numbers(*length, *limit),
            ErrorKind::OutsideDisk { end, size } => Self::numbers(*end, *size),
            ErrorKind::Truncated { file_end, blocks_end, .. } => Self::numbers(*file_end, *blocks_end),
            ErrorKind::ReservedState { state } => Self::found(*state),
            ErrorKind::NotEmpty { found, .. } => Self::found(*found),
            ErrorKind::DirtyLog { log_guid } | ErrorKind::NoActiveSequence { log_guid, .. } => {
                Self { found: Some(Value::Text(log_guid.to_string())), expected: None }
            }
            ErrorKind::ParentMismatch { expected, .. } => {
                Self { found: None, expected: Some(Value::Text(expected.to_string())) }
            }
            ErrorKind::NotVhdx { looks_like } => Self::texts(looks_like.name, "VHDX"),
            _ => Self::default(),
        }
    }
}

fn class_of(error: &Error) -> &'static str {
    match (error.category(), error.kind()) {
        (_, ErrorKind::NotBorrowable) => "NotLendable",
        (Category::NotVhdx, _) => "NotVhdxError",
        (Category::Unsupported, _) => "UnsupportedError",
        (Category::DirtyLog, _) => "DirtyLog",
        (Category::ParentNotFound, _) => "ParentNotFound",
        (Category::ParentMismatch, _) => "ParentMismatch",
        (Category::InvalidInput, _) => "InvalidRequestError",
        (Category::Open, ErrorKind::Open(cause)) => match cause.kind() {
            io::ErrorKind::NotFound => "PathNotFoundError",
            io::ErrorKind::PermissionDenied => "PathPermissionError",
            _ => "OpenError",
        },
        (Category::Open, _) => "OpenError",
        (Category::Io, ErrorKind::Lost | ErrorKind::MediumFailed) => "LostDataError",
        (Category::Io, ErrorKind::Changed | ErrorKind::OtherFiles { .. }) => "ChangedError",
        (Category::Io, _) => "ReadError",
        // Categories that are added later are at least errors of the image.
        _ => "CorruptError",
    }
}

/// Makes an exception of a class of `vhdx_mmap.errors`.
pub(crate) fn exception(py: Python<'_>, class: &str, message: &str, attributes: Option<&Bound<'_, PyDict>>) -> PyErr {
    let made = py.import("vhdx_mmap.errors").and_then(|module| module.getattr(class));
    match made.and_then(|class| class.call((message,), attributes)) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// The exception that a reader of Python has raised, if that is the cause.
fn raised_by_reader(py: Python<'_>, error: &Error) -> Option<PyErr> {
    match error.kind() {
        ErrorKind::Open(cause) | ErrorKind::Io(cause) => {
            cause.get_ref()?.downcast_ref::<PyErr>().map(|raised| raised.clone_ref(py))
        }
        ErrorKind::NoValidCopy { first, second } => {
            raised_by_reader(py, first).or_else(|| raised_by_reader(py, second))
        }
        _ => None,
    }
}

/// Makes the exception of an error.
pub(crate) fn of(py: Python<'_>, error: &Error) -> PyErr {
    in_image(py, error, None)
}

/// Makes the exception of an error, with the path of the image if the error is about it and does not name a file.
pub(crate) fn in_image(py: Python<'_>, error: &Error, image: Option<&Path>) -> PyErr {
    let image = image.filter(|_| error.layer() == 0 && error.file().is_none());
    let cause = raised_by_reader(py, error);
    if let Some(raised) = &cause
        && !raised.is_instance_of::<PyException>(py)
    {
        // KeyboardInterrupt and its like are no errors of an image.
        return raised.clone_ref(py);
    }
    let attributes = PyDict::new(py);
    let values = Values::of(error.kind());
    let number = match error.kind() {
        ErrorKind::Open(cause) | ErrorKind::Io(cause) => cause.raw_os_error(),
        _ => None,
    };
    let value = |value: Option<Value>| match value {
        Some(Value::Number(number)) => number.into_pyobject(py).map(Bound::into_any).ok(),
        Some(Value::Text(text)) => text.into_pyobject(py).map(Bound::into_any).ok(),
        None => None,
    };
    let set = || -> PyResult<()> {
        attributes.set_item("structure", error.structure().to_string())?;
        attributes.set_item("offset", error.offset())?;
        attributes.set_item("rule", error.rule().map(vhdx_mmap::Rule::code))?;
        attributes.set_item("found", value(values.found))?;
        attributes.set_item("expected", value(values.expected))?;
        attributes.set_item("layer", error.layer())?;
        attributes.set_item("file", error.file().or(image))?;
        attributes.set_item("errno", number)
    };
    if let Err(error) = set() {
        return error;
    }
    let text = image.map_or_else(|| error.to_string(), |image| format!("{}: {error:#}", image.display()));
    let made = exception(py, class_of(error), &text, Some(&attributes));
    if cause.is_some() {
        made.set_cause(py, cause);
    }
    made
}

/// Makes the exception of the system for a file that is no disk: an `OSError` with its `errno` and `filename`.
pub(crate) fn of_path(error: io::Error, path: &Path) -> PyErr {
    match error.raw_os_error() {
        Some(number) => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default().to_owned();
            PyOSError::new_err((number, text, path.as_os_str().to_owned()))
        }
        None => PyErr::from(error),
    }
}

/// Makes the exception of an error of work on a whole disk, except for a cancellation, whose reason its caller knows.
pub(crate) fn of_scan(py: Python<'_>, error: ScanError, image: Option<&Path>) -> PyErr {
    match error {
        ScanError::Read(error) => in_image(py, &error, image),
        ScanError::Write(error) => PyErr::from(error),
        ScanError::Manifest(vhdx_mmap::ops::manifest::ManifestError::Io(error)) => PyErr::from(error),
        ScanError::Manifest(error) => exception(py, "ManifestError", &error.to_string(), None),
        error => exception(py, "VhdxError", &error.to_string(), None),
    }
}

/// Makes the exception of an error of a file system.
pub(crate) fn of_files(py: Python<'_>, error: &vhdx_files::Error) -> PyErr {
    use vhdx_files::Error as Files;

    let class = match error {
        Files::Disk(error) => return of(py, error),
        Files::Host(_, error) => return PyOSError::new_err(error.to_string()),
        Files::NoFileSystem { .. } | Files::FileSystem { is_unsupported: true, .. } => "UnsupportedError",
        Files::NotFound(_) => "PathNotFoundError",
        Files::NotDirectory(_) => "PathNotDirectoryError",
        Files::NotFile(_) => "PathIsDirectoryError",
        Files::LinkLoop(_) => "LinkLoopError",
        _ => "CorruptError",
    };
    let attributes = PyDict::new(py);
    let structure = match error {
        Files::NoFileSystem { .. } => "volume",
        Files::FileSystem { kind, .. } => kind.as_str(),
        _ => "file system",
    };
    if let Err(error) = attributes.set_item("structure", structure) {
        return error;
    }
    exception(py, class, &error.to_string(), Some(&attributes))
}

/// Results of the library as results of Python.
pub(crate) trait IntoPy<T> {
    /// Makes an exception of the error.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> IntoPy<T> for vhdx_mmap::Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| of(py, &error))
    }
}

impl<T> IntoPy<T> for vhdx_files::Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| of_files(py, &error))
    }
}

/// Numbers that this machine cannot address: a length of more than the memory can have.
pub(crate) fn too_long() -> PyErr {
    PyMemoryError::new_err("longer than the memory of this machine can be")
}
