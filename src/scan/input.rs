//! Input of work on whole disks: a range of a disk or of a file.

use std::ops::{Bound, RangeBounds};
use std::path::Path;

use crate::disk::{Disk, Location};
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::{to_u64, to_usize_saturating};
use crate::source::{Bytes, Source, SourceRef};

/// Bytes to process: of a disk or of a file, as a whole or a range, optionally followed by zeros and a tail.
///
/// Every byte has a position: its offset in the disk or file. The positions of padding and tail follow those of the
/// disk or file.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    of: Of<'a>,
    /// Position of the first byte.
    place: u128,
    /// The bytes of the disk or file: offset of the first one, and their end.
    start: u64,
    end: u64,
    /// Number of zeros after them.
    padding: u64,
    /// Bytes after the zeros.
    tail: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
enum Of<'a> {
    Disk(&'a Disk),
    Raw(&'a Source),
}

impl<'a> Input<'a> {
    /// Makes an input of the content of a disk.
    #[must_use]
    pub fn disk(disk: &'a Disk) -> Self {
        Self { of: Of::Disk(disk), place: 0, start: 0, end: disk.size(), padding: 0, tail: &[] }
    }

    /// Makes an input of the bytes of a file, without interpreting them: a raw disk, or the file of an image itself.
    #[must_use]
    pub fn raw(source: &'a Source) -> Self {
        Self { of: Of::Raw(source), place: 0, start: 0, end: source.len(), padding: 0, tail: &[] }
    }

    /// Restricts the input to the positions in `range`, which count from the beginning of the disk or file. Positions
    /// without bytes are left out: a range of a range is their intersection, and padding and tail are included as far
    /// as the range reaches them.
    #[must_use]
    pub fn range(self, range: impl RangeBounds<u64>) -> Self {
        // In 128 bits, so that padding may end at any position, and a range may end after the last position that a u64
        // can name.
        let start = match range.start_bound() {
            Bound::Included(start) => u128::from(*start),
            Bound::Excluded(before) => u128::from(*before).saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => u128::from(*last).saturating_add(1),
            Bound::Excluded(end) => u128::from(*end),
            Bound::Unbounded => u128::MAX,
        };
        self.between(start.saturating_sub(self.place), end.saturating_sub(self.place))
    }

    /// Appends `padding` zeros and `tail` to the input, for formats that consist of a raw disk and a footer. They
    /// replace those of an earlier call.
    #[must_use]
    pub fn followed_by(self, padding: u64, tail: &'a [u8]) -> Self {
        Self { padding, tail, ..self }
    }

    /// Returns a part of the input: `start` and `end` count from its first byte.
    pub(crate) fn part(self, start: u64, end: u64) -> Self {
        self.between(start.into(), end.into())
    }

    fn between(self, start: u128, end: u128) -> Self {
        let end = end.max(start);
        let own = self.end.saturating_sub(self.start);
        let tail_at = u128::from(own).saturating_add(self.padding.into());
        // The part of `length` bytes from position `from` on that is before `place`.
        let before = |place: u128, from: u128, length: u64| {
            u64::try_from(place.saturating_sub(from)).unwrap_or(u64::MAX).min(length)
        };
        let padding = |place| before(place, own.into(), self.padding);
        let tail = |place| to_usize_saturating(before(place, tail_at, to_u64(self.tail.len())));
        Self {
            place: self.place.saturating_add(start.min(self.full_length())),
            start: self.start.saturating_add(before(start, 0, own)),
            end: self.start.saturating_add(before(end, 0, own)),
            padding: padding(end).saturating_sub(padding(start)),
            tail: self.tail.get(tail(start)..tail(end)).unwrap_or_default(),
            ..self
        }
    }

    /// Returns the position of the first byte: its offset in the disk or file, unless it belongs to padding or tail.
    #[must_use]
    pub fn start(&self) -> u64 {
        u64::try_from(self.place).unwrap_or(u64::MAX)
    }

    /// Returns the length in bytes. If padding and tail make it longer than [`u64::MAX`], returns that value, and all
    /// operations fail with [`ErrorKind::ContentTooLong`].
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an input without bytes is one like any other")]
    pub fn len(&self) -> u64 {
        u64::try_from(self.full_length()).unwrap_or(u64::MAX)
    }

    fn full_length(&self) -> u128 {
        let own = u128::from(self.end.saturating_sub(self.start));
        own.saturating_add(self.padding.into()).saturating_add(to_u64(self.tail.len()).into())
    }

    /// Returns the length in bytes, if the input can be processed.
    pub(crate) fn checked_length(&self) -> Result<u64> {
        let found = self.full_length();
        let structure = match self.of {
            Of::Disk(_) => Structure::Disk,
            Of::Raw(_) => Structure::File,
        };
        u64::try_from(found).map_err(|_| Error::of(structure, ErrorKind::ContentTooLong { found }))
    }

    /// Returns whether unreadable bytes are zero: the system cannot copy such files by itself.
    pub(crate) fn is_salvaged(&self) -> bool {
        matches!(self.of, Of::Disk(disk) if disk.is_salvaged())
    }

    /// Returns the path of the image or file, if any.
    #[cfg(all(feature = "serde", feature = "ops"))]
    pub(crate) fn in_use(&self) -> Option<bool> {
        match self.of {
            Of::Disk(disk) => Source::any_in_use(disk.layers().iter().map(|layer| layer.image().source())),
            Of::Raw(source) => source.in_use(),
        }
    }

    pub(crate) fn path(&self) -> Option<&'a Path> {
        match self.of {
            Of::Disk(disk) => disk.image().path(),
            Of::Raw(source) => source.path(),
        }
    }

    /// Checks that everything that was read is valid: tables and bytes.
    #[cfg(all(target_os = "linux", feature = "ops"))]
    pub(crate) fn check_looked_at(&self) -> Result<()> {
        match self.of {
            Of::Disk(disk) => disk.check_lost(self.start..self.end),
            Of::Raw(source) => {
                source.check(Structure::File, self.start, self.end.saturating_sub(self.start))?;
                source.check_mapped(self.end)
            }
        }
    }

    /// Checks that the tables by which the input was read were those of the files: [`Disk::check_tables`].
    pub(crate) fn check_tables(&self) -> Result<()> {
        match self.of {
            Of::Disk(disk) => disk.check_tables(self.start..self.end),
            Of::Raw(_) => Ok(()),
        }
    }

    /// Returns the locations of the bytes, in order. An error is the last item, and the only one if the input is too
    /// long.
    pub(crate) fn pieces(self) -> Pieces<'a> {
        if let Err(error) = self.checked_length() {
            return Box::new(std::iter::once(Err(error)));
        }
        let own: Pieces<'a> = match self.of {
            Of::Disk(disk) => Box::new(pieces_of(disk, self.start, self.end)),
            Of::Raw(source) => {
                let length = self.end.saturating_sub(self.start);
                let origin = Origin::of_file(source.into(), self.start, length);
                Box::new(std::iter::once(Ok(Piece { length, layer: 0, origin })))
            }
        };
        let after = [(self.padding, Origin::Zero), (to_u64(self.tail.len()), Origin::Memory(self.tail))];
        let after = after.map(|(length, origin)| Ok(Piece { length, layer: 0, origin }));
        let mut all = own.chain(after).filter(|piece| piece.as_ref().map_or(true, |piece| piece.length > 0));
        // After an error, the offsets of further pieces would be wrong.
        let mut has_failed = false;
        Box::new(std::iter::from_fn(move || {
            let next = if has_failed { None } else { all.next() };
            has_failed = matches!(next, Some(Err(_)));
            next
        }))
    }
}

