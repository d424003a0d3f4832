//! Inputs that are not images, or only a part of one.

use std::path::Path;

use crate::kit::builder::Spec;
use crate::kit::log::Dirty;
use crate::kit::{Block, KIB, MIB, pattern};
use crate::support::{run, skip, temp_dir, vhdx};

use super::partitions::gpt;
use super::{args, assert_fails, names_in, vhdx_run, volumes};

/// Every command with `image`, and with an output in `folder` if it has one.
fn all_commands(image: &Path, folder: &Path) -> Vec<Vec<std::ffi::OsString>> {
    vec![
        args!["info", image],
        args!["info", "--output", "json", image],
        args!["map", image],
        args!["map", "--output", "json", image],
        args!["extract", image, folder.join("out")],
        args!["extract", image, "-"],
        args!["convert", "--format", "vhd", image, folder.join("out.vhd")],
        args!["read", "--range", "0:1", image],
        args!["log", image],
        args!["log", "--output", "json", image],
        args!["chain", image],
        args!["info", "--no-mmap", image],
    ]
}

/// Asserts that every command rejects the file, names it, and leaves no output.
#[track_caller]
fn assert_rejected(image: &Path, code: i32, words: &[&str]) {
    let folder = temp_dir();
    for args in all_commands(image, folder.path()) {
        let ran = vhdx_run(&args);
        assert_fails(&ran, code, words);
        assert!(ran.err.contains(image.to_str().unwrap()), "{args:?}: {}", ran.err);
        // JSON says why there is no report.
        if args.contains(&"json".into()) {
            assert!(ran.json()["error"].is_string(), "{args:?}");
            continue;
        }
        assert!(ran.out.is_empty(), "{args:?}: {:?}", String::from_utf8_lossy(&ran.out));
    }
    assert!(names_in(folder.path()).is_empty());
}

#[test]
fn inputs_that_are_not_files_cannot_be_opened() {
    let folder = temp_dir();
    let at = |name: &str| folder.path().join(name);
    assert_rejected(&at("missing.vhdx"), 66, &["cannot be opened", "No such file"]);
    assert_rejected(folder.path(), 66, &["a directory"]);
    std::fs::write(at("file"), "").unwrap();
    assert_rejected(&at("file/below"), 66, &["cannot be opened"]);
    std::os::unix::fs::symlink("missing", at("dangling")).unwrap();
    assert_rejected(&at("dangling"), 66, &["cannot be opened"]);
    std::os::unix::fs::symlink("circle", at("circle")).unwrap();
    assert_rejected(&at("circle"), 66, &["cannot be opened"]);
    for device in ["/dev/zero", "/dev/full", "/dev/tty"] {
        if Path::new(device).exists() {
            assert_rejected(Path::new(device), 66, &["a character device"]);
        }
    }
    // A pipe without a writer: opening it for reading would wait forever.
    let pipe = at("pipe");
    super::target::make_pipe(&pipe);
    assert_rejected(&pipe, 66, &["a pipe"]);
}

#[test]
fn socket_cannot_be_opened() {
    // Sockets need short paths.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert_rejected(&path, 66, &["a socket"]);
}

#[test]
fn empty_file_is_reported_as_empty() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    std::fs::write(&path, "").unwrap();
    assert_rejected(&path, 65, &["not a VHDX image", "an empty file"]);
}

/// Bytes of a raw disk with a partition table.
fn partitioned(pieces: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut disk = vec![0; 16 << 20];
    for (offset, bytes) in pieces {
        let at = usize::try_from(*offset).unwrap();
        disk[at..at + bytes.len()].copy_from_slice(bytes);
    }
    disk
}

#[test]
fn other_formats_are_named() {
    let folder = temp_dir();
    let mbr = {
        let mut sector = vec![0; 512];
        sector[446..462].copy_from_slice(&[0x80, 1, 1, 0, 7, 254, 255, 255, 0, 8, 0, 0, 0, 16, 0, 0]);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        partitioned(&[(0, sector)])
    };
    // A fixed VHD is a raw disk and a footer; the disk can hold anything.
    let fixed = |disk: &[u8]| [disk, b"conectix\0\0\0\x02\0\x01\0\0", &[0xff; 8], &[0; 488]].concat();
    let with_gpt = partitioned(&gpt(512, 16 << 20, &[]));
    let ext = partitioned(&volumes::signature("ext4"));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("dynamic VHD", fixed(b""), "VHD"),
        ("fixed VHD of zeros", fixed(&vec![0; 1 << 20]), "VHD"),
        ("fixed VHD of data", fixed(&pattern(1, 0, 1 << 20)), "VHD"),
        ("fixed VHD with an MBR", fixed(&mbr), "VHD"),
        ("fixed VHD with a GPT", fixed(&with_gpt), "VHD"),
        ("fixed VHD with a file system", fixed(&ext), "VHD"),
        ("qcow2", [b"QFI\xfb\0\0\0\x03".to_vec(), vec![0; 504]].concat(), "QCOW2"),
        ("VMDK", [b"KDMV\x01\0\0\0\x03\0\0\0".to_vec(), vec![0; 500]].concat(), "VMDK"),
        ("VMDK descriptor", b"# Disk DescriptorFile\nversion=1\n".to_vec(), "VMDK"),
        ("ISO", [vec![0; 0x8000], b"\x01CD001\x01\0".to_vec(), vec![0; 2040]].concat(), "ISO"),
        ("zip", b"PK\x03\x04\x14\0\0\0\x08\0".repeat(100), "zip"),
        ("raw with an MBR", mbr, "raw disk"),
        ("raw with a GPT", with_gpt, "raw disk"),
        ("raw ext", ext, "raw"),
        ("anything", pattern(2, 0, 3_000_000), "raw"),
        ("text", b"vhdx".to_vec(), "a text file"),
        ("zeros", vec![0; 1 << 20], "zeros only"),
    ];
    for (what, bytes, word) in cases {
        let path = folder.path().join("disk.img");
        std::fs::write(&path, bytes).unwrap();
        let ran = vhdx_run(args!["info", &path]);
        assert_fails(&ran, 65, &["file type identifier at 0x0: not a VHDX image"]);
        let like = ran.err.split("looks like").nth(1).unwrap_or_default();
        assert!(like.contains(word), "{what}: {}", ran.err);
        assert_rejected(&path, 65, &["not a VHDX image"]);
    }
}

