//! More lost pages than a process can have mappings, and processes that cannot get another mapping.
//!
//! Each case runs in a process of its own (`process`), since it may end the process.
#![expect(unsafe_code, reason = "mappings and advice about them")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Output;

use vhdx_mmap::{Disk, guard_mappings};

use vhdx_testkit::fuse::{Mounted, PAGE};

use super::process::run_case;
use super::{FIRST_BLOCK, cut, open};
use crate::kit::MIB;
use crate::kit::builder::Spec;
use crate::lab::Rng;
use crate::support::{skip, temp_dir};

/// Number of blocks of the disk: every other of their pages is accessed, or bad.
const BLOCKS: u64 = 320;
const PAGES: u64 = BLOCKS * MIB / PAGE;
const THREADS: usize = 4;

/// Makes an image whose blocks are contiguous in a hole of the file.
fn sparse(folder: &Path) -> PathBuf {
    let mut spec = Spec::empty(BLOCKS * MIB);
    for block in 0..BLOCKS {
        spec.raw_bat.insert(block, (FIRST_BLOCK + block * MIB) | 6);
    }
    let path = folder.join("disk.vhdx");
    spec.build().bytes.write_file(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(FIRST_BLOCK + BLOCKS * MIB).unwrap();
    path
}

fn borrow(disk: &Disk) -> &[u8] {
    disk.slice(0, BLOCKS * MIB).unwrap().unwrap()
}

fn page(bytes: &[u8], number: u64) -> &[u8] {
    let at = usize::try_from(number * PAGE).unwrap();
    &bytes[at..at + usize::try_from(PAGE).unwrap()]
}

/// Returns the number of mappings of this process that contain some of these bytes.
fn mappings_of(bytes: &[u8]) -> usize {
    let addresses = bytes.as_ptr_range();
    let (start, end) = (addresses.start.addr(), addresses.end.addr());
    let address = |text: &str| usize::from_str_radix(text, 16).unwrap();
    let is_of_them = |line: &&str| {
        let (first, last) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        address(first) < end && start < address(last)
    };
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(is_of_them).count()
}

/// Accesses pages in random order and from several threads: `look` is called for each.
fn touch_by_threads(numbers: impl Iterator<Item = u64>, look: impl Fn(u64) + Sync) {
    let mut numbers: Vec<u64> = numbers.collect();
    Rng::new(41).shuffle(&mut numbers);
    std::thread::scope(|scope| {
        for part in numbers.chunks(numbers.len().div_ceil(THREADS)) {
            scope.spawn(|| part.iter().for_each(|number| look(*number)));
        }
    });
}

fn is_lost(disk: &Disk, number: u64) -> bool {
    disk.check_lost(number * PAGE..(number + 1) * PAGE).is_err()
}

pub(super) fn truncated(path: &Path) {
    let disk = open(path);
    let bytes = borrow(&disk);
    let kept = 3;
    cut(path, FIRST_BLOCK + kept * PAGE);
    touch_by_threads((kept..PAGES).step_by(2), |number| {
        assert!(page(bytes, number).iter().all(|byte| *byte == 0));
        assert!(is_lost(&disk, number), "page {number}");
    });
    // The part of the file, and zeros.
    assert_eq!(mappings_of(bytes), 2);
    assert!((0..kept).all(|number| !is_lost(&disk, number)), "no page that the file has is lost");
    assert!((kept..PAGES).all(|number| is_lost(&disk, number)));
    assert!(disk.image().source().check_lost().is_err());
}

/// Lets the system read single pages, without read-ahead.
fn read_singly(bytes: &[u8]) {
    let start = bytes.as_ptr().map_addr(|address| address & !4095).cast_mut().cast();
    // SAFETY: advice about mapped pages.
    assert_eq!(unsafe { libc::madvise(start, bytes.len(), libc::MADV_RANDOM) }, 0);
}

/// Returns whether a page of the failing medium is as expected. Accesses all of it.
fn is_right(bytes: &[u8], number: u64) -> bool {
    let in_file = FIRST_BLOCK / PAGE + number;
    let mut expected = [0; 4096];
    expected[..8].copy_from_slice(&in_file.to_le_bytes());
    let found = page(bytes, number).to_vec();
    found == expected && in_file.is_multiple_of(2)
}

pub(super) fn failing(path: &Path) {
    let disk = open(path);
    let bytes = borrow(&disk);
    read_singly(bytes);
    // As long as few pages are lost, no others are.
    for number in 0..100 {
        assert_ne!(is_right(bytes, number), is_lost(&disk, number), "page {number}");
    }
    touch_by_threads(0..PAGES, |number| {
        assert!(is_right(bytes, number) || is_lost(&disk, number), "page {number}");
    });
    assert!((1..PAGES).step_by(2).all(|number| is_lost(&disk, number)));
    assert!(disk.image().source().check_lost().is_err());
    let mappings = mappings_of(bytes);
    assert!(mappings <= 257, "{mappings} mappings");
}

/// As many mappings as the system allows.
struct Full(Vec<*mut libc::c_void>);

impl Full {
    fn new() -> Self {
        let mut all = Vec::with_capacity(MOST_MAPPINGS);
        loop {
            // Neighbours that differ are not merged.
            let protection = if all.len() % 2 == 0 { libc::PROT_NONE } else { libc::PROT_READ };
            let (flags, length) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, 4096);
            // SAFETY: the system chooses the address.
            let page = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
            if page == libc::MAP_FAILED || all.len() == MOST_MAPPINGS {
                return Self(all);
            }
            all.push(page);
        }
    }

    fn free(&mut self, count: usize) {
        for page in self.0.drain(..count) {
            // SAFETY: it was mapped above, and nothing refers to it.
            assert_eq!(unsafe { libc::munmap(page, 4096) }, 0);
        }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        self.free(self.0.len());
    }
}

