//! Parent locator item (MS-VHDX 2.6.2.6).

use uuid::uuid;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Guid, U16, U32};

/// Only defined type of parent locator (MS-VHDX 2.6.2.6.3).
pub const VHDX_LOCATOR: Guid = Guid::new(uuid!("b04aefb7-d19e-4a81-b789-25b8e9445913"));

/// Header of a parent locator (MS-VHDX 2.6.2.6.1).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LocatorHeader {
    /// Type of the locator: [`VHDX_LOCATOR`].
    pub locator_type: Guid,
    /// Reserved: 0.
    pub reserved: U16,
    /// Number of entries that follow.
    pub key_value_count: U16,
}

/// Entry of a parent locator (MS-VHDX 2.6.2.6.2). Strings are UTF-16 without terminator.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LocatorEntry {
    /// Offset of the key, in bytes from the beginning of the item.
    pub key_offset: U32,
    /// Offset of the value, in bytes from the beginning of the item.
    pub value_offset: U32,
    /// Length of the key in bytes.
    pub key_length: U16,
    /// Length of the value in bytes.
    pub value_length: U16,
}

const _: () = {
    assert!(size_of::<LocatorHeader>() == 20);
    assert!(size_of::<LocatorEntry>() == 12);
};
