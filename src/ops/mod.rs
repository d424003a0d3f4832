//! Work on disks, one operation a file.

#[cfg(feature = "bulk")]
mod check;
#[cfg(feature = "bulk")]
mod compare;
mod contents;
#[cfg(feature = "bulk")]
mod diff;
#[cfg(feature = "bulk")]
mod extract;
#[cfg(feature = "bulk")]
mod hash;
#[cfg(feature = "bulk")]
pub mod manifest;
pub mod vhd;

#[cfg(feature = "bulk")]
pub use check::{CheckOptions, CheckReport, check, shared_blocks};
#[cfg(feature = "bulk")]
pub use compare::{COMPARE_STEP, Difference, compare, first_difference};
pub use contents::{Contents, Partition, PartitionScheme, PartitionTable, Volume, contents};
#[cfg(feature = "bulk")]
pub use diff::{Change, allocated_changes, content_changes};
#[cfg(all(feature = "bulk", any(unix, windows)))]
pub use extract::extract_to_file;
#[cfg(feature = "bulk")]
pub use extract::{
    ExtractError, ExtractOptions, Extracted, Reflink, Sparse, Target, TargetContent, extract_to_stream,
    extract_to_writer, measure,
};
#[cfg(feature = "bulk")]
pub use hash::{Algorithm, Digest, Part, UnknownAlgorithm, hash};
