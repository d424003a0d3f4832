//! `vhdx mount` and `vhdx umount` with the kernel: EROFS, and the file systems in the disks.

mod fuse;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::device::Mount;
use crate::kit::builder::{Image, Spec};
use crate::kit::log::Dirty;
use crate::kit::optional::{rounds, stride};
use crate::kit::{Block, MIB, Model, pattern};
use crate::schema::assert_valid;
use crate::support::{Ran, hex, run, skip, temp_dir, vhdx};

use super::{args, assert_fails, disk_with, vhdx_run, write_image};

/// Whether the kernel can mount.
pub(super) fn can_mount() -> bool {
    static ERROR: LazyLock<Option<String>> = LazyLock::new(|| {
        let found = vhdx_serve::mount::can_mount_erofs(Path::new("/var/tmp"));
        found.err().map(|error| error.to_string())
    });
    ERROR.as_ref().inspect(|error| skip("erofs", error)).is_none()
}

/// Whether a program exists.
fn has(what: &str, program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    if !found {
        skip(what, &format!("no {program}"));
    }
    found
}

/// A directory on which disks are mounted; it is unmounted in the end.
pub(crate) struct Point {
    folder: tempfile::TempDir,
}

impl Point {
    pub(crate) fn new() -> Self {
        let folder = temp_dir();
        std::fs::create_dir(folder.path().join("it's mounted")).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("it's mounted")
    }

    /// Runs `vhdx mount` with the kernel.
    #[track_caller]
    pub(crate) fn mount(&self, arguments: Vec<std::ffi::OsString>) -> Ran {
        vhdx_run([args!["mount", "--kernel"], arguments, args![self.path()]].concat())
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(self.path()).unwrap().next().is_none()
    }

    #[track_caller]
    pub(crate) fn umount(&self) {
        let mut ran = vhdx_run(args!["umount", self.path()]);
        // A program that another test is about to start has the open files of this process for a moment.
        for _ in 0..1000 {
            if !ran.err.contains("busy") {
                break;
            }
            ran = vhdx_run(args!["umount", self.path()]);
        }
        ran.done();
        assert!(self.is_empty());
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        // It may have been unmounted by the test.
        Command::new("umount").arg("-l").arg(self.path()).output().unwrap();
    }
}

fn child_and_parent() -> [Image; 2] {
    let parent = Spec::empty(8 * MIB).block(0, Block::full()).block(2, Block::full()).block(6, Block::full());
    let child = Spec::child_of(&parent, "parent.vhdx").block(0, Block::partial(&[3..9, 100..2000]));
    let child = Dirty::ManyEntries.build(&child.block(1, Block::full()).block(6, Block::zero()));
    [child, parent.build()]
}

fn read(chain: &[&Image]) -> Vec<u8> {
    let models: Vec<&Model> = chain.iter().map(|image| &image.model).collect();
    Model::read(&models, 0, 8 << 20).unwrap()
}

#[test]
fn images_in_one_tree() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let [child, parent] = child_and_parent();
    let paths = [folder.path().join("child, 1.avhdx"), folder.path().join("parent.vhdx")];
    child.bytes.write_file(&paths[0]).unwrap();
    parent.bytes.write_file(&paths[1]).unwrap();
    let point = Point::new();
    let temporary = folder.path().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = vhdx(args!["mount", "--kernel", "--quiet", &paths[0], &paths[1], point.path()]);
    run(command.env("TMPDIR", &temporary)).done();
    // Metadata has no name any more.
    assert!(std::fs::read_dir(&temporary).unwrap().next().is_none());
    let content = |path: &str| std::fs::read(point.path().join(path)).unwrap();
    assert!(content("child, 1/disk.raw") == read(&[&child, &parent]));
    assert!(content("child, 1/layers/0.raw") == read(&[&child, &parent]));
    assert!(content("child, 1/layers/1.raw") == read(&[&parent]));
    assert!(content("parent/disk.raw") == read(&[&parent]));
    let info: serde_json::Value = serde_json::from_slice(&content("child, 1/info.json")).unwrap();
    assert_valid(Some("info"), &info);
    assert_eq!(info["virtual-size"], 8 * MIB);
    // Nothing can be written.
    let written = File::options().write(true).open(point.path().join("parent/disk.raw"));
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    point.umount();
}

