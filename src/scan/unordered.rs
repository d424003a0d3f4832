//! Doing the planned work: every core takes the next unit, results come in the order of the content.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "rayon")]
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use crate::disk::Segment;
use crate::error::{Error, Result};
use crate::source::Buffer;
#[cfg(feature = "rayon")]
use crate::threads;
use crate::threads::lock;

use super::error::ScanError;
use super::fetch::UnitBuffer;
use super::input::Input;
use super::options::{Access, PageCachePolicy, ScanOptions};
use super::plan::{Planner, Planning, Window};
use super::release::ReleaseQueue;

impl Input<'_> {
    /// Shows all of it to `map`, unit by unit, on all threads of the current pool (with the feature `rayon`; otherwise on one),
    /// and what comes of it to `take`, in order. Units are at most [`ScanOptions::UNIT`] bytes long, and begin at multiples of
    /// that, counted from where the content begins; what `take` gets is the same for any number of threads.
    ///
    /// `map` is given where a unit begins, and its bytes and zeros. What is zero and nowhere is not shown to it: `take` is told
    /// of it as a range with nothing, of any length. The order in which units are shown is that of the files, the bytes are
    /// lent for the call only, and memory does not grow with the disk.
    ///
    /// # Errors
    /// See [`ScanError`].
    pub fn scan<T: Send>(
        self,
        options: &ScanOptions<'_>,
        map: impl Fn(u64, &[Segment<'_>]) -> T + Sync,
        mut take: impl FnMut(Range<u64>, Option<T>),
    ) -> Result<(), ScanError> {
        Bulk { contents: [self], access: Access::Borrow, visit_zeros: false, options: *options }.each(
            |unit, _| Ok::<_, ScanError>(map(unit.start, &unit.segments)),
            |done| {
                if done.value.is_none() {
                    options.advance(done.length)?;
                }
                take(done.start..done.start.saturating_add(done.length), done.value);
                Ok(())
            },
        )
    }
}

/// The bytes of a unit of work.
#[derive(Debug)]
pub(crate) struct UnitBytes<'b> {
    /// Where it begins, counted from the beginning of the input.
    pub(crate) start: u64,
    /// At most [`ScanOptions::UNIT`].
    pub(crate) length: u64,
    /// Its bytes, and the lengths of its zeros, in order. Of several inputs, one segment of each, of the same length, and so on.
    pub(crate) segments: Vec<Segment<'b>>,
}

impl UnitBytes<'_> {
    /// Its bytes, and the lengths of its zeros, in order.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment<'_>> + Clone {
        self.segments.iter().copied()
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
    pub(crate) contents: [Input<'a>; N],
    pub(crate) access: Access,
    /// Whether zeros have to be looked at, too.
    pub(crate) visit_zeros: bool,
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
    pub(crate) fn each<T: Send, E: Send + From<ScanError>>(
        &self,
        map: impl Fn(&UnitBytes<'_>, &mut Buffer) -> Result<T, E> + Sync,
        mut take: impl FnMut(Done<T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut planner = self.planner(WINDOW);
        let pool = WorkerPool::default();
        while let Some(window) = planner.next_window() {
            let window = window.map_err(ScanError::Read)?;
            let one = |worker: &mut Worker<'a>, index: usize| self.one(&window, index, (&pool, worker), &map);
            let mut values = pool.work(&window.in_file_order(), &one)?.into_iter();
            for unit in &window.units {
                let value = if unit.is_idle() { None } else { values.next() };
                take(Done { start: unit.start, length: unit.length, value })?;
            }
        }
        Ok(self.check_tables()?)
    }

    /// That the tables by which the contents were read are still there.
    pub(crate) fn check_tables(&self) -> Result<(), ScanError> {
        let in_file = |content: &Input<'_>, error: Error| error.in_file(content.path().filter(|_| N > 1));
        let check = |content: &Input<'_>| content.check_tables().map_err(|error| in_file(content, error));
        Ok(self.contents.iter().try_for_each(check)?)
    }

    pub(super) fn planner(&self, window: u64) -> Planner<'a, N> {
        let find_cold = self.options.cache == PageCachePolicy::Drop;
        Planner::new(self.contents, Planning { window, visit_zeros: self.visit_zeros, find_cold })
    }

    /// Does one unit, which is not idle.
    fn one<T, E: From<ScanError>>(
        &self,
        window: &Window<'a>,
        index: usize,
        (pool, worker): (&WorkerPool<'a>, &mut Worker<'a>),
        map: impl Fn(&UnitBytes<'_>, &mut Buffer) -> Result<T, E>,
    ) -> Result<T, E> {
        let (unit, pieces) = window.unit(index);
        worker.loaded.load(pieces, self.access, N > 1).map_err(ScanError::Read)?;
        let segments = worker.loaded.segments(pieces).map_err(ScanError::Read)?;
        let mapped = map(&UnitBytes { start: unit.start, length: unit.length, segments }, &mut worker.memory);
        // Before anything is made of it, be it an error: zeros that stand in for lost bytes are none.
        worker.loaded.check(pieces).map_err(ScanError::Read)?;
        pool.to_release.add(worker.loaded.leave(unit.was_cold));
        let mapped = mapped?;
        self.options.advance(unit.length)?;
        Ok(mapped)
    }
}

/// What a worker works with.
#[derive(Debug, Default)]
struct Worker<'a> {
    loaded: UnitBuffer<'a>,
    /// For whatever `map` needs memory for.
    memory: Buffer,
}

/// The workers' things, kept from one window to the next.
#[derive(Debug, Default)]
struct WorkerPool<'a> {
    free: Mutex<Vec<Worker<'a>>>,
    to_release: ReleaseQueue<'a>,
}

impl<'a> WorkerPool<'a> {
    /// Does the work `each` for every item of `order`, on as many threads as there are, each taking the next. Returns what
    /// came of it, in the order of the items' numbers.
    ///
    /// Whoever takes an item does it, and nobody takes one behind an error: so all before the first error in `order` are
    /// done, and that is the one which is returned, whatever the threads.
    fn work<T: Send, E: Send>(
        &self,
        order: &[usize],
        each: &(impl Fn(&mut Worker<'a>, usize) -> Result<T, E> + Sync),
    ) -> Result<Vec<T>, E> {
        let next = AtomicUsize::new(0);
        let first_failure: Mutex<Option<(usize, E)>> = Mutex::new(None);
        let work = || {
            let mut worker = lock(&self.free).pop().unwrap_or_default();
            let mut done = Vec::new();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(index) = order.get(place) else { break };
                match each(&mut worker, *index) {
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
            lock(&self.free).push(worker);
            done
        };
        let mut done = on_all_threads(order.len(), &work);
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
