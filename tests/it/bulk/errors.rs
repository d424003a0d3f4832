//! Failing work: it ends with the same error for any number of threads, or when it is cancelled.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use vhdx_mmap::ops::{self, Algorithm, ExtractOptions, Target, TargetContent};
use vhdx_mmap::{Disk, Input as Of, OpenOptions, Progress, ScanError, ScanOptions, Structure};

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB};
use crate::support::{map, temp_dir};

use super::POOLS;

/// A disk of 64 MiB with all blocks present, of which the blocks `bad` cannot be read.
fn broken(folder: &std::path::Path, bad: &[u64]) -> Disk {
    let mut spec = (0..64).fold(Spec::empty(64 * MIB), |spec, block| spec.block(block, Block::full()));
    for block in bad {
        spec.raw_bat.insert(*block, 5);
    }
    let path = folder.join("disk.vhdx");
    spec.build().bytes.write_file(&path).unwrap();
    Disk::open(map(&path), &OpenOptions::new()).unwrap()
}

#[test]
fn first_error_in_order_is_returned() {
    let folder = temp_dir();
    let disk = broken(folder.path(), &[40, 11, 50]);
    let content = Of::disk(&disk);
    for pool in &*POOLS {
        for algorithms in [&[Algorithm::Crc32][..], &[Algorithm::Sha256, Algorithm::Blake3]] {
            let error = pool.install(|| ops::hash(content, algorithms, &ScanOptions::new())).unwrap_err();
            let ScanError::Read(error) = error else { panic!("{error:?}") };
            assert_eq!(error.structure(), Structure::PayloadBatEntry(11));
        }
        let error = pool.install(|| ops::first_difference(content, content, &ScanOptions::new())).unwrap_err();
        let ScanError::Read(error) = error else { panic!("{error:?}") };
        assert_eq!(error.structure(), Structure::PayloadBatEntry(11));
        assert!(error.file().is_some_and(|file| file.ends_with("disk.vhdx")), "which of the two it is");
        let mut out = Vec::new();
        let error = pool.install(|| ops::extract_to_writer(content, &mut out, &ExtractOptions::new())).unwrap_err();
        let ScanError::Read(error) = error else { panic!("{error:?}") };
        assert_eq!(error.structure(), Structure::PayloadBatEntry(11));
        assert_eq!(out.len(), 11 << 20, "all that is good before the error");
    }
}

/// Cancels after a number of bytes.
struct EndAfter(u64, AtomicU64);

impl Progress for EndAfter {
    fn advance(&self, bytes: u64) -> ControlFlow<()> {
        let before = self.1.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes >= self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn work_ends_soon_after_cancellation() {
    let folder = temp_dir();
    let disk = broken(folder.path(), &[]);
    let content = Of::disk(&disk);
    for pool in &*POOLS {
        for algorithms in [&[Algorithm::Crc32][..], &[Algorithm::Md5]] {
            let progress = EndAfter(4 * MIB, AtomicU64::new(0));
            let options = ScanOptions::new().progress(&progress);
            let error = pool.install(|| ops::hash(content, algorithms, &options)).unwrap_err();
            assert!(matches!(error, ScanError::Cancelled), "{error:?}");
            let done = progress.1.into_inner();
            assert!(done <= 16 * MIB, "{done} bytes were done nevertheless");
        }
        let progress = EndAfter(4 * MIB, AtomicU64::new(0));
        let options = ExtractOptions::new().scan(ScanOptions::new().progress(&progress));
        let file = tempfile::tempfile_in(folder.path()).unwrap();
        let target = Target::new(&file, TargetContent::Zeros);
        let error = pool.install(|| ops::extract_to_file(content, &target, &options)).unwrap_err();
        assert!(matches!(error, ScanError::Cancelled), "{error:?}");
    }
}

#[test]
fn progress_adds_up_to_the_total() {
    let folder = temp_dir();
    let spec = Spec::empty(300 * MIB).block(3, Block::full()).block(299, Block::full());
    let path = folder.path().join("disk.vhdx");
    spec.build().bytes.write_file(&path).unwrap();
    let disk = Disk::open(map(&path), &OpenOptions::new()).unwrap();
    let content = Of::disk(&disk);
    let count = |work: &dyn Fn(&ScanOptions<'_>)| {
        let progress = EndAfter(u64::MAX, AtomicU64::new(0));
        work(&ScanOptions::new().progress(&progress));
        progress.1.into_inner()
    };
    let done = [
        count(&|options| drop(ops::hash(content, &[Algorithm::Crc32], options).unwrap())),
        count(&|options| drop(ops::hash(content, &[Algorithm::Blake3], options).unwrap())),
        count(&|options| drop(ops::hash(content, &[Algorithm::Sha1, Algorithm::Md5], options).unwrap())),
        count(&|options| assert_eq!(ops::first_difference(content, content, options).unwrap(), None)),
        count(&|options| {
            ops::manifest::create_manifest(&disk, &[Algorithm::Crc32], None, options, &mut Vec::new()).unwrap();
        }),
        count(&|options| {
            let options = ExtractOptions::new().scan(*options);
            let file = tempfile::tempfile_in(folder.path()).unwrap();
            ops::extract_to_file(content, &Target::new(&file, TargetContent::Zeros), &options).unwrap();
        }),
    ];
    assert_eq!(done, [300 * MIB; 6]);
}

#[test]
fn panic_in_progress_is_propagated() {
    struct Panics;

    impl Progress for Panics {
        fn advance(&self, _: u64) -> ControlFlow<()> {
            panic!("as a test wants it")
        }
    }

    let folder = temp_dir();
    let disk = broken(folder.path(), &[]);
    for pool in &*POOLS {
        for algorithms in [&[Algorithm::Crc32][..], &[Algorithm::Md5]] {
            let options = ScanOptions::new().progress(&Panics);
            let work = || pool.install(|| ops::hash(Of::disk(&disk), algorithms, &options));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
        }
    }
}
