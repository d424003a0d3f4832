//! What can be wrong, with the values found and expected.

use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use uuid::Uuid;

use super::candidate::Tried;
use super::{Candidate, Category, Error, Rule, Structure};

/// What is wrong. Numbers are as found in the file; lengths and offsets are bytes.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum ErrorKind {
    /// The file does not begin as a VHDX does.
    NotVhdx {
        /// What it looks like instead.
        looks_like: &'static str,
    },
    /// The file ends too early.
    FileTooShort {
        /// Length of the file.
        found: u64,
        /// Length that it must have at least.
        expected: u64,
    },
    /// A signature is wrong.
    Signature {
        /// The bytes found; a signature of four bytes is followed by zeros.
        found: [u8; 8],
        /// The bytes expected, as text.
        expected: &'static str,
    },
    /// A CRC-32C is wrong.
    Checksum {
        /// The checksum that is stored.
        found: u32,
        /// The checksum of what is there.
        expected: u32,
    },
    /// Neither of two copies is usable.
    NoValidCopy {
        /// What is wrong with the first copy.
        first: Error,
        /// What is wrong with the second copy.
        second: Error,
    },
    /// Two different valid headers have the same sequence number, so neither is the current one.
    AmbiguousHeaders {
        /// The sequence number of both.
        sequence_number: u64,
    },
    /// A field has a value that the format does not allow.
    Field {
        /// The field, by its name in MS-VHDX.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What is allowed.
        expected: &'static str,
    },
    /// A field asks for a version or a kind that this crate does not know.
    UnsupportedValue {
        /// The field, by its name in MS-VHDX.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What is supported.
        expected: &'static str,
    },
    /// Something reaches beyond what contains it: the file, its region, or its table.
    OutOfBounds {
        /// Length of what begins at the error's offset.
        length: u64,
        /// Where what contains it ends.
        limit: u64,
    },
    /// Two things that must be apart share bytes of the file.
    Overlap {
        /// What it overlaps.
        with: Structure,
        /// Where that begins.
        offset: u64,
    },
    /// Something that must be unique is there twice.
    Duplicate {
        /// Its identifier.
        id: Uuid,
    },
    /// Something that must be there is not.
    Missing {
        /// Its name.
        what: &'static str,
    },
    /// A region or metadata item that readers must understand is unknown.
    UnknownRequired {
        /// Its identifier.
        id: Uuid,
    },
    /// A region is not known, and readers need not understand it (MS-VHDX 2.2.3).
    UnknownOptional {
        /// What it is.
        id: Uuid,
    },
    /// The parent locator is of a type that this crate does not know.
    UnknownLocatorType {
        /// The type.
        id: Uuid,
    },
    /// The image carries the marker of an image whose creation was never finished.
    IncompleteFile,
    /// The BAT region is too small for the disk.
    BatTooSmall {
        /// Length of the region.
        found: u64,
        /// Length that the disk needs.
        expected: u64,
    },
    /// The log holds changes that are not in the file yet, and the caller asked for such images to be refused.
    DirtyLog {
        /// The log's GUID.
        log_guid: Uuid,
    },
    /// The log is not empty, but it holds no complete sequence of entries to replay.
    NoActiveSequence {
        /// The log's GUID.
        log_guid: Uuid,
        /// How many valid entries of this GUID the log holds.
        entries: u64,
    },
    /// A BAT entry has a state that does not exist.
    ReservedState {
        /// The state, 0 to 7.
        state: u8,
    },
    /// A block is partially present in a disk that has no parent.
    PartiallyPresentWithoutParent,
    /// A block is partially present, but its sector bitmap block is not there.
    NoSectorBitmap {
        /// The state of the sector bitmap block's BAT entry, 0 to 7.
        state: u8,
    },
    /// A block that is not present has a place in the file.
    PlaceOfAbsent {
        /// Its state.
        state: &'static str,
        /// The place, in bytes.
        offset: u64,
    },
    /// Nothing refers to these bytes of the file.
    Unreferenced {
        /// How many they are.
        length: u64,
        /// Whether all of them are zero.
        is_zero: bool,
    },
    /// What the format leaves empty is not.
    NotEmpty {
        /// The first byte of it that is not zero.
        found: u8,
        /// What it is.
        what: &'static str,
    },
    /// Blocks that are present hold zeros only.
    ZeroBlocks {
        /// How many.
        count: u64,
        /// How much room they take, in bytes.
        length: u64,
    },
    /// A log holds entries that are none of it any more.
    StaleEntries {
        /// How many.
        count: u64,
    },
    /// A log entry is not valid.
    BrokenEntry {
        /// Why.
        flaw: String,
    },
    /// A value of the image was replaced by one that was said by hand.
    Overridden {
        /// Its name in MS-VHDX.
        field: &'static str,
    },
    /// Something is not as it must be, for which a few words say most.
    Text {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Two copies that must be equal are both valid and differ.
    CopiesDiffer,
    /// The parent locator has no usable GUID under a key.
    LocatorGuid {
        /// The key.
        key: &'static str,
        /// The text found there.
        found: String,
    },
    /// The image needs a parent, and the caller gave none and allowed no search.
    NoParentAttached,
    /// No file was found for a parent.
    ParentNotFound {
        /// The path or name by which the child knows it.
        name: String,
        /// Where it was looked for, and what was there.
        tried: Vec<Candidate>,
    },
    /// The files found for a parent are not the one that the child was made from.
    ParentMismatch {
        /// The path or name by which the child knows it.
        name: String,
        /// The identity that the child asks for.
        expected: Uuid,
        /// Where it was looked for, and what was there.
        tried: Vec<Candidate>,
    },
    /// The parents of an image form a circle.
    ChainCycle,
    /// The chain has more parents than this crate follows.
    ChainTooLong {
        /// How many parents it follows.
        limit: usize,
    },
    /// Parent and child have different logical sector sizes.
    SectorSizeMismatch {
        /// The parent's.
        found: u32,
        /// The child's.
        expected: u32,
    },
    /// The medium of the file has failed to give these bytes.
    MediumFailed,
    /// The caller asked for bytes that the disk does not have.
    OutsideDisk {
        /// Where the request ends.
        end: u64,
        /// Size of the disk.
        size: u64,
    },
    /// The caller asked for a content of more bytes than a `u64` counts.
    ContentTooLong {
        /// Length of the content, in bytes.
        found: u128,
    },
    /// The caller asked to borrow bytes of a source that does not lend any: one that is neither mapped nor in memory.
    NotBorrowable,
    /// The caller asked for a layer that the chain does not have, or for the first one where one below it is meant.
    NoSuchLayer {
        /// Its number.
        layer: usize,
    },
    /// The path is not of a file that can be read at any place.
    NotAFile {
        /// What it is.
        what: &'static str,
    },
    /// The file could not be opened.
    Open(Arc<io::Error>),
    /// The operating system reports an error.
    Io(Arc<io::Error>),
    /// The bytes were there when the file was mapped, and can't be read any more: the file has become shorter, or its medium
    /// failed. The offset is that of the first one.
    Lost,
    /// The file was changed while it was read.
    Changed,
    /// The files are not those of the fingerprint that the caller has given, or were written to since it was taken.
    OtherFiles {
        /// What differs first.
        what: &'static str,
    },
}

