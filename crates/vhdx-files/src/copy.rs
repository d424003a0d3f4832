//! Copies files out of a volume to this system.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use vhdx_mmap::Progress;

use crate::content::Content;
use crate::error::{Error, Result};
use crate::host_name::host_name;
use crate::time::Time;
use crate::volume::{FileKind, Metadata, Node, Volume};
use crate::walk::{Found, Walk};

/// Batches of files that wait for a thread. Each file keeps its directory open.
const WAITING: usize = 4;

/// Most files of a batch, and the bytes from which on it is one: waking a thread costs as much as copying a small file.
const BATCH: (usize, u64) = (32, 1 << 20);

/// What is read and written at once, in bytes: it stays in the cache of the processor.
const PIECE: u64 = 256 << 10;

/// Files of this length and more are read by several threads, in bytes.
const LARGE: u64 = 16 << 20;

/// Most threads that read one file.
const MOST_THREADS_OF_FILE: usize = 4;

/// How files are copied.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions {
    /// Replace files that are there.
    pub force: bool,
    /// Give files their owners, and the modes that depend on them; this takes the rights of root.
    pub same_owner: bool,
    /// Threads that write; at least 1.
    pub threads: usize,
}

impl Default for CopyOptions {
    /// Replaces nothing, keeps the owner of the process, one thread.
    fn default() -> Self {
        Self { force: false, same_owner: false, threads: 1 }
    }
}

/// What happens on the way, besides the progress.
#[derive(Debug)]
pub enum CopyEvent<'c> {
    /// A file could not be copied: the path from the root of the copied tree, and why.
    Failed(&'c [u8], Error),
    /// A file has another name here, since this system cannot have its own.
    Renamed(&'c [u8], &'c [u8]),
    /// A socket, a device, a stream or an attribute was left out: of what, and why.
    LeftOut(&'c [u8], &'static str),
}

/// What was copied.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files and everything else but directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of content, holes included.
    pub bytes: u64,
    /// What failed.
    pub failed: u64,
}

impl Copied {
    /// Adds what else was copied.
    pub fn add(&mut self, more: &Self) {
        self.files = self.files.saturating_add(more.files);
        self.directories = self.directories.saturating_add(more.directories);
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.failed = self.failed.saturating_add(more.failed);
    }
}

/// Copies a file, or a directory with everything in it, to a path of this system.
///
/// Nothing is written outside of `target`, whatever names and links the volume has: links are made, and never followed.
/// Nothing is left of a file that fails, and the rest is still copied.
///
/// # Errors
/// Fails if `target` cannot be made, or the work was cancelled. What fails on the way is an event.
pub fn copy(
    volume: &dyn Volume,
    from: Node,
    target: &Path,
    options: CopyOptions,
    progress: &dyn Progress,
    observe: &(dyn Fn(CopyEvent<'_>) + Sync),
) -> Result<Copied> {
    let name = target.file_name().unwrap_or(target.as_os_str());
    let above = target.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The folder that the user names may be reached by links.
    let above = if target.file_name().is_some() { above } else { target };
    let above = rustix::fs::open(above, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::Host(above.display().to_string(), error.into()))?;
    let job = Job { volume, options, progress, observe, target, above: Arc::new(above), counts: Counts::default() };
    job.run(from, name)?;
    let counts = &job.counts;
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    if of(&counts.cancelled) > 0 {
        return Err(Error::Cancelled);
    }
    Ok(Copied {
        files: of(&counts.files),
        directories: of(&counts.directories),
        bytes: of(&counts.bytes),
        failed: of(&counts.failed),
    })
}

#[derive(Debug, Default)]
struct Counts {
    files: AtomicU64,
    directories: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

struct Job<'c> {
    volume: &'c dyn Volume,
    options: CopyOptions,
    progress: &'c dyn Progress,
    observe: &'c (dyn Fn(CopyEvent<'_>) + Sync),
    target: &'c Path,
    /// The directory of the target.
    above: Arc<OwnedFd>,
    counts: Counts,
}

