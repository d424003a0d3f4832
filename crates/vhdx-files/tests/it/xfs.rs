//! XFS, compared with the kernel.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use vhdx_files::{Error, FileKind, VolumeWarning};
use vhdx_testkit::device::output_of;
use vhdx_testkit::lab::Rng;
use vhdx_testkit::optional::rounds;
use vhdx_testkit::support::skip;

use super::damage::{Victim, fill_little};
use super::lab::{Can, Facts, Lab, UNIX, compare, fill};

/// Smallest size that the tool makes, in MiB.
const SIZE: u64 = 300;

fn made(options: &[&str]) -> Option<Lab> {
    Lab::new(&[&["mkfs.xfs", "-q"], options].concat(), SIZE)
}

/// Makes a file system, fills it, and compares it with what the kernel shows.
fn agrees(options: &[&str]) {
    let Some(lab) = made(options) else { return };
    let Some(mount) = lab.mount("") else { return };
    fill(&mount.0, Can::Unix);
    fill_attributes(&mount.0);
    drop(mount);
    let Some(mount) = lab.mount(",ro") else { return };
    let volume = lab.open().unwrap();
    assert!(!volume.about().is_replayed);
    compare(&*volume, &mount.0, UNIX);
    drop(mount);
    compare_free(&lab, volume.about().size, volume.about().used.unwrap());
}

/// Compares sizes with those that the debugger of XFS prints.
fn compare_free(lab: &Lab, size: u64, used: u64) {
    let args = ["-r", "-c", "sb 0", "-c", "print blocksize dblocks fdblocks"].map(AsRef::as_ref);
    let Some(shown) = output_of("xfs_db", &args.into_iter().chain([lab.raw.as_ref()]).collect::<Vec<_>>()) else {
        skip("xfs_db", "xfs_db is not there");
        return;
    };
    let number = |name: &str| -> u64 {
        shown.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim_start_matches(" = ").parse().unwrap()
    };
    assert_eq!(size, number("dblocks") * number("blocksize"));
    assert_eq!(used, size - number("fdblocks") * number("blocksize"));
}

/// Attributes of every size and number, and lists of access rights.
fn fill_attributes(tree: &Path) {
    let mut rng = Rng::new(37);
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    let large = tree.join("with large attributes");
    fs::write(&large, b"content").unwrap();
    set(&large, "user.60000", &rng.bytes(60_000));
    set(&large, "trusted.5000", &rng.bytes(5000));
    set(&large, "security.text", b"text");
    let many = tree.join("with many attributes");
    fs::write(&many, b"content").unwrap();
    for number in 0..600 {
        let length = usize::try_from(rng.below(200)).unwrap();
        set(&many, &format!("user.an attribute {number}"), &rng.bytes(length));
    }
    // Version 2; owner, user 1001, group, mask, others.
    let list: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, 1001), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)];
    let mut rights = 2_u32.to_le_bytes().to_vec();
    for (tag, rights_of_tag, id) in list {
        rights.extend(tag.to_le_bytes());
        rights.extend(rights_of_tag.to_le_bytes());
        rights.extend(id.to_le_bytes());
    }
    set(&large, "system.posix_acl_access", &rights);
    set(&tree.join("few"), "system.posix_acl_default", &rights);
}

#[test]
fn with_the_defaults_of_its_tool() {
    agrees(&[]);
}

#[test]
fn small_blocks() {
    agrees(&["-b", "size=1024"]);
}

#[test]
fn large_blocks_of_directories() {
    agrees(&["-n", "size=8192"]);
    agrees(&["-b", "size=1024", "-n", "size=16384"]);
    agrees(&["-n", "size=65536"]);
}

#[test]
fn inodes_of_all_sizes() {
    agrees(&["-i", "size=1024"]);
    agrees(&["-i", "size=2048,sparse=0"]);
}

#[test]
fn features_on_and_off() {
    agrees(&["-m", "bigtime=0,rmapbt=1,reflink=1"]);
    agrees(&["-m", "bigtime=1,inobtcount=1", "-i", "nrext64=1"]);
    agrees(&["-m", "reflink=0", "-i", "nrext64=0"]);
    agrees(&["-i", "exchange=1", "-n", "parent=1"]);
}

/// Takes all space that is left.
fn fill_up(file: &File) {
    let (mut at, mut length) = (0, 250 << 20);
    while length >= 1024 {
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), at, length) {
            Ok(()) => at += length,
            Err(_) => length /= 4,
        }
    }
}

