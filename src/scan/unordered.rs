//! Execution of the planned work: every core takes the next unit, and results come in the order of the input.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "rayon")]
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use crate::disk::Segment;
use crate::error::Result;
use crate::source::Buffer;
#[cfg(feature = "rayon")]
use crate::threads;
use crate::threads::lock;

use super::access::AccessMeter;
use super::error::ScanError;
use super::fetch::UnitBuffer;
use super::input::Input;
use super::options::{Access, PageCachePolicy, ScanOptions};
use super::plan::{Planner, Planning, Window};
use super::release::ReleaseQueue;

impl Input<'_> {
    /// Shows the input to `map`, unit by unit, on all threads of the current pool (with the feature `rayon`; otherwise
    /// on one), and the results to `take`, in order. Units are at most [`ScanOptions::UNIT`] bytes long, and begin at
    /// multiples of that, counted from the beginning of the input. The calls of `take` are the same for any number of
    /// threads.
    ///
    /// `map` receives the start of a unit, and its bytes and zeros. Unallocated space is not shown to it: `take`
    /// receives it as a range of any length with `None`. Units are shown in the order of the files. The bytes are
    /// borrowed for the call only, and memory does not grow with the disk.
    ///
    /// # Errors
    /// See [`ScanError`].
    pub fn scan<T: Send>(
        self,
        options: &ScanOptions<'_>,
        map: impl Fn(u64, &[Segment<'_>]) -> T + Sync,
        mut take: impl FnMut(Range<u64>, Option<T>),
    ) -> Result<(), ScanError> {
        Bulk { inputs: [self], access: Access::Borrow, visit_zeros: false, options: *options }.each(
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
    /// Start, counted from the beginning of the input.
    pub(crate) start: u64,
    /// At most [`ScanOptions::UNIT`].
    pub(crate) length: u64,
    /// Its bytes, and the lengths of its zeros, in order. For several inputs: one segment of each, of the same length,
    /// and so on.
    pub(crate) segments: Vec<Segment<'b>>,
}

impl UnitBytes<'_> {
    /// Returns the bytes, and the lengths of the zeros, in order.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment<'_>> + Clone {
        self.segments.iter().copied()
    }
}

/// A finished part of the work.
#[derive(Debug)]
pub(crate) struct Done<T> {
    /// Start, counted from the beginning of the input.
    pub(crate) start: u64,
    pub(crate) length: u64,
    /// Result. `None` if there was nothing to read, since all is zero, or the same in both inputs.
    pub(crate) value: Option<T>,
}

/// Work on `N` inputs side by side, the shorter ones followed by zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bulk<'a, 'p, const N: usize> {
    pub(crate) inputs: [Input<'a>; N],
    pub(crate) access: Access,
    /// Whether zeros are visited, too.
    pub(crate) visit_zeros: bool,
    pub(crate) options: ScanOptions<'p>,
}

/// Number of bytes to read that are planned in advance.
const WINDOW: u64 = 256 << 20;

impl<'a, const N: usize> Bulk<'a, '_, N> {
    /// Shows every unit to `map`, on all threads of the current pool, in the order of their bytes in the files. The
    /// results go to `take`, in the order of the input: the same calls for any number of threads. If there is nothing
    /// to read, `take` has to report the progress.
    ///
    /// # Errors
    /// The first error: of the plan, of reading, of `map`, or of `take`.
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
        Ok(())
    }

    /// Checks that the tables by which the inputs were read were those of the files, for a scan that stopped early.
    pub(crate) fn check_tables(&self) -> Result<(), ScanError> {
        let check = |input: &Input<'_>| input.check_tables().map_err(|error| error.in_file(input.path()));
        Ok(self.inputs.iter().try_for_each(check)?)
    }

    pub(super) fn planner(&self, window: u64) -> Planner<'a, N> {
        let find_cold = self.options.cache == PageCachePolicy::Drop;
        Planner::new(self.inputs, Planning { window, visit_zeros: self.visit_zeros, find_cold })
    }

    /// Processes one unit, which is not idle.
    fn one<T, E: From<ScanError>>(
        &self,
        window: &Window<'a>,
        index: usize,
        (pool, worker): (&WorkerPool<'a>, &mut Worker<'a>),
        map: impl Fn(&UnitBytes<'_>, &mut Buffer) -> Result<T, E>,
    ) -> Result<T, E> {
        let (unit, pieces) = window.unit(index);
        let (access, trial) = pool.meter.choose(pieces, self.access);
        worker.loaded.load(pieces, access).map_err(ScanError::Read)?;
        let segments = worker.loaded.segments(pieces).map_err(ScanError::Read)?;
        let mapped = map(&UnitBytes { start: unit.start, length: unit.length, segments }, &mut worker.memory);
        // Before the result is used, even if it is an error: zeros that replace lost bytes are not content.
        worker.loaded.check(pieces).map_err(ScanError::Read)?;
        if let Some(trial) = trial {
            pool.meter.finish(trial);
        }
        pool.to_release.add(worker.loaded.leave(unit.was_cold), &pool.meter);
        let mapped = mapped?;
        self.options.advance(unit.length)?;
        Ok(mapped)
    }
}

/// Objects that a worker keeps.
#[derive(Debug, Default)]
struct Worker<'a> {
    loaded: UnitBuffer<'a>,
    /// Memory for `map`.
    memory: Buffer,
}

/// The workers' objects, kept from one window to the next.
#[derive(Debug, Default)]
struct WorkerPool<'a> {
    free: Mutex<Vec<Worker<'a>>>,
    to_release: ReleaseQueue<'a>,
    meter: AccessMeter<'a>,
}

impl<'a> WorkerPool<'a> {
    /// Calls `each` for every item of `order`, on as many threads as there are, each taking the next. Returns the
    /// results in the order of the items' numbers.
    ///
    /// A thread that takes an item finishes it, and no item after an error is taken: so all items before the first
    /// error in `order` are done, and that error is returned, for any number of threads.
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
                        // Prevents that further items are taken.
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

/// Returns the results of `worker`, called once on each thread of the current pool, but not more often than there are
/// items of work.
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
