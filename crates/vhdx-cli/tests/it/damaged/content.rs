//! Content that is missing or wrong although every block can be read, or up to the end of a truncated file: commands
//! that read content warn, `info` shows it, and `check` reports it once.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::kit::builder::{FileLength, Image, Slot, Spec};
use crate::kit::log::Dirty;
use crate::kit::{Block, Fill, GIB, KIB, MIB, Model};
use crate::lab::run as sectors;
use crate::support::{Ran, run, temp_dir, vhdx};

fn write(folder: &Path, name: &str, image: &Image) -> PathBuf {
    let path = folder.join(name);
    image.bytes.write_file(&path).unwrap();
    path
}

/// Runs all commands that read content of the image.
fn readers(path: &Path) -> Vec<(&'static str, Ran)> {
    let image = path.to_str().unwrap();
    let lines: [(&str, &[&str]); 5] = [
        ("extract", &["extract", image, "-"]),
        ("hash", &["hash", image]),
        ("read", &["read", image, "--range", "0:512"]),
        ("compare", &["compare", image, image]),
        ("map", &["map", image]),
    ];
    lines.map(|(name, line)| (name, run(&mut vhdx(line)))).into()
}

/// Fails unless all commands warn of this text and the range of the disk, and end with 0.
fn assert_warned(path: &Path, text: &str) {
    for (name, ran) in readers(path) {
        assert_eq!(ran.status.code(), Some(0), "{name}: {}", ran.err);
        let lines: Vec<&str> = ran.err.lines().collect();
        let is_warning = |line: &&str| line.starts_with("vhdx: warning: ") && line.contains(text);
        let expected = if name == "compare" { 2 } else { 1 };
        assert_eq!((lines.iter().filter(|line| is_warning(line)).count(), lines.len()), (expected, expected), "{name}");
    }
    let image = path.to_str().unwrap();
    let info = run(&mut vhdx(["info", image])).done().text();
    assert!(info.lines().nth(1).unwrap().starts_with("warning: ") && info.contains(text), "{info}");
    let strict = run(&mut vhdx(["info", "--strict", image]));
    assert_eq!(strict.status.code(), Some(65), "{}", strict.err);
}

/// Fails unless no command says anything about the image.
fn assert_silent(path: &Path) {
    for (name, ran) in readers(path) {
        assert_eq!((ran.status.code(), ran.err.as_str()), (Some(0), ""), "{name}");
    }
    let ran = run(vhdx(["info", "--strict"]).arg(path)).done();
    assert!(!ran.text().contains("warning"), "{}", ran.text());
}

fn info_of(path: &Path) -> Value {
    let report = run(vhdx(["info", "--output", "json"]).arg(path)).done().json();
    report["format-specific"]["data"].clone()
}

fn check_of(path: &Path) -> (Option<i32>, Value) {
    let ran = run(vhdx(["check", "--output", "json"]).arg(path));
    (ran.status.code(), ran.json())
}

/// A disk of two chunks, whose block 4096 has its entry in the place of that of the sector bitmap block before it.
fn with_stray_block() -> Image {
    let spec = [0, 4095, 4096, 4097].into_iter().fold(Spec::empty(5 * GIB), |spec, b| spec.block(b, Block::full()));
    let mut image = Spec { order: [0, 4095, 4096].map(Slot::Block).to_vec(), ..spec }.build();
    image.set_bat(4096, image.bat(4097));
    image.set_bat(4097, 0);
    image
}

fn fixed_disk() -> Spec {
    let spec = Spec { leave_blocks_allocated: true, ..Spec::empty(8 * MIB) };
    (0..8).fold(spec, |spec, block| spec.block(block, Block::full()))
}

