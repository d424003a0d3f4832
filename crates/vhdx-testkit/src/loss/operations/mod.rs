//! Every public operation, each with a comparison of its answer with the truth.

mod bulk;
mod maps;
mod reads;

use std::fmt;
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vhdx_mmap::{Category, Disk, Error, Progress, ScanError, ScanOptions, Source};

use super::chain::{Chain, Door};
use super::dice::{Dice, size, wide};
use super::layer::Layer;
use super::truth::Truth;

/// Failures of an operation.
#[derive(Debug)]
pub enum Failure {
    /// It returned an error.
    Told(Category, String),
    /// It returned a wrong answer.
    Wrong(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told(error.category(), error.to_string())
    }
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Read(error) => error.into(),
            other => Self::Wrong(format!("stopped: {other}")),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => error.clone().into(),
            None => Self::Wrong(format!("stopped: {error}")),
        }
    }
}

pub type Judged = Result<(), Failure>;

/// Reports a wrong answer, unless `is_right`.
fn ensure(is_right: bool, what: impl FnOnce() -> String) -> Judged {
    if is_right { Ok(()) } else { Err(Failure::Wrong(what())) }
}

fn ensure_eq<T: PartialEq + fmt::Debug>(found: &T, expected: &T, what: &str) -> Judged {
    ensure(found == expected, || format!("{what}: {found:?}, and the truth is {expected:?}"))
}

/// Compares bytes of the disk with the truth.
fn ensure_bytes(found: &[u8], truth: &Truth, start: u64) -> Judged {
    let expected = truth.read(start..start + wide(found.len()));
    let place = found.iter().zip(&expected).position(|(found, expected)| found != expected);
    ensure(place.is_none(), || format!("byte {:#x} of the disk is wrong", start + wide(place.unwrap_or(0))))
}

/// Does its work at a certain call, once: the moment when a file is damaged.
pub struct Trigger {
    left: AtomicU64,
    is_spent: AtomicBool,
    work: Box<dyn Fn() + Send + Sync>,
}

impl Trigger {
    /// At the call after `calls` others.
    pub fn after(calls: u64, work: impl Fn() + Send + Sync + 'static) -> Self {
        Self { left: AtomicU64::new(calls + 1), is_spent: AtomicBool::new(false), work: Box::new(work) }
    }

    /// At no call, only by [`Trigger::fire`].
    pub fn unset(work: impl Fn() + Send + Sync + 'static) -> Self {
        Self::after(u64::MAX - 1, work)
    }

    pub fn tick(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.fire();
        }
    }

    pub fn fire(&self) {
        // Before the work: an answer that another thread returns meanwhile may be an error already.
        self.is_spent.store(true, Ordering::SeqCst);
        (self.work)();
    }

    /// Whether it has done its work, or is doing so.
    pub fn is_spent(&self) -> bool {
        self.is_spent.load(Ordering::SeqCst)
    }
}

impl Progress for Trigger {
    fn advance(&self, _: u64) -> ControlFlow<()> {
        self.tick();
        ControlFlow::Continue(())
    }
}

/// Inputs of an operation.
pub struct Stage<'a> {
    pub chain: &'a Chain,
    pub door: Door,
    pub sources: &'a [Source],
    pub disk: &'a Disk,
    /// Complete disks of the chain, from memory.
    pub copies: &'a [Disk],
    /// Manifests of the complete disks.
    pub manifests: &'a [Vec<u8>],
    pub trigger: &'a Arc<Trigger>,
    /// The layer whose file loses bytes when the trigger fires, and these bytes.
    pub lost: (usize, Range<u64>),
}

impl<'a> Stage<'a> {
    fn truth(&self) -> &'a Truth {
        &self.chain.truths[0]
    }

    fn scan(&self) -> ScanOptions<'_> {
        ScanOptions::new().progress(&**self.trigger)
    }

    fn tick(&self) {
        self.trigger.tick();
    }

    /// Whether a nonzero entry of the BAT is lost that the disk's map depends on. Entries in a log are not lost with
    /// it.
    fn has_lost_entries(&self) -> bool {
        let (layer, lost) = (self.lost.0, &self.lost.1);
        let (truth, Layer { image, is_dirty, .. }) = (&self.chain.truths[layer], &self.chain.layers[layer]);
        let is_asked = |block: Range<u64>| self.truth().within(block).any(|run| run.layer >= layer);
        let is_lost = |number: u64| is_entry_lost(image.block_entry_at(number), lost);
        let mut blocks = truth.states.iter().filter(|(_, state)| **state != 0).map(|(number, _)| *number);
        !is_dirty && blocks.any(|number| is_lost(number) && is_asked(truth.block(number, truth.block_size)))
    }

    /// Layers in which blocks share a file offset.
    fn sharing_layers(&self) -> Vec<usize> {
        let layers = &self.chain.layers;
        (0..layers.len()).filter(|layer| layers[*layer].has_shared_blocks()).collect()
    }

    /// A layer other than the first one, if there is any.
    fn some_ancestor(&self, dice: &mut Dice) -> Option<usize> {
        let count = wide(self.chain.layers.len());
        let number = 1 + dice.below(count.saturating_sub(1));
        (count > 1).then(|| size(number))
    }

    /// A range of the disk, often one that the cut affects, or all of a small disk.
    fn some_range(&self, dice: &mut Dice, most: u64) -> Range<u64> {
        some_range(self.truth(), &self.damaged_ranges(), dice, most)
    }

    /// Ranges of the disk whose content, bits or entries are lost, if they are read from one layer's file.
    fn damaged_ranges(&self) -> Vec<Range<u64>> {
        let (layer, lost) = (self.lost.0, &self.lost.1);
        let (truth, image) = (&self.chain.truths[layer], &self.chain.layers[layer].image);
        let sector = u64::from(image.spec.sector_size);
        let mut damaged_ranges = Vec::new();
        for (number, state) in truth.states.iter().filter(|(_, state)| **state != 0) {
            let block = truth.block(*number, truth.block_size);
            // What is lost of a block: from the file offset of its content, bits or entry, and the part of the disk for
            // each byte of that.
            let part = |first: u64, scale: u64| {
                let [start, end] = [lost.start, lost.end].map(|at| at.saturating_sub(first).saturating_mul(scale));
                block.start.saturating_add(start)..block.start.saturating_add(end).min(block.end)
            };
            if is_entry_lost(image.block_entry_at(*number), lost) {
                damaged_ranges.push(block.clone());
            } else if *state >= 6 {
                damaged_ranges.push(part(image.block_at(*number), 1));
            }
            if *state == 7 {
                let chunk = number / image.geometry.ratio;
                let first = image.bitmap_at(chunk) + number % image.geometry.ratio * truth.block_size / sector / 8;
                let is_whole = is_entry_lost(image.bitmap_entry_at(chunk), lost);
                damaged_ranges.push(if is_whole { block.clone() } else { part(first, 8 * sector) });
            }
        }
        damaged_ranges.retain(|range| range.start < range.end.min(self.truth().size));
        damaged_ranges
    }
}

