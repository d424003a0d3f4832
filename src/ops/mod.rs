//! Work on disks, one operation a file.

#[cfg(feature = "ops")]
mod check;
#[cfg(feature = "ops")]
mod compare;
#[cfg(feature = "ops")]
mod diff;
#[cfg(feature = "ops")]
mod extract;
#[cfg(feature = "ops")]
mod hash;
mod layout;
#[cfg(feature = "ops")]
pub mod manifest;
pub mod vhd;

#[cfg(feature = "ops")]
pub use check::{CheckOptions, CheckReport, check, shared_blocks};
#[cfg(feature = "ops")]
pub use compare::{COMPARE_STEP, Difference, compare, first_difference};
#[cfg(feature = "ops")]
pub use diff::{Change, allocated_changes, content_changes};
#[cfg(all(feature = "ops", any(unix, windows)))]
pub use extract::extract_to_file;
#[cfg(feature = "ops")]
pub use extract::{
    ExtractOptions, Extracted, Reflink, Sparse, Target, TargetContent, extract_to_stream, extract_to_writer, measure,
};
#[cfg(feature = "ops")]
pub use hash::{Algorithm, Digest, Part, UnknownAlgorithm, hash};
pub use layout::{DiskLayout, Partition, PartitionScheme, PartitionTable, Volume, detect};
