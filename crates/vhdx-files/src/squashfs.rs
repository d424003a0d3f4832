//! Squashfs.
//!
//! Nodes are the numbers of inodes, where the table that leads from these to inodes agrees with the directories;
//! otherwise, and in archives that were made without the table, they are the places of inodes, with the highest bit
//! set.

use std::sync::Arc;

use fs_squashfs::dir::DirEntry;
use fs_squashfs::inode::FileType;
use fs_squashfs::table::data_on_disk_size;
use fs_squashfs::{Error as SquashfsError, Filesystem, Inode};
use vhdx_mmap::ops::Volume as Kind;

use crate::content::{Content, Run};
use crate::device::{Device, call};
use crate::error::{Error, Result};
use crate::time::Time;
use crate::volume::{
    About, Attribute, Entry, FileKind, Metadata, Node, Times, Volume, refuse_stream, require_directory,
};

const KIND: Kind = Kind::Squashfs;

/// Marks nodes that are places of inodes.
const IS_PLACE: u64 = 1 << 63;

/// Most content that is read at once, in bytes.
const PIECE: usize = 1 << 20;

/// Largest directory, in bytes: millions of names. It is compressed, and no limit of reads holds it.
const LARGEST_DIRECTORY: u64 = 256 << 20;

pub(crate) struct Squashfs {
    fs: Filesystem,
    root: Node,
    about: About,
}

impl std::fmt::Debug for Squashfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Squashfs").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Squashfs {
    pub(crate) fn open(device: Device, about: About) -> Result<Self> {
        // Without its cache of the disk, so that every read is counted; what was unpacked is still kept.
        let fs = guarded(|| Filesystem::open_with_cache(Arc::new(device), 0))?;
        let about = About {
            size: fs.sb.bytes_used,
            used: Some(fs.sb.bytes_used),
            block_size: fs.sb.block_size,
            is_experimental: true,
            ..about
        };
        let mut this = Self { fs, root: Node(0), about };
        this.root = guarded(|| {
            let place = this.fs.sb.root_inode_ref;
            let number = this.fs.read_inode(place)?.inode_number;
            this.node(number, place)
        })?;
        Ok(this)
    }

    fn node(&self, number: u32, place: u64) -> fs_squashfs::Result<Node> {
        let known = match self.fs.inode_ref_for_number(number) {
            Err(SquashfsError::NotExportable | SquashfsError::NotFound) => None,
            known => Some(known?),
        };
        Ok(if known == Some(place) { Node(u64::from(number)) } else { Node(IS_PLACE | place) })
    }

    fn inode(&self, node: Node) -> Result<Inode> {
        let inode = guarded(|| match u32::try_from(node.0) {
            Ok(number) => self.fs.read_inode_by_number(number),
            Err(_) => self.fs.read_inode(node.0 & !IS_PLACE),
        })?;
        if inode.nlink == 0 || inode.file_size > i64::MAX.unsigned_abs() {
            return Err(Error::damaged(KIND, "a name leads to no file"));
        }
        Ok(inode)
    }

    fn list(&self, directory: Node) -> Result<Vec<DirEntry>> {
        let inode = self.inode(directory)?;
        require_directory(kind_of(inode.file_type()), directory)?;
        if inode.file_size > LARGEST_DIRECTORY {
            return Err(Error::TooMuchWork);
        }
        guarded(|| self.fs.read_dir(&inode))
    }

    /// Returns the pieces of a file that are no holes. Their places are offsets in the file.
    fn runs(&self, inode: &Inode) -> Vec<Run> {
        let block = u64::from(self.about.block_size);
        let mut runs: Vec<Run> = Vec::new();
        let starts = (0_u64..).map(|index| index.saturating_mul(block));
        for (size, start) in inode.block_sizes.iter().zip(starts) {
            if data_on_disk_size(*size) == 0 {
                continue;
            }
            match runs.last_mut() {
                Some(last) if last.start.saturating_add(last.length) == start => {
                    last.length = last.length.saturating_add(block);
                }
                _ => runs.push(Run { start, length: block, at: Some(start) }),
            }
        }
        let blocks = u64::try_from(inode.block_sizes.len()).unwrap_or(u64::MAX).saturating_mul(block);
        // The end of a file lies with those of others.
        let length = inode.file_size.saturating_sub(blocks);
        runs.push(Run { start: blocks, length, at: Some(blocks) });
        runs
    }
}

