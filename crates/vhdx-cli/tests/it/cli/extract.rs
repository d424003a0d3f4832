//! `vhdx extract`: content of the output.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::kit::builder::Spec;
use crate::kit::{Block, FileBytes, MIB, Model, TIB};
use crate::support::{hex, root, temp_dir, wait};

use super::{args, assert_fails, content, disk_with, names_in, part, vhdx_run, write_image};

#[test]
fn extract_writes_the_disk_to_the_last_byte() {
    let folder = temp_dir();
    let odd = Spec { disk_size: 3 * MIB + 512, ..Spec::default() };
    let large = Spec { sector_size: 4096, ..Spec::empty(9 * MIB).block(8, Block::full()) };
    for spec in [Spec::default(), odd, large, Spec::empty(512), Spec::empty(0)] {
        let path = write_image(folder.path(), "disk.vhdx", &spec);
        let disk = content(&spec);
        let out = folder.path().join("out");
        let ran = vhdx_run(args!["extract", "--force", "-q", &path, &out]).done();
        assert!(std::fs::read(&out).unwrap() == disk);
        assert!(ran.out.is_empty());
        assert!(vhdx_run(args!["extract", "-q", &path, "-"]).done().out == disk);
        // By its alias, too.
        vhdx_run(args!["convert", "--force", "-q", &path, &out]).done();
        assert!(std::fs::read(&out).unwrap() == disk);
    }
}

#[test]
fn extract_of_the_sample_image_matches_its_digests() {
    use sha2::{Digest, Sha256};

    let images = root().join("tests/images");
    let manifest = std::fs::read_to_string(images.join("SOURCES.md")).unwrap();
    let image = images.join("hello.vhdx");
    let disk = vhdx_run(args!["extract", &image, "-"]).done().out;
    assert_eq!(disk.len(), 16 << 20);
    for (what, bytes) in
        [("| `hello.vhdx`, the file |", std::fs::read(&image).unwrap()), ("| the disk in it (`hello.raw`) |", disk)]
    {
        let line = manifest.lines().find(|line| line.starts_with(what)).unwrap();
        assert!(line.contains(&hex(&Sha256::digest(&bytes))), "{line}");
    }
}

#[test]
fn extract_sync_writes_the_disk() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let out = folder.path().join("out");
    vhdx_run(args!["extract", "--sync", &path, &out]).done();
    assert!(std::fs::read(&out).unwrap() == content(&Spec::default()));
}

#[test]
fn extract_merges_a_chain() {
    let folder = temp_dir();
    let base = Spec::empty(12 * MIB).block(0, Block::full()).block(1, Block::full()).block(7, Block::full());
    let middle = Spec::child_of(&base, "base.vhdx").block(1, Block::zero()).block(7, Block::partial(&[3..5, 9..10]));
    let top = Spec::child_of(&middle, "middle.avhdx").block(0, part(0..1)).block(9, Block::full());
    let images = [&top, &middle, &base].map(Spec::build);
    for (name, image) in ["top.avhdx", "middle.avhdx", "base.vhdx"].into_iter().zip(&images) {
        image.bytes.write_file(&folder.path().join(name)).unwrap();
    }
    let models = images.each_ref().map(|image| &image.model);
    for depth in 0..3 {
        let disk = Model::read(&models[depth..], 0, 12 << 20).unwrap();
        let path = folder.path().join(["top.avhdx", "middle.avhdx", "base.vhdx"][depth]);
        assert!(vhdx_run(args!["extract", path, "-"]).done().out == disk, "{depth}");
    }
}

#[test]
fn extract_makes_holes_of_unallocated_blocks() {
    let folder = temp_dir();
    let spec = Spec { block_size: 32 << 20, ..Spec::empty(TIB) }
        .block(0, Block::full().bytes(b"first"))
        .block(5000, Block::zero())
        .block(20_000, Block::full().bytes(b"last"));
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let out = folder.path().join("out");
    vhdx_run(args!["extract", &path, &out]).done();
    let file = File::open(&out).unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.len(), TIB);
    // Two blocks of 32 MiB are allocated in the image, and nothing else is in the output.
    assert!(metadata.blocks() * 512 <= 65 * MIB, "{} blocks", metadata.blocks());
    assert_eq!(file.bytes_at(0, 5), b"first");
    assert_eq!(file.bytes_at(20_000 << 25, 6), b"last\0\0");
}

#[test]
fn extract_makes_holes_of_zero_pages() {
    let folder = temp_dir();
    // One page of each block of 32 MiB has content, as after making a file system on an empty disk.
    let mut spec = Spec { block_size: 32 << 20, ..Spec::empty(256 * MIB) };
    for number in 0..8 {
        spec = spec.block(number, Block::full().bytes(&[0x11; 4096]));
    }
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let out = folder.path().join("out");
    vhdx_run(args!["extract", &path, &out]).done();
    let metadata = out.metadata().unwrap();
    assert_eq!(metadata.len(), 256 * MIB);
    assert!(metadata.blocks() * 512 <= 4 * MIB, "{} MiB of 32 KiB are not zeros", metadata.blocks() * 512 / MIB);
}

