//! Operations that return maps.

use std::ops::{ControlFlow, Range};

use vhdx_mmap::ops::plan::{Plan, PlanOptions};
use vhdx_mmap::ops::{self, CheckOptions, PartitionScheme};
use vhdx_mmap::{Category, Location, OpenOptions, Parents, PayloadBlockState, Rule, Run, Severity};

use super::super::chain::{Door, PARTITION, boot_record};
use super::super::dice::{Dice, size, wide};
use super::super::truth::{Change, Truth};
use super::{Failure, Judged, Stage, ensure, ensure_eq};
use crate::builder::Locator;
use crate::states::number_of;

pub(super) fn payload_block(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    for layer in 0..stage.chain.layers.len() {
        let truth = &stage.chain.truths[layer];
        let image = &stage.chain.layers[layer].image;
        for _ in 0..3 {
            let number = super::some_range(truth, &stage.damaged_ranges(), dice, 1).start / truth.block_size;
            let (state, place) = stage.disk.layers()[layer].image().payload_block(number)?;
            let expected = truth.states.get(&number).copied().unwrap_or(0);
            ensure_eq(&number_of(state), &expected, "the state of a block")?;
            if expected >= 6 {
                ensure_eq(&place, &image.block_at(number), "the place of a block")?;
            }
            stage.tick();
        }
    }
    Ok(())
}

pub(super) fn block_states(stage: &Stage<'_>, _: &mut Dice) -> Judged {
    for (layer, truth) in stage.disk.layers().iter().zip(&stage.chain.truths) {
        let states = layer.image().block_states()?;
        let count = |wanted: u8| wide(truth.states.values().filter(|state| **state == wanted).count());
        let blocks = truth.size.div_ceil(truth.block_size);
        for state in [
            PayloadBlockState::Undefined,
            PayloadBlockState::Zero,
            PayloadBlockState::Unmapped,
            PayloadBlockState::FullyPresent,
            PayloadBlockState::PartiallyPresent,
        ] {
            ensure_eq(&states.count(state), &count(number_of(state)), "blocks in a state")?;
        }
        let absent = blocks - wide(truth.states.values().filter(|state| **state != 0).count());
        ensure_eq(&states.count(PayloadBlockState::NotPresent), &absent, "blocks that are not present")?;
        stage.tick();
    }
    Ok(())
}

pub(super) fn parent_locator(stage: &Stage<'_>, _: &mut Dice) -> Judged {
    for (layer, built) in stage.disk.layers().iter().zip(&stage.chain.layers) {
        let found = layer.image().parent_locator()?.map(|locator| locator.entries);
        let expected = match &built.image.spec.locator {
            Some(Locator::Pairs(_, pairs)) => Some(pairs.clone()),
            _ => None,
        };
        ensure_eq(&found, &expected, "the parent locator")?;
        stage.tick();
    }
    Ok(())
}

pub(super) fn source_check_lost(stage: &Stage<'_>, _: &mut Dice) -> Judged {
    stage.tick();
    let is_damaged = stage.trigger.is_spent();
    for layer in stage.disk.layers() {
        let source = layer.image().source();
        source.check_lost()?;
        ensure(!source.has_changed()? || is_damaged, || "a file is reported as changed, but is not".to_owned())?;
    }
    // One of the files was truncated, but no source reports a loss.
    let is_right = !is_damaged || stage.door == Door::Memory;
    ensure(is_right, || "no file has lost anything".to_owned())
}

/// Compares successive extents from `start` on with the truth, and returns their end.
fn ensure_extents(all: &[Run], stage: &Stage<'_>, start: u64) -> Result<u64, Failure> {
    let mut at = start;
    for extent in all {
        ensure_eq(&extent.start, &at, "the start of an extent")?;
        at += extent.len;
        for run in stage.truth().within(extent.start..at) {
            let into = run.range.start - extent.start;
            let is_data_right = match (run.at, extent.file_offset()) {
                (Some(expected), Some(found)) => found + into == expected,
                (Some(_), None) => {
                    stage.chain.layers[run.layer].is_dirty && (matches!(extent.at, Location::Log(_)) || run.may_be_zero)
                }
                (None, found) => found.is_none() && !matches!(extent.at, Location::Log(_)),
            };
            let state = extent.state.map(number_of);
            let is_right =
                is_data_right && (extent.layer, state) == (run.layer, run.state) && extent.at != Location::Lost;
            ensure(is_right, || format!("{extent:?}, and the truth is {run:?}"))?;
        }
    }
    Ok(at)
}

pub(super) fn extents(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let range = stage.some_range(dice, stage.truth().size);
    let mut all = Vec::new();
    for extent in stage.disk.extents(range.clone()) {
        all.push(extent?);
        stage.tick();
    }
    let end = ensure_extents(&all, stage, range.start)?;
    ensure_eq(&end, &range.end, "the end of the extents")
}

