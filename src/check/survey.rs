//! Survey of the BAT: what its entries mean for the content of the disk, although each of them can be read.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Rule, Severity, Structure};
use crate::format::{
    BatEntry, DataSector, Descriptor, LogEntryHeader, MIB, PayloadBlockState, SECTOR_4K, SectorBitmapState, U64,
};
use crate::image::bat::{Bat, Judged};
use crate::image::{Image, ImageKind, Warning};
use crate::num::to_u64;
use crate::source::View;

use super::finding::{Finding, Findings};
use super::shared::is_unread;
use super::slots::Slots;

/// Number of payload blocks by what their entries say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Blocks with a valid place in the file, or with one that is only outside of it.
    pub(crate) allocated: u64,
    /// Blocks whose entries say what they hold ([`Bat::says_content`]).
    pub(crate) stated: u64,
    /// Whether a block reaches past the end of the file.
    pub(crate) has_outside: bool,
    /// Whether a part of the BAT could not be read.
    pub(crate) has_unread: bool,
    /// Blocks that a replay makes out of nothing ([`Bat::grown`]).
    pub(crate) grown: Option<Grown>,
}

/// Blocks that reach past the end of the file, and are zero there after a replay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grown {
    count: u64,
    /// The first of them.
    block: u64,
    /// File offset of its first byte that is not in the file.
    at: u64,
    /// Range of the disk from the first to the last of their missing bytes.
    start: u64,
    end: u64,
}

impl Grown {
    fn finding(&self) -> Finding {
        let (structure, what) = match self.count {
            1 => (Structure::PayloadBlock(self.block), PAST_THE_END),
            _ => (Structure::File, "blocks past its end: they read as zeros after a replay"),
        };
        let detail = Error::at(structure, self.at, ErrorKind::Text { what });
        Finding::new(Rule::LogGrowth, Severity::Unchecked, detail, Some(self.start..self.end))
    }
}

/// What is wrong with a block that a replay makes out of nothing. It may never have been written, or the file was
/// truncated.
pub(super) const PAST_THE_END: &str = "past the end of the file: reads as zeros after a replay";

impl Counts {
    /// Adds the counts of another part of the BAT.
    pub(crate) fn append(&mut self, other: &Self) {
        self.allocated = self.allocated.saturating_add(other.allocated);
        self.stated = self.stated.saturating_add(other.stated);
        self.has_outside |= other.has_outside;
        self.has_unread |= other.has_unread;
        self.grown = match (self.grown, other.grown) {
            (Some(one), Some(next)) => Some(Grown {
                count: one.count.saturating_add(next.count),
                start: one.start.min(next.start),
                end: one.end.max(next.end),
                ..one
            }),
            (one, next) => one.or(next),
        };
    }
}

/// Blocks that are not present, in an image where each of them may have lost its BAT entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absent {
    count: u64,
    blocks: u64,
    /// Length of the shortest space that may hold one of them.
    shortest: u64,
    /// Length of the last block, if it is one of them and shorter than the others: the file may end with the disk.
    short_last: Option<u64>,
    /// Length of all of them together.
    all: u64,
    /// Length of the log: an earlier one of that length may have left its content.
    log: u64,
    severity: Severity,
}

impl Absent {
    /// Returns whether this unused part of a file may hold a block. What a replay of the log has changed is no content.
    pub(crate) fn fits(&self, view: &View, start: u64, end: u64) -> bool {
        let length = end.saturating_sub(start);
        let is_last = end == view.source().len() && self.short_last == Some(length);
        (length >= self.shortest || is_last) && !view.is_changed_by_replay(start, end)
    }

    /// Returns the unused parts of a file. If several blocks are absent, a short last block at the end of the file is a
    /// part of its own, and so is another tail of less than 1 MiB, which none of them can have.
    pub(crate) fn unused(this: Option<Self>, slots: &Slots, length: u64) -> impl Iterator<Item = (u64, u64)> {
        let tail = this.filter(|absent| absent.count > 1).map_or(length, |absent| {
            let last = absent.short_last.and_then(|last| length.checked_sub(last));
            last.filter(|start| start.is_multiple_of(MIB)).unwrap_or(length & !MIB.saturating_sub(1))
        });
        let parts = slots.unused().flat_map(move |(start, end)| {
            let middle = tail.clamp(start, end);
            [(start, middle), (middle, end.min(length))]
        });
        parts.filter(|(start, end)| start < end)
    }

