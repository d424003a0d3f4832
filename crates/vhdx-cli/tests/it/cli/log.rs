//! `vhdx log`: every entry of the ring, and why it counts or not.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::kit::builder::{Image, Spec};
use crate::kit::log::{Dirty, Entry, LOG_GUID, worked_example};
use crate::kit::{MIB, PAGE};
use crate::support::temp_dir;

use super::{args, assert_fails, assert_lines, keys, vhdx_run};

fn write(folder: &Path, image: &Image) -> PathBuf {
    let path = folder.join("disk.vhdx");
    image.bytes.write_file(&path).unwrap();
    path
}

fn json_of(path: &Path) -> Value {
    vhdx_run(args!["log", "--output", "json", path]).done().json()
}

/// Offset and status of each entry.
fn statuses(report: &Value) -> Vec<(u64, String)> {
    let entries = report["entries"].as_array().unwrap();
    entries.iter().map(|entry| (entry["offset"].as_u64().unwrap(), entry["status"].as_str().unwrap().into())).collect()
}

#[test]
fn log_lists_the_fields_of_a_windows_log() {
    let folder = temp_dir();
    let path = write(folder.path(), &worked_example());
    let report = json_of(&path);
    assert_eq!(
        keys(&report),
        ["schema", "filename", "dirty-flag", "log-guid", "log-offset", "log-length", "verdict", "entries"]
    );
    assert_eq!((&report["dirty-flag"], &report["verdict"]), (&json!(true), &json!("dirty: 2 entries to replay")));
    assert_eq!(report["log-guid"], "e6fc743c-81ed-4fe8-bf54-698ed57ba0b8");
    assert_eq!((&report["log-offset"], &report["log-length"]), (&json!(MIB), &json!(MIB)));
    let entry = |offset: u64, status: &str, length: u64, tail: u64, number: u64, descriptors: u64, flushed, last| {
        json!({
            "offset": offset, "status": status, "length": length, "tail": tail,
            "sequence-number": 80_117_443_871_106_000_u64 + number, "descriptors": descriptors,
            "log-guid": "e6fc743c-81ed-4fe8-bf54-698ed57ba0b8",
            "flushed-file-offset": flushed, "last-file-offset": last,
        })
    };
    let (short, long) = (0x40_0000, 0x240_0000);
    assert_eq!(
        report["entries"],
        json!([
            entry(0x0000, "stale", 0x1000, 0x0000, 387, 0, short, short),
            entry(0x1000, "stale", 0x2000, 0x1000, 388, 1, short, short),
            entry(0x3000, "stale", 0x2000, 0x1000, 389, 1, short, short),
            entry(0x5000, "active", 0x2000, 0x1000, 390, 1, short, long),
            entry(0x7000, "active", 0x2000, 0x5000, 391, 1, long, long),
        ])
    );
    let first: Vec<&str> = keys(&report["entries"][0]);
    assert_eq!(first[..3], ["offset", "status", "length"]);

    let text = vhdx_run(args!["log", &path]).done().text();
    assert_lines(
        &text,
        &[
            "log: dirty: 2 entries to replay",
            "LogGuid: e6fc743c-81ed-4fe8-bf54-698ed57ba0b8",
            "location: 1.00 MiB (1048576 bytes) at 0x100000",
        ],
    );
    let rows: Vec<Vec<&str>> = text.lines().skip(3).map(|line| line.split_whitespace().collect()).collect();
    let titles = ["Offset", "Length", "Tail", "SequenceNumber", "Descs", "Flushed", "Last", "LogGuid", "Status"];
    assert_eq!(rows[0], titles);
    let guid = "e6fc743c-81ed-4fe8-bf54-698ed57ba0b8";
    assert_eq!(
        rows[5],
        ["0x7000", "0x2000", "0x5000", "80117443871106391", "1", "0x2400000", "0x2400000", guid, "active"]
    );
    assert_eq!((rows.len(), rows[1].last()), (6, Some(&"stale")));
}

#[test]
fn log_lists_entries_of_an_unused_log() {
    let folder = temp_dir();
    let path = write(folder.path(), &Spec::default().build());
    let report = json_of(&path);
    assert_eq!((&report["dirty-flag"], &report["entries"]), (&json!(false), &json!([])));
    assert_eq!(report["verdict"], "clean: nothing to replay");
    let text = vhdx_run(args!["log", &path]).done().text();
    assert_lines(&text, &["log: clean: nothing to replay", "no entries"]);

    let mut image = Dirty::ManyEntries.build(&Spec::default());
    let before = json_of(&write(folder.path(), &image));
    image.set_log_guid(Uuid::nil());
    let report = json_of(&write(folder.path(), &image));
    let (before, after) = (statuses(&before), statuses(&report));
    assert!(!before.is_empty() && before.iter().all(|(_, status)| status == "active"));
    assert_eq!(after, before.into_iter().map(|(at, _)| (at, "other-log".to_owned())).collect::<Vec<_>>());
}

