//! Walks over the states in the BAT.

use std::ops::ControlFlow;

use zerocopy::FromBytes;

use crate::error::{Error, Result, Structure};
use crate::format::{BatEntry, MIB, PayloadBlockState, U64};
use crate::num::to_u64;
use crate::source::Bytes;
use crate::threads;

use super::Bat;

/// Number of payload blocks in each state.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockStates {
    by_number: [u64; 8],
}

impl BlockStates {
    /// Returns the number of blocks in a state.
    #[must_use]
    pub fn count(&self, state: PayloadBlockState) -> u64 {
        let is_it = |number: &u8| PayloadBlockState::from_number(*number) == Some(state);
        (0_u8..).zip(self.by_number).filter(|(number, _)| is_it(number)).map(|(_, count)| count).sum()
    }

    /// Adds other blocks.
    fn and(&self, other: &Self) -> Self {
        let mut by_number = self.by_number;
        by_number.iter_mut().zip(other.by_number).for_each(|(sum, count)| *sum = sum.saturating_add(count));
        Self { by_number }
    }

    /// Returns the number of blocks in a reserved state: reading them fails.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        let is_none = |number: u8| PayloadBlockState::from_number(number).is_none();
        (0_u8..).zip(self.by_number).filter(|(number, _)| is_none(*number)).map(|(_, count)| count).sum()
    }
}

/// Number of blocks that one thread counts in one go: 8 MiB of entries.
const COUNTED_AT_ONCE: u64 = 1 << 20;

/// Length of the part of the BAT that is read before its memory is released: 1 MiB.
const FORGET_STEP: u64 = MIB;

/// Length of a page of the system, in bytes.
const PAGE: usize = 4096;

/// Number of entries that are compared at once.
const ENTRIES_AT_ONCE: usize = 512;

/// Read-ahead of a walk through the BAT: nothing before the first page, since most walks end there, and then larger and
/// larger steps.
#[derive(Debug, Default)]
struct ReadAhead {
    /// File offset up to which the walk needs no further request.
    until: u64,
    /// Length of the next request, in bytes; 0 before the first page.
    step: u64,
}

impl ReadAhead {
    /// Notes that the walk is at `block`, and will read up to `most` blocks from there on. Returns how many of them to
    /// read in one go.
    #[inline]
    fn advance(&mut self, bat: &Bat<'_>, block: u64, most: u64) -> u64 {
        let offset = |block| bat.entry_offset(bat.geometry.payload_index(block));
        let start = offset(block);
        if start >= self.until {
            self.ask(bat, start, offset(block.saturating_add(most)));
        }
        // Borrowed bytes cost what is looked at; reads cost what is requested.
        if bat.view.source().can_borrow() {
            return most;
        }
        most.min(self.until.saturating_sub(start).div_ceil(BatEntry::LENGTH))
    }

    fn ask(&mut self, bat: &Bat<'_>, start: u64, end: u64) {
        let page = to_u64(PAGE);
        if self.step == 0 {
            self.until = start.saturating_add(1).next_multiple_of(page);
            self.step = page;
            return;
        }
        self.step = self.step.saturating_mul(4).min(FORGET_STEP);
        let length = self.step.min(end.saturating_sub(start));
        if length > page {
            bat.view.will_need(start, length);
        }
        self.until = start.saturating_add(length);
    }
}

/// When to ask the system for the next hole during a walk through the BAT: not before the walk has read as much as it
/// may read in vain. Reading in a hole makes the system fill it, and many pages around.
struct HoleProbe {
    /// The first block whose entry may be in a hole.
    at: u64,
    /// Number of blocks before the next question.
    step: u64,
}

impl HoleProbe {
    /// Makes a probe for a walk: there is no hole before block `seen_to`.
    fn from(seen_to: u64) -> Self {
        Self { at: seen_to, step: to_u64(PAGE) / BatEntry::LENGTH }
    }

    /// Returns the number of blocks from `block` on in a hole.
    fn hole(&mut self, bat: &Bat<'_>, block: u64) -> u64 {
        if block < self.at {
            return 0;
        }
        let hole = bat.blocks_in_hole(block);
        if hole > 0 {
            // There is at least a page after it.
            let step = Self::from(0).step;
            *self = Self { at: block.saturating_add(hole).saturating_add(step), step };
        } else {
            self.at = block.saturating_add(self.step);
            self.step = self.step.saturating_mul(2).min(FORGET_STEP / BatEntry::LENGTH);
        }
        hole
    }

    /// Returns the number of blocks from `block` on that can be read.
    fn left(&self, block: u64) -> u64 {
        self.at.saturating_sub(block)
    }
}

