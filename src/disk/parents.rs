//! Finding the parent of an image: where a search may look, and how it is made sure that it is the right one.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Candidate, Error, ErrorKind, Outcome, Result, Structure};
use crate::image::{Image, LogPolicy, ParentLocator};
use crate::source::{FileId, Source};

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
    Roots(Vec<PathBuf>),
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

impl fmt::Debug for Parents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Beside => f.write_str("Beside"),
            Self::Roots(roots) => f.debug_tuple("Roots").field(roots).finish(),
            Self::Explicit(paths) => f.debug_tuple("Explicit").field(paths).finish(),
            Self::FirstOf(all) => f.debug_tuple("FirstOf").field(all).finish(),
            Self::With(_) => f.write_str("With(..)"),
        }
    }
}

impl Parents {
    /// Whether there is anything to look for at all.
    fn searches(&self) -> bool {
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
    /// Below a folder of [`Parents::Roots`].
    Root,
    /// By [`Parents::With`].
    Caller,
}

impl FoundBy {
    /// The name in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::RelativePath => "relative path",
            Self::FileName => "file name beside the child",
            Self::Root => "path below a root",
            Self::Caller => "caller",
        }
    }
}

/// A parent that has the identity that its child asks for.
pub(super) struct Found {
    pub(super) image: Image,
    pub(super) found_by: FoundBy,
    /// The key of the parent locator under which the identity stands.
    pub(super) linkage: &'static str,
}

/// The search for the parent of one image.
pub(super) struct Search<'a> {
    child: &'a Image,
    locator: &'a ParentLocator,
    layer: usize,
    /// The files that are in the chain already.
    chain: &'a [FileId],
    log_policy: LogPolicy,
    /// What was found that is not the parent, in order.
    tried: Vec<Candidate>,
    seen: HashSet<PathBuf>,
}

/// How many components of a stored path are tried below a root.
const MOST_COMPONENTS: usize = 16;

impl<'a> Search<'a> {
    pub(super) fn new(
        child: &'a Image,
        locator: &'a ParentLocator,
        layer: usize,
        chain: &'a [FileId],
        log_policy: LogPolicy,
    ) -> Self {
        Self { child, locator, layer, chain, log_policy, tried: Vec::new(), seen: HashSet::new() }
    }

    /// Finds the parent; none if `parents` does not allow to look for one.
    ///
    /// # Errors
    /// What was wrong with the first file that was found and was not taken; [`ErrorKind::ParentNotFound`] if there was
    /// none.
    pub(super) fn run(mut self, parents: &Parents) -> Result<Option<Found>> {
        if !parents.searches() {
            return Ok(None);
        }
        match self.look(parents)? {
            Some(found) => Ok(Some(found)),
            None => Err(self.failure()),
        }
    }

    fn look(&mut self, parents: &Parents) -> Result<Option<Found>> {
        match parents {
            Parents::None => Ok(None),
            Parents::Beside => Ok(self.beside()),
            Parents::Roots(roots) => Ok(roots.iter().find_map(|root| self.below(root))),
            Parents::Explicit(paths) => Ok(paths.iter().find_map(|path| self.given(path))),
            Parents::FirstOf(all) => all.iter().find_map(|parents| self.look(parents).transpose()).transpose(),
            Parents::With(finder) => {
                let request = ParentRequest { child: self.child, locator: self.locator, layer: self.layer };
                let Some(source) = finder(&request)? else { return Ok(None) };
                let path = source.path().unwrap_or(Path::new("(from the caller)")).to_path_buf();
                Ok(self.judge(path, Ok(source), FoundBy::Caller))
            }
        }
    }

    /// A file that the caller names.
    fn given(&mut self, path: &Path) -> Option<Found> {
        let source = self.child.source().open_alike(path);
        if let Ok(source) = &source
            && source.id().is_some_and(|id| self.chain.contains(&id))
        {
            // One of the others that were given, for another layer.
            return None;
        }
        let source = source.map_err(|error| match error.kind() {
            ErrorKind::Open(cause) if cause.kind() == io::ErrorKind::NotFound => Outcome::Missing,
            _ => Outcome::Broken(error),
        });
        self.judge_outcome(path.to_path_buf(), source, FoundBy::Given)
    }

