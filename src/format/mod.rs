//! On-disk structures, as overlays: names and fields as in MS-VHDX, without parsing or policy.
//!
//! Every field is little-endian with alignment 1 ([`U16`], [`U32`], [`U64`]), so that a structure can be overlaid at
//! any offset of any byte slice. No field is a Rust `enum`, `bool` or `char`: values that the format does not define
//! are valid here, and are checked where they are used.

mod bat;
mod guid;
mod header;
mod locator;
mod log;
mod metadata;
mod region;

pub use bat::{BatEntry, PayloadBlockState, SectorBitmapState};
pub use guid::Guid;
pub use header::{CREATOR_UNITS, FileIdentifier, Header};
pub use locator::{LocatorEntry, LocatorHeader, VHDX_LOCATOR};
pub use log::{DataSector, Descriptor, LogEntryHeader};
pub use metadata::{FileParameters, MetadataEntry, MetadataTableHeader, item};
pub use region::{RegionTableEntry, RegionTableHeader};
pub use zerocopy::little_endian::{U16, U32, U64};

/// 64 KiB: the unit of the header section, and the size of a region table and of a metadata table.
pub const KIB_64: u64 = 64 << 10;
/// 1 MiB: the alignment of every object in the file (MS-VHDX 2.1).
pub const MIB: u64 = 1 << 20;
/// 4 KiB: the unit of the log and of the headers (MS-VHDX 2.3).
pub const SECTOR_4K: u64 = 4 << 10;
/// The largest virtual disk: 64 TiB (MS-VHDX 2.6.2.2).
pub const MAX_VIRTUAL_DISK_SIZE: u64 = 64 << 40;
/// Largest number of entries of a region table or a metadata table (MS-VHDX 2.2.3, 2.6.1).
pub const MAX_TABLE_ENTRIES: u32 = 2047;
/// Number of sectors that one sector bitmap block describes: 2^23, one for each bit of 1 MiB (MS-VHDX 2.4.2).
pub const SECTORS_PER_CHUNK: u64 = 1 << 23;

/// Returns the file offset of header 1 or 2, in bytes (MS-VHDX 2.2).
#[must_use]
pub const fn header_offset(copy: u8) -> u64 {
    if copy <= 1 { KIB_64 } else { 2 * KIB_64 }
}

/// Returns the file offset of region table 1 or 2, in bytes (MS-VHDX 2.2).
#[must_use]
pub const fn region_table_offset(copy: u8) -> u64 {
    if copy <= 1 { 3 * KIB_64 } else { 4 * KIB_64 }
}
