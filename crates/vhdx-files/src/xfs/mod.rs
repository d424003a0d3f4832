//! XFS.
//!
//! A dirty log is replayed by the reader, into memory. [`log`] goes through the same log before, and refuses by name
//! what that replay leaves out or would apply in another order than Linux does.
//!
//! The log of XFS never holds content of regular files: it holds buffers of metadata, inodes and intents, and even
//! values of extended attributes that have blocks of their own are written before the log names them. So content is
//! always read from the disk itself; only structures are read through what was replayed. (Targets of long links are
//! buffers of metadata, and read as structures.)

mod log;
mod unlogged;

use std::collections::HashMap;
use std::sync::Arc;

use fs_core::BlockRead;
use fs_xfs::dir::DirEntry;
use fs_xfs::extent::Extent;
use fs_xfs::inode::{FileType, Format, Inode, Timestamp};
use fs_xfs::log::{LogState, inspect};
use fs_xfs::superblock::version_flags::BORGBIT;
use fs_xfs::{Error as XfsError, Filesystem, Superblock};
use vhdx_mmap::ops::Volume as Kind;

use self::unlogged::{WithValues, WithoutLog};
use crate::content::{Content, Run};
use crate::device::{Device, call, call_within};
use crate::error::{Error, Result};
use crate::options::{VolumeOptions, VolumeWarning};
use crate::time::Time;
use crate::volume::{
    About, Attribute, Entry, FileKind, Metadata, Node, Times, Volume, find_among, refuse_stream, require_directory,
};

const KIND: Kind = Kind::Xfs;

/// Where in the space of a directory its index begins, in bytes; names come before.
const INDEX_OFFSET: u64 = 1 << 35;

/// Longest file that Linux has, in bytes.
const LONGEST_FILE: u64 = (1 << 63) - 1;

/// How many times the log is read at most: for its newest record, by the checks, and twice by the replay, which also
/// reads the structures that it changes.
const READS_OF_LOG: u64 = 8;

pub(crate) struct Xfs {
    fs: Arc<Filesystem>,
    /// As `fs`, with large values of attributes as the disk has them; only after a replay.
    with_values: Option<Filesystem>,
    device: Device,
    about: About,
    /// Device numbers from the log, by inode.
    device_numbers: HashMap<u64, u32>,
}

