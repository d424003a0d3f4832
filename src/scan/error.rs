//! Errors of work on whole disks.

use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::error::Error;

/// Reason why an operation on a whole disk did not complete.
#[non_exhaustive]
#[derive(Debug)]
pub enum ScanError {
    /// The disk or file cannot be read.
    Read(Error),
    /// The target cannot be written to.
    Write(io::Error),
    /// The manifest or a shard cannot be used.
    Manifest(ManifestError),
    /// [`Progress::advance`](crate::Progress::advance) cancelled the operation.
    Cancelled,
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Write(error) => write!(f, "cannot write: {error}"),
            Self::Manifest(error) => error.fmt(f),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

// As of `Error`: an `io::Error` in it is never changed.
impl UnwindSafe for ScanError {}
impl RefUnwindSafe for ScanError {}
impl UnwindSafe for ManifestError {}
impl RefUnwindSafe for ManifestError {}

impl std::error::Error for ScanError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Write(error) => Some(error),
            Self::Manifest(error) => Some(error),
            Self::Cancelled => None,
        }
    }
}

impl From<Error> for ScanError {
    fn from(error: Error) -> Self {
        Self::Read(error)
    }
}

impl From<ManifestError> for ScanError {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error)
    }
}

/// Error in a manifest or a shard: [`ScanError::Manifest`].
#[non_exhaustive]
#[derive(Debug)]
pub enum ManifestError {
    /// The manifest cannot be read or written.
    Io(io::Error),
    /// The manifest, or one of several, is invalid.
    Format {
        /// Number of the line, from 1. `None` if the error is about the whole document.
        line: Option<u64>,
        /// Number of the document, from 0.
        document: usize,
        /// The problem.
        what: String,
    },
    /// The manifest is of a disk of another size than the one that it was compared with.
    OtherSize {
        /// Size of the disk of the manifest, in bytes.
        manifest: u64,
        /// Size of the disk, in bytes.
        disk: u64,
    },
    /// The manifest is a shard without blocks, which exist if a disk has fewer blocks than there are shards: a
    /// comparison with it would verify nothing.
    EmptyShard {
        /// Number of the shard, from 1.
        index: u32,
        /// Number of shards.
        count: u32,
    },
    /// The `about` value that `hash_shard` passes to `merge` is too long.
    AboutTooLong {
        /// Its length as JSON, in bytes.
        length: u64,
        /// Largest allowed length, in bytes.
        limit: u64,
    },
    /// The `about` value that `hash_shard` passes to `merge` is nested more deeply than JSON readers accept.
    AboutTooDeep,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Format { line: Some(line), what, .. } => write!(f, "line {line}: {what}"),
            Self::Format { line: None, what, .. } => f.write_str(what),
            Self::OtherSize { manifest, disk } => {
                write!(f, "the manifest is of a disk of {manifest} bytes, and this disk has {disk}")
            }
            Self::EmptyShard { index, count } => {
                write!(f, "shard {index}/{count} covers no blocks, so it cannot verify anything")
            }
            Self::AboutTooLong { length, limit } => {
                write!(f, "`about` is too long for a shard (found {length} bytes, expected at most {limit})")
            }
            Self::AboutTooDeep => f.write_str("`about` is nested too deeply for a shard"),
        }
    }
}

impl std::error::Error for ManifestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl ScanError {
    /// Makes an error for an invalid manifest.
    pub(crate) fn bad_manifest(line: Option<u64>, document: usize, what: impl Into<String>) -> Self {
        Self::Manifest(ManifestError::Format { line, document, what: what.into() })
    }

    /// Makes an error for a manifest that cannot be read or written.
    pub(crate) fn manifest_io(error: io::Error) -> Self {
        Self::Manifest(ManifestError::Io(error))
    }

    /// Returns this error with its document and line.
    pub(crate) fn within(self, document: usize, line: u64) -> Self {
        match self {
            Self::Manifest(ManifestError::Format { what, .. }) => Self::bad_manifest(Some(line), document, what),
            other => other,
        }
    }
}
