//! What `info` shows about a volume: label, UUID, groups and levels, and whether its journal needs recovery. The
//! expected labels and UUIDs of file systems that tools make are those of `blkid`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::kit::MIB;
use crate::support::{skip, temp_dir};

use super::partitions::Pieces;
use super::volumes::{image_of, smallest_size};
use super::{args, assert_has, assert_lines, disk_with, vhdx_run, write_image};

/// What `info` says about the content of the image, and all of its text.
fn contents_of(path: &Path) -> (Value, String) {
    let report = vhdx_run(args!["info", "--output", "json", path]).done().json();
    let text = vhdx_run(args!["info", path]).done().text();
    (report["format-specific"]["data"]["contents"].clone(), text)
}

/// The same of a disk with these bytes.
fn contents_with(size: u64, pieces: &Pieces) -> (Value, String) {
    let folder = temp_dir();
    let pieces: Vec<(u64, &[u8])> = pieces.iter().map(|(at, bytes)| (*at, bytes.as_slice())).collect();
    contents_of(&write_image(folder.path(), "disk.vhdx", &disk_with(size, &pieces)))
}

/// A value of a file system, as `blkid` finds it.
fn of_blkid(raw: &Path, tag: &str) -> Option<String> {
    let out = Command::new("blkid").args(["-p", "-o", "value", "-s", tag]).arg(raw).output().ok()?;
    let text = String::from_utf8(out.stdout).unwrap().trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}

#[test]
fn info_shows_label_and_uuid_as_blkid_does() {
    const TOOLS: [(&[&str], &str); 22] = [
        (&["mke2fs", "-q", "-F", "-O", "journal_dev", "-L", "Data 1"], "ext4 external journal"),
        (&["mkfs.nilfs2", "-q", "-L", "Data 1"], "NILFS2"),
        (&["mkudffs", "-l", "Ünïcode"], "UDF"),
        (&["mkudffs", "-b", "512", "-l", "Ωmega"], "UDF"),
        (&["mkudffs", "-b", "2048", "-l", "Data 1", "--uuid", "0123456789abcdef"], "UDF"),
        (&["mkudffs", "-b", "4096", "-l", "Data 1", "--fullvsid", "any name"], "UDF"),
        (&["mkudffs", "-l", "Data 1", "--fullvsid", "0123456789Xyz"], "UDF"),
        (&["mke2fs", "-q", "-F", "-t", "ext4", "-L", "Data 1"], "ext4"),
        (&["mkfs.xfs", "-q", "-f", "-L", "Data 1"], "XFS"),
        (&["mkfs.btrfs", "-q", "--mixed", "-L", "Data 1"], "Btrfs"),
        (&["mkfs.ntfs", "-q", "-F", "-Q", "-L", "Ünïcode"], "NTFS"),
        (&["mkfs.fat", "-F", "12", "-s", "64", "-n", "DATA 1"], "FAT"),
        (&["mkfs.fat", "-F", "16", "-n", "DATA 1"], "FAT"),
        (&["mkfs.fat", "-F", "32", "-s", "1", "-n", "DATA 1"], "FAT32"),
        (&["mkfs.fat", "-F", "16"], "FAT"),
        (&["mkfs.exfat", "-L", "Ünïcode"], "exFAT"),
        (&["mkfs.f2fs", "-q", "-l", "Ünïcode"], "F2FS"),
        (&["mkfs.jfs", "-q", "-L", "Data 1"], "JFS"),
        (&["mkswap", "-L", "Data 1"], "swap"),
        (&["cryptsetup", "-q", "luksFormat", "--type", "luks1", "--pbkdf-force-iterations", "1000"], "LUKS"),
        (&["cryptsetup", "-q", "luksFormat", "--type", "luks2", "--pbkdf", "pbkdf2", "--label", "Data 1"], "LUKS"),
        (&["mkfs.ntfs", "-q", "-F", "-Q", "-c", "65536"], "NTFS"),
    ];
    let folder = temp_dir();
    let key = folder.path().join("key");
    std::fs::write(&key, "a key").unwrap();
    let mut missing = Vec::new();
    for (tool, expected) in TOOLS {
        let raw = folder.path().join("disk.raw");
        File::create(&raw).unwrap().set_len(smallest_size(expected)).unwrap();
        let mut command = Command::new(tool[0]);
        command.args(&tool[1..]);
        if expected == "LUKS" {
            command.arg("--key-file").arg(&key);
        }
        let made = command.arg(&raw).output().is_ok_and(|made| made.status.success());
        let (label, uuid) = (of_blkid(&raw, "LABEL"), of_blkid(&raw, "UUID"));
        if !made || uuid.is_none() {
            missing.push(tool[0]);
            continue;
        }
        let (contents, text) = contents_of(&image_of(folder.path(), &raw));
        let details = json!({ "label": label, "uuid": uuid, "error": null, "mount-options": null });
        assert_has(&contents, &json!({ "holds": expected, "details": details }));
        assert_ne!(contents["details"]["needs-recovery"], true, "{tool:?}: {contents}");
        let line = text.lines().find(|line| line.starts_with("volume: ")).unwrap();
        assert!(line.contains(&uuid.unwrap()), "{tool:?}: {line}");
    }
    if !missing.is_empty() {
        skip("blkid", &format!("these are not there, or blkid is not: {}", missing.join(", ")));
    }
}