/// Whether a part of an entry of the BAT is lost.
fn is_entry_lost(at: u64, lost: &Range<u64>) -> bool {
    at < lost.end && lost.start < at + 8
}

/// A range of a disk: often at the border of a run, and half of the time where one of `damaged_ranges` begins.
pub fn some_range(truth: &Truth, damaged_ranges: &[Range<u64>], dice: &mut Dice, most: u64) -> Range<u64> {
    let size = truth.size;
    if size <= most && dice.one_in(2) {
        return 0..size;
    }
    let data: Vec<Range<u64>> = truth.runs.iter().filter(|run| run.at.is_some()).map(|run| run.range.clone()).collect();
    let damaged_ranges: Vec<Range<u64>> = damaged_ranges.iter().filter(|range| range.start < size).cloned().collect();
    let run = if !damaged_ranges.is_empty() && dice.one_in(2) {
        dice.pick(&damaged_ranges)
    } else if !data.is_empty() && !dice.one_in(4) {
        dice.pick(&data)
    } else {
        dice.pick(&truth.runs).range
    };
    let border = dice.pick(&[run.start, run.start, run.end]).min(size);
    let reach = dice.pick(&[1, 600, 5000, 70_000, 1 << 20]);
    let before = dice.below(reach + 1);
    let reach = dice.pick(&[600, 5000, 70_000, most]).min(most);
    let length = 1 + dice.below(reach);
    let start = border.saturating_sub(before).min(size - 1);
    start..(start + length).min(size)
}

/// An operation: it acts, and compares the result with the truth.
pub type Operation = fn(&Stage<'_>, &mut Dice) -> Judged;

/// All operations by name.
pub const OPERATIONS: &[(&str, Operation)] = &[
    ("read_at, small", reads::read_at_small),
    ("read_at, large", reads::read_at_large),
    ("Reader::read", reads::reader_read),
    ("Reader::fill_buf", reads::reader_fill_buf),
    ("slice, check_lost", reads::slice),
    ("slice held, check_lost", reads::slice_held),
    ("segments", reads::segments),
    ("segments ended early, check_lost", reads::segments_early),
    #[cfg(feature = "rayon")]
    ("par_segments, check_lost", reads::par_segments),
    ("block segments, check_lost", reads::block_segments),
    ("ancestor, read_at", reads::ancestor),
    ("open again", reads::open_again),
    ("open anew", reads::reopen),
    ("salvage, losses", reads::salvage),
    ("payload_block", maps::payload_block),
    ("block_states", maps::block_states),
    ("parent_locator", maps::parent_locator),
    ("Source::check_lost", maps::source_check_lost),
    ("extents", maps::extents),
    ("extents, last item last", maps::extents_to_last),
    ("extents ended early, check_lost", maps::extents_early),
    ("losses", maps::losses),
    ("measure", maps::measure),
    ("allocated_changes", maps::allocated_changes),
    ("allocated_changes, break", maps::allocated_changes_break),
    ("content_changes", maps::content_changes),
    ("content_changes, break", maps::content_changes_break),
    ("content_changes_in, allocated_changes_in", maps::changes_of_splits),
    ("contents", maps::contents),
    ("check", maps::check),
    ("check, payload", maps::check_payload),
    ("shared_blocks", maps::shared_blocks),
    ("Content::scan", bulk::scan),
    ("hash", bulk::hash),
    ("hash_shard, merge", bulk::hash_shard),
    ("plan, hash_share, merge", bulk::hash_splits),
    ("create_manifest", bulk::create_manifest),
    ("create_manifest, share", bulk::create_manifest_shard),
    ("verify, same", bulk::verify_same),
    ("verify, other", bulk::verify_other),
    ("compare", bulk::compare),
    ("compare, break", bulk::compare_break),
    ("first_difference", bulk::first_difference),
    ("extract_to_file", bulk::extract_to_file),
    ("extract_to_writer", bulk::extract_to_writer),
    ("extract_to_stream", bulk::extract_to_stream),
];

pub use bulk::judge_manifest;
