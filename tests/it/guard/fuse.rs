//! A file system of the tests' own that can't read some bytes of its one file, or holds a read of some until it is
//! released, or goes away.
//!
//! It runs in a process of its own: one that waits for itself would wait forever. It says on standard output when it is
//! mounted and when it holds a read; a byte on standard input releases that.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner, MountOption, OpenFlags,
    ReplyAttr, ReplyData, ReplyEntry, Request,
};

use super::{BLOCKS_OF_WORK as BLOCKS, FIRST_BLOCK, WAYS, content, dense, lost_at, open};
use crate::kit::MIB;
use crate::support::{run, skip, temp_dir, vhdx};

/// The file that it shows, which bytes it can't read, and of which bytes it holds the first read.
struct Served {
    file: File,
    length: u64,
    bad: Range<u64>,
    held: Range<u64>,
    is_released: AtomicBool,
    /// Only the pages with odd numbers are bad, and each of the others begins with its number.
    is_scattered: bool,
}

const MOUNTED: &str = "mounted";
const HELD: &str = "held";

/// Writes a line to whoever started this process.
fn report(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Length of a page, in bytes.
pub(super) const PAGE: u64 = 4096;

/// Whether one of the pages that a read touches has an odd number.
fn touches_odd_page(range: &Range<u64>) -> bool {
    (range.start / PAGE..range.end.div_ceil(PAGE)).any(|page| page % 2 == 1)
}

impl Served {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let is_file = ino != INodeNo::ROOT;
        FileAttr {
            ino,
            size: if is_file { self.length } else { 0 },
            blocks: self.length / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file { FileType::RegularFile } else { FileType::Directory },
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

const FOR_LONG: Duration = Duration::from_secs(600);

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "disk.vhdx" {
            reply.entry(&FOR_LONG, &self.attributes(INodeNo(2)), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_LONG, &self.attributes(ino));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let end = (offset + u64::from(size)).min(self.length);
        let touches = |range: &Range<u64>| offset < range.end && range.start < end;
        if touches(&self.held) && !self.is_released.swap(true, Ordering::Relaxed) {
            report(HELD);
            io::stdin().read_exact(&mut [0]).unwrap();
        }
        let both = offset.max(self.bad.start)..end.min(self.bad.end);
        if touches(&self.bad) && (!self.is_scattered || touches_odd_page(&both)) {
            return reply.error(Errno::EIO);
        }
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(offset)).unwrap()];
        self.file.read_exact_at(&mut bytes, offset).unwrap();
        if self.is_scattered && self.bad.contains(&offset) && offset.is_multiple_of(PAGE) {
            bytes[..8].copy_from_slice(&(offset / PAGE).to_le_bytes());
        }
        reply.data(&bytes);
    }
}

/// The process that serves it: not a test, unless it is told what to do.
#[test]
fn serve() {
    let Ok(told) = std::env::var("VHDX_FUSE") else { return };
    let words: Vec<&str> = told.split('|').collect();
    let number = |index: usize| words[index].parse::<u64>().unwrap();
    let file = File::open(words[0]).unwrap();
    let length = file.metadata().unwrap().len();
    let (bad, held, is_scattered) = (number(2)..number(3), number(4)..number(5), number(6) == 1);
    let served = Served { file, length, bad, held, is_released: AtomicBool::new(false), is_scattered };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::RO, MountOption::FSName("vhdx-test".to_owned())];
    let session = fuser::Session::new(served, words[1], &config).unwrap();
    report(MOUNTED);
    session.run().unwrap();
}

/// A mounted one.
pub(crate) struct Mounted {
    server: Child,
    reports: BufReader<ChildStdout>,
    point: PathBuf,
}

impl Mounted {
    /// Shows the file of `image`, except for some bytes.
    pub(crate) fn new(image: &Path, bad: &Range<u64>) -> Option<Self> {
        Self::with(image, bad, &(0..0), false)
    }

