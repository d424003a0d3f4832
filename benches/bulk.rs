//! Cost of work on whole disks, compared with its limits: a plain sum over the mapping, and reads of the file. Every
//! result is checked. The images are in the page cache: they have just been written.
#![expect(
    unsafe_code,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark may panic"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};
use vhdx_mmap::ops::{self, Algorithm};
use vhdx_mmap::{Input, PayloadBlockState, ScanOptions, Segment, is_zero};

mod lab;

use lab::kit::builder::Spec;
use lab::kit::{MIB, TIB};
use lab::{Aligned, dense, folder, map, open, sum};

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

fn kernels(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels");
    for length in [4 << 10, 64 << 10] {
        let bytes = lab::kit::pattern(1, 0, length);
        let expected = crc32c::crc32c(&bytes);
        group.throughput(Throughput::Bytes(u64::try_from(length).unwrap()));
        group.bench_function(BenchmarkId::new("CRC-32C", length), |b| {
            b.iter(|| assert_eq!(crc32c::crc32c(&bytes), expected));
        });
        let zeros = vec![0; length];
        group.bench_function(BenchmarkId::new("is_zero", length), |b| b.iter(|| assert!(is_zero(&zeros))));
        group.bench_function(BenchmarkId::new("limit/sum", length), |b| b.iter(|| sum(&bytes)));
        let mut copy = vec![0; length];
        group.bench_function(BenchmarkId::new("limit/memcpy", length), |b| b.iter(|| copy.copy_from_slice(&bytes)));
    }
    group.finish();
}

/// Sums a fresh mapping of a file, by all threads of the current pool: each takes the next 2 MiB and releases it
/// afterwards.
fn sum_of_mapping(path: &Path) -> u64 {
    let source = map(path);
    let total = AtomicU64::new(0);
    let add = |_: u64, segments: &[Segment<'_>]| {
        for segment in segments {
            if let Segment::Data(bytes) = segment {
                total.fetch_add(sum(bytes), Ordering::Relaxed);
            }
        }
    };
    Input::raw(&source).scan(&ScanOptions::new(), add, |_, _| {}).unwrap();
    total.into_inner()
}

/// Sums a mapping that is made and removed by hand, like a program without this library.
fn sum_by_hand(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    // SAFETY: no process changes the file.
    let mapping = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    let pieces = mapping.len().div_ceil(2 << 20);
    let piece = |index: usize| &mapping[index << 21..((index + 1) << 21).min(mapping.len())];
    (0..pieces).into_par_iter().map(|index| sum(piece(index))).reduce(|| 0, u64::wrapping_add)
}

/// Sums data that is read into page-aligned memory.
fn sum_by_reading(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    let pieces = file.metadata().unwrap().len() / MIB;
    let read = |buffer: &mut Aligned, index: u64| {
        file.read_exact_at(buffer.bytes(), index * MIB).unwrap();
        sum(buffer.bytes())
    };
    (0..pieces).into_par_iter().map_init(|| Aligned::new(1 << 20), read).reduce(|| 0, u64::wrapping_add)
}

fn scans(c: &mut Criterion) {
    let mut group = c.benchmark_group("scan of 512 MiB");
    let path = dense("scan.vhdx", 512);
    group.throughput(Throughput::Bytes(512 * MIB)).sample_size(20);
    let expected = sum_by_hand(&path);
    assert_eq!((sum_of_mapping(&path), sum_by_reading(&path)), (expected, expected));
    let first = |algorithm| ops::hash(Input::disk(&open(&path)), &[algorithm], &ScanOptions::new()).unwrap();
    for threads in [1, 2] {
        let pool = pool(threads);
        let mut bench = |name: &str, work: &(dyn Fn() + Sync)| {
            group.bench_function(BenchmarkId::new(name, threads), |b| b.iter(|| pool.install(work)));
        };
        bench("limit/sum over a mapping, by hand", &|| assert_eq!(sum_by_hand(&path), expected));
        bench("limit/sum over reads of 1 MiB", &|| assert_eq!(sum_by_reading(&path), expected));
        bench("sum by scan", &|| assert_eq!(sum_of_mapping(&path), expected));
        for algorithm in [Algorithm::Crc32, Algorithm::Blake3, Algorithm::Sha256] {
            let digest = first(algorithm);
            bench(algorithm.as_str(), &|| assert_eq!(first(algorithm), digest));
        }
        bench("compare with itself, copied", &|| {
            let (disk, other) = (open(&path), map(&folder().join("scan.raw")));
            let found = ops::first_difference(Input::disk(&disk), Input::raw(&other), &ScanOptions::new());
            assert_eq!(found.unwrap(), None);
        });
    }
    group.finish();
}

fn tables(c: &mut Criterion) {
    let mut group = c.benchmark_group("BAT of 512 MiB");
    let path = full_bat();
    let image = open(&path);
    let blocks = image.size() / MIB;
    group.throughput(Throughput::Bytes(blocks * 8)).sample_size(20);
    for threads in [1, 2] {
        let pool = pool(threads);
        group.bench_function(BenchmarkId::new("block states", threads), |b| {
            b.iter(|| {
                let states = pool.install(|| open(&path).image().block_states()).unwrap();
                assert_eq!(states.count(PayloadBlockState::FullyPresent), blocks);
            });
        });
        group.bench_function(BenchmarkId::new("limit/sum over a mapping, by hand", threads), |b| {
            b.iter(|| pool.install(|| sum_by_hand(&path)));
        });
    }
    group.finish();
}

/// An image that claims 64 TiB in blocks of 1 MiB, all of them present and contiguous. The blocks do not exist: only
/// the table is read.
fn full_bat() -> std::path::PathBuf {
    let path = folder().join("bat.vhdx");
    let image = Spec { block_size: 1 << 20, ..Spec::empty(64 * TIB) }.build();
    image.bytes.write_file(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let mut bytes = Vec::new();
    for block in 0..64 * TIB / MIB {
        bytes.extend(((block + 1000) << 20 | 6).to_le_bytes());
        if (block + 1) % 4096 == 0 {
            let first = image.block_entry_at(block + 1 - 4096);
            file.write_all_at(&bytes, first).unwrap();
            bytes.clear();
        }
    }
    path
}

fn prepare(c: &mut Criterion) {
    // The raw disk for the comparison.
    let path = dense("scan.vhdx", 512);
    let disk = open(&path);
    let raw = File::create(folder().join("scan.raw")).unwrap();
    ops::extract_to_writer(Input::disk(&disk), &mut &raw, &ops::ExtractOptions::new()).unwrap();
    scans(c);
}

criterion_group!(benches, kernels, prepare, tables);
criterion_main!(benches);
