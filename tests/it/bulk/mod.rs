//! Work on whole disks: for any image, range and number of threads, it gives the result of a plain computation over the
//! bytes of the model.
#![cfg(feature = "ops")]

mod compare;
mod errors;
mod extract;
mod hash;
mod limits;
mod manifest;
mod plan;

use std::ops::Range;
use std::sync::LazyLock;

use proptest::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use vhdx_mmap::{Disk, Input as Of, ScanOptions, Segment};

use crate::agree::{build_chain, cases, chain_plan};
use crate::kit::builder::Image;
use crate::lab::{Door, Expected, Rng, open_through, size, wide};

/// Pools of different sizes: results must not depend on them.
static POOLS: LazyLock<[ThreadPool; 3]> =
    LazyLock::new(|| [1, 2, 5].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap()));

/// Returns a pool of any size.
fn pool(rng: &mut Rng) -> &'static ThreadPool {
    &POOLS[size(rng.below(3))]
}

/// Returns a range of the disk, often at the border of a unit.
fn some_range(disk: &Disk, rng: &mut Rng) -> Range<u64> {
    if rng.one_in(3) {
        return 0..disk.size();
    }
    let border = |rng: &mut Rng| {
        let unit = rng.below(disk.size() / ScanOptions::UNIT + 2) * ScanOptions::UNIT;
        let off = rng.pick(&[0, 0, 1, 511, 4096, 70_000]);
        rng.pick(&[unit.saturating_sub(off), unit + off, rng.clone().below(disk.size() + 1)]).min(disk.size())
    };
    let (one, other) = (border(rng), border(rng));
    one.min(other)..one.max(other)
}

/// A chain of images with all kinds of blocks, some of them with dirty logs.
struct Case {
    images: Vec<Image>,
    disk: Disk,
    content: Expected,
}

impl Case {
    fn chain(&self) -> Vec<&Image> {
        self.images.iter().collect()
    }
}

fn case(large_sectors: bool, same_size: bool, plans: &[crate::agree::Plan], rng: &mut Rng) -> Case {
    let images = build_chain(if large_sectors { 4096 } else { 512 }, same_size, plans);
    let chain: Vec<&Image> = images.iter().collect();
    let door = rng.pick(&Door::ALL);
    let disk = open_through(door, &chain).unwrap();
    let content = Expected::of(&chain);
    Case { images, disk, content }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn work_on_any_chain_equals_plain_computation(
        (large_sectors, same_size, plans) in chain_plan(),
        seed in any::<u64>(),
    ) {
        let mut rng = Rng::new(seed);
        let case = case(large_sectors, same_size, &plans, &mut rng);
        scans(&case, &mut rng);
        hash::agrees(&case, &mut rng);
        extract::agrees(&case, &mut rng);
        compare::agrees(&case, &mut rng);
        manifest::agrees(&case, &mut rng);
        plan::agrees(&case, &mut rng);
    }
}

/// Checks that a scan shows every byte once, in units of the right length, and takes results in order.
fn scans(case: &Case, rng: &mut Rng) {
    let range = some_range(&case.disk, rng);
    let scan = |pool: &ThreadPool| {
        let mut found = Vec::new();
        pool.install(|| {
            Of::disk(&case.disk).range(range.clone()).scan(
                &ScanOptions::new(),
                |at, segments| {
                    let mut position = range.start + at;
                    for segment in segments {
                        assert_eq!(case.content.differs(position, *segment), None, "in the unit at {at:#x}");
                        position += segment.len();
                    }
                    assert!(segments.iter().any(|segment| matches!(segment, Segment::Data(_))));
                    position - range.start
                },
                |unit, value| found.push((unit, value)),
            )
        })
        .unwrap();
        found
    };
    let found = scan(pool(rng));
    assert_eq!(found, scan(pool(rng)), "other units with another number of threads");
    let mut at = 0;
    for (unit, value) in found {
        assert_eq!(unit.start, at);
        assert!(unit.start.is_multiple_of(ScanOptions::UNIT) && unit.end > unit.start);
        match value {
            Some(end) => assert!(end == unit.end && unit.end - unit.start <= ScanOptions::UNIT),
            None => {
                let zeros = Segment::Zero(unit.end - unit.start);
                assert_eq!(case.content.differs(range.start + unit.start, zeros), None);
            }
        }
        at = unit.end;
    }
    assert_eq!(at, range.end - range.start);
}

/// Returns the bytes of a range, followed by zeros.
fn padded(content: &Expected, range: Range<u64>, length: usize) -> Vec<u8> {
    let mut bytes = content.read(range);
    bytes.resize(bytes.len().max(length), 0);
    bytes
}

/// Length of a range that fits into memory.
fn length_of(range: &Range<u64>) -> usize {
    size(range.end - range.start)
}

/// Returns the offset of the first byte that differs.
fn first_difference(one: &[u8], other: &[u8]) -> Option<u64> {
    one.iter().zip(other).position(|(one, other)| one != other).map(wide)
}
