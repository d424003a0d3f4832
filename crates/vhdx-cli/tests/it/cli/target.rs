//! `vhdx extract`: allowed outputs, and what happens to existing files.

use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::kit::builder::Spec;
use crate::kit::{Block, FileBytes, GIB, TIB};
use crate::support::{Ran, run, run_to, temp_dir, vhdx};

use super::{args, assert_fails, content, names_in, vhdx_run, write_image};

/// Makes a named pipe.
pub(super) fn make_pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// Runs the command with a umask.
fn with_umask(umask: &str, args: Vec<std::ffi::OsString>) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]).arg(vhdx::<&str>([]).get_program());
    run(command.args(args))
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn extract_keeps_existing_files_without_force() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let there = folder.path().join("there");
    for content in ["", "precious"] {
        std::fs::write(&there, content).unwrap();
        let ran = vhdx_run(args!["extract", &path, &there]);
        assert_fails(&ran, 73, &["there: exists already", "hint: --force"]);
        assert_eq!(std::fs::read_to_string(&there).unwrap(), content);
    }
    symlink("there", folder.path().join("link")).unwrap();
    assert_fails(&vhdx_run(args!["extract", &path, folder.path().join("link")]), 73, &["link: exists already"]);
    assert_eq!(names_in(folder.path()), ["disk.vhdx", "link", "there"]);
}

#[test]
fn extract_force_replaces_the_file() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let (there, twin) = (folder.path().join("there"), folder.path().join("twin"));
    std::fs::write(&there, vec![0xee; 20 << 20]).unwrap();
    std::fs::hard_link(&there, &twin).unwrap();
    let old = File::open(&there).unwrap();
    vhdx_run(args!["extract", "--force", &path, &there]).done();
    assert!(std::fs::read(&there).unwrap() == content(&Spec::default()));
    // Open handles and other names of the old file keep its content.
    assert_eq!(old.bytes_at(0, 20 << 20), vec![0xee; 20 << 20]);
    assert_ne!(there.metadata().unwrap().ino(), twin.metadata().unwrap().ino());
    assert_eq!(twin.metadata().unwrap().len(), 20 << 20);
    assert_eq!(names_in(folder.path()), ["disk.vhdx", "there", "twin"]);
}

#[test]
fn extract_force_follows_links() {
    let (folder, other) = (temp_dir(), temp_dir());
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let real = other.path().join("real");
    std::fs::write(&real, "old").unwrap();
    let (link, second) = (folder.path().join("link"), folder.path().join("second"));
    symlink(&real, &link).unwrap();
    symlink("link", &second).unwrap();
    vhdx_run(args!["extract", "--force", &path, &second]).done();
    assert!(std::fs::read(&real).unwrap() == content(&Spec::default()));
    assert_eq!((second.read_link().unwrap(), link.read_link().unwrap()), ("link".into(), real));
    assert_eq!((names_in(folder.path()).len(), names_in(other.path()).len()), (3, 1));
}

#[test]
fn extract_rejects_or_follows_dangling_links() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let link = folder.path().join("link");
    symlink("missing", &link).unwrap();
    // The output is checked before the work.
    let ran = vhdx_run(args!["extract", "--force", &path, &link]);
    match ran.status.code() {
        Some(0) => assert!(std::fs::read(folder.path().join("missing")).unwrap() == content(&Spec::default())),
        // Not "File exists", since `--force` is given.
        _ => assert_fails(&ran, 73, &["link"]),
    }
    assert!(!ran.err.contains("File exists"), "{}", ran.err);
    assert_eq!(link.read_link().unwrap().to_str(), Some("missing"));
}

#[test]
fn extract_force_keeps_permissions() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    for permissions in [0o600, 0o640, 0o444, 0o755, 0o664, 0o666] {
        let out = folder.path().join("out");
        std::fs::write(&out, "old").unwrap();
        std::fs::set_permissions(&out, Permissions::from_mode(permissions)).unwrap();
        with_umask("022", args!["extract", "--force", &path, &out]).done();
        assert_eq!(mode(&out), permissions, "{:o} instead of {permissions:o}", mode(&out));
        assert!(std::fs::read(&out).unwrap() == content(&Spec::default()));
        std::fs::remove_file(&out).unwrap();
    }
}

#[test]
fn extract_respects_the_umask() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    for (umask, expected) in [("022", 0o644), ("077", 0o600), ("002", 0o664), ("000", 0o666)] {
        let out = folder.path().join("out");
        with_umask(umask, args!["extract", &path, &out]).done();
        assert_eq!(mode(&out), expected, "{umask}");
        std::fs::remove_file(&out).unwrap();
    }
}

#[test]
fn extract_reports_paths_that_cannot_be_files() {
    let folder = temp_dir();
    let at = |name: &str| folder.path().join(name);
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    std::fs::create_dir(at("folder")).unwrap();
    symlink("folder", at("link")).unwrap();
    for (out, words) in [
        (at("folder"), &["folder: is a directory"][..]),
        (at("link"), &["link: is a directory"]),
        (at("no/such/out"), &["no/such/out: cannot be created"]),
        (at("disk.vhdx/out"), &["disk.vhdx/out: cannot be created"]),
        (at("new/"), &["new/"]),
    ] {
        for force in [args![], args!["--force"]] {
            let ran = vhdx_run(args!["extract", &path, &out].into_iter().chain(force));
            assert_fails(&ran, 73, words);
            // The name of the temporary file is of no interest.
            assert!(!ran.err.contains(".partial"), "{}", ran.err);
        }
    }
    assert_eq!(names_in(folder.path()), ["disk.vhdx", "folder", "link"]);
    assert!(names_in(&at("folder")).is_empty());
}

