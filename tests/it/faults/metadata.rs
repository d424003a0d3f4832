//! Metadata table and items: V37 to V54.

use uuid::Uuid;
use vhdx_mmap::{Category, ErrorKind, Rule, Segment, Structure};

use super::{Place, Rows, duplicate, field, kind, missing, unknown};
use crate::kit::builder::{
    DISK_ID, DISK_SIZE, FILE_PARAMETERS, INCOMPLETE_FILE, IS_REQUIRED, IS_USER, Image, Item, LOGICAL_SECTOR, Locator,
    PARENT_LOCATOR, PHYSICAL_SECTOR, Spec,
};
use crate::kit::{MIB, TIB};
use crate::lab::{assert_reads, open_chain, open_image, wide};

/// Offset of the region, and of the items after its table, in the order of the default image.
const REGION: u64 = 0x20_0000;
const ITEMS: u64 = 0x21_0000;
const NAMES: [(Uuid, &str, u64); 5] = [
    (FILE_PARAMETERS, "FileParameters", ITEMS),
    (DISK_SIZE, "VirtualDiskSize", ITEMS + 8),
    (DISK_ID, "VirtualDiskId", ITEMS + 16),
    (LOGICAL_SECTOR, "LogicalSectorSize", ITEMS + 32),
    (PHYSICAL_SECTOR, "PhysicalSectorSize", ITEMS + 36),
];
const UNKNOWN: Uuid = Uuid::from_u128(0x07E4);

/// Returns the offset of a table entry.
fn entry(number: usize) -> u64 {
    REGION + 32 + 32 * wide(number)
}

fn table(offset: u64) -> Place {
    (Structure::MetadataTable, Some(offset), Category::Corrupt)
}

fn warning(check: Rule, offset: u64) -> (Rule, Structure, Option<u64>) {
    (check, Structure::MetadataTable, Some(offset))
}

fn patched(at: u64, bytes: &[u8]) -> Image {
    let mut image = Spec::default().build();
    image.bytes.write(at, bytes);
    image
}

/// The default image with one more item, which is the sixth.
fn with_item(item: Item) -> Image {
    let mut spec = Spec::default();
    spec.items.retain(|item| item.id != PARENT_LOCATOR);
    spec.items.push(item);
    spec.build()
}

/// The default image with other numbers in an item.
fn with(change: impl FnOnce(&mut Spec)) -> Image {
    let mut spec = Spec::default();
    change(&mut spec);
    spec.build()
}

#[test]
fn metadata_table_must_be_valid() {
    let mut rows = Rows::default();
    for at in 0..8 {
        // V37
        let image = patched(REGION + at, b"\xEE");
        let found = image.bytes.read(REGION, 8);
        let is_it = |kind: &ErrorKind| match kind {
            ErrorKind::Signature { found: signature, expected } => signature[..] == found && *expected == "metadata",
            _ => false,
        };
        rows.refused("V37", &image, table(REGION), &is_it);
    }
    for count in [2048_u16, u16::MAX] {
        // V38
        let is_it = field("EntryCount", count);
        rows.refused("V38", &patched(REGION + 10, &count.to_le_bytes()), table(REGION + 10), &is_it);
    }
    rows.end();
}

#[test]
fn table_may_be_full_except_of_user_items() {
    let mut rows = Rows::default();
    let full = |users: u128, others: u128| {
        let mut spec = Spec::default();
        spec.items.retain(|item| item.id != PARENT_LOCATOR);
        let item = |number: u128, flags| Item::new(Uuid::from_u128(0xABCD_0000 + number), flags, b"");
        spec.items.extend((0..users).map(|number| item(number, IS_USER)));
        spec.items.extend((0..others).map(|number| item(number, 0)));
        spec.build()
    };
    // V38: 5 + 1024 + 1018 = 2047.
    rows.warned("V38 full", &full(1024, 1018), &[]);
    let is_it = kind!(ErrorKind::Field { field: "EntryCount", found: 1025, .. });
    rows.refused("V38 users", &full(1025, 0), table(REGION + 10), is_it);
    rows.end();
}

