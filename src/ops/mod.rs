//! Operations on whole disks.

mod check;
mod compare;
mod diff;
mod extract;
mod hash;
pub mod inventory;
mod layout;
pub mod manifest;
pub mod plan;
mod share;
pub mod vhd;

pub use check::{CheckOptions, CheckReport, PayloadCheck, check, content_warnings, layer_warnings, shared_blocks};
#[cfg(feature = "serde")]
pub(crate) use check::{truncated, zero_blocks};
pub use compare::{COMPARE_STEP, Difference, compare, first_difference};
pub use diff::{Change, allocated_changes, allocated_changes_in, content_changes, content_changes_in};
#[cfg(any(unix, windows))]
pub use extract::extract_to_file;
pub use extract::{
    ExtractOptions, Extracted, Reflink, Sparse, Target, TargetContent, extract_to_stream, extract_to_writer, measure,
};
pub use hash::{Algorithm, Digest, UnknownAlgorithm, hash};
pub use layout::{
    DiskLayout, Partition, PartitionScheme, PartitionTable, Usage, Volume, VolumeDetails, detect, detect_volume,
    detect_volume_in,
};
