//! Identities of the images in a folder: from their headers alone.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::error::Result;
use crate::format::FileIdentifier;
use crate::image::{Image, ParentLocator, Strictness};
use crate::num::to_u64;
use crate::source::{FolderWalk, FoundFile, is_vanished};

use super::names::FolderNames;

/// Largest number of entries of a folder and its subfolders that a search looks at.
const MOST_ENTRIES: usize = 200_000;

/// Largest number of files in them that a search opens.
const MOST_IMAGES: usize = 20_000;

/// Images in a folder and its subfolders, by their identities.
#[derive(Debug, Default)]
pub(super) struct Identities {
    /// Paths without links, by DataWriteGuid: the longest file first, so that a copy that is not complete comes after
    /// the others.
    by_id: HashMap<Uuid, Vec<(u64, PathBuf)>>,
    /// Number of images.
    pub(super) images: usize,
    /// Number of images and folders that cannot be read.
    pub(super) unreadable: usize,
    /// Whether there were too few files to reach a limit.
    pub(super) is_complete: bool,
}

impl Identities {
    /// Reads the headers of the images in a folder and its subfolders. Links are not followed.
    ///
    /// # Errors
    /// Fails if the folder cannot be read.
    pub(super) fn below(folder: &Path, strictness: Strictness) -> Result<Self> {
        let mut walk = FolderWalk::new(folder, true, MOST_ENTRIES)?;
        let mut found = Self { is_complete: true, ..Self::default() };
        let mut opened = 0_usize;
        for entry in walk.by_ref() {
            // What cannot be read does not hide the parent in another place.
            let entry = match entry {
                Ok(file) if !file.may_be_image() => continue,
                Ok(_) if opened >= MOST_IMAGES => {
                    found.is_complete = false;
                    break;
                }
                Ok(file) => {
                    opened = opened.saturating_add(1);
                    identity(&file, strictness).map(|id| Some((file, id?)))
                }
                Err(error) => Err(error),
            };
            match entry {
                Ok(Some((file, id))) => {
                    found.images = found.images.saturating_add(1);
                    found.by_id.entry(id).or_default().push((file.len, file.into_real()));
                }
                Ok(None) => {}
                Err(error) if is_vanished(&error) => {}
                Err(_) => found.unreadable = found.unreadable.saturating_add(1),
            }
        }
        for files in found.by_id.values_mut() {
            files.sort_by_key(|(length, _)| Reverse(*length));
        }
        found.is_complete &= walk.is_complete();
        Ok(found)
    }

    /// Returns the number of images with an identity.
    pub(super) fn count(&self, id: Uuid) -> usize {
        self.by_id.get(&id).map_or(0, Vec::len)
    }

    /// Returns the images with one of the identities that a child stores: those with its first identity first, and of
    /// these the longest.
    pub(super) fn with_identity(&self, locator: &ParentLocator) -> impl Iterator<Item = &Path> {
        let second = locator.parent_linkage2.filter(|second| *second != locator.parent_linkage);
        let ids = std::iter::once(locator.parent_linkage).chain(second);
        let ids = ids.filter(|id| locator.linkage_of(*id).is_some());
        ids.filter_map(|id| self.by_id.get(&id)).flatten().map(|(_, path)| path.as_path())
    }
}

/// Returns the identity of a file, or `None` if it is not an image.
///
/// # Errors
/// Fails if the file cannot be read, or is an image whose headers are damaged.
pub(super) fn identity(file: &FoundFile, strictness: Strictness) -> Result<Option<Uuid>> {
    let mut signature = [0; 8];
    if file.len < to_u64(signature.len()) {
        return Ok(None);
    }
    let source = file.open_real()?;
    // Most other files can be told from images by their first bytes.
    source.read_exact_at(0, &mut signature)?;
    let is_image = signature == *FileIdentifier::SIGNATURE.as_bytes();
    if strictness == Strictness::Strict && !is_image {
        return Ok(None);
    }
    match Image::header_of(source, strictness) {
        Ok(header) => Ok(Some(header.data_write_guid)),
        Err(_) if !is_image => Ok(None),
        Err(error) => Err(error),
    }
}

/// Facts about folders, kept while a chain is followed, or as long as a caller wants
/// ([`OpenOptions::remember_folders`](super::OpenOptions::remember_folders)).
#[derive(Debug, Default)]
pub(super) struct KnownFolders {
    names: Mutex<HashMap<PathBuf, Arc<FolderNames>>>,
    identities: Mutex<HashMap<(PathBuf, Strictness), Arc<Identities>>>,
}

/// Largest number of folders of each kind that are remembered.
const MOST_FOLDERS: usize = 16;

impl KnownFolders {
    /// Returns the names in a folder.
    ///
    /// # Errors
    /// Fails if the folder cannot be read.
    pub(super) fn names(&self, folder: &Path) -> std::io::Result<Arc<FolderNames>> {
        remembered(&self.names, folder.to_path_buf(), || FolderNames::read(folder))
    }

    /// Returns the images in a folder and its subfolders.
    ///
    /// # Errors
    /// Fails if the folder cannot be read.
    pub(super) fn identities(&self, folder: &Path, strictness: Strictness) -> Result<Arc<Identities>> {
        let key = (folder.to_path_buf(), strictness);
        remembered(&self.identities, key, || Identities::below(folder, strictness))
    }
}

/// Returns a known value, or reads it. Other threads wait for it meanwhile.
fn remembered<K: Eq + Hash, V, E>(
    known: &Mutex<HashMap<K, Arc<V>>>,
    key: K,
    read: impl FnOnce() -> Result<V, E>,
) -> Result<Arc<V>, E> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(value) = known.get(&key) {
        return Ok(Arc::clone(value));
    }
    let value = Arc::new(read()?);
    if known.len() >= MOST_FOLDERS {
        known.clear();
    }
    known.insert(key, Arc::clone(&value));
    Ok(value)
}
