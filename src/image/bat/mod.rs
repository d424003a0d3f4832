//! The block allocation table (MS-VHDX 2.5): what an image itself has of its disk.

mod bitmap;
#[cfg(feature = "bulk")]
mod examine;
#[cfg(feature = "bulk")]
mod shared;
#[cfg(feature = "bulk")]
mod slots;
mod walk;

use std::ops::ControlFlow;

use zerocopy::FromBytes;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::{BatEntry, PayloadBlockState, SectorBitmapState, U64};
use crate::num::to_u64;
use crate::source::{Run, Stored, View, any_lost};

use super::geometry::{Geometry, Kind};
use super::region::{Region, Taken};
use bitmap::equal_bits;

#[cfg(feature = "bulk")]
pub(crate) use examine::BatSummary;
#[cfg(feature = "bulk")]
pub(in crate::image) use slots::Slots;
pub use walk::BlockStates;
use walk::ReadAhead;

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

/// What an image has of a few bytes of its disk, found without ado.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lent<'a> {
    /// These bytes.
    Here(&'a [u8]),
    /// Nothing: they are the parent's.
    Below,
    /// It takes more to find out.
    Unknown,
}

/// The BAT of an image, with all that is needed to make sense of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bat<'a> {
    pub(super) view: &'a View,
    pub(super) geometry: &'a Geometry,
    pub(super) taken: &'a Taken,
    pub(super) offset: u64,
    /// Length of the region, in bytes: what is behind it are no entries, whatever the disk needs.
    pub(super) length: u64,
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

