//! What cannot be read is an error: never zeros.

use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, fadvise};
use vhdx_mmap::{Disk, OpenOptions, Source, Strictness};
use vhdx_serve::erofs::{self, Options};
use vhdx_serve::mount::{self, Detached};
use vhdx_testkit::builder::Spec;
use vhdx_testkit::dense::{FIRST_BLOCK, cut, dense, make_old};
use vhdx_testkit::support::temp_dir;
use vhdx_testkit::{Block, MIB, pattern};

use super::{Mounted, Written, can_mount, tree_of};

/// Reads a page; the file must be advised as random, so that the kernel reads no further.
fn page(file: &std::fs::File, offset: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![1; 4096];
    file.read_exact_at(&mut bytes, offset).ok().map(|()| bytes)
}

#[test]
fn image_truncated_under_a_mount() {
    if !can_mount() {
        return;
    }
    for end in [3 * MIB, 3 * MIB + 4096, 3 * MIB + 100] {
        for advice in [Advice::Random, Advice::Normal, Advice::Sequential] {
            let folder = temp_dir();
            let path = dense(folder.path(), "disk.vhdx", 8);
            let disk = Disk::open(Source::open(&path).unwrap(), &OpenOptions::new()).unwrap();
            let mounted = Mounted::new(&tree_of(disk));
            let file = mounted.file("disk.raw");
            fadvise(&file, 0, None, advice).unwrap();
            assert_eq!(page(&file, 7 * MIB), Some(pattern(1, 7 * MIB, 4096)));
            cut(&path, FIRST_BLOCK + end);
            for at in (0..7 * MIB).step_by(4096) {
                match page(&file, at) {
                    Some(bytes) => assert!(bytes == pattern(1, at, 4096) && at < 7 * MIB, "{end:#x} {at:#x}"),
                    // Read-ahead may make one error of pages that are close to each other.
                    None if advice == Advice::Random => assert!(at + 4096 > end, "{end:#x} {at:#x}"),
                    None => assert!(at + 4 * MIB > end, "{end:#x} {at:#x}"),
                }
                let is_kept = at + 2 * MIB > 7 * MIB;
                assert!(at < end || is_kept || page(&file, at).is_none(), "{end:#x} {at:#x}");
            }
        }
    }
}

/// An image of which block 5 lies past the end of the file.
fn damaged(folder: &std::path::Path) -> std::path::PathBuf {
    let spec = (0..8).fold(Spec::empty(64 * MIB), |spec, number| spec.block(number, Block::full()));
    let mut image = spec.build();
    let entry = image.geometry.block_index(5);
    image.set_bat(entry, (1 << 40) | 6);
    let path = folder.join("damaged.vhdx");
    image.bytes.write_file(&path).unwrap();
    path
}

#[test]
fn damaged_image_is_refused_and_the_range_named() {
    let folder = temp_dir();
    let path = damaged(folder.path());
    let disk = Disk::open(Source::open(&path).unwrap(), &OpenOptions::new()).unwrap();
    let out = tempfile::tempfile_in(folder.path()).unwrap();
    let error = erofs::write(&tree_of(disk), &out, &Options::default()).unwrap_err();
    let erofs::Error::Image { path, error } = &error else { panic!("{error}") };
    assert_eq!(path, "disk.raw");
    assert!(error.to_string().contains("block 5"), "{error}");
    assert_eq!(out.metadata().unwrap().len(), 0);
}

#[test]
fn lost_block_of_a_salvage_fails_and_the_rest_is_right() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let path = damaged(folder.path());
    let options = OpenOptions::new().strictness(Strictness::Salvage);
    let disk = Disk::open(Source::open(&path).unwrap(), &options).unwrap();
    let mounted = Mounted::new(&tree_of(disk));
    let file = mounted.file("disk.raw");
    fadvise(&file, 0, None, Advice::Random).unwrap();
    for at in (0..64 * MIB).step_by(65_536) {
        let expected = match at / MIB {
            5 => None,
            0..8 => Some(pattern(1, at, 4096)),
            _ => Some(vec![0; 4096]),
        };
        assert!(page(&file, at) == expected, "{at:#x}");
    }
    // Also if the kernel reads more at a time.
    let mut bytes = vec![0; 4 << 20];
    let file = mounted.file("layers/0.raw");
    assert!(file.read_exact_at(&mut bytes, 4 * MIB).is_err());
}

#[test]
fn changed_image_is_refused() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", 2);
    make_old(&path);
    let disk = Disk::open(Source::open(&path).unwrap(), &OpenOptions::new()).unwrap();
    let written = Written::new(&tree_of(disk));
    std::fs::File::options().write(true).open(&path).unwrap().write_all_at(b"x", FIRST_BLOCK).unwrap();
    let error = Detached::erofs(&written.path(), &written.metadata.devices).unwrap_err();
    assert!(matches!(error, mount::Error::Changed(_)), "{error}");
    assert!(error.to_string().contains("disk.vhdx: changed"), "{error}");
}

#[test]
fn image_without_a_file_is_refused() {
    let image = Spec::empty(4 * MIB).block(0, Block::full()).build();
    let disk = Disk::open(Source::from_vec(image.bytes.to_vec()), &OpenOptions::new()).unwrap();
    let written = Written::new(&tree_of(disk));
    let error = Detached::erofs(&written.path(), &written.metadata.devices).unwrap_err();
    assert!(matches!(error, mount::Error::NotAFile(_)), "{error}");
}
