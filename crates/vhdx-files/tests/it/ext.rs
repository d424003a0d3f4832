//! ext2, ext3 and ext4, compared with the kernel.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use vhdx_files::{FileKind, Volume, VolumeWarning, Walk};
use vhdx_testkit::device::output_of;
use vhdx_testkit::optional::rounds;
use vhdx_testkit::support::skip;

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
        let (mut replayed, mut in_journal) = (0, 0);
        for round in 0..rounds(12).max(4) {
            change(&mount.0, round);
            // A copy of the bytes as they are on the device now.
            let copy = Lab::copy_of(&lab);
            let Ok(volume) = copy.open() else { panic!("round {round}") };
            replayed += u32::from(volume.about().is_replayed);
            // The kernel replays its own copy.
            let other = Lab::copy_of(&copy);
            let Some(kernel) = other.mount("") else { return };
            compare(&*volume, &kernel.0, Facts { time_unit: 0, ..UNIX });
            in_journal += compare_places(&copy, &*volume);
        }
        drop(mount);
        let has_content = options.is_empty() || in_journal > 0;
        assert!(has_content, "{tool:?}: no content in the journal");
        assert!(replayed > 0, "{tool:?}");
    }
}

/// Compares contents with what the disk has where they lie, and returns the number of runs that lie in the journal.
fn compare_places(lab: &Lab, volume: &dyn Volume) -> usize {
    let disk = File::open(&lab.raw).unwrap();
    let journal = output_of("debugfs", &["-R".as_ref(), "blocks <8>".as_ref(), lab.raw.as_ref()]).unwrap_or_default();
    let journal: HashSet<u64> = journal.split_whitespace().map(|block| block.parse().unwrap()).collect();
    let mut in_journal = 0;
    for found in Walk::new(volume, volume.root()).map(Result::unwrap) {
        if found.metadata.kind != FileKind::File {
            continue;
        }
        let content = volume.open(found.node, None).unwrap();
        let Some((_, runs)) = content.runs() else { continue };
        for run in runs {
            let mut bytes = vec![0; usize::try_from(run.length).unwrap()];
            content.read_at(&mut bytes, run.start).unwrap();
            let Some(at) = run.at else { continue };
            let mut stored = vec![0; bytes.len()];
            disk.read_exact_at(&mut stored, at).unwrap();
            assert!(bytes == stored, "{run:?}");
            in_journal += usize::from(journal.contains(&(at / u64::from(volume.about().block_size))));
        }
    }
    in_journal
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
    let set = Command::new("debugfs").args(["-w", "-R", "set_inode_field plain flags 0x80800"]).arg(&lab.raw).output();
    if set.is_ok_and(|set| set.status.success()) {
        let volume = lab.open().unwrap();
        let node = vhdx_files::lookup(&*volume, b"plain").unwrap();
        assert!(volume.metadata(node).unwrap().is_encrypted);
        let error = volume.open(node, None).unwrap_err().to_string();
        assert!(error.contains("not supported") && error.contains("encrypted"), "{error}");
    }
}

/// Runs commands of the debugger of ext, which can write. Returns whether all of them are known to it.
fn debugged(lab: &Lab, commands: &[&str]) -> bool {
    let script = lab.folder.path().join("script");
    fs::write(&script, commands.join("\n") + "\n").unwrap();
    let done = Command::new("debugfs").args(["-w", "-f"]).args([&script, &lab.raw]).output();
    let is_done = done.is_ok_and(|done| done.status.success());
    if !is_done {
        skip("mkfs", "debugfs is not there, or cannot do this");
    }
    is_done
}

/// Zeros without end would keep a reader busy for years.
#[test]
fn a_file_that_is_longer_than_any_can_be_is_damaged() {
    for kind in ["ext2", "ext4"] {
        let Some(lab) = Lab::new(&["mke2fs", "-q", "-F", "-t", kind, "-O", "^metadata_csum"], 32) else { return };
        let Some(mount) = lab.mount("") else { return };
        fs::write(mount.0.join("long"), "long").unwrap();
        drop(mount);
        if !debugged(&lab, &["set_inode_field long size 42502721483309068"]) {
            return;
        }
        let volume = lab.open().unwrap();
        let node = vhdx_files::lookup(&*volume, b"long").unwrap();
        let error = volume.open(node, None).unwrap_err().to_string();
        assert!(error.contains("longer than any can be"), "{kind}: {error}");
    }
}

