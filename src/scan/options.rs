//! How bulk work is done, and why it ends before its end.

use std::fmt;

use crate::error::Error;

use super::progress::Progress;

/// What becomes of the machine's own copy of what was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// The system keeps it for as long as it likes, so that it is there for whoever reads next.
    #[default]
    Keep,
    /// What was not in memory before is given back behind the work, so that a large image does not push out what others
    /// need. Linux only.
    Drop,
}

/// How bulk work is done.
#[non_exhaustive]
#[derive(Clone, Copy)]
pub struct ScanOptions<'p> {
    /// What becomes of the machine's own copy of what was read.
    pub cache: Cache,
    /// Who wants to know how far it is, and may stop it.
    pub progress: &'p dyn Progress,
}

impl fmt::Debug for ScanOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanOptions").field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl Default for ScanOptions<'_> {
    fn default() -> Self {
        Self { cache: Cache::Keep, progress: &() }
    }
}

impl<'p> ScanOptions<'p> {
    /// The system keeps what was read, and nobody waits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what becomes of the machine's own copy of what was read.
    #[must_use]
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// Sets who wants to know how far it is.
    #[must_use]
    pub fn progress(mut self, progress: &'p dyn Progress) -> Self {
        self.progress = progress;
        self
    }
}

/// Why bulk work ended before its end.
#[non_exhaustive]
#[derive(Debug)]
pub enum Stopped {
    /// The content can't be read.
    Read(Error),
    /// [`Progress::advance`] asked for it.
    Cancelled,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for Stopped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Cancelled => None,
        }
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Read(error)
    }
}

impl ScanOptions<'_> {
    /// Says that so many more bytes are done.
    pub(crate) fn advance(&self, bytes: u64) -> Result<(), Stopped> {
        if self.progress.advance(bytes).is_break() { Err(Stopped::Cancelled) } else { Ok(()) }
    }
}

/// How bytes that are in a file are got at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Borrowed from the mapping where the system has them in memory, read where it does not: what is fastest if they are looked
    /// at once. Reading keeps the medium busier than page faults do, and makes the system keep them in larger pages.
    Borrow,
    /// Always read: what is fastest if they are to be copied anyhow, since no page has to be mapped for it.
    Read,
}
