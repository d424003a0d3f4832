//! `vhdx compare`: images, chains and raw files.

use std::os::unix::fs::FileExt;

use serde_json::json;

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB};
use crate::support::temp_dir;

use super::{args, assert_fails, assert_has, content, keys, part, vhdx_run, write_image};

#[test]
fn compare_finds_equal_disks_in_all_formats() {
    let folder = temp_dir();
    let image = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let base = write_image(folder.path(), "base.vhdx", &Spec::default());
    let child = write_image(folder.path(), "child.avhdx", &Spec::child_of(&Spec::default(), "base.vhdx"));
    let raw = folder.path().join("disk.raw");
    std::fs::write(&raw, content(&Spec::default())).unwrap();
    for (one, other) in
        [(&image, &raw), (&raw, &image), (&child, &raw), (&child, &base), (&raw, &raw), (&image, &child)]
    {
        let ran = vhdx_run(args!["compare", "--no-siblings", one, other]).done();
        assert_eq!((ran.text().as_str(), ran.err.as_str()), ("Images are identical.\n", ""));
    }
    let ran = vhdx_run(args!["compare", "--no-mmap", "--cache", "drop", "--threads", "1", &image, &raw]).done();
    assert_eq!(ran.text(), "Images are identical.\n");
    let report = vhdx_run(args!["compare", "--output", "json", &image, &raw]).done().json();
    assert_eq!(keys(&report), ["schema", "filenames", "virtual-sizes", "in-use", "identical", "first-difference"]);
    assert_has(&report, &json!({ "virtual-sizes": [8 * MIB, 8 * MIB], "identical": true, "first-difference": null }));
}

#[test]
fn compare_reports_the_first_byte_or_every_range() {
    let folder = temp_dir();
    let base = write_image(folder.path(), "base.vhdx", &Spec::default());
    let child = Spec::child_of(&Spec::default(), "base.vhdx").block(2, part(8..16)).block(5, Block::zero());
    let child = write_image(folder.path(), "child.avhdx", &child);
    let ran = vhdx_run(args!["compare", &child, &base]);
    assert_fails(&ran, 1, &[]);
    assert_eq!(ran.text(), format!("Content mismatch at offset {}!\n", 2 * MIB + 4096));

    let ran = vhdx_run(args!["compare", "--all", &child, &base]);
    assert_fails(&ran, 1, &[]);
    let lines: Vec<Vec<String>> =
        ran.text().lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    assert_eq!(lines[1], ["0x201000", "0x1000", "0x201000"]);
    assert_eq!(lines[2], ["0x500000", "0x100000", "0x500000"]);
    assert_eq!(lines[3].join(" "), format!("Content mismatch: {} bytes in 2 ranges", MIB + 4096));

    let ran = vhdx_run(args!["compare", "--all", "--output", "json", &child, &base]);
    assert_has(
        &ran.json(),
        &json!({
            "differences": [
                { "start": 0x20_1000, "length": 4096, "first": 0x20_1000 },
                { "start": 5 * MIB, "length": MIB, "first": 5 * MIB },
            ],
            "identical": false,
            "first-difference": 0x20_1000,
            "differing-bytes": MIB + 4096,
        }),
    );
}

#[test]
fn compare_treats_a_shorter_disk_as_followed_by_zeros() {
    let folder = temp_dir();
    let image = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let raw = folder.path().join("disk.raw");
    let mut bytes = content(&Spec::default());
    bytes.resize(9 << 20, 0);
    std::fs::write(&raw, &bytes).unwrap();
    for (one, other) in [(&image, &raw), (&raw, &image)] {
        let ran = vhdx_run(args!["compare", one, other]).done();
        assert_eq!(ran.text(), "Images are identical.\n");
        assert!(ran.err.contains("disk.raw: longer than the other disk"), "{}", ran.err);
        assert_eq!(vhdx_run(args!["compare", "-q", one, other]).done().err, "");
        let ran = vhdx_run(args!["compare", "--strict", one, other]);
        assert_fails(&ran, 1, &[]);
        let sizes = if one == &image { (8 * MIB, 9 * MIB) } else { (9 * MIB, 8 * MIB) };
        assert_eq!(ran.text(), format!("The sizes differ: {} and {} bytes\n", sizes.0, sizes.1));
        let report = vhdx_run(args!["compare", "--strict", "--output", "json", one, other]).json();
        assert_has(&report, &json!({ "identical": false, "first-difference": null, "same-size": false }));
    }
    std::fs::File::options().write(true).open(&raw).unwrap().write_all_at(b"x", 9 * MIB - 3).unwrap();
    let ran = vhdx_run(args!["compare", &image, &raw]);
    assert_fails(&ran, 1, &[]);
    assert_eq!(ran.text(), format!("Content mismatch at offset {}!\n", 9 * MIB - 3));
}

#[test]
fn compare_accepts_formats_of_inputs() {
    let folder = temp_dir();
    let image = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let copy = folder.path().join("copy");
    std::fs::copy(&image, &copy).unwrap();
    // A file with the signature of an image is opened as one, unless --format raw is given.
    vhdx_run(args!["compare", &image, &copy]).done();
    vhdx_run(args!["compare", "-f", "raw", "-F", "raw", &image, &copy]).done();
    assert_fails(&vhdx_run(args!["compare", "-F", "raw", &image, &copy]), 1, &[]);
    // A file with the name of an image must be one.
    let raw = folder.path().join("other.avhdx");
    std::fs::write(&raw, content(&Spec::default())).unwrap();
    assert_fails(&vhdx_run(args!["compare", &image, &raw]), 65, &["other.avhdx", "not a VHDX image"]);
    vhdx_run(args!["compare", "-F", "raw", &image, &raw]).done();
    assert_fails(&vhdx_run(args!["compare", "-F", "vhdx", &image, "/dev/null"]), 66, &["/dev/null"]);
    assert_fails(&vhdx_run(args!["compare", &image, "/dev/null"]), 66, &["/dev/null", "character device"]);
    assert_fails(&vhdx_run(args!["compare", &image, folder.path()]), 66, &["is a directory"]);
    assert_fails(&vhdx_run(args!["compare", &image, folder.path().join("missing")]), 66, &["missing"]);
    assert_fails(&vhdx_run(args!["compare", &image]), 2, &["<B>"]);
}

#[test]
fn compare_names_the_image_of_an_error() {
    let folder = temp_dir();
    let good = write_image(folder.path(), "good.vhdx", &Spec::default());
    let mut damaged = Spec::default();
    damaged.raw_bat.insert(5, 4);
    let bad = write_image(folder.path(), "bad.vhdx", &damaged);
    for (one, other) in [(&good, &bad), (&bad, &good)] {
        let ran = vhdx_run(args!["compare", "--all", one, other]);
        assert_fails(&ran, 65, &["error: ", "bad.vhdx: BAT entry of payload block 5"]);
        assert!(!ran.err.contains("good.vhdx"), "{}", ran.err);
    }
}
