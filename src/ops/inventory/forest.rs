//! The forest of bases and their checkpoints, by identity and not by name.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use uuid::Uuid;

use crate::disk::{MAX_PARENTS, names_of, skeleton};
use crate::error::Result;
use crate::image::{Image, ImageKind, LogPolicy, ParentLocator};
use crate::source::{FileId, Source};

/// Image of a forest.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct ForestImage {
    /// Path of the file.
    pub path: PathBuf,
    /// Kind of the image.
    pub kind: ImageKind,
    /// Size of the virtual disk, in bytes.
    pub virtual_size: u64,
    /// DataWriteGuid: identity of the content.
    pub data_write_guid: Uuid,
    /// Whether the log is dirty.
    pub is_dirty: bool,
    /// Time of the last change of the file, if it is known.
    pub modified: Option<SystemTime>,
    /// The parent.
    pub parent: ForestParent,
    /// Numbers of the images that have this image as their parent, by identity.
    pub children: Vec<usize>,
    /// Number of images that depend on this image: its children, their children, and so on.
    pub descendants: usize,
    /// Numbers of the images that name this file as their parent, but store another identity: this image was changed
    /// after they were made, or is a different one. They cannot be read with it.
    pub stale_children: Vec<usize>,
    /// Number of the first other image with this identity, if there is any.
    pub duplicate_of: Option<usize>,
    /// What the image is among the leaves of its tree. `None` for images with children, also of a copy or stale ones,
    /// for the other copies of a leaf, and where a parent is missing.
    pub leaf: Option<ForestLeaf>,
    /// Identity and name of the parent that a differencing image stores.
    pub stored: Option<StoredParent>,
    /// Identity of the file, if the system provides it.
    pub(super) file: Option<FileId>,
}

/// Parent as a differencing image stores it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredParent {
    /// The first identity.
    pub linkage: Uuid,
    /// The second identity, during a merge.
    pub linkage2: Option<Uuid>,
    /// The first stored path. It is not trustworthy, and must be escaped before it is printed.
    pub name: String,
}

/// Parent of an image in a forest.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForestParent {
    /// The image needs no parent: it is a base.
    None,
    /// The image with this number has the identity that the child stores.
    Found(usize),
    /// No image has the identity; the one with this number has the stored name. It was changed after the child was
    /// made, or is a different one.
    Stale(usize),
    /// No image has the identity or the stored name.
    Missing,
    /// The image with this number has the identity, but is a descendant of the image.
    Cycle(usize),
}

/// Leaf of a tree: an image without children.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForestLeaf {
    /// The only leaf: it holds the current state of the disk.
    Current,
    /// The leaf of several that was changed last. Which of them is in use is not recorded in the files.
    Newest,
    /// One of several leaves.
    Branch,
}

impl ForestLeaf {
    /// Returns the name in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Newest => "newest",
            Self::Branch => "branch",
        }
    }
}

impl ForestImage {
    /// Describes an image by its headers and its metadata, without its parent. The log is not replayed: it changes
    /// neither identities nor parents, unless the image cannot be opened without it.
    ///
    /// # Errors
    /// The errors of [`Image::open`] and [`Image::parent_locator`].
    pub fn read(source: &Source) -> Result<Self> {
        let image = Image::open(source.clone(), LogPolicy::Ignore)
            .or_else(|_| Image::open(source.clone(), LogPolicy::Replay))?;
        let stored = image.parent_locator()?.map(|locator| StoredParent::of(&locator));
        Ok(Self {
            path: source.path().unwrap_or(Path::new("-")).to_path_buf(),
            kind: image.kind(),
            virtual_size: image.virtual_disk_size(),
            data_write_guid: image.header().data_write_guid,
            is_dirty: image.header().is_dirty(),
            modified: source.modified(),
            parent: if stored.is_some() { ForestParent::Missing } else { ForestParent::None },
            children: Vec::new(),
            descendants: 0,
            stale_children: Vec::new(),
            duplicate_of: None,
            leaf: None,
            stored,
            file: source.id(),
        })
    }
}

impl StoredParent {
    fn of(locator: &ParentLocator) -> Self {
        let (linkage, linkage2) = (locator.parent_linkage, locator.parent_linkage2);
        Self { linkage, linkage2, name: locator.name().to_owned() }
    }

    /// Returns whether `id` is one of the stored identities.
    pub(super) fn is_of(&self, id: Uuid) -> bool {
        !id.is_nil() && (self.linkage == id || self.linkage2 == Some(id))
    }

