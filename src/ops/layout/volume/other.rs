//! All other file systems and volumes.

use md5::{Digest, Md5};
use uuid::Builder;

use crate::error::Result;

use super::super::area::{Area, Fields, has};
use super::{Volume, VolumeDetails};

/// Where a volume has its signature, its UUID and its label.
struct Known {
    volume: Volume,
    /// Offset of the signature.
    offset: u64,
    signature: &'static [u8],
    /// Offset of the UUID.
    uuid: Option<u64>,
    /// Offset and length of the label.
    label: Option<(u64, u64)>,
}

const fn known(volume: Volume, offset: u64, signature: &'static [u8]) -> Known {
    Known { volume, offset, signature, uuid: None, label: None }
}

impl Known {
    const fn uuid(self, at: u64) -> Self {
        Self { uuid: Some(at), ..self }
    }

    const fn label(self, at: u64, length: u64) -> Self {
        Self { label: Some((at, length)), ..self }
    }
}

/// Volumes with a signature at a fixed offset. Without a signature, only the other columns apply.
const KNOWN: &[Known] = &[
    known(Volume::Erofs, 0x400, b"\xe2\xe1\xf5\xe0").uuid(0x430).label(0x440, 16),
    known(Volume::F2fs, 0x400, b"\x10\x20\xf5\xf2").uuid(0x46c),
    known(Volume::Apfs, 0x20, b"NXSB").uuid(0x48),
    known(Volume::HfsPlus, 0x400, b"H+\0\x04"),
    known(Volume::Hfsx, 0x400, b"HX\0\x05"),
    known(Volume::Jfs, 0x8000, b"JFS1").uuid(0x8088).label(0x8098, 16),
    known(Volume::ReiserFs, 0x1_0034, b"ReIsErFs").uuid(0x1_0054).label(0x1_0064, 16),
    known(Volume::ReiserFs, 0x1_0034, b"ReIsEr2Fs").uuid(0x1_0054).label(0x1_0064, 16),
    known(Volume::ReiserFs, 0x1_0034, b"ReIsEr3Fs").uuid(0x1_0054).label(0x1_0064, 16),
    known(Volume::AndroidSuper, 0x1000, b"gDla"),
    known(Volume::AndroidSuper, 0x2000, b"gDla"),
    known(Volume::Iso9660, 0x8001, b"CD001").label(0x8028, 32),
    known(Volume::Ufs, 0x1_055c, b"\x19\x01\x54\x19").label(0x1_02a8, 32),
    known(Volume::Ufs, 0x255c, b"\x54\x19\x01\0").label(0x22a8, 32),
    known(Volume::Vmfs, 0x20_0000, b"\x5e\xf1\xab\x2f").uuid(0x20_0009).label(0x20_001d, 128),
    known(Volume::Vmfs, 0x10_0000, b"\x0d\xd0\x01\xc0"),
    // Found otherwise.
    known(Volume::Bcachefs, 0, b"").uuid(0x1038).label(0x1048, 32),
    known(Volume::Bcache, 0, b"").uuid(0x1028).label(0x1048, 32),
    known(Volume::ExtJournal, 0, b"").uuid(0x468).label(0x478, 16),
    known(Volume::Nilfs2, 0, b"").uuid(0x498).label(0x4a8, 80),
];

pub(super) fn by_signature(area: &Area<'_>) -> Result<Option<Volume>> {
    for known in KNOWN.iter().filter(|known| !known.signature.is_empty()) {
        if is_at(area, known)? {
            return Ok(Some(known.volume));
        }
    }
    let squashfs = Fields::read(area, 0, 96)?;
    if matches!(squashfs.bytes(0, 4), b"hsqs" | b"sqsh") && matches!(squashfs_version(&squashfs), 1..=4) {
        return Ok(Some(Volume::Squashfs));
    }
    Ok(None)
}

/// Superblock of NILFS2 and of HFS.
const SUPERBLOCK: u64 = 1024;

