//! Commands, one per file.

pub(crate) mod chain;
pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod diff;
pub(crate) mod extract;
pub(crate) mod files;
pub(crate) mod hash;
pub(crate) mod info;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod map;
pub(crate) mod merge;
mod merge_reports;
#[cfg(target_os = "linux")]
pub(crate) mod mount;
pub(crate) mod plan;
pub(crate) mod read;
#[cfg(unix)]
pub(crate) mod serve;
pub(crate) mod shell;
pub(crate) mod verify;
