//! Contents of files of Btrfs.

use std::sync::{Arc, Mutex, PoisonError};

use fs_btrfs::compression::{Compression, MAX_COMPRESSED, ShortDecode, decompress};
use fs_btrfs::fs::EXTENT_DATA_KEY;
use fs_btrfs::inode::Inode;
use fs_btrfs::write::{INODE_NODATACOW, INODE_NODATASUM};
use fs_btrfs::{Error as BtrfsError, Result};

use crate::content::{Content, Run};

use super::tree::{Trees, le64};
use super::{KIND, guarded};

/// Most content that is read and verified at once, in bytes.
const PIECE: usize = 1 << 20;

/// Size of an item up to the content of a file that is in it.
const INLINE_HEADER: usize = 21;

/// Size of an item that says where content lies.
const ITEM: usize = 53;

/// A piece of a file.
struct Extent {
    start: u64,
    length: u64,
    place: Place,
}

enum Place {
    /// The item itself.
    Item(Vec<u8>),
    /// A logical address.
    Plain(u64),
    /// Content that has to be decompressed as a whole; the piece begins at `skip` of what comes out.
    Compressed { logical: u64, packed: u64, unpacked: usize, skip: u64, algorithm: Compression },
}

/// Content of a file, as its extents say.
struct File<'v> {
    trees: &'v Trees,
    extents: Vec<Extent>,
    size: u64,
    has_sums: bool,
    /// What was decompressed last, by the index of its extent: pieces are asked for in order.
    unpacked: Mutex<Option<(usize, Arc<Vec<u8>>)>>,
}

fn damaged(what: &str) -> BtrfsError {
    BtrfsError::BadSuperblock(what.into())
}

/// Opens the content of a file or link.
pub(super) fn open<'v>(trees: &'v Trees, root: u64, inode: &Inode) -> crate::error::Result<Content<'v>> {
    if inode.size > i64::MAX.unsigned_abs() {
        return Err(crate::error::Error::damaged(KIND, "a file is longer than any can be"));
    }
    let sector = trees.superblock().sectorsize;
    let extents = guarded(|| {
        let mut extents = Vec::new();
        trees.for_each_of(root, inode.ino, EXTENT_DATA_KEY, 0, &mut |key, item| {
            extents.extend(decode(key.offset, item, sector)?);
            Ok(key.offset < inode.size)
        })?;
        Ok(extents)
    })?;
    // These places are offsets in the file, so that the file itself says where they lead.
    let runs: Vec<Run> = extents
        .iter()
        .map(|extent: &Extent| Run { start: extent.start, length: extent.length, at: Some(extent.start) })
        .collect();
    let has_sums = inode.flags & (INODE_NODATASUM | INODE_NODATACOW) == 0;
    let file = File { trees, extents, size: inode.size, has_sums, unpacked: Mutex::default() };
    Content::of_changed_runs(
        KIND,
        inode.size,
        u64::MAX,
        runs,
        Box::new(move |offset, buffer| file.read(offset, buffer)),
    )
}

/// Reads an item; none if it is a hole, or was allocated and never written.
fn decode(start: u64, item: &[u8], sector: u32) -> Result<Option<Extent>> {
    let byte = |at: usize| item.get(at).copied().ok_or_else(|| damaged("an extent is cut off"));
    let algorithm = Compression::from_byte(byte(16)?)?;
    if byte(17)? != 0 || byte(18)? != 0 || byte(19)? != 0 {
        return Err(BtrfsError::UnsupportedFeature("content that is encrypted or encoded".into()));
    }
    let unpacked = usize::try_from(le64(item, 8)).map_err(|_| damaged("an extent is too long"))?;
    match byte(20)? {
        0 => {
            let content = item.get(INLINE_HEADER..).unwrap_or_default();
            let bytes = match algorithm {
                Compression::None => content.to_vec(),
                // Blocks of trees have checksums, so content that ends early does so by intent.
                _ => {
                    decompress(algorithm, content, unpacked, usize::try_from(sector).unwrap_or(4096), ShortDecode::Pad)?
                }
            };
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            Ok(Some(Extent { start, length, place: Place::Item(bytes) }))
        }
        kind @ (1 | 2) => {
            if item.len() < ITEM {
                return Err(damaged("an extent is cut off"));
            }
            let (logical, packed, skip, length) = (le64(item, 21), le64(item, 29), le64(item, 37), le64(item, 45));
            let whole =
                [logical, packed, skip, length, start].into_iter().all(|n| n.is_multiple_of(u64::from(sector.max(1))));
            let end = skip.checked_add(length).and_then(|end| usize::try_from(end).ok());
            if !whole || length == 0 {
                return Err(damaged("an extent is not made of whole sectors"));
            }
            if logical == 0 || kind == 2 {
                return Ok(None);
            }
            if end.is_none_or(|end| end > unpacked) || (algorithm != Compression::None && packed > MAX_COMPRESSED) {
                return Err(damaged("a piece of a file lies outside of its extent"));
            }
            let place = match algorithm {
                Compression::None => {
                    Place::Plain(logical.checked_add(skip).ok_or_else(|| damaged("an extent is too far"))?)
                }
                _ => Place::Compressed { logical, packed, unpacked, skip, algorithm },
            };
            Ok(Some(Extent { start, length, place }))
        }
        _ => Err(damaged("an extent has an unknown type")),
    }
}