/// Volumes whose signature has two bytes, which may match by chance: other fields must be possible.
pub(super) fn by_short_signature(area: &Area<'_>) -> Result<Option<Volume>> {
    let block = Fields::read(area, SUPERBLOCK, 512)?;
    if block.bytes(6, 2) == b"\x34\x34" && block.le32(0) <= 2 && block.le32(20) <= 6 {
        return Ok(Some(Volume::Nilfs2));
    }
    if is_hfs(&block) {
        // The volume around one of HFS+ holds nothing else.
        let inside = block.bytes(HFS_INSIDE, 2);
        return Ok(Some(match inside {
            b"H+" => Volume::HfsPlus,
            b"HX" => Volume::Hfsx,
            _ => Volume::Hfs,
        }));
    }
    Ok(None)
}

/// Longest name of a volume of HFS, in bytes.
const MOST_OF_HFS_NAME: u8 = 27;

/// Signature and first block of the volume of HFS+ in one of HFS.
const HFS_INSIDE: usize = 124;

/// Returns whether this is the master directory block of HFS: its blocks consist of sectors, and its name fits.
fn is_hfs(block: &Fields) -> bool {
    let unit = block.be32(20);
    block.bytes(0, 2) == b"BD" && unit > 0 && unit.is_multiple_of(512) && block.byte(36) <= MOST_OF_HFS_NAME
}

fn is_at(area: &Area<'_>, known: &Known) -> Result<bool> {
    let length = u64::try_from(known.signature.len()).unwrap_or(0);
    Ok(Fields::read(area, known.offset, length)?.bytes(0, known.signature.len()) == known.signature)
}

/// The major version, in the byte order of the signature.
fn squashfs_version(superblock: &Fields) -> u16 {
    if superblock.bytes(0, 4) == b"hsqs" { superblock.le16(28) } else { superblock.be16(28) }
}

/// Volumes of the table, and those whose serial number is all there is.
pub(super) fn describe_by_table(volume: Volume, area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    match volume {
        Volume::Refs => {
            details.uuid = Some(format!("{:016X}", Fields::read(area, 56, 8)?.le64(0))).filter(|id| id != NO_SERIAL);
        }
        Volume::Squashfs => details.version = Some(squashfs_version(&Fields::read(area, 0, 96)?).to_string()),
        Volume::F2fs => details.label = Fields::read(area, 0x47c, 1024)?.utf16(0, 1024),
        _ => {}
    }
    for known in KNOWN.iter().filter(|known| known.volume == volume) {
        if is_at(area, known)? {
            if let Some(at) = known.uuid {
                details.uuid = Fields::read(area, at, 16)?.uuid(0);
            }
            if let Some((at, length)) = known.label {
                let most = usize::try_from(length).unwrap_or(0);
                details.label = Fields::read(area, at, length)?.text(0, most);
            }
            break;
        }
    }
    Ok(())
}

const NO_SERIAL: &str = "0000000000000000";

/// Offset of the names and values of a label of ZFS, and of the ring of its uberblocks.
const ZFS_PAIRS: u64 = 16 << 10;
const ZFS_UBERBLOCKS: u64 = 128 << 10;

/// Finds ZFS by the first of four labels.
pub(super) fn zfs(area: &Area<'_>) -> Result<Option<Volume>> {
    const UBERBLOCK: u64 = 0x00ba_b10c;

    if has(area, ZFS_PAIRS.saturating_add(20), b"\0\0\0\x07version\0")? {
        return Ok(Some(Volume::Zfs));
    }
    for slot in 0..4_u64 {
        let uberblock = Fields::read(area, ZFS_UBERBLOCKS.saturating_add(slot.saturating_mul(1024)), 8)?;
        if uberblock.le64(0) == UBERBLOCK || uberblock.be64(0) == UBERBLOCK {
            return Ok(Some(Volume::Zfs));
        }
    }
    Ok(None)
}

