//! The search for the parent of an image, and how it is made sure that it is the right one.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use crate::error::{Candidate, Category, Error, ErrorKind, ParentRejection, Result, Structure};
use crate::image::{Image, Linkage, MetadataOverrides, ParentLocator, Strictness, Warnings};
use crate::source::{Allow, FileId, FoundFile, OpenFile, Source};

use super::identities::{Identities, KnownFolders, identity};
use super::options::OpenOptions;
use super::parents::{FoundBy, ParentRequest, Parents};
use super::stored_path::{names_of, rejection_of_opening, resolve, walks};

/// A parent with the identity that its child stores.
pub(super) struct Found {
    pub(super) image: Image,
    pub(super) found_by: FoundBy,
    /// Key of the parent locator with the identity.
    pub(super) linkage: Linkage,
    /// Number of other files with the identity that were found with it.
    pub(super) others: usize,
}

/// Reason why there is no parent.
pub(super) struct NotFound {
    pub(super) error: Error,
    /// Other problems of the file that should be the parent, if it could be read.
    pub(super) warnings: Warnings,
}

impl From<Error> for NotFound {
    fn from(error: Error) -> Self {
        Self { error, warnings: Warnings::default() }
    }
}

/// Facts about files, kept while a chain is followed.
#[derive(Default)]
pub(super) struct KnownFiles {
    /// Files that are part of the chain.
    pub(super) chain: Vec<FileId>,
    /// Files that the caller named and that were inspected, with their identities.
    given: HashMap<PathBuf, (FileId, Uuid)>,
    /// Names and identities in folders, which are looked at once for the whole chain.
    folders: Arc<KnownFolders>,
}

impl KnownFiles {
    pub(super) fn new(options: &OpenOptions) -> Self {
        Self { folders: options.folders.clone().unwrap_or_default(), ..Self::default() }
    }
}

/// Search for the parent of one image.
pub(super) struct Search<'a> {
    child: &'a Image,
    locator: &'a ParentLocator,
    layer: usize,
    files: &'a mut KnownFiles,
    options: &'a OpenOptions,
    /// Rejected files, in order.
    tried: Vec<Candidate>,
    /// Problems of the first file with the right identity that cannot be used.
    unusable: Option<Warnings>,
    seen: HashSet<PathBuf>,
}

/// Largest number of path components that are tried below a root.
const MOST_COMPONENTS: usize = 16;

impl<'a> Search<'a> {
    pub(super) fn new(
        child: &'a Image,
        locator: &'a ParentLocator,
        layer: usize,
        files: &'a mut KnownFiles,
        options: &'a OpenOptions,
    ) -> Self {
        Self { child, locator, layer, files, options, tried: Vec::new(), unusable: None, seen: HashSet::new() }
    }

