//! `vhdx extract`: shared blocks, existing files as output, and verification.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::device::file_system;
use crate::kit::builder::Spec;
use crate::kit::{Block, MIB, Model};
use crate::support::temp_dir;

use super::{args, assert_fails, content, names_in, part, vhdx_run, write_image};

/// Free bytes of a file system.
fn free(path: &Path) -> u64 {
    let file = std::fs::File::open(path).unwrap();
    rustix::fs::syncfs(&file).unwrap();
    let found = rustix::fs::fstatvfs(&file).unwrap();
    found.f_bavail * found.f_frsize
}

#[test]
fn extract_shares_blocks_on_xfs_and_btrfs() {
    for kind in ["xfs", "btrfs"] {
        let folder = temp_dir();
        let Some(mount) = file_system(folder.path(), kind) else { continue };
        let base = (0..64).fold(Spec::empty(64 * MIB + 512), |spec, block| spec.block(block, Block::full()));
        // A chain with sectors of its own, a last block of one sector, and a hole in between.
        let base = base.block(64, Block::full());
        let child =
            Spec::child_of(&base, "base.vhdx").block(3, part(5..9)).block(7, Block::zero()).block(9, Block::full());
        let images = [child.build(), base.build()];
        for (name, image) in ["child.avhdx", "base.vhdx"].into_iter().zip(&images) {
            std::fs::write(mount.0.join(name), image.bytes.to_vec()).unwrap();
        }
        let disk = Model::read(&[&images[0].model, &images[1].model], 0, (64 << 20) + 512).unwrap();
        let before = free(&mount.0);
        let (image, out) = (mount.0.join("child.avhdx"), mount.0.join("out"));
        let ran = vhdx_run(args!["extract", "--hash", "sha256", &image, &out]).done();
        assert!(std::fs::read(&out).unwrap() == disk, "{kind}");
        assert!(ran.text().starts_with(&crate::support::hex(&<sha2::Sha256 as sha2::Digest>::digest(&disk))));
        let taken = before.saturating_sub(free(&mount.0));
        assert!(taken < 8 * MIB, "{kind}: {taken} bytes for 64 MiB that are there already");

        // Into an existing file, and as a copy with --reflink never.
        vhdx_run(args!["extract", "-n", &image, &out]).done();
        assert!(std::fs::read(&out).unwrap() == disk, "{kind}");
        let copy = mount.0.join("copy");
        vhdx_run(args!["extract", "--reflink", "never", &image, &copy]).done();
        assert!(std::fs::read(&copy).unwrap() == disk, "{kind}");
        let taken = before.saturating_sub(free(&mount.0));
        assert!(taken > 60 * MIB, "{kind}: {taken} bytes for a copy of 64 MiB");
        // A range that begins inside a block of the file system.
        vhdx_run(args!["extract", "--range", "512:20M", &image, mount.0.join("range")]).done();
        assert!(std::fs::read(mount.0.join("range")).unwrap() == disk[512..(20 << 20) + 512], "{kind}");
    }
}

#[test]
fn extract_no_create_writes_into_existing_file() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let disk = content(&Spec::default());
    let out = folder.path().join("out");
    for options in
        [args![], args!["--sparse", "none"], args!["--sparse", "blocks"], args!["--hash", "md5"], args!["--direct"]]
    {
        for length in [0, 5 << 20, 8 << 20, 11 << 20] {
            std::fs::write(&out, vec![0xee; length]).unwrap();
            let inode = out.metadata().unwrap().ino();
            let ran = vhdx_run([args!["extract", "-n", &path, &out], options.clone()].concat());
            if !ran.status.success() && options == args!["--direct"] {
                assert_fails(&ran, 73, &["cannot be opened for direct writes"]);
                continue;
            }
            ran.done();
            let found = std::fs::read(&out).unwrap();
            assert_eq!(found.len(), length.max(8 << 20));
            assert!(found[..8 << 20] == disk, "{options:?} {length}");
            assert!(found[8 << 20..].iter().all(|byte| *byte == 0xee), "bytes after the disk are kept");
            assert_eq!(out.metadata().unwrap().ino(), inode);
        }
    }
    assert_fails(&vhdx_run(args!["extract", "-n", &path, folder.path().join("new")]), 73, &["new: no such file"]);
    assert_fails(&vhdx_run(args!["extract", "-n", &path, &path]), 2, &["is the image itself"]);
    assert_fails(&vhdx_run(args!["extract", "-n", "-f", &path, &out]), 2, &["cannot be used with"]);
    assert_fails(&vhdx_run(args!["extract", "-n", &path, "-"]), 2, &["--no-create", "stream"]);
    assert_fails(&vhdx_run(args!["extract", "--verify", &path, "-"]), 2, &["--verify", "stream"]);
    std::fs::write(&out, vec![0xee; 9 << 20]).unwrap();
    assert_fails(
        &vhdx_run(args!["extract", "-n", "-O", "vhd", &path, &out]),
        73,
        &["the VHD footer must be at the end (found 9437184 bytes, expected 8389120)"],
    );
    assert_eq!(names_in(folder.path()), ["disk.vhdx", "out"]);
}

