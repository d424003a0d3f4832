//! How the program ends: exit codes, and what it says when something goes wrong.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use vhdx_mmap::ScanError;
use vhdx_mmap::{Category, Error, ErrorKind, Structure};

use crate::term::{self, escape};

/// The exit codes, as the help tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    No,
    /// Of a check: it could not be done.
    NotChecked,
    Usage,
    /// Of a check.
    Corruption,
    /// Of a check.
    Leaks,
    /// Of a check.
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
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::No | Exit::NotChecked => 1,
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

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something to tell.
    Said { exit: Exit, text: String, hint: Option<String> },
    /// Nobody reads the output any more. Whoever closed the pipe knows why; `bulk` is set where what is missing was data,
    /// not text.
    ClosedPipe { bulk: bool },
    /// A signal asked for the end.
    Interrupted { signal: i32 },
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self::Said { exit, text: text.into(), hint: None }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::Said { exit, text, .. } => Self::Said { exit, text, hint: Some(hint.into()) },
            other => other,
        }
    }

    /// What the library says of an image.
    pub(crate) fn of_image(image: &Path, error: &Error) -> Self {
        let text = format!("{}: {error}", image.display());
        Self::Said { exit: error.category().into(), text, hint: Some(hint_for(error).to_owned()) }
    }

    /// The same of an error that says itself in which file it is.
    pub(crate) fn of_named(error: &Error) -> Self {
        Self::Said { exit: error.category().into(), text: error.to_string(), hint: Some(hint_for(error).to_owned()) }
    }

    /// The same of a command whose exit code is its answer, or that was to write something besides: that nobody reads the text
    /// to its end must not look like "all is well".
    pub(crate) fn of_an_answer(self) -> Self {
        match self {
            Self::ClosedPipe { .. } => Self::ClosedPipe { bulk: true },
            other => other,
        }
    }

    /// What went wrong while data was written to a stream, which is called `out`.
    pub(crate) fn of_bulk_output(image: &Path, out: &str, error: ScanError) -> Self {
        match error {
            ScanError::Read(error) => Self::of_image(image, &error),
            ScanError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => Self::ClosedPipe { bulk: true },
            other => Self::new(Exit::Io, format!("{out}: {other}")),
        }
    }

    /// Tells it, and says with which code to end.
    pub(crate) fn report(self) -> Exit {
        match self {
            Self::Said { exit, text, hint } => {
                term::tell("error", term::ERROR, &escape(&text));
                if let Some(hint) = hint {
                    term::tell("hint", term::HINT, &escape(&hint));
                }
                exit
            }
            // As for any program whose reader goes away: text that nobody wants is no failure, missing data is one.
            Self::ClosedPipe { bulk: false } => Exit::Done,
            Self::ClosedPipe { bulk: true } => end_by_signal(SIGPIPE),
            Self::Interrupted { signal } => {
                // What the terminal shows of the key stays on its line.
                if io::IsTerminal::is_terminal(&io::stderr()) {
                    drop(writeln!(io::stderr()));
                }
                end_by_signal(signal)
            }
        }
    }
}

/// Text output can fail in one way that is of interest: nobody reads it.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe { bulk: false };
        }
        Self::new(Exit::Io, format!("{STANDARD_OUTPUT}: {error}"))
    }
}

/// What standard output is called in messages.
pub(crate) const STANDARD_OUTPUT: &str = "standard output";

const SIGPIPE: i32 = 13;

/// Ends as the signal does by default, so that the shell sees what happened.
fn end_by_signal(signal: i32) -> Exit {
    #[cfg(unix)]
    if signal_hook::low_level::emulate_default_handler(signal).is_ok() {
        return Exit::Interrupted;
    }
    let _ = signal;
    Exit::Interrupted
}

/// What can be done about it.
fn hint_for(error: &Error) -> &'static str {
    const LOST_ITS_END: &str = "the file has lost its end: was it copied as a whole? --salvage reads what is left";

    match (error.kind(), error.structure()) {
        (ErrorKind::DirtyLog { .. }, _) => "--log replay reads the disk as it should be, without changing the file",
        (ErrorKind::NoActiveSequence { .. }, _) => {
            "`vhdx log IMAGE` tells what the log holds; --log ignore reads the file as it lies, stale parts and all"
        }
        (ErrorKind::ParentNotFound { .. }, _) => "pass --parent PATH, or --parents DIR to look for it there",
        (ErrorKind::NoParentAttached, _) => "pass --parent PATH, or --parents beside to look for it beside the image",
        (ErrorKind::ParentMismatch { .. }, _) => {
            "the parent was changed after the child was made, or is another image: pass --parent PATH of the right one"
        }
        (ErrorKind::ChainCycle | ErrorKind::SectorSizeMismatch { .. }, _) => {
            "`vhdx chain IMAGE` tells how the parents were found; --parent PATH names another one"
        }
        (ErrorKind::NotVhdx { .. }, _) => "VHDX and AVHDX images are read; qemu-img knows many other formats",
        (ErrorKind::IncompleteFile, _) => "whatever was to make this image has to do it again",
        (ErrorKind::FileTooShort { .. }, _) => LOST_ITS_END,
        (
            ErrorKind::OutOfBounds { .. },
            Structure::File
            | Structure::Log
            | Structure::MetadataRegion
            | Structure::Bat
            | Structure::PayloadBlock(_)
            | Structure::SectorBitmap(_),
        ) => LOST_ITS_END,
        (
            _,
            Structure::PayloadBatEntry(_)
            | Structure::BitmapBatEntry(_)
            | Structure::PayloadBlock(_)
            | Structure::SectorBitmap(_),
        ) => "the image is damaged there; --salvage reads everything else, --range the other parts of the disk",
        (ErrorKind::Missing { what: "FileParameters" }, _) => "`--salvage --assume block-size=SIZE` says it by hand",
        (ErrorKind::Missing { what: "VirtualDiskSize" }, _) => "`--salvage --assume disk-size=SIZE` says it by hand",
        (ErrorKind::Missing { what: "LogicalSectorSize" }, _) => {
            "`--salvage --assume sector-size=SIZE` says it by hand"
        }
        (ErrorKind::NotAFile { what: "a directory" }, _) => "name an image in it",
        (ErrorKind::Open(cause), _) if cause.kind() == io::ErrorKind::NotFound => "is the path right?",
        (ErrorKind::Open(_) | ErrorKind::NotAFile { .. }, _) => "an image is a file that you may read",
        (ErrorKind::Lost, _) => {
            "was the file cut off meanwhile? if not, its medium fails: the system's log may tell more"
        }
        (ErrorKind::Changed, _) => "stop whoever writes to the image, and try again",
        (ErrorKind::Io(_), _) => "where its medium fails, `vhdx extract --salvage` reads what is left",
        _ => match error.category() {
            Category::Unsupported => "a newer program than this may be needed: the one that made the image, or Hyper-V",
            Category::InvalidInput => "`vhdx info IMAGE` tells the size of the disk",
            _ => "`vhdx check IMAGE` tells all that is wrong; `vhdx extract --salvage` reads what is left",
        },
    }
}
