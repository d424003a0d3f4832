//! Blocks that lie in one place: which they are, and with whom they share it.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, ErrorKind, Structure};
use crate::error::{Rule, Severity};
use crate::format::MIB;
use crate::image::ImageKind;
use crate::image::bat::{Bat, Judged};
use crate::image::region::ReservedRanges;
use crate::num::to_usize_saturating;

use super::finding::{Findings, MOST_OF_A_KIND};
use super::slots::Slots;

/// A place in the file that a block says is its own.
struct Claim {
    structure: Structure,
    place: u64,
    end: u64,
    /// The block, or the first one of the chunk.
    block: u64,
}

impl Bat<'_> {
    /// The first block that shares its place, and with what it does: with another block, of which it reads the bytes, or, where
    /// less is `held` than is taken, with something that claims to be there.
    pub(crate) fn first_shared(&self, reserved_for_salvage: Option<&ReservedRanges>) -> Option<Error> {
        if let Some(reserved_for_salvage) = reserved_for_salvage {
            let first_of = |first, end| {
                let mut found = None;
                let by_the_book: Bat<'_> = *self;
                let reads = Bat { reserved: reserved_for_salvage, ..by_the_book };
                reads.for_each_place(first, end, |Claim { structure, place, end, .. }| {
                    if let (None, Some((with, offset))) = (&found, self.reserved.overlap(place, end)) {
                        found = Some(Error::at(structure, place, ErrorKind::Overlap { with, offset }));
                    }
                });
                found
            };
            if let Some(found) = self.in_parts(first_of).into_iter().flatten().next() {
                return Some(found);
            }
        }
        let slots = Slots::new(self.view.length());
        self.in_parts(|first, end| self.for_each_place(first, end, |claim| slots.claim(claim.place, claim.end)));
        if !slots.has_shared() {
            return None;
        }
        let mut findings = Findings::default();
        self.shared_is_told(&slots, &mut findings);
        findings.into_parts().0.into_iter().next().map(|finding| finding.detail)
    }

    /// Tells of every block that shares its place, and with whom it does: with the first other one of the same place.
    pub(crate) fn shared_is_told(&self, slots: &Slots, findings: &mut Findings) {
        let parts = self.in_parts(|first, end| {
            let (mut shared, mut count) = (Vec::new(), 0_u64);
            self.for_each_place(first, end, |claim| {
                if let Some(slot) = slots.shared(claim.place, claim.end).next() {
                    count = count.saturating_add(1);
                    if count <= MOST_OF_A_KIND {
                        shared.push((claim, slot));
                    }
                }
            });
            (shared, count)
        });
        let count = parts.iter().map(|(_, count)| *count).fold(0, u64::saturating_add);
        let told = parts.into_iter().flat_map(|(shared, _)| shared);
        let told: Vec<(Claim, u64)> = told.take(to_usize_saturating(MOST_OF_A_KIND)).collect();
        let wanted: HashSet<u64> = told.iter().map(|(_, slot)| *slot).collect();
        // The first two of each of these places.
        let firsts = self.in_parts(|first, end| {
            let mut firsts: HashMap<u64, Vec<Structure>> = HashMap::new();
            self.for_each_place(first, end, |claim| {
                for slot in slots.shared(claim.place, claim.end).filter(|slot| wanted.contains(slot)) {
                    let firsts = firsts.entry(slot).or_default();
                    if firsts.len() < 2 {
                        firsts.push(claim.structure);
                    }
                }
            });
            firsts
        });
        let mut untold = count;
        for (Claim { structure, place, block, .. }, slot) in &told {
            let of_slot = firsts.iter().filter_map(|firsts| firsts.get(slot)).flatten();
            let Some(with) = of_slot.copied().find(|other| other != structure) else { continue };
            let kind = ErrorKind::Overlap { with, offset: slot.saturating_mul(MIB) };
            let range = match structure {
                Structure::SectorBitmap(chunk) => self.range_of(*block).start..self.range_of(self.last_of(*chunk)).end,
                _ => self.range_of(*block),
            };
            findings.add(Rule::BlockOverlap, Error::at(*structure, *place, kind), Some(range));
            untold = untold.saturating_sub(1);
        }
        findings.count_more(Rule::BlockOverlap, Severity::Corruption, untold);
    }

    /// Shows what has claimed its place among the blocks from `first` to `end`, and the sector bitmaps of their chunks. What
    /// can't be read has been told.
    fn for_each_place(&self, first: u64, end: u64, mut show: impl FnMut(Claim)) {
        let visited = self.visit(first, end, |block, entry| {
            let at = self.entry_offset(self.geometry.payload_index(block));
            if let Ok(Judged { place: Some((place, end)), .. }) = self.judge(block, entry, at) {
                show(Claim { structure: Structure::PayloadBlock(block), place, end, block });
            }
        });
        drop(visited);
        if self.geometry.kind == ImageKind::Differencing {
            let mut holes = self.bitmap_holes();
            for chunk in self.geometry.chunk_of(first)..=self.geometry.chunk_of(end.saturating_sub(1)) {
                if !holes.has(chunk)
                    && let Ok(place) = self.bitmap_place(chunk)
                    && place >= MIB
                {
                    let (end, block) = (place.saturating_add(MIB), chunk.saturating_mul(self.geometry.chunk_blocks()));
                    show(Claim { structure: Structure::SectorBitmap(chunk), place, end, block });
                }
            }
        }
    }
}
