//! Comparison, and changes between a disk and its ancestors.

use std::ops::{ControlFlow, Range};

use vhdx_mmap::ops::{self, COMPARE_STEP, Change, Difference};
use vhdx_mmap::{Disk, Input as Of, OpenOptions, Parents, ScanOptions, Source};

use crate::kit::builder::Spec;
use crate::kit::oracle::{LogPolicy, Origin};
use crate::kit::{Block, MIB, TIB};
use crate::lab::{Expected, Rng, open_chain, oracle, run, size, wide};
use crate::support::{map, temp_dir};

use super::{Case, first_difference, padded, pool, some_range};

/// Returns all differences of two inputs.
fn differences(one: Of<'_>, other: Of<'_>) -> Vec<Difference> {
    let mut found = Vec::new();
    ops::compare(one, other, &ScanOptions::new(), |difference| {
        found.push(difference);
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

/// Returns all differences, step by step.
fn plain(one: &[u8], other: &[u8]) -> Vec<(Range<u64>, u64)> {
    let mut found: Vec<(Range<u64>, u64)> = Vec::new();
    let step = size(COMPARE_STEP);
    for (index, (one, other)) in one.chunks(step).zip(other.chunks(step)).enumerate() {
        let Some(first) = first_difference(one, other) else { continue };
        let start = wide(index) * COMPARE_STEP;
        let end = start + wide(one.len());
        match found.last_mut() {
            Some((before, _)) if before.end == start => before.end = end,
            _ => found.push((start..end, start + first)),
        }
    }
    found
}

pub(super) fn agrees(case: &Case, rng: &mut Rng) {
    with_raw(case, rng);
    with_itself(case, rng);
    for ancestor in 1..case.images.len() {
        changes(case, ancestor, rng);
    }
}

/// Compares a range with raw bytes that are equal except in a few places.
fn with_raw(case: &Case, rng: &mut Rng) {
    let range = some_range(&case.disk, rng);
    let mut raw = case.content.read(range.clone());
    raw.resize(size((wide(raw.len()) + rng.pick(&[0, 0, 700, 3_000_000])).saturating_sub(rng.pick(&[0, 0, 300]))), 0);
    for _ in 0..rng.pick(&[0, 0, 1, 3, 40]) {
        if !raw.is_empty() {
            let at = size(rng.clone().below(wide(raw.len())));
            rng.next();
            raw[at] ^= 1;
        }
    }
    let length = raw.len().max(size(range.end - range.start));
    let expected = plain(&padded(&case.content, range.clone(), length), &{
        let mut raw = raw.clone();
        raw.resize(length, 0);
        raw
    });
    // Mapped, with holes for zeros, or in memory.
    let folder = temp_dir();
    let source = if rng.one_in(2) && !raw.is_empty() {
        let path = folder.path().join("raw");
        crate::kit::SparseBytes::from_bytes(&raw).write_file(&path).unwrap();
        map(&path)
    } else {
        Source::from_vec(raw)
    };
    let (one, other) = (Of::disk(&case.disk).range(range), Of::raw(&source));
    let (one, other) = if rng.one_in(2) { (one, other) } else { (other, one) };
    let found = pool(rng).install(|| differences(one, other));
    let found: Vec<_> = found.into_iter().map(|difference| (difference.range, difference.first)).collect();
    assert_eq!(found, expected);
    let first = pool(rng).install(|| ops::first_difference(one, other, &ScanOptions::new())).unwrap();
    assert_eq!(first, expected.first().map(|(_, first)| *first));
}

/// Compares a range with another one of the same disk: the bytes of both may overlap.
fn with_itself(case: &Case, rng: &mut Rng) {
    let (one, other) = (some_range(&case.disk, rng), some_range(&case.disk, rng));
    let length = size((one.end - one.start).max(other.end - other.start));
    let expected = plain(&padded(&case.content, one.clone(), length), &padded(&case.content, other.clone(), length));
    let [one, other] = [one, other].map(|range| Of::disk(&case.disk).range(range));
    let found = pool(rng).install(|| differences(one, other));
    let found: Vec<_> = found.into_iter().map(|difference| (difference.range, difference.first)).collect();
    assert_eq!(found, expected);
}

/// Returns all changes, of one of the two kinds.
fn all_changes(disk: &Disk, ancestor: usize, is_allocated: bool) -> Vec<Change> {
    let mut found = Vec::new();
    let mut add = |change| {
        found.push(change);
        ControlFlow::Continue(())
    };
    if is_allocated {
        ops::allocated_changes(disk, ancestor, &mut add).unwrap();
    } else {
        ops::content_changes(disk, ancestor, &ScanOptions::new(), &mut add).unwrap();
    }
    found
}

/// Checks that changes are in order, as long as possible, and that their zeros are zero.
fn check(changes: &[Change], content: &Expected) {
    for pair in changes.windows(2) {
        let (one, next) = (&pair[0], &pair[1]);
        assert!(one.range.end < next.range.start || (one.range.end == next.range.start && one.is_zero != next.is_zero));
    }
    for change in changes.iter().filter(|change| change.is_zero) {
        let zeros = vhdx_mmap::Segment::Zero(change.range.end - change.range.start);
        assert_eq!(content.differs(change.range.start, zeros), None);
    }
}

/// Checks the changes from an ancestor: those of the content with the two models, allocated ones with the oracle.
fn changes(case: &Case, ancestor: usize, rng: &mut Rng) {
    let size_of_disk = case.disk.size();
    let chain = case.chain();
    let before = Expected::of(&chain[ancestor..]);
    let old = padded(&before, 0..before.size().min(size_of_disk), size(size_of_disk));
    let new = case.content.read(0..size_of_disk);
    let found = pool(rng).install(|| all_changes(&case.disk, ancestor, false));
    check(&found, &case.content);
    let mut expected = vec![false; size(size_of_disk.div_ceil(COMPARE_STEP))];
    for (range, _) in plain(&new, &old) {
        expected[size(range.start / COMPARE_STEP)..size(range.end.div_ceil(COMPARE_STEP))].fill(true);
    }
    assert_eq!(marked(&found, expected.len()), expected, "what differs from layer {ancestor}");

    let found = pool(rng).install(|| all_changes(&case.disk, ancestor, true));
    check(&found, &case.content);
    let marked = marked(&found, expected.len());
    let oracle = oracle(&chain, LogPolicy::Replay);
    for _ in 0..40 {
        let sector = rng.below(size_of_disk / oracle.sector_size());
        let (Origin::File { layer, .. } | Origin::Zero { layer, .. } | Origin::Absent { layer }) =
            oracle.locate(sector).unwrap();
        let step = size(sector * oracle.sector_size() / COMPARE_STEP);
        assert_eq!(marked[step], layer < ancestor, "sector {sector} is of layer {layer}");
    }
}

/// Returns which steps of the disk are in some change.
fn marked(changes: &[Change], steps: usize) -> Vec<bool> {
    let mut marked = vec![false; steps];
    for change in changes {
        marked[size(change.range.start / COMPARE_STEP)..size(change.range.end.div_ceil(COMPARE_STEP))].fill(true);
    }
    marked
}

#[test]
fn compare_skips_shared_blocks_of_common_parent() {
    // A parent that cannot be read outside the blocks of its children: an access there fails.
    let folder = temp_dir();
    let parent = Spec::empty(8 * MIB).block(1, Block::full()).block(5, Block::full());
    let image = parent.build();
    image.bytes.write_file(&folder.path().join("parent.vhdx")).unwrap();
    let child = |name: &str, number: u64| {
        let spec = Spec::child_of(&parent, "parent.vhdx").block(number, Block::partial(&run(8..16)));
        let path = folder.path().join(name);
        spec.build().bytes.write_file(&path).unwrap();
        Disk::open(map(&path), &OpenOptions::new().parents(Parents::Beside)).unwrap()
    };
    let (one, other) = (child("one.vhdx", 1), child("other.vhdx", 1));
    // The shared blocks were never read: their pages are truncated under the mapping, where an access would be fatal.
    let file = std::fs::File::options().write(true).open(folder.path().join("parent.vhdx")).unwrap();
    file.set_len(image.block_at(5)).unwrap();
    assert_eq!(differences(Of::disk(&one).range(4 * MIB..), Of::disk(&other).range(4 * MIB..)), []);
}

#[test]
fn compare_skips_unallocated_64_tib() {
    let (one, other) = (Spec::empty(64 * TIB), Spec::empty(64 * TIB).block(777_777, Block::full()));
    let other = Spec { block_size: 1 << 25, ..other };
    let one = Spec { block_size: 1 << 25, ..one };
    let (one, other) = (open_chain(&[&one.build()]).unwrap(), open_chain(&[&other.build()]).unwrap());
    let found = differences(Of::disk(&one), Of::disk(&other));
    let start = 777_777 << 25;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].range.clone(), found[0].first), (start..start + (1 << 25), start));
}

#[test]
fn changes_need_an_existing_layer() {
    let base = Spec::default();
    let child = Spec::child_of(&base, "base.vhdx").build();
    let disk = open_chain(&[&child, &base.build()]).unwrap();
    for layer in [0, 2, usize::MAX] {
        let error = ops::allocated_changes(&disk, layer, |_| ControlFlow::Continue(())).unwrap_err();
        assert!(error.to_string().contains(&format!("no parent with number {layer}")), "{error}");
        assert!(ops::content_changes(&disk, layer, &ScanOptions::new(), |_| ControlFlow::Continue(())).is_err());
    }
    assert_eq!(all_changes(&disk, 1, true), []);
    assert!(disk.ancestor(2).is_none());
    let parent = disk.ancestor(1).unwrap();
    assert_eq!((parent.layers().len(), parent.size()), (1, disk.size()));
}
