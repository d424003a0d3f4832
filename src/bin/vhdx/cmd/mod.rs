//! The commands, one a file.

pub(crate) mod chain;
pub(crate) mod extract;
pub(crate) mod info;
pub(crate) mod log;
pub(crate) mod map;
pub(crate) mod read;
