//! Measurements that `benches/rivals.py` cannot make by starting programs: images with parents, and reads by libraries.
//!
//! `chain FOLDER` makes `base.vhdx`, `child.avhdx` and `chain.raw`; `table FILE` makes an image of 64 TiB in blocks of
//! 1 MiB whose block allocation table is a hole; `random IMAGE RAW` and `pass IMAGE` print the time of each library, in
//! nanoseconds for a read and in seconds for a pass; `sum FILE` is how fast two threads can read a file and sum it up.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhdx_mmap::{Disk, OpenOptions, Source};
use vhdx_testkit as kit;
use wxtla::images::vhdx::VhdxImage;
use wxtla::{ByteSource, FileDataSource};

use kit::builder::Spec;
use kit::{Block, MIB, Model};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["chain", folder] => chain(Path::new(folder)),
        ["table", file] => table(Path::new(file)),
        ["random", image, raw] => random(image, raw),
        ["pass", image] => pass(image),
        ["sum", file] => sum_of_file(file),
        _ => panic!("chain FOLDER, table FILE, random IMAGE RAW, pass IMAGE or sum FILE"),
    }
}

/// Makes a disk of 512 MiB, of which the child has every eighth block, and every fourth sector of others.
fn chain(folder: &Path) {
    let blocks = 512;
    let base = (0..blocks).fold(Spec::empty(blocks * MIB), |spec, block| spec.block(block, Block::full()));
    let sectors: Vec<_> = (0..MIB / 512).step_by(4).map(|sector| sector..sector + 1).collect();
    let mut child = Spec::child_of(&base, "base.vhdx");
    child.seed = 7;
    for block in (0..blocks).step_by(8) {
        child = child.block(block, Block::full()).block(block + 3, Block::partial(&sectors));
    }
    let images = [child.build(), base.build()];
    for (name, image) in ["child.avhdx", "base.vhdx"].into_iter().zip(&images) {
        image.bytes.write_file(&folder.join(name)).unwrap();
    }
    let raw = File::create(folder.join("chain.raw")).unwrap();
    for block in 0..blocks {
        let models = [&images[0].model, &images[1].model];
        raw.write_all_at(&Model::read(&models, block * MIB, MIB as usize).unwrap(), block * MIB).unwrap();
    }
}

fn table(file: &Path) {
    let spec = Spec { block_size: 1 << 20, ..Spec::empty(64 << 40) };
    spec.build().bytes.write_file(file).unwrap();
}

fn open(image: &str) -> Disk {
    // SAFETY: the driver changes no image while it is read.
    let source = unsafe { Source::map(image) }.unwrap();
    Disk::open(source, &OpenOptions::new()).unwrap()
}

fn open_by_wxtla(image: &str) -> VhdxImage {
    VhdxImage::open(Arc::new(FileDataSource::open(image).unwrap())).unwrap()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(8).fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(word.try_into().unwrap())))
}

/// Two threads read halves of the file in pieces that stay in the cache, and add up their words.
fn sum_of_file(file: &str) {
    let file = File::open(file).unwrap();
    let half = file.metadata().unwrap().len() / 2;
    let part = |begin: u64| {
        let (mut buffer, mut total) = (Aligned::new(256 << 10), 0_u64);
        for at in (begin..begin + half).step_by(256 << 10) {
            let length = file.read_at(buffer.bytes(), at).unwrap();
            total = total.wrapping_add(sum(&buffer.bytes()[..length]));
        }
        total
    };
    let total = std::thread::scope(|scope| {
        let other = scope.spawn(|| part(half));
        part(0).wrapping_add(other.join().unwrap())
    });
    println!("{total:x}");
}

/// Page-aligned memory, the same for all libraries.
struct Aligned(Vec<u8>, usize, usize);

impl Aligned {
    fn new(length: usize) -> Self {
        let bytes = vec![0; length + 4096];
        let skip = bytes.as_ptr().align_offset(4096);
        Self(bytes, skip, length)
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0[self.1..self.1 + self.2]
    }
}

