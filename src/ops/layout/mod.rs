//! Detection of the content of a disk by signatures: a partition table, or a file system without one.
//!
//! If a disk without a partition table is mistaken for one that has one, or vice versa, files are searched at the wrong
//! offsets. So both are detected, and both are reported if both exist.

mod partitions;
mod volume;

use crate::disk::Disk;
use crate::error::Result;
use crate::num::{to_u64, to_usize_saturating};

pub use partitions::{Partition, PartitionScheme, PartitionTable};
pub use volume::Volume;

/// Layout of a disk.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskLayout {
    /// The partition table, if there is one.
    pub partition_table: Option<PartitionTable>,
    /// The volume on the disk as a whole, regardless of partitions, if it is recognised.
    pub volume: Option<Volume>,
}

/// Detects the layout of a disk. Reads a few sectors of the disk, and of each partition.
///
/// # Errors
/// Fails if one of these sectors cannot be read.
pub fn detect(disk: &Disk) -> Result<DiskLayout> {
    let whole = Area { disk, start: 0, length: disk.size() };
    let volume = volume::recognise(&whole)?;
    let partition_table = partitions::read(&whole, disk.image().logical_sector_size(), volume)?;
    Ok(DiskLayout { partition_table, volume })
}

/// A part of a disk, for small reads.
#[derive(Clone, Copy)]
struct Area<'d> {
    disk: &'d Disk,
    start: u64,
    length: u64,
}

impl Area<'_> {
    /// Returns `N` bytes at an offset. Returns `None` if the area ends before them.
    fn bytes<const N: usize>(&self, offset: u64) -> Result<Option<[u8; N]>> {
        let end = offset.checked_add(to_u64(N));
        if end.is_none_or(|end| end > self.length) {
            return Ok(None);
        }
        let mut bytes = [0; N];
        let read = self.disk.read_at(&mut bytes, self.start.saturating_add(offset))?;
        Ok((read == N).then_some(bytes))
    }

    /// Returns `length` bytes at an offset, a small number. Returns `None` if the area ends before them.
    fn read(&self, offset: u64, length: u64) -> Result<Option<Vec<u8>>> {
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Ok(None);
        }
        let mut bytes = vec![0; to_usize_saturating(length)];
        let read = self.disk.read_at(&mut bytes, self.start.saturating_add(offset))?;
        Ok((to_u64(read) == length).then_some(bytes))
    }

    /// Returns whether these bytes are at an offset.
    fn has<const N: usize>(&self, offset: u64, bytes: &[u8; N]) -> Result<bool> {
        Ok(self.bytes::<N>(offset)?.as_ref() == Some(bytes))
    }
}