impl ErrorKind {
    /// A wrong signature, of 4 or 8 bytes.
    pub(crate) fn signature(bytes: &[u8], expected: &'static str) -> Self {
        let mut found = [0; 8];
        found.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Self::Signature { found, expected }
    }

    /// The rule that is broken wherever this is wrong with `structure`, where that is one rule.
    pub(super) fn rule(&self, structure: Structure) -> Option<Rule> {
        Some(match (self, structure) {
            (Self::Io(_) | Self::Lost | Self::MediumFailed | Self::Changed, _) => Rule::Medium,
            (Self::NotVhdx { .. }, _) => Rule::Signature,
            (Self::NoValidCopy { .. }, Structure::Headers) => Rule::Headers,
            (Self::NoValidCopy { .. }, Structure::RegionTables) => Rule::RegionTables,
            (Self::DirtyLog { .. }, _) => Rule::LogRefused,
            (Self::NoActiveSequence { .. }, _) => Rule::LogSequence,
            (Self::BatTooSmall { .. }, _)
            | (Self::OutOfBounds { .. }, Structure::PayloadBatEntry(_) | Structure::Bat) => Rule::BatSize,
            (Self::ReservedState { .. }, _) => Rule::BlockState,
            (Self::PartiallyPresentWithoutParent, _) => Rule::PartialWithoutParent,
            (Self::NoSectorBitmap { .. }, _) => Rule::Bitmap,
            (Self::Overlap { .. } | Self::OutOfBounds { .. }, Structure::SectorBitmap(_)) => Rule::Bitmap,
            (Self::OutOfBounds { .. }, Structure::PayloadBlock(_) | Structure::File) => Rule::BlockPlace,
            (Self::NoParentAttached | Self::ParentNotFound { .. }, _) => Rule::ParentMissing,
            (Self::ParentMismatch { .. }, _) => Rule::ParentIdentity,
            (Self::ChainCycle | Self::ChainTooLong { .. }, _) => Rule::Chain,
            (Self::SectorSizeMismatch { .. }, _) => Rule::ParentSectorSize,
            _ => return None,
        })
    }