#[test]
fn a_block_in_the_entry_of_a_sector_bitmap_is_reported_with_the_range_of_the_lost_block() {
    let folder = temp_dir();
    let path = write(folder.path(), "stray.vhdx", &with_stray_block());
    // Reading 5 GiB of zeros takes long in a debug build: only the map and a part.
    for line in [&["map"][..], &["read", "--range", "0:512", "--hex"]] {
        let ran = run(vhdx(line).arg(&path)).done();
        assert!(ran.err.contains("places a block at 0x600000") && ran.err.contains("[V70]"), "{}", ran.err);
        assert!(ran.err.contains("disk offset 0x100000000, length 0x100000"), "{}", ran.err);
    }
    let warnings = info_of(&path)["warnings"].clone();
    assert_eq!((&warnings[0]["code"], &warnings[1]), (&json!("V70"), &Value::Null));
    assert_eq!(warnings[0]["range"], json!({ "start": 1_u64 << 32, "length": MIB }));
    let (code, report) = check_of(&path);
    assert_eq!((code, &report["corruptions"], &report["leaks"]), (Some(2), &json!(1), &json!(0)), "{report}");
}

#[test]
fn a_fixed_image_that_has_lost_its_table_is_reported_and_read_by_its_layout() {
    let folder = temp_dir();
    let spec = fixed_disk();
    let lost = Spec { raw_bat: (0..8).map(|block| (block, 0)).collect(), ..spec.clone() }.build();
    let path = write(folder.path(), "lost.vhdx", &lost);
    assert_warned(&path, "8 of 8 blocks are not present");
    assert_eq!(info_of(&path)["warnings"][0]["code"], "L4");
    assert_eq!(check_of(&path).0, Some(2));
    let content = Model::read(&[&lost.model], 0, 8 << 20).unwrap();
    let salvaged = |path: &Path, more: &[&str]| run(vhdx(["extract", "--salvage"]).args(more).arg(path).arg("-"));
    // Without the order to do so, nothing is read by guesses; but the exit code says that content may be wrong.
    let ran = salvaged(&path, &[]);
    assert!(ran.status.code() == Some(65) && ran.out == vec![0; 8 << 20], "{}", ran.err);
    assert!(ran.err.contains("--assume layout=linear"), "{}", ran.err);
    let ran = salvaged(&path, &["--assume", "layout=linear"]);
    assert!(ran.status.code() == Some(65) && ran.out == content, "{}", ran.err);
    // One entry is left, and the blocks do not begin in the first space that is large enough.
    let raw_bat = (0..8).filter(|block| *block != 5).map(|block| (block, 0)).collect();
    let part = Spec { raw_bat, payload_start: 20 * MIB, ..spec }.build();
    let path = write(folder.path(), "part.vhdx", &part);
    assert_warned(&path, "7 of 8 blocks are not present");
    for door in [&[][..], &["--no-mmap"]] {
        let ran = salvaged(&path, &[door, &["--assume", "layout=linear"]].concat());
        assert!(ran.out == content, "{}", ran.err);
    }
    let ran = run(vhdx(["map", "--salvage", "--assume", "layout=linear", "--output", "json"]).arg(&path));
    let map = ran.json();
    assert_eq!(
        (map[0]["offset"].as_u64(), map[0]["length"].as_u64(), &map[1]),
        (Some(20 * MIB), Some(8 * MIB), &Value::Null)
    );
}

#[test]
fn entries_that_do_not_say_what_their_blocks_hold_are_lost_ones_of_a_fixed_image() {
    let folder = temp_dir();
    // Undefined, and without content but with bits that nothing writes: reserved ones, a place far outside of the file.
    for entry in [1_u64, 3 | 1 << 7, (1 << 40) | 2] {
        let image = Spec { raw_bat: (0..8).map(|block| (block, entry)).collect(), ..fixed_disk() }.build();
        let path = write(folder.path(), "lost.vhdx", &image);
        assert_warned(&path, "8 of 8 blocks are not present");
        assert_eq!(check_of(&path).0, Some(2), "{entry:#x}");
        let ran = run(vhdx(["extract", "--salvage", "--assume", "layout=linear"]).arg(&path).arg("-"));
        assert!(ran.out == Model::read(&[&fixed_disk().build().model], 0, 8 << 20).unwrap(), "{entry:#x}: {}", ran.err);
        assert!(!ran.err.contains("`vhdx extract"), "{}", ran.err);
    }
}

