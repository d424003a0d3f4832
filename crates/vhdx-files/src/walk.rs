//! Walks through trees of files.

use std::collections::HashSet;
use std::vec::IntoIter;

use crate::error::{Error, Result};
use crate::volume::{Entry, FileKind, Metadata, Node, Volume};

/// Deepest directory that is entered. Paths of Linux have 4,096 bytes.
const DEEPEST: usize = 2048;

/// A file that was found.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Found {
    /// Its path from where the walk began, without a `/` in front; empty for the beginning itself.
    pub path: Vec<u8>,
    /// Its own name: the last part of the path.
    pub name: Vec<u8>,
    /// What it is called inside the volume.
    pub node: Node,
    /// What its file system says about it.
    pub metadata: Metadata,
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

    /// Describes a file, and prepares to enter it.
    fn found(&mut self, path: Vec<u8>, name: Vec<u8>, node: Node) -> Result<Found, Unread> {
        let metadata = match self.volume.metadata(node) {
            Ok(metadata) => metadata,
            Err(error) => return Err(Unread { path, error }),
        };
        if metadata.kind == FileKind::Directory {
            self.enter = Some((path.clone(), node));
        }
        Ok(Found { path, name, node, metadata, depth: self.levels.len() })
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
        if let Some(begin) = self.begin.take() {
            return Some(self.found(Vec::new(), Vec::new(), begin));
        }
        if let Some((path, node)) = self.enter.take().filter(|_| self.levels.len() < self.deepest)
            && let Err(unread) = self.enter(path, node)
        {
            return Some(Err(unread));
        }
        loop {
            let (above, entries) = self.levels.last_mut()?;
            match entries.next() {
                Some(Entry { name, node, .. }) => {
                    let mut path = above.clone();
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(&name);
                    return Some(self.found(path, name, node));
                }
                None => drop(self.levels.pop()),
            }
        }
    }
}
