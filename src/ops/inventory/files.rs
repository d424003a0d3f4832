//! Image files in folders.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::format::FileIdentifier;
use crate::source::{FolderWalk, FoundFile, Source};

/// File that is an image, or has the name of one.
#[derive(Clone, Debug)]
pub struct ImageFile {
    path: PathBuf,
    /// The file as it was found in a folder. `None` for a file that the caller named.
    found: Option<FoundFile>,
}

impl ImageFile {
    /// Returns the path: it begins as the caller named the file or its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file, to be read piece by piece. A file that was found in a folder is opened without following links.
    ///
    /// # Errors
    /// The errors of [`Source::open`].
    pub fn open(&self) -> Result<Source> {
        match &self.found {
            Some(found) => found.open(),
            None => Source::open(&self.path),
        }
    }
}

/// Iterator over the image files at a path: the file itself, or the images in the folder and its subfolders, in the
/// order of their names.
///
/// Images are the files with the names of images (`.vhdx`, `.avhdx`), whatever they hold, and all other files that
/// begin like an image. Symbolic links in a folder are not followed, and pipes and devices are not opened. A folder
/// that cannot be read is an error that names the path; the iteration continues after it.
#[derive(Debug)]
pub struct ImageFiles(Files);

#[derive(Debug)]
enum Files {
    Named(Option<PathBuf>),
    Walk(FolderWalk),
}

impl ImageFiles {
    /// Begins the iteration at `path`. A path that is not a folder is an image, whether it exists or not.
    ///
    /// # Errors
    /// Fails if `path` is a folder that cannot be read.
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // An error is that of the image, when it is opened.
        Ok(Self(if std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
            Files::Walk(FolderWalk::new(path, true, usize::MAX)?)
        } else {
            Files::Named(Some(path.to_path_buf()))
        }))
    }

    /// Returns the number of symbolic links in folders so far, which were not followed.
    #[must_use]
    pub fn links(&self) -> u64 {
        match &self.0 {
            Files::Named(_) => 0,
            Files::Walk(walk) => walk.links(),
        }
    }
}

impl Iterator for ImageFiles {
    type Item = Result<ImageFile>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Files::Named(path) => path.take().map(|path| Ok(ImageFile { path, found: None })),
            Files::Walk(walk) => walk
                .find(|entry| entry.as_ref().map_or(true, is_image))
                .map(|entry| entry.map(|found| ImageFile { path: found.path.clone(), found: Some(found) })),
        }
    }
}

/// Returns whether a file is an image, or has the name of one.
pub(super) fn is_image(file: &FoundFile) -> bool {
    file.has_image_name() || (file.may_be_image() && begins_like_image(file))
}

/// Returns whether a file begins with the signature of an image. A file that cannot be read has another name, so that
/// nothing is missed.
fn begins_like_image(file: &FoundFile) -> bool {
    let mut signature = [0; 8];
    let read = file.open().and_then(|source| source.read_exact_at(0, &mut signature));
    read.is_ok() && signature == *FileIdentifier::SIGNATURE.as_bytes()
}
