//! Doing the planned work: every core takes the next unit, results come in the order of the content.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(feature = "rayon")]
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use crate::disk::Segment;
use crate::error::{Error, Result};
use crate::source::Buffer;
#[cfg(feature = "rayon")]
use crate::threads;

use super::behind::Behind;
use super::content::Content;
use super::plan::{Planner, Planning, Window};
use super::progress::Progress;
use super::worker::{Access, Loaded, Pieces};

/// What becomes of the machine's own copy of what was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// The system keeps it for as long as it likes, so that it is there for whoever reads next.
    #[default]
    Keep,
    /// What was not in memory before is given back behind the work, so that a large image does not push out what others
    /// need. Linux only.
    Drop,
}

/// How bulk work is done.
#[non_exhaustive]
#[derive(Clone, Copy)]
pub struct ScanOptions<'p> {
    /// What becomes of the machine's own copy of what was read.
    pub cache: Cache,
    /// Who wants to know how far it is, and may stop it.
    pub progress: &'p dyn Progress,
}

impl fmt::Debug for ScanOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanOptions").field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl Default for ScanOptions<'_> {
    fn default() -> Self {
        Self { cache: Cache::Keep, progress: &() }
    }
}

impl<'p> ScanOptions<'p> {
    /// The system keeps what was read, and nobody waits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what becomes of the machine's own copy of what was read.
    #[must_use]
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// Sets who wants to know how far it is.
    #[must_use]
    pub fn progress(mut self, progress: &'p dyn Progress) -> Self {
        self.progress = progress;
        self
    }
}

/// Why bulk work ended before its end.
#[non_exhaustive]
#[derive(Debug)]
pub enum Stopped {
    /// The content can't be read.
    Read(Error),
    /// [`Progress::advance`] asked for it.
    Cancelled,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for Stopped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Cancelled => None,
        }
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Read(error)
    }
}

/// The bytes of a unit in each of `N` contents.
#[derive(Debug)]
pub(crate) struct UnitPieces<'b, const N: usize> {
    /// Where it begins, counted from the beginning of the content.
    pub(crate) start: u64,
    /// At most [`UNIT`](super::UNIT).
    pub(crate) length: u64,
    pub(crate) pieces: Pieces<'b, N>,
}

impl UnitPieces<'_, 1> {
    /// Its bytes, and the lengths of its zeros, in order.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment<'_>> + Clone {
        self.pieces.iter().map(|[segment]| *segment)
    }
}

/// A part of the work that is done.
#[derive(Debug)]
pub(crate) struct Done<T> {
    /// Where it begins, counted from the beginning of the content.
    pub(crate) start: u64,
    pub(crate) length: u64,
    /// What became of it; none where there was nothing to look at, since all is zero, or the same on both sides.
    pub(crate) value: Option<T>,
}

/// Bulk work on `N` contents side by side, the shorter ones with zeros behind them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bulk<'a, 'p, const N: usize> {
    pub(crate) contents: [Content<'a>; N],
    pub(crate) access: Access,
    /// Whether zeros have to be looked at, too.
    pub(crate) zeros_count: bool,
    pub(crate) options: ScanOptions<'p>,
}

/// How much is planned ahead, in bytes to be looked at.
const WINDOW: u64 = 256 << 20;

