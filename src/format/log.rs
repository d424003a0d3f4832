//! Structures of the log (MS-VHDX 2.3.1).

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Guid, U32, U64};

/// Header of a log entry (MS-VHDX 2.3.1.1). It is followed by descriptors, and from the next multiple of 4 KiB on by
/// data sectors.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogEntryHeader {
    /// Signature: `loge`.
    pub signature: [u8; 4],
    /// CRC-32C of the whole entry, with this field as zero.
    pub checksum: U32,
    /// Length of the entry in bytes, a multiple of 4 KiB.
    pub entry_length: U32,
    /// Offset of the oldest entry that was still needed when this one was written, in bytes from the beginning of the
    /// log, a multiple of 4 KiB.
    pub tail: U32,
    /// One more than that of the entry before it; never 0.
    pub sequence_number: U64,
    /// Number of descriptors.
    pub descriptor_count: U32,
    /// Reserved: 0.
    pub reserved: U32,
    /// LogGuid of the header when the entry was written.
    pub log_guid: Guid,
    /// Length of the file, in bytes, that was certain to be on the medium when the entry was written.
    pub flushed_file_offset: U64,
    /// Length of the file, in bytes, that contains all structures allocated when the entry was written.
    pub last_file_offset: U64,
}

impl LogEntryHeader {
    /// Value of [`LogEntryHeader::signature`].
    pub const SIGNATURE: [u8; 4] = *b"loge";
}

/// Descriptor (MS-VHDX 2.3.1.2, 2.3.1.3): its signature decides whether the following bytes are a length of zeros, or
/// the two ends of a data sector.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Descriptor {
    /// Signature: `zero` or `desc`.
    pub signature: [u8; 4],
    /// Data descriptor: bytes 4092 to 4095 of the sector. Zero descriptor: reserved.
    pub trailing_bytes: [u8; 4],
    /// Data descriptor: bytes 0 to 7 of the sector. Zero descriptor: number of bytes to fill with zeros, a multiple of
    /// 4 KiB.
    pub leading_bytes: [u8; 8],
    /// Destination of the data (file offset) in bytes, a multiple of 4 KiB.
    pub file_offset: U64,
    /// The sequence number of the entry.
    pub sequence_number: U64,
}

impl Descriptor {
    /// Signature of a zero descriptor.
    pub const ZERO: [u8; 4] = *b"zero";
    /// Signature of a data descriptor.
    pub const DATA: [u8; 4] = *b"desc";

    /// Returns the number of bytes that a zero descriptor fills with zeros.
    #[must_use]
    pub fn zero_length(&self) -> u64 {
        U64::from_bytes(self.leading_bytes).get()
    }
}

/// Data sector (MS-VHDX 2.3.1.4): the bytes of a 4 KiB sector except for its two ends, which are in the descriptor.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataSector {
    /// Signature: `data`.
    pub signature: [u8; 4],
    /// The upper half of the entry's sequence number.
    pub sequence_high: U32,
    /// Bytes 8 to 4091 of the sector.
    pub data: [u8; 4084],
    /// The lower half of the entry's sequence number.
    pub sequence_low: U32,
}

impl DataSector {
    /// Value of [`DataSector::signature`].
    pub const SIGNATURE: [u8; 4] = *b"data";
}

const _: () = {
    assert!(size_of::<LogEntryHeader>() == 64);
    assert!(size_of::<Descriptor>() == 32);
    assert!(size_of::<DataSector>() == 4096);
};
