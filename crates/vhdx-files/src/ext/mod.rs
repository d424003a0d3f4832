//! ext2, ext3 and ext4.

mod journal;

use std::sync::Arc;

use fs_ext4::block_io::BlockDevice;
use fs_ext4::dir::DirBlockIter;
use fs_ext4::extent::{EXT4_EXT_MAX_DEPTH, EXT4_EXT_NODE_SIZE, Extent, ExtentHeader, ExtentIdx};
use fs_ext4::features::Incompat;
use fs_ext4::inode::{Inode, InodeFlags};
use fs_ext4::{Error as ExtError, Filesystem};
use vhdx_mmap::ops::Volume as Kind;

use self::journal::{Opened, Replaced, Replayed};
use crate::content::{Content, Run};
use crate::device::{Device, call, call_within};
use crate::error::{Error, Result};
use crate::options::{VolumeOptions, VolumeWarning};
use crate::time::Time;
use crate::volume::{
    About, Attribute, Entry, FileKind, Metadata, Node, Times, Volume, refuse_stream, require_directory,
};

/// Number of the inode of the root directory.
const ROOT: u64 = 2;

/// `HUGE_FILE_FL`: blocks are counted in blocks of the file system, not in units of 512 bytes.
const HUGE_FILE: u32 = 0x4_0000;

/// What may be read of a journal, in bytes: the largest that `mke2fs` makes has 1 GiB, and is read up to three times.
const LARGEST_JOURNALS: u64 = 4 << 30;

/// Number of pointers to blocks of content in an inode without extents.
const DIRECT: usize = 12;

pub(crate) struct Ext {
    fs: Filesystem,
    device: Device,
    /// The volume with what the journal replaces.
    volume: Replayed,
    replaced: Arc<Replaced>,
    about: About,
}

impl std::fmt::Debug for Ext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ext").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Ext {
    pub(crate) fn open(device: Device, about: About, options: &VolumeOptions) -> Result<Self> {
        let kind = about.kind;
        let open = || journal::open(&device, options.ignores_journal());
        let Opened { fs, volume, replaced, is_ignored } =
            call_within(kind, LARGEST_JOURNALS, |error| convert(kind, error), open)?;
        let block_size = fs.sb.block_size();
        // Kept up to date in the descriptors of groups, while the sum in the superblock may be that of the last mount.
        let free = fs.groups.iter().fold(0_u64, |sum, group| sum.saturating_add(u64::from(group.free_blocks_count)));
        let free = free.saturating_mul(cluster_size(&fs));
        let size = fs.sb.blocks_count.saturating_mul(u64::from(block_size));
        let about = About {
            size,
            used: Some(size.saturating_sub(free)),
            block_size,
            is_replayed: !replaced.is_empty(),
            warnings: warnings(&fs, is_ignored),
            ..about
        };
        Ok(Self { fs, device, volume, replaced, about })
    }

    fn call<T>(&self, work: impl FnOnce() -> fs_ext4::Result<T>) -> Result<T> {
        call(self.about.kind, |error| convert(self.about.kind, error), work)
    }

    /// Reads the inode of a file that has a name.
    fn inode(&self, node: Node) -> fs_ext4::Result<(u32, Inode, Vec<u8>)> {
        let number = u32::try_from(node.0).map_err(|_| ExtError::Stale)?;
        let (inode, raw) = self.fs.read_inode_verified(number)?;
        if inode.links_count == 0 || inode.mode == 0 {
            return Err(ExtError::Corrupt("a name leads to a file that was deleted"));
        }
        Ok((number, inode, raw))
    }

    /// Returns where content lies, in order.
    fn runs(&self, number: u32, inode: &Inode) -> fs_ext4::Result<Vec<Run>> {
        let mut walk = Walk { ext: self, number, generation: inode.generation, runs: Vec::new() };
        if inode.flag_set().contains(InodeFlags::EXTENTS) {
            walk.extents(&inode.block, EXT4_EXT_MAX_DEPTH)?;
            return Ok(walk.runs);
        }
        let block_size = u64::from(self.fs.sb.block_size());
        let blocks = inode.size.div_ceil(block_size);
        let mut start = 0;
        for (index, pointer) in pointers(&inode.block).enumerate() {
            let level = u32::try_from(index.saturating_sub(DIRECT.saturating_sub(1))).unwrap_or(u32::MAX);
            start = walk.pointer(pointer, level, start, blocks)?;
        }
        Ok(walk.runs)
    }

    /// Calls `visit` with the blocks of a directory.
    fn for_each_block(
        &self,
        number: u32,
        inode: &Inode,
        mut visit: impl FnMut(&[u8]) -> fs_ext4::Result<()>,
    ) -> fs_ext4::Result<()> {
        let block_size = u64::from(self.fs.sb.block_size());
        let mut block = vec![0; usize::try_from(block_size).map_err(|_| ExtError::OutOfBounds)?];
        for run in self.runs(number, inode)? {
            let Some(at) = run.at else { continue };
            let within = run.length.min(inode.size.saturating_sub(run.start));
            for index in 0..within.div_ceil(block_size) {
                let offset = at.saturating_add(index.saturating_mul(block_size));
                self.fs.dev.read_at(offset, &mut block)?;
                let csum = &self.fs.csum;
                let is_first = run.start == 0 && index == 0;
                let is_leaf = !inode.flag_set().contains(InodeFlags::INDEX) || !(is_first || is_index(&block));
                let has_tail = csum.enabled && is_leaf && fs_ext4::dir::has_csum_tail(&block);
                if has_tail && !csum.verify_dir_entry_tail(number, inode.generation, &block) {
                    return Err(ExtError::BadChecksum { what: "directory block" });
                }
                visit(&block)?;
            }
        }
        Ok(())
    }
}

