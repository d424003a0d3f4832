//! Rules of the log: V15 to V24, harmful replays, and log entries that are not replayed.

use uuid::Uuid;

use super::headers::{in_use, too_long_a_log};
use super::{Row, patched, row, try_all};
use crate::kit::builder::{Image, Spec};
use crate::kit::log::{Descriptor, Dirty, Entry, Journal, LOG_GUID};
use crate::kit::{KIB, MIB, PAGE};
use crate::support::{run, temp_dir, vhdx};

/// The log begins at 0x100000. In most rows, its first entry has the number 1000, is replayed and changes nothing; the
/// entry in question follows it.
pub(super) fn rows() -> Vec<Row> {
    let page = [7; 4096];
    let next = || Entry::new(LOG_GUID, 1001, 0);
    let target = |offset| after_replayed(&next().data(offset, &page));
    let mut refused = row("refused", in_use(0, b"head"), &["P4 unchecked log @0x100000"]);
    refused.args = &["--log", "refuse"];
    vec![
        row("nothing to replay", patched(|image| image.set_log_guid(LOG_GUID)), &["V15 corruption log @0x100000"]),
        row("GUID", after_replayed(&Entry::new(Uuid::from_u128(1), 1001, 0)), &["V16 note log entry @0x101000"]),
        row("older", after_replayed(&Entry::new(LOG_GUID, 3, 4096)), &["V17 note log entry @0x101000"]),
        row("number 0", after_replayed(&Entry::new(LOG_GUID, 0, 0)), &["V17 note log entry @0x101000"]),
        row("newer, and alone", newer_and_alone(), &["V17 warning log entry @0x103000"]),
        row(
            "several newer ones",
            {
                let mut image = newer_and_alone();
                image.put_entry(64 << 10, &Entry::new(LOG_GUID, 2000, 0));
                image.put_entry(68 << 10, &Entry::new(LOG_GUID, 999, 0));
                image
            },
            &["V17 warning log entry @0x103000", "V17 warning log entry @0x110000", "V17 note log entry @0x111000"],
        ),
        row("checksum", after_replayed(&next().bad_crc()), &["V18 note log entry @0x101000"]),
        row("EntryLength", after_replayed(&next().entry_length(8192)), &["V18 note log entry @0x101000"]),
        row("Reserved", after_replayed(&next().reserved(1)), &["V18 note log entry @0x101000"]),
        row(
            "descriptor",
            after_replayed(&next().zero(2 * MIB, PAGE).descriptor_signature(0, *b"zerO")),
            &["V18 note log entry @0x101000"],
        ),
        row(
            "data sector",
            after_replayed(&next().data(2 * MIB, &page).data_high(0, 1)),
            &["V18 note log entry @0x101000"],
        ),
        row("tail", after_replayed(&Entry::new(LOG_GUID, 1001, 2048)), &["V19 note log entry @0x101000"]),
        row("tail outside", after_replayed(&Entry::new(LOG_GUID, 1001, 1 << 20)), &["V19 note log entry @0x101000"]),
        row("FileOffset", target(2 * MIB + 512), &["V20 note log entry @0x101000"]),
        row("ZeroLength", after_replayed(&next().zero(2 * MIB, 512)), &["V20 note log entry @0x101000"]),
        row("on a header", target(64 * KIB), &["V21 note log entry @0x101000"]),
        row("on the log", target(MIB), &["V21 note log entry @0x101000"]),
        row("a file that was cut", lengths(64 * MIB, 7 * MIB), &["V22 corruption log entry @0x100000"]),
        row("FlushedFileOffset", lengths(MIB + 512, MIB), &["V23 note log entry @0x100000"]),
        row("LastFileOffset", lengths(MIB, MIB + 512), &["V23 note log entry @0x100000"]),
        row(
            "a block past the end of the file",
            Dirty::Growth.build(&Spec::default()),
            &["V24 unchecked payload block 5 @0x700000 [0x500000+0x100000]", "L1 note file @0x600000"],
        ),
        row(
            "a block that the file ends in",
            patched(|image| {
                image.bytes.truncate(6 * MIB + 512 * KIB);
                with_entry(image, &Entry { flushed: 6 * MIB, last: 7 * MIB, ..Entry::new(LOG_GUID, 1, 0) });
            }),
            &["V24 unchecked payload block 5 @0x680000 [0x580000+0x80000]"],
        ),
        row(
            "a block at a very large offset",
            {
                let mut image = Spec { raw_bat: [(2, (1 << 48) | 6)].into(), ..Spec::default() }.build();
                with_entry(&mut image, &Entry { last: 1 << 49, ..Entry::new(LOG_GUID, 1, 0) });
                image
            },
            &[
                "P3 unchecked payload block 2 @0x1000000000000 [0x200000+0x100000]",
                "V24 unchecked payload block 2 @0x1000000000000 [0x200000+0x100000]",
                "L1 leak file @0x500000",
            ],
        ),
        row(
            "the last block that account is kept of",
            {
                let mut image = Spec { raw_bat: [(2, ((1 << 48) - MIB) | 6)].into(), ..Spec::default() }.build();
                with_entry(&mut image, &Entry { last: 1 << 49, ..Entry::new(LOG_GUID, 1, 0) });
                image
            },
            &["V24 unchecked payload block 2 @0xfffffff00000 [0x200000+0x100000]", "L1 leak file @0x500000"],
        ),
        row(
            "payload in the log",
            patched(|image| {
                let entry = Entry::new(LOG_GUID, 1, 0).data(5 * MIB + PAGE, &page);
                with_entry(image, &entry);
            }),
            &["L3 leak payload block 2 @0x500000 [0x200000+0x100000]"],
        ),
        row(
            "left by earlier sessions",
            patched(|image| image.put_entry(8192, &Entry::new(LOG_GUID, 1, 8192))),
            &["N2 note log @0x102000"],
        ),
        refused,
    ]
}

