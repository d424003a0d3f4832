//! Checkpoints beside an image: the base of a chain alone is an old state of the disk.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::{Category, Error};
use crate::image::Image;
use crate::source::{FolderWalk, FoundFile, is_vanished};

use super::files::is_image;
use super::forest::{Forest, ForestImage, ForestParent};

/// Largest number of entries of a folder that are looked at.
const MOST_ENTRIES: usize = 100_000;

/// Largest number of files that are opened, of which only headers and locators are read.
const MOST_IMAGES: usize = 4096;

/// Largest number of other files that are opened because their names begin like that of the image.
const MOST_NAMESAKES: usize = 256;

/// Images in the folder of an image, and how they depend on each other.
#[derive(Debug)]
pub struct Siblings {
    images: Vec<ForestImage>,
    /// Files that were not looked at, in the order of their names.
    others: Vec<FoundFile>,
    unread: Unread,
    /// Whether all entries of the folders were listed.
    is_listed: bool,
}

/// Paths of files with the names of images that are not known as images.
#[derive(Clone, Debug, Default)]
struct Unread {
    /// Files that may be checkpoints, and folders.
    unreadable: Vec<PathBuf>,
    damaged: Vec<PathBuf>,
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
    /// Whether all files of the folder that may be checkpoints were looked at.
    pub is_complete: bool,
    /// Paths of files that may be checkpoints but are not known: with the names of images, if they cannot be read, and
    /// damaged ones with the extension `.avhdx`; and of the folder itself, if that cannot be read.
    pub unreadable: Vec<PathBuf>,
    /// Paths of files with other names of images that can be read, but are damaged or no images: hardly checkpoints.
    pub damaged: Vec<PathBuf>,
}

impl Siblings {
    /// Looks at the headers and parent locators of the images in folders, without their subfolders: up to 4096 files
    /// among 100,000 entries of each folder, those with the extension `.avhdx` first. Links are not followed, and
    /// nothing but regular files is opened.
    #[must_use]
    pub fn in_folders(folders: &[PathBuf]) -> Self {
        let mut siblings = Self { images: Vec::new(), others: Vec::new(), unread: Unread::default(), is_listed: true };
        let mut files: Vec<FoundFile> = folders.iter().flat_map(|folder| siblings.list(folder)).collect();
        files.sort_by_key(|file| (!has_checkpoint_name(&file.path), !file.has_image_name()));
        siblings.others = files.split_off(files.len().min(MOST_IMAGES));
        siblings.others.sort_unstable_by(|one, other| one.path.file_name().cmp(&other.path.file_name()));
        siblings.images = read_all(files.iter(), &mut siblings.unread);
        siblings
    }

    /// Lists the files of a folder that may be images.
    fn list(&mut self, folder: &Path) -> Vec<FoundFile> {
        let mut walk = match FolderWalk::new(folder, false, MOST_ENTRIES) {
            Ok(walk) => walk,
            Err(_) => {
                self.unread.unreadable.push(folder.to_path_buf());
                return Vec::new();
            }
        };
        let mut files = Vec::new();
        for entry in walk.by_ref() {
            match entry {
                Ok(file) if file.may_be_image() => files.push(file),
                Ok(_) => {}
                Err(error) if is_vanished(&error) => {}
                Err(error) => self.unread.unreadable.push(error.file().unwrap_or(folder).to_path_buf()),
            }
        }
        self.is_listed &= walk.is_complete();
        files
    }

    /// Returns the folders in which checkpoints of an image may be: that of its path, and that of its file if the path
    /// is a link to another folder. None if the image is not a file.
    #[must_use]
    pub fn folders_of(image: &Image) -> Vec<PathBuf> {
        let Some(path) = image.path() else { return Vec::new() };
        let named = path.parent().map(Path::to_path_buf);
        let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
        let real = std::fs::canonicalize(path).ok().filter(|_| is_link);
        let real = real.and_then(|real| Some(real.parent()?.to_path_buf())).filter(|real| {
            let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
            std::fs::canonicalize(folder).ok().as_ref() != Some(real)
        });
        named.into_iter().chain(real).collect()
    }

    /// Looks at the images beside an image. Returns `None` if the image is not a file.
    #[must_use]
    pub fn of(image: &Image) -> Option<Self> {
        let folders = Self::folders_of(image);
        (!folders.is_empty()).then(|| Self::in_folders(&folders))
    }

