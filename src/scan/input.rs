//! What bulk work goes through: a range of a disk, or of a file as it lies there.

use std::ops::{Bound, RangeBounds};
use std::path::Path;

use crate::disk::{Disk, Location};
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::{to_u64, to_usize_saturating};
use crate::source::{Bytes, Source, SourceRef};

/// Bytes to work through: those of a disk, or those of a file as it lies there; all of them, or a range; and, where that is
/// wanted, zeros and a tail after them.
///
/// Every byte has a place: its offset in the disk or file. What follows the disk or file has the places after its last byte.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    of: Of<'a>,
    /// The place of the first byte.
    place: u128,
    /// The bytes of the disk or file: offset of the first one, and their end.
    start: u64,
    end: u64,
    /// Zeros after these, in bytes.
    padding: u64,
    /// What follows them.
    tail: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
enum Of<'a> {
    Disk(&'a Disk),
    Raw(&'a Source),
}

impl<'a> Input<'a> {
    /// What a guest sees of a disk.
    #[must_use]
    pub fn disk(disk: &'a Disk) -> Self {
        Self { of: Of::Disk(disk), place: 0, start: 0, end: disk.size(), padding: 0, tail: &[] }
    }

    /// The bytes of a file, whatever they mean: a raw disk, or the file of an image itself.
    #[must_use]
    pub fn raw(source: &'a Source) -> Self {
        Self { of: Of::Raw(source), place: 0, start: 0, end: source.len(), padding: 0, tail: &[] }
    }

    /// Restricts the content to the places in `range`, which count from the beginning of the disk or file. What the content
    /// does not have is left out: a range of a range is what both have in common, and padding and tail are included as far
    /// as the range reaches them.
    #[must_use]
    pub fn range(self, range: impl RangeBounds<u64>) -> Self {
        // In 128 bits, so that padding may end at any place, and a range may end after the last one that a u64 can name.
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

    /// The same content, followed by `padding` zeros and by `tail`: what makes another format of a raw disk. They replace those
    /// of an earlier call.
    #[must_use]
    pub fn followed_by(self, padding: u64, tail: &'a [u8]) -> Self {
        Self { padding, tail, ..self }
    }

    /// A part of the content: `start` and `end` count from its first byte.
    pub(crate) fn part(self, start: u64, end: u64) -> Self {
        self.between(start.into(), end.into())
    }

    fn between(self, start: u128, end: u128) -> Self {
        let end = end.max(start);
        let own = self.end.saturating_sub(self.start);
        let tail_at = u128::from(own).saturating_add(self.padding.into());
        // How much of a piece, which begins at `from`, lies before a place.
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

    /// Place of the first byte: its offset in the disk or file, unless it is one of the bytes that follow these.
    #[must_use]
    pub fn start(&self) -> u64 {
        u64::try_from(self.place).unwrap_or(u64::MAX)
    }

    /// Length in bytes. A content whose padding and tail make it longer than [`u64::MAX`] can't be worked through
    /// ([`ErrorKind::ContentTooLong`]), and has that length here.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an input without bytes is one like any other")]
    pub fn len(&self) -> u64 {
        u64::try_from(self.full_length()).unwrap_or(u64::MAX)
    }

    fn full_length(&self) -> u128 {
        let own = u128::from(self.end.saturating_sub(self.start));
        own.saturating_add(self.padding.into()).saturating_add(to_u64(self.tail.len()).into())
    }

    /// Length in bytes, of a content that can be worked through.
    pub(crate) fn checked_length(&self) -> Result<u64> {
        let found = self.full_length();
        let structure = match self.of {
            Of::Disk(_) => Structure::Disk,
            Of::Raw(_) => Structure::File,
        };
        u64::try_from(found).map_err(|_| Error::of(structure, ErrorKind::ContentTooLong { found }))
    }

    /// Whether what can't be read is zero: that can't be left to the system.
    pub(crate) fn is_salvaged(&self) -> bool {
        matches!(self.of, Of::Disk(disk) if disk.is_salvaged())
    }

    /// The file of the disk's image, or the file itself, if there is one.
    pub(crate) fn path(&self) -> Option<&'a Path> {
        match self.of {
            Of::Disk(disk) => disk.image().path(),
            Of::Raw(source) => source.path(),
        }
    }

    /// That all that was looked at was really there: tables and bytes.
    pub(crate) fn check_looked_at(&self) -> Result<()> {
        match self.of {
            Of::Disk(disk) => disk.check_lost(self.start..self.end),
            Of::Raw(source) => {
                source.check(Structure::File, self.start, self.end.saturating_sub(self.start))?;
                source.check_length(self.end)
            }
        }
    }

    /// That the tables by which it was read are still there.
    pub(crate) fn check_tables(&self) -> Result<()> {
        match self.of {
            Of::Disk(disk) => disk.check_tables(),
            Of::Raw(_) => Ok(()),
        }
    }

    /// Where its bytes are, in order. An error is the last item: the only one of a content that is too long.
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
        // What would come after an error comes at another place.
        let mut has_failed = false;
        Box::new(std::iter::from_fn(move || {
            let next = if has_failed { None } else { all.next() };
            has_failed = matches!(next, Some(Err(_)));
            next
        }))
    }
}

/// The pieces of a content.
pub(crate) type Pieces<'a> = Box<dyn Iterator<Item = Result<Piece<'a>>> + Send + 'a>;

/// Bytes of a content that lie together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// Length in bytes, at least 1.
    pub(crate) length: u64,
    /// The layer of the chain that has it.
    pub(crate) layer: usize,
    pub(crate) origin: Origin<'a>,
}

/// Where the bytes of a piece come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    /// They are zeros, which are nowhere.
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

    /// The origin of what comes after `length` bytes.
    pub(crate) fn after(self, length: u64) -> Self {
        match self {
            Self::Zero => Self::Zero,
            Self::File(source, offset) => Self::File(source, offset.saturating_add(length)),
            Self::Memory(bytes) => Self::Memory(bytes.get(to_usize_saturating(length)..).unwrap_or_default()),
        }
    }
}

impl Piece<'_> {
    /// Where its bytes lie, if they are in a file: layer and offset.
    pub(crate) fn in_file(&self) -> Option<(usize, u64)> {
        match self.origin {
            Origin::File(_, offset) => Some((self.layer, offset)),
            Origin::Zero | Origin::Memory(_) => None,
        }
    }

    /// What remains of the piece after its first `length` bytes, if anything does.
    pub(crate) fn after(self, length: u64) -> Option<Self> {
        let left = self.length.checked_sub(length).filter(|left| *left > 0)?;
        Some(Self { length: left, origin: self.origin.after(length), ..self })
    }
}

/// The runs of a disk, with their files.
fn pieces_of(disk: &Disk, start: u64, end: u64) -> impl Iterator<Item = Result<Piece<'_>>> + Send {
    let (mut runs, mut rest) = (disk.runs_in_files((start, end)), None);
    std::iter::from_fn(move || {
        let run = match rest.take().map_or_else(|| runs.next(), |rest| Some(Ok(rest)))? {
            Ok(run) => run,
            Err(error) => return Some(Err(error)),
        };
        let origin = match (run.at, disk.layers().get(run.layer)) {
            (Location::File(offset), Some(layer)) => Origin::of_file(layer.file(), offset, run.len),
            // Of what the log holds, only a sector lies together.
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
