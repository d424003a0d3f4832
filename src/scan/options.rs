//! How bulk work is done.

use std::fmt;

use super::error::ScanError;
use super::plan::UNIT;
use super::progress::Progress;

/// What becomes of the machine's own copy of what was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageCachePolicy {
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
    pub cache: PageCachePolicy,
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
        Self { cache: PageCachePolicy::Keep, progress: &() }
    }
}

impl<'p> ScanOptions<'p> {
    /// Length of a unit of work, in bytes: each begins at a multiple of it, counted from where the input begins.
    pub const UNIT: u64 = UNIT;

    /// The system keeps what was read, and nobody waits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what becomes of the machine's own copy of what was read.
    #[must_use]
    pub fn cache(mut self, cache: PageCachePolicy) -> Self {
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

impl ScanOptions<'_> {
    /// Says that so many more bytes are done.
    pub(crate) fn advance(&self, bytes: u64) -> Result<(), ScanError> {
        if self.progress.advance(bytes).is_break() { Err(ScanError::Cancelled) } else { Ok(()) }
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