impl std::fmt::Debug for Xfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Xfs").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Xfs {
    pub(crate) fn open(device: Device, about: About, options: &VolumeOptions) -> Result<Self> {
        let superblock = |device: &dyn fs_core::BlockRead| {
            let mut bytes = vec![0; 4096];
            device.read_at(0, &mut bytes)?;
            Superblock::parse(&bytes)
        };
        let before = guarded(|| superblock(&device))?;
        let log_size = u64::from(before.logblocks).saturating_mul(u64::from(before.blocksize));
        let most = log_size.saturating_mul(READS_OF_LOG);
        let mut warnings = Vec::new();
        let mut below: Arc<dyn BlockRead> = Arc::new(device.clone());
        if options.ignores_journal() {
            let state = call_within(KIND, most, convert, || inspect(&device, &before));
            match state {
                Ok(LogState::Empty | LogState::CleanlyUnmounted) => {}
                // Of a log that cannot be read, nothing says that it is empty.
                Ok(LogState::NeedsReplay) | Err(Error::FileSystem { .. } | Error::TooMuchWork) => {
                    warnings.push(VolumeWarning::JournalIgnored);
                }
                Err(error) => return Err(error),
            }
            below = Arc::new(WithoutLog::new(below, &before));
        }
        let fs = call_within(KIND, most, convert, || Filesystem::mount_with_cache(below, 0))?;
        let fs = Arc::new(fs);
        let device_numbers = if fs.was_replayed() {
            let log = log::Log::new(&device, &before);
            call_within(KIND, most, |error| error, || log.check())?
        } else {
            HashMap::new()
        };
        let superblock = guarded(|| superblock(fs.device()))?;
        if fs.was_replayed() && !before.is_v5() {
            // Without checksums, nothing would tell that the replay is not that of Linux.
            return Err(Error::unsupported(KIND, "the log was not replayed: it is of version 4"));
        }
        // What the reader took from the superblock before the replay. A file system that was enlarged changes it.
        let shape = |superblock: &Superblock| {
            let features = (superblock.features_incompat, superblock.has_ftype());
            (superblock.agcount, superblock.dblocks, superblock.dirblklog, superblock.rootino, features)
        };
        if shape(&superblock) != shape(&before) {
            return Err(Error::unsupported(KIND, "the log was not replayed: it changes the size of the file system"));
        }
        let with_values = if fs.was_replayed() {
            let replayed = WithValues { replayed: Arc::clone(&fs), device: device.clone() };
            let below = WithoutLog::new(Arc::new(replayed), &superblock);
            Some(guarded(|| Filesystem::mount_with_cache(Arc::new(below), 0))?)
        } else {
            None
        };
        let free = guarded(|| free_blocks(&fs, &superblock))?;
        let block = u64::from(superblock.blocksize);
        let size = superblock.dblocks.saturating_mul(block);
        let about = About {
            // The log may hold a new one.
            label: superblock.fname.clone(),
            size,
            used: Some(size.saturating_sub(free.saturating_mul(block))),
            block_size: superblock.blocksize,
            is_replayed: fs.was_replayed(),
            ignores_case: superblock.versionnum & BORGBIT != 0,
            warnings,
            ..about
        };
        Ok(Self { fs, with_values, device, about, device_numbers })
    }

    /// Reads the inode of a file that has a name.
    fn inode(&self, node: Node) -> fs_xfs::Result<(Inode, Vec<u8>)> {
        let (mut inode, raw) = self.fs.read_inode_raw(node.0)?;
        if inode.version == 1 {
            // The oldest inodes count their names in 16 bits elsewhere.
            inode.nlink = raw
                .get(6..8)
                .and_then(|bytes| bytes.first_chunk())
                .map_or(0, |b| u32::from(u16::from_le_bytes(*b).swap_bytes()));
        }
        if inode.mode == 0 || inode.nlink == 0 {
            return Err(XfsError::BadSuperblock(format!("a name leads to the deleted file {node}")));
        }
        Ok((inode, raw))
    }

    fn run(&self, extent: &Extent) -> Run {
        let block = u64::from(self.about.block_size);
        Run {
            start: extent.startoff.saturating_mul(block),
            length: extent.blockcount.saturating_mul(block),
            at: Some(self.fs.superblock().fsblock_offset(extent.startblock)),
        }
    }

    /// Reads the entries of a directory. Its blocks may be larger than those of the file system, and then lie in
    /// several pieces, which the reader's own listing does not expect.
    fn list(&self, inode: &Inode, raw: &[u8]) -> fs_xfs::Result<Vec<DirEntry>> {
        let superblock = self.fs.superblock();
        if inode.format == Format::Local {
            let (start, end) = inode.data_fork_range(usize::from(superblock.inodesize));
            let fork = raw.get(start..end).unwrap_or_default();
            return Ok(fs_xfs::dir::read_short_form(inode, fork, superblock)?.entries);
        }
        let size = u64::from(superblock.dirblocksize());
        let damaged = || XfsError::BadSuperblock(format!("directory {}: its blocks are not whole", inode.ino));
        let mut entries = Vec::new();
        let mut block: Vec<u8> = Vec::new();
        let mut first = 0;
        let mut next = 0;
        for extent in self.fs.data_extents(inode, raw)? {
            let run = self.run(&extent);
            if run.start >= INDEX_OFFSET {
                break;
            }
            if extent.unwritten || (!block.is_empty() && run.start != next) {
                return Err(damaged());
            }
            let mut done = 0;
            while done < run.length {
                let at = run.at.unwrap_or_default().saturating_add(done);
                if block.is_empty() {
                    if !run.start.saturating_add(done).is_multiple_of(size) {
                        return Err(damaged());
                    }
                    first = at;
                }
                let have = u64::try_from(block.len()).unwrap_or(u64::MAX);
                let length = size.saturating_sub(have).min(run.length.saturating_sub(done));
                let end = have.saturating_add(length);
                block.resize(usize::try_from(end).map_err(|_| damaged())?, 0);
                let piece = usize::try_from(have).ok().and_then(|have| block.get_mut(have..)).ok_or_else(damaged)?;
                self.fs.device().read_at(at, piece)?;
                done = done.saturating_add(length);
                if end == size {
                    fs_xfs::dir::verify_data_block(&block, superblock, first / 512, inode.ino)?;
                    entries.extend(fs_xfs::dir::parse_data_block(&block, superblock)?);
                    block.clear();
                }
            }
            next = run.start.saturating_add(run.length);
        }
        if block.is_empty() { Ok(entries) } else { Err(damaged()) }
    }
}

/// Counts free blocks as Linux does: after an unclean end the sum in the superblock is that of the last sync, and the
/// headers of groups say it.
fn free_blocks(fs: &Filesystem, superblock: &Superblock) -> fs_xfs::Result<u64> {
    if !fs.was_replayed() {
        return Ok(superblock.fdblocks);
    }
    (0..superblock.agcount).try_fold(0_u64, |sum, group| {
        let header = fs.read_agf(group)?;
        let counts = [header.freeblks, header.flcount, header.btreeblks];
        Ok(counts.into_iter().fold(sum, |sum, count| sum.saturating_add(u64::from(count))))
    })
}

fn guarded<T>(work: impl FnOnce() -> fs_xfs::Result<T>) -> Result<T> {
    call(KIND, convert, work)
}

