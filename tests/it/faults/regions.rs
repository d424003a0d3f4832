//! Region tables: V25 to V36.

use uuid::Uuid;
use vhdx_mmap::{Category, Error, ErrorKind, Rule, Structure};

use super::{Rows, checksum, checksums, duplicate, field, kind, missing, unknown};
use crate::kit::builder::{BAT_REGION, FileLength, Image, METADATA_REGION, Region, Spec};
use crate::kit::log::{Dirty, Old};
use crate::kit::{GIB, MIB, TIB};
use crate::lab::{assert_reads, open_image, size};

/// Offsets of the tables, and of the entries of the BAT and of the metadata region in the first one.
const TABLE_1: u64 = 0x3_0000;
const TABLE_2: u64 = 0x4_0000;
const BAT_ENTRY: u64 = TABLE_1 + 16;
const METADATA_ENTRY: u64 = TABLE_1 + 48;
/// The third entry.
const OTHER_ENTRY: u64 = TABLE_1 + 80;

const OTHER: Uuid = Uuid::from_u128(0x07E4);

fn table_1(offset: u64) -> super::Place {
    (Structure::RegionTable(1), Some(offset), Category::Corrupt)
}

/// The default image with one more region, which is not needed.
fn with_other(offset: u64, length: u32, required: u32) -> Image {
    let other = Region { guid: OTHER, offset, length, required };
    Spec { extra_regions: vec![other], payload_start: 5 * MIB, ..Spec::default() }.build()
}

/// The default image with another value in a field of an entry of both tables.
fn patched(entry: u64, field: u64, value: &[u8]) -> Image {
    let mut image = Spec::default().build();
    image.patch_region_tables(entry - TABLE_1 + field, value);
    image
}

#[test]
fn image_without_valid_region_table_is_rejected() {
    let mut rows = Rows::default();
    let neither = (Structure::RegionTables, None, Category::Corrupt);
    let both = |kind: &ErrorKind, is_it: &dyn Fn(&Error, u64) -> bool| match kind {
        ErrorKind::NoValidCopy { first, second } => {
            let structures = (first.structure(), second.structure());
            structures == (Structure::RegionTable(1), Structure::RegionTable(2))
                && is_it(first, TABLE_1)
                && is_it(second, TABLE_2)
        }
        _ => false,
    };

    // V25
    let mut image = Spec::default().build();
    image.patch_region_tables(0, b"REGI");
    let signature = |error: &Error, table: u64| {
        let found = *b"REGI\0\0\0\0";
        error.offset() == Some(table)
            && matches!(error.kind(), ErrorKind::Signature { found: f, expected: "regi" } if *f == found)
    };
    rows.refused("V25 signatures", &image, neither, &|kind: &ErrorKind| both(kind, &signature));

    // V25: the checksum covers the whole 64 KiB.
    for at in [4, 8, 20, 30_000, 65_535] {
        let mut image = Spec::default().build();
        image.patch_region_table_raw(1, at, &[0xEE]);
        image.patch_region_table_raw(2, at, &[0xEE]);
        let is_it = |error: &Error, table: u64| {
            error.offset() == Some(table + 4) && checksum(checksums(&image, table, 64 << 10))(error.kind())
        };
        rows.refused(&format!("V25 checksums, byte {at}"), &image, neither, &|kind: &ErrorKind| both(kind, &is_it));
    }

    // V27
    for entries in [2048_u32, u32::MAX] {
        let mut image = Spec::default().build();
        image.patch_region_tables(8, &entries.to_le_bytes());
        let count =
            |error: &Error, table: u64| error.offset() == Some(table + 8) && field("EntryCount", entries)(error.kind());
        rows.refused("V27", &image, neither, &|kind: &ErrorKind| both(kind, &count));
    }
    rows.end();
}