#[test]
fn log_distinguishes_other_logs_and_stale_entries() {
    let folder = temp_dir();
    let image = Dirty::ForeignGuid.build(&Spec::default());
    let report = json_of(&write(folder.path(), &image));
    let all = statuses(&report);
    let count = |status: &str| all.iter().filter(|(_, found)| found == status).count();
    assert!(count("active") > 0 && count("other-log") > 0 && count("broken") == 0, "{all:?}");
    assert_eq!((count("active"), &report["verdict"]), (1, &json!("dirty: 1 entry to replay")));

    let image = Dirty::OlderRun.build(&Spec::default());
    let all = statuses(&json_of(&write(folder.path(), &image)));
    assert!(all.iter().any(|(_, status)| status == "stale"), "{all:?}");
}

#[test]
fn log_names_the_reason_of_a_broken_entry() {
    let folder = temp_dir();
    let at = 0x8000;
    let entry = || Entry::new(LOG_GUID, 5000, at).data(3 * MIB, &[1; 4096]).zero(3 * MIB, PAGE);
    let broken: [(Entry, &str); 13] = [
        (entry().bad_crc(), "wrong CRC-32C"),
        (entry().reserved(1), "reserved field not zero"),
        (entry().patch(16, &[0; 8]), "SequenceNumber 0"),
        (entry().entry_length(0x1000), "wrong EntryLength"),
        (entry().entry_length(0x2001), "wrong EntryLength"),
        (entry().entry_length(0x20_0000), "wrong EntryLength"),
        (entry().patch(12, &1_u32.to_le_bytes()), "wrong Tail"),
        (entry().patch(12, &0x10_0000_u32.to_le_bytes()), "wrong Tail"),
        (entry().descriptor_signature(0, *b"xxxx"), "wrong descriptor 0"),
        (entry().descriptor_sequence(1, 4999), "wrong descriptor 1"),
        (entry().data_signature(0), "wrong data sector 0"),
        (Entry::new(LOG_GUID, 5000, at).data(3 * MIB + 512, &[1; 4096]), "descriptor 0 is not aligned to 4 KiB"),
        (Entry::new(LOG_GUID, 5000, at).data(MIB, &[1; 4096]), "descriptor 0 changes headers or log"),
    ];
    for (entry, reason) in broken {
        let mut image = Dirty::OneEntry.build(&Spec::default());
        image.put_entry(at, &entry);
        let path = write(folder.path(), &image);
        let report = json_of(&path);
        let entries = report["entries"].as_array().unwrap();
        let found: Vec<&Value> = entries.iter().filter(|entry| entry["offset"] == at).collect();
        assert_eq!(found, [&json!({ "offset": at, "status": "broken", "reason": reason })]);
        assert_eq!(report["verdict"], "dirty: 1 entry to replay");
        let text = vhdx_run(args!["log", &path]).done().text();
        assert!(text.contains(&format!("broken: {reason}")), "{text}");
    }
}

#[test]
fn log_reports_a_log_that_cannot_be_replayed() {
    let folder = temp_dir();
    let mut image = Spec::default().build();
    image.put_entry(0, &Entry::new(LOG_GUID, 7, 0).data(3 * MIB, &[1; 4096]).bad_crc());
    image.set_log_guid(LOG_GUID);
    let path = write(folder.path(), &image);
    let report = json_of(&path);
    assert!(report["verdict"].as_str().unwrap().contains("without a complete sequence"), "{report}");
    assert_eq!(statuses(&report), [(0, "broken".to_owned())]);
    // Other commands refer to this one in their hint.
    let hint = format!("hint: `vhdx log {}`", path.display());
    assert_fails(&vhdx_run(args!["map", &path]), 65, &["log at 0x100000", &hint, "--log ignore"]);

    // A log outside the file has no entries, but an error.
    let mut image = Spec::default().build();
    image.patch_headers(72, &(64 * MIB).to_le_bytes());
    image.set_log_guid(LOG_GUID);
    let path = write(folder.path(), &image);
    let report = json_of(&path);
    assert_eq!(report["entries"], json!([]));
    let verdict = report["verdict"].as_str().unwrap();
    assert!(verdict.starts_with("dirty, and ") && verdict.contains("log at 0x4000000"), "{report}");
}

#[test]
fn log_needs_valid_headers_only() {
    let folder = temp_dir();
    let mut image = Dirty::ManyEntries.build(&Spec::default());
    for copy in 1..=2 {
        image.patch_region_table_raw(copy, 0, b"gone");
    }
    let report = json_of(&write(folder.path(), &image));
    assert_eq!(report["dirty-flag"], true);
    assert!(statuses(&report).iter().any(|(_, status)| status == "active"));
    image.bytes.write(64 << 10, b"gone");
    image.bytes.write(128 << 10, b"gone");
    let ran = vhdx_run(args!["log", write(folder.path(), &image)]);
    assert_fails(&ran, 65, &["headers: no usable copy", "header 1 at 0x10000", "header 2 at 0x20000"]);
    assert!(ran.out.is_empty());
}
