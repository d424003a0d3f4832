//! Work over whole disks.

#[cfg(feature = "rayon")]
mod par_segments;
#[cfg(feature = "rayon")]
mod pieces;

#[cfg(feature = "ops")]
mod content;
#[cfg(feature = "ops")]
mod error;
#[cfg(feature = "ops")]
mod fetch;
#[cfg(feature = "ops")]
mod options;
#[cfg(feature = "ops")]
mod ordered;
#[cfg(feature = "ops")]
mod plan;
#[cfg(feature = "ops")]
mod progress;
#[cfg(feature = "ops")]
mod release;
#[cfg(feature = "ops")]
mod unordered;

#[cfg(feature = "rayon")]
pub use par_segments::ParSegments;

#[cfg(feature = "ops")]
pub use content::Input;
#[cfg(feature = "ops")]
pub(crate) use content::Origin;
#[cfg(feature = "ops")]
pub use error::{ManifestError, ScanError};
#[cfg(feature = "ops")]
pub(crate) use fetch::contiguous;
#[cfg(feature = "ops")]
pub(crate) use options::Access;
#[cfg(feature = "ops")]
pub use options::{PageCachePolicy, ScanOptions};
#[cfg(feature = "ops")]
pub(crate) use ordered::Consumer;
#[cfg(feature = "ops")]
pub(crate) use plan::UNIT;
#[cfg(feature = "ops")]
pub use progress::{Progress, Uncounted};
#[cfg(feature = "ops")]
pub(crate) use unordered::{Bulk, Done, UnitPieces};
