//! Files that are given in place of an image: all commands name them, and the step that helps.

use std::path::Path;

use serde_json::json;

use crate::kit::pattern;
use crate::schema::assert_valid;
use crate::support::{run, temp_dir, vhdx};

use super::{args, assert_fails, assert_has, vhdx_run};

/// A file: its name, its first bytes and its last ones; key and group of its format; words of the name and of the step.
type Case = (&'static str, &'static [u8], &'static [u8], [&'static str; 4]);

const CASES: &[Case] = &[
    ("a.vhdx", b"\x1f\x8b\x08\0", b"", ["gzip", "packed", "a gzip file", "`gzip -dc < a.vhdx > a.unpacked.vhdx`"]),
    ("a.vhdx", b"BZh91AY&SY", b"", ["bzip2", "packed", "a bzip2 file", "`bzip2 -dc < a.vhdx > a.unpacked.vhdx`"]),
    ("a.vhdx", b"\xfd7zXZ\0\0\x04", b"", ["xz", "packed", "an xz file", "`xz -dc < a.vhdx > a.unpacked.vhdx`"]),
    ("a.vhdx", b"\x04\x22\x4d\x18", b"", ["lz4", "packed", "an lz4 file", "`lz4 -dc < a.vhdx > a.unpacked.vhdx`"]),
    ("a.zst", b"\x28\xb5\x2f\xfd", b"", ["zstd", "packed", "a zstd file", "`zstd -dc < a.zst > a.unpacked.vhdx`"]),
    ("a.vhdx", b"PK\x03\x04\x14\0", b"", ["zip", "archive", "a zip archive", "`unzip a.vhdx`"]),
    ("a.vhdx", b"7z\xbc\xaf\x27\x1c", b"", ["7z", "archive", "a 7z archive", "`7z x a.vhdx`"]),
    ("a.vhdx", b"Rar!\x1a\x07\x01", b"", ["rar", "archive", "a RAR archive", "`7z x a.vhdx`"]),
    ("a.vhdx", b"MSCF\0\0\0\0", b"", ["cab", "archive", "a CAB archive", "`7z x a.vhdx`"]),
    ("a.vhdx", b"\x24\x5d-lh5-", b"", ["lzh", "archive", "an LZH archive", "`7z x a.vhdx`"]),
    ("a.vhdx", b"MSWIM\0\0\0", b"", ["wim", "archive", "a WIM archive", "`7z x a.vhdx`"]),
    (
        "a.vhd",
        b"conectix\0\0\0\x02",
        b"",
        ["vhd", "disk-image", "a dynamic VHD", "`qemu-img convert -f vpc -O raw a.vhd a.raw`"],
    ),
    ("a.vhdx", b"QFI\xfb\0\0\0\x01", b"", ["qcow", "disk-image", "a QCOW image", "-f qcow -O raw a.vhdx a.raw`"]),
    ("a.vhdx", b"QFI\xfb\0\0\0\x03", b"", ["qcow2", "disk-image", "a QCOW2 image", "-f qcow2 -O raw a.vhdx a.raw`"]),
    ("a.vhdx", b"QED\0", b"", ["qed", "disk-image", "a QED image", "-f qed -O raw"]),
    ("a.vhdx", b"KDMV\x01\0\0\0", b"", ["vmdk", "disk-image", "a VMDK image", "-f vmdk -O raw"]),
    ("a.vhdx", b"WithouFreSpacExt", b"", ["parallels", "disk-image", "a Parallels image", "-f parallels -O raw"]),
    ("a.vhdx", b"EVF\x09\x0d\x0a\xff\x00", b"", ["ewf", "disk-image", "an EWF (E01) image", "ewfmount a.vhdx"]),
    (
        "a.vhdx",
        b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x15\0\0\0container.description",
        b"",
        ["aff4", "disk-image", "an AFF4 image", "the program that made it"],
    ),
    ("a.dmg", b"\x05junk\x01", b"koly\0\0\0\x04", ["dmg", "disk-image", "a DMG image", "-f dmg -O raw a.dmg a.raw"]),
    ("a.vhdx", b"\x05junk\x01", b"conectix\0\0\0\x02\0\x01\0\0", ["vhd-fixed", "disk-image", "a fixed VHD", "-f vpc"]),
    (
        "a.vhdx",
        b"<!DOCTYPE html><html><body>Sign in",
        b"",
        ["html", "server-answer", "a web page", "download the file again"],
    ),
    ("a.vhdx", b"\xef\xbb\xbf \r\n<HTML>", b"", ["html", "server-answer", "a web page", "download the file again"]),
    (
        "a.vhdx",
        b"<?xml version='1.0'?><Error>",
        b"",
        ["xml", "server-answer", "an XML document", "download the file again"],
    ),
    (
        "a.vhdx",
        b"\xff\xfe<\0!\0D\0O\0C\0T\0Y\0P\0E\0 \0h\0t\0m\0l\0>\0<\0h\0t\0m\0l\0>\0\xfc\0",
        b"",
        ["html", "server-answer", "a web page", "download the file again"],
    ),
    (
        "a.vhdx",
        b"\xfe\xff\0<\0?\0x\0m\0l\0 \0v\0?\0>\0<\0E\0r\0r\0o\0r\0>",
        b"",
        ["xml", "server-answer", "an XML document", "download the file again"],
    ),
    ("a.vhdx", b"<\0h\0t\0m\0l\0>\0", b"", ["html", "server-answer", "a web page", "download the file again"]),
    (
        "a.vhdx",
        b"\xff\xfe<\0c\0o\0n\0f\0i\0g\0u\0r\0a\0t\0i\0o\0n\0>\0",
        b"",
        ["hyper-v-xml", "virtual-machine", "a Hyper-V configuration (.xml)", "name a disk of the machine"],
    ),
    (
        "a.vhdx",
        b"\xef\xbb\xbf<Error><Code>AccessDenied</Code></Error>",
        b"",
        ["xml", "server-answer", "an XML document", "download the file again"],
    ),
    (
        "a.vhdx",
        b"<D:error xmlns:D=\"DAV:\"/>",
        b"",
        ["xml", "server-answer", "an XML document", "download the file again"],
    ),
    (
        "a.vhdx",
        b"{\"error\":{\"code\":\"itemNotFound\"}}",
        b"",
        ["json", "server-answer", "a JSON document", "download the file again"],
    ),
    ("a.vhdx", b" [ {} ]", b"", ["json", "server-answer", "a JSON document", "download the file again"]),
    (
        "a.vhdx",
        b"[{000214A0-0000-0000-C000-000000000046}]\r\nProp3=19,2\r\n[InternetShortcut]\r\nURL=https://x/\xe4\r\n",
        b"",
        ["url", "pointer", "a link to a web page (.url)", "download the file to which it leads"],
    ),
    (
        "a.url",
        b"\xff\xfe[\0I\0n\0t\0e\0r\0n\0e\0t\0S\0h\0o\0r\0t\0c\0u\0t\0]\0",
        b"",
        ["url", "pointer", "a link to a web page (.url)", "download the file to which it leads"],
    ),
    (
        "a.desktop",
        b"#!/usr/bin/env xdg-open\n[Desktop Entry]\nType=Link\n",
        b"",
        ["desktop", "pointer", "a desktop entry", "name the file to which it points"],
    ),
    (
        "a.lnk",
        b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0F",
        b"",
        ["lnk", "pointer", "a Windows shortcut", "name the file to which it points"],
    ),
    (
        "a.vhdx",
        b"book\0\0\0\0mark\0\0\0\0",
        b"",
        ["alias", "pointer", "an alias of macOS", "name the file to which it points"],
    ),
    (
        "a.vhdx",
        b"bplist00\xd1\x01\x02\x53URL\x5fhttps://x/",
        b"",
        ["webloc", "pointer", "a link to a web page (.webloc)", "download the file to which it leads"],
    ),
    (
        "a.vhdx",
        b"<?xml version=\"1.0\"?><!DOCTYPE plist><plist><dict><key>URL</key></dict></plist>",
        b"",
        ["webloc", "pointer", "a link to a web page (.webloc)", "download the file to which it leads"],
    ),
    (
        "a.vhdx",
        b"bplist00\xd1\x01\x02\x5c NSURLNameKey",
        b"",
        ["plist", "no-content", "a property list", "fetch the file again"],
    ),
    (
        "._a.vhdx",
        b"\0\x05\x16\x07\0\x02\0\0Mac OS X",
        b"",
        ["apple-double", "other-file", "attributes of a file", "name a VHDX or AVHDX image"],
    ),
    (
        "a.vhdx.sha256",
        b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a.vhdx\n",
        b"",
        ["checksums", "other-file", "a list of checksums", "name a VHDX or AVHDX image"],
    ),
    (
        "a.vhdx",
        b"[ZoneTransfer]\r\nZoneId=3\r\n",
        b"",
        ["zone", "other-file", "the origin of a download", "name a VHDX or AVHDX image"],
    ),
    ("a.ini", b"[section]\nkey=1\n", b"", ["text", "server-answer", "a text file", "download the file again"]),
    (
        "a.vhdx",
        b"version https://git-lfs.github.com/spec/v1\noid",
        b"",
        ["git-lfs", "pointer", "a Git LFS pointer", "`git lfs pull --include a.vhdx`"],
    ),
    (
        "a.vmcx",
        b"\x14\x20\x28\x01",
        b"",
        ["vmcx", "virtual-machine", "a Hyper-V configuration", "name a disk of the machine"],
    ),
    (
        "a.vhdx",
        b"\x14\x20\x28\x01",
        b"",
        ["vmcx", "virtual-machine", "a Hyper-V configuration", "name a disk of the machine"],
    ),
    ("a.vmrs", b"\x05junk\x01", b"", ["vmrs", "virtual-machine", "a Hyper-V state", "name a disk of the machine"]),
    ("a.vmgs", b"GUESTRTS", b"", ["vmgs", "virtual-machine", "a Hyper-V guest state", "name a disk of the machine"]),
    ("a.vhds", b"\x05junk\x01", b"", ["vhds", "virtual-machine", "a VHD Set", ".avhdx file of the set"]),
    (
        "a.vhdx.rct",
        b"\x05junk\x01",
        b"",
        ["rct", "virtual-machine", "a list of changes", "name the disk itself: a.vhdx"],
    ),
    ("a.VHDX.MRT", b"\0\0", b"", ["mrt", "virtual-machine", "a list of changes", "name the disk itself: a.VHDX"]),
    ("a.vhdx", b"", b"", ["zeros", "no-content", "a file of zeros only", "fetch the file again"]),
    ("a.vhdx", b"\x05junk\x01", b"", ["raw", "unknown", "raw data", "searches for the rest"]),
];

