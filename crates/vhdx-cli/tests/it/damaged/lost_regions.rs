//! Files that have lost both region tables: a salvage searches for the regions, or takes their offsets from the user.

use std::path::Path;

use serde_json::Value;

use super::salvage::{extract, ranges, write};
use crate::kit::builder::{Image, Spec};
use crate::kit::{Block, Fill, KIB, MIB};
use crate::lab::{Expected, run as sectors, size};
use crate::support::{Ran, run, temp_dir, vhdx};

fn lose(image: &mut Image, start: u64, end: u64) {
    image.bytes.write(start, &vec![0; size(end - start)]);
}

fn without_header_section(spec: &Spec) -> Image {
    let mut image = spec.build();
    lose(&mut image, 0, MIB);
    image
}

fn content(spec: &Spec) -> Vec<u8> {
    Expected::of(&[&spec.build()]).read(0..spec.disk_size)
}

/// Asserts that all of the disk is read, and that the offsets of the regions are in a warning.
#[track_caller]
fn assert_found(what: &str, spec: &Spec, image: &Image) {
    let folder = temp_dir();
    let path = write(folder.path(), image);
    for more in [&[][..], &["--no-mmap"]] {
        let (ran, bytes, losses) = extract(&path, more);
        assert_eq!(ran.status.code(), Some(65), "{what}: {}", ran.err);
        assert!(bytes == content(spec), "{what}: {}", ran.err);
        assert_eq!(ranges(&losses), [], "{what}");
        let found = format!("metadata region at {:#x}, BAT at {:#x}", spec.metadata_offset, spec.bat_offset);
        assert!(ran.err.contains(&found), "{what}: {}", ran.err);
        assert!(ran.err.contains("recovered all of"), "{what}: {}", ran.err);
    }
}

fn with(change: impl FnOnce(&mut Spec)) -> Spec {
    let mut spec = Spec::default();
    change(&mut spec);
    spec
}

#[test]
fn salvage_finds_regions_without_tables() {
    let full = |mut spec: Spec| {
        (0..8).for_each(|block| drop(spec.blocks.insert(block, Block::full())));
        spec
    };
    let specs = [
        ("default", Spec::default()),
        ("BAT first", with(|spec| (spec.bat_offset, spec.metadata_offset) = (2 * MIB, 3 * MIB))),
        ("after the blocks", with(|spec| (spec.bat_offset, spec.metadata_offset) = (40 * MIB, 30 * MIB))),
        ("fixed", full(with(|spec| spec.leave_blocks_allocated = true))),
        ("4096", with(|spec| spec.sector_size = 4096)),
        ("large blocks", with(|spec| (spec.block_size, spec.disk_size) = (32 << 20, 200 * MIB))),
        ("last block first", with(|spec| spec.order = vec![crate::kit::builder::Slot::Block(5)])),
    ];
    for (what, spec) in &specs {
        assert_found(what, spec, &without_header_section(spec));
        let mut image = spec.build();
        lose(&mut image, 192 * KIB, 320 * KIB);
        assert_found(what, spec, &image);
        // Tables with entries whose offsets are damaged are of no use either.
        let mut image = spec.build();
        for copy in 1..=2 {
            [16 + 16, 48 + 16].iter().for_each(|at| image.patch_region_table_raw(copy, *at, &[0, 0, 0, 7]));
        }
        assert_found(what, spec, &image);
    }
}

#[test]
fn check_does_not_deny_an_image_of_which_a_part_is_found() {
    let folder = temp_dir();
    let spec = Spec::default();
    let mut image = without_header_section(&spec);
    lose(&mut image, spec.bat_offset, spec.bat_offset + MIB);
    let ran = run(vhdx(["check"]).arg(write(folder.path(), &image)));
    let text = ran.text();
    assert_eq!(ran.status.code(), Some(2), "{text}");
    assert!(text.contains("metadata region at 0x200000, no BAT"), "{text}");
}