fn random(image: &str, raw: &str) {
    const READS: u32 = 500_000;
    const LONGEST: Duration = Duration::from_secs(3);

    let disk = open(image);
    let mut peer = vhdx::VhdxReader::open(Path::new(image)).unwrap();
    // SAFETY: as above.
    let raw = unsafe { memmap2::Mmap::map(&File::open(raw).unwrap()) }.unwrap();
    let size = disk.size();
    let mut total = 0;
    // All pages are mapped before, so that the system is not measured.
    for at in (0..size).step_by(4096) {
        total ^= u64::from(disk.slice(at, 1).unwrap().unwrap()[0]) ^ u64::from(raw[at as usize]);
    }
    let mut state = 1_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % (size / 4096) * 4096
    };
    let mut buffer = Aligned::new(4096);
    let mut time = |name: &str, read: &mut dyn FnMut(u64) -> u64| {
        // Slow libraries are not waited for.
        let (begun, mut sums, mut reads) = (Instant::now(), 0_u64, 0_u32);
        while reads < READS && begun.elapsed() < LONGEST {
            for _ in 0..100 {
                sums = sums.wrapping_add(read(next()));
            }
            reads += 100;
        }
        println!("{name}\t{:.1}", begun.elapsed().as_nanos() as f64 / f64::from(reads));
        total ^= sums;
    };
    time("vhdx-mmap, borrow", &mut |at| disk.slice(at, 4096).unwrap().unwrap().len() as u64);
    time("vhdx-mmap, borrow and sum", &mut |at| sum(disk.slice(at, 4096).unwrap().unwrap()));
    time("raw mapping, sum", &mut |at| sum(&raw[at as usize..at as usize + 4096]));
    time("vhdx-mmap, copy", &mut |at| {
        disk.read_at(buffer.bytes(), at).unwrap();
        u64::from(buffer.bytes()[0])
    });
    time("vhdx-core, copy", &mut |at| {
        peer.seek(SeekFrom::Start(at)).unwrap();
        peer.read_exact(buffer.bytes()).unwrap();
        u64::from(buffer.bytes()[0])
    });
    let peer = img_vhdx::VhdxReader::open(image).unwrap();
    time("rust-img-vhdx, copy", &mut |at| {
        peer.read_at(at, buffer.bytes()).unwrap();
        u64::from(buffer.bytes()[0])
    });
    let peer = open_by_wxtla(image);
    time("wxtla, copy", &mut |at| {
        peer.read_exact_at(at, buffer.bytes()).unwrap();
        u64::from(buffer.bytes()[0])
    });
    black_box(total);
}

fn pass(image: &str) {
    let mut buffer = Aligned::new(1 << 20);
    let mut expected = None;
    let mut time = |name: &str, read: &mut dyn FnMut(&mut [u8], u64) -> bool| {
        let (begun, mut at, mut total) = (Instant::now(), 0, 0_u64);
        while read(buffer.bytes(), at) {
            total = total.wrapping_add(sum(&buffer.bytes()[..4096]));
            at += 1 << 20;
        }
        println!("{name}\t{:.4}", begun.elapsed().as_secs_f64());
        assert_eq!(*expected.get_or_insert(total), total, "{name} has read something else");
    };
    let disk = open(image);
    // The first pass is not measured: it brings the buffer into memory.
    time("(warming up)", &mut |buffer, at| disk.read_at(buffer, at).unwrap() > 0);
    time("vhdx-mmap", &mut |buffer, at| disk.read_at(buffer, at).unwrap() > 0);
    let mut peer = vhdx::VhdxReader::open(Path::new(image)).unwrap();
    let size = disk.size();
    time("vhdx-core", &mut |buffer, at| at < size && peer.read_exact(buffer).is_ok());
    let peer = img_vhdx::VhdxReader::open(image).unwrap();
    time("rust-img-vhdx", &mut |buffer, at| at < size && peer.read_at(at, buffer).is_ok());
    let peer = open_by_wxtla(image);
    time("wxtla", &mut |buffer, at| at < size && peer.read_exact_at(at, buffer).is_ok());
}