/// Consecutive entries of payload blocks.
pub(crate) enum EntryRun<'e> {
    /// This many zero entries.
    Zero(u64),
    Entries(&'e [U64]),
}

impl EntryRun<'_> {
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Zero(count) => *count,
            Self::Entries(entries) => to_u64(entries.len()),
        }
    }
}

/// Finds the entries of sector bitmap blocks in holes of the file, asked chunk by chunk: they are zero without being
/// read. They are so far apart that reading all of them makes the system fill most of the hole.
pub(crate) struct BitmapHoles<'b> {
    bat: Bat<'b>,
    table_end: u64,
    /// End of the known zeros of the table.
    zero_end: u64,
}

impl BitmapHoles<'_> {
    /// Returns whether the entry of this chunk is known to be zero.
    pub(crate) fn has(&mut self, chunk: u64) -> bool {
        let at = self.bat.entry_offset(self.bat.geometry.bitmap_index(chunk));
        if at >= self.zero_end && at < self.table_end {
            self.zero_end = self.bat.view.known_zero_end(at, self.table_end);
        }
        at.saturating_add(BatEntry::LENGTH) <= self.zero_end
    }
}

impl<'a> Bat<'a> {
    pub(crate) fn bitmap_holes(&self) -> BitmapHoles<'a> {
        let table_end = self.entry_offset(self.geometry.bat_entries().min(self.length / BatEntry::LENGTH));
        BitmapHoles { bat: *self, table_end, zero_end: 0 }
    }
}

