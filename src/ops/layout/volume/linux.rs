//! File systems and volumes of Linux.

use crate::error::Result;

use super::super::area::{Area, Fields, has};
use super::{Volume, VolumeDetails, xfs_log};

/// Volumes with a signature of several bytes at a fixed offset.
pub(super) fn by_signature(area: &Area<'_>) -> Result<Option<Volume>> {
    const BCACHE: [u8; 16] = *b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";
    const BCACHEFS: [u8; 16] = *b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";
    const BCACHE_SUPERBLOCK: u64 = 4096;

    if has(area, 0x1_0040, b"_BHRfS_M")? {
        return Ok(Some(Volume::Btrfs));
    }
    if has(area, 0, b"LUKS\xba\xbe")? {
        return Ok(Some(Volume::Luks));
    }
    if has(area, 0, b"XFSB")? {
        return Ok(Some(Volume::Xfs));
    }
    let superblock = Fields::read(area, BCACHE_SUPERBLOCK, 104)?;
    match superblock.array(24) {
        BCACHEFS => return Ok(Some(Volume::Bcachefs)),
        // Old file systems have the signature of bcache, whose superblock has its own sector next to its checksum.
        BCACHE if superblock.le64(8) == BCACHE_SUPERBLOCK >> 9 && superblock.le64(16) <= 6 => {
            return Ok(Some(Volume::Bcache));
        }
        BCACHE => return Ok(Some(Volume::Bcachefs)),
        _ => {}
    }
    Ok(None)
}

/// Returns which ext file system it is, by the features in its superblock. A journal on a device of its own has a
/// superblock, too.
pub(super) fn ext(area: &Area<'_>) -> Result<Option<Volume>> {
    const HAS_JOURNAL: u32 = 4;
    const IS_JOURNAL: u32 = 8;
    // Features of ext3: filetype, recover, and meta_bg; sparse_super, large_file, and btree_dir.
    const INCOMPATIBLE_OF_EXT3: u32 = 0x2 | RECOVER | 0x10;
    const READ_ONLY_OF_EXT3: u32 = 0x1 | 0x2 | 0x4;

    let superblock = Fields::read(area, EXT_SUPERBLOCK, 104)?;
    // Two bytes may match by chance: block size and revision must be valid, too.
    if superblock.bytes(56, 2) != b"\x53\xef" || superblock.le32(24) > 6 || superblock.le32(76) > 1 {
        return Ok(None);
    }
    let [compatible, incompatible, read_only] = [92, 96, 100].map(|at| superblock.le32(at));
    let beyond_ext3 = incompatible & !INCOMPATIBLE_OF_EXT3 != 0 || read_only & !READ_ONLY_OF_EXT3 != 0;
    Ok(Some(if incompatible & IS_JOURNAL != 0 {
        Volume::ExtJournal
    } else if beyond_ext3 {
        Volume::Ext4
    } else if compatible & HAS_JOURNAL != 0 {
        Volume::Ext3
    } else {
        Volume::Ext2
    }))
}

const EXT_SUPERBLOCK: u64 = 1024;

/// Feature of ext: the journal has changes.
const RECOVER: u32 = 4;

pub(super) fn describe_ext(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    let superblock = Fields::read(area, EXT_SUPERBLOCK, 264)?;
    details.uuid = superblock.uuid(104);
    details.label = superblock.text(120, 16);
    details.set_recovery(superblock.le32(96) & RECOVER != 0, "-o ro,noload");
    Ok(())
}

pub(super) fn describe_xfs(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    let superblock = Fields::read(area, 0, 264)?;
    details.uuid = superblock.uuid(32);
    details.label = superblock.text(108, 12);
    if let Some(is_dirty) = xfs_log::is_dirty(area, &superblock)? {
        details.set_recovery(is_dirty, "-o ro,norecovery");
    }
    Ok(())
}

pub(super) fn describe_btrfs(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    let superblock = Fields::read(area, 0x1_0000, 0x22b)?;
    details.uuid = superblock.uuid(0x20);
    details.label = superblock.text(0x12b, 256);
    // Where the tree of the log begins.
    details.set_recovery(superblock.le64(0x60) != 0, "-o ro,rescue=nologreplay");
    Ok(())
}

pub(super) fn swap(area: &Area<'_>) -> Result<Option<Volume>> {
    // The signature ends the first page, whose size is the machine's.
    for page in [4096_u64, 8192, 16384, 65536] {
        let offset = page.saturating_sub(10);
        if has(area, offset, b"SWAPSPACE2")? || has(area, offset, b"SWAP-SPACE")? {
            return Ok(Some(Volume::Swap));
        }
    }
    Ok(None)
}

pub(super) fn describe_swap(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    let header = Fields::read(area, 1024, 44)?;
    details.uuid = header.uuid(12);
    details.label = header.text(28, 16);
    Ok(())
}

pub(super) fn describe_luks(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    let header = Fields::read(area, 0, 208)?;
    let version = header.be16(6);
    details.version = Some(version.to_string());
    details.uuid = header.text(168, 40);
    details.label = if version == 2 { header.text(24, 48) } else { None };
    Ok(())
}