/// The pieces of an input.
pub(crate) type Pieces<'a> = Box<dyn Iterator<Item = Result<Piece<'a>>> + Send + 'a>;

/// Contiguous bytes of an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// Length in bytes, at least 1.
    pub(crate) length: u64,
    /// The layer of the chain with the bytes.
    pub(crate) layer: usize,
    pub(crate) origin: Origin<'a>,
}

/// Location of the bytes of a piece.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    /// Zeros that are not in a file.
    Zero,
    /// A file, from this offset on.
    File(SourceRef<'a>, u64),
    /// Memory.
    Memory(&'a [u8]),
}

impl<'a> Origin<'a> {
    fn of_file(source: SourceRef<'a>, offset: u64, length: u64) -> Self {
        match source.source().borrow(offset, length) {
            Some(bytes) if source.is_in_memory() => Self::Memory(bytes),
            _ => Self::File(source, offset),
        }
    }

    /// Returns the location `length` bytes further on.
    pub(crate) fn after(self, length: u64) -> Self {
        match self {
            Self::Zero => Self::Zero,
            Self::File(source, offset) => Self::File(source, offset.saturating_add(length)),
            Self::Memory(bytes) => Self::Memory(bytes.get(to_usize_saturating(length)..).unwrap_or_default()),
        }
    }
}

impl Piece<'_> {
    /// Returns layer and file offset, if the bytes are in a file.
    pub(crate) fn in_file(&self) -> Option<(usize, u64)> {
        match self.origin {
            Origin::File(_, offset) => Some((self.layer, offset)),
            Origin::Zero | Origin::Memory(_) => None,
        }
    }

    /// Returns the rest of the piece after its first `length` bytes, if any.
    pub(crate) fn after(self, length: u64) -> Option<Self> {
        let left = self.length.checked_sub(length).filter(|left| *left > 0)?;
        Some(Self { length: left, origin: self.origin.after(length), ..self })
    }
}

/// Returns the runs of a disk, with their files.
fn pieces_of(disk: &Disk, start: u64, end: u64) -> impl Iterator<Item = Result<Piece<'_>>> + Send {
    let (mut runs, mut rest) = (disk.runs_in_files((start, end)), None);
    std::iter::from_fn(move || {
        let run = match rest.take().map_or_else(|| runs.next(), |rest| Some(Ok(rest)))? {
            Ok(run) => run,
            Err(error) => return Some(Err(error)),
        };
        let origin = match (run.at, disk.layers().get(run.layer)) {
            (Location::File(offset), Some(layer)) => Origin::of_file(layer.file(), offset, run.len),
            // Changes of a log are contiguous only within a sector.
            (Location::Log(_), _) => match disk.borrow_run(&run) {
                Ok(Bytes::Data(bytes)) => Origin::Memory(bytes),
                Ok(Bytes::Zero(_)) => Origin::Zero,
                Err(error) => return Some(Err(error)),
            },
            _ => Origin::Zero,
        };
        let length = match origin {
            Origin::Memory(bytes) => to_u64(bytes.len()),
            Origin::Zero | Origin::File(..) => run.len,
        };
        rest = run.after(length);
        Some(Ok(Piece { length, layer: run.layer, origin }))
    })
}

impl<'a> From<&'a Disk> for Input<'a> {
    fn from(disk: &'a Disk) -> Self {
        Self::disk(disk)
    }
}
