//! Btrfs, compared with the kernel.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use vhdx_files::{Error, VolumeWarning};
use vhdx_testkit::device::output_of;
use vhdx_testkit::lab::Rng;

use super::damage::{Victim, fill_little};
use super::lab::{Can, Lab, UNIX, compare, fill};

/// Makes a file system, fills it, and compares it with what the kernel shows.
fn agrees(options: &[&str], mount_options: &str) {
    let Some(lab) = made(options, 512) else { return };
    let Some(mount) = lab.mount(mount_options) else { return };
    fill(&mount.0, Can::Unix);
    fill_compressible(&mount.0);
    drop(mount);
    let Some(mount) = lab.mount(",ro") else { return };
    let volume = lab.open().unwrap();
    assert!(volume.about().is_experimental);
    compare(&*volume, &mount.0, UNIX);
}

fn made(options: &[&str], mebibytes: u64) -> Option<Lab> {
    Lab::new(&[&["mkfs.btrfs", "-q"], options].concat(), mebibytes)
}

/// Content that is worth compressing, with pieces that were overwritten, cut off and extended.
pub(crate) fn fill_compressible(tree: &Path) {
    use std::os::unix::fs::FileExt;
    let mut rng = Rng::new(31);
    let words: Vec<Vec<u8>> = (0..50).map(|_| rng.bytes(7)).collect();
    let text: Vec<u8> = (0..100_000).flat_map(|_| rng.pick(&words)).collect();
    for (name, length) in [("text", text.len()), ("short text", 1500), ("text of 5000", 5000), ("text of 9001", 9001)] {
        fs::write(tree.join(name), &text[..length]).unwrap();
    }
    // Each step is written by itself, so that earlier extents stay in part.
    let file = fs::File::options().write(true).open(tree.join("text")).unwrap();
    file.sync_all().unwrap();
    file.write_all_at(b"in the middle", 200_001).unwrap();
    file.sync_all().unwrap();
    file.write_all_at(&text[..70_000], 330_000).unwrap();
    file.sync_all().unwrap();
    file.set_len(450_000).unwrap();
    file.sync_all().unwrap();
    file.set_len(500_000).unwrap();
    for name in ["text of 5000", "text of 9001", "short text"] {
        let file = fs::File::options().write(true).open(tree.join(name)).unwrap();
        file.sync_all().unwrap();
        file.write_all_at(b"behind", 20_000).unwrap();
        file.sync_all().unwrap();
    }
}

#[test]
fn with_the_defaults_of_its_tool() {
    agrees(&[], "");
}

#[test]
fn compressed() {
    agrees(&[], ",compress-force=zstd");
    agrees(&[], ",compress-force=zlib");
    agrees(&[], ",compress-force=lzo");
}

#[test]
fn mixed_and_small() {
    agrees(&["--mixed"], "");
    agrees(&["--nodesize", "4096"], ",max_inline=2048");
    agrees(&["--nodesize", "65536"], "");
}

#[test]
fn checksums_of_other_kinds_and_none() {
    agrees(&["--csum", "xxhash"], "");
    agrees(&["--csum", "sha256"], "");
    agrees(&["--csum", "blake2"], "");
    agrees(&[], ",nodatasum");
    agrees(&[], ",nodatacow");
}

#[test]
fn with_holes_as_extents() {
    agrees(&["-O", "^no-holes", "-R", "free-space-tree"], "");
}

#[test]
fn with_a_tree_of_block_groups() {
    agrees(&["-O", "block-group-tree", "-R", "free-space-tree"], "");
}

