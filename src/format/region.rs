//! Region tables (MS-VHDX 2.2.3).

use uuid::uuid;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Guid, U32, U64};

/// Header of a region table, at 192 KiB and at 256 KiB (MS-VHDX 2.2.3.1).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RegionTableHeader {
    /// Signature: `regi`.
    pub signature: [u8; 4],
    /// CRC-32C of the 64 KiB, with this field as zero.
    pub checksum: U32,
    /// Number of entries that follow, at most 2047.
    pub entry_count: U32,
    /// Reserved: 0.
    pub reserved: U32,
}

impl RegionTableHeader {
    /// Value of [`RegionTableHeader::signature`].
    pub const SIGNATURE: &'static str = "regi";
    /// Length of the whole table, over which the checksum is computed, in bytes.
    pub const TABLE_LENGTH: u64 = super::KIB_64;
}

/// Entry of a region table (MS-VHDX 2.2.3.2).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RegionTableEntry {
    /// GUID of the region: [`RegionTableEntry::BAT`], [`RegionTableEntry::METADATA`], or another one.
    pub guid: Guid,
    /// File offset in bytes, a multiple of 1 MiB.
    pub file_offset: U64,
    /// Length in bytes, a multiple of 1 MiB.
    pub length: U32,
    /// 1 if a reader that does not know the region must refuse the file, 0 otherwise.
    pub required: U32,
}

impl RegionTableEntry {
    /// GUID of the region of the block allocation table.
    pub const BAT: Guid = Guid::new(uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08"));
    /// GUID of the metadata region.
    pub const METADATA: Guid = Guid::new(uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e"));
}

const _: () = {
    assert!(size_of::<RegionTableHeader>() == 16);
    assert!(size_of::<RegionTableEntry>() == 32);
};
