//! Errors: [`Error`] names the problem, the structure, its file offset, and the layer of the chain.

use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};

/// Implements `Display` for a type by its `as_str`.
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
mod other_format;
mod rule;
mod structure;
mod words;

pub(crate) use display_as_str;

pub use candidate::{Candidate, ParentRejection};
pub use kind::ErrorKind;
pub use other_format::{FormatGroup, OtherFormat};
pub use rule::{Rule, Severity};
pub use structure::Structure;

/// Result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error with its location: the structure, its file offset, and the layer of the chain.
///
/// The type is one pointer wide. Its text is `<file>: <structure> at 0x<offset>: <problem> (<found>, <expected>)`, or,
/// for a parent, `layer <number> (<file>): …`. The alternate form (`{:#}`) leaves out the path of the opened image, for
/// callers who print it anyway.
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
    /// Makes an error in `structure` at file offset `offset` (bytes).
    pub(crate) fn at(structure: Structure, offset: u64, kind: ErrorKind) -> Self {
        Self(Box::new(Inner { kind, structure, offset: Some(offset), layer: 0, file: None, rule: None }))
    }

    /// Makes an error in `structure` as a whole.
    pub(crate) fn of(structure: Structure, kind: ErrorKind) -> Self {
        Self(Box::new(Inner { kind, structure, offset: None, layer: 0, file: None, rule: None }))
    }

    /// Returns this error with `layer` of a chain, whose file is `file`.
    pub(crate) fn in_layer(mut self, layer: usize, file: Option<&Path>) -> Self {
        self.0.layer = layer;
        if layer > 0 || file.is_some() {
            self.0.file = file.map(Path::to_path_buf);
        }
        self
    }

    /// Returns this error with the path of its file, unless it has one already.
    pub(crate) fn in_file(mut self, file: Option<&Path>) -> Self {
        if self.0.file.is_none() {
            self.0.file = file.map(Path::to_path_buf);
        }
        self
    }

    /// Returns this error with `structure`, if it names only the file as a whole.
    pub(crate) fn said_of(mut self, structure: Structure) -> Self {
        if self.0.structure == Structure::File {
            self.0.structure = structure;
        }
        self
    }

    /// Returns this error as a breach of `rule`, unless it already has a rule.
    pub(crate) fn breaking(mut self, rule: Rule) -> Self {
        self.0.rule.get_or_insert(rule);
        self
    }

    /// Returns the broken rule of the format, or [`Rule::Medium`] if bytes cannot be read. Returns `None` if the file
    /// is not at fault: it cannot be opened, or the caller asked for something that does not exist.
    #[must_use]
    pub fn rule(&self) -> Option<Rule> {
        self.0.rule.or_else(|| self.0.kind.rule(self.0.structure))
    }

    /// Returns the problem, with the values found and expected.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Returns the format that a file has in place of VHDX, if that is the error.
    #[must_use]
    pub fn looks_like(&self) -> Option<OtherFormat> {
        match self.kind() {
            ErrorKind::NotVhdx { looks_like } => Some(*looks_like),
            _ => None,
        }
    }

    /// Returns the structure that the error is about.
    #[must_use]
    pub fn structure(&self) -> Structure {
        self.0.structure
    }

    /// Returns the file offset (bytes) of the structure, or of the field in it that is wrong.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// Returns the layer of the chain: 0 is the image that was opened, 1 its parent, and so on.
    #[must_use]
    pub fn layer(&self) -> usize {
        self.0.layer
    }

    /// Returns the path of the file, if it has one. What was opened by a reader, or lies in memory, has none.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// Returns the category of the failure, on which programs base decisions and the command its exit code.
    #[must_use]
    pub fn category(&self) -> Category {
        self.0.kind.category()
    }
}

// `io::Error` is neither, since it may hold any error; those that some kinds hold are never changed.
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
        } else if let Some(file) = self.0.file.as_ref().filter(|_| !f.alternate()) {
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
            // Programs take the end of a file for the end of the content.
            ErrorKind::Io(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => io::ErrorKind::Other,
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

/// Category of a failure, by how a program may want to respond.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// The file is a VHDX file, but violates the format, or some of its bytes are missing.
    Corrupt,
    /// The file is not a VHDX file.
    NotVhdx,
    /// The file may be valid, but needs something that this crate does not support.
    Unsupported,
    /// The file cannot be opened.
    Open,
    /// The file was opened, but reading it failed.
    Io,
    /// The log holds changes that are not in the file yet, and the caller refuses such images.
    DirtyLog,
    /// No parent was found, or the caller gave none.
    ParentNotFound,
    /// A file was found for a parent, but its identity differs from the one that the child stores.
    ParentMismatch,
    /// The caller asked for something that does not exist, such as bytes past the end of the disk.
    InvalidInput,
}