#[test]
fn a_journal_that_is_ignored_leaves_the_volume_as_it_is_on_the_disk() {
    let Some(lab) = Lab::new(&["mke2fs", "-q", "-F", "-t", "ext4", "-J", "size=16"], 96) else { return };
    let Some(mount) = lab.mount(",commit=300") else { return };
    change(&mount.0, 0);
    rustix::fs::syncfs(File::open(&mount.0).unwrap()).unwrap();
    drop(mount);
    let Some(mount) = lab.mount(",commit=300") else { return };
    let new = File::create(mount.0.join("new")).unwrap();
    new.write_all_at(b"in the journal", 0).unwrap();
    new.sync_all().unwrap();
    let copy = Lab::copy_of(&lab);
    drop((new, mount));
    let replayed = copy.open().unwrap();
    assert!(replayed.about().is_replayed && replayed.about().warnings.is_empty());
    vhdx_files::lookup(&*replayed, b"new").unwrap();
    let volume = copy.open_without_journal().unwrap();
    assert!(!volume.about().is_replayed);
    assert_eq!(volume.about().warnings, [VolumeWarning::JournalIgnored]);
    assert!(vhdx_files::lookup(&*volume, b"new").is_err());
    let Some(kernel) = copy.mount(",ro,noload") else { return };
    compare(&*volume, &kernel.0, UNIX);
    drop(kernel);
    // Of a volume that was unmounted, there is nothing to warn of.
    let volume = lab.open_without_journal().unwrap();
    assert_eq!(volume.about().warnings, []);
    vhdx_files::lookup(&*volume, b"new").unwrap();
    // A superblock with a wrong checksum is not believed for that.
    let mut raw = fs::read(&copy.raw).unwrap();
    raw[1024 + 0x3fc] ^= 1;
    fs::write(&copy.raw, raw).unwrap();
    for error in [copy.open().unwrap_err(), copy.open_without_journal().unwrap_err()] {
        assert!(error.to_string().contains("superblock"), "{error}");
    }
}

#[test]
fn a_journal_that_cannot_be_read_is_refused_and_can_be_ignored() {
    let Some(lab) = Lab::new(&["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^metadata_csum"], 64) else {
        return;
    };
    let file = lab.folder.path().join("file");
    fs::write(&file, b"content").unwrap();
    let write = format!("write {} file", file.display());
    let changed = lab.folder.path().join("block");
    fs::write(&changed, [1; 4096]).unwrap();
    let block = format!("jw -b 5000 {}", changed.display());
    if !debugged(&lab, &[&write, "jo", &block, "jc"]) {
        return;
    }
    assert!(lab.open().unwrap().about().is_replayed);
    // The superblock of the journal.
    let mut raw = fs::read(&lab.raw).unwrap();
    let journal = (0..raw.len()).step_by(4096).find(|at| raw[*at..].starts_with(&[0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4]));
    raw[journal.unwrap()] ^= 1;
    fs::write(&lab.raw, raw).unwrap();
    lab.open().unwrap_err();
    let volume = lab.open_without_journal().unwrap();
    assert_eq!(volume.about().warnings, [VolumeWarning::JournalIgnored]);
    let content = volume.open(vhdx_files::lookup(&*volume, b"file").unwrap(), None).unwrap();
    let mut bytes = [0; 10];
    assert_eq!(content.read_at(&mut bytes, 0).unwrap(), 7);
    assert_eq!(&bytes[..7], b"content");
}

#[test]
fn states_of_a_volume_are_warnings() {
    let Some(lab) = Lab::new(&["mke2fs", "-q", "-F", "-t", "ext2"], 16) else { return };
    assert_eq!(lab.open().unwrap().about().warnings, []);
    let warnings = |state: &str| {
        let set = format!("ssv state {state}");
        debugged(&lab, &[&set]).then(|| lab.open().unwrap().about().warnings.clone())
    };
    let Some(found) = warnings("0") else { return };
    assert_eq!(found, [VolumeWarning::NotUnmounted]);
    assert_eq!(warnings("3"), Some(vec![VolumeWarning::HasErrors]));
    assert_eq!(warnings("2"), Some(vec![VolumeWarning::NotUnmounted, VolumeWarning::HasErrors]));
    assert_eq!(warnings("1"), Some(Vec::new()));
}

