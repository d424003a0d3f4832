//! Reports: what is serialized, key by key and in order, and that it can be read again.
#![cfg(all(feature = "ops", feature = "serde"))]

use std::fmt::Debug;
use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use vhdx_mmap::ops::{self, Algorithm, CheckOptions, Digest, manifest};
use vhdx_mmap::report::{
    Chain, Check, CheckFailure, CheckResult, Compare, CompareEnd, CompareEntry, CompareStart, Diff, DiffEnd, DiffEntry,
    DiffMode, DiffStart, Hash, Info, Log, LossMap, LossMapEnd, LossMapEntry, LossMapStart, MapEntry, MapState, Merge,
    Report, Verify, VerifyEnd, VerifyEntry, VerifyStart, VerifySum, VerifySumOf,
};
use vhdx_mmap::{
    Disk, FoundBy, Input, LogReport, OpenOptions, PayloadBlockState, Rule, ScanOptions, Severity, Strictness,
};

use crate::kit::builder::{Image, Spec};
use crate::kit::log::worked_example;
use crate::kit::{Block, MIB, Model};
use crate::lab::{open_chain, parents_of, run, source};
use crate::support::hex;

/// The report as text has these keys and values in this order, and says the same once it is read again.
#[track_caller]
fn assert_is<R: Serialize + DeserializeOwned + PartialEq + Debug>(report: &R, expected: &Value) {
    let text = serde_json::to_string_pretty(report).unwrap();
    assert_eq!(text, format!("{expected:#}"));
    assert_eq!(&serde_json::from_str::<R>(&text).unwrap(), report);
}

/// A child with a block of each kind, and its parent.
fn family() -> [Image; 2] {
    let base = Spec::default();
    let child = Spec::child_of(&base, "base.vhdx")
        .block(1, Block::full())
        .block(2, Block::zero())
        .block(5, Block::partial(&run(8..16)));
    [child.build(), base.build()]
}

fn chain_of(images: &[&Image]) -> vhdx_mmap::Chain {
    let options = OpenOptions::new().parents(parents_of(images));
    vhdx_mmap::Chain::open(source(images[0]), &options).unwrap()
}

/// An image whose block 2 is in a state that does not exist, opened all the same.
fn salvaged() -> Disk {
    let image = Spec { raw_bat: [(2, 5)].into(), ..Spec::default() }.build();
    Disk::open(source(&image), &OpenOptions::new().strictness(Strictness::Salvage)).unwrap()
}

const DISK_ID: &str = "00000000-0000-0000-0000-0000d15c0001";
const BASE_GUID: &str = "00000000-0000-0000-0000-0000da7a0001";
const CHILD_GUID: &str = "00000000-0000-0000-0000-0000da7a0002";
const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// The info of the base, which is layer 1 where it is a parent.
fn base_info(contents: &Value) -> Value {
    let region = |guid: &str, offset: u64| json!({ "guid": guid, "offset": offset, "length": MIB, "required": true });
    json!({
        "virtual-size": 8 * MIB,
        "filename": "-",
        "cluster-size": MIB,
        "format": "vhdx",
        "actual-size": null,
        "dirty-flag": false,
        "children": [{
            "name": "file",
            "info": {
                "children": [],
                "virtual-size": 7 * MIB,
                "filename": "-",
                "format": "file",
                "actual-size": null,
                "format-specific": { "type": "file", "data": {} },
                "dirty-flag": false,
            },
        }],
        "format-specific": {
            "type": "vhdx",
            "data": {
                "schema": 1,
                "kind": "dynamic",
                "file-length": 7 * MIB,
                "in-use": null,
                "logical-sector-size": 512,
                "physical-sector-size": 4096,
                "virtual-disk-id": DISK_ID,
                "creator": "test kit",
                "header": {
                    "copy": 2,
                    "sequence-number": 8,
                    "version": 1,
                    "file-write-guid": "00000000-0000-0000-0000-0000f11e0001",
                    "data-write-guid": BASE_GUID,
                },
                "log": {
                    "state": "clean",
                    "guid": NIL,
                    "version": 0,
                    "offset": MIB,
                    "length": MIB,
                    "entries-replayed": 0,
                    "file-length-after": 7 * MIB,
                },
                "region-table": {
                    "copy": 1,
                    "regions": [
                        region("2dc27766-f623-4200-9d64-115e9bfd4a08", 3 * MIB),
                        region("8b7ca206-4790-4b9a-b8fe-575f050f886e", 2 * MIB),
                    ],
                },
                "blocks": { "total": 8, "states": { "NOT_PRESENT": 5, "FULLY_PRESENT": 3 } },
                "parent": null,
                "chain": ["-"],
                "contents": contents,
                "checkpoints": null,
                "truncated": null,
                "warnings": [],
            },
        },
        "schema": "vhdx-mmap/info/1",
    })
}