    pub(super) fn category(&self) -> Category {
        match self {
            Self::NotVhdx { .. } => Category::NotVhdx,
            // What the medium hides may be valid.
            Self::NoValidCopy { second, .. } if second.category() == Category::Io => Category::Io,
            Self::NoValidCopy { first, .. } => first.category(),
            Self::UnsupportedValue { .. }
            | Self::UnknownRequired { .. }
            | Self::UnknownLocatorType { .. }
            | Self::ChainTooLong { .. } => Category::Unsupported,
            Self::DirtyLog { .. } => Category::DirtyLog,
            Self::NoParentAttached | Self::ParentNotFound { .. } => Category::ParentNotFound,
            Self::ParentMismatch { .. } => Category::ParentMismatch,
            Self::OutsideDisk { .. } | Self::ContentTooLong { .. } | Self::NotBorrowable | Self::NoSuchLayer { .. } => {
                Category::InvalidInput
            }
            Self::NotAFile { .. } | Self::Open(_) => Category::Open,
            Self::MediumFailed | Self::Io(_) | Self::Lost | Self::Changed | Self::OtherFiles { .. } => Category::Io,
            _ => Category::Corrupt,
        }
    }
}

impl UnwindSafe for ErrorKind {}
impl RefUnwindSafe for ErrorKind {}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotVhdx { looks_like } => write!(f, "not a VHDX image (looks like {looks_like})"),
            Self::FileTooShort { found, expected } => {
                write!(f, "too short (found {found} bytes, expected at least {expected})")
            }
            Self::Signature { found, expected } => {
                let text = found.get(..expected.len()).unwrap_or(found);
                write!(f, "wrong signature (found \"{}\", expected \"{expected}\")", text.escape_ascii())
            }
            Self::Checksum { found, expected } => {
                write!(f, "wrong CRC-32C (found {found:#010x}, expected {expected:#010x})")
            }
            Self::NoValidCopy { first, second } => write!(f, "no usable copy ({first}; {second})"),
            Self::AmbiguousHeaders { sequence_number } => {
                write!(f, "both valid and different, with the same SequenceNumber (found {sequence_number} twice)")
            }
            Self::Field { field, found, expected } => {
                write!(f, "bad {field} (found {}, expected {expected})", Number(*found))
            }
            Self::UnsupportedValue { field, found, expected } => {
                write!(f, "unsupported {field} (found {}, expected {expected})", Number(*found))
            }
            Self::OutOfBounds { length, limit } => {
                write!(f, "{length} bytes do not fit (expected to end at or before {limit:#x})")
            }
            Self::Overlap { with, offset } => write!(f, "overlaps {with} at {offset:#x}"),
            Self::Duplicate { id } => write!(f, "{{{id}}} is there twice"),
            Self::Missing { what } => write!(f, "{what} is missing"),
            Self::UnknownOptional { id } => write!(f, "{{{id}}} is unknown, and not required"),
            Self::UnknownRequired { id } => write!(f, "{{{id}}} is required and unknown"),
            Self::UnknownLocatorType { id } => {
                write!(f, "unknown LocatorType (found {{{id}}}, expected {{b04aefb7-d19e-4a81-b789-25b8e9445913}})")
            }
            Self::IncompleteFile => f.write_str("marked as incomplete: the creation of this image was never finished"),
            Self::BatTooSmall { found, expected } => {
                write!(f, "too small for the disk (found {found} bytes, expected at least {expected})")
            }
            Self::DirtyLog { log_guid } => {
                write!(f, "holds changes that are not in the file yet (found LogGuid {{{log_guid}}}, expected none)")
            }
            Self::NoActiveSequence { log_guid, entries } => write!(
                f,
                "not empty, but without a complete sequence to replay \
                 (found {entries} valid entries of LogGuid {{{log_guid}}}, expected a sequence that holds its own tail)"
            ),
            Self::ReservedState { state } => write!(f, "reserved state (found {state}, expected 0 to 3, 6 or 7)"),
            Self::PartiallyPresentWithoutParent => {
                f.write_str("partially present in a disk without parent (found state 7, expected 0 to 3 or 6)")
            }
            Self::NoSectorBitmap { state } => {
                write!(f, "a block is partially present without sector bitmap (found state {state}, expected 6)")
            }
            Self::Overridden { field } => write!(f, "{field} is another than the one that was assumed"),
            Self::Text { what } => f.write_str(what),
            Self::CopiesDiffer => f.write_str("valid, but not equal to the other copy"),
            Self::LocatorGuid { key, found } => {
                write!(f, "bad {key} (found \"{}\", expected a GUID in braces)", Name(found))
            }
            Self::NoParentAttached => f.write_str("needed, but none was given and no search allowed"),
            Self::ParentNotFound { name, tried } => {
                write!(f, "\"{}\" not found{}", Name(name), Tried(tried))
            }
            Self::ParentMismatch { name, expected, tried } => write!(
                f,
                "\"{}\" is not the image that the child was made from (expected DataWriteGuid {{{expected}}}){}",
                Name(name),
                Tried(tried)
            ),
            Self::ChainCycle => f.write_str("the chain leads back to a file that is already in it"),
            Self::ChainTooLong { limit } => write!(f, "the chain has more than {limit} parents"),
            Self::SectorSizeMismatch { found, expected } => {
                write!(f, "another LogicalSectorSize than its child's (found {found}, expected {expected})")
            }
            Self::OutsideDisk { end, size } => {
                write!(f, "the request ends behind the disk (found end {end}, expected at most {size})")
            }
            Self::ContentTooLong { found } => {
                write!(f, "the content is too long (found {found} bytes, expected at most {})", u64::MAX)
            }
            Self::PlaceOfAbsent { state, offset } => {
                write!(f, "the block is {state} and has a place all the same (found {offset:#x}, expected 0)")
            }
            Self::Unreferenced { length, is_zero: false } => write!(f, "{length} bytes that nothing refers to"),
            Self::Unreferenced { length, is_zero: true } => {
                write!(f, "{length} bytes that nothing refers to, all of them zero")
            }
            Self::NotEmpty { found, what } => write!(f, "{what} is not empty (found {found:#04x}, expected 0)"),
            Self::ZeroBlocks { count, length } => {
                write!(
                    f,
                    "{count} blocks are present and hold only zeros: compacted, the file is {length} bytes shorter"
                )
            }
            Self::StaleEntries { count } => write!(f, "{count} entries of earlier sessions"),
            Self::BrokenEntry { flaw } => write!(f, "not valid: {flaw}"),
            Self::NotBorrowable => f.write_str("cannot be borrowed: the source is neither mapped nor in memory"),
            Self::MediumFailed => f.write_str("the medium has failed to give it"),
            Self::NoSuchLayer { layer } => write!(f, "the chain has no ancestor with number {layer}"),
            Self::NotAFile { what } => write!(f, "is {what} (expected a regular file or a block device)"),
            Self::Open(error) => write!(f, "cannot be opened: {error}"),
            Self::Io(error) => write!(f, "cannot be read: {error}"),
            Self::Lost => f.write_str("cannot be read any more: the file has become shorter, or its medium failed"),
            Self::Changed => f.write_str("changed while it was read"),
            Self::OtherFiles { what } => write!(f, "{what} differs from the expected fingerprint"),
        }
    }
}

/// A text from a file, with what would act on a terminal written as escapes.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") })
    }
}

/// A number from a file: small ones in decimal, others in both notations.
struct Number(u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 10 { write!(f, "{}", self.0) } else { write!(f, "{} = {:#x}", self.0, self.0) }
    }
}
