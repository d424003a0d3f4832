//! Going through the BAT entry by entry, to find everything that is wrong with it.

use std::collections::HashMap;
use std::ops::Range;

use zerocopy::FromBytes;

use crate::error::{Error, ErrorKind, Structure};
use crate::format::{BatEntry, MIB, PayloadBlockState, SectorBitmapState, U64};
use crate::image::finding::Findings;
use crate::image::geometry::Kind;
use crate::image::rule::{Check, Severity};
use crate::source::Run;

use super::Bat;
use super::bitmap::equal_bits;
use super::slots::{MOST_ACCOUNTED, Slots};

/// What a pass over the BAT has found, but for the findings.
#[derive(Clone, Debug, Default)]
pub(crate) struct BatSummary {
    /// Payload blocks that are present.
    pub(crate) allocated: u64,
    /// Those of them that do not follow the one before in the file.
    pub(crate) fragmented: u64,
    first: Option<u64>,
    last: Option<u64>,
}

impl BatSummary {
    /// A block that is present, at this place.
    fn place(&mut self, place: u64, block_size: u64) {
        if self.last.is_some_and(|last| last.checked_add(block_size) != Some(place)) {
            self.fragmented = self.fragmented.saturating_add(1);
        }
        self.allocated = self.allocated.saturating_add(1);
        self.first.get_or_insert(place);
        self.last = Some(place);
    }

    /// This part, and the one behind it.
    fn append(&mut self, other: &Self, block_size: u64) {
        let joint = self.last.zip(other.first);
        let is_broken = joint.is_some_and(|(last, first)| last.checked_add(block_size) != Some(first));
        self.fragmented = self.fragmented.saturating_add(other.fragmented).saturating_add(u64::from(is_broken));
        self.allocated = self.allocated.saturating_add(other.allocated);
        self.first = self.first.or(other.first);
        self.last = other.last.or(self.last);
    }
}

/// How many blocks one thread examines in one go, give or take a chunk.
const EXAMINED_AT_ONCE: u64 = 1 << 20;

/// How many blocks that share their places are remembered, to say with whom.
const MOST_OWNERS: usize = 1 << 16;

