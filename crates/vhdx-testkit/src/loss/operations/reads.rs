//! Operations that return bytes of the disk.

use std::io::{BufRead, Read, Seek, SeekFrom};
use std::sync::Arc;

use vhdx_mmap::{Category, Disk, Loss, Segment, Strictness};

use super::super::chain::{Door, open};
use super::super::dice::{Dice, size, wide};
use super::super::truth::Truth;
use super::{Failure, Judged, Stage, ensure, ensure_bytes, ensure_eq, some_range};
use crate::MIB;

/// Reads some ranges, and compares each.
fn read_some(stage: &Stage<'_>, disk: &Disk, truth: &Truth, dice: &mut Dice, most: u64) -> Judged {
    for _ in 0..1 + dice.below(6) {
        let range = some_range(truth, &stage.damaged_ranges(), dice, most);
        let mut buffer = vec![0xA5; size(range.end - range.start)];
        let read = disk.read_at(&mut buffer, range.start)?;
        ensure_eq(&read, &buffer.len(), "bytes read")?;
        ensure_bytes(&buffer, truth, range.start)?;
        stage.tick();
    }
    Ok(())
}

pub(super) fn read_at_small(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    read_some(stage, stage.disk, stage.truth(), dice, 5000)
}

pub(super) fn read_at_large(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    read_some(stage, stage.disk, stage.truth(), dice, 3 * MIB)
}

pub(super) fn ancestor(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let Some(layer) = stage.some_ancestor(dice) else { return Ok(()) };
    let disk = stage.disk.ancestor(layer).unwrap();
    read_some(stage, &disk, &stage.chain.truths[layer], dice, 70_000)
}

pub(super) fn reader_read(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let range = stage.some_range(dice, 3 * MIB);
    let mut reader = stage.disk.reader();
    reader.seek(SeekFrom::Start(range.start))?;
    let mut buffer = vec![0; dice.pick(&[512, 4096, 100_000, 300_000])];
    let mut at = range.start;
    while at < range.end {
        let read = reader.read(&mut buffer)?;
        let expected = wide(buffer.len()).min(stage.truth().size - at);
        ensure_eq(&wide(read), &expected, "bytes read")?;
        ensure_bytes(&buffer[..read], stage.truth(), at)?;
        at += expected;
        stage.tick();
    }
    Ok(())
}

pub(super) fn reader_fill_buf(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let range = stage.some_range(dice, 3 * MIB);
    let mut reader = stage.disk.reader();
    reader.seek(SeekFrom::Start(range.start))?;
    let step = dice.pick(&[usize::MAX, usize::MAX, 4096, 70_000]);
    // Borrowed bytes are known to be good when the reader has been called again.
    let (mut at, mut copied) = (range.start, Vec::new());
    loop {
        let borrowed = reader.fill_buf()?;
        stage.tick();
        let next = borrowed[..borrowed.len().min(step)].to_vec();
        ensure_bytes(&copied, stage.truth(), at)?;
        at += wide(copied.len());
        if next.is_empty() {
            return ensure_eq(&at, &stage.truth().size, "the end of the stream");
        }
        if at >= range.end {
            return Ok(());
        }
        reader.consume(next.len());
        copied = next;
    }
}

pub(super) fn slice(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    for _ in 0..1 + dice.below(6) {
        let range = stage.some_range(dice, 70_000);
        if let Some(bytes) = stage.disk.slice(range.start, range.end - range.start)? {
            stage.tick();
            let copied = bytes.to_vec();
            stage.disk.check_lost(range.clone())?;
            ensure_eq(&(wide(copied.len())), &(range.end - range.start), "bytes borrowed")?;
            ensure_bytes(&copied, stage.truth(), range.start)?;
        }
    }
    Ok(())
}

pub(super) fn slice_held(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let mut held = Vec::new();
    for _ in 0..2 + dice.below(6) {
        let range = stage.some_range(dice, 70_000);
        let bytes = stage.disk.slice(range.start, range.end - range.start)?;
        held.extend(bytes.map(|bytes| (range, bytes)));
    }
    stage.tick();
    for (range, bytes) in held {
        let copied = bytes.to_vec();
        stage.disk.check_lost(range.clone())?;
        ensure_bytes(&copied, stage.truth(), range.start)?;
    }
    Ok(())
}

/// A segment, copied.
fn copied(segment: Segment<'_>) -> Result<Vec<u8>, u64> {
    match segment {
        Segment::Data(bytes) => Ok(bytes.to_vec()),
        Segment::Zero(length) => Err(length),
    }
}

/// Compares copies of successive segments from `start` on with the truth, and returns their end.
fn ensure_segments(all: &[Result<Vec<u8>, u64>], truth: &Truth, start: u64) -> Result<u64, Failure> {
    let mut at = start;
    for segment in all {
        match segment {
            Ok(bytes) => {
                ensure_bytes(bytes, truth, at)?;
                at += wide(bytes.len());
            }
            Err(zeros) => {
                for page in truth.bytes.written_pages(at, at + zeros) {
                    let (from, to) = (page.max(at), (page + 4096).min(at + zeros));
                    let is_zero = from >= to || truth.read(from..to).iter().all(|byte| *byte == 0);
                    ensure(is_zero, || format!("zeros at {from:#x} of the disk, where there is data"))?;
                }
                at += zeros;
            }
        }
    }
    Ok(at)
}