/// The kernel takes no metadata from tmpfs; images can be there.
#[test]
fn image_and_temporary_files_on_tmpfs() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let Some(tmpfs) = Mount::tmpfs(folder.path(), "64m") else { return };
    let image = write_image(&tmpfs.0, "disk.vhdx", &Spec::default());
    let point = Point::new();
    let mut command = vhdx(args!["mount", "--kernel", &image, point.path()]);
    run(command.env("TMPDIR", &tmpfs.0)).done();
    let mut bytes = vec![0; 1 << 20];
    File::open(point.path().join("disk.raw")).unwrap().read_exact_at(&mut bytes, 2 * MIB).unwrap();
    assert!(bytes == pattern(1, 2 * MIB, 1 << 20));
    point.umount();
}

#[test]
fn wrong_mounts_and_unmounts() {
    let folder = temp_dir();
    let image = write_image(folder.path(), "disk.vhdx", &Spec::default());
    assert_fails(&vhdx_run(args!["mount", &image]), 2, &["no directory is named", "vhdx mount disk.vhdx /mnt"]);
    assert_fails(&vhdx_run(args!["mount", &image, &image]), 2, &["not a directory"]);
    let missing = folder.path().join("missing");
    assert_fails(&vhdx_run(args!["mount", &image, &missing]), 66, &["missing", "create the directory"]);
    assert_fails(&vhdx_run(args!["umount", &missing]), 66, &["missing"]);
    assert_fails(&vhdx_run(args!["umount", folder.path()]), 2, &["nothing is mounted here"]);
    assert_fails(&vhdx_run(args!["umount", "/proc"]), 2, &["not mounted by vhdx (found proc)"]);
    if !can_mount() {
        return;
    }
    let point = Point::new();
    let ran = point.mount(args!["--loop", &image]);
    assert_fails(&ran, 2, &["does not have a single file system", "vhdx info"]);
    assert_fails(
        &point.mount(args!["--partition", "3", &image]),
        2,
        &["--partition 3: the disk has no partitions", "leave out --partition"],
    );
    assert!(point.is_empty());
    // In use, until it is taken away.
    point.mount(args![&image]).done();
    let mut file = File::open(point.path().join("disk.raw")).unwrap();
    assert_fails(&vhdx_run(args!["umount", point.path()]), 74, &["busy", "--lazy"]);
    vhdx_run(args!["umount", "--lazy", point.path()]).done();
    assert!(point.is_empty());
    let mut bytes = vec![0; 4096];
    file.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, pattern(1, 0, 4096));
}

/// An image of 4 full blocks of 1 MiB, of which block 2 has an entry past the end of the file.
fn damaged(folder: &Path) -> PathBuf {
    let mut image = (0..4).fold(Spec::empty(8 * MIB), |spec, number| spec.block(number, Block::full())).build();
    let entry = image.geometry.block_index(2);
    image.set_bat(entry, (1 << 40) | 6);
    let path = folder.join("disk.vhdx");
    image.bytes.write_file(&path).unwrap();
    path
}

#[test]
fn damaged_image_is_refused_unless_it_is_salvaged() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let path = damaged(folder.path());
    let point = Point::new();
    assert_fails(&point.mount(args![&path]), 65, &["disk.raw", "block 2", "--salvage"]);
    point.mount(args!["--salvage", &path]).done();
    let file = File::open(point.path().join("disk.raw")).unwrap();
    let mut bytes = vec![0; 4096];
    let error = file.read_exact_at(&mut bytes, 2 * MIB).unwrap_err();
    assert!([Errno::IO, Errno::NODEV].contains(&Errno::from_io_error(&error).unwrap()), "{error}");
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, pattern(1, 0, 4096));
    drop(file);
    point.umount();
}

