//! The threads that share work: those of the current rayon pool, or the one that asks where there is none.

#[cfg(feature = "rayon")]
use std::sync::LazyLock;

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
