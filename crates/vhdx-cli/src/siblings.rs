//! Checkpoints beside an image: reading the base alone gives an old state of the disk.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use vhdx_mmap::Image;
use vhdx_mmap::ops::inventory::{Checkpoints, Siblings};

use crate::args::Common;
use crate::size::counted;
use crate::term::{self, escape};

/// The folders that were looked at last, and what is in them: many images may be there.
static KNOWN: Mutex<VecDeque<(Vec<PathBuf>, Arc<Once>)>> = Mutex::new(VecDeque::new());

/// What is in a folder, which is read by the first that asks for it, while the others wait for it.
type Once = OnceLock<Siblings>;

/// Number of folders that are known at once: more than there are images at once in most cases.
const MOST_KNOWN: usize = 64;

/// Images that depend on an image, in its folder. `None` with --no-siblings, and if the image is not a file.
pub(crate) fn checkpoints(image: &Image, common: &Common) -> Option<Checkpoints> {
    if common.no_siblings {
        return None;
    }
    let folders = Siblings::folders_of(image);
    if folders.is_empty() {
        return None;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let siblings = match known.iter().find(|(of, _)| *of == folders) {
        Some((_, siblings)) => Arc::clone(siblings),
        None => {
            let siblings = Arc::new(Once::new());
            known.push_back((folders.clone(), Arc::clone(&siblings)));
            if known.len() > MOST_KNOWN {
                known.pop_front();
            }
            siblings
        }
    };
    drop(known);
    let siblings = siblings.get_or_init(|| Siblings::in_folders(&folders));
    Some(siblings.checkpoints(image))
}

/// Warns of images that depend on the image whose content is read.
pub(crate) fn warn(path: &Path, image: &Image, common: &Common) {
    let Some(found) = checkpoints(image, common) else { return };
    let depending = depending(&found).map(|text| format!("{text}; this image alone is an old state"));
    for text in [depending, stale(&found)].into_iter().flatten() {
        term::message("warning", term::WARNING, &escape(&format!("{}: {text}", path.display())));
    }
    for text in [unknown(&found), damaged(&found, common)].into_iter().flatten() {
        term::message("note", term::HINT, &escape(&format!("{}: {text}", path.display())));
    }
}

/// Why there may be more images that depend on a disk, in words.
pub(crate) fn unknown(found: &Checkpoints) -> Option<String> {
    let reason = match with_others(&found.unreadable) {
        _ if found.is_complete => return None,
        None => "the folder has too many files".to_owned(),
        Some(files) => format!("{files} cannot be read"),
    };
    Some(format!("not all files beside it could be looked at for checkpoints: {reason}"))
}

/// The damaged files beside a disk that hardly are its checkpoints, in words; only with --verbose.
pub(crate) fn damaged(found: &Checkpoints, common: &Common) -> Option<String> {
    let files = with_others(&found.damaged).filter(|_| common.verbose && !common.quiet)?;
    Some(format!("not looked at for checkpoints, since damaged or no image: {files}"))
}

/// The first of several files, and the number of the others.
fn with_others(files: &[PathBuf]) -> Option<String> {
    let (first, others) = files.split_first()?;
    let others = u64::try_from(others.len()).unwrap_or(u64::MAX);
    let first = first.display();
    Some(if others == 0 { first.to_string() } else { format!("{first} and {}", counted(others, "other file")) })
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
