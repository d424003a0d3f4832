//! File systems for tests: made by tools, filled through a mount, put into an image, compared with what was put in.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::SeekFrom;
use vhdx_files::{Error, FileKind, Node, Time, Volume, VolumeOptions, Walk};
use vhdx_mmap::{Disk, DiskRange, OpenOptions, Source};
use vhdx_testkit::builder::Spec;
use vhdx_testkit::device::{Loop, Mount, output_of};
use vhdx_testkit::lab::Rng;
use vhdx_testkit::support::{skip, temp_dir};
use vhdx_testkit::{Block, Fill, MIB};

/// A file system in a raw disk.
pub(crate) struct Lab {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) raw: PathBuf,
}

impl Lab {
    /// Makes a file system with a tool that takes a file as its last argument. `None` if the tool is not there.
    pub(crate) fn new(tool: &[&str], mebibytes: u64) -> Option<Self> {
        let folder = temp_dir();
        let raw = folder.path().join("disk.raw");
        File::create(&raw).unwrap().set_len(mebibytes * MIB).unwrap();
        let mut args: Vec<&OsStr> = tool[1..].iter().map(OsStr::new).collect();
        args.push(raw.as_ref());
        let is_there = Command::new(tool[0]).arg("-V").output().is_ok();
        if output_of(tool[0], &args).is_none() {
            let what = if is_there { "mkfs-options" } else { "mkfs" };
            skip(what, &format!("{tool:?} is not there, or does nothing with a file"));
            return None;
        }
        Some(Self { folder, raw })
    }

    /// Makes a file system with a tool that takes all of its files from a tree. `args` makes the arguments of the tool
    /// from the path of the file and that of the tree. `None` if the tool is not there, or does not know the arguments.
    pub(crate) fn of_tree(
        fill: impl FnOnce(&Path),
        tool: &str,
        args: impl FnOnce(&Path, &Path) -> Vec<OsString>,
    ) -> Option<Self> {
        let folder = temp_dir();
        let (raw, tree) = (folder.path().join("disk.raw"), folder.path().join("tree"));
        fs::create_dir(&tree).unwrap();
        fill(&tree);
        let args = args(&raw, &tree);
        match Command::new(tool).args(&args).output() {
            Ok(output) if output.status.success() => return Some(Self { folder, raw }),
            // What a version of the tool cannot do is no reason to fail where the tool is required.
            Ok(output) => {
                let failed = String::from_utf8_lossy(&output.stderr);
                skip("mkfs-options", &format!("{tool} {args:?}: {}", failed.lines().next().unwrap_or_default()));
            }
            Err(error) => skip("mkfs", &format!("{tool}: {error}")),
        }
        None
    }

    /// A copy of the file system, as it is now on its medium.
    pub(crate) fn copy_of(other: &Self) -> Self {
        let folder = temp_dir();
        let raw = folder.path().join("disk.raw");
        let (from, to) = (File::open(&other.raw).unwrap(), File::create(&raw).unwrap());
        to.set_len(from.metadata().unwrap().len()).unwrap();
        pieces_with_data(&from).for_each(|(number, piece)| to.write_all_at(&piece, number * MIB).unwrap());
        Self { folder, raw }
    }

    /// Mounts it, for writing if `options` are empty. `None` if nothing can be mounted.
    pub(crate) fn mount(&self, options: &str) -> Option<Mounted> {
        // With a device of its own: one that `mount` makes can stay for a while after it is unmounted.
        let device = Loop::of(&self.raw)?;
        let options = format!("relatime{options}");
        let mount = Mount::new(self.folder.path(), &["-o".as_ref(), options.as_ref(), device.0.as_ref()])?;
        Some(Mounted(mount.0.clone(), mount, device))
    }

    /// Mounts what is at `from`, such as a loop device, with a program of FUSE.
    pub(crate) fn mount_from(&self, from: &Path, program: &str, options: &[&str]) -> Option<Mount> {
        let point = self.folder.path().join("mount");
        fs::create_dir_all(&point).unwrap();
        let mut args: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
        args.extend([from.as_os_str(), point.as_os_str()]);
        if output_of(program, &args).is_none() {
            skip("fuse", &format!("{program} is not there, or cannot mount"));
            return None;
        }
        Some(Mount(point))
    }

    /// As [`Lab::open`], without the changes in the journal.
    pub(crate) fn open_without_journal(&self) -> Result<Box<dyn Volume>, Error> {
        let options = VolumeOptions::new().ignore_journal(true);
        vhdx_files::open_with(DiskRange::whole(Made::of(&self.raw).disk()), &options)
    }

