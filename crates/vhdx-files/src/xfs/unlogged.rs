//! The volume without its log, and values of attributes that no log holds.

use std::ops::Range;
use std::sync::Arc;

use fs_core::BlockRead;
use fs_xfs::{Filesystem, Superblock};

use super::log::{be32, be64};
use crate::device::Device;
use crate::patched::overlay;

/// Header of a group for its inodes: which sector it is, where its lists of deleted inodes are, and its checksum.
const HEADER: u64 = 2;
const MAGIC: [u8; 4] = *b"XAGI";
const LISTS: usize = 40;
const LISTS_LENGTH: usize = 64 * 4;
const CHECKSUM: usize = 312;

/// Checksum of `bytes`, with the field for it taken for zeros.
fn checksum(bytes: &[u8], field: usize) -> u32 {
    let (before, rest) = bytes.split_at(field.min(bytes.len()));
    let sum = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
    crc32c::crc32c_append(sum, rest.get(4..).unwrap_or_default())
}

fn has_checksum(bytes: &[u8], field: usize) -> bool {
    be32(bytes, field).swap_bytes() == checksum(bytes, field)
}

/// A volume whose log is empty, and which has no list of files that were deleted while in use: after a crash, those are
/// there until the log was replayed, and no name leads to these files.
pub(super) struct WithoutLog {
    below: Arc<dyn BlockRead>,
    log: Range<u64>,
    has_checksums: bool,
    sector: u64,
    group: u64,
    groups: u64,
}

impl WithoutLog {
    pub(super) fn new(below: Arc<dyn BlockRead>, superblock: &Superblock) -> Self {
        let block = u64::from(superblock.blocksize);
        let start = superblock.fsblock_offset(superblock.logstart);
        Self {
            below,
            log: start..start.saturating_add(u64::from(superblock.logblocks).saturating_mul(block)),
            has_checksums: superblock.is_v5(),
            sector: u64::from(superblock.sectsize),
            group: u64::from(superblock.agblocks).saturating_mul(block).max(1),
            groups: u64::from(superblock.agcount),
        }
    }

    /// Returns the header of a group without lists of deleted inodes. None if it is no sound one.
    fn header(&self, at: u64) -> fs_core::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; usize::try_from(self.sector).unwrap_or_default()];
        self.below.read_at(at, &mut bytes)?;
        if !bytes.starts_with(&MAGIC) || (self.has_checksums && !has_checksum(&bytes, CHECKSUM)) {
            return Ok(None);
        }
        bytes.iter_mut().skip(LISTS).take(LISTS_LENGTH).for_each(|byte| *byte = 0xff);
        if self.has_checksums {
            let sum = checksum(&bytes, CHECKSUM);
            overlay(&mut bytes, 0, &sum.to_le_bytes(), u64::try_from(CHECKSUM).unwrap_or_default());
        }
        Ok(Some(bytes))
    }
}

impl BlockRead for WithoutLog {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> fs_core::Result<()> {
        let end = offset.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
        if self.log.start <= offset && end <= self.log.end {
            buffer.fill(0);
            return Ok(());
        }
        self.below.read_at(offset, buffer)?;
        let (first, last) = (self.log.start.max(offset), self.log.end.min(end));
        let [first, last] = [first, last].map(|at| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX));
        if let Some(log) = buffer.get_mut(first..last.max(first)) {
            log.fill(0);
        }
        let first = offset.checked_div(self.group).unwrap_or(0);
        let groups = first..end.div_ceil(self.group).min(self.groups);
        for group in groups {
            let at = group.saturating_mul(self.group).saturating_add(self.sector.saturating_mul(HEADER));
            if at < end
                && offset < at.saturating_add(self.sector)
                && let Some(header) = self.header(at)?
            {
                overlay(buffer, offset, &header, at);
            }
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.below.size_bytes()
    }
}

/// The volume after a replay, as reading of attributes needs it.
///
/// Blocks of large values are in no log: Linux writes them to their places first. But the replay of the reader leaves
/// inodes in such places if these were there before, and Linux does not, since it goes through what was freed first. So
/// where the replay has left no block of attributes, and the disk has the block of a value, it is that of the disk.
/// Blocks of version 5 tell by a checksum, and by the place that they name, what they are.
pub(super) struct WithValues {
    pub(super) replayed: Arc<Filesystem>,
    pub(super) device: Device,
}

/// Whether these are the bytes of a node or a leaf of a tree of attributes.
fn is_tree(block: &[u8]) -> bool {
    const FIELD: usize = 12;
    let is_magic = matches!(block.get(8..10), Some([0x3b, 0xee] | [0x3e, 0xbe]));
    is_magic && has_checksum(block, FIELD)
}

/// Whether these are the bytes of a block of a value whose place is `at`.
fn is_value(block: &[u8], at: u64) -> bool {
    const FIELD: usize = 12;
    const PLACE: usize = 40;
    block.starts_with(b"XARM") && be64(block, PLACE) == at / 512 && has_checksum(block, FIELD)
}

impl BlockRead for WithValues {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> fs_core::Result<()> {
        self.replayed.device().read_at(offset, buffer)?;
        if is_tree(buffer) || is_value(buffer, offset) {
            return Ok(());
        }
        let mut stored = vec![0; buffer.len()];
        self.device.fill(offset, &mut stored).map_err(fs_core::Error::Io)?;
        if is_value(&stored, offset) {
            buffer.copy_from_slice(&stored);
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.replayed.device().size_bytes()
    }
}