/// The space of the lost blocks is not the longest one of the file.
#[test]
fn lost_blocks_are_found_besides_longer_spaces_of_zeros() {
    let folder = temp_dir();
    for (lost, zeros) in [(vec![2], 2), (vec![2], 16), (vec![0, 5], 40), (vec![7], 3)] {
        let raw_bat = lost.iter().map(|block| (*block, 0)).collect();
        let mut image = Spec { raw_bat, ..fixed_disk() }.build();
        let end = image.bytes.len();
        image.bytes.write(end + zeros * MIB - 1, &[0]);
        let path = write(folder.path(), "zeros.vhdx", &image);
        assert_warned(&path, &format!("{} of 8 blocks", lost.len()));
        assert_eq!(check_of(&path).0, Some(2), "{lost:?} {zeros}");
    }
    // What a log has left in such a space is no content.
    let mut image = Spec { raw_bat: [(2, 0)].into(), ..fixed_disk() }.build();
    let (end, room) = (image.bytes.len(), 6 * MIB);
    image.bytes.write(end + 2 * MIB - 1, &[0]);
    image.bytes.write(room, &vec![0; 1 << 20]);
    for (sector, signature) in (0_u64..).zip([b"loge", b"desc", b"data", b"data", b"zero"]) {
        image.bytes.write(room + sector * 4096, &[signature.as_slice(), &[7; 4092]].concat());
    }
    assert_silent(&write(folder.path(), "log.vhdx", &image));
}

/// What `check` looks at is no sample.
#[test]
fn check_finds_every_byte_of_lost_blocks() {
    let folder = temp_dir();
    let zeros = Block::full().fill(Fill::Pieces(Vec::new()));
    for (at, tail) in [(0, 0), (16, 0), (48, 8), (8191, 0), (8176, 40), (80, 40)] {
        let spec = Spec { leave_blocks_allocated: true, ..Spec::empty(8 * MIB) };
        let spec = (0..8).fold(spec, |spec, block| spec.block(block, zeros.clone()));
        let mut image = Spec { raw_bat: (0..8).map(|block| (block, 0)).collect(), ..spec }.build();
        let end = image.bytes.len();
        image.bytes.write(end - 8 * MIB + at * KIB, b"content");
        if tail > 0 {
            image.bytes.write(end + tail * MIB - 1, &[0]);
        }
        let (code, report) = check_of(&write(folder.path(), "byte.vhdx", &image));
        assert_eq!((code, &report["corruptions"]), (Some(2), &json!(1)), "{at} {tail}: {report}");
    }
}

/// The last block ends with the disk, in the middle of a MiB.
#[test]
fn a_short_last_block_may_be_lost_with_others() {
    let folder = temp_dir();
    for lost in [vec![2, 5], vec![4, 5], vec![5], vec![3, 4, 5], (0..6).collect()] {
        let spec = Spec { leave_blocks_allocated: true, ..Spec::empty(5 * MIB + 12_288) };
        let spec = (0..6).fold(spec, |spec, block| spec.block(block, Block::full()));
        let raw_bat = lost.iter().map(|block| (*block, 0)).collect();
        let image = Spec { raw_bat, file_length: FileLength::Short, ..spec }.build();
        let path = write(folder.path(), "short.vhdx", &image);
        assert_warned(&path, &format!("{} of 6 blocks", lost.len()));
        let (code, report) = check_of(&path);
        assert_eq!((code, &report["leaks"]), (Some(2), &json!(0)), "{lost:?}: {report}");
    }
}

