//! Work on whole disks, one operation a file. All of it stands on the public interface of the crate.

mod contents;
mod extract;
pub mod vhd;

pub use contents::{Contents, Partition, PartitionScheme, PartitionTable, Volume, contents};
pub use extract::{ExtractError, Extracted, Target, extract_to_file, extract_to_writer, measure};
