//! Blocks that overlap in the file.

use std::collections::{HashMap, HashSet};

use crate::error::{Category, Error, ErrorKind, Result, Rule, Severity, Structure};
use crate::format::MIB;
use crate::image::ImageKind;
use crate::image::bat::{Bat, Judged};
use crate::image::region::ReservedRanges;
use crate::num::to_usize_saturating;

use super::finding::{Findings, MOST_OF_A_KIND};
use super::slots::Slots;

/// A part of the file that a block uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) structure: Structure,
    pub(super) place: u64,
    pub(super) end: u64,
    /// The block, or the first one of the chunk.
    pub(super) block: u64,
}

impl Bat<'_> {
    /// Returns the first block that shares its space: with another block, whose bytes it reads, or, if
    /// `reserved_for_salvage` is less than what is reserved, with another structure.
    ///
    /// # Errors
    /// Fails if a part of the table cannot be read.
    pub(crate) fn first_shared(&self, reserved_for_salvage: Option<&ReservedRanges>) -> Result<Option<Error>> {
        if let Some(reserved_for_salvage) = reserved_for_salvage {
            let first_of = |first, end| {
                let mut found = None;
                let by_the_book: Bat<'_> = *self;
                let reads = Bat { reserved: reserved_for_salvage, ..by_the_book };
                reads.for_each_place(first, end, |Claim { structure, place, end, .. }| {
                    if let (None, Some((with, offset))) = (&found, self.reserved.overlap(place, end)) {
                        found = Some(Error::at(structure, place, ErrorKind::Overlap { with, offset }));
                    }
                })?;
                Ok(found)
            };
            let found = self.in_parts(first_of).into_iter().collect::<Result<Vec<_>>>()?;
            if let Some(found) = found.into_iter().flatten().next() {
                return Ok(Some(found));
            }
        }
        let slots = Slots::new(self.view.length());
        let claim = |first, end| self.for_each_place(first, end, |claim| claim.mark(&slots));
        self.in_parts(claim).into_iter().collect::<Result<()>>()?;
        if !slots.has_shared() {
            return Ok(None);
        }
        let mut findings = Findings::default();
        self.report_shared(&slots, &mut findings);
        Ok(findings.into_parts().0.into_iter().next().map(|finding| finding.detail))
    }

    /// Reports every block that shares its space, together with the first other block of the same space. The caller has
    /// read the whole table before, and reported what cannot be read.
    pub(crate) fn report_shared(&self, slots: &Slots, findings: &mut Findings) {
        let parts = self.in_parts(|first, end| {
            let (mut shared, mut count) = (Vec::new(), 0_u64);
            let _reported = self.for_each_place(first, end, |claim| {
                if let Some(slot) = claim.shared(slots).next() {
                    count = count.saturating_add(1);
                    if count <= MOST_OF_A_KIND {
                        shared.push((claim, slot));
                    }
                }
            });
            (shared, count)
        });
        let count = parts.iter().map(|(_, count)| *count).fold(0, u64::saturating_add);
        let reported = parts.into_iter().flat_map(|(shared, _)| shared);
        let reported: Vec<(Claim, u64)> = reported.take(to_usize_saturating(MOST_OF_A_KIND)).collect();
        let wanted: HashSet<u64> = reported.iter().map(|(_, slot)| *slot).collect();
        // The first two blocks of each of these places.
        let firsts = self.in_parts(|first, end| {
            let mut firsts: HashMap<u64, Vec<Structure>> = HashMap::new();
            let _reported = self.for_each_place(first, end, |claim| {
                for slot in claim.shared(slots).filter(|slot| wanted.contains(slot)) {
                    let firsts = firsts.entry(slot).or_default();
                    if firsts.len() < 2 {
                        firsts.push(claim.structure);
                    }
                }
            });
            firsts
        });
        let mut unreported = count;
        for (Claim { structure, place, block, .. }, slot) in &reported {
            let of_slot = firsts.iter().filter_map(|firsts| firsts.get(slot)).flatten();
            let Some(with) = of_slot.copied().find(|other| other != structure) else { continue };
            let kind = ErrorKind::Overlap { with, offset: slot.saturating_mul(MIB) };
            let range = match structure {
                Structure::SectorBitmap(chunk) => self.range_of(*block).start..self.range_of(self.last_of(*chunk)).end,
                _ => self.range_of(*block),
            };
            findings.add(Rule::BlockOverlap, Error::at(*structure, *place, kind), Some(range));
            unreported = unreported.saturating_sub(1);
        }
        findings.count_more(Rule::BlockOverlap, Severity::Corruption, unreported);
    }

    /// Shows the space that each of the blocks from `first` to `end` uses, and that of the sector bitmaps of their
    /// chunks. Invalid entries use none.
    ///
    /// # Errors
    /// Fails if a part of the table cannot be read. The space of the other entries was shown.
    pub(super) fn for_each_place(&self, first: u64, end: u64, mut show: impl FnMut(Claim)) -> Result<()> {
        let visited = self.visit(first, end, |block, entry| {
            // Most entries of most tables have no file offset, and judging them takes longer than this look.
            if !entry.is_allocated() {
                return;
            }
            let at = self.entry_offset(self.geometry.payload_index(block));
            if let Ok(Judged { place: Some((place, end)), .. }) = self.judge(block, entry, at) {
                show(Claim { structure: Structure::PayloadBlock(block), place, end, block });
            }
        });
        let mut failed = visited.err().map(|(_, error)| error).filter(is_unread);
        if self.geometry.kind == ImageKind::Differencing {
            failed = failed.or(self.for_each_bitmap(first, end, show).err());
        }
        failed.map_or(Ok(()), Err)
    }

    /// Shows the space that the sector bitmaps of a differencing image use, of the chunks from block `first` to `end`.
    ///
    /// # Errors
    /// Fails if a part of the table cannot be read. The space of the other entries was shown.
    pub(super) fn for_each_bitmap(&self, first: u64, end: u64, mut show: impl FnMut(Claim)) -> Result<()> {
        let mut holes = self.bitmap_holes();
        let mut failed = None;
        for chunk in self.geometry.chunk_of(first)..=self.geometry.chunk_of(end.saturating_sub(1)) {
            match if holes.has(chunk) { Ok(0) } else { self.bitmap_place(chunk) } {
                Ok(place) if place >= MIB => {
                    let end = place.saturating_add(self.bitmap_length(chunk));
                    let block = chunk.saturating_mul(self.geometry.chunk_blocks());
                    show(Claim { structure: Structure::SectorBitmap(chunk), place, end, block });
                }
                Ok(_) => {}
                Err(error) => failed = failed.or(Some(error).filter(is_unread)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Returns the length of the part of a sector bitmap with the bits of blocks of the disk, in bytes.
    pub(super) fn bitmap_length(&self, chunk: u64) -> u64 {
        let last = self.last_of(chunk);
        let bits = self.used_of(last, 0) >> self.geometry.sector_shift();
        self.geometry.bitmap_start(last).saturating_add(bits.div_ceil(8))
    }
}

/// Returns whether an error is that of reading, not of what was read.
pub(super) fn is_unread(error: &Error) -> bool {
    error.category() == Category::Io
}

impl Claim {
    /// Returns the end of the space: sector bitmap blocks use all of theirs.
    fn space_end(self) -> u64 {
        match self.structure {
            Structure::SectorBitmap(_) => self.place.saturating_add(MIB),
            _ => self.end,
        }
    }

    /// Marks the space as in use.
    pub(super) fn mark(self, slots: &Slots) {
        slots.claim(self.place, self.space_end());
    }

    /// Returns the MiB of the space that are in use more than once.
    fn shared(self, slots: &Slots) -> impl Iterator<Item = u64> {
        slots.shared(self.place, self.space_end())
    }
}