/// Reads the name of the pool and its GUID, which are among the first pairs (in XDR: RFC 4506).
pub(super) fn describe_zfs(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    const LENGTH: usize = 4096;
    const STRING: u32 = 9;
    const UINT64: u32 = 8;

    let pairs = Fields::read(area, ZFS_PAIRS, 4096)?;
    let mut at = 12_usize;
    while at < LENGTH {
        let length = usize::try_from(pairs.be32(at)).unwrap_or(usize::MAX);
        if length < 16 {
            break;
        }
        let name_length = usize::try_from(pairs.be32(at.saturating_add(8))).unwrap_or(usize::MAX);
        let name = pairs.bytes(at.saturating_add(12), name_length);
        let value = at.saturating_add(12).saturating_add(name_length.checked_next_multiple_of(4).unwrap_or(LENGTH));
        let (kind, content) = (pairs.be32(value), value.saturating_add(8));
        match (name, kind) {
            (b"name", STRING) => {
                let most = usize::try_from(pairs.be32(content)).unwrap_or(usize::MAX).min(256);
                details.label = pairs.text(content.saturating_add(4), most);
            }
            (b"pool_guid", UINT64) => details.uuid = Some(pairs.be64(content).to_string()),
            _ => {}
        }
        at = at.saturating_add(length);
    }
    Ok(())
}

/// Bytes 128 to 255 in the character set of old Macs.
const MAC_ROMAN: &str = "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø\
                         ¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";

/// Returns the UUID that eight bytes of a volume's identity become (RFC 4122, version 3).
fn hfs_uuid(id: [u8; 8]) -> Option<String> {
    const NAME_SPACE: [u8; 16] = *b"\xb3\xe2\x0f\x39\xf2\x92\x11\xd6\x97\xa4\x00\x30\x65\x43\xec\xac";

    let digest = Md5::new_with_prefix(NAME_SPACE).chain_update(id).finalize();
    (id != [0; 8]).then(|| Builder::from_md5_bytes(digest.into()).into_uuid().to_string())
}

/// Reads the identity and the name in the master directory block.
pub(super) fn describe_hfs(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    let block = Fields::read(area, SUPERBLOCK, 512)?;
    details.uuid = hfs_uuid(block.array(116));
    let in_unicode = |byte: &u8| match byte.checked_sub(128) {
        Some(index) => MAC_ROMAN.chars().nth(index.into()).unwrap_or(char::REPLACEMENT_CHARACTER),
        None => char::from(*byte),
    };
    let name: String = block.bytes(37, block.byte(36).into()).iter().map(in_unicode).collect();
    details.label = Some(name).filter(|name| !name.is_empty());
    Ok(())
}

/// Reads the identity in the volume header, and the name of the root folder in the first leaf of the catalog.
pub(super) fn describe_hfs_plus(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    const PARENT_OF_ROOT: u32 = 1;

    let outer = Fields::read(area, SUPERBLOCK, 512)?;
    let start = if is_hfs(&outer) {
        // In a volume of HFS: its first block, and the number of the block in it.
        let first = u64::from(outer.be16(28)).saturating_mul(512);
        let number = u64::from(outer.be16(HFS_INSIDE.saturating_add(2)));
        first.saturating_add(number.saturating_mul(outer.be32(20).into()))
    } else {
        0
    };
    let header = Fields::read(area, start.saturating_add(SUPERBLOCK), 512)?;
    details.uuid = hfs_uuid(header.array(104));
    let block_size = u64::from(header.be32(40));
    // The first extent of the catalog file.
    let catalog = u64::from(header.be32(288)).saturating_mul(block_size);
    if catalog == 0 {
        return Ok(());
    }
    let catalog = catalog.saturating_add(start);
    let tree = Fields::read(area, catalog, 64)?;
    let (leaf, node_size) = (u64::from(tree.be32(24)), u64::from(tree.be16(32)));
    let node = Fields::read(area, catalog.saturating_add(leaf.saturating_mul(node_size)), 1024)?;
    // A leaf, whose first record has a key of length, parent, and name.
    if node.byte(8) == 0xff && node.be32(16) == PARENT_OF_ROOT {
        details.label = node.utf16_be(22, usize::from(node.be16(20).min(255)).saturating_mul(2));
    }
    Ok(())
}