pub(super) fn segments(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let range = stage.some_range(dice, stage.truth().size);
    let mut all = Vec::new();
    for segment in stage.disk.segments(range.clone()) {
        all.push(copied(segment?));
        stage.tick();
    }
    let end = ensure_segments(&all, stage.truth(), range.start)?;
    ensure_eq(&end, &range.end, "the end of the segments")
}

pub(super) fn segments_early(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let range = stage.some_range(dice, stage.truth().size);
    let most = dice.pick(&[1, 2, 3, usize::MAX]);
    let (mut all, mut at) = (Vec::new(), range.start);
    let mut segments = stage.disk.segments(range.clone());
    while at < range.end && all.len() < most {
        let Some(segment) = segments.next() else { break };
        let segment = segment?;
        at += segment.len();
        all.push(copied(segment));
        stage.tick();
    }
    drop(segments);
    stage.disk.check_lost(range.start..at)?;
    ensure_segments(&all, stage.truth(), range.start)?;
    ensure(all.len() == most || at == range.end, || "the segments end early".to_owned())
}

#[cfg(feature = "rayon")]
pub(super) fn par_segments(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    use rayon::iter::ParallelIterator;

    let range = stage.some_range(dice, stage.truth().size);
    let pieces: Vec<_> = if dice.one_in(2) {
        let copied = stage.disk.par_segments(range.clone()).map(|piece| {
            stage.tick();
            piece.map(|(at, segment)| (at, copied(segment)))
        });
        copied.collect::<Result<_, _>>()?
    } else {
        let borrowed: Vec<_> = stage.disk.par_segments(range.clone()).collect::<Result<_, _>>()?;
        stage.tick();
        borrowed.into_iter().map(|(at, segment)| (at, copied(segment))).collect()
    };
    stage.disk.check_lost(range.clone())?;
    let mut end = range.start;
    for (at, piece) in pieces {
        ensure_eq(&at, &end, "the place of a piece")?;
        end = ensure_segments(&[piece], stage.truth(), at)?;
    }
    ensure_eq(&end, &range.end, "the end of the pieces")
}

pub(super) fn block_segments(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let truth = stage.truth();
    for _ in 0..1 + dice.below(4) {
        let at = stage.some_range(dice, 1).start;
        let number = at / truth.block_size;
        let block = stage.disk.block(number)?;
        let range = truth.block(number, truth.block_size);
        let mut all = Vec::new();
        for segment in block.segments() {
            all.push(copied(segment?));
            stage.tick();
        }
        stage.disk.check_lost(range.clone())?;
        let expected = truth.states.get(&number).copied().unwrap_or(0);
        ensure_eq(&crate::states::number_of(block.state()), &expected, "the state of a block")?;
        ensure_eq(&(block.start(), block.len()), &(range.start, range.end - range.start), "the place of a block")?;
        let end = ensure_segments(&all, truth, range.start)?;
        ensure_eq(&end, &range.end, "the end of a block")?;
    }
    Ok(())
}

/// Opens another disk over the same sources.
pub(super) fn open_again(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let disk = open(stage.sources, Strictness::Strict, || {})?;
    stage.tick();
    read_some(stage, &disk, stage.truth(), dice, 70_000)
}

/// Opens the files again. They may be damaged at every search for a parent.
pub(super) fn reopen(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let was_damaged = stage.trigger.is_spent();
    let sources = stage.chain.sources(stage.door);
    let trigger = Arc::clone(stage.trigger);
    let opened = open(&sources, Strictness::Strict, move || trigger.tick());
    let judged = opened.map_err(Failure::from);
    let judged = judged.and_then(|disk| read_some(stage, &disk, stage.truth(), dice, 70_000));
    match judged {
        // A file that was truncated before it was opened may break any rule, and so may a copy of it.
        Err(Failure::Told(..)) if was_damaged && stage.door == Door::Memory => Ok(()),
        Err(Failure::Told(_, text)) if was_damaged => Err(Failure::Told(Category::Io, text)),
        other => other,
    }
}

/// Reads a disk with salvage: the truth, or zeros that are among the losses.
pub(super) fn salvage(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let disk = open(stage.sources, Strictness::Salvage, || {})?;
    stage.tick();
    let truth = stage.truth();
    let mut wrong = Vec::new();
    for _ in 0..1 + dice.below(6) {
        let range = stage.some_range(dice, 70_000);
        let mut buffer = vec![0xA5; size(range.end - range.start)];
        let read = disk.read_at(&mut buffer, range.start)?;
        ensure_eq(&read, &buffer.len(), "bytes read")?;
        let expected = truth.read(range.clone());
        let differ =
            (range.start..).zip(buffer.iter().zip(&expected)).filter(|(_, (found, expected))| found != expected);
        wrong.extend(differ.map(|(at, _)| at));
        stage.tick();
    }
    let losses: Vec<Loss> = disk.losses(..).collect();
    let missing = wrong.iter().find(|at| !losses.iter().any(|loss| loss.range.contains(at)));
    ensure(missing.is_none(), || {
        format!("byte {:#x} of a salvaged disk is wrong and not lost", missing.unwrap_or(&0))
    })?;
    match losses.into_iter().next() {
        Some(Loss { reason, .. }) => Err(reason.into()),
        None => Ok(()),
    }
}
