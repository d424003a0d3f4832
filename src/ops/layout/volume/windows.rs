//! File systems and volumes of Windows.

use crate::error::Result;
use crate::num::to_u64;

use super::super::area::{Area, Fields};
use super::{Volume, VolumeDetails};

/// Volumes whose signature is in the boot sector.
pub(super) fn boot_sector(area: &Area<'_>) -> Result<Option<Volume>> {
    const SIGNATURES: &[(usize, [u8; 8], Volume)] = &[
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
    ];
    let sector = Fields::read(area, 0, 512)?;
    let found = SIGNATURES.iter().find(|(at, signature, _)| sector.array(*at) == *signature);
    Ok(found.map(|(.., volume)| *volume))
}

/// The longest cluster of all file systems, in bytes.
const LONGEST_CLUSTER: u64 = 32 << 20;

/// Number of bytes that are read of a root directory.
const DIRECTORY: u64 = 4096;

pub(super) fn describe_fat(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    let boot = Fields::read(area, 0, 512)?;
    let sector = u64::from(boot.le16(11));
    let cluster = u64::from(boot.byte(13)).saturating_mul(sector);
    let is_fat32 = boot.bytes(82, 8) == b"FAT32   ";
    let table = if is_fat32 { u64::from(boot.le32(36)) } else { u64::from(boot.le16(22)) };
    let (serial, label) = if is_fat32 { (67, 71) } else { (39, 43) };
    let number = boot.le32(serial);
    details.uuid = fat_serial(number).filter(|_| matches!(boot.byte(serial.saturating_sub(1)), 0x28 | 0x29));
    details.label = boot.text(label, 11).filter(|text| text != "NO NAME");

    let tables = u64::from(boot.byte(16)).saturating_mul(table);
    let mut root = u64::from(boot.le16(14)).saturating_add(tables).saturating_mul(sector);
    if is_fat32 {
        root = root.saturating_add(u64::from(boot.le32(44)).saturating_sub(2).saturating_mul(cluster));
    }
    if cluster == 0 || root == 0 {
        return Ok(());
    }
    let directory = Fields::read(area, root, DIRECTORY)?;
    let entries = (0..directory.length()).step_by(32).take_while(|at| directory.byte(*at) != 0);
    // The entry of the label has the attribute for it; parts of long names have all of the lowest four.
    let is_label = |at: &usize| {
        let attributes = directory.byte(at.saturating_add(11));
        directory.byte(*at) != 0xe5 && attributes & 0x18 == 8 && attributes & 0xf != 0xf
    };
    if let Some(at) = entries.into_iter().find(is_label) {
        details.label = directory.text(at, 11);
    }
    Ok(())
}

fn fat_serial(number: u32) -> Option<String> {
    (number != 0).then(|| format!("{:04X}-{:04X}", number >> 16, number & 0xffff))
}

pub(super) fn describe_exfat(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    let boot = Fields::read(area, 0, 512)?;
    details.uuid = fat_serial(boot.le32(100));
    let (sector_shift, cluster_shift) = (u32::from(boot.byte(108)), u32::from(boot.byte(109)));
    if !(9..=12).contains(&sector_shift) || cluster_shift > 25 {
        return Ok(());
    }
    let cluster = u64::from(boot.le32(96)).saturating_sub(2);
    let heap = u64::from(boot.le32(88));
    let sectors = heap.saturating_add(cluster << cluster_shift);
    let directory = Fields::read(area, sectors << sector_shift, DIRECTORY)?;
    let entries = (0..directory.length()).step_by(32).take_while(|at| directory.byte(*at) != 0);
    if let Some(at) = entries.into_iter().find(|at| directory.byte(*at) == 0x83) {
        let units = usize::from(directory.byte(at.saturating_add(1)).min(11));
        details.label = directory.utf16(at.saturating_add(2), units.saturating_mul(2));
    }
    Ok(())
}

/// Numbers of two files of NTFS: the log, and what describes the volume.
const LOG_FILE: u64 = 2;
const VOLUME: u64 = 3;

/// Types of attributes of a file.
const VOLUME_NAME: u32 = 0x60;
const VOLUME_INFORMATION: u32 = 0x70;
const DATA: u32 = 0x80;

pub(super) fn describe_ntfs(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    let boot = Fields::read(area, 0, 512)?;
    details.uuid = Some(boot.le64(0x48)).filter(|number| *number != 0).map(|number| format!("{number:016X}"));
    let Some(files) = Files::of(area, &boot) else { return Ok(()) };
    let volume = files.read(VOLUME)?;
    let name = attribute(&volume, VOLUME_NAME).and_then(|at| value(&volume, at));
    details.label = name.and_then(|(at, length)| volume.utf16(at, length));
    let Some((information, _)) = attribute(&volume, VOLUME_INFORMATION).and_then(|at| value(&volume, at)) else {
        return Ok(());
    };
    let is_marked = volume.le16(information.saturating_add(10)) & 1 != 0;
    let is_clean = files.has_clean_log()?;
    if is_marked || is_clean.is_some() {
        details.set_recovery(is_marked || is_clean == Some(false), "-t ntfs3 -o ro");
    }
    Ok(())
}