impl Bat<'_> {
    /// Shows the entries of `count` payload blocks from `first` on, in order, until `visit` breaks: the first block of
    /// a run, and the run. This is the only walk through the BAT: holes of the file are skipped before they are read,
    /// entries are requested in advance, and the memory of those that were shown is released. There is no hole before
    /// block `seen_to`.
    ///
    /// # Errors
    /// The first block that cannot be read; entries that were shown from there on are invalid.
    pub(crate) fn entry_runs(
        &self,
        first: u64,
        count: u64,
        seen_to: u64,
        mut visit: impl FnMut(u64, EntryRun<'_>) -> ControlFlow<()>,
    ) -> Result<(), (u64, Error)> {
        let (mut block, end) = (first, first.saturating_add(count));
        let (mut kept_from, mut memory) = (first, Vec::new());
        let (mut holes, mut ahead) = (HoleProbe::from(seen_to), ReadAhead::default());
        while block < end {
            if self.forget_blocks(kept_from, block) {
                kept_from = block;
            }
            let left = end.saturating_sub(block);
            if self.lacks_entry(block) {
                let assumed = self.assumed_entries(block, &EntryRun::Zero(left));
                if visit(block, EntryRun::Entries(&assumed)).is_break() {
                    break;
                }
                block = block.saturating_add(to_u64(assumed.len()).max(1));
                continue;
            }
            let hole = holes.hole(self, block).min(left);
            if hole > 0 {
                if visit(block, EntryRun::Zero(hole)).is_break() {
                    break;
                }
                block = block.saturating_add(hole);
                continue;
            }
            let most = ahead.advance(self, block, left.min(holes.left(block)));
            let at = |error| (block, error);
            let offset = self.entry_offset(self.geometry.payload_index(block));
            let single;
            let run = match self.entries(block, most, &mut memory).map_err(at)? {
                Bytes::Zero(length) if length >= BatEntry::LENGTH => EntryRun::Zero(length / BatEntry::LENGTH),
                Bytes::Data(bytes) if !bytes.is_empty() => {
                    EntryRun::Entries(<[U64]>::ref_from_bytes(bytes).unwrap_or_default())
                }
                // An entry that is not contiguous, or is cut by the end of the file.
                _ => {
                    single = [self.view.fetch::<U64>(Structure::PayloadBatEntry(block), offset).map_err(at)?];
                    EntryRun::Entries(&single)
                }
            };
            let assumed;
            let run = if self.assumed_start.is_some() {
                assumed = self.assumed_entries(block, &run);
                EntryRun::Entries(&assumed)
            } else {
                run
            };
            let count = run.count().max(1);
            let shown = visit(block, run);
            self.view.check(Structure::Bat, offset, count.saturating_mul(BatEntry::LENGTH)).map_err(at)?;
            if shown.is_break() {
                break;
            }
            block = block.saturating_add(count);
        }
        Ok(())
    }

    /// Shows the states of `count` payload blocks from `first` on, in order, until `visit` breaks: the number of a
    /// state, and the number of consecutive blocks in it. Otherwise like [`Bat::entry_runs`].
    ///
    /// # Errors
    /// The errors of [`Bat::entry_runs`].
    pub(crate) fn walk(
        &self,
        first: u64,
        count: u64,
        seen_to: u64,
        mut visit: impl FnMut(u8, u64) -> ControlFlow<()>,
    ) -> Result<(), (u64, Error)> {
        self.entry_runs(first, count, seen_to, |_, run| match run {
            EntryRun::Zero(count) => visit(0, count),
            EntryRun::Entries(entries) => show(entries, &mut visit),
        })
    }

    /// Returns the number of blocks from `block` on whose entries are in a hole of the file.
    fn blocks_in_hole(&self, block: u64) -> u64 {
        if self.assumed_start.is_some() {
            return 0;
        }
        let index = self.geometry.payload_index(block);
        let entries = self.geometry.bat_entries().min(self.length / BatEntry::LENGTH);
        let (start, end) = (self.entry_offset(index), self.entry_offset(entries));
        let zeros = self.view.known_zero_end(start, end).saturating_sub(start) / BatEntry::LENGTH;
        let before = |index| self.geometry.payload_blocks_before(index);
        before(index.saturating_add(zeros)).saturating_sub(before(index))
    }

    /// Returns the first block whose entry is in another page than that of `block`.
    pub(crate) fn next_page(&self, block: u64) -> u64 {
        let index = self.geometry.payload_index(block);
        let offset = self.entry_offset(index);
        let left =
            offset.saturating_add(1).next_multiple_of(to_u64(PAGE)).saturating_sub(offset).div_ceil(BatEntry::LENGTH);
        self.geometry.payload_blocks_before(index.saturating_add(left)).max(block.saturating_add(1))
    }

    /// Releases the memory of the entries of the blocks from `first` to `end`, if there are enough of them.
    pub(crate) fn forget_blocks(&self, first: u64, end: u64) -> bool {
        if end.saturating_sub(first) < FORGET_STEP / BatEntry::LENGTH {
            return false;
        }
        self.forget_entries(first, end);
        true
    }

    fn forget_entries(&self, first: u64, end: u64) {
        let offset = |block| self.entry_offset(self.geometry.payload_index(block));
        self.view.forget(offset(first), offset(end));
    }

    /// Releases the memory of the entries for the disk range `from` to `to`, in bytes, if there are enough of them.
    pub(crate) fn forget(&self, from: u64, to: u64) -> bool {
        self.forget_blocks(self.geometry.block_of(from), self.geometry.block_of(to))
    }

    /// Releases the memory of the entries for the disk range `from` to `to`, including the block that contains `to`.
    pub(crate) fn forget_all(&self, from: u64, to: u64) {
        self.forget_entries(self.geometry.block_of(from), self.geometry.block_of(to).saturating_add(1));
    }

    /// Counts the payload blocks by state. With the feature `rayon`, the threads of the current pool do it, if there
    /// are many.
    pub(crate) fn states(&self) -> Result<BlockStates> {
        let blocks = self.geometry.payload_blocks();
        let part = |part: u64| {
            let first = part.saturating_mul(COUNTED_AT_ONCE);
            self.states_of(first, blocks.saturating_sub(first).min(COUNTED_AT_ONCE))
        };
        threads::try_reduce(blocks.div_ceil(COUNTED_AT_ONCE), part, |one, other| one.and(&other))
    }

    /// Counts the states of `count` blocks from `first` on.
    fn states_of(&self, first: u64, count: u64) -> Result<BlockStates> {
        let mut states = BlockStates::default();
        self.walk(first, count, first, |state, count| {
            if let Some(counted) = states.by_number.get_mut(usize::from(state)) {
                *counted = counted.saturating_add(count);
            }
            ControlFlow::Continue(())
        })
        .map_err(|(_, error)| error)?;
        self.forget_entries(first, first.saturating_add(count));
        Ok(states)
    }
}

/// Shows the states of these entries.
fn show(entries: &[U64], visit: &mut impl FnMut(u8, u64) -> ControlFlow<()>) -> ControlFlow<()> {
    for entries in entries.chunks(ENTRIES_AT_ONCE) {
        let Some((first, rest)) = entries.split_first() else { continue };
        let first = BatEntry(first.get());
        // One entry shows whether it is worth comparing all of them.
        let second = rest.first().map_or(first, |entry| BatEntry(entry.get()));
        if first.state() == second.state() {
            // In one pass without a branch, which the compiler turns into SIMD: most pages of most tables are in one
            // state.
            let differ = rest.iter().fold(0, |differ, entry| differ | (entry.get() ^ first.0));
            if BatEntry(differ).state() == 0 {
                visit(first.state(), to_u64(entries.len()))?;
                continue;
            }
        }
        for entry in entries {
            visit(BatEntry(entry.get()).state(), 1)?;
        }
    }
    ControlFlow::Continue(())
}
