//! Images and folders that the arguments name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use vhdx_mmap::ops::inventory::ImageFiles;

use crate::args::{Common, FolderArgs};
use crate::exit::{Exit, Failure};
use crate::many;
use crate::open;
use crate::size::counted;
use crate::term;

/// Calls `work` for every image that the arguments name, for up to `at_once` of them at the same time, and `take` for
/// the results, in the order of the arguments: with --recursive, for the images in folders, too. A path that cannot be
/// read is a failure in place of an image.
///
/// # Errors
/// The error of `take`, which ends the work.
pub(crate) fn for_each_image<T: Send>(
    paths: &[PathBuf],
    folders: FolderArgs,
    common: &Common,
    at_once: usize,
    work: impl Fn(&Path) -> Result<T, Failure> + Sync,
    mut take: impl FnMut(&Path, Result<T, Failure>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // What is printed about one image must not get into another one.
    for path in paths {
        if let Err(failure) = open::reject_path_as_output(path) {
            return take(path, Err(failure));
        }
    }
    let mut images = Images { paths: paths.iter(), folders, common, inside: None, links: 0 };
    let work_on = |(image, found): (PathBuf, Result<(), Failure>)| {
        let done = found.and_then(|()| work(&image));
        (image, done)
    };
    let at_once = if folders.recursive { at_once } else { at_once.min(paths.len()) };
    many::in_order(at_once, &mut images, work_on, |(image, done)| take(&image, done))?;
    report_links(images.links, common);
    Ok(())
}

/// The images that the arguments name.
struct Images<'a> {
    paths: std::slice::Iter<'a, PathBuf>,
    folders: FolderArgs,
    common: &'a Common,
    /// The path whose images come next, and whether there were any.
    inside: Option<(&'a Path, ImageFiles, bool)>,
    /// Number of links in folders, which were not followed.
    links: u64,
}

impl Iterator for Images<'_> {
    type Item = (PathBuf, Result<(), Failure>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((path, files, has_images)) = &mut self.inside {
                if let Some(file) = files.next() {
                    *has_images = true;
                    return Some(match file {
                        Ok(file) => (file.path().to_path_buf(), Ok(())),
                        Err(error) => {
                            let failure = Failure::of_named(path, &error);
                            (error.file().unwrap_or(path).to_path_buf(), Err(failure))
                        }
                    });
                }
                self.links = self.links.saturating_add(files.links());
                let (path, has_images) = (*path, *has_images);
                self.inside = None;
                if !has_images {
                    return Some((path.to_path_buf(), Err(without_images(path))));
                }
            }
            let path = self.paths.next()?;
            if !self.folders.recursive {
                return Some((path.clone(), Ok(())));
            }
            let files = reject_links(std::slice::from_ref(path), self.common)
                .and_then(|()| ImageFiles::at(path).map_err(|error| Failure::of_named(path, &error)));
            match files {
                Ok(files) => self.inside = Some((path, files, false)),
                Err(failure) => return Some((path.clone(), Err(failure))),
            }
        }
    }
}

fn without_images(folder: &Path) -> Failure {
    Failure::new(Exit::NoInput, format!("{}: no images in this folder", folder.display()))
        .with_hint("name a folder with .vhdx or .avhdx files")
}

/// Reports folders without images. Returns the exit code of the command.
pub(crate) fn report_empty(folders: &[PathBuf], exit: Exit) -> Exit {
    folders.iter().fold(exit, |exit, folder| {
        let failed = without_images(folder).report();
        if exit == Exit::Done { failed } else { exit }
    })
}

/// Fails with --no-follow if a part of a path is a symbolic link.
pub(crate) fn reject_links(paths: &[PathBuf], common: &Common) -> Result<(), Failure> {
    let is_link = |part: &Path| part.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    match paths.iter().find(|path| common.no_follow && path.ancestors().any(is_link)) {
        None => Ok(()),
        Some(path) => Err(Failure::new(Exit::NoInput, format!("{}: reached by a symbolic link", path.display()))
            .with_hint("name it by a path without links, or leave out --no-follow")),
    }
}

/// Manifests of several images, in a folder.
pub(crate) struct Manifests<'a> {
    folder: &'a Path,
    images: HashMap<PathBuf, PathBuf>,
}

impl<'a> Manifests<'a> {
    pub(crate) fn new(folder: &'a Path) -> Self {
        Self { folder, images: HashMap::new() }
    }

    /// Path of the manifest of an image: that of the image below the folder that the arguments name, or else its name,
    /// with the extension `.manifest` added.
    ///
    /// # Errors
    /// Fails if another image has the same manifest.
    pub(crate) fn of(&mut self, image: &Path, paths: &[PathBuf]) -> Result<PathBuf, Failure> {
        let below = paths.iter().find_map(|path| image.strip_prefix(path).ok().filter(|rest| *rest != Path::new("")));
        let name = below.or(image.file_name().map(Path::new)).unwrap_or(image);
        let mut path = self.folder.join(name).into_os_string();
        path.push(".manifest");
        let path = PathBuf::from(path);
        let known = self.images.entry(path.clone()).or_insert_with(|| image.to_path_buf());
        if *known == image {
            return Ok(path);
        }
        let (manifest, known) = (path.display(), known.display());
        let text = format!("{}: has the same manifest as {known} ({manifest})", image.display());
        Err(Failure::usage(text).with_hint("name one of them, or a folder that holds both, with --recursive"))
    }
}

/// Fails if --manifest is a file, although there are several images.
pub(crate) fn require_folder_of_manifests(manifests: &Path, images: usize) -> Result<(), Failure> {
    if manifests.is_dir() {
        return Ok(());
    }
    let name = manifests.display();
    let text = if images > 1 {
        format!("--manifest {name}: several images (found {images}, expected 1, or a folder for their manifests)")
    } else {
        format!("--manifest {name}: not a folder (expected a folder for the manifests of all images)")
    };
    Err(Failure::usage(text).with_hint("name an existing folder, or one image"))
}

/// Reports links in folders, which may lead to other images.
pub(crate) fn report_links(links: u64, common: &Common) {
    if links > 0 && !common.quiet {
        let verb = if links == 1 { "was" } else { "were" };
        let text = format!("{} in folders {verb} not followed", counted(links, "symbolic link"));
        term::message("note", term::HINT, &text);
    }
}
