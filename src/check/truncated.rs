//! Blocks that reach past the end of the file: what a truncated file has lost.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Rule, Severity, Structure};
use crate::format::{MIB, PayloadBlockState};
use crate::image::ImageKind;
use crate::image::bat::Bat;

use super::finding::{Finding, Findings};
use super::shared::Claim;
use super::survey::Counts;

impl Bat<'_> {
    /// Reports blocks that reach past the end of the file: as one finding if the file was truncated, or else one by
    /// one.
    pub(super) fn report_outside(&self, counts: &Counts, findings: &mut Findings) {
        let farthest = self.farthest_end(counts.allocated);
        let parts = self.in_parts(|first, end| {
            let (mut missing, mut apart) = (Missing::default(), Findings::default());
            let (mut chunk, mut whole_end) = (Chunk::default(), 0_u64);
            let _reported = self.for_each_place(first, end, |claim| {
                let is_whole = self.view.has(claim.place, claim.end);
                match claim.structure {
                    Structure::SectorBitmap(number) if !is_whole && claim.end <= farthest => {
                        missing.blocks_end = missing.blocks_end.max(claim.end);
                        missing.bitmaps.push(number);
                    }
                    Structure::PayloadBlock(_) if !is_whole && claim.end <= farthest => {
                        missing.first.get_or_insert(claim);
                        let lost = claim.end.saturating_sub(claim.place.max(self.view.file_end()));
                        missing.add(&self.range_of(claim.block), lost, claim.end);
                    }
                    Structure::PayloadBlock(_) if !is_whole => {
                        let length = claim.end.saturating_sub(claim.place);
                        let kind = ErrorKind::OutOfBounds { length, limit: self.view.file_end() };
                        apart.report(Rule::BlockPlace, Severity::Corruption, || {
                            (Error::at(claim.structure, claim.place, kind), Some(self.range_of(claim.block)))
                        });
                    }
                    Structure::PayloadBlock(_) => {
                        whole_end = whole_end.max(claim.end);
                        chunk.count(self, &claim);
                    }
                    _ => {}
                }
            });
            // Without their sector bitmap, partially present blocks are lost, too.
            chunk.partial.retain(|(number, ..)| missing.bitmaps.binary_search(number).is_ok());
            for (_, count, bytes, range) in chunk.partial {
                missing.add_many(count, range, bytes);
            }
            (missing, apart, whole_end)
        });
        let mut missing = Missing::default();
        parts.iter().for_each(|(part, ..)| missing.append(part));
        let whole_end = parts.iter().map(|(.., end)| *end).max().unwrap_or(0);
        // If the file ends where all other blocks do, nothing was cut off: the entry of this block is damaged.
        let file_end = self.view.file_end();
        let is_damaged = |claim: &Claim| missing.blocks == 1 && claim.place > file_end && whole_end == file_end;
        if let Some(claim) = missing.first.filter(is_damaged) {
            let kind = ErrorKind::OutOfBounds { length: claim.end.saturating_sub(claim.place), limit: file_end };
            let detail = Error::at(claim.structure, claim.place, kind);
            let range = Some(self.range_of(claim.block));
            findings.push(Finding::new(Rule::BlockPlace, Severity::Corruption, detail, range));
        } else if let Some(finding) = missing.finding(counts.allocated, self.view.file_end()) {
            findings.push(finding);
        }
        parts.into_iter().for_each(|(_, apart, _)| findings.append(apart));
    }

    /// Returns where the last block of a complete file ends at the most. A block beyond that has a damaged entry.
    fn farthest_end(&self, allocated: u64) -> u64 {
        let structures = self.reserved.ranges().iter().map(|(_, end, _)| *end).max().unwrap_or(0);
        let bitmaps = self.geometry.chunk_of(self.geometry.payload_blocks()).saturating_add(1).saturating_mul(MIB);
        let blocks = allocated.saturating_mul(self.geometry.block_size()).saturating_add(bitmaps);
        // As much space again may have belonged to blocks that were trimmed.
        self.view.file_end().max(structures).saturating_add(blocks.saturating_mul(2))
    }
}

/// Blocks whose bytes a truncated file does not have.
#[derive(Debug, Default)]
struct Missing {
    blocks: u64,
    bytes: u64,
    blocks_end: u64,
    /// Range of the disk from the first to the last of them.
    range: Option<Range<u64>>,
    /// Chunks whose sector bitmaps are missing.
    bitmaps: Vec<u64>,
    /// The first payload block that lacks bytes.
    first: Option<Claim>,
}

impl Missing {
    /// Adds a block that ends at `end` (file offset), and has lost this number of bytes.
    fn add(&mut self, range: &Range<u64>, lost: u64, end: u64) {
        self.blocks_end = self.blocks_end.max(end);
        let start = range.end.saturating_sub(lost).max(range.start);
        self.add_many(1, start..range.end, lost);
    }

    fn add_many(&mut self, blocks: u64, range: Range<u64>, bytes: u64) {
        self.blocks = self.blocks.saturating_add(blocks);
        self.bytes = self.bytes.saturating_add(bytes);
        self.range = Some(match self.range.take() {
            Some(before) => before.start.min(range.start)..before.end.max(range.end),
            None => range,
        });
    }

    fn append(&mut self, other: &Self) {
        self.blocks_end = self.blocks_end.max(other.blocks_end);
        self.first = self.first.or(other.first);
        if let Some(range) = other.range.clone() {
            self.add_many(other.blocks, range, other.bytes);
        }
    }

    fn finding(self, allocated: u64, file_end: u64) -> Option<Finding> {
        let (incomplete, missing, blocks_end) = (self.blocks, self.bytes, self.blocks_end);
        let kind = ErrorKind::Truncated { file_end, blocks_end, allocated, incomplete, missing };
        let range = self.range?;
        Some(Finding::new(Rule::BlockPlace, Severity::Corruption, Error::of(Structure::File, kind), Some(range)))
    }
}

/// Partially present blocks that are complete in the file, but whose bits are not: by chunk their number, their bytes,
/// and the range of the disk from the first to the last of them.
#[derive(Debug, Default)]
struct Chunk {
    partial: Vec<(u64, u64, u64, Range<u64>)>,
    /// The last chunk that was looked at, and the place of its sector bitmap.
    bitmap: Option<(u64, u64)>,
}

impl Chunk {
    fn count(&mut self, bat: &Bat<'_>, claim: &Claim) {
        if bat.geometry.kind != ImageKind::Differencing
            || !bat.payload(claim.block).is_ok_and(|(state, _)| state == PayloadBlockState::PartiallyPresent)
        {
            return;
        }
        let (chunk, bytes) = (bat.geometry.chunk_of(claim.block), claim.end.saturating_sub(claim.place));
        let known = self.bitmap.filter(|(known, _)| *known == chunk);
        let (_, bitmap) = *self.bitmap.insert(known.unwrap_or_else(|| (chunk, bat.bitmap_place(chunk).unwrap_or(0))));
        let bits = bat.used_of(claim.block, 0) >> bat.geometry.sector_shift();
        let start = bitmap.saturating_add(bat.geometry.bitmap_start(claim.block));
        if bat.view.has(start, start.saturating_add(bits.div_ceil(8))) {
            return;
        }
        let range = bat.range_of(claim.block);
        match self.partial.last_mut() {
            Some((last, count, sum, all)) if *last == chunk => {
                *count = count.saturating_add(1);
                *sum = sum.saturating_add(bytes);
                all.end = range.end;
            }
            _ => self.partial.push((chunk, 1, bytes, range)),
        }
    }
}
