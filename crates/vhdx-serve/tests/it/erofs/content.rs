//! Files of mounts have the content that the image builder knows.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;
use std::sync::Arc;

use rustix::fs::SeekFrom;
use vhdx_mmap::Disk;
use vhdx_serve::erofs::Options;
use vhdx_serve::mount;
use vhdx_serve::tree::{Image, Tree};
use vhdx_testkit::builder::{Image as Built, Spec};
use vhdx_testkit::cuts::chain_of_three;
use vhdx_testkit::dense::dense;
use vhdx_testkit::lab::{Expected, Rng, run, size};
use vhdx_testkit::log::Dirty;
use vhdx_testkit::support::{map, temp_dir};
use vhdx_testkit::{Block, MIB, pattern};

use super::{Files, Mounted, Written, assert_content, can_mount, tree_of};

/// Checks a chain through the kernel, with all of its layers, and the metadata by `fsck.erofs`.
fn assert_chain(chain: &[&Built], what: &str) {
    let (_files, disk) = Files::open(chain);
    let tree = tree_of(disk);
    Written::new(&tree).check(None);
    let mut with_addresses = Options::default();
    with_addresses.most_index = 0;
    for options in [Options::default(), with_addresses] {
        if !can_mount() {
            return;
        }
        let mounted = Written::with(&tree, &options).mount();
        for layer in 0..chain.len() {
            let path = mounted.directory.join(format!("layers/{layer}.raw"));
            assert_content(&path, &Expected::of(&chain[layer..]), what);
        }
        assert_content(&mounted.directory.join("disk.raw"), &Expected::of(chain), what);
        assert_eq!(std::fs::read(mounted.directory.join("info.json")).unwrap(), b"{}\n", "{what}");
    }
}

/// Holes are left out of what fsck.erofs 1.5 extracts, so this disk has none.
#[test]
fn fsck_erofs_extracts_the_disks() {
    let parent = (0..4).fold(Spec::empty(4 * MIB), |spec, number| spec.block(number, Block::full()));
    let child = Spec::child_of(&parent, "1.vhdx").block(0, Block::partial(&[1..7, 64..2000])).block(1, Block::full());
    let images = [Dirty::ManyEntries.build(&child), parent.build()];
    let chain: Vec<&Built> = images.iter().collect();
    let (files, disk) = Files::open(&chain);
    let written = Written::new(&tree_of(disk));
    let to = files.folder().join("extracted");
    written.check(Some(&to));
    if to.exists() {
        assert_content(&to.join("disk.raw"), &Expected::of(&chain), "extracted");
        assert_content(&to.join("layers/1.raw"), &Expected::of(&chain[1..]), "extracted");
    }
}

#[test]
fn chain_with_partial_blocks() {
    for bat_offset in [3 * MIB, 4 * MIB] {
        let images = chain_of_three(bat_offset).map(|spec| spec.build());
        assert_chain(&images.iter().collect::<Vec<_>>(), "a chain of three");
    }
}

#[test]
fn dirty_logs_of_every_kind_are_replayed() {
    let parent = Spec::empty(4 * MIB).block(0, Block::full()).block(2, Block::full());
    for dirty in Dirty::ALL {
        let child = Spec::child_of(&parent, "1.vhdx");
        let child = child.block(0, Block::partial(&[1..7, 64..2000])).block(1, Block::full());
        let images = [dirty.build(&child), parent.build()];
        assert_chain(&images.iter().collect::<Vec<_>>(), &format!("{dirty:?}"));
    }
}

#[test]
fn sectors_of_4096_bytes() {
    let parent = Spec { sector_size: 4096, ..Spec::empty(5 * MIB + 4096) };
    let parent = (0..6).fold(parent, |spec, number| spec.block(number, Block::full()));
    let child = Spec::child_of(&parent, "1.vhdx").block(0, Block::partial(&[0..1, 5..77, 255..256]));
    let images = [child.block(3, Block::zero()).build(), parent.build()];
    assert_chain(&images.iter().collect::<Vec<_>>(), "sectors of 4096 bytes");
}

/// Blocks, bitmaps and sizes by chance: chunks of every size occur.
#[test]
fn chains_by_chance() {
    for seed in 0..16 {
        let mut rng = Rng::new(seed);
        let sizes = [MIB, 5 * MIB + 512, 64 * MIB, 160 * MIB - 1024];
        let block_size = rng.pick(&[MIB, 2 * MIB, 8 * MIB]);
        let mut spec = Spec { block_size: block_size as u32, ..Spec::empty(rng.pick(&sizes)) };
        let mut specs = Vec::new();
        for layer in 0..1 + rng.below(3) {
            if layer > 0 {
                let name = format!("{}.vhdx", specs.len());
                let parent: &Spec = specs.last().unwrap();
                spec = Spec { block_size: parent.block_size, ..Spec::child_of(parent, &name) };
            }
            let blocks = spec.disk_size.div_ceil(u64::from(spec.block_size));
            for _ in 0..rng.below(blocks.min(12)) + 1 {
                let number = rng.below(blocks);
                let sectors = u64::from(spec.block_size) / 512;
                let start = rng.below(sectors - 1);
                let present = run(start..start + 1 + rng.below(sectors - start - 1));
                let partial = if layer > 0 { Block::partial(&present) } else { Block::full() };
                let block = rng.pick(&[Block::full(), Block::zero(), partial, Block::full()]);
                spec = spec.block(number, block);
            }
            specs.push(spec.clone());
        }
        // Parents have the names that children look for.
        let count = specs.len();
        for (layer, spec) in specs.iter_mut().enumerate().skip(1) {
            let parent = spec.locator.as_mut().unwrap();
            parent.set("relative_path", &format!(".\\{}.vhdx", count - layer));
        }
        let images: Vec<Built> = specs.iter().rev().map(Spec::build).collect();
        assert_chain(&images.iter().collect::<Vec<_>>(), &format!("seed {seed}"));
    }
}

