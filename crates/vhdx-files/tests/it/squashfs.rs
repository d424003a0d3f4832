//! squashfs, compared with the kernel.

use std::path::Path;

use super::btrfs::fill_compressible;
use super::damage::{Victim, fill_little};
use super::lab::{Can, Facts, Lab, UNIX, compare, fill};

/// Times have whole seconds.
const SQUASHFS: Facts = Facts { time_unit: 1_000_000_000, ..UNIX };

/// Makes an archive of a tree, and compares it with what the kernel shows.
fn agrees(options: &[&str]) {
    let fill_all = |tree: &Path| {
        fill(tree, Can::Unix);
        fill_compressible(tree);
    };
    let Some(lab) = made(options, fill_all) else { return };
    let Some(mount) = lab.mount(",ro") else { return };
    let volume = lab.open().unwrap();
    assert!(volume.about().is_experimental);
    compare(&*volume, &mount.0, SQUASHFS);
}

fn made(options: &[&str], fill: impl FnOnce(&Path)) -> Option<Lab> {
    Lab::of_tree(fill, "mksquashfs", |raw, tree| {
        let options = ["-noappend", "-quiet", "-no-progress"].iter().chain(options).map(Into::into);
        [tree.into(), raw.into()].into_iter().chain(options).collect()
    })
}

#[test]
fn gzip() {
    agrees(&["-comp", "gzip"]);
}

#[test]
fn xz() {
    agrees(&["-comp", "xz"]);
    agrees(&["-comp", "xz", "-Xbcj", "x86"]);
}

#[test]
fn zstd() {
    agrees(&["-comp", "zstd"]);
}

#[test]
fn lz4() {
    agrees(&["-comp", "lz4"]);
    agrees(&["-comp", "lz4", "-Xhc"]);
}

#[test]
fn lzo() {
    agrees(&["-comp", "lzo"]);
}

#[test]
fn not_compressed() {
    agrees(&["-noI", "-noD", "-noF", "-noX"]);
}

#[test]
fn large_and_small_blocks() {
    agrees(&["-b", "1M"]);
    agrees(&["-b", "4096", "-no-fragments"]);
    agrees(&["-b", "4096", "-always-use-fragments", "-no-duplicates"]);
}

/// Without the table that leads from numbers to inodes, nodes are something else, and two names of a file are one node.
#[test]
fn without_numbers_of_inodes() {
    let Some(lab) = made(&["-no-exports"], fill_little) else { return };
    let volume = lab.open().unwrap();
    let find = |name: &[u8]| vhdx_files::lookup(&*volume, name).unwrap();
    assert_eq!(find(b"/small"), find(b"/second name"));
    assert_ne!(find(b"/small"), find(b"/text"));
    let content = volume.open(find(b"/small"), None).unwrap();
    let mut bytes = [0; 9];
    assert_eq!(content.read_at(&mut bytes, 0).unwrap(), 5);
    assert_eq!(&bytes[..5], b"small");
    assert_eq!(volume.metadata(find(b"/small")).unwrap().links, Some(2));
}

#[test]
fn damaged() {
    for options in [&["-noI", "-noD", "-noF", "-noX"][..], &["-comp", "gzip"], &["-comp", "xz"]] {
        let Some(lab) = made(options, fill_little) else { return };
        Victim::new(&lab.raw, |_| true, |_| {}).suffer(300);
    }
}
