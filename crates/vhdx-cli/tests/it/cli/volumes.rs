//! File systems that `info` recognises on a disk without a partition table. The signatures are written by hand; if the
//! tools exist, real file systems are made, too.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::kit::MIB;
use crate::support::{root, skip, temp_dir, wait};

use super::partitions::Pieces;
use super::{args, assert_has, assert_lines, disk_with, vhdx_run, write_image};

/// Names of all signatures.
const NAMES: [&str; 42] = [
    "ext2",
    "ext3",
    "ext4",
    "ext4 external journal",
    "NILFS2",
    "HFS",
    "HFS+ in HFS",
    "UDF of 4096-byte sectors",
    "XFS",
    "Btrfs",
    "NTFS",
    "ReFS",
    "FAT12",
    "FAT16",
    "FAT32",
    "exFAT",
    "ISO 9660",
    "LVM2",
    "swap",
    "BitLocker",
    "BitLocker To Go",
    "LUKS1",
    "LUKS2",
    "F2FS",
    "bcachefs",
    "bcachefs with the signature of bcache",
    "bcache",
    "EROFS",
    "squashfs",
    "JFS",
    "ReiserFS",
    "ZFS",
    "ZFS of the other byte order",
    "UFS",
    "APFS",
    "HFS+",
    "HFSX",
    "UDF",
    "md RAID",
    "Android super",
    "VMFS",
    "VMFS extent",
];

/// The name that `info` prints.
fn printed_name(name: &str) -> &str {
    match name {
        "FAT12" | "FAT16" => "FAT",
        "LUKS1" | "LUKS2" => "LUKS",
        "BitLocker To Go" => "BitLocker",
        "bcachefs with the signature of bcache" => "bcachefs",
        "ZFS of the other byte order" => "ZFS",
        "VMFS extent" => "VMFS",
        "HFS+ in HFS" => "HFS+",
        "UDF of 4096-byte sectors" => "UDF",
        other => other,
    }
}

const BCACHE: &[u8] = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";

/// A size that the tools accept.
pub(super) fn smallest_size(name: &str) -> u64 {
    match name {
        "XFS" => 320 * MIB,
        "NILFS2" => 160 * MIB,
        _ => 64 * MIB,
    }
}

