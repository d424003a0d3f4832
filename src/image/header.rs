//! Selection of the current header (MS-VHDX 2.2.2).

use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::FromBytes;

use crate::checksum::crc32c_of_structure;
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::{Header, MIB, header_offset};
use crate::num::to_u64;
use crate::source::View;

use super::warning::Warnings;
use crate::error::Rule;

/// Longest log that is replayed, in bytes. The format has no limit; this one limits the memory for a replay.
const MAX_LOG_LENGTH: u32 = 1 << 30;

/// Current header (MS-VHDX 2.2.2).
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct CurrentHeader {
    /// Number of the header: 1 or 2.
    pub copy: u8,
    /// SequenceNumber. The other header has a smaller one, or is invalid.
    pub sequence_number: u64,
    /// FileWriteGuid: changes when a session begins to write to the file.
    pub file_write_guid: Uuid,
    /// DataWriteGuid: identity of the content, which children store.
    pub data_write_guid: Uuid,
    /// LogGuid: identifies the log entries to replay; nil if the log is clean.
    pub log_guid: Uuid,
    /// Version of the log's format: 0.
    pub log_version: u16,
    /// Version of the file's format: 1.
    pub version: u16,
    /// File offset of the log, in bytes.
    pub log_offset: u64,
    /// Length of the log, in bytes.
    pub log_length: u32,
    /// Whether the file has a valid header: if not, all values are made up.
    pub(super) is_known: bool,
}

impl CurrentHeader {
    /// Returns whether the file has a valid header. Only a salvage opens a file without one; then no other value of
    /// this header has a meaning.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// Returns the DataWriteGuid, if it is known.
    #[must_use]
    pub fn known_data_write_guid(&self) -> Option<Uuid> {
        self.is_known.then_some(self.data_write_guid)
    }

    /// Makes the header of a file without a valid one: no log, and no identity.
    fn unknown() -> Self {
        Self {
            copy: 1,
            sequence_number: 0,
            file_write_guid: Uuid::nil(),
            data_write_guid: Uuid::nil(),
            log_guid: Uuid::nil(),
            log_version: 0,
            version: 1,
            log_offset: 0,
            log_length: 0,
            is_known: false,
        }
    }

    /// Returns whether the log is dirty: it holds changes that may not be in the file yet.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.log_guid.is_nil()
    }

    /// Returns the end of the log (file offset), without overflow.
    pub(crate) fn log_end(&self) -> Option<u64> {
        self.log_offset.checked_add(u64::from(self.log_length))
    }

    /// Makes an error in the field `field` bytes into this header.
    fn at(&self, field: usize, kind: ErrorKind) -> Error {
        let offset = header_offset(self.copy).saturating_add(to_u64(field));
        Error::at(Structure::Header(self.copy), offset, kind)
    }

    /// Checks that the log is inside the file and after the header section.
    pub(crate) fn check_log_place(&self, file_length: u64) -> Result<()> {
        let length = u64::from(self.log_length);
        if length > 0 && self.log_offset < MIB {
            let kind = ErrorKind::Overlap { with: Structure::HeaderSection, offset: 0 };
            return Err(self.at(offset_of!(Header, log_offset), kind));
        }
        if self.log_end().is_none_or(|end| end > file_length) {
            let kind = ErrorKind::OutOfBounds { length, limit: file_length };
            return Err(Error::at(Structure::Log, self.log_offset, kind));
        }
        Ok(())
    }

    pub(crate) fn check_log_alignment(&self) -> Result<()> {
        for (field, name, value) in [
            (offset_of!(Header, log_length), "LogLength", u64::from(self.log_length)),
            (offset_of!(Header, log_offset), "LogOffset", self.log_offset),
        ] {
            if !value.is_multiple_of(MIB) {
                let kind = ErrorKind::Field { field: name, found: value, expected: "a multiple of 1 MiB" };
                return Err(self.at(field, kind));
            }
        }
        Ok(())
    }

    pub(crate) fn check_log_length(&self) -> Result<()> {
        if self.log_length == 0 {
            let kind = ErrorKind::Field { field: "LogLength", found: 0, expected: "at least 1 MiB for a log in use" };
            return Err(self.at(offset_of!(Header, log_length), kind));
        }
        if self.log_length > MAX_LOG_LENGTH {
            let found = u64::from(self.log_length);
            let kind = ErrorKind::UnsupportedValue { field: "LogLength", found, expected: "at most 1 GiB" };
            return Err(self.at(offset_of!(Header, log_length), kind));
        }
        Ok(())
    }

    pub(crate) fn check_log_version(&self) -> Result<()> {
        if self.log_version != 0 {
            let found = u64::from(self.log_version);
            let kind = ErrorKind::UnsupportedValue { field: "LogVersion", found, expected: "0" };
            return Err(self.at(offset_of!(Header, log_version), kind));
        }
        Ok(())
    }
}

