//! Metadata table and its items (MS-VHDX 2.6).

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Guid, U16, U32};

/// Header of the metadata table (MS-VHDX 2.6.1.1).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MetadataTableHeader {
    /// Signature: `metadata`.
    pub signature: [u8; 8],
    /// Reserved: 0.
    pub reserved: U16,
    /// Number of entries that follow, at most 2047.
    pub entry_count: U16,
    /// Reserved: 0.
    pub reserved2: [u8; 20],
}

impl MetadataTableHeader {
    /// Value of [`MetadataTableHeader::signature`].
    pub const SIGNATURE: &'static str = "metadata";
    /// Length of the whole table, in bytes. Items are after it.
    pub const TABLE_LENGTH: u64 = super::KIB_64;
}

/// Entry of the metadata table (MS-VHDX 2.6.1.2).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MetadataEntry {
    /// GUID of the item: see [`item`]. [`MetadataEntry::IS_USER`] distinguishes items of users from those of the
    /// system.
    pub item_id: Guid,
    /// Offset of the item, in bytes from the beginning of the region, at least 64 KiB; 0 for an empty item.
    pub offset: U32,
    /// Length of the item in bytes, at most 1 MiB.
    pub length: U32,
    /// Flags: [`MetadataEntry::IS_USER`], [`MetadataEntry::IS_VIRTUAL_DISK`], [`MetadataEntry::IS_REQUIRED`].
    pub flags: U32,
    /// Reserved: 0.
    pub reserved2: U32,
}

impl MetadataEntry {
    /// Flag: the item belongs to a user, not to the system.
    pub const IS_USER: u32 = 1;
    /// Flag: the item describes the virtual disk, not the file.
    pub const IS_VIRTUAL_DISK: u32 = 2;
    /// Flag: a reader that does not know the item must refuse the file.
    pub const IS_REQUIRED: u32 = 4;
    /// Largest length of an item, in bytes.
    pub const MAX_LENGTH: u32 = 1 << 20;
    /// Largest number of items of users.
    pub const MAX_USER_ENTRIES: usize = 1024;
}

/// Item [`item::FILE_PARAMETERS`] (MS-VHDX 2.6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FileParameters {
    /// Length of a payload block in bytes: a power of two from 1 MiB to 256 MiB.
    pub block_size: U32,
    /// Flags: [`FileParameters::LEAVE_BLOCKS_ALLOCATED`], [`FileParameters::HAS_PARENT`].
    pub flags: U32,
}

impl FileParameters {
    /// Flag: the file is a fixed image.
    pub const LEAVE_BLOCKS_ALLOCATED: u32 = 1;
    /// Flag: the file is a differencing image.
    pub const HAS_PARENT: u32 = 2;
}

const _: () = {
    assert!(size_of::<MetadataTableHeader>() == 32);
    assert!(size_of::<MetadataEntry>() == 32);
    assert!(size_of::<FileParameters>() == 8);
};

/// Metadata items of the system (MS-VHDX 2.6.2), and three that are in use without being defined there.
pub mod item {
    use super::Guid;
    use uuid::uuid;

    /// Block size and kind of the file: [`FileParameters`](super::FileParameters).
    pub const FILE_PARAMETERS: Guid = Guid::new(uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b"));
    /// Size of the virtual disk: a `u64`, in bytes.
    pub const VIRTUAL_DISK_SIZE: Guid = Guid::new(uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8"));
    /// Identity of the virtual disk: a GUID, the same in parent and child.
    pub const VIRTUAL_DISK_ID: Guid = Guid::new(uuid!("beca12ab-b2e6-4523-93ef-c309e000c746"));
    /// Logical sector size: a `u32`, 512 or 4096 bytes.
    pub const LOGICAL_SECTOR_SIZE: Guid = Guid::new(uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f"));
    /// Physical sector size: a `u32`, 512 or 4096 bytes.
    pub const PHYSICAL_SECTOR_SIZE: Guid = Guid::new(uuid!("cda348c7-445d-4471-9cc9-e9885251c556"));
    /// Parent locator of a differencing image: [`LocatorHeader`](crate::format::LocatorHeader).
    pub const PARENT_LOCATOR: Guid = Guid::new(uuid!("a8d35f2d-b30b-454d-abf7-d3d84834ab0c"));
    /// CHS geometry; not in MS-VHDX, without meaning for a reader.
    pub const CHS_PARAMETERS: Guid = Guid::new(uuid!("da02d7bc-3d3a-423c-ac88-2a36ab21479b"));
    /// Label area of a persistent memory disk; not in MS-VHDX, without meaning for a reader.
    pub const PMEM_LABEL_AREA: Guid = Guid::new(uuid!("10e1ae8a-4b7e-4169-a40f-cd70de928393"));
    /// Marks a file whose creation has not been finished; not in MS-VHDX.
    pub const INCOMPLETE_FILE: Guid = Guid::new(uuid!("71cc85f0-1b69-4e28-9558-c3bf83ae75d3"));
}
