//! `vhdx check`: exit codes, JSON and counts.

use std::path::{Path, PathBuf};

use crate::kit::builder::{FileLength, Image, Spec};
use crate::kit::{Block, MIB};
use crate::support::{Ran, run, temp_dir, vhdx};

fn write(folder: &Path, name: &str, image: &Image) -> PathBuf {
    let path = folder.join(name);
    image.bytes.write_file(&path).unwrap();
    path
}

fn check(args: &[&str], path: &Path) -> Ran {
    run(vhdx(["check"]).args(args).arg(path))
}

fn patched(patch: impl FnOnce(&mut Image)) -> Image {
    let mut image = Spec::default().build();
    patch(&mut image);
    image
}

#[test]
fn check_exit_codes_match_qemu_img() {
    let folder = temp_dir();
    let forgotten = Spec { raw_bat: [(2, 0)].into(), ..Spec::default() };
    let far = Spec { raw_bat: [(2, (1 << 40) | 6)].into(), ..Spec::default() };
    let cases = [
        ("clean", Spec::default().build(), 0),
        ("one-header", patched(|image| image.patch_header_raw(1, 100, b"x")), 0),
        ("forgotten", forgotten.build(), 3),
        ("far", far.build(), 2),
        ("version", patched(|image| image.patch_headers(66, &[2, 0])), 63),
    ];
    for (name, image, code) in cases {
        let path = write(folder.path(), name, &image);
        let ran = check(&[], &path);
        assert_eq!(ran.status.code(), Some(code), "{name}: {}{}", ran.text(), ran.err);
        let report = check(&["--output", "json"], &path);
        assert_eq!(report.status.code(), Some(code), "{name}");
        assert_eq!(report.json()["format"], "vhdx");
    }
    let text = folder.path().join("text");
    std::fs::write(&text, "no image\n").unwrap();
    let ran = check(&[], &text);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.text());
    assert!(ran.text().contains("not a VHDX image"), "{}", ran.text());
    let ran = check(&[], &folder.path().join("missing"));
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.err.contains("cannot be opened"), "{}", ran.err);
    // With --strict, a warning counts as corruption.
    let path = folder.path().join("one-header");
    assert_eq!(check(&["--strict"], &path).status.code(), Some(2));
    // The worst of several images decides the exit code.
    let ran = run(vhdx(["check"]).args([folder.path().join("far"), folder.path().join("clean")]));
    assert_eq!(ran.status.code(), Some(2));
    assert!(ran.text().contains("clean: no errors were found on the image."), "{}", ran.text());
}

