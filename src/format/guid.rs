//! Stored GUIDs.

use std::fmt;

use uuid::Uuid;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A GUID: 16 bytes, the first three fields little-endian (MS-DTYP 2.3.4.2).
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct Guid([u8; 16]);

impl Guid {
    /// The nil GUID, which means "none".
    pub const NIL: Self = Self([0; 16]);

    /// Makes the stored form of `id`.
    #[must_use]
    pub const fn new(id: Uuid) -> Self {
        Self(id.to_bytes_le())
    }

    /// Returns the GUID as a [`Uuid`].
    #[must_use]
    pub const fn to_uuid(self) -> Uuid {
        Uuid::from_bytes_le(self.0)
    }

    /// Returns whether all bytes are zero.
    #[must_use]
    pub fn is_nil(&self) -> bool {
        *self == Self::NIL
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_uuid(), f)
    }
}
