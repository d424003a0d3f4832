//! How the program ends: exit codes, and messages of failures.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use vhdx_mmap::report::{Failed, Report};
use vhdx_mmap::{Category, Error, OtherFormat, ScanError};

use crate::hint;
use crate::term::{self, escape};

/// Exit codes, as the help lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    /// The disks differ, or a digest does not match.
    Mismatch,
    /// Result of `check`: the check could not be made.
    NotChecked,
    Usage,
    /// Result of `check`.
    Corruption,
    /// Result of `check`.
    Leaks,
    /// Result of `check`.
    NotSupported,
    Corrupt,
    NoInput,
    Unsupported,
    CannotCreate,
    Io,
    DirtyLog,
    ParentNotFound,
    ParentMismatch,
    Interrupted,
    /// The exit code of the program that `serve` has run.
    OfProgram(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Mismatch | Exit::NotChecked => 1,
            Exit::Usage | Exit::Corruption => 2,
            Exit::Leaks => 3,
            Exit::NotSupported => 63,
            Exit::Corrupt => 65,
            Exit::NoInput => 66,
            Exit::Unsupported => 69,
            Exit::CannotCreate => 73,
            Exit::Io => 74,
            Exit::DirtyLog => 80,
            Exit::ParentNotFound => 81,
            Exit::ParentMismatch => 82,
            Exit::Interrupted => 130,
            Exit::OfProgram(code) => code,
        })
    }
}

impl From<Category> for Exit {
    fn from(category: Category) -> Self {
        match category {
            Category::Corrupt | Category::NotVhdx => Self::Corrupt,
            Category::Unsupported => Self::Unsupported,
            Category::Open => Self::NoInput,
            Category::DirtyLog => Self::DirtyLog,
            Category::ParentNotFound => Self::ParentNotFound,
            Category::ParentMismatch => Self::ParentMismatch,
            Category::InvalidInput => Self::Usage,
            _ => Self::Io,
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error to print. `looks_like`: the file that was given in place of an image, and what it is.
    Message { exit: Exit, text: String, hint: Option<String>, looks_like: Option<Box<(PathBuf, OtherFormat)>> },
    /// The reader of the output has closed its end of the pipe. `bulk`: the output that is cut off is data or an
    /// answer, not text.
    ClosedPipe { bulk: bool },
    /// A signal stopped the command.
    Interrupted { signal: i32 },
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self::Message { exit, text: text.into(), hint: None, looks_like: None }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::Message { exit, text, looks_like, .. } => {
                Self::Message { exit, text, hint: Some(hint.into()), looks_like }
            }
            other => other,
        }
    }

    /// An error of the library in an image.
    pub(crate) fn of_image(image: &Path, error: &Error) -> Self {
        Self::with_text(format!("{}: {error:#}", image.display()), image, error)
    }

    /// An error of the library whose text names the file already.
    pub(crate) fn of_named(file: &Path, error: &Error) -> Self {
        Self::with_text(error.to_string(), file, error)
    }

    fn with_text(text: String, file: &Path, error: &Error) -> Self {
        let hint = Some(hint::for_error(file, error));
        // The file of a parent is not the one that was given.
        let looks_like = error.looks_like().filter(|_| error.layer() == 0);
        let looks_like = looks_like.map(|format| Box::new((file.to_path_buf(), format)));
        Self::Message { exit: error.category().into(), text, hint, looks_like }
    }

    /// What the file is, if it was given in place of an image.
    pub(crate) fn looks_like(&self, path: &Path) -> Option<OtherFormat> {
        match self {
            Self::Message { looks_like: Some(found), .. } if found.0 == path => Some(found.1),
            _ => None,
        }
    }

    /// The failure in place of a report; none if it is no message.
    pub(crate) fn in_place_of<R: Report>(&self, image: &Path) -> Option<Failed<R>> {
        match self {
            Self::Message { text, .. } => Some(Failed::of(image, text).looks_like(self.looks_like(image))),
            _ => None,
        }
    }

    /// Makes a closed pipe a failure, for commands whose exit code is their answer: 0 would mean "no difference".
    pub(crate) fn with_fatal_pipe(self) -> Self {
        match self {
            Self::ClosedPipe { .. } => Self::ClosedPipe { bulk: true },
            other => other,
        }
    }

    /// An error while data of an image was written to the stream `out`.
    pub(crate) fn of_bulk_output(image: &Path, out: &str, error: ScanError) -> Self {
        match error {
            ScanError::Read(error) => Self::of_image(image, &error),
            ScanError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => Self::ClosedPipe { bulk: true },
            other => Self::new(Exit::Io, format!("{out}: {other}")),
        }
    }

    /// Prints the message, and returns the exit code.
    pub(crate) fn report(self) -> Exit {
        match self {
            Self::Message { exit, text, hint, .. } => {
                term::message("error", term::ERROR, &escape(&text));
                if let Some(hint) = hint {
                    term::message("hint", term::HINT, &escape(&hint));
                }
                exit
            }
            // Like other programs in a pipe: cut off text is not a failure, missing data is one.
            Self::ClosedPipe { bulk: false } => Exit::Done,
            Self::ClosedPipe { bulk: true } => end_by_signal(SIGPIPE),
            Self::Interrupted { signal } => {
                // The terminal has printed `^C` on this line.
                if io::IsTerminal::is_terminal(&io::stderr()) {
                    drop(writeln!(io::stderr()));
                }
                end_by_signal(signal)
            }
        }
    }
}

/// An error of text output. A closed pipe, as after `| head`, needs no message.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe { bulk: false };
        }
        Self::new(Exit::Io, format!("{STANDARD_OUTPUT}: {error}"))
    }
}

/// Name of standard output in messages.
pub(crate) const STANDARD_OUTPUT: &str = "standard output";

const SIGPIPE: i32 = 13;

/// Ends by the default action of the signal, so that the shell sees which signal it was.
fn end_by_signal(signal: i32) -> Exit {
    #[cfg(unix)]
    if signal_hook::low_level::emulate_default_handler(signal).is_ok() {
        return Exit::Interrupted;
    }
    let _ = signal;
    Exit::Interrupted
}
