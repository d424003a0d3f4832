//! Finding the parent of an image: where a search may look, and how it is made sure that it is the right one.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use crate::error::{Candidate, Error, ErrorKind, Outcome, Result, Structure};
use crate::format::KIB_64;
use crate::image::{Image, LogPolicy, ParentLocator};
use crate::source::{Allow, FileId, OpenFile, Source};

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

/// What is known of files while a chain is followed.
#[derive(Default)]
pub(super) struct KnownFiles {
    /// The files that are in the chain already.
    pub(super) chain: Vec<FileId>,
    /// Files that the caller named, once they have been looked at: which file, and its identity.
    given: HashMap<PathBuf, (FileId, Uuid)>,
}

/// The search for the parent of one image.
pub(super) struct Search<'a> {
    child: &'a Image,
    locator: &'a ParentLocator,
    layer: usize,
    files: &'a mut KnownFiles,
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
        files: &'a mut KnownFiles,
        log_policy: LogPolicy,
    ) -> Self {
        Self { child, locator, layer, files, log_policy, tried: Vec::new(), seen: HashSet::new() }
    }

    /// Finds the parent.
    ///
    /// # Errors
    /// What is wrong with the files that were found; [`ErrorKind::ParentNotFound`] if there was none.
    pub(super) fn run(mut self, parents: &Parents) -> Result<Found> {
        self.look(parents)?.ok_or_else(|| self.failure())
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
                let found = self.check_source(source);
                Ok(self.take(path, found, FoundBy::Caller))
            }
        }
    }

    /// A file that the caller names.
    fn given(&mut self, path: &Path) -> Option<Found> {
        if let Some((id, identity)) = self.files.given.get(path) {
            // One of those that were given for other layers: not worth opening again, nor mentioning.
            if self.files.chain.contains(id) {
                return None;
            }
            if self.locator.linkage_of(*identity).is_none() {
                let found = *identity;
                return self.take(path.to_path_buf(), Err(Outcome::OtherIdentity { found }), FoundBy::Given);
            }
        }
        let opened = OpenFile::open(path, Allow::Named).map_err(outcome_of_opening);
        if let Ok(file) = &opened
            && self.files.chain.contains(file.id())
        {
            return None;
        }
        let found = opened.and_then(|file| {
            let identity = identity_of(&file)?;
            self.files.given.insert(path.to_path_buf(), (file.id().clone(), identity));
            self.check(file, identity)
        });
        self.take(path.to_path_buf(), found, FoundBy::Given)
    }

    /// By the stored names, in the child's folder and below.
    fn beside(&mut self) -> Option<Found> {
        let folder = std::fs::canonicalize(self.child.path()?).ok()?.parent()?.to_path_buf();
        let locator = self.locator;
        if let Some(stored) = &locator.relative_path {
            let joined = resolve(&folder, stored);
            match joined.as_deref().and_then(|path| path.strip_prefix(&folder).ok()) {
                Some(inside) => {
                    if let Some(found) = self.search(&folder, inside, FoundBy::RelativePath) {
                        return Some(found);
                    }
                }
                None => self.tried.push(Candidate { path: PathBuf::from(stored), outcome: Outcome::Outside }),
            }
        }
        let stored = [&locator.relative_path, &locator.absolute_win32_path, &locator.volume_path];
        let mut names = stored.into_iter().flatten().filter_map(|path| names_of(path).last());
        names.find_map(|name| self.search(&folder, Path::new(name), FoundBy::FileName))
    }

    /// By the ends of the stored paths, below a folder.
    fn below(&mut self, root: &Path) -> Option<Found> {
        let folder = match std::fs::canonicalize(root) {
            Ok(folder) => folder,
            Err(error) => {
                let outcome = outcome_of_opening(Error::of(Structure::File, ErrorKind::Open(error)));
                return self.take(root.to_path_buf(), Err(outcome), FoundBy::Root);
            }
        };
        let locator = self.locator;
        let stored = [&locator.relative_path, &locator.absolute_win32_path, &locator.volume_path];
        stored.into_iter().flatten().find_map(|stored| {
            let names: Vec<&str> = names_of(stored).collect();
            let first = names.len().saturating_sub(MOST_COMPONENTS);
            (first..names.len()).find_map(|start| {
                let end: PathBuf = names.get(start..).unwrap_or_default().iter().collect();
                self.search(&folder, &end, FoundBy::Root)
            })
        })
    }

    /// Tries what a path below `folder`, which has no links in it, leads to.
    fn search(&mut self, folder: &Path, inside: &Path, found_by: FoundBy) -> Option<Found> {
        walks(folder, inside).into_iter().find_map(|walked| {
            let path = walked.as_ref().map_or_else(|_| folder.join(inside), PathBuf::clone);
            if !self.seen.insert(path.clone()) {
                return None;
            }
            let found = walked.and_then(|path| {
                let file = OpenFile::open(&path, Allow::Searched).map_err(outcome_of_searching)?;
                if self.files.chain.contains(file.id()) {
                    return Err(Outcome::InChain);
                }
                let identity = identity_of(&file)?;
                self.check(file, identity)
            });
            self.take(path, found, found_by)
        })
    }

    /// Takes a file for the parent, or notes why not.
    fn take(
        &mut self,
        path: PathBuf,
        found: Result<(Image, &'static str), Outcome>,
        found_by: FoundBy,
    ) -> Option<Found> {
        match found {
            Ok((image, linkage)) => Some(Found { image, found_by, linkage }),
            Err(outcome) => {
                self.tried.push(Candidate { path, outcome });
                None
            }
        }
    }

    /// Opens a file as an image, once its identity is known to be the right one: before that, nothing of it but its
    /// headers is read.
    fn check(&self, file: OpenFile, identity: Uuid) -> Result<(Image, &'static str), Outcome> {
        let linkage = self.linkage_of(identity)?;
        self.open(self.child.source().alike(file), linkage)
    }

    /// The same for bytes that are in memory already.
    fn check_source(&self, source: Source) -> Result<(Image, &'static str), Outcome> {
        if source.id().is_some_and(|id| self.files.chain.contains(&id)) {
            return Err(Outcome::InChain);
        }
        let linkage = self.linkage_of(Image::identity(source.clone()).map_err(Outcome::Broken)?)?;
        self.open(Ok(source), linkage)
    }

    fn linkage_of(&self, found: Uuid) -> Result<&'static str, Outcome> {
        self.locator.linkage_of(found).ok_or(Outcome::OtherIdentity { found })
    }

    /// Opens what has the right identity.
    fn open(&self, source: Result<Source>, linkage: &'static str) -> Result<(Image, &'static str), Outcome> {
        let image = source.and_then(|source| Image::open(source, self.log_policy)).map_err(Outcome::Unusable)?;
        let (found, expected) = (image.logical_sector_size(), self.child.logical_sector_size());
        if found != expected {
            let kind = ErrorKind::SectorSizeMismatch { found, expected };
            return Err(Outcome::Unusable(Error::of(Structure::MetadataItem("LogicalSectorSize"), kind)));
        }
        Ok((image, linkage))
    }

    /// Why no parent was found: what was there says more than what was not.
    fn failure(&mut self) -> Error {
        let rank = |candidate: &Candidate| match candidate.outcome {
            Outcome::Unusable(_) => 0,
            Outcome::OtherIdentity { .. } => 1,
            Outcome::InChain => 2,
            Outcome::Broken(_) => 3,
            Outcome::Missing | Outcome::Outside | Outcome::NotAFile { .. } => 4,
        };
        let mut tried = std::mem::take(&mut self.tried);
        let telling = (0..tried.len()).min_by_key(|index| tried.get(*index).map(rank)).unwrap_or(0);
        let name = self.locator.name().to_owned();
        let kind = match tried.get(telling).map(|candidate| &candidate.outcome) {
            Some(Outcome::OtherIdentity { .. }) => {
                ErrorKind::ParentMismatch { name, expected: self.locator.parent_linkage, tried }
            }
            Some(Outcome::InChain) => ErrorKind::ChainCycle,
            Some(Outcome::Broken(_) | Outcome::Unusable(_)) => match tried.swap_remove(telling) {
                Candidate { path, outcome: Outcome::Broken(error) | Outcome::Unusable(error) } => {
                    return error.in_layer(self.layer.saturating_add(1), Some(&path));
                }
                other => ErrorKind::ParentNotFound { name, tried: vec![other] },
            },
            _ => ErrorKind::ParentNotFound { name, tried },
        };
        Error::of(Structure::Parent, kind).in_layer(self.layer, self.child.path())
    }
}