/// A directory that is being filled.
struct Level {
    depth: usize,
    open: Arc<OwnedFd>,
}

/// A directory that gets its mode and its times when it is complete.
struct Finish {
    /// Names from the target on.
    way: Vec<Vec<u8>>,
    /// Path from the root of the copied tree.
    path: Vec<u8>,
    metadata: Metadata,
    node: Node,
}

/// A file that waits for a thread.
struct Task {
    folder: Arc<OwnedFd>,
    name: Vec<u8>,
    found: Found,
}

impl Job<'_> {
    fn run(&self, from: Node, target: &OsStr) -> Result<()> {
        let (send, receive) = mpsc::sync_channel::<Vec<Task>>(WAITING);
        let receive = Mutex::new(receive);
        let finish = std::thread::scope(|scope| {
            for _ in 0..self.options.threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let batch = receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(batch) = batch else { return };
                        for Task { folder, name, found } in batch {
                            self.make(&folder, &name, &found);
                        }
                    }
                });
            }
            let finish = self.walk(from, target, &send);
            drop(send);
            finish
        })?;
        for directory in finish.into_iter().rev() {
            if let Err(error) = self.finish(&directory) {
                self.fail(&directory.way.join(&b'/'), error);
            }
        }
        Ok(())
    }

    fn is_cancelled(&self) -> bool {
        self.counts.cancelled.load(Ordering::Relaxed) > 0
    }

    fn fail(&self, path: &[u8], error: Error) {
        add(&self.counts.failed, 1);
        (self.observe)(CopyEvent::Failed(path, error));
    }

    /// Makes directories, and hands out files.
    fn walk(&self, from: Node, target: &OsStr, send: &mpsc::SyncSender<Vec<Task>>) -> Result<Vec<Finish>> {
        let (mut levels, mut way, mut finish) = (Vec::<Level>::new(), Vec::<Vec<u8>>::new(), Vec::new());
        // Files with several names, and the way to the first of them.
        let mut links: HashMap<Node, Vec<Vec<u8>>> = HashMap::new();
        let (mut batch, mut bytes) = (Vec::new(), 0_u64);
        let mut walk = Walk::new(self.volume, from);
        while let Some(found) = walk.next() {
            if self.is_cancelled() {
                break;
            }
            let found = match found {
                Ok(found) => found,
                Err(unread) => {
                    self.fail(&unread.path, unread.error);
                    continue;
                }
            };
            while levels.last().is_some_and(|level| level.depth >= found.depth) {
                levels.pop();
            }
            way.truncate(found.depth);
            let name = if found.depth == 0 { target.as_bytes().to_vec() } else { host_name(&found.name) };
            if found.depth > 0 && name != found.name {
                (self.observe)(CopyEvent::Renamed(&found.path, &name));
            }
            way.push(name.clone());
            let folder = levels.last().map_or(&self.above, |level| &level.open);
            if found.metadata.kind == FileKind::Directory {
                match make_directory(folder, &name) {
                    Ok(open) => {
                        add(&self.counts.directories, 1);
                        levels.push(Level { depth: found.depth, open: Arc::new(open) });
                        finish.push(Finish {
                            way: way.clone(),
                            path: found.path,
                            metadata: found.metadata,
                            node: found.node,
                        });
                    }
                    Err(error) if found.depth == 0 => {
                        return Err(Error::Host(self.target.display().to_string(), error));
                    }
                    Err(error) => {
                        walk.skip_directory();
                        self.fail(&found.path, host("cannot be made", error));
                    }
                }
                continue;
            }
            if found.metadata.links.is_some_and(|links| links > 1) {
                if let Some(first) = links.get(&found.node) {
                    match self.link(first, folder, &name) {
                        Ok(()) => add(&self.counts.files, 1),
                        Err(error) => self.fail(&found.path, host("cannot be linked", error)),
                    }
                    continue;
                }
                if self.make(folder, &name, &found) {
                    links.insert(found.node, way.clone());
                }
                continue;
            }
            bytes = bytes.saturating_add(found.metadata.size);
            batch.push(Task { folder: Arc::clone(folder), name, found });
            if batch.len() >= BATCH.0 || bytes >= BATCH.1 {
                bytes = 0;
                if send.send(std::mem::take(&mut batch)).is_err() {
                    return Ok(finish);
                }
            }
        }
        // It stays untaken only where no thread is left.
        let _ = send.send(batch);
        Ok(finish)
    }

    /// Opens the directory of a way, without following a link.
    fn reopen(&self, way: &[Vec<u8>]) -> io::Result<OwnedFd> {
        let mut open = self.above.try_clone()?;
        for name in way {
            open = open_directory(&open, name)?;
        }
        Ok(open)
    }

    /// Gives a file that was copied a second name.
    fn link(&self, first: &[Vec<u8>], folder: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let (file, above) = first.split_last().ok_or(io::ErrorKind::NotFound)?;
        let above = self.reopen(above)?;
        self.remove_if_forced(folder, name)?;
        let (file, name) = (OsStr::from_bytes(file), OsStr::from_bytes(name));
        Ok(rustix::fs::linkat(&above, file, folder, name, AtFlags::empty())?)
    }

    fn remove_if_forced(&self, folder: &OwnedFd, name: &[u8]) -> io::Result<()> {
        if !self.options.force {
            return Ok(());
        }
        match rustix::fs::unlinkat(folder, OsStr::from_bytes(name), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes anything but a directory, and returns whether it is there.
    fn make(&self, folder: &OwnedFd, name: &[u8], found: &Found) -> bool {
        if self.is_cancelled() {
            return false;
        }
        match self.try_make(folder, name, found) {
            Ok(is_there) => {
                add(&self.counts.files, u64::from(is_there));
                is_there
            }
            Err(Error::Cancelled) => false,
            Err(error) => {
                self.fail(&found.path, error);
                false
            }
        }
    }

    fn try_make(&self, folder: &OwnedFd, name: &[u8], found: &Found) -> Result<bool> {
        let metadata = &found.metadata;
        let left_out = |why| {
            (self.observe)(CopyEvent::LeftOut(&found.path, why));
            Ok(false)
        };
        let os_name = OsStr::from_bytes(name);
        let file_type = match metadata.kind {
            FileKind::File => return self.make_file(folder, name, found).map(|()| true),
            FileKind::Link => {
                let target = self.volume.link_target(found.node)?;
                self.remove_if_forced(folder, name).map_err(|error| host("cannot be replaced", error))?;
                let made = rustix::fs::symlinkat(OsStr::from_bytes(&target), folder, os_name);
                made.map_err(|error| host("cannot be made", error.into()))?;
                self.dress_closed(folder, os_name, found)?;
                return Ok(true);
            }
            FileKind::Pipe => FileType::Fifo,
            FileKind::CharacterDevice | FileKind::BlockDevice if !self.options.same_owner => {
                return left_out("devices are made with --same-owner only");
            }
            FileKind::CharacterDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::Socket => return left_out("a socket means nothing without its program"),
            FileKind::Directory | FileKind::Other => return left_out("nothing is known of its kind"),
        };
        self.remove_if_forced(folder, name).map_err(|error| host("cannot be replaced", error))?;
        let (major, minor) = metadata.device.unwrap_or((0, 0));
        let mode = Mode::from_raw_mode(metadata.mode.unwrap_or(0o600) & 0o777);
        let made = rustix::fs::mknodat(folder, os_name, file_type, mode, rustix::fs::makedev(major, minor));
        made.map_err(|error| host("cannot be made", error.into()))?;
        self.dress_closed(folder, os_name, found)?;
        Ok(true)
    }

    fn make_file(&self, folder: &OwnedFd, name: &[u8], found: &Found) -> Result<()> {
        let content = self.volume.open(found.node, None)?;
        self.remove_if_forced(folder, name).map_err(|error| host("cannot be replaced", error))?;
        let os_name = OsStr::from_bytes(name);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = if found.metadata.mode.is_some() { 0o600 } else { 0o666 };
        let open = rustix::fs::openat(folder, os_name, flags, Mode::from_raw_mode(mode));
        let file = File::from(open.map_err(|error| host("cannot be made", error.into()))?);
        let done = self.fill(&file, &content).and_then(|()| {
            for stream in self.volume.streams(found.node)? {
                let path = [found.path.as_slice(), b":", stream.name.as_bytes()].concat();
                (self.observe)(CopyEvent::LeftOut(&path, "this system has no streams; `vhdx cat` writes it"));
            }
            self.dress(file.as_fd(), &found.metadata, found.node, &found.path)
        });
        if done.is_err() {
            // Half a file looks like a whole one.
            let _ = rustix::fs::unlinkat(folder, os_name, AtFlags::empty());
        }
        done
    }

    /// Writes content, and leaves holes where it has holes. Large files are read by several threads, which take turns
    /// in writing: writers of one file wait for each other in the system, too, but at the cost of a core.
    fn fill(&self, file: &File, content: &Content<'_>) -> Result<()> {
        let is_large = content.size() >= LARGE && content.runs().is_some();
        let helpers = if is_large { self.options.threads.min(MOST_THREADS_OF_FILE).saturating_sub(1) } else { 0 };
        let pieces = Pieces { content, next: Mutex::new(Some(0)), writing: Mutex::new(()) };
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..helpers).map(|_| scope.spawn(|| self.fill_pieces(file, &pieces))).collect();
            let mut done = self.fill_pieces(file, &pieces);
            for other in others {
                done = done.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            done
        })?;
        let ends_with_data =
            content.size().checked_sub(1).and_then(|last| content.run_at(last)).is_none_or(|run| run.1);
        if !ends_with_data {
            file.set_len(content.size()).map_err(|error| host("cannot be written", error))?;
        }
        Ok(())
    }

    fn fill_pieces(&self, file: &File, pieces: &Pieces<'_, '_>) -> Result<()> {
        let mut buffer = Vec::new();
        let mut fill = |offset, length, is_data| {
            if is_data {
                buffer.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
                pieces.content.read_at(&mut buffer, offset)?;
                let _turn = pieces.writing.lock().unwrap_or_else(PoisonError::into_inner);
                file.write_all_at(&buffer, offset).map_err(|error| host("cannot be written", error))?;
            }
            self.advance(length)
        };
        while let Some((offset, length, is_data)) = pieces.take() {
            if let Err(error) = fill(offset, length, is_data) {
                pieces.stop();
                return Err(error);
            }
        }
        Ok(())
    }

    fn advance(&self, bytes: u64) -> Result<()> {
        add(&self.counts.bytes, bytes);
        match self.progress.advance(bytes) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                add(&self.counts.cancelled, 1);
                Err(Error::Cancelled)
            }
        }
    }

    fn finish(&self, directory: &Finish) -> Result<()> {
        let open = self.reopen(&directory.way).map_err(|error| host("cannot be opened again", error))?;
        self.dress(open.as_fd(), &directory.metadata, directory.node, &directory.path)
    }

    /// Gives a file or a directory its owner, attributes, mode and times: in this order, since a change of the owner
    /// takes capabilities and the bits of set-user-ID away.
    fn dress(&self, file: BorrowedFd<'_>, metadata: &Metadata, node: Node, path: &[u8]) -> Result<()> {
        let failed = |error: Errno| host("owner, mode or times", error.into());
        if let Some((user, group)) = self.owner(metadata) {
            rustix::fs::fchown(file, Some(user), Some(group)).map_err(failed)?;
        }
        self.attributes(node, path, |name, value| rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()))?;
        if let Some(mode) = self.mode(metadata) {
            rustix::fs::fchmod(file, mode).map_err(failed)?;
        }
        if let Some(times) = timestamps(metadata) {
            rustix::fs::futimens(file, &times).map_err(failed)?;
        }
        Ok(())
    }

    /// As [`Job::dress`], for what must not be opened: links, pipes and devices.
    fn dress_closed(&self, folder: &OwnedFd, name: &OsStr, found: &Found) -> Result<()> {
        let failed = |error: Errno| host("owner, mode or times", error.into());
        let metadata = &found.metadata;
        if let Some((user, group)) = self.owner(metadata) {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(folder, name, Some(user), Some(group), flags).map_err(failed)?;
        }
        // The file itself, whatever gets its name meanwhile.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(failed)?;
        let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
        let set = |name: &OsStr, value: &[u8]| rustix::fs::setxattr(&*itself, name, value, XattrFlags::empty());
        self.attributes(found.node, &found.path, set)?;
        if let Some(mode) = self.mode(metadata).filter(|_| metadata.kind != FileKind::Link) {
            rustix::fs::chmod(&*itself, mode).map_err(failed)?;
        }
        if let Some(times) = timestamps(metadata) {
            rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        Ok(())
    }

    /// The owner that a file gets, if it gets that of the volume.
    fn owner(&self, metadata: &Metadata) -> Option<(Uid, Gid)> {
        let (user, group) = metadata.owner.filter(|_| self.options.same_owner)?;
        Some((Uid::from_raw(user), Gid::from_raw(group)))
    }

    /// The mode that a file gets, if it has one. Rights of an owner are his alone.
    fn mode(&self, metadata: &Metadata) -> Option<Mode> {
        let is_all = self.options.same_owner || metadata.kind == FileKind::Directory;
        metadata.mode.map(|mode| Mode::from_raw_mode(mode & if is_all { 0o7777 } else { 0o777 }))
    }

    /// Sets the extended attributes of a file. File systems refuse those that they do not have, and the content is what
    /// was asked for, so that is no failure.
    fn attributes(&self, node: Node, path: &[u8], set: impl Fn(&OsStr, &[u8]) -> rustix::io::Result<()>) -> Result<()> {
        let mut is_refused = false;
        for attribute in self.volume.attributes(node)? {
            let is_of_users = attribute.name.starts_with(b"user.");
            if is_of_users || self.options.same_owner {
                is_refused |= set(OsStr::from_bytes(&attribute.name), &attribute.value).is_err();
            }
        }
        if is_refused {
            (self.observe)(CopyEvent::LeftOut(path, "an extended attribute that is not possible here"));
        }
        Ok(())
    }
}