/// Takes extents up to the last one, and does not request one after it.
pub(super) fn extents_to_last(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let range = stage.some_range(dice, stage.truth().size);
    let (mut all, mut at) = (Vec::new(), range.start);
    for extent in stage.disk.extents(range.clone()) {
        let extent = extent?;
        at = extent.start + extent.len;
        all.push(extent);
        if at >= range.end {
            break;
        }
        stage.tick();
    }
    ensure_extents(&all, stage, range.start)?;
    ensure_eq(&at, &range.end, "the end of the extents")
}

pub(super) fn extents_early(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let range = stage.some_range(dice, stage.truth().size);
    let mut all = Vec::new();
    for extent in stage.disk.extents(range.clone()).take(1 + size(dice.below(3))) {
        all.push(extent?);
        stage.tick();
    }
    let end = all.last().map_or(range.start, |extent| extent.start + extent.len);
    stage.disk.check_lost(range.start..end)?;
    ensure_extents(&all, stage, range.start).map(drop)
}

/// Only losses that follow from the tables are required: the content has not been read.
pub(super) fn losses(stage: &Stage<'_>, _: &mut Dice) -> Judged {
    stage.tick();
    match stage.disk.losses(..).next() {
        Some(loss) => Err(loss.reason.into()),
        None => {
            let is_lost = stage.door == Door::Map && stage.trigger.is_spent() && stage.has_lost_entries();
            ensure(!is_lost, || "nothing is lost, and entries of the BAT are".to_owned())
        }
    }
}

pub(super) fn measure(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let range = stage.some_range(dice, stage.truth().size);
    stage.tick();
    let found = ops::measure(stage.disk, range.clone())?;
    let sum = |is_counted: fn(&super::super::truth::Run) -> bool| {
        let runs = stage.truth().within(range.clone()).filter(is_counted);
        runs.map(|run| run.range.end - run.range.start).sum::<u64>()
    };
    let most = sum(|run| run.at.is_some());
    let least = most - sum(|run| run.may_be_zero);
    ensure((least..=most).contains(&found.data), || format!("{} bytes of data, and there are {most}", found.data))?;
    ensure_eq(&(found.data + found.zero), &(range.end - range.start), "all bytes that were measured")
}

/// Compares changes with the truth. Those of cancelled work are the first ones.
fn ensure_changes(found: &[(Range<u64>, bool)], expected: &[Change], is_broken_off: bool) -> Judged {
    let (mut at, mut left) = (0, expected.iter().peekable());
    let wrong = |range: &Range<u64>| Failure::Wrong(format!("the change {range:x?}, and the truth is {expected:x?}"));
    for (range, is_zero) in found {
        let mut start = range.start;
        if start < at {
            return Err(wrong(range));
        }
        while start < range.end {
            let Some(change) = left.peek() else { return Err(wrong(range)) };
            let is_same = change.may_be_zero || change.is_zero == *is_zero;
            if change.range.start.max(at) != start || change.range.end > range.end && !change.may_be_zero || !is_same {
                return Err(wrong(range));
            }
            start = change.range.end.min(range.end);
            at = start;
            if change.range.end <= start {
                left.next();
            }
        }
    }
    match (is_broken_off, left.peek(), found.last()) {
        (false, Some(change), _) => Err(Failure::Wrong(format!("nothing of the change {change:x?}"))),
        (true, Some(change), Some((last, is_zero)))
            if change.range.start == last.end
                && change.is_zero == *is_zero
                && !change.may_be_zero
                && !expected.iter().any(|change| change.may_be_zero) =>
        {
            Err(wrong(last))
        }
        _ => Ok(()),
    }
}

type Changes = Vec<(Range<u64>, bool)>;

