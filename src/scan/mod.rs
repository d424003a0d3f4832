//! Work over whole disks.

mod access;
mod error;
mod fetch;
mod input;
mod options;
mod ordered;
mod plan;
mod progress;
mod release;
mod unordered;

pub use error::{ManifestError, ScanError};
pub(crate) use fetch::contiguous;
pub use input::Input;
pub(crate) use input::Origin;
pub(crate) use options::Access;
pub use options::{PageCachePolicy, ScanOptions};
pub(crate) use ordered::Consumer;
pub(crate) use plan::UNIT;
pub use progress::{Progress, Uncounted};
pub(crate) use unordered::{Bulk, Done, UnitBytes};