#[test]
fn info_has_the_keys_of_qemu_first() {
    let [child, base] = family();
    let nothing = json!({ "partition-table": null, "holds": null, "details": null, "holds-error": null });
    assert_is(&Info::of(&chain_of(&[&base])).unwrap(), &base_info(&nothing));

    let chain = chain_of(&[&child, &base]);
    assert_is(&Info::of_layer(&chain, 1).unwrap(), &base_info(&Value::Null));
    let info = Info::of(&chain).unwrap();
    assert_is(&info, &serde_json::to_value(&info).unwrap());
    let value = serde_json::to_value(&info).unwrap();
    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    let expected = [
        "virtual-size",
        "filename",
        "cluster-size",
        "format",
        "actual-size",
        "dirty-flag",
        "children",
        "backing-filename",
        "full-backing-filename",
        "backing-filename-format",
        "format-specific",
        "schema",
    ];
    assert_eq!(keys, expected);
    assert_eq!(value["backing-filename"], ".\\base.vhdx");
    assert_eq!((&value["full-backing-filename"], &value["backing-filename-format"]), (&json!("-"), &json!("vhdx")));
    let data = &value["format-specific"]["data"];
    let states = json!({ "NOT_PRESENT": 5, "ZERO": 1, "FULLY_PRESENT": 1, "PARTIALLY_PRESENT": 1 });
    assert_eq!(data["blocks"], json!({ "total": 8, "states": states }));
    assert_eq!(info.format_specific.data.blocks.states.as_ref().unwrap().get("ZERO"), Some(&1));
    assert_eq!(data["kind"], "differencing");
    assert_eq!(data["chain"], json!(["-", "-"]));
    let locator = &data["parent"]["locator"];
    let keys: Vec<&String> = locator.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["parent_linkage", "absolute_win32_path", "relative_path", "volume_path", "parent_linkage2"]);
    assert_eq!(locator["parent_linkage"], format!("{{{BASE_GUID}}}"));
    assert!(Info::of_layer(&chain, 2).is_err());
}

#[test]
fn info_says_why_the_contents_are_unknown() {
    let [child, _] = family();
    let chain = chain_of(&[&child]);
    let info = Info::of(&chain).unwrap();
    assert_is(&info, &serde_json::to_value(&info).unwrap());
    let data = &serde_json::to_value(&info).unwrap()["format-specific"]["data"];
    let error = chain.broken().unwrap().to_string();
    assert_eq!(data["contents"], json!({ "error": error }));
    assert_eq!((&data["parent"]["filename"], &data["parent"]["error"]), (&Value::Null, &json!(error)));
}

#[test]
fn info_lists_partitions() {
    let mut record = vec![0; 512];
    record[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0]);
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    let image = Spec::empty(8 * MIB).block(0, Block::full().bytes(&record)).build();
    let info = Info::of(&chain_of(&[&image])).unwrap();
    let value = serde_json::to_value(&info).unwrap();
    let partition = json!({
        "number": 1,
        "start": MIB,
        "length": 2 * MIB,
        "type": "Linux",
        "name": "",
        "holds": null,
        "details": null,
        "holds-error": null,
    });
    let table = json!({
        "scheme": "MBR", "sector-size": 512, "is-backup": false, "is-protected": true, "partitions": [partition],
    });
    let expected = json!({ "partition-table": table, "holds": null, "details": null, "holds-error": null });
    assert_eq!(value["format-specific"]["data"]["contents"].to_string(), expected.to_string());
    assert_eq!(serde_json::from_value::<Info>(value).unwrap(), info);
}

