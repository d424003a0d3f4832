//! Block allocation table (MS-VHDX 2.5): the image's own part of the disk.

mod bitmap;
mod linear;
mod walk;

use std::ops::ControlFlow;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::{BatEntry, MIB, PayloadBlockState, SectorBitmapState, U64};
use crate::num::to_u64;
use crate::source::{Bytes, View};

use super::geometry::{Geometry, ImageKind};
use super::region::ReservedRanges;
use super::region_table::Region;
use crate::error::Rule;
pub(crate) use bitmap::equal_bits;

pub use walk::BlockStates;
pub(crate) use walk::EntryRun;

/// Run of an image's own part of the disk, at some position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockLookup {
    /// In the file: `length` bytes at file offset `offset`.
    Data { offset: u64, length: u64, state: PayloadBlockState },
    /// Zeros.
    Zero { length: u64, state: PayloadBlockState },
    /// Content of the parent.
    Parent { length: u64 },
}

impl BlockLookup {
    /// Returns the length of the run, in bytes.
    #[inline]
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Data { length, .. } | Self::Zero { length, .. } | Self::Parent { length } => *length,
        }
    }
}

/// A valid entry of a payload block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    pub(crate) state: PayloadBlockState,
    /// For allocated blocks: the range of the file with the bytes that belong to the disk.
    pub(crate) place: Option<(u64, u64)>,
}

/// Length of the first read of a sector bitmap, in bytes.
const FIRST_BITMAP_READ: u64 = 64;

/// The BAT of an image, with everything that is needed to interpret it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bat<'a> {
    pub(crate) view: &'a View,
    pub(crate) geometry: &'a Geometry,
    pub(crate) reserved: &'a ReservedRanges,
    pub(crate) offset: u64,
    /// Length of the region, in bytes: there are no entries after it, even if the disk needs more.
    pub(crate) length: u64,
    /// File offset of block 0, if blocks that are not present are read where a fixed image has them.
    pub(crate) assumed_start: Option<u64>,
}

/// Checks that the necessary part of the BAT region is in the file.
pub(crate) fn check_region(view: &View, region: &Region, geometry: &Geometry) -> Result<()> {
    let (found, expected) = (u64::from(region.len), geometry.bat_length());
    if found < expected {
        return Err(Error::at(Structure::Bat, region.offset, ErrorKind::BatTooSmall { found, expected }));
    }
    if region.offset.checked_add(expected).is_none_or(|end| end > view.length()) {
        let kind = ErrorKind::OutOfBounds { length: expected, limit: view.length() };
        return Err(Error::at(Structure::Bat, region.offset, kind));
    }
    Ok(())
}

