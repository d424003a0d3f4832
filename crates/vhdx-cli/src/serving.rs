//! What `serve` and `mount` have in common: the end by signals, and the reasons of errors.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use vhdx_mmap::Error;
use vhdx_serve::{Export, Observer};

use crate::progress::ignored_signals;
use crate::term::{self, escape};

/// Signals that end a server.
const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Returns a stream that can be read when a signal has come. Signals that were ignored at the start stay ignored, as
/// under `nohup`.
pub(crate) fn stop_on_signals() -> io::Result<UnixStream> {
    let (stop, signal) = UnixStream::pair()?;
    let ignored = ignored_signals();
    for number in SIGNALS.into_iter().filter(|number| !ignored.contains(number)) {
        signal_hook::low_level::pipe::register(number, signal.try_clone()?)?;
    }
    // Without a signal, the other end must not be closed either.
    if SIGNALS.iter().all(|number| ignored.contains(number)) {
        std::mem::forget(signal);
    }
    Ok(stop)
}

/// Prints why clients got errors: each reason once.
pub(crate) struct Reasons {
    /// Word in front of the name of what cannot be read, with a space after it; or nothing.
    what: &'static str,
    known: Mutex<BTreeSet<String>>,
}

impl Reasons {
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what, known: Mutex::default() }
    }
}

impl Observer for Reasons {
    fn read_failed(&self, export: &Export, error: &Error) {
        /// A damaged image has a reason for each block.
        const MOST: usize = 100;

        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!("{}{}: {error:#}", self.what, export.name());
        if known.len() < MOST && known.insert(text.clone()) {
            let more = if known.len() == MOST { "; further errors are not shown" } else { "" };
            term::message("error", term::ERROR, &escape(&format!("{text}{more}")));
        }
    }
}
