//! What cannot be read is `EIO` for the reads that need it, and nothing else.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use vhdx_testkit::builder::Spec;
use vhdx_testkit::dense::{FIRST_BLOCK, cut, dense};
use vhdx_testkit::lab::Expected;
use vhdx_testkit::support::temp_dir;
use vhdx_testkit::{Block, MIB, pattern};

use super::Mounted;

const BLOCKS: u64 = 8;
const EIO: i32 = 5;

#[track_caller]
fn assert_reads(file: &File, start: u64, length: u64) {
    let mut piece = vec![0; length as usize];
    file.read_exact_at(&mut piece, start).unwrap();
    assert!(piece == pattern(1, start, length as usize), "{start:#x} {length:#x}");
}

#[track_caller]
fn assert_fails(file: &File, start: u64, length: u64) {
    let mut piece = vec![0; length as usize];
    let error = file.read_at(&mut piece, start).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EIO), "{start:#x} {length:#x}");
}

#[test]
fn truncated_file_loses_its_end_only() {
    for way in ["", "direct", "opened", "alone"] {
        // Also in the middle of a page, whose rest reads as zeros without a fault.
        for end in [4 * MIB, 3 * MIB + 4096, 3 * MIB + 100, 3 * MIB + 70_000] {
            let folder = temp_dir();
            let path = dense(folder.path(), "disk.vhdx", BLOCKS);
            let Some(mounted) = Mounted::new(&[&path], &format!("{way} bare")) else { return };
            let file = mounted.open("disk.raw");
            cut(&path, FIRST_BLOCK + end);
            let page = end / 4096 * 4096;
            for (start, length) in [(page, 4096), (end, 512), (6 * MIB, MIB)] {
                if start + length > end {
                    assert_fails(&file, start, length);
                }
            }
            assert_reads(&file, 0, page);
            assert_reads(&file, 5, 4096);
            assert_reads(&file, page - MIB, MIB);
            if way == "direct" {
                // Not a byte of a request that needs lost bytes. (Longer reads may be two requests.)
                assert_fails(&file, end - MIB / 4, MIB / 2);
                if page < end {
                    // All of its pages are there, but not all of the bytes.
                    assert_fails(&file, page + 4096 - MIB / 2, MIB / 2);
                }
            } else {
                // The pages before the lost one.
                let mut piece = vec![0; 1 << 20];
                let start = page - MIB / 2;
                let read = file.read_at(&mut piece, start).unwrap();
                assert!(read as u64 <= end - start && read as u64 >= MIB / 2, "{read}");
                assert!(piece[..read] == pattern(1, start, read));
            }
            let lines = mounted.end();
            assert!(!lines.is_empty());
            assert!(lines.iter().all(|line| line.starts_with("disk.raw: ")), "{way} {end}: {lines:?}");
        }
    }
}

/// What was read before is still in the kernel's cache, and right.
#[test]
fn cached_pages_outlive_the_file() {
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", BLOCKS);
    let Some(mounted) = Mounted::new(&[&path], "bare") else { return };
    let file = mounted.open("disk.raw");
    assert_reads(&file, 0, 2 * MIB);
    cut(&path, FIRST_BLOCK + MIB / 2);
    let reopened = mounted.open("disk.raw");
    assert_reads(&reopened, 0, 2 * MIB);
    assert_fails(&reopened, 7 * MIB, 4096);
}

/// A table that is cut away would look like blocks that were never written.
#[test]
fn lost_tables_are_no_holes() {
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", BLOCKS);
    let Some(mounted) = Mounted::new(&[&path], "bare") else { return };
    let file = mounted.open("disk.raw");
    cut(&path, FIRST_BLOCK - MIB);
    assert_fails(&file, 0, 4096);
    for seek in [rustix::fs::SeekFrom::Hole(0), rustix::fs::SeekFrom::Data(0)] {
        assert_eq!(rustix::fs::seek(&file, seek).unwrap_err().raw_os_error(), EIO);
    }
}

/// Writes an entry of the table that points past the end of the file.
fn damage(path: &Path, spec: &Spec, block: u64) {
    let image = spec.build();
    image.bytes.write_file(path).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&(6_u64 | 1 << 40).to_le_bytes(), image.block_entry_at(block)).unwrap();
}

#[test]
fn damaged_entry_loses_its_block_only() {
    let spec = (0..5).fold(Spec::empty(8 * MIB), |spec, number| spec.block(number, Block::full()));
    let expected = Expected::of(&[&spec.build()]).read(0..8 * MIB);
    for way in ["", "direct", "opened", "salvage"] {
        let folder = temp_dir();
        let path = folder.path().join("disk.vhdx");
        damage(&path, &spec, 2);
        let Some(mounted) = Mounted::new(&[&path], &format!("{way} bare")) else { return };
        let file = mounted.open("disk.raw");
        for page in 0..2048_u64 {
            let start = page * 4096;
            let mut bytes = [0xA5; 4096];
            let read = file.read_exact_at(&mut bytes, start);
            if (2 * MIB..3 * MIB).contains(&start) {
                assert_eq!(read.unwrap_err().raw_os_error(), Some(EIO), "{way}: {start:#x}");
            } else {
                read.unwrap();
                assert!(bytes == expected[start as usize..][..4096], "{way}: {start:#x}");
            }
        }
        // A range that cannot be read is no hole.
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap(), 5 * MIB);
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(2 * MIB)).unwrap(), 2 * MIB);
        let blocks = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
        assert_eq!(blocks, 5 * MIB / 512);
        drop(file);
        assert!(mounted.end().iter().any(|line| line.starts_with("disk.raw: ")));
    }
}