#[test]
fn one_valid_region_table_is_enough() {
    let mut rows = Rows::default();
    for (copy, table) in [(1, TABLE_1), (2, TABLE_2)] {
        let structure = Structure::RegionTable(u8::try_from(copy).unwrap());
        let warned = |offset: u64| [(Rule::RegionTableCopies, structure, Some(offset))];
        // V26
        let mut image = Spec::default().build();
        image.patch_region_table(copy, 0, b"Regi");
        rows.warned("V26 signature", &image, &warned(table));
        // V26
        let mut image = Spec::default().build();
        image.patch_region_table_raw(copy, 100, &[1]);
        rows.warned("V26 checksum", &image, &warned(table + 4));
        // V27
        let mut image = Spec::default().build();
        image.patch_region_table(copy, 8, &2048_u32.to_le_bytes());
        rows.warned("V27 of one", &image, &warned(table + 8));
    }
    // V26: the first of two that differ counts.
    let mut image = Spec::default().build();
    image.patch_region_table(2, 16 + 16, &(5 * MIB).to_le_bytes());
    rows.warned("V26 differ", &image, &[(Rule::RegionTableCopies, Structure::RegionTable(2), Some(TABLE_2))]);
    // V26: also after the last entry, where anything may be.
    let mut image = Spec::default().build();
    image.patch_region_table(2, 65_000, &[1]);
    rows.warned("V26 after", &image, &[(Rule::RegionTableCopies, Structure::RegionTable(2), Some(TABLE_2))]);
    let mut image = Spec::default().build();
    image.patch_region_tables(65_000, &[1]);
    rows.warned("anything after the entries", &image, &[]);
    rows.end();
}

#[test]
fn region_tables_are_compared_after_replay() {
    let mut image = Spec::default().build();
    image.log_only(&[TABLE_2], Old::Junk(4));
    assert_reads(&[&image]);
    let opened = open_image(&image).unwrap();
    assert!(opened.warnings().is_empty(), "{:?}", opened.warnings());
    assert_eq!(opened.region_table_copy(), Some(1));
}

#[test]
fn reserved_fields_of_region_table_are_reported() {
    let mut rows = Rows::default();
    let table = Structure::RegionTable(1);
    // V28
    let mut image = Spec::default().build();
    image.patch_region_tables(12, &[0, 0, 0, 1]);
    rows.warned("V28", &image, &[(Rule::RegionTableReserved, table, Some(TABLE_1 + 12))]);
    // V36
    for required in [0_u32, 2, u32::MAX] {
        for entry in [BAT_ENTRY, METADATA_ENTRY] {
            let image = patched(entry, 28, &required.to_le_bytes());
            rows.warned("V36", &image, &[(Rule::RegionRequired, table, Some(entry + 28))]);
        }
    }
    rows.end();
}

#[test]
fn regions_must_be_unique() {
    let mut rows = Rows::default();
    // V29
    let spec = Spec::default();
    let bat = Region { guid: BAT_REGION, offset: 9 * MIB, length: 1 << 20, required: 1 };
    let twice = Spec { extra_regions: vec![bat], ..spec.clone() }.build();
    let is_it = duplicate(BAT_REGION);
    rows.refused("V29 BAT", &twice, table_1(OTHER_ENTRY), &is_it);
    // V29
    let other = |offset| Region { guid: OTHER, offset, length: 1 << 20, required: 0 };
    let twice = Spec { extra_regions: vec![other(9 * MIB), other(10 * MIB)], ..spec }.build();
    let is_it = duplicate(OTHER);
    rows.refused("V29 unknown", &twice, table_1(OTHER_ENTRY + 32), &is_it);
    rows.end();
}

#[test]
fn bat_and_metadata_must_be_aligned() {
    let mut rows = Rows::default();
    for entry in [BAT_ENTRY, METADATA_ENTRY] {
        for offset in [0_u64, 0x8_0000, 0xF_FFFF, 3 * MIB + 1, 3 * MIB + 0x8_0000, u64::MAX] {
            // V30
            let image = patched(entry, 16, &offset.to_le_bytes());
            let is_it = field("FileOffset", offset);
            rows.refused("V30 FileOffset", &image, table_1(entry + 16), &is_it);
        }
        for length in [1_u32, 0x8_0000, 0x10_0001, u32::MAX] {
            // V30
            let image = patched(entry, 24, &length.to_le_bytes());
            let is_it = field("Length", length);
            rows.refused("V30 Length", &image, table_1(entry + 24), &is_it);
        }
        // V31
        let image = patched(entry, 24, &[0; 4]);
        rows.refused("V31", &image, table_1(entry + 24), kind!(ErrorKind::Field { field: "Length", found: 0, .. }));
    }
    rows.end();
}

