//! Partition tables: MBR with its extended partitions, and GPT with its backup.

use std::mem::offset_of;

use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, KnownLayout, Unaligned};

use crate::checksum::crc32;
use crate::error::Result;
use crate::format::Guid;

use super::area::{WholeDisk, bytes, read_bytes};
use super::types;
use super::volume::{self, Volume, VolumeDetails};

/// Kind of a partition table.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartitionScheme {
    /// MBR: the table of PCs before EFI.
    Mbr,
    /// GPT: the GUID partition table of EFI.
    Gpt,
}

impl PartitionScheme {
    /// Returns a short name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mbr => "MBR",
            Self::Gpt => "GPT",
        }
    }
}

/// Partition table.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PartitionTable {
    /// Kind of the table.
    pub scheme: PartitionScheme,
    /// Sector size of the table, in bytes. If it differs from that of the disk, the disk was copied from a medium with
    /// other sectors, and systems will not find its partitions.
    pub sector_size: u32,
    /// Whether it is the backup at the end of the disk, since the first table is damaged.
    pub is_backup: bool,
    /// Whether the master boot record has an entry for a GPT. Systems that require it do not find the table otherwise.
    pub is_protected: bool,
    /// The partitions, in the order of the table.
    pub partitions: Vec<Partition>,
}

/// Partition.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Partition {
    /// Number, as Linux counts: from 1, and logical partitions from 5.
    pub number: u32,
    /// Offset in the disk, in bytes.
    pub start: u64,
    /// Length in bytes.
    #[cfg_attr(feature = "serde", serde(rename = "length"))]
    pub len: u64,
    /// Type, in words if it is known.
    #[cfg_attr(feature = "serde", serde(rename = "type"))]
    pub kind: String,
    /// Name, which only GPT has. It must be escaped before it is printed.
    pub name: String,
    /// The volume on the partition, if it is recognised.
    #[cfg_attr(feature = "serde", serde(rename = "holds"))]
    pub volume: Option<Volume>,
    /// What the volume says about itself; none without a volume.
    pub details: Option<VolumeDetails>,
    /// Why the volume is unknown, if a sector that is needed cannot be read.
    #[cfg_attr(feature = "serde", serde(rename = "holds-error"))]
    pub volume_error: Option<String>,
}

impl Partition {
    /// Describes a partition of a disk, and the volume on it.
    fn of(disk: &WholeDisk<'_>, number: u32, (start, len): (u64, u64), kind: String, name: String) -> Self {
        let (found, volume_error) = volume::recognise(&disk.part(start..start.saturating_add(len)));
        let (volume, details) = found.map(|found| (found.volume, found.details)).unzip();
        Self { number, start, len, kind, name, volume, details, volume_error }
    }
}

/// Largest number of partitions that are listed. A crafted table can claim any number.
const MOST_PARTITIONS: u32 = 256;

/// Reads the partition table of a disk on which `volume` was recognised.
///
/// Like systems do it: a master boot record with an entry for a GPT stands for that GPT; one with other partitions is
/// the table itself, even if there is an old GPT; and without either, a GPT still counts.
pub(super) fn read(disk: &WholeDisk<'_>, sector_size: u32, volume: Option<Volume>) -> Result<Option<PartitionTable>> {
    let entries = mbr_entries(disk, 0)?;
    let used = entries.iter().flatten().filter(|entry| !entry.is_empty());
    let stands_for_gpt = used.clone().any(|entry| entry.os_type == PROTECTIVE);
    let is_table = used.clone().count() > 0 && !stands_for_gpt;
    if !is_table {
        let other_size = if sector_size == 512 { 4096 } else { 512 };
        let candidates = [sector_size, other_size].into_iter().flat_map(|size| {
            let last = disk.size().checked_sub(u64::from(size));
            [Some((size, u64::from(size), false)), last.map(|last| (size, last, true))]
        });
        for (size, offset, is_backup) in candidates.flatten() {
            match Gpt::at(disk, size, offset, is_backup) {
                Ok(Some(gpt)) => return gpt.partitions(disk, stands_for_gpt).map(Some),
                Ok(None) => {}
                // An end of the disk that cannot be read does not hide a file system at its beginning.
                Err(_) if is_backup && volume.is_some() && !stands_for_gpt => {}
                Err(error) => return Err(error),
            }
        }
    }
    match entries {
        // Only the two bytes at the end of a boot record: the content is the file system.
        Some(_) if volume.is_some() && used.count() == 0 => Ok(None),
        // A file system's own boot record has code in place of the table, which may look like one by chance.
        Some(entries) if volume.is_some_and(Volume::has_boot_sector) && !plausible(&entries, disk, sector_size) => {
            Ok(None)
        }
        Some(entries) => mbr(disk, &entries, sector_size).map(Some),
        None => Ok(None),
    }
}

