//! How long work says how far it is, and learns that nobody waits for it any more.

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