    /// Opens the raw disk, as it is now, as the disk of an image.
    pub(crate) fn open(&self) -> Result<Box<dyn Volume>, Error> {
        Made::of(&self.raw).open()
    }
}

/// A mounted file system, by the path of its root. It is unmounted before its device goes.
pub(crate) struct Mounted(
    pub(crate) PathBuf,
    #[expect(dead_code, reason = "it unmounts when it is dropped")] Mount,
    #[expect(dead_code, reason = "it is detached when it is dropped")] Loop,
);

/// Returns the pieces of a file that hold more than zeros, of 1 MiB each, with their numbers. Holes are not read.
fn pieces_with_data(file: &File) -> impl Iterator<Item = (u64, Vec<u8>)> {
    let size = file.metadata().unwrap().len();
    let mut next = 0;
    std::iter::from_fn(move || {
        loop {
            // Past the last data, there is an error.
            let number = rustix::fs::seek(file, SeekFrom::Data(next * MIB)).ok()? / MIB;
            next = number + 1;
            let mut piece = vec![0; usize::try_from(MIB.min(size - number * MIB)).unwrap()];
            file.read_exact_at(&mut piece, number * MIB).unwrap();
            if piece.iter().any(|byte| *byte != 0) {
                return Some((number, piece));
            }
        }
    })
}

/// An image with the content of a raw disk.
pub(crate) struct Made {
    image: PathBuf,
    /// File offsets of its blocks; none for those that hold zeros alone.
    blocks: Vec<Option<u64>>,
}

impl Made {
    pub(crate) fn of(raw: &Path) -> Self {
        let disk = File::open(raw).unwrap();
        let size = disk.metadata().unwrap().len();
        let pieces: Vec<(u64, Vec<u8>)> = pieces_with_data(&disk).collect();
        let mut spec = Spec { block_size: 1 << 20, ..Spec::empty(size.next_multiple_of(MIB)) };
        for (number, _) in &pieces {
            spec = spec.block(*number, Block::full().fill(Fill::Pieces(Vec::new())));
        }
        let built = spec.build();
        let image = raw.with_extension("vhdx");
        built.bytes.write_file(&image).unwrap();
        let file = File::options().write(true).open(&image).unwrap();
        let mut blocks = vec![None; usize::try_from(size.div_ceil(MIB)).unwrap()];
        for (number, piece) in &pieces {
            let at = built.block_at(*number);
            file.write_all_at(piece, at).unwrap();
            blocks[usize::try_from(*number).unwrap()] = Some(at);
        }
        Self { image, blocks }
    }

    pub(crate) fn disk(&self) -> Arc<Disk> {
        Arc::new(Disk::open(Source::open(&self.image).unwrap(), &OpenOptions::new()).unwrap())
    }

    pub(crate) fn open(&self) -> Result<Box<dyn Volume>, Error> {
        vhdx_files::open(DiskRange::whole(self.disk()))
    }

    /// Changes a byte of the disk.
    fn set(&self, at: usize, byte: u8) {
        self.write(at, &[byte]);
    }

    /// Changes bytes of the disk, which all lie in one block of the image.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        let within = u64::try_from(at).unwrap() % MIB;
        let block = self.blocks[at >> 20].unwrap();
        File::options().write(true).open(&self.image).unwrap().write_all_at(bytes, block + within).unwrap();
    }
}

/// What of a tree is compared, besides names, kinds, sizes, contents and targets of links.
#[derive(Clone, Copy)]
pub(crate) struct Facts {
    /// Owners, permissions, numbers of links, inode numbers, devices.
    pub(crate) is_unix: bool,
    /// Times, as exact as this, in nanoseconds; 0 for not at all.
    pub(crate) time_unit: u32,
    /// Extended attributes.
    pub(crate) has_attributes: bool,
}

pub(crate) const UNIX: Facts = Facts { is_unix: true, time_unit: 1, has_attributes: true };

/// Compares a volume with a tree of the host, in both directions.
pub(crate) fn compare(volume: &dyn Volume, tree: &Path, facts: Facts) {
    let count = compare_directory(volume, volume.root(), tree, facts, &mut HashSet::new());
    assert!(count > 1, "the tree is empty");
    let mut walk = Walk::new(volume, volume.root());
    let named = std::iter::from_fn(|| walk.next_name()).map(Result::unwrap).inspect(|found| {
        let expected = fs::symlink_metadata(tree.join(OsStr::from_bytes(&found.path))).unwrap();
        assert_eq!(found.kind, kind_of(&expected), "{found:?}");
    });
    assert_eq!(named.count(), count + 1);
}