#[test]
fn extract_range_is_that_part_of_the_disk() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let disk = content(&Spec::default());
    for (range, expected) in [
        ("0:1", &disk[..1]),
        ("1M:2M", &disk[1 << 20..3 << 20]),
        ("2097151:3", &disk[2_097_151..2_097_154]),
        ("5M:", &disk[5 << 20..]),
        ("3M:0", &[]),
    ] {
        let out = folder.path().join("out");
        vhdx_run(args!["extract", "--force", "--range", range, &path, &out]).done();
        assert!(std::fs::read(&out).unwrap() == expected, "{range}");
        assert!(vhdx_run(args!["extract", "--range", range, &path, "-"]).done().out == expected, "{range}");
    }
    // The rest of the disk may be damaged.
    let mut damaged = Spec::default();
    damaged.raw_bat.insert(6, 4);
    let path = write_image(folder.path(), "damaged.vhdx", &damaged);
    assert_fails(&vhdx_run(args!["extract", &path, folder.path().join("new")]), 65, &["payload block 6"]);
    let ran = vhdx_run(args!["extract", "--range", "0:6M", &path, "-"]).done();
    assert!(ran.out == disk[..6 << 20]);
}

#[test]
fn extract_leaves_no_file_after_a_read_error() {
    let folder = temp_dir();
    let full = || {
        let mut spec = Spec::empty(64 * MIB);
        for number in 0..64 {
            spec = spec.block(number, Block::full());
        }
        spec
    };
    let mut reserved = full();
    reserved.raw_bat.insert(40, 4);
    let mut outside = full();
    outside.raw_bat.insert(40, (1 << 40) | 6);
    let mut on_metadata = full();
    on_metadata.raw_bat.insert(40, (2 * MIB) | 6);
    for (name, spec) in [("reserved", reserved), ("outside", outside), ("on metadata", on_metadata)] {
        let path = write_image(folder.path(), "disk.vhdx", &spec);
        let old = folder.path().join("old");
        std::fs::write(&old, "precious").unwrap();
        for threads in ["1", "4"] {
            for format in ["raw", "vhd"] {
                let out = folder.path().join("new");
                let ran = vhdx_run(args!["extract", "--threads", threads, "-O", format, &path, &out]);
                assert_fails(&ran, 65, &["payload block 40"]);
                let ran = vhdx_run(args!["extract", "--force", "--threads", threads, "-O", format, &path, &old]);
                assert_fails(&ran, 65, &["payload block 40"]);
                assert_eq!(names_in(folder.path()), ["disk.vhdx", "old"], "{name}");
                assert_eq!(std::fs::read_to_string(&old).unwrap(), "precious", "{name}");
            }
        }
        // A stream gets the content before the error, and no more.
        let ran = vhdx_run(args!["extract", &path, "-"]);
        assert_fails(&ran, 65, &["payload block 40"]);
        assert!(ran.out.len() <= 40 << 20 && ran.out == crate::kit::pattern(1, 0, ran.out.len()), "{name}");
    }
}

/// A program that is killed when the test ends, even by a panic.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn extract_writes_to_a_named_pipe() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let (pipe, copy) = (folder.path().join("pipe"), folder.path().join("copy"));
    super::target::make_pipe(&pipe);
    let copied = Stdio::from(File::create(&copy).unwrap());
    let mut reader = Helper(Command::new("cat").arg(&pipe).stdout(copied).spawn().unwrap());
    vhdx_run(args!["extract", &path, &pipe]).done();
    assert!(reader.0.wait().unwrap().success());
    assert!(std::fs::read(&copy).unwrap() == content(&Spec::default()));
    assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
}

#[test]
fn extract_writes_to_a_character_device() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let devices = ["/dev/null", "/dev/zero"].map(Path::new);
    let is_device = |path: &&Path| path.metadata().is_ok_and(|metadata| metadata.file_type().is_char_device());
    for device in devices.iter().filter(|path| is_device(path)) {
        vhdx_run(args!["extract", &path, device]).done();
        assert!(is_device(device));
    }
    assert!(devices.iter().any(is_device));
}

#[test]
fn extract_appends_to_standard_output() {
    let folder = temp_dir();
    let spec = disk_with(2 * MIB, &[(MIB, b"content")]);
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let out = folder.path().join("out");
    std::fs::write(&out, vec![0xee; 5 << 20]).unwrap();
    // After the content that exists; zeros are written, not skipped.
    let file = File::options().append(true).open(&out).unwrap();
    let child = crate::support::vhdx(args!["extract", &path, "-"])
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait(child).done();
    let found = std::fs::read(&out).unwrap();
    assert!(found[..5 << 20].iter().all(|byte| *byte == 0xee));
    assert!(found[5 << 20..] == content(&spec));
}