/// Whether a block of an indexed directory is a node of the index, whose one entry covers all of it. What is left at
/// its end from the time before can look like the sum of a leaf.
fn is_index(block: &[u8]) -> bool {
    let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
    block.first_chunk() == Some(&[0; 4]) && block.get(4..6) == Some(length.to_le_bytes().as_slice())
}

impl Ext {
    /// Converts a list of access rights from the form that is on the disk to the one that Linux shows.
    fn access_list(&self, stored: &[u8]) -> Result<Vec<u8>> {
        /// Kinds of entries that name a user or a group.
        const NAMED: [u16; 2] = [2, 8];
        let damaged = || Error::damaged(self.about.kind, "a list of access rights is cut off");
        let (version, mut rest) = stored.split_first_chunk().ok_or_else(damaged)?;
        if u32::from_le_bytes(*version) != 1 {
            return Err(Error::unsupported(self.about.kind, "a list of access rights of another version"));
        }
        let mut shown = 2_u32.to_le_bytes().to_vec();
        while let Some((entry, behind)) = rest.split_first_chunk::<4>() {
            shown.extend(entry);
            let [low, high, ..] = *entry;
            rest = behind;
            let mut id = [0xff; 4];
            if NAMED.contains(&u16::from_le_bytes([low, high])) {
                let (named, behind) = rest.split_first_chunk().ok_or_else(damaged)?;
                (id, rest) = (*named, behind);
            }
            shown.extend(id);
        }
        if rest.is_empty() { Ok(shown) } else { Err(damaged()) }
    }
}

/// Walk through the tree of places of a file.
struct Walk<'e> {
    ext: &'e Ext,
    number: u32,
    generation: u32,
    runs: Vec<Run>,
}

impl Walk<'_> {
    fn block_size(&self) -> u64 {
        u64::from(self.ext.fs.sb.block_size())
    }

    fn read(&self, block: u64) -> fs_ext4::Result<Vec<u8>> {
        self.ext.fs.read_block(block)
    }

    fn push(&mut self, block: u64, blocks: u64, at: u64) {
        let scale = |blocks: u64| blocks.saturating_mul(self.block_size());
        let run = Run { start: scale(block), length: scale(blocks), at: Some(scale(at)) };
        self.runs.push(run);
    }

    fn extents(&mut self, node: &[u8], deepest: u16) -> fs_ext4::Result<()> {
        let header = ExtentHeader::parse(node)?;
        if header.depth > deepest {
            return Err(ExtError::CorruptExtentTree("a node is deeper than its parent allows"));
        }
        for index in 1..=usize::from(header.entries) {
            let start = index.saturating_mul(EXT4_EXT_NODE_SIZE);
            let entry = node.get(start..).and_then(|rest| rest.get(..EXT4_EXT_NODE_SIZE));
            let entry = entry.ok_or(ExtError::CorruptExtentTree("more entries than a node has room for"))?;
            if header.is_leaf() {
                let extent = Extent::parse(entry)?;
                if !extent.uninitialized {
                    self.push(u64::from(extent.logical_block), u64::from(extent.length), extent.physical_block);
                }
                continue;
            }
            let block = self.read(ExtentIdx::parse(entry)?.leaf_block)?;
            let csum = &self.ext.fs.csum;
            if csum.enabled && !csum.verify_extent_tail(self.number, self.generation, &block) {
                return Err(ExtError::BadChecksum { what: "extent block" });
            }
            self.extents(&block, header.depth.saturating_sub(1))?;
        }
        Ok(())
    }

    /// Follows a pointer that covers the blocks of the file from `start` on, and returns which block comes behind them.
    fn pointer(&mut self, pointer: u32, level: u32, start: u64, blocks: u64) -> fs_ext4::Result<u64> {
        let per_block = self.block_size() / 4;
        let end = start.saturating_add(per_block.saturating_pow(level));
        if pointer == 0 || start >= blocks {
            return Ok(end);
        }
        if level == 0 {
            self.push(start, 1, u64::from(pointer));
            return Ok(end);
        }
        let block = self.read(u64::from(pointer))?;
        let mut start = start;
        for pointer in pointers(&block) {
            start = self.pointer(pointer, level.saturating_sub(1), start, blocks)?;
        }
        Ok(end)
    }
}