/// What becomes of a candidate that can't be opened.
fn outcome_of_opening(error: Error) -> Outcome {
    match error.kind() {
        ErrorKind::Open(cause) if is_nowhere(cause) => Outcome::Missing,
        _ => Outcome::Broken(error),
    }
}

/// The same for one that the caller has not named: a stored name may well lead to something else than a file.
fn outcome_of_searching(error: Error) -> Outcome {
    match error.kind() {
        ErrorKind::NotAFile { what } => Outcome::NotAFile { what },
        _ => outcome_of_opening(error),
    }
}

/// Whether there is nothing at a path, or can't be: another system may have longer names than this one.
fn is_nowhere(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

/// The identity of an image, by its headers alone.
fn identity_of(file: &OpenFile) -> Result<Uuid, Outcome> {
    let head = file.head(END_OF_HEADERS).map_err(Outcome::Broken)?;
    Image::identity(Source::from_vec(head)).map_err(Outcome::Broken)
}

/// Where the headers end, and the region tables begin (MS-VHDX 2.2).
const END_OF_HEADERS: u64 = 3 * KIB_64;

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

/// How many links are followed in one path.
const MOST_LINKS: usize = 40;

/// How many files one path may lead to, where names differ in upper and lower case only.
const MOST_WALKS: usize = 64;

/// A way through folders.
struct Walk {
    /// Where it has come to.
    path: PathBuf,
    /// The steps that are left; the last one is the next.
    ahead: Vec<OsString>,
    /// How many links it has followed.
    links: usize,
}

/// The files to which the path `inside` leads below `folder`, an absolute path without links. Upper and lower case may
/// differ where no name is the exact one; so there may be several, in the order of their names.
///
/// Links are followed step by step and by their text, so that nothing outside of the folder is even looked at.
///
/// The outcome of a way that leads to no file is [`Outcome::Missing`], [`Outcome::Outside`], or [`Outcome::Broken`] if a
/// folder can't be read.
fn walks(folder: &Path, inside: &Path) -> Vec<Result<PathBuf, Outcome>> {
    let mut found = Vec::new();
    let mut ways = vec![Walk { path: folder.to_path_buf(), ahead: steps(inside), links: 0 }];
    while let Some(way) = ways.pop().filter(|_| found.len() < MOST_WALKS) {
        found.push(walk(folder, way, &mut ways));
    }
    found
}

/// The steps of a path, the first one last.
fn steps(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|step| step.as_os_str().to_owned()).collect()
}

