//! Reasons of errors.

use vhdx_mmap::Error;

use crate::Export;

/// Receives the reasons of errors that clients get: they see that a read failed, not the names of files on the server.
pub trait Observer: Sync {
    /// A request of a client failed since a part of the export cannot be read.
    fn read_failed(&self, export: &Export, error: &Error);
}

/// Ignores all errors.
impl Observer for () {
    fn read_failed(&self, _: &Export, _: &Error) {}
}
