//! Content of a chain, from what it was built from: independent of the bytes of its files and of the library.

use std::ops::Range;

use super::dice::{size, wide};
use super::layer::Layer;
use crate::builder::Slot;
use crate::{Model, PAGE, Part, SparseBytes};

/// The step in which differences are reported, in bytes.
pub const STEP: u64 = 512;

/// A run of the disk that one layer decides.
#[derive(Clone, Debug)]
pub struct Run {
    pub range: Range<u64>,
    pub layer: usize,
    /// State of its block; `None` past the end of a smaller parent.
    pub state: Option<u8>,
    /// Offset in the file; `None` for zeros.
    pub at: Option<u64>,
    /// Whether a log may hold it as zeros, so that it is not data.
    pub may_be_zero: bool,
}

/// Content of a disk.
pub struct Truth {
    pub size: u64,
    pub block_size: u64,
    pub runs: Vec<Run>,
    pub bytes: SparseBytes,
    /// States of the top layer's blocks; the others are 0.
    pub states: std::collections::BTreeMap<u64, u8>,
}

impl Truth {
    pub fn of(layers: &[Layer]) -> Self {
        let model = &layers[0].image.model;
        let mut truth = Self {
            size: model.size,
            block_size: model.block_size,
            runs: Vec::new(),
            bytes: SparseBytes::new(model.size),
            states: model.blocks.iter().map(|(number, block)| (*number, block.state)).collect(),
        };
        truth.flatten(layers, 0, 0..model.size);
        truth
    }

    fn flatten(&mut self, layers: &[Layer], layer: usize, range: Range<u64>) {
        let Layer { image, is_dirty, .. } = &layers[layer];
        let model: &Model = &image.model;
        let inside = range.start.min(model.size)..range.end.min(model.size);
        for (piece, part) in model.parts(inside.start, inside.end - inside.start) {
            let number = piece.start / model.block_size;
            let state = Some(model.blocks.get(&number).map_or(0, |block| block.state));
            let mut run = Run { range: piece.clone(), layer, state, at: None, may_be_zero: false };
            match part {
                Part::Data(bytes) => {
                    let place = image.places[&Slot::Block(number)];
                    run.at = Some(place + piece.start % model.block_size);
                    run.may_be_zero = *is_dirty && bytes.iter().all(|byte| *byte == 0);
                    self.bytes.write(piece.start, &bytes);
                    self.runs.push(run);
                }
                Part::Zero => self.runs.push(run),
                Part::Parent if layer + 1 < layers.len() => self.flatten(layers, layer + 1, piece),
                Part::Parent | Part::Fault => unreachable!("a chain that can be read"),
            }
        }
        if inside.end < range.end {
            let range = inside.end.max(range.start)..range.end;
            self.runs.push(Run { range, layer, state: None, at: None, may_be_zero: false });
        }
    }

    pub fn read(&self, range: Range<u64>) -> Vec<u8> {
        self.bytes.read(range.start, size(range.end - range.start))
    }

    /// Runs of a range, cut at its ends.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Run> {
        let first = self.runs.partition_point(|run| run.range.end <= range.start);
        self.runs[first..]
            .iter()
            .take_while({
                let end = range.end;
                move |run| run.range.start < end
            })
            .map(move |run| {
                let mut run = run.clone();
                let start = run.range.start.max(range.start);
                run.at = run.at.map(|at| at + (start - run.range.start));
                run.range = start..run.range.end.min(range.end);
                run
            })
    }

    /// Ranges that layers above `ancestor` decide, and whether they are zeros.
    pub fn changes(&self, ancestor: usize) -> Vec<Change> {
        let changed = self.runs.iter().filter(|run| run.layer < ancestor);
        joined(changed.map(|run| Change {
            range: run.range.clone(),
            is_zero: run.at.is_none(),
            may_be_zero: run.may_be_zero,
        }))
    }

    /// Ranges that differ from another disk, and whether they are zeros here.
    pub fn differing(&self, other: &Self) -> Vec<Change> {
        let ranges = differences(&self.bytes, &other.bytes, self.size);
        joined(ranges.into_iter().flat_map(|(range, _)| self.within(range)).map(|run| Change {
            range: run.range,
            is_zero: run.at.is_none(),
            may_be_zero: run.may_be_zero,
        }))
    }

    /// The block's range in the disk.
    pub fn block(&self, number: u64, block_size: u64) -> Range<u64> {
        number * block_size..((number + 1) * block_size).min(self.size)
    }
}

/// A range that differs from an ancestor.
#[derive(Clone, Debug)]
pub struct Change {
    pub range: Range<u64>,
    pub is_zero: bool,
    pub may_be_zero: bool,
}

fn joined(changes: impl Iterator<Item = Change>) -> Vec<Change> {
    let mut out: Vec<Change> = Vec::new();
    for next in changes {
        match out.last_mut() {
            Some(last)
                if last.range.end == next.range.start
                    && (last.is_zero, last.may_be_zero) == (next.is_zero, next.may_be_zero) =>
            {
                last.range.end = next.range.end;
            }
            _ => out.push(next),
        }
    }
    out
}

/// Ranges of the first `length` bytes in which two contents differ, in steps, and the first byte of each that differs.
pub fn differences(one: &SparseBytes, other: &SparseBytes, length: u64) -> Vec<(Range<u64>, u64)> {
    let mut pages = [one, other].map(|bytes| bytes.written_pages(0, length)).concat();
    pages.sort_unstable();
    pages.dedup();
    let mut out: Vec<(Range<u64>, u64)> = Vec::new();
    for page in pages {
        for step in (page..(page + PAGE).min(length)).step_by(size(STEP)) {
            let end = (step + STEP).min(length);
            let [one, other] = [one, other].map(|bytes| bytes.read(step, size(end - step)));
            let Some(first) = one.iter().zip(&other).position(|(one, other)| one != other) else { continue };
            match out.last_mut() {
                Some((range, _)) if range.end == step => range.end = end,
                _ => out.push((step..end, step + wide(first))),
            }
        }
    }
    out
}