#[test]
fn info_shows_read_only_file_systems_made_by_tools() {
    let folder = temp_dir();
    let content = folder.path().join("content");
    std::fs::create_dir(&content).unwrap();
    std::fs::write(content.join("file"), "text").unwrap();
    let raw = folder.path().join("disk.raw");
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    let erofs = Command::new("mkfs.erofs").args(["-U", uuid]).arg(&raw).arg(&content).output();
    if !erofs.is_ok_and(|made| made.status.success()) {
        return skip("mkfs", "no mkfs.erofs");
    }
    // A raw disk has whole sectors.
    let pad = || File::options().write(true).open(&raw).unwrap().set_len(MIB).unwrap();
    pad();
    let (contents, _) = contents_of(&image_of(folder.path(), &raw));
    assert_has(&contents, &json!({ "holds": "EROFS", "details": { "uuid": uuid } }));
    std::fs::remove_file(&raw).unwrap();
    let squashfs = Command::new("mksquashfs").arg(&content).arg(&raw).arg("-quiet").output();
    if !squashfs.is_ok_and(|made| made.status.success()) {
        return skip("mkfs", "no mksquashfs");
    }
    pad();
    let (contents, text) = contents_of(&image_of(folder.path(), &raw));
    assert_has(&contents, &json!({ "holds": "squashfs", "details": { "version": "4" } }));
    assert_lines(&text, &["contents: squashfs, on the whole disk, without partition table"]);
    assert!(text.lines().any(|line| line.starts_with("volume: version 4, ") && line.contains(" used")), "{text}");
}

/// Fields of a structure: bytes at offsets from its beginning.
fn structure(length: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fields.iter().for_each(|(at, field)| bytes[*at..*at + field.len()].copy_from_slice(field));
    bytes
}

#[test]
fn info_shows_version_level_and_name_of_md_raid() {
    const MAGIC: &[u8] = b"\xfc\x4e\x2b\xa9";
    let id: Vec<u8> = (1..=16).collect();
    let size = 9 * MIB + 4096;
    // The formats of mdadm: 1.x with the superblock at the beginning, 4 KiB after it, and 8 to 12 KiB before the end.
    let one = |level: &[u8]| structure(256, &[(0, MAGIC), (4, &[1]), (16, &id), (32, b"host:data"), (72, level)]);
    let numbers = "01020304-0506-0708-090a-0b0c0d0e0f10";
    for (version, at, level, name) in [
        ("1.2", 4096, &[5][..], "RAID5"),
        ("1.1", 0, &[1], "RAID1"),
        ("1.0", size - 8192, &[0xff; 4], "linear"),
        ("1.2", 4096, &[10], "RAID10"),
        ("1.2", 4096, &[0], "RAID0"),
    ] {
        let (contents, text) = contents_with(size, &vec![(at, one(level))]);
        let details = json!({ "version": version, "level": name, "label": "host:data", "uuid": numbers });
        assert_has(&contents, &json!({ "holds": "md RAID", "details": details }));
        assert_lines(&text, &[&format!("volume: {name}, version {version}, name \"host:data\", UUID {numbers}")]);
    }
    // 0.90: numbers of 32 bits, the identity in four of them, in the last whole 64 KiB but one.
    let fields: [(usize, &[u8]); 7] = [
        (0, MAGIC),
        (8, &[90]),
        (20, b"\x04\x03\x02\x01"),
        (28, &[6]),
        (52, b"\x08\x07\x06\x05"),
        (56, b"\x0c\x0b\x0a\x09"),
        (60, b"\x10\x0f\x0e\x0d"),
    ];
    let (contents, _) = contents_with(size, &vec![(9 * MIB - 65536, structure(256, &fields))]);
    let details = json!({ "version": "0.90", "level": "RAID6", "uuid": numbers });
    assert_has(&contents, &json!({ "holds": "md RAID", "details": details }));
}