/// Takes changes, and cancels after some. Returns whether it did so.
fn take_changes<E>(
    stage: &Stage<'_>,
    most: usize,
    work: impl FnOnce(&mut dyn FnMut(ops::Change) -> ControlFlow<()>) -> Result<(), E>,
) -> Result<(Changes, bool), E> {
    let (mut found, mut is_broken_off) = (Vec::new(), false);
    work(&mut |change| {
        stage.tick();
        found.push((change.range, change.is_zero));
        if found.len() >= most {
            is_broken_off = true;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok((found, is_broken_off))
}

fn allocated(stage: &Stage<'_>, dice: &mut Dice, most: usize) -> Judged {
    let Some(ancestor) = stage.some_ancestor(dice) else { return Ok(()) };
    let (found, is_broken_off) = take_changes(stage, most, |take| ops::allocated_changes(stage.disk, ancestor, take))?;
    ensure_changes(&found, &stage.truth().changes(ancestor), is_broken_off)
}

pub(super) fn allocated_changes(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    allocated(stage, dice, usize::MAX)
}

pub(super) fn allocated_changes_break(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let most = dice.pick(&[1, 1, 2, 3]);
    allocated(stage, dice, most)
}

fn differing(stage: &Stage<'_>, dice: &mut Dice, most: usize) -> Judged {
    let Some(ancestor) = stage.some_ancestor(dice) else { return Ok(()) };
    let scan = stage.scan();
    let (found, is_broken_off) =
        take_changes(stage, most, |take| ops::content_changes(stage.disk, ancestor, &scan, take))?;
    ensure_changes(&found, &stage.truth().differing(&stage.chain.truths[ancestor]), is_broken_off)
}

pub(super) fn content_changes(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    differing(stage, dice, usize::MAX)
}

pub(super) fn content_changes_break(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let most = dice.pick(&[1, 1, 2, 3]);
    differing(stage, dice, most)
}

/// The changes of splits, one after the other, joined where one goes on in the next.
pub(super) fn changes_of_splits(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let Some(ancestor) = stage.some_ancestor(dice) else { return Ok(()) };
    let plan = Plan::new(stage.disk, &PlanOptions::splits(dice.pick(&[1, 2, 3])))?;
    let (by_content, scan) = (dice.pick(&[true, false]), stage.scan());
    let mut found = Changes::new();
    for split in plan.splits() {
        let (of_split, _) = take_changes(stage, usize::MAX, |take| {
            if by_content {
                return ops::content_changes_in(stage.disk, ancestor, split.range(), &scan, take);
            }
            ops::allocated_changes_in(stage.disk, ancestor, split.range(), take)
        })?;
        for (range, is_zero) in of_split {
            match found.last_mut() {
                Some((before, was_zero)) if before.end == range.start && *was_zero == is_zero => before.end = range.end,
                _ => found.push((range, is_zero)),
            }
        }
    }
    let truth = stage.truth();
    let expected = if by_content { truth.differing(&stage.chain.truths[ancestor]) } else { truth.changes(ancestor) };
    ensure_changes(&found, &expected, false)
}

pub(super) fn contents(stage: &Stage<'_>, _: &mut Dice) -> Judged {
    stage.tick();
    let found = ops::detect(stage.disk)?;
    let truth: &Truth = stage.truth();
    let has_table = truth.read(0..512) == boot_record();
    let sector = u64::from(stage.chain.layers[0].image.spec.sector_size);
    let expected: Vec<_> =
        has_table.then(|| (1, u64::from(PARTITION.0) * sector, u64::from(PARTITION.1) * sector)).into_iter().collect();
    let table = found.partition_table;
    ensure_eq(&table.as_ref().map(|table| table.scheme), &has_table.then_some(PartitionScheme::Mbr), "the scheme")?;
    let partitions = table.into_iter().flat_map(|table| table.partitions);
    let found: Vec<_> = partitions.map(|partition| (partition.number, partition.start, partition.len)).collect();
    ensure_eq(&found, &expected, "the partitions")
}

fn checked(stage: &Stage<'_>, reads_payload: bool) -> Judged {
    let parents = stage.sources.to_vec();
    let finder = Parents::With(std::sync::Arc::new(move |request: &vhdx_mmap::ParentRequest<'_>| {
        Ok(parents.get(request.layer + 1).cloned())
    }));
    let open = OpenOptions::new().parents(finder);
    stage.tick();
    let options = CheckOptions::new(open).payload(reads_payload).scan(stage.scan());
    let report = ops::check(stage.sources[0].clone(), &options)?;
    if let Some(finding) = report.findings.iter().find(|finding| finding.detail.category() == Category::Io) {
        return Err(finding.detail.clone().into());
    }
    let (shared, others): (Vec<_>, Vec<_>) =
        report.findings.iter().partition(|finding| finding.rule == Rule::BlockOverlap);
    let mut shared: Vec<usize> = shared.iter().map(|finding| finding.detail.layer()).collect();
    shared.dedup();
    ensure_eq(&shared, &stage.sharing_layers(), "layers with findings of blocks that share a place")?;
    let bad = others.iter().find(|finding| finding.severity >= Severity::Unchecked);
    ensure(bad.is_none(), || format!("a finding that is none: {}", bad.map(ToString::to_string).unwrap_or_default()))?;
    ensure(!report.is_incomplete(), || "a check that is not complete".to_owned())?;
    let truth = stage.truth();
    let allocated = wide(truth.states.values().filter(|state| **state >= 6).count());
    let found = (report.blocks, report.allocated_blocks, report.files.len());
    let expected = (truth.size.div_ceil(truth.block_size), allocated, stage.chain.layers.len());
    ensure_eq(&found, &expected, "blocks, allocated blocks and files")
}

pub(super) fn check(stage: &Stage<'_>, _: &mut Dice) -> Judged {
    checked(stage, false)
}

pub(super) fn check_payload(stage: &Stage<'_>, _: &mut Dice) -> Judged {
    checked(stage, true)
}

pub(super) fn shared_blocks(stage: &Stage<'_>, _: &mut Dice) -> Judged {
    stage.tick();
    let found = ops::shared_blocks(stage.disk);
    if let Some(error) = found.iter().find(|error| error.category() == Category::Io) {
        return Err(error.clone().into());
    }
    let found: Vec<usize> = found.iter().map(vhdx_mmap::Error::layer).collect();
    ensure_eq(&found, &stage.sharing_layers(), "layers with blocks that share a place")
}
