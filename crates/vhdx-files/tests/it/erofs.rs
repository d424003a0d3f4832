//! EROFS, compared with the kernel.

use std::path::Path;

use super::btrfs::fill_compressible;
use super::damage::{Victim, fill_little};
use super::lab::{Can, Lab, UNIX, compare, fill};

/// Makes a file system of a tree, and compares it with what the kernel shows.
fn agrees(options: &[&str]) {
    let fill_all = |tree: &Path| {
        fill(tree, Can::Unix);
        // Version 1.5 of the tool has no room for names of 255 bytes.
        let name = |length| tree.join(format!("{}.long", "n".repeat(length)));
        std::fs::rename(name(250), name(240)).unwrap();
        fill_compressible(tree);
    };
    let Some(lab) = made(options, fill_all) else { return };
    let Some(mount) = lab.mount(",ro") else { return };
    let volume = lab.open().unwrap();
    assert!(volume.about().is_experimental);
    compare(&*volume, &mount.0, UNIX);
}

fn made(options: &[&str], fill: impl FnOnce(&Path)) -> Option<Lab> {
    let fill = |tree: &std::path::Path| {
        fill(tree);
        // Older versions of the tool give up at names of 255 bytes.
        let long = format!("{}.long", "n".repeat(250));
        if tree.join(&long).exists() {
            std::fs::rename(tree.join(long), tree.join("n".repeat(200))).unwrap();
        }
    };
    Lab::of_tree(fill, "mkfs.erofs", |raw, tree| {
        let options = options.iter().map(Into::into);
        options.chain([raw.into(), tree.into()]).collect()
    })
}

#[test]
fn plain() {
    agrees(&[]);
}

#[test]
fn label_and_uuid() {
    let options = ["-L", "a label", "-U", "01234567-89ab-cdef-0123-456789abcdef"];
    let Some(lab) = made(&options, fill_little) else { return };
    let volume = lab.open().unwrap();
    assert_eq!(volume.about().label, "a label");
    assert_eq!(volume.about().uuid, "01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!(volume.about().size, std::fs::metadata(&lab.raw).unwrap().len());
}

#[test]
fn all_inodes_long_and_all_short() {
    agrees(&["-Eforce-inode-extended"]);
    agrees(&["-T1000000000"]);
}

#[test]
fn content_beside_inodes_and_apart() {
    agrees(&["-Enoinline_data"]);
    agrees(&["-x1"]);
}

#[test]
fn chunks() {
    agrees(&["--chunksize=16384"]);
    agrees(&["--chunksize=4096", "-Eforce-chunk-indexes"]);
}

#[test]
fn compressed_with_lz4() {
    agrees(&["-zlz4"]);
    agrees(&["-zlz4hc", "-C65536"]);
    agrees(&["-zlz4hc,12", "-Elegacy-compress"]);
}

#[test]
fn compressed_with_others() {
    agrees(&["-zlzma"]);
    agrees(&["-zdeflate"]);
    agrees(&["-zzstd"]);
}

#[test]
fn ends_of_files_stored_together() {
    agrees(&["-zlz4", "-Eztailpacking"]);
    agrees(&["-zlz4hc", "-Efragments"]);
    agrees(&["-zlz4hc", "-Eall-fragments"]);
    agrees(&["-zlz4hc", "-Eall-fragments,dedupe", "-C16384"]);
}

#[test]
fn small_blocks() {
    agrees(&["-b512"]);
}

#[test]
fn damaged() {
    for options in [&["-zlz4hc"][..], &["--chunksize=4096"], &["-Eforce-inode-extended"]] {
        let Some(lab) = made(options, fill_little) else { return };
        // The superblock has a checksum, and with it all of the damage would be found at once.
        let repair = |page: &mut [u8]| {
            if page.len() == 4096 && page[1024..1028] == *b"\xe2\xe1\xf5\xe0" {
                page[1028..1032].fill(0);
                let sum = crc32c::crc32c(&page[1024..]) ^ u32::MAX;
                page[1028..1032].copy_from_slice(&sum.to_le_bytes());
            }
        };
        Victim::new(&lab.raw, |_| true, repair).suffer(300);
    }
}