    fn spaces(&self, view: &View, slots: &Slots) -> impl Iterator<Item = Range<u64>> {
        let unused = Self::unused(Some(*self), slots, view.source().len());
        unused.filter(|(start, end)| self.fits(view, *start, *end)).map(|(start, end)| start..end)
    }

    /// Returns the absent blocks if the spaces that may hold them are long enough together, and are not zero; with the
    /// offset of the first byte that was found not to be. The spaces that are longer than an earlier log are looked at
    /// first; in the others, what such a log has left does not count.
    pub(crate) fn with_content(self, bat: &Bat<'_>, slots: &Slots, look: &mut Look) -> Option<(Self, u64)> {
        let longer = self.log.saturating_add(1);
        let short_last = self.short_last.filter(|last| *last >= longer);
        let long = Self { shortest: self.shortest.max(longer), short_last, ..self };
        let spaces = || self.spaces(bat.view, slots);
        let is_long = |space: &Range<u64>| long.fits(bat.view, space.start, space.end);
        let is_enough = length_of(long.spaces(bat.view, slots)) >= self.all;
        if is_enough && let Some(first) = look.sample(bat, || long.spaces(bat.view, slots)) {
            return Some((long, first));
        }
        if length_of(spaces()) < longer.min(self.all) {
            return None;
        }
        let mut look = Look { left: look.left.saturating_add(Look::MORE), skips_log: true };
        let first = look.sample(bat, || spaces().filter(|space| !(is_enough && is_long(space))));
        first.map(|first| (self, first))
    }

    /// Makes the finding: `space` bytes may hold blocks, and the byte at `first` is not zero.
    pub(crate) fn finding(&self, space: u64, first: u64) -> Finding {
        let kind = ErrorKind::LostBlocks { absent: self.count, blocks: self.blocks, space, first };
        let detail = Error::of(Structure::Bat, kind);
        Finding::new(Rule::LostBlocks, self.severity, detail, None)
    }
}

