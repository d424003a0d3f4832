//! The entries of the block allocation table (MS-VHDX 2.5.1).

/// An entry of the BAT: the state of a block and its place in the file (MS-VHDX 2.5.1).
///
/// This is the value, not an overlay: an entry is fetched from the file once, and judged and used as fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatEntry(pub u64);

impl BatEntry {
    /// Size of an entry in the file, in bytes.
    pub const LENGTH: u64 = 8;

    /// The state, 0 to 7: see [`PayloadBlockState`] and [`SectorBitmapState`].
    #[must_use]
    #[inline]
    #[expect(clippy::as_conversions, reason = "three bits fit")]
    pub const fn state(self) -> u8 {
        (self.0 & 7) as u8
    }

    /// File offset of the block in bytes, a multiple of 1 MiB. What it means depends on the state.
    #[must_use]
    #[inline]
    pub const fn file_offset(self) -> u64 {
        self.0 & !0xf_ffff
    }

    /// Bits 3 to 19, which are zero in every entry in use.
    #[must_use]
    #[inline]
    pub const fn reserved(self) -> u64 {
        self.0 & 0xf_fff8
    }
}

/// The states of a payload block (MS-VHDX 2.5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PayloadBlockState {
    /// 0: nothing is known of the block here; its content is the parent's, or zeros.
    NotPresent,
    /// 1: the content is undefined; zeros.
    Undefined,
    /// 2: zeros.
    Zero,
    /// 3: the content was given up by the guest; zeros.
    Unmapped,
    /// 6: the block is in the file.
    FullyPresent,
    /// 7: some sectors are in the file, others in the parent; the sector bitmap tells which.
    PartiallyPresent,
}

impl PayloadBlockState {
    /// All states, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::NotPresent, Self::Undefined, Self::Zero, Self::Unmapped, Self::FullyPresent, Self::PartiallyPresent];

    /// The state with this number; none for 4 and 5, which are reserved.
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

    /// The name as MS-VHDX writes it, without the prefix `PAYLOAD_BLOCK_`.
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

/// The states of a sector bitmap block (MS-VHDX 2.5.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SectorBitmapState {
    /// 0: there is none.
    NotPresent,
    /// 6: the block is in the file.
    Present,
}

impl SectorBitmapState {
    /// The state with this number; none for those that are reserved.
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
