//! What bulk work goes through: a range of a disk, or of a file as it lies there.

use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;

use crate::disk::{Disk, Place, PlacedRun, PlacedRuns, Segment};
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::{to_u64, to_usize_saturating};
use crate::source::Source;

use super::run::{Bulk, ScanOptions, Stopped};
use super::worker::Access;

/// Bytes to work through: those of a disk, or those of a file as it lies there; all of them, or a range; and, where that is
/// wanted, zeros and a tail after them.
///
/// Every byte has a place: its offset in the disk or file. What follows the disk or file has the places after its last byte.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
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

impl<'a> Content<'a> {
    /// What a guest sees of a disk.
    #[must_use]
    pub fn disk(disk: &'a Disk) -> Self {
        Self { of: Of::Disk(disk), place: 0, start: 0, end: disk.size(), padding: 0, tail: &[] }
    }

    /// The bytes of a file, whatever they mean: a raw disk, or the file of an image itself.
    #[must_use]
    pub fn raw(source: &'a Source) -> Self {
        Self { of: Of::Raw(source), place: 0, start: 0, end: source.length(), padding: 0, tail: &[] }
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
    pub fn length(&self) -> u64 {
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

    /// Shows all of it to `map`, unit by unit, on all threads of the current pool (with the feature `rayon`; otherwise on one),
    /// and what comes of it to `take`, in order. Units are at most [`UNIT`](crate::UNIT) bytes long, and begin at multiples of
    /// that, counted from where the content begins; what `take` gets is the same for any number of threads.
    ///
    /// `map` is given where a unit begins, and its bytes and zeros. What is zero and nowhere is not shown to it: `take` is told
    /// of it as a range with nothing, of any length. The order in which units are shown is that of the files, the bytes are
    /// lent for the call only, and memory does not grow with the disk.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub fn scan<T: Send>(
        self,
        options: &ScanOptions<'_>,
        map: impl Fn(u64, &[Segment<'_>]) -> T + Sync,
        mut take: impl FnMut(Range<u64>, Option<T>),
    ) -> Result<(), Stopped> {
        Bulk { contents: [self], access: Access::Lend, zeros_count: false, options: *options }.each(
            |unit, _| Ok::<_, Stopped>(map(unit.start, &unit.segments().collect::<Vec<_>>())),
            |done| {
                if done.value.is_none() {
                    options.advance(done.length)?;
                }
                take(done.start..done.start.saturating_add(done.length), done.value);
                Ok(())
            },
        )
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
    pub(crate) fn runs(&self) -> Runs<'a> {
        if let Err(error) = self.checked_length() {
            return Runs { failed: Some(error), disk: None, behind: [None, None, None].into_iter().flatten() };
        }
        let run = |length, place| Some(PlacedRun { length, place, layer: 0 }).filter(|run| run.length > 0);
        let (disk, raw) = match self.of {
            Of::Disk(disk) => (Some(disk.placed_runs(self.start, self.end)), None),
            Of::Raw(source) => {
                let length = self.end.saturating_sub(self.start);
                let place = match source.in_memory(self.start, length) {
                    Some(bytes) if !source.is_mapped() => Place::Memory(bytes),
                    _ => Place::File(source.into(), self.start),
                };
                (None, run(length, place))
            }
        };
        let behind = [raw, run(self.padding, Place::Zero), run(to_u64(self.tail.len()), Place::Memory(self.tail))];
        Runs { failed: None, disk, behind: behind.into_iter().flatten() }
    }
}

impl<'a> From<&'a Disk> for Content<'a> {
    fn from(disk: &'a Disk) -> Self {
        Self::disk(disk)
    }
}

/// Where the bytes of a content are.
#[derive(Debug)]
pub(crate) struct Runs<'a> {
    failed: Option<Error>,
    disk: Option<PlacedRuns<'a>>,
    behind: std::iter::Flatten<std::array::IntoIter<Option<PlacedRun<'a>>, 3>>,
}

impl<'a> Iterator for Runs<'a> {
    type Item = Result<PlacedRun<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        match self.disk.as_mut().and_then(PlacedRuns::next) {
            Some(Err(error)) => {
                // What would come behind it comes at another place.
                self.behind = [None, None, None].into_iter().flatten();
                Some(Err(error))
            }
            Some(run) => Some(run),
            None => self.behind.next().map(Ok),
        }
    }
}