#[test]
fn unneeded_region_may_be_anywhere_free() {
    let mut rows = Rows::default();
    let table = Structure::RegionTable(1);
    // V30
    let image = with_other(4 * MIB + 512, 4096, 0);
    rows.warned("V30 FileOffset", &image, &[(Rule::RegionAlignment, table, Some(OTHER_ENTRY + 16))]);
    let image = with_other(4 * MIB, 4096, 0);
    rows.warned("V30 Length", &image, &[(Rule::RegionAlignment, table, Some(OTHER_ENTRY + 24))]);
    rows.warned("empty", &with_other(4 * MIB, 0, 0), &[]);
    // V32
    for offset in [TIB, u64::MAX - MIB + 1] {
        let mut image = with_other(4 * MIB, 1 << 20, 0);
        image.patch_region_tables(80 + 16, &offset.to_le_bytes());
        rows.warned("V32", &image, &[(Rule::RegionPlace, Structure::OtherRegion, Some(offset))]);
    }
    rows.end();
}

#[test]
fn metadata_and_needed_bat_must_be_in_file() {
    let mut rows = Rows::default();
    let end = Spec::default().build().bytes.len();
    assert_eq!(end, 7 * MIB);
    // V32
    for offset in [7 * MIB, TIB, u64::MAX - MIB + 1] {
        let is_it = kind!(ErrorKind::OutOfBounds { length: 0x10_0000, limit: 0x70_0000 });
        let place = (Structure::MetadataRegion, Some(offset), Category::Corrupt);
        rows.refused("V32 metadata", &patched(METADATA_ENTRY, 16, &offset.to_le_bytes()), place, is_it);
        // V32, V63: eight payload blocks have eight entries.
        let is_it = kind!(ErrorKind::OutOfBounds { length: 64, limit: 0x70_0000 });
        let place = (Structure::Bat, Some(offset), Category::Corrupt);
        rows.refused("V32 BAT", &patched(BAT_ENTRY, 16, &offset.to_le_bytes()), place, is_it);
    }
    // V32: the region goes past the end, the entries do not.
    let mut spec = Spec { bat_offset: 9 * MIB, file_length: FileLength::Exact(9 * MIB + 64), ..Spec::default() };
    let whole = spec.build();
    rows.warned("V32 tail of the BAT", &whole, &[(Rule::RegionPlace, Structure::Bat, Some(9 * MIB))]);
    spec.file_length = FileLength::Exact(9 * MIB + 63);
    let place = (Structure::Bat, Some(9 * MIB), Category::Corrupt);
    let is_it = kind!(ErrorKind::OutOfBounds { length: 64, limit: 0x90_003F });
    rows.refused("V32 last entry of the BAT", &spec.build(), place, is_it);
    rows.end();
}

#[test]
fn regions_log_and_headers_must_not_overlap() {
    let mut rows = Rows::default();
    let place = |structure, offset| (structure, Some(offset), Category::Corrupt);
    // V33: of each pair, the one that begins after the other is named.
    let log = Spec { log_length: 2 << 20, metadata_offset: 2 * MIB, ..Spec::default() }.build();
    let is_it = kind!(ErrorKind::Overlap { with: Structure::Log, offset: 0x10_0000 });
    rows.refused("V33 metadata in the log", &log, place(Structure::MetadataRegion, 2 * MIB), is_it);
    let mut dirty = Dirty::OnlyEmpty.build(&Spec::default());
    dirty.patch_headers(68, &(2_u32 << 20).to_le_bytes());
    rows.refused("V33 metadata in the log in use", &dirty, place(Structure::MetadataRegion, 2 * MIB), is_it);
    let bat = Spec { metadata_length: 2 << 20, ..Spec::default() }.build();
    let is_it = kind!(ErrorKind::Overlap { with: Structure::MetadataRegion, offset: 0x20_0000 });
    rows.refused("V33 BAT in the metadata", &bat, place(Structure::Bat, 3 * MIB), is_it);
    let is_it = kind!(ErrorKind::Overlap { with: Structure::Bat, offset: 0x30_0000 });
    let other = with_other(3 * MIB + 4096, 4096, 0);
    rows.refused("V33 other in the BAT", &other, place(Structure::OtherRegion, 3 * MIB + 4096), is_it);
    let is_it = kind!(ErrorKind::Overlap { with: Structure::HeaderSection, offset: 0 });
    let other = with_other(MIB - 4096, 4096, 0);
    rows.refused("V33 other in the header section", &other, place(Structure::OtherRegion, MIB - 4096), is_it);
    let others = [(OTHER, 9 * MIB, 2 << 20), (Uuid::from_u128(1), 10 * MIB, 1 << 20)];
    let region = |(guid, offset, length)| Region { guid, offset, length, required: 0 };
    let others = Spec { extra_regions: others.map(region).to_vec(), ..Spec::default() }.build();
    let is_it = kind!(ErrorKind::Overlap { with: Structure::OtherRegion, offset: 0x90_0000 });
    rows.refused("V33 two others", &others, place(Structure::OtherRegion, 10 * MIB), is_it);
    // V33: one whose end overflows overlaps nothing before it.
    let mut image = with_other(4 * MIB, 1 << 20, 0);
    image.patch_region_tables(80 + 16, &(u64::MAX - 4095).to_le_bytes());
    image.patch_region_tables(80 + 24, &u32::MAX.to_le_bytes());
    let opened = open_image(&image).unwrap();
    let checks: Vec<_> = opened.warnings().iter().map(|warning| warning.rule).collect();
    assert_eq!(checks, [Rule::RegionAlignment, Rule::RegionPlace]);
    // Adjacent regions do not overlap.
    rows.warned("neighbours", &with_other(4 * MIB, 1 << 20, 0), &[]);
    rows.end();
}