/// Directories whose blocks lie in pieces, since there was no room for them in one.
#[test]
fn directories_in_pieces() {
    for options in [["-b", "size=1024", "-n", "size=16384"], ["-b", "size=1024", "-n", "size=8192"]] {
        let Some(lab) = made(&options) else { return };
        let Some(mount) = lab.mount("") else { return };
        // All space is taken, and then every second block is free again, and no two blocks side by side.
        let filler = mount.0.join("filler");
        let file = File::create(&filler).unwrap();
        let many = mount.0.join("many");
        fs::create_dir(&many).unwrap();
        fill_up(&file);
        for block in (0..4000).map(|number| number * 2) {
            let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, flags, block * 1024, 1024).unwrap();
        }
        for number in 0..3000 {
            if fs::hard_link(&filler, many.join(format!("a rather long name with a number {number:06}"))).is_err() {
                break;
            }
        }
        drop((file, mount));
        let Some(mount) = lab.mount(",ro") else { return };
        compare(&*lab.open().unwrap(), &mount.0, UNIX);
        assert!(fs::read_dir(mount.0.join("many")).unwrap().count() > 500);
    }
}

#[test]
fn label_and_uuid() {
    let Some(lab) = made(&["-L", "a label", "-m", "uuid=01234567-89ab-cdef-0123-456789abcdef"]) else { return };
    let volume = lab.open().unwrap();
    assert_eq!(volume.about().label, "a label");
    assert_eq!(volume.about().uuid, "01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!(volume.about().size, SIZE << 20);
}

/// Changes files at random, and returns whether the last ones were made to last.
fn work(tree: &Path, rng: &mut Rng, steps: u64) {
    let mut names: Vec<PathBuf> = Vec::new();
    let mut folders = vec![tree.to_owned()];
    for step in 0..steps {
        let folder = rng.pick(&folders);
        let path = folder.join(format!("{} {step}", "a name ".repeat(usize::try_from(rng.below(20)).unwrap())));
        let length = usize::try_from(rng.below(30_000)).unwrap();
        let known = if names.is_empty() { path.clone() } else { rng.pick(&names) };
        // Some of these fail, since what they work on was removed before.
        match rng.below(16) {
            0..=3 => {
                fs::write(&path, rng.bytes(length)).unwrap();
                names.push(path);
            }
            4 => {
                fs::create_dir(&path).unwrap();
                folders.push(path);
            }
            5 => drop(fs::remove_file(known)),
            6 => drop(fs::rename(known, path)),
            7 => drop(fs::hard_link(known, path)),
            8 => symlink("target/".repeat(1 + length / 300), path).unwrap(),
            9 => {
                let name = format!("user.{}", rng.below(40));
                // Larger ones have blocks of their own, which no log holds.
                let length = if rng.one_in(2) { length } else { length % 500 };
                let value = rng.bytes(length);
                let _ = rustix::fs::setxattr(&known, name, &value, rustix::fs::XattrFlags::empty());
            }
            10 => {
                let flags = rustix::fs::FileType::CharacterDevice;
                let device = rustix::fs::makedev(7, u32::try_from(step).unwrap());
                let cwd = rustix::fs::CWD;
                rustix::fs::mknodat(cwd, &path, flags, rustix::fs::Mode::from_raw_mode(0o600), device).unwrap();
                names.push(path);
            }
            11 => {
                if fs::symlink_metadata(&known).is_ok_and(|metadata| metadata.is_file()) {
                    let file = File::options().write(true).open(&known).unwrap();
                    file.set_len(rng.below(60_000)).unwrap();
                    file.write_all_at(&rng.bytes(5000), rng.below(200_000)).unwrap();
                }
            }
            12 => {
                // Two files that grow in turn need trees of extents.
                let files =
                    [path.with_extension("a"), path.with_extension("b")].map(|path| File::create(path).unwrap());
                for piece in 0..rng.below(80) {
                    for file in &files {
                        file.write_all_at(&rng.bytes(4096), piece * 8192).unwrap();
                        file.sync_data().unwrap();
                    }
                }
            }
            13 => {
                if let Ok(file) = File::open(&known) {
                    let _ = file.sync_all();
                }
            }
            14 => {
                // Many names at once, and as many gone again.
                let folder = path.with_extension("many");
                fs::create_dir(&folder).unwrap();
                for number in 0..rng.below(300) {
                    fs::write(folder.join(format!("one of many {number}")), b"").unwrap();
                }
                if rng.one_in(2) {
                    fs::remove_dir_all(&folder).unwrap();
                }
            }
            _ => rustix::fs::syncfs(File::open(tree).unwrap()).unwrap(),
        }
    }
    // All of the log that there is by now, and nothing of what is in memory alone.
    let last = File::create(tree.join("last")).unwrap();
    last.write_all_at(b"last", 0).unwrap();
    last.sync_all().unwrap();
}

/// Leaves a log that has to be replayed, as after the loss of power, and compares our replay with that of the kernel.
/// Returns whether there was something to compare, which a log that was refused by name is not.
fn pulls_the_plug(options: &[&str], seed: u64) -> Option<bool> {
    let lab = made(options)?;
    let mut rng = Rng::new(seed);
    let mount = lab.mount("")?;
    let steps = 50 + rng.below(400);
    work(&mount.0, &mut rng, steps);
    let shutdown = if rng.one_in(2) { "shutdown" } else { "shutdown -f" };
    let shut = output_of("xfs_io", &["-x".as_ref(), "-c".as_ref(), shutdown.as_ref(), mount.0.as_ref()]);
    if shut.is_none() {
        skip("xfs_io", "xfs_io is not there");
        return None;
    }
    drop(mount);
    let volume = match lab.open() {
        Ok(volume) => volume,
        Err(Error::FileSystem { reason, .. }) if reason.contains("was not replayed") => {
            skip("replay", &format!("{options:?} {seed}: {reason}"));
            return Some(false);
        }
        Err(error) => panic!("{options:?} {seed}: {error}"),
    };
    assert!(volume.about().is_replayed, "{options:?} {seed}");
    // The kernel replays the log in its own way, and writes what comes out.
    let mount = lab.mount("")?;
    compare(&*volume, &mount.0, UNIX);
    Some(true)
}

#[test]
fn dirty_logs_are_replayed_as_by_the_kernel() {
    let kinds: [&[&str]; 4] = [
        &[],
        &["-m", "rmapbt=1", "-b", "size=1024"],
        &["-n", "size=8192", "-i", "size=1024"],
        &["-m", "bigtime=0,reflink=0"],
    ];
    let mut replayed = 0;
    let count = rounds(12).max(kinds.len());
    for seed in 0..count {
        match pulls_the_plug(kinds[seed % kinds.len()], u64::try_from(seed).unwrap()) {
            Some(true) => replayed += 1,
            Some(false) => {}
            None => return,
        }
    }
    assert!(replayed >= count - count / 4, "{replayed} of {count}");
}

/// A device that the log alone knows.
#[test]
fn device_numbers_of_a_dirty_log() {
    let Some(lab) = made(&[]) else { return };
    let Some(mount) = lab.mount("") else { return };
    let path = mount.0.join("device");
    let (kind, mode) = (rustix::fs::FileType::BlockDevice, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, rustix::fs::makedev(259, 70_000)).unwrap();
    let args = ["-x", "-c", "shutdown -f"].map(AsRef::as_ref);
    if output_of("xfs_io", &args.into_iter().chain([mount.0.as_ref()]).collect::<Vec<_>>()).is_none() {
        skip("xfs_io", "xfs_io is not there");
        return;
    }
    drop(mount);
    let volume = lab.open().unwrap();
    let metadata = volume.metadata(vhdx_files::lookup(&*volume, b"/device").unwrap()).unwrap();
    assert_eq!(metadata.kind, FileKind::BlockDevice);
    assert_eq!(metadata.device, Some((259, 70_000)));
}

/// A log of which the last record did not reach the disk in full.
#[test]
fn torn_log() {
    let Some(lab) = made(&[]) else { return };
    let Some(mount) = lab.mount("") else { return };
    work(&mount.0, &mut Rng::new(5), 100);
    let args = ["-x", "-c", "shutdown -f"].map(AsRef::as_ref);
    if output_of("xfs_io", &args.into_iter().chain([mount.0.as_ref()]).collect::<Vec<_>>()).is_none() {
        skip("xfs_io", "xfs_io is not there");
        return;
    }
    drop(mount);
    let mut raw = fs::read(&lab.raw).unwrap();
    let is_record = |at: &usize| raw[*at..].starts_with(&[0xfe, 0xed, 0xba, 0xbe]);
    let last = (0..raw.len()).step_by(512).filter(is_record).max_by_key(|at| raw[at + 16..at + 24].to_vec()).unwrap();
    raw[last + 512 + 100] ^= 1;
    fs::write(&lab.raw, raw).unwrap();
    let error = lab.open().unwrap_err();
    assert!(error.to_string().contains("log"), "{error}");
}

/// Fills a file system of version 4 from a tree, without a mount, since Linux has given this version up. Names must
/// have no spaces.
fn made_from(options: &[&str], fill: impl FnOnce(&Path)) -> Option<Lab> {
    fn list(tree: &Path, out: &mut String) {
        for entry in fs::read_dir(tree).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                writeln!(out, "{name} d--755 0 0").unwrap();
                list(&path, out);
                writeln!(out, "$").unwrap();
            } else if kind.is_symlink() {
                writeln!(out, "{name} l--777 0 0 {}", fs::read_link(&path).unwrap().display()).unwrap();
            } else {
                writeln!(out, "{name} ---644 0 0 {}", path.display()).unwrap();
            }
        }
    }
    Lab::of_tree(fill, "mkfs.xfs", |raw, tree| {
        let mut content = String::from("/dev/null\n0 0\nd--755 0 0\n");
        list(tree, &mut content);
        content.push_str("$\n$\n");
        let prototype = raw.with_extension("prototype");
        fs::write(&prototype, content).unwrap();
        File::create(raw).unwrap().set_len(SIZE << 20).unwrap();
        let options = ["-q", "-f"].iter().chain(options).map(Into::into);
        options.chain(["-p".into(), prototype.into(), raw.into()]).collect()
    })
}