/// Disk with one partition from `partition` (bytes) on, or none, that has the bytes of a file.
fn disk_of(raw: &Path, partition: Option<u64>) -> Spec {
    let mut file = File::open(raw).unwrap();
    let size = file.metadata().unwrap().len();
    let start = partition.unwrap_or(0);
    let mut table = [0; 512];
    table[446..462].copy_from_slice(&[0, 0, 2, 0, 7, 0, 2, 0, 0, 8, 0, 0, 0, 0, 0, 0]);
    table[454..458].copy_from_slice(&u32::try_from(start / 512).unwrap().to_le_bytes());
    table[458..462].copy_from_slice(&u32::try_from(size / 512).unwrap().to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
    if partition.is_some() {
        pieces.push((0, table.to_vec()));
    }
    for at in (0..size).step_by(1 << 20) {
        let mut bytes = vec![0; usize::try_from(MIB.min(size - at)).unwrap()];
        file.read_exact(&mut bytes).unwrap();
        if bytes.iter().any(|byte| *byte != 0) {
            pieces.push((start + at, bytes));
        }
    }
    let pieces: Vec<(u64, &[u8])> = pieces.iter().map(|(at, bytes)| (*at, bytes.as_slice())).collect();
    disk_with(start + size, &pieces)
}

/// Files of a test's file system, and their content.
fn files() -> Vec<(String, Vec<u8>)> {
    let small =
        (0..30).map(|number| (format!("file {number}"), pattern(number, 0, 1000 * usize::try_from(number).unwrap())));
    small.chain([("large".to_owned(), pattern(99, 0, 5_000_000))]).collect()
}

#[track_caller]
fn assert_files(directory: &Path) {
    for (name, content) in files() {
        assert!(std::fs::read(directory.join(&name)).unwrap() == content, "{name}");
    }
}

/// A file system in a file, with [`files`].
fn file_system(folder: &Path, command: &[&str], size: u64) -> Option<PathBuf> {
    if !has("mkfs", command[0]) {
        return None;
    }
    let raw = folder.join("raw");
    File::create(&raw).unwrap().set_len(size).unwrap();
    run(Command::new(command[0]).args(&command[1..]).arg(&raw)).done();
    let mounted = Mount::new(folder, &["-o".as_ref(), "loop".as_ref(), raw.as_os_str()])?;
    for (name, content) in files() {
        std::fs::write(mounted.0.join(name), content).unwrap();
    }
    Some(raw)
}

/// Loop devices whose file is below a folder, by its name as the kernel knows it.
fn loops_of(name: &str) -> Vec<String> {
    let devices = std::fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
    let files = devices.filter_map(|device| std::fs::read_to_string(device.join("loop/backing_file")).ok());
    files.filter(|file| file.contains(name)).collect()
}

/// The line of the hint, with this directory instead of `/mnt`.
#[track_caller]
fn hinted(ran: &Ran, directory: &Path) -> String {
    let line = ran.err.lines().find_map(|line| line.strip_prefix("hint: ").or(line.strip_prefix("vhdx: hint: ")));
    let line = line.expect(&ran.err);
    let (command, end) = line.rsplit_once(' ').unwrap();
    assert_eq!(end, "/mnt");
    format!("{command} {}", directory.display())
}

fn assert_mounted_by_kernel(command: &[&str], size: u64, options: &str) {
    if !can_mount() {
        return;
    }
    for partition in [Some(MIB), None] {
        let folder = temp_dir();
        let Some(raw) = file_system(folder.path(), command, size) else { return };
        let image = write_image(folder.path(), "a disk.vhdx", &disk_of(&raw, partition));
        // Down to the files, and back.
        let point = Point::new();
        point.mount(args!["--loop", &image]).done();
        assert_files(&point.path());
        point.umount();
        // By hand, with the line of the hint.
        let ran = point.mount(args![&image]).done();
        let second = folder.path().join("second");
        std::fs::create_dir(&second).unwrap();
        let line = hinted(&ran, &second);
        assert!(line.contains(options), "{line}");
        run(Command::new("sh").args(["-c", &line])).done();
        assert_files(&second);
        let name = point.path().display().to_string();
        assert_eq!(loops_of(&name).len(), 1, "{line}");
        // All of it ends, in order.
        point.umount();
        assert!(std::fs::read_dir(&second).unwrap().next().is_none());
        assert_eq!(loops_of(&name), Vec::<String>::new());
    }
}

/// A partition that is not at a page would have to be copied: its file system is mounted from the file of the disk.
#[test]
fn partition_at_an_odd_sector() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let Some(raw) = file_system(folder.path(), &["mkfs.ext4", "-q", "-F"], 64 * MIB) else { return };
    let Some(mounted) = Mount::new(folder.path(), &["-o".as_ref(), "loop".as_ref(), raw.as_os_str()]) else { return };
    std::fs::write(mounted.0.join("more"), pattern(5, 0, 30_000_000)).unwrap();
    drop(mounted);
    let image = write_image(folder.path(), "odd.vhdx", &disk_of(&raw, Some(63 * 512)));
    let point = Point::new();
    for chosen in [args!["--loop"], args!["--loop", "--partition", "1"]] {
        point.mount([chosen, args![&image]].concat()).done();
        assert_files(&point.path());
        point.umount();
    }
    let ran = point.mount(args![&image]).done();
    assert!(ran.err.contains("part1.raw: left out") && !point.path().join("part1.raw").exists(), "{}", ran.err);
    let second = folder.path().join("second");
    std::fs::create_dir(&second).unwrap();
    run(Command::new("sh").args(["-c", &hinted(&ran, &second)])).done();
    assert_files(&second);
    point.umount();
}