/// Largest number of mappings that these tests can fill.
const MOST_MAPPINGS: usize = 1 << 20;

fn mappings_can_run_out() -> bool {
    let limit: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
    let can = limit < MOST_MAPPINGS;
    if !can {
        skip("mappings", &format!("the system allows {limit} mappings"));
    }
    can
}

pub(super) fn truncated_at_the_limit(path: &Path) {
    // Twice: the reserved mapping exists again.
    for _ in 0..2 {
        let disk = open(path);
        let bytes = borrow(&disk);
        let cut_at = FIRST_BLOCK + 100 * PAGE;
        cut(path, cut_at);
        let full = Full::new();
        let sum = super::sum(page(bytes, 200));
        drop(full);
        assert!(sum == 0 && is_lost(&disk, 200) && is_lost(&disk, 100));
        cut(path, FIRST_BLOCK + BLOCKS * MIB);
    }
}

pub(super) fn failing_at_the_limit(path: &Path) {
    let disk = open(path);
    let bytes = borrow(&disk);
    read_singly(bytes);
    let before = is_right(bytes, 0);
    // One more mapping can be made, but a hole in the middle of one takes two.
    let mut full = Full::new();
    full.free(1);
    let sum = super::sum(page(bytes, 1001));
    let again = super::sum(page(bytes, 4001));
    drop(full);
    assert!(before && sum == 0 && again == 0);
    assert!((0..PAGES).all(|number| is_right(bytes, number) || is_lost(&disk, number)));
    assert!(is_lost(&disk, 1001) && is_lost(&disk, 4001));
    guard_mappings().unwrap();
}

#[track_caller]
fn assert_success(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {}{said}", output.status, String::from_utf8_lossy(&output.stdout));
}

#[test]
fn truncated_file_loses_all_pages_past_its_end_at_once() {
    let folder = temp_dir();
    assert_success(&run_case("many pages of a truncated file", &sparse(folder.path())));
}

#[test]
fn forty_thousand_separate_lost_pages_do_not_end_the_process() {
    let folder = temp_dir();
    let image = sparse(folder.path());
    let Some(mounted) = Mounted::scattered(&image, &(FIRST_BLOCK..FIRST_BLOCK + BLOCKS * MIB)) else { return };
    assert_success(&run_case("many pages of a failing medium", &mounted.path()));
}

#[test]
fn process_at_the_limit_of_its_mappings_survives() {
    if !mappings_can_run_out() {
        return;
    }
    let folder = temp_dir();
    let image = sparse(folder.path());
    assert_success(&run_case("truncated at the limit of mappings", &image));
    let Some(mounted) = Mounted::scattered(&image, &(FIRST_BLOCK..FIRST_BLOCK + BLOCKS * MIB)) else { return };
    assert_success(&run_case("failing at the limit of mappings", &mounted.path()));
}