#[test]
fn reserved_fields_of_table_are_reported() {
    let mut rows = Rows::default();
    // V39
    rows.warned("V39 Reserved", &patched(REGION + 8, &[1]), &[warning(Rule::MetadataReserved, REGION + 8)]);
    rows.warned("V39 Reserved2", &patched(REGION + 12, &[1]), &[warning(Rule::MetadataReserved, REGION + 12)]);
    rows.warned("V39 end of Reserved2", &patched(REGION + 31, &[1]), &[warning(Rule::MetadataReserved, REGION + 12)]);
    for flag in [8, 0x8000_0000_u32] {
        let image = patched(entry(0) + 24, &(IS_REQUIRED | flag).to_le_bytes());
        rows.warned("V39 Flags", &image, &[warning(Rule::MetadataReserved, entry(0) + 24)]);
    }
    let image = patched(entry(2) + 28, &[0, 1]);
    rows.warned("V39 Reserved2 of an entry", &image, &[warning(Rule::MetadataReserved, entry(2) + 28)]);
    rows.end();
}

#[test]
fn needed_items_must_be_unique() {
    let mut rows = Rows::default();
    for (id, ..) in NAMES {
        // V40
        let image = with_item(Item::new(id, IS_REQUIRED, &[1; 8]));
        let is_it = duplicate(id);
        rows.refused("V40", &image, table(entry(5)), &is_it);
        // V40: the same name in another name space.
        rows.warned("V40 user", &with_item(Item::new(id, IS_USER, &[1; 8])), &[]);
    }
    // V40
    for flags in [0, IS_USER] {
        let mut spec = Spec::default();
        spec.items.extend([b"one", b"two"].map(|body| Item::new(UNKNOWN, flags, body)));
        rows.warned("V40 unknown", &spec.build(), &[warning(Rule::MetadataUnique, entry(6))]);
    }
    let mut spec = Spec::default();
    spec.items.extend([0, IS_USER].map(|flags| Item::new(UNKNOWN, flags, b"x")));
    rows.warned("V40 two name spaces", &spec.build(), &[]);
    rows.end();
}

/// Wrong locations of an item: offset, length, which of the two fields is wrong, and the expected error.
fn wrong_places() -> Vec<(u32, u32, u64, super::IsIt<'static>)> {
    vec![
        (0xFFFF, 8, 16, kind!(ErrorKind::Field { field: "Offset", found: 0xFFFF, .. })),
        (0, 8, 16, kind!(ErrorKind::Field { field: "Offset", found: 0, .. })),
        (0x1_0000, 0x10_0001, 20, kind!(ErrorKind::Field { field: "Length", found: 0x10_0001, .. })),
        (0x1_0000, u32::MAX, 20, kind!(ErrorKind::Field { field: "Length", found: 0xFFFF_FFFF, .. })),
        (0x1_0000, 0, 16, kind!(ErrorKind::Field { field: "Offset", found: 0x1_0000, .. })),
        (0xF_FFFC, 8, 16, kind!(ErrorKind::OutOfBounds { length: 8, limit: 0x30_0000 })),
        (0x10_0000, 8, 16, kind!(ErrorKind::OutOfBounds { length: 8, limit: 0x30_0000 })),
        (u32::MAX, 8, 16, kind!(ErrorKind::OutOfBounds { length: 8, limit: 0x30_0000 })),
    ]
}

#[test]
fn known_items_must_be_in_region_after_table() {
    let mut rows = Rows::default();
    for (number, (id, name, _)) in NAMES.into_iter().enumerate() {
        for (offset, length, field, is_it) in wrong_places() {
            // V41
            let image = patched(entry(number) + 16, &[offset.to_le_bytes(), length.to_le_bytes()].concat());
            assert_eq!(image.item_entry_at(id), entry(number));
            rows.refused(&format!("V41 {name} {offset:#x}"), &image, table(entry(number) + field), is_it);
        }
    }
    rows.end();
}