#[test]
fn extract_accepts_names_of_maximum_length() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    for length in [200, 240, 255] {
        let out = folder.path().join("n".repeat(length));
        // Skipped if the test itself cannot create such a file.
        if File::create(&out).is_err() {
            continue;
        }
        std::fs::remove_file(&out).unwrap();
        vhdx_run(args!["extract", &path, &out]).done();
        assert!(std::fs::read(&out).unwrap() == content(&Spec::default()), "{length}");
    }
}

#[test]
fn extract_writes_to_the_current_folder() {
    let folder = temp_dir();
    write_image(folder.path(), "disk.vhdx", &Spec::default());
    run(vhdx(["extract", "disk.vhdx", "out"]).current_dir(folder.path())).done();
    run(vhdx(["extract", "disk.vhdx", "./-"]).current_dir(folder.path())).done();
    assert_eq!(names_in(folder.path()), ["-", "disk.vhdx", "out"]);
}

#[test]
fn images_of_the_chain_are_never_written_to() {
    let folder = temp_dir();
    let base = Spec::default();
    let child = Spec::child_of(&base, "base.vhdx").block(0, Block::full());
    let base_path = write_image(folder.path(), "base.vhdx", &base);
    let path = write_image(folder.path(), "child.avhdx", &child);
    let at = |name: &str| folder.path().join(name);
    std::fs::hard_link(&path, at("hard-child")).unwrap();
    std::fs::hard_link(&base_path, at("hard-base")).unwrap();
    symlink("child.avhdx", at("soft-child")).unwrap();
    symlink(&base_path, at("soft-base")).unwrap();
    let (child_before, base_before) = (std::fs::read(&path).unwrap(), std::fs::read(&base_path).unwrap());
    for out in ["child.avhdx", "base.vhdx", "hard-child", "hard-base", "soft-child", "soft-base", "./child.avhdx"] {
        for options in [args!["--force"], args!["--force", "--no-mmap"], args!["--force", "-O", "vhd"], args![]] {
            let ran = vhdx_run(args!["extract", &path, at(out)].into_iter().chain(options));
            assert_fails(&ran, 2, &[out, "is the image itself or one of its parents"]);
        }
    }
    // Standard output must not be one of them either.
    for out in [&path, &base_path] {
        for args in [
            args!["extract", &path, "-"],
            args!["extract", "--force", &path, "-"],
            args!["read", "--range", "0:", &path],
            args!["read", "--range", "0:", "--hex", &path],
            args!["map", &path],
            args!["chain", "--output", "json", &path],
        ] {
            let file = std::fs::OpenOptions::new().append(true).open(out).unwrap();
            let ran = run_to(&mut vhdx(args), file.into());
            assert_fails(&ran, 2, &["standard output", "is the image itself or one of its parents"]);
        }
        let file = std::fs::OpenOptions::new().append(true).open(out).unwrap();
        let ran = run_to(&mut vhdx(args!["check", &path]), file.into());
        assert_fails(&ran, 1, &["standard output", "is the image itself or one of its parents"]);
    }
    // Nor does a failure as JSON get into an image, or what is printed about another one.
    let both = args!["info", &base_path, &path];
    for args in [args!["info", "--json", &path], args!["hash", "--json", &path], both] {
        let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        assert_fails(&run_to(&mut vhdx(args), file.into()), 2, &["standard output"]);
    }
    for command in ["log", "info"] {
        let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        assert_fails(&run_to(&mut vhdx(args![command, &path]), file.into()), 2, &["standard output"]);
    }
    assert!(std::fs::read(&path).unwrap() == child_before);
    assert!(std::fs::read(&base_path).unwrap() == base_before);
    assert_eq!(path.metadata().unwrap().nlink(), 2);
    assert_eq!(names_in(folder.path()).len(), 6);
}

#[test]
fn extract_rejects_a_disk_that_is_too_large_for_the_file_system() {
    let folder = temp_dir();
    let spec = Spec { block_size: 256 << 20, ..Spec::empty(64 * TIB) };
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    // Such as ext4, where files have at most 16 TiB.
    let probe = folder.path().join("probe");
    let can_be = File::create(&probe).unwrap().set_len(64 * TIB).is_ok();
    std::fs::remove_file(&probe).unwrap();
    let out = folder.path().join("out");
    let ran = vhdx_run(args!["extract", &path, &out]);
    if can_be {
        let metadata = out.metadata().unwrap();
        assert_eq!((ran.status.code(), metadata.len()), (Some(0), 64 * TIB));
        assert!(metadata.blocks() < 1000);
    } else {
        let size = "64.00 TiB (70368744177664 bytes)";
        assert_fails(&ran, 73, &["out: cannot be a file of", size, "hint: ", "--range"]);
        assert_eq!(names_in(folder.path()), ["disk.vhdx"]);
        // A part of it fits.
        vhdx_run(args!["extract", "--range", "63T:1G", &path, &out]).done();
        assert_eq!(out.metadata().unwrap().len(), GIB);
    }
}
