//! Paths inside a volume.

use crate::error::{Error, Result};
use crate::volume::{FileKind, Node, Volume};

/// Most links that a path may lead through, as Linux has it.
const MOST_LINKS: u32 = 40;

/// Most components that a path and the targets of its links may have together.
const MOST_COMPONENTS: usize = 10_000;

/// Finds a file by its path from the root directory, as the system of the volume would: links are followed, also the
/// last one. Components are separated by `/`; `.` and `..` are understood, and links that are absolute begin at the
/// root of the volume.
///
/// # Errors
/// Fails if there is no such file, if links lead to one another, and with the errors of [`Volume::entries`].
pub fn lookup(volume: &dyn Volume, path: &[u8]) -> Result<Node> {
    find(volume, path, true)
}

/// As [`lookup`], but if the path names a link, that link is found.
///
/// # Errors
/// Those of [`lookup`].
pub fn lookup_link(volume: &dyn Volume, path: &[u8]) -> Result<Node> {
    find(volume, path, false)
}

fn find(volume: &dyn Volume, path: &[u8], follow_last: bool) -> Result<Node> {
    let components = |path: &[u8]| -> Vec<Vec<u8>> {
        let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
        parts.rev().map(<[u8]>::to_vec).collect()
    };
    // What is still to walk, the next one last, and the directories on the way, the root first.
    let mut rest = components(path);
    let mut way = vec![volume.root()];
    let mut links = 0_u32;
    while let Some(name) = rest.pop() {
        let here = way.last().copied().unwrap_or_else(|| volume.root());
        if name == b".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        if volume.metadata(here)?.kind != FileKind::Directory {
            return Err(Error::NotDirectory(path.to_vec()));
        }
        let found = volume.find(here, &name)?.ok_or_else(|| Error::NotFound(path.to_vec()))?;
        let is_last = rest.is_empty();
        if (!is_last || follow_last) && volume.metadata(found)?.kind == FileKind::Link {
            links = links.saturating_add(1);
            let target = volume.link_target(found)?;
            if target.starts_with(b"/") {
                way.truncate(1);
            }
            rest.extend(components(&target));
            if links > MOST_LINKS || rest.len() > MOST_COMPONENTS {
                return Err(Error::LinkLoop(path.to_vec()));
            }
            continue;
        }
        way.push(found);
    }
    Ok(way.last().copied().unwrap_or_else(|| volume.root()))
}
