//! Why work over whole disks ended before its end: one error for all operations.

use std::fmt;
use std::io;

use crate::error::Error;

/// Why an operation on a whole disk ended before its end.
#[non_exhaustive]
#[derive(Debug)]
pub enum ScanError {
    /// The disk or file can't be read.
    Read(Error),
    /// The target can't be written to.
    Write(io::Error),
    /// The manifest or a share can't be used.
    Manifest(ManifestError),
    /// [`Progress::advance`](crate::Progress::advance) asked for it.
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

/// What is wrong with a manifest or a share: [`ScanError::Manifest`].
#[non_exhaustive]
#[derive(Debug)]
pub enum ManifestError {
    /// The manifest can't be read or written.
    Io(io::Error),
    /// The manifest, or one of several, is not what it should be.
    Format {
        /// The number of the line, from 1; none if it is about the whole.
        line: Option<u64>,
        /// Which of several it is, from 0.
        document: usize,
        /// What is wrong.
        what: String,
    },
    /// The manifest is a share that covers no blocks, as there are where a disk has fewer blocks than there are shares: a
    /// comparison with it would say nothing of the disk.
    EmptyShare {
        /// Number of the share, from 1.
        index: u32,
        /// Number of shares.
        count: u32,
    },
    /// What `hash_share` is to hand through to `merge` is too long.
    AboutTooLong {
        /// Its length as JSON, in bytes.
        length: u64,
        /// The longest that is handed through, in bytes.
        limit: u64,
    },
    /// What `hash_share` is to hand through to `merge` is nested more deeply than readers of JSON accept.
    AboutTooDeep,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Format { line: Some(line), what, .. } => write!(f, "line {line}: {what}"),
            Self::Format { line: None, what, .. } => f.write_str(what),
            Self::EmptyShare { index, count } => {
                write!(f, "share {index}/{count} covers no blocks, so it cannot verify anything")
            }
            Self::AboutTooLong { length, limit } => {
                write!(f, "`about` is too long for a share (found {length} bytes, expected at most {limit})")
            }
            Self::AboutTooDeep => f.write_str("`about` is nested too deeply for a share"),
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
    /// A manifest that is not what it should be.
    pub(crate) fn bad_manifest(line: Option<u64>, document: usize, what: impl Into<String>) -> Self {
        Self::Manifest(ManifestError::Format { line, document, what: what.into() })
    }

    /// A manifest that can't be read or written.
    pub(crate) fn manifest_io(error: io::Error) -> Self {
        Self::Manifest(ManifestError::Io(error))
    }

    /// The same error, said of a line of a document.
    pub(crate) fn within(self, document: usize, line: u64) -> Self {
        match self {
            Self::Manifest(ManifestError::Format { what, .. }) => Self::bad_manifest(Some(line), document, what),
            other => other,
        }
    }
}