#[test]
fn label_uuid_and_sizes() {
    let Some(lab) = made(&["-L", "a label", "-U", "01234567-89ab-cdef-0123-456789abcdef"], 256) else { return };
    let volume = lab.open().unwrap();
    assert_eq!(volume.about().label, "a label");
    assert_eq!(volume.about().uuid, "01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!(volume.about().size, 256 << 20);
    let shown = output_of("btrfs", &["inspect-internal".as_ref(), "dump-super".as_ref(), lab.raw.as_ref()]).unwrap();
    let used = shown.lines().find_map(|line| line.strip_prefix("bytes_used")).unwrap();
    assert_eq!(volume.about().used, Some(used.trim().parse().unwrap()));
}

#[test]
fn subvolumes_and_snapshots() {
    let Some(lab) = made(&[], 256) else { return };
    let Some(mount) = lab.mount("") else { return };
    let run = |args: &[&str]| {
        let args: Vec<_> = args.iter().map(|arg| arg.replace("TREE", mount.0.to_str().unwrap())).collect();
        let args: Vec<_> = args.iter().map(AsRef::as_ref).collect();
        output_of("btrfs", &args).unwrap()
    };
    run(&["subvolume", "create", "TREE/one"]);
    run(&["subvolume", "create", "TREE/one/inner"]);
    fs::write(mount.0.join("top"), b"top").unwrap();
    fs::write(mount.0.join("one/file"), b"first").unwrap();
    fs::write(mount.0.join("one/inner/file"), b"inner").unwrap();
    run(&["subvolume", "snapshot", "TREE/one", "TREE/snapshot"]);
    run(&["subvolume", "create", "TREE/removed"]);
    fs::write(mount.0.join("one/file"), b"second").unwrap();
    run(&["subvolume", "delete", "TREE/removed"]);
    let default = run(&["subvolume", "list", "TREE"]);
    let id = default.lines().find(|line| line.ends_with("path one")).unwrap().split(' ').nth(1).unwrap();
    // What is mounted by default does not change what is seen.
    run(&["subvolume", "set-default", id, "TREE"]);
    drop(mount);
    let volume = lab.open().unwrap();
    let read = |path: &[u8]| {
        let content = volume.open(vhdx_files::lookup(&*volume, path).unwrap(), None).unwrap();
        let mut bytes = vec![0; 100];
        let length = content.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(length);
        bytes
    };
    assert_eq!(read(b"/top"), b"top");
    assert_eq!(read(b"/one/file"), b"second");
    assert_eq!(read(b"/one/inner/file"), b"inner");
    assert_eq!(read(b"/snapshot/file"), b"first");
    // A snapshot has the names of subvolumes below, and nothing in them.
    let inner = vhdx_files::lookup(&*volume, b"/snapshot/inner").unwrap();
    assert!(volume.entries(inner).unwrap().is_empty());
    assert!(matches!(vhdx_files::lookup(&*volume, b"/removed"), Err(Error::NotFound(_))));
    // Files of subvolumes have the same numbers, and are different files.
    let Some(mount) = lab.mount(",ro,subvolid=5") else { return };
    let number = |path: &str| fs::metadata(mount.0.join(path)).unwrap().ino();
    assert_eq!(number("one/file"), number("snapshot/file"));
    let node = |path: &[u8]| vhdx_files::lookup(&*volume, path).unwrap();
    assert_ne!(node(b"/one/file"), node(b"/snapshot/file"));
    assert_eq!(node(b"/one/file").0 & 0xffff_ffff_ffff, number("one/file"));
}

/// After `fsync` and a crash, what was written last is in the log tree alone.
#[test]
fn with_a_log_tree() {
    let Some(lab) = made(&[], 256) else { return };
    let Some(mount) = lab.mount(",commit=300") else { return };
    fs::write(mount.0.join("old"), b"old").unwrap();
    rustix::fs::syncfs(fs::File::open(&mount.0).unwrap()).unwrap();
    let file = fs::File::create(mount.0.join("new")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"new", 0).unwrap();
    file.sync_all().unwrap();
    fs::copy(&lab.raw, lab.folder.path().join("copy.raw")).unwrap();
    drop((file, mount));
    fs::rename(lab.folder.path().join("copy.raw"), &lab.raw).unwrap();
    let error = lab.open().unwrap_err();
    assert!(matches!(&error, Error::FileSystem { is_unsupported: true, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("log tree") && text.contains("mount a copy of the volume for writing once"), "{text}");
    // Without it, the volume is as it was at the last commit.
    let volume = lab.open_without_journal().unwrap();
    assert_eq!(volume.about().warnings, [VolumeWarning::JournalIgnored]);
    vhdx_files::lookup(&*volume, b"/old").unwrap();
    assert!(matches!(vhdx_files::lookup(&*volume, b"/new"), Err(Error::NotFound(_))));
    // The kernel replays it.
    drop(lab.mount(""));
    for volume in [lab.open().unwrap(), lab.open_without_journal().unwrap()] {
        assert_eq!(volume.about().warnings, []);
        vhdx_files::lookup(&*volume, b"/new").unwrap();
    }
}

/// One of two disks does not have all of a volume.
#[test]
fn on_several_disks() {
    let Some(lab) = made(&[], 256) else { return };
    let other = lab.folder.path().join("other.raw");
    fs::File::create(&other).unwrap().set_len(256 << 20).unwrap();
    let args = ["-q", "-f", "-d", "raid1", "-m", "raid1"].map(AsRef::as_ref);
    let args: Vec<_> = args.into_iter().chain([lab.raw.as_ref(), other.as_ref()]).collect();
    output_of("mkfs.btrfs", &args).unwrap();
    let error = lab.open().unwrap_err();
    assert!(matches!(&error, Error::FileSystem { is_unsupported: true, .. }), "{error:?}");
    assert!(error.to_string().contains("a volume on several disks"), "{error}");
}

/// Content that does not have its checksum is not passed on, and the second copy of structures is used.
#[test]
fn damaged_content_is_found() {
    let Some(lab) = made(&["-m", "dup"], 256) else { return };
    let Some(mount) = lab.mount("") else { return };
    let content = Rng::new(1).bytes(300_000);
    fs::write(mount.0.join("file"), &content).unwrap();
    drop(mount);
    let mut raw = fs::read(&lab.raw).unwrap();
    let places = memchr(&raw, &content[150_000..150_100]);
    assert_eq!(places.len(), 1);
    raw[places[0]] ^= 1;
    fs::write(&lab.raw, raw).unwrap();
    let volume = lab.open().unwrap();
    let file = volume.open(vhdx_files::lookup(&*volume, b"/file").unwrap(), None).unwrap();
    let mut bytes = vec![0; 300_000];
    let error = file.read_at(&mut bytes, 0).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
    assert_eq!(file.read_at(&mut bytes[..100_000], 0).unwrap(), 100_000);
    assert!(bytes[..100_000] == content[..100_000]);
}

fn memchr(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let first = |at: &usize| bytes[*at..].starts_with(wanted);
    (0..bytes.len()).filter(|at| bytes[*at] == wanted[0]).filter(first).collect()
}

#[test]
fn damaged() {
    let Some(lab) = made(&["--mixed", "-m", "single", "-d", "single"], 64) else { return };
    let Some(mount) = lab.mount(",compress-force=zlib") else { return };
    fill_little(&mount.0);
    let uuid = output_of(
        "blkid",
        &["-p", "-s", "UUID", "-o", "value"]
            .map(AsRef::as_ref)
            .into_iter()
            .chain([lab.raw.as_ref()])
            .collect::<Vec<_>>(),
    );
    drop(mount);
    let Some(uuid) = uuid else { return };
    let uuid: Vec<u8> = uuid
        .replace('-', "")
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    // Blocks of trees, and the superblock, have their checksum first; with --mixed, a block of a tree is a page.
    let repair = |page: &mut [u8]| {
        let sum = crc32c::crc32c(&page[32..]);
        page[..4].copy_from_slice(&sum.to_le_bytes());
    };
    Victim::new(&lab.raw, |page| page[32..48] == *uuid, repair).suffer(600);
}