#[test]
fn unknown_items_may_be_anywhere() {
    let mut rows = Rows::default();
    // Offset of the file parameters in it, and its offset in them, and the offsets of all others in it.
    let overlaps = [1, 0, 5, 5, 0, 0, 0, 0];
    for ((offset, length, field, _), overlaps) in wrong_places().into_iter().zip(overlaps) {
        // V41
        let mut item = Item::new(UNKNOWN, 0, &[]);
        (item.offset, item.length) = (Some(offset), Some(length));
        let image = with_item(item);
        assert_reads(&[&image]);
        let opened = open_image(&image).unwrap();
        let found: Vec<_> = opened.warnings().iter().map(|w| (w.rule, w.detail.offset())).collect();
        assert_eq!(found[0], (Rule::MetadataPlace, Some(entry(5) + field)), "{offset:#x} {length:#x}");
        let others = found.iter().skip(1).filter(|(check, _)| *check == Rule::MetadataOverlap).count();
        assert_eq!((found.len(), others), (1 + overlaps, overlaps), "{offset:#x} {length:#x}");
    }
    // Empty, and present nevertheless.
    rows.warned("V41 empty", &with_item(Item::new(UNKNOWN, 0, &[])), &[]);
    rows.end();
}

#[test]
fn known_items_must_not_overlap() {
    let mut rows = Rows::default();
    // V42: the disk size begins in the file parameters.
    let mut spec = Spec::default();
    spec.item(DISK_SIZE).offset = Some(0x1_0004);
    let is_it = kind!(ErrorKind::Overlap { with: Structure::MetadataItem("FileParameters"), offset: 0x21_0000 });
    rows.refused("V42", &spec.build(), table(entry(1) + 16), is_it);
    // V42: an unknown item over a known one.
    let mut item = Item::new(UNKNOWN, 0, &[1, 2]);
    (item.offset, item.length) = (Some(0x1_0026), Some(2));
    let mut image = with_item(item);
    image.bytes.write(ITEMS + 36, &4096_u32.to_le_bytes());
    rows.warned("V42 unknown", &image, &[warning(Rule::MetadataOverlap, entry(5) + 16)]);
    rows.end();
}

#[test]
fn unknown_required_item_is_rejected() {
    let mut rows = Rows::default();
    let place = (Structure::MetadataTable, Some(entry(5)), Category::Unsupported);
    // V43
    rows.refused("V43", &with_item(Item::new(UNKNOWN, IS_REQUIRED, b"x")), place, &unknown(UNKNOWN));
    rows.refused("V43 user", &with_item(Item::new(UNKNOWN, IS_REQUIRED | IS_USER, b"x")), place, &unknown(UNKNOWN));
    rows.refused(
        "V43 name of ours",
        &with_item(Item::new(DISK_SIZE, IS_REQUIRED | IS_USER, b"x")),
        place,
        &unknown(DISK_SIZE),
    );
    rows.warned("V43 optional", &with_item(Item::new(UNKNOWN, 0, b"x")), &[]);
    // V43
    for flags in [IS_REQUIRED, 0] {
        let image = with_item(Item::new(INCOMPLETE_FILE, flags, b""));
        rows.refused("V43 incomplete", &image, table(entry(5)), kind!(ErrorKind::IncompleteFile));
    }
    // Two that are not in the specification, and do not affect the content.
    for id in [0xDA02D7BC_3D3A_423C_AC88_2A36AB21479B, 0x10E1AE8A_4B7E_4169_A40F_CD70DE928393] {
        rows.warned("V43 others", &with_item(Item::new(Uuid::from_u128(id), IS_REQUIRED, &[1; 8])), &[]);
    }
    rows.end();
}

