//! Images and folders that the arguments name.

use std::path::{Path, PathBuf};

use vhdx_mmap::ops::inventory::ImageFiles;

use crate::args::{Common, FolderArgs};
use crate::exit::{Exit, Failure};
use crate::size::counted;
use crate::term;

/// Calls `work` for every image that the arguments name, in their order: with --recursive, for the images in folders,
/// too. A path that cannot be read is an error in place of an image.
///
/// # Errors
/// The error of `work`, which ends the iteration.
pub(crate) fn for_each_image(
    paths: &[PathBuf],
    folders: FolderArgs,
    common: &Common,
    mut work: impl FnMut(&Path, Result<(), Failure>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut links = 0_u64;
    for path in paths {
        if !folders.recursive {
            work(path, Ok(()))?;
            continue;
        }
        let mut files = match ImageFiles::at(path) {
            Ok(files) => files,
            Err(error) => {
                work(path, Err(Failure::of_named(path, &error)))?;
                continue;
            }
        };
        let mut count = 0_u64;
        for file in &mut files {
            count = count.saturating_add(1);
            match file {
                Ok(file) => work(file.path(), Ok(()))?,
                Err(error) => work(error.file().unwrap_or(path), Err(Failure::of_named(path, &error)))?,
            }
        }
        links = links.saturating_add(files.links());
        if count == 0 {
            let failure = Failure::new(Exit::NoInput, format!("{}: no images in this folder", path.display()));
            work(path, Err(failure.with_hint("name a folder with .vhdx or .avhdx files")))?;
        }
    }
    report_links(links, common);
    Ok(())
}

/// Path of the manifest of an image in a folder of manifests: that of the image below the folder that the arguments
/// name, or else its name, with the extension `.manifest` added.
pub(crate) fn manifest_of(image: &Path, paths: &[PathBuf], manifests: &Path) -> PathBuf {
    let below = paths.iter().find_map(|path| image.strip_prefix(path).ok().filter(|rest| *rest != Path::new("")));
    let name = below.or(image.file_name().map(Path::new)).unwrap_or(image);
    let mut path = manifests.join(name).into_os_string();
    path.push(".manifest");
    path.into()
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