/// Names and content of every form that the formatter makes.
fn fill_plain(tree: &Path) {
    let mut rng = Rng::new(41);
    for (folder, count) in [("few", 5), ("some", 60), ("many", 700), ("most", 4000)] {
        let folder = tree.join(folder);
        fs::create_dir(&folder).unwrap();
        for number in 0..count {
            fs::write(folder.join(format!("a_file_with_a_number_{number:06}")), format!("{number}")).unwrap();
        }
    }
    for size in [0, 1, 511, 4096, 4097, 1_000_000] {
        fs::write(tree.join(format!("of_{size}")), rng.bytes(size)).unwrap();
    }
    symlink("of_1", tree.join("link")).unwrap();
    symlink("x/".repeat(300), tree.join("long_link")).unwrap();
}

#[test]
fn a_log_that_is_ignored_leaves_the_volume_as_it_is_on_the_disk() {
    let Some(lab) = made(&[]) else { return };
    let Some(mount) = lab.mount("") else { return };
    fill_plain(&mount.0);
    // It is deleted while in use, which a list says in the header of a group.
    let path = mount.0.join("deleted");
    fs::write(&path, b"content").unwrap();
    let deleted = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    // All that is in the log is written to its places.
    if output_of("fsfreeze", &["-f".as_ref(), mount.0.as_ref()]).is_none() {
        skip("fsfreeze", "fsfreeze is not there");
        return;
    }
    let frozen = Lab::copy_of(&lab);
    output_of("fsfreeze", &["-u".as_ref(), mount.0.as_ref()]).unwrap();
    let new = File::create(mount.0.join("new")).unwrap();
    new.sync_all().unwrap();
    let copy = Lab::copy_of(&lab);
    drop((deleted, new, mount));
    let volume = copy.open().unwrap();
    assert!(volume.about().is_replayed && volume.about().warnings.is_empty());
    vhdx_files::lookup(&*volume, b"/new").unwrap();
    for lab in [&copy, &frozen] {
        let volume = lab.open_without_journal().unwrap();
        assert!(!volume.about().is_replayed);
        assert_eq!(volume.about().warnings, [VolumeWarning::JournalIgnored]);
        assert!(vhdx_files::lookup(&*volume, b"/new").is_err());
        let Some(mount) = lab.mount(",ro,norecovery") else { return };
        compare(&*volume, &mount.0, UNIX);
    }
    let volume = lab.open_without_journal().unwrap();
    assert_eq!(volume.about().warnings, []);
    vhdx_files::lookup(&*volume, b"/new").unwrap();
}

