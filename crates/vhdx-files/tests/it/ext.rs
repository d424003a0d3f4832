//! ext2, ext3 and ext4, compared with the kernel.

use super::lab::{Can, Lab, UNIX, compare, fill};

/// Makes a file system, fills it, and compares it with what the kernel shows.
fn agrees(tool: &[&str]) {
    let Some(lab) = Lab::new(tool, 256) else { return };
    let Some(mount) = lab.mount("") else { return };
    fill(&mount.0, Can::Unix);
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
