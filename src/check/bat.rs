//! Check of the BAT, entry by entry.

use std::ops::{ControlFlow, Range};

use crate::error::{Error, ErrorKind, Structure};
use crate::error::{Rule, Severity};
use crate::format::{BatEntry, MIB, PayloadBlockState, SectorBitmapState, U64};
use crate::image::ImageKind;
use crate::image::bat::{Bat, EntryRun, Judged, equal_bits};
use crate::threads::all_at_once;

use super::finding::Findings;
use super::slots::{MOST_ACCOUNTED, Slots};
use super::survey::{Counts, PAST_THE_END};

/// Summary of a pass over the BAT, without the findings.
#[derive(Clone, Debug, Default)]
pub(crate) struct BatSummary {
    /// Number of allocated payload blocks.
    pub(crate) allocated: u64,
    /// Number of those that do not follow the previous one in the file.
    pub(crate) fragmented: u64,
    pub(crate) counts: Counts,
    first: Option<u64>,
    last: Option<u64>,
}

impl BatSummary {
    /// Counts an allocated block at this file offset.
    fn place(&mut self, place: u64, block_size: u64) {
        if self.last.is_some_and(|last| last.checked_add(block_size) != Some(place)) {
            self.fragmented = self.fragmented.saturating_add(1);
        }
        self.allocated = self.allocated.saturating_add(1);
        self.first.get_or_insert(place);
        self.last = Some(place);
    }

    /// Appends the summary of the part after this one.
    fn append(&mut self, other: &Self, block_size: u64) {
        let joint = self.last.zip(other.first);
        let is_broken = joint.is_some_and(|(last, first)| last.checked_add(block_size) != Some(first));
        self.fragmented = self.fragmented.saturating_add(other.fragmented).saturating_add(u64::from(is_broken));
        self.allocated = self.allocated.saturating_add(other.allocated);
        self.counts.append(&other.counts);
        self.first = self.first.or(other.first);
        self.last = other.last.or(self.last);
    }
}

/// Number of blocks that one thread examines in one go. May be exceeded by a chunk.
const EXAMINED_AT_ONCE: u64 = 1 << 20;

