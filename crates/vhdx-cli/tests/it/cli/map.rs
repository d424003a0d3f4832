//! `vhdx map`: the allocation map, compared with the files.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::kit::builder::Spec;
use crate::kit::log::Old;
use crate::kit::{Block, FileBytes, MIB, Model, TIB};
use crate::support::temp_dir;

use super::{args, assert_fails, keys, part, vhdx_run, write_image};

fn map_of(path: &Path) -> Vec<Value> {
    vhdx_run(args!["map", "--output", "json", path]).done().json().as_array().unwrap().clone()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// A child of two layers: every state, partially present blocks, unordered and adjacent blocks.
fn chain(folder: &Path) -> (Vec<PathBuf>, Vec<Spec>) {
    let mut base = Spec::empty(24 * MIB).block(6, Block::zero()).block(7, Block::new(3)).block(8, Block::new(1));
    for number in [0, 1, 2, 3, 10, 11, 12, 20] {
        base = base.block(number, Block::full());
    }
    // Blocks 10 and 11 are adjacent in reverse order.
    base.blocks.insert(10, Block::full().at(40 * MIB));
    base.blocks.insert(11, Block::full().at(39 * MIB));
    let middle = Spec::child_of(&base, "base.vhdx")
        .block(1, Block::zero())
        .block(2, Block::partial(&[0..16, 2040..2048]))
        .block(3, part(0..8))
        .block(14, Block::full());
    let top = Spec::child_of(&middle, "middle.avhdx")
        .block(2, part(8..24))
        .block(14, Block::new(3))
        .block(15, Block::full())
        .block(23, Block::full());
    let specs = vec![top, middle, base];
    let names = ["top.avhdx", "middle.avhdx", "base.vhdx"];
    let paths = names.iter().zip(&specs).map(|(name, spec)| write_image(folder, name, spec)).collect();
    (paths, specs)
}

#[test]
fn map_json_has_the_keys_of_qemu_img() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let report = map_of(&path);
    let common = ["start", "length", "depth", "present", "zero", "data", "compressed"];
    assert_eq!(keys(&report[0]), [&common[..], &["offset", "layer", "state"]].concat());
    assert_eq!(keys(&report[1]), [&common[..], &["layer", "state"]].concat());
    // By hand, from the image: blocks 0, 2 and 5 of 1 MiB each follow each other in the file from 4 MiB on.
    let extent = |start: u64, length: u64, offset: Option<u64>| {
        let is_data = offset.is_some();
        let mut report = json!({
            "start": start * MIB, "length": length * MIB, "depth": 0, "present": is_data, "zero": !is_data,
            "data": is_data, "compressed": false, "layer": path,
            "state": if is_data { "FULLY_PRESENT" } else { "NOT_PRESENT" },
        });
        if let Some(offset) = offset {
            report["offset"] = json!(offset * MIB);
        }
        report
    };
    let expected = [(0, 1, Some(4)), (1, 1, None), (2, 1, Some(5)), (3, 2, None), (5, 1, Some(6)), (6, 2, None)];
    assert_eq!(report, expected.map(|(start, length, offset)| extent(start, length, offset)));
}

#[test]
fn map_offsets_match_the_files() {
    let folder = temp_dir();
    let (paths, specs) = chain(folder.path());
    let images: Vec<_> = specs.iter().map(Spec::build).collect();
    let models: Vec<&Model> = images.iter().map(|image| &image.model).collect();
    let mut at = 0;
    for extent in map_of(&paths[0]) {
        let (start, length, depth) = (number(&extent["start"]), number(&extent["length"]), number(&extent["depth"]));
        assert_eq!(start, at, "{extent}");
        at += length;
        let depth = usize::try_from(depth).unwrap();
        assert_eq!(extent["layer"], json!(paths[depth]));
        let length = usize::try_from(length).unwrap();
        let expected = Model::read(&models, start, length).unwrap();
        if extent["data"] == true {
            let offset = number(&extent["offset"]);
            assert!(images[depth].bytes.bytes_at(offset, length) == expected, "{extent}");
            assert_eq!((&extent["zero"], &extent["present"]), (&json!(false), &json!(true)));
        } else {
            assert!(expected.iter().all(|byte| *byte == 0), "{extent}");
            assert_eq!((&extent["zero"], extent.get("offset")), (&json!(true), None));
            // Zeros that were written, or unallocated.
            assert_eq!(extent["present"], json!(extent["state"] != "NOT_PRESENT"));
        }
    }
    assert_eq!(at, 24 * MIB);
}