impl<'a, const N: usize> Bulk<'a, '_, N> {
    /// Shows every unit to `map`, on all threads of the current pool, in the order in which the bytes lie in the files. What
    /// comes of it goes to `take`, in the order of the content: the same for any number of threads. Where there is nothing to
    /// look at, it is for `take` to say that this is done.
    ///
    /// # Errors
    /// The first that there is: of the plan, of reading, of `map`, of `take`.
    pub(crate) fn each<T: Send, E: Send + From<Stopped>>(
        &self,
        map: impl Fn(&UnitPieces<'_, N>, &mut Buffer) -> Result<T, E> + Sync,
        mut take: impl FnMut(Done<T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut planner = self.planner(WINDOW);
        let hands = Hands::default();
        while let Some(window) = planner.next_window() {
            let window = window.map_err(Stopped::Read)?;
            let one = |hand: &mut Hand<'a>, index: usize| self.one(&window, index, (&hands, hand), &map);
            let mut values = hands.work(&window.in_file_order(), &one)?.into_iter();
            for unit in &window.units {
                let value = if unit.is_idle() { None } else { values.next() };
                take(Done { start: unit.start, length: unit.length, value })?;
            }
        }
        Ok(self.check_tables()?)
    }

    /// That the tables by which the contents were read are still there.
    pub(crate) fn check_tables(&self) -> Result<(), Stopped> {
        let in_file = |content: &Content<'_>, error: Error| error.in_file(content.path().filter(|_| N > 1));
        let check = |content: &Content<'_>| content.check_tables().map_err(|error| in_file(content, error));
        Ok(self.contents.iter().try_for_each(check)?)
    }

    pub(super) fn planner(&self, window: u64) -> Planner<'a, N> {
        let find_cold = self.options.cache == Cache::Drop;
        Planner::new(self.contents, Planning { window, zeros_count: self.zeros_count, find_cold })
    }

    /// Does one unit, which is not idle.
    fn one<T, E: From<Stopped>>(
        &self,
        window: &Window<'a, N>,
        index: usize,
        (hands, hand): (&Hands<'a>, &mut Hand<'a>),
        map: impl Fn(&UnitPieces<'_, N>, &mut Buffer) -> Result<T, E>,
    ) -> Result<T, E> {
        let (unit, stretches) = window.unit(index);
        hand.loaded.load(stretches, self.access).map_err(Stopped::Read)?;
        let pieces = hand.loaded.pieces(stretches).map_err(Stopped::Read)?;
        let mapped = map(&UnitPieces { start: unit.start, length: unit.length, pieces }, &mut hand.memory);
        // Before anything is made of it, be it an error: zeros that stand in for lost bytes are none.
        hand.loaded.check(stretches).map_err(Stopped::Read)?;
        hands.behind.add(hand.loaded.leave(unit.was_cold));
        let mapped = mapped?;
        self.options.advance(unit.length)?;
        Ok(mapped)
    }
}

impl ScanOptions<'_> {
    /// Says that so many more bytes are done.
    pub(crate) fn advance(&self, bytes: u64) -> Result<(), Stopped> {
        if self.progress.advance(bytes).is_break() { Err(Stopped::Cancelled) } else { Ok(()) }
    }
}

/// What a worker works with.
#[derive(Debug, Default)]
struct Hand<'a> {
    loaded: Loaded<'a>,
    /// For whatever `map` needs memory for.
    memory: Buffer,
}

/// The workers' things, kept from one window to the next.
#[derive(Debug, Default)]
struct Hands<'a> {
    free: Mutex<Vec<Hand<'a>>>,
    behind: Behind<'a>,
}

impl<'a> Hands<'a> {
    /// Does the work `each` for every item of `order`, on as many threads as there are, each taking the next. Returns what
    /// came of it, in the order of the items' numbers.
    ///
    /// Whoever takes an item does it, and nobody takes one behind an error: so all before the first error in `order` are
    /// done, and that is the one which is returned, whatever the threads.
    fn work<T: Send, E: Send>(
        &self,
        order: &[usize],
        each: &(impl Fn(&mut Hand<'a>, usize) -> Result<T, E> + Sync),
    ) -> Result<Vec<T>, E> {
        let next = AtomicUsize::new(0);
        let first_failure: Mutex<Option<(usize, E)>> = Mutex::new(None);
        let worker = || {
            let mut hand = lock(&self.free).pop().unwrap_or_default();
            let mut done = Vec::new();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(index) = order.get(place) else { break };
                match each(&mut hand, *index) {
                    Ok(value) => done.push((*index, value)),
                    Err(error) => {
                        // Nobody takes anything any more.
                        next.fetch_max(order.len(), Ordering::Relaxed);
                        let mut first = lock(&first_failure);
                        if first.as_ref().is_none_or(|(before, _)| place < *before) {
                            *first = Some((place, error));
                        }
                        break;
                    }
                }
            }
            lock(&self.free).push(hand);
            done
        };
        let mut done = on_all_threads(order.len(), &worker);
        if let Some((_, error)) = first_failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        done.sort_unstable_by_key(|(index, _)| *index);
        Ok(done.into_iter().map(|(_, value)| value).collect())
    }
}

/// What `worker` returns, once for each thread of the current pool, but not more often than there are items of work.
#[cfg(feature = "rayon")]
pub(super) fn on_all_threads<T: Send>(items: usize, worker: &(impl Fn() -> Vec<T> + Sync)) -> Vec<T> {
    let threads = threads::count().min(items);
    if threads < 2 {
        return worker();
    }
    (0..threads).into_par_iter().with_max_len(1).flat_map_iter(|_| worker()).collect()
}

#[cfg(not(feature = "rayon"))]
pub(super) fn on_all_threads<T: Send>(_: usize, worker: &(impl Fn() -> Vec<T> + Sync)) -> Vec<T> {
    worker()
}

/// A panic elsewhere leaves nothing half done here.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
