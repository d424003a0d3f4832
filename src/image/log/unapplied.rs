//! Changes in the log that no valid header refers to, and that are not in the file.

use std::collections::HashSet;
use std::ops::Range;

use crate::error::Structure;
use crate::format::SECTOR_4K;
use crate::source::View;
use crate::zero::is_zero;

use super::super::header::CurrentHeader;
use super::super::warning::Warnings;
use super::entry::{Entry, Rebuild, Ring};
use super::sequence::{find_active, valid_entries};

/// Largest number of changes of one entry, and of zero ranges of all entries, that are checked. Writers make fewer; if
/// there are more, the file counts as different from the result of the log.
const MOST_CHANGES: usize = 1 << 16;
const MOST_ZEROS: usize = 1 << 8;
/// Number of bytes of ranges that should be zero that are checked.
const MOST_BYTES: u64 = 32 << 20;
/// Number of changes to check before their memory is released.
const AT_ONCE: usize = 1 << 8;

/// Returns whether the file differs from the result of the sequence that `header` refers to. Returns `None` if it
/// refers to none.
pub(crate) fn is_unapplied(view: &View, header: &CurrentHeader) -> Option<bool> {
    let active = super::active_sequence(view, header, &mut Warnings::default()).ok()?;
    Some(is_another(view, &Ring::new(view, header), active.iter().rev()))
}

/// Returns whether the log at the location in `header` holds a complete sequence of another log; with `only_unapplied`,
/// one whose changes are not in the file. The last header of this log may have been damaged beyond recognition; if the
/// changes are in the file, nothing is missing.
pub(crate) fn has_another(view: &View, header: &CurrentHeader, only_unapplied: bool) -> bool {
    let place = [header.check_log_alignment(), header.check_log_length(), header.check_log_place(view.length())];
    if place.iter().any(Result::is_err) {
        return false;
    }
    let ring = Ring::new(view, header);
    let mut entries = valid_entries(&ring, None);
    entries.retain(|entry| entry.log_guid != header.log_guid);
    // Entries of one log stay in the order of their offsets.
    entries.sort_by_key(|entry| entry.log_guid);
    entries.chunk_by(|one, other| one.log_guid == other.log_guid).any(|entries| {
        let active = find_active(entries, ring.sectors()).unwrap_or_default();
        let newest_first = active.iter().filter_map(|index| entries.get(*index)).rev();
        !active.is_empty() && (!only_unapplied || is_another(view, &ring, newest_first))
    })
}

/// Returns whether the file differs from the result of these entries, newest first.
fn is_another<'e>(view: &View, ring: &Ring<'_>, newest_first: impl Iterator<Item = &'e Entry>) -> bool {
    let (mut written, mut zeros) = (HashSet::new(), Vec::<Range<u64>>::new());
    let (mut looked_at, mut left) = (0_usize, MOST_BYTES);
    for entry in newest_first {
        let changes: Vec<_> = entry.changes(ring).take(MOST_CHANGES).collect();
        if changes.len() >= MOST_CHANGES {
            return true;
        }
        // Changes of the previous entry may be anywhere.
        looked_at = looked_at.saturating_add(changes.len());
        if looked_at >= AT_ONCE {
            view.forget(0, view.length());
            looked_at = 0;
        }
        for change in changes.into_iter().rev() {
            match change.sector {
                // Ranges that are overwritten later need not be zero.
                Some(_) if zeros.iter().any(|zeros| zeros.contains(&change.start)) => {}
                Some(made) if written.insert(change.start) && !has(view, ring, change.start, &made) => return true,
                Some(_) => {}
                None => {
                    if zeros.len() >= MOST_ZEROS
                        || !is_zero_but_for(view, change.start..change.end, &written, &mut left)
                    {
                        return true;
                    }
                    zeros.push(change.start..change.end);
                }
            }
        }
    }
    false
}

fn has(view: &View, ring: &Ring<'_>, offset: u64, made: &Rebuild) -> bool {
    let made = made.sector(ring);
    view.bytes(Structure::File, offset, SECTOR_4K).is_ok_and(|bytes| made.is_some_and(|made| *bytes == made[..]))
}

/// Returns whether a range of the file is zero, except for sectors that were written later. Bytes past the end of the
/// file are unknown. `left` is the number of bytes that may be read in total.
fn is_zero_but_for(view: &View, range: Range<u64>, written: &HashSet<u64>, left: &mut u64) -> bool {
    let end = range.end.min(view.length());
    let mut at = range.start;
    while at < end && *left > 0 {
        at = view.known_zero_end(at, end);
        let sector = at & !SECTOR_4K.saturating_sub(1);
        let next = sector.saturating_add(SECTOR_4K).min(end);
        if at < end && !written.contains(&sector) {
            let is_zero = view.bytes(Structure::File, at, next.saturating_sub(at)).is_ok_and(|bytes| is_zero(&bytes));
            if !is_zero {
                return false;
            }
            *left = left.saturating_sub(SECTOR_4K);
        }
        at = next.max(at);
    }
    true
}