#[test]
fn salvage_finds_regions_of_a_large_table() {
    // 20 chunks; the first blocks are unallocated, so that the table begins with more than a page of zeros.
    let blocks = [5000, 5001, 20_000, 65_535];
    let piece = |block: u64| Block::full().fill(Fill::Pieces(vec![(0, block.to_le_bytes().to_vec())]));
    let spec = blocks.iter().fold(Spec::empty(65_536 * MIB), |spec, block| spec.block(*block, piece(*block)));
    let folder = temp_dir();
    let path = write(folder.path(), &without_header_section(&spec));
    for block in blocks {
        let range = format!("{}:8", block * MIB);
        let out = folder.path().join("out");
        let ran = run(vhdx(["extract", "--force", "--salvage", "--range", &range]).arg(&path).arg(&out));
        assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
        assert_eq!(std::fs::read(&out).unwrap(), block.to_le_bytes(), "{}", ran.err);
    }
}

/// Asserts that a salvage reads these blocks, which `piece` made, of an image without its first MiB.
#[track_caller]
fn assert_reads(spec: &Spec, blocks: &[u64]) {
    let folder = temp_dir();
    let path = write(folder.path(), &without_header_section(spec));
    for block in blocks {
        let range = format!("{}:8", block * u64::from(spec.block_size));
        let out = folder.path().join("out");
        let ran = run(vhdx(["extract", "--force", "--salvage", "--range", &range]).arg(&path).arg(&out));
        assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
        assert_eq!(std::fs::read(&out).unwrap(), block.to_le_bytes(), "{}", ran.err);
    }
}

/// A disk whose blocks begin with their numbers.
fn numbered(disk_size: u64, blocks: &[u64]) -> Spec {
    let piece = |block: u64| Block::full().fill(Fill::Pieces(vec![(0, block.to_le_bytes().to_vec())]));
    blocks.iter().fold(Spec::empty(disk_size), |spec, block| spec.block(*block, piece(*block)))
}

#[test]
fn salvage_finds_a_bat_that_begins_with_many_unallocated_blocks() {
    // The last one in the middle of a page; with a table of 1 MiB and of 3 MiB.
    for (size, blocks) in [(65_536 * MIB, &[20_000, 20_001, 40_000][..]), (300_000 * MIB, &[250_001, 250_002])] {
        assert_reads(&numbered(size, blocks), blocks);
        // Apart from the blocks, after zeros that are no hole.
        let mut spec = numbered(size, blocks);
        (spec.metadata_offset, spec.bat_offset) = (30 * MIB, 34 * MIB);
        spec.raw_bat.extend((0..20_000).map(|block| (block, 2 + block % 2)));
        assert_reads(&spec, blocks);
    }
    // Zeros before the table could be its beginning, too: nothing is guessed.
    let mut spec = numbered(300_000 * MIB, &[140_000]);
    (spec.bat_offset, spec.metadata_offset) = (12 * MIB, 30 * MIB);
    let folder = temp_dir();
    let (ran, ..) = extract(&write(folder.path(), &without_header_section(&spec)), &["--range", "0:8"]);
    assert!(ran.err.contains("bat-offset=0xb00000") && ran.err.contains("bat-offset=0xc00000"), "{}", ran.err);
    // A table that is found by its beginning is not also one that begins in zeros before it.
    let mut spec = numbered(300_000 * MIB, &[1, 140_000]);
    (spec.bat_offset, spec.metadata_offset) = (12 * MIB, 30 * MIB);
    assert_reads(&spec, &[1, 140_000]);
}

/// Writes other bytes to the GUIDs of entries of both region tables.
fn with_guids(image: &mut Image, entries: &[(u64, Vec<u8>)]) {
    entries.iter().for_each(|(index, guid)| image.patch_region_tables(16 + 32 * index, guid));
}

