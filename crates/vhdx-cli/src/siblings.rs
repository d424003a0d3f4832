//! Checkpoints beside an image: reading the base alone gives an old state of the disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use vhdx_mmap::Image;
use vhdx_mmap::ops::inventory::{Checkpoints, Siblings};

use crate::args::Common;
use crate::size::counted;
use crate::term::{self, escape};

/// The folders that were looked at last: many images may be in them.
static LAST: Mutex<Option<(Vec<PathBuf>, Arc<Siblings>)>> = Mutex::new(None);

/// Images that depend on an image, in its folder. `None` with --no-siblings, and if the image is not a file.
pub(crate) fn checkpoints(image: &Image, common: &Common) -> Option<Checkpoints> {
    if common.no_siblings {
        return None;
    }
    let folders = Siblings::folders_of(image);
    if folders.is_empty() {
        return None;
    }
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let siblings = match &*last {
        Some((known, siblings)) if *known == folders => Arc::clone(siblings),
        _ => {
            let siblings = Arc::new(Siblings::in_folders(&folders));
            *last = Some((folders, Arc::clone(&siblings)));
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
    if let Some(text) = unknown(&found) {
        term::message("note", term::HINT, &escape(&format!("{}: {text}", path.display())));
    }
}

/// Why there may be more images that depend on a disk, in words.
pub(crate) fn unknown(found: &Checkpoints) -> Option<String> {
    let reason = match found.unreadable.split_first() {
        _ if found.is_complete => return None,
        None => "the folder has too many files".to_owned(),
        Some((first, [])) => format!("{} cannot be read", first.display()),
        Some((first, others)) => {
            let others = counted(u64::try_from(others.len()).unwrap_or(u64::MAX), "other file");
            format!("{} and {others} cannot be read", first.display())
        }
    };
    Some(format!("not all files beside it could be looked at for checkpoints: {reason}"))
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
    let name = name(first);
    Some(match u64::try_from(others.len()).unwrap_or(u64::MAX) {
        0 => format!("{name} names this disk as its parent, but the disk was changed after {name} was made"),
        others => format!(
            "{name} and {} name this disk as their parent, but the disk was changed after they were made",
            counted(others, "other checkpoint")
        ),
    })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
