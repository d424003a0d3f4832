//! Progress of long work, and how signals stop it.

mod bar;
mod terminal;

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, MultiProgress, ProgressBar, ProgressDrawTarget};
use vhdx_mmap::Progress;

use crate::args::{Common, ProgressChoice};
use crate::size::human;
use crate::term::escape;

use terminal::Terminal;

/// Time before the bar appears: most work is done sooner.
const CALM: Duration = Duration::from_millis(500);

/// Set by SIGUSR1: print a line of progress.
static STATUS_WANTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether all work ends, since its results are not wanted any more.
static IS_STOPPED: AtomicBool = AtomicBool::new(false);

/// The bars on the terminal: one for each image that is worked on.
static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// Ends all work soon, as if it was cancelled.
pub(crate) fn stop_all() {
    IS_STOPPED.store(true, Ordering::Relaxed);
}

/// Prints something while no bar is on the terminal.
pub(crate) fn without_bars<T>(print: impl FnOnce() -> T) -> T {
    match BARS.get() {
        Some(bars) => bars.suspend(print),
        None => print(),
    }
}

/// Lets SIGUSR1 print a line of progress instead of ending the program.
#[cfg(unix)]
pub(crate) fn listen_for_status() -> io::Result<()> {
    use signal_hook::consts::SIGUSR1;

    if !ignored_signals().contains(&SIGUSR1) {
        signal_hook::flag::register(SIGUSR1, Arc::clone(&STATUS_WANTED))?;
    }
    Ok(())
}

#[cfg(not(unix))]
pub(crate) fn listen_for_status() -> io::Result<()> {
    Ok(())
}

/// Progress on standard error, and the flag that signals set.
pub(crate) struct Work {
    display: Display,
    phase: &'static str,
    file: String,
    total: u64,
    done: AtomicU64,
    /// Last whole percent that was printed.
    printed: AtomicU64,
    started: Instant,
    /// Number of the signal that was received, or 0.
    signal: Arc<AtomicUsize>,
}

/// How progress is shown.
enum Display {
    Nothing,
    /// A bar, which appears when the work turns out to be long.
    Bar(OnceLock<ProgressBar>),
    /// Percent, as `qemu-img -p` prints it: on a terminal, each replaces the one before.
    Plain {
        is_terminal: bool,
    },
    /// JSON lines.
    Json,
}

impl Display {
    fn new(common: &Common) -> Self {
        let is_terminal = io::stderr().is_terminal();
        match common.progress() {
            ProgressChoice::Auto if is_terminal => Self::Bar(OnceLock::new()),
            ProgressChoice::Auto | ProgressChoice::None => Self::Nothing,
            ProgressChoice::Plain => Self::Plain { is_terminal },
            ProgressChoice::Json => Self::Json,
        }
    }
}

impl Work {
    /// Starts a phase of the work on a file, of `total` bytes.
    pub(crate) fn new(total: u64, phase: &'static str, file: &Path, common: &Common) -> Self {
        Self::with(Display::new(common), total, phase, file, Arc::default())
    }

    /// Starts work that shows no progress.
    pub(crate) fn silent() -> Self {
        Self::with(Display::Nothing, 0, "", Path::new(""), Arc::default())
    }

    /// Starts work whose size is not known, and that shows no progress unless a signal asks for it.
    pub(crate) fn unmeasured(phase: &'static str, file: &Path) -> Self {
        Self::with(Display::Nothing, 0, phase, file, Arc::default())
    }

    /// Starts the next phase of the work of a command. A signal stops all phases.
    pub(crate) fn next(&self, total: u64, phase: &'static str, file: &Path, common: &Common) -> Self {
        Self::with(Display::new(common), total, phase, file, Arc::clone(&self.signal))
    }

