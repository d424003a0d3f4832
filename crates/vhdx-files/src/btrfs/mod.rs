//! Btrfs.
//!
//! The reader opens the volume, and walks and verifies its trees; what a tree says about a file is put together here,
//! since the reader goes through all extents of a file for every piece of its content. Checksums of content are
//! verified.
//!
//! The root is the top of the volume (subvolume 5), whatever subvolume is mounted by default, and subvolumes are
//! directories below it. Nodes have the index of the subvolume in their upper 16 bits, and the number of the inode
//! below.
//!
//! What a log tree holds is refused: after `fsync` and a crash it has content that the other trees do not have.

mod content;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fs_btrfs::chunk::DiskKey;
use fs_btrfs::dir::{DIR_INDEX_KEY, DIR_ITEM_KEY, DirEntry, XATTR_ITEM_KEY};
use fs_btrfs::fs::{ROOT_ITEM_KEY, root_item};
use fs_btrfs::inode::{FileType, INODE_ITEM_KEY, Inode, Timestamp};
use fs_btrfs::subvol::{EMPTY_SUBVOL_DIR_OBJECTID, FS_TREE_OBJECTID, is_subvolume_id};
use fs_btrfs::{Error as BtrfsError, Filesystem, Superblock};
use vhdx_mmap::ops::Volume as Kind;

use crate::content::Content;
use crate::device::{Device, call};
use crate::error::{Error, Result};
use crate::options::{VolumeOptions, VolumeWarning};
use crate::patched::Patched;
use crate::time::Time;
use crate::volume::{
    About, Attribute, Entry, FileKind, Metadata, Node, Times, Volume, refuse_stream, require_directory,
};

use tree::{Trees, le64};

const KIND: Kind = Kind::Btrfs;

/// Type of the items of the tree of roots that name the subvolumes of a directory.
const ROOT_REFERENCE_KEY: u8 = 156;

/// Where the superblock is that counts: copies of it do not know of a log tree.
const SUPERBLOCK: u64 = 64 << 10;

/// Size of the superblock, in bytes.
const SUPERBLOCK_SIZE: usize = 4096;

/// Most subvolumes that nodes have room for.
const MOST_SUBVOLUMES: usize = 1 << 16;

/// How many bits of a node are the number of the inode.
const INODE_BITS: u32 = 48;

/// Longest target of a link.
const LONGEST_TARGET: u64 = 4096;

/// A tree of files.
#[derive(Debug)]
struct Subvolume {
    id: u64,
    /// Where its tree begins, as a logical address.
    root: u64,
    /// The inode of its root directory.
    directory: u64,
}

pub(crate) struct Btrfs {
    trees: Trees,
    about: About,
    subvolumes: Vec<Subvolume>,
    /// Index of each subvolume, by its number.
    indexes: BTreeMap<u64, u64>,
    /// The names of subvolumes: the subvolume and the directory that hold one, and the number of the one that it names.
    references: BTreeSet<(u64, u64, u64, Vec<u8>)>,
}

