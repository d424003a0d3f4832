//! A file system that cannot read some bytes of its only file, or holds a read of some until it is released or the
//! process ends.
//!
//! It runs in its own process: a process that waits for itself would wait forever. It reports on standard output that
//! it is mounted or holds a read; a byte on standard input releases the read.
//!
//! That process is the test program itself, which must have a test `guard::fuse::serve` that calls [`serve`].

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

use crate::support::skip;

/// The file, the bytes that cannot be read, and the bytes whose first read is held.
struct Served {
    file: File,
    length: u64,
    bad: Range<u64>,
    held: Range<u64>,
    is_released: AtomicBool,
    /// Only pages with odd numbers are bad, and each of the others begins with its number.
    is_scattered: bool,
}

const MOUNTED: &str = "mounted";
pub const HELD: &str = "held";

/// Writes a line to the process that started this one.
fn report(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Length of a page, in bytes.
pub const PAGE: u64 = 4096;

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

/// Serves the file system, if this process was started to do so.
pub fn serve() {
    let Ok(settings) = std::env::var("VHDX_FUSE") else { return };
    let words: Vec<&str> = settings.split('|').collect();
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

/// A mounted file system.
pub struct Mounted {
    server: Child,
    reports: BufReader<ChildStdout>,
    point: PathBuf,
}

impl Mounted {
    /// Mounts the file of `image`, with some bytes that cannot be read.
    pub fn new(image: &Path, bad: &Range<u64>) -> Option<Self> {
        Self::with(image, bad, &(0..0), false)
    }

    /// Mounts the file of `image`, and holds the first read of some bytes.
    pub fn holding(image: &Path, held: &Range<u64>) -> Option<Self> {
        Self::with(image, &(0..0), held, false)
    }

    /// Mounts the file of `image`. In a range, pages with odd numbers cannot be read, and the others begin with their
    /// numbers.
    pub fn scattered(image: &Path, bad: &Range<u64>) -> Option<Self> {
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
            let mut message = String::new();
            mounted.server.stderr.as_mut().unwrap().read_to_string(&mut message).unwrap();
            skip("fuse", &format!("nothing can be mounted: {message}"));
            return None;
        }
        Some(mounted)
    }

    /// Waits for a report; false if the process has ended.
    pub fn wait_for(&mut self, report: &str) -> bool {
        self.reports.by_ref().lines().map_while(Result::ok).any(|line| line == report)
    }

    /// Releases the read that is held.
    pub fn release(&mut self) {
        self.server.stdin.as_mut().unwrap().write_all(&[0]).unwrap();
    }

    /// Ends the process that serves the file system.
    pub fn kill(&mut self) {
        self.server.kill().unwrap();
    }

    pub fn path(&self) -> PathBuf {
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