#[test]
fn chain_has_an_entry_for_each_layer() {
    let [child, base] = family();
    let layer = |depth: usize, kind: &str, guid: &str| {
        let is_child = depth == 0;
        json!({
            "depth": depth,
            "filename": "-",
            "kind": kind,
            "virtual-size": 8 * MIB,
            "log": "clean",
            "in-use": null,
            "data-write-guid": guid,
            "found-by": (!is_child).then_some("caller"),
            "linkage": (!is_child).then_some("parent_linkage"),
            "parent": is_child.then_some(".\\base.vhdx"),
            "parent-linkage": is_child.then_some(BASE_GUID),
        })
    };
    let layers = json!([layer(0, "differencing", CHILD_GUID), layer(1, "dynamic", BASE_GUID)]);
    let expected = json!({ "schema": "vhdx-mmap/chain/1", "layers": layers, "complete": true, "error": null });
    assert_is(&Chain::of(&chain_of(&[&child, &base])), &expected);

    let alone = chain_of(&[&child]);
    let error = alone.broken().unwrap().to_string();
    let layers = json!([layer(0, "differencing", CHILD_GUID)]);
    let expected = json!({ "schema": "vhdx-mmap/chain/1", "layers": layers, "complete": false, "error": error });
    assert_is(&Chain::of(&alone), &expected);
}

#[test]
fn log_has_its_entries() {
    let mut image = worked_example();
    // The first sector of the newest entry.
    image.bytes.write(MIB + 0x7000 + 100, &[1]);
    let log = Log::of(None, &LogReport::read(source(&image)).unwrap());
    let value = serde_json::to_value(&log).unwrap();
    assert_is(&log, &value);
    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["schema", "filename", "dirty-flag", "log-guid", "log-offset", "log-length", "verdict", "entries"]
    );
    assert_eq!(value["schema"], "vhdx-mmap/log/1");
    assert_eq!((&value["dirty-flag"], &value["log-offset"]), (&json!(true), &json!(MIB)));
    let (first, last) = (&value["entries"][0], &value["entries"][4]);
    let expected = json!({
        "offset": 0,
        "status": "stale",
        "length": 4096,
        "tail": 0,
        "sequence-number": 80_117_443_871_106_387_u64,
        "descriptors": 0,
        "log-guid": "e6fc743c-81ed-4fe8-bf54-698ed57ba0b8",
        "flushed-file-offset": 4 * MIB,
        "last-file-offset": 4 * MIB,
    });
    assert_eq!(first.to_string(), expected.to_string());
    assert_eq!((&last["offset"], &last["status"]), (&json!(0x7000), &json!("broken")));
    assert!(last["reason"].as_str().unwrap().contains("CRC-32C"), "{last}");
    assert_eq!(last.as_object().unwrap().len(), 3);
}

#[test]
fn map_has_the_keys_of_qemu_first() {
    let [child, base] = family();
    let disk = open_chain(&[&child, &base]).unwrap();
    let extents: Vec<_> = disk.extents(..).map(Result::unwrap).collect();
    let entries: Vec<MapEntry<'_>> = extents.iter().map(|extent| MapEntry::of(&disk, extent)).collect();
    let data = |start: u64, length: u64, depth: usize, offset: u64, state: &str| {
        json!({
            "start": start, "length": length, "depth": depth, "present": true, "zero": false, "data": true,
            "compressed": false, "offset": offset, "layer": "-", "state": state,
        })
    };
    let zero = |start: u64, length: u64, depth: usize, state: &str| {
        json!({
            "start": start, "length": length, "depth": depth, "present": state != "NOT_PRESENT", "zero": true,
            "data": false, "compressed": false, "layer": "-", "state": state,
        })
    };
    let expected = json!([
        data(0, MIB, 1, 4 * MIB, "FULLY_PRESENT"),
        data(MIB, MIB, 0, 4 * MIB, "FULLY_PRESENT"),
        zero(2 * MIB, MIB, 0, "ZERO"),
        zero(3 * MIB, 2 * MIB, 1, "NOT_PRESENT"),
        data(5 * MIB, 4096, 1, 6 * MIB, "FULLY_PRESENT"),
        data(5 * MIB + 4096, 4096, 0, 5 * MIB + 4096, "PARTIALLY_PRESENT"),
        data(5 * MIB + 8192, MIB - 8192, 1, 6 * MIB + 8192, "FULLY_PRESENT"),
        zero(6 * MIB, 2 * MIB, 1, "NOT_PRESENT"),
    ]);
    assert_is(&entries, &expected);

    let disk = salvaged();
    let lost = disk.extent_at(2 * MIB, MIB).unwrap().unwrap();
    let mut expected = zero(2 * MIB, MIB, 0, "LOST");
    expected["present"] = false.into();
    assert_is(&MapEntry::of(&disk, &lost), &expected);
}

