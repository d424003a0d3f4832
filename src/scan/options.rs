//! Options for work on whole disks.

use std::fmt;

use super::error::ScanError;
use super::plan::UNIT;
use super::progress::Progress;

/// Policy for the page cache.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageCachePolicy {
    /// Leaves the decision to the system, so that the data may be in the page cache for the next reader.
    #[default]
    Keep,
    /// Drops data that was not in the page cache before, after it was used, so that a large image does not displace
    /// other data. Linux only.
    Drop,
}

/// Options for work on whole disks.
#[non_exhaustive]
#[derive(Clone, Copy)]
pub struct ScanOptions<'p> {
    /// Policy for the page cache.
    pub cache: PageCachePolicy,
    /// Receiver of the progress, which can cancel the work.
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
    /// Length of a unit of work, in bytes. Units begin at multiples of it, counted from the beginning of the input.
    pub const UNIT: u64 = UNIT;

    /// Makes the default options: the system manages the page cache, and progress is not reported.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the policy for the page cache.
    #[must_use]
    pub fn cache(mut self, cache: PageCachePolicy) -> Self {
        self.cache = cache;
        self
    }

    /// Sets the receiver of the progress.
    #[must_use]
    pub fn progress(mut self, progress: &'p dyn Progress) -> Self {
        self.progress = progress;
        self
    }
}

impl ScanOptions<'_> {
    /// Reports that `bytes` more bytes are done.
    pub(crate) fn advance(&self, bytes: u64) -> Result<(), ScanError> {
        if self.progress.advance(bytes).is_break() { Err(ScanError::Cancelled) } else { Ok(()) }
    }
}

/// How bytes in files are accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Borrowed from the mapping if the page cache contains them, or else read: the fastest way if they are used once.
    /// Reading keeps the medium busier than page faults do, and makes the system cache them in larger pages.
    Borrow,
    /// Always read: the fastest way if they are copied anyway, since no page has to be mapped.
    Read,
}
