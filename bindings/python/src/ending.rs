//! The end of the interpreter. It ends threads where they ask for it again, and a thread that is ended inside native
//! code takes the process with it. So no thread is inside when the interpreter ends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::marker::Ungil;
use pyo3::prelude::*;

/// How long the end waits for threads that do not come back, such as those that wait for a file object.
const LONGEST: Duration = Duration::from_secs(10);

/// Calls that let the interpreter go, or call it back. Counted only by threads that hold the interpreter.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// A call that lets the interpreter go, or calls it back.
pub(crate) struct Inside(());

impl Inside {
    /// Begins such a call.
    ///
    /// # Errors
    /// Fails if the interpreter ends.
    pub(crate) fn enter(_: Python<'_>) -> PyResult<Self> {
        if is_ending() {
            return Err(PyRuntimeError::new_err("the interpreter ends"));
        }
        INSIDE.fetch_add(1, Ordering::SeqCst);
        Ok(Self(()))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // In the child of a fork, the count has begun again.
        let _ = INSIDE.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1));
    }
}

/// Whether the interpreter ends, so that long work is not wanted any more.
pub(crate) fn is_ending() -> bool {
    IS_ENDING.load(Ordering::SeqCst)
}

/// Works without the interpreter, so that other threads go on.
///
/// # Errors
/// Fails if the interpreter ends.
pub(crate) fn detach<T: Ungil>(py: Python<'_>, work: impl FnOnce() -> T + Ungil) -> PyResult<T> {
    let _inside = Inside::enter(py)?;
    Ok(py.detach(work))
}

/// Called when the interpreter begins to end: cancels what is under way, and waits for it.
#[pyfunction]
fn end(py: Python<'_>) {
    IS_ENDING.store(true, Ordering::SeqCst);
    let began = Instant::now();
    while INSIDE.load(Ordering::SeqCst) > 0 && began.elapsed() < LONGEST {
        py.detach(|| thread::sleep(Duration::from_millis(1)));
    }
}

/// Called in the child of a fork, where no other thread goes on.
#[pyfunction]
fn forked() {
    INSIDE.store(0, Ordering::SeqCst);
}

/// Lets the interpreter call these functions.
pub(crate) fn listen(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    py.import("atexit")?.call_method1("register", (wrap_pyfunction!(end, module)?,))?;
    let os = py.import("os")?;
    // Systems without fork have no such function.
    if let Ok(register) = os.getattr("register_at_fork") {
        let arguments = pyo3::types::PyDict::new(py);
        arguments.set_item("after_in_child", wrap_pyfunction!(forked, module)?)?;
        register.call((), Some(&arguments))?;
    }
    Ok(())
}