fn pointers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u32::from_le_bytes(*word))
}

/// What the counts of free space count, in bytes: blocks, or clusters of the feature bigalloc.
fn cluster_size(fs: &Filesystem) -> u64 {
    const RO_COMPAT_BIGALLOC: u32 = 0x200;
    const LOG_CLUSTER_SIZE: usize = 0x1c;
    let field = fs.sb.raw.get(LOG_CLUSTER_SIZE..).and_then(|rest| rest.first_chunk::<4>());
    let log = field.map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let has_clusters = fs.sb.feature_ro_compat & RO_COMPAT_BIGALLOC != 0;
    let cluster = has_clusters.then(|| 1024_u64.checked_shl(log)).flatten();
    cluster.unwrap_or_else(|| u64::from(fs.sb.block_size()))
}

/// What the superblock says of the state of the volume. With a journal, it is only marked as in use if that is lost.
fn warnings(fs: &Filesystem, is_journal_ignored: bool) -> Vec<VolumeWarning> {
    const UNMOUNTED: u16 = 1;
    const HAS_ERRORS: u16 = 2;
    let state = fs.sb.state;
    [
        (is_journal_ignored, VolumeWarning::JournalIgnored),
        (state & UNMOUNTED == 0, VolumeWarning::NotUnmounted),
        (state & HAS_ERRORS != 0, VolumeWarning::HasErrors),
    ]
    .into_iter()
    .filter_map(|(is_so, warning)| is_so.then_some(warning))
    .collect()
}

fn convert(kind: Kind, error: ExtError) -> Error {
    match error {
        ExtError::UnsupportedIncompat(_) | ExtError::UnsupportedRoCompat(_) | ExtError::Unsupported(_) => {
            let text = error.to_string();
            Error::unsupported(kind, text.strip_prefix("unsupported: ").unwrap_or(&text))
        }
        error => Error::damaged(kind, error),
    }
}

/// Numbers of a device, which the first pointers hold: the old form in the first, or the new one in the second.
fn device_numbers(block: &[u8]) -> (u32, u32) {
    let mut words = pointers(block);
    match (words.next().unwrap_or(0), words.next().unwrap_or(0)) {
        (0, new) => ((new & 0xf_ff00) >> 8, (new & 0xff) | ((new >> 12) & 0xf_ff00)),
        (old, _) => ((old >> 8) & 0xff, old & 0xff),
    }
}

impl Volume for Ext {
    fn about(&self) -> &About {
        &self.about
    }

    fn root(&self) -> Node {
        Node(ROOT)
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        let (_, inode, _) = self.call(|| self.inode(node))?;
        let mode = u32::from(inode.mode);
        let kind = FileKind::of_mode(mode);
        let unit = if inode.flags & HUGE_FILE != 0 { u64::from(self.about.block_size) } else { 512 };
        // Content in an inode takes no block, and counts as Linux counts it.
        let inline = if inode.has_inline_data() { inode.size.div_ceil(512).saturating_mul(512) } else { 0 };
        let time = |seconds, nanoseconds| Some(Time { seconds, nanoseconds });
        // Inodes of 128 bytes have no time of creation.
        let created = (inode.crtime != 0 || inode.crtime_nsec != 0).then_some(());
        Ok(Metadata {
            allocated: Some(inode.blocks.saturating_mul(unit).saturating_add(inline)),
            times: Times {
                modified: time(inode.mtime, inode.mtime_nsec),
                accessed: time(inode.atime, inode.atime_nsec),
                changed: time(inode.ctime, inode.ctime_nsec),
                created: created.and_then(|()| time(inode.crtime, inode.crtime_nsec)),
            },
            mode: Some(mode & 0o7777),
            owner: Some((inode.uid, inode.gid)),
            links: Some(u32::from(inode.links_count)),
            device: matches!(kind, FileKind::BlockDevice | FileKind::CharacterDevice)
                .then(|| device_numbers(&inode.block)),
            is_encrypted: inode.flag_set().contains(InodeFlags::ENCRYPT),
            ..Metadata::new(kind, inode.size)
        })
    }

