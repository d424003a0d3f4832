//! `vhdx info`: JSON and text.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::kit::builder::{Image, PHYSICAL_SECTOR, Spec};
use crate::kit::log::{Dirty, LOG_GUID, Old};
use crate::kit::{Block, MIB, TIB};
use crate::support::temp_dir;

use super::{args, assert_fails, assert_lines, keys, part, vhdx_run, write_image};

/// The keys of qemu-img, which come first.
const FIRST_KEYS: [&str; 7] =
    ["virtual-size", "filename", "cluster-size", "format", "actual-size", "dirty-flag", "children"];

fn json_of(path: &Path) -> Value {
    vhdx_run(args!["info", "--output", "json", path]).done().json()
}

fn text_of(path: &Path) -> String {
    vhdx_run(args!["info", path]).done().text()
}

/// The part that qemu-img does not have.
fn data(report: &Value) -> &Value {
    assert_eq!(
        (keys(&report["format-specific"]), &report["format-specific"]["type"]),
        (vec!["type", "data"], &json!("vhdx"))
    );
    &report["format-specific"]["data"]
}

/// Asserts that the output matches the image.
fn assert_info(path: &Path, image: &Image) {
    // The space that a file occupies is known once it is on the drive.
    File::open(path).unwrap().sync_all().unwrap();
    let (report, spec) = (json_of(path), &image.spec);
    let metadata = std::fs::metadata(path).unwrap();
    let (length, space) = (metadata.len(), metadata.blocks() * 512);
    let name = path.to_str().unwrap();
    let dirty = image.bytes.read(Image::header_at(image.current_header()) + 48, 16) != [0; 16];
    assert_eq!(keys(&report)[..7], FIRST_KEYS);
    for (key, expected) in [
        ("virtual-size", json!(spec.disk_size)),
        ("filename", json!(name)),
        ("cluster-size", json!(spec.block_size)),
        ("format", json!("vhdx")),
        ("actual-size", json!(space)),
        ("dirty-flag", json!(dirty)),
    ] {
        assert_eq!(report[key], expected, "{key}");
    }
    assert_eq!(
        report["children"],
        json!([{ "name": "file", "info": {
            "children": [],
            "virtual-size": length,
            "filename": name,
            "format": "file",
            "actual-size": space,
            "format-specific": { "type": "file", "data": {} },
            "dirty-flag": false,
        } }])
    );
    let data = data(&report);
    let kind = match (spec.has_parent, spec.leave_blocks_allocated) {
        (true, _) => "differencing",
        (false, true) => "fixed",
        (false, false) => "dynamic",
    };
    for (key, expected) in [
        ("kind", json!(kind)),
        ("file-length", json!(length)),
        ("logical-sector-size", json!(spec.sector_size)),
        ("physical-sector-size", json!(spec.physical_sector_size)),
        ("virtual-disk-id", json!(spec.disk_id.to_string())),
        ("creator", json!(String::from_utf16(&spec.creator).unwrap())),
    ] {
        assert_eq!(data[key], expected, "{key}");
    }
    let copy = image.current_header();
    assert_eq!(
        data["header"],
        json!({
            "copy": copy,
            "sequence-number": spec.sequence[copy - 1],
            "version": 1,
            "file-write-guid": spec.file_write_guid.to_string(),
            "data-write-guid": spec.data_write_guid.to_string(),
        })
    );
    let log = &data["log"];
    let guid = if dirty { LOG_GUID } else { Uuid::nil() };
    assert_eq!((&log["offset"], &log["length"]), (&json!(spec.log_offset), &json!(spec.log_length)));
    assert_eq!((&log["guid"], &log["version"]), (&json!(guid.to_string()), &json!(0)));
    assert_eq!(log["state"], if dirty { "replayed" } else { "clean" });
    let regions: Vec<Value> = image
        .regions
        .iter()
        .map(|region| {
            json!({
                "guid": region.guid.to_string(),
                "offset": region.offset,
                "length": region.length,
                "required": region.required == 1,
            })
        })
        .collect();
    assert_eq!(data["region-table"], json!({ "copy": 1, "regions": regions }));
    let blocks = &data["blocks"];
    assert_eq!(blocks["total"], image.geometry.blocks);
    let sum: u64 = blocks["states"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(sum, image.geometry.blocks);
    let full = spec.blocks.values().filter(|block| block.state == 6).count();
    assert_eq!(blocks["states"]["FULLY_PRESENT"].as_u64().unwrap_or(0), u64::try_from(full).unwrap());
}

#[test]
fn info_json_matches_the_image() {
    let folder = temp_dir();
    let base = Spec::default();
    let mut cases = vec![base.clone(), Spec::empty(0x1_2345 * 512), Spec::empty(64 * TIB)];
    cases.push(Spec { leave_blocks_allocated: true, sequence: [9, 8], ..base.clone() });
    cases.push(Spec { sector_size: 4096, block_size: 32 << 20, disk_size: 100 * MIB, ..Spec::empty(0) });
    cases.push(Spec { creator: Vec::new(), physical_sector_size: 512, ..base.clone() });
    // The largest blocks for the largest disk: with small ones, the BAT has half a gigabyte.
    cases[2].block_size = 256 << 20;
    for spec in &cases {
        let image = spec.build();
        let path = folder.path().join("disk.vhdx");
        image.bytes.write_file(&path).unwrap();
        assert_info(&path, &image);
    }
    for dirty in [Dirty::OneEntry, Dirty::StaleBeforeTail, Dirty::LongNumbers] {
        let image = dirty.build(&base);
        let path = folder.path().join("dirty.vhdx");
        image.bytes.write_file(&path).unwrap();
        assert_info(&path, &image);
    }
    write_image(folder.path(), "base.vhdx", &base);
    let child = Spec::child_of(&base, "base.vhdx").block(1, Block::full()).build();
    let path = folder.path().join("child.avhdx");
    child.bytes.write_file(&path).unwrap();
    assert_info(&path, &child);
}

#[test]
fn info_json_keys_are_ordered() {
    let folder = temp_dir();
    let base = Spec::default();
    let path = write_image(folder.path(), "base.vhdx", &base);
    let report = json_of(&path);
    assert_eq!(keys(&report), [&FIRST_KEYS[..], &["format-specific", "schema"]].concat());
    let expected = [
        "schema",
        "kind",
        "file-length",
        "in-use",
        "logical-sector-size",
        "physical-sector-size",
        "virtual-disk-id",
        "creator",
        "header",
        "log",
        "region-table",
        "blocks",
        "parent",
        "chain",
        "contents",
        "checkpoints",
        "truncated",
        "warnings",
    ];
    assert_eq!(keys(data(&report)), expected);
    assert_eq!((&report["schema"], &data(&report)["schema"]), (&json!("vhdx-mmap/info/1"), &json!(1)));
    assert_eq!(data(&report)["parent"], Value::Null);

    let child = write_image(folder.path(), "child.avhdx", &Spec::child_of(&base, "base.vhdx"));
    let report = json_of(&child);
    let backing = ["backing-filename", "full-backing-filename", "backing-filename-format", "format-specific", "schema"];
    assert_eq!(keys(&report), [&FIRST_KEYS[..], &backing].concat());
    assert_eq!(keys(data(&report)), expected);
    assert_eq!(report["backing-filename"], ".\\base.vhdx");
    assert_eq!(report["full-backing-filename"], path.to_str().unwrap());
    assert_eq!(report["backing-filename-format"], "vhdx");
    assert_eq!(data(&report)["chain"], json!([child, path]));
    let locator = &data(&report)["parent"]["locator"];
    let all = ["parent_linkage", "absolute_win32_path", "relative_path", "volume_path", "parent_linkage2"];
    assert_eq!(keys(locator), all);
    assert_eq!(locator["parent_linkage"], format!("{{{}}}", base.data_write_guid));
    assert_eq!(data(&report)["parent"]["filename"], path.to_str().unwrap());
    assert_eq!(data(&report)["parent"]["error"], Value::Null);
}

#[test]
fn info_text_matches_the_image() {
    let folder = temp_dir();
    let base = Spec::default();
    let base_path = write_image(folder.path(), "base.vhdx", &base);
    let child =
        Spec::child_of(&base, "base.vhdx").block(1, Block::full()).block(3, Block::zero()).block(4, part(0..8)).build();
    let path = folder.path().join("child.avhdx");
    child.bytes.write_file(&path).unwrap();
    let text = text_of(&path);
    assert_lines(
        &text,
        &[
            &format!("image: {}", path.display()),
            "file format: vhdx (differencing)",
            "virtual size: 8.00 MiB (8388608 bytes)",
            &format!("file length: 7.00 MiB ({} bytes)", child.bytes.len()),
            "block size: 1.00 MiB (1048576 bytes)",
            "sector size: 512 logical, 4096 physical",
            "blocks: 8 (5 NOT_PRESENT, 1 ZERO, 1 FULLY_PRESENT, 1 PARTIALLY_PRESENT)",
            "creator: test kit",
            "virtual disk id: 00000000-0000-0000-0000-0000d15c0001",
            "data write guid: 00000000-0000-0000-0000-0000da7a0002",
            "file write guid: 00000000-0000-0000-0000-0000f11e0002",
            "header in use: 2 (sequence number 8)",
            "region table in use: 1",
            "log: clean",
            "parent locator relative_path: .\\base.vhdx",
            "parent locator parent_linkage: {00000000-0000-0000-0000-0000da7a0001}",
            &format!("backing file: {}", base_path.display()),
            &format!("chain: {} -> {}", path.display(), base_path.display()),
        ],
    );
    let order: Vec<&str> = text.lines().filter_map(|line| line.split(':').next()).take(6).collect();
    assert_eq!(order, ["image", "file format", "virtual size", "disk size", "file length", "block size"]);
}

#[test]
fn info_counts_blocks_of_every_state() {
    let folder = temp_dir();
    let mut spec = Spec::child_of(&Spec::empty(16 * MIB), "base.vhdx");
    let states = [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 5, 6, 6, 7, 7];
    for (number, state) in (0..).zip(states) {
        spec = spec.block(number, Block::new(state));
    }
    let path = write_image(folder.path(), "child.avhdx", &spec);
    write_image(folder.path(), "base.vhdx", &Spec::empty(16 * MIB));
    let expected = json!({
        "NOT_PRESENT": 1, "UNDEFINED": 2, "ZERO": 3, "UNMAPPED": 4, "FULLY_PRESENT": 2, "PARTIALLY_PRESENT": 2,
        "reserved": 2,
    });
    let report = json_of(&path);
    assert_eq!(data(&report)["blocks"], json!({ "total": 16, "states": expected }));
}

#[test]
fn info_shows_the_log_state() {
    let folder = temp_dir();
    let path = folder.path().join("dirty.vhdx");
    let spec = Spec::default();
    let write = |dirty: Dirty| dirty.build(&spec).bytes.write_file(&path).unwrap();
    write(Dirty::OneEntry);
    let report = json_of(&path);
    assert_eq!(
        (&data(&report)["log"]["state"], &data(&report)["log"]["entries-replayed"]),
        (&json!("replayed"), &json!(1))
    );
    assert!(text_of(&path).contains("\nlog: dirty, replayed in memory: 1 entry (1000 to 1000), "));

    let ignored = vhdx_run(args!["info", "--log", "ignore", "--output", "json", &path]);
    // The file without its log is so torn that it cannot be opened.
    assert_fails(&ignored, 65, &["region table 1 at 0x30000"]);

    // With only the BAT in the log, the file without its log is an empty disk.
    let mut image = spec.build();
    image.log_only(&[image.block_entry_at(0) & !0xfff], Old::Zero);
    image.bytes.write_file(&path).unwrap();
    let ignored = vhdx_run(args!["info", "--log", "ignore", &path]).done().text();
    let words = ["log: dirty, ignored: content may be stale or torn", "blocks: 8 (8 NOT_PRESENT)"];
    assert_lines(&ignored, &words);
    let ignored = vhdx_run(args!["info", "--log", "ignore", "--output", "json", &path]).done().json();
    assert_eq!((&data(&ignored)["log"]["state"], &ignored["dirty-flag"]), (&json!("ignored"), &json!(true)));

    // The file is shorter than the length in its log: a replay extends it.
    write(Dirty::Growth);
    let (report, length) = (json_of(&path), std::fs::metadata(&path).unwrap().len());
    assert_eq!(data(&report)["file-length"], length);
    let after = data(&report)["log"]["file-length-after"].as_u64().unwrap();
    assert!(after > length);
    let grown = format!(", file extended by {} bytes", after - length);
    assert!(text_of(&path).contains(&grown));

    assert_fails(&vhdx_run(args!["info", "--log", "refuse", &path]), 80, &["dirty.vhdx", "log"]);
}

#[test]
fn info_shows_warnings_with_offset_and_code() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    let mut spec = Spec::default();
    spec.omit(PHYSICAL_SECTOR);
    let mut image = spec.build();
    image.patch_header_raw(1, 100, b"damage");
    image.patch_region_table_raw(1, 1000, b"damage");
    image.bytes.write_file(&path).unwrap();
    let report = json_of(&path);
    let warnings = data(&report)["warnings"].as_array().unwrap();
    let of = |code: &str| warnings.iter().find(|warning| warning["code"] == code).unwrap();
    assert!(warnings.iter().all(|warning| keys(warning) == ["code", "severity", "text", "range", "habit-of"]));
    assert_eq!((&of("V5")["severity"], &of("V26")["severity"]), (&json!("warning"), &json!("warning")));
    assert_eq!(of("V45")["severity"], "note");
    assert!(of("V5")["text"].as_str().unwrap().starts_with("header 1 at 0x10004: wrong CRC-32C (found 0x"), "{report}");
    assert!(of("V26")["text"].as_str().unwrap().starts_with("region table 1 at 0x30004: wrong CRC"), "{report}");
    assert_eq!(data(&report)["region-table"]["copy"], 2);
    assert_eq!(data(&report)["physical-sector-size"], Value::Null);
    let text = text_of(&path);
    assert!(text.contains("\nwarning: header 1 at 0x10004: wrong CRC-32C"), "{text}");
    assert_lines(&text, &["notes: 1 harmless note (-v shows it)"]);
    let text = vhdx_run(args!["info", "-v", &path]).done().text();
    assert!(text.lines().any(|line| line.starts_with("note: ") && line.ends_with("[V45]")), "{text}");
    assert_lines(&text, &["region table in use: 2", "sector size: 512 logical, unknown physical"]);
}

