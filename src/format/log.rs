//! The structures of the log (MS-VHDX 2.3.1).

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Guid, U32, U64};

/// The head of a log entry (MS-VHDX 2.3.1.1). Descriptors follow it, then, from the next 4 KiB on, data sectors.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogEntryHeader {
    /// `loge`.
    pub signature: [u8; 4],
    /// CRC-32C of the whole entry, with this field as zero.
    pub checksum: U32,
    /// Length of the entry in bytes, a multiple of 4 KiB.
    pub entry_length: U32,
    /// Where in the log the oldest entry lies that was still needed when this one was written: bytes from the log's
    /// beginning, a multiple of 4 KiB.
    pub tail: U32,
    /// One more than that of the entry before it; never 0.
    pub sequence_number: U64,
    /// Number of descriptors.
    pub descriptor_count: U32,
    /// 0.
    pub reserved: U32,
    /// The log's GUID, as in the header when the entry was written.
    pub log_guid: Guid,
    /// The file was known to be at least this long, in bytes, when the entry was written.
    pub flushed_file_offset: U64,
    /// Length of a file, in bytes, that holds every structure allocated when the entry was written.
    pub last_file_offset: U64,
}

impl LogEntryHeader {
    /// What [`LogEntryHeader::signature`] must be.
    pub const SIGNATURE: [u8; 4] = *b"loge";
}

/// A descriptor (MS-VHDX 2.3.1.2, 2.3.1.3): its signature says whether the bytes between are a length of zeros, or the
/// two ends of a data sector.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Descriptor {
    /// `zero` or `desc`.
    pub signature: [u8; 4],
    /// Data descriptor: bytes 4092 to 4095 of the sector. Zero descriptor: reserved.
    pub trailing_bytes: [u8; 4],
    /// Data descriptor: bytes 0 to 7 of the sector. Zero descriptor: how many bytes become zero, a multiple of 4 KiB.
    pub leading_bytes: [u8; 8],
    /// File offset to which the data goes, in bytes, a multiple of 4 KiB.
    pub file_offset: U64,
    /// The sequence number of the entry.
    pub sequence_number: U64,
}

impl Descriptor {
    /// The signature of a zero descriptor.
    pub const ZERO: [u8; 4] = *b"zero";
    /// The signature of a data descriptor.
    pub const DATA: [u8; 4] = *b"desc";

    /// How many bytes a zero descriptor makes zero.
    #[must_use]
    pub fn zero_length(&self) -> u64 {
        U64::from_bytes(self.leading_bytes).get()
    }
}

/// A data sector (MS-VHDX 2.3.1.4): the bytes of a 4 KiB sector but for its two ends, which the descriptor holds.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataSector {
    /// `data`.
    pub signature: [u8; 4],
    /// The upper half of the entry's sequence number.
    pub sequence_high: U32,
    /// Bytes 8 to 4091 of the sector.
    pub data: [u8; 4084],
    /// The lower half of the entry's sequence number.
    pub sequence_low: U32,
}

impl DataSector {
    /// What [`DataSector::signature`] must be.
    pub const SIGNATURE: [u8; 4] = *b"data";
}

const _: () = {
    assert!(size_of::<LogEntryHeader>() == 64);
    assert!(size_of::<Descriptor>() == 32);
    assert!(size_of::<DataSector>() == 4096);
};