    fn entries(&self, directory: Node) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let kind = self.call(|| {
            let (number, inode, _) = self.inode(directory)?;
            let kind = FileKind::of_mode(u32::from(inode.mode));
            if kind != FileKind::Directory {
                return Ok(kind);
            }
            fs_ext4::file_io::refuse_encrypted_names(&inode)?;
            let mut push = |entry: fs_ext4::dir::DirEntry| {
                if entry.name != b"." && entry.name != b".." {
                    entries.push(Entry {
                        kind: kind_of_entry(entry.file_type),
                        node: Node(u64::from(entry.inode)),
                        name: entry.name,
                    });
                }
            };
            if inode.has_inline_data() {
                self.fs.read_dir_ino(number)?.into_iter().for_each(push);
                return Ok(kind);
            }
            let has_kinds = self.fs.sb.feature_incompat & Incompat::FILETYPE.bits() != 0;
            self.for_each_block(number, &inode, |block| {
                DirBlockIter::new(block, has_kinds).try_for_each(|entry| entry.map(&mut push))
            })?;
            Ok(kind)
        })?;
        require_directory(kind, directory)?;
        Ok(entries)
    }

    fn open(&self, file: Node, stream: Option<&str>) -> Result<Content<'_>> {
        let kind = self.about.kind;
        refuse_stream(kind, stream)?;
        let (number, inode, raw) = self.call(|| self.inode(file))?;
        if !inode.is_file() {
            return Err(Error::not_file(file));
        }
        self.call(|| fs_ext4::file_io::refuse_encrypted(&inode))?;
        // A file has at most 2^32 blocks.
        if inode.size > u64::from(self.about.block_size) << 32 {
            return Err(Error::damaged(kind, "a file is longer than any can be"));
        }
        if inode.has_inline_data() {
            let mut bytes = self.call(|| fs_ext4::file_io::read_inline(&self.fs, &inode, &raw))?;
            let size = usize::try_from(inode.size).unwrap_or(usize::MAX);
            if bytes.len() < size {
                return Err(Error::damaged(kind, "a file in an inode is shorter than it says"));
            }
            bytes.truncate(size);
            return Ok(Content::of_bytes(bytes));
        }
        let runs = self.call(|| self.runs(number, &inode))?;
        // A journal can hold content, too, and that is where it lies then.
        if let Some(moved) = self.replaced.moved(&runs) {
            return Content::of_runs(kind, inode.size, &self.device, moved);
        }
        let read = |at: u64, buffer: &mut [u8]| {
            buffer
                .chunks_mut(1 << 20)
                .zip((at..).step_by(1 << 20))
                .try_for_each(|(piece, at)| self.call(|| self.volume.read_at(at, piece)))
        };
        Content::of_changed_runs(kind, inode.size, self.device.range().size(), runs, Box::new(read))
    }

    fn link_target(&self, link: Node) -> Result<Vec<u8>> {
        self.call(|| {
            let (number, inode, raw) = self.inode(link)?;
            if inode.is_symlink() && inode.has_inline_data() {
                let mut target = fs_ext4::file_io::read_inline(&self.fs, &inode, &raw)?;
                target.truncate(usize::try_from(inode.size).unwrap_or(usize::MAX));
                return Ok(target);
            }
            self.fs.read_link(number)
        })
    }

    fn attributes(&self, node: Node) -> Result<Vec<Attribute>> {
        let found = self.call(|| {
            let (_, inode, raw) = self.inode(node)?;
            fs_ext4::xattr::read_all_resolved(&self.fs, &inode, &raw)
        })?;
        // `system.data` is content that found room in the inode.
        let attributes = found.into_iter().filter(|found| found.name != "system.data");
        let shown = attributes.map(|found| {
            let is_list = found.name.starts_with("system.posix_acl_");
            let value = if is_list { self.access_list(&found.value)? } else { found.value };
            Ok(Attribute { name: found.name.into_bytes(), value })
        });
        shown.collect()
    }
}

fn kind_of_entry(kind: fs_ext4::dir::DirEntryType) -> Option<FileKind> {
    use fs_ext4::dir::DirEntryType as Type;
    Some(match kind {
        Type::RegFile => FileKind::File,
        Type::Directory => FileKind::Directory,
        Type::CharDev => FileKind::CharacterDevice,
        Type::BlockDev => FileKind::BlockDevice,
        Type::Fifo => FileKind::Pipe,
        Type::Socket => FileKind::Socket,
        Type::Symlink => FileKind::Link,
        _ => return None,
    })
}
