//! Work over a whole disk.

#[cfg(feature = "rayon")]
mod par_segments;
mod pieces;
mod progress;

#[cfg(feature = "rayon")]
pub use par_segments::ParSegments;
pub(crate) use pieces::Pieces;
pub use pieces::SEGMENT_GRAIN;
pub use progress::Progress;
