//! Causes of errors, with the values found and expected.

use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use uuid::Uuid;

use super::candidate::Tried;
use super::words::{Count, Name, Number, Place};
use super::{Candidate, Category, Error, OtherFormat, Rule, Structure};

/// Cause of an [`Error`]. Numbers are as found in the file; lengths and offsets are in bytes.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum ErrorKind {
    /// The file is not a VHDX file.
    NotVhdx {
        /// The format that its content or its name suggests.
        looks_like: OtherFormat,
    },
    /// The file is shorter than it must be.
    FileTooShort {
        /// Length of the file.
        found: u64,
        /// Smallest allowed length.
        expected: u64,
    },
    /// A signature is wrong.
    Signature {
        /// The bytes found; four zeros follow a signature of 4 bytes.
        found: [u8; 8],
        /// The bytes expected, as text.
        expected: &'static str,
    },
    /// A CRC-32C is wrong.
    Checksum {
        /// The stored checksum.
        found: u32,
        /// The checksum computed from the content.
        expected: u32,
    },
    /// Neither copy of a structure is usable.
    NoValidCopy {
        /// Error in the first copy.
        first: Error,
        /// Error in the second copy.
        second: Error,
    },
    /// Two different valid headers have the same sequence number, so neither is the current header (MS-VHDX 2.2.2).
    AmbiguousHeaders {
        /// The SequenceNumber of both headers.
        sequence_number: u64,
    },
    /// A field has a value that the format does not allow.
    Field {
        /// Name of the field in MS-VHDX.
        field: &'static str,
        /// Value of the field.
        found: u64,
        /// Allowed values.
        expected: &'static str,
    },
    /// A field has a value that this crate does not support.
    UnsupportedValue {
        /// Name of the field in MS-VHDX.
        field: &'static str,
        /// Value of the field.
        found: u64,
        /// Supported values.
        expected: &'static str,
    },
    /// A structure reaches past the end of its container: the file, a region, or a table.
    OutOfBounds {
        /// Length of the structure, which begins at the error's offset.
        length: u64,
        /// End of the container (file offset).
        limit: u64,
    },
    /// Two structures share bytes of the file.
    Overlap {
        /// The other structure.
        with: Structure,
        /// File offset of the other structure.
        offset: u64,
    },
    /// A region or metadata item occurs twice.
    Duplicate {
        /// Its GUID.
        id: Uuid,
    },
    /// Both region tables are lost, and a search of the file gave this: one pair that is used, or another number, which
    /// is an error.
    RegionSearch {
        /// Possible file offsets of metadata region and BAT. The metadata may be lost, too, or have no BAT.
        found: Vec<(Option<u64>, Option<u64>)>,
    },
    /// A required structure is missing.
    Missing {
        /// Name of the structure.
        what: &'static str,
    },
    /// A region or metadata item that is marked as required is unknown.
    UnknownRequired {
        /// Its GUID.
        id: Uuid,
    },
    /// A region is unknown, but not marked as required (MS-VHDX 2.2.3).
    UnknownOptional {
        /// Its GUID.
        id: Uuid,
    },
    /// The parent locator has an unknown type (MS-VHDX 2.6.2.6.1).
    UnknownLocatorType {
        /// The LocatorType.
        id: Uuid,
    },
    /// The image is marked as incomplete: its creation was never finished.
    IncompleteFile,
    /// The BAT region is too small for the disk.
    BatTooSmall {
        /// Length of the region.
        found: u64,
        /// Length that the size of the disk requires.
        expected: u64,
    },
    /// The log holds changes that are not in the file yet, and the caller refuses such images.
    DirtyLog {
        /// LogGuid of the current header.
        log_guid: Uuid,
    },
    /// The log is dirty, but has no complete sequence of entries to replay (MS-VHDX 2.3.2).
    NoActiveSequence {
        /// LogGuid of the current header.
        log_guid: Uuid,
        /// Number of valid entries with this GUID.
        entries: u64,
    },
    /// A BAT entry has a reserved state.
    ReservedState {
        /// The state, 0 to 7.
        state: u8,
    },
    /// A block is partially present in a disk that has no parent.
    PartiallyPresentWithoutParent,
    /// A block is partially present, but its sector bitmap block is not allocated.
    NoSectorBitmap {
        /// State in the BAT entry of the sector bitmap block, 0 to 7.
        state: u8,
    },
    /// The BAT entry of an unallocated block has a nonzero file offset.
    PlaceOfAbsent {
        /// Name of the block state in MS-VHDX.
        state: &'static str,
        /// File offset in the BAT entry.
        offset: u64,
    },
    /// Nothing refers to these bytes of the file.
    Unreferenced {
        /// Number of bytes.
        length: u64,
        /// Whether all bytes can be read, and are zero.
        is_zero: bool,
    },
    /// The file ends before some of its allocated blocks do.
    Truncated {
        /// Length of the file.
        file_end: u64,
        /// File offset at which the last block ends.
        blocks_end: u64,
        /// Number of allocated blocks.
        allocated: u64,
        /// Number of those whose bytes are missing, in whole or in part.
        incomplete: u64,
        /// Number of bytes of the disk that are missing.
        missing: u64,
    },
    /// The BAT entry of a sector bitmap block places a block in an image without parent, and the block is not zero.
    StrayBlock {
        /// File offset of the block.
        offset: u64,
    },
    /// Payload blocks are not present, while the file has content that nothing refers to, in the space of blocks.
    LostBlocks {
        /// Number of payload blocks that are not present.
        absent: u64,
        /// Number of payload blocks.
        blocks: u64,
        /// Length of the space that nothing refers to and that may hold blocks.
        space: u64,
        /// File offset of the first byte of it that is not zero.
        first: u64,
    },
    /// Blocks that are not present are read at the places that they have in a fixed image, by order of the caller
    /// ([`MetadataOverrides`](crate::MetadataOverrides)).
    AssumedPlaces {
        /// File offset of block 0.
        offset: u64,
        /// Another one, for which there is evidence, too.
        other: Option<u64>,
    },
    /// Bytes that the format reserves or leaves unused are not zero.
    NotEmpty {
        /// The first nonzero byte.
        found: u8,
        /// Name of the unused part.
        what: &'static str,
    },
    /// Allocated blocks hold only zeros.
    ZeroBlocks {
        /// Number of blocks.
        count: u64,
        /// Space that they take in the file.
        length: u64,
    },
    /// A log holds entries of earlier sessions, which are never replayed.
    StaleEntries {
        /// Number of entries.
        count: u64,
    },
    /// A log entry is invalid (MS-VHDX 2.3.2).
    BrokenEntry {
        /// Reason.
        flaw: String,
    },
    /// A value of the image was replaced by one that the caller gave ([`MetadataOverrides`](crate::MetadataOverrides)).
    Overridden {
        /// Name of the field in MS-VHDX.
        field: &'static str,
    },
    /// Another problem, in words.
    Text {
        /// The problem.
        what: &'static str,
    },
    /// Two copies that must be equal are both valid, but differ.
    CopiesDiffer,
    /// The parent locator has no usable GUID under a key.
    LocatorGuid {
        /// The key.
        key: &'static str,
        /// Text found for this key.
        found: String,
    },
    /// The image needs a parent, but the caller gave none and allowed no search.
    NoParentAttached,
    /// No parent was found.
    ParentNotFound {
        /// Path of the parent that the child stores.
        name: String,
        /// Paths that were tried, and why each was rejected.
        tried: Vec<Candidate>,
    },
    /// Files were found for a parent, but none has the identity that the child stores.
    ParentMismatch {
        /// Path of the parent that the child stores.
        name: String,
        /// DataWriteGuid of the parent that the child stores.
        expected: Uuid,
        /// Paths that were tried, and why each was rejected.
        tried: Vec<Candidate>,
    },
    /// The chain of parents leads back to one of its files.
    ChainCycle,
    /// The chain has more parents than this crate follows.
    ChainTooLong {
        /// Largest number of parents.
        limit: usize,
    },
    /// Parent and child have different logical sector sizes.
    SectorSizeMismatch {
        /// Sector size of the parent, in bytes.
        found: u32,
        /// Sector size of the child, in bytes.
        expected: u32,
    },
    /// The medium of the file failed to return these bytes.
    MediumFailed,
    /// The caller asked for bytes past the end of the disk.
    OutsideDisk {
        /// End of the request.
        end: u64,
        /// Size of the disk.
        size: u64,
    },
    /// The caller asked for content of more than `u64::MAX` bytes.
    ContentTooLong {
        /// Length of the content.
        found: u128,
    },
    /// The caller asked to borrow bytes of a source that is neither mapped nor in memory.
    NotBorrowable,
    /// The caller asked for a layer that the chain does not have, or for layer 0 where a parent is required.
    NoSuchLayer {
        /// Number of the layer.
        layer: usize,
    },
    /// The path is neither a regular file nor a block device.
    NotAFile {
        /// Kind of the file, such as "a directory".
        what: &'static str,
    },
    /// The file cannot be opened.
    Open(Arc<io::Error>),
    /// The operating system reported an error.
    Io(Arc<io::Error>),
    /// The file has become shorter, or its medium failed, since it was opened. The offset of the error is that of the
    /// first byte that cannot be read any more.
    Lost,
    /// The file was changed while it was read.
    Changed,
    /// The files differ from the fingerprint that the caller gave, or were written to since it was taken.
    OtherFiles {
        /// Name of the first difference.
        what: &'static str,
    },
}

