//! The threads that share work: those of the current rayon pool, or the one that asks where there is none.

#[cfg(feature = "rayon")]
use std::sync::LazyLock;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(feature = "rayon")]
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// Number of threads of the current pool: 1 without the feature `rayon`, and where the system has no threads for a pool.
#[cfg(feature = "rayon")]
pub(crate) fn count() -> usize {
    if has_pool() { rayon::current_num_threads() } else { 1 }
}

#[cfg(not(feature = "rayon"))]
pub(crate) fn count() -> usize {
    1
}

/// Whether this thread is one of a pool, or the global pool runs. Rayon starts that one by itself, and panics if it can't.
#[cfg(feature = "rayon")]
fn has_pool() -> bool {
    use std::error::Error as _;

    static HAS_GLOBAL: LazyLock<bool> = LazyLock::new(|| {
        // Where there are no threads at all, rayon's global pool is the one thread that asks for it.
        cfg!(target_family = "wasm")
            || match rayon::ThreadPoolBuilder::new().build_global() {
                Ok(()) => true,
                // An error without a cause says that it runs already.
                Err(error) => error.source().is_none(),
            }
    });
    rayon::current_thread_index().is_some() || *HAS_GLOBAL
}

/// Threads for work on whole disks: [`Threads::run`] has everything in it run on these, instead of on rayon's global pool or
/// the pool to which the calling thread belongs. A process that forks makes its own after it: the threads of a pool do not
/// survive that.
#[cfg(feature = "rayon")]
#[derive(Debug)]
pub struct Threads(rayon::ThreadPool);

#[cfg(feature = "rayon")]
impl Threads {
    /// Starts `count` threads; as many as there are cores if `count` is 0.
    ///
    /// # Errors
    /// If the system does not give them.
    pub fn new(count: usize) -> std::io::Result<Self> {
        rayon::ThreadPoolBuilder::new().num_threads(count).build().map(Self).map_err(std::io::Error::other)
    }

    /// Number of threads.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.current_num_threads()
    }

    /// Does `work` on one of these threads. What it shares with others, it shares with these.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.install(work)
    }
}

/// What each task returns, in their order. They run at the same time as far as there are threads.
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

/// What comes of all parts, numbered from 0, put together by `and`: their order and grouping must not matter. They run at the
/// same time as far as there are threads, and nothing is kept for each.
///
/// # Errors
/// That of a part; of the first one where there is one thread.
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

/// Locks a mutex whose content is whole also after a panic of another thread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
