//! Progress reports of long work, and its cancellation.

use std::fmt;
use std::ops::ControlFlow;

/// Receiver of progress reports, which can cancel the work. The library itself prints nothing.
pub trait Progress: Sync {
    /// Receives the number of further bytes of the disk that are done. Returns `Break` to cancel the work as soon as
    /// possible.
    ///
    /// May be called from several threads at once, thousands of times per second.
    fn advance(&self, bytes: u64) -> ControlFlow<()>;
}

/// Ignores progress, and never cancels.
impl Progress for () {
    fn advance(&self, _: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Adapter for work that was counted already, or is not part of the total: cancels it like the wrapped receiver,
/// without reporting progress.
pub struct Uncounted<'p>(pub &'p dyn Progress);

impl Progress for Uncounted<'_> {
    fn advance(&self, _: u64) -> ControlFlow<()> {
        self.0.advance(0)
    }
}

impl fmt::Debug for Uncounted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uncounted").finish_non_exhaustive()
    }
}