/// The names in a folder that differ from this one in upper and lower case only, the first in order last.
fn names_alike(folder: &Path, name: &OsStr) -> io::Result<Vec<OsString>> {
    let lower = |name: &OsStr| name.to_string_lossy().to_lowercase();
    let wanted = lower(name);
    let names = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let mut names: Vec<OsString> = names.filter(|name| lower(name) == wanted).collect();
    names.sort_by(|one, other| other.cmp(one));
    Ok(names)
}

/// Goes one way to its end; where it parts, the other ways are put to `ways`.
fn walk(folder: &Path, way: Walk, ways: &mut Vec<Walk>) -> Result<PathBuf, Outcome> {
    let broken = |error: io::Error| outcome_of_opening(Error::of(Structure::File, ErrorKind::Open(error)));
    let Walk { mut path, mut ahead, mut links } = way;
    while let Some(step) = ahead.pop() {
        if step == *"." {
            continue;
        }
        if step == *".." {
            if path == folder {
                return Err(Outcome::Outside);
            }
            path.pop();
            continue;
        }
        let mut next = path.join(&step);
        let found = match std::fs::symlink_metadata(&next) {
            Err(error) if is_nowhere(&error) => {
                let mut names = names_alike(&path, &step).map_err(broken)?;
                let first = names.pop().ok_or(Outcome::Missing)?;
                let way_by = |name| Walk { path: path.clone(), ahead: [ahead.clone(), vec![name]].concat(), links };
                ways.extend(names.into_iter().take(MOST_WALKS).map(way_by));
                next = path.join(first);
                std::fs::symlink_metadata(&next)
            }
            found => found,
        };
        if !found.map_err(broken)?.is_symlink() {
            path = next;
            continue;
        }
        links = MOST_LINKS.min(links).saturating_add(1);
        let target = std::fs::read_link(&next).map_err(broken)?;
        if target.is_absolute() {
            path = folder.to_path_buf();
        }
        let target = if target.is_absolute() { target.strip_prefix(folder).ok() } else { Some(target.as_path()) };
        let target = target.filter(|_| links <= MOST_LINKS).ok_or(Outcome::Outside)?;
        ahead.extend(steps(target));
    }
    Ok(path)
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