    /// Returns the images that depend on an image of the folder. If there were too many files to look at all of them,
    /// up to 256 more are looked at: those whose names begin with that of the image, as the names of checkpoints do.
    #[must_use]
    pub fn checkpoints(&self, image: &Image) -> Checkpoints {
        let path = image.path();
        let real = path.and_then(|path| std::fs::canonicalize(path).ok());
        let of: Vec<&Path> = path.into_iter().chain(real.as_deref()).collect();
        let stem = path.and_then(Path::file_stem).unwrap_or_default().as_encoded_bytes();
        let name = |file: &FoundFile| file.path.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
        let first = self.others.partition_point(|file| name(file).as_slice() < stem);
        let namesakes = self.others.get(first..).unwrap_or_default().iter();
        let namesakes: Vec<&FoundFile> = namesakes.take_while(|file| name(file).starts_with(stem)).collect();
        let looked_at = namesakes.len().min(MOST_NAMESAKES);
        let Unread { mut unreadable, mut damaged } = self.unread.clone();
        let mut unread = Unread::default();
        let more = read_all(namesakes.into_iter().take(looked_at), &mut unread);
        unreadable.append(&mut unread.unreadable);
        damaged.append(&mut unread.damaged);
        for paths in [&mut unreadable, &mut damaged] {
            paths.retain(|path| !of.contains(&path.as_path()));
        }
        let forest = Forest::new(self.images.iter().cloned().chain(more).collect());
        let mut found = checkpoints_of(&forest, &of, image.header().data_write_guid);
        found.is_complete = self.is_listed && looked_at == self.others.len() && unreadable.is_empty();
        (found.unreadable, found.damaged) = (unreadable, damaged);
        found
    }
}

fn has_checkpoint_name(path: &Path) -> bool {
    path.extension().is_some_and(|name| name.eq_ignore_ascii_case("avhdx"))
}

/// Reads the images among files. Those that are not known, although they have the names of images, are added to
/// `unread`; files that were removed meanwhile do not matter.
fn read_all<'f>(files: impl Iterator<Item = &'f FoundFile>, unread: &mut Unread) -> Vec<ForestImage> {
    let may_be_read = |error: &Error| !matches!(error.category(), Category::Open | Category::Io);
    let mut images = Vec::new();
    for file in files.filter(|file| is_image(file)) {
        match file.open().and_then(|source| ForestImage::read(&source)) {
            Ok(image) => images.push(image),
            Err(error) if is_vanished(&error) => {}
            Err(error) if may_be_read(&error) && !has_checkpoint_name(&file.path) => {
                unread.damaged.push(file.path.clone());
            }
            Err(_) => unread.unreadable.push(file.path.clone()),
        }
    }
    images
}

fn checkpoints_of(forest: &Forest, of: &[&Path], id: Uuid) -> Checkpoints {
    let images = forest.images();
    let path = |number: usize| images.get(number).map(|image| image.path.clone());
    // The image itself may not be among those that were looked at.
    let is_child = |image: &ForestImage| image.stored.as_ref().is_some_and(|stored| stored.is_of(id));
    let children = images.iter().enumerate().filter(|(_, image)| is_child(image));
    let mut seen = HashSet::new();
    let depending: Vec<(usize, usize)> = children
        .flat_map(|(number, _)| forest.tree(number))
        .filter(|(number, _)| path(*number).is_none_or(|path| !of.contains(&path.as_path())) && seen.insert(*number))
        .collect();
    let mut leaves = forest.leaves(&depending, &forest.identities_of_parents());
    if leaves.is_empty() {
        // An image that stores its own identity as that of its parent is a copy of a parent.
        leaves.clone_from(&depending);
    }
    let is_stale = |image: &&ForestImage| {
        let Some(stored) = image.stored.as_ref().filter(|stored| !stored.is_of(id)) else { return false };
        match image.parent {
            ForestParent::Stale(named) => path(named).is_some_and(|named| of.contains(&named.as_path())),
            ForestParent::Missing => of.iter().any(|of| stored.names(of, &image.path)),
            _ => false,
        }
    };
    Checkpoints {
        files: depending.iter().filter_map(|(number, _)| path(*number)).collect(),
        newest: forest.newest(leaves.iter().copied()).and_then(path),
        leaves: leaves.len(),
        stale: images.iter().filter(is_stale).map(|image| image.path.clone()).collect(),
        is_complete: true,
        unreadable: Vec::new(),
        damaged: Vec::new(),
    }
}