#[test]
fn the_content_says_where_a_fixed_image_begins() {
    let folder = temp_dir();
    let spec = Spec { raw_bat: (0..8).map(|block| (block, 0)).collect(), ..fixed_disk() };
    for (signature, zeros, junk) in [(false, 1, false), (false, 32, false), (true, 2, false), (true, 2, true)] {
        let mut image = spec.build();
        let begin = image.bytes.len() - 8 * MIB;
        if signature {
            image.bytes.write(begin + 510, b"\x55\xaa");
        }
        let content = image.bytes.read(begin, 8 << 20);
        let end = image.bytes.len();
        image.bytes.write(end + zeros * MIB - 4, &[u8::from(junk); 4]);
        let path = write(folder.path(), "tail.vhdx", &image);
        let ran = run(vhdx(["extract", "--salvage", "--assume", "layout=linear"]).arg(&path).arg("-"));
        assert!(ran.out == content, "{signature} {zeros} {junk}: {}", ran.err);
    }
}

#[test]
fn the_range_of_a_stray_block_is_that_of_a_neighbour_without_content() {
    let folder = temp_dir();
    for state in [0, 1, 2, 3] {
        let mut image = with_stray_block();
        image.set_bat(4097, state);
        let path = write(folder.path(), "stray.vhdx", &image);
        let warnings = info_of(&path)["warnings"].clone();
        assert_eq!(warnings[0]["range"], json!({ "start": 1_u64 << 32, "length": MIB }), "{state}");
    }
}

/// A file that was cut while a log was to make it longer.
#[test]
fn blocks_that_a_replay_makes_out_of_nothing_are_reported() {
    let folder = temp_dir();
    let path = write(folder.path(), "grown.vhdx", &Dirty::Growth.build(&Spec::default()));
    let ran = run(vhdx(["hash"]).arg(&path)).done();
    assert!(ran.err.contains("reads as zeros after a replay [V24], disk offset 0x500000"), "{}", ran.err);
    let warnings = info_of(&path)["warnings"].clone();
    assert_eq!((&warnings[0]["code"], &warnings[1]), (&json!("V24"), &Value::Null));
    assert_eq!(warnings[0]["range"], json!({ "start": 5 * MIB, "length": MIB }));
}

#[test]
fn evidence_for_the_places_of_a_fixed_image_that_disagrees_is_named() {
    let folder = temp_dir();
    let spec = Spec { payload_start: 20 * MIB, ..fixed_disk() };
    let content = Model::read(&[&spec.build().model], 0, 8 << 20).unwrap();
    // No entry is left; or most of the blocks are where they were, and one was moved to a place before them.
    let none: Vec<(u64, u64)> = (0..8).map(|block| (block, 0)).collect();
    for (raw_bat, right) in [(none, 0..8 << 20), (vec![(0, (4 * MIB) | 6), (7, 0)], 1 << 20..8 << 20)] {
        let image = Spec { raw_bat: raw_bat.into_iter().collect(), ..spec.clone() }.build();
        let path = write(folder.path(), "fixed.vhdx", &image);
        let ran = run(vhdx(["extract", "--salvage", "--assume", "layout=linear"]).arg(&path).arg("-"));
        assert!(ran.status.code() == Some(65) && ran.out[right.clone()] == content[right], "{}", ran.err);
        assert!(ran.err.contains("from 0x1400000 on") && ran.err.contains("at 0x400000 [L4]"), "{}", ran.err);
        assert!(ran.err.contains("content may be missing") && !ran.err.contains("recovered all"), "{}", ran.err);
    }
}

