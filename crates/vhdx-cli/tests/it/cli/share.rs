//! `vhdx extract`: file systems that share blocks, targets that are there already, and looking at what was written.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::device::file_system;
use crate::kit::builder::Spec;
use crate::kit::{Block, MIB, Model};
use crate::support::temp_dir;

use super::{args, assert_fails, content, names_in, part, vhdx_run, write_image};

/// Bytes that a file system has free.
fn free(path: &Path) -> u64 {
    let file = std::fs::File::open(path).unwrap();
    rustix::fs::syncfs(&file).unwrap();
    let found = rustix::fs::fstatvfs(&file).unwrap();
    found.f_bavail * found.f_frsize
}

#[test]
fn blocks_are_shared_where_the_file_system_can() {
    for kind in ["xfs", "btrfs"] {
        let folder = temp_dir();
        let Some(mount) = file_system(folder.path(), kind) else { continue };
        let base = (0..64).fold(Spec::empty(64 * MIB + 512), |spec, block| spec.block(block, Block::full()));
        // A chain that has sectors of its own, a block at the end that is a sector long, and a hole in between.
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

        // Onto a file that is there, and copied where that is wanted.
        vhdx_run(args!["extract", "-n", &image, &out]).done();
        assert!(std::fs::read(&out).unwrap() == disk, "{kind}");
        let copy = mount.0.join("copy");
        vhdx_run(args!["extract", "--reflink", "never", &image, &copy]).done();
        assert!(std::fs::read(&copy).unwrap() == disk, "{kind}");
        let taken = before.saturating_sub(free(&mount.0));
        assert!(taken > 60 * MIB, "{kind}: {taken} bytes for a copy of 64 MiB");
        // A range that begins where no block of the file system does.
        vhdx_run(args!["extract", "--range", "512:20M", &image, mount.0.join("range")]).done();
        assert!(std::fs::read(mount.0.join("range")).unwrap() == disk[512..(20 << 20) + 512], "{kind}");
    }
}

#[test]
fn a_file_that_is_there_is_written_into() {
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
                assert_fails(&ran, 73, &["can't be written to directly"]);
                continue;
            }
            ran.done();
            let found = std::fs::read(&out).unwrap();
            assert_eq!(found.len(), length.max(8 << 20));
            assert!(found[..8 << 20] == disk, "{options:?} {length}");
            assert!(found[8 << 20..].iter().all(|byte| *byte == 0xee), "what lies behind the disk is kept");
            assert_eq!(out.metadata().unwrap().ino(), inode);
        }
    }
    assert_fails(
        &vhdx_run(args!["extract", "-n", &path, folder.path().join("new")]),
        73,
        &["no such file to write into"],
    );
    assert_fails(&vhdx_run(args!["extract", "-n", &path, &path]), 2, &["is the image itself"]);
    assert_fails(&vhdx_run(args!["extract", "-n", "-f", &path, &out]), 2, &["cannot be used with"]);
    assert_fails(&vhdx_run(args!["extract", "-n", &path, "-"]), 2, &["--no-create", "stream"]);
    assert_fails(&vhdx_run(args!["extract", "--verify", &path, "-"]), 2, &["--verify", "stream"]);
    std::fs::write(&out, vec![0xee; 9 << 20]).unwrap();
    assert_fails(&vhdx_run(args!["extract", "-n", "-O", "vhd", &path, &out]), 73, &["footer would not be found"]);
    assert_eq!(names_in(folder.path()), ["disk.vhdx", "out"]);
}

#[test]
fn work_on_a_file_in_place_says_what_it_leaves_behind() {
    let folder = temp_dir();
    let mut damaged = (0..64).fold(Spec::empty(64 * MIB), |spec, block| spec.block(block, Block::full()));
    // Found when it is read, not when it is planned: the file ends inside of the last block.
    damaged.file_length = crate::kit::builder::FileLength::Exact(damaged.build().bytes.len() - 4096);
    let path = write_image(folder.path(), "disk.vhdx", &damaged);
    let out = folder.path().join("out");
    std::fs::write(&out, "precious").unwrap();
    let ran = vhdx_run(args!["extract", "-n", &path, &out]);
    assert_fails(&ran, 65, &["payload block 63"]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "precious", "nothing was begun");
}

#[test]
fn what_is_written_is_what_the_digest_is_of() {
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
    // To a stream, digests go to standard error.
    let ran = vhdx_run(args!["extract", "--hash", "crc32", "-q", &path, "-"]).done();
    assert!(ran.out == content(&spec));
    let expected = vhdx_run(args!["hash", "-a", "crc32", &path]).done().text();
    assert_eq!(ran.err.split(' ').next(), expected.split(' ').next());
    assert!(ran.err.ends_with("  -\n"), "{}", ran.err);
    assert_fails(&vhdx_run(args!["extract", "--hash", "sha512", &path, "-"]), 2, &["not one of crc32"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_target_that_vanishes_on_the_way_is_told() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    // The folder goes away when the output is begun.
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
fn bytes_that_read_back_as_others_are_told() {
    // A medium that forgets: a loop device over a file that something else writes to.
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let file = folder.path().join("device.img");
    std::fs::write(&file, vec![0xee; 8 << 20]).unwrap();
    let Some(device) = crate::device::Loop::of(&file) else { return };
    vhdx_run(args!["extract", "-f", "--verify", &path, &device.0]).done();
    vhdx_run(args!["compare", &path, &device.0]).done();
}
