//! File systems and other volumes on a disk or a partition, by their signatures.

mod linux;
mod other;
mod raid;
mod udf;
mod windows;
mod xfs_log;

use crate::error::Result;

use super::area::Area;
use super::usage::Usage;

/// Volume: the content of a disk or a partition as a whole.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Volume {
    /// ext2: an ext file system without journal.
    Ext2,
    /// ext3: with a journal.
    Ext3,
    /// ext4: with features that ext3 does not know.
    Ext4,
    /// The journal of an ext3 or ext4 file system that is on another device.
    ExtJournal,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// F2FS.
    F2fs,
    /// bcachefs.
    Bcachefs,
    /// A device of bcache: a cache, or what is cached.
    Bcache,
    /// EROFS.
    Erofs,
    /// squashfs.
    Squashfs,
    /// JFS.
    Jfs,
    /// `ReiserFS`.
    ReiserFs,
    /// A member of a pool of ZFS.
    Zfs,
    /// UFS of the BSDs.
    Ufs,
    /// NILFS2.
    Nilfs2,
    /// An APFS container.
    Apfs,
    /// HFS, without plus.
    Hfs,
    /// HFS+.
    HfsPlus,
    /// HFSX: HFS+ with names in which case matters.
    Hfsx,
    /// NTFS.
    Ntfs,
    /// ReFS.
    Refs,
    /// FAT12 or FAT16.
    Fat,
    /// FAT32.
    Fat32,
    /// exFAT.
    ExFat,
    /// ISO 9660.
    Iso9660,
    /// UDF.
    Udf,
    /// A member of a RAID of Linux' md driver.
    MdRaid,
    /// A physical volume of LVM2.
    Lvm,
    /// Logical partitions of Android (liblp).
    AndroidSuper,
    /// VMFS of VMware, or one of its physical extents.
    Vmfs,
    /// Linux swap.
    Swap,
    /// A volume encrypted by BitLocker.
    BitLocker,
    /// A volume encrypted by LUKS.
    Luks,
}

impl Volume {
    /// Returns a short name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::ExtJournal => "ext4 external journal",
            Self::Xfs => "XFS",
            Self::Btrfs => "Btrfs",
            Self::F2fs => "F2FS",
            Self::Bcachefs => "bcachefs",
            Self::Bcache => "bcache",
            Self::Erofs => "EROFS",
            Self::Squashfs => "squashfs",
            Self::Jfs => "JFS",
            Self::ReiserFs => "ReiserFS",
            Self::Zfs => "ZFS",
            Self::Ufs => "UFS",
            Self::Nilfs2 => "NILFS2",
            Self::Apfs => "APFS",
            Self::Hfs => "HFS",
            Self::HfsPlus => "HFS+",
            Self::Hfsx => "HFSX",
            Self::Ntfs => "NTFS",
            Self::Refs => "ReFS",
            Self::Fat => "FAT",
            Self::Fat32 => "FAT32",
            Self::ExFat => "exFAT",
            Self::Iso9660 => "ISO 9660",
            Self::Udf => "UDF",
            Self::MdRaid => "md RAID",
            Self::Lvm => "LVM2",
            Self::AndroidSuper => "Android super",
            Self::Vmfs => "VMFS",
            Self::Swap => "swap",
            Self::BitLocker => "BitLocker",
            Self::Luks => "LUKS",
        }
    }

    /// Returns whether its signature is in a boot sector, whose end looks like the end of a partition table.
    pub(super) const fn has_boot_sector(self) -> bool {
        matches!(self, Self::Ntfs | Self::Refs | Self::Fat | Self::Fat32 | Self::ExFat | Self::BitLocker)
    }
}