    /// Shows the file of `image`, and holds the first read of some bytes.
    fn holding(image: &Path, held: &Range<u64>) -> Option<Self> {
        Self::with(image, &(0..0), held, false)
    }

    /// Shows the file of `image`, except for the pages with odd numbers in a range. The others there begin with their numbers.
    pub(super) fn scattered(image: &Path, bad: &Range<u64>) -> Option<Self> {
        Self::with(image, bad, &(0..0), true)
    }

    fn with(image: &Path, bad: &Range<u64>, held: &Range<u64>, is_scattered: bool) -> Option<Self> {
        if File::options().read(true).write(true).open("/dev/fuse").is_err() {
            skip("fuse", "/dev/fuse can't be opened (it needs root)");
            return None;
        }
        let point = image.parent().unwrap().join("fuse");
        std::fs::create_dir_all(&point).unwrap();
        let numbers = [bad.start, bad.end, held.start, held.end, u64::from(is_scattered)];
        let numbers = numbers.map(|number| number.to_string()).join("|");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["guard::fuse::serve", "--exact", "--nocapture"]);
        command.env("VHDX_FUSE", format!("{}|{}|{numbers}", image.display(), point.display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut server = command.spawn().unwrap();
        let reports = BufReader::new(server.stdout.take().unwrap());
        let mut mounted = Self { server, reports, point };
        if !mounted.wait_for(MOUNTED) {
            let mut said = String::new();
            mounted.server.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
            skip("fuse", &format!("nothing can be mounted: {said}"));
            return None;
        }
        Some(mounted)
    }

    /// Waits for a report; false if the process ended before.
    fn wait_for(&mut self, report: &str) -> bool {
        self.reports.by_ref().lines().map_while(Result::ok).any(|line| line == report)
    }

    /// Lets the read go on that is held.
    fn release(&mut self) {
        self.server.stdin.as_mut().unwrap().write_all(&[0]).unwrap();
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.point.join("disk.vhdx")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
        drop(Command::new("umount").arg("--lazy").arg(&self.point).output());
    }
}

/// The file system reads in pieces of some length, and all of a piece is lost.
const MOST_AT_ONCE: u64 = 2 * MIB;

#[test]
fn bytes_that_cannot_be_read_are_an_error_of_every_way_to_them() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", BLOCKS);
    let bad = FIRST_BLOCK + 9 * MIB + 8192..FIRST_BLOCK + 9 * MIB + 8193;
    for (name, way) in WAYS {
        let Some(mounted) = Mounted::new(&image, &bad) else { return };
        let disk = open(&mounted.path());
        let error = way(&disk).map(|()| name).unwrap_err();
        let at = lost_at(&error);
        assert!(at <= bad.start && bad.start - at < MOST_AT_ONCE, "{name}: {error}");
        // What can be read is right.
        let mut good = vec![0; 6 << 20];
        assert_eq!(disk.read_at(&mut good, 0).unwrap(), good.len());
        assert!(good == content(BLOCKS)[..good.len()], "{name}");
        assert!(!disk.image().source().has_changed().unwrap());
    }
}

#[test]
fn tables_that_cannot_be_read_are_an_error() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", BLOCKS);
    // Headers, region tables, metadata.
    for bad in [0..1, 64 << 10..192 << 10, 192 << 10..320 << 10, 2 * MIB..2 * MIB + 1] {
        let Some(mounted) = Mounted::new(&image, &bad) else { return };
        let error = vhdx_mmap::Image::open(super::map(&mounted.path()), vhdx_mmap::LogPolicy::Replay).unwrap_err();
        super::touched_at(&error);
        let ran = run(vhdx(["info"]).arg(mounted.path()));
        assert_eq!(ran.status.code(), Some(74), "{}", ran.err);
        assert!(ran.err.contains("cannot be read any more"), "{}", ran.err);
    }
    // The table of blocks.
    let Some(mounted) = Mounted::new(&image, &(3 * MIB..3 * MIB + 1)) else { return };
    let disk = open(&mounted.path());
    assert_eq!(super::touched_at(&disk.extents(..).next().unwrap().unwrap_err()), 3 * MIB);
    super::touched_at(&disk.image().block_states().unwrap_err());
    super::touched_at(&disk.block(0).unwrap_err());
    for (name, way) in WAYS {
        super::touched_at(&way(&disk).map(|()| name).unwrap_err());
    }
}

