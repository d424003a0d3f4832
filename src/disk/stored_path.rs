//! Conversion of stored parent paths to files, confined to a folder.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, ParentRejection, Result, Structure};

use super::identities::KnownFolders;

/// Returns the rejection of a candidate that cannot be opened.
pub(super) fn rejection_of_opening(error: Error) -> ParentRejection {
    match error.kind() {
        ErrorKind::Open(cause) if is_missing(cause) => ParentRejection::Missing,
        _ => ParentRejection::Broken(error),
    }
}

/// Returns whether nothing can exist at a path. Another system may allow longer names than this one.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

/// Returns the names in a stored path, without drive, share markers, volume, and the dots for folders.
pub(crate) fn names_of(stored: &str) -> impl Iterator<Item = &str> {
    stored
        .split(['\\', '/', ':'])
        .filter(|name| !matches!(*name, "" | "." | ".." | "?") && !name.starts_with("Volume{"))
}

/// Joins `folder` and a stored relative path by their names, without access to the file system. Returns `None` if the
/// path is not relative, or leads above the root.
pub(super) fn resolve(folder: &Path, stored: &str) -> Option<PathBuf> {
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

/// Largest number of links that are followed in one path.
const MOST_LINKS: usize = 40;

/// Largest number of files to which one path may lead, if names differ only in upper and lower case.
const MOST_WALKS: usize = 64;

/// Length of the longest path that is tried, in bytes: Windows has none of more than 32767 UTF-16 units.
const LONGEST_PATH: usize = 3 * 32767;

/// A walk through folders.
struct Walk {
    /// The current path.
    path: PathBuf,
    /// The remaining steps, the next one last.
    ahead: Vec<OsString>,
    /// Number of links that were followed.
    links: usize,
}

/// Returns the files to which the path `inside` leads below `folder`, an absolute path without links. If no name
/// matches exactly, upper and lower case may differ; so there may be several files, in the order of their names.
///
/// Links are followed step by step and by their text, so that no file outside the folder is accessed.
///
/// A walk that leads to no file returns [`ParentRejection::Missing`], [`ParentRejection::Outside`], or
/// [`ParentRejection::Broken`] if a folder cannot be read.
pub(super) fn walks(folder: &Path, inside: &Path, folders: &KnownFolders) -> Vec<Result<PathBuf, ParentRejection>> {
    if inside.as_os_str().len() > LONGEST_PATH {
        return vec![Err(ParentRejection::Missing)];
    }
    let mut found = Vec::new();
    let mut ways = vec![Walk { path: folder.to_path_buf(), ahead: steps(inside), links: 0 }];
    while let Some(way) = ways.pop().filter(|_| found.len() < MOST_WALKS) {
        found.push(walk(folder, way, &mut ways, folders));
    }
    found
}

/// Returns the steps of a path, the first one last.
fn steps(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|step| step.as_os_str().to_owned()).collect()
}

/// Follows one walk to its end. If it branches, the other branches are added to `ways`.
fn walk(folder: &Path, way: Walk, ways: &mut Vec<Walk>, folders: &KnownFolders) -> Result<PathBuf, ParentRejection> {
    let broken = |error: io::Error| rejection_of_opening(Error::of(Structure::File, ErrorKind::Open(error.into())));
    let Walk { mut path, mut ahead, mut links } = way;
    while let Some(step) = ahead.pop() {
        if step == *"." {
            continue;
        }
        if step == *".." {
            if path == folder {
                return Err(ParentRejection::Outside);
            }
            path.pop();
            continue;
        }
        let mut next = path.join(&step);
        let found = match std::fs::symlink_metadata(&next) {
            Err(error) if is_missing(&error) => {
                let names = folders.names(&path).map_err(broken)?;
                let (first, others) = names.alike(&step).split_first().ok_or(ParentRejection::Missing)?;
                let way_by = |name: &OsString| Walk {
                    path: path.clone(),
                    ahead: [&*ahead, std::slice::from_ref(name)].concat(),
                    links,
                };
                ways.extend(others.iter().take(MOST_WALKS).rev().map(way_by));
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
        let target = target.filter(|_| links <= MOST_LINKS).ok_or(ParentRejection::Outside)?;
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