#[test]
fn a_single_block_outside_of_the_file_is_reported() {
    let folder = temp_dir();
    // Far away, and not much farther than the file would be with a block for each entry.
    for offset in [1_u64 << 40, 9 * MIB] {
        let mut spec = Spec::default();
        spec.raw_bat.insert(3, offset | 6);
        let path = write(folder.path(), "far.vhdx", &spec.build());
        let ran = run(vhdx(["info", "--strict"]).arg(&path));
        assert_eq!(ran.status.code(), Some(65), "{}", ran.text());
        let warnings = info_of(&path)["warnings"].clone();
        assert_eq!((&warnings[0]["code"], &warnings[1]), (&json!("V68"), &Value::Null), "{offset:#x}");
        assert_eq!(warnings[0]["range"], json!({ "start": 3 * MIB, "length": MIB }));
        assert!(!ran.text().contains("truncated"), "{}", ran.text());
    }
    let mut image = with_stray_block();
    image.set_bat(4096, (1 << 40) | 6);
    let path = write(folder.path(), "stray.vhdx", &image);
    let warnings = info_of(&path)["warnings"].clone();
    assert_eq!((&warnings[0]["code"], &warnings[1]), (&json!("V70"), &Value::Null));
    assert_eq!(check_of(&path).0, Some(2));
}

#[test]
fn bytes_after_the_file_are_no_content_of_absent_blocks() {
    let folder = temp_dir();
    let spec = Spec { block_size: 2 << 20, ..Spec::empty(16 * MIB + 512) };
    for is_fixed in [false, true] {
        let mut image = Spec { leave_blocks_allocated: is_fixed, ..spec.clone() }.build();
        let end = 20 * MIB;
        image.bytes.write(end, &[7; 1400]);
        assert_silent(&write(folder.path(), "tail.vhdx", &image));
    }
}

#[test]
fn a_dynamic_image_without_any_block_but_with_content_is_reported() {
    let folder = temp_dir();
    let dynamic = Spec { leave_blocks_allocated: false, ..fixed_disk() };
    let lost = Spec { raw_bat: (0..8).map(|block| (block, 0)).collect(), ..dynamic }.build();
    let path = write(folder.path(), "lost.vhdx", &lost);
    assert_warned(&path, "8 of 8 blocks are not present");
    assert_eq!(check_of(&path).0, Some(1));
}

#[test]
fn healthy_images_with_absent_blocks_cause_no_warning() {
    let folder = temp_dir();
    let all = |entry: u64| (0..8).map(|block| (block, entry)).collect();
    let fixed = Spec { leave_blocks_allocated: true, file_length: FileLength::Exact(12 * MIB), ..Spec::empty(8 * MIB) };
    let mut written_zeros = fixed.build();
    written_zeros.bytes.write(4 * MIB, &vec![0; 8 << 20]);
    let images = [
        ("absent blocks over zeros", fixed.build()),
        ("absent blocks over zeros that were written", written_zeros),
        ("blocks of zeros", Spec { raw_bat: all(2), ..fixed.clone() }.build()),
        (
            "absent blocks, and something short at the end",
            Spec { file_length: FileLength::Trailing(1400), ..fixed }.build(),
        ),
        ("all blocks", fixed_disk().build()),
        ("new", Spec::empty(8 * MIB).build()),
        ("usual", Spec::default().build()),
        // The old content of trimmed blocks stays in the file.
        ("a trimmed block", Spec { raw_bat: [(2, 3)].into(), ..Spec::default() }.build()),
        ("a forgotten block", Spec { raw_bat: [(2, 0)].into(), ..Spec::default() }.build()),
        ("all trimmed", Spec { raw_bat: all(3), leave_blocks_allocated: false, ..fixed_disk() }.build()),
        ("trimmed in a fixed image", Spec { raw_bat: [(2, 3)].into(), ..fixed_disk() }.build()),
        // Only the part of the last block that belongs to the disk.
        (
            "a short last block",
            Spec {
                disk_size: 7 * MIB + 512 * KIB,
                file_length: FileLength::Short,
                ..Spec::default().block(7, Block::full())
            }
            .build(),
        ),
    ];
    for (name, image) in images {
        let path = write(folder.path(), &format!("{name}.vhdx"), &image);
        assert_silent(&path);
        let (code, report) = check_of(&path);
        assert!(matches!(code, Some(0 | 3)), "{name}: {report}");
    }
    // The sector bitmap of a child is in its own entry.
    let base = Spec::default();
    write(folder.path(), "base.vhdx", &base.build());
    let child = Spec::child_of(&base, "base.vhdx").block(1, Block::partial(&sectors(3..9)));
    assert_silent(&write(folder.path(), "child.vhdx", &child.build()));
    assert_silent(&write(folder.path(), "empty child.vhdx", &Spec::child_of(&base, "base.vhdx").build()));
}

