//! EROFS.
//!
//! Content that is not compressed is read from where it lies, as its inode says. What is compressed, and directories,
//! are read by the reader, in pieces.

use std::sync::{Arc, Mutex, PoisonError};

use fs_erofs::decompress::{decompress_prefix_with_config_and_padding, decompress_with_config_and_padding};
use fs_erofs::dir::ftype;
use fs_erofs::fs::MAX_PCLUSTER_SIZE;
use fs_erofs::superblock::{EROFS_FEATURE_INCOMPAT_SUPPORTED, EROFS_FEATURE_INCOMPAT_ZERO_PADDING};
use fs_erofs::zmap::{PclusterExtent, Z_EROFS_LCLUSTER_TYPE_HEAD1, Z_EROFS_LCLUSTER_TYPE_HEAD2, ZMap};
use fs_erofs::{DataLayout, Error as ErofsError, Filesystem, Inode, InodeVersion, Superblock};
use vhdx_mmap::ops::Volume as Kind;

use crate::content::{Content, Run};
use crate::device::{Device, call};
use crate::error::{Error, Result};
use crate::time::Time;
use crate::volume::{
    About, Attribute, Entry, FileKind, Metadata, Node, Times, Volume, refuse_stream, require_directory,
};

const KIND: Kind = Kind::Erofs;

/// Most content that is read at once, in bytes.
const PIECE: usize = 1 << 20;

/// Largest directory, in bytes: millions of names. Compressed ones take little of the disk, and no limit of reads holds
/// them.
const LARGEST_DIRECTORY: u64 = 256 << 20;

/// Longest list of places of a file, in bytes.
const LONGEST_MAP: u64 = 16 << 20;

/// Where a chunk lies that is a hole.
const HOLE: u32 = u32::MAX;

/// Feature of a volume whose compressed blocks begin with zeros, as those of all programs since 2019 do.
const ZERO_PADDING: u32 = 1;

/// Longest file that Linux has, in bytes.
const LONGEST_FILE: u64 = (1 << 63) - 1;

pub(crate) struct Erofs {
    fs: Filesystem,
    device: Device,
    about: About,
}

