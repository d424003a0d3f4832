//! File type identifier and headers (MS-VHDX 2.2.1, 2.2.2).

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Guid, U16, U32, U64};

/// Length of [`FileIdentifier::creator`], in UTF-16 units.
pub const CREATOR_UNITS: usize = 256;

/// The file type identifier at offset 0 (MS-VHDX 2.2.1).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FileIdentifier {
    /// Signature: `vhdxfile`.
    pub signature: [u8; 8],
    /// Name of the program that made the file, in UTF-16, ended by NUL unless it has the full length. Informational;
    /// nothing may depend on it.
    pub creator: [U16; CREATOR_UNITS],
}

impl FileIdentifier {
    /// Value of [`FileIdentifier::signature`].
    pub const SIGNATURE: &'static str = "vhdxfile";
}

/// Header, at 64 KiB and at 128 KiB (MS-VHDX 2.2.2). The rest of its 4 KiB is reserved.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Signature: `head`.
    pub signature: [u8; 4],
    /// CRC-32C of the 4 KiB, with this field as zero.
    pub checksum: U32,
    /// The valid header with the greater number is the current one.
    pub sequence_number: U64,
    /// Changes when a session begins to write to the file.
    pub file_write_guid: Guid,
    /// Changes when the content of the disk does: the identity by which a child knows its parent.
    pub data_write_guid: Guid,
    /// GUID of the log entries to replay; nil if the log is clean.
    pub log_guid: Guid,
    /// Version of the log format: 0.
    pub log_version: U16,
    /// Version of the file format: 1.
    pub version: U16,
    /// Length of the log in bytes, a multiple of 1 MiB.
    pub log_length: U32,
    /// File offset of the log in bytes, a multiple of 1 MiB.
    pub log_offset: U64,
}

impl Header {
    /// Value of [`Header::signature`].
    pub const SIGNATURE: &'static str = "head";
    /// Length over which the checksum is computed, in bytes.
    pub const CHECKED_LENGTH: u64 = 4096;
}

const _: () = {
    assert!(size_of::<FileIdentifier>() == 520);
    assert!(size_of::<Header>() == 80);
    assert!(std::mem::offset_of!(Header, log_guid) == 48);
    assert!(std::mem::offset_of!(Header, log_offset) == 72);
};