/// Space that is far too long to be read is judged by samples.
#[test]
fn content_in_terabytes_of_unused_space_is_found_by_samples() {
    let folder = temp_dir();
    let blocks = 1 << 20;
    let spec = Spec {
        leave_blocks_allocated: true,
        payload_start: 16 * MIB,
        file_length: FileLength::Exact((16 + blocks) * MIB),
        ..Spec::empty(blocks * MIB)
    };
    let path = write(folder.path(), "zero.vhdx", &spec.build());
    let map = |path: &Path| run(vhdx(["map"]).arg(path)).done().err;
    assert_eq!(map(&path), "");
    let mut image = spec.build();
    image.bytes.write((16 + blocks / 2) * MIB + 70_000, b"content");
    let found = map(&write(folder.path(), "lost.vhdx", &image));
    assert!(found.contains("first at 0x8001011170"), "{found}");
}

/// Six blocks from 4 MiB on, of which the file has one, and a part of the second.
fn truncated() -> Spec {
    let spec = Spec { block_size: 2 << 20, file_length: FileLength::Exact(7_352_377), ..Spec::empty(64 * MIB) };
    (0..6).fold(spec, |spec, block| spec.block(block, Block::full()))
}

const SENTENCE: &str = "truncated: it ends at 0x703039 (7.01 MiB), but its blocks reach to 0x1000000 (16.00 MiB): \
                        5 of 6 blocks and 9424839 bytes of the disk are missing";

#[test]
fn a_truncated_file_is_reported_first_and_once() {
    let folder = temp_dir();
    let path = write(folder.path(), "cut.vhdx", &truncated().build());
    for (name, ran) in readers(&path) {
        assert_eq!(ran.status.code(), Some(if name == "read" { 0 } else { 65 }), "{name}: {}", ran.err);
        assert!(ran.err.starts_with("vhdx: warning: ") && ran.err.lines().next().unwrap().contains(SENTENCE), "{name}");
        // The error names one block, and its length.
        let of_block = "payload block 1 at 0x703039: 1036231 bytes do not fit";
        assert!(name == "read" || ran.err.contains(of_block), "{name}: {}", ran.err);
    }
    let info = run(vhdx(["info"]).arg(&path)).done().text();
    assert!(info.lines().nth(1).unwrap().contains(SENTENCE), "{info}");
    assert_eq!(run(vhdx(["info", "--strict"]).arg(&path)).status.code(), Some(65));
    let expected = json!({
        "file-end": 7_352_377,
        "blocks-end": 16 * MIB,
        "blocks-present": 6,
        "blocks-missing": 5,
        "bytes-missing": 9_424_839,
    });
    assert_eq!(info_of(&path)["truncated"], expected);
    let strict = run(vhdx(["info", "--strict", "--output", "json"]).arg(&path));
    assert_eq!(strict.status.code(), Some(65));
    let (code, report) = check_of(&path);
    assert_eq!((code, &report["truncated"], &report["corruptions"]), (Some(2), &expected, &json!(1)), "{report}");
    let text = run(vhdx(["check"]).arg(&path)).text();
    assert!(text.lines().next().unwrap().contains(SENTENCE) && text.matches("V68").count() == 1, "{text}");
}

