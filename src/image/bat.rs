//! The block allocation table (MS-VHDX 2.5): what an image itself has of its disk.

use std::ops::ControlFlow;

use zerocopy::FromBytes;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::{BatEntry, MIB, PayloadBlockState, SectorBitmapState, U64};
use crate::num::to_u64;
use crate::source::{Run, View};
use crate::zero::is_zero;

use super::bitmap::equal_bits;
use super::geometry::{Geometry, Kind};
use super::region::{Region, Taken};

/// What an image has of its disk at some place: a run of bytes, of one nature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    /// They are in the file, `length` bytes from file offset `offset` on.
    Data { offset: u64, length: u64, state: PayloadBlockState },
    /// They are zero.
    Zero { length: u64, state: PayloadBlockState },
    /// They are the parent's.
    Parent { length: u64 },
}

/// How many payload blocks are in which state.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockStates {
    by_number: [u64; 8],
}

impl BlockStates {
    /// The number of blocks in a state.
    #[must_use]
    pub fn count(&self, state: PayloadBlockState) -> u64 {
        let is_it = |number: &u8| PayloadBlockState::from_number(*number) == Some(state);
        (0_u8..).zip(self.by_number).filter(|(number, _)| is_it(number)).map(|(_, count)| count).sum()
    }

    /// The number of blocks in a state that does not exist: reading them fails.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        let is_none = |number: u8| PayloadBlockState::from_number(number).is_none();
        (0_u8..).zip(self.by_number).filter(|(number, _)| is_none(*number)).map(|(_, count)| count).sum()
    }
}

/// How much of the BAT is walked through before its memory is given back: 1 MiB.
const FORGET_STEP: u64 = MIB;

/// The BAT of an image, with all that is needed to make sense of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bat<'a> {
    pub(super) view: &'a View,
    pub(super) geometry: &'a Geometry,
    pub(super) taken: &'a Taken,
    pub(super) offset: u64,
}