#[test]
fn a_volume_that_needs_repair_is_refused() {
    let Some(lab) = made(&[]) else { return };
    let mut raw = fs::read(&lab.raw).unwrap();
    // The feature, in the superblock.
    raw[219] |= 0x10;
    repair(&mut raw[..4096]);
    fs::write(&lab.raw, raw).unwrap();
    let error = lab.open().unwrap_err();
    assert!(matches!(&error, Error::FileSystem { is_unsupported: true, .. }), "{error:?}");
    assert!(error.to_string().contains("xfs_repair"), "{error}");
}

#[test]
fn version_4() {
    let options: [&[&str]; 3] = [
        &["-m", "crc=0,finobt=0"],
        &["-m", "crc=0,finobt=0", "-b", "size=512", "-n", "ftype=0", "-i", "size=256"],
        &["-m", "crc=0,finobt=0", "-b", "size=1024", "-n", "size=8192"],
    ];
    for options in options {
        let Some(lab) = made_from(options, fill_plain) else { return };
        let volume = lab.open().unwrap();
        compare(
            &*volume,
            &lab.folder.path().join("tree"),
            Facts { is_unix: false, time_unit: 0, has_attributes: false },
        );
        compare_free(&lab, volume.about().size, volume.about().used.unwrap());
        let links = volume.metadata(volume.root()).unwrap().links;
        assert_eq!(links, Some(6));
    }
}