impl Bat<'_> {
    /// Examines every entry in use, and takes account in `slots` of what lies where.
    pub(in crate::image) fn examine(&self, slots: &Slots, findings: &mut Findings) -> BatSummary {
        let blocks = self.geometry.payload_blocks();
        // Whole chunks, so that the blocks of one are looked at together with its sector bitmap.
        let chunk = self.geometry.chunk_blocks();
        let step = EXAMINED_AT_ONCE.next_multiple_of(chunk);
        let parts = blocks.div_ceil(step);
        let part = |part: u64| {
            let first = part.saturating_mul(step);
            let end = first.saturating_add(step).min(blocks);
            let mut pass = Pass { bat: self, slots, findings: Findings::default(), summary: BatSummary::default() };
            pass.blocks(first, end);
            self.forget_blocks(first, end);
            (pass.summary, pass.findings)
        };
        #[cfg(feature = "rayon")]
        let done: Vec<_> = {
            use rayon::iter::{IntoParallelIterator, ParallelIterator};
            (0..parts).into_par_iter().map(part).collect()
        };
        #[cfg(not(feature = "rayon"))]
        let done: Vec<_> = (0..parts).map(part).collect();
        let mut summary = BatSummary::default();
        for (part, found) in done {
            summary.append(&part, self.geometry.block_size());
            findings.append(found);
        }
        if slots.has_shared() {
            self.find_owners(slots, findings);
        }
        summary
    }

    /// Shows the entries of the blocks from `first` to `end` that are not zero, in order.
    ///
    /// # Errors
    /// With the first block whose entry can't be read.
    fn visit(&self, first: u64, end: u64, mut visit: impl FnMut(u64, BatEntry)) -> Result<(), (u64, Error)> {
        let (mut block, mut ask_from) = (first, first);
        while block < end {
            // Before it is looked at: to look into a hole makes the system fill it, and much of what is behind.
            if block >= ask_from {
                let hole = self.blocks_in_hole(block).min(end.saturating_sub(block));
                if hole > 0 {
                    block = block.saturating_add(hole);
                    continue;
                }
                ask_from = block.saturating_add(MIB / BatEntry::LENGTH);
            }
            let most = end.saturating_sub(block).min(MIB / BatEntry::LENGTH);
            match self.entries(block, most).map_err(|error| (block, error))? {
                Run::Zero(length) => block = block.saturating_add((length / BatEntry::LENGTH).max(1)),
                Run::Data([]) => {
                    let index = self.geometry.payload_index(block);
                    let entry = self.view.fetch::<U64>(Structure::PayloadBatEntry(block), self.entry_offset(index));
                    visit(block, BatEntry(entry.map_err(|error| (block, error))?.get()));
                    block = block.saturating_add(1);
                }
                Run::Data(bytes) => {
                    let Ok(entries) = <[U64]>::ref_from_bytes(bytes) else { break };
                    for entry in entries {
                        let entry = BatEntry(entry.get());
                        if entry.0 != 0 {
                            visit(block, entry);
                        }
                        block = block.saturating_add(1);
                    }
                }
            }
        }
        Ok(())
    }

    /// How many blocks from `block` on have their entries in a hole of the file.
    fn blocks_in_hole(&self, block: u64) -> u64 {
        let index = self.geometry.payload_index(block);
        let entries = self.geometry.bat_entries().min(self.length / BatEntry::LENGTH);
        let (start, end) = (self.entry_offset(index), self.entry_offset(entries));
        let zeros = self.view.known_zero_end(start, end).saturating_sub(start) / BatEntry::LENGTH;
        let before = |index| self.geometry.payload_blocks_before(index);
        before(index.saturating_add(zeros)).saturating_sub(before(index))
    }

    /// Says of blocks that share their place with whom they do. In order, on one thread: it is rare, and the first that has
    /// a place is its owner.
    fn find_owners(&self, slots: &Slots, findings: &mut Findings) {
        let mut owners: HashMap<u64, u64> = HashMap::new();
        let (mut told, mut more) = (false, 0_u64);
        let found = self.visit(0, self.geometry.payload_blocks(), |block, entry| {
            let is_present = matches!(
                PayloadBlockState::from_number(entry.state()),
                Some(PayloadBlockState::FullyPresent | PayloadBlockState::PartiallyPresent)
            );
            let (place, used) = (entry.file_offset(), self.used_of(block, 0));
            let mut with = None;
            for slot in slots.shared(place, place.saturating_add(used)).filter(|_| is_present) {
                match owners.get(&slot) {
                    Some(owner) => with = with.or(Some((*owner, slot))),
                    None if owners.len() < MOST_OWNERS => drop(owners.insert(slot, block)),
                    None => more = more.saturating_add(1),
                }
            }
            if let Some((owner, slot)) = with {
                told = true;
                let kind =
                    ErrorKind::Overlap { with: Structure::PayloadBlock(owner), offset: slot.saturating_mul(MIB) };
                let detail = Error::at(Structure::PayloadBlock(block), place, kind);
                findings.add(Check::BlockOverlap, detail, Some(self.range_of(block)));
            }
        });
        // What can't be read has been told.
        drop(found);
        findings.count_more(Check::BlockOverlap, Severity::Corruption, more);
        if !told {
            let kind = ErrorKind::Text { what: "a sector bitmap block shares its place with another block" };
            findings.add(Check::BlockOverlap, Error::of(Structure::Bat, kind), None);
        }
    }

    /// What of the disk a block is.
    fn range_of(&self, block: u64) -> Range<u64> {
        let start = self.geometry.block_start(block);
        start..start.saturating_add(self.used_of(block, 0))
    }
}

/// A pass over a part of the BAT.
struct Pass<'p, 'b> {
    bat: &'p Bat<'b>,
    slots: &'p Slots,
    findings: Findings,
    summary: BatSummary,
}

impl Pass<'_, '_> {
    /// The blocks from `first` to `end`, and the sector bitmaps of their chunks.
    fn blocks(&mut self, first: u64, end: u64) {
        let bat = self.bat;
        // The first block of each chunk that is partially present: only then its sector bitmap is needed.
        let mut partial: Vec<(u64, u64)> = Vec::new();
        let visited = bat.visit(first, end, |block, entry| {
            if self.block(block, entry) {
                let chunk = bat.geometry.chunk_of(block);
                if partial.last().is_none_or(|(last, _)| *last != chunk) {
                    partial.push((chunk, block));
                }
            }
        });
        if let Err((block, error)) = visited {
            let start = bat.geometry.block_start(block);
            let range = start..bat.geometry.block_start(end).min(bat.geometry.virtual_disk_size);
            self.findings.refuse(Check::BatSize, error, Some(range));
        }
        let mut partial = partial.into_iter().peekable();
        let (first_chunk, last_chunk) = (bat.geometry.chunk_of(first), bat.geometry.chunk_of(end.saturating_sub(1)));
        let table_end = bat.entry_offset(bat.geometry.bat_entries().min(bat.length / BatEntry::LENGTH));
        let mut zero_end = 0;
        for chunk in first_chunk..=last_chunk {
            let needed_by = partial.next_if(|(of, _)| *of == chunk).map(|(_, block)| block);
            let at = bat.entry_offset(bat.geometry.bitmap_index(chunk));
            // Entries in a hole are zero, which needs no look.
            if at >= zero_end && at < table_end {
                zero_end = bat.view.known_zero_end(at, table_end);
            }
            if needed_by.is_some() || at >= zero_end {
                self.bitmap(chunk, needed_by);
            }
        }
    }