#[test]
fn loss_map_and_its_parts_say_the_same() {
    let disk = salvaged();
    let losses: Vec<_> = disk.losses(..).collect();
    let expected = json!({
        "schema": "vhdx-mmap/loss-map/1",
        "filename": "-",
        "virtual-size": 8 * MIB,
        "range": { "start": MIB, "length": 7 * MIB },
        "losses": [{
            "start": 2 * MIB,
            "length": MIB,
            "layer": 0,
            "structure": "BAT entry of payload block 2",
            "offset": 3 * MIB + 16,
            "reason": losses[0].reason.to_string(),
        }],
        "lost-bytes": MIB,
        "recovered-bytes": 6 * MIB,
    });
    let map = LossMap::of(&disk, MIB..8 * MIB);
    assert_is(&map, &expected);
    assert_eq!(map.start, LossMapStart::of(&disk, MIB..8 * MIB));
    assert_eq!(map.losses, [LossMapEntry::of(&losses[0])]);
    assert_eq!(map.end, LossMapEnd::of(MIB..8 * MIB, MIB));
}

#[test]
fn check_has_the_keys_of_qemu_first() {
    let image = Spec { raw_bat: [(2, 5)].into(), ..Spec::default() }.build();
    let report = ops::check(source(&image), &CheckOptions::new(OpenOptions::new())).unwrap();
    let finding = report.findings.iter().find(|finding| finding.rule.code() == "V65").unwrap();
    let check = Check::of(&report, false);
    let value = serde_json::to_value(&check).unwrap();
    assert_is(&check, &value);
    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    let expected = [
        "filename",
        "format",
        "check-errors",
        "corruptions",
        "leaks",
        "image-end-offset",
        "total-clusters",
        "allocated-clusters",
        "fragmented-clusters",
        "warnings",
        "notes",
        "leaked-bytes",
        "log",
        "log-entries-replayed",
        "truncated",
        "in-use",
        "schema",
        "counts",
        "findings",
    ];
    assert_eq!(keys, expected);
    let expected = json!({
        "code": "V65",
        "severity": "corruption",
        "structure": "BAT entry of payload block 2",
        "layer": 0,
        "offset": 3 * MIB + 16,
        "range": { "start": 2 * MIB, "length": MIB },
        "message": finding.detail.to_string(),
        "habit-of": null,
    });
    let found = value["findings"].as_array().unwrap().iter().find(|found| found["code"] == "V65").unwrap();
    assert_eq!(found.to_string(), expected.to_string());
    let count = json!({ "code": "V65", "severity": "corruption", "count": 1 });
    assert!(value["counts"].as_array().unwrap().contains(&count), "{value:#}");
    assert_eq!((&value["total-clusters"], &value["allocated-clusters"]), (&json!(8), &json!(2)));
    // Block 2 has its place, and nothing refers to it.
    assert_eq!((&value["leaks"], &value["leaked-bytes"]), (&json!(1), &json!(MIB)));

    let failure = CheckResult::Failed(CheckFailure::of(Path::new("disk.vhdx"), "cannot be opened"));
    let expected = json!({
        "filename": "disk.vhdx",
        "format": null,
        "check-errors": 1,
        "error": "cannot be opened",
        "schema": "vhdx-mmap/check/1",
    });
    assert_is(&failure, &expected);
    assert_is(&CheckResult::Checked(Box::new(check)), &value);
}

#[test]
fn strict_check_counts_warnings_as_corruptions() {
    let mut image = Spec::default().build();
    image.patch_header_raw(1, 200, &[1]);
    let report = ops::check(source(&image), &CheckOptions::new(OpenOptions::new())).unwrap();
    let corruptions = [false, true].map(|is_strict| Check::of(&report, is_strict).corruptions);
    assert_eq!(corruptions, [0, Check::of(&report, false).warnings]);
    assert!(corruptions[1] > 0);
}

fn content(images: &[&Image]) -> Vec<u8> {
    let models: Vec<&Model> = images.iter().map(|image| &image.model).collect();
    Model::read(&models, 0, usize::try_from(8 * MIB).unwrap()).unwrap()
}

