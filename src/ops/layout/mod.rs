//! Detection of the content of a disk by signatures: a partition table, or a file system without one.
//!
//! If a disk without a partition table is mistaken for one that has one, or vice versa, files are searched at the wrong
//! offsets. So both are detected, and both are reported if both exist.

mod partitions;
mod volume;

use crate::disk::{Disk, DiskRange};
use crate::error::Result;
use crate::num::{to_u64, to_usize_saturating};

pub use partitions::{Partition, PartitionScheme, PartitionTable};
pub use volume::Volume;

/// Layout of a disk.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiskLayout {
    /// The partition table, if there is one.
    pub partition_table: Option<PartitionTable>,
    /// Content of the disk as a whole, regardless of partitions, if it is known.
    #[cfg_attr(feature = "serde", serde(rename = "holds"))]
    pub volume: Option<Volume>,
}

/// Detects the layout of a disk. Reads a few sectors of the disk, and of each partition.
///
/// # Errors
/// Fails if one of these sectors cannot be read.
pub fn detect(disk: &Disk) -> Result<DiskLayout> {
    let whole = DiskRange::whole(disk);
    let volume = volume::recognise(&whole)?;
    let partition_table = partitions::read(&whole, disk.image().logical_sector_size(), volume)?;
    Ok(DiskLayout { partition_table, volume })
}

/// A part of a disk, for small reads.
type Area<'d> = DiskRange<&'d Disk>;

/// `N` bytes at an offset; none if the area ends before them.
fn bytes<const N: usize>(area: &Area<'_>, offset: u64) -> Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    let read = area.read_at(&mut bytes, offset)?;
    Ok((read == N).then_some(bytes))
}

/// `length` bytes at an offset, of which there are not many; none if the area ends before them.
fn read_bytes(area: &Area<'_>, offset: u64, length: u64) -> Result<Option<Vec<u8>>> {
    if offset.checked_add(length).is_none_or(|end| end > area.size()) {
        return Ok(None);
    }
    let mut bytes = vec![0; to_usize_saturating(length)];
    let read = area.read_at(&mut bytes, offset)?;
    Ok((to_u64(read) == length).then_some(bytes))
}

/// Whether these bytes are at an offset.
fn has<const N: usize>(area: &Area<'_>, offset: u64, expected: &[u8; N]) -> Result<bool> {
    Ok(bytes::<N>(area, offset)?.as_ref() == Some(expected))
}