/// Finds the current header: the only valid one, or the valid one with the greater sequence number.
///
/// # Errors
/// [`ErrorKind::NoValidCopy`] if neither is valid, [`ErrorKind::AmbiguousHeaders`] if both are valid, with the same
/// number and different content, [`ErrorKind::UnsupportedValue`] if the current one has another version.
pub(crate) fn select(view: &View, warnings: &mut Warnings) -> Result<CurrentHeader> {
    let current = match (read(view, 1), read(view, 2)) {
        (Ok(first), Ok(second)) => {
            if first.sequence_number == second.sequence_number {
                accept_equal(view, &first, warnings)?;
                first
            } else if first.sequence_number > second.sequence_number {
                first
            } else {
                second
            }
        }
        (Ok(valid), Err(broken)) | (Err(broken), Ok(valid)) => {
            warnings.add(Rule::HeaderCopies, broken);
            valid
        }
        (Err(first), Err(second)) => {
            let detail = Error::of(Structure::Headers, ErrorKind::NoValidCopy { first, second });
            warnings.reject(Rule::Headers, detail)?;
            return Ok(CurrentHeader::unknown());
        }
    };
    // Only now: a header of another version is still the current one, and the older one is not.
    if current.version != 1 {
        let found = u64::from(current.version);
        let kind = ErrorKind::UnsupportedValue { field: "Version", found, expected: "1" };
        warnings.reject(Rule::Version, current.at(offset_of!(Header, version), kind))?;
    }
    Ok(current)
}

/// Accepts headers with the same number if all their bytes are equal: some writers leave them like that.
fn accept_equal(view: &View, first: &CurrentHeader, warnings: &mut Warnings) -> Result<()> {
    let sequence_number = first.sequence_number;
    if bytes(view, 1)? != bytes(view, 2)? {
        let detail = Error::of(Structure::Headers, ErrorKind::AmbiguousHeaders { sequence_number });
        return warnings.reject(Rule::HeaderSequence, detail);
    }
    let expected = "a value that differs from that of header 1";
    let kind = ErrorKind::Field { field: "SequenceNumber", found: sequence_number, expected };
    let offset = header_offset(2).saturating_add(to_u64(offset_of!(Header, sequence_number)));
    warnings.add(Rule::HeaderSequence, Error::at(Structure::Header(2), offset, kind));
    Ok(())
}

fn bytes(view: &View, copy: u8) -> Result<Vec<u8>> {
    view.copy(Structure::Header(copy), header_offset(copy), Header::CHECKED_LENGTH)
}

pub(crate) fn read(view: &View, copy: u8) -> Result<CurrentHeader> {
    let (structure, offset) = (Structure::Header(copy), header_offset(copy));
    // A copy, so that the checked bytes are those that are used.
    let bytes = bytes(view, copy)?;
    let expected = crc32c_of_structure(&bytes, offset_of!(Header, checksum));
    let Ok((header, _)) = Header::read_from_prefix(&bytes) else {
        let kind = ErrorKind::OutOfBounds { length: Header::CHECKED_LENGTH, limit: view.length() };
        return Err(Error::at(structure, offset, kind));
    };
    if header.signature != *Header::SIGNATURE.as_bytes() {
        return Err(Error::at(structure, offset, ErrorKind::signature(&header.signature, Header::SIGNATURE)));
    }
    let found = header.checksum.get();
    if found != expected {
        let field = offset.saturating_add(to_u64(offset_of!(Header, checksum)));
        return Err(Error::at(structure, field, ErrorKind::Checksum { found, expected }));
    }
    Ok(fields(copy, &header))
}

/// Returns the fields of a header, valid or not.
fn fields(copy: u8, header: &Header) -> CurrentHeader {
    CurrentHeader {
        copy,
        sequence_number: header.sequence_number.get(),
        file_write_guid: header.file_write_guid.to_uuid(),
        data_write_guid: header.data_write_guid.to_uuid(),
        log_guid: header.log_guid.to_uuid(),
        log_version: header.log_version.get(),
        version: header.version.get(),
        log_offset: header.log_offset.get(),
        log_length: header.log_length.get(),
        is_known: true,
    }
}

/// The other copy of the header than the current one.
pub(crate) enum Other {
    /// A valid header.
    Valid,
    /// An invalid header: its fields, and whether it still looks like a header.
    Damaged(CurrentHeader, bool),
    /// Unreadable.
    Lost,
}

/// Reads the other header than the current one. A header that was being written when the power failed looks like a
/// damaged one, too: the log shows whether it was current.
pub(crate) fn other(view: &View, current: &CurrentHeader) -> Other {
    let copy = 3_u8.saturating_sub(current.copy);
    if read(view, copy).is_ok() {
        return Other::Valid;
    }
    let Ok(header) = view.fetch::<Header>(Structure::Header(copy), header_offset(copy)) else { return Other::Lost };
    let says = fields(copy, &header);
    let has_same_log = (says.log_offset, says.log_length) == (current.log_offset, current.log_length);
    let looks_like_one = header.signature == *Header::SIGNATURE.as_bytes() || (says.version == 1 && has_same_log);
    Other::Damaged(says, looks_like_one)
}
