//! The library, with files that become shorter at random moments: what it says is right, or an error.

use std::time::{Duration, Instant};

use vhdx_mmap::ops::{self, Algorithm};
use vhdx_mmap::{Content, ScanOptions, Segment};

use super::{FIRST_BLOCK, WAYS, cut, dense, open, sum};
use crate::kit::MIB;
use crate::lab::Rng;
use crate::support::temp_dir;

const BLOCKS: u64 = 16;

/// Does some work while the file of its disk becomes shorter at some moment: what comes of it.
fn cut_under<T: Send>(rng: &mut Rng, longest: Duration, work: impl Fn(&vhdx_mmap::Disk) -> T + Sync) -> T {
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", BLOCKS);
    let disk = open(&path);
    let moment = longest.mul_f64(f64::from(u32::try_from(rng.below(1000)).unwrap()) / 1000.0);
    let end = rng.pick(&[0, 3 * MIB, FIRST_BLOCK]) + 4096 * rng.below(BLOCKS * 256);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| work(&disk));
        std::thread::sleep(moment);
        cut(&path, end);
        working.join().unwrap()
    })
}

fn time(work: impl Fn(&vhdx_mmap::Disk)) -> Duration {
    let folder = temp_dir();
    let disk = open(&dense(folder.path(), "disk.vhdx", BLOCKS));
    let start = Instant::now();
    work(&disk);
    start.elapsed()
}

#[test]
fn what_is_summed_is_right_or_an_error() {
    let mut rng = Rng::new(1);
    let expected = sum(&super::content(BLOCKS));
    let of_segments = |disk: &vhdx_mmap::Disk| {
        disk.segments(..).try_fold(0_u64, |all, segment| {
            Ok::<_, vhdx_mmap::Error>(all.wrapping_add(segment?.slices().map(sum).sum::<u64>()))
        })
    };
    let of_scan = |disk: &vhdx_mmap::Disk| {
        let mut all = 0_u64;
        let look = |_, segments: &[Segment<'_>]| segments.iter().flat_map(|segment| segment.slices()).map(sum).sum();
        let scan = Content::disk(disk).scan(&ScanOptions::new(), look, |_, value: Option<u64>| {
            all = all.wrapping_add(value.unwrap_or(0));
        });
        scan.map(|()| all)
    };
    let of_parts = |disk: &vhdx_mmap::Disk| {
        use rayon::iter::ParallelIterator;
        let sums = disk.par_segments(..).map(|piece| Ok(piece?.1.slices().map(sum).sum::<u64>()));
        sums.try_reduce(|| 0, |one: u64, other: u64| Ok::<_, vhdx_mmap::Error>(one.wrapping_add(other)))
    };
    let longest = time(|disk| drop(of_segments(disk))) * 2;
    for _ in 0..12 {
        assert!(cut_under(&mut rng, longest, of_segments).map_or(true, |found| found == expected));
        assert!(cut_under(&mut rng, longest, of_scan).map_or(true, |found| found == expected));
        assert!(cut_under(&mut rng, longest, of_parts).map_or(true, |found| found == expected));
    }
}

#[test]
fn digests_are_right_or_an_error() {
    let mut rng = Rng::new(2);
    for algorithm in [Algorithm::Crc32, Algorithm::Blake3, Algorithm::Sha256] {
        let hash = |disk: &vhdx_mmap::Disk| ops::hash(disk.into(), &[algorithm], &ScanOptions::new());
        let folder = temp_dir();
        let expected = hash(&open(&dense(folder.path(), "disk.vhdx", BLOCKS))).unwrap();
        let longest = time(|disk| drop(hash(disk))) * 2;
        for _ in 0..12 {
            assert!(cut_under(&mut rng, longest, hash).map_or(true, |found| found == expected));
        }
    }
}

#[test]
fn every_way_comes_to_an_end() {
    let mut rng = Rng::new(3);
    for (_, way) in WAYS {
        let longest = time(|disk| drop(way(disk)));
        for _ in 0..4 {
            drop(cut_under(&mut rng, longest, way));
        }
    }
}
