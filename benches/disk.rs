//! Cost of opening and reading. Images are made in the build folder; every result is checked.
#![expect(
    unsafe_code,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark may panic"
)]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

mod lab;

use lab::kit::builder::Spec;
use lab::kit::{Block, MIB, TIB};
use lab::{Aligned, checkerboard, dense, fragmented, image, map, open, random_pages, sum, sum_of, write};

fn opening(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    let small = write("small.vhdx", &image(64 * MIB, |index| (index % 2 == 0).then(Block::full)));
    let huge = write("huge.vhdx", &Spec { block_size: 1 << 20, ..Spec::empty(64 * TIB) });
    for (name, path, size) in [("64 MiB", small, 64 * MIB), ("64 TiB in blocks of 1 MiB", huge, 64 * TIB)] {
        group.bench_function(name, |b| b.iter(|| assert_eq!(open(&path).size(), size)));
    }
    group.finish();
}

fn segments(c: &mut Criterion) {
    let mut group = c.benchmark_group("segments");
    let size = 64 * MIB;
    let spec = image(size, |_| Some(Block::full()));
    let sparse = image(size, |index| (index == 40).then(Block::full));
    let plain = sum(&lab::kit::pattern(1, 0, usize::try_from(size).unwrap()));
    for (name, spec, runs) in [("dense", &spec, 1), ("fragmented", &fragmented(&spec), 64), ("sparse", &sparse, 3)] {
        let disk = open(&write(name, spec));
        assert!(name == "sparse" || sum_of(&disk) == plain);
        group.throughput(Throughput::Bytes(size));
        group.bench_function(BenchmarkId::new("borrow", name), |b| {
            b.iter(|| assert_eq!(disk.segments(..).count(), runs))
        });
        group.bench_function(BenchmarkId::new("sum", name), |b| b.iter(|| black_box(sum_of(&disk))));
    }
    let bytes = map(&write("raw", &spec));
    let raw = vhdx_mmap::Input::raw(&bytes).len();
    group.throughput(Throughput::Bytes(raw));
    // The limit: the same bytes in one piece.
    let memory = lab::kit::pattern(1, 0, usize::try_from(size).unwrap());
    group.throughput(Throughput::Bytes(size));
    group.bench_function("limit/sum of memory", |b| b.iter(|| assert_eq!(sum(&memory), plain)));
    let mut copy = vec![0; memory.len()];
    group.bench_function("limit/memcpy", |b| b.iter(|| copy.copy_from_slice(black_box(&memory))));

    // The largest number of segments that a disk can have.
    let base = image(16 * MIB, |_| Some(Block::full()));
    for layers in [2, 5] {
        let disk = checkerboard(&base, layers);
        let runs = disk.segments(..).count();
        group.throughput(Throughput::Elements(u64::try_from(runs).unwrap()));
        group.bench_function(BenchmarkId::new("borrow/checkerboard of layers", layers), |b| {
            b.iter(|| assert_eq!(disk.segments(..).count(), runs));
        });
    }
    group.finish();
}

fn random_reads(c: &mut Criterion) {
    let mut group = c.benchmark_group("random 4 KiB");
    let size = 512 * MIB;
    let path = dense("random.vhdx", size / MIB);
    let disk = open(&path);
    let raw = disk.slice(0, size).unwrap().unwrap();
    // All pages are mapped before, so that the library is measured, not the system.
    assert_eq!(sum_of(&disk), sum(raw));
    let mut offset = random_pages(size);
    group.bench_function("borrow", |b| {
        b.iter(|| assert_eq!(disk.slice(offset(), 4096).unwrap().unwrap().len(), 4096));
    });
    group.bench_function("borrow and sum", |b| b.iter(|| sum(disk.slice(offset(), 4096).unwrap().unwrap())));
    group.bench_function("limit/sum of a raw mapping", |b| {
        b.iter(|| {
            let at = usize::try_from(offset()).unwrap();
            sum(&raw[at..at + 4096])
        });
    });
    let mut buffer = Aligned::new(4096);
    group.bench_function("read_at", |b| {
        b.iter(|| assert_eq!(disk.read_at(buffer.bytes(), offset()).unwrap(), 4096));
    });
    let file = File::open(&path).unwrap();
    group.bench_function("limit/pread", |b| b.iter(|| file.read_exact_at(buffer.bytes(), offset()).unwrap()));
    group.finish();

    let mut group = c.benchmark_group("pass by 1 MiB");
    group.throughput(Throughput::Bytes(size)).sample_size(20);
    let mut buffer = Aligned::new(1 << 20);
    let expected = sum(raw);
    group.bench_function("read_at", |b| {
        b.iter(|| {
            let disk = open(&path);
            let pieces = (0..size).step_by(1 << 20).map(|at| {
                disk.read_at(buffer.bytes(), at).unwrap();
                sum(buffer.bytes())
            });
            assert_eq!(pieces.fold(0, u64::wrapping_add), expected);
        });
    });
    group.bench_function("limit/pread", |b| {
        let first = disk.extents(..).next().unwrap().unwrap().file_offset().unwrap();
        b.iter(|| {
            let pieces = (0..size).step_by(1 << 20).map(|at| {
                file.read_exact_at(buffer.bytes(), first + at).unwrap();
                sum(buffer.bytes())
            });
            assert_eq!(pieces.fold(0, u64::wrapping_add), expected);
        });
    });
    group.finish();
}

criterion_group!(benches, opening, segments, random_reads);
criterion_main!(benches);
