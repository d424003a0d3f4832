//! What can go wrong between a disk and a file of it.

use std::{fmt, io};

use vhdx_mmap::ops::Volume as Kind;

use crate::volume::Node;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error of a file system.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// The disk below could not be read: the image is damaged there, or reading its file failed.
    Disk(vhdx_mmap::Error),
    /// There is no file system that can be read: what was recognised instead, if anything was.
    NoFileSystem {
        /// What the volume holds, if it is known.
        found: Option<Kind>,
    },
    /// The file system is damaged, or uses something that cannot be read.
    FileSystem {
        /// Which file system it is.
        kind: Kind,
        /// What is wrong, in the words of its reader. It may quote the disk, and must be escaped before it is printed.
        reason: String,
        /// Whether the file system is sound, as far as it was read, and has something that is not supported.
        is_unsupported: bool,
    },
    /// There is no such file. The path is that of the name that was not found, in the notation of the volume.
    NotFound(Vec<u8>),
    /// A directory was expected: its path, or the number of its node.
    NotDirectory(Vec<u8>),
    /// A regular file was expected: its path, or the number of its node.
    NotFile(Vec<u8>),
    /// Symbolic links lead to one another.
    LinkLoop(Vec<u8>),
    /// An operation took more reads than any sound file system needs. The structures are damaged, or made to delay.
    TooMuchWork,
    /// The work was cancelled.
    Cancelled,
    /// The host could not do its part, such as writing a file: what it was to do, and what it answered.
    Host(String, io::Error),
}

impl Error {
    /// Makes the error of something without content, whose path is not known here.
    pub(crate) fn not_file(node: Node) -> Self {
        Self::NotFile(format!("node {node}").into_bytes())
    }

    /// Makes the error of a file system that is damaged.
    pub(crate) fn damaged(kind: Kind, reason: impl fmt::Display) -> Self {
        Self::FileSystem { kind, reason: reason.to_string(), is_unsupported: false }
    }

    /// Makes the error of a file system with something that is not supported.
    pub(crate) fn unsupported(kind: Kind, reason: impl fmt::Display) -> Self {
        Self::FileSystem { kind, reason: reason.to_string(), is_unsupported: true }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::NoFileSystem { found: Some(found) } => {
                write!(f, "there is no file system that can be read, but {}", found.as_str())
            }
            Self::NoFileSystem { found: None } => f.write_str("no file system was recognised"),
            Self::FileSystem { kind, reason, is_unsupported: false } => write!(f, "{}: {reason}", kind.as_str()),
            Self::FileSystem { kind, reason, is_unsupported: true } => {
                write!(f, "{}: not supported: {reason}", kind.as_str())
            }
            Self::NotFound(name) => write!(f, "{}: no such file or directory", path(name)),
            Self::NotDirectory(name) => write!(f, "{}: is not a directory", path(name)),
            Self::NotFile(name) => write!(f, "{}: is not a regular file", path(name)),
            Self::LinkLoop(name) => write!(f, "{}: symbolic links lead to one another", path(name)),
            Self::TooMuchWork => {
                f.write_str("more reads than a sound file system needs: it is damaged, or made to delay")
            }
            Self::Cancelled => f.write_str("cancelled"),
            Self::Host(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk(error) => Some(error),
            Self::Host(_, error) => Some(error),
            _ => None,
        }
    }
}

impl From<vhdx_mmap::Error> for Error {
    fn from(error: vhdx_mmap::Error) -> Self {
        Self::Disk(error)
    }
}
