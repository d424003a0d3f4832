//! A fast, read-only reader for Hyper-V's VHDX and AVHDX disk images. It returns correct bytes, or an error that names
//! the structure and file offset.
//!
//! - **Correct bytes or an error.** Every checksum is verified before a field is used, a dirty log is replayed in
//!   memory, and a chain of checkpoints is read as one disk. Unreadable data is an [`Error`] with location and cause,
//!   never silent zeros.
//! - **Read-only.** The file is never written or locked.
//! - **Zero-copy.** Content is borrowed from the mapping ([`Segment::Data`]); unallocated space is a length
//!   ([`Segment::Zero`]). No allocation grows with the disk, the file or its tables.
//! - **Safe for any input.** No file makes the crate panic, loop, or use unlimited memory.
//!
//! # Three levels
//!
//! | level | entry point | contents |
//! |---|---|---|
//! | on-disk structures | [`format`](mod@format) | raw fields |
//! | one file | [`Image`] | headers, log, metadata, block states |
//! | the disk | [`Disk`] | what the guest sees |
//!
//! # Example
//!
//! ```no_run
//! use vhdx_mmap::{Disk, OpenOptions, Parents, Segment, Source};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let source = Source::load("disk.avhdx")?; // or, mapped: unsafe { Source::map("disk.avhdx")? }
//! let disk = Disk::open(source, &OpenOptions::new().parents(Parents::Beside))?;
//! let mut data = 0;
//! for segment in disk.segments(..) {
//!     match segment? {
//!         Segment::Data(bytes) => data += bytes.len(), // borrowed, not copied
//!         Segment::Zero(_) => {}
//!     }
//! }
//! println!("{} bytes, of which {data} are in files", disk.size());
//! # Ok(())
//! # }
//! ```
//!
//! See also: [`Disk::extents`] for the map, [`Disk::read_at`] and [`Disk::slice`] for random reads, [`Disk::reader`]
//! for [`Read`](std::io::Read) and [`Seek`](std::io::Seek),
#![cfg_attr(feature = "rayon", doc = "[`Disk::par_segments`] for all cores,")]
#![cfg_attr(not(feature = "rayon"), doc = "`Disk::par_segments` for all cores (feature `rayon`),")]
#![cfg_attr(feature = "ops", doc = "[`ops`] for work on whole disks,")]
#![cfg_attr(not(feature = "ops"), doc = "`ops` for work on whole disks (feature `ops`),")]
//! [`LogReport`] for the entries of a log.
//!
//! # Features
//!
//! | feature | default | contents |
//! |---|---|---|
//! | `mmap` | yes | `Source::map`; on Unix `guard_mappings` and `guard_is_active`. All `unsafe` code. |
//! | `rayon` | yes | `Disk::par_segments`, and all cores for work on whole disks |
//! | `ops` | no | work on whole disks: `Input::scan`; extraction, digests, manifests, comparison |
//!
//! The command `vhdx` is a separate package, `vhdx-cli`.
//!
//! [`design`] describes the implementation, and the reasons for it.
#![cfg_attr(
    not(all(feature = "ops", feature = "mmap", feature = "rayon")),
    allow(dead_code, unused_imports, reason = "code that only optional parts need is compiled without them, too")
)]

#[cfg(feature = "ops")]
mod check;
mod checksum;
#[doc = include_str!("design.md")]
pub mod design {}
mod disk;
mod error;
pub mod format;
mod image;
mod num;
#[cfg(feature = "ops")]
pub mod ops;
#[cfg(feature = "ops")]
mod scan;
mod source;
mod threads;
mod zero;

#[cfg(feature = "ops")]
pub use check::Finding;
#[cfg(feature = "rayon")]
pub use disk::ParSegments;
pub use disk::{
    Block, Chain, ChainFingerprint, Disk, DiskRange, Extents, FoundBy, Layer, LayerFingerprint, Location, Loss, Losses,
    MAX_PARENTS, OpenOptions, ParentFinder, ParentLink, ParentRequest, Parents, Reader, Run, Runs, Segment, Segments,
    SharedBytes,
};
pub use error::{Candidate, Category, Error, ErrorKind, ParentRejection, Result, Rule, Severity, Structure};
pub use format::PayloadBlockState;
pub use image::{
    BlockStates, CurrentHeader, EntryContent, EntryStatus, Image, ImageKind, Linkage, LogEntryError, LogPolicy,
    LogReport, LogReportEntry, LogState, MetadataOverrides, ParentLocator, Region, Replay, Strictness, Warning,
};
#[cfg(feature = "ops")]
pub use scan::{Input, PageCachePolicy, Progress, ScanError, ScanOptions, Uncounted};
pub use source::{FileId, ReadAt, Source};
#[cfg(all(unix, feature = "mmap"))]
pub use source::{guard_is_active, guard_mappings};
#[cfg(feature = "rayon")]
pub use threads::Threads;
pub use zero::{ZERO_PAGES_LENGTH, is_zero, zero_pages};