#[test]
fn info_shows_group_of_lvm() {
    // Label, physical volume (one data area, one metadata area), metadata area, and the beginning of its text.
    let label = structure(
        512,
        &[
            (0, b"LABELONE\x01"),
            (20, b"\x20\0\0\0LVM2 001"),
            (32, b"abcdefghijklmnopqrstuvwxyz012345"),
            (72, b"\0\0\x10"),
            (104, b"\0\x10\0\0\0\0\0\0\0\xf0\x0f"),
        ],
    );
    let area = structure(512, &[(4, b" LVM2 x[5A%r0N*>\x01"), (40, b"\0\x02\0\0\0\0\0\0\x64")]);
    let text = b"vg_root {\nid = \"x\"\n".to_vec();
    let (contents, info) = contents_with(8 * MIB, &vec![(512, label), (4096, area), (4096 + 512, text)]);
    let uuid = "abcdef-ghij-klmn-opqr-stuv-wxyz-012345";
    assert_has(&contents, &json!({ "holds": "LVM2", "details": { "group": "vg_root", "uuid": uuid } }));
    assert_lines(&info, &[&format!("volume: volume group \"vg_root\", UUID {uuid}")]);
}

#[test]
fn info_lists_logical_partitions_of_android() {
    let header = structure(128, &[(0, b"0PLA\x0a\0\0\0\x80\0\0\0"), (80, b"\0\0\0\0\x02\0\0\0\x34\0\0\0")]);
    let entries = structure(104, &[(0, b"system_a"), (52, b"vendor_a")]);
    let pieces = vec![(4096, b"gDla".to_vec()), (0x3000, header), (0x3080, entries)];
    let (contents, text) = contents_with(8 * MIB, &pieces);
    assert_has(&contents, &json!({ "holds": "Android super", "details": { "partitions": ["system_a", "vendor_a"] } }));
    assert_lines(&text, &["volume: logical partitions system_a vendor_a"]);
}

#[test]
fn info_shows_pool_of_zfs() {
    // Pairs in XDR: lengths, name, type (8: number, 9: text), count, value.
    let pair = |name: &[u8], kind: u8, value: &[u8]| {
        let padded = name.len().next_multiple_of(4);
        let length = u8::try_from(20 + padded + value.len()).unwrap();
        let mut bytes = vec![0, 0, 0, length, 0, 0, 0, 0, 0, 0, 0, u8::try_from(name.len()).unwrap()];
        bytes.extend(name);
        bytes.resize(12 + padded, 0);
        bytes.extend([0, 0, 0, kind, 0, 0, 0, 1]);
        bytes.extend(value);
        bytes
    };
    let mut label = b"\x01\x01\0\0\0\0\0\0\0\0\0\x01".to_vec();
    label.extend(pair(b"version", 8, &[0, 0, 0, 0, 0, 0, 0x13, 0x88]));
    label.extend(pair(b"name", 9, b"\0\0\0\x04tank"));
    label.extend(pair(b"pool_guid", 8, &[0xf0, 0, 0, 0, 0, 0, 0, 1]));
    let (contents, text) = contents_with(8 * MIB, &vec![(16 << 10, label)]);
    let details = json!({ "label": "tank", "uuid": "17293822569102704641" });
    assert_has(&contents, &json!({ "holds": "ZFS", "details": details }));
    assert_lines(&text, &["volume: pool \"tank\", UUID 17293822569102704641"]);
}