impl Bat<'_> {
    /// Returns the run at byte `position` of the disk: as long as can be found at little cost, at most `most` bytes.
    /// `position` and all of `most`, which is not 0, are inside the disk.
    ///
    /// # Errors
    /// Fails if the block at `position` cannot be read. A run ends before a block that cannot be read.
    #[inline]
    pub(crate) fn lookup(&self, position: u64, most: u64) -> Result<BlockLookup> {
        let block = self.geometry.block_of(position);
        let (entry, offset) = self.payload_entry(block)?;
        let Judged { state, place } = self.judge(block, entry, offset)?;
        match (state, place) {
            (PayloadBlockState::PartiallyPresent, Some((place, _))) => self.partial(block, place, position, most),
            (_, Some((place, _))) => self.data(block, place, position, most),
            (PayloadBlockState::NotPresent, None) if self.geometry.kind == ImageKind::Differencing => {
                Ok(BlockLookup::Parent { length: self.same_state(block, state, position, most) })
            }
            _ => Ok(BlockLookup::Zero { length: self.same_state(block, state, position, most), state }),
        }
    }

    /// Returns state and file offset of a payload block. The offset has a meaning only if the block is allocated.
    pub(crate) fn payload(&self, block: u64) -> Result<(PayloadBlockState, u64)> {
        let (entry, offset) = self.payload_entry(block)?;
        let state = self.judge_state(block, entry, offset)?;
        Ok((state, entry.file_offset()))
    }

    /// Returns the entry of a payload block, and its file offset.
    #[inline]
    fn payload_entry(&self, block: u64) -> Result<(BatEntry, u64)> {
        let structure = Structure::PayloadBatEntry(block);
        if self.lacks_entry(block) {
            return Ok((self.assumed(block, BatEntry(0)), self.entry_offset(self.geometry.payload_index(block))));
        }
        let offset = self.entry_place(structure, self.geometry.payload_index(block))?;
        Ok((self.assumed(block, BatEntry(self.view.fetch::<U64>(structure, offset)?.get())), offset))
    }

    /// Returns the file offset at which the entry of a payload block ends, or 0 for a block without an entry.
    pub(crate) fn payload_entry_end(&self, block: u64) -> u64 {
        if self.lacks_entry(block) {
            return 0;
        }
        self.entry_offset(self.geometry.payload_index(block)).saturating_add(BatEntry::LENGTH)
    }

    /// Returns the state in the entry of a payload block, which is at `offset`, if the block can be in that state.
    #[inline]
    pub(crate) fn judge_state(&self, block: u64, entry: BatEntry, offset: u64) -> Result<PayloadBlockState> {
        let breach = |rule, kind| Err(Error::at(Structure::PayloadBatEntry(block), offset, kind).breaking(rule));
        match PayloadBlockState::from_number(entry.state()) {
            None => breach(Rule::BlockState, ErrorKind::ReservedState { state: entry.state() }),
            Some(PayloadBlockState::PartiallyPresent) if self.geometry.kind != ImageKind::Differencing => {
                breach(Rule::PartialWithoutParent, ErrorKind::PartiallyPresentWithoutParent)
            }
            Some(state) => Ok(state),
        }
    }

    /// Validates the entry of a payload block, which is at `offset`: its state, and what overlaps the block. Reads,
    /// checks and salvages all use this function.
    #[inline]
    pub(crate) fn judge(&self, block: u64, entry: BatEntry, offset: u64) -> Result<Judged> {
        let state = self.judge_state(block, entry, offset)?;
        if !entry.is_allocated() {
            return Ok(Judged { state, place: None });
        }
        let place = entry.file_offset();
        let end = place.saturating_add(self.used_of(block, 0));
        match self.check_clear(Structure::PayloadBlock(block), place, end) {
            Ok(()) => Ok(Judged { state, place: Some((place, end)) }),
            Err(error) => Err(error.breaking(if place < MIB { Rule::BlockOffset } else { Rule::BlockOverlap })),
        }
    }

    /// Returns the file offset of an entry.
    ///
    /// # Errors
    /// Fails if the region has no such entry.
    #[inline]
    pub(crate) fn entry_place(&self, structure: Structure, index: u64) -> Result<u64> {
        let offset = self.entry_offset(index);
        if index < self.length / BatEntry::LENGTH {
            return Ok(offset);
        }
        let limit = self.offset.saturating_add(self.length);
        Err(Error::at(structure, offset, ErrorKind::OutOfBounds { length: BatEntry::LENGTH, limit }))
    }

    #[inline]
    pub(crate) fn entry_offset(&self, index: u64) -> u64 {
        self.offset.saturating_add(index.saturating_mul(BatEntry::LENGTH))
    }

    /// Returns the number of bytes of a block after `position`.
    #[inline]
    fn left_in_block(&self, block: u64, position: u64) -> u64 {
        self.geometry.block_start(block).saturating_add(self.geometry.block_size()).saturating_sub(position)
    }

    /// Returns the number of blocks to which a run may extend, after the one with `left` bytes of it.
    #[inline]
    fn blocks_after(&self, left: u64, most: u64) -> u64 {
        most.saturating_sub(left).div_ceil(self.geometry.block_size())
    }

    /// Returns the length of the run of blocks in the same state.
    #[inline]
    fn same_state(&self, block: u64, state: PayloadBlockState, position: u64, most: u64) -> u64 {
        let left = self.left_in_block(block, position);
        if left >= most {
            return most;
        }
        let blocks = self.same_state_count(block, state, self.blocks_after(left, most));
        left.saturating_add(self.geometry.block_start(blocks)).min(most)
    }

    /// Returns the number of blocks after `block`, at most `most`, in this state, before one that cannot be read.
    pub(crate) fn same_state_count(&self, block: u64, state: PayloadBlockState, most: u64) -> u64 {
        let (first, mut blocks) = (block.saturating_add(1), 0_u64);
        // The page with the entry of the block has been read, and most runs end there.
        let walked = self.walk(first, most, self.next_page(block), |found, count| {
            if PayloadBlockState::from_number(found) != Some(state) {
                return ControlFlow::Break(());
            }
            blocks = blocks.saturating_add(count);
            ControlFlow::Continue(())
        });
        before_unread(walked, first, blocks)
    }

    /// Returns the run of data in a fully present block, and in the following ones that are contiguous in the file.
    #[inline]
    fn data(&self, block: u64, place: u64, position: u64, most: u64) -> Result<BlockLookup> {
        let left = self.left_in_block(block, position);
        let offset = place.saturating_add(position.saturating_sub(self.geometry.block_start(block)));
        // An error is about one block.
        self.in_file(block, offset, left.min(most))?;
        let mut blocks = if left < most { self.following(block, place, self.blocks_after(left, most)) } else { 0 };
        if blocks > 0 {
            // The whole last block counts, even if the request needs only a part of it. A block with an invalid
            // location is left to a run of its own, which then reports it.
            let end = place.saturating_add(self.used_of(block, blocks));
            if let Some((_, reserved)) = self.reserved.overlap(place, end) {
                blocks = self.geometry.block_of(reserved.saturating_sub(place)).saturating_sub(1);
            }
        }
        let run = left.saturating_add(self.geometry.block_start(blocks)).min(most);
        let length = self.in_file(block, offset, run)?;
        Ok(BlockLookup::Data { offset, length, state: PayloadBlockState::FullyPresent })
    }

    /// Returns the number of blocks after `block`, at most `most`, that are fully present and contiguous in the file,
    /// before one that cannot be read.
    #[inline]
    fn following(&self, block: u64, place: u64, most: u64) -> u64 {
        let (first, mut found, mut next) = (block.saturating_add(1), 0_u64, place);
        let walked = self.entry_runs(first, most, self.next_page(block), |_, run| {
            let EntryRun::Entries(entries) = run else { return ControlFlow::Break(()) };
            for entry in entries.iter().map(|entry| BatEntry(entry.get())) {
                next = next.saturating_add(self.geometry.block_size());
                if entry.file_offset() != next
                    || PayloadBlockState::from_number(entry.state()) != Some(PayloadBlockState::FullyPresent)
                {
                    return ControlFlow::Break(());
                }
                found = found.saturating_add(1);
            }
            ControlFlow::Continue(())
        });
        before_unread(walked, first, found)
    }

    /// Returns the contiguous entries from that of `block` on, at most `most`: those of one chunk, before the entry of
    /// its sector bitmap block. Only whole entries: none if the first one is cut by the end of a file that a replay has
    /// made longer.
    #[inline]
    fn entries<'v>(&'v self, block: u64, most: u64, memory: &'v mut Vec<u8>) -> Result<Bytes<'v>> {
        let index = self.geometry.payload_index(block);
        let in_chunk = self.geometry.bitmap_index(self.geometry.chunk_of(block)).saturating_sub(index);
        let place = self.entry_place(Structure::PayloadBatEntry(block), index)?;
        let in_region = self.length.saturating_sub(place.saturating_sub(self.offset));
        let length = in_chunk.min(most).saturating_mul(BatEntry::LENGTH).min(in_region);
        Ok(match self.view.run(Structure::Bat, place, length, memory)? {
            Bytes::Data(bytes) => Bytes::Data(bytes.get(..bytes.len() & !7).unwrap_or(bytes)),
            zero @ Bytes::Zero(_) => zero,
        })
    }

    /// Returns the run of sectors that are present, or not, in a partially present block.
    fn partial(&self, block: u64, place: u64, position: u64, most: u64) -> Result<BlockLookup> {
        let sector_shift = self.geometry.sector_shift();
        let within = position.saturating_sub(self.geometry.block_start(block));
        let sector = within >> sector_shift;
        let most = most.min(self.left_in_block(block, position));
        let last = within.saturating_add(most).saturating_sub(1) >> sector_shift;
        let (present, sectors) = self.bits(block, sector, last.saturating_sub(sector).saturating_add(1))?;
        // The first sector may have begun before `position`, and the last may end after the request.
        let end = sector.saturating_add(sectors) << sector_shift;
        let length = end.saturating_sub(within).min(most);
        if !present {
            return Ok(BlockLookup::Parent { length });
        }
        let offset = place.saturating_add(within);
        let length = self.in_file(block, offset, length)?;
        Ok(BlockLookup::Data { offset, length, state: PayloadBlockState::PartiallyPresent })
    }

    /// Returns whether a sector of a block is present, and the number of equal bits from it on, at most `most`.
    fn bits(&self, block: u64, sector: u64, most: u64) -> Result<(bool, u64)> {
        let chunk = self.geometry.chunk_of(block);
        let bitmap = self.bitmap_place(chunk)?;
        let slice = bitmap.saturating_add(self.geometry.bitmap_start(block));
        let structure = Structure::SectorBitmap(chunk);
        let sectors = self.used_of(block, 0) >> self.geometry.sector_shift();
        self.check_clear(structure, slice, slice.saturating_add(sectors.div_ceil(8)))?;

        let (start, first_bit) = (slice.saturating_add(sector >> 3), sector & 7);
        let bytes = first_bit.saturating_add(most).div_ceil(8);

        let mut bit = None;
        let (mut found, mut at, mut left, mut skip) = (0_u64, start, bytes, first_bit);
        // Borrowed bytes cost what is looked at; reads cost what is requested, and most runs are short.
        let mut at_once = if self.view.source().can_borrow() { u64::MAX } else { FIRST_BITMAP_READ };
        let mut memory = Vec::new();
        while left > 0 {
            let run = match self.view.run(structure, at, left.min(at_once), &mut memory) {
                // The bitmap is truncated: the part before that is valid.
                Err(_) if found > 0 => break,
                // The error of the whole request, as for borrowed bytes.
                Err(_) => self.view.run(structure, at, left, &mut memory)?,
                Ok(run) => run,
            };
            let (length, is_set, equal) = match run {
                Bytes::Data(bytes) => {
                    let is_set = bit.unwrap_or_else(|| bytes.first().is_some_and(|byte| byte >> skip & 1 == 1));
                    (to_u64(bytes.len()), is_set, equal_bits(bytes, skip, is_set))
                }
                Bytes::Zero(length) => {
                    let is_set = bit.unwrap_or(false);
                    let zeros = length.saturating_mul(8).saturating_sub(skip);
                    (length, is_set, if is_set { 0 } else { zeros })
                }
            };
            bit = Some(is_set);
            found = found.saturating_add(equal);
            if equal < length.saturating_mul(8).saturating_sub(skip) {
                break;
            }
            (at, left, skip) = (at.saturating_add(length), left.saturating_sub(length), 0);
            at_once = at_once.saturating_mul(8);
        }
        self.view.check(structure, start, bytes)?;
        Ok((bit.unwrap_or(false), found.min(most)))
    }

    /// Returns the file offset of the sector bitmap block of a chunk.
    pub(crate) fn bitmap_place(&self, chunk: u64) -> Result<u64> {
        let structure = Structure::BitmapBatEntry(chunk);
        let offset = self.entry_place(structure, self.geometry.bitmap_index(chunk))?;
        let entry = BatEntry(self.view.fetch::<U64>(structure, offset)?.get());
        if SectorBitmapState::from_number(entry.state()) != Some(SectorBitmapState::Present) {
            return Err(Error::at(structure, offset, ErrorKind::NoSectorBitmap { state: entry.state() }));
        }
        Ok(entry.file_offset())
    }

    /// Returns the number of bytes of a block, and of `more` blocks after it, that belong to the disk: the last block
    /// may belong to it only in part, and only that part has to be in the file (T21).
    #[inline]
    pub(crate) fn used_of(&self, block: u64, more: u64) -> u64 {
        let all = self.geometry.block_start(more).saturating_add(self.geometry.block_size());
        self.geometry.virtual_disk_size.saturating_sub(self.geometry.block_start(block)).min(all)
    }

    /// Checks that the range overlaps no other structure.
    #[inline]
    pub(crate) fn check_clear(&self, structure: Structure, start: u64, end: u64) -> Result<()> {
        match self.reserved.overlap(start, end) {
            None => Ok(()),
            Some((with, offset)) => Err(Error::at(structure, start, ErrorKind::Overlap { with, offset })),
        }
    }

    /// Returns the length of the part of a run of data that is in the file; an error if it is 0.
    #[inline]
    fn in_file(&self, block: u64, offset: u64, length: u64) -> Result<u64> {
        match self.view.length().checked_sub(offset) {
            Some(left) if left > 0 => Ok(length.min(left)),
            _ => {
                let kind = ErrorKind::OutOfBounds { length, limit: self.view.length() };
                Err(Error::at(Structure::PayloadBlock(block), offset, kind))
            }
        }
    }
}

/// Returns how many of the `found` blocks from `first` on are before one that cannot be read. A request for that block
/// returns the error.
fn before_unread(walked: Result<(), (u64, Error)>, first: u64, found: u64) -> u64 {
    walked.map_or_else(|(unread, _)| found.min(unread.saturating_sub(first)), |()| found)
}
