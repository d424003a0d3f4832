//! Block devices, and file systems that are full or small. Only root can make them.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::device::{Loop, Mount, output_of};
use crate::kit::builder::Spec;
use crate::kit::{Block, FileBytes, KIB, MIB};
use crate::support::{skip, temp_dir};

use super::{args, assert_fails, content, disk_with, names_in, vhdx_run, write_image};

/// A block device of this size, filled with 0xEE, and its backing file.
fn used_device(folder: &Path, size: u64) -> Option<(Loop, PathBuf)> {
    let file = folder.join("device.img");
    std::fs::write(&file, vec![0xee; usize::try_from(size).unwrap()]).unwrap();
    Some((Loop::of(&file)?, file))
}

#[test]
fn extract_to_a_device_writes_zeros() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let disk = content(&Spec::default());
    let Some((device, file)) = used_device(folder.path(), 16 * MIB) else { return };
    let is_used = |range: std::ops::Range<usize>| std::fs::read(&file).unwrap()[range].iter().all(|byte| *byte == 0xee);

    let ran = vhdx_run(args!["extract", &path, &device.0]);
    assert_fails(&ran, 73, &[device.0.to_str().unwrap(), "is a block device", "hint: --force"]);
    assert!(is_used(0..16 << 20));

    vhdx_run(args!["extract", "--force", &path, &device.0]).done();
    assert!(std::fs::read(&file).unwrap()[..8 << 20] == disk);
    assert!(is_used(8 << 20..16 << 20), "bytes after the disk are kept");

    // Only a part of the disk.
    vhdx_run(args!["extract", "--force", "--range", "5M:3M", &path, &device.0]).done();
    assert!(std::fs::read(&file).unwrap()[..3 << 20] == disk[5 << 20..]);
    assert_eq!(names_in(folder.path()), ["device.img", "disk.vhdx"]);
}

#[test]
fn extract_vhd_must_fill_the_device() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let Some((larger, file)) = used_device(folder.path(), 8 * MIB + 1024) else { return };
    let ran = vhdx_run(args!["extract", "--force", "-O", "vhd", &path, &larger.0]);
    assert_fails(&ran, 73, &[larger.0.to_str().unwrap(), "8389632 bytes", "8389120", "footer"]);
    assert!(std::fs::read(&file).unwrap().iter().all(|byte| *byte == 0xee));
    drop(larger);
    let Some((device, file)) = used_device(folder.path(), 8 * MIB + 512) else { return };
    vhdx_run(args!["extract", "--force", "--threads", "3", "-O", "vhd", &path, &device.0]).done();
    let vhd = vhdx_run(args!["extract", "-O", "vhd", &path, "-"]).done().out;
    assert!(std::fs::read(&file).unwrap() == vhd);
}

#[test]
fn extract_rejects_read_only_device() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let file = folder.path().join("device.img");
    std::fs::write(&file, vec![0xee; 16 << 20]).unwrap();
    let Some(device) = Loop::attached(&["--read-only".as_ref(), file.as_ref()]) else { return };
    let ran = vhdx_run(args!["extract", "--force", &path, &device.0]);
    assert_fails(&ran, 73, &[device.0.to_str().unwrap(), "is read-only"]);
    assert!(std::fs::read(&file).unwrap().iter().all(|byte| *byte == 0xee));
}

#[test]
fn extract_rejects_device_of_the_image() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let before = std::fs::read(&path).unwrap();
    let Some(device) = Loop::of(&path) else { return };
    let ran = vhdx_run(args!["extract", "--force", "--range", "0:1M", &path, &device.0]);
    assert_fails(&ran, 2, &[device.0.to_str().unwrap(), "is the image itself"]);
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn extract_rejects_device_that_is_too_small() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let Some((device, file)) = used_device(folder.path(), 8 * MIB - 4096) else { return };
    let ran = vhdx_run(args!["extract", "--force", &path, &device.0]);
    assert_fails(&ran, 73, &[device.0.to_str().unwrap(), "8384512 bytes", "8388608 bytes"]);
    assert!(std::fs::read(&file).unwrap().iter().all(|byte| *byte == 0xee));
    vhdx_run(args!["extract", "--force", "--range", "0:7M", &path, &device.0]).done();
}

#[test]
fn extract_rejects_mounted_device() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let Some((device, file)) = used_device(folder.path(), 16 * MIB) else { return };
    if output_of("mke2fs", &["-q".as_ref(), device.0.as_ref()]).is_none() {
        return skip("mount", "no mke2fs");
    }
    let Some(mount) = Mount::new(folder.path(), &[device.0.as_ref()]) else { return };
    let before = std::fs::read(&file).unwrap();
    let ran = vhdx_run(args!["extract", "--force", &path, &device.0]);
    assert_fails(&ran, 73, &[device.0.to_str().unwrap(), "in use"]);
    assert!(std::fs::read(&file).unwrap() == before);
    drop(mount);
    vhdx_run(args!["extract", "--force", &path, &device.0]).done();
}

