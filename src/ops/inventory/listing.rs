//! All images at some paths, and how they depend on each other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::Error;

use super::files::{ImageFile, ImageFiles};
use super::forest::{Forest, ForestImage};

/// Number of images that are looked at together.
pub(super) const BATCH: usize = 64;

/// Path of a listing.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) file: Result<ImageFile, Error>,
    /// Number of the image in the forest, or why it cannot be opened.
    pub(super) number: Result<usize, Error>,
}

/// The images at some paths, as far as their headers and metadata describe them.
#[derive(Debug)]
pub struct Listing {
    pub(super) entries: Vec<Entry>,
    forest: Forest,
    links: u64,
    empty: Vec<PathBuf>,
}

impl Listing {
    /// Lists the images at `paths`, in the order of the paths and of the names in each folder, with their subfolders
    /// ([`ImageFiles`]), and reads the headers and the metadata of all of them. A path that cannot be read does not
    /// keep the others from being listed. With the feature `rayon`, the threads of the current pool do it.
    #[must_use]
    pub fn of(paths: &[PathBuf]) -> Self {
        let (mut entries, mut links, mut empty) = (Vec::new(), 0_u64, Vec::new());
        for path in paths {
            match ImageFiles::at(path) {
                Ok(mut files) => {
                    let before = entries.len();
                    entries.extend(files.by_ref().map(|file| entry(path, file)));
                    if entries.len() == before {
                        empty.push(path.clone());
                    }
                    links = links.saturating_add(files.links());
                }
                Err(error) => entries.push(entry(path, Err(error))),
            }
        }
        let (mut images, mut by_file) = (Vec::new(), HashMap::new());
        for batch in entries.chunks_mut(BATCH) {
            let read = map_all(batch, |entry| match &entry.file {
                Ok(file) => file.open().and_then(|source| ForestImage::read(&source)),
                Err(error) => Err(error.clone()),
            });
            for (entry, image) in batch.iter_mut().zip(read) {
                let next = images.len();
                // A file that several paths lead to is one image.
                entry.number = image.map(|image: ForestImage| {
                    let known = image.file.as_ref().and_then(|file| by_file.get(file).copied());
                    known.unwrap_or_else(|| {
                        by_file.extend(image.file.clone().map(|file| (file, next)));
                        images.push(image);
                        next
                    })
                });
            }
        }
        Self { entries, forest: Forest::new(images), links, empty }
    }

    /// Returns the images and how they depend on each other.
    #[must_use]
    pub fn forest(&self) -> &Forest {
        &self.forest
    }

    /// Returns the paths that cannot be read, and why.
    pub fn failed(&self) -> impl Iterator<Item = (&Path, &Error)> {
        self.entries.iter().filter_map(|entry| Some((entry.path.as_path(), entry.number.as_ref().err()?)))
    }

    /// Returns the folders without images among the paths.
    #[must_use]
    pub fn empty(&self) -> &[PathBuf] {
        &self.empty
    }

    /// Returns the number of symbolic links in folders, which were not followed.
    #[must_use]
    pub fn links(&self) -> u64 {
        self.links
    }
}

fn entry(path: &Path, file: Result<ImageFile, Error>) -> Entry {
    let path = match &file {
        Ok(file) => file.path(),
        Err(error) => error.file().unwrap_or(path),
    };
    Entry { path: path.to_path_buf(), file, number: Ok(usize::MAX) }
}

/// Maps all items, in order.
#[cfg(feature = "rayon")]
pub(super) fn map_all<T: Sync + Send, R: Send>(items: &[T], map: impl Fn(&T) -> R + Sync + Send) -> Vec<R> {
    use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

    if crate::threads::count() > 1 { items.par_iter().map(map).collect() } else { items.iter().map(map).collect() }
}

#[cfg(not(feature = "rayon"))]
pub(super) fn map_all<T, R>(items: &[T], map: impl Fn(&T) -> R) -> Vec<R> {
    items.iter().map(map).collect()
}