/// Type of the entry that stands for a GPT.
const PROTECTIVE: u8 = 0xee;

/// Returns whether the partitions are inside the disk, and do not overlap.
fn plausible(entries: &[MbrEntry; 4], disk: &WholeDisk<'_>, sector_size: u32) -> bool {
    let used = entries.iter().filter(|entry| !entry.is_empty());
    let mut spans: Vec<(u64, u64)> = used
        .map(|entry| {
            let first = u64::from(entry.starting_lba.get());
            (first, first.saturating_add(entry.size_in_lba.get().into()))
        })
        .collect();
    spans.sort_unstable();
    let inside = |end: u64| end.saturating_mul(sector_size.into()) <= disk.size();
    let apart = spans.iter().zip(spans.iter().skip(1)).all(|(one, other)| one.1 <= other.0);
    apart && spans.iter().all(|(first, end)| *first > 0 && inside(*end))
}

/// End of a master boot record (UEFI 2.10, 5.2.1).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MbrSector {
    boot_code: [u8; 446],
    entries: [MbrEntry; 4],
    signature: [u8; 2],
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MbrEntry {
    boot_indicator: u8,
    starting_chs: [u8; 3],
    os_type: u8,
    ending_chs: [u8; 3],
    starting_lba: U32,
    size_in_lba: U32,
}

impl MbrEntry {
    fn is_empty(&self) -> bool {
        self.os_type == 0 || self.size_in_lba.get() == 0
    }

    fn is_extended(&self) -> bool {
        matches!(self.os_type, 0x05 | 0x0f | 0x85)
    }
}

/// Returns the entries of a boot record that can be a partition table.
fn mbr_entries(disk: &WholeDisk<'_>, offset: u64) -> Result<Option<[MbrEntry; 4]>> {
    let Some(bytes) = bytes::<512>(disk, offset)? else { return Ok(None) };
    let sector: MbrSector = zerocopy::transmute!(bytes);
    // Boot code of other kinds ends with the same two bytes, and has anything in place of the table.
    let is_table =
        sector.signature == [0x55, 0xaa] && sector.entries.iter().all(|entry| entry.boot_indicator & 0x7f == 0);
    Ok(is_table.then_some(sector.entries))
}

fn mbr(disk: &WholeDisk<'_>, entries: &[MbrEntry; 4], sector_size: u32) -> Result<PartitionTable> {
    let bytes_of = |sectors: u64| sectors.saturating_mul(u64::from(sector_size));
    let mut partitions = Vec::new();
    let mut add = |number, first: u64, entry: &MbrEntry| {
        let (start, length) = (bytes_of(first), bytes_of(entry.size_in_lba.get().into()));
        partitions.push(Partition::of(disk, number, (start, length), mbr_type(entry.os_type), String::new()));
    };
    let mut extended = None;
    for (number, entry) in (1..).zip(entries).filter(|(_, entry)| !entry.is_empty()) {
        add(number, entry.starting_lba.get().into(), entry);
        if entry.is_extended() {
            extended = extended.or(Some(u64::from(entry.starting_lba.get())));
        }
    }
    // Each logical partition has a record of its own, with a link to the next record. Links count from the first one.
    let mut next = extended;
    for number in 5..MOST_PARTITIONS {
        let (Some(base), Some(record)) = (extended, next) else { break };
        let Some([logical, link, ..]) = mbr_entries(disk, bytes_of(record))? else { break };
        if !logical.is_empty() {
            add(number, record.saturating_add(logical.starting_lba.get().into()), &logical);
        }
        // Records follow one another; a link back would be a loop.
        let ahead = base.saturating_add(link.starting_lba.get().into());
        next = Some(ahead).filter(|ahead| !link.is_empty() && *ahead > record);
    }
    let scheme = PartitionScheme::Mbr;
    Ok(PartitionTable { scheme, sector_size, is_backup: false, is_protected: true, partitions })
}

/// Header of a GPT (UEFI 2.10, 5.3.2).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct GptHeader {
    signature: [u8; 8],
    revision: U32,
    header_size: U32,
    header_crc32: U32,
    reserved: U32,
    my_lba: U64,
    alternate_lba: U64,
    first_usable_lba: U64,
    last_usable_lba: U64,
    disk_guid: Guid,
    partition_entry_lba: U64,
    number_of_partition_entries: U32,
    size_of_partition_entry: U32,
    partition_entry_array_crc32: U32,
}

/// Entry of a GPT (UEFI 2.10, 5.3.3).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct GptEntry {
    partition_type: Guid,
    unique_guid: Guid,
    starting_lba: U64,
    ending_lba: U64,
    attributes: U64,
    name: [U16; 36],
}