    /// Judges an entry; whether the block is partially present, as far as that can be.
    fn block(&mut self, block: u64, entry: BatEntry) -> bool {
        let bat = self.bat;
        let at = bat.entry_offset(bat.geometry.payload_index(block));
        let of_entry = |kind| Error::at(Structure::PayloadBatEntry(block), at, kind);
        let range = || Some(bat.range_of(block));
        if entry.reserved() != 0 {
            let kind = ErrorKind::Field { field: "reserved bits", found: entry.reserved(), expected: "0" };
            self.findings.add(Check::BatReserved, of_entry(kind), range());
        }
        let Some(state) = PayloadBlockState::from_number(entry.state()) else {
            self.findings.refuse(
                Check::BlockState,
                of_entry(ErrorKind::ReservedState { state: entry.state() }),
                range(),
            );
            return false;
        };
        let place = entry.file_offset();
        let is_partial = state == PayloadBlockState::PartiallyPresent;
        if is_partial && bat.geometry.kind != Kind::Differencing {
            let detail = of_entry(ErrorKind::PartiallyPresentWithoutParent);
            self.findings.refuse(Check::PartialWithoutParent, detail, range());
            return false;
        }
        if !is_partial && state != PayloadBlockState::FullyPresent {
            if place != 0 {
                let kind = ErrorKind::PlaceOfAbsent { state: state.name(), offset: place };
                self.findings.add(Check::AbsentPlace, of_entry(kind), range());
            }
            return false;
        }
        let end = place.saturating_add(bat.used_of(block, 0));
        let of_block = |kind| Error::at(Structure::PayloadBlock(block), place, kind);
        if place < MIB {
            let kind = ErrorKind::Overlap { with: Structure::HeaderSection, offset: 0 };
            self.findings.refuse(Check::BlockOffset, of_block(kind), range());
        } else if let Some((with, offset)) = bat.taken.overlap(place, end) {
            self.findings.refuse(Check::BlockOverlap, of_block(ErrorKind::Overlap { with, offset }), range());
        } else if !bat.view.has(place, end) {
            let kind = ErrorKind::OutOfBounds { length: end.saturating_sub(place), limit: bat.view.file_end() };
            self.findings.refuse(Check::BlockPlace, of_block(kind), range());
            // What is left of it belongs to it.
            self.slots.mark(place, end);
        } else {
            self.slots.claim(place, end);
            // The whole block has its room, also where the disk ends before it does.
            let whole = place.saturating_add(bat.geometry.block_size());
            if whole > end {
                self.slots.mark(end, whole);
            }
            if end > MOST_ACCOUNTED {
                self.findings.add(
                    Check::TooFar,
                    of_block(ErrorKind::OutOfBounds { length: 0, limit: MOST_ACCOUNTED }),
                    range(),
                );
            }
        }
        self.summary.place(place, bat.geometry.block_size());
        is_partial
    }