    fn with(display: Display, total: u64, phase: &'static str, file: &Path, signal: Arc<AtomicUsize>) -> Self {
        Self {
            display,
            phase,
            file: file.to_string_lossy().into_owned(),
            total,
            done: AtomicU64::new(0),
            printed: AtomicU64::new(0),
            started: Instant::now(),
            signal,
        }
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

    /// Ends the phase: removes the bar, and prints a closing line for long work that is complete.
    pub(crate) fn finish(&self) {
        let done = self.done.load(Ordering::Relaxed);
        let is_complete = done >= self.total && done > 0;
        // Bars are drawn to standard error, so it must not be locked while one is removed.
        match &self.display {
            Display::Nothing => {}
            Display::Bar(bar) => {
                if let (Some(bar), Some(bars)) = (bar.get(), BARS.get()) {
                    bar.finish_and_clear();
                    bars.remove(bar);
                    if is_complete {
                        without_bars(|| drop(writeln!(io::stderr(), "{}", self.closing_line(done))));
                    }
                }
            }
            Display::Plain { is_terminal } => {
                let mut err = io::stderr().lock();
                if *is_terminal {
                    drop(writeln!(err));
                }
                if is_complete {
                    drop(writeln!(err, "{}", self.closing_line(done)));
                }
            }
            Display::Json => drop(self.write_json(&mut io::stderr().lock(), done, true)),
        }
        self.print_status_if_wanted(done);
    }

    fn closing_line(&self, done: u64) -> String {
        /// Time from which on a rate says something.
        const SHORTEST: f64 = 0.1;

        let (seconds, size) = (self.started.elapsed().as_secs_f64(), human(done));
        let rate = if seconds < SHORTEST { String::new() } else { format!(" ({}/s)", self.rate(done)) };
        format!("vhdx: {} {}: {size} in {seconds:.1} s{rate}", self.phase, escape(&self.file))
    }

    /// Bytes per second, in words.
    fn rate(&self, done: u64) -> String {
        let milliseconds = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        BinaryBytes(done.saturating_mul(1000).checked_div(milliseconds).unwrap_or(0)).to_string()
    }

    fn write_json(&self, err: &mut impl Write, done: u64, finished: bool) -> io::Result<()> {
        let line = serde_json::json!({
            "phase": self.phase,
            "filename": self.file,
            "done-bytes": done,
            "total-bytes": self.total,
            "seconds": self.started.elapsed().as_secs_f64(),
            "finished": finished,
        });
        writeln!(err, "{line}")
    }

    /// Prints the progress if a new whole percent is reached.
    fn print_percent(&self, done: u64) {
        let percent = self.hundredths(done) / 100;
        if self.printed.fetch_max(percent, Ordering::Relaxed) >= percent {
            return;
        }
        let mut err = io::stderr().lock();
        // If standard error is closed, there is no place left for progress.
        drop(match self.display {
            Display::Plain { is_terminal } => {
                let (hundredths, end) = (self.hundredths(done), if is_terminal { '\r' } else { '\n' });
                write!(err, "    ({}.{:02}/100%){end}", hundredths / 100, hundredths % 100).and_then(|()| err.flush())
            }
            Display::Json => self.write_json(&mut err, done, false),
            Display::Nothing | Display::Bar(_) => Ok(()),
        });
    }

    /// Hundredths of a percent that are done.
    fn hundredths(&self, done: u64) -> u64 {
        let hundredths = u128::from(done).saturating_mul(10_000).checked_div(u128::from(self.total));
        hundredths.and_then(|hundredths| u64::try_from(hundredths).ok()).unwrap_or(0).min(10_000)
    }

    /// Prints a line of progress if a signal has asked for one.
    fn print_status_if_wanted(&self, done: u64) {
        if !STATUS_WANTED.swap(false, Ordering::Relaxed) {
            return;
        }
        let (size, rate) = (human(done), self.rate(done));
        let size = match self.total {
            0 => size,
            total => format!("{size} of {} ({} %)", human(total), self.hundredths(done) / 100),
        };
        let line = format!("vhdx: {} {}: {size}, {rate}/s", self.phase, escape(&self.file));
        without_bars(|| drop(writeln!(io::stderr(), "{line}")));
    }

    fn bar(&self) -> ProgressBar {
        let (hidden, elapsed) = (ProgressDrawTarget::hidden(), self.started.elapsed());
        let bar = bar::bar(hidden, terminal::columns(), self.total, elapsed, self.phase, &self.file);
        let bars = BARS.get_or_init(|| {
            let target = ProgressDrawTarget::term_like_with_hz(Box::new(Terminal::default()), 10);
            MultiProgress::with_draw_target(target)
        });
        bars.add(bar)
    }
}

/// Signals that are ignored now; none if the system does not provide them.
#[cfg(unix)]
pub(crate) fn ignored_signals() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // The lowest bit is for signal 1.
    (1..=64).zip(0..64).filter(|(_, bit)| mask >> bit & 1 == 1).map(|(number, _)| number).collect()
}

impl Progress for Work {
    fn advance(&self, bytes: u64) -> ControlFlow<()> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        match &self.display {
            Display::Nothing => {}
            Display::Bar(bar) => {
                if bar.get().is_some() || self.started.elapsed() >= CALM {
                    bar.get_or_init(|| self.bar()).set_position(done);
                }
            }
            Display::Plain { .. } | Display::Json => self.print_percent(done),
        }
        self.print_status_if_wanted(done);
        if self.signal().is_some() || IS_STOPPED.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}