#[test]
fn salvage_takes_the_only_possible_entry_for_a_region_with_a_damaged_guid() {
    let folder = temp_dir();
    let spec = Spec::default();
    let flipped = |index: u64, bit: usize| {
        let mut guid = spec.build().bytes.read(192 * KIB + 16 + 32 * index, 16);
        guid[bit / 8] ^= 1 << (bit % 8);
        (index, guid)
    };
    let cases = [
        vec![flipped(0, 3)],
        vec![flipped(1, 77)],
        vec![flipped(0, 127), flipped(1, 0)],
        vec![(0, vec![7; 16])],
        vec![(1, vec![7; 16])],
        vec![(0, vec![7; 16]), (1, vec![9; 16])],
    ];
    for guids in &cases {
        let mut image = spec.build();
        with_guids(&mut image, guids);
        let path = write(folder.path(), &image);
        let (ran, bytes, losses) = extract(&path, &[]);
        assert!(bytes == content(&spec) && ranges(&losses).is_empty(), "{guids:?}: {}", ran.err);
        assert!(ran.status.code() == Some(65) && ran.err.contains("unknown GUID: taken for the"), "{}", ran.err);
        let ran = run(vhdx(["check"]).arg(&path));
        assert!(ran.status.code() == Some(2) && ran.text().contains("[V34]"), "{}", ran.text());
        // Nothing is taken without --salvage.
        let ran = run(vhdx(["info"]).arg(&path));
        assert!(ran.status.code() == Some(65) && ran.err.contains("extract --salvage"), "{}", ran.err);
        // With a wrong checksum, too.
        (1..=2).for_each(|copy| image.patch_region_table_raw(copy, 4, &[0; 4]));
        let (ran, bytes, _) = extract(&write(folder.path(), &image), &[]);
        assert!(bytes == content(&spec), "{guids:?}: {}", ran.err);
    }
    // The other copy is intact; an entry that is gone is searched for.
    let mut image = spec.build();
    image.patch_region_table(1, 16, &[7; 16]);
    let (ran, bytes, _) = extract(&write(folder.path(), &image), &[]);
    assert!(bytes == content(&spec) && !ran.err.contains("taken for"), "{}", ran.err);
    for index in [0, 1] {
        let mut image = spec.build();
        let kept = image.bytes.read(192 * KIB + 16 + 32 * (1 - index), 32);
        image.patch_region_tables(16 + 32 * index, &kept);
        let (ran, bytes, _) = extract(&write(folder.path(), &image), &[]);
        assert!(bytes == content(&spec) && ran.err.contains("replaced by what a search found"), "{}", ran.err);
    }
}