impl<'a> Bat<'a> {
    /// Lends the bytes from `position` on, if they lie together in one block that is fully present: what most small reads are
    /// about. They lie inside the disk, and are at least one.
    #[inline]
    pub(super) fn lend(&self, position: u64, length: u64) -> Lent<'a> {
        let block = self.geometry.block_of(position);
        if self.left_in_block(block, position) < length {
            return Lent::Unknown;
        }
        let Ok((state, place)) = self.payload(block) else { return Lent::Unknown };
        match state {
            PayloadBlockState::NotPresent if self.geometry.kind == Kind::Differencing => Lent::Below,
            PayloadBlockState::FullyPresent => {
                let is_clear = self.taken.overlap(place, place.saturating_add(self.used_of(block, 0))).is_none();
                let offset = place.saturating_add(position.saturating_sub(self.geometry.block_start(block)));
                let is_good = self.view.source().is_good(offset, length);
                match self.view.stored(offset, length) {
                    Some(Stored::File(bytes) | Stored::Log(bytes))
                        if is_clear && is_good && to_u64(bytes.len()) == length =>
                    {
                        Lent::Here(bytes)
                    }
                    _ => Lent::Unknown,
                }
            }
            _ => Lent::Unknown,
        }
    }
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
                Ok(Local::Parent { length: self.same_state(block, state, position, most) })
            }
            _ => Ok(Local::Zero { length: self.same_state(block, state, position, most), state }),
        }
    }

    /// State and place of a payload block.
    #[inline]
    pub(super) fn payload(&self, block: u64) -> Result<(PayloadBlockState, u64)> {
        let structure = Structure::PayloadBatEntry(block);
        let offset = self.entry_place(structure, self.geometry.payload_index(block))?;
        let entry = BatEntry(self.view.fetch::<U64>(structure, offset)?.get());
        let Some(state) = PayloadBlockState::from_number(entry.state()) else {
            return Err(Error::at(structure, offset, ErrorKind::ReservedState { state: entry.state() }));
        };
        if state == PayloadBlockState::PartiallyPresent && self.geometry.kind != Kind::Differencing {
            return Err(Error::at(structure, offset, ErrorKind::PartiallyPresentWithoutParent));
        }
        Ok((state, entry.file_offset()))
    }

    /// Where an entry lies in the file.
    ///
    /// # Errors
    /// If the region has no such entry.
    #[inline]
    fn entry_place(&self, structure: Structure, index: u64) -> Result<u64> {
        let offset = self.entry_offset(index);
        if index < self.length / BatEntry::LENGTH {
            return Ok(offset);
        }
        let limit = self.offset.saturating_add(self.length);
        Err(Error::at(structure, offset, ErrorKind::OutOfBounds { length: BatEntry::LENGTH, limit }))
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
    fn same_state(&self, block: u64, state: PayloadBlockState, position: u64, most: u64) -> u64 {
        let left = self.left_in_block(block, position);
        if left >= most {
            return most;
        }
        let blocks = self.alike(block, state, self.blocks_behind(left, most));
        left.saturating_add(self.geometry.block_start(blocks)).min(most)
    }

    /// How many blocks behind `block`, at most `most`, are in this state, before one that can't be read.
    pub(super) fn alike(&self, block: u64, state: PayloadBlockState, most: u64) -> u64 {
        let (first, mut blocks) = (block.saturating_add(1), 0_u64);
        // The page with the entry of the block has been looked at, and most runs end there.
        let walked = self.walk(first, most, self.next_page(block), |found, count| {
            if PayloadBlockState::from_number(found) != Some(state) {
                return ControlFlow::Break(());
            }
            blocks = blocks.saturating_add(count);
            ControlFlow::Continue(())
        });
        // Whoever asks for the next block will be told why.
        walked.map_or_else(|(unread, _)| blocks.min(unread.saturating_sub(first)), |()| blocks)
    }

    /// The run of data in a block that is fully present, and in those behind it that follow it in the file as well.
    #[inline]
    fn data(&self, block: u64, place: u64, position: u64, most: u64) -> Result<Local> {
        self.check_clear(Structure::PayloadBlock(block), place, place.saturating_add(self.used_of(block, 0)))?;
        let left = self.left_in_block(block, position);
        let mut blocks = if left < most { self.following(block, place, self.blocks_behind(left, most)) } else { 0 };
        if blocks > 0 {
            // All of the last block counts, whatever the request takes of it. Where one lies where it must not, it is left
            // to a run of its own, which then says which one it is.
            let end = place.saturating_add(self.used_of(block, blocks));
            if let Some((_, taken)) = self.taken.overlap(place, end) {
                blocks = self.geometry.block_of(taken.saturating_sub(place)).saturating_sub(1);
            }
        }
        let offset = place.saturating_add(position.saturating_sub(self.geometry.block_start(block)));
        let run = left.saturating_add(self.geometry.block_start(blocks)).min(most);
        let length = self.in_file(block, offset, run)?;
        Ok(Local::Data { offset, length, state: PayloadBlockState::FullyPresent })
    }

    /// How many blocks behind `block`, at most `most`, are fully present and follow it in the file, before one that can't
    /// be read.
    #[inline]
    fn following(&self, block: u64, place: u64, most: u64) -> u64 {
        let (mut found, mut next) = (0_u64, place);
        let (mut kept_from, mut ahead) = (block, ReadAhead::default());
        while found < most {
            let behind = block.saturating_add(1).saturating_add(found);
            ahead.advance(self, behind, most.saturating_sub(found));
            if self.forget_blocks(kept_from, behind) {
                kept_from = behind;
            }
            // Whoever asks for the next block will be told why it can't be read.
            let Ok(Run::Data(bytes)) = self.entries(behind, most.saturating_sub(found)) else { return found };
            let Ok(entries) = <[U64]>::ref_from_bytes(bytes) else { return found };
            let (before, mut ends) = (found, entries.is_empty());
            for entry in entries.iter().map(|entry| BatEntry(entry.get())) {
                next = next.saturating_add(self.geometry.block_size());
                if entry.file_offset() != next
                    || PayloadBlockState::from_number(entry.state()) != Some(PayloadBlockState::FullyPresent)
                {
                    ends = true;
                    break;
                }
                found = found.saturating_add(1);
            }
            if any_lost() {
                let offset =
                    self.entry_offset(self.geometry.payload_index(block.saturating_add(1).saturating_add(before)));
                if self.view.check(Structure::Bat, offset, to_u64(bytes.len())).is_err() {
                    return before;
                }
            }
            if ends {
                return found;
            }
        }
        found
    }

    /// The entries from that of `block` on, at most `most`, as many as lie together: those of one chunk, before the entry of
    /// its sector bitmap block. Whole entries only: none where the first one is cut by the end of a file that a replay has
    /// made longer.
    #[inline]
    fn entries(&self, block: u64, most: u64) -> Result<Run<'_>> {
        let index = self.geometry.payload_index(block);
        let in_chunk = self.geometry.bitmap_index(self.geometry.chunk_of(block)).saturating_sub(index);
        let place = self.entry_place(Structure::PayloadBatEntry(block), index)?;
        let in_region = self.length.saturating_sub(place.saturating_sub(self.offset));
        let length = in_chunk.min(most).saturating_mul(BatEntry::LENGTH).min(in_region);
        Ok(match self.view.run(Structure::Bat, place, length)? {
            Run::Data(bytes) => Run::Data(bytes.get(..bytes.len() & !7).unwrap_or(bytes)),
            zero @ Run::Zero(_) => zero,
        })
    }

    /// The run of sectors that are present, or not, in a block that is partially present.
    fn partial(&self, block: u64, place: u64, position: u64, most: u64) -> Result<Local> {
        self.check_clear(Structure::PayloadBlock(block), place, place.saturating_add(self.used_of(block, 0)))?;
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
        let slice = bitmap.saturating_add(self.geometry.bitmap_start(block));
        let structure = Structure::SectorBitmap(chunk);
        let sectors = self.used_of(block, 0) >> self.geometry.sector_shift();
        self.check_clear(structure, slice, slice.saturating_add(sectors.div_ceil(8)))?;

        let (start, first_bit) = (slice.saturating_add(sector >> 3), sector & 7);
        let bytes = first_bit.saturating_add(most).div_ceil(8);

        let mut bit = None;
        let (mut found, mut at, mut left, mut skip) = (0_u64, start, bytes, first_bit);
        while left > 0 {
            let run = match self.view.run(structure, at, left) {
                // The bitmap is cut off: what comes before that is good.
                Err(_) if found > 0 => break,
                run => run?,
            };
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
        self.view.check(structure, start, bytes)?;
        Ok((bit.unwrap_or(false), found.min(most)))
    }

    /// Where the sector bitmap block of a chunk lies.
    fn bitmap_place(&self, chunk: u64) -> Result<u64> {
        let structure = Structure::BitmapBatEntry(chunk);
        let offset = self.entry_place(structure, self.geometry.bitmap_index(chunk))?;
        let entry = BatEntry(self.view.fetch::<U64>(structure, offset)?.get());
        if SectorBitmapState::from_number(entry.state()) != Some(SectorBitmapState::Present) {
            return Err(Error::at(structure, offset, ErrorKind::NoSectorBitmap { state: entry.state() }));
        }
        Ok(entry.file_offset())
    }

    /// How many bytes of a block, and of so many behind it, belong to the disk: of the last block of the disk only a part
    /// may, and only that needs to be in the file (T21).
    #[inline]
    fn used_of(&self, block: u64, more: u64) -> u64 {
        let all = self.geometry.block_start(more).saturating_add(self.geometry.block_size());
        self.geometry.virtual_disk_size.saturating_sub(self.geometry.block_start(block)).min(all)
    }

    /// Nothing may lie where something else does.
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
}