#[test]
fn the_command_says_where() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", BLOCKS);
    let manifest = folder.path().join("manifest");
    run(vhdx(["hash", "-a", "crc32", "--manifest"]).arg(&manifest).arg(&image)).done();
    let bad = FIRST_BLOCK + 9 * MIB..FIRST_BLOCK + 9 * MIB + 1;
    let out = folder.path().join("out");
    let cases: [&[&OsStr]; 9] = [
        &["hash".as_ref(), "-a".as_ref(), "crc32".as_ref(), "IMAGE".as_ref()],
        &["hash".as_ref(), "-a".as_ref(), "sha256".as_ref(), "IMAGE".as_ref()],
        &["extract".as_ref(), "IMAGE".as_ref(), out.as_ref()],
        &["extract".as_ref(), "IMAGE".as_ref(), "-".as_ref()],
        &["extract".as_ref(), "--hash".as_ref(), "blake3".as_ref(), "IMAGE".as_ref(), "-".as_ref()],
        &["compare".as_ref(), "IMAGE".as_ref(), image.as_ref()],
        &["verify".as_ref(), "IMAGE".as_ref(), "--manifest".as_ref(), manifest.as_ref()],
        &["read".as_ref(), "--range".as_ref(), "0:".as_ref(), "IMAGE".as_ref()],
        &["read".as_ref(), "--hex".as_ref(), "--range".as_ref(), "0:".as_ref(), "IMAGE".as_ref()],
    ];
    for words in cases {
        let Some(mounted) = Mounted::new(&image, &bad) else { return };
        let path = mounted.path();
        let args = words.iter().map(|word| if *word == "IMAGE" { path.as_os_str() } else { *word });
        let ran = run(&mut vhdx(args));
        assert_eq!(ran.status.code(), Some(74), "{words:?}: {}", ran.err);
        assert!(
            ran.err.contains("disk.vhdx: file at 0x") && ran.err.contains("cannot be read"),
            "{words:?}: {}",
            ran.err
        );
        assert!(ran.err.contains("hint: ") && !out.exists(), "{words:?}: {}", ran.err);
        // The other bytes can be had.
        let ran = run(vhdx(["hash", "-a", "crc32", "--range", "0:6M"]).arg(&path)).done();
        let expected = format!(" = {}\n", crc32_of(&content(BLOCKS)[..6 << 20]));
        assert!(
            ran.text().starts_with(&format!("CRC32 disk 0:{} ", 6 * MIB)) && ran.text().ends_with(&expected),
            "{}",
            ran.text()
        );
    }
}

/// The digest as the command writes it, by other means.
fn crc32_of(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

/// What the loss map says is lost: start and length.
pub(super) fn losses(map: &Path) -> Vec<(u64, u64)> {
    let told: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(map).unwrap()).unwrap();
    let range = |loss: &serde_json::Value| (loss["start"].as_u64().unwrap(), loss["length"].as_u64().unwrap());
    told["losses"].as_array().unwrap().iter().map(range).collect()
}

