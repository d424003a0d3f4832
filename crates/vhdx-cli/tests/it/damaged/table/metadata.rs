//! Rules of metadata table and items: V37 to V53.

use uuid::Uuid;

use super::{AND_MORE, Row, patched, row, try_all, with};
use crate::kit::builder::{
    DISK_ID, DISK_SIZE, FILE_PARAMETERS, INCOMPLETE_FILE, IS_REQUIRED, Image, Item, LOGICAL_SECTOR, PARENT_LOCATOR,
    PHYSICAL_SECTOR, Spec,
};
use crate::kit::{KIB, MIB, TIB};

/// The table is at 0x200000, and its entries from 0x200020 on, 32 bytes each: offset at 16, length at 20, flags at 24.
/// The items are FileParameters at 0x210000, VirtualDiskSize, VirtualDiskId, LogicalSectorSize and PhysicalSectorSize.
/// A sixth one has its entry at 0x2000c0.
pub(super) fn rows() -> Vec<Row> {
    let at = |offset, bytes: &'static [u8]| patched(|image| image.bytes.write(offset, bytes));
    let without = |id| with(|spec| spec.omit(id));
    let unknown = || Item::new(Uuid::from_u128(7), 0, b"x");
    let lying = |offset, length| Item { offset: Some(offset), length: Some(length), ..unknown() };
    vec![
        row(
            "after the items",
            patched(|image| image.bytes.write(2 * MIB + 900 * KIB, b"x")),
            &["N1 note metadata region @0x2e1000"],
        ),
        row("signature", at(2 * MIB, b"M"), &["V37 corruption metadata table @0x200000"]),
        row("EntryCount", full_of_users(), &["V38 corruption metadata table @0x20000a"]),
        row("reserved", at(2 * MIB + 8, b"x"), &["V39 note metadata table @0x200008"]),
        row("flags", at(0x20_0020 + 24, &[12]), &["V39 note metadata table @0x200038"]),
        row("twice unknown", more([unknown(), unknown()]), &["V40 warning metadata table @0x2000e0"]),
        row(
            "twice known",
            more([Item::new(DISK_SIZE, IS_REQUIRED | 2, &[0; 8])]),
            &["V40 corruption metadata table @0x2000c0"],
        ),
        row("unknown outside", more([lying(0xf_ffff, 2)]), &["V41 warning metadata table @0x2000d0"]),
        row(
            "known outside",
            at(0x20_0080 + 16, &[0, 0, 0x10, 0]),
            &["V41 corruption metadata table @0x200090", AND_MORE],
        ),
        row("unknown overlap", more([lying(0x1_0014, 1)]), &["V42 warning metadata table @0x2000d0"]),
        row(
            "known overlap",
            with(|spec| {
                spec.item(PHYSICAL_SECTOR).offset = Some(0x1_0020);
                spec.physical_sector_size = spec.sector_size;
            }),
            &["V42 corruption metadata table @0x2000b0"],
        ),
        row(
            "required and unknown",
            more([Item { flags: IS_REQUIRED, ..unknown() }]),
            &["V43 unsupported metadata table @0x2000c0"],
        ),
        row(
            "never completed",
            more([Item::new(INCOMPLETE_FILE, IS_REQUIRED, b"")]),
            &["V43 corruption metadata table @0x2000c0"],
        ),
        row("no FileParameters", without(FILE_PARAMETERS), &["V44 corruption metadata table @0x200000"]),
        row("length of VirtualDiskSize", at(0x20_0040 + 20, &[7]), &["V44 corruption metadata table @0x200054"]),
        row("no LogicalSectorSize", without(LOGICAL_SECTOR), &["V44 corruption metadata table @0x200000"]),
        row("no VirtualDiskId", without(DISK_ID), &["V45 note metadata table @0x200000"]),
        row("no PhysicalSectorSize", without(PHYSICAL_SECTOR), &["V45 note metadata table @0x200000"]),
        row("BlockSize", at(0x21_0000, &[0, 0, 0x30]), &["V46 corruption metadata item FileParameters @0x210000"]),
        row(
            "reserved parameters",
            with(|spec| spec.more_flags = 8),
            &["V47 note metadata item FileParameters @0x210004"],
        ),
        row("LogicalSectorSize", at(0x21_0020, &[0, 4]), &["V48 corruption metadata item LogicalSectorSize @0x210020"]),
        row("PhysicalSectorSize", at(0x21_0024, &[7]), &["V49 note metadata item PhysicalSectorSize @0x210024"]),
        row(
            "more than 64 TiB",
            patched(|image| image.bytes.write(0x21_0008, &(64 * TIB + 512).to_le_bytes())),
            &["V50 corruption metadata item VirtualDiskSize @0x210008"],
        ),
        row(
            "part of a sector",
            with(|spec| spec.disk_size = 8 * MIB - 100),
            &["V51 corruption metadata item VirtualDiskSize @0x210008"],
        ),
        row("no size", Spec::empty(0).build(), &["V52 warning metadata item VirtualDiskSize @0x210008"]),
        row("flags of a known item", at(0x20_0040 + 24, &[0]), &["V53 note metadata table @0x200058"]),
        row("a copy of the last entry after it, as Windows leaves it", copy_of_last(|entry| entry), &[]),
        row(
            "something like the last entry after it",
            copy_of_last(|mut entry| {
                entry[20] ^= 1;
                entry
            }),
            &["N1 note metadata table @0x2000c0"],
        ),
        row("after the entries", at(2 * MIB + 60_000, b"x"), &["N1 note metadata table @0x20ea60"]),
    ]
}

/// The default image with more items.
fn more<const N: usize>(items: [Item; N]) -> Image {
    with(|spec| {
        spec.items.retain(|item| item.id != PARENT_LOCATOR);
        spec.items.extend(items);
    })
}

/// The default image, with the last entry of its metadata table once more after that, as changed.
fn copy_of_last(change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Image {
    patched(|image| {
        let at = image.items.iter().map(|(_, entry, _)| *entry).max().unwrap();
        let entry = change(image.bytes.read(at, 32));
        image.bytes.write(at + 32, &entry);
    })
}

/// One user item more than the limit for those, within the limit of 2047 for all.
fn full_of_users() -> Image {
    more::<1025>(std::array::from_fn(|number| {
        let id = u128::try_from(number).unwrap();
        Item::new(Uuid::from_u128(0xABCD_0000 + id), crate::kit::builder::IS_USER, b"")
    }))
}

#[test]
fn check_reports_each_rule_of_metadata() {
    try_all(&rows());
}
