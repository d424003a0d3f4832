//! Files in folders. Links are not followed, and nothing but regular files is returned, so a walk neither leaves its
//! folder nor waits for a pipe or a device.

use std::ffi::{OsStr, OsString};
use std::fs::FileType;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result, Structure};

use super::{Allow, OpenFile, Source};

/// Largest number of folders inside each other that a walk enters.
const MOST_LEVELS: usize = 64;

/// Smallest length of a file that may be an image, in bytes: the header section (MS-VHDX 2.2).
const SMALLEST_IMAGE: u64 = 1 << 20;

/// Regular file in a folder.
#[derive(Clone, Debug)]
pub(crate) struct FoundFile {
    /// Path that begins with the folder as the caller named it.
    pub(crate) path: PathBuf,
    /// Path without links.
    real: PathBuf,
    /// Length in bytes.
    pub(crate) len: u64,
}

impl FoundFile {
    /// Opens the file, unless it has been replaced by something else than a regular file. Links are not followed.
    pub(crate) fn open(&self) -> Result<Source> {
        let mut file = OpenFile::open(&self.real, Allow::Searched)?;
        file.path.clone_from(&self.path);
        Ok(Source::of_file(file))
    }

    /// Returns the regular file `name` in `folder`, a path without links, if it is one.
    pub(crate) fn in_folder(folder: &Path, name: &OsStr) -> Option<Self> {
        let path = folder.join(name);
        let metadata = std::fs::symlink_metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
        Some(Self { real: path.clone(), path, len: metadata.len() })
    }

    /// Returns the path without links.
    pub(crate) fn into_real(self) -> PathBuf {
        self.real
    }

    /// Opens the file under its path without links.
    pub(crate) fn open_real(&self) -> Result<Source> {
        OpenFile::open(&self.real, Allow::Searched).map(Source::of_file)
    }

    /// Returns whether the file has the name of an image.
    pub(crate) fn has_image_name(&self) -> bool {
        let extension = self.path.extension();
        extension.is_some_and(|name| ["vhdx", "avhdx"].iter().any(|known| name.eq_ignore_ascii_case(known)))
    }

    /// Returns whether the file may be an image, by name and length alone.
    pub(crate) fn may_be_image(&self) -> bool {
        self.has_image_name() || self.len >= SMALLEST_IMAGE
    }
}

/// Iterator over the regular files of a folder, in the order of their names. Folders that cannot be read are errors,
/// which name the path, and so are entries that vanish during the walk ([`is_vanished`]); it continues after them.
#[derive(Debug)]
pub(crate) struct FolderWalk {
    /// The folders that the walk is in, the innermost last.
    levels: Vec<Level>,
    is_recursive: bool,
    /// Number of entries that may still be looked at.
    entries_left: usize,
    /// Number of links that were not followed.
    links: u64,
    /// Error that ended the list of the top folder, until it is returned.
    top_error: Option<Error>,
}

#[derive(Debug)]
struct Level {
    path: PathBuf,
    real: PathBuf,
    entries: std::vec::IntoIter<(OsString, Option<FileType>)>,
}

impl FolderWalk {
    /// Begins a walk through `folder`, which may be a link. Looks at `most_entries` at most.
    ///
    /// # Errors
    /// Fails if the folder cannot be read.
    pub(crate) fn new(folder: &Path, is_recursive: bool, most_entries: usize) -> Result<Self> {
        // The folder of a bare name.
        let named = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let real = std::fs::canonicalize(named).map_err(|error| failed(folder, error))?;
        let mut walk = Self { levels: Vec::new(), is_recursive, entries_left: most_entries, links: 0, top_error: None };
        match walk.enter(folder.to_path_buf(), real) {
            Some(error) if walk.levels.is_empty() => Err(error),
            // The rest can still be returned.
            error => Ok(Self { top_error: error, ..walk }),
        }
    }

    /// Returns whether the walk has looked at everything so far.
    pub(crate) fn is_complete(&self) -> bool {
        self.entries_left > 0
    }

    /// Returns the number of symbolic links so far, which were not followed.
    pub(crate) fn links(&self) -> u64 {
        self.links
    }

    /// Lists a folder. Returns the error that ended the list, if any.
    fn enter(&mut self, path: PathBuf, real: PathBuf) -> Option<Error> {
        let list = match std::fs::read_dir(&real) {
            Ok(list) => list,
            Err(error) => return Some(folder_failed(&path, error)),
        };
        let (mut entries, mut ended_by) = (Vec::new(), None);
        for entry in list {
            match entry {
                Ok(_) if self.entries_left == 0 => break,
                Ok(entry) => {
                    self.entries_left = self.entries_left.saturating_sub(1);
                    entries.push((entry.file_name(), entry.file_type().ok()));
                }
                Err(error) => {
                    ended_by = Some(folder_failed(&path, error));
                    break;
                }
            }
        }
        entries.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        self.levels.push(Level { path, real, entries: entries.into_iter() });
        ended_by
    }
}

impl Iterator for FolderWalk {
    type Item = Result<FoundFile>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.top_error.take() {
            return Some(Err(error));
        }
        loop {
            let level = self.levels.last_mut()?;
            let Some((name, file_type)) = level.entries.next() else {
                self.levels.pop();
                continue;
            };
            let (path, real) = (level.path.join(&name), level.real.join(&name));
            if file_type.is_some_and(|kind| kind.is_dir()) {
                if !self.is_recursive {
                    continue;
                }
                if self.levels.len() >= MOST_LEVELS {
                    let reason = "it is inside 64 others (expected at most 64 levels of folders)";
                    return Some(Err(folder_failed(&path, io::Error::other(reason))));
                }
                match self.enter(path, real) {
                    Some(error) => return Some(Err(error)),
                    None => continue,
                }
            }
            if file_type.is_some_and(|kind| kind.is_symlink()) {
                self.links = self.links.saturating_add(1);
                continue;
            }
            if file_type.is_some_and(|kind| !kind.is_file()) {
                continue;
            }
            match std::fs::symlink_metadata(&real) {
                Ok(metadata) if metadata.is_file() => return Some(Ok(FoundFile { path, real, len: metadata.len() })),
                Ok(_) => {}
                Err(error) => return Some(Err(failed(&path, error))),
            }
        }
    }
}

/// Returns whether an error says that a file or folder does not exist: during a walk, it was removed.
pub(crate) fn is_vanished(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Open(cause) if cause.kind() == io::ErrorKind::NotFound)
}

fn folder_failed(path: &Path, error: io::Error) -> Error {
    Error::of(Structure::Folder, ErrorKind::Open(error.into())).in_file(Some(path))
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::of(Structure::File, ErrorKind::Open(error.into())).in_file(Some(path))
}