#[test]
fn ext4_by_the_kernel() {
    assert_mounted_by_kernel(&["mkfs.ext4", "-q"], 40 * MIB, "-t ext4 -o loop,ro,noload");
}

#[test]
fn ext2_by_the_kernel() {
    assert_mounted_by_kernel(&["mkfs.ext2", "-q"], 40 * MIB, "-t ext2 -o loop,ro ");
}

#[test]
fn xfs_by_the_kernel() {
    assert_mounted_by_kernel(&["mkfs.xfs", "-q"], 320 * MIB, "-t xfs -o loop,ro,norecovery");
}

#[test]
fn btrfs_by_the_kernel() {
    assert_mounted_by_kernel(&["mkfs.btrfs", "-q"], 256 * MIB, "-t btrfs -o loop,ro,rescue=nologreplay");
}

#[test]
fn ntfs_by_ntfs_3g() {
    if !can_mount() || !has("mkfs", "mkfs.ntfs") || !has("mkfs", "ntfs-3g") {
        return;
    }
    let folder = temp_dir();
    let raw = folder.path().join("raw");
    File::create(&raw).unwrap().set_len(40 * MIB).unwrap();
    run(Command::new("mkfs.ntfs").args(["-q", "-F", "-Q"]).arg(&raw)).done();
    let second = folder.path().join("mount");
    std::fs::create_dir(&second).unwrap();
    let ntfs = |options: &str, from: &Path| {
        run(Command::new("ntfs-3g").args(["-o", options]).arg(from).arg(&second)).done();
    };
    ntfs("rw", &raw);
    let mounted = Mount(second.clone());
    files().iter().for_each(|(name, content)| std::fs::write(second.join(name), content).unwrap());
    drop(mounted);
    let image = write_image(folder.path(), "disk.vhdx", &disk_of(&raw, Some(MIB)));
    let point = Point::new();
    let ran = point.mount(args!["--partition", "1", &image]).done();
    assert!(ran.err.contains("-t ntfs") && ran.err.contains("loop,ro "), "{}", ran.err);
    ntfs("ro", &point.path().join("part1.raw"));
    let mounted = Mount(second.clone());
    assert_files(&second);
    drop(mounted);
    point.umount();
}

#[test]
fn fat_by_mtools() {
    if !can_mount() || !has("mkfs", "mkfs.fat") || !has("mkfs", "mcopy") {
        return;
    }
    let folder = temp_dir();
    let raw = folder.path().join("raw");
    File::create(&raw).unwrap().set_len(40 * MIB).unwrap();
    run(Command::new("mkfs.fat").arg(&raw)).done();
    let from = folder.path().join("from");
    for (name, content) in files() {
        std::fs::write(&from, content).unwrap();
        run(Command::new("mcopy").arg("-i").arg(&raw).arg(&from).arg(format!("::/{name}"))).done();
    }
    let image = write_image(folder.path(), "disk.vhdx", &disk_of(&raw, Some(MIB)));
    let point = Point::new();
    let ran = point.mount(args![&image]).done();
    assert!(ran.err.contains("-t vfat -o loop,ro "), "{}", ran.err);
    for (name, content) in files() {
        let part = point.path().join("part1.raw");
        let ran = run(Command::new("mtype").arg("-i").arg(part).arg(format!("::/{name}"))).done();
        assert!(ran.out == content, "{name}");
    }
    point.umount();
}

