//! Checkpoints beside an image: reading the base alone gives an old state of the disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use vhdx_mmap::Image;
use vhdx_mmap::ops::inventory::{Checkpoints, Siblings};

use crate::args::Common;
use crate::size::counted;
use crate::term::{self, escape};

/// The folder that was looked at last: many images may be in it.
static LAST: Mutex<Option<(PathBuf, Arc<Siblings>)>> = Mutex::new(None);

/// Images that depend on an image, in its folder. `None` with --no-siblings, and if the image is not a file.
pub(crate) fn checkpoints(image: &Image, common: &Common) -> Option<Checkpoints> {
    if common.no_siblings {
        return None;
    }
    let folder = image.path()?.parent()?;
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let siblings = match &*last {
        Some((known, siblings)) if known == folder => Arc::clone(siblings),
        _ => {
            let siblings = Arc::new(Siblings::in_folder(folder));
            *last = Some((folder.to_path_buf(), Arc::clone(&siblings)));
            siblings
        }
    };
    Some(siblings.checkpoints(image))
}

/// Warns of images that depend on the image whose content is read.
pub(crate) fn warn(path: &Path, image: &Image, common: &Common) {
    let Some(found) = checkpoints(image, common) else { return };
    let depending = depending(&found).map(|text| format!("{text}; this image alone is an old state"));
    for text in [depending, stale(&found)].into_iter().flatten() {
        term::message("warning", term::WARNING, &escape(&format!("{}: {text}", path.display())));
    }
}

/// The images that depend on a disk, in words.
pub(crate) fn depending(found: &Checkpoints) -> Option<String> {
    let newest = found.newest.as_deref()?;
    let count = u64::try_from(found.files.len()).unwrap_or(u64::MAX);
    let verb = if count == 1 { "depends" } else { "depend" };
    let branches = if found.leaves > 1 { format!(" in {} branches", found.leaves) } else { String::new() };
    let more = if found.is_complete { "" } else { "at least " };
    Some(format!(
        "{more}{} {verb} on this disk{branches}; the newest is {}",
        counted(count, "checkpoint"),
        name(newest)
    ))
}

/// The images that depended on a disk before it was changed, in words.
pub(crate) fn stale(found: &Checkpoints) -> Option<String> {
    let (first, others) = found.stale.split_first()?;
    let others = match u64::try_from(others.len()).unwrap_or(u64::MAX) {
        0 => String::new(),
        others => format!(" (and {})", counted(others, "other checkpoint")),
    };
    let name = name(first);
    Some(format!("{name}{others} names this disk as its parent, but the disk was changed after {name} was made"))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