#[test]
fn info_shows_labels_of_volumes_without_tools() {
    let id: Vec<u8> = (1..=16).collect();
    let numbers = "01020304-0506-0708-090a-0b0c0d0e0f10";
    let erofs = structure(128, &[(0, b"\xe2\xe1\xf5\xe0"), (48, &id), (64, b"system")]);
    let (contents, _) = contents_with(8 * MIB, &vec![(1024, erofs)]);
    assert_has(&contents, &json!({ "holds": "EROFS", "details": { "label": "system", "uuid": numbers } }));
    let magic = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";
    let bcachefs = structure(104, &[(24, magic), (56, &id), (72, b"Data 1")]);
    let (contents, _) = contents_with(8 * MIB, &vec![(4096, bcachefs)]);
    assert_has(&contents, &json!({ "holds": "bcachefs", "details": { "label": "Data 1", "uuid": numbers } }));
    let (contents, _) = contents_with(8 * MIB, &vec![(0, structure(128, &[(32, b"NXSB"), (72, &id)]))]);
    assert_has(&contents, &json!({ "holds": "APFS", "details": { "uuid": numbers } }));
    // HFS: the name is in the character set of old Macs, the UUID that of the eight bytes by version 3 of RFC 4122.
    let block = structure(
        512,
        &[(0, b"BD"), (20, b"\0\0\x02\0"), (36, b"\x06Daten\x8a"), (116, b"\x01\x02\x03\x04\x05\x06\x07\x08")],
    );
    let (contents, _) = contents_with(8 * MIB, &vec![(1024, block)]);
    let details = json!({ "label": "Datenä", "uuid": "6095e009-5132-3fc5-87c2-d5a01745283e" });
    assert_has(&contents, &json!({ "holds": "HFS", "details": details }));
    // HFS+ in blocks of 4 KiB, its catalog in block 2, and the first leaf in the second node.
    let header = structure(512, &[(0, b"H+\0\x04"), (40, b"\0\0\x10\0"), (288, b"\0\0\0\x02")]);
    let tree = structure(64, &[(8, &[1]), (24, b"\0\0\0\x01"), (32, b"\x10\0")]);
    let leaf = structure(64, &[(8, &[0xff]), (16, b"\0\0\0\x01\0\x04\0D\0a\0t\0a")]);
    let (contents, _) = contents_with(8 * MIB, &vec![(1024, header), (8192, tree), (12288, leaf)]);
    assert_has(&contents, &json!({ "holds": "HFS+", "details": { "label": "Data", "uuid": null } }));
}

#[test]
fn info_finds_hfs_plus_in_hfs() {
    // Allocation blocks of 4 KiB from sector 16 on; the volume begins in the second of them.
    let inside = 16 * 512 + 4096;
    let outer = structure(512, &[(0, b"BD"), (20, b"\0\0\x10\0"), (28, b"\0\x10"), (124, b"H+\0\x01\0\x40")]);
    let header = structure(512, &[(0, b"H+\0\x04"), (40, b"\0\0\x10\0"), (288, b"\0\0\0\x02")]);
    let tree = structure(64, &[(8, &[1]), (24, b"\0\0\0\x01"), (32, b"\x10\0")]);
    let leaf = structure(64, &[(8, &[0xff]), (16, b"\0\0\0\x01\0\x04\0D\0a\0t\0a")]);
    let pieces = vec![(1024, outer), (inside + 1024, header), (inside + 8192, tree), (inside + 12288, leaf)];
    let (contents, _) = contents_with(8 * MIB, &pieces);
    assert_has(&contents, &json!({ "holds": "HFS+", "details": { "label": "Data" } }));
}

/// An image of the file system that a tool made, after a change of its bytes.
fn changed(tool: &[&str], size: u64, change: impl FnOnce(&File)) -> Option<(Value, String)> {
    let folder = temp_dir();
    let raw = folder.path().join("disk.raw");
    File::create(&raw).unwrap().set_len(size).unwrap();
    let made = Command::new(tool[0]).args(&tool[1..]).arg(&raw).output();
    if !made.is_ok_and(|made| made.status.success()) {
        skip("mkfs", &format!("no {}", tool[0]));
        return None;
    }
    change(&File::options().read(true).write(true).open(&raw).unwrap());
    Some(contents_of(&image_of(folder.path(), &raw)))
}