#[test]
fn metadata_for_other_machines() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let [child, parent] = child_and_parent();
    let image = folder.path().join("child's.avhdx");
    child.bytes.write_file(&image).unwrap();
    parent.bytes.write_file(&folder.path().join("parent.vhdx")).unwrap();
    let metadata = folder.path().join("the metadata");
    let ran = vhdx_run(args!["mount", "--quiet", "--write-erofs", &metadata, &image]).done();
    let point = Point::new();
    let script =
        ran.text().replace(" /mnt\n", &format!(" '{}'\n", point.path().display().to_string().replace('\'', r"'\''")));
    run(Command::new("sh").args(["-ec", &script])).done();
    assert!(std::fs::read(point.path().join("disk.raw")).unwrap() == read(&[&child, &parent]));
    assert!(std::fs::read(point.path().join("layers/1.raw")).unwrap() == read(&[&parent]));
    point.umount();
    assert_eq!(loops_of(&folder.path().display().to_string()), Vec::<String>::new());
    let again = vhdx_run(args!["mount", "--quiet", "--write-erofs", &metadata, &image]);
    assert_fails(&again, 73, &["the metadata", "exists"]);
}

/// SHA-256 of a part of a file.
fn sha256(file: &File, offset: u64, length: u64) -> String {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let (mut at, end) = (offset, offset + length);
    while at < end {
        let piece = &mut buffer[..usize::try_from(MIB.min(end - at)).unwrap()];
        file.read_exact_at(piece, at).unwrap();
        hasher.update(&*piece);
        at += u64::try_from(piece.len()).unwrap();
    }
    hex(&hasher.finalize())
}

/// Checks that data outside the known ranges is zeros. Holes are not read.
fn assert_zero_outside(file: &File, known: &[(u64, u64)], what: &str) {
    use rustix::fs::SeekFrom;

    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap();
        let mut position = start;
        while position < at {
            let inside = known.iter().find(|(offset, length)| (*offset..offset + length).contains(&position));
            if let Some((offset, length)) = inside {
                position = offset + length;
                continue;
            }
            let next = known.iter().map(|(offset, _)| *offset).filter(|offset| *offset > position).min();
            let end = at.min(next.unwrap_or(at)).min(position + MIB);
            let mut bytes = vec![1; usize::try_from(end - position).unwrap()];
            file.read_exact_at(&mut bytes, position).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0), "{what}: {position:#x}");
            position = end;
        }
    }
}

#[test]
fn corpus_through_the_kernel() {
    if can_mount() {
        assert_corpus("--kernel");
    }
}

/// Reads every image of the corpus through a mount.
fn assert_corpus(how: &str) {
    let Some(corpus) = crate::corpus::corpus(how.trim_start_matches('-')) else { return };
    let mut count = 0;
    for name in ["windows", "foreign"] {
        let folder = corpus.join(name);
        let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let images = manifest["images"].as_array().unwrap().iter().filter(|record| record["expect"] == "read");
        for record in images.step_by(stride()) {
            let path = folder.join(record["file"].as_str().unwrap());
            let what = path.display().to_string();
            let point = Point::new();
            let ran = vhdx_run(args!["mount", how, "--quiet", &path, point.path()]);
            assert!(ran.status.success(), "{what}: {}", ran.err);
            let file = File::open(point.path().join("disk.raw")).unwrap();
            let size = record["virtual_size"].as_u64().unwrap();
            assert_eq!(file.metadata().unwrap().len(), size, "{what}");
            let extents = record["nonzero_extents"].as_array().filter(|_| size > 2 << 30);
            if extents.is_none() {
                assert_eq!(sha256(&file, 0, size), record["sha256"].as_str().unwrap(), "{what}");
            } else if let Some(extents) = extents {
                let mut known = Vec::new();
                for extent in extents {
                    let (offset, length) = (extent[0].as_u64().unwrap(), extent[1].as_u64().unwrap());
                    assert_eq!(sha256(&file, offset, length), extent[2].as_str().unwrap(), "{what}: {offset:#x}");
                    known.push((offset, length));
                }
                assert_zero_outside(&file, &known, &what);
            }
            drop(file);
            point.umount();
            count += 1;
        }
    }
    assert!(count >= rounds(80), "{count} images");
}