impl std::fmt::Debug for Erofs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Erofs").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Erofs {
    pub(crate) fn open(device: Device, about: About) -> Result<Self> {
        let superblock = guarded(|| fs_erofs::superblock::read(&device))?;
        check(&superblock)?;
        let fs = guarded(|| Filesystem::open(Arc::new(device.clone())))?;
        if superblock.packed_nid != 0 {
            let shared = guarded(|| fs.read_inode(superblock.packed_nid))?;
            if shared.size > u64::from(u32::MAX) {
                return Err(Error::unsupported(KIND, "more than 4 GiB of ends of files that are stored together"));
            }
        }
        let size = u64::from(superblock.blocks).saturating_mul(superblock.block_size());
        let block_size = u32::try_from(superblock.block_size()).unwrap_or(u32::MAX);
        let about = About { size, used: Some(size), block_size, is_experimental: true, ..about };
        Ok(Self { fs, device, about })
    }

    fn inode(&self, node: Node) -> Result<Inode> {
        let inode = guarded(|| self.fs.read_inode(node.0))?;
        if inode.nlink == 0 || inode.size > LONGEST_FILE {
            return Err(Error::damaged(KIND, "a name leads to no file"));
        }
        Ok(inode)
    }

    fn directory(&self, node: Node) -> Result<Inode> {
        let inode = self.inode(node)?;
        require_directory(FileKind::of_mode(u32::from(inode.mode)), node)?;
        if inode.size > LARGEST_DIRECTORY {
            return Err(Error::TooMuchWork);
        }
        Ok(inode)
    }

    /// Returns where the content of a file lies, or none if it is compressed.
    fn runs(&self, inode: &Inode) -> Result<Option<Vec<Run>>> {
        let block = self.fs.superblock().block_size();
        let at = u64::from(inode.raw_u).saturating_mul(block);
        Ok(Some(match inode.format.layout {
            DataLayout::Compression | DataLayout::CompressionLegacy => return Ok(None),
            DataLayout::FlatPlain => vec![Run { start: 0, length: inode.size, at: Some(at) }],
            DataLayout::FlatInline => {
                // The last block, whole or not, follows the inode, in the block of the inode.
                let blocks = inode.size.div_ceil(block).saturating_sub(1);
                let start = blocks.saturating_mul(block);
                let length = inode.size.saturating_sub(start);
                let tail = inode.body_end(self.fs.superblock());
                if tail.checked_rem(block).unwrap_or(0).saturating_add(length) > block {
                    return Err(Error::damaged(KIND, "the end of a file does not fit after its inode"));
                }
                vec![Run { start: 0, length: start, at: Some(at) }, Run { start, length, at: Some(tail) }]
            }
            DataLayout::ChunkBased => self.chunks(inode)?,
        }))
    }

    /// Reads the list of chunks of a file. The reader's own does not align the list to the size of its entries, and
    /// takes something else for it where attributes come before.
    fn chunks(&self, inode: &Inode) -> Result<Vec<Run>> {
        let superblock = self.fs.superblock();
        let info = guarded(|| fs_erofs::chunked::chunk_info(superblock, inode))?;
        let size: u64 = if info.uses_indexes { 8 } else { 4 };
        let length = info.n_chunks.saturating_mul(size);
        if length > LONGEST_MAP {
            return Err(Error::TooMuchWork);
        }
        let start = inode.body_end(superblock).next_multiple_of(size);
        let mut map = vec![0; usize::try_from(length).map_err(|_| Error::TooMuchWork)?];
        guarded(|| Ok(self.device.fill(start, &mut map).map_err(fs_core::Error::Io)?))?;
        let entries = map.chunks_exact(usize::try_from(size).unwrap_or(8));
        // A long entry ends with the place; the device before it is this one, since there is no other.
        let places = entries.map(|entry| entry.last_chunk().map_or(HOLE, |bytes| u32::from_le_bytes(*bytes)));
        let starts = (0_u64..).map(|chunk| chunk.saturating_mul(info.chunk_size));
        let runs = places.zip(starts).filter(|(place, _)| *place != HOLE).map(|(place, start)| Run {
            start,
            length: info.chunk_size.min(inode.size.saturating_sub(start)),
            at: Some(u64::from(place).saturating_mul(superblock.block_size())),
        });
        Ok(runs.collect())
    }
}

/// Content of a file that is compressed.
///
/// The reader looks at the whole list of an extent for each of its blocks, which takes long where an extent has
/// thousands. So extents that are compressed in the usual way are read here, and all else by the reader.
struct Packed<'v> {
    erofs: &'v Erofs,
    inode: Inode,
    /// The extent that was unpacked last, by its start: pieces are asked for in order.
    unpacked: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

