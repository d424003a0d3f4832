//! File systems and other volumes on a disk or a partition, by their signatures.

use zerocopy::little_endian::U32;

use crate::error::Result;

use super::{Area, bytes, has};

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
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
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
    /// A physical volume of LVM2.
    Lvm,
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
            Self::Xfs => "XFS",
            Self::Btrfs => "Btrfs",
            Self::Ntfs => "NTFS",
            Self::Refs => "ReFS",
            Self::Fat => "FAT",
            Self::Fat32 => "FAT32",
            Self::ExFat => "exFAT",
            Self::Iso9660 => "ISO 9660",
            Self::Lvm => "LVM2",
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

/// Returns the volume in an area. Volumes with the longest signatures, at offsets that no other uses, are checked
/// first.
pub(super) fn recognise(area: &Area<'_>) -> Result<Option<Volume>> {
    const AT_FIXED_PLACES: &[(u64, [u8; 8], Volume)] = &[
        (3, *b"-FVE-FS-", Volume::BitLocker),
        // On a removable medium: a FAT boot sector, with the first half of the GUID
        // 4967d63b-2e29-4ad8-8399-f6a339e3d001.
        (424, *b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a", Volume::BitLocker),
        (3, *b"NTFS    ", Volume::Ntfs),
        (3, *b"ReFS\0\0\0\0", Volume::Refs),
        (3, *b"EXFAT   ", Volume::ExFat),
        (82, *b"FAT32   ", Volume::Fat32),
        (54, *b"FAT12   ", Volume::Fat),
        (54, *b"FAT16   ", Volume::Fat),
        (54, *b"FAT     ", Volume::Fat),
        (0x1_0040, *b"_BHRfS_M", Volume::Btrfs),
    ];
    for (offset, signature, volume) in AT_FIXED_PLACES {
        if has(area, *offset, signature)? {
            return Ok(Some(*volume));
        }
    }
    if has(area, 0, b"LUKS\xba\xbe")? {
        return Ok(Some(Volume::Luks));
    }
    if has(area, 0, b"XFSB")? {
        return Ok(Some(Volume::Xfs));
    }
    // The label is in one of the first four sectors.
    for offset in [512, 0, 1024, 1536] {
        if has(area, offset, b"LABELONE")? && has(area, offset.saturating_add(24), b"LVM2 001")? {
            return Ok(Some(Volume::Lvm));
        }
    }
    if let Some(volume) = ext(area)? {
        return Ok(Some(volume));
    }
    // The signature ends the first page, whose size is the machine's.
    for page in [4096_u64, 8192, 16384, 65536] {
        let offset = page.saturating_sub(10);
        if has(area, offset, b"SWAPSPACE2")? || has(area, offset, b"SWAP-SPACE")? {
            return Ok(Some(Volume::Swap));
        }
    }
    if has(area, 0x8001, b"CD001")? {
        return Ok(Some(Volume::Iso9660));
    }
    Ok(None)
}

/// Returns which ext file system it is, by the features in its superblock.
fn ext(area: &Area<'_>) -> Result<Option<Volume>> {
    const SUPERBLOCK: u64 = 1024;
    const HAS_JOURNAL: u32 = 4;
    // Features of ext3: filetype, recover, and meta_bg; sparse_super, large_file, and btree_dir.
    const INCOMPATIBLE_OF_EXT3: u32 = 0x2 | 0x4 | 0x10;
    const READ_ONLY_OF_EXT3: u32 = 0x1 | 0x2 | 0x4;

    if !has(area, SUPERBLOCK.saturating_add(56), b"\x53\xef")? {
        return Ok(None);
    }
    // Two bytes may match by chance: block size and revision must be valid, too.
    let (Some(block_size), Some(revision)) =
        (bytes::<4>(area, SUPERBLOCK.saturating_add(24))?, bytes::<4>(area, SUPERBLOCK.saturating_add(76))?)
    else {
        return Ok(None);
    };
    if U32::from_bytes(block_size).get() > 6 || U32::from_bytes(revision).get() > 1 {
        return Ok(None);
    }
    let Some(features) = bytes::<12>(area, SUPERBLOCK.saturating_add(92))? else { return Ok(None) };
    let [compatible, incompatible, read_only]: [U32; 3] = zerocopy::transmute!(features);
    let beyond_ext3 = incompatible.get() & !INCOMPATIBLE_OF_EXT3 != 0 || read_only.get() & !READ_ONLY_OF_EXT3 != 0;
    Ok(Some(if beyond_ext3 {
        Volume::Ext4
    } else if compatible.get() & HAS_JOURNAL != 0 {
        Volume::Ext3
    } else {
        Volume::Ext2
    }))
}

crate::error::display_as_str!(Volume);
