//! Threads that share work: those of the current rayon pool, or only the calling thread.

#[cfg(feature = "rayon")]
use std::sync::LazyLock;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(feature = "rayon")]
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// Returns the number of threads of the current pool: 1 without the feature `rayon`, and if the system has no threads
/// for a pool.
#[cfg(feature = "rayon")]
pub(crate) fn count() -> usize {
    if has_pool() { rayon::current_num_threads() } else { 1 }
}

#[cfg(not(feature = "rayon"))]
pub(crate) fn count() -> usize {
    1
}

/// Returns whether this thread belongs to a pool, or the global pool runs. Rayon starts that one by itself, and panics
/// if it cannot.
#[cfg(feature = "rayon")]
fn has_pool() -> bool {
    use std::error::Error as _;

    static HAS_GLOBAL: LazyLock<bool> = LazyLock::new(|| {
        // Without threads, rayon's global pool consists of the calling thread.
        cfg!(target_family = "wasm")
            || match rayon::ThreadPoolBuilder::new().build_global() {
                Ok(()) => true,
                // An error without a cause means that it runs already.
                Err(error) => error.source().is_none(),
            }
    });
    rayon::current_thread_index().is_some() || *HAS_GLOBAL
}

/// Thread pool for work on whole disks. [`Threads::run`] runs work on its threads, instead of rayon's global pool or
/// the pool of the calling thread. A process that forks has to make its own pool afterwards: the threads of a pool do
/// not survive a fork.
#[cfg(feature = "rayon")]
#[derive(Debug)]
pub struct Threads(rayon::ThreadPool);

#[cfg(feature = "rayon")]
impl Threads {
    /// Starts `count` threads, or one per core if `count` is 0.
    ///
    /// # Errors
    /// Fails if the system refuses the threads.
    pub fn new(count: usize) -> std::io::Result<Self> {
        rayon::ThreadPoolBuilder::new().num_threads(count).build().map(Self).map_err(std::io::Error::other)
    }

    /// Returns the number of threads.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.current_num_threads()
    }

    /// Runs `work` on one of these threads, and its parallel parts on all of them.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.install(work)
    }
}

/// Returns the results of all tasks, in order. They run at the same time, as far as there are threads.
#[cfg(feature = "rayon")]
pub(crate) fn all_at_once<T: Send, F: FnOnce() -> T + Send>(tasks: Vec<F>) -> Vec<T> {
    if count() < 2 || tasks.len() < 2 {
        return tasks.into_iter().map(|task| task()).collect();
    }
    tasks.into_par_iter().with_max_len(1).map(|task| task()).collect()
}

#[cfg(not(feature = "rayon"))]
pub(crate) fn all_at_once<T, F: FnOnce() -> T>(tasks: Vec<F>) -> Vec<T> {
    tasks.into_iter().map(|task| task()).collect()
}

/// Combines the results of all `parts`, numbered from 0, with `and`, in any order and grouping. The parts run at the
/// same time, as far as there are threads, and their results are not kept.
///
/// # Errors
/// The error of a part; of the first one if there is one thread.
#[cfg(feature = "rayon")]
pub(crate) fn try_reduce<T: Default + Send, E: Send>(
    parts: u64,
    part: impl Fn(u64) -> Result<T, E> + Send + Sync,
    and: impl Fn(T, T) -> T + Send + Sync,
) -> Result<T, E> {
    if count() < 2 || parts < 2 {
        return (0..parts).try_fold(T::default(), |sum, number| Ok(and(sum, part(number)?)));
    }
    (0..parts).into_par_iter().map(part).try_reduce(T::default, |one, other| Ok(and(one, other)))
}

#[cfg(not(feature = "rayon"))]
pub(crate) fn try_reduce<T: Default, E>(
    parts: u64,
    part: impl Fn(u64) -> Result<T, E>,
    and: impl Fn(T, T) -> T,
) -> Result<T, E> {
    (0..parts).try_fold(T::default(), |sum, number| Ok(and(sum, part(number)?)))
}

/// Locks a mutex whose content is valid also after a panic of another thread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