/// Runs in the folder of the file, so that its name is as short as in the hints.
fn in_folder(folder: &Path, words: &[&str]) -> crate::support::Ran {
    run(vhdx(words.iter()).current_dir(folder))
}

#[test]
fn all_commands_name_what_is_given_by_mistake() {
    for (name, head, tail, [key, group, words, step]) in CASES {
        let folder = temp_dir();
        let mut bytes = head.to_vec();
        bytes.resize(6000 - 512, 0);
        bytes.extend(*tail);
        bytes.resize(6000, 0);
        std::fs::write(folder.path().join(name), &bytes).unwrap();
        for command in [&["info"][..], &["map"], &["log"], &["hash"], &["chain"]] {
            let ran = in_folder(folder.path(), &[command, &[*name]].concat());
            assert_fails(&ran, 65, &["not a VHDX image (looks like", words, step]);
        }
        let ran = in_folder(folder.path(), &["extract", name, "out.raw"]);
        assert_fails(&ran, 65, &[words, step]);
        let ran = in_folder(folder.path(), &["info", "--salvage", name]);
        assert_fails(&ran, 65, &["not a VHDX image (looks like", words]);
        assert!(!ran.err.contains("header 1"), "{name}: {}", ran.err);
        // One line, and nothing of headers.
        let ran = in_folder(folder.path(), &["check", name]);
        let text = ran.text();
        assert_eq!((ran.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains(&format!("{name}: not a VHDX image (looks like {words}")), "{text}");
        // The check has searched already.
        let step = if *group == "unknown" { &"a search found no part of an image in it" } else { step };
        assert!(text.contains(step), "{text}");
        let report = in_folder(folder.path(), &["check", "--output", "json", name]).json();
        assert_has(&report, &json!({ "format": null, "looks-like": { "format": key, "group": group } }));
        assert_eq!(report["findings"].as_array().unwrap().len(), 1, "{report}");
        let expected = json!({ "looks-like": { "format": key, "group": group } });
        for command in [&["info"][..], &["map"], &["hash"], &["chain"], &["log"]] {
            let ran = in_folder(folder.path(), &[command, &["--json", name]].concat());
            assert_has(&ran.json(), &expected);
        }
        for command in [&["extract", "--json", name, "out.raw"][..], &["hash", "--json", name, name]] {
            let report = in_folder(folder.path(), command).json();
            assert_has(report.get(0).unwrap_or(&report), &expected);
        }
    }
}

/// What a file is, is said of that file only, and only of files that are no images.
#[test]
fn json_names_the_file_that_was_given_by_mistake() {
    let folder = temp_dir();
    let base = crate::kit::builder::Spec::default();
    super::write_image(folder.path(), "good.vhdx", &base);
    super::write_image(folder.path(), "child.avhdx", &crate::kit::builder::Spec::child_of(&base, "base.vhdx"));
    let mut bytes = b"\x1f\x8b\x08\0".to_vec();
    bytes.resize(1 << 20, 1);
    for name in ["base.vhdx", "packed.vhdx"] {
        std::fs::write(folder.path().join(name), &bytes).unwrap();
    }
    let json = |words: &[&str]| in_folder(folder.path(), words).json();
    let gzip = json!({ "looks-like": { "format": "gzip", "group": "packed", "name": "a gzip file" } });
    for words in [
        &["hash", "--json", "child.avhdx"][..],
        &["hash", "--json", "missing.vhdx"],
        &["compare", "--json", "good.vhdx", "packed.vhdx"],
    ] {
        let report = json(words);
        assert!(report["error"].is_string() && report.get("looks-like").is_none(), "{words:?}: {report}");
    }
    assert_has(&json(&["compare", "--json", "packed.vhdx", "good.vhdx"]), &gzip);
    let tree = json(&["chain", "--tree", "--json", "packed.vhdx", "good.vhdx"]);
    assert_has(&tree["failed"][0], &gzip);
    let listed = in_folder(folder.path(), &["list", "--output", "json", "packed.vhdx", "good.vhdx"]).text();
    let rows: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.iter().for_each(|row| assert_valid(Some("list"), row));
    let of_name = |name: &str| rows.iter().find(|row| row["filename"] == name).unwrap();
    assert_has(of_name("packed.vhdx"), &gzip);
    assert_eq!(of_name("good.vhdx").get("looks-like"), None);
    let line = format!("SHA256 (packed.vhdx, disk) = {}\n", "0".repeat(64));
    std::fs::write(folder.path().join("list"), line).unwrap();
    assert_has(&json(&["verify", "--json", "--check", "list"])[0], &gzip);
}

#[test]
fn placeholders_without_content_are_named() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    // Empty, a hole of 1 TiB, and zeros with one byte of data far from the beginning.
    std::fs::write(&path, "").unwrap();
    assert_fails(&vhdx_run(args!["info", &path]), 65, &["an empty file", "fetch the file again"]);
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    assert_fails(&vhdx_run(args!["info", &path]), 65, &["a file of zeros only", "fetch the file again"]);
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 1 << 39).unwrap();
    assert_fails(&vhdx_run(args!["info", &path]), 65, &["an image whose beginning is lost", "extract --salvage"]);
}

#[test]
fn images_are_not_taken_for_other_files_by_name() {
    let folder = temp_dir();
    for name in ["disk.rct", "disk.vhds", "disk.html"] {
        let path = super::write_image(folder.path(), name, &crate::kit::builder::Spec::default());
        vhdx_run(args!["info", &path]).done();
    }
    let noise = folder.path().join("noise");
    std::fs::write(&noise, pattern(5, 0, 3_000_000)).unwrap();
    assert_fails(&vhdx_run(args!["info", &noise]), 65, &["looks like raw data"]);
}