/// Content that is handed out to threads piece by piece.
struct Pieces<'p, 'v> {
    content: &'p Content<'v>,
    /// Where the next piece begins; none if there is to be no other.
    next: Mutex<Option<u64>>,
    /// Held by the thread that writes.
    writing: Mutex<()>,
}

impl Pieces<'_, '_> {
    /// The next piece: its offset and length, and whether it is more than a hole. A hole is one piece.
    fn take(&self) -> Option<(u64, u64, bool)> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = (*next)?;
        let (length, is_data) = self.content.run_at(offset)?;
        let length = if is_data { length.min(PIECE) } else { length };
        *next = offset.checked_add(length);
        Some((offset, length, is_data))
    }

    fn stop(&self) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn host(what: &str, error: io::Error) -> Error {
    Error::Host(what.to_owned(), error)
}

fn open_directory(folder: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, OsStr::from_bytes(name), flags, Mode::empty())?)
}

/// Makes a directory, or opens one that is there and no link.
fn make_directory(folder: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(folder, OsStr::from_bytes(name), Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => open_directory(folder, name),
        Err(error) => Err(error.into()),
    }
}

fn timestamps(metadata: &Metadata) -> Option<Timestamps> {
    let modified = metadata.times.modified?;
    let convert = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    let accessed = metadata.times.accessed.unwrap_or(modified);
    Some(Timestamps { last_access: convert(accessed), last_modification: convert(modified) })
}
