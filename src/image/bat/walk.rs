//! Going through the BAT: only what state the blocks are in.

use std::ops::ControlFlow;

use zerocopy::FromBytes;

use crate::error::{Error, Result, Structure};
use crate::format::{BatEntry, MIB, PayloadBlockState, U64};
use crate::num::to_u64;
use crate::source::Bytes;
use crate::threads;

use super::Bat;

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

    /// These blocks, and others.
    fn and(&self, other: &Self) -> Self {
        let mut by_number = self.by_number;
        by_number.iter_mut().zip(other.by_number).for_each(|(sum, count)| *sum = sum.saturating_add(count));
        Self { by_number }
    }

    /// The number of blocks in a state that does not exist: reading them fails.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        let is_none = |number: u8| PayloadBlockState::from_number(number).is_none();
        (0_u8..).zip(self.by_number).filter(|(number, _)| is_none(*number)).map(|(_, count)| count).sum()
    }
}

/// How many blocks one thread counts in one go: 8 MiB of entries.
const COUNTED_AT_ONCE: u64 = 1 << 20;

/// How much of the BAT is gone through before its memory is given back: 1 MiB.
const FORGET_STEP: u64 = MIB;

/// Length of a page of the system, in bytes.
const PAGE: usize = 4096;

/// Number of entries that are looked at as one.
const ENTRIES_AT_ONCE: usize = 512;

/// Asks for the entries that a walk through the BAT is about to look at: nothing before the first page, since most walks
/// end there, and then more and more.
#[derive(Debug, Default)]
struct ReadAhead {
    /// Up to where the walk may look without asking, as a file offset.
    until: u64,
    /// How much to ask for next, in bytes; 0 before the first page.
    step: u64,
}

impl ReadAhead {
    /// The walk has come to `block`, and looks at `most` blocks from there on, if it does not end before. Returns how many of
    /// them to look at in one go.
    #[inline]
    fn advance(&mut self, bat: &Bat<'_>, block: u64, most: u64) -> u64 {
        let offset = |block| bat.entry_offset(bat.geometry.payload_index(block));
        let start = offset(block);
        if start >= self.until {
            self.ask(bat, start, offset(block.saturating_add(most)));
        }
        // What is borrowed costs what is looked at; what is read costs what is asked for.
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

/// When to ask the system again for a hole, going through the BAT: not sooner than after as much as may then be looked at in vain.
/// To look into a hole makes the system fill it, and much of what lies around.
struct HoleProbe {
    /// The first block whose entry may lie in a hole.
    at: u64,
    /// How many blocks to go on for without asking.
    step: u64,
}

impl HoleProbe {
    /// Up to block `seen_to`, it is known that there is no hole.
    fn from(seen_to: u64) -> Self {
        Self { at: seen_to, step: to_u64(PAGE) / BatEntry::LENGTH }
    }

    /// How many blocks from `block` on are in a hole.
    fn hole(&mut self, bat: &Bat<'_>, block: u64) -> u64 {
        if block < self.at {
            return 0;
        }
        let hole = bat.blocks_in_hole(block);
        if hole > 0 {
            // After it there is a page at least.
            let step = Self::from(0).step;
            *self = Self { at: block.saturating_add(hole).saturating_add(step), step };
        } else {
            self.at = block.saturating_add(self.step);
            self.step = self.step.saturating_mul(2).min(FORGET_STEP / BatEntry::LENGTH);
        }
        hole
    }

    /// How many blocks from `block` on can be looked at.
    fn left(&self, block: u64) -> u64 {
        self.at.saturating_sub(block)
    }
}

/// Entries of payload blocks, one after the other.
pub(crate) enum EntryRun<'e> {
    /// This many that are zero.
    Zero(u64),
    Entries(&'e [U64]),
}

impl EntryRun<'_> {
    fn count(&self) -> u64 {
        match self {
            Self::Zero(count) => *count,
            Self::Entries(entries) => to_u64(entries.len()),
        }
    }
}

/// Which entries of sector bitmap blocks lie in a hole of the file, asked of chunk after chunk: they are zero, which needs no look.
/// They are so far apart that to look at all of them makes the system fill most of the hole.
pub(crate) struct BitmapHoles<'b> {
    bat: Bat<'b>,
    table_end: u64,
    /// Up to where the table is known to be zero.
    zero_end: u64,
}