#[test]
fn extract_no_create_checks_the_image_before_writing() {
    let folder = temp_dir();
    let mut damaged = (0..64).fold(Spec::empty(64 * MIB), |spec, block| spec.block(block, Block::full()));
    // This is found while reading, not before: the file ends inside the last block.
    damaged.file_length = crate::kit::builder::FileLength::Exact(damaged.build().bytes.len() - 4096);
    let path = write_image(folder.path(), "disk.vhdx", &damaged);
    let out = folder.path().join("out");
    std::fs::write(&out, "precious").unwrap();
    let ran = vhdx_run(args!["extract", "-n", &path, &out]);
    assert_fails(&ran, 65, &["payload block 63"]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "precious", "nothing was begun");
}

#[test]
fn extract_hash_covers_the_whole_output() {
    let folder = temp_dir();
    let spec = Spec { disk_size: 8 * MIB - 512, ..Spec::default() };
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let out = folder.path().join("out.vhd");
    let words = args!["extract", "--verify", "--hash", "sha256,blake3", "-O", "vhd", "-q", &path, &out];
    let ran = vhdx_run(words).done();
    let bytes = std::fs::read(&out).unwrap();
    let name = out.display();
    assert_eq!(
        ran.text(),
        format!(
            "SHA256 ({name}) = {}\nBLAKE3 ({name}) = {}\n",
            crate::support::hex(&<sha2::Sha256 as sha2::Digest>::digest(&bytes)),
            blake3::hash(&bytes).to_hex()
        )
    );
    // If the disk goes to standard output, digests go to standard error.
    let ran = vhdx_run(args!["extract", "--hash", "crc32", "-q", &path, "-"]).done();
    assert!(ran.out == content(&spec));
    let expected = vhdx_run(args!["hash", "-a", "crc32", &path]).done().text();
    assert_eq!(ran.err.split(' ').next(), expected.split_whitespace().last());
    assert!(ran.err.ends_with("  -\n"), "{}", ran.err);
    assert_fails(&vhdx_run(args!["extract", "--hash", "sha512", &path, "-"]), 2, &["not one of crc32"]);
}

#[cfg(target_os = "linux")]
#[test]
fn extract_fails_if_its_folder_is_renamed() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    // The folder is renamed while the output is written.
    let out = inner.join("out");
    let mut command = crate::support::vhdx(args!["extract", "--verify", &path, &out]);
    command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let Some(running) = super::stops::start_and_hold(&mut command, &inner) else { return };
    let moved = folder.path().join("moved");
    std::fs::rename(&inner, &moved).unwrap();
    let ran = crate::support::Ran::from(running.finish());
    assert!(!moved.join("out").exists());
    assert_fails(&ran, ran.status.code().unwrap(), &["out: "]);
    assert!(matches!(ran.status.code(), Some(73 | 74)), "{}", ran.err);
}

#[test]
fn extract_verify_works_on_a_device() {
    // A loop device, which --verify reads again.
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let file = folder.path().join("device.img");
    std::fs::write(&file, vec![0xee; 8 << 20]).unwrap();
    let Some(device) = crate::device::Loop::of(&file) else { return };
    vhdx_run(args!["extract", "-f", "--verify", &path, &device.0]).done();
    vhdx_run(args!["compare", &path, &device.0]).done();
}