/// Checks that the BAT region, at least the part that is needed, is there.
pub(super) fn check_region(view: &View, region: &Region, geometry: &Geometry) -> Result<()> {
    let (found, expected) = (u64::from(region.length), geometry.bat_length());
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
    /// What there is at byte `position` of the disk: the longest run, of at most `most` bytes, that costs little to find.
    /// `position` lies inside the disk, and so does all of `most`, which is not 0.
    ///
    /// # Errors
    /// If the block at `position` can't be read. A run ends before a block that can't be.
    #[inline]
    pub(super) fn local(&self, position: u64, most: u64) -> Result<Local> {
        let block = self.geometry.block_of(position);
        let (state, place) = self.payload(block)?;
        match state {
            PayloadBlockState::FullyPresent => self.data(block, place, position, most),
            PayloadBlockState::PartiallyPresent => self.partial(block, place, position, most),
            PayloadBlockState::NotPresent if self.geometry.kind == Kind::Differencing => {
                Ok(Local::Parent { length: self.same_state(block, state, position, most)? })
            }
            _ => Ok(Local::Zero { length: self.same_state(block, state, position, most)?, state }),
        }
    }

    /// State and place of a payload block.
    #[inline]
    pub(super) fn payload(&self, block: u64) -> Result<(PayloadBlockState, u64)> {
        let offset = self.entry_offset(self.geometry.payload_index(block));
        let structure = Structure::PayloadBatEntry(block);
        let entry = BatEntry(self.view.overlay::<U64>(structure, offset)?.get());
        let Some(state) = PayloadBlockState::from_number(entry.state()) else {
            return Err(Error::at(structure, offset, ErrorKind::ReservedState { state: entry.state() }));
        };
        if state == PayloadBlockState::PartiallyPresent && self.geometry.kind != Kind::Differencing {
            return Err(Error::at(structure, offset, ErrorKind::PartiallyPresentWithoutParent));
        }
        Ok((state, entry.file_offset()))
    }

    #[inline]
    fn entry_offset(&self, index: u64) -> u64 {
        self.offset.saturating_add(index.saturating_mul(BatEntry::LENGTH))
    }

    /// How many bytes are left in a block behind `position`.
    #[inline]
    fn left_in_block(&self, block: u64, position: u64) -> u64 {
        self.geometry.block_start(block).saturating_add(self.geometry.block_size()).saturating_sub(position)
    }

    /// How many blocks of which the run may go on in, behind the one that has `left` bytes of it.
    #[inline]
    fn blocks_behind(&self, left: u64, most: u64) -> u64 {
        most.saturating_sub(left).div_ceil(self.geometry.block_size())
    }

    /// Length of the run of blocks in the same state.
    #[inline]
    fn same_state(&self, block: u64, state: PayloadBlockState, position: u64, most: u64) -> Result<u64> {
        let left = self.left_in_block(block, position);
        if left >= most {
            return Ok(most);
        }
        let mut blocks = 0_u64;
        self.walk::<true>(block.saturating_add(1), self.blocks_behind(left, most), |entry, count| {
            if PayloadBlockState::from_number(entry.state()) != Some(state) {
                return ControlFlow::Break(());
            }
            blocks = blocks.saturating_add(count);
            ControlFlow::Continue(())
        })?;
        Ok(left.saturating_add(blocks.saturating_mul(self.geometry.block_size())).min(most))
    }

    /// The run of data in a block that is fully present, and in those behind it that follow it in the file as well.
    #[inline]
    fn data(&self, block: u64, place: u64, position: u64, most: u64) -> Result<Local> {
        self.check_place(block, place)?;
        let offset = place.saturating_add(position.saturating_sub(self.geometry.block_start(block)));
        let left = self.left_in_block(block, position);
        let mut length = most.min(left);
        if left < most {
            let mut next = place;
            let mut blocks = 0_u64;
            self.walk::<false>(block.saturating_add(1), self.blocks_behind(left, most), |entry, count| {
                next = next.saturating_add(self.geometry.block_size());
                let follows = PayloadBlockState::from_number(entry.state()) == Some(PayloadBlockState::FullyPresent)
                    && entry.file_offset() == next;
                if !follows {
                    return ControlFlow::Break(());
                }
                blocks = blocks.saturating_add(count);
                ControlFlow::Continue(())
            })?;
            let run_of = |blocks: u64| left.saturating_add(blocks.saturating_mul(self.geometry.block_size())).min(most);
            // A block that lies where it must not is left to its own run, which then says which one it is.
            if let Some((_, taken)) = self.taken.overlap(offset, offset.saturating_add(run_of(blocks))) {
                blocks = self.geometry.block_of(taken.saturating_sub(offset).saturating_sub(left));
            }
            length = run_of(blocks);
        }
        let length = self.in_file(block, offset, length)?;
        Ok(Local::Data { offset, length, state: PayloadBlockState::FullyPresent })
    }

    /// The run of sectors that are present, or not, in a block that is partially present.
    fn partial(&self, block: u64, place: u64, position: u64, most: u64) -> Result<Local> {
        self.check_place(block, place)?;
        let sector_shift = self.geometry.sector_shift();
        let within = position.saturating_sub(self.geometry.block_start(block));
        let sector = within >> sector_shift;
        let most = most.min(self.left_in_block(block, position));
        let last = within.saturating_add(most).saturating_sub(1) >> sector_shift;
        let (present, sectors) = self.bits(block, sector, last.saturating_sub(sector).saturating_add(1))?;
        // The first sector may have begun before `position`, and the last may end behind the request.
        let end = sector.saturating_add(sectors) << sector_shift;
        let length = end.saturating_sub(within).min(most);
        if !present {
            return Ok(Local::Parent { length });
        }
        let offset = place.saturating_add(within);
        let length = self.in_file(block, offset, length)?;
        Ok(Local::Data { offset, length, state: PayloadBlockState::PartiallyPresent })
    }

    /// Whether a sector of a block is present, and how many from it on, at most `most`, are like it.
    fn bits(&self, block: u64, sector: u64, most: u64) -> Result<(bool, u64)> {
        let chunk = self.geometry.chunk_of(block);
        let bitmap = self.bitmap_place(chunk)?;
        let first_bit = sector & 7;
        let start = bitmap.saturating_add(self.geometry.bitmap_start(block)).saturating_add(sector >> 3);
        let bytes = first_bit.saturating_add(most).div_ceil(8);
        let structure = Structure::SectorBitmap(chunk);
        self.check_clear(structure, start, start.saturating_add(bytes))?;

        let mut bit = None;
        let (mut found, mut at, mut left, mut skip) = (0_u64, start, bytes, first_bit);
        while left > 0 {
            let run = self.view.run(structure, at, left)?;
            let (length, is_set, equal) = match run {
                Run::Data(bytes) => {
                    let is_set = bit.unwrap_or_else(|| bytes.first().is_some_and(|byte| byte >> skip & 1 == 1));
                    (to_u64(bytes.len()), is_set, equal_bits(bytes, skip, is_set))
                }
                Run::Zero(length) => {
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
        }
        Ok((bit.unwrap_or(false), found.min(most)))
    }

    /// Where the sector bitmap block of a chunk lies.
    fn bitmap_place(&self, chunk: u64) -> Result<u64> {
        let offset = self.entry_offset(self.geometry.bitmap_index(chunk));
        let structure = Structure::BitmapBatEntry(chunk);
        let entry = BatEntry(self.view.overlay::<U64>(structure, offset)?.get());
        if SectorBitmapState::from_number(entry.state()) != Some(SectorBitmapState::Present) {
            return Err(Error::at(structure, offset, ErrorKind::NoSectorBitmap { state: entry.state() }));
        }
        Ok(entry.file_offset())
    }

    /// A block must not lie where something else lies. Only what of it belongs to the disk counts (T21).
    #[inline]
    fn check_place(&self, block: u64, place: u64) -> Result<()> {
        let used = self.geometry.virtual_disk_size.saturating_sub(self.geometry.block_start(block));
        let used = used.min(self.geometry.block_size());
        self.check_clear(Structure::PayloadBlock(block), place, place.saturating_add(used))
    }

    #[inline]
    fn check_clear(&self, structure: Structure, start: u64, end: u64) -> Result<()> {
        match self.taken.overlap(start, end) {
            None => Ok(()),
            Some((with, offset)) => Err(Error::at(structure, start, ErrorKind::Overlap { with, offset })),
        }
    }

    /// How much of a run of data the file has; an error if it has nothing of it.
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

    /// Shows the entries of `count` payload blocks from `first` on, in order, until `visit` has enough: an entry, and how
    /// many in a row are in its state. Blocks that are present are shown one by one, since each has a place of its own,
    /// unless only states are of interest (`BY_STATE`). Holes of the file cost nothing, and the memory behind what was
    /// shown is given back.
    fn walk<const BY_STATE: bool>(
        &self,
        first: u64,
        count: u64,
        mut visit: impl FnMut(BatEntry, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        let (mut block, end) = (first, first.saturating_add(count));
        let bat_end = self.entry_offset(self.geometry.bat_entries());
        let mut forget_from = self.entry_offset(self.geometry.payload_index(first));
        while block < end {
            let index = self.geometry.payload_index(block);
            let offset = self.entry_offset(index);
            if offset.saturating_sub(forget_from) >= FORGET_STEP {
                self.view.forget(forget_from, offset);
                forget_from = offset;
            }
            // The entries of a chunk lie together; behind them is the one of its sector bitmap block.
            let chunk_end = self.geometry.bitmap_index(self.geometry.chunk_of(block));
            let in_chunk = chunk_end.saturating_sub(index).min(end.saturating_sub(block));
            let most = in_chunk.saturating_mul(BatEntry::LENGTH).min(FORGET_STEP);
            let shown = match self.view.run(Structure::Bat, offset, most)? {
                Run::Zero(length) => {
                    let zeros = length / BatEntry::LENGTH;
                    visit(BatEntry(0), zeros).map_continue(|()| zeros)
                }
                // The last bytes of a file that a replay has made longer: an entry may lie half in each.
                Run::Data(bytes) if to_u64(bytes.len()) < BatEntry::LENGTH => {
                    let entry = BatEntry(self.view.overlay::<U64>(Structure::Bat, offset)?.get());
                    visit(entry, 1).map_continue(|()| 1)
                }
                Run::Data(bytes) => {
                    // Where there is one page of zeros, there may be a hole.
                    let hole = match bytes.first_chunk::<PAGE>() {
                        Some(page) if is_zero(page) => self.view.known_zero_end(offset, bat_end),
                        _ => offset,
                    };
                    let behind = index.saturating_add(hole.saturating_sub(offset) / BatEntry::LENGTH);
                    let zeros = self.geometry.payload_blocks_before(behind).min(end).saturating_sub(block);
                    if zeros > 0 {
                        visit(BatEntry(0), zeros).map_continue(|()| zeros)
                    } else {
                        show::<BY_STATE>(bytes, &mut visit).map_continue(|()| to_u64(bytes.len()) / BatEntry::LENGTH)
                    }
                }
            };
            match shown {
                ControlFlow::Continue(shown) => block = block.saturating_add(shown),
                ControlFlow::Break(()) => break,
            }
        }
        Ok(())
    }

    /// Counts the payload blocks by state.
    pub(super) fn states(&self) -> Result<BlockStates> {
        let mut states = BlockStates::default();
        self.walk::<true>(0, self.geometry.payload_blocks(), |entry, count| {
            if let Some(counted) = states.by_number.get_mut(usize::from(entry.state())) {
                *counted = counted.saturating_add(count);
            }
            ControlFlow::Continue(())
        })?;
        Ok(states)
    }
}

/// The first of the states that have a place in the file.
const FIRST_PRESENT: u8 = 6;

/// How many bytes of entries are shown as one where they are all in one state.
const PAGE: usize = 4096;

/// Shows the entries that lie in `bytes`.
fn show<const BY_STATE: bool>(
    bytes: &[u8],
    visit: &mut impl FnMut(BatEntry, u64) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for page in bytes.chunks(PAGE) {
        let Ok((entries, _)) = <[U64]>::ref_from_prefix_with_elems(page, page.len() >> 3) else { continue };
        let Some(first) = entries.first().map(|entry| BatEntry(entry.get())) else { continue };
        // One pass without a branch, which the compiler makes SIMD of: most pages of most tables are in one state.
        let differ = entries.iter().fold(0, |differ, entry| differ | (entry.get() ^ first.0));
        if BatEntry(differ).state() == 0 && (BY_STATE || first.state() < FIRST_PRESENT) {
            visit(first, to_u64(entries.len()))?;
            continue;
        }
        for entry in entries {
            visit(BatEntry(entry.get()), 1)?;
        }
    }
    ControlFlow::Continue(())
}