fn convert(error: XfsError) -> Error {
    match error {
        XfsError::UnsupportedFeature(what) => Error::unsupported(KIND, what),
        // The reader's words for every structure that is damaged speak of the superblock.
        XfsError::BadSuperblock(what) => Error::damaged(KIND, what),
        XfsError::DirtyLog => {
            Error::unsupported(KIND, "the log was not replayed: files were deleted while in use, and no log says so")
        }
        error => Error::damaged(KIND, error),
    }
}

/// A time, with its nanoseconds below a second, which hostile ones are not.
fn time(time: Timestamp) -> Option<Time> {
    const SECOND: u32 = 1_000_000_000;
    let seconds = time.sec.saturating_add(i64::from(time.nsec / SECOND));
    Some(Time { seconds, nanoseconds: time.nsec % SECOND })
}

const fn kind_of(kind: FileType) -> FileKind {
    match kind {
        FileType::Regular => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Link,
        FileType::CharDevice => FileKind::CharacterDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Fifo => FileKind::Pipe,
        FileType::Socket => FileKind::Socket,
    }
}

/// Device numbers as XFS has them: 14 bits of the major one, 18 of the minor one.
const fn device_numbers(packed: u32) -> (u32, u32) {
    ((packed >> 18) & 0x3fff, packed & 0x3_ffff)
}

impl Volume for Xfs {
    fn about(&self) -> &About {
        &self.about
    }

    fn root(&self) -> Node {
        Node(self.fs.superblock().rootino)
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        let (inode, raw) = guarded(|| self.inode(node))?;
        let mode = u32::from(inode.mode);
        let kind = FileKind::of_mode(mode);
        let packed = || {
            let logged = self.device_numbers.get(&node.0).copied();
            let stored = raw.get(inode.data_fork_offset()..).and_then(|fork| fork.first_chunk());
            logged.or_else(|| stored.map(|bytes| u32::from_le_bytes(*bytes).swap_bytes()))
        };
        let is_device = matches!(kind, FileKind::BlockDevice | FileKind::CharacterDevice);
        Ok(Metadata {
            allocated: Some(inode.nblocks.saturating_mul(u64::from(self.about.block_size))),
            times: Times {
                modified: time(inode.mtime),
                accessed: time(inode.atime),
                changed: time(inode.ctime),
                created: (inode.version == 3).then(|| time(inode.crtime)).flatten(),
            },
            mode: Some(mode & 0o7777),
            owner: Some((inode.uid, inode.gid)),
            links: Some(inode.nlink),
            device: is_device.then(packed).flatten().map(device_numbers),
            ..Metadata::new(kind, inode.size)
        })
    }

    fn entries(&self, directory: Node) -> Result<Vec<Entry>> {
        let (inode, raw) = guarded(|| self.inode(directory))?;
        require_directory(FileKind::of_mode(u32::from(inode.mode)), directory)?;
        let found = guarded(|| self.list(&inode, &raw))?;
        let named = found.into_iter().filter(|entry| entry.name != b"." && entry.name != b"..");
        Ok(named
            .map(|entry| Entry { name: entry.name, node: Node(entry.ino), kind: entry.ftype.map(kind_of) })
            .collect())
    }

    fn find(&self, directory: Node, name: &[u8]) -> Result<Option<Node>> {
        let (inode, raw) = guarded(|| self.inode(directory))?;
        require_directory(FileKind::of_mode(u32::from(inode.mode)), directory)?;
        if self.about.ignores_case {
            return Ok(find_among(self.entries(directory)?, name, true));
        }
        guarded(|| match self.fs.lookup(&inode, &raw, name) {
            Ok(found) => Ok(Some(Node(found.ino))),
            Err(XfsError::NotFound) => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn open(&self, file: Node, stream: Option<&str>) -> Result<Content<'_>> {
        refuse_stream(KIND, stream)?;
        let (inode, raw) = guarded(|| self.inode(file))?;
        if !inode.is_regular_file() {
            return Err(Error::not_file(file));
        }
        if inode.size > LONGEST_FILE {
            return Err(Error::damaged(KIND, "a file is longer than any can be"));
        }
        let extents = guarded(|| self.fs.data_extents(&inode, &raw))?;
        // What was allocated and never written reads as zeros.
        let written = extents.iter().filter(|extent| !extent.unwritten).map(|extent| self.run(extent));
        Content::of_runs(KIND, inode.size, &self.device, written)
    }

    fn link_target(&self, link: Node) -> Result<Vec<u8>> {
        guarded(|| {
            let (inode, raw) = self.inode(link)?;
            self.fs.read_link(&inode, &raw)
        })
    }

    fn attributes(&self, node: Node) -> Result<Vec<Attribute>> {
        let (inode, raw) = guarded(|| self.inode(node))?;
        let fs = self.with_values.as_ref().unwrap_or(&self.fs);
        let found = guarded(|| fs.list_xattrs(&inode, &raw))?;
        Ok(found.into_iter().map(|found| Attribute { name: found.name, value: found.value }).collect())
    }
}