    /// Returns whether the stored path leads from `child` to `file`, however the name is written ([`similar`]).
    pub(super) fn names(&self, file: &Path, child: &Path) -> bool {
        self.beside(child).is_some_and(|path| similar(&path) == similar(&lower(file)))
    }

    /// Returns the path that the stored name has beside the child, in lower case.
    fn beside(&self, child: &Path) -> Option<PathBuf> {
        let folder = child.parent()?;
        let stored = self.name.as_str();
        let is_relative = !stored.starts_with(['\\', '/']) && !stored.contains(':');
        let name = names_of(stored).last()?;
        let mut path = folder.to_path_buf();
        if is_relative {
            let steps = stored.split(['\\', '/']).filter(|step| !matches!(*step, "" | "."));
            for step in steps {
                match step {
                    ".." if path.file_name().is_some() => drop(path.pop()),
                    step => path.push(step),
                }
            }
        } else {
            path.push(name);
        }
        Some(lower(&path))
    }
}

fn lower(path: &Path) -> PathBuf {
    path.to_string_lossy().to_lowercase().into()
}

/// Returns what paths have in common that may be the same: a search for a parent finds the same names ([`skeleton`]).
fn similar(lower: &Path) -> PathBuf {
    lower.with_file_name(skeleton(&lower.file_name().unwrap_or_default().to_string_lossy()))
}

/// Images and how they depend on each other.
#[derive(Clone, Debug, Default)]
pub struct Forest {
    images: Vec<ForestImage>,
}

impl Forest {
    /// Finds the parents of images among them, by identity. The cost is proportional to their number.
    #[must_use]
    pub fn new(mut images: Vec<ForestImage>) -> Self {
        let mut by_id: HashMap<Uuid, Vec<usize>> = HashMap::new();
        let (mut by_path, mut by_similar) = (HashMap::new(), HashMap::new());
        for (number, image) in images.iter().enumerate() {
            if !image.data_write_guid.is_nil() {
                by_id.entry(image.data_write_guid).or_default().push(number);
            }
            let path = lower(&image.path);
            by_similar.entry(similar(&path)).or_insert(number);
            by_path.entry(path).or_insert(number);
        }
        for (number, image) in images.iter_mut().enumerate() {
            let first = by_id.get(&image.data_write_guid).and_then(|same| same.first()).copied();
            image.duplicate_of = first.filter(|first| *first != number);
            let Some(stored) = &image.stored else { continue };
            let beside = stored.beside(&image.path);
            let beside = beside.and_then(|path| by_path.get(&path).or_else(|| by_similar.get(&similar(&path))));
            let named = beside.copied().filter(|named| *named != number);
            let with_id = |id: &Uuid| {
                let same = by_id.get(id)?;
                // Of several copies, the one with the stored name.
                let named = named.filter(|named| same.contains(named));
                named.or_else(|| same.iter().copied().find(|other| *other != number))
            };
            let found = with_id(&stored.linkage).or_else(|| with_id(stored.linkage2.as_ref()?));
            image.parent = match (found, named) {
                (Some(found), _) => ForestParent::Found(found),
                (None, _) if stored.is_of(image.data_write_guid) => ForestParent::Cycle(number),
                (None, Some(named)) => ForestParent::Stale(named),
                (None, None) => ForestParent::Missing,
            };
        }
        let mut forest = Self { images };
        forest.break_cycles();
        forest.link_children();
        forest.count_descendants();
        forest.find_leaves();
        forest
    }

    /// Returns the images, in the order in which they were given.
    #[must_use]
    pub fn images(&self) -> &[ForestImage] {
        &self.images
    }

    /// Returns the numbers of the images that begin a tree: bases, and images without a usable parent.
    pub fn roots(&self) -> impl Iterator<Item = usize> {
        let is_root = |image: &ForestImage| !matches!(image.parent, ForestParent::Found(_));
        self.images.iter().enumerate().filter(move |(_, image)| is_root(image)).map(|(number, _)| number)
    }

    /// Returns the paths of the parents of an image, up to the largest number that an image can have.
    pub(super) fn ancestors(&self, number: usize) -> impl Iterator<Item = &PathBuf> {
        let parent = |image: &&ForestImage| match image.parent {
            ForestParent::Found(parent) => self.images.get(parent),
            _ => None,
        };
        let first = self.images.get(number).and_then(|image| parent(&image));
        std::iter::successors(first, move |image| parent(image)).map(|image| &image.path).take(MAX_PARENTS)
    }

