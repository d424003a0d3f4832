//! Which partitions `info` finds on a disk. The tables are written by hand, from UEFI 2.10, 5.2.1 and 5.3.

use serde_json::{Value, json};

use crate::kit::MIB;
use crate::kit::builder::{Spec, VHDX_LOCATOR};
use crate::support::temp_dir;

use super::{args, assert_has, assert_lines, disk_with, vhdx_run, volumes, write_image};

/// Bytes at places of a disk.
pub(super) type Pieces = Vec<(u64, Vec<u8>)>;

/// An entry of a GPT.
pub(super) struct Entry {
    /// Where in the table.
    index: usize,
    /// Its type, in the order of the bytes on the disk.
    kind: [u8; 16],
    first: u64,
    last: u64,
    /// UTF-16LE.
    name: Vec<u8>,
}

/// 0FC63DAF-8483-4772-8E79-3D69D8477DE4: Linux.
const LINUX: [u8; 16] = *b"\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4";
/// EBD0A0A2-B9E5-4433-87C0-68B6B72699C7: Microsoft basic data.
const BASIC_DATA: [u8; 16] = *b"\xa2\xa0\xd0\xeb\xe5\xb9\x33\x44\x87\xc0\x68\xb6\xb7\x26\x99\xc7";
/// C12A7328-F81F-11D2-BA4B-00A0C93EC93B: EFI system.
const EFI_SYSTEM: [u8; 16] = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";

impl Entry {
    /// The first entry, of Linux, with a name in UTF-16LE.
    pub(super) fn named(first: u64, last: u64, name: &[u8]) -> Self {
        Self { index: 0, kind: LINUX, first, last, name: name.to_vec() }
    }
}

