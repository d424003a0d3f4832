//! What opening and reading cost. `cargo bench`; the images are made in memory and in the build folder.
#![expect(
    unsafe_code,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark may panic"
)]

use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vhdx_mmap::{Disk, OpenOptions, ParentRequest, Parents, Segment, Source};

#[path = "../tests/it/kit/mod.rs"]
mod kit;

use kit::builder::Spec;
use kit::{Block, MIB, TIB};

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn map(path: &Path) -> Source {
    // SAFETY: nobody but this process knows of the file, and it does not change it while it is mapped.
    unsafe { Source::map(path) }.unwrap()
}

/// An image of `size` bytes, with the blocks that `block` gives.
fn image(size: u64, block: impl Fn(u64) -> Option<Block>) -> Spec {
    let spec = Spec::empty(size);
    (0..size / MIB).fold(spec, |spec, index| match block(index) {
        Some(block) => spec.block(index, block),
        None => spec,
    })
}

fn write(name: &str, spec: &Spec) -> PathBuf {
    let path = folder().join(name);
    spec.build().bytes.write_file(&path).unwrap();
    path
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    let small = write("small.vhdx", &image(64 * MIB, |index| (index % 2 == 0).then(Block::full)));
    let huge = write("huge.vhdx", &Spec { block_size: 1 << 20, ..Spec::empty(64 * TIB) });
    for (name, path) in [("64 MiB", small), ("64 TiB in blocks of 1 MiB", huge)] {
        group.bench_function(name, |b| {
            b.iter(|| black_box(Disk::open(map(&path), &OpenOptions::new()).unwrap().size()));
        });
    }
    group.finish();
}

/// Sums what a pass lends, so that every byte is touched.
fn sum(disk: &Disk) -> u64 {
    let add = |sum: u64, byte: &u64| sum.wrapping_add(*byte);
    disk.segments(..).map(Result::unwrap).fold(0, |sum, segment| match segment {
        Segment::Data(bytes) => {
            // SAFETY: any eight bytes are a u64.
            let (_, words, _) = unsafe { bytes.align_to::<u64>() };
            words.iter().fold(sum, add)
        }
        Segment::Zero(_) => sum,
    })
}

fn segments(c: &mut Criterion) {
    let mut group = c.benchmark_group("segments");
    let size = 64 * MIB;
    let dense = image(size, |_| Some(Block::full()));
    // Neighbours in the disk lie apart in the file, so that no two blocks make one segment.
    let mut fragmented = dense.clone();
    fragmented.order = (0..64).map(|index| kit::builder::Slot::Block(index * 37 % 64)).collect();
    let sparse = image(size, |index| (index == 40).then(Block::full));
    for (name, spec) in [("dense", &dense), ("fragmented", &fragmented), ("sparse", &sparse)] {
        let disk = Disk::open(map(&write(name, spec)), &OpenOptions::new()).unwrap();
        group.throughput(Throughput::Bytes(size));
        group.bench_function(BenchmarkId::new("lend", name), |b| {
            b.iter(|| black_box(disk.segments(..).map(|segment| segment.unwrap().len()).sum::<u64>()));
        });
        group.bench_function(BenchmarkId::new("sum", name), |b| b.iter(|| black_box(sum(&disk))));
    }

    // Every other sector is the child's: the most segments that a disk can have.
    let sectors: Vec<_> = (0..MIB / 512).step_by(2).map(|sector| sector..sector + 1).collect();
    let child =
        (0..16).fold(Spec::child_of(&dense, "dense"), |spec, index| spec.block(index, Block::partial(&sectors)));
    let path = folder().join("dense");
    let finder = move |_: &ParentRequest<'_>| Ok(Some(map(&path)));
    let options = OpenOptions::new().parents(Parents::With(std::sync::Arc::new(finder)));
    let disk = Disk::open(map(&write("checkerboard", &child)), &options).unwrap();
    group.throughput(Throughput::Elements(16 * MIB / 512));
    group.bench_function("lend/checkerboard of sectors", |b| {
        b.iter(|| black_box(disk.segments(..16 * MIB).map(|segment| segment.unwrap().len()).sum::<u64>()));
    });
    group.finish();
}

fn random_reads(c: &mut Criterion) {
    let mut group = c.benchmark_group("random 4 KiB");
    let disk =
        Disk::open(map(&write("dense", &image(64 * MIB, |_| Some(Block::full())))), &OpenOptions::new()).unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut offset = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % (64 * MIB / 4096) * 4096
    };
    group.bench_function("slice", |b| b.iter(|| black_box(disk.slice(offset(), 4096).unwrap().unwrap()[0])));
    let mut buffer = vec![0; 4096];
    group.bench_function("read_at", |b| b.iter(|| black_box(disk.read_at(offset(), &mut buffer).unwrap())));
    group.finish();
}

criterion_group!(benches, open, segments, random_reads);
criterion_main!(benches);