    /// Finds the parent.
    ///
    /// # Errors
    /// The problems of the files that were found; [`ErrorKind::ParentNotFound`] if no file was found.
    pub(super) fn run(mut self, parents: &Parents) -> Result<Found, NotFound> {
        let error = match self.look(parents) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => match self.by_similar_name(parents) {
                Some(found) => return Ok(found),
                None => self.failure(),
            },
            Err(error) => error,
        };
        Err(NotFound { error, warnings: self.unusable.unwrap_or_default() })
    }

    fn look(&mut self, parents: &Parents) -> Result<Option<Found>> {
        match parents {
            Parents::None => Ok(None),
            Parents::Beside => Ok(self.beside()),
            Parents::Within(roots) => {
                let by_name = roots.iter().find_map(|root| self.below(root));
                Ok(by_name.or_else(|| roots.iter().find_map(|root| self.by_identity(root))))
            }
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

    /// Tries a file that the caller named.
    fn given(&mut self, path: &Path) -> Option<Found> {
        if let Some((id, identity)) = self.files.given.get(path) {
            // A file that was given for another layer: neither opened again nor reported.
            if self.files.chain.contains(id) {
                return None;
            }
            if self.locator.linkage_of(*identity).is_none() {
                let found = *identity;
                return self.take(path.to_path_buf(), Err(ParentRejection::OtherIdentity { found }), FoundBy::Given);
            }
        }
        let opened = open_file(path, self.options.allow_named()).map_err(rejection_of_opening);
        if let Ok(file) = &opened
            && file.id().is_some_and(|id| self.files.chain.contains(&id))
        {
            return None;
        }
        let found = opened.and_then(|file| {
            let identity = identity_of(&file, self.options.strictness)?;
            if let Some(id) = file.id() {
                self.files.given.insert(path.to_path_buf(), (id, identity));
            }
            self.check(file, identity)
        });
        self.take(path.to_path_buf(), found, FoundBy::Given)
    }

    /// Tries the stored names, in the child's folder and below.
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
                None => self.tried.push(Candidate { path: PathBuf::from(stored), rejection: ParentRejection::Outside }),
            }
        }
        let stored = [&locator.relative_path, &locator.absolute_win32_path, &locator.volume_path];
        let mut names = stored.into_iter().flatten().filter_map(|path| names_of(path).last());
        names.find_map(|name| self.search(&folder, Path::new(name), FoundBy::FileName))
    }

    /// Tries the files beside the child whose names look like a stored name, after all other searches. They are only
    /// mentioned if one of them is the parent.
    fn by_similar_name(&mut self, parents: &Parents) -> Option<Found> {
        if !parents.includes_beside() {
            return None;
        }
        let folder = std::fs::canonicalize(self.child.path()?).ok()?.parent()?.to_path_buf();
        let locator = self.locator;
        let stored = [&locator.relative_path, &locator.absolute_win32_path, &locator.volume_path];
        let folders = Arc::clone(&self.files.folders);
        // A folder that cannot be listed is reported by the searches before.
        let names = folders.names(&folder).ok()?;
        let stored = stored.into_iter().flatten().filter_map(|path| names_of(path).last());
        stored.flat_map(|stored| names.similar(stored)).find_map(|name| {
            let file = FoundFile::in_folder(&folder, name).filter(FoundFile::may_be_image)?;
            let is_parent = match identity(&file, self.options.strictness) {
                Ok(id) => id.is_some_and(|id| locator.linkage_of(id).is_some()),
                // It may be the parent.
                Err(error) if matches!(error.category(), Category::Open | Category::Io) => {
                    let found = self.seen.insert(file.path.clone()).then(|| rejection_of_searching(error))?;
                    return self.take(file.path, Err(found), FoundBy::Identity);
                }
                Err(_) => false,
            };
            if is_parent { self.take_found(&file.path) } else { None }
        })
    }

    /// Tries the images below a folder that have the identity, whatever their names are.
    fn by_identity(&mut self, root: &Path) -> Option<Found> {
        // `below` has reported a path that is not a folder.
        let folder = std::fs::canonicalize(root).ok().filter(|folder| folder.is_dir())?;
        let known = match self.files.folders.identities(&folder, self.options.strictness) {
            Ok(known) => known,
            Err(error) => return self.take(root.to_path_buf(), Err(rejection_of_opening(error)), FoundBy::Identity),
        };
        let mut found = known.with_identity(self.locator).find_map(|path| self.take_found(path));
        if let Some(found) = &mut found {
            found.others = known.count(found.image.header().data_write_guid).saturating_sub(1);
        } else {
            let Identities { images, unreadable, is_complete, .. } = *known;
            let rejection = ParentRejection::NoneWithin { images, unreadable, is_complete };
            self.tried.push(Candidate { path: root.to_path_buf(), rejection });
        }
        found
    }

    /// Accepts a file with the right identity, unless it was tried by its name already.
    fn take_found(&mut self, path: &Path) -> Option<Found> {
        if !self.seen.insert(path.to_path_buf()) {
            return None;
        }
        let opened = open_file(path, Allow::Searched).map_err(rejection_of_searching);
        if let Ok(file) = &opened
            && file.id().is_some_and(|id| self.files.chain.contains(&id))
        {
            return None;
        }
        let found = opened.and_then(|file| {
            let identity = identity_of(&file, self.options.strictness)?;
            self.check(file, identity)
        });
        self.take(path.to_path_buf(), found, FoundBy::Identity)
    }

    /// Tries the ends of the stored paths, below a folder.
    fn below(&mut self, root: &Path) -> Option<Found> {
        let folder = match std::fs::canonicalize(root) {
            Ok(folder) if folder.is_dir() => folder,
            Ok(_) => return self.take(root.to_path_buf(), Err(ParentRejection::NotAFolder), FoundBy::Root),
            Err(error) => {
                let rejection = match rejection_of_opening(Error::of(Structure::Folder, ErrorKind::Open(error.into())))
                {
                    ParentRejection::Missing => ParentRejection::NoFolder,
                    rejection => rejection,
                };
                return self.take(root.to_path_buf(), Err(rejection), FoundBy::Root);
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

    /// Tries the files to which a path below `folder`, which contains no links, leads.
    fn search(&mut self, folder: &Path, inside: &Path, found_by: FoundBy) -> Option<Found> {
        walks(folder, inside, &self.files.folders).into_iter().find_map(|walked| {
            let path = walked.as_ref().map_or_else(|_| folder.join(inside), PathBuf::clone);
            if !self.seen.insert(path.clone()) {
                return None;
            }
            let found = walked.and_then(|path| {
                let file = open_file(&path, Allow::Searched).map_err(rejection_of_searching)?;
                if file.id().is_some_and(|id| self.files.chain.contains(&id)) {
                    return Err(ParentRejection::InChain);
                }
                let identity = identity_of(&file, self.options.strictness)?;
                self.check(file, identity)
            });
            self.take(path, found, found_by)
        })
    }

    /// Accepts a file as the parent, or notes why it is rejected.
    fn take(
        &mut self,
        path: PathBuf,
        found: Result<(Image, Linkage), ParentRejection>,
        found_by: FoundBy,
    ) -> Option<Found> {
        match found {
            Ok((image, linkage)) => Some(Found { image, found_by, linkage, others: 0 }),
            Err(rejection) => {
                self.tried.push(Candidate { path, rejection });
                None
            }
        }
    }

    /// Opens a file as an image after its identity was verified. Before that, only its headers are read.
    fn check(&mut self, file: Source, identity: Uuid) -> Result<(Image, Linkage), ParentRejection> {
        let linkage = self.linkage_of(identity)?;
        self.open(self.options.open_parent(file), linkage)
    }

    /// Verifies and opens bytes that are in memory.
    fn check_source(&mut self, source: Source) -> Result<(Image, Linkage), ParentRejection> {
        if source.id().is_some_and(|id| self.files.chain.contains(&id)) {
            return Err(ParentRejection::InChain);
        }
        let linkage = self.linkage_of(
            Image::header_of(source.clone(), self.options.strictness).map_err(ParentRejection::Broken)?.data_write_guid,
        )?;
        self.open(Ok(source), linkage)
    }

    fn linkage_of(&self, found: Uuid) -> Result<Linkage, ParentRejection> {
        self.locator.linkage_of(found).ok_or(ParentRejection::OtherIdentity { found })
    }

    /// Opens a file with the right identity.
    fn open(&mut self, source: Result<Source>, linkage: Linkage) -> Result<(Image, Linkage), ParentRejection> {
        let OpenOptions { log_policy, strictness, .. } = *self.options;
        let mut warnings = Warnings::new(strictness);
        let opened = source
            .and_then(|source| Image::open_noting(source, log_policy, &MetadataOverrides::default(), &mut warnings));
        let image = opened.map_err(|error| {
            self.unusable.get_or_insert(warnings);
            ParentRejection::Unusable(error)
        })?;
        let (found, expected) = (image.logical_sector_size(), self.child.logical_sector_size());
        if found != expected {
            let kind = ErrorKind::SectorSizeMismatch { found, expected };
            return Err(ParentRejection::Unusable(Error::of(Structure::MetadataItem("LogicalSectorSize"), kind)));
        }
        Ok((image, linkage))
    }

    /// Returns why no parent was found. Files that exist explain more than missing ones.
    fn failure(&mut self) -> Error {
        let rank = |candidate: &Candidate| match candidate.rejection {
            ParentRejection::Unusable(_) => 0,
            ParentRejection::OtherIdentity { .. } => 1,
            ParentRejection::InChain => 2,
            ParentRejection::Broken(_) => 3,
            ParentRejection::Missing
            | ParentRejection::Outside
            | ParentRejection::NoneWithin { .. }
            | ParentRejection::NoFolder
            | ParentRejection::NotAFolder
            | ParentRejection::NotAFile { .. } => 4,
        };
        let mut tried = std::mem::take(&mut self.tried);
        let telling = (0..tried.len()).min_by_key(|index| tried.get(*index).map(rank)).unwrap_or(0);
        let name = self.locator.name().to_owned();
        let kind = match tried.get(telling).map(|candidate| &candidate.rejection) {
            Some(ParentRejection::OtherIdentity { .. }) => {
                ErrorKind::ParentMismatch { name, expected: self.locator.parent_linkage, tried }
            }
            Some(ParentRejection::InChain) => ErrorKind::ChainCycle,
            Some(ParentRejection::Broken(_) | ParentRejection::Unusable(_)) => match tried.swap_remove(telling) {
                Candidate { path, rejection: ParentRejection::Broken(error) | ParentRejection::Unusable(error) } => {
                    return error.in_layer(self.layer.saturating_add(1), Some(&path));
                }
                other => ErrorKind::ParentNotFound { name, tried: vec![other] },
            },
            _ => ErrorKind::ParentNotFound { name, tried },
        };
        Error::of(Structure::Parent, kind).in_layer(self.layer, self.child.path())
    }
}

/// Returns the rejection of a file that the caller did not name: a stored name may lead to something other than a file.
fn rejection_of_searching(error: Error) -> ParentRejection {
    match error.kind() {
        ErrorKind::NotAFile { what } => ParentRejection::NotAFile { what },
        _ => rejection_of_opening(error),
    }
}

/// Opens a file of which only the headers are looked at, for now.
fn open_file(path: &Path, allow: Allow) -> Result<Source> {
    OpenFile::open(path, allow).map(Source::of_file)
}

/// Returns the identity of an image, from its headers alone.
fn identity_of(file: &Source, strictness: Strictness) -> Result<Uuid, ParentRejection> {
    let header = Image::header_of(file.clone(), strictness);
    header.map(|header| header.data_write_guid).map_err(ParentRejection::Broken)
}

/// In a salvage, returns the parent of an image that cannot be recognised by its identity: the file that the caller
/// named. That is the first file that has lost its identity, or else the only file that is not part of the chain yet.
pub(super) fn named(child: &Image, files: &KnownFiles, options: &OpenOptions) -> Option<Image> {
    let mut unknown = None;
    let mut others = Vec::new();
    for path in options.parents.explicit() {
        let Ok(file) = open_file(path, options.allow_named()) else { continue };
        if file.id().is_some_and(|id| files.chain.contains(&id)) {
            continue;
        }
        if unknown.is_none() && identity_of(&file, options.strictness).is_err() {
            unknown = Some(file);
        } else {
            others.push(file);
        }
    }
    let only = if others.len() == 1 { others.pop() } else { None };
    let source = options.open_parent(unknown.or(only)?).ok()?;
    let image = Image::open_with(source, options.log_policy, options.strictness, &MetadataOverrides::default()).ok()?;
    (image.logical_sector_size() == child.logical_sector_size()).then_some(image)
}