#[test]
fn check_json_begins_with_keys_of_qemu_img() {
    let folder = temp_dir();
    let far = Spec { raw_bat: [(2, (1 << 40) | 6)].into(), ..Spec::default() };
    let path = write(folder.path(), "far.vhdx", &far.build());
    let ran = check(&["--output", "json"], &path);
    let text = ran.text();
    let keys = [
        "filename",
        "format",
        "check-errors",
        "corruptions",
        "leaks",
        "image-end-offset",
        "total-clusters",
        "allocated-clusters",
        "fragmented-clusters",
    ];
    let places: Vec<_> = keys.iter().map(|key| text.find(&format!("  \"{key}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    let report = ran.json();
    assert_eq!(report["corruptions"], 1);
    assert_eq!(report["total-clusters"], 8);
    assert_eq!(report["leaked-bytes"], MIB);
    let finding = report["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == "V68").unwrap();
    assert_eq!((&finding["severity"], &finding["range"]["start"]), (&"corruption".into(), &(2 * MIB).into()));
    assert_eq!(finding["offset"], 1_u64 << 40);
}

#[test]
fn check_payload_counts_zero_blocks() {
    let folder = temp_dir();
    let path = write(folder.path(), "zero.vhdx", &patched(|image| image.bytes.write(4 * MIB, &vec![0; 1 << 20])));
    assert!(!check(&[], &path).done().text().contains("[N5]"));
    let text = check(&["--payload"], &path).done().text();
    assert!(text.contains("1 allocated block holds only zeros"), "{text}");
    // Of twelve blocks in a row, one is trimmed, one has a reserved state, one holds a byte, and one is past the end of
    // the file.
    let entries = (0..12).map(|block| (block, ((8 + block) * MIB) | 6)).chain([(3, 2), (5, 4)]);
    let spec = Spec { raw_bat: entries.collect(), file_length: FileLength::Exact(19 * MIB), ..Spec::empty(12 * MIB) };
    let mut image = spec.build();
    image.bytes.write(17 * MIB, b"x");
    let text = check(&["--payload"], &write(folder.path(), "row.vhdx", &image)).text();
    assert!(text.contains("8 allocated blocks hold only zeros"), "{text}");
}

#[test]
fn check_finds_leaks_between_holes() {
    let folder = temp_dir();
    // After each block is a gap: all but three are holes, and one of these three holds zeros.
    let entries = (0..8).map(|block| (block, ((8 + 2 * block) * MIB) | 6));
    let spec = Spec { raw_bat: entries.collect(), file_length: FileLength::Exact(24 * MIB), ..Spec::empty(8 * MIB) };
    let mut image = spec.build();
    image.bytes.write(11 * MIB, b"x");
    image.bytes.write(13 * MIB, &[0; 4096]);
    image.bytes.write(14 * MIB, b"of a block");
    image.bytes.write(17 * MIB, b"x");
    let report = check(&["--output", "json"], &write(folder.path(), "gaps.vhdx", &image)).json();
    let leaks = report["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] == "leak");
    let leaks: Vec<_> = leaks.map(|finding| finding["offset"].as_u64().unwrap()).collect();
    assert_eq!(leaks, [11 * MIB, 17 * MIB], "{report}");
    assert_eq!((&report["leaks"], &report["leaked-bytes"]), (&2.into(), &(2 * MIB).into()), "{report}");
}

#[test]
fn check_counts_leaks_of_parents() {
    let folder = temp_dir();
    let base = Spec { raw_bat: [(0, 0), (2, 0)].into(), ..Spec::default() };
    let child = Spec::child_of(&base, "base.vhdx").block(1, Block::full()).block(3, Block::full());
    let child = Spec { raw_bat: [(1, 0)].into(), ..child };
    write(folder.path(), "base.vhdx", &base.build());
    let path = write(folder.path(), "child.vhdx", &child.build());
    let ran = check(&["--output", "json"], &path);
    assert_eq!(ran.status.code(), Some(3), "{}", ran.text());
    // One leak in the child, and two in the parent that are adjacent.
    let report = ran.json();
    assert_eq!((&report["leaks"], &report["leaked-bytes"]), (&2.into(), &(3 * MIB).into()), "{report}");
    let text = check(&[], &path).text();
    assert!(text.contains("no errors, but 2 leaks were found (3.00 MiB "), "{text}");
}

#[test]
fn check_report_is_independent_of_threads() {
    let folder = temp_dir();
    // Four million entries, divided between several threads, with errors here and there: more of most kinds than are
    // listed.
    let mut spec = Spec { file_length: FileLength::Exact(80 * MIB), ..Spec::empty(4 << 40) };
    for number in 0..4000 {
        let block = number * 1037;
        let entry = match number % 8 {
            0 => 5,
            1 => (1 << 50) | 6,
            // Each of three file offsets is that of many blocks.
            2 => ((64 + number % 3) << 20) | 6,
            3 => (9 << 30) | 2,
            4 => 6,
            5 => (70 << 20) | 7,
            6 => 8,
            _ => ((70 + number % 1001) << 20) | 6,
        };
        spec.raw_bat.insert(block + block / 4096, entry);
    }
    let path = write(folder.path(), "many.vhdx", &spec.build());
    let one = check(&["--threads", "1", "--output", "json"], &path);
    let report = one.json();
    let of = |list: &str, code: &str| -> Vec<u64> {
        let all = report[list].as_array().unwrap().iter().filter(|kind| kind["code"] == code);
        all.map(|kind| kind["count"].as_u64().unwrap_or(1)).collect()
    };
    // Of the last kind, four are inside the file; the others are one finding: the file seems to be truncated.
    for (code, count) in
        [("V64", 500), ("V65", 500), ("V66", 500), ("V67", 500), ("V68", 501), ("V69", 500), ("V73", 500)]
    {
        assert_eq!((of("counts", code), of("findings", code).len()), (vec![count], 100), "{code}");
    }
    let text = check(&["--threads", "1"], &path);
    for threads in ["0", "2", "3", "7"] {
        assert!(check(&["--threads", threads, "--output", "json"], &path).out == one.out, "{threads} threads");
        assert!(check(&["--threads", threads], &path).out == text.out, "{threads} threads");
    }
}
