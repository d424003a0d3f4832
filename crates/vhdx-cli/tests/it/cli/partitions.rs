//! Partitions that `info` finds on a disk. The tables are written by hand, from UEFI 2.10, 5.2.1 and 5.3.

use serde_json::{Value, json};

use crate::kit::MIB;
use crate::kit::builder::{Spec, VHDX_LOCATOR};
use crate::support::temp_dir;

use super::{args, assert_has, assert_lines, disk_with, vhdx_run, volumes, write_image};

/// Bytes at offsets of a disk.
pub(super) type Pieces = Vec<(u64, Vec<u8>)>;

/// Entry of a GPT.
pub(super) struct Entry {
    /// Index in the table.
    index: usize,
    /// Type, in the byte order of the disk.
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
    /// The first entry, of type Linux, with a name in UTF-16LE.
    pub(super) fn named(first: u64, last: u64, name: &[u8]) -> Self {
        Self { index: 0, kind: LINUX, first, last, name: name.to_vec() }
    }
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// A GPT with space for 128 entries: protective MBR, header and entries, and header and entries again at the end of the
/// disk.
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

/// A master boot record with these entries: type, first sector, number of sectors.
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

/// A file system, or something else with a signature, at an offset of the disk.
fn volume_at(name: &str, at: u64) -> Pieces {
    volumes::signature(name).into_iter().map(|(offset, bytes)| (at + offset, bytes)).collect()
}

/// Output of `info` about the content of a disk: JSON and text.
fn contents_of(spec: &Spec) -> (Value, String) {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", spec);
    let report = vhdx_run(args!["info", "--output", "json", &path]).done().json();
    let text = vhdx_run(args!["info", &path]).done().text();
    (report["format-specific"]["data"]["contents"].clone(), text)
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
fn info_lists_primary_and_logical_mbr_partitions() {
    // In sectors: an active NTFS partition, Linux, and an extended partition of 8 MiB at 8 MiB with two logical ones.
    let mut disk = vec![(0, mbr(&[(0x07, 2048, 4096), (0x83, 6144, 2048), (0x0f, 16384, 16384), (0x42, 12288, 8)]))];
    // The start of a logical partition is relative to its own record, that of the next record to the first one.
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
    let (report, text) = contents_of(&disk_of(16 * MIB, &disk));
    let at = |first: u64, count: u64| (first * 512, count * 512);
    assert_has(
        &report,
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
            "contents: MBR partition table, 6 partitions",
            "  1: at 0x100000, 2.00 MiB (2097152 bytes), NTFS, exFAT or HPFS: NTFS",
            "  3: at 0x800000, 8.00 MiB (8388608 bytes), extended: no known file system",
            "  5: at 0x900000, 500.00 KiB (512000 bytes), Linux swap: swap",
        ],
    );
}

#[test]
fn info_ends_on_circular_logical_partitions() {
    for back_to in [0, 100, 16384] {
        let mut record = mbr(&[(0x83, 8, 8), (0x05, back_to, 100)]);
        record[446] = 0;
        let disk = vec![
            (0, mbr(&[(0x05, 2048, 20000)])),
            (2048 * 512, record.clone()),
            ((2048 + 100) * 512, record.clone()),
            ((2048 + 16384) * 512, record),
        ];
        let (report, _) = contents_of(&disk_of(16 * MIB, &disk));
        let found = report["partition-table"]["partitions"].as_array().unwrap().len();
        assert!((2..=4).contains(&found), "{report}");
    }
}

/// A disk with three partitions, and the expected output.
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
fn info_lists_gpt_partitions_of_both_sector_sizes() {
    for sector in [512_u32, 4096] {
        let (disk, partitions) = gpt_disk(sector.into());
        let mut spec = disk_of(32 * MIB, &disk);
        spec.sector_size = sector;
        let (report, text) = contents_of(&spec);
        let table = json!({ "scheme": "GPT", "sector-size": sector, "is-backup": false, "partitions": partitions });
        assert_has(&report, &json!({ "partition-table": table, "holds": null }));
        assert_lines(
            &text,
            &[
                "contents: GPT partition table, 4 partitions",
                "  1: at 0x100000, 2.00 MiB (2097152 bytes), EFI system \"EFI system partition\": FAT32",
                "  7: at 0x800000, 8.00 MiB (8388608 bytes), Linux: Btrfs",
            ],
        );
        assert!(!text.contains("warning:"), "{text}");
    }
}

#[test]
fn info_reads_backup_gpt_if_first_copy_is_damaged() {
    let (disk, partitions) = gpt_disk(512);
    let damaged = |at: usize, offset: usize, bytes: &[u8]| {
        let mut disk = disk.clone();
        disk[at].1[offset..offset + bytes.len()].copy_from_slice(bytes);
        contents_of(&disk_of(32 * MIB, &disk))
    };
    // In the header: the signature, a field, the checksum. In the entries: the start of a partition, and all bytes.
    for (at, offset, bytes) in
        [(1, 0, &b"FAT PART"[..]), (1, 72, &[9]), (1, 16, &[1, 2, 3, 4]), (2, 33, &[0]), (2, 0, &[0; 16384])]
    {
        let (report, text) = damaged(at, offset, bytes);
        assert_eq!(report["partition-table"]["is-backup"], true, "piece {at}, offset {offset}: {report}");
        assert_has(&report["partition-table"]["partitions"], &partitions);
        assert_lines(&text, &["contents: GPT partition table (backup copy), 4 partitions"]);
    }
    // The backup does not count if the first copy is valid.
    let (report, _) = damaged(4, 0, b"FAT PART");
    assert_eq!(report["partition-table"]["is-backup"], false, "{report}");
}

#[test]
fn info_shows_protective_mbr_if_both_gpt_copies_are_damaged() {
    let (mut disk, _) = gpt_disk(512);
    disk[1].1[0] = b'e';
    disk[4].1[0] = b'e';
    let (report, _) = contents_of(&disk_of(32 * MIB, &disk));
    let table = &report["partition-table"];
    assert_eq!((&table["scheme"], &table["partitions"][0]["type"]), (&json!("MBR"), &json!("GPT protective")));
    assert_eq!(table["partitions"].as_array().unwrap().len(), 1);
}

#[test]
fn info_names_gpt_types() {
    // The bytes of the GUID in the order of the disk: the first three fields have their low byte first.
    let on_disk = |guid: &str| uuid::Uuid::parse_str(guid).unwrap().to_bytes_le();
    let types = [
        ("516e7cba-6ecf-11d6-8ff8-00022d09712b", "FreeBSD ZFS"),
        ("6a898cc3-1dd2-11b2-99a6-080020736631", "ZFS (Solaris /usr, macOS)"),
        ("7c3457ef-0000-11aa-aa11-00306543ecac", "Apple APFS"),
        ("3b8f8425-20e0-4f3b-907f-1a25a76f98e8", "Linux server data (/srv)"),
        ("773f91ef-66d4-49b5-bd83-d683bf40ad16", "Linux home of a user"),
        ("b921b045-1df0-41c3-af44-4c6f280d3fae", "Linux root (ARM64)"),
        ("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5", "Linux root verity (x86-64)"),
        ("41092b05-9fc8-4523-994f-2def0408b176", "Linux root verity signature (x86-64)"),
        ("5843d618-ec37-48d7-9f12-cea8e08768b2", "Linux /usr verity (PA-RISC)"),
        ("d2f9000a-7a18-453f-b5cd-4d32f77a7b32", "Linux /usr verity signature (RISC-V 64)"),
        ("fe3a2a5d-4f32-41a7-b725-accc3285a309", "ChromeOS kernel"),
        ("38f428e6-d326-425d-9140-6e0ea133647c", "Android system"),
        ("558d43c5-a1ac-43c0-aac8-d1472b2923d1", "Windows storage replica"),
        ("ca7d7ccb-63ed-4c53-861c-1742536059cc", "LUKS"),
        ("aa31e02a-400f-11db-9590-000c2911d1b8", "VMware VMFS"),
    ];
    let entries: Vec<Entry> = types
        .iter()
        .zip(0_usize..)
        .map(|((guid, _), index)| {
            let first = 2048 + u64::try_from(index).unwrap();
            Entry { index, kind: on_disk(guid), first, last: first, name: Vec::new() }
        })
        .collect();
    let (report, _) = contents_of(&disk_of(8 * MIB, &gpt(512, 8 * MIB, &entries)));
    let found = report["partition-table"]["partitions"].as_array().unwrap();
    let found: Vec<&str> = found.iter().map(|partition| partition["type"].as_str().unwrap()).collect();
    assert_eq!(found, types.map(|(_, name)| name));
}

#[test]
fn info_warns_of_partition_table_with_other_sector_size() {
    for (of_table, of_disk) in [(512, 4096), (4096, 512)] {
        let (disk, partitions) = gpt_disk(of_table);
        let mut spec = disk_of(32 * MIB, &disk);
        spec.sector_size = of_disk;
        let (report, text) = contents_of(&spec);
        assert_eq!(report["partition-table"]["sector-size"], of_table);
        assert_has(&report["partition-table"]["partitions"], &partitions);
        let warning = format!(
            "warning: the partition table has a wrong sector size (found {of_table}, expected {of_disk}): systems will \
             not find its partitions"
        );
        assert_lines(&text, &[&warning]);
    }
}

#[test]
fn info_shows_file_system_under_stale_partition_table() {
    for name in ["ext4", "Btrfs", "swap", "LVM2"] {
        let mut disk = vec![(0, mbr(&[(0x07, 2048, 4096)]))];
        disk.extend(volume_at(name, 0));
        let (report, text) = contents_of(&disk_of(16 * MIB, &disk));
        assert_eq!(report["holds"], name);
        assert_eq!(report["partition-table"]["partitions"][0]["start"], 2048 * 512);
        assert_lines(
            &text,
            &[
                "contents: MBR partition table, 1 partition",
                &format!(
                    "warning: the whole disk also holds {name}: that or the partition table is a remnant; \
                     look for files in both"
                ),
            ],
        );
    }
}

#[test]
fn info_lists_partitions_past_the_end_of_the_disk() {
    let far = mbr(&[(0x83, u32::MAX, u32::MAX), (0x83, 16384 - 1, 100)]);
    let (report, _) = contents_of(&disk_of(8 * MIB, &vec![(0, far)]));
    let sectors = u64::from(u32::MAX);
    assert_has(
        &report["partition-table"]["partitions"],
        &json!([
            partition(1, (sectors * 512, sectors * 512), "Linux", "", None),
            partition(2, (16383 * 512, 100 * 512), "Linux", "", None),
        ]),
    );
}

#[test]
fn info_contents_are_unknown_if_first_block_is_unreadable() {
    let folder = temp_dir();
    // Reserved state 5 in the first BAT entry.
    let mut spec = Spec::default();
    spec.raw_bat.insert(0, 5);
    let (report, text) = contents_of(&spec);
    assert!(report["error"].as_str().unwrap().contains("payload block 0"), "{report}");
    assert!(text.contains("contents: unknown: "), "{text}");

    // A child without its parent.
    let child = Spec::child_of(&Spec::default(), "missing.vhdx");
    assert!(child.locator.as_ref().unwrap().encode().starts_with(&VHDX_LOCATOR.to_bytes_le()));
    let path = write_image(folder.path(), "child.avhdx", &child);
    let report = vhdx_run(args!["info", "--output", "json", &path]).done().json();
    let error = &report["format-specific"]["data"]["contents"]["error"];
    assert!(error.as_str().unwrap().contains("parent"), "{error}");
}