#[test]
fn info_of_a_child_tells_what_its_parent_has_lost() {
    let folder = temp_dir();
    write(folder.path(), "base.vhdx", &truncated().build());
    let child = Spec::child_of(&truncated(), "base.vhdx").block(9, Block::full());
    let path = write(folder.path(), "child.avhdx", &child.build());
    let text = run(vhdx(["info"]).arg(&path)).done().text();
    let line = text.lines().nth(1).unwrap();
    assert!(line.starts_with("warning: layer 1 (") && line.contains(SENTENCE), "{text}");
    assert_eq!(run(vhdx(["info", "--strict"]).arg(&path)).status.code(), Some(65));
    let data = info_of(&path);
    // The file of the child itself is whole.
    assert_eq!((&data["warnings"][0]["code"], &data["truncated"]), (&json!("V68"), &Value::Null), "{data}");
    let chain = run(vhdx(["info", "--backing-chain", "--json"]).arg(&path)).done().json();
    assert_eq!(chain[1]["format-specific"]["data"]["truncated"]["blocks-missing"], 5);
}

#[test]
fn an_entry_far_outside_of_a_complete_file_is_no_truncation() {
    let folder = temp_dir();
    let spec = Spec { raw_bat: [(2, (1 << 40) | 6)].into(), ..Spec::default() };
    let path = write(folder.path(), "far.vhdx", &spec.build());
    assert_eq!(info_of(&path)["truncated"], Value::Null);
    let (_, report) = check_of(&path);
    let finding = &report["findings"][0];
    assert_eq!((&finding["code"], &finding["structure"]), (&json!("V68"), &json!("payload block 2")), "{report}");
}

#[test]
fn a_truncated_child_has_lost_the_blocks_of_its_sector_bitmap() {
    let folder = temp_dir();
    let base = Spec::default();
    write(folder.path(), "base.vhdx", &base.build());
    let child = Spec::child_of(&base, "base.vhdx").block(1, Block::partial(&sectors(3..9))).block(3, Block::full());
    let order = vec![Slot::Block(1), Slot::Block(3), Slot::Bitmap(0)];
    let child = Spec { order, file_length: FileLength::Exact(6 * MIB), ..child }.build();
    assert_eq!(child.bitmap_at(0), 6 * MIB);
    let found = info_of(&write(folder.path(), "child.vhdx", &child))["truncated"].clone();
    assert_eq!((&found["blocks-present"], &found["blocks-missing"]), (&json!(2), &json!(1)), "{found}");
    assert_eq!(found["bytes-missing"], MIB);
    // The file ends within the bitmap: it has the bits of block 1, and not those of block 3.
    let child = Spec::child_of(&base, "base.vhdx").block(1, Block::partial(&sectors(3..9)));
    let child = child.block(3, Block::partial(&sectors(30..90)));
    let order = vec![Slot::Block(1), Slot::Block(3), Slot::Bitmap(0)];
    let mut child = Spec { order, ..child }.build();
    child.bytes.truncate(child.bitmap_at(0) + 2 * 256 + 10);
    let path = write(folder.path(), "within.vhdx", &child);
    let warning = info_of(&path)["warnings"][0].clone();
    assert_eq!((&warning["code"], &warning["range"]), (&json!("V68"), &json!({ "start": 3 * MIB, "length": MIB })));
    assert_eq!(info_of(&path)["truncated"]["bytes-missing"], MIB);
    let (code, report) = check_of(&path);
    assert_eq!((code, &report["leaks"]), (Some(2), &json!(0)), "{report}");
}

#[test]
fn bytes_after_the_end_are_reported_once_with_their_number() {
    let folder = temp_dir();
    let spec = Spec { file_length: FileLength::Trailing(1400), ..Spec::default() };
    let path = write(folder.path(), "tail.vhdx", &spec.build());
    let (code, report) = check_of(&path);
    assert_eq!((code, &report["leaks"], &report["leaked-bytes"]), (Some(3), &json!(1), &json!(1400)), "{report}");
    let text = run(vhdx(["check", "-v"]).arg(&path)).text();
    assert_eq!(text.matches("1400 bytes that nothing refers to").count(), 1, "{text}");
    assert!(text.contains("(1.37 KiB (1400 bytes) that nothing refers to)"), "{text}");
}