    /// By the stored names, in the child's folder and below.
    fn beside(&mut self) -> Option<Found> {
        let folder = std::fs::canonicalize(self.child.path()?).ok()?.parent()?.to_path_buf();
        if let Some(stored) = &self.locator.relative_path {
            match resolve(&folder, stored) {
                Some(path) if path.starts_with(&folder) => {
                    if let Some(found) = self.search_path(&folder, &path, FoundBy::RelativePath) {
                        return Some(found);
                    }
                }
                outside => {
                    let path = outside.unwrap_or_else(|| PathBuf::from(stored));
                    self.tried.push(Candidate { path, outcome: Outcome::Outside });
                }
            }
        }
        let locator = self.locator;
        let stored = [&locator.relative_path, &locator.absolute_win32_path, &locator.volume_path];
        let names: Vec<&str> = stored.into_iter().flatten().filter_map(|path| names_of(path).last()).collect();
        names.into_iter().find_map(|name| self.search_path(&folder, &folder.join(name), FoundBy::FileName))
    }

    /// By the ends of the stored paths, below a folder.
    fn below(&mut self, root: &Path) -> Option<Found> {
        let root = match std::fs::canonicalize(root) {
            Ok(root) => root,
            Err(error) => {
                let outcome = Outcome::Broken(Error::of(Structure::File, ErrorKind::Open(error)));
                self.tried.push(Candidate { path: root.to_path_buf(), outcome });
                return None;
            }
        };
        let locator = self.locator;
        for stored in [&locator.relative_path, &locator.absolute_win32_path, &locator.volume_path].into_iter().flatten()
        {
            let names: Vec<&str> = names_of(stored).collect();
            let first = names.len().saturating_sub(MOST_COMPONENTS);
            for start in first..names.len() {
                let end: PathBuf = names.get(start..).unwrap_or_default().iter().collect();
                if let Some(found) = self.search_path(&root, &root.join(end), FoundBy::Root) {
                    return Some(found);
                }
            }
        }
        None
    }

    /// Tries a path inside `root`; where there is nothing, the same with other upper and lower case.
    fn search_path(&mut self, root: &Path, path: &Path, found_by: FoundBy) -> Option<Found> {
        let path = match std::fs::symlink_metadata(path) {
            Ok(_) => path.to_path_buf(),
            Err(_) => in_any_case(root, path).unwrap_or_else(|| path.to_path_buf()),
        };
        if !self.seen.insert(path.clone()) {
            return None;
        }
        let source = self.open_inside(root, &path);
        self.judge_outcome(path, source, found_by)
    }

    /// Opens a regular file, if it lies inside `root` when all links are followed.
    fn open_inside(&self, root: &Path, path: &Path) -> Result<Source, Outcome> {
        let broken = |kind| Outcome::Broken(Error::of(Structure::File, kind));
        let real = std::fs::canonicalize(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Outcome::Missing,
            _ => broken(ErrorKind::Open(error)),
        })?;
        if !real.starts_with(root) {
            return Err(Outcome::Outside);
        }
        if !std::fs::symlink_metadata(&real).map_err(|error| broken(ErrorKind::Open(error)))?.is_file() {
            return Err(broken(ErrorKind::NotAFile { what: "not a regular file" }));
        }
        self.child.source().open_alike(&real).map_err(Outcome::Broken)
    }

    fn judge(&mut self, path: PathBuf, source: Result<Source>, found_by: FoundBy) -> Option<Found> {
        self.judge_outcome(path, source.map_err(Outcome::Broken), found_by)
    }

    /// Takes a file for the parent, or notes why not.
    fn judge_outcome(&mut self, path: PathBuf, source: Result<Source, Outcome>, found_by: FoundBy) -> Option<Found> {
        match source.and_then(|source| self.check(source)) {
            Ok((image, linkage)) => Some(Found { image, found_by, linkage }),
            Err(outcome) => {
                self.tried.push(Candidate { path, outcome });
                None
            }
        }
    }

    fn check(&self, source: Source) -> Result<(Image, &'static str), Outcome> {
        if source.id().is_some_and(|id| self.chain.contains(&id)) {
            return Err(Outcome::InChain);
        }
        let image = Image::open(source, self.log_policy).map_err(Outcome::Broken)?;
        let found = image.header().data_write_guid;
        match self.locator.linkage_of(found) {
            Some(linkage) => Ok((image, linkage)),
            None => Err(Outcome::OtherIdentity { found }),
        }
    }

    /// Why no parent was found: the first file that was there says so.
    fn failure(mut self) -> Error {
        let name = self.locator.name().to_owned();
        let is_there = |candidate: &Candidate| !matches!(candidate.outcome, Outcome::Missing | Outcome::Outside);
        let first = self.tried.iter().position(is_there);
        let child_says = |kind| Error::of(Structure::Parent, kind).in_layer(self.layer, self.child.path());
        match first.and_then(|index| self.tried.get(index)).map(|candidate| &candidate.outcome) {
            Some(Outcome::OtherIdentity { .. }) => {
                let expected = self.locator.parent_linkage;
                child_says(ErrorKind::ParentMismatch { name, expected, tried: self.tried })
            }
            Some(Outcome::InChain) => child_says(ErrorKind::ChainCycle),
            Some(Outcome::Broken(_)) => {
                let broken = self.tried.swap_remove(first.unwrap_or(0));
                match broken.outcome {
                    Outcome::Broken(error) => error.in_layer(self.layer.saturating_add(1), Some(&broken.path)),
                    _ => child_says(ErrorKind::ParentNotFound { name, tried: self.tried }),
                }
            }
            _ => child_says(ErrorKind::ParentNotFound { name, tried: self.tried }),
        }
    }
}

