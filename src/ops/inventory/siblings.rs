//! Checkpoints beside an image: the base of a chain alone is an old state of the disk.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::image::Image;
use crate::source::{FolderWalk, FoundFile};

use super::files::is_image;
use super::forest::{Forest, ForestImage, ForestParent};

/// Largest number of entries of a folder that are looked at.
const MOST_ENTRIES: usize = 100_000;

/// Largest number of images that are opened.
const MOST_IMAGES: usize = 256;

/// Images in one folder, and how they depend on each other.
#[derive(Debug)]
pub struct Siblings {
    forest: Forest,
    is_complete: bool,
}

/// Images that depend on an image.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoints {
    /// Paths of the checkpoints, each after its parent.
    pub files: Vec<PathBuf>,
    /// Path of the newest checkpoint without a checkpoint of its own: it holds the current state of the disk.
    pub newest: Option<PathBuf>,
    /// Number of checkpoints without checkpoints of their own. More than 1: the chain has branches.
    pub leaves: usize,
    /// Paths of images that name this file as their parent, but store another identity: the image was changed after
    /// they were made, or is a different one.
    pub stale: Vec<PathBuf>,
    /// Whether all images of the folder were looked at.
    pub is_complete: bool,
}

impl Siblings {
    /// Looks at the headers and parent locators of the images in a folder, without its subfolders: up to 256 images
    /// among 100,000 entries, those with the extension `.avhdx` first. Links are not followed, and nothing but regular
    /// files is opened. A folder that cannot be read has no images.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        let Ok(mut walk) = FolderWalk::new(folder, false, MOST_ENTRIES) else {
            return Self { forest: Forest::default(), is_complete: false };
        };
        let mut files: Vec<FoundFile> = walk.by_ref().filter_map(Result::ok).filter(FoundFile::may_be_image).collect();
        let is_checkpoint =
            |file: &FoundFile| file.path.extension().is_some_and(|name| name.eq_ignore_ascii_case("avhdx"));
        files.sort_by_key(|file| (!is_checkpoint(file), !file.has_image_name()));
        let is_complete = walk.is_complete() && files.len() <= MOST_IMAGES;
        files.truncate(MOST_IMAGES);
        let images = files.iter().filter(|file| is_image(file));
        let images = images.filter_map(|file| ForestImage::read(&file.open().ok()?).ok()).collect();
        Self { forest: Forest::new(images), is_complete }
    }

    /// Looks at the images beside an image. Returns `None` if the image is not a file.
    #[must_use]
    pub fn of(image: &Image) -> Option<Self> {
        Some(Self::in_folder(image.path()?.parent()?))
    }

    /// Returns the images that depend on an image of the folder.
    #[must_use]
    pub fn checkpoints(&self, image: &Image) -> Checkpoints {
        self.checkpoints_of(image.path(), image.header().data_write_guid)
    }

    fn checkpoints_of(&self, of: Option<&Path>, id: Uuid) -> Checkpoints {
        let images = self.forest.images();
        let path = |number: usize| images.get(number).map(|image| image.path.clone());
        // The image itself may not be among those that were looked at.
        let is_child = |image: &ForestImage| image.stored.as_ref().is_some_and(|stored| stored.is_of(id));
        let children = images.iter().enumerate().filter(|(_, image)| is_child(image));
        let mut seen = HashSet::new();
        let depending: Vec<(usize, usize)> = children
            .flat_map(|(number, _)| self.forest.tree(number))
            .filter(|(number, _)| path(*number).as_deref() != of && seen.insert(*number))
            .collect();
        let is_leaf =
            |(number, _): &&(usize, usize)| images.get(*number).is_some_and(|image| image.children.is_empty());
        let leaves = depending.iter().filter(is_leaf);
        let is_stale = |image: &&ForestImage| {
            let has_no_parent = matches!(image.parent, ForestParent::Stale(_) | ForestParent::Missing);
            let stored = image.stored.as_ref().filter(|stored| has_no_parent && !stored.is_of(id));
            of.is_some_and(|of| stored.is_some_and(|stored| stored.names(of, &image.path)))
        };
        Checkpoints {
            files: depending.iter().filter_map(|(number, _)| path(*number)).collect(),
            newest: self.forest.newest(leaves.clone().copied()).and_then(path),
            leaves: leaves.count(),
            stale: images.iter().filter(is_stale).map(|image| image.path.clone()).collect(),
            is_complete: self.is_complete,
        }
    }
}