fn compare_directory(
    volume: &dyn Volume,
    directory: Node,
    tree: &Path,
    facts: Facts,
    read: &mut HashSet<Node>,
) -> usize {
    let mut ours = volume.entries(directory).unwrap_or_else(|error| panic!("{}: {error}", tree.display()));
    ours.sort_by(|a, b| a.name.cmp(&b.name));
    let mut theirs: Vec<OsString> = fs::read_dir(tree).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    theirs.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    let names: Vec<OsString> = ours.iter().map(|entry| OsString::from_vec(entry.name.clone())).collect();
    assert_eq!(names, theirs, "{}", tree.display());
    let mut count = 0;
    for entry in ours {
        let path = tree.join(OsStr::from_bytes(&entry.name));
        // Looking up every name of a large directory takes time that grows with the square of their number.
        if count % 50 == 0 {
            assert_eq!(volume.find(directory, &entry.name).unwrap(), Some(entry.node), "{}", path.display());
        }
        let expected = fs::symlink_metadata(&path).unwrap();
        let kind = kind_of(&expected);
        if let Some(found) = entry.kind {
            assert_eq!(found, kind, "{}", path.display());
        }
        // The content of a file with many names is compared once.
        let is_new = kind != FileKind::File || read.insert(entry.node);
        compare_file(volume, entry.node, &path, &expected, facts, is_new);
        count += 1;
        if kind == FileKind::Directory {
            count += compare_directory(volume, entry.node, &path, facts, read);
        }
    }
    count
}

fn kind_of(metadata: &Metadata) -> FileKind {
    let kind = metadata.file_type();
    [
        (kind.is_dir(), FileKind::Directory),
        (kind.is_file(), FileKind::File),
        (kind.is_symlink(), FileKind::Link),
        (kind.is_fifo(), FileKind::Pipe),
        (kind.is_socket(), FileKind::Socket),
        (kind.is_char_device(), FileKind::CharacterDevice),
        (kind.is_block_device(), FileKind::BlockDevice),
    ]
    .into_iter()
    .find_map(|(is_it, kind)| is_it.then_some(kind))
    .unwrap()
}

fn compare_file(volume: &dyn Volume, node: Node, path: &Path, expected: &Metadata, facts: Facts, with_content: bool) {
    let said = path.display();
    let found = volume.metadata(node).unwrap_or_else(|error| panic!("{said}: {error}"));
    let kind = kind_of(expected);
    assert_eq!(found.kind, kind, "{said}");
    if facts.is_unix {
        assert_eq!(found.mode, Some(expected.mode() & 0o7777), "{said}");
        assert_eq!(found.owner, Some((expected.uid(), expected.gid())), "{said}");
        assert_eq!(found.links, Some(u32::try_from(expected.nlink()).unwrap()), "{said}");
        assert_eq!(node.0, expected.ino(), "{said}");
        let rdev = expected.rdev();
        let device = found.device.map(|(major, minor)| rustix::fs::makedev(major, minor));
        assert_eq!(device.unwrap_or(0), rdev, "{said}");
        // Squashfs does not say it; Linux shows the size, without holes at times.
        if kind == FileKind::File && volume.about().kind != vhdx_mmap::ops::Volume::Squashfs {
            assert_eq!(found.allocated, Some(expected.blocks() * 512), "{said}");
        }
    }
    if facts.time_unit > 0 {
        let time = |seconds, nanoseconds: i64| {
            let nanoseconds = u32::try_from(nanoseconds).unwrap();
            Time { seconds, nanoseconds: nanoseconds - nanoseconds % facts.time_unit }
        };
        let ours = |time: Option<Time>| {
            time.map(|time| Time { nanoseconds: time.nanoseconds - time.nanoseconds % facts.time_unit, ..time })
        };
        let modified = time(expected.mtime(), expected.mtime_nsec());
        assert_eq!(ours(found.times.modified), Some(modified), "{said}: modified");
        if facts.is_unix {
            // Reading the tree for the comparison may change when it was accessed.
            let changed = time(expected.ctime(), expected.ctime_nsec());
            assert_eq!(ours(found.times.changed), Some(changed), "{said}: changed");
        }
    }
    match kind {
        FileKind::File => {
            assert_eq!(found.size, expected.len(), "{said}");
            if with_content {
                compare_content(volume, node, path, expected.len());
            }
        }
        FileKind::Link => {
            let target = fs::read_link(path).unwrap();
            let ours = OsString::from_vec(volume.link_target(node).unwrap());
            assert_eq!(ours, target.as_os_str(), "{said}");
        }
        _ => {}
    }
    if facts.has_attributes && matches!(kind, FileKind::File | FileKind::Directory) {
        let mut ours: Vec<(OsString, Vec<u8>)> = volume
            .attributes(node)
            .unwrap()
            .into_iter()
            .map(|attribute| (OsString::from_vec(attribute.name), attribute.value))
            .collect();
        ours.sort();
        assert_eq!(ours, attributes_of(path), "{said}");
    }
}