#[test]
fn salvage_reads_a_fixed_image_without_a_bat() {
    let folder = temp_dir();
    let fixed = |spec: Spec| {
        let spec = Spec { leave_blocks_allocated: true, ..spec };
        (0..8).fold(spec, |spec, block| spec.block(block, Block::full()))
    };
    let spec = fixed(Spec::default());
    let sizes = ["--assume", "layout=linear", "--assume", "block-size=1M,disk-size=8M,sector-size=512"];
    let noise = crate::kit::pattern(77, 0, size(MIB));
    let assert_read = |what: &str, spec: &Spec, image: &Image, more: &[&str]| {
        let path = write(folder.path(), image);
        for door in [&[][..], &["--no-mmap"]] {
            let (ran, bytes, losses) = extract(&path, &[more, door].concat());
            assert!(bytes == content(spec) && ran.status.code() == Some(65), "{what}: {}", ran.err);
            assert_eq!(ranges(&losses), [], "{what}: {}", ran.err);
            assert!(ran.err.contains("are read where a fixed image has them"), "{what}: {}", ran.err);
        }
        let ran = run(vhdx(["map", "--salvage"]).args(more).arg(&path));
        assert!(ran.text().contains("0x0                0x800000"), "{what}: {}", ran.text());
        let ran = run(vhdx(["info", "--salvage"]).args(more).arg(&path));
        assert!(ran.text().contains("8 of 8") || ran.status.code() == Some(65), "{what}: {}", ran.text());
    };
    for (what, lost) in [("zeros", vec![0; size(MIB)]), ("noise", noise), ("0xff", vec![0xff; size(MIB)])] {
        // Of all that is before the blocks, only the metadata are left; or only the BAT is lost; or nothing is left.
        let mut image = without_header_section(&spec);
        image.bytes.write(spec.bat_offset, &lost);
        assert_read(what, &spec, &image, &["--assume", "layout=linear"]);
        image.bytes.write(spec.metadata_offset, &lost);
        assert_read(what, &spec, &image, &sizes);
        let mut image = spec.build();
        image.bytes.write(spec.bat_offset, &lost);
        assert_read(what, &spec, &image, &["--assume", "layout=linear"]);
    }
    // The table has no entry for the BAT, or one that leads past the end of the file, or is too short.
    let mut image = spec.build();
    let metadata = image.bytes.read(192 * KIB + 16 + 32, 32);
    image.patch_region_tables(16, &metadata);
    lose(&mut image, spec.bat_offset, spec.bat_offset + MIB);
    assert_read("no entry", &spec, &image, &["--assume", "layout=linear"]);
    let mut image = spec.build();
    image.patch_region_tables(16 + 16, &(1_u64 << 40).to_le_bytes());
    assert_read("outside", &spec, &image, &["--assume", "layout=linear"]);
    let mut image = spec.build();
    image.patch_region_tables(16 + 24, &0_u32.to_le_bytes());
    assert_read("empty", &spec, &image, &["--assume", "layout=linear"]);
    // A child cannot be read like that.
    let folder = temp_dir();
    let child = Spec::child_of(&spec, "base.vhdx").block(1, Block::full());
    let mut image = without_header_section(&child);
    lose(&mut image, child.bat_offset, child.bat_offset + MIB);
    let (ran, bytes, _) = extract(&write(folder.path(), &image), &["--assume", "layout=linear"]);
    assert!(bytes.is_empty() && ran.err.contains("no BAT"), "{}", ran.err);
}

#[test]
fn what_overwrote_the_beginning_does_not_hide_the_rest() {
    let folder = temp_dir();
    let spec = Spec::default();
    for head in [&b"\x1f\x8b\x08\0"[..], b"PK\x03\x04", b"QFI\xfb\0\0\0\x03", b"conectix\0\0\0\x02", b"<html>"] {
        let mut image = without_header_section(&spec);
        image.bytes.write(0, head);
        // All is found; then, only the metadata; then, nothing.
        let (ran, bytes, _) = extract(&write(folder.path(), &image), &[]);
        assert!(bytes == content(&spec), "{}", ran.err);
        lose(&mut image, spec.bat_offset, spec.bat_offset + MIB);
        let path = write(folder.path(), &image);
        let (ran, ..) = extract(&path, &[]);
        let part = "metadata region at 0x200000, no BAT";
        assert!(ran.status.code() == Some(65) && ran.err.contains(part), "{}", ran.err);
        let ran = run(vhdx(["check"]).arg(&path));
        let text = ran.text();
        assert!(ran.status.code() == Some(2) && text.contains(part) && text.contains("looks like"), "{text}");
        lose(&mut image, spec.metadata_offset, spec.metadata_offset + MIB);
        let ran = run(vhdx(["check"]).arg(write(folder.path(), &image)));
        assert_eq!((ran.status.code(), ran.text().lines().count()), (Some(1), 1), "{}", ran.text());
    }
}

#[test]
fn salvage_finds_regions_of_a_chain() {
    let folder = temp_dir();
    let base = Spec::default();
    let child = Spec::child_of(&base, "base.vhdx").block(1, Block::partial(&sectors(3..90))).block(5, Block::full());
    base.build().bytes.write_file(&folder.path().join("base.vhdx")).unwrap();
    let path = write(folder.path(), &without_header_section(&child));
    let expected = Expected::of(&[&child.build(), &base.build()]).read(0..base.disk_size);
    let (ran, bytes, losses) = extract(&path, &[]);
    assert!(bytes == expected && ranges(&losses).is_empty(), "{}", ran.err);
}

