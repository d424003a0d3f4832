//! Every check: one field is wrong, and the error names the field, its offset, and the values found and expected; or
//! the image reads correctly, with a warning. The numbers V1 to V75 are the codes of the rules.
//!
//! The checks of log entries (V15 to V24) are tested in `replay`.

mod blocks;
mod headers;
mod metadata;
mod parents;
mod regions;

use uuid::Uuid;
use vhdx_mmap::{Category, Disk, Error, ErrorKind, Rule, Severity, Structure};

use crate::kit::builder::Image;
use crate::lab::{Door, Expected, open_through, size};
use crate::support::each_piece;

/// Returns whether an error is of the kind of the pattern.
macro_rules! kind {
    ($($pattern:tt)+) => {
        &|kind: &vhdx_mmap::ErrorKind| matches!(kind, $($pattern)+)
    };
}
use kind;

/// Location and category of an error.
type Place = (Structure, Option<u64>, Category);

type IsIt<'a> = &'a dyn Fn(&ErrorKind) -> bool;

/// A field with this value, which the format does not allow.
fn field(name: &'static str, value: impl Into<u64>) -> impl Fn(&ErrorKind) -> bool {
    let value = value.into();
    move |kind| matches!(kind, ErrorKind::Field { field, found, .. } if (*field, *found) == (name, value))
}

/// A field with this value, which is not supported.
fn unsupported(name: &'static str, value: impl Into<u64>) -> impl Fn(&ErrorKind) -> bool {
    let value = value.into();
    move |kind| matches!(kind, ErrorKind::UnsupportedValue { field, found, .. } if (*field, *found) == (name, value))
}

/// An overlap with a structure at an offset.
fn overlaps(what: Structure, at: u64) -> impl Fn(&ErrorKind) -> bool {
    move |kind| matches!(kind, ErrorKind::Overlap { with, offset } if (*with, *offset) == (what, at))
}

/// A structure that should end before this limit.
fn outside(end: u64) -> impl Fn(&ErrorKind) -> bool {
    move |kind| matches!(kind, ErrorKind::OutOfBounds { limit, .. } if *limit == end)
}

/// A stored checksum, and the right one.
fn checksum((stored, right): (u32, u32)) -> impl Fn(&ErrorKind) -> bool {
    move |kind| matches!(kind, ErrorKind::Checksum { found, expected } if (*found, *expected) == (stored, right))
}

/// Returns the stored checksum of a structure of an image, and the right one.
fn checksums(image: &Image, at: u64, length: u64) -> (u32, u32) {
    let mut bytes = image.bytes.read(at, size(length));
    let stored = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
    bytes[4..8].fill(0);
    (stored, crc32c::crc32c(&bytes))
}

/// A region or item that must be unique.
fn duplicate(what: Uuid) -> impl Fn(&ErrorKind) -> bool {
    move |kind| matches!(kind, ErrorKind::Duplicate { id } if *id == what)
}

/// A region or item that must be known.
fn unknown(what: Uuid) -> impl Fn(&ErrorKind) -> bool {
    move |kind| matches!(kind, ErrorKind::UnknownRequired { id } if *id == what)
}

/// A structure that must exist.
fn missing(name: &'static str) -> impl Fn(&ErrorKind) -> bool {
    move |kind| matches!(kind, ErrorKind::Missing { what } if *what == name)
}

/// The rows of a table of faults. All are tried before the test fails.
#[derive(Debug, Default)]
struct Rows {
    wrong: Vec<String>,
}

impl Rows {
    /// An error that must be as described.
    fn error(&mut self, what: &str, error: &Error, place: Place, is_it: IsIt<'_>) {
        let found = (error.structure(), error.offset(), error.category());
        if found != place || !is_it(error.kind()) {
            self.wrong.push(format!("{what}: {error:?} is {:?}, expected {place:x?}", error.category()));
        }
        if error.rule().is_none() && !matches!(error.category(), Category::InvalidInput | Category::Open) {
            self.wrong.push(format!("{what}: {error:?} says no rule"));
        }
        let offset = error.offset().map_or_else(String::new, |offset| format!(" at {offset:#x}"));
        let beginning = format!("{}{offset}: ", error.structure());
        if error.layer() == 0 && !format!("{error:#}").starts_with(&beginning) {
            self.wrong.push(format!("{what}: \"{error}\" does not begin with \"{beginning}\""));
        }
    }

