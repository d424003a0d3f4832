//! The tree as the kernel asks for it.

use std::ffi::OsStr;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, Request,
};
use rustix::process::{getgid, getuid};

use super::read::{Read, ToKernel};
use super::{Options, map, to_u64};
use crate::Observer;
use crate::tree::{Content, Node, Tree};

/// Time for which the kernel keeps names and attributes: nothing ever changes.
const FOR_LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest request, in bytes: what kernels allow without a setting.
const MAX_REQUEST: u32 = 1 << 20;

/// Size of a block in `statfs`, in bytes.
const BLOCK: u32 = 4096;

/// The unit of `st_blocks`, in bytes.
const SECTOR: u64 = 512;

/// Values of lseek(2) on Linux.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// The files of a mount.
pub(super) struct Files<O> {
    tree: Tree,
    observer: O,
    /// Allocated size of each node, in sectors: a walk through the map of a disk.
    sectors: Vec<OnceLock<u64>>,
    owner: (u32, u32),
    is_direct: bool,
    kernel: ToKernel,
}

impl<O: Observer + Send> Files<O> {
    pub(super) fn new(tree: Tree, options: &Options, observer: O, kernel: ToKernel) -> Self {
        let sectors = tree.nodes().iter().map(|_| OnceLock::new()).collect();
        let owner = (getuid().as_raw(), getgid().as_raw());
        Self { tree, observer, sectors, owner, is_direct: options.is_direct, kernel }
    }

    fn node(&self, inode: INodeNo) -> Option<(usize, &Node)> {
        let number = usize::try_from(inode.0).ok()?.checked_sub(1)?;
        Some((number, self.tree.nodes().get(number)?))
    }

    fn sectors(&self, number: usize, node: &Node) -> u64 {
        let Content::Disk(export) = node.content() else { return node.size().div_ceil(SECTOR) };
        let Some(known) = self.sectors.get(number) else { return 0 };
        if let Some(sectors) = known.get() {
            return *sectors;
        }
        match map::allocated(export) {
            Ok(bytes) => *known.get_or_init(|| bytes.div_ceil(SECTOR)),
            // The map is lost: all that is known is the size.
            Err(error) => {
                self.observer.read_failed(export, &error);
                node.size().div_ceil(SECTOR)
            }
        }
    }

    fn attributes(&self, number: usize, node: &Node) -> FileAttr {
        // The kernel has no times before 1970 here.
        let time = node.modified().max(SystemTime::UNIX_EPOCH);
        let (kind, perm) = match node.content() {
            Content::Directory(_) => (FileType::Directory, 0o555),
            _ => (FileType::RegularFile, 0o444),
        };
        FileAttr {
            ino: inode(number),
            size: node.size(),
            blocks: self.sectors(number, node),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: self.links(node),
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            flags: 0,
            blksize: BLOCK,
        }
    }

    /// Returns the number of links: those of a directory are its name, its `.`, and the `..` of others.
    fn links(&self, node: &Node) -> u32 {
        let Content::Directory(inside) = node.content() else { return 1 };
        let is_directory =
            |number: &&usize| matches!(self.tree.nodes().get(**number).map(Node::content), Some(Content::Directory(_)));
        u32::try_from(inside.iter().filter(is_directory).count()).unwrap_or(u32::MAX).saturating_add(2)
    }
}

fn inode(number: usize) -> INodeNo {
    INodeNo(to_u64(number).saturating_add(1))
}

impl<O: Observer + Send + 'static> Filesystem for Files<O> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Kernels without one of these do without it.
        for wanted in [InitFlags::FUSE_ASYNC_DIO, InitFlags::FUSE_PARALLEL_DIROPS] {
            let _ = config.add_capabilities(wanted);
        }
        // It bounds reads, too.
        let _ = config.set_max_write(MAX_REQUEST);
        if let Err(most) = config.set_max_readahead(MAX_REQUEST) {
            let _ = config.set_max_readahead(most);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.node(parent).and_then(|(number, _)| self.tree.find(number, name.to_str()?));
        match found {
            Some((number, node)) => reply.entry(&FOR_LONG, &self.attributes(number, node), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.node(inode) {
            Some((number, node)) => reply.attr(&FOR_LONG, &self.attributes(number, node)),
            None => reply.error(Errno::ESTALE),
        }
    }

    fn access(&self, _: &Request, _: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        if mask.contains(AccessFlags::W_OK) { reply.error(Errno::EROFS) } else { reply.ok() }
    }

    fn open(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        let how = if self.is_direct { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::FOPEN_KEEP_CACHE };
        reply.opened(FileHandle(0), how | FopenFlags::FOPEN_NOFLUSH);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some((_, node)) = self.node(inode) else { return reply.error(Errno::ESTALE) };
        let end = offset.saturating_add(size.into()).min(node.size());
        let range = offset.min(end)..end;
        match node.content() {
            Content::Directory(_) => reply.error(Errno::EISDIR),
            Content::Disk(export) => Read { export, inode, range }.answer(reply, &self.observer, &self.kernel),
            Content::Bytes(bytes) => {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                reply.data(bytes.get(place(range.start)..place(range.end)).unwrap_or_default());
            }
        }
    }

    fn lseek(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let Some((_, node)) = self.node(inode) else { return reply.error(Errno::ESTALE) };
        let (is_hole, size) = (whence == SEEK_HOLE, node.size());
        if !is_hole && whence != SEEK_DATA {
            return reply.error(Errno::EINVAL);
        }
        let Some(offset) = u64::try_from(offset).ok().filter(|offset| *offset < size) else {
            return reply.error(Errno::ENXIO);
        };
        let found = match node.content() {
            Content::Disk(export) => map::next(export, offset, is_hole).map_err(|error| {
                self.observer.read_failed(export, &error);
                Errno::EIO
            }),
            _ => Ok((!is_hole).then_some(offset)),
        };
        // The end of a file is a hole.
        let found = found.map(|found| found.or(is_hole.then_some(size)).and_then(|at| i64::try_from(at).ok()));
        match found {
            Ok(Some(at)) => reply.offset(at),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, directory: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some((number, node)) = self.node(directory) else { return reply.error(Errno::ESTALE) };
        let Content::Directory(inside) = node.content() else { return reply.error(Errno::ENOTDIR) };
        let names = inside.iter().filter_map(|number| Some((*number, self.tree.nodes().get(*number)?.name())));
        let all = [(number, "."), (node.parent(), "..")].into_iter().chain(names);
        for ((number, name), next) in all.zip(1_u64..).skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            let kind = match self.tree.nodes().get(number).map(Node::content) {
                Some(Content::Directory(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(inode(number), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let bytes = self.tree.nodes().iter().fold(0_u64, |sum, node| sum.saturating_add(node.size()));
        let nodes = to_u64(self.tree.nodes().len());
        reply.statfs(bytes.div_ceil(BLOCK.into()), 0, 0, nodes, 0, BLOCK, 255, BLOCK);
    }
}