    /// Judges the entry of a sector bitmap block; `needed_by` is the first block of its chunk that needs it.
    fn bitmap(&mut self, chunk: u64, needed_by: Option<u64>) {
        let bat = self.bat;
        let index = bat.geometry.bitmap_index(chunk);
        // In a fixed or dynamic image, the last chunk has no such entry.
        if index >= bat.geometry.bat_entries() {
            return;
        }
        let structure = Structure::BitmapBatEntry(chunk);
        let entry = bat.entry_place(structure, index).and_then(|at| Ok((at, bat.view.fetch::<U64>(structure, at)?)));
        let (at, entry) = match entry {
            Ok((at, entry)) => (at, BatEntry(entry.get())),
            Err(error) => {
                let range = needed_by.map(|block| bat.range_of(block));
                return self.findings.refuse(Check::BatSize, error, range);
            }
        };
        let of_entry = |kind| Error::at(structure, at, kind);
        if bat.geometry.kind != Kind::Differencing {
            if entry.0 != 0 {
                let kind = ErrorKind::Field { field: "sector bitmap entry", found: entry.0, expected: "0" };
                self.findings.add(Check::BitmapUnneeded, of_entry(kind), None);
            }
            return;
        }
        let state = SectorBitmapState::from_number(entry.state());
        if state != Some(SectorBitmapState::Present) {
            let kind = ErrorKind::NoSectorBitmap { state: entry.state() };
            if let Some(block) = needed_by {
                self.findings.refuse(Check::Bitmap, of_entry(kind), Some(bat.range_of(block)));
            } else if state.is_none() {
                self.findings.add(Check::BitmapState, of_entry(kind), None);
            }
            return;
        }
        let place = entry.file_offset();
        // As much of it as blocks of the disk have bits in.
        let last = self.last_of(chunk);
        let bits = bat.used_of(last, 0) >> bat.geometry.sector_shift();
        let length = bat.geometry.bitmap_start(last).saturating_add(bits.div_ceil(8));
        let end = place.saturating_add(length);
        let overlap = match bat.taken.overlap(place, end) {
            Some((with, offset)) => Some(ErrorKind::Overlap { with, offset }),
            None if place < MIB => Some(ErrorKind::Overlap { with: Structure::HeaderSection, offset: 0 }),
            None if !bat.view.has(place, end) => Some(ErrorKind::OutOfBounds { length, limit: bat.view.file_end() }),
            None => None,
        };
        if let Some(kind) = overlap {
            let severity = if needed_by.is_some() { Severity::Corruption } else { Severity::Warning };
            let detail = Error::at(Structure::SectorBitmap(chunk), place, kind);
            let range = needed_by.map(|block| bat.range_of(block));
            return self.findings.add_as(Check::Bitmap, severity, detail, range);
        }
        self.slots.claim(place, place.saturating_add(MIB));
        self.bits(chunk, place, last);
    }

    /// The last block of a chunk.
    fn last_of(&self, chunk: u64) -> u64 {
        let geometry = self.bat.geometry;
        let behind = chunk.saturating_add(1).saturating_mul(geometry.chunk_blocks());
        behind.min(geometry.payload_blocks()).saturating_sub(1)
    }

    /// Looks for bits that do not go with the states of the blocks.
    fn bits(&mut self, chunk: u64, place: u64, last: u64) {
        let geometry = self.bat.geometry;
        let first = chunk.saturating_mul(geometry.chunk_blocks());
        for block in first..=last {
            let Ok((state, _)) = self.bat.payload(block) else { continue };
            let bits = self.bat.used_of(block, 0) >> geometry.sector_shift();
            let at = place.saturating_add(geometry.bitmap_start(block));
            let structure = Structure::SectorBitmap(chunk);
            let Ok(bytes) = self.bat.view.bytes(structure, at, bits.div_ceil(8)) else { continue };
            let are_all = |bit| equal_bits(&bytes, 0, bit) >= bits;
            let what = match state {
                PayloadBlockState::PartiallyPresent if are_all(true) => "all bits of a partially present block are set",
                PayloadBlockState::PartiallyPresent if are_all(false) => "no bit of a partially present block is set",
                PayloadBlockState::NotPresent if !are_all(false) => "bits of a block that is not present are set",
                _ => continue,
            };
            let detail = Error::at(structure, at, ErrorKind::Text { what });
            self.findings.add(Check::BitmapBits, detail, Some(self.bat.range_of(block)));
        }
        self.bat.view.forget(place, place.saturating_add(MIB));
    }
}

#[cfg(test)]
mod tests {
    use super::BatSummary;

    #[test]
    fn fragments_are_counted_across_parts() {
        let places = [1_u64, 2, 3, 7, 8, 20, 21, 5];
        let mut whole = BatSummary::default();
        places.iter().for_each(|place| whole.place(*place, 1));
        assert_eq!((whole.allocated, whole.fragmented), (8, 3));
        for cut in 0..=places.len() {
            let (mut one, mut other) = (BatSummary::default(), BatSummary::default());
            places[..cut].iter().for_each(|place| one.place(*place, 1));
            places[cut..].iter().for_each(|place| other.place(*place, 1));
            one.append(&other, 1);
            assert_eq!((one.allocated, one.fragmented), (8, 3), "cut at {cut}");
        }
    }
}