    /// Returns the numbers of an image and its descendants by identity, with their depth below the image: each before
    /// its children.
    #[must_use]
    pub fn tree(&self, root: usize) -> Vec<(usize, usize)> {
        let (mut tree, mut pending) = (Vec::new(), vec![(root, 0_usize)]);
        while let Some((number, depth)) = pending.pop() {
            let Some(image) = self.images.get(number) else { continue };
            tree.push((number, depth));
            pending.extend(image.children.iter().rev().map(|child| (*child, depth.saturating_add(1))));
        }
        tree
    }

    /// Returns the number of the leaf that was changed last among `leaves`; of several, the deepest, then the last one.
    pub(super) fn newest(&self, leaves: impl Iterator<Item = (usize, usize)>) -> Option<usize> {
        let key = |(number, depth): &(usize, usize)| {
            (self.images.get(*number).and_then(|image| image.modified), *depth, *number)
        };
        leaves.max_by_key(key).map(|(number, _)| number)
    }

    /// Marks one link of each cycle: it goes from the first image of the cycle to its parent.
    fn break_cycles(&mut self) {
        let mut seen_in = vec![0_usize; self.images.len()];
        for start in 0..self.images.len() {
            let (mut at, round) = (start, start.saturating_add(1));
            loop {
                match seen_in.get_mut(at) {
                    Some(seen) if *seen == 0 => *seen = round,
                    // Back in a part of this walk: a cycle, which begins here.
                    Some(seen) if *seen == round => {
                        if let Some(image) = self.images.get_mut(at)
                            && let ForestParent::Found(parent) = image.parent
                        {
                            image.parent = ForestParent::Cycle(parent);
                        }
                        break;
                    }
                    _ => break,
                }
                match self.images.get(at).map(|image| image.parent) {
                    Some(ForestParent::Found(parent)) => at = parent,
                    _ => break,
                }
            }
        }
    }

    fn link_children(&mut self) {
        for number in 0..self.images.len() {
            match self.images.get(number).map(|image| image.parent) {
                Some(ForestParent::Found(parent)) => {
                    self.images.get_mut(parent).into_iter().for_each(|image| image.children.push(number));
                }
                Some(ForestParent::Stale(named)) => {
                    self.images.get_mut(named).into_iter().for_each(|image| image.stale_children.push(number));
                }
                _ => {}
            }
        }
    }

    fn count_descendants(&mut self) {
        for root in self.roots().collect::<Vec<_>>() {
            // Children before their parents.
            for (number, _) in self.tree(root).into_iter().rev() {
                let Some(image) = self.images.get(number) else { continue };
                let (parent, below) = (image.parent, image.descendants.saturating_add(1));
                if let ForestParent::Found(parent) = parent
                    && let Some(parent) = self.images.get_mut(parent)
                {
                    parent.descendants = parent.descendants.saturating_add(below);
                }
            }
        }
    }

    /// Returns the images of a tree that have no children, and of which no copy has any: each state once.
    pub(super) fn leaves(&self, tree: &[(usize, usize)], parents: &HashSet<Uuid>) -> Vec<(usize, usize)> {
        let mut seen = HashSet::new();
        let is_leaf = |(number, _): &(usize, usize)| {
            self.images.get(*number).is_some_and(|image| {
                let id = image.data_write_guid;
                image.children.is_empty() && (id.is_nil() || !parents.contains(&id) && seen.insert(id))
            })
        };
        tree.iter().copied().filter(is_leaf).collect()
    }

    /// Returns the identities of the images with children.
    pub(super) fn identities_of_parents(&self) -> HashSet<Uuid> {
        let parents = self.images.iter().filter(|image| !image.children.is_empty());
        parents.map(|image| image.data_write_guid).collect()
    }

    fn find_leaves(&mut self) {
        let parents = self.identities_of_parents();
        let bases: Vec<usize> =
            self.roots().filter(|root| self.images.get(*root).is_some_and(|image| image.stored.is_none())).collect();
        for base in bases {
            let mut leaves = self.leaves(&self.tree(base), &parents);
            // Its checkpoints were made of another state.
            leaves.retain(|(number, _)| self.images.get(*number).is_some_and(|image| image.stale_children.is_empty()));
            let newest = self.newest(leaves.iter().copied());
            for (number, _) in &leaves {
                let leaf = match leaves.len() {
                    1 => ForestLeaf::Current,
                    _ if Some(*number) == newest => ForestLeaf::Newest,
                    _ => ForestLeaf::Branch,
                };
                self.images.get_mut(*number).into_iter().for_each(|image| image.leaf = Some(leaf));
            }
        }
    }
}