impl std::fmt::Debug for Btrfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Btrfs").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Btrfs {
    pub(crate) fn open(device: Device, about: About, options: &VolumeOptions) -> Result<Self> {
        let without_log = if options.ignores_journal() { guarded(|| without_log(&device))? } else { None };
        let is_log_ignored = without_log.is_some();
        let below: Arc<dyn fs_core::BlockRead> = match without_log {
            Some(bytes) => Arc::new(Patched { device: device.clone(), at: SUPERBLOCK, bytes }),
            None => Arc::new(device.clone()),
        };
        let fs = guarded(|| Filesystem::mount(below))?;
        let superblock = fs.superblock();
        if superblock.bytenr != SUPERBLOCK {
            return Err(Error::unsupported(
                KIND,
                "the superblock is damaged or older than its copies, which know of no log",
            ));
        }
        let about = About {
            size: superblock.total_bytes,
            used: Some(superblock.bytes_used),
            block_size: superblock.sectorsize,
            is_experimental: true,
            warnings: if is_log_ignored { vec![VolumeWarning::JournalIgnored] } else { Vec::new() },
            ..about
        };
        let trees = Trees::new(device, fs)?;
        let mut this =
            Self { trees, about, subvolumes: Vec::new(), indexes: BTreeMap::new(), references: BTreeSet::new() };
        this.read_subvolumes()?;
        Ok(this)
    }

    /// Reads the tree of roots: which subvolumes there are, and where they have names.
    fn read_subvolumes(&mut self) -> Result<()> {
        let mut found: BTreeMap<u64, Subvolume> = BTreeMap::new();
        let references = &mut self.references;
        let trees = &self.trees;
        guarded(|| {
            trees.for_each(trees.superblock().root, &mut |key, item| {
                if key.key_type == ROOT_ITEM_KEY && is_subvolume_id(key.objectid) && item.len() >= root_item::MIN_SIZE {
                    found.entry(key.objectid).or_insert_with(|| Subvolume {
                        id: key.objectid,
                        root: le64(item, root_item::BYTENR),
                        directory: le64(item, root_item::ROOT_DIRID),
                    });
                }
                if key.key_type == ROOT_REFERENCE_KEY {
                    let name = item.get(18..).unwrap_or_default().to_vec();
                    references.insert((key.objectid, le64(item, 0), key.offset, name));
                }
                Ok(found.len() <= MOST_SUBVOLUMES)
            })
        })?;
        if found.len() > MOST_SUBVOLUMES {
            return Err(Error::unsupported(KIND, "more than 65,536 subvolumes"));
        }
        // The top comes first, so that its nodes are its inodes.
        let top =
            found.remove(&FS_TREE_OBJECTID).ok_or_else(|| Error::damaged(KIND, "the tree of files is missing"))?;
        self.subvolumes = std::iter::once(top).chain(found.into_values()).collect();
        self.indexes = self.subvolumes.iter().map(|subvolume| subvolume.id).zip(0..).collect();
        Ok(())
    }

    fn subvolume(&self, node: Node) -> Result<(u64, &Subvolume, u64)> {
        let index = node.0 >> INODE_BITS;
        let subvolume = usize::try_from(index).ok().and_then(|index| self.subvolumes.get(index));
        let subvolume = subvolume.ok_or_else(|| Error::damaged(KIND, "there is no such subvolume"))?;
        Ok((index, subvolume, node.0 & ((1 << INODE_BITS) - 1)))
    }

    fn inode(&self, node: Node) -> Result<(&Subvolume, Inode)> {
        let (_, subvolume, number) = self.subvolume(node)?;
        let inode = guarded(|| {
            let found = self.trees.item(subvolume.root, number, INODE_ITEM_KEY, 0)?;
            Inode::parse(&found.ok_or(BtrfsError::NotFound)?, number)
        })?;
        if inode.nlink == 0 {
            return Err(Error::damaged(KIND, "a name leads to a file that was deleted"));
        }
        Ok((subvolume, inode))
    }

    /// What an entry of a directory names.
    fn node(&self, index: u64, subvolume: &Subvolume, directory: u64, entry: &DirEntry) -> Result<Node> {
        let node = |index: u64, number: u64| match number >> INODE_BITS {
            0 => Ok(Node(index << INODE_BITS | number)),
            _ => Err(Error::unsupported(KIND, "numbers of inodes of 48 bits and more")),
        };
        if entry.is_inode() {
            return node(index, entry.ino);
        }
        if entry.location_type != ROOT_ITEM_KEY {
            return Err(Error::damaged(KIND, "an entry of a directory names neither a file nor a subvolume"));
        }
        // A snapshot holds the names of the subvolumes in what it was taken of, but not these: Linux shows empty
        // directories.
        let reference = (subvolume.id, directory, entry.ino, entry.name.clone());
        match self.indexes.get(&entry.ino).filter(|_| self.references.contains(&reference)) {
            Some(child) => {
                let directory = usize::try_from(*child).ok().and_then(|child| self.subvolumes.get(child));
                node(*child, directory.map_or(EMPTY_SUBVOL_DIR_OBJECTID, |child| child.directory))
            }
            None => node(index, EMPTY_SUBVOL_DIR_OBJECTID),
        }
    }
}

/// Returns the superblock as it would be without a log tree; none if it has none, or is damaged.
fn without_log(device: &Device) -> fs_btrfs::Result<Option<Vec<u8>>> {
    use fs_btrfs::superblock::offsets::{LOG_ROOT, LOG_ROOT_LEVEL};
    let mut bytes = vec![0; SUPERBLOCK_SIZE];
    device.fill(SUPERBLOCK, &mut bytes).map_err(fs_core::Error::Io)?;
    let Ok(superblock) = Superblock::parse(&bytes) else { return Ok(None) };
    if superblock.bytenr != SUPERBLOCK || !superblock.has_dirty_log() {
        return Ok(None);
    }
    for (at, length) in [(LOG_ROOT, 8), (LOG_ROOT_LEVEL, 1)] {
        bytes.iter_mut().skip(at).take(length).for_each(|byte| *byte = 0);
    }
    fs_btrfs::super_write::stamp_checksum(&mut bytes, superblock.csum_type);
    Ok(Some(bytes))
}

fn guarded<T>(work: impl FnOnce() -> fs_btrfs::Result<T>) -> Result<T> {
    call(KIND, convert, work)
}

fn convert(error: BtrfsError) -> Error {
    match error {
        // The reader's words for this speak of its own functions.
        BtrfsError::UnsupportedFeature(what) if what.contains("mount_pool") => {
            Error::unsupported(KIND, "a volume on several disks, which cannot be read from one of them")
        }
        BtrfsError::UnsupportedFeature(what) | BtrfsError::UnsupportedProfile(what) => Error::unsupported(KIND, what),
        BtrfsError::UnsupportedChecksum(_) => Error::unsupported(KIND, error),
        BtrfsError::DirtyLog => Error::unsupported(
            KIND,
            "a log tree, which holds what was written last: have Linux mount a copy of the volume for writing once, \
             or ignore the journal",
        ),
        // The reader's words for every structure that is damaged speak of the superblock.
        BtrfsError::BadSuperblock(what) => Error::damaged(KIND, what),
        error => Error::damaged(KIND, error),
    }
}