#[test]
fn bat_and_metadata_must_exist() {
    let mut rows = Rows::default();
    for (guid, name) in [(BAT_REGION, "the BAT region"), (METADATA_REGION, "the metadata region")] {
        // V34
        let mut regions = Spec::default().build().regions;
        regions.retain(|region| region.guid != guid);
        let mut image = Spec::default().build();
        let kept = regions[0].guid;
        image.patch_region_tables(8, &1_u32.to_le_bytes());
        let entry = image.bytes.read(image.region_entry_at(1, kept), 32);
        image.patch_region_tables(16, &entry);
        let is_it = missing(name);
        rows.refused("V34", &image, table_1(TABLE_1), &is_it);
    }
    // V34
    let mut image = Spec::default().build();
    image.patch_region_tables(8, &[0; 4]);
    rows.refused("V34 neither", &image, table_1(TABLE_1), kind!(ErrorKind::Missing { .. }));
    rows.end();
}

#[test]
fn unknown_required_region_is_rejected() {
    let mut rows = Rows::default();
    let is_it = unknown(OTHER);
    let place = (Structure::RegionTable(1), Some(OTHER_ENTRY), Category::Unsupported);
    for required in [1, 2, 0x8000_0000] {
        // V35
        rows.refused("V35", &with_other(4 * MIB, 1 << 20, required), place, &is_it);
    }
    rows.warned("V35 optional", &with_other(4 * MIB, 1 << 20, 0), &[]);
    rows.end();
}

#[test]
fn too_small_bat_is_rejected() {
    let mut rows = Rows::default();
    let place = (Structure::Bat, Some(3 * MIB), Category::Corrupt);
    // V63: 204 800 payload blocks, and an entry after each 4096 of them except the last: 204 849 entries.
    let spec = Spec { bat_length: Some(1 << 20), ..Spec::empty(200 * GIB) };
    let is_it = kind!(ErrorKind::BatTooSmall { found: 0x10_0000, expected: 1_638_792 });
    rows.refused("V63 dynamic", &spec.build(), place, is_it);
    // V63: 50 chunks of 4097 entries.
    let child = Spec { bat_length: Some(1 << 20), ..Spec::child_of(&spec, "base") };
    let is_it = kind!(ErrorKind::BatTooSmall { found: 0x10_0000, expected: 1_638_800 });
    rows.refused("V63 differencing", &child.build(), place, is_it);
    // V63: enough for a disk without parent, but not for a child: 32 chunks of 4097 entries.
    let enough = Spec::empty(131_041 * MIB);
    let opened = open_image(&Spec { bat_length: Some(1 << 20), ..enough.clone() }.build()).unwrap();
    assert_eq!(opened.payload_blocks(), 131_041);
    let child = Spec { bat_length: Some(1 << 20), ..Spec::child_of(&enough, "base") };
    let is_it = kind!(ErrorKind::BatTooSmall { found: 0x10_0000, expected: 1_048_832 });
    rows.refused("V63 full", &child.build(), place, is_it);
    // V63: 64 TiB.
    let largest = Spec { bat_length: Some(512 << 20), disk_size: 64 * TIB, ..Spec::empty(MIB) };
    let is_it = kind!(ErrorKind::BatTooSmall { found: 0x2000_0000, expected: 537_001_976 });
    rows.refused("V63 largest", &largest.build(), (Structure::Bat, Some(3 * MIB), Category::Corrupt), is_it);
    assert_eq!(size(537_001_976) / 8, 67_125_247);
    rows.end();
}