impl Bat<'_> {
    /// Returns the blocks that are not present, if content may be lost with them: in a fixed image, or in one without
    /// any block. In others, that is the usual state of a block, and content that nothing refers to is that of trimmed
    /// blocks.
    pub(crate) fn absent(&self, counts: &Counts) -> Option<Absent> {
        let blocks = self.geometry.payload_blocks();
        let count = blocks.checked_sub(counts.stated).filter(|count| *count > 0 && !counts.has_unread)?;
        let bat_entries = self.geometry.bat_entries();
        let severity = match self.geometry.kind {
            ImageKind::Fixed => Severity::Corruption,
            // All blocks may have been trimmed, by a program that sets their entries to zero. If a replay has written
            // the entries, that is certain.
            _ if count == blocks && !self.view.is_changed_by_replay(self.offset, self.entry_offset(bat_entries)) => {
                Severity::Unchecked
            }
            _ => return None,
        };
        let last = blocks.saturating_sub(1);
        let is_last_absent = self.payload(last).is_ok_and(|(state, _)| state == PayloadBlockState::NotPresent);
        let is_only_last = is_last_absent && count == 1;
        let shortest = if is_only_last { self.used_of(last, 0) } else { self.geometry.block_size() };
        let logs = self.reserved.ranges().iter().filter(|(.., structure)| *structure == Structure::Log);
        let log = length_of(logs.map(|(start, end, _)| *start..*end));
        let short_last =
            Some(self.used_of(last, 0)).filter(|last| is_last_absent && *last < self.geometry.block_size());
        let all = count.saturating_sub(1).saturating_mul(shortest).saturating_add(short_last.unwrap_or(shortest));
        Some(Absent { count, blocks, shortest, short_last, all, log, severity })
    }

    /// Returns the entries of sector bitmap blocks in an image without parent that are not zero: the chunk, and the
    /// entry.
    pub(crate) fn unneeded_bitmaps(&self, first: u64, end: u64) -> Vec<(u64, BatEntry)> {
        let (first, last) = (self.geometry.chunk_of(first), self.geometry.chunk_of(end.saturating_sub(1)));
        let mut holes = self.bitmap_holes();
        let entry = |chunk| {
            let index = self.geometry.bitmap_index(chunk);
            // The last chunk has no such entry.
            if index >= self.geometry.bat_entries() || holes.has(chunk) {
                return None;
            }
            let structure = Structure::BitmapBatEntry(chunk);
            let entry = self.view.fetch::<U64>(structure, self.entry_place(structure, index).ok()?).ok()?;
            Some((chunk, BatEntry(entry.get()))).filter(|(_, entry)| entry.0 != 0)
        };
        (first..=last).filter_map(entry).collect()
    }

    /// Examines an entry of a sector bitmap block in an image without parent. Some writers have put the entry of a
    /// payload block there (T4): that block is lost, and others may be shifted. `look` is the number of bytes that may
    /// be read to find out.
    pub(super) fn unneeded_bitmap(&self, chunk: u64, entry: BatEntry, slots: &Slots, look: &mut Look) -> Finding {
        let structure = Structure::BitmapBatEntry(chunk);
        let at = self.entry_offset(self.geometry.bitmap_index(chunk));
        let place = entry.file_offset();
        let end = place.saturating_add(self.geometry.block_size()).min(self.view.file_end());
        // The last block takes up no more than the disk needs.
        let shortest = self.geometry.payload_blocks().checked_sub(1).map_or(MIB, |last| self.used_of(last, 0).min(MIB));
        let is_outside = place.saturating_add(shortest) > self.view.file_end();
        let is_stray = SectorBitmapState::from_number(entry.state()) == Some(SectorBitmapState::Present)
            && place >= MIB
            && (is_outside
                || (self.reserved.overlap(place, end).is_none()
                    && !slots.is_used(place, end)
                    && look.sample(self, || std::iter::once(place..end)).is_some()));
        if !is_stray {
            let kind = ErrorKind::Field { field: "sector bitmap entry", found: entry.0, expected: "0" };
            return Finding::new(Rule::BitmapUnneeded, Severity::Note, Error::at(structure, at, kind), None);
        }
        // The block after or before it in the table, if nothing says that it has content.
        let after = chunk.saturating_add(1).saturating_mul(self.geometry.chunk_blocks());
        let is_absent = |block: &u64| {
            *block < self.geometry.payload_blocks()
                && self.payload(*block).is_ok_and(|(state, _)| {
                    !matches!(state, PayloadBlockState::FullyPresent | PayloadBlockState::PartiallyPresent)
                })
        };
        let neighbour = [after, after.saturating_sub(1)].into_iter().find(is_absent);
        slots.mark(place, end);
        let kind = if is_outside {
            ErrorKind::Field { field: "sector bitmap entry", found: entry.0, expected: "0, or a place in the file" }
        } else {
            ErrorKind::StrayBlock { offset: place }
        };
        let detail = Error::at(structure, at, kind);
        let range = neighbour.map(|block| self.range_of(block));
        Finding::new(Rule::BitmapUnneeded, Severity::Corruption, detail, range)
    }
}

/// Number of bytes that may still be read to find out whether space is zero. Holes of the file cost nothing.
#[derive(Debug)]
pub(crate) struct Look {
    left: u64,
    /// Whether sectors that a log has left count as zero.
    skips_log: bool,
}

impl Look {
    /// Most bytes that are read to judge the unused space of an image, when its content is about to be read anyway.
    pub(crate) const FEW: u64 = 16 * MIB;

    /// Most bytes that are read of short spaces besides, when the long ones have shown nothing.
    const MORE: u64 = 4 * MIB;

    /// Length of a sample of space that is too long to be read.
    const SAMPLE: u64 = 16 << 10;

    pub(crate) fn new(left: u64) -> Self {
        Self { left, skips_log: false }
    }

    /// Returns an equal share for one of `count`, which is taken away from the rest.
    fn share(&mut self, count: usize) -> Self {
        let left = self.left.checked_div(to_u64(count)).unwrap_or(self.left);
        self.left = self.left.saturating_sub(left);
        Self { left, ..*self }
    }

    /// Returns the first byte that is not zero among those that may be read.
    fn first_set(&mut self, bat: &Bat<'_>, start: u64, end: u64) -> Option<u64> {
        let mut at = start;
        while at < end && self.left > 0 {
            at = at.max(bat.view.known_zero_end(at, end));
            let next = at.saturating_add(Self::SAMPLE.min(self.left)).min(end);
            self.left = self.left.saturating_sub(next.saturating_sub(at));
            // What cannot be read says nothing.
            match bat.view.first_set(Structure::File, at, next) {
                Ok(Some((found, _))) if self.skips_log && is_of_log(bat.view, found) => {
                    at = found.saturating_add(1).next_multiple_of(SECTOR_4K);
                }
                Ok(Some((found, _))) => return Some(found),
                _ => at = next,
            }
        }
        None
    }