impl File<'_> {
    /// Reads content that lies in extents, from an offset in the file.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> crate::error::Result<()> {
        let mut rest = buffer;
        let mut offset = offset;
        while !rest.is_empty() {
            let index = self.extents.partition_point(|extent| extent.start.saturating_add(extent.length) <= offset);
            let extent = self.extents.get(index).filter(|extent| extent.start <= offset);
            let extent = extent.ok_or_else(|| crate::error::Error::damaged(KIND, "an extent is missing"))?;
            let skipped = offset.saturating_sub(extent.start);
            let left = usize::try_from(extent.length.saturating_sub(skipped)).unwrap_or(usize::MAX);
            let (piece, behind) = rest.split_at_mut(left.min(PIECE).min(rest.len()));
            guarded(|| self.read_extent(index, extent, skipped, piece))?;
            offset = offset.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            rest = behind;
        }
        Ok(())
    }

    fn read_extent(&self, index: usize, extent: &Extent, skipped: u64, piece: &mut [u8]) -> Result<()> {
        let copy = |from: &[u8], skip: u64, piece: &mut [u8]| {
            let from = usize::try_from(skip).ok().and_then(|skip| from.get(skip..)?.get(..piece.len()));
            piece.copy_from_slice(from.ok_or_else(|| damaged("an extent is shorter than it says"))?);
            Ok(())
        };
        match &extent.place {
            Place::Item(bytes) => copy(bytes, skipped, piece),
            Place::Plain(logical) => self.read_plain(logical.saturating_add(skipped), piece),
            Place::Compressed { skip, .. } => {
                let known = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let bytes = match known.filter(|(known, _)| *known == index) {
                    Some((_, bytes)) => bytes,
                    None => {
                        let bytes = Arc::new(self.unpack(extent)?);
                        *self.unpacked.lock().unwrap_or_else(PoisonError::into_inner) =
                            Some((index, Arc::clone(&bytes)));
                        bytes
                    }
                };
                copy(&bytes, skip.saturating_add(skipped), piece)
            }
        }
    }

    /// Reads content that lies as it is, in whole sectors, since checksums are of these.
    fn read_plain(&self, logical: u64, piece: &mut [u8]) -> Result<()> {
        let sector = u64::from(self.trees.superblock().sectorsize.max(512));
        let before = logical.checked_rem(sector).unwrap_or(0);
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let whole = before.saturating_add(length).div_ceil(sector).saturating_mul(sector);
        let aligned = logical.saturating_sub(before);
        if before == 0 && whole == length {
            return self.trees.read_content(aligned, piece).and_then(|has_sums| self.require_sums(has_sums));
        }
        let mut bytes = vec![0; usize::try_from(whole).map_err(|_| damaged("a piece is too long"))?];
        self.trees.read_content(aligned, &mut bytes).and_then(|has_sums| self.require_sums(has_sums))?;
        let from = usize::try_from(before).ok().and_then(|before| bytes.get(before..)?.get(..piece.len()));
        piece.copy_from_slice(from.ok_or_else(|| damaged("a piece is too short"))?);
        Ok(())
    }

    /// Refuses content without checksums of a file that has them, as Linux does.
    fn require_sums(&self, has_sums: bool) -> Result<()> {
        if self.has_sums && !has_sums { Err(damaged("content has no checksum, which it must have")) } else { Ok(()) }
    }

    fn unpack(&self, extent: &Extent) -> Result<Vec<u8>> {
        let Place::Compressed { logical, packed, unpacked, algorithm, .. } = extent.place else {
            return Err(damaged("an extent is not compressed"));
        };
        let mut bytes = vec![0; usize::try_from(packed).map_err(|_| damaged("an extent is too long"))?];
        let has_sums = self.trees.read_content(logical, &mut bytes)?;
        self.require_sums(has_sums)?;
        // What is compressed ends where the file ended when it was written, and zeros follow. If its checksums are
        // right, it cannot end early by damage.
        let is_last = extent.start.saturating_add(extent.length) >= self.size;
        let short = if has_sums || is_last { ShortDecode::Pad } else { ShortDecode::Refuse };
        let sector = usize::try_from(self.trees.superblock().sectorsize).unwrap_or(4096);
        decompress(algorithm, &bytes, unpacked, sector, short)
    }
}