impl Packed<'_> {
    fn read(&self, offset: u64, piece: &mut [u8]) -> fs_erofs::Result<()> {
        let device = &self.erofs.device;
        let map = ZMap::open(device, self.erofs.fs.superblock(), &self.inode)?;
        let shared = map.fragment_range(device)?.map(|(_, start, end)| start..end);
        let mut rest = piece;
        let mut offset = offset;
        while !rest.is_empty() {
            let most = match &shared {
                Some(shared) if shared.contains(&offset) => u64::MAX,
                _ => {
                    let extent = map.pcluster_extent(device, offset)?;
                    if let Some(length) = self.read_extent(&map, &extent, offset, rest)? {
                        rest = rest.get_mut(length..).unwrap_or_default();
                        offset = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                        continue;
                    }
                    extent.source_end_byte.saturating_sub(offset)
                }
            };
            let length = usize::try_from(most).unwrap_or(usize::MAX).min(rest.len());
            if length == 0 {
                return Err(ErofsError::BadInode("an extent is empty"));
            }
            let (piece, behind) = rest.split_at_mut(length);
            self.erofs.fs.read_file(&self.inode, offset, piece)?;
            rest = behind;
            offset = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// Reads from an extent, and returns how many bytes; none if it is not compressed in the usual way.
    fn read_extent(
        &self,
        map: &ZMap<'_>,
        extent: &PclusterExtent,
        offset: u64,
        piece: &mut [u8],
    ) -> fs_erofs::Result<Option<usize>> {
        let is_compressed = matches!(extent.cluster_type, Z_EROFS_LCLUSTER_TYPE_HEAD1 | Z_EROFS_LCLUSTER_TYPE_HEAD2);
        let is_beside_inode = extent.is_last_pcluster && map.tail_inline_offset_and_size().is_some();
        let range = extent.source_start_byte..extent.source_end_byte;
        if !is_compressed || is_beside_inode || !range.contains(&offset) {
            return Ok(None);
        }
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = match unpacked.as_ref().filter(|(start, _)| *start == range.start) {
            Some((_, bytes)) => Arc::clone(bytes),
            None => {
                let bytes = Arc::new(self.unpack(map, extent)?);
                *unpacked = Some((range.start, Arc::clone(&bytes)));
                bytes
            }
        };
        drop(unpacked);
        let skipped = usize::try_from(offset.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let from = bytes.get(skipped..).unwrap_or_default();
        let length = from.len().min(piece.len());
        piece.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Ok((length > 0).then_some(length))
    }

    fn unpack(&self, map: &ZMap<'_>, extent: &PclusterExtent) -> fs_erofs::Result<Vec<u8>> {
        let fs = &self.erofs.fs;
        let length = extent.source_end_byte.saturating_sub(extent.source_start_byte);
        if length > MAX_PCLUSTER_SIZE {
            return Err(ErofsError::BadInode("an extent is longer than any can be"));
        }
        let block = fs.superblock().block_size();
        let at = u64::from(extent.pcluster_blkaddr).saturating_mul(block);
        // The last extent may be said to have more blocks than the disk.
        let left = self.erofs.device.range().size().saturating_sub(at);
        let packed = extent.pcluster_block_count.saturating_mul(block).min(left).min(MAX_PCLUSTER_SIZE);
        let size = |size: u64| usize::try_from(size).map_err(|_| ErofsError::BadInode("an extent is too long"));
        let (mut packed, mut bytes) = (vec![0; size(packed)?], vec![0; size(length)?]);
        self.erofs.device.fill(at, &mut packed).map_err(fs_core::Error::Io)?;
        let settings = fs.compr_cfgs().and_then(|settings| settings.lzma.as_ref());
        let is_padded = fs.superblock().feature_incompat & EROFS_FEATURE_INCOMPAT_ZERO_PADDING != 0;
        // An extent that was written for another piece of content is used up to where the two are the same.
        let unpack = match extent.partial_ref {
            true => decompress_prefix_with_config_and_padding,
            false => decompress_with_config_and_padding,
        };
        unpack(map.header_algo(extent.cluster_type)?, settings, is_padded, &packed, &mut bytes)?;
        Ok(bytes)
    }
}

/// Refuses what the reader would call damaged, although it is something that it cannot read.
fn check(superblock: &Superblock) -> Result<()> {
    let unknown = superblock.feature_incompat & !EROFS_FEATURE_INCOMPAT_SUPPORTED;
    if unknown != 0 {
        return Err(Error::unsupported(KIND, format!("features {unknown:#x}")));
    }
    if superblock.extra_devices != 0 {
        return Err(Error::unsupported(KIND, "content on other devices"));
    }
    Ok(())
}

fn guarded<T>(work: impl FnOnce() -> fs_erofs::Result<T>) -> Result<T> {
    call(KIND, convert, work)
}

fn convert(error: ErofsError) -> Error {
    match error {
        ErofsError::UnsupportedLayout(_) => Error::unsupported(KIND, error),
        error => Error::damaged(KIND, error),
    }
}

fn kind_of(kind: u8) -> Option<FileKind> {
    Some(match kind {
        ftype::REG_FILE => FileKind::File,
        ftype::DIR => FileKind::Directory,
        ftype::CHRDEV => FileKind::CharacterDevice,
        ftype::BLKDEV => FileKind::BlockDevice,
        ftype::FIFO => FileKind::Pipe,
        ftype::SOCK => FileKind::Socket,
        ftype::SYMLINK => FileKind::Link,
        _ => return None,
    })
}

impl Volume for Erofs {
    fn about(&self) -> &About {
        &self.about
    }

    fn root(&self) -> Node {
        Node(u64::from(self.fs.superblock().root_nid))
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        const SECOND: u32 = 1_000_000_000;
        let inode = self.inode(node)?;
        let kind = FileKind::of_mode(u32::from(inode.mode));
        let superblock = self.fs.superblock();
        // Short inodes have no time of their own, and Linux shows when the file system was made.
        let (seconds, nanoseconds) = match inode.format.version {
            InodeVersion::Compact => (superblock.build_time, superblock.build_time_nsec),
            InodeVersion::Extended => (inode.mtime, inode.mtime_nsec),
        };
        let seconds = seconds.cast_signed().saturating_add(i64::from(nanoseconds / SECOND));
        let time = Some(Time { seconds, nanoseconds: nanoseconds % SECOND });
        let block = superblock.block_size();
        let allocated = match inode.format.layout {
            DataLayout::Compression | DataLayout::CompressionLegacy => u64::from(inode.raw_u).saturating_mul(block),
            _ => inode.size.div_ceil(block).saturating_mul(block),
        };
        Ok(Metadata {
            allocated: Some(allocated),
            // One time is all that there is, and Linux shows it for all.
            times: Times { modified: time, accessed: time, changed: time, created: None },
            mode: Some(u32::from(inode.mode) & 0o7777),
            owner: Some((inode.uid, inode.gid)),
            links: Some(inode.nlink),
            device: inode.rdev(),
            ..Metadata::new(kind, inode.size)
        })
    }

    fn entries(&self, directory: Node) -> Result<Vec<Entry>> {
        let inode = self.directory(directory)?;
        let found = guarded(|| self.fs.read_dir(&inode))?;
        let named = found.into_iter().filter(|entry| entry.name != b"." && entry.name != b"..");
        Ok(named
            .map(|entry| Entry { name: entry.name, node: Node(entry.nid), kind: kind_of(entry.file_type) })
            .collect())
    }

    fn find(&self, directory: Node, name: &[u8]) -> Result<Option<Node>> {
        let inode = self.directory(directory)?;
        if name == b"." || name == b".." {
            return Ok(None);
        }
        guarded(|| match self.fs.lookup(&inode, name) {
            Ok(found) => Ok(Some(Node(found.nid))),
            Err(ErofsError::NotFound) => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn open(&self, file: Node, stream: Option<&str>) -> Result<Content<'_>> {
        refuse_stream(KIND, stream)?;
        let inode = self.inode(file)?;
        if !inode.is_regular_file() {
            return Err(Error::not_file(file));
        }
        if let Some(runs) = self.runs(&inode)? {
            return Content::of_runs(KIND, inode.size, &self.device, runs);
        }
        // The reader takes such blocks for damaged ones.
        if self.fs.superblock().feature_incompat & ZERO_PADDING == 0 {
            return Err(Error::unsupported(KIND, "compressed files of the first layout (without lz4_0padding)"));
        }
        let size = inode.size;
        let packed = Packed { erofs: self, inode, unpacked: Mutex::default() };
        let read = move |offset: u64, buffer: &mut [u8]| {
            buffer
                .chunks_mut(PIECE)
                .zip((offset..).step_by(PIECE))
                .try_for_each(|(piece, offset)| guarded(|| packed.read(offset, piece)))
        };
        Ok(Content::of_reader(size, Box::new(read)))
    }

    fn link_target(&self, link: Node) -> Result<Vec<u8>> {
        let inode = self.inode(link)?;
        guarded(|| self.fs.read_symlink_target(&inode))
    }

    fn attributes(&self, node: Node) -> Result<Vec<Attribute>> {
        let inode = self.inode(node)?;
        let found = guarded(|| self.fs.xattrs(&inode))?;
        Ok(found.into_iter().map(|(name, value)| Attribute { name, value }).collect())
    }
}