impl ErrorKind {
    /// Makes an error for a wrong signature of 4 or 8 bytes.
    pub(crate) fn signature(bytes: &[u8], expected: &'static str) -> Self {
        let mut found = [0; 8];
        found.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Self::Signature { found, expected }
    }

    /// Returns the rule that this error in `structure` always breaks, if there is exactly one.
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
            (Self::Truncated { .. }, _) => Rule::BlockPlace,
            (Self::StrayBlock { .. }, _) => Rule::BitmapUnneeded,
            (Self::LostBlocks { .. }, _) => Rule::LostBlocks,
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
            Self::NotVhdx { looks_like } => write!(f, "not a VHDX image (looks like {})", looks_like.name),
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
                write!(f, "two different valid headers have the same SequenceNumber (found {sequence_number})")
            }
            Self::Field { field, found, expected } => {
                write!(f, "bad {field} (found {}, expected {expected})", Number(*found))
            }
            Self::UnsupportedValue { field, found, expected } => {
                write!(f, "unsupported {field} (found {}, expected {expected})", Number(*found))
            }
            Self::OutOfBounds { length, limit } => {
                write!(
                    f,
                    "{} not fit (expected to end at or before {limit:#x})",
                    Count(*length, "byte does", "bytes do")
                )
            }
            Self::Overlap { with, offset } => write!(f, "overlaps {with} at {offset:#x}"),
            Self::Duplicate { id } => write!(f, "{{{id}}} occurs twice"),
            Self::RegionSearch { found } => write!(f, "{}", Regions(found)),
            Self::Missing { what } => write!(f, "{what} is missing"),
            Self::UnknownOptional { id } => write!(f, "{{{id}}} is unknown, but not required"),
            Self::UnknownRequired { id } => write!(f, "{{{id}}} is required and unknown"),
            Self::UnknownLocatorType { id } => {
                write!(f, "unknown LocatorType (found {{{id}}}, expected {{b04aefb7-d19e-4a81-b789-25b8e9445913}})")
            }
            Self::IncompleteFile => f.write_str("marked as incomplete: the creation of the image was never finished"),
            Self::BatTooSmall { found, expected } => {
                write!(f, "too small for the disk (found {found} bytes, expected at least {expected})")
            }
            Self::DirtyLog { log_guid } => {
                write!(f, "holds changes that are not in the file yet (found LogGuid {{{log_guid}}}, expected nil)")
            }
            Self::NoActiveSequence { log_guid, entries } => write!(
                f,
                "dirty, without a complete sequence to replay \
                 (found {} with LogGuid {{{log_guid}}}, expected a sequence that includes its tail)",
                Count(*entries, "valid entry", "valid entries")
            ),
            Self::ReservedState { state } => write!(f, "reserved state (found {state}, expected 0 to 3, 6 or 7)"),
            Self::PartiallyPresentWithoutParent => {
                f.write_str("partially present, but the disk has no parent (found state 7, expected 0 to 3 or 6)")
            }
            Self::NoSectorBitmap { state } => {
                write!(f, "not allocated, but a block is partially present (found state {state}, expected 6)")
            }
            Self::Overridden { field } => write!(f, "{field} differs from the value given with --assume"),
            Self::Text { what } => f.write_str(what),
            Self::CopiesDiffer => f.write_str("valid, but differs from the other copy"),
            Self::LocatorGuid { key, found } => {
                write!(f, "bad {key} (found \"{}\", expected a GUID in braces)", Name(found))
            }
            Self::NoParentAttached => f.write_str("needed, but none was given and no search was allowed"),
            Self::ParentNotFound { name, tried } => {
                write!(f, "\"{}\" not found{}", Name(name), Tried(tried))
            }
            Self::ParentMismatch { name, expected, tried } => write!(
                f,
                "\"{}\": identity mismatch (expected DataWriteGuid {{{expected}}}){}",
                Name(name),
                Tried(tried)
            ),
            Self::ChainCycle => f.write_str("the chain leads back to a file that is already in it"),
            Self::ChainTooLong { limit } => write!(f, "the chain has more than {limit} parents"),
            Self::SectorSizeMismatch { found, expected } => {
                write!(f, "LogicalSectorSize differs from that of the child (found {found}, expected {expected})")
            }
            Self::OutsideDisk { end, size } => {
                write!(f, "the request goes past the end of the disk (found end {end}, expected at most {size})")
            }
            Self::ContentTooLong { found } => {
                write!(f, "the content is too long (found {found} bytes, expected at most {})", u64::MAX)
            }
            Self::PlaceOfAbsent { state, offset } => {
                write!(f, "{state} block has a nonzero file offset (found {offset:#x}, expected 0)")
            }
            Self::Unreferenced { length, is_zero: false } => {
                write!(f, "{} that nothing refers to", Count(*length, "byte", "bytes"))
            }
            Self::Unreferenced { length, is_zero: true } => {
                write!(f, "{} that nothing refers to, all zero", Count(*length, "byte", "bytes"))
            }
            Self::Truncated { file_end, blocks_end, allocated, incomplete, missing } => write!(
                f,
                "truncated: it ends at {}, but its blocks reach to {}: {incomplete} of {} and {} of the disk are \
                 missing",
                Place(*file_end),
                Place(*blocks_end),
                Count(*allocated, "block", "blocks"),
                Count(*missing, "byte", "bytes")
            ),
            Self::StrayBlock { offset } => write!(
                f,
                "places a block at {offset:#x} that no payload block refers to, and that is not zero, in an image \
                 without parent: content of the disk is missing or shifted"
            ),
            Self::LostBlocks { absent, blocks, space, first } => write!(
                f,
                "{absent} of {} not present, and read as zeros, but nothing refers to {} of the file, which are not \
                 all zero (first at {first:#x}): entries of the BAT may be lost",
                Count(*blocks, "block is", "blocks are"),
                Count(*space, "byte", "bytes")
            ),
            Self::AssumedPlaces { offset, other } => {
                write!(
                    f,
                    "blocks that are not present are read where a fixed image has them, from {offset:#x} on, as given \
                     with --assume"
                )?;
                other.map_or(Ok(()), |other| write!(f, "; the first of them may as well be at {other:#x}"))
            }
            Self::NotEmpty { found, what } => write!(f, "{what} is not empty (found {found:#04x}, expected 0)"),
            Self::ZeroBlocks { count, length } => {
                let blocks = Count(*count, "allocated block holds", "allocated blocks hold");
                write!(f, "{blocks} only zeros (compaction would free {length} bytes)")
            }
            Self::StaleEntries { count } => {
                write!(f, "{} of earlier sessions", Count(*count, "entry", "entries"))
            }
            Self::BrokenEntry { flaw } => write!(f, "invalid: {flaw}"),
            Self::NotBorrowable => f.write_str("cannot be borrowed: the source is neither mapped nor in memory"),
            Self::MediumFailed => f.write_str("the medium failed to return it"),
            Self::NoSuchLayer { layer } => write!(f, "the chain has no parent with number {layer}"),
            Self::NotAFile { what } => write!(f, "is {what} (expected a regular file or a block device)"),
            Self::Open(error) => write!(f, "cannot be opened: {error}"),
            Self::Io(error) => write!(f, "cannot be read: {error}"),
            Self::Lost => f.write_str(
                "cannot be read any more: the file has become shorter since it was opened, or its medium failed",
            ),
            Self::Changed => f.write_str("changed while it was read"),
            Self::OtherFiles { what } => write!(f, "{what} differs from the expected fingerprint"),
        }
    }
}

/// Result of a search for the regions.
struct Regions<'a>(&'a [(Option<u64>, Option<u64>)]);

impl fmt::Display for Regions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |f: &mut fmt::Formatter<'_>, (metadata, bat): &(Option<u64>, Option<u64>)| {
            match metadata {
                Some(offset) => write!(f, "metadata region at {offset:#x}")?,
                None => f.write_str("no metadata region")?,
            }
            match bat {
                Some(offset) => write!(f, ", BAT at {offset:#x}"),
                None => f.write_str(", no BAT"),
            }
        };
        match self.0 {
            [] => f.write_str("lost, and a search found no metadata region (expected at a multiple of 1 MiB)"),
            [pair @ (_, Some(_))] => {
                f.write_str("replaced by what a search found, or --assume gave: ")?;
                one(f, pair)
            }
            pairs => {
                f.write_str("lost, and a search found no single pair of regions (found ")?;
                for (number, pair) in pairs.iter().enumerate() {
                    f.write_str(if number > 0 { "; " } else { "" })?;
                    one(f, pair)?;
                }
                f.write_str(")")
            }
        }
    }
}
