//! Work on whole disks: threads that survive a fork of the interpreter, progress, and cancellation.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use vhdx_mmap::{Progress, ScanError, ScanOptions, Threads};

use crate::ending::{self, Inside};
use crate::error;

/// How often signals are looked for and progress is reported.
const PERIOD: Duration = Duration::from_millis(50);

/// The threads of this process, by its id. Locked only by threads that hold the interpreter, so that no other thread
/// has it locked when the interpreter forks.
static POOL: Mutex<Option<(u32, Arc<Threads>)>> = Mutex::new(None);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the threads for an operation: `count` new ones, or those of this process.
fn threads(_: Python<'_>, count: Option<usize>) -> PyResult<Arc<Threads>> {
    match count {
        Some(0) => return Err(PyValueError::new_err("threads: too few (found 0, expected at least 1)")),
        Some(count) => return Ok(Arc::new(Threads::new(count)?)),
        None => {}
    }
    let mut pool = lock(&POOL);
    let id = std::process::id();
    if let Some((owner, threads)) = &*pool
        && *owner == id
    {
        return Ok(Arc::clone(threads));
    }
    let new = Arc::new(Threads::new(0)?);
    if let Some(of_parent) = pool.replace((id, Arc::clone(&new))) {
        // Its threads did not survive the fork: to end them would mean to wait for them.
        std::mem::forget(of_parent);
    }
    Ok(new)
}

/// What the threads that work and the thread that waits for them share.
#[derive(Default)]
struct Shared {
    done: AtomicU64,
    is_cancelled: AtomicBool,
    is_finished: Mutex<bool>,
    wake: Condvar,
}

impl Progress for Shared {
    fn advance(&self, bytes: u64) -> ControlFlow<()> {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        if self.is_cancelled.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Shared {
    /// Waits for a while, and returns whether the work is finished.
    fn wait(&self) -> bool {
        let is_finished = lock(&self.is_finished);
        let waited = self.wake.wait_timeout_while(is_finished, PERIOD, |is_finished| !*is_finished);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Says that the work is finished, also where it has panicked.
struct Finish<'s>(&'s Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        *lock(&self.0.is_finished) = true;
        self.0.wake.notify_all();
    }
}

/// How an operation runs.
pub(crate) struct How<'py> {
    /// Called with the bytes done and the total, by the calling thread.
    pub(crate) progress: Option<Bound<'py, PyAny>>,
    /// Number of threads; those of the process if none.
    pub(crate) threads: Option<usize>,
    /// Bytes in total.
    pub(crate) total: u64,
    /// Path of the image, for errors.
    pub(crate) image: Option<PathBuf>,
}

/// Runs `work` on threads of its own, without the interpreter. The calling thread reports progress and looks for
/// signals meanwhile; an exception of either cancels the work, and is what this returns.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    how: &How<'_>,
    work: impl FnOnce(&ScanOptions<'_>) -> Result<T, ScanError> + Send,
) -> PyResult<T> {
    let _inside = Inside::enter(py)?;
    let threads = threads(py, how.threads)?;
    let report = |done: u64| match &how.progress {
        Some(callback) => callback.call1((done.min(how.total), how.total)).map(drop),
        None => Ok(()),
    };
    report(0)?;
    let shared = Shared::default();
    let result = thread::scope(|scope| -> PyResult<T> {
        let (shared, threads) = (&shared, &threads);
        let worker = thread::Builder::new().name("vhdx_mmap".to_owned()).spawn_scoped(scope, move || {
            let _finish = Finish(shared);
            threads.run(|| work(&ScanOptions::new().progress(shared)))
        })?;
        let (mut raised, mut reported) = (None, 0);
        while !py.detach(|| shared.wait()) {
            if raised.is_some() {
                continue;
            }
            let done = shared.done.load(Ordering::Relaxed);
            let looked = if ending::is_ending() {
                Err(PyRuntimeError::new_err("the interpreter ends"))
            } else {
                py.check_signals()
            };
            let looked = looked.and_then(|()| if done > reported { report(done) } else { Ok(()) });
            reported = done;
            if let Err(error) = looked {
                shared.is_cancelled.store(true, Ordering::Relaxed);
                raised = Some(error);
            }
        }
        let finished = py.detach(|| worker.join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match raised {
            Some(raised) => Err(raised),
            None => finished.map_err(|error| error::of_scan(py, error, how.image.as_deref())),
        }
    })?;
    report(how.total)?;
    Ok(result)
}