/// Signature of a file system: bytes at offsets.
pub(super) fn signature(name: &str) -> Pieces {
    let boot_sector = |head: &[u8], extra: &[(usize, &[u8])]| {
        let mut sector = vec![0; 512];
        sector[128..].fill(0xf4);
        sector[..head.len()].copy_from_slice(head);
        // As in any boot sector: 512 bytes per sector, 8 sectors per cluster.
        sector[11..14].copy_from_slice(&[0, 2, 8]);
        for (at, bytes) in extra {
            sector[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        vec![(0, sector)]
    };
    // Compatible, incompatible and read-only features, with the values of mke2fs.
    let ext = |features: [u32; 3]| {
        let mut superblock = vec![0; 1024];
        superblock[56..60].copy_from_slice(b"\x53\xef\x01\0");
        superblock[76] = 1;
        superblock[92..104].copy_from_slice(&features.map(u32::to_le_bytes).concat());
        vec![(1024, superblock)]
    };
    match name {
        "ext2" => ext([0x38, 0x2, 0x3]),
        "ext3" => ext([0x3c, 0x2, 0x3]),
        "ext4" => ext([0x3c, 0x2c2, 0x46b]),
        "ext4 external journal" => ext([0, 0x8, 0]),
        "NILFS2" => vec![(1024, b"\x02\0\0\0\0\0\x34\x34".to_vec()), (1024 + 20, b"\x02".to_vec())],
        "HFS" => vec![(1024, b"BD".to_vec()), (1024 + 20, b"\0\0\x02\0".to_vec())],
        "HFS+ in HFS" => {
            vec![(1024, b"BD".to_vec()), (1024 + 20, b"\0\0\x02\0".to_vec()), (1024 + 124, b"H+".to_vec())]
        }
        "UDF of 4096-byte sectors" => vec![(0x8000, b"\0BEA01\x01".to_vec()), (0x9000, b"\0NSR02\x01".to_vec())],
        "XFS" => vec![(0, b"XFSB\0\0\x10\0".to_vec())],
        "Btrfs" => vec![(0x1_0040, b"_BHRfS_M".to_vec())],
        "NTFS" => boot_sector(b"\xeb\x52\x90NTFS    ", &[]),
        "ReFS" => vec![(0, b"\0\0\0ReFS\0\0\0\0\0\0\0\0\0FSRS".to_vec())],
        "FAT12" => boot_sector(b"\xeb\x3c\x90MSDOS5.0", &[(38, b"\x29"), (54, b"FAT12   ")]),
        "FAT16" => boot_sector(b"\xeb\x3c\x90mkfs.fat", &[(38, b"\x29"), (54, b"FAT16   ")]),
        "FAT32" => boot_sector(b"\xeb\x58\x90MSDOS5.0", &[(66, b"\x29"), (82, b"FAT32   ")]),
        "exFAT" => boot_sector(b"\xeb\x76\x90EXFAT   ", &[]),
        "ISO 9660" => vec![(0x8000, b"\x01CD001\x01".to_vec())],
        "LVM2" => vec![(512, b"LABELONE\x01\0\0\0\0\0\0\0\x01\x02\x03\x04\x20\0\0\0LVM2 001".to_vec())],
        "swap" => vec![(1024, b"\x01\0\0\0".to_vec()), (4086, b"SWAPSPACE2".to_vec())],
        "BitLocker" => boot_sector(b"\xeb\x58\x90-FVE-FS-", &[]),
        "BitLocker To Go" => {
            let guid = b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01";
            boot_sector(b"\xeb\x58\x90MSWIN4.1", &[(82, b"FAT32   "), (424, guid)])
        }
        "LUKS1" => vec![(0, b"LUKS\xba\xbe\0\x01aes\0".to_vec())],
        "LUKS2" => vec![(0, b"LUKS\xba\xbe\0\x02\0\0\0\0".to_vec())],
        "F2FS" => vec![(1024, b"\x10\x20\xf5\xf2".to_vec())],
        "bcachefs" => vec![(4096 + 24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef".to_vec())],
        "bcachefs with the signature of bcache" => vec![(4096 + 24, BCACHE.to_vec())],
        "bcache" => vec![(4096 + 8, b"\x08\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec()), (4096 + 24, BCACHE.to_vec())],
        "EROFS" => vec![(1024, b"\xe2\xe1\xf5\xe0".to_vec())],
        "squashfs" => vec![(0, b"hsqs".to_vec()), (28, b"\x04\0\0\0".to_vec())],
        "JFS" => vec![(0x8000, b"JFS1".to_vec())],
        "ReiserFS" => vec![(0x1_0034, b"ReIsEr2Fs".to_vec())],
        "ZFS" => vec![(128 << 10, b"\x0c\xb1\xba\0\0\0\0\0".to_vec())],
        "ZFS of the other byte order" => vec![((128 << 10) + 3072, b"\0\0\0\0\0\xba\xb1\x0c".to_vec())],
        "UFS" => vec![(65536 + 1372, b"\x19\x01\x54\x19".to_vec())],
        "APFS" => vec![(32, b"NXSB".to_vec())],
        "HFS+" => vec![(1024, b"H+\0\x04".to_vec())],
        "HFSX" => vec![(1024, b"HX\0\x05".to_vec())],
        "UDF" => vec![(0x8000, b"\0BEA01\x01".to_vec()), (0x8800, b"\0NSR03\x01".to_vec())],
        "md RAID" => vec![(4096, b"\xfc\x4e\x2b\xa9\x01\0\0\0".to_vec())],
        "Android super" => vec![(4096, b"gDla".to_vec())],
        "VMFS" => vec![(2 << 20, b"\x5e\xf1\xab\x2f".to_vec())],
        "VMFS extent" => vec![(1 << 20, b"\x0d\xd0\x01\xc0".to_vec())],
        other => unreachable!("no signature of {other}"),
    }
}

/// Asserts that `info` finds this on the whole disk.
#[track_caller]
fn assert_holds(image: &Path, expected: &str) {
    let report = vhdx_run(args!["info", "--output", "json", image]).done().json();
    let contents = &report["format-specific"]["data"]["contents"];
    assert_has(contents, &json!({ "partition-table": null, "holds": expected }));
    let text = vhdx_run(args!["info", image]).done().text();
    assert_lines(&text, &[&format!("contents: {expected}, on the whole disk, without partition table")]);
}

#[test]
fn info_recognises_file_systems_by_signature() {
    let folder = temp_dir();
    for sector in [512, 4096] {
        for name in NAMES {
            let pieces = signature(name);
            let pieces: Vec<(u64, &[u8])> = pieces.iter().map(|(at, bytes)| (*at, bytes.as_slice())).collect();
            let mut spec = disk_with(8 * MIB, &pieces);
            spec.sector_size = sector;
            assert_holds(&write_image(folder.path(), "disk.vhdx", &spec), printed_name(name));
        }
    }
}

#[test]
fn info_finds_lvm_and_swap_at_every_label_offset() {
    let folder = temp_dir();
    let label = &signature("LVM2")[0].1;
    for sector in 0..4 {
        let spec = disk_with(8 * MIB, &[(sector * 512, label)]);
        assert_holds(&write_image(folder.path(), "disk.vhdx", &spec), "LVM2");
    }
    // At the end of the first page, which is larger on other machines.
    for page in [4096, 8192, 16384, 65536] {
        let spec = disk_with(8 * MIB, &[(page - 10, b"SWAPSPACE2")]);
        assert_holds(&write_image(folder.path(), "disk.vhdx", &spec), "swap");
    }
}

#[test]
fn info_reports_unknown_contents() {
    let folder = temp_dir();
    let junk = crate::kit::pattern(3, 0, 100_000);
    for pieces in [&[][..], &[(0, &junk[..])]] {
        let path = write_image(folder.path(), "disk.vhdx", &disk_with(8 * MIB, pieces));
        let report = vhdx_run(args!["info", "--output", "json", &path]).done().json();
        assert_has(&report["format-specific"]["data"]["contents"], &json!({ "partition-table": null, "holds": null }));
        let text = vhdx_run(args!["info", &path]).done().text();
        assert_lines(&text, &["contents: no partition table, no known file system"]);
    }
}

#[test]
fn info_finds_no_signature_on_tiny_disks() {
    let folder = temp_dir();
    for size in [0, 512, 1024, 4096] {
        let path = write_image(folder.path(), "disk.vhdx", &disk_with(size, &[]));
        let report = vhdx_run(args!["info", "--output", "json", &path]).done().json();
        assert_eq!(report["format-specific"]["data"]["contents"]["holds"], json!(null), "{size}");
    }
}

#[test]
fn info_finds_ext4_on_the_sample_image() {
    let sample = root().join("tests/images/hello.vhdx");
    assert_holds(&sample, "ext4");
}

/// An image of a raw disk, without its zeros.
pub(super) fn image_of(folder: &Path, raw: &Path) -> PathBuf {
    let bytes = std::fs::read(raw).unwrap();
    let pieces = (0..).step_by(1 << 16).zip(bytes.chunks(1 << 16));
    let pieces: Vec<(u64, &[u8])> = pieces.filter(|(_, piece)| piece.iter().any(|byte| *byte != 0)).collect();
    let size = u64::try_from(bytes.len()).unwrap();
    write_image(folder, "disk.vhdx", &disk_with(size, &pieces))
}

#[test]
fn info_recognises_file_systems_made_by_tools() {
    // Each takes a file as its last argument.
    const TOOLS: [(&[&str], &str); 17] = [
        (&["mke2fs", "-q", "-F", "-O", "journal_dev"], "ext4 external journal"),
        (&["mkfs.nilfs2", "-q"], "NILFS2"),
        (&["mke2fs", "-q", "-F", "-t", "ext2"], "ext2"),
        (&["mke2fs", "-q", "-F", "-t", "ext3"], "ext3"),
        (&["mke2fs", "-q", "-F", "-t", "ext4"], "ext4"),
        (&["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-O", "^has_journal"], "ext4"),
        (&["mkfs.xfs", "-q", "-f"], "XFS"),
        (&["mkfs.btrfs", "-q", "--mixed"], "Btrfs"),
        (&["mkfs.ntfs", "-q", "-F", "-Q"], "NTFS"),
        (&["mkfs.fat", "-F", "12", "-s", "64"], "FAT"),
        (&["mkfs.fat", "-F", "16"], "FAT"),
        (&["mkfs.fat", "-F", "32", "-s", "1"], "FAT32"),
        (&["mkfs.exfat"], "exFAT"),
        (&["mkswap"], "swap"),
        (&["mkswap", "-p", "65536"], "swap"),
        (&["cryptsetup", "-q", "luksFormat", "--type", "luks1", "--pbkdf-force-iterations", "1000"], "LUKS"),
        (&["cryptsetup", "-q", "luksFormat", "--type", "luks2", "--pbkdf", "pbkdf2"], "LUKS"),
    ];
    let folder = temp_dir();
    let key = folder.path().join("key");
    std::fs::write(&key, "a key").unwrap();
    let mut missing = Vec::new();
    for (tool, expected) in TOOLS {
        let raw = folder.path().join("disk.raw");
        let size = smallest_size(expected);
        File::create(&raw).unwrap().set_len(size).unwrap();
        let mut command = Command::new(tool[0]);
        command.args(&tool[1..]);
        if expected == "LUKS" {
            command.arg("--key-file").arg(&key);
        }
        match command.arg(&raw).output() {
            Ok(made) if made.status.success() => {
                assert_holds(&image_of(folder.path(), &raw), expected);
            }
            _ => missing.push(tool[0]),
        }
    }
    missing.dedup();
    if !missing.is_empty() {
        skip("mkfs", &format!("these are not there, or do nothing with a file: {}", missing.join(", ")));
    }
}

#[test]
fn info_finds_partitions_made_by_tools() {
    const SCRIPTS: [(&str, &str, &str); 2] = [
        (
            "MBR",
            "label: dos\nstart=1M,size=2M,type=c,bootable\nstart=3M,size=4M,type=83\nstart=8M,size=16M,type=5\n\
             start=9M,size=3M,type=82\n",
            "1:1048576+2097152 2:3145728+4194304 3:8388608+16777216 5:9437184+3145728",
        ),
        (
            "GPT",
            "label: gpt\nstart=1M,size=2M,type=U,name=\"first\"\nstart=3M,size=4M,type=L,name=\"second\"\n",
            "1:1048576+2097152first 2:3145728+4194304second",
        ),
    ];
    let folder = temp_dir();
    for (scheme, script, expected) in SCRIPTS {
        let raw = folder.path().join("disk.raw");
        File::create(&raw).unwrap().set_len(64 * MIB).unwrap();
        let mut command = Command::new("sfdisk");
        command.args(["-q", "--no-reread", "--no-tell-kernel"]).arg(&raw).stdin(Stdio::piped()).stderr(Stdio::piped());
        let Ok(mut child) = command.spawn() else { return skip("mkfs", "no sfdisk") };
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        wait(child).done();
        let image = image_of(folder.path(), &raw);
        let report = vhdx_run(args!["info", "--output", "json", &image]).done().json();
        let table = &report["format-specific"]["data"]["contents"]["partition-table"];
        assert_eq!((&table["scheme"], &table["is-backup"]), (&json!(scheme), &json!(false)), "{report}");
        let partitions = table["partitions"].as_array().unwrap().iter().map(|report| {
            format!("{}:{}+{}{}", report["number"], report["start"], report["length"], report["name"].as_str().unwrap())
        });
        assert_eq!(partitions.collect::<Vec<_>>().join(" "), expected);
    }
}
