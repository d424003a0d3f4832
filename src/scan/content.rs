//! What bulk work goes through: a range of a disk, or of a file as it lies there.

use std::ops::{Range, RangeBounds};
use std::path::Path;

use crate::disk::{Disk, Place, PlacedRun, PlacedRuns, Segment, bounds};
use crate::error::{Result, Structure};
use crate::num::{to_u64, to_usize_saturating};
use crate::source::Source;

use super::run::{Bulk, ScanOptions, Stopped};
use super::worker::Access;

/// Bytes to work through: those of a disk, or those of a file as it lies there; all of them, or a range; and, where that is
/// wanted, something behind them.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    of: Of<'a>,
    start: u64,
    end: u64,
    /// Zeros behind that, in bytes.
    padding: u64,
    /// What comes behind them.
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
        Self { of: Of::Disk(disk), start: 0, end: disk.size(), padding: 0, tail: &[] }
    }

    /// The bytes of a file, whatever they mean: a raw disk, or the file of an image itself.
    #[must_use]
    pub fn raw(source: &'a Source) -> Self {
        Self { of: Of::Raw(source), start: 0, end: source.length(), padding: 0, tail: &[] }
    }

    /// A part of it: places are counted from the beginning of the disk or file. What lies behind its end is left out.
    #[must_use]
    pub fn range(self, range: impl RangeBounds<u64>) -> Self {
        let whole = match self.of {
            Of::Disk(disk) => disk.size(),
            Of::Raw(source) => source.length(),
        };
        let (start, end) = bounds(range, whole);
        Self { start, end, ..self }
    }

    /// The same with so many zeros behind it, and `tail` behind those: what makes another format of a raw disk.
    #[must_use]
    pub fn followed_by(self, padding: u64, tail: &'a [u8]) -> Self {
        Self { padding, tail, ..self }
    }

    /// A part of it: places are counted from its own beginning.
    pub(crate) fn part(self, start: u64, end: u64) -> Self {
        let own = self.end.saturating_sub(self.start);
        let tail_at = own.saturating_add(self.padding);
        let within = |place: u64, from: u64, length: u64| place.saturating_sub(from).min(length);
        let tail = |place| to_usize_saturating(within(place, tail_at, to_u64(self.tail.len())));
        Self {
            start: self.start.saturating_add(within(start, 0, own)),
            end: self.start.saturating_add(within(end, 0, own)),
            padding: within(end, own, self.padding).saturating_sub(within(start, own, self.padding)),
            tail: self.tail.get(tail(start)..tail(end)).unwrap_or_default(),
            ..self
        }
    }

    /// Where it begins in the disk or file, in bytes.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.end.saturating_sub(self.start).saturating_add(self.padding).saturating_add(to_u64(self.tail.len()))
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

    /// Where its bytes are, in order. An error is the last item.
    pub(crate) fn runs(&self) -> Runs<'a> {
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
        Runs { disk, behind: behind.into_iter().flatten() }
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
    disk: Option<PlacedRuns<'a>>,
    behind: std::iter::Flatten<std::array::IntoIter<Option<PlacedRun<'a>>, 3>>,
}

impl<'a> Iterator for Runs<'a> {
    type Item = Result<PlacedRun<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
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