struct Gpt {
    header: GptHeader,
    sector_size: u32,
    is_backup: bool,
    /// Offset of the entries, and the length of each, in bytes.
    entries: u64,
    entry_size: u64,
}

impl Gpt {
    /// Returns the table with its header at an offset, if there is one with valid checksums.
    fn at(disk: &WholeDisk<'_>, sector_size: u32, offset: u64, is_backup: bool) -> Result<Option<Self>> {
        /// A table is 16 KiB long in practice.
        const LONGEST_ARRAY: u64 = 1 << 20;

        let Some(bytes) = bytes::<512>(disk, offset)? else { return Ok(None) };
        let Ok((header, _)) = GptHeader::read_from_prefix(&bytes) else { return Ok(None) };
        let size = usize::try_from(header.header_size.get()).unwrap_or(usize::MAX);
        let bytes_of = |sectors: u64| sectors.checked_mul(u64::from(sector_size));
        if header.signature != *b"EFI PART"
            || size < size_of::<GptHeader>()
            || bytes_of(header.my_lba.get()) != Some(offset)
        {
            return Ok(None);
        }
        // The checksum counts as zero in its own sum. Headers in use are not longer than 512 bytes.
        let mut zeroed = bytes;
        let field = offset_of!(GptHeader, header_crc32);
        zeroed.iter_mut().skip(field).take(4).for_each(|byte| *byte = 0);
        if zeroed.get(..size).is_none_or(|bytes| crc32(bytes) != header.header_crc32.get()) {
            return Ok(None);
        }
        let entry_size = u64::from(header.size_of_partition_entry.get());
        let length = u64::from(header.number_of_partition_entries.get()).saturating_mul(entry_size);
        let entries = bytes_of(header.partition_entry_lba.get());
        let Some(entries) = entries.filter(|_| entry_size >= 128 && entry_size.is_power_of_two()) else {
            return Ok(None);
        };
        let array = if length <= LONGEST_ARRAY { read_bytes(disk, entries, length)? } else { None };
        let is_right = array.is_some_and(|array| crc32(&array) == header.partition_entry_array_crc32.get());
        Ok(is_right.then_some(Self { header, sector_size, is_backup, entries, entry_size }))
    }

    fn partitions(&self, disk: &WholeDisk<'_>, is_protected: bool) -> Result<PartitionTable> {
        let bytes_of = |sectors: u64| sectors.saturating_mul(u64::from(self.sector_size));
        let count = self.header.number_of_partition_entries.get().min(MOST_PARTITIONS);
        let mut partitions = Vec::new();
        for (number, index) in (1..).zip(0..u64::from(count)) {
            let offset = self.entries.saturating_add(index.saturating_mul(self.entry_size));
            let Some(bytes) = bytes::<128>(disk, offset)? else { break };
            let entry: GptEntry = zerocopy::transmute!(bytes);
            if entry.partition_type.is_nil() {
                continue;
            }
            let (first, last) = (entry.starting_lba.get(), entry.ending_lba.get());
            let start = bytes_of(first);
            let length = bytes_of(last.saturating_add(1).saturating_sub(first));
            let name = entry.name.iter().map(|unit| unit.get()).take_while(|unit| *unit != 0);
            let name = char::decode_utf16(name).map(|read| read.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
            let id = entry.partition_type.to_uuid();
            let kind = types::name(id).unwrap_or_else(|| format!("type {{{id}}}"));
            partitions.push(Partition::of(disk, number, (start, length), kind, name));
        }
        let Self { sector_size, is_backup, .. } = *self;
        Ok(PartitionTable { scheme: PartitionScheme::Gpt, sector_size, is_backup, is_protected, partitions })
    }
}

fn mbr_type(os_type: u8) -> String {
    let name = match os_type {
        0x01 => "FAT12",
        0x04 | 0x06 | 0x0e => "FAT16",
        0x05 | 0x0f | 0x85 => "extended",
        0x07 => "NTFS, exFAT or HPFS",
        0x0b | 0x0c => "FAT32",
        0x27 => "Windows recovery",
        0x42 => "Windows dynamic disk",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x8e => "Linux LVM",
        0x81 => "Minix",
        0xa5 => "FreeBSD",
        0xa6 => "OpenBSD",
        0xa8 => "Apple UFS",
        0xa9 => "NetBSD",
        0xaf => "Apple HFS+",
        0xbf => "Solaris",
        0xeb => "BeOS",
        PROTECTIVE => "GPT protective",
        0xef => "EFI system",
        0xfb => "VMware VMFS",
        0xfc => "VMware swap",
        0xfd => "Linux RAID",
        _ => return format!("type {os_type:#04x}"),
    };
    name.to_owned()
}

crate::error::display_as_str!(PartitionScheme);
