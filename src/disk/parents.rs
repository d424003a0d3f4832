//! Where the parents of an image may be looked for.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::image::{Image, ParentLocator};
use crate::source::Source;

/// Places where parents may be searched. An image can name any file as its parent, so the caller decides which files
/// may be opened. A file is accepted only if it has the identity that the child stores.
#[non_exhaustive]
#[derive(Clone, Default)]
pub enum Parents {
    /// No search. A differencing disk can be opened, and the blocks in its own file can be read; others fail with
    /// [`ErrorKind::NoParentAttached`](crate::ErrorKind::NoParentAttached).
    #[default]
    None,
    /// The child's folder and its subfolders: the stored relative path, or if that does not exist, the stored file name
    /// beside the child. Upper and lower case may differ. Symbolic links out of the folder are not followed, and only
    /// regular files are opened. At last, the files beside the child whose names look like a stored name: with other
    /// forms of the same accented letters (NFC and NFD), or a copy such as `base (1).vhdx`.
    Beside,
    /// These folders and their subfolders: the ends of the stored paths, longest first. Otherwise like
    /// [`Parents::Beside`]. If no name leads to the parent, the headers of all images in these folders are read, to
    /// find it by its identity: up to 20,000 images among 200,000 entries of each folder. The longest of several is
    /// taken, since copies may be cut short ([`ParentLink::others`](super::ParentLink::others)).
    Within(Vec<PathBuf>),
    /// Exactly these files, in any order: each child takes the file with the identity that it stores.
    Explicit(Vec<PathBuf>),
    /// The results of these searches, in this order.
    FirstOf(Vec<Parents>),
    /// The result of the caller's own search.
    With(ParentFinder),
}

/// Search of the caller: returns the source of the parent, or `None`. The result is verified like any other.
pub type ParentFinder = Arc<dyn Fn(&ParentRequest<'_>) -> Result<Option<Source>> + Send + Sync>;

/// Arguments for a search of the caller.
#[non_exhaustive]
#[derive(Debug)]
pub struct ParentRequest<'a> {
    /// The image that needs a parent.
    pub child: &'a Image,
    /// The parent locator of the image.
    pub locator: &'a ParentLocator,
    /// Layer of the image: 0 for the opened image.
    pub layer: usize,
}

// A panic in a search of the caller leaves no object of this crate in an inconsistent state.
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
    /// Returns the files that the caller named.
    pub(super) fn explicit(&self) -> Vec<&Path> {
        match self {
            Self::Explicit(paths) => paths.iter().map(PathBuf::as_path).collect(),
            Self::FirstOf(all) => all.iter().flat_map(Self::explicit).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns whether the child's folder is searched.
    pub(super) fn includes_beside(&self) -> bool {
        match self {
            Self::Beside => true,
            Self::FirstOf(all) => all.iter().any(Self::includes_beside),
            _ => false,
        }
    }

    /// Returns whether there is any place to search.
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
    /// As one of the files of [`Parents::Explicit`].
    Given,
    /// By the relative path in the child's parent locator.
    RelativePath,
    /// By its file name, beside the child.
    FileName,
    /// Below a folder of [`Parents::Within`].
    Root,
    /// By its identity, among files with other names than the stored ones.
    Identity,
    /// By [`Parents::With`].
    Caller,
}

impl FoundBy {
    /// Returns the name in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::RelativePath => "relative path",
            Self::FileName => "file name beside the child",
            Self::Root => "path below a root",
            Self::Identity => "identity, under another name",
            Self::Caller => "caller",
        }
    }
}

crate::error::display_as_str!(FoundBy);