/// The default image with only this entry in its log, which is in use.
fn with_entry(image: &mut Image, entry: &Entry) {
    image.put_entry(0, entry);
    image.set_log_guid(LOG_GUID);
}

/// The default image with this entry in its log, after one that is replayed.
fn after_replayed(entry: &Entry) -> Image {
    patched(|image| {
        with_entry(image, &Entry::new(LOG_GUID, 1000, 0));
        image.put_entry(4096, entry);
    })
}

/// The default image with an entry in its log that has these file lengths.
fn lengths(flushed: u64, last: u64) -> Image {
    patched(|image| with_entry(image, &Entry { flushed, last, ..Entry::new(LOG_GUID, 1, 0) }))
}

/// An entry that would be replayed if the entry before it were still complete, but nothing is left of that.
fn newer_and_alone() -> Image {
    patched(|image| {
        let mut journal = Journal::new(0, 1000);
        journal.append(image, &[]);
        let lost = journal.append(image, &[Descriptor::Data(2 * MIB, vec![7; 4096])]);
        journal.append(image, &[]);
        image.put_ring(lost, &[0; 8192]);
        image.set_log_guid(LOG_GUID);
    })
}

#[test]
fn check_reports_each_rule_of_the_log() {
    try_all(&rows());
}

#[test]
fn salvage_without_log_replay_ends_with_65() {
    let folder = temp_dir();
    let path = folder.path().join("0.vhdx");
    let cases = [
        ("V8", in_use(64, &[1]), 65),
        ("V10", in_use(68, &[0, 0, 8, 0]), 65),
        ("V13", too_long_a_log(), 65),
        ("V15", patched(|image| image.set_log_guid(LOG_GUID)), 65),
        ("V17, newer", newer_and_alone(), 65),
        // The entries that were left out would never be replayed.
        ("V17, older", after_replayed(&Entry::new(LOG_GUID, 3, 4096)), 0),
        ("V18", after_replayed(&Entry::new(LOG_GUID, 1001, 0).bad_crc()), 0),
    ];
    for (what, image, code) in cases {
        image.bytes.write_file(&path).unwrap();
        let ran = run(vhdx(["extract", "--force", "--salvage"]).arg(&path).arg(folder.path().join("raw")));
        assert_eq!(ran.status.code(), Some(code), "{what}: {}", ran.err);
        assert_eq!(ran.err.contains("nothing is lost, but content may be stale"), code != 0, "{what}: {}", ran.err);
    }
}