#[test]
fn data_and_holes_are_where_the_blocks_are() {
    if !can_mount() {
        return;
    }
    let spec = Spec::empty(64 * MIB).block(3, Block::full()).block(4, Block::full()).block(40, Block::zero());
    let image = spec.block(63, Block::full()).build();
    let (_files, disk) = Files::open(&[&image]);
    let mounted = Mounted::new(&tree_of(disk));
    let file = mounted.file("disk.raw");
    let seek = |position| rustix::fs::seek(&file, position).ok();
    let (mut data, mut at) = (Vec::new(), 0);
    while let Some(start) = seek(SeekFrom::Data(at)) {
        at = seek(SeekFrom::Hole(start)).unwrap();
        data.push(start..at);
    }
    assert_eq!(data, [3 * MIB..5 * MIB, 63 * MIB..64 * MIB]);
}

#[test]
fn names_owners_and_times() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", 2);
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_700);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let disk = Arc::new(Disk::open(map(&path), &vhdx_mmap::OpenOptions::new()).unwrap());
    // Directories of many blocks, with names that sort before `.` and after `..`.
    let mut names: Vec<String> = (0..300).map(|number| format!("{number:03}-{}", "x".repeat(number % 200))).collect();
    names.extend(["!".to_owned(), "-a".to_owned(), "...".to_owned(), "ü".repeat(127), "z".repeat(255)]);
    let images = names.iter().map(|name| Image {
        directory: Some(name.clone()),
        disk: Arc::clone(&disk),
        info: None,
        has_partitions: false,
    });
    let mounted = Mounted::new(&Tree::new(images.collect()).unwrap());
    let found = std::fs::read_dir(&mounted.directory).unwrap();
    let found: BTreeSet<String> = found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, names.iter().cloned().collect());
    for name in &names {
        let metadata = std::fs::metadata(mounted.directory.join(name).join("disk.raw")).unwrap();
        assert_eq!((metadata.len(), metadata.mode(), metadata.uid()), (2 * MIB, 0o100_400, 0));
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_234_567_890, 123_456_700));
        let layer = std::fs::metadata(mounted.directory.join(name).join("layers/0.raw")).unwrap();
        assert_eq!(layer.ino(), metadata.ino());
        let directory = std::fs::metadata(mounted.directory.join(name)).unwrap();
        assert_eq!((directory.mode(), directory.nlink()), (0o040_500, 3));
    }
    assert_eq!(std::fs::metadata(&mounted.directory).unwrap().nlink(), 2 + names.len() as u64);
    let mut bytes = vec![0; 4096];
    mounted.file("!/disk.raw").read_exact_at(&mut bytes, MIB).unwrap();
    assert_eq!(bytes, pattern(1, MIB, 4096));
}

#[test]
fn thirty_two_readers_and_an_unmount_under_load() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", 16);
    let disk = Disk::open(map(&path), &vhdx_mmap::OpenOptions::new()).unwrap();
    let mounted = Mounted::new(&tree_of(disk));
    let content = pattern(1, 0, size(16 * MIB));
    let file = mounted.file("disk.raw");
    // It is in use.
    let busy = mount::unmount_directory(&mounted.directory, false).unwrap_err();
    assert_eq!(busy.raw_os_error(), Some(rustix::io::Errno::BUSY.raw_os_error()));
    std::thread::scope(|scope| {
        for reader in 0..32 {
            let (file, content) = (&file, &content);
            scope.spawn(move || {
                let mut rng = Rng::new(reader);
                for _ in 0..200 {
                    let start = rng.below(16 * MIB);
                    let length = rng.below(300_000).min(16 * MIB - start);
                    let mut found = vec![0; size(length)];
                    file.read_exact_at(&mut found, start).unwrap();
                    assert!(found == content[size(start)..size(start + length)], "{start:#x} {length:#x}");
                }
            });
        }
        mount::unmount_directory(&mounted.directory, true).unwrap();
    });
    // The readers have kept it until now, although it has no place any more.
    assert!(std::fs::read_dir(&mounted.directory).unwrap().next().is_none());
    let mut all = vec![0; content.len()];
    file.read_exact_at(&mut all, 0).unwrap();
    assert!(all == content);
}

#[test]
fn dump_erofs_lists_the_files() {
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", 2);
    let disk = Disk::open(map(&path), &vhdx_mmap::OpenOptions::new()).unwrap();
    let written = Written::new(&tree_of(disk));
    let device = format!("--device={}", path.display());
    let Ok(ran) = Command::new("dump.erofs").args([&device, "--path=/disk.raw", "-e"]).arg(written.path()).output()
    else {
        vhdx_testkit::support::skip("erofs", "no dump.erofs");
        return;
    };
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{text}");
    // The two blocks are one piece of the image, at 4 MiB.
    assert!(text.contains("Size: 2097152"), "{text}");
    assert!(text.contains("4194304..") && text.contains("device 1"), "{text}");
}