/// The names in a stored path, without drive, share markers, volume and the dots that stand for folders.
fn names_of(stored: &str) -> impl Iterator<Item = &str> {
    stored
        .split(['\\', '/', ':'])
        .filter(|name| !matches!(*name, "" | "." | ".." | "?") && !name.starts_with("Volume{"))
}

/// A stored relative path as a path in the file system: `folder` and the path are joined by their names alone, without a
/// look at what is there. None if it is not relative, or leads above the root.
fn resolve(folder: &Path, stored: &str) -> Option<PathBuf> {
    if stored.starts_with(['\\', '/']) || stored.contains(':') {
        return None;
    }
    let mut path = folder.to_path_buf();
    for name in stored.split(['\\', '/']) {
        match name {
            "" | "." => {}
            ".." => {
                if !path.pop() {
                    return None;
                }
            }
            name => path.push(name),
        }
    }
    Some(path)
}

/// The path below `root` that differs from `path` only by upper and lower case; the first one in order, should there be
/// several.
fn in_any_case(root: &Path, path: &Path) -> Option<PathBuf> {
    let lower = |name: &OsStr| name.to_string_lossy().to_lowercase();
    let mut found = root.to_path_buf();
    for name in path.strip_prefix(root).ok()?.components() {
        let exact = found.join(name);
        if std::fs::symlink_metadata(&exact).is_ok() {
            found = exact;
            continue;
        }
        let wanted = lower(name.as_os_str());
        let entries = std::fs::read_dir(&found).ok()?.filter_map(Result::ok).map(|entry| entry.file_name());
        found.push(entries.filter(|entry| lower(entry) == wanted).min()?);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::{names_of, resolve};
    use std::path::{Path, PathBuf};

    #[test]
    fn stored_relative_paths_are_joined_by_name() {
        let joined = |stored| resolve(Path::new("/vms/child"), stored);
        assert_eq!(joined(".\\base.vhdx"), Some(PathBuf::from("/vms/child/base.vhdx")));
        assert_eq!(joined("..\\child\\sub/base.vhdx"), Some(PathBuf::from("/vms/child/sub/base.vhdx")));
        assert_eq!(joined("..\\..\\etc\\passwd"), Some(PathBuf::from("/etc/passwd")));
        assert_eq!(joined("..\\..\\..\\..\\etc\\passwd"), None);
        assert_eq!(joined("\\etc\\passwd"), None);
        assert_eq!(joined("C:base.vhdx"), None);
    }

    #[test]
    fn stored_absolute_paths_are_only_names() {
        let names = |stored| names_of(stored).collect::<Vec<_>>();
        assert_eq!(names("\\\\?\\C:\\vms\\..\\base.vhdx"), ["C", "vms", "base.vhdx"]);
        assert_eq!(names("\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\vms\\b.vhdx"), ["vms", "b.vhdx"]);
        assert_eq!(names("\\\\server\\share\\b.vhdx"), ["server", "share", "b.vhdx"]);
        assert!(names("..\\..").is_empty());
    }
}