/// Compares contents: at once, in odd pieces, and whether what is a hole has no content.
fn compare_content(volume: &dyn Volume, node: Node, path: &Path, size: u64) {
    let content = volume.open(node, None).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(content.size(), size, "{}", path.display());
    let file = File::open(path).unwrap();
    let mut offset = 0;
    let (mut ours, mut theirs) = (vec![0xa5; 777_777], vec![0x5a; 777_777]);
    // Of what is too large to be read whole, the pieces with data, and the beginning of every hole.
    while let Some((length, is_data)) = content.run_at(offset) {
        let step = if is_data || size < (256 << 20) { 777_777 } else { length };
        let read = content.read_at(&mut ours, offset).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let expected = file.read_at(&mut theirs, offset).unwrap();
        assert!(read >= expected && ours[..expected] == theirs[..expected], "{} at {offset}", path.display());
        offset += step.min(u64::try_from(read).unwrap().max(step));
    }
    assert!(offset >= size, "{}: {offset} of {size}", path.display());
}

fn attributes_of(path: &Path) -> Vec<(OsString, Vec<u8>)> {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let mut found: Vec<(OsString, Vec<u8>)> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
            value.truncate(length);
            (OsString::from_vec(name.to_vec()), value)
        })
        .collect();
    found.sort();
    found
}

/// What a file system of some kind can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Can {
    /// Whatever a Unix system has.
    Unix,
    /// Names in Unicode, and directories and files alone.
    Names,
}

/// Fills a folder with a tree that has everything.
pub(crate) fn fill(tree: &Path, can: Can) {
    let mut rng = Rng::new(29);
    let write = |path: PathBuf, bytes: &[u8]| fs::write(path, bytes).unwrap();
    write(tree.join("empty"), b"");
    for size in [1, 59, 60, 61, 100, 159, 160, 511, 512, 513, 4095, 4096, 4097, 65_537, 3_000_001] {
        write(tree.join(format!("of {size}")), &rng.bytes(size));
    }
    write(tree.join("Ünïcödé – 日本語 🦀.txt"), b"names in Unicode");
    write(tree.join(format!("{}.long", "n".repeat(250))), b"a long name");
    let many = tree.join("many");
    fs::create_dir(&many).unwrap();
    // Tools that write FAT take time that grows with the square of this number.
    let number_of_files = if can == Can::Unix { 3000 } else { 300 };
    for number in 0..number_of_files {
        write(many.join(format!("file with a number {number:06}")), format!("{number}").as_bytes());
    }
    // Names that were removed leave gaps.
    for number in (0..number_of_files).step_by(3) {
        fs::remove_file(many.join(format!("file with a number {number:06}"))).unwrap();
    }
    let few = tree.join("few");
    fs::create_dir(&few).unwrap();
    for name in ["one", "two", "three", "four", "five", "six", "seven"] {
        write(few.join(name), name.as_bytes());
    }
    let mut deep = tree.to_owned();
    for level in 0..40 {
        deep.push(format!("level {level}"));
    }
    fs::create_dir_all(&deep).unwrap();
    write(deep.join("deepest"), b"down here");
    // Two files that grow in turn lie in many pieces.
    let files = ["pieces 1", "pieces 2"].map(|name| File::create(tree.join(name)).unwrap());
    for piece in 0..60 {
        for file in &files {
            file.write_all_at(&rng.bytes(9000), piece * 9000).unwrap();
            file.sync_data().unwrap();
        }
    }
    let sparse = File::create(tree.join("sparse")).unwrap();
    for at in [0, 1 << 20, (1 << 20) + 4096, 5 << 20, 40 << 20] {
        sparse.write_all_at(&rng.bytes(5000), at).unwrap();
    }
    sparse.set_len(64 << 20).unwrap();
    if can == Can::Unix {
        fill_unix(tree, &mut rng);
    }
    for (name, time) in [("of 1", 1_000_000_000), ("of 59", 4_000_000_000)] {
        let time = SystemTime::UNIX_EPOCH + Duration::new(time, 123_456_700);
        File::options().write(true).open(tree.join(name)).unwrap().set_modified(time).unwrap();
    }
    if can == Can::Unix {
        let before = SystemTime::UNIX_EPOCH - Duration::new(1_000_000_000, 250_000_000);
        File::options().write(true).open(tree.join("of 60")).unwrap().set_modified(before).unwrap();
    }
}