#[test]
fn essential_items_must_exist() {
    let mut rows = Rows::default();
    for (number, (id, name, _)) in NAMES.into_iter().enumerate() {
        let is_needed = ![DISK_ID, PHYSICAL_SECTOR].contains(&id);
        let mut spec = Spec::default();
        spec.omit(id);
        let without = spec.build();
        // V44, V45
        if is_needed {
            rows.refused(&format!("V44 {name}"), &without, table(REGION), &missing(name));
        } else {
            rows.warned(&format!("V45 {name}"), &without, &[warning(Rule::MetadataPresent, REGION)]);
        }
        for length in [1, 2, 4, 7, 8, 9, 15, 16, 17, 0x10_0000 - 0x1_0000] {
            let right = [8, 8, 16, 4, 4][number];
            if length == right {
                continue;
            }
            let mut spec = Spec::default();
            (spec.item(id).length, spec.item(id).offset) = (Some(length), Some(0x1_0000));
            spec.items.retain(|item| item.id == id || ![DISK_ID, PHYSICAL_SECTOR, PARENT_LOCATOR].contains(&item.id));
            // All others after it, so that nothing overlaps.
            let mut after = 0x11_0000;
            let number = spec.items.iter().position(|item| item.id == id).unwrap();
            for item in spec.items.iter_mut().filter(|item| item.id != id) {
                (item.offset, after) = (Some(after), after + 16);
            }
            (spec.metadata_length, spec.bat_offset) = (2 << 20, 4 * MIB);
            let is_length = |kind: &ErrorKind| {
                matches!(kind, ErrorKind::Field { field: "Length", found, expected }
                    if *found == u64::from(length) && *expected == right.to_string())
            };
            let (what, image) = (format!("{name} of length {length}"), spec.build());
            if is_needed {
                rows.refused(&format!("V44 {what}"), &image, table(entry(number) + 20), &is_length);
            } else {
                let opened = open_image(&image).unwrap();
                assert!(opened.warnings().iter().any(|warning| is_length(warning.detail.kind())), "{what}");
                let other = if id == DISK_ID { PHYSICAL_SECTOR } else { DISK_ID };
                let (of_this, of_other) =
                    (warning(Rule::MetadataPresent, entry(number) + 20), warning(Rule::MetadataPresent, REGION));
                // The physical sector size is read first.
                let expected = if other == DISK_ID { [of_this, of_other] } else { [of_other, of_this] };
                rows.warned(&format!("V45 {what}"), &image, &expected);
            }
        }
    }
    rows.end();
}

#[test]
fn missing_values_are_none() {
    let mut spec = Spec::default();
    spec.omit(DISK_ID);
    spec.omit(PHYSICAL_SECTOR);
    let opened = open_image(&spec.build()).unwrap();
    assert_eq!((opened.virtual_disk_id(), opened.physical_sector_size()), (None, None));
    let opened = open_image(&Spec::default().build()).unwrap();
    assert_eq!(
        (opened.virtual_disk_id(), opened.physical_sector_size()),
        (Some(Uuid::from_u128(0xD15C_0001)), Some(4096))
    );
}

#[test]
fn sizes_must_be_valid() {
    let mut rows = Rows::default();
    let item = |name, offset| (Structure::MetadataItem(name), Some(offset), Category::Corrupt);
    for block_size in [0, 1, 512 << 10, (1 << 20) - 1, 3 << 20, (1 << 20) | (1 << 24), 512 << 20, 1 << 31, u32::MAX] {
        // V46
        let mut image = Spec::default().build();
        image.bytes.write(ITEMS, &u32::to_le_bytes(block_size));
        let is_it = field("BlockSize", block_size);
        rows.refused(&format!("V46 {block_size}"), &image, item("FileParameters", ITEMS), &is_it);
    }
    for sector_size in [0_u32, 1, 256, 511, 520, 1024, 2048, 4095, 8192, 512 << 16] {
        // V48
        let image = patched(ITEMS + 32, &sector_size.to_le_bytes());
        let is_it = field("LogicalSectorSize", sector_size);
        rows.refused(&format!("V48 {sector_size}"), &image, item("LogicalSectorSize", ITEMS + 32), &is_it);
    }
    for disk_size in [64 * TIB + 512, 65 * TIB, 1 << 63, u64::MAX - 511, 8 * MIB + 1, 8 * MIB + 511, 513] {
        // V50, V51
        let image = patched(ITEMS + 8, &disk_size.to_le_bytes());
        let is_it = field("VirtualDiskSize", disk_size);
        rows.refused(&format!("V50, V51 {disk_size}"), &image, item("VirtualDiskSize", ITEMS + 8), &is_it);
    }
    rows.end();
}