#[test]
fn hash_has_digests_in_the_order_in_which_they_were_asked_for() {
    let [child, base] = family();
    let disk = open_chain(&[&child, &base]).unwrap();
    let algorithms = [Algorithm::Blake3, Algorithm::Crc32];
    let digests = ops::hash(Input::disk(&disk), &algorithms, &ScanOptions::new()).unwrap();
    let layer = |guid: &str| json!({ "filename": "-", "data-write-guid": guid, "log": "clean" });
    let blake3 = hex(blake3::hash(&content(&[&child, &base])).as_bytes());
    let about = json!({
        "schema": "vhdx-mmap/hash/1",
        "filename": "-",
        "virtual-size": 8 * MIB,
        "log": "clean",
        "in-use": null,
        "chain": [layer(CHILD_GUID), layer(BASE_GUID)],
    });
    assert_is(&Hash::of(&disk), &about);
    let mut expected = about.clone();
    expected["range"] = json!({ "offset": 0, "length": 8 * MIB });
    expected["disk"] = json!({ "blake3": blake3, "crc32": digests[1].to_string() });
    let report = Hash::of(&disk).disk(0..8 * MIB, &digests);
    assert_is(&report, &expected);
    expected["file-length"] = 7.into();
    expected["file"] = json!({ "crc32": "00000007" });
    let of_file = [Digest::from_hex(Algorithm::Crc32, "00000007").unwrap()];
    assert_is(&report.file(7, &of_file), &expected);

    let mut lines = Vec::new();
    let roots = manifest::create_manifest(&disk, &algorithms, None, &ScanOptions::new(), &mut lines).unwrap();
    let root = |name: &str, digest: &str| json!({ "name": name, "digest": digest });
    let mut expected = about;
    expected["root"] =
        json!([root("blake3-of-block-digests", &roots[0].digest), root("crc32-of-block-digests", &roots[1].digest),]);
    assert_is(&Hash::of(&disk).root(&roots), &expected);
    let merged = json!({ "schema": "vhdx-mmap/merge/1", "manifest": "a/b", "root": expected["root"] });
    assert_is(&Merge::of(Path::new("a/b"), &roots), &merged);
}

#[test]
fn verify_lists_blocks_that_differ() {
    let base = Spec::default();
    let later = base.clone().block(2, Block::full().bytes(b"later"));
    let options = ScanOptions::new();
    let (mut lines, mut mismatches) = (Vec::new(), Vec::new());
    let disk = open_chain(&[&base.build()]).unwrap();
    manifest::create_manifest(&disk, &[Algorithm::Blake3], None, &options, &mut lines).unwrap();
    let disk = open_chain(&[&later.build()]).unwrap();
    let add = |mismatch| mismatches.push(VerifyEntry::of(&mismatch));
    let verified = manifest::verify(&disk, Cursor::new(&lines), &options, add).unwrap();
    let digest_of = |spec: &Spec| {
        let all = content(&[&spec.build()]);
        hex(blake3::hash(&all[2 << 20..3 << 20]).as_bytes())
    };
    let expected = json!({
        "schema": "vhdx-mmap/verify/1",
        "filename": "-",
        "manifest": "manifest",
        "virtual-size": 8 * MIB,
        "in-use": null,
        "mismatches": [{
            "block": 2,
            "start": 2 * MIB,
            "length": MIB,
            "algorithm": "blake3",
            "expected": digest_of(&base),
            "found": digest_of(&later),
        }],
        "same-image": true,
        "range": { "offset": 0, "length": 8 * MIB },
        "blocks": 8,
        "mismatching-blocks": 1,
        "ok": false,
    });
    let (start, end) = (VerifyStart::of(&disk, Path::new("manifest")), VerifyEnd::of(&verified));
    assert_is(&Verify::of(start, mismatches, end), &expected);
}

#[test]
fn verify_compares_digests_of_a_list() {
    let digest = |text: &str| Digest::from_hex(Algorithm::Crc32, text).unwrap();
    let (name, good, bad) = (Path::new("disk.vhdx"), digest("0123abcd"), digest("ffffffff"));
    let expected = |found: &str, ok: bool| {
        json!({
            "schema": "vhdx-mmap/verify-sum/1", "filename": "disk.vhdx", "of": "disk", "algorithm": "crc32",
            "expected": "0123abcd", "found": found, "ok": ok,
        })
    };
    assert_is(&VerifySum::of(name, VerifySumOf::Disk, &good, &good), &expected("0123abcd", true));
    assert_is(&VerifySum::of(name, VerifySumOf::Disk, &good, &bad), &expected("ffffffff", false));
    let schema = "vhdx-mmap/verify-sum/1";
    let expected = json!({ "schema": schema, "filename": "disk.vhdx", "of": "file", "ok": false, "error": "no" });
    assert_is(&VerifySum::unreadable(name, VerifySumOf::File, "no"), &expected);
}

