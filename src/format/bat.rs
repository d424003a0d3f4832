//! Entries of the block allocation table (MS-VHDX 2.5.1).

/// Entry of the BAT: state and file offset of a block (MS-VHDX 2.5.1).
///
/// This is the value, not an overlay: an entry is fetched from the file once, and validated and used as fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatEntry(pub u64);

impl BatEntry {
    /// Length of an entry in the file, in bytes.
    pub const LENGTH: u64 = 8;

    /// Returns the state, 0 to 7: see [`PayloadBlockState`] and [`SectorBitmapState`].
    #[must_use]
    #[inline]
    #[expect(clippy::as_conversions, reason = "three bits fit")]
    pub const fn state(self) -> u8 {
        (self.0 & 7) as u8
    }

    /// Returns whether the state of a payload block is one with data in the file, 6 or 7.
    #[must_use]
    #[inline]
    pub const fn is_allocated(self) -> bool {
        self.state() >= 6
    }

    /// Returns the file offset of the block in bytes, a multiple of 1 MiB. Its meaning depends on the state.
    #[must_use]
    #[inline]
    pub const fn file_offset(self) -> u64 {
        self.0 & !0xf_ffff
    }

    /// Returns bits 3 to 19, which are zero in valid entries.
    #[must_use]
    #[inline]
    pub const fn reserved(self) -> u64 {
        self.0 & 0xf_fff8
    }
}

/// State of a payload block (MS-VHDX 2.5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PayloadBlockState {
    /// 0: never written; reads as the parent, or as zeros.
    NotPresent,
    /// 1: the content is undefined; reads as zeros.
    Undefined,
    /// 2: zeros.
    Zero,
    /// 3: discarded by the guest; reads as zeros.
    Unmapped,
    /// 6: the block is in the file.
    FullyPresent,
    /// 7: some sectors are in the file, others in the parent; see the sector bitmap.
    PartiallyPresent,
}

impl PayloadBlockState {
    /// All states, in the order of their numbers.
    pub const ALL: &'static [Self] =
        &[Self::NotPresent, Self::Undefined, Self::Zero, Self::Unmapped, Self::FullyPresent, Self::PartiallyPresent];

    /// Returns the state with this number. Returns `None` for 4 and 5, which are reserved.
    #[must_use]
    #[inline]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::NotPresent),
            1 => Some(Self::Undefined),
            2 => Some(Self::Zero),
            3 => Some(Self::Unmapped),
            6 => Some(Self::FullyPresent),
            7 => Some(Self::PartiallyPresent),
            _ => None,
        }
    }

    /// Returns the name in MS-VHDX, without the prefix `PAYLOAD_BLOCK_`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotPresent => "NOT_PRESENT",
            Self::Undefined => "UNDEFINED",
            Self::Zero => "ZERO",
            Self::Unmapped => "UNMAPPED",
            Self::FullyPresent => "FULLY_PRESENT",
            Self::PartiallyPresent => "PARTIALLY_PRESENT",
        }
    }
}

/// State of a sector bitmap block (MS-VHDX 2.5.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SectorBitmapState {
    /// 0: not allocated.
    NotPresent,
    /// 6: the block is in the file.
    Present,
}

impl SectorBitmapState {
    /// Returns the state with this number. Returns `None` for reserved ones.
    #[must_use]
    #[inline]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::NotPresent),
            6 => Some(Self::Present),
            _ => None,
        }
    }
}

crate::error::display_as_str!(PayloadBlockState);