impl BitmapHoles<'_> {
    /// Whether the entry of this chunk is known to be zero.
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
    /// Shows the entries of `count` payload blocks from `first` on, in order, until `visit` has enough: the first block of a
    /// run, and the run. The one walk through the BAT: holes of the file are skipped before they are touched, what lies
    /// ahead is asked for in time, and the memory of what was shown is given back. Up to block `seen_to`, it is known that
    /// there is no hole.
    ///
    /// # Errors
    /// With the first block that can't be read; what was shown from there on counts for nothing.
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
                // An entry that does not lie together, or is cut by the end of the file.
                _ => {
                    single = [self.view.fetch::<U64>(Structure::PayloadBatEntry(block), offset).map_err(at)?];
                    EntryRun::Entries(&single)
                }
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

    /// Shows the states of `count` payload blocks from `first` on, in order, until `visit` has enough: a state's number, and
    /// how many blocks in a row are in it. Otherwise as [`Bat::entry_runs`].
    ///
    /// # Errors
    /// As for [`Bat::entry_runs`].
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

    /// How many blocks from `block` on have their entries in a hole of the file.
    fn blocks_in_hole(&self, block: u64) -> u64 {
        let index = self.geometry.payload_index(block);
        let entries = self.geometry.bat_entries().min(self.length / BatEntry::LENGTH);
        let (start, end) = (self.entry_offset(index), self.entry_offset(entries));
        let zeros = self.view.known_zero_end(start, end).saturating_sub(start) / BatEntry::LENGTH;
        let before = |index| self.geometry.payload_blocks_before(index);
        before(index.saturating_add(zeros)).saturating_sub(before(index))
    }

    /// The first block whose entry lies in another page than that of `block`.
    pub(crate) fn next_page(&self, block: u64) -> u64 {
        let index = self.geometry.payload_index(block);
        let offset = self.entry_offset(index);
        let left =
            offset.saturating_add(1).next_multiple_of(to_u64(PAGE)).saturating_sub(offset).div_ceil(BatEntry::LENGTH);
        self.geometry.payload_blocks_before(index.saturating_add(left)).max(block.saturating_add(1))
    }

    /// Gives back the memory of the entries of the blocks from `first` to `end`, if there are enough of them.
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

    /// The same for all that tells of the disk from `from` to `to`, in bytes.
    pub(crate) fn forget(&self, from: u64, to: u64) -> bool {
        self.forget_blocks(self.geometry.block_of(from), self.geometry.block_of(to))
    }

    /// The same however few they are, with the entry of the block in which `to` lies.
    pub(crate) fn forget_all(&self, from: u64, to: u64) {
        self.forget_entries(self.geometry.block_of(from), self.geometry.block_of(to).saturating_add(1));
    }

    /// Counts the payload blocks by state. With the feature `rayon`, the threads of the current pool do it, if there are many.
    pub(crate) fn states(&self) -> Result<BlockStates> {
        let blocks = self.geometry.payload_blocks();
        let part = |part: u64| {
            let first = part.saturating_mul(COUNTED_AT_ONCE);
            self.states_of(first, blocks.saturating_sub(first).min(COUNTED_AT_ONCE))
        };
        threads::try_reduce(blocks.div_ceil(COUNTED_AT_ONCE), part, |one, other| one.and(&other))
    }

    /// The same of `count` blocks from `first` on.
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
        // One entry says whether it is worth to look at all of them.
        let second = rest.first().map_or(first, |entry| BatEntry(entry.get()));
        if first.state() == second.state() {
            // In one pass without a branch, which the compiler makes SIMD of: most pages of most tables are in one state.
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
