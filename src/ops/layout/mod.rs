//! Detection of the content of a disk by signatures: a partition table, or a file system without one.
//!
//! If a disk without a partition table is mistaken for one that has one, or vice versa, files are searched at the wrong
//! offsets. So both are detected, and both are reported if both exist.

mod area;
mod partitions;
mod types;
mod usage;
mod volume;

use std::ops::{Deref, Range};

use crate::disk::{Disk, DiskRange};
use crate::error::Result;

pub use partitions::{Partition, PartitionScheme, PartitionTable};
pub use usage::Usage;
pub use volume::{Volume, VolumeDetails};

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
    /// What the volume says about itself; none without a volume.
    pub details: Option<VolumeDetails>,
    /// Why the content of the disk as a whole is unknown, if a sector that is needed cannot be read.
    #[cfg_attr(feature = "serde", serde(rename = "holds-error"))]
    pub volume_error: Option<String>,
}

impl DiskLayout {
    /// Returns the recognised volumes with the range of the disk in which they are, in bytes: that on the disk as a
    /// whole first, whose range has no end, then those on partitions. A range can reach past the end of the disk.
    pub fn volumes_mut(&mut self) -> impl Iterator<Item = (Range<u64>, Volume, &mut VolumeDetails)> {
        let whole = self.volume.zip(self.details.as_mut());
        let whole = whole.map(|(volume, details)| (0..u64::MAX, volume, details));
        let partitions = self.partition_table.iter_mut().flat_map(|table| &mut table.partitions);
        let partitions = partitions.filter_map(|partition| {
            let range = partition.start..partition.start.saturating_add(partition.len);
            Some((range, partition.volume?, partition.details.as_mut()?))
        });
        whole.into_iter().chain(partitions)
    }
}

/// Detects the layout of a disk. Reads a few sectors of the disk, and of each partition.
///
/// # Errors
/// Fails if a sector with a partition table cannot be read. Other sectors that cannot be read are errors in the layout.
pub fn detect(disk: &Disk) -> Result<DiskLayout> {
    let whole = DiskRange::whole(disk);
    let (mut found, volume_error) = volume::recognise(&whole);
    let volume = found.as_ref().map(|found| found.volume);
    let partition_table = partitions::read(&whole, disk.image().logical_sector_size(), volume)?;
    // What a RAID keeps at the end of its member is at the end of the disk, too, if the last partition is the member.
    if found.as_ref().is_some_and(volume::Found::is_at_end) && partition_table.as_ref().is_some_and(has_raid) {
        found = None;
    }
    let (volume, details) = found.map(|found| (found.volume, found.details)).unzip();
    Ok(DiskLayout { partition_table, volume, details, volume_error })
}

/// Recognises the volume on a part of a disk by its signature, and returns it with what it says about itself; none if
/// there is no known one.
///
/// # Errors
/// Fails if none is recognised, and a sector that may have its signature cannot be read.
pub fn detect_volume<D: Deref<Target = Disk>>(range: &DiskRange<D>) -> Result<Option<(Volume, VolumeDetails)>> {
    let start = range.start();
    let area = DiskRange::new(&**range.disk(), start..start.saturating_add(range.size()))?;
    detect_in(&area)
}

/// As [`detect_volume`], but of what lies in several parts of a disk, such as a logical volume: of `size` bytes, which
/// `read_at` reads as [`Disk::read_at`] does.
///
/// # Errors
/// Those of [`detect_volume`], with the errors of `read_at`.
pub fn detect_volume_in(
    size: u64,
    read_at: impl Fn(&mut [u8], u64) -> Result<usize>,
) -> Result<Option<(Volume, VolumeDetails)>> {
    detect_in(&area::ReadArea { size, read: read_at })
}

fn detect_in(area: &area::Area<'_>) -> Result<Option<(Volume, VolumeDetails)>> {
    let volume = volume::probe(area)?;
    Ok(volume.map(|volume| (volume, volume::Found::of(volume, area).details)))
}

fn has_raid(table: &PartitionTable) -> bool {
    table.partitions.iter().any(|partition| partition.volume == Some(Volume::MdRaid))
}