/// An image with all of another image in its disk, at multiples of 1 MiB of the file.
fn nested() -> Spec {
    let inner = Spec { seed: 9, ..Spec::default() }.build().bytes.to_vec();
    let mut spec = Spec::empty(16 * MIB);
    for (block, bytes) in (2..).zip(inner.chunks(size(MIB))) {
        spec.blocks.insert(block, Block::full().fill(Fill::Pieces(vec![(0, bytes.to_vec())])));
    }
    spec
}

#[test]
fn salvage_takes_no_image_in_the_disk_for_the_image() {
    let spec = nested();
    assert_found("nested", &spec, &without_header_section(&spec));
}

#[test]
fn salvage_refuses_to_guess() {
    let folder = temp_dir();
    let lists = |ran: &Ran, words: &[&str]| {
        assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
        words.iter().for_each(|word| assert!(ran.err.contains(word), "{word}: {}", ran.err));
    };
    // A second BAT that could be the first: a copy of it, apart from all blocks.
    let spec = Spec::default();
    let mut image = without_header_section(&spec);
    let copy = image.bytes.read(spec.bat_offset, size(MIB));
    image.bytes.write(20 * MIB, &copy);
    let path = write(folder.path(), &image);
    let (ran, bytes, _) = extract(&path, &[]);
    let hint = "--assume metadata-offset=0x200000,bat-offset=0x300000";
    lists(&ran, &["no single pair", "BAT at 0x300000", "BAT at 0x1400000", hint]);
    assert!(bytes.is_empty());
    let (ran, bytes, _) = extract(&path, &["--assume", "metadata-offset=0x200000,bat-offset=0x300000"]);
    assert!(bytes == content(&spec), "{}", ran.err);
    // One of the two is enough, if it leaves one pair.
    let (ran, bytes, _) = extract(&path, &["--assume", "bat-offset=3M"]);
    assert!(bytes == content(&spec), "{}", ran.err);

    // With more possible regions than are compared.
    let mut image = without_header_section(&spec);
    let metadata = image.bytes.read(spec.metadata_offset, size(128 * KIB));
    for number in 0..40 {
        image.bytes.write((10 + 2 * number) * MIB, &metadata);
        image.bytes.write((11 + 2 * number) * MIB, &copy);
    }
    let (ran, ..) = extract(&write(folder.path(), &image), &[]);
    lists(&ran, &["no single pair"]);
    assert!(ran.err.len() < 4000, "{}", ran.err);

    // Without the BAT.
    let mut image = without_header_section(&spec);
    lose(&mut image, spec.bat_offset, spec.bat_offset + MIB);
    let (ran, ..) = extract(&write(folder.path(), &image), &[]);
    lists(&ran, &["metadata region at 0x200000, no BAT", "--assume metadata-offset=0x200000,bat-offset=OFFSET"]);

    // Without the metadata: not even the values of the user make other bytes a BAT.
    let mut image = without_header_section(&spec);
    lose(&mut image, spec.metadata_offset, spec.metadata_offset + MIB);
    let path = write(folder.path(), &image);
    let (ran, ..) = extract(&path, &[]);
    lists(&ran, &["a search found no part of an image"]);
    let sizes = ["--assume", "block-size=1M,disk-size=8M,sector-size=512"];
    let (ran, bytes, _) = extract(&path, &sizes);
    assert!(bytes == content(&spec), "{}", ran.err);
    lists(&ran, &["no metadata region, BAT at 0x300000"]);
    for bad in ["bat-offset=0", "bat-offset=1000", "metadata-offset=512K"] {
        let (ran, ..) = extract(&path, &["--assume", bad]);
        assert_eq!(ran.status.code(), Some(2), "{bad}: {}", ran.err);
    }
}

