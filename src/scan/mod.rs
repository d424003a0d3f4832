//! Work over whole disks.

#[cfg(feature = "rayon")]
mod par_segments;
#[cfg(feature = "rayon")]
mod pieces;

#[cfg(feature = "bulk")]
mod behind;
#[cfg(feature = "bulk")]
mod content;
#[cfg(feature = "bulk")]
mod pipeline;
#[cfg(feature = "bulk")]
mod plan;
#[cfg(feature = "bulk")]
mod progress;
#[cfg(feature = "bulk")]
mod run;
#[cfg(feature = "bulk")]
mod worker;

#[cfg(feature = "rayon")]
pub use par_segments::ParSegments;
#[cfg(feature = "rayon")]
pub use pieces::SEGMENT_GRAIN;

#[cfg(feature = "bulk")]
pub use content::Content;
#[cfg(feature = "bulk")]
pub(crate) use pipeline::Consumer;
#[cfg(feature = "bulk")]
pub use plan::UNIT;
#[cfg(feature = "bulk")]
pub use progress::{Progress, Uncounted};
#[cfg(feature = "bulk")]
pub(crate) use run::{Bulk, Done, UnitPieces};
#[cfg(feature = "bulk")]
pub use run::{Cache, ScanOptions, Stopped};
#[cfg(feature = "bulk")]
pub(crate) use worker::{Access, contiguous};
