//! Progress of long work, and how signals stop it.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vhdx_mmap::Progress;

/// Progress bar on standard error, if that is a terminal, and the flag that signals set.
pub(crate) struct Work {
    bar: ProgressBar,
    /// Number of the signal that was received, or 0.
    signal: Arc<AtomicUsize>,
}

impl Work {
    /// Starts work of `bytes` bytes.
    pub(crate) fn new(bytes: u64, quiet: bool) -> Self {
        Self { bar: bar(bytes, quiet), signal: Arc::default() }
    }

    /// Starts the next part of the work of a command. A signal stops all parts.
    pub(crate) fn next(&self, bytes: u64, quiet: bool) -> Self {
        Self { bar: bar(bytes, quiet), signal: Arc::clone(&self.signal) }
    }

    /// Lets the first signal stop the work instead of the program, so that there is time to clean up. A second signal
    /// ends the program at once.
    #[cfg(unix)]
    pub(crate) fn listen(&self) -> std::io::Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        use signal_hook::flag;

        /// Sent if a file exceeds the size limit of the user. Ignored: the write fails, which is enough.
        const SIGXFSZ: i32 = 25;

        // Signals that were ignored at the start stay ignored, as under `nohup`.
        let ignored = ignored_signals();
        for number in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|number| !ignored.contains(number)) {
            let came_before = Arc::new(AtomicBool::new(false));
            flag::register_conditional_default(number, Arc::clone(&came_before))?;
            flag::register(number, came_before)?;
            flag::register_usize(number, Arc::clone(&self.signal), usize::try_from(number).unwrap_or(usize::MAX))?;
        }
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(())
    }

    #[cfg(not(unix))]
    pub(crate) fn listen(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// The signal that was received, if any.
    pub(crate) fn signal(&self) -> Option<i32> {
        i32::try_from(self.signal.load(Ordering::Relaxed)).ok().filter(|signal| *signal != 0)
    }

    /// Removes the progress bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn bar(bytes: u64, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        ProgressBar::hidden()
    } else {
        let style = "{percent:>3}% {wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(10)).with_style(style)
    }
}

/// Signals that are ignored now; none if the system does not provide them.
#[cfg(unix)]
fn ignored_signals() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // The lowest bit is for signal 1.
    (1..=64).zip(0..64).filter(|(_, bit)| mask >> bit & 1 == 1).map(|(number, _)| number).collect()
}

impl Progress for Work {
    fn advance(&self, bytes: u64) -> ControlFlow<()> {
        self.bar.inc(bytes);
        if self.signal().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