/// CRC-32 as IEEE 802.3 has it, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// A GPT with room for 128 entries: protective MBR, header and entries, and both again at the end of the disk.
pub(super) fn gpt(sector: u64, disk: u64, entries: &[Entry]) -> Pieces {
    let last_lba = disk / sector - 1;
    let array_sectors = 128 * 128 / sector;
    let mut array = vec![0; 128 * 128];
    for entry in entries {
        let slot = &mut array[128 * entry.index..][..128];
        slot[..16].copy_from_slice(&entry.kind);
        slot[16] = 1;
        slot[32..40].copy_from_slice(&entry.first.to_le_bytes());
        slot[40..48].copy_from_slice(&entry.last.to_le_bytes());
        slot[56..56 + entry.name.len()].copy_from_slice(&entry.name);
    }
    let header = |mine: u64, other: u64, entries_at: u64| {
        let mut header = b"EFI PART\0\0\x01\0".to_vec();
        header.extend(92_u32.to_le_bytes());
        header.extend([0; 8]);
        for number in [mine, other, 2 + array_sectors, last_lba - 1 - array_sectors] {
            header.extend(number.to_le_bytes());
        }
        header.extend([7; 16]);
        header.extend(entries_at.to_le_bytes());
        header.extend(128_u32.to_le_bytes());
        header.extend(128_u32.to_le_bytes());
        header.extend(crc32(&array).to_le_bytes());
        let crc = crc32(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header
    };
    let backup_array = last_lba - array_sectors;
    let (first, backup) = (header(1, last_lba, 2), header(last_lba, 1, backup_array));
    vec![
        (0, mbr(&[(0xee, 1, u32::try_from(last_lba).unwrap())])),
        (sector, first),
        (2 * sector, array.clone()),
        (backup_array * sector, array),
        (last_lba * sector, backup),
    ]
}

/// A boot record with these entries: type, first sector, number of sectors.
fn mbr(entries: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut sector = vec![0x90; 440];
    sector.resize(512, 0);
    for (index, (kind, first, count)) in entries.iter().enumerate() {
        let entry = &mut sector[446 + 16 * index..][..16];
        entry[0] = if index == 0 { 0x80 } else { 0 };
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..].copy_from_slice(&count.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// A file system, or what else has a signature, at a place of the disk.
fn volume_at(name: &str, at: u64) -> Pieces {
    volumes::signature(name).into_iter().map(|(offset, bytes)| (at + offset, bytes)).collect()
}

/// What `info` tells of the content of a disk: for programs, and for people.
fn contents_of(spec: &Spec) -> (Value, String) {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", spec);
    let told = vhdx_run(args!["info", "--output", "json", &path]).done().json();
    let text = vhdx_run(args!["info", &path]).done().text();
    (told["format-specific"]["data"]["contents"].clone(), text)
}

fn disk_of(size: u64, pieces: &Pieces) -> Spec {
    let pieces: Vec<(u64, &[u8])> = pieces.iter().map(|(offset, bytes)| (*offset, bytes.as_slice())).collect();
    disk_with(size, &pieces)
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn partition(number: u32, (start, length): (u64, u64), kind: &str, name: &str, holds: Option<&str>) -> Value {
    json!({ "number": number, "start": start, "length": length, "type": kind, "name": name, "holds": holds })
}

#[test]
fn an_mbr_with_primary_and_logical_partitions() {
    // In sectors: an active NTFS, Linux, and an extended one of 8 MiB from 8 MiB on with two logical partitions in it.
    let mut disk = vec![(0, mbr(&[(0x07, 2048, 4096), (0x83, 6144, 2048), (0x0f, 16384, 16384), (0x42, 12288, 8)]))];
    // Where a logical one begins is counted from its own record, where the next record is, from the first.
    let with_link = |logical: (u8, u32, u32), link: &[(u8, u32, u32)]| {
        let mut record = mbr(&[&[logical], link].concat());
        record[446] = 0;
        record
    };
    disk.push((16384 * 512, with_link((0x82, 2048, 1000), &[(0x05, 8192, 4096)])));
    disk.push(((16384 + 8192) * 512, with_link((0x83, 63, 2000), &[])));
    disk.extend(volume_at("NTFS", 2048 * 512));
    disk.extend(volume_at("XFS", 6144 * 512));
    disk.extend(volume_at("swap", (16384 + 2048) * 512));
    disk.extend(volume_at("ext3", (16384 + 8192 + 63) * 512));
    let (told, text) = contents_of(&disk_of(16 * MIB, &disk));
    let at = |first: u64, count: u64| (first * 512, count * 512);
    assert_has(
        &told,
        &json!({
            "partition-table": {
                "scheme": "MBR",
                "sector-size": 512,
                "is-backup": false,
                "partitions": [
                    partition(1, at(2048, 4096), "NTFS, exFAT or HPFS", "", Some("NTFS")),
                    partition(2, at(6144, 2048), "Linux", "", Some("XFS")),
                    partition(3, at(16384, 16384), "extended", "", None),
                    partition(4, at(12288, 8), "Windows dynamic disk", "", None),
                    partition(5, at(16384 + 2048, 1000), "Linux swap", "", Some("swap")),
                    partition(6, at(16384 + 8192 + 63, 2000), "Linux", "", Some("ext3")),
                ],
            },
            "holds": null,
        }),
    );
    assert_lines(
        &text,
        &[
            "contents: MBR partition table, partitions: 6",
            "  1: at 0x100000, 2.00 MiB (2097152 bytes), NTFS, exFAT or HPFS: NTFS",
            "  3: at 0x800000, 8.00 MiB (8388608 bytes), extended: no known file system",
            "  5: at 0x900000, 500.00 KiB (512000 bytes), Linux swap: swap",
        ],
    );
}

#[test]
fn logical_partitions_that_lead_in_a_circle_come_to_an_end() {
    for back_to in [0, 100, 16384] {
        let mut record = mbr(&[(0x83, 8, 8), (0x05, back_to, 100)]);
        record[446] = 0;
        let disk = vec![
            (0, mbr(&[(0x05, 2048, 20000)])),
            (2048 * 512, record.clone()),
            ((2048 + 100) * 512, record.clone()),
            ((2048 + 16384) * 512, record),
        ];
        let (told, _) = contents_of(&disk_of(16 * MIB, &disk));
        let found = told["partition-table"]["partitions"].as_array().unwrap().len();
        assert!((2..=4).contains(&found), "{told}");
    }
}

/// A disk with three partitions, and what is told of them.
fn gpt_disk(sector: u64) -> (Pieces, Value) {
    let mib = |count: u64| count * MIB / sector;
    let entry = |index, kind, first, last, name: &str| Entry { index, kind, first, last, name: utf16(name) };
    let mut disk = gpt(
        sector,
        32 * MIB,
        &[
            entry(0, EFI_SYSTEM, mib(1), mib(3) - 1, "EFI system partition"),
            entry(1, BASIC_DATA, mib(3), mib(4) - 1, "Ünïcode \u{1f4be}"),
            entry(6, LINUX, mib(8), mib(16) - 1, ""),
            Entry { index: 127, kind: [0x11; 16], first: mib(16), last: mib(16), name: utf16(&"n".repeat(36)) },
        ],
    );
    disk.extend(volume_at("FAT32", MIB));
    disk.extend(volume_at("BitLocker", 3 * MIB));
    disk.extend(volume_at("Btrfs", 8 * MIB));
    let partitions = json!([
        partition(1, (MIB, 2 * MIB), "EFI system", "EFI system partition", Some("FAT32")),
        partition(2, (3 * MIB, MIB), "Microsoft basic data", "Ünïcode \u{1f4be}", Some("BitLocker")),
        partition(7, (8 * MIB, 8 * MIB), "Linux", "", Some("Btrfs")),
        partition(128, (16 * MIB, sector), "type {11111111-1111-1111-1111-111111111111}", &"n".repeat(36), None),
    ]);
    (disk, partitions)
}

#[test]
fn a_gpt_of_either_sector_size() {
    for sector in [512_u32, 4096] {
        let (disk, partitions) = gpt_disk(sector.into());
        let mut spec = disk_of(32 * MIB, &disk);
        spec.sector_size = sector;
        let (told, text) = contents_of(&spec);
        let table = json!({ "scheme": "GPT", "sector-size": sector, "is-backup": false, "partitions": partitions });
        assert_has(&told, &json!({ "partition-table": table, "holds": null }));
        assert_lines(
            &text,
            &[
                "contents: GPT partition table, partitions: 4",
                "  1: at 0x100000, 2.00 MiB (2097152 bytes), EFI system \"EFI system partition\": FAT32",
                "  7: at 0x800000, 8.00 MiB (8388608 bytes), Linux: Btrfs",
            ],
        );
        assert!(!text.contains("warning:"), "{text}");
    }
}

#[test]
fn a_gpt_whose_first_copy_is_damaged_is_read_from_its_backup() {
    let (disk, partitions) = gpt_disk(512);
    let damaged = |at: usize, offset: usize, bytes: &[u8]| {
        let mut disk = disk.clone();
        disk[at].1[offset..offset + bytes.len()].copy_from_slice(bytes);
        contents_of(&disk_of(32 * MIB, &disk))
    };
    // Of the header: its signature, a field, its checksum. Of the entries: where a partition begins, and all of them.
    for (at, offset, bytes) in
        [(1, 0, &b"FAT PART"[..]), (1, 72, &[9]), (1, 16, &[1, 2, 3, 4]), (2, 33, &[0]), (2, 0, &[0; 16384])]
    {
        let (told, text) = damaged(at, offset, bytes);
        assert_eq!(told["partition-table"]["is-backup"], true, "piece {at}, offset {offset}: {told}");
        assert_eq!(told["partition-table"]["partitions"], partitions);
        assert_lines(&text, &["contents: GPT partition table, from its backup, partitions: 4"]);
    }
    // The backup does not count where the first copy is good.
    let (told, _) = damaged(4, 0, b"FAT PART");
    assert_eq!(told["partition-table"]["is-backup"], false, "{told}");
}

#[test]
fn where_both_copies_of_a_gpt_are_damaged_the_protective_mbr_is_told() {
    let (mut disk, _) = gpt_disk(512);
    disk[1].1[0] = b'e';
    disk[4].1[0] = b'e';
    let (told, _) = contents_of(&disk_of(32 * MIB, &disk));
    let table = &told["partition-table"];
    assert_eq!((&table["scheme"], &table["partitions"][0]["type"]), (&json!("MBR"), &json!("GPT protective")));
    assert_eq!(table["partitions"].as_array().unwrap().len(), 1);
}

#[test]
fn a_table_that_counts_in_other_sectors_than_the_disk_is_worth_a_warning() {
    for (of_table, of_disk) in [(512, 4096), (4096, 512)] {
        let (disk, partitions) = gpt_disk(of_table);
        let mut spec = disk_of(32 * MIB, &disk);
        spec.sector_size = of_disk;
        let (told, text) = contents_of(&spec);
        assert_eq!(told["partition-table"]["sector-size"], of_table);
        assert_eq!(told["partition-table"]["partitions"], partitions);
        let warning = format!(
            "warning: the partition table counts in sectors of {of_table} bytes, the disk has sectors of {of_disk}: \
             systems will not find its partitions"
        );
        assert_lines(&text, &[&warning]);
    }
}

#[test]
fn a_bare_file_system_under_a_stale_partition_table_is_told_as_both() {
    for name in ["ext4", "Btrfs", "swap", "LVM2"] {
        let mut disk = vec![(0, mbr(&[(0x07, 2048, 4096)]))];
        disk.extend(volume_at(name, 0));
        let (told, text) = contents_of(&disk_of(16 * MIB, &disk));
        assert_eq!(told["holds"], name);
        assert_eq!(told["partition-table"]["partitions"][0]["start"], 2048 * 512);
        assert_lines(
            &text,
            &[
                "contents: MBR partition table, partitions: 1",
                &format!(
                    "warning: there is also {name} on the whole disk: either it or the partition table is a remnant, \
                     and files may be found in one of them only"
                ),
            ],
        );
    }
}

#[test]
fn partitions_that_lie_behind_the_end_of_the_disk_are_told_as_they_are() {
    let far = mbr(&[(0x83, u32::MAX, u32::MAX), (0x83, 16384 - 1, 100)]);
    let (told, _) = contents_of(&disk_of(8 * MIB, &vec![(0, far)]));
    let sectors = u64::from(u32::MAX);
    assert_eq!(
        told["partition-table"]["partitions"],
        json!([
            partition(1, (sectors * 512, sectors * 512), "Linux", "", None),
            partition(2, (16383 * 512, 100 * 512), "Linux", "", None),
        ])
    );
}

#[test]
fn a_disk_whose_first_bytes_cannot_be_read_has_unknown_contents() {
    let folder = temp_dir();
    // Reserved state 5 in the first BAT entry.
    let mut spec = Spec::default();
    spec.raw_bat.insert(0, 5);
    let (told, text) = contents_of(&spec);
    assert!(told["error"].as_str().unwrap().contains("payload block 0"), "{told}");
    assert!(text.contains("contents: unknown: "), "{text}");

    // And so has a child without its parent.
    let child = Spec::child_of(&Spec::default(), "missing.vhdx");
    assert!(child.locator.as_ref().unwrap().encode().starts_with(&VHDX_LOCATOR.to_bytes_le()));
    let path = write_image(folder.path(), "child.avhdx", &child);
    let told = vhdx_run(args!["info", "--output", "json", &path]).done().json();
    let error = &told["format-specific"]["data"]["contents"]["error"];
    assert!(error.as_str().unwrap().contains("parent"), "{error}");
}
