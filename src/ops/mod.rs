//! Work on whole disks, one operation a file.

mod contents;
mod extract;
pub mod vhd;

pub use contents::{Contents, Partition, PartitionScheme, PartitionTable, Volume, contents};
#[cfg(any(unix, windows))]
pub use extract::extract_to_file;
pub use extract::{ExtractError, Extracted, TargetContent, extract_to_writer, measure};