#[test]
fn image_on_a_block_device_can_be_read() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let Some(device) = Loop::of(&path) else { return };
    let report = vhdx_run(args!["info", "--output", "json", &device.0]).done().json();
    assert_eq!(report["virtual-size"], 8 * MIB);
    assert_eq!(report["format-specific"]["data"]["file-length"], path.metadata().unwrap().len());
    for options in [args![], args!["--no-mmap"]] {
        let ran = vhdx_run(args!["extract", &device.0, "-"].into_iter().chain(options)).done();
        assert!(ran.out == content(&Spec::default()));
    }
    let ran = vhdx_run(args!["extract", "--force", &device.0, &device.0]);
    assert_fails(&ran, 2, &["is the image itself"]);
    drop(device);
    assert!(std::fs::read(&path).unwrap() == Spec::default().build().bytes.to_vec());
}

#[test]
fn extract_rejects_full_file_system() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let Some(mount) = Mount::tmpfs(folder.path(), "2m") else { return };
    let out = mount.0.join("out");
    let ran = vhdx_run(args!["extract", &path, &out]);
    // Three blocks of 1 MiB have content.
    assert_fails(
        &ran,
        73,
        &["out: not enough space (found 2.00 MiB (2097152 bytes), expected up to 3.00 MiB (3145728 bytes))"],
    );
    assert!(names_in(&mount.0).is_empty());
    vhdx_run(args!["extract", "--range", "2M:2M", &path, &out]).done();
    // The new file needs space in addition to the file that it replaces.
    let ran = vhdx_run(args!["extract", "--force", "--range", "0:6M", &path, &out]);
    assert_fails(&ran, 73, &["out: not enough space"]);
    assert_eq!(out.metadata().unwrap().len(), 2 * MIB);
}

#[test]
fn extract_sparse_disk_fits_small_file_system() {
    let folder = temp_dir();
    let spec = disk_with(1 << 40, &[(1 << 39, b"content")]);
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let Some(mount) = Mount::tmpfs(folder.path(), "2m") else { return };
    let out = mount.0.join("out");
    vhdx_run(args!["extract", &path, &out]).done();
    let file = File::open(&out).unwrap();
    assert_eq!((file.bytes_at(1 << 39, 8), out.metadata().unwrap().len()), (b"content\0".to_vec(), 1 << 40));
}

#[test]
fn extract_leaves_no_file_if_file_system_fills_up() {
    let folder = temp_dir();
    // Pieces of 4 KiB, far from each other. A file system with block lists needs space for these lists, too, so that
    // less fits than there is free space for.
    let base = Spec::empty(64 * MIB);
    write_image(folder.path(), "base.vhdx", &base);
    let mut child = Spec::child_of(&base, "base.vhdx");
    for number in 0..64 {
        child = child.block(number, Block::partial(&[0..8, 1024..1032]));
    }
    let path = write_image(folder.path(), "child.avhdx", &child);
    let data = 64 * 2 * 4 * KIB;

    let disk = folder.path().join("ext2.img");
    File::create(&disk).unwrap().set_len(4 * MIB).unwrap();
    let made = output_of("mke2fs", &["-q", "-F", "-t", "ext2", "-b", "1024", "-m", "0"].map(AsRef::as_ref));
    assert!(made.is_none());
    let options = ["-q", "-F", "-t", "ext2", "-b", "1024", "-m", "0"].map(AsRef::as_ref);
    if output_of("mke2fs", &[&options[..], &[disk.as_ref()]].concat()).is_none() {
        return skip("mount", "no mke2fs");
    }
    let Some(mount) = Mount::new(folder.path(), &["-o".as_ref(), "loop".as_ref(), disk.as_ref()]) else { return };
    // Fill it until there is space for the data, and for little else.
    let free = || {
        let found = rustix::fs::statvfs(&mount.0).unwrap();
        found.f_bavail * found.f_frsize
    };
    let filler = File::create(mount.0.join("filler")).unwrap();
    let mut at = 0;
    while free() > data + 8 * KIB {
        filler.write_all_at(&[0xee; 1024], at).unwrap();
        filler.sync_all().unwrap();
        at += KIB;
        let ahead = free().saturating_sub(data + 40 * KIB) / KIB * KIB;
        let bulk = vec![0xee; usize::try_from(ahead).unwrap()];
        filler.write_all_at(&bulk, at).unwrap();
        at += ahead;
    }
    let before = free();
    let ran = vhdx_run(args!["extract", &path, mount.0.join("out")]);
    assert_fails(&ran, 74, &["out: cannot write: ", "No space left"]);
    assert_eq!(names_in(&mount.0), ["filler", "lost+found"]);
    assert_eq!(free(), before);
    assert!(mount.0.join("filler").metadata().unwrap().size() > 0);
}