/// The table of files of NTFS.
struct Files<'a, 'd> {
    area: &'a Area<'d>,
    cluster: u64,
    /// Offset of the table, and length of a record, in bytes.
    start: u64,
    record: u64,
}

impl<'a, 'd> Files<'a, 'd> {
    fn of(area: &'a Area<'d>, boot: &Fields) -> Option<Self> {
        // Sizes that do not fit are negative exponents of two.
        let exponent = |byte: u8| 1_u64.checked_shl(u32::from(byte).wrapping_neg() & 0xff);
        let (sectors, records) = (boot.byte(13), boot.byte(0x40));
        let sectors = if sectors > 0x80 { exponent(sectors)? } else { u64::from(sectors) };
        let cluster = sectors.checked_mul(u64::from(boot.le16(11)))?;
        let record = if records >= 0x80 { exponent(records)? } else { u64::from(records).checked_mul(cluster)? };
        let is_valid = cluster.is_power_of_two() && cluster <= LONGEST_CLUSTER && (512..=65536).contains(&record);
        let start = boot.le64(0x30).checked_mul(cluster).filter(|_| is_valid)?;
        Some(Self { area, cluster, start, record })
    }

    /// Reads the record of a file, with the ends of its sectors, which are kept elsewhere, in their places.
    fn read(&self, file: u64) -> Result<Fields> {
        let offset = self.start.saturating_add(file.saturating_mul(self.record));
        let mut record = Fields::read(self.area, offset, self.record)?;
        if record.bytes(0, 4) != b"FILE" {
            return Ok(Fields::default());
        }
        let (kept, count) = (usize::from(record.le16(4)), usize::from(record.le16(6)));
        let ends: Vec<[u8; 2]> = (1..count).map(|n| record.array(kept.saturating_add(n.saturating_mul(2)))).collect();
        for (sector, end) in record.as_mut().chunks_exact_mut(512).zip(ends) {
            if let Some(last) = sector.last_chunk_mut() {
                *last = end;
            }
        }
        Ok(record)
    }

    /// Returns whether the log says that the volume was unmounted. Returns `None` if the log is not a log.
    fn has_clean_log(&self) -> Result<Option<bool>> {
        const PAGE: u64 = 4096;
        const NO_CLIENT: u16 = 0xffff;
        const IS_CLEAN: u16 = 2;

        let record = self.read(LOG_FILE)?;
        let Some(data) = attribute(&record, DATA) else { return Ok(None) };
        // A log is long, so its attribute has a list of runs, of which the first is enough.
        if record.byte(data.saturating_add(8)) == 0 {
            return Ok(None);
        }
        let runs = data.saturating_add(usize::from(record.le16(data.saturating_add(32))));
        let head = record.byte(runs);
        let (of_length, of_place) = (usize::from(head & 0xf), usize::from(head >> 4));
        let mut place = [0; 8];
        let bytes = record.bytes(runs.saturating_add(1).saturating_add(of_length), of_place);
        place.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let Some(start) = u64::from_le_bytes(place).checked_mul(self.cluster).filter(|start| *start > 0) else {
            return Ok(None);
        };
        let mut newest = None;
        for page in [0, PAGE] {
            let page = Fields::read(self.area, start.saturating_add(page), PAGE)?;
            // A log that was never written, or that was emptied.
            if page.bytes(0, 4) == [0xff; 4] {
                newest = newest.max(Some((0, true)));
            }
            let area = usize::from(page.le16(24));
            if page.bytes(0, 4) == b"RSTR" {
                let clients = page.le16(area.saturating_add(12));
                let is_clean = clients == NO_CLIENT || page.le16(area.saturating_add(14)) & IS_CLEAN != 0;
                newest = newest.max(Some((page.le64(area), is_clean)));
            }
        }
        Ok(newest.map(|(_, is_clean)| is_clean))
    }
}

/// Returns the offset of the first attribute of a type in the record of a file.
fn attribute(record: &Fields, kind: u32) -> Option<usize> {
    let mut at = usize::from(record.le16(0x14));
    while at < record.length() {
        let (found, length) = (record.le32(at), record.le32(at.saturating_add(4)));
        if found == kind {
            return Some(at);
        }
        if found == u32::MAX || length < 16 {
            return None;
        }
        at = at.saturating_add(usize::try_from(length).ok()?);
    }
    None
}

/// Returns offset and length of the value of an attribute, if it is in the record.
fn value(record: &Fields, at: usize) -> Option<(usize, usize)> {
    let length = usize::try_from(record.le32(at.saturating_add(16))).ok()?;
    let start = at.saturating_add(usize::from(record.le16(at.saturating_add(20))));
    let fits = to_u64(start.saturating_add(length)) <= to_u64(record.length());
    (record.byte(at.saturating_add(8)) == 0 && fits).then_some((start, length))
}
