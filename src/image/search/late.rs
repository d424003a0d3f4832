//! BATs that begin with more than 64 KiB of blocks that are not allocated.
//!
//! Little distinguishes such a table from other zeros: neither of its entries may be damaged, and what was found as the
//! part of another table is no table of its own. The place where the unallocated entries end is the same for all
//! possible beginnings before it, and is looked for only once.

use std::collections::BTreeSet;

use crate::format::{BatEntry, KIB_64, MIB};
use crate::num::to_u64;

use super::{Geometry, ImageKind, MOST, PIECE, Search, Table, Tally};

impl Search<'_> {
    /// Returns the possible locations of a BAT whose first 64 KiB have no allocated block, except for those whose
    /// allocated blocks are in one of the `others`. Reads a page of each MiB, and no more of the rest than is read of
    /// whole tables.
    pub(super) fn late_bats(
        &self,
        metadata: Option<u64>,
        geometry: &Geometry,
        nested: &BTreeSet<u64>,
        others: &[u64],
    ) -> Vec<u64> {
        let (length, file_length) = (geometry.bat_length(), self.view.length());
        let mib_of = |offset: u64| offset & !MIB.saturating_sub(1);
        let is_taken = |entry: u64| {
            nested.contains(&mib_of(entry))
                || others.iter().any(|other| (*other..other.saturating_add(length)).contains(&entry))
        };
        let mut found = Vec::new();
        // All entries from `place` on are unallocated before `idle_end`.
        let (mut place, mut idle_end) = (MIB, 0);
        while place.saturating_add(length) <= file_length && self.left.get() > 0 && found.len() <= MOST {
            let end = place.saturating_add(length);
            let Some(entry) = self.idle_end(place, idle_end.max(place), end) else { break };
            idle_end = entry;
            let next = place.saturating_add(MIB);
            if entry >= end {
                // The first place from which a table of this length reaches past these entries.
                place = next.max(mib_of(entry.saturating_sub(length)).saturating_add(MIB));
                continue;
            }
            let bat = Table { place, metadata, geometry, file_length };
            let is_new = !nested.contains(&place) && Some(place) != metadata && !is_taken(entry);
            if entry.saturating_sub(place) >= KIB_64 && is_new && self.is_late_bat(&bat, entry) {
                found.push(place);
            }
            place = next;
        }
        found
    }

    /// Returns the first page from `at` on with an entry that is not unallocated, or a place at or after `end` if no
    /// page before `end` has one. Returns `None` if it cannot be read, or too much was read.
    fn idle_end(&self, place: u64, mut at: u64, end: u64) -> Option<u64> {
        let file_length = self.view.length();
        let is_idle = |entry: &[u8]| {
            let entry = BatEntry(u64::from_le_bytes(entry.try_into().unwrap_or_default()));
            entry.state() <= 3 && entry.reserved() == 0 && entry.file_offset() < file_length
        };
        while at < end {
            let zero_end = self.view.known_zero_end(at, file_length);
            if zero_end >= at.saturating_add(PIECE) {
                at = zero_end & !PIECE.saturating_sub(1);
                continue;
            }
            let step = if at == place { PIECE } else { KIB_64 }.min(file_length.saturating_sub(at));
            if step > PIECE {
                self.left.set(self.left.get().checked_sub(step)?);
            }
            let bytes = self.read(at, step)?;
            let piece = usize::try_from(PIECE).unwrap_or(usize::MAX);
            let mut pages = bytes.chunks(piece);
            if let Some(page) = pages.position(|page| !page.chunks_exact(8).all(is_idle)) {
                return Some(at.saturating_add(to_u64(page).saturating_mul(PIECE)));
            }
            at = at.saturating_add(step);
        }
        Some(at)
    }

    /// Returns whether all entries from this one on are valid, and blocks of theirs fit into the file.
    fn is_late_bat(&self, bat: &Table<'_>, entry: u64) -> bool {
        let mut tally = Tally::default();
        let has_bitmaps = bat.geometry.kind == ImageKind::Differencing;
        let is_valid = self.pieces(bat, entry.saturating_sub(bat.place), |at, bytes| {
            bat.count(at, bytes, &mut tally);
            let mut entries = bat.entries(at, bytes);
            tally.damaged == 0 && (has_bitmaps || !entries.any(|(is_bitmap, entry)| is_bitmap && entry.is_allocated()))
        });
        let space = tally.allocated.saturating_sub(1).saturating_mul(bat.geometry.block_size());
        is_valid && tally.allocated > 0 && space <= bat.file_length
    }
}
