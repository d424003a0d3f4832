//! Walks through trees of files.

use std::collections::HashSet;
use std::vec::IntoIter;

use crate::error::{Error, Result};
use crate::host_name::part_of_path;
use crate::volume::{Entry, FileKind, Metadata, Node, Volume};

/// Deepest directory that is entered. Paths of Linux have 4,096 bytes.
const DEEPEST: usize = 2048;

/// A file that was found.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Found {
    /// Its path from where the walk began, without a `/` in front; empty for the beginning itself. In the names of a
    /// damaged or malicious volume, what no name can hold is written as `%2F`: no path leads elsewhere.
    pub path: Vec<u8>,
    /// Its own name, as it is in the volume.
    pub name: Vec<u8>,
    /// What it is called inside the volume.
    pub node: Node,
    /// What its file system says about it.
    pub metadata: Metadata,
    /// Number of directories between the beginning and it; 0 for the beginning.
    pub depth: usize,
}

impl Found {
    /// Returns the name, and the metadata.
    #[must_use]
    pub fn split(self) -> (Named, Metadata) {
        let Self { path, name, node, metadata, depth } = self;
        (Named { path, name, node, kind: metadata.kind, depth }, metadata)
    }
}

/// A name that was found.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Named {
    /// Path of the file from where the walk began, as that of [`Found`].
    pub path: Vec<u8>,
    /// Its own name, as it is in the volume.
    pub name: Vec<u8>,
    /// What it is called inside the volume.
    pub node: Node,
    /// Its kind, according to its directory.
    pub kind: FileKind,
    /// Number of directories between the beginning and it; 0 for the beginning.
    pub depth: usize,
}

/// What could not be read on the way.
#[non_exhaustive]
#[derive(Debug)]
pub struct Unread {
    /// Path from where the walk began.
    pub path: Vec<u8>,
    /// Why not.
    pub error: Error,
}

/// Walk through a tree: every file, directories before what they hold, in the order of their names. Links are not
/// followed. What cannot be read is an item of its own, and the walk goes on.
///
/// A directory is entered once, whatever its names are, so that every walk ends.
#[derive(Debug)]
pub struct Walk<'v> {
    volume: &'v dyn Volume,
    begin: Option<Node>,
    levels: Vec<(Vec<u8>, IntoIter<Entry>)>,
    entered: HashSet<Node>,
    enter: Option<(Vec<u8>, Node)>,
    deepest: usize,
}

impl<'v> Walk<'v> {
    /// Begins a walk.
    pub fn new(volume: &'v dyn Volume, begin: Node) -> Self {
        let levels = Vec::new();
        Self { volume, begin: Some(begin), levels, entered: HashSet::new(), enter: None, deepest: DEEPEST }
    }

    /// Limits how many directories the walk enters below one another: with 1, only what the beginning holds is found.
    #[must_use]
    pub fn deepest(mut self, deepest: usize) -> Self {
        self.deepest = deepest.min(DEEPEST);
        self
    }

    /// Does not enter the directory that was found last.
    pub fn skip_directory(&mut self) {
        self.enter = None;
    }

    /// Returns the next file without its metadata, which is much faster where directories say what kind of file a name
    /// is of. Metadata is read only where they do not, so that damaged metadata may stay unnoticed.
    pub fn next_name(&mut self) -> Option<Result<Named, Unread>> {
        let (path, Entry { name, node, kind, .. }) = match self.step()? {
            Ok(step) => step,
            Err(unread) => return Some(Err(unread)),
        };
        let kind = match kind.map_or_else(|| self.volume.metadata(node).map(|metadata| metadata.kind), Ok) {
            Ok(kind) => kind,
            Err(error) => return Some(Err(Unread { path, error })),
        };
        self.prepare(&path, node, kind);
        Some(Ok(Named { path, name, node, kind, depth: self.levels.len() }))
    }

    /// Returns the next name, with its path.
    fn step(&mut self) -> Option<Result<(Vec<u8>, Entry), Unread>> {
        if let Some(node) = self.begin.take() {
            return Some(Ok((Vec::new(), Entry { name: Vec::new(), node, kind: None })));
        }
        if let Some((path, node)) = self.enter.take().filter(|_| self.levels.len() < self.deepest)
            && let Err(unread) = self.enter(path, node)
        {
            return Some(Err(unread));
        }
        loop {
            let (above, entries) = self.levels.last_mut()?;
            match entries.next() {
                Some(entry) => {
                    let mut path = Vec::with_capacity(above.len().saturating_add(entry.name.len()).saturating_add(1));
                    path.extend_from_slice(above);
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(&part_of_path(&entry.name));
                    return Some(Ok((path, entry)));
                }
                None => drop(self.levels.pop()),
            }
        }
    }

    /// Prepares to enter a file, if it is a directory.
    fn prepare(&mut self, path: &[u8], node: Node, kind: FileKind) {
        if kind == FileKind::Directory {
            self.enter = Some((path.to_vec(), node));
        }
    }

    fn enter(&mut self, path: Vec<u8>, node: Node) -> Result<(), Unread> {
        let kind = self.volume.about().kind;
        let entries = match self.volume.entries(node) {
            _ if !self.entered.insert(node) => Err(Error::damaged(kind, "a directory has several names")),
            _ if self.levels.len() >= DEEPEST => Err(Error::damaged(kind, "directories are too deep")),
            entries => entries,
        };
        match entries {
            Ok(mut entries) => {
                entries.sort_by(|one, other| one.name.cmp(&other.name));
                self.levels.push((path, entries.into_iter()));
                Ok(())
            }
            Err(error) => Err(Unread { path, error }),
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Found, Unread>;

    fn next(&mut self) -> Option<Self::Item> {
        let (path, Entry { name, node, .. }) = match self.step()? {
            Ok(step) => step,
            Err(unread) => return Some(Err(unread)),
        };
        Some(match self.volume.metadata(node) {
            Ok(metadata) => {
                self.prepare(&path, node, metadata.kind);
                Ok(Found { path, name, node, metadata, depth: self.levels.len() })
            }
            Err(error) => Err(Unread { path, error }),
        })
    }
}