/// What a volume says about itself. All texts are from the disk, and must be escaped before they are printed.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VolumeDetails {
    /// Name of the volume, the pool (ZFS), or the array (md RAID).
    pub label: Option<String>,
    /// UUID or serial number, in the form in which `blkid` prints it.
    pub uuid: Option<String>,
    /// Version of the format, where it matters to tools: of LUKS, of squashfs, of the superblock of an md RAID.
    pub version: Option<String>,
    /// Name of the volume group of a physical volume of LVM2.
    pub group: Option<String>,
    /// Level of an md RAID, such as `RAID1`.
    pub level: Option<String>,
    /// Names of the logical partitions of Android.
    pub partitions: Vec<String>,
    /// Whether the journal has changes that are not in the file system yet; none if that is unknown.
    pub needs_recovery: Option<bool>,
    /// If the journal has such changes: the options of Linux' `mount` that do not write.
    pub mount_options: Option<String>,
    /// Why some of these values are unknown, if a sector that is needed cannot be read.
    pub error: Option<String>,
    /// How full it is. The library does not know: who reads file systems, such as the crate `vhdx-files`, adds it.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub usage: Option<Usage>,
    /// Why it is unknown how full it is, although it was asked for.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub usage_error: Option<String>,
}

impl VolumeDetails {
    /// Records whether the journal has changes, and the options of `mount` that help then.
    fn set_recovery(&mut self, needs_recovery: bool, mount_options: &str) {
        self.needs_recovery = Some(needs_recovery);
        self.mount_options = needs_recovery.then(|| mount_options.to_owned());
    }
}

/// A volume, and what it says about itself.
pub(super) struct Found {
    pub(super) volume: Volume,
    pub(super) details: VolumeDetails,
}

impl Found {
    pub(super) fn of(volume: Volume, area: &Area<'_>) -> Self {
        let mut details = VolumeDetails::default();
        let read = match volume {
            Volume::Ext2 | Volume::Ext3 | Volume::Ext4 => linux::describe_ext(area, &mut details),
            Volume::Xfs => linux::describe_xfs(area, &mut details),
            Volume::Btrfs => linux::describe_btrfs(area, &mut details),
            Volume::Swap => linux::describe_swap(area, &mut details),
            Volume::Luks => linux::describe_luks(area, &mut details),
            Volume::Ntfs => windows::describe_ntfs(area, &mut details),
            Volume::Fat | Volume::Fat32 => windows::describe_fat(area, &mut details),
            Volume::ExFat => windows::describe_exfat(area, &mut details),
            Volume::MdRaid => raid::describe_md(area, &mut details),
            Volume::Lvm => raid::describe_lvm(area, &mut details),
            Volume::AndroidSuper => raid::describe_super(area, &mut details),
            Volume::Zfs => other::describe_zfs(area, &mut details),
            Volume::Hfs => other::describe_hfs(area, &mut details),
            Volume::HfsPlus | Volume::Hfsx => other::describe_hfs_plus(area, &mut details),
            Volume::Udf => udf::describe(area, &mut details),
            Volume::BitLocker => Ok(()),
            _ => other::describe_by_table(volume, area, &mut details),
        };
        details.error = read.err().map(|error| format!("{error:#}"));
        Self { volume, details }
    }

    /// Whether its signature is at the end of the area.
    pub(super) fn is_at_end(&self) -> bool {
        self.volume == Volume::MdRaid && matches!(self.details.version.as_deref(), Some("0.90" | "1.0"))
    }
}

/// A search for one volume, or for several that are alike.
type Probe = fn(&Area<'_>) -> Result<Option<Volume>>;

/// All searches. What contains other volumes is first, then the longest signatures at offsets that no other uses.
const PROBES: &[Probe] = &[
    raid::md,
    windows::boot_sector,
    linux::by_signature,
    raid::lvm,
    linux::ext,
    linux::swap,
    other::by_signature,
    udf::find,
    other::zfs,
    other::by_short_signature,
];

/// Returns the volume in an area, or why it is unknown. A sector that cannot be read does not hide a volume whose
/// signature is elsewhere.
pub(super) fn recognise(area: &Area<'_>) -> (Option<Found>, Option<String>) {
    match probe(area) {
        Ok(volume) => (volume.map(|volume| Found::of(volume, area)), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    }
}

/// Returns the volume in an area. Fails if none was found, and a sector could not be read that may have its signature.
pub(super) fn probe(area: &Area<'_>) -> Result<Option<Volume>> {
    let mut first_error = None;
    for probe in PROBES {
        match probe(area) {
            Ok(Some(volume)) => return Ok(Some(volume)),
            Ok(None) => {}
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    first_error.map_or(Ok(None), Err)
}

crate::error::display_as_str!(Volume);