#[test]
fn info_of_several_images_ends_with_the_first_failure() {
    let folder = temp_dir();
    let one = write_image(folder.path(), "one.vhdx", &Spec::default());
    let two = write_image(folder.path(), "two.vhdx", &Spec::empty(16 * MIB));
    let junk = folder.path().join("junk.vhdx");
    std::fs::write(&junk, "junk").unwrap();
    let missing = folder.path().join("missing.vhdx");

    let both = vhdx_run(args!["info", &one, &two]).done().text();
    assert_eq!(both.matches("image: ").count(), 2);
    assert!(both.contains("\n\nimage: "), "{both}");
    let both = vhdx_run(args!["info", "--output", "json", &one, &two]).done().json();
    assert_eq!((&both[0]["filename"], &both[1]["filename"]), (&json!(one), &json!(two)));

    let ran = vhdx_run(args!["info", &one, &junk, &missing, &two]);
    assert_fails(&ran, 65, &["junk.vhdx", "missing.vhdx"]);
    let without_count = |text: String| text.rsplit_once("\n\n").unwrap().0.to_owned();
    assert_eq!(without_count(ran.text()), without_count(vhdx_run(args!["info", &one, &two]).done().text()));
    let ran = vhdx_run(args!["info", "--output", "json", &missing, &one, &junk]);
    assert_fails(&ran, 66, &["junk.vhdx", "missing.vhdx"]);
    let report = ran.json();
    let names: Vec<&Value> = report.as_array().unwrap().iter().map(|entry| &entry["filename"]).collect();
    assert_eq!(names, [&json!(missing), &json!(one), &json!(junk)]);
    assert!(report[0]["error"].as_str().unwrap().contains("cannot be opened"), "{report:#}");
    assert_eq!(report[1].get("error"), None);
    let ran = vhdx_run(args!["info", "--output", "json", &junk]);
    assert_fails(&ran, 65, &[]);
    assert_eq!(keys(&ran.json()), ["filename", "error", "looks-like", "schema"]);
}