impl Bat<'_> {
    /// Examines every entry in use, and marks in `slots` which part of the file it uses.
    pub(crate) fn examine(&self, slots: &Slots, findings: &mut Findings) -> BatSummary {
        let done = self.in_parts(|first, end| {
            let mut pass = Pass { bat: self, slots, findings: Findings::default(), summary: BatSummary::default() };
            pass.blocks(first, end);
            (pass.summary, pass.findings)
        });
        let mut summary = BatSummary::default();
        for (part, found) in done {
            summary.append(&part, self.geometry.block_size());
            findings.append(found);
        }
        summary.counts.allocated = summary.allocated;
        if summary.counts.has_outside {
            self.report_outside(&summary.counts, findings);
        }
        if slots.has_shared() {
            self.report_shared(slots, findings);
        }
        self.mark_rest_of_last(slots);
        summary
    }

    /// Marks all space of the last block as in use, also if the disk ends before it does. It is no problem if something
    /// else uses the rest.
    pub(super) fn mark_rest_of_last(&self, slots: &Slots) {
        if let Some(last) = self.geometry.payload_blocks().checked_sub(1)
            && let Ok((PayloadBlockState::FullyPresent | PayloadBlockState::PartiallyPresent, place)) =
                self.payload(last)
        {
            slots.mark(place.saturating_add(self.used_of(last, 0)), place.saturating_add(self.geometry.block_size()));
        }
    }

    /// Shows the entries of the blocks from `first` to `end` that are not zero, in order.
    ///
    /// # Errors
    /// The first block whose entry cannot be read, with the error.
    pub(crate) fn visit(&self, first: u64, end: u64, mut visit: impl FnMut(u64, BatEntry)) -> Result<(), (u64, Error)> {
        self.entry_runs(first, end.saturating_sub(first), first, |block, run| {
            if let EntryRun::Entries(entries) = run {
                let numbered = (block..).zip(entries).map(|(block, entry)| (block, BatEntry(entry.get())));
                numbered.filter(|(_, entry)| entry.0 != 0).for_each(|(block, entry)| visit(block, entry));
            }
            ControlFlow::Continue(())
        })
    }

    /// Returns the results of `work` for the blocks of each part of the BAT, in order. With the feature `rayon`,
    /// several threads do it. A part has whole chunks, so that the blocks of one are processed together with its sector
    /// bitmap.
    pub(crate) fn in_parts<T: Send>(&self, work: impl Fn(u64, u64) -> T + Sync) -> Vec<T> {
        let blocks = self.geometry.payload_blocks();
        let step = EXAMINED_AT_ONCE.next_multiple_of(self.geometry.chunk_blocks());
        let work = &work;
        let part = |part: u64| {
            move || {
                let first = part.saturating_mul(step);
                let end = first.saturating_add(step).min(blocks);
                let done = work(first, end);
                self.forget_blocks(first, end);
                done
            }
        };
        all_at_once((0..blocks.div_ceil(step)).map(part).collect())
    }

    /// Returns the last block of a chunk.
    pub(crate) fn last_of(&self, chunk: u64) -> u64 {
        let end = chunk.saturating_add(1).saturating_mul(self.geometry.chunk_blocks());
        end.min(self.geometry.payload_blocks()).saturating_sub(1)
    }

    /// Returns the range of the disk that a block covers.
    pub(crate) fn range_of(&self, block: u64) -> Range<u64> {
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
    /// Examines the blocks from `first` to `end`, and the sector bitmaps of their chunks.
    fn blocks(&mut self, first: u64, end: u64) {
        let bat = self.bat;
        // The first and the last partially present block of each chunk: only then its sector bitmap is needed.
        let mut partial: Vec<(u64, u64, u64)> = Vec::new();
        let visited = bat.visit(first, end, |block, entry| {
            if self.block(block, entry) {
                let chunk = bat.geometry.chunk_of(block);
                match partial.last_mut() {
                    Some((last, _, until)) if *last == chunk => *until = block,
                    _ => partial.push((chunk, block, block)),
                }
            }
        });
        if let Err((block, error)) = visited {
            let start = bat.geometry.block_start(block);
            let range = start..bat.geometry.block_start(end).min(bat.geometry.virtual_disk_size);
            self.findings.reject(Rule::BatSize, error, Some(range));
            self.summary.counts.has_unread = true;
        }
        let mut partial = partial.into_iter().peekable();
        let (first_chunk, last_chunk) = (bat.geometry.chunk_of(first), bat.geometry.chunk_of(end.saturating_sub(1)));
        let mut holes = bat.bitmap_holes();
        for chunk in first_chunk..=last_chunk {
            let needed = partial.next_if(|(of, ..)| *of == chunk);
            let needed = needed.map(|(_, first, last)| bat.range_of(first).start..bat.range_of(last).end);
            if bat.geometry.kind == ImageKind::Differencing && (needed.is_some() || !holes.has(chunk)) {
                self.bitmap(chunk, needed);
            }
        }
    }

    /// Examines an entry. Returns whether the block is partially present, if that is valid.
    fn block(&mut self, block: u64, entry: BatEntry) -> bool {
        let bat = self.bat;
        if bat.says_content(entry) {
            self.summary.counts.stated = self.summary.counts.stated.saturating_add(1);
        }
        let at = bat.entry_offset(bat.geometry.payload_index(block));
        let of_entry = |kind| Error::at(Structure::PayloadBatEntry(block), at, kind);
        let range = || Some(bat.range_of(block));
        if entry.reserved() != 0 {
            let kind = || ErrorKind::Field { field: "reserved bits", found: entry.reserved(), expected: "0" };
            self.findings.report(Rule::BatReserved, Severity::Note, || (of_entry(kind()), range()));
        }
        let (state, place) = match bat.judge(block, entry, at) {
            Ok(Judged { state, place }) => (state, place),
            Err(error) => {
                let rule = error.rule().unwrap_or(Rule::BlockState);
                self.findings.report(rule, Severity::Corruption, || (error, range()));
                // It is allocated, even if its offset is invalid.
                if let Ok(state) = bat.judge_state(block, entry, at) {
                    self.summary.place(entry.file_offset(), bat.geometry.block_size());
                    return state == PayloadBlockState::PartiallyPresent;
                }
                return false;
            }
        };
        let Some((place, end)) = place else {
            if entry.file_offset() != 0 {
                let kind = ErrorKind::PlaceOfAbsent { state: state.as_str(), offset: entry.file_offset() };
                self.findings.report(Rule::AbsentPlace, Severity::Note, || (of_entry(kind), range()));
            }
            return false;
        };
        // The part that exists belongs to it.
        self.slots.claim(place, end);
        let of_block = |kind| Error::at(Structure::PayloadBlock(block), place, kind);
        if !bat.view.has(place, end) {
            // Reported later: there may be one cause for many of them.
            self.summary.counts.has_outside = true;
        } else {
            if end > MOST_ACCOUNTED {
                let kind = ErrorKind::OutOfBounds { length: 0, limit: MOST_ACCOUNTED };
                self.findings.report(Rule::TooFar, Severity::Unchecked, || (of_block(kind), range()));
            }
            if end > bat.view.source().len() || bat.view.is_changed_by_replay(place, end) {
                self.replayed(block, place, end);
            }
        }
        self.summary.place(place, bat.geometry.block_size());
        state == PayloadBlockState::PartiallyPresent
    }

    /// Examines a block that a replay changes, or that was not complete in the file before the replay.
    fn replayed(&mut self, block: u64, place: u64, end: u64) {
        let (view, range) = (self.bat.view, self.bat.range_of(block));
        let at = |offset, what| Error::at(Structure::PayloadBlock(block), offset, ErrorKind::Text { what });
        if let Some(missing) = self.bat.grown(place, end) {
            let range = range.start.saturating_add(missing.saturating_sub(place))..range.end;
            self.findings.report(Rule::LogGrowth, Severity::Unchecked, || (at(missing, PAST_THE_END), Some(range)));
        } else if view.is_changed_by_replay(place, end) {
            let what = "a replay of the log changes its content";
            self.findings.report(Rule::LoggedPayload, Severity::Leak, || (at(place, what), Some(range)));
        }
    }

    /// Examines the entry of a sector bitmap block of a differencing image; `needed` is the range of the disk that
    /// cannot be read without it.
    fn bitmap(&mut self, chunk: u64, needed: Option<Range<u64>>) {
        let bat = self.bat;
        let index = bat.geometry.bitmap_index(chunk);
        let structure = Structure::BitmapBatEntry(chunk);
        let entry = bat.entry_place(structure, index).and_then(|at| Ok((at, bat.view.fetch::<U64>(structure, at)?)));
        let (at, entry) = match entry {
            Ok((at, entry)) => (at, BatEntry(entry.get())),
            Err(error) => {
                return self.findings.reject(Rule::BatSize, error, needed);
            }
        };
        let of_entry = |kind| Error::at(structure, at, kind);
        if entry.reserved() != 0 {
            let kind = ErrorKind::Field { field: "reserved bits", found: entry.reserved(), expected: "0" };
            self.findings.add(Rule::BatReserved, of_entry(kind), None);
        }
        let state = SectorBitmapState::from_number(entry.state());
        if state != Some(SectorBitmapState::Present) {
            if let Some(range) = needed {
                let kind = ErrorKind::NoSectorBitmap { state: entry.state() };
                self.findings.reject(Rule::Bitmap, of_entry(kind), Some(range));
            } else if state.is_none() {
                self.findings.add(Rule::BitmapState, of_entry(ErrorKind::ReservedState { state: entry.state() }), None);
            }
            return;
        }
        let place = entry.file_offset();
        // The part with the bits of blocks of the disk.
        let length = bat.bitmap_length(chunk);
        let end = place.saturating_add(length);
        let overlap = match bat.reserved.overlap(place, end) {
            Some((with, offset)) => Some(ErrorKind::Overlap { with, offset }),
            None if place < MIB => Some(ErrorKind::Overlap { with: Structure::HeaderSection, offset: 0 }),
            None if !bat.view.has(place, end) => Some(ErrorKind::OutOfBounds { length, limit: bat.view.file_end() }),
            None => None,
        };
        if let Some(kind) = overlap {
            if matches!(kind, ErrorKind::OutOfBounds { .. }) {
                // The part that exists belongs to it.
                self.slots.mark(place, end);
            }
            let severity = if needed.is_some() { Severity::Corruption } else { Severity::Warning };
            let detail = Error::at(Structure::SectorBitmap(chunk), place, kind);
            return self.findings.add_as(Rule::Bitmap, severity, detail, needed);
        }
        self.slots.claim(place, place.saturating_add(MIB));
        self.bits(chunk, place, bat.last_of(chunk));
    }

    /// Looks for bits that contradict the states of the blocks.
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
                PayloadBlockState::FullyPresent if !are_all(true) && !are_all(false) => {
                    "only some bits of a fully present block are set"
                }
                PayloadBlockState::PartiallyPresent | PayloadBlockState::FullyPresent => continue,
                _ if !are_all(false) => "bits of an unallocated block are set",
                _ => continue,
            };
            let detail = Error::at(structure, at, ErrorKind::Text { what });
            self.findings.add(Rule::BitmapBits, detail, Some(self.bat.range_of(block)));
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