#[test]
fn other_formats_made_by_qemu_are_named() {
    let folder = temp_dir();
    for (format, options, word) in [
        ("vpc", "subformat=dynamic", "VHD"),
        ("vpc", "subformat=fixed", "VHD"),
        ("qcow2", "compat=1.1", "QCOW2"),
        ("vmdk", "subformat=monolithicSparse", "VMDK"),
        ("vmdk", "subformat=monolithicFlat", "VMDK"),
        ("vmdk", "subformat=streamOptimized", "VMDK"),
        ("vdi", "static=off", "VDI"),
        ("raw", "preallocation=off", "raw"),
    ] {
        let path = folder.path().join("disk.img");
        let mut command = std::process::Command::new("qemu-img");
        command.args(["create", "-q", "-f", format, "-o", options]).arg(&path).arg("8M");
        if !command.status().is_ok_and(|status| status.success()) {
            return skip("qemu", "no qemu-img that makes these formats");
        }
        let ran = vhdx_run(args!["info", &path]);
        assert_fails(&ran, 65, &["not a VHDX image (looks like", word]);
    }
}

#[test]
fn truncated_file_is_an_error_at_any_length() {
    let folder = temp_dir();
    let spec = Spec::empty(6 * MIB).block(0, Block::full()).block(3, Block::full());
    let (clean, dirty) = (spec.build(), Dirty::StaleBeforeTail.build(&spec));
    for image in [clean, dirty] {
        let whole = image.bytes.to_vec();
        let length = image.bytes.len();
        let near = [8, 520, 64 * KIB, 68 * KIB, 128 * KIB, 132 * KIB, 192 * KIB, 256 * KIB, 320 * KIB]
            .into_iter()
            .chain((1..length / MIB).map(|count| count * MIB))
            .flat_map(|edge| [edge - 1, edge, edge + 1]);
        for cut in near.chain([0, 1, length - 512, length - 1]).chain((0..length).step_by(777_777)) {
            let path = folder.path().join("disk.vhdx");
            std::fs::write(&path, &whole[..usize::try_from(cut).unwrap()]).unwrap();
            let out = folder.path().join("out");
            let ran = vhdx_run(args!["extract", &path, &out]);
            assert_fails(&ran, 65, &["disk.vhdx"]);
            assert_eq!(names_in(folder.path()), ["disk.vhdx"], "{cut}");
            // These commands can succeed if they do not need what is missing.
            for command in ["info", "log"] {
                let ran = vhdx_run(args![command, "--output", "json", &path]);
                match ran.status.code() {
                    Some(0) => assert!(ran.json().is_object(), "{cut}"),
                    _ => assert_fails(&ran, 65, &["disk.vhdx"]),
                }
            }
        }
    }
}

#[test]
fn truncated_file_has_a_hint_to_copy_it_again() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    let whole = Spec::default().build().bytes.to_vec();
    // In the headers, the metadata, the BAT, and the last block.
    for cut in [600_000, 2_500_000, 3_000_001, 6_500_000] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let ran = vhdx_run(args!["extract", &path, folder.path().join("out")]);
        assert_fails(&ran, 65, &["hint: the file may be truncated: copy all of it again", "--salvage"]);
    }
}

#[test]
fn file_names_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;

    let folder = temp_dir();
    let path = folder.path().join(std::ffi::OsStr::from_bytes(b"disk-\xff\xfe.vhdx"));
    if std::fs::write(&path, "").is_err() {
        return skip("filenames", "the file system takes text only");
    }
    Spec::default().build().bytes.write_file(&path).unwrap();
    for command in ["info", "map", "log", "chain"] {
        vhdx_run(args![command, &path]).done();
        assert!(!vhdx_run(args![command, "--output", "json", &path]).done().json().is_null());
    }
    vhdx_run(args!["extract", &path, folder.path().join("out")]).done();
    let mut command = vhdx(["info", "--", "-not-an-option.vhdx"]);
    std::fs::rename(&path, folder.path().join("-not-an-option.vhdx")).unwrap();
    run(command.current_dir(folder.path())).done();
}