#[test]
fn a_salvage_loses_the_pages_that_cannot_be_read_and_no_other() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", BLOCKS);
    let [out, map] = ["out", "map"].map(|name| folder.path().join(name));
    for bad in [9 * MIB + 8192..9 * MIB + 8193, 5 * MIB - 1..5 * MIB + 1, 11 * MIB..12 * MIB + 5000] {
        let (start, end) = (bad.start / 4096 * 4096, bad.end.next_multiple_of(4096));
        let mut expected = content(BLOCKS);
        expected[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()].fill(0);
        let bad = FIRST_BLOCK + bad.start..FIRST_BLOCK + bad.end;
        for more in [&[][..], &["--hash", "crc32"], &["--threads", "1", "--cache", "drop"], &["--direct"]] {
            let Some(mounted) = Mounted::new(&image, &bad) else { return };
            let mut command = vhdx(["extract", "--force", "--salvage", "--loss-map"]);
            let ran = run(command.arg(&map).args(more).arg(mounted.path()).arg(&out));
            if more == ["--direct"] && ran.status.code() == Some(73) {
                continue;
            }
            assert_eq!(ran.status.code(), Some(65), "{more:?}: {}", ran.err);
            assert_eq!(losses(&map), [(start, end - start)], "{more:?}");
            assert!(std::fs::read(&out).unwrap() == expected, "{more:?}");
            if more.contains(&"--hash") {
                assert!(ran.text().starts_with(&crc32_of(&expected)), "{}", ran.text());
            }
        }
        // As a stream, and as a digest.
        let Some(mounted) = Mounted::new(&image, &bad) else { return };
        let ran = run(vhdx(["extract", "--salvage"]).arg(mounted.path()).arg("-"));
        assert!(ran.out == expected && ran.status.code() == Some(65), "{}", ran.err);
        let Some(mounted) = Mounted::new(&image, &bad) else { return };
        let ran = run(vhdx(["hash", "--salvage", "-a", "crc32"]).arg(mounted.path()));
        assert!(ran.text().starts_with(&crc32_of(&expected)), "{}{}", ran.text(), ran.err);
        assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
        // A check that reads everything finds it.
        let Some(mounted) = Mounted::new(&image, &bad) else { return };
        let ran = run(vhdx(["check", "--payload", "--output", "json"]).arg(mounted.path()));
        assert_eq!(ran.status.code(), Some(2), "{}{}", ran.text(), ran.err);
        let told = &ran.json()["findings"];
        assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
        let told = ["code", "severity", "structure", "offset", "range"].map(|key| told[0][key].clone());
        let range = serde_json::json!({ "start": start, "length": end - start });
        assert_eq!(told, ["P2".into(), "corruption".into(), "file".into(), (FIRST_BLOCK + start).into(), range]);
    }
}

#[test]
fn a_salvage_loses_the_blocks_whose_entries_cannot_be_read() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", BLOCKS);
    let [out, map] = ["out", "map"].map(|name| folder.path().join(name));
    let Some(mounted) = Mounted::new(&image, &(3 * MIB..3 * MIB + 1)) else { return };
    let mut command = vhdx(["extract", "--force", "--salvage", "--loss-map"]);
    let ran = run(command.arg(&map).arg(mounted.path()).arg(&out));
    assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
    // Each has an entry of its own, and the reason is the same.
    assert_eq!(losses(&map), [(0, BLOCKS * MIB)]);
}

#[test]
fn a_slow_read_is_waited_for() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", 4);
    for (name, way) in &WAYS[..3] {
        let held = FIRST_BLOCK + MIB..FIRST_BLOCK + MIB + 4096;
        let Some(mut mounted) = Mounted::holding(&image, &held) else { return };
        let path = mounted.path();
        std::thread::scope(|scope| {
            let working = scope.spawn(|| way(&open(&path)));
            assert!(mounted.wait_for(HELD), "{name}");
            assert!(!working.is_finished(), "{name}");
            mounted.release();
            working.join().unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
        });
    }
}

#[test]
fn a_file_system_that_goes_away_is_an_error() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", BLOCKS);
    for (name, way) in WAYS {
        let held = FIRST_BLOCK + 5 * MIB..FIRST_BLOCK + 6 * MIB;
        let Some(mut mounted) = Mounted::holding(&image, &held) else { return };
        let disk = open(&mounted.path());
        std::thread::scope(|scope| {
            let working = scope.spawn(|| way(&disk));
            assert!(mounted.wait_for(HELD), "{name}");
            mounted.server.kill().unwrap();
            let error = working.join().unwrap().map(|()| name).unwrap_err();
            lost_at(&error);
        });
    }
}