#[test]
fn compare_lists_differences_where_all_were_asked_for() {
    let [child, base] = family();
    let (one, other) = (open_chain(&[&child, &base]).unwrap(), open_chain(&[&base]).unwrap());
    let (one, other) = (Input::disk(&one), Input::disk(&other));
    let mut found = Vec::new();
    let add = |difference| {
        found.push(CompareEntry::of(&difference));
        ControlFlow::Continue(())
    };
    ops::compare(one, other, &ScanOptions::new(), add).unwrap();
    let differing = found.iter().map(|entry| entry.length).sum();
    let start = json!({
        "schema": "vhdx-mmap/compare/1", "filenames": ["-", "-"], "virtual-sizes": [8 * MIB, 8 * MIB],
        "in-use": [null, null],
    });
    let with = |more: Value| {
        let mut all = start.clone();
        more.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
        all
    };
    let expected = with(json!({
        "differences": [
            { "start": MIB, "length": 2 * MIB, "first": MIB },
            { "start": 5 * MIB + 4096, "length": 4096, "first": 5 * MIB + 4096 },
        ],
        "identical": false,
        "first-difference": MIB,
        "differing-bytes": 2 * MIB + 4096,
    }));
    let end = CompareEnd::of(Some(found[0].first), Some(differing));
    assert_is(&Compare::of(CompareStart::of(one, other), Some(found), end), &expected);

    let expected = with(json!({ "identical": true, "first-difference": null }));
    assert_is(&Compare::of(CompareStart::of(one, other), None, CompareEnd::of(None, None)), &expected);
    let expected = with(json!({ "identical": false, "first-difference": null, "same-size": false }));
    assert_is(&Compare::of(CompareStart::of(one, other), None, CompareEnd::of_other_size()), &expected);
}

#[test]
fn diff_lists_changes() {
    let [child, base] = family();
    let disk = open_chain(&[&child, &base]).unwrap();
    let (mut changes, mut end) = (Vec::new(), DiffEnd::default());
    ops::allocated_changes(&disk, 1, |change| {
        end.add(&change);
        changes.push(DiffEntry::of(&change));
        ControlFlow::Continue(())
    })
    .unwrap();
    let expected = json!({
        "schema": "vhdx-mmap/diff/1",
        "filename": "-",
        "ancestor": "-",
        "ancestor-depth": 1,
        "virtual-size": 8 * MIB,
        "in-use": null,
        "mode": "allocated",
        "changes": [
            { "start": MIB, "length": MIB, "zero": false },
            { "start": 2 * MIB, "length": MIB, "zero": true },
            { "start": 5 * MIB + 4096, "length": 4096, "zero": false },
        ],
        "changed-ranges": 3,
        "changed-bytes": 2 * MIB + 4096,
        "zero-bytes": MIB,
    });
    let start = DiffStart::of(&disk, 1, DiffMode::Allocated);
    assert_is(&Diff::of(start, changes, end), &expected);
}

#[test]
fn reports_of_another_format_are_refused() {
    let disk = salvaged();
    let map = LossMap::of(&disk, 0..disk.size());
    assert_eq!((LossMap::SCHEMA, map.start.schema.as_str()), ("vhdx-mmap/loss-map/1", "vhdx-mmap/loss-map/1"));
    let value = serde_json::to_value(&map).unwrap();
    for other in [json!("vhdx-mmap/loss-map/2"), json!("vhdx-mmap/map/1"), json!(1), Value::Null] {
        let mut copy = value.clone();
        copy["schema"] = other;
        assert!(serde_json::from_value::<LossMap>(copy).is_err());
    }
}

#[test]
fn words_are_read_again() {
    for rule in Rule::ALL {
        assert_is(rule, &json!(rule.code()));
    }
    for &state in PayloadBlockState::ALL {
        assert_is(&MapState::Block(state), &json!(state.as_str()));
        assert_is(&state, &json!(state.as_str()));
    }
    assert_is(&MapState::Lost, &json!("LOST"));
    assert_is(&Severity::Unsupported, &json!("unsupported"));
    assert_is(&FoundBy::FileName, &json!("file name beside the child"));
    assert_is(&ops::Volume::ExFat, &json!("exFAT"));
    assert!(serde_json::from_value::<Rule>(json!("V0")).is_err());
    assert!(serde_json::from_value::<MapState>(json!("PRESENT")).is_err());
    assert!(serde_json::from_value::<Severity>(json!("Note")).is_err());
}
