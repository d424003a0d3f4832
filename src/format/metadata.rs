//! The metadata table and its items (MS-VHDX 2.6).

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Guid, U16, U32};

/// The head of the metadata table (MS-VHDX 2.6.1.1).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MetadataTableHeader {
    /// `metadata`.
    pub signature: [u8; 8],
    /// 0.
    pub reserved: U16,
    /// Number of entries that follow, at most 2047.
    pub entry_count: U16,
    /// 0.
    pub reserved2: [u8; 20],
}

impl MetadataTableHeader {
    /// What [`MetadataTableHeader::signature`] must be.
    pub const SIGNATURE: &'static str = "metadata";
    /// Length of the whole table, before which no item can lie, in bytes.
    pub const TABLE_LENGTH: u64 = super::KIB_64;
}

/// An entry of the metadata table (MS-VHDX 2.6.1.2).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MetadataEntry {
    /// What the item is: see [`item`]. Items of users and of the system are known apart by [`MetadataEntry::IS_USER`].
    pub item_id: Guid,
    /// Where the item lies, in bytes from the beginning of the region, at least 64 KiB; 0 for an empty item.
    pub offset: U32,
    /// Length of the item in bytes, at most 1 MiB.
    pub length: U32,
    /// [`MetadataEntry::IS_USER`], [`MetadataEntry::IS_VIRTUAL_DISK`], [`MetadataEntry::IS_REQUIRED`].
    pub flags: U32,
    /// 0.
    pub reserved2: U32,
}

impl MetadataEntry {
    /// The item belongs to a user, not to the system.
    pub const IS_USER: u32 = 1;
    /// The item describes the virtual disk, not the file.
    pub const IS_VIRTUAL_DISK: u32 = 2;
    /// A reader that does not know the item must refuse the file.
    pub const IS_REQUIRED: u32 = 4;
    /// The longest item, in bytes.
    pub const MAX_LENGTH: u32 = 1 << 20;
    /// How many items of users there can be.
    pub const MAX_USER_ENTRIES: usize = 1024;
}

/// The item [`item::FILE_PARAMETERS`] (MS-VHDX 2.6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FileParameters {
    /// Length of a payload block in bytes: a power of two from 1 MiB to 256 MiB.
    pub block_size: U32,
    /// [`FileParameters::LEAVE_BLOCKS_ALLOCATED`], [`FileParameters::HAS_PARENT`].
    pub flags: U32,
}

impl FileParameters {
    /// The file is of the fixed kind.
    pub const LEAVE_BLOCKS_ALLOCATED: u32 = 1;
    /// The file is of the differencing kind.
    pub const HAS_PARENT: u32 = 2;
}

const _: () = {
    assert!(size_of::<MetadataTableHeader>() == 32);
    assert!(size_of::<MetadataEntry>() == 32);
    assert!(size_of::<FileParameters>() == 8);
};

/// The metadata items of the system (MS-VHDX 2.6.2), and three that are in use without being in it.
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
    /// How a differencing file finds its parent: [`LocatorHeader`](crate::format::LocatorHeader).
    pub const PARENT_LOCATOR: Guid = Guid::new(uuid!("a8d35f2d-b30b-454d-abf7-d3d84834ab0c"));
    /// CHS geometry; not in MS-VHDX, without meaning for a reader.
    pub const CHS_PARAMETERS: Guid = Guid::new(uuid!("da02d7bc-3d3a-423c-ac88-2a36ab21479b"));
    /// Label area of a persistent memory disk; not in MS-VHDX, without meaning for a reader.
    pub const PMEM_LABEL_AREA: Guid = Guid::new(uuid!("10e1ae8a-4b7e-4169-a40f-cd70de928393"));
    /// Marks a file whose creation has not been finished; not in MS-VHDX.
    pub const INCOMPLETE_FILE: Guid = Guid::new(uuid!("71cc85f0-1b69-4e28-9558-c3bf83ae75d3"));
}