#[test]
fn salvage_does_not_choose_between_an_old_bat_and_the_current_one() {
    let folder = temp_dir();
    let spec = Spec { block_size: 4 << 20, disk_size: 64 * MIB, bat_offset: 20 * MIB, ..Spec::default() };
    let mut image = without_header_section(&spec);
    // Its block 9 covers the current BAT.
    let mut old = image.bytes.read(spec.bat_offset, size(MIB));
    old[9 * 8..10 * 8].copy_from_slice(&((18 * MIB) | 6).to_le_bytes());
    image.bytes.write(60 * MIB, &old);
    let (ran, bytes, _) = extract(&write(folder.path(), &image), &[]);
    assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
    for offset in ["bat-offset=0x1400000", "bat-offset=0x3c00000"] {
        assert!(ran.err.contains(&format!("--assume metadata-offset=0x200000,{offset}")), "{}", ran.err);
    }
    assert!(bytes.is_empty());
}

#[test]
fn salvage_reads_a_found_bat_with_a_damaged_entry() {
    let folder = temp_dir();
    let mut spec = nested();
    spec.raw_bat.insert(15, 4);
    let (ran, _, losses) = extract(&write(folder.path(), &without_header_section(&spec)), &[]);
    let found = format!("metadata region at {:#x}, BAT at {:#x}", spec.metadata_offset, spec.bat_offset);
    assert!(ran.err.contains(&found), "{}", ran.err);
    assert_eq!(ranges(&losses), [(15 * MIB, MIB)], "{}", ran.err);
}

#[test]
fn salvage_takes_the_length_of_the_bat_from_the_metadata() {
    let folder = temp_dir();
    let full = |mut spec: Spec| {
        (0..8).for_each(|block| drop(spec.blocks.insert(block, Block::full())));
        spec
    };
    let spec = full(with(|spec| spec.leave_blocks_allocated = true));
    let offsets = format!("metadata-offset={:#x},bat-offset={:#x}", spec.metadata_offset, spec.bat_offset);
    let mut image = without_header_section(&spec);
    for lost in [false, true] {
        if lost {
            lose(&mut image, spec.bat_offset, spec.bat_offset + MIB);
        }
        let path = write(folder.path(), &image);
        for more in [&[][..], &["--assume", "layout=linear"]] {
            if lost && more.is_empty() {
                continue;
            }
            let (ran, bytes, losses) = extract(&path, &[&["--assume", &offsets], more].concat());
            assert!(bytes == content(&spec) && ranges(&losses).is_empty(), "{lost} {more:?}: {}", ran.err);
            assert!(!ran.err.contains("[V33]") && !ran.err.contains("[V69]"), "{lost} {more:?}: {}", ran.err);
        }
    }
    // One offset, and the other one from a table that is intact.
    let image = spec.build();
    let path = write(folder.path(), &image);
    let (ran, bytes, _) = extract(&path, &["--assume", &format!("bat-offset={:#x}", spec.bat_offset)]);
    assert!(bytes == content(&spec), "{}", ran.err);
}

#[test]
fn salvage_believes_no_damaged_table_that_leads_to_a_block() {
    let spec = Spec::default();
    let mut image = spec.build();
    for copy in 1..=2 {
        image.patch_region_table_raw(copy, 16 + 16, &(5 * MIB).to_le_bytes());
    }
    let folder = temp_dir();
    let (ran, bytes, _) = extract(&write(folder.path(), &image), &[]);
    assert!(bytes == content(&spec), "{}", ran.err);
    let found = format!("metadata region at {:#x}, BAT at {:#x}", spec.metadata_offset, spec.bat_offset);
    assert!(ran.err.contains(&found), "{}", ran.err);
}

