//! Rules of the region tables: V25 to V36. V27 is reported with V25 and V26.

use uuid::Uuid;

use super::{AND_MORE, Row, patched, row, try_all, with};
use crate::kit::builder::{BAT_REGION, FileLength, Image, METADATA_REGION, Region, Spec};
use crate::kit::{KIB, MIB};

/// The tables are at 0x30000 and 0x40000, with entries for the BAT at 0x10, for the metadata at 0x30, and for another
/// region at 0x50. In each entry, the offset is at 16, the length at 24, the flag at 28.
pub(super) fn rows() -> Vec<Row> {
    let both = |at, bytes: &'static [u8]| patched(|image| image.patch_region_tables(at, bytes));
    let without = |region| {
        let mut regions = Spec::default().build().regions;
        regions.retain(|known| known.guid != region);
        with(|spec| spec.regions = Some(regions))
    };
    vec![
        row(
            "checksums",
            patched(|image| (1..=2).for_each(|copy| image.patch_region_table_raw(copy, 300, b"x"))),
            &["V25 corruption region tables", "N1 note region table 1 @0x3012c"],
        ),
        row("V27 EntryCount", both(8, &[0, 8]), &["V25 corruption region tables", AND_MORE]),
        row(
            "one checksum",
            patched(|image| image.patch_region_table_raw(1, 300, b"x")),
            &["V26 warning region table 1 @0x30004"],
        ),
        row(
            "tables that differ",
            patched(|image| image.patch_region_table(2, 12, &[1])),
            &["V26 warning region table 2 @0x40000"],
        ),
        row(
            "V27 EntryCount of one",
            patched(|image| image.patch_region_table(2, 8, &[0, 8])),
            &["V26 warning region table 2 @0x40008"],
        ),
        row("reserved", both(12, &[1]), &["V28 note region table 1 @0x3000c"]),
        row("twice", other(BAT_REGION, 7 * MIB, 1 << 20, 1), &["V29 corruption region table 1 @0x30050"]),
        row(
            "FileOffset",
            unknown(7 * MIB + 4096, 1 << 20, 0),
            &["V30 note region table 1 @0x30060", "V35 note other region @0x701000"],
        ),
        row(
            "Length",
            unknown(7 * MIB, 4096, 0),
            &["V30 note region table 1 @0x30068", "V35 note other region @0x700000"],
        ),
        row(
            "FileOffset of the BAT",
            with(|spec| {
                spec.bat_offset = 8 * MIB + 4096;
                spec.file_length = FileLength::Exact(10 * MIB);
            }),
            &["V30 corruption region table 1 @0x30020", "L1 note file @0x600000"],
        ),
        row("no BAT", both(16 + 24, &[0; 4]), &["V31 corruption region table 1 @0x30028", AND_MORE]),
        row(
            "outside",
            {
                let mut image = unknown(7 * MIB, 1 << 20, 0);
                image.patch_region_tables(0x50 + 16, &(64 * MIB).to_le_bytes());
                image
            },
            &["V32 warning other region @0x4000000", "V35 note other region @0x4000000", "L1 note file @0x700000"],
        ),
        row(
            "end of the BAT",
            with(|spec| {
                spec.bat_offset = 7 * MIB;
                spec.file_length = FileLength::Exact(7 * MIB + 64 * KIB);
            }),
            &["V32 warning BAT @0x700000", "L1 note file @0x600000"],
        ),
        row(
            "metadata outside",
            both(0x30 + 16, &[0, 0, 0, 4]),
            &["V32 corruption metadata region @0x4000000", AND_MORE],
        ),
        row(
            "in the log",
            unknown(MIB + 512 * KIB, 4096, 0),
            &[
                "V33 corruption other region @0x180000",
                "V30 note region table 1 @0x30060",
                "V35 note other region @0x180000",
            ],
        ),
        // The region is not there either: the search says what it found instead.
        row(
            "no entry for the BAT",
            without(BAT_REGION),
            &["V34 corruption region table 1 @0x30000", "V25 corruption region tables"],
        ),
        row(
            "no entry for the metadata",
            without(METADATA_REGION),
            &["V34 corruption region table 1 @0x30000", "V25 corruption region tables"],
        ),
        row("required and unknown", unknown(7 * MIB, 1 << 20, 1), &["V35 unsupported region table 1 @0x30050"]),
        row(
            "not required",
            with(|spec| spec.regions_required = 0),
            &["V36 note region table 1 @0x3002c", "V36 note region table 1 @0x3004c"],
        ),
        row("after the entries", both(65_000, b"x"), &["N1 note region table 1 @0x3fde8"]),
    ]
}

/// The default image with one more region.
fn other(guid: Uuid, offset: u64, length: u32, required: u32) -> Image {
    with(|spec| {
        spec.extra_regions = vec![Region { guid, offset, length, required }];
        spec.payload_start = 4 * MIB;
    })
}

fn unknown(offset: u64, length: u32, required: u32) -> Image {
    other(Uuid::from_u128(7), offset, length, required)
}

#[test]
fn check_reports_each_rule_of_region_tables() {
    try_all(&rows());
}