#[test]
fn info_backing_chain_is_an_array() {
    let folder = temp_dir();
    let base = Spec::default();
    let middle = Spec::child_of(&base, "base.vhdx");
    let top = Spec::child_of(&middle, "middle.avhdx");
    let paths = [("top.avhdx", &top), ("middle.avhdx", &middle), ("base.vhdx", &base)]
        .map(|(name, spec)| write_image(folder.path(), name, spec));
    let report = vhdx_run(args!["info", "--backing-chain", "--output", "json", &paths[0]]).done().json();
    assert_eq!(report.as_array().unwrap().len(), 3);
    for (depth, path) in paths.iter().enumerate() {
        assert_eq!(keys(&report[depth])[..7], FIRST_KEYS);
        assert_eq!(report[depth]["filename"], json!(path));
        assert_eq!(data(&report[depth])["chain"], json!(paths[depth..]));
        assert_eq!(report[depth]["full-backing-filename"], json!(paths.get(depth + 1)));
    }
    let text = vhdx_run(args!["info", "--backing-chain", &paths[0]]).done().text();
    let images: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("image: ")).collect();
    assert_eq!(images, paths.each_ref().map(|path| path.to_str().unwrap()));

    // An image without parents is a chain, too.
    let report = vhdx_run(args!["info", "--backing-chain", "--output", "json", &paths[2]]).done().json();
    assert_eq!(report.as_array().unwrap().len(), 1);

    // Without the base, the other images are shown before the error.
    std::fs::remove_file(&paths[2]).unwrap();
    let ran = vhdx_run(args!["info", "--backing-chain", "--output", "json", &paths[0]]);
    assert_fails(&ran, 81, &["base.vhdx", "not found"]);
    assert_eq!(ran.json().as_array().unwrap().len(), 2);
}