const fn time(time: Timestamp) -> Option<Time> {
    Some(Time { seconds: time.sec, nanoseconds: time.nsec })
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

const fn is_empty_directory(node: Node) -> bool {
    node.0 & ((1 << INODE_BITS) - 1) == EMPTY_SUBVOL_DIR_OBJECTID
}

impl Volume for Btrfs {
    fn about(&self) -> &About {
        &self.about
    }

    fn root(&self) -> Node {
        Node(self.subvolumes.first().map_or(0, |top| top.directory))
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        if is_empty_directory(node) {
            let made_up = Metadata::new(FileKind::Directory, 0);
            return Ok(Metadata { mode: Some(0o755), owner: Some((0, 0)), links: Some(1), ..made_up });
        }
        let (_, inode) = self.inode(node)?;
        let kind = FileKind::of_mode(inode.mode);
        let numbers = || {
            let major = u32::try_from(inode.rdev >> 20).unwrap_or(u32::MAX);
            (major, u32::try_from(inode.rdev & 0xf_ffff).unwrap_or(u32::MAX))
        };
        let block = u64::from(self.about.block_size.max(1));
        Ok(Metadata {
            allocated: Some(inode.nbytes.div_ceil(block).saturating_mul(block)),
            times: Times {
                modified: time(inode.mtime),
                accessed: time(inode.atime),
                changed: time(inode.ctime),
                created: time(inode.otime),
            },
            mode: Some(inode.mode & 0o7777),
            owner: Some((inode.uid, inode.gid)),
            links: Some(inode.nlink),
            device: matches!(kind, FileKind::BlockDevice | FileKind::CharacterDevice).then(numbers),
            ..Metadata::new(kind, inode.size)
        })
    }

    fn entries(&self, directory: Node) -> Result<Vec<Entry>> {
        if is_empty_directory(directory) {
            return Ok(Vec::new());
        }
        let (subvolume, inode) = self.inode(directory)?;
        require_directory(FileKind::of_mode(inode.mode), directory)?;
        let (index, ..) = self.subvolume(directory)?;
        let found = guarded(|| {
            let mut entries = Vec::new();
            self.trees.for_each_of(subvolume.root, inode.ino, DIR_INDEX_KEY, 0, &mut |_, item| {
                entries.extend(fs_btrfs::dir::parse_dir_items(item)?);
                Ok(true)
            })?;
            Ok(entries)
        })?;
        found
            .into_iter()
            .map(|entry| {
                let node = self.node(index, subvolume, inode.ino, &entry)?;
                Ok(Entry { node, kind: entry.ftype.map(kind_of), name: entry.name })
            })
            .collect()
    }

    fn find(&self, directory: Node, name: &[u8]) -> Result<Option<Node>> {
        if is_empty_directory(directory) {
            return Ok(None);
        }
        let (subvolume, inode) = self.inode(directory)?;
        require_directory(FileKind::of_mode(inode.mode), directory)?;
        let (index, ..) = self.subvolume(directory)?;
        let hash = fs_btrfs::dir::name_hash(name);
        let found = guarded(|| {
            let item = self.trees.item(subvolume.root, inode.ino, DIR_ITEM_KEY, hash)?;
            item.map_or(Ok(Vec::new()), |item| fs_btrfs::dir::parse_dir_items(&item))
        })?;
        let entry = found.into_iter().find(|entry| entry.name == name);
        entry.map(|entry| self.node(index, subvolume, inode.ino, &entry)).transpose()
    }

    fn open(&self, file: Node, stream: Option<&str>) -> Result<Content<'_>> {
        refuse_stream(KIND, stream)?;
        let (subvolume, inode) = self.inode(file)?;
        if !inode.is_regular_file() {
            return Err(Error::not_file(file));
        }
        content::open(&self.trees, subvolume.root, &inode)
    }

    fn link_target(&self, link: Node) -> Result<Vec<u8>> {
        let (subvolume, inode) = self.inode(link)?;
        if !inode.is_symlink() || inode.size > LONGEST_TARGET {
            return Err(Error::damaged(KIND, "what a name calls a link is no link, or its target is too long"));
        }
        let content = content::open(&self.trees, subvolume.root, &inode)?;
        let mut target = vec![0; usize::try_from(inode.size).unwrap_or_default()];
        content.read_at(&mut target, 0)?;
        Ok(target)
    }

    fn attributes(&self, node: Node) -> Result<Vec<Attribute>> {
        if is_empty_directory(node) {
            return Ok(Vec::new());
        }
        let (subvolume, inode) = self.inode(node)?;
        guarded(|| {
            let mut attributes = Vec::new();
            self.trees.for_each_of(subvolume.root, inode.ino, XATTR_ITEM_KEY, 0, &mut |_: &DiskKey, item| {
                let found = fs_btrfs::xattr::parse_xattr_items(item)?;
                attributes.extend(found.into_iter().map(|found| Attribute { name: found.name, value: found.value }));
                Ok(true)
            })?;
            Ok(attributes)
        })
    }
}