    /// Returns the first byte that is not zero among samples of the spaces, which are spread evenly.
    fn sample<S: Iterator<Item = Range<u64>>>(&mut self, bat: &Bat<'_>, spaces: impl Fn() -> S) -> Option<u64> {
        let (total, length) = (length_of(spaces()), bat.view.source().len());
        let step = total.div_ceil((self.left / Self::SAMPLE).max(1)).next_multiple_of(Self::SAMPLE);
        // Content may be as regular as samples: each one is somewhere else in its step.
        let phase = |base: u64| {
            let number = base.checked_div(step).unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
            number.checked_rem(step.saturating_sub(Self::SAMPLE).saturating_add(1)).unwrap_or(0)
        };
        // As positions in all spaces together: the start of a space, and the next sample.
        let (mut start, mut due) = (0_u64, 0_u64);
        // End of the known zeros: there may be millions of spaces in one hole.
        let mut zero_end = 0;
        for space in spaces() {
            let space_length = space.end.saturating_sub(space.start);
            while due < start.saturating_add(space_length) && self.left > 0 {
                let at = space.start.saturating_add(due.saturating_sub(start));
                if at >= zero_end {
                    zero_end = bat.view.known_zero_end(at, length);
                }
                let data = at.max(zero_end).min(space.end);
                let end = data.saturating_add(Self::SAMPLE).min(space.end);
                if let Some(found) = self.first_set(bat, data, end) {
                    return Some(found);
                }
                let done = due.saturating_add(data.saturating_sub(at));
                let base = done.saturating_sub(done.checked_rem(step).unwrap_or(0)).saturating_add(step);
                due = base.saturating_add(phase(base));
            }
            start = start.saturating_add(space_length);
        }
        None
    }
}

impl Image {
    /// Looks for content that is missing or wrong although every entry of the BAT can be read: a truncated file, blocks
    /// in one place, blocks in slots of sector bitmaps, and lost entries. Costs a pass over the BAT, except for its
    /// holes, and at most [`Look::FEW`] and [`Look::MORE`] bytes of other space, once for each image.
    pub(crate) fn survey(&self) -> impl Iterator<Item = Finding> {
        // No thread waits for another one's survey: that could be its own, further up.
        if self.surveyed.get().is_none() {
            let as_warning =
                |Finding { rule, severity, detail, range, .. }| (Warning { rule, severity, detail }, range);
            drop(self.surveyed.set(self.first_survey().into_iter().map(as_warning).collect()));
        }
        let found = self.surveyed.get().into_iter().flatten();
        found.map(|(warning, range)| Finding { range: range.clone(), ..warning.clone().into() })
    }