#[test]
fn damaged() {
    let Some(lab) = made(&[]) else { return };
    let Some(mount) = lab.mount("") else { return };
    fill_little(&mount.0);
    drop(mount);
    Victim::new(&lab.raw, is_structure, repair).suffer(300);
    // Version 4 has no checksums, so that everything is believed.
    let Some(lab) = made_from(&["-m", "crc=0,finobt=0"], fill_plain) else { return };
    Victim::new(&lab.raw, is_structure, |_| {}).suffer(300);
}

/// A log whose records have no checksums, which is believed, too.
#[test]
fn damaged_log() {
    let Some(lab) = made(&[]) else { return };
    let Some(mount) = lab.mount("") else { return };
    work(&mount.0, &mut Rng::new(7), 60);
    let args = ["-x", "-c", "shutdown -f"].map(AsRef::as_ref);
    if output_of("xfs_io", &args.into_iter().chain([mount.0.as_ref()]).collect::<Vec<_>>()).is_none() {
        skip("xfs_io", "xfs_io is not there");
        return;
    }
    drop(mount);
    let mut raw = fs::read(&lab.raw).unwrap();
    let is_record = |raw: &[u8], at: &usize| raw[*at..].starts_with(&[0xfe, 0xed, 0xba, 0xbe]);
    let records: Vec<usize> = (0..raw.len()).step_by(512).filter(|at| is_record(&raw, at)).collect();
    for at in &records {
        raw[at + 32..at + 36].fill(0);
    }
    fs::write(&lab.raw, &raw).unwrap();
    assert!(lab.open().unwrap().about().is_replayed);
    // Records of this log begin with the number of the first round, which everything in it has.
    let is_log = |page: &[u8]| page.chunks(512).all(|block| is_record(block, &0) || block.starts_with(&[0, 0, 0, 1]));
    Victim::new(&lab.raw, is_log, |_| {}).suffer(300);
}

/// Content, and what is in the log, are no structures.
fn is_structure(page: &[u8]) -> bool {
    let all = [
        &b"XFSB"[..],
        b"IN",
        b"XD2",
        b"XDB3",
        b"XDD3",
        b"BMA",
        b"XSLM",
        b"\xd2\xf1",
        b"\xd2\xff",
        b"\xfb\xee",
        b"\xfe\xbe",
        b"\x3d\xf1",
        b"\x3e\xbe",
    ];
    all.iter().any(|magic| page.starts_with(magic) || page[8..].starts_with(magic))
}

/// Repairs the checksums of version 5.
fn repair(page: &mut [u8]) {
    let stamp = |bytes: &mut [u8], sum: usize| {
        bytes[sum..sum + 4].fill(0);
        let value = crc32c::crc32c(bytes);
        bytes[sum..sum + 4].copy_from_slice(&value.to_le_bytes());
    };
    match &page[..4] {
        b"XFSB" => stamp(&mut page[..512], 224),
        b"XDB3" | b"XDD3" => stamp(page, 4),
        b"BMA3" => stamp(page, 64),
        [b'I', b'N', ..] => page.chunks_mut(512).for_each(|inode| stamp(inode, 100)),
        _ => stamp(page, 12),
    }
}
