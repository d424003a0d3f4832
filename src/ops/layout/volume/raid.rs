//! Volumes that contain others: md RAID, LVM2, and the logical partitions of Android.

use uuid::Uuid;
use zerocopy::big_endian::U32;

use crate::error::Result;

use super::super::area::{Area, Fields, has};
use super::{Volume, VolumeDetails};

pub(super) fn md(area: &Area<'_>) -> Result<Option<Volume>> {
    Ok(find_md(area)?.map(|_| Volume::MdRaid))
}

/// Finds the superblock of an md RAID, and the version of its format.
fn find_md(area: &Area<'_>) -> Result<Option<(Fields, &'static str)>> {
    const MAGIC: u32 = 0xa92b_4efc;

    let size = area.size();
    // 64 KiB to 128 KiB before the end, and 8 KiB to 12 KiB before it.
    let at_end_0 = (size & !0xffff).checked_sub(0x1_0000);
    let at_end_1 = size.checked_sub(0x2000).map(|offset| offset & !0xfff);
    let places = [(Some(0x1000), "1.2"), (Some(0), "1.1"), (at_end_1, "1.0"), (at_end_0, "0.90")];
    for (offset, version) in places {
        let Some(offset) = offset else { continue };
        let superblock = Fields::read(area, offset, 256)?;
        let major = if version == "0.90" { 0 } else { 1 };
        if superblock.le32(0) == MAGIC && superblock.le32(4) == major {
            return Ok(Some((superblock, version)));
        }
    }
    Ok(None)
}

pub(super) fn describe_md(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    let Some((superblock, version)) = find_md(area)? else { return Ok(()) };
    let level = if version == "0.90" {
        let words = [20, 52, 56, 60].map(|at| U32::new(superblock.le32(at)).to_bytes());
        details.uuid = Some(Uuid::from_bytes(words.as_flattened().try_into().unwrap_or_default()).to_string());
        superblock.le32(28)
    } else {
        details.uuid = superblock.uuid(16);
        details.label = superblock.text(32, 32);
        superblock.le32(72)
    };
    details.version = Some(version.to_owned());
    details.level = Some(match i32::from_le_bytes(level.to_le_bytes()) {
        -1 => "linear".to_owned(),
        -4 => "multipath".to_owned(),
        level => format!("RAID{level}"),
    });
    Ok(())
}

/// Offset of the label of a physical volume of LVM2: it is in one of the first four sectors.
fn find_lvm(area: &Area<'_>) -> Result<Option<u64>> {
    for offset in [512, 0, 1024, 1536] {
        if has(area, offset, b"LABELONE")? && has(area, offset.saturating_add(24), b"LVM2 001")? {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}

pub(super) fn lvm(area: &Area<'_>) -> Result<Option<Volume>> {
    Ok(find_lvm(area)?.map(|_| Volume::Lvm))
}

pub(super) fn describe_lvm(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    const METADATA: &[u8] = b" LVM2 x[5A%r0N*>";
    /// Length of the header of a metadata area; its text is a ring after it.
    const AREA_HEADER: u64 = 512;

    let Some(label) = find_lvm(area)? else { return Ok(()) };
    let sector = Fields::read(area, label, 512)?;
    let header = usize::try_from(sector.le32(20)).unwrap_or(usize::MAX);
    details.uuid = sector.text(header, 32).filter(|id| id.len() == 32 && id.is_ascii()).map(|id| hyphenated(&id));
    // After identity and size: a list of data areas and a list of metadata areas, each of which ends with zeros.
    let place = |index: usize| {
        let at = header.saturating_add(40).saturating_add(index.saturating_mul(16));
        (sector.le64(at), sector.le64(at.saturating_add(8)))
    };
    let Some(data_areas) = (0..32).position(|index| place(index).0 == 0) else { return Ok(()) };
    let (start, length) = place(data_areas.saturating_add(1));
    if start == 0 {
        return Ok(());
    }
    let of_area = Fields::read(area, start, AREA_HEADER)?;
    let text = of_area.le64(40);
    if of_area.bytes(4, METADATA.len()) != METADATA || !(AREA_HEADER..length).contains(&text) {
        return Ok(());
    }
    // The text begins with the name of the group and a brace.
    let most = length.saturating_sub(text).min(256);
    let text = Fields::read(area, start.saturating_add(text), most)?.text(0, 256).unwrap_or_default();
    details.group = text.split_once(" {").map(|(name, _)| name.to_owned());
    Ok(())
}

/// An identity of LVM2 in the groups in which its tools print it.
fn hyphenated(id: &str) -> String {
    let mut out = String::new();
    for (at, c) in id.chars().enumerate() {
        if matches!(at, 6 | 10 | 14 | 18 | 22 | 26) {
            out.push('-');
        }
        out.push(c);
    }
    out
}

/// Offset of the metadata of Android's logical partitions: after two copies of their geometry.
const SUPER_METADATA: u64 = 0x3000;

pub(super) fn describe_super(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    /// Largest number of names that are listed.
    const MOST: u32 = 64;

    let header = Fields::read(area, SUPER_METADATA, 128)?;
    if header.bytes(0, 4) != b"0PLA" {
        return Ok(());
    }
    let tables = SUPER_METADATA.saturating_add(header.le32(8).into());
    let (first, count, length) = (header.le32(80), header.le32(84).min(MOST), u64::from(header.le32(88)));
    for index in 0..u64::from(count) {
        let offset = tables.saturating_add(first.into()).saturating_add(index.saturating_mul(length));
        details.partitions.extend(Fields::read(area, offset, 36)?.text(0, 36));
    }
    Ok(())
}
