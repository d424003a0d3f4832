//! How long work says how far it is, and learns that nobody waits for it any more.

use std::fmt;
use std::ops::ControlFlow;

/// Whoever waits for long work. The library itself prints nothing.
pub trait Progress: Sync {
    /// So many more bytes of the disk are done. To break means to stop the work as soon as can be.
    ///
    /// May be called from several threads at once, thousands of times in a second.
    fn advance(&self, bytes: u64) -> ControlFlow<()>;
}

/// Nobody waits, or they wait for as long as it takes.
impl Progress for () {
    fn advance(&self, _: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Work that somebody waits for, but that has been counted already, or is no part of the whole: it can be stopped, and nothing
/// else.
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