#[test]
fn every_block_and_sector_size_is_read() {
    for shift in 20..=28 {
        for sector_size in [512, 4096] {
            let image = with(|spec| {
                (spec.block_size, spec.sector_size, spec.disk_size) = (1 << shift, sector_size, (1 << shift) + 8192);
                spec.blocks = [(1, crate::kit::Block::full().bytes(b"after"))].into();
                spec.file_length = crate::kit::builder::FileLength::Short;
            });
            let disk = open_chain(&[&image]).unwrap();
            let found: Vec<_> = disk.segments(..).collect::<Result<_, _>>().unwrap();
            assert_eq!(found[0], Segment::Zero(1 << shift));
            assert!(matches!(found[1], Segment::Data(bytes) if bytes.len() == 8192 && bytes.starts_with(b"after\0")));
            assert_eq!((found.len(), disk.block_size()), (2, 1 << shift));
        }
    }
}

#[test]
fn harmless_invalid_values_are_reported() {
    let mut rows = Rows::default();
    let parameters = Structure::MetadataItem("FileParameters");
    for more_flags in [4, 0x8000_0000, !3] {
        // V47
        let image = with(|spec| spec.more_flags = more_flags);
        rows.warned("V47", &image, &[(Rule::FileParametersReserved, parameters, Some(ITEMS + 4))]);
    }
    for physical_sector_size in [0, 1024, u32::MAX] {
        // V49
        let image = with(|spec| spec.physical_sector_size = physical_sector_size);
        let expected = (Rule::PhysicalSectorSize, Structure::MetadataItem("PhysicalSectorSize"), Some(ITEMS + 36));
        rows.warned("V49", &image, &[expected]);
    }
    // V49: it may be smaller than the logical one.
    rows.warned("V49 smaller", &with(|spec| (spec.sector_size, spec.physical_sector_size) = (4096, 512)), &[]);
    for (number, (id, name, _)) in NAMES.into_iter().enumerate() {
        for flags in 0..8 {
            // V53: 4 for the file parameters, 6 for the others. 1, a user's, makes it another item.
            let right = if id == FILE_PARAMETERS { 4 } else { 6 };
            if flags & IS_USER == 0 && flags != right {
                let image = with(|spec| spec.item(id).flags = flags);
                let expected = warning(Rule::MetadataFlags, entry(number) + 24);
                rows.warned(&format!("V53 {name} {flags}"), &image, &[expected]);
            }
        }
    }
    rows.end();
}

#[test]
fn disk_of_size_zero_is_empty() {
    // V52
    let image = Spec::empty(0).build();
    let mut rows = Rows::default();
    let size = Structure::MetadataItem("VirtualDiskSize");
    rows.warned("V52", &image, &[(Rule::EmptyDisk, size, Some(ITEMS + 8))]);
    rows.end();
    let child = Spec::child_of(&image.spec, "base").build();
    for chain in [&[&image][..], &[&child, &image][..]] {
        let disk = open_chain(chain).unwrap();
        assert_eq!((disk.segments(..).count(), disk.extents(..).count()), (0, 0));
        assert_eq!((disk.read_at(&mut [1; 9], 0).unwrap(), disk.slice(0, 0).unwrap()), (0, Some(&[][..])));
        assert!(matches!(disk.block(0).unwrap_err().kind(), ErrorKind::OutsideDisk { size: 0, .. }));
        assert_eq!(disk.image().payload_blocks(), 0);
    }
}

#[test]
fn child_without_locator_cannot_be_read() {
    // V54
    let mut spec = Spec::child_of(&Spec::default(), "base").block(0, crate::kit::Block::full());
    spec.locator = None;
    let image = spec.build();
    let mut rows = Rows::default();
    let opened = open_image(&image).unwrap();
    rows.failed("V54 locator", opened.parent_locator(), table(REGION), kind!(ErrorKind::Missing { .. }));
    rows.failed("V54 disk", open_chain(&[&image]), table(REGION), kind!(ErrorKind::Missing { .. }));
    // V54
    let locator = Some(Locator::linked_to(UNKNOWN, "x"));
    let image = Spec { locator, ..Spec::default() }.build();
    rows.warned("V54 not needed", &image, &[(Rule::ParentLocator, Structure::ParentLocator, Some(ITEMS + 40))]);
    rows.end();
}