fn guarded<T>(work: impl FnOnce() -> fs_squashfs::Result<T>) -> Result<T> {
    call(KIND, convert, work)
}

fn convert(error: SquashfsError) -> Error {
    match error {
        SquashfsError::UnsupportedCompression(_) => Error::unsupported(KIND, error),
        error => Error::damaged(KIND, error),
    }
}

const fn kind_of(kind: FileType) -> FileKind {
    match kind {
        FileType::RegFile => FileKind::File,
        FileType::Dir => FileKind::Directory,
        FileType::Symlink => FileKind::Link,
        FileType::CharDev => FileKind::CharacterDevice,
        FileType::BlockDev => FileKind::BlockDevice,
        FileType::Fifo => FileKind::Pipe,
        FileType::Socket => FileKind::Socket,
        FileType::Unknown => FileKind::Other,
    }
}

impl Volume for Squashfs {
    fn about(&self) -> &About {
        &self.about
    }

    fn root(&self) -> Node {
        self.root
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        let inode = self.inode(node)?;
        let kind = kind_of(inode.file_type());
        let owner = guarded(|| Ok((self.fs.resolve_uid(inode.uid_idx)?, self.fs.resolve_gid(inode.gid_idx)?)))?;
        let time = Some(Time { seconds: i64::from(inode.mtime), nanoseconds: 0 });
        let is_device = matches!(kind, FileKind::BlockDevice | FileKind::CharacterDevice);
        Ok(Metadata {
            // One time is all that there is, and Linux shows it for all.
            times: Times { modified: time, accessed: time, changed: time, created: None },
            mode: Some(u32::from(inode.permissions) & 0o7777),
            owner: Some(owner),
            links: Some(inode.nlink),
            device: is_device.then(|| (inode.rdev_major(), inode.rdev_minor())),
            ..Metadata::new(kind, inode.file_size)
        })
    }

    fn entries(&self, directory: Node) -> Result<Vec<Entry>> {
        let found = self.list(directory)?;
        guarded(|| {
            let entry = |entry: DirEntry| {
                let node = self.node(entry.inode_number, entry.inode_ref)?;
                let kind = Some(kind_of(FileType::from_type_id(entry.type_id)));
                Ok(Entry { name: entry.name, node, kind: kind.filter(|kind| *kind != FileKind::Other) })
            };
            found.into_iter().map(entry).collect()
        })
    }

    fn find(&self, directory: Node, name: &[u8]) -> Result<Option<Node>> {
        let found = self.list(directory)?.into_iter().find(|entry| entry.name == name);
        found.map(|entry| guarded(|| self.node(entry.inode_number, entry.inode_ref))).transpose()
    }

    fn open(&self, file: Node, stream: Option<&str>) -> Result<Content<'_>> {
        refuse_stream(KIND, stream)?;
        let inode = self.inode(file)?;
        if !inode.is_regular_file() {
            return Err(Error::not_file(file));
        }
        let (size, runs) = (inode.file_size, self.runs(&inode));
        let read = move |offset: u64, buffer: &mut [u8]| {
            buffer.chunks_mut(PIECE).zip((offset..).step_by(PIECE)).try_for_each(|(piece, offset)| {
                match guarded(|| self.fs.read_file(&inode, offset, piece))? {
                    read if read == piece.len() => Ok(()),
                    _ => Err(Error::damaged(KIND, "content ends early")),
                }
            })
        };
        Content::of_changed_runs(KIND, size, u64::MAX, runs, Box::new(read))
    }

    fn link_target(&self, link: Node) -> Result<Vec<u8>> {
        let inode = self.inode(link)?;
        guarded(|| self.fs.read_symlink_target(&inode))
    }

    fn attributes(&self, node: Node) -> Result<Vec<Attribute>> {
        let inode = self.inode(node)?;
        let found = guarded(|| self.fs.list_xattrs(&inode))?;
        Ok(found.into_iter().map(|found| Attribute { name: found.name, value: found.value }).collect())
    }
}