fn fill_unix(tree: &Path, rng: &mut Rng) {
    fs::write(tree.join(OsStr::from_bytes(b"not \xff UTF-8 \x1b[31m\n")), b"bytes").unwrap();
    symlink("of 100", tree.join("link")).unwrap();
    symlink("nowhere", tree.join("dangling")).unwrap();
    symlink("/".repeat(59), tree.join("link of 59")).unwrap();
    symlink("x/".repeat(30), tree.join("link of 60")).unwrap();
    symlink("far/".repeat(200), tree.join("long link")).unwrap();
    fs::hard_link(tree.join("of 4097"), tree.join("few/hard link")).unwrap();
    let run = |program: &str, args: &[&OsStr]| {
        assert!(Command::new(program).args(args).status().unwrap().success(), "{program}");
    };
    run("mkfifo", &[tree.join("pipe").as_ref()]);
    let node = |name: &str, kind: &str, major: &str, minor: &str| {
        run("mknod", &[tree.join(name).as_ref(), kind.as_ref(), major.as_ref(), minor.as_ref()]);
    };
    node("character", "c", "1", "3");
    node("block", "b", "259", "70000");
    std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let set = |name: &str, attribute: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(tree.join(name), attribute, value, flags).unwrap();
    };
    set("of 1", "user.short", b"value");
    set("of 1", "user.empty", b"");
    set("of 512", "user.long", &rng.bytes(700));
    set("few", "user.of a directory", b"yes");
    set("few", "trusted.secret", b"\0\x01");
    fs::set_permissions(tree.join("of 512"), fs::Permissions::from_mode(0o6751)).unwrap();
    std::os::unix::fs::lchown(tree.join("of 513"), Some(70_000), Some(100_000)).unwrap();
    // What is allocated and was never written reads as zeros.
    let allocated = File::create(tree.join("allocated")).unwrap();
    let fallocate = |offset, length| {
        let flags = rustix::fs::FallocateFlags::empty();
        // A file system without extents cannot.
        rustix::fs::fallocate(&allocated, flags, offset, length).is_ok()
    };
    if fallocate(0, 1 << 20) {
        allocated.write_all_at(b"written", 300_000).unwrap();
    }
    allocated.set_len(500_000).unwrap();
}

/// Reads all of a volume, and counts what was read. Errors are fine; what counts is that it ends.
pub(crate) fn read_all(volume: &dyn Volume) -> u64 {
    let mut count = 0;
    let mut buffer = vec![0; 1 << 16];
    for found in Walk::new(volume, volume.root()).flatten().take(100_000) {
        count += 1;
        let node = found.node;
        let names = volume.attributes(node).map(|all| all.len()).unwrap_or(0);
        let streams = volume.streams(node).unwrap_or_default();
        count += u64::try_from(names).unwrap();
        if found.metadata.kind == FileKind::Link {
            drop(volume.link_target(node));
        }
        let contents = std::iter::once(None).chain(streams.iter().map(|stream| Some(stream.name.as_str())));
        for stream in contents {
            let Ok(content) = volume.open(node, stream) else { continue };
            for offset in [0, 65_535, content.size() / 2, content.size().saturating_sub(1)] {
                let _ = content.read_at(&mut buffer, offset);
            }
        }
    }
    count
}

/// Changes bytes of a file system where it has some, and reads all of it after each change.
pub(crate) fn damage(lab: &Lab, rounds: u64) {
    let sound = fs::read(&lab.raw).unwrap();
    let places: Vec<usize> =
        (0..sound.len()).step_by(64).filter(|at| sound[*at..*at + 64].iter().any(|byte| *byte != 0)).collect();
    assert!(read_all(&*lab.open().unwrap()) > 1);
    let (made, mut rng) = (Made::of(&lab.raw), Rng::new(31));
    for _ in 0..rounds {
        let mut changed = Vec::new();
        for _ in 0..1 + rng.below(6) {
            let at = rng.pick(&places) + usize::try_from(rng.below(64)).unwrap();
            let byte = match rng.below(4) {
                0 => 0,
                1 => 0xff,
                2 => sound[at] ^ (1 << rng.below(8)),
                _ => u8::try_from(rng.below(256)).unwrap(),
            };
            made.set(at, byte);
            changed.push(at);
        }
        if let Ok(volume) = made.open() {
            read_all(&*volume);
        }
        changed.into_iter().for_each(|at| made.set(at, sound[at]));
    }
}