#[test]
fn map_depth_and_state_are_of_the_deciding_layer() {
    let folder = temp_dir();
    let (paths, _) = chain(folder.path());
    let map = map_of(&paths[0]);
    let at = |offset: u64| {
        let found = map.iter().find(|extent| {
            (number(&extent["start"])..number(&extent["start"]) + number(&extent["length"])).contains(&offset)
        });
        let found = found.unwrap();
        (number(&found["depth"]), found["state"].as_str().unwrap().to_owned())
    };
    let sector = |block: u64, sector: u64| block * MIB + sector * 512;
    for (offset, depth, state) in [
        (0, 2, "FULLY_PRESENT"),
        (MIB, 1, "ZERO"),
        (sector(2, 0), 1, "PARTIALLY_PRESENT"),
        (sector(2, 8), 0, "PARTIALLY_PRESENT"),
        (sector(2, 23), 0, "PARTIALLY_PRESENT"),
        (sector(2, 24), 2, "FULLY_PRESENT"),
        (sector(2, 2040), 1, "PARTIALLY_PRESENT"),
        (sector(3, 7), 1, "PARTIALLY_PRESENT"),
        (sector(3, 8), 2, "FULLY_PRESENT"),
        (5 * MIB, 2, "NOT_PRESENT"),
        (6 * MIB, 2, "ZERO"),
        (7 * MIB, 2, "UNMAPPED"),
        (8 * MIB, 2, "UNDEFINED"),
        (14 * MIB, 0, "UNMAPPED"),
        (15 * MIB, 0, "FULLY_PRESENT"),
    ] {
        assert_eq!(at(offset), (depth, state.to_owned()), "{offset:#x}");
    }
}

#[test]
fn map_merges_contiguous_runs() {
    let folder = temp_dir();
    let mut spec = Spec::empty(8 * MIB);
    for number in 0..4 {
        spec = spec.block(number, Block::full());
    }
    for number in 4..6 {
        spec = spec.block(number, Block::zero());
    }
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let lengths: Vec<u64> = map_of(&path).iter().map(|extent| number(&extent["length"]) / MIB).collect();
    assert_eq!(lengths, [4, 2, 2]);
    // A child without own blocks is one extent of its parent.
    let base = write_image(folder.path(), "base.vhdx", &Spec::empty(8 * MIB));
    let child = Spec::child_of(&Spec::empty(8 * MIB), "base.vhdx");
    let path = write_image(folder.path(), "child.avhdx", &child);
    let all = map_of(&path);
    assert_eq!((all.len(), &all[0]["layer"], &all[0]["depth"]), (1, &json!(base), &json!(1)));
}

#[test]
fn map_range_is_a_part_of_the_whole() {
    let folder = temp_dir();
    let (paths, _) = chain(folder.path());
    let whole = map_of(&paths[0]);
    for (start, length) in [(0, MIB), (MIB + 1, 1), (2 * MIB + 4096, 4 * MIB), (10 * MIB + 7, 14 * MIB), (24 * MIB, 1)]
    {
        let (from, most) = (start.to_string(), length.to_string());
        let args = args!["map", "--output", "json", "-s", from, "-l", most, &paths[0]];
        let part = vhdx_run(args).done().json();
        let end = (start + length).min(24 * MIB);
        let expected = whole.iter().filter_map(|extent| {
            let (first, last) = (number(&extent["start"]), number(&extent["start"]) + number(&extent["length"]));
            let (from, to) = (first.max(start), last.min(end));
            let mut cut = extent.clone();
            cut["start"] = json!(from);
            cut["length"] = json!(to.checked_sub(from).filter(|length| *length > 0)?);
            if let Some(offset) = extent["offset"].as_u64() {
                cut["offset"] = json!(offset + (from - first));
            }
            Some(cut)
        });
        assert_eq!(part, Value::Array(expected.collect()), "{start} {length}");
    }
    for args in [args!["-l", "0"], args!["-s", "24M"], args!["-s", "24M", "-l", "1T"]] {
        let args = args!["map", "--output", "json", &paths[0]].into_iter().chain(args);
        assert_eq!(vhdx_run(args).done().text(), "[]\n");
    }
}

