//! Counts how much of a file gets into the page cache when little of it is read: a page fault reads the surrounding
//! pages as well, as many as the system's read-ahead is. A process of its own, since it counts the pages of whole
//! files.
#![cfg(all(target_os = "linux", feature = "mmap"))]
#![expect(
    unsafe_code,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is a failed test, and what was measured is worth a line"
)]

use std::fs::File;
use std::path::{Path, PathBuf};

use vhdx_mmap::{Disk, OpenOptions, Source};
use vhdx_testkit as kit;

use kit::builder::Spec;
use kit::page_cache::{cached, drop_cached};
use kit::{Block, Fill, KIB, MIB, PAGE};

/// Number of blocks of the disk, 1 MiB each.
const BLOCKS: u64 = 256;

/// Makes a dense image whose file is on its medium and not in the page cache. Returns `None` if a file system keeps it
/// there.
fn cold(folder: &Path) -> Option<PathBuf> {
    let path = folder.join("disk.vhdx");
    let block = || Block::full().fill(Fill::Pieces(Vec::new()));
    let image = (0..BLOCKS).fold(Spec::empty(BLOCKS * MIB), |spec, index| spec.block(index, block())).build();
    image.bytes.write_file(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    for block in 0..BLOCKS {
        let bytes = kit::pattern(block, 0, usize::try_from(MIB).unwrap());
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, image.block_at(block)).unwrap();
    }
    if !drop_cached(&path) {
        println!("SKIPPED: the file system does not let go of {} bytes", cached(&path));
        return None;
    }
    Some(path)
}

fn map(path: &Path) -> Source {
    // SAFETY: no other process uses the file.
    unsafe { Source::map(path) }.unwrap()
}

#[test]
fn cold_image_is_read_only_as_requested() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Some(path) = cold(folder.path()) else { return };
    let disk = Disk::open(Source::open(&path).unwrap(), &OpenOptions::new()).unwrap();
    let opened = cached(&path);
    println!("{opened} bytes for opening by reads");
    assert!((PAGE..=512 * KIB).contains(&opened), "{opened} bytes for opening by reads");
    drop(disk);
    let Some(path) = cold(folder.path()) else { return };
    let disk = Disk::open(map(&path), &OpenOptions::new()).unwrap();
    let opened = cached(&path);
    println!("{opened} bytes for opening");
    assert!((PAGE..=512 * KIB).contains(&opened), "{opened} bytes for opening");

    // 60 pages at random: each is read, and few others.
    for (number, length) in [(0, 4096), (1, 512), (2, 16 << 10)] {
        let before = cached(&path);
        let mut buffer = vec![0; length];
        for read in 0..60_u64 {
            let block = (read * 97 + number * 31 + 5) % BLOCKS;
            let at = block * MIB + (number * 211 + read * 53) % 200 * PAGE;
            assert_eq!(disk.read_at(&mut buffer, at).unwrap(), length);
            let within = usize::try_from(at % MIB).unwrap();
            assert!(buffer == kit::pattern(block, 0, usize::try_from(MIB).unwrap())[within..within + length]);
        }
        let read = cached(&path) - before;
        let most = 60 * u64::try_from(length).unwrap().max(PAGE) * 5 / 4 + 64 * KIB;
        println!("{read} bytes for 60 reads of {length} bytes");
        assert!((60 * PAGE / 2..=most).contains(&read), "{read} bytes for 60 reads of {length} bytes");
    }
    let before = cached(&path);
    for read in 0..60_u64 {
        let at = (read * 89 + 7) % BLOCKS * MIB + 900 * KIB;
        let bytes = disk.slice(at, 4096).unwrap().unwrap();
        std::hint::black_box(bytes.iter().fold(0_u64, |sum, byte| sum + u64::from(*byte)));
    }
    let read = cached(&path) - before;
    println!("{read} bytes for 60 slices of 4096 bytes");
    assert!(read <= 60 * PAGE * 5 / 4, "{read} bytes for 60 slices");

    // A borrowed long piece is read ahead: most of it is in the page cache when one page of it is touched.
    let mut segments = disk.segments(64 * MIB..128 * MIB);
    let before = cached(&path);
    if let Some(Ok(vhdx_mmap::Segment::Data(bytes))) = segments.next() {
        std::hint::black_box(bytes[8 << 20]);
    }
    let read = cached(&path) - before;
    println!("{read} bytes for a page of a long segment");
    assert!(read > PAGE, "{read} bytes for a page of a long segment");
}
