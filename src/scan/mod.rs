//! Work over whole disks.

#[cfg(feature = "rayon")]
mod par_segments;
#[cfg(feature = "rayon")]
mod pieces;

#[cfg(feature = "bulk")]
mod content;
#[cfg(feature = "bulk")]
mod fetch;
#[cfg(feature = "bulk")]
mod options;
#[cfg(feature = "bulk")]
mod ordered;
#[cfg(feature = "bulk")]
mod plan;
#[cfg(feature = "bulk")]
mod progress;
#[cfg(feature = "bulk")]
mod release;
#[cfg(feature = "bulk")]
mod unordered;

#[cfg(feature = "rayon")]
pub use par_segments::ParSegments;
#[cfg(feature = "rayon")]
pub use pieces::SEGMENT_GRAIN;

#[cfg(feature = "bulk")]
pub use content::Content;
#[cfg(feature = "bulk")]
pub(crate) use content::Origin;
#[cfg(feature = "bulk")]
pub(crate) use fetch::contiguous;
#[cfg(feature = "bulk")]
pub(crate) use options::Access;
#[cfg(feature = "bulk")]
pub use options::{Cache, ScanOptions, Stopped};
#[cfg(feature = "bulk")]
pub(crate) use ordered::Consumer;
#[cfg(feature = "bulk")]
pub use plan::UNIT;
#[cfg(feature = "bulk")]
pub use progress::{Progress, Uncounted};
#[cfg(feature = "bulk")]
pub(crate) use unordered::{Bulk, Done, UnitPieces};
