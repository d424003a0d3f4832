//! Counts the memory that stays in use during work on whole disks: a process of its own, since it counts all memory of
//! the process. Memory for an image is released after use, whatever its size.
#![cfg(all(target_os = "linux", feature = "ops", feature = "mmap"))]
#![expect(
    unsafe_code,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is a failed test, and what was measured is worth a line"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use vhdx_mmap::ops::{self, Algorithm, ExtractOptions, Target, TargetContent, manifest};
use vhdx_mmap::{Disk, Input, OpenOptions, PayloadBlockState, ScanOptions, Source};
use vhdx_testkit as kit;

use kit::builder::Spec;
use kit::{Block, Fill, MIB, TIB};

/// The limit that `src/design.md` promises for any scan.
const MOST: u64 = 64 * MIB;

/// Returns a value of `/proc/self/status`, in bytes.
fn status(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    let kibibytes: u64 = line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().unwrap();
    kibibytes << 10
}

/// Returns the growth of the resident set during `work`.
fn growth<T>(work: impl FnOnce() -> T) -> (u64, T) {
    // Resets the peak.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    let done = work();
    (status("VmHWM").saturating_sub(before), done)
}

fn open(path: &Path) -> Disk {
    // SAFETY: no other process uses the file.
    let source = unsafe { Source::map(path) }.unwrap();
    Disk::open(source, &OpenOptions::new()).unwrap()
}

/// Writes a disk of 512 MiB in blocks of 1 MiB, all of them data, block by block.
fn dense(path: &Path) {
    let size = 512 * MIB;
    let block = || Block::full().fill(Fill::Pieces(Vec::new()));
    let image = (0..size / MIB).fold(Spec::empty(size), |spec, index| spec.block(index, block())).build();
    image.bytes.write_file(path).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    for block in 0..size / MIB {
        let bytes = kit::pattern(block, 0, usize::try_from(MIB).unwrap());
        file.write_all_at(&bytes, image.block_at(block)).unwrap();
    }
}

#[test]
fn scan_keeps_at_most_64_mib() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk.vhdx");
    dense(&path);
    let disk = open(&path);
    let options = ScanOptions::new();
    // Starts threads and touches stacks before anything is counted.
    ops::hash(Input::disk(&disk).range(..8 * MIB), Algorithm::ALL, &options).unwrap();

    // A program that keeps what it has read is detected.
    let (grown, length) = growth(|| std::hint::black_box(vec![1_u8; 100 << 20]).len());
    assert!(grown > 90 * MIB, "{grown} bytes for {length}");

    let mut checked = Vec::new();
    let mut check = |what: &'static str, grown: u64| checked.push((what, grown));
    for algorithm in Algorithm::ALL.iter().copied() {
        let (grown, digest) = growth(|| ops::hash(Input::disk(&disk), &[algorithm], &options));
        digest.unwrap();
        check(algorithm.as_str(), grown);
    }
    let raw_path = folder.path().join("disk.raw");
    let raw = File::create_new(&raw_path).unwrap();
    let target = Target::new(&raw, TargetContent::Zeros);
    let (grown, extracted) = growth(|| ops::extract_to_file(Input::disk(&disk), &target, &ExtractOptions::new()));
    extracted.unwrap();
    check("extract", grown);
    // SAFETY: no other process uses the file, which this test has written.
    let raw = unsafe { Source::map(&raw_path) }.unwrap();
    let (grown, found) = growth(|| ops::first_difference(Input::disk(&disk), Input::raw(&raw), &options));
    assert_eq!(found.unwrap(), None);
    check("compare", grown);
    let mut out = fs::File::create_new(folder.path().join("manifest")).unwrap();
    let (grown, made) = growth(|| manifest::create_manifest(&disk, &[Algorithm::Crc32], None, &options, &mut out));
    made.unwrap();
    check("manifest", grown);

    let table = folder.path().join("table.vhdx");
    full_table(&table);
    let (grown, states) = growth(|| open(&table).image().block_states().unwrap());
    assert_eq!(states.count(PayloadBlockState::Zero), 16 * TIB / MIB);
    check("states of a large table", grown);
    let (grown, segments) = growth(|| open(&table).segments(..).count());
    assert_eq!(segments, 1);
    check("segments of a large table", grown);

    for (what, grown) in checked {
        println!("{what}: {} MiB", grown >> 20);
        assert!(grown <= MOST, "{what}: {grown} bytes");
    }
}

/// Writes a disk of 16 TiB in blocks of 1 MiB, all of which are ZERO in its table of 128 MiB.
fn full_table(path: &Path) {
    let image = Spec { block_size: 1 << 20, ..Spec::empty(16 * TIB) }.build();
    image.bytes.write_file(path).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    let (first, last) = (image.block_entry_at(0), image.block_entry_at(16 * TIB / MIB - 1));
    let zeros = 2_u64.to_le_bytes().repeat(1 << 17);
    let mut at = first;
    while at <= last {
        let length = zeros.len().min(usize::try_from(last + 8 - at).unwrap());
        file.write_all_at(&zeros[..length], at).unwrap();
        at += 1 << 20;
    }
}
