//! Where the parents of an image may be looked for.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::image::{Image, ParentLocator};
use crate::source::Source;

/// Where parents may be looked for. An image can name any file as its parent, so it is the caller who says which files
/// may be opened; whatever is found is taken only if it has the identity that the child asks for.
#[non_exhaustive]
#[derive(Clone, Default)]
pub enum Parents {
    /// Nowhere. A differencing image can be opened, and what it holds itself can be read; the rest is
    /// [`ErrorKind::NoParentAttached`].
    #[default]
    None,
    /// In the child's folder and the folders below it: by the stored relative path, and where that leads nowhere, by the
    /// stored file name beside the child. Upper and lower case may differ. Symbolic links that lead out are not followed,
    /// and only regular files are opened.
    Beside,
    /// In these folders and the folders below them: by the ends of the stored paths, longest first. Otherwise as
    /// [`Parents::Beside`].
    Within(Vec<PathBuf>),
    /// Exactly these files, in any order: for each child the one that has the identity that it asks for.
    Explicit(Vec<PathBuf>),
    /// What each of these finds, in this order.
    FirstOf(Vec<Parents>),
    /// What the caller's own search finds.
    With(ParentFinder),
}

/// A search of the caller's own: returns the bytes of the parent, or nothing. The result is checked like any other.
pub type ParentFinder = Arc<dyn Fn(&ParentRequest<'_>) -> Result<Option<Source>> + Send + Sync>;

/// What a search of the caller's own is told.
#[non_exhaustive]
#[derive(Debug)]
pub struct ParentRequest<'a> {
    /// The image that needs a parent.
    pub child: &'a Image,
    /// How it knows its parent.
    pub locator: &'a ParentLocator,
    /// The child's layer: 0 for the image that was opened.
    pub layer: usize,
}

// A search of the caller's own that panics leaves nothing of this crate half done.
impl UnwindSafe for Parents {}
impl RefUnwindSafe for Parents {}

impl fmt::Debug for Parents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Beside => f.write_str("Beside"),
            Self::Within(roots) => f.debug_tuple("Within").field(roots).finish(),
            Self::Explicit(paths) => f.debug_tuple("Explicit").field(paths).finish(),
            Self::FirstOf(all) => f.debug_tuple("FirstOf").field(all).finish(),
            Self::With(_) => f.write_str("With(..)"),
        }
    }
}

impl Parents {
    /// The files that the caller has named.
    pub(super) fn explicit(&self) -> Vec<&Path> {
        match self {
            Self::Explicit(paths) => paths.iter().map(PathBuf::as_path).collect(),
            Self::FirstOf(all) => all.iter().flat_map(Self::explicit).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether there is anything to look for at all.
    pub(super) fn searches(&self) -> bool {
        match self {
            Self::None => false,
            Self::FirstOf(all) => all.iter().any(Self::searches),
            _ => true,
        }
    }
}

/// How a parent was found.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FoundBy {
    /// It is one of the files of [`Parents::Explicit`].
    Given,
    /// By the relative path in the child's parent locator.
    RelativePath,
    /// By its file name, beside the child.
    FileName,
    /// Below a folder of [`Parents::Within`].
    Root,
    /// By [`Parents::With`].
    Caller,
}

impl FoundBy {
    /// The name in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::RelativePath => "relative path",
            Self::FileName => "file name beside the child",
            Self::Root => "path below a root",
            Self::Caller => "caller",
        }
    }
}

crate::error::display_as_str!(FoundBy);
