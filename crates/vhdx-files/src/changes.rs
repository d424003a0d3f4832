//! What has changed between two states of a file system.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::error::Result;
use crate::volume::{FileKind, Metadata, Node, Volume};
use crate::walk::{Found, Unread, Walk};

/// What has happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has the same path, and something else is different.
    Changed,
    /// It has another path than before; something else may be different, too.
    Renamed,
}

impl ChangeKind {
    /// Returns a short name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Renamed => "renamed",
        }
    }
}

/// A file that is not as it was.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct FileChange {
    /// What has happened.
    pub kind: ChangeKind,
    /// Its path from the root, now; if it is gone, the one that it had.
    pub path: Vec<u8>,
    /// The path that it had, if it was renamed.
    pub from: Option<Vec<u8>>,
    /// What it is called inside the volume now; before, if it is gone.
    pub node: Node,
    /// What its file system says about it now; before, if it is gone.
    pub metadata: Metadata,
    /// What is different: `kind`, `size`, `modified`, `mode`, `owner`, `metadata` (its time of change), `content`.
    pub what: Vec<&'static str>,
}

/// Compares two states of a file system, and calls `visit` for every file that was added, removed, changed or renamed:
/// changed files in the order of their paths, then what was added, removed and renamed. What cannot be read in one of
/// them goes to `unread`.
///
/// Files are compared by their metadata; with `with_content` also by their content, which reads all of it. A file is
/// renamed if the same number was removed here and added there, and was made at the same time.
///
/// # Errors
/// Fails with the errors of `visit`.
pub fn changes<E>(
    old: &dyn Volume,
    new: &dyn Volume,
    with_content: bool,
    unread: &mut dyn FnMut(&'static str, Unread),
    visit: &mut dyn FnMut(FileChange) -> Result<(), E>,
) -> Result<(), E> {
    let (mut before, mut after) = (Walk::new(old, old.root()), Walk::new(new, new.root()));
    let mut one = read(&mut before, "before", unread);
    let mut other = read(&mut after, "now", unread);
    let (mut removed, mut added) = (Vec::new(), Vec::new());
    loop {
        let order = match (&one, &other) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => in_order_of_walk(&one.path, &other.path),
        };
        match order {
            Ordering::Less => {
                removed.extend(one.take());
                one = read(&mut before, "before", unread);
            }
            Ordering::Greater => {
                added.extend(other.take());
                other = read(&mut after, "now", unread);
            }
            Ordering::Equal => {
                if let (Some(was), Some(is)) = (one.take(), other.take()) {
                    let what = differences(old, &was, new, &is, with_content, unread);
                    if !what.is_empty() {
                        let Found { path, node, metadata, .. } = is;
                        visit(FileChange { kind: ChangeKind::Changed, path, from: None, node, metadata, what })?;
                    }
                }
                one = read(&mut before, "before", unread);
                other = read(&mut after, "now", unread);
            }
        }
    }
    let key = |found: &Found| (found.node, found.metadata.kind, found.metadata.times.created);
    let mut gone: HashMap<_, Vec<Found>> = HashMap::new();
    let mut rest: Vec<Found> = Vec::new();
    for found in removed {
        // Without a time of creation, a number that was used again would look like a rename.
        if found.metadata.times.created.is_some() {
            gone.entry(key(&found)).or_default().push(found)
        } else {
            rest.push(found)
        }
    }
    for is in added {
        let was = gone.get_mut(&key(&is)).and_then(Vec::pop);
        let what = was.as_ref().map(|was| differences(old, was, new, &is, with_content, unread)).unwrap_or_default();
        let kind = if was.is_some() { ChangeKind::Renamed } else { ChangeKind::Added };
        let Found { path, node, metadata, .. } = is;
        visit(FileChange { kind, path, from: was.map(|was| was.path), node, metadata, what })?;
    }
    rest.extend(gone.into_values().flatten());
    rest.sort_by(|one, other| in_order_of_walk(&one.path, &other.path));
    rest.into_iter().try_for_each(|Found { path, node, metadata, .. }| {
        visit(FileChange { kind: ChangeKind::Removed, path, from: None, node, metadata, what: Vec::new() })
    })
}

/// Orders paths as a walk finds them: directories before what they hold, names by their bytes.
fn in_order_of_walk(one: &[u8], other: &[u8]) -> Ordering {
    let parts = |path: &'_ [u8]| -> Vec<Vec<u8>> { path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect() };
    match (one.is_empty(), other.is_empty()) {
        (false, false) => parts(one).cmp(&parts(other)),
        (one, other) => other.cmp(&one),
    }
}

fn read(walk: &mut Walk<'_>, state: &'static str, unread: &mut dyn FnMut(&'static str, Unread)) -> Option<Found> {
    loop {
        match walk.next()? {
            Ok(found) => return Some(found),
            Err(error) => unread(state, error),
        }
    }
}

fn differences(
    old: &dyn Volume,
    was: &Found,
    new: &dyn Volume,
    is: &Found,
    with_content: bool,
    unread: &mut dyn FnMut(&'static str, Unread),
) -> Vec<&'static str> {
    let (before, now) = (&was.metadata, &is.metadata);
    let is_directory = now.kind == FileKind::Directory;
    let mut what = Vec::new();
    let mut note = |is_different: bool, word| {
        if is_different {
            what.push(word);
        }
    };
    note(before.kind != now.kind, "kind");
    // What a directory holds is told by the files in it.
    note(before.size != now.size && !is_directory, "size");
    note(before.times.modified != now.times.modified && !is_directory, "modified");
    note(before.mode != now.mode || before.dos_attributes != now.dos_attributes, "mode");
    note(before.owner != now.owner, "owner");
    note(before.times.changed != now.times.changed && !is_directory, "metadata");
    if with_content && before.kind == FileKind::File && now.kind == FileKind::File {
        let differs = before.size != now.size
            || match same_content(old, was.node, new, is.node) {
                Ok(is_same) => !is_same,
                Err(error) => {
                    unread("now", Unread { path: is.path.clone(), error });
                    false
                }
            };
        note(differs, "content");
    }
    what
}

fn same_content(old: &dyn Volume, was: Node, new: &dyn Volume, is: Node) -> Result<bool> {
    let (before, now) = (old.open(was, None)?, new.open(is, None)?);
    let (mut one, mut other) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    let mut offset = 0_u64;
    while let (Some((length, is_data)), Some((other_length, other_is_data))) =
        (before.run_at(offset), now.run_at(offset))
    {
        let step = length.min(other_length);
        if !is_data && !other_is_data {
            offset = offset.saturating_add(step);
            continue;
        }
        let most = usize::try_from(step).unwrap_or(usize::MAX).min(1 << 18);
        let (one, other) = (one.get_mut(..most).unwrap_or_default(), other.get_mut(..most).unwrap_or_default());
        before.read_at(one, offset)?;
        now.read_at(other, offset)?;
        if one != other {
            return Ok(false);
        }
        offset = offset.saturating_add(u64::try_from(most).unwrap_or(u64::MAX));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::in_order_of_walk;

    #[test]
    fn paths_are_ordered_as_a_walk_finds_them() {
        let paths: [&[u8]; 6] = [b"", b"a", b"a/b", b"a/b/c", b"a-b", b"b"];
        for pair in paths.windows(2) {
            assert_eq!(in_order_of_walk(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(in_order_of_walk(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(in_order_of_walk(b"", b""), Ordering::Equal);
    }
}