#[test]
fn ext4_with_other_features() {
    // Groups whose tables were never written, and quotas.
    agrees(&["mke2fs", "-q", "-F", "-t", "ext4", "-O", "uninit_bg,^metadata_csum,^64bit"]);
    agrees(&["mke2fs", "-q", "-F", "-t", "ext4", "-O", "sparse_super2,^resize_inode", "-E", "num_backup_sb=1"]);
    agrees(&["mke2fs", "-q", "-F", "-t", "ext4", "-O", "bigalloc,^has_journal", "-b", "1024", "-C", "16384"]);
    agrees(&["mke2fs", "-q", "-F", "-t", "ext4", "-I", "1024", "-O", "inline_data,orphan_file", "-b", "2048"]);
}

/// Quotas of users, groups and projects, of which few kernels that tests run on have all.
#[test]
fn ext4_with_quotas() {
    let fill = |tree: &Path| {
        fs::create_dir(tree.join("folder")).unwrap();
        fs::write(tree.join("folder/file"), b"content").unwrap();
    };
    let made = Lab::of_tree(fill, "mke2fs", |raw, tree| {
        File::create(raw).unwrap().set_len(64 << 20).unwrap();
        let options = ["-q", "-F", "-t", "ext4", "-O", "quota,project", "-E"].map(Into::into);
        let rest = ["quotatype=usrquota:grpquota:prjquota".into(), "-d".into(), tree.into(), raw.into()];
        options.into_iter().chain(rest).collect()
    });
    let Some(lab) = made else { return };
    let volume = lab.open().unwrap();
    let mut names: Vec<Vec<u8>> = volume.entries(volume.root()).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    assert_eq!(names, [b"folder".as_slice(), b"lost+found"]);
    let content = volume.open(vhdx_files::lookup(&*volume, b"folder/file").unwrap(), None).unwrap();
    assert_eq!(content.size(), 7);
}

/// A UUID that was changed in use, so that checksums begin with another one.
#[test]
fn ext4_with_a_changed_uuid() {
    let features = "metadata_csum,metadata_csum_seed,orphan_file,64bit";
    let Some(lab) = Lab::new(&["mke2fs", "-q", "-F", "-t", "ext4", "-O", features], 128) else { return };
    let Some(mount) = lab.mount("") else { return };
    fill(&mount.0, Can::Unix);
    drop(mount);
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    let args = ["-f", "-U", uuid].map(AsRef::as_ref);
    let changed = output_of("tune2fs", &args.into_iter().chain([lab.raw.as_ref()]).collect::<Vec<_>>());
    if changed.is_none() {
        skip("mkfs", "tune2fs is not there");
        return;
    }
    let Some(mount) = lab.mount(",ro") else { return };
    let volume = lab.open().unwrap();
    assert_eq!(volume.about().uuid, uuid);
    compare(&*volume, &mount.0, UNIX);
}

/// Files that were deleted while in use are in a file of their own, or in a list, and no name leads to them.
#[test]
fn ext4_with_files_that_were_deleted_in_use() {
    for features in ["orphan_file", "^orphan_file"] {
        let Some(lab) = Lab::new(&["mke2fs", "-q", "-F", "-t", "ext4", "-O", features], 64) else { return };
        let Some(mount) = lab.mount("") else { return };
        change(&mount.0, 0);
        let files: Vec<File> = (0..20)
            .map(|number| {
                let path = mount.0.join(format!("deleted {number}"));
                fs::write(&path, vec![7; 9000]).unwrap();
                let file = File::open(&path).unwrap();
                fs::remove_file(path).unwrap();
                file
            })
            .collect();
        rustix::fs::syncfs(File::open(&mount.0).unwrap()).unwrap();
        let copy = Lab::copy_of(&lab);
        drop((files, mount));
        let kernel = Lab::copy_of(&copy);
        let Some(kernel) = kernel.mount("") else { return };
        compare(&*copy.open().unwrap(), &kernel.0, Facts { time_unit: 0, ..UNIX });
    }
}