    /// A result that must be an error.
    fn failed<T>(&mut self, what: &str, result: Result<T, Error>, place: Place, is_it: IsIt<'_>) {
        match result {
            Ok(_) => self.wrong.push(format!("{what}: no error")),
            Err(error) => self.error(what, &error, place, is_it),
        }
    }

    /// An image that must not be opened.
    fn refused(&mut self, what: &str, image: &Image, place: Place, is_it: IsIt<'_>) {
        for door in Door::ALL {
            self.failed(&format!("{what} by {door:?}"), open_through(door, &[image]), place, is_it);
        }
    }

    /// An image that must be read as intended, with exactly these warnings.
    fn warned(&mut self, what: &str, image: &Image, expected: &[(Rule, Structure, Option<u64>)]) {
        let in_layer = |&(check, structure, offset): &(_, _, _)| (0, check, structure, offset);
        self.warned_chain(what, &[image], &expected.iter().map(in_layer).collect::<Vec<_>>());
    }

    /// A chain, child first, that must be read as intended, with exactly these warnings and their layers.
    fn warned_chain(&mut self, what: &str, chain: &[&Image], expected: &[(usize, Rule, Structure, Option<u64>)]) {
        // These find parents whatever the names are that the images store.
        let doors = if chain.len() == 1 { &Door::ALL[..] } else { &[Door::Memory, Door::Reader] };
        for door in doors {
            self.warned_by(&format!("{what} by {door:?}"), open_through(*door, chain), chain, expected);
        }
    }

    fn warned_by(
        &mut self,
        what: &str,
        disk: Result<Disk, Error>,
        chain: &[&Image],
        expected: &[(usize, Rule, Structure, Option<u64>)],
    ) {
        let disk = match disk {
            Ok(disk) => disk,
            Err(error) => return self.wrong.push(format!("{what}: refused: {error:?}")),
        };
        let content = Expected::of(chain);
        let (mut at, mut is_same) = (0, true);
        let read = each_piece(&disk, 0..disk.size(), |segment| {
            is_same &= content.differs(at, segment).is_none();
            at += segment.len();
        });
        if read.is_err() || !is_same {
            return self.wrong.push(format!("{what}: reads wrong before {at:#x}: {:?}", read.err()));
        }
        let place = |(layer, warning): (usize, &vhdx_mmap::Warning)| {
            (layer, warning.rule, warning.detail.structure(), warning.detail.offset())
        };
        let found: Vec<_> = disk.warnings().map(place).collect();
        if found != expected || at != content.size() {
            self.wrong.push(format!("{what}: warnings {found:x?}, expected {expected:x?}"));
        }
    }

    fn end(self) {
        assert!(self.wrong.is_empty(), "{} rows are wrong:\n{}", self.wrong.len(), self.wrong.join("\n"));
    }
}

#[test]
fn rules_have_codes_and_severities() {
    use Rule::{
        Creator, EmptyDisk, FileParametersReserved, HeaderCopies, HeaderSequence, LocatorPath, LogAlignment,
        LogFileOffsets, LogPlace, LogVersion, MetadataFlags, MetadataOverlap, MetadataPlace, MetadataPresent,
        MetadataReserved, MetadataUnique, ParentIdentity, ParentLinkage, ParentSize, PhysicalSectorSize,
        RegionAlignment, RegionPlace, RegionRequired, RegionTableCopies, RegionTableReserved,
    };
    let notes = [
        (Creator, "V3"),
        (HeaderSequence, "V6"),
        (LogVersion, "V9"),
        (LogAlignment, "V10"),
        (LogPlace, "V12"),
        (LogFileOffsets, "V23"),
        (RegionTableReserved, "V28"),
        (RegionAlignment, "V30"),
        (RegionRequired, "V36"),
        (MetadataReserved, "V39"),
        (MetadataPresent, "V45"),
        (FileParametersReserved, "V47"),
        (PhysicalSectorSize, "V49"),
        (MetadataFlags, "V53"),
        (ParentLinkage, "V57"),
        (LocatorPath, "V58"),
    ];
    let warnings = [
        (HeaderCopies, "V5"),
        (RegionTableCopies, "V26"),
        (RegionPlace, "V32"),
        (MetadataUnique, "V40"),
        (MetadataPlace, "V41"),
        (MetadataOverlap, "V42"),
        (EmptyDisk, "V52"),
        (ParentIdentity, "V59"),
        (ParentSize, "V61"),
    ];
    for (check, code) in notes {
        assert_eq!((check.code(), check.severity()), (code, Severity::Note));
    }
    for (check, code) in warnings {
        assert_eq!((check.code(), check.severity()), (code, Severity::Warning));
    }
}
