//! FAT and exFAT, compared with what was written by other programs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use vhdx_files::{Time, lookup};
use vhdx_testkit::device::Loop;
use vhdx_testkit::support::{skip, temp_dir};

use super::lab::{Can, Facts, Lab, compare, damage, fill};

const NAMES: Facts = Facts { is_unix: false, time_unit: 0, has_attributes: false };

/// A tree that fits into a small volume.
fn small_tree(folder: &Path) -> PathBuf {
    let tree = folder.join("small");
    fs::create_dir_all(tree.join("a directory/below")).unwrap();
    for (name, size) in [("SHORT.TXT", 11), ("lower.txt", 512), ("Mixed Case.text", 5000), ("empty", 0)] {
        let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        fs::write(tree.join(name), bytes).unwrap();
    }
    fs::write(tree.join("a directory/below/日本語.txt"), "names").unwrap();
    tree
}

/// Copies a tree into a file system by mtools, which mount nothing.
fn copy_by_mtools(raw: &Path, tree: &Path) -> Option<()> {
    let names: Vec<PathBuf> = fs::read_dir(tree).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut mcopy = Command::new("mcopy");
    mcopy.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").env("MTOOLS_SKIP_CHECK", "1");
    let done = mcopy.args(["-s", "-Q", "-m", "-i"]).arg(raw).args(&names).arg("::").output();
    match done {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => {
            skip("mkfs", "mcopy is not there");
            return None;
        }
    }
    Some(())
}

fn agrees(tool: &[&str], mebibytes: u64, is_small: bool) {
    let folder = temp_dir();
    let tree = folder.path().join("tree");
    let tree = if is_small {
        small_tree(folder.path())
    } else {
        fs::create_dir(&tree).unwrap();
        fill(&tree, Can::Names);
        // mtools know characters of 16 bits alone.
        fs::rename(tree.join("Ünïcödé – 日本語 🦀.txt"), tree.join("Ünïcödé – 日本語.txt")).unwrap();
        tree
    };
    let Some(lab) = Lab::new(tool, mebibytes) else { return };
    let Some(()) = copy_by_mtools(&lab.raw, &tree) else { return };
    compare(&*lab.open().unwrap(), &tree, NAMES);
}

#[test]
fn fat12() {
    agrees(&["mkfs.fat", "-F", "12", "-n", "LABEL"], 4, true);
}

#[test]
fn fat16() {
    agrees(&["mkfs.fat", "-F", "16"], 300, false);
    agrees(&["mkfs.fat", "-F", "16", "-s", "1"], 8, true);
}

#[test]
fn fat32() {
    agrees(&["mkfs.fat", "-F", "32"], 300, false);
    agrees(&["mkfs.fat", "-F", "32", "-S", "4096", "-s", "1"], 300, true);
}

#[test]
fn fat_has_times_labels_and_no_case() {
    let folder = temp_dir();
    let tree = small_tree(folder.path());
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    File::options().write(true).open(tree.join("lower.txt")).unwrap().set_modified(time).unwrap();
    let Some(lab) = Lab::new(&["mkfs.fat", "-F", "16", "-n", "A LABEL", "-i", "1234ABCD"], 16) else { return };
    let Some(()) = copy_by_mtools(&lab.raw, &tree) else { return };
    let volume = lab.open().unwrap();
    let about = volume.about();
    assert_eq!((about.label.as_str(), about.uuid.as_str()), ("A LABEL", "1234-ABCD"));
    assert!(about.used.unwrap() >= 5000 && about.used.unwrap() < about.size);
    let node = lookup(&*volume, b"/LOWER.txt").unwrap();
    assert_eq!(volume.metadata(node).unwrap().times.modified, Some(Time::of_seconds(1_000_000_000)));
    assert!(lookup(&*volume, b"/A Directory/BELOW/\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e.TXT").is_ok());
}

/// An exFAT file system with a tree.
fn exfat(tool: &[&str], mebibytes: u64, tree: &Path) -> Option<Lab> {
    let lab = Lab::new(tool, mebibytes)?;
    let device = Loop::of(&lab.raw)?;
    let mount = lab.mount_from(&device.0, "mount.exfat-fuse", &[])?;
    let copied = Command::new("cp").args(["-r", "--sparse=never"]).arg(tree.join(".")).arg(&mount.0).output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    drop(mount);
    Some(lab)
}

#[test]
fn exfat_agrees() {
    let folder = temp_dir();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fill(&tree, Can::Names);
    for tool in [&["mkfs.exfat"][..], &["mkfs.exfat", "-c", "512"], &["mkfs.exfat", "-c", "128K"]] {
        let Some(lab) = exfat(tool, 300, &tree) else { return };
        compare(&*lab.open().unwrap(), &tree, NAMES);
    }
}

/// The sum of the entries of a file, as the specification of exFAT has it (6.3.3).
fn sum_of_set(set: &[u8]) -> u16 {
    let counted = set.iter().enumerate().filter(|(at, _)| *at != 2 && *at != 3);
    counted.fold(0, |sum: u16, (_, byte)| sum.rotate_right(1).wrapping_add(u16::from(*byte)))
}

#[test]
fn exfat_reads_zeros_after_the_valid_length_and_refuses_wrong_sums() {
    let folder = temp_dir();
    let tree = small_tree(folder.path());
    let Some(lab) = exfat(&["mkfs.exfat", "-L", "a label"], 16, &tree) else { return };
    let mut raw = fs::read(&lab.raw).unwrap();
    let name: Vec<u8> = "Mixed Case.text".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let at = raw.windows(name.len()).position(|window| window == name).unwrap() - 2 - 64;
    let set = at..at + 96;
    assert_eq!((raw[at], raw[at + 32], raw[at + 64]), (0x85, 0xc0, 0xc1));
    raw[at + 40..at + 48].copy_from_slice(&3000_u64.to_le_bytes());
    fs::write(&lab.raw, &raw).unwrap();
    let volume = lab.open().unwrap();
    assert_eq!(volume.about().label, "a label");
    let error = lookup(&*volume, b"/mixed case.TEXT").unwrap_err().to_string();
    assert!(error.contains("do not have the sum that they state"), "{error}");
    let sum = sum_of_set(&raw[set]);
    raw[at + 2..at + 4].copy_from_slice(&sum.to_le_bytes());
    fs::write(&lab.raw, &raw).unwrap();
    let volume = lab.open().unwrap();
    let content = volume.open(lookup(&*volume, b"/Mixed Case.text").unwrap(), None).unwrap();
    let mut bytes = vec![0xaa; 6000];
    assert_eq!((content.size(), content.read_at(&mut bytes, 0).unwrap()), (5000, 5000));
    let mut expected = fs::read(tree.join("Mixed Case.text")).unwrap();
    expected[3000..].fill(0);
    assert!(bytes[..5000] == expected);
}

#[test]
fn damage_of_fat_and_exfat_ends() {
    let folder = temp_dir();
    let tree = small_tree(folder.path());
    for tool in [&["mkfs.fat", "-F", "12"][..], &["mkfs.fat", "-F", "16"], &["mkfs.fat", "-F", "32", "-s", "1"]] {
        let Some(lab) = Lab::new(tool, 40) else { return };
        let Some(()) = copy_by_mtools(&lab.raw, &tree) else { return };
        damage(&lab, 120);
    }
    let Some(lab) = exfat(&["mkfs.exfat"], 16, &tree) else { return };
    damage(&lab, 120);
}