    fn first_survey(&self) -> Vec<Finding> {
        let bat = self.bat_by_the_book();
        let slots = Slots::new(self.view.length());
        let parts = bat.in_parts(|first, end| {
            let mut counts = Counts::default();
            let visited = bat.visit(first, end, |block, entry| bat.survey_entry(block, entry, &slots, &mut counts));
            counts.has_unread = visited.is_err();
            let mut unread = visited.err().map(|(_, error)| error).filter(is_unread);
            let mut bitmaps = Vec::new();
            if bat.geometry.kind == ImageKind::Differencing {
                let shown = bat.for_each_bitmap(first, end, |claim| {
                    counts.has_outside |= !bat.view.has(claim.place, claim.end);
                    claim.mark(&slots);
                });
                unread = unread.or(shown.err());
            } else {
                bitmaps = bat.unneeded_bitmaps(first, end);
            }
            (counts, bitmaps, unread)
        });
        let (mut counts, mut bitmaps, mut unread) = (Counts::default(), Vec::new(), None);
        for (part, found, error) in parts {
            counts.append(&part);
            bitmaps.extend(found);
            unread = unread.or(error);
        }
        let mut findings = Findings::default();
        if counts.has_outside {
            let mut outside = Findings::default();
            bat.report_outside(&counts, &mut outside);
            // The first is that of a truncated file, if it is one.
            outside.into_parts().0.into_iter().take(MOST_OUTSIDE).for_each(|finding| findings.push(finding));
        }
        counts.grown.iter().for_each(|grown| findings.push(grown.finding()));
        let may_share = self.reserved_for_salvage.is_some() || slots.has_shared();
        let shared = if may_share { self.first_shared_block() } else { None };
        if let Some(error) = self.check_bat().err().or(unread).or(shared) {
            findings.reject(error.rule().unwrap_or(Rule::BlockOverlap), error, None);
        }
        self.regions.reserved.ranges().iter().for_each(|(start, end, _)| slots.mark(*start, *end));
        bat.mark_rest_of_last(&slots);
        // One half for stray blocks, and the other one for absent blocks.
        let mut look = Look::new(Look::FEW / 2);
        let mut count = bitmaps.len();
        for (chunk, entry) in bitmaps {
            let mut share = look.share(count);
            count = count.saturating_sub(1);
            let finding = bat.unneeded_bitmap(chunk, entry, &slots, &mut share);
            look.left = look.left.saturating_add(share.left);
            if finding.severity > Severity::Note {
                findings.push(finding);
            }
        }
        if let Some(absent) = bat.absent(&counts) {
            bat.mark_old_places(&counts, &slots);
            look.left = look.left.saturating_add(Look::FEW / 2);
            if let Some((absent, first)) = absent.with_content(&bat, &slots, &mut look) {
                findings.push(absent.finding(length_of(absent.spaces(&self.view, &slots)), first));
            }
        }
        findings.into_parts().0
    }
}

/// Most blocks outside of the file that are named one by one.
const MOST_OUTSIDE: usize = 16;

impl Bat<'_> {
    /// Counts an entry that is not zero, and claims its place.
    fn survey_entry(&self, block: u64, entry: BatEntry, slots: &Slots, counts: &mut Counts) {
        if self.says_content(entry) {
            counts.stated = counts.stated.saturating_add(1);
        }
        if !entry.is_allocated() {
            return;
        }
        counts.allocated = counts.allocated.saturating_add(1);
        let at = self.entry_offset(self.geometry.payload_index(block));
        if let Ok(Judged { place: Some((place, end)), .. }) = self.judge(block, entry, at) {
            counts.has_outside |= !self.view.has(place, end);
            if let Some(at) = self.grown(place, end) {
                let range = self.range_of(block);
                let start = range.start.saturating_add(at.saturating_sub(place));
                let grown = Grown { count: 1, block, at, start, end: range.end };
                counts.append(&Counts { grown: Some(grown), ..Counts::default() });
            }
            slots.claim(place, end);
        }
    }

    /// Returns the first byte of a block that is not in the file, and that a replay makes out of nothing: it reads as
    /// zero.
    pub(super) fn grown(&self, place: u64, end: u64) -> Option<u64> {
        let at = place.max(self.view.source().len());
        let is_grown = at < end && self.view.has(place, end) && !self.view.is_written_by_replay(at, end);
        is_grown.then_some(at)
    }

    /// Marks the old places of trimmed blocks, which still name them: what is there belongs to the past of a block.
    pub(super) fn mark_old_places(&self, counts: &Counts, slots: &Slots) {
        if counts.stated <= counts.allocated {
            return;
        }
        self.in_parts(|first, end| {
            let visited = self.visit(first, end, |_, entry| {
                if !entry.is_allocated() && self.says_content(entry) && entry.file_offset() >= MIB {
                    let place = entry.file_offset();
                    slots.mark(place, place.saturating_add(self.geometry.block_size()));
                }
            });
            drop(visited);
        });
    }
}

/// Returns the length of all spaces together.
fn length_of(spaces: impl Iterator<Item = Range<u64>>) -> u64 {
    spaces.map(|space| space.end.saturating_sub(space.start)).fold(0, u64::saturating_add)
}

/// Whether the sector with this byte begins like one of a log (MS-VHDX 2.3.1).
fn is_of_log(view: &View, at: u64) -> bool {
    let start = at.saturating_sub(at.checked_rem(SECTOR_4K).unwrap_or(0));
    let signature = view.copy(Structure::File, start, 4).unwrap_or_default();
    let known = [LogEntryHeader::SIGNATURE, Descriptor::DATA, Descriptor::ZERO, DataSector::SIGNATURE];
    known.iter().any(|known| signature == *known)
}