#[test]
fn ext4_without_regard_to_case() {
    let Some(lab) = Lab::new(&["mke2fs", "-q", "-F", "-t", "ext4", "-O", "casefold", "-E", "encoding=utf8"], 64) else {
        return;
    };
    // The flag of a directory of such names, without a kernel that has them.
    let commands = ["mkdir folder", "sif folder flags 0x40080000", "cd folder", "write /dev/null Name"];
    if !debugged(&lab, &commands) {
        return;
    }
    let volume = lab.open().unwrap();
    let folder = vhdx_files::lookup(&*volume, b"folder").unwrap();
    let names: Vec<Vec<u8>> = volume.entries(folder).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, [b"Name"]);
    assert!(volume.find(folder, b"Name").unwrap().is_some());
}

/// So many names that the index of a directory has three levels.
#[test]
fn ext4_with_an_index_of_three_levels() {
    let tool = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-N", "1000", "-O", "large_dir,^has_journal"];
    let Some(lab) = Lab::new(&tool, 96) else { return };
    let Some(mount) = lab.mount("") else { return };
    let many = mount.0.join("many");
    fs::create_dir(&many).unwrap();
    fs::write(mount.0.join("file 0"), b"content").unwrap();
    let mut file = mount.0.join("file 0");
    for number in 0..90_000_u32 {
        // A file can have 65,000 names.
        if number == 60_000 {
            file = mount.0.join("file 1");
            fs::write(&file, b"content").unwrap();
        }
        fs::hard_link(&file, many.join(format!("{}{number:06}", "n".repeat(200)))).unwrap();
    }
    let depth = output_of("debugfs", &["-R".as_ref(), "htree_dump many".as_ref(), lab.raw.as_ref()]);
    drop(mount);
    let shown = depth.unwrap_or_default();
    if let Some(levels) = shown.lines().find_map(|line| line.trim().strip_prefix("Indirect levels: ")) {
        assert_eq!(levels, "2");
    }
    let volume = lab.open().unwrap();
    let many = vhdx_files::lookup(&*volume, b"many").unwrap();
    let mut names: Vec<Vec<u8>> = volume.entries(many).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    let expected = (0..90_000).map(|number| format!("{}{number:06}", "n".repeat(200)).into_bytes());
    assert!(names.into_iter().eq(expected));
}

#[test]
fn ext4_with_blocks_of_64_kib() {
    // Linux reads such blocks on few machines.
    let Some(lab) = Lab::new(&["mke2fs", "-q", "-F", "-F", "-t", "ext4", "-b", "65536"], 128) else { return };
    let file = lab.folder.path().join("file");
    let content: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    fs::write(&file, &content).unwrap();
    let write = format!("write {} file", file.display());
    if !debugged(&lab, &[&write, "mkdir folder", "symlink link file"]) {
        return;
    }
    let volume = lab.open().unwrap();
    let opened = volume.open(vhdx_files::lookup(&*volume, b"file").unwrap(), None).unwrap();
    let mut bytes = vec![0; 300_000];
    assert_eq!(opened.read_at(&mut bytes, 0).unwrap(), content.len());
    assert!(bytes.starts_with(&content));
    assert_eq!(volume.entries(volume.root()).unwrap().len(), 4);
}

/// Files that are protected by a tree of digests read as others do: Linux keeps the tree behind their end.
#[test]
fn ext4_with_verity() {
    let Some(lab) = Lab::new(&["mke2fs", "-q", "-F", "-t", "ext4", "-O", "verity"], 64) else { return };
    let file = lab.folder.path().join("file");
    fs::write(&file, vec![5; 10_000]).unwrap();
    let write = format!("write {} file", file.display());
    // The flags of an inode: extents, and verity.
    if !debugged(&lab, &[&write, "sif file flags 0x180000"]) {
        return;
    }
    let volume = lab.open().unwrap();
    let opened = volume.open(vhdx_files::lookup(&*volume, b"file").unwrap(), None).unwrap();
    let mut bytes = vec![0; 20_000];
    assert_eq!(opened.read_at(&mut bytes, 0).unwrap(), 10_000);
    assert!(bytes[..10_000].iter().all(|byte| *byte == 5));
}
