//! What went wrong, and where: [`Error`] names the structure, its file offset, and the layer of the chain.

use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};

/// Shows a type as the text that its `as_str` returns.
macro_rules! display_as_str {
    ($name:ty) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

mod candidate;
mod kind;
mod rule;
mod structure;

pub(crate) use display_as_str;

pub use candidate::{Candidate, ParentRejection};
pub use kind::ErrorKind;
pub use rule::{Rule, Severity};
pub use structure::Structure;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that says where it is: which structure, at which file offset, in which layer of a chain.
///
/// It is one pointer wide. Its text is `<structure> at 0x<offset>: <what is wrong> (<found>, <expected>)`, without the
/// name of the file, which the caller knows; only for a parent that the crate opened by itself the name is part of it.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    structure: Structure,
    offset: Option<u64>,
    layer: usize,
    file: Option<PathBuf>,
    rule: Option<Rule>,
}

impl Error {
    /// An error in `structure` at file offset `offset` (bytes).
    pub(crate) fn at(structure: Structure, offset: u64, kind: ErrorKind) -> Self {
        Self(Box::new(Inner { kind, structure, offset: Some(offset), layer: 0, file: None, rule: None }))
    }

    /// An error in `structure` as a whole.
    pub(crate) fn of(structure: Structure, kind: ErrorKind) -> Self {
        Self(Box::new(Inner { kind, structure, offset: None, layer: 0, file: None, rule: None }))
    }

    /// The same error, said of `layer` of a chain, whose file is `file`.
    pub(crate) fn in_layer(mut self, layer: usize, file: Option<&Path>) -> Self {
        self.0.layer = layer;
        if layer > 0 {
            self.0.file = file.map(Path::to_path_buf);
        }
        self
    }

    /// The same error, where it is about one of several files that the caller has named: it says which.
    pub(crate) fn in_file(mut self, file: Option<&Path>) -> Self {
        if self.0.file.is_none() {
            self.0.file = file.map(Path::to_path_buf);
        }
        self
    }

    /// The same error, said of `structure`, where it is about no more than the file.
    pub(crate) fn said_of(mut self, structure: Structure) -> Self {
        if self.0.structure == Structure::File {
            self.0.structure = structure;
        }
        self
    }

    /// The same error, as a breach of `rule`, unless it is known to be one of another rule.
    pub(crate) fn breaking(mut self, rule: Rule) -> Self {
        self.0.rule.get_or_insert(rule);
        self
    }

    /// The rule of the format that is broken, or [`Rule::Medium`] where bytes can't be read. None where the file is not at
    /// fault: it can't be opened, or the caller asked for something that does not exist.
    #[must_use]
    pub fn rule(&self) -> Option<Rule> {
        self.0.rule.or_else(|| self.0.kind.rule(self.0.structure))
    }

    /// What is wrong, with the values found and expected.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The structure in which it is.
    #[must_use]
    pub fn structure(&self) -> Structure {
        self.0.structure
    }

    /// The file offset of the structure, or of the field within it where one field is wrong, in bytes.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// The layer of the chain: 0 is the image that was opened, 1 its parent, and so on.
    #[must_use]
    pub fn layer(&self) -> usize {
        self.0.layer
    }

    /// The file in which the error is, where that is a parent whose path is known, or one of several that were named.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// What sort of failure this is: what a program decides by, and what the exit code of the command is made from.
    #[must_use]
    pub fn category(&self) -> Category {
        self.0.kind.category()
    }
}

// The causes from the system that some kinds hold do not say so themselves, and nothing in them changes.
impl UnwindSafe for Error {}
impl RefUnwindSafe for Error {}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("structure", &self.0.structure)
            .field("offset", &self.0.offset)
            .field("layer", &self.0.layer)
            .field("file", &self.0.file)
            .field("rule", &self.rule())
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.layer > 0 {
            write!(f, "layer {}", self.0.layer)?;
            if let Some(file) = &self.0.file {
                write!(f, " ({})", file.display())?;
            }
            f.write_str(": ")?;
        } else if let Some(file) = &self.0.file {
            write!(f, "{}: ", file.display())?;
        }
        write!(f, "{}", self.0.structure)?;
        if let Some(offset) = self.0.offset {
            write!(f, " at {offset:#x}")?;
        }
        write!(f, ": {}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            ErrorKind::Open(source) | ErrorKind::Io(source) => Some(&**source),
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Open(cause) | ErrorKind::Io(cause) => cause.kind(),
            _ => match error.category() {
                Category::Corrupt | Category::NotVhdx => io::ErrorKind::InvalidData,
                Category::Unsupported => io::ErrorKind::Unsupported,
                Category::ParentNotFound => io::ErrorKind::NotFound,
                Category::InvalidInput => io::ErrorKind::InvalidInput,
                Category::Open | Category::Io | Category::DirtyLog | Category::ParentMismatch => io::ErrorKind::Other,
            },
        };
        io::Error::new(kind, error)
    }
}

/// The sorts of failure, one for each answer that a program may want to give.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// The file is a VHDX, but what it says is against the format, or bytes that it promises are missing.
    Corrupt,
    /// The file is something else.
    NotVhdx,
    /// The file may be in order, but it needs something that this crate does not know.
    Unsupported,
    /// The file could not be opened.
    Open,
    /// The file was opened, but reading it failed.
    Io,
    /// The log holds changes that are not in the file yet, and the caller asked for such images to be refused.
    DirtyLog,
    /// No file was found for a parent, or the caller gave none.
    ParentNotFound,
    /// A file was found for a parent, but it is not the one that the child was made from.
    ParentMismatch,
    /// The caller asked for something that does not exist, such as bytes behind the end of the disk.
    InvalidInput,
}
