//! ext2, ext3 and ext4, compared with the kernel.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::lab::{Can, Facts, Lab, UNIX, compare, damage, fill};

/// Makes a file system, fills it, and compares it with what the kernel shows.
fn agrees(tool: &[&str]) {
    let Some(lab) = Lab::new(tool, 256) else { return };
    let Some(mount) = lab.mount("") else { return };
    fill(&mount.0, Can::Unix);
    // Rights of a user beside those of the owner: kind, rights and number of each entry, after a version.
    let entries: [(u16, u16, u32); 5] = [(1, 6, !0), (2, 4, 1000), (4, 4, !0), (16, 4, !0), (32, 0, !0)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (kind, rights, id) in entries {
        list.extend([kind.to_le_bytes(), rights.to_le_bytes()].concat());
        list.extend(id.to_le_bytes());
    }
    for (name, attribute) in [("of 100", "system.posix_acl_access"), ("many", "system.posix_acl_default")] {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(mount.0.join(name), attribute, &list, flags).unwrap();
    }
    drop(mount);
    let Some(mount) = lab.mount(",ro") else { return };
    compare(&*lab.open().unwrap(), &mount.0, UNIX);
}

#[test]
fn ext4_with_the_defaults_of_its_tool() {
    agrees(&["mke2fs", "-q", "-F", "-t", "ext4"]);
}

#[test]
fn ext4_as_wsl_makes_it() {
    let features = "metadata_csum,metadata_csum_seed,64bit,orphan_file,dir_nlink,extra_isize,flex_bg,huge_file";
    agrees(&["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", features]);
}

#[test]
fn ext4_with_content_in_inodes() {
    agrees(&["mke2fs", "-q", "-F", "-t", "ext4", "-I", "256", "-O", "inline_data"]);
}

#[test]
fn ext4_with_values_in_inodes_large_directories_and_clusters() {
    agrees(&["mke2fs", "-q", "-F", "-t", "ext4", "-O", "ea_inode,large_dir,meta_bg,^resize_inode,mmp"]);
    agrees(&["mke2fs", "-q", "-F", "-t", "ext4", "-O", "bigalloc", "-C", "65536"]);
}

#[test]
fn ext4_with_small_blocks_and_without_checksums() {
    agrees(&["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit"]);
}

#[test]
fn ext3() {
    agrees(&["mke2fs", "-q", "-F", "-t", "ext3"]);
}

#[test]
fn ext2() {
    agrees(&["mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024"]);
}

#[test]
fn damage_of_ext_ends() {
    for tool in [
        &["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-O", "^metadata_csum,inline_data"][..],
        &["mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024"],
    ] {
        let Some(lab) = Lab::new(tool, 8) else { return };
        let Some(mount) = lab.mount("") else { return };
        small(&mount.0);
        drop(mount);
        damage(&lab, 150);
    }
}

/// A small tree, of which each kind of structure is a good part.
fn small(tree: &Path) {
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    for number in 0..40 {
        fs::write(tree.join(format!("a/file {number}")), vec![7; number * 60]).unwrap();
    }
    let sparse = File::create(tree.join("a/b/sparse")).unwrap();
    for at in 0..30 {
        sparse.write_all_at(b"piece", at * 50_000).unwrap();
    }
    std::os::unix::fs::symlink("x".repeat(100), tree.join("a/link")).unwrap();
}

/// Copies of a file system under writes, as they are when the plug is pulled, are read as the kernel reads them after
/// it has replayed the journal.
#[test]
fn dirty_journals_are_replayed_as_the_kernel_does() {
    for (tool, options) in [
        (&["mke2fs", "-q", "-F", "-t", "ext4", "-J", "size=4"][..], ""),
        (&["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-J", "size=4", "-O", "^metadata_csum"], ""),
        (&["mke2fs", "-q", "-F", "-t", "ext4", "-J", "size=8"], ",data=journal"),
        (&["mke2fs", "-q", "-F", "-t", "ext3", "-J", "size=4"], ",data=journal"),
    ] {
        let Some(lab) = Lab::new(tool, 96) else { return };
        let Some(mount) = lab.mount(options) else { return };
        let mut replayed = 0;
        for round in 0..12 {
            change(&mount.0, round);
            // A copy of the bytes as they are on the device now.
            let copy = Lab::copy_of(&lab);
            let Ok(volume) = copy.open() else { panic!("round {round}") };
            replayed += u32::from(volume.about().is_replayed);
            // The kernel replays its own copy.
            let other = Lab::copy_of(&copy);
            let Some(kernel) = other.mount("") else { return };
            compare(&*volume, &kernel.0, Facts { time_unit: 0, ..UNIX });
        }
        drop(mount);
        assert!(replayed > 0, "{tool:?}");
    }
}

/// Changes a tree, and makes sure that some of it is in the journal and not in its place.
fn change(tree: &Path, round: usize) {
    let folder = tree.join(format!("round {round}"));
    fs::create_dir(&folder).unwrap();
    for number in 0..60 {
        fs::write(folder.join(format!("file {number}")), vec![u8::try_from(round).unwrap(); number * 70]).unwrap();
    }
    if round > 0 {
        let before = tree.join(format!("round {}", round - 1));
        for number in (0..60).step_by(2) {
            fs::remove_file(before.join(format!("file {number}"))).unwrap();
        }
        fs::rename(before.join("file 1"), folder.join("moved")).unwrap();
        fs::write(before.join("file 3"), "changed").unwrap();
    }
    for entry in fs::read_dir(&folder).unwrap().step_by(7) {
        File::open(entry.unwrap().path()).unwrap().sync_all().unwrap();
    }
    File::open(&folder).unwrap().sync_all().unwrap();
}

#[test]
fn what_cannot_be_read_right_is_refused_by_name() {
    // The journal is on another device.
    let Some(journal) = Lab::new(&["mke2fs", "-q", "-F", "-O", "journal_dev", "-b", "4096"], 16) else { return };
    let error = journal.open().unwrap_err().to_string();
    assert!(error.contains("ext4 external journal"), "{error}");
    let Some(lab) = Lab::new(&["mke2fs", "-q", "-F", "-t", "ext4", "-O", "encrypt"], 32) else { return };
    let Some(mount) = lab.mount("") else { return };
    fs::write(mount.0.join("plain"), "plain").unwrap();
    drop(mount);
    let volume = lab.open().unwrap();
    let node = vhdx_files::lookup(&*volume, b"plain").unwrap();
    assert_eq!(volume.open(node, None).unwrap().size(), 5);
    // The flag of an encrypted inode, which the checksum of the inode does not let pass unseen.
    drop(volume);
    let set = std::process::Command::new("debugfs")
        .args(["-w", "-R", "set_inode_field plain flags 0x80800"])
        .arg(&lab.raw)
        .output();
    if set.is_ok_and(|set| set.status.success()) {
        let volume = lab.open().unwrap();
        let node = vhdx_files::lookup(&*volume, b"plain").unwrap();
        assert!(volume.metadata(node).unwrap().is_encrypted);
        let error = volume.open(node, None).unwrap_err().to_string();
        assert!(error.contains("not supported") && error.contains("encrypted"), "{error}");
    }
}