#[test]
fn info_without_parent_shows_everything_else() {
    let folder = temp_dir();
    let child = Spec::child_of(&Spec::default(), "missing.vhdx").block(1, Block::full());
    let path = write_image(folder.path(), "child.avhdx", &child);
    let report = json_of(&path);
    assert_eq!(report["backing-filename"], ".\\missing.vhdx");
    assert_eq!(report["full-backing-filename"], Value::Null);
    let parent = &data(&report)["parent"];
    assert_eq!(parent["filename"], Value::Null);
    assert!(parent["error"].as_str().unwrap().contains("missing.vhdx"), "{parent}");
    assert_eq!(data(&report)["blocks"]["states"]["FULLY_PRESENT"], 1);
    let text = text_of(&path);
    assert_lines(&text, &["file format: vhdx (differencing)", &format!("chain: {}", path.display())]);
    assert!(text.contains("\nbacking file: ") && text.contains("not found"), "{text}");
    // Not searched is different from not found.
    let text = vhdx_run(args!["info", "--parents", "none", &path]).done().text();
    assert_lines(&text, &["backing file: not searched (--parents none)"]);
}

#[test]
fn info_names_parent_error_as_reason_for_unknown_contents() {
    let folder = temp_dir();
    let base = Spec::default();
    let other = Spec { data_write_guid: Uuid::from_u128(9), ..Spec::default() };
    write_image(folder.path(), "base.vhdx", &other);
    let path = write_image(folder.path(), "child.avhdx", &Spec::child_of(&base, "base.vhdx"));
    let text = vhdx_run(args!["info", &path]).done().text();
    let contents = text.lines().find(|line| line.starts_with("contents: ")).unwrap();
    assert!(contents.contains("base.vhdx") && contents.contains("DataWriteGuid"), "{contents}");
    let report = vhdx_run(args!["info", "--output", "json", &path]).done().json();
    let error = report["format-specific"]["data"]["contents"]["error"].as_str().unwrap();
    assert!(contents.ends_with(error), "{error}");
}