#[track_caller]
fn assert_recovery(found: Option<(Value, String)>, needs: bool, options: &str) {
    let Some((contents, text)) = found else { return };
    let options_found = if needs { json!(options) } else { Value::Null };
    assert_has(&contents["details"], &json!({ "needs-recovery": needs, "mount-options": options_found }));
    let line = format!("journal: the journal of the file system needs recovery: `mount {options}` reads it");
    assert_eq!(text.contains(&line), needs, "{text}");
}

fn byte_at(file: &File, at: u64) -> u8 {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0]
}

#[test]
fn info_says_whether_ext_needs_recovery() {
    let ext = ["mke2fs", "-q", "-F", "-t", "ext4"];
    assert_recovery(changed(&ext, 64 * MIB, |_| {}), false, "-o ro,noload");
    // EXT4_FEATURE_INCOMPAT_RECOVER.
    let mark = |file: &File| file.write_all_at(&[byte_at(file, 1024 + 96) | 4], 1024 + 96).unwrap();
    assert_recovery(changed(&ext, 64 * MIB, mark), true, "-o ro,noload");
}

#[test]
fn info_says_whether_xfs_needs_recovery() {
    let xfs = ["mkfs.xfs", "-q", "-f"];
    assert_recovery(changed(&xfs, 320 * MIB, |_| {}), false, "-o ro,norecovery");
    // The log begins with the record of an unmount: a header of one sector, and one operation with the flag 0x20.
    let log_start = |file: &File| {
        let mut superblock = [0; 512];
        file.read_exact_at(&mut superblock, 0).unwrap();
        let number = |at: usize, length: usize| {
            superblock[at..at + length].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let (start, blocks, shift) = (number(48, 8), number(84, 4), superblock[124]);
        let group = start >> shift;
        (group * blocks + (start - (group << shift))) * number(4, 4)
    };
    let no_unmount = |file: &File| {
        let at = log_start(file) + 512 + 9;
        assert_eq!(byte_at(file, at), 0x20);
        file.write_all_at(&[1], at).unwrap();
    };
    assert_recovery(changed(&xfs, 320 * MIB, no_unmount), true, "-o ro,norecovery");
    // One more record after the unmount: the same, in the same cycle, with two operations.
    let one_more = |file: &File| {
        let mut record = vec![0; 1024];
        let start = log_start(file);
        file.read_exact_at(&mut record, start).unwrap();
        record[43] = 2;
        file.write_all_at(&record, start + 1024).unwrap();
    };
    assert_recovery(changed(&xfs, 320 * MIB, one_more), true, "-o ro,norecovery");
}

#[test]
fn info_says_whether_ntfs_needs_recovery() {
    let ntfs = ["mkfs.ntfs", "-q", "-F", "-Q"];
    let options = "-t ntfs3 -o ro";
    let cluster = 4096;
    let file_table = |file: &File| {
        let mut number = [0; 8];
        file.read_exact_at(&mut number, 0x30).unwrap();
        u64::from_le_bytes(number) * cluster
    };
    assert_recovery(changed(&ntfs, 64 * MIB, |_| {}), false, options);
    // Bit 0 of the flags in $VOLUME_INFORMATION (type 0x70) of the fourth record.
    let mark = |file: &File| {
        let start = file_table(file) + 3 * 1024;
        let mut record = [0; 1024];
        file.read_exact_at(&mut record, start).unwrap();
        let at = (0..1000).step_by(8).find(|at| record[*at..*at + 4] == [0x70, 0, 0, 0]).unwrap();
        let flags = at + usize::from(record[at + 20]) + 10;
        file.write_all_at(&[record[flags] | 1], start + u64::try_from(flags).unwrap()).unwrap();
    };
    assert_recovery(changed(&ntfs, 64 * MIB, mark), true, options);
    // A restart page whose volume is in use: a client, and no flag.
    let restart = |client: &[u8; 2], flags: u8| {
        let client = *client;
        move |file: &File| {
            let start = file_table(file) + 2 * 1024;
            let mut record = [0; 1024];
            file.read_exact_at(&mut record, start).unwrap();
            // $DATA (type 0x80): its first run has a byte of lengths, the length, and the cluster.
            let at = (0..1000).step_by(8).find(|at| record[*at..*at + 4] == [0x80, 0, 0, 0]).unwrap();
            let run = at + usize::from(record[at + 32]);
            let (of_length, of_place) = (usize::from(record[run] & 15), usize::from(record[run] >> 4));
            let place = record[run + 1 + of_length..][..of_place].iter().rev();
            let log = place.fold(0, |number, byte| number << 8 | u64::from(*byte)) * cluster;
            let fields: [(usize, &[u8]); 5] =
                [(0, b"RSTR"), (24, &[0x30]), (0x30, &[9]), (0x3c, &client), (0x3e, &[flags])];
            file.write_all_at(&structure(4096, &fields), log).unwrap();
        }
    };
    assert_recovery(changed(&ntfs, 64 * MIB, restart(&[0, 0], 0)), true, options);
    assert_recovery(changed(&ntfs, 64 * MIB, restart(&[0, 0], 2)), false, options);
    assert_recovery(changed(&ntfs, 64 * MIB, restart(&[0xff, 0xff], 0)), false, options);
}

#[test]
fn info_says_whether_btrfs_needs_recovery() {
    let btrfs = ["mkfs.btrfs", "-q", "--mixed"];
    assert_recovery(changed(&btrfs, 64 * MIB, |_| {}), false, "-o ro,rescue=nologreplay");
    // The place of the tree of the log.
    let mark = |file: &File| file.write_all_at(&[0, 0, 0x10], 0x1_0060).unwrap();
    assert_recovery(changed(&btrfs, 64 * MIB, mark), true, "-o ro,rescue=nologreplay");
}

#[test]
fn volumes_are_named_where_other_sectors_are_unreadable() {
    let folder = temp_dir();
    // The last block, in which an md RAID may have its superblock, is in a reserved state.
    let mut superblock = vec![0; 1024];
    superblock[56..60].copy_from_slice(b"\x53\xef\x01\0");
    let mut spec = disk_with(8 * MIB, &[(1024, &superblock)]);
    spec.raw_bat.insert(7, 5);
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let report = vhdx_run(args!["info", "--output", "json", &path]).json();
    assert_eq!(report["format-specific"]["data"]["contents"]["holds"], "ext2", "{report}");
    // Where no signature can be read, the reason is given.
    let mut mbr = vec![0; 512];
    mbr[446 + 4] = 0x83;
    mbr[446 + 8..446 + 16].copy_from_slice(&[0, 0x38, 0, 0, 0, 8, 0, 0]);
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut spec = disk_with(8 * MIB, &[(0, &mbr)]);
    spec.raw_bat.insert(7, 5);
    let path = write_image(folder.path(), "other.vhdx", &spec);
    let report = vhdx_run(args!["info", "--output", "json", &path]).json();
    let partition = &report["format-specific"]["data"]["contents"]["partition-table"]["partitions"][0];
    assert_eq!((&partition["start"], &partition["holds"]), (&json!(7 * MIB), &Value::Null), "{report}");
    assert!(partition["holds-error"].as_str().unwrap().contains("payload block 7"), "{partition}");
    let text = vhdx_run(args!["info", &path]).text();
    assert!(text.contains("Linux: unknown: BAT entry of payload block 7"), "{text}");
}

#[test]
fn info_says_what_a_disk_of_4096_byte_sectors_needs() {
    let folder = temp_dir();
    for (sector, is_shown) in [(512, false), (4096, true)] {
        let mut spec = disk_with(8 * MIB, &[]);
        spec.sector_size = sector;
        let text = vhdx_run(args!["info", write_image(folder.path(), "disk.vhdx", &spec)]).done().text();
        let line = "for its raw disk: QEMU and KVM -device …,logical_block_size=4096,physical_block_size=4096; \
                    losetup --sector-size 4096";
        assert_eq!(text.lines().any(|found| found == line), is_shown, "{text}");
    }
}