#[test]
fn check_reads_an_image_without_region_tables() {
    let folder = temp_dir();
    let path = write(folder.path(), &without_header_section(&Spec::default()));
    let report = run(vhdx(["check", "--output", "json"]).arg(&path)).json();
    assert_eq!((&report["format"], &report["allocated-clusters"]), (&Value::from("vhdx"), &Value::from(3)), "{report}");
    let codes: Vec<&str> =
        report["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect();
    for code in ["V2", "V4", "V25"] {
        assert!(codes.contains(&code), "{code}: {report}");
    }
    // The room of the log, whose header is lost, is the only other finding.
    assert!(codes.iter().all(|code| ["V2", "V4", "V25", "L1"].contains(code)), "{report}");
}

/// A line of `info` for people.
fn line<'t>(text: &'t str, key: &str) -> &'t str {
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    assert!(found.is_some(), "no {key}: {text}");
    found.unwrap()
}

fn info(path: &Path) -> (String, Value) {
    let text = run(vhdx(["info", "--salvage"]).arg(path)).text();
    let report = run(vhdx(["info", "--salvage", "--output", "json"]).arg(path)).json();
    (text, report["format-specific"]["data"].clone())
}

#[test]
fn salvage_prints_no_lost_values_as_facts() {
    let folder = temp_dir();
    let mut both_headers = Spec::default().build();
    (1..=2).for_each(|copy| both_headers.patch_header_raw(copy, 0, &[0x5a; 4096]));
    let path = write(folder.path(), &both_headers);
    let (text, data) = info(&path);
    assert_eq!(line(&text, "header in use"), "none: both are damaged");
    assert_eq!(line(&text, "data write guid"), "unknown");
    assert!(line(&text, "log").starts_with("unknown"), "{text}");
    assert_eq!((line(&text, "creator"), line(&text, "region table in use")), ("test kit", "1"));
    assert!(!text.contains("00000000-0000-0000-0000-000000000000"), "{text}");
    assert_eq!((&data["header"], &data["log"]["state"]), (&Value::Null, &Value::from("unknown")));
    assert_eq!((&data["log"]["guid"], &data["log"]["offset"]), (&Value::Null, &Value::Null));
    let ran = run(vhdx(["hash", "--salvage", "--output", "json"]).arg(&path));
    assert_eq!(ran.json()["chain"][0]["data-write-guid"], Value::Null);

    let path = write(folder.path(), &without_header_section(&Spec::default()));
    let (text, data) = info(&path);
    assert_eq!((line(&text, "creator"), line(&text, "region table in use")), ("unknown", "none: both are damaged"));
    assert_eq!((&data["region-table"]["copy"], &data["header"]), (&Value::Null, &Value::Null));
    assert_eq!(data["region-table"]["regions"].as_array().unwrap().len(), 2);
}

#[test]
fn salvage_groups_reasons_and_counts_what_is_recovered() {
    let folder = temp_dir();
    let mut spec = Spec::default();
    // Two blocks far past the end of the file, and two entries in reserved states.
    for (index, entry) in [(1, (1 << 40) | 6), (3, (2 << 40) | 6), (6, 5), (7, 4)] {
        spec.raw_bat.insert(index, entry);
    }
    let (ran, _, losses) = extract(&write(folder.path(), &spec.build()), &[]);
    let err = &ran.err;
    assert!(err.contains("recovered 4.00 MiB (4194304 bytes) of 8.00 MiB (8388608 bytes), lost 4.00 MiB"), "{err}");
    assert!(err.contains("2.00 MiB (2097152 bytes) in 2 ranges, first lost range: payload block 1 at"), "{err}");
    assert!(err.contains("first lost range: BAT entry of payload block 6 at"), "{err}");
    assert_eq!(err.matches("first lost range").count(), 2, "{err}");
    assert_eq!((&losses["lost-bytes"], &losses["recovered-bytes"]), (&Value::from(4 * MIB), &Value::from(4 * MIB)));
}
