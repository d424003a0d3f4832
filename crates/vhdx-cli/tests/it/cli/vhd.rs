//! `vhdx extract --format vhd`: a fixed VHD is the disk and a footer, checked by hand (Virtual Hard Disk Image Format
//! Specification 1.0) and by qemu-img.
#![expect(clippy::big_endian_bytes, reason = "the numbers of a VHD are big-endian")]

use std::path::Path;
use std::process::Command;

use crate::kit::builder::{DISK_ID, Spec};
use crate::kit::{Block, MIB, TIB};
use crate::support::{skip, temp_dir};

use super::{args, assert_fails, content, vhdx_run, write_image};

/// Checks the footer, and returns the bytes before it.
fn disk_of(vhd: &[u8], spec: &Spec) -> Vec<u8> {
    let (disk, footer) = vhd.split_at(vhd.len() - 512);
    let size = u64::try_from(disk.len()).unwrap();
    let number = |at: usize| u32::from_be_bytes(footer[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_be_bytes(footer[at..at + 8].try_into().unwrap());
    assert_eq!(&footer[..8], b"conectix");
    assert_eq!((number(8), number(12)), (2, 0x0001_0000), "features, version of the format");
    assert_eq!(long(16), u64::MAX, "a fixed disk has no further header");
    assert_eq!((long(40), long(48)), (size, size), "original and current size");
    assert_eq!(number(60), 2, "a fixed disk");
    // The ones' complement of the sum of all other bytes.
    let sum: u32 = footer.iter().enumerate().filter(|(at, _)| !(64..68).contains(at)).map(|(_, b)| u32::from(*b)).sum();
    assert_eq!(number(64), !sum, "checksum");
    let id = if spec.items.iter().any(|item| item.id == DISK_ID) { spec.disk_id } else { spec.data_write_guid };
    assert_eq!(footer[68..84], *id.as_bytes());
    assert!(footer[84..].iter().all(|byte| *byte == 0));
    let (cylinders, heads, sectors) = (u64::from(number(56) >> 16), u64::from(footer[58]), u64::from(footer[59]));
    let chs = cylinders * heads * sectors * 512;
    assert!(chs <= size && size - chs < heads * sectors * 512, "geometry {cylinders}/{heads}/{sectors} of {size}");
    disk.to_vec()
}

#[test]
fn vhd_is_the_disk_and_a_footer() {
    let folder = temp_dir();
    let mut without_id = Spec::default();
    without_id.omit(DISK_ID);
    for spec in [Spec::default(), without_id, Spec::empty(40 * MIB).block(39, Block::full())] {
        let path = write_image(folder.path(), "disk.vhdx", &spec);
        let out = folder.path().join("out.vhd");
        let ran = vhdx_run(args!["extract", "--force", "--format", "vhd", &path, &out]).done();
        assert_eq!(ran.err, "");
        let vhd = std::fs::read(&out).unwrap();
        assert!(disk_of(&vhd, &spec) == content(&spec));
        // A stream has the same bytes, and every run makes the same.
        assert!(vhdx_run(args!["extract", "-O", "vhd", &path, "-"]).done().out == vhd);
    }
}

#[test]
fn vhd_size_is_rounded_up_to_a_mib() {
    let folder = temp_dir();
    let spec = Spec { disk_size: 5 * MIB + 512, ..Spec::default() };
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let out = folder.path().join("out.vhd");
    let ran = vhdx_run(args!["extract", "-O", "vhd", &path, &out]).done();
    assert!(ran.err.contains("note: 1048064 zero bytes added"), "{}", ran.err);
    let mut disk = content(&spec);
    disk.resize(6 << 20, 0);
    assert!(disk_of(&std::fs::read(&out).unwrap(), &spec) == disk);
    let quiet = vhdx_run(args!["extract", "-q", "-O", "vhd", &path, "-"]).done();
    assert!(quiet.err.is_empty() && disk_of(&quiet.out, &spec) == disk);
}

#[test]
fn vhd_of_a_range() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let vhd = vhdx_run(args!["extract", "-O", "vhd", "--range", "2M:1M", &path, "-"]).done().out;
    assert!(disk_of(&vhd, &Spec::default()) == content(&Spec::default())[2 << 20..3 << 20]);
}

#[test]
fn vhd_of_4096_byte_sectors_has_a_note() {
    let folder = temp_dir();
    let spec = Spec { sector_size: 4096, ..Spec::default() };
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let ran = vhdx_run(args!["extract", "-O", "vhd", &path, "-"]).done();
    assert!(ran.err.contains("note: ") && ran.err.contains("4096"), "{}", ran.err);
    assert!(disk_of(&ran.out, &spec) == content(&spec));
}

#[test]
fn vhd_of_more_than_2040_gib_has_a_note() {
    let folder = temp_dir();
    // Hyper-V supports up to 2040 GiB.
    let path = write_image(folder.path(), "disk.vhdx", &Spec { block_size: 256 << 20, ..Spec::empty(3 * TIB) });
    let ran = vhdx_run(args!["extract", "-O", "vhd", &path, folder.path().join("out.vhd")]);
    assert!(ran.err.contains("2040") || ran.err.contains("2 TiB"), "{}: {:?}", ran.status, ran.err);
}

/// Runs qemu-img; `None`, with a message, if it is not installed.
fn qemu_img(args: Vec<std::ffi::OsString>) -> Option<Vec<u8>> {
    let Ok(output) = Command::new("qemu-img").args(&args).output() else {
        skip("qemu", "no qemu-img");
        return None;
    };
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

#[test]
fn vhd_reads_equally_in_qemu() {
    let folder = temp_dir();
    let at = |name: &str| folder.path().join(name);
    for megabytes in [1, 7, 130] {
        let spec = Spec::empty(megabytes * MIB).block(0, Block::full()).block(megabytes - 1, Block::full());
        let path = write_image(folder.path(), "disk.vhdx", &spec);
        vhdx_run(args!["extract", "--force", "-O", "vhd", &path, at("out.vhd")]).done();
        let Some(report) = qemu_img(args!["info", "-f", "vpc", "--output", "json", at("out.vhd")]) else { return };
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        assert_eq!((&report["format"], &report["virtual-size"]), (&"vpc".into(), &(megabytes * MIB).into()));
        qemu_img(args!["convert", "-f", "vpc", "-O", "raw", at("out.vhd"), at("out.raw")]);
        assert!(std::fs::read(at("out.raw")).unwrap() == content(&spec));
    }
    assert!(Path::new(&at("out.vhd")).exists());
    assert_fails(&vhdx_run(args!["info", at("out.vhd")]), 65, &["VHD"]);
}
