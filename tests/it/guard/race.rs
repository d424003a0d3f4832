//! Files that become shorter while they are read: every result is correct, or an error. The moment is chosen by events
//! that the test counts, not by time.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::iter::ParallelIterator;
use vhdx_mmap::ops::{self, Algorithm};
use vhdx_mmap::{Disk, Input, Progress, ScanOptions, Segment};

use super::{FIRST_BLOCK, WAYS, cut, dense, open, sum};
use crate::kit::{KIB, MIB};
use crate::lab::Rng;
use crate::support::temp_dir;

const BLOCKS: u64 = 16;

/// Truncates a file at one of the events that it counts.
struct Cutter<'p> {
    path: &'p Path,
    length: u64,
    /// The event at which that happens.
    moment: u64,
    events: AtomicU64,
}

impl Cutter<'_> {
    fn event(&self) {
        if self.events.fetch_add(1, Ordering::Relaxed) == self.moment {
            cut(self.path, self.length);
        }
    }

    /// Returns the sum of all bytes of a segment. Reading some of them is an event.
    fn sum(&self, segment: &Segment<'_>) -> u64 {
        let pieces = segment.slices().flat_map(|bytes| bytes.chunks(32 << 10));
        pieces.map(|piece| (self.event(), sum(piece)).1).fold(0, u64::wrapping_add)
    }
}

/// Each progress report is an event.
impl Progress for Cutter<'_> {
    fn advance(&self, _: u64) -> ControlFlow<()> {
        self.event();
        ControlFlow::Continue(())
    }
}

/// Returns a length to truncate a file to: any, or after the beginning of the table of blocks, or of the first block.
fn some_length(rng: &mut Rng) -> u64 {
    rng.pick(&[0, 3 * MIB, FIRST_BLOCK]) + 4 * KIB * rng.below(BLOCKS * 256)
}

/// Repeats some work, while the file of its disk becomes shorter at random events: each result must be correct, or an
/// error, and some must be errors.
fn cut_under<T, E>(
    rng: &mut Rng,
    times: u64,
    work: impl Fn(&Disk, &Cutter<'_>) -> Result<T, E>,
    is_right: impl Fn(T) -> bool,
) {
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", BLOCKS);
    let never = Cutter { path: &path, length: 0, moment: u64::MAX, events: AtomicU64::new(0) };
    assert!(work(&open(&path), &never).is_ok_and(&is_right));
    let events = never.events.into_inner();
    let mut errors = 0;
    for _ in 0..times {
        let path = dense(folder.path(), "disk.vhdx", BLOCKS);
        let disk = open(&path);
        let (length, moment) = (some_length(rng), rng.below(events));
        let found = work(&disk, &Cutter { path: &path, length, moment, events: AtomicU64::new(0) });
        errors += u64::from(found.is_err());
        assert!(found.map_or(true, &is_right), "{length} at {moment} of {events}");
        drop(disk);
        std::fs::remove_file(&path).unwrap();
    }
    assert!(errors > 0, "no cut of {times} hit anything");
}

#[test]
fn sums_are_correct_or_an_error() {
    let mut rng = Rng::new(1);
    let expected = sum(&super::content(BLOCKS));
    let is_right = |found| found == expected;
    let of_segments = |disk: &Disk, cutter: &Cutter<'_>| {
        disk.segments(..)
            .try_fold(0_u64, |all, segment| Ok::<_, vhdx_mmap::Error>(all.wrapping_add(cutter.sum(&segment?))))
    };
    let of_scan = |disk: &Disk, cutter: &Cutter<'_>| {
        let mut all = 0_u64;
        let look =
            |_, segments: &[Segment<'_>]| segments.iter().map(|segment| cutter.sum(segment)).fold(0, u64::wrapping_add);
        let scan = Input::disk(disk).scan(&ScanOptions::new(), look, |_, value: Option<u64>| {
            all = all.wrapping_add(value.unwrap_or(0));
        });
        scan.map(|()| all)
    };
    let of_parts = |disk: &Disk, cutter: &Cutter<'_>| {
        let sums = disk.par_segments(..).map(|piece| Ok(cutter.sum(&piece?.1)));
        sums.try_reduce(|| 0, |one: u64, other: u64| Ok::<_, vhdx_mmap::Error>(one.wrapping_add(other)))
    };
    cut_under(&mut rng, 12, of_segments, is_right);
    cut_under(&mut rng, 12, of_scan, is_right);
    cut_under(&mut rng, 12, of_parts, is_right);
}

#[test]
fn digests_are_correct_or_an_error() {
    let mut rng = Rng::new(2);
    for algorithm in [Algorithm::Crc32, Algorithm::Blake3, Algorithm::Sha256] {
        let folder = temp_dir();
        let path = dense(folder.path(), "disk.vhdx", BLOCKS);
        let expected = ops::hash((&open(&path)).into(), &[algorithm], &ScanOptions::new()).unwrap();
        let hash = |disk: &Disk, cutter: &Cutter<'_>| {
            ops::hash(disk.into(), &[algorithm], &ScanOptions::new().progress(cutter))
        };
        cut_under(&mut rng, 12, hash, |found| found == expected);
    }
}

/// Returns the number of bytes of the mappings of a file in the memory of this process.
fn resident(path: &Path) -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut is_inside, mut all) = (false, 0);
    for line in text.lines() {
        if let Some(size) = line.strip_prefix("Rss:") {
            let kibibytes: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
            all += if is_inside { kibibytes * KIB } else { 0 };
        } else if line.split(' ').next().is_some_and(|word| !word.ends_with(':')) {
            // The first line of a mapping.
            is_inside = line.ends_with(path.to_str().unwrap());
        }
    }
    all
}

/// Another thread truncates the file, after some of its pages have been accessed.
#[test]
fn every_way_terminates() {
    let mut rng = Rng::new(3);
    for (_, way) in WAYS {
        for _ in 0..4 {
            let folder = temp_dir();
            let path = dense(folder.path(), "disk.vhdx", BLOCKS);
            let disk = open(&path);
            let (length, touched) = (some_length(&mut rng), rng.below(BLOCKS * MIB));
            std::thread::scope(|scope| {
                let working = scope.spawn(|| drop(way(&disk)));
                while resident(&path) < touched && !working.is_finished() {
                    std::thread::yield_now();
                }
                cut(&path, length);
                working.join().unwrap();
            });
        }
    }
}