#[test]
fn map_prints_a_table() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let text = vhdx_run(args!["map", "-l", "3M", &path]).done().text();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let file = path.to_str().unwrap();
    assert_eq!(
        rows,
        [
            vec!["Offset", "Length", "Mapped", "to", "State", "Layer", "File"],
            vec!["0x0", "0x100000", "0x400000", "FULLY_PRESENT", "0", file],
            vec!["0x100000", "0x100000", "-", "NOT_PRESENT", "0", file],
            vec!["0x200000", "0x100000", "0x500000", "FULLY_PRESENT", "0", file],
            "3 extents: 2.00 MiB (2097152 bytes) data, 0 bytes zeros, 1.00 MiB (1048576 bytes) unallocated"
                .split(' ')
                .collect(),
        ]
    );
    let columns: Vec<usize> = text.lines().filter_map(|line| line.find(file).or(line.find("File"))).collect();
    assert!(columns.len() == 4 && columns.iter().all(|column| *column == columns[0]), "{text}");
}

#[test]
fn map_has_no_state_past_the_end_of_the_parent() {
    let folder = temp_dir();
    let base = Spec::empty(2 * MIB).block(1, Block::full());
    write_image(folder.path(), "base.vhdx", &base);
    let mut child = Spec::child_of(&base, "base.vhdx");
    child.disk_size = 8 * MIB;
    let path = write_image(folder.path(), "child.avhdx", &child);
    let ran = vhdx_run(args!["map", "--output", "json", &path]).done();
    let map = ran.json();
    let last = map.as_array().unwrap().last().unwrap().clone();
    assert_eq!((number(&last["start"]), number(&last["length"])), (2 * MIB, 6 * MIB));
    assert_eq!((&last["state"], &last["present"], &last["zero"]), (&Value::Null, &json!(false), &json!(true)));
    assert!(ran.err.contains("warning") && ran.err.contains("[V61]"), "{}", ran.err);
    assert!(vhdx_run(args!["map", &path]).done().text().contains("past parent end"));
}

#[test]
fn map_has_no_offset_for_replayed_pages() {
    let folder = temp_dir();
    let spec = Spec::default();
    let path = folder.path().join("dirty.vhdx");
    let mut image = spec.build();
    // One page of the first block and one page of the BAT are only in the log.
    let (bat, payload) = (image.block_entry_at(0) & !0xfff, image.block_at(0) + 8 * 4096);
    image.log_only(&[bat, payload], Old::Junk(7));
    image.bytes.write_file(&path).unwrap();
    let mut at = 0;
    for extent in map_of(&path) {
        let (start, length) = (number(&extent["start"]), usize::try_from(number(&extent["length"])).unwrap());
        assert_eq!(start, at);
        let expected = Model::read(&[&image.model], start, length).unwrap();
        if let Some(offset) = extent["offset"].as_u64() {
            assert!(image.bytes.bytes_at(offset, length) == expected, "{extent}");
        }
        assert_eq!(extent["zero"], expected.iter().all(|byte| *byte == 0), "{extent}");
        at += number(&extent["length"]);
    }
    assert_eq!(at, 8 * MIB);
}

#[test]
fn map_json_stays_incomplete_after_an_error() {
    let folder = temp_dir();
    let mut spec = Spec::default();
    spec.raw_bat.insert(3, 4);
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let ran = vhdx_run(args!["map", "--output", "json", &path]);
    assert_fails(&ran, 65, &["disk.vhdx", "payload block 3", "reserved state (found 4, expected"]);
    assert!(ran.text().starts_with("[{\"start\":0,") && !ran.text().contains(']'), "{}", ran.text());
    assert_eq!(ran.text().matches("\"start\"").count(), 3);
    let ran = vhdx_run(args!["map", &path]);
    assert_fails(&ran, 65, &["payload block 3"]);
    assert_eq!(ran.text().lines().count(), 4);
    // Other parts of the map can still be read.
    assert_eq!(vhdx_run(args!["map", "-s", "4M", "--output", "json", &path]).done().json()[0]["start"], 4 * MIB);
}

#[test]
fn map_without_parents_shows_own_blocks() {
    let folder = temp_dir();
    let child = Spec::child_of(&Spec::default(), "missing.vhdx").block(1, Block::full());
    let path = write_image(folder.path(), "child.avhdx", &child);
    let own = args!["map", "--parents", "none", "--output", "json", "-s", "1M", "-l", "1M", &path];
    assert_eq!(vhdx_run(own).done().json()[0]["depth"], 0);
    let ran = vhdx_run(args!["map", "--parents", "none", &path]);
    assert_fails(&ran, 81, &["none was given", "hint: pass --parent"]);
}

#[test]
fn map_of_the_largest_empty_disk_is_one_extent() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::empty(64 * TIB));
    let map = map_of(&path);
    assert_eq!(map.len(), 1);
    assert_eq!(number(&map[0]["length"]), 64 * TIB);
}
