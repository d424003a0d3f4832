//! Read Hyper-V's VHDX and AVHDX disk images: mapped into memory, without copies, and right to the last byte.
//!
//! - **Right or an error.** Every checksum is verified before a field is used, a dirty log is replayed in memory, a chain
//!   of checkpoints is read as one disk. What can't be read is an [`Error`] that says where and why; never silent zeros.
//! - **Read-only.** The file is never written and never locked.
//! - **Zero-copy.** Input is lent from the mapping ([`Segment::Data`]); what is absent is a length ([`Segment::Zero`]).
//!   Nothing is allocated in proportion to the disk, the file or its tables.
//! - **Any input is safe.** No bytes make it panic, loop, or use unbounded memory.
//!
//! # Three levels
//!
//! | level | entry | for whom |
//! |---|---|---|
//! | on-disk structures | [`format`](mod@format) | whoever looks at raw bytes |
//! | one file | [`Image`] | whoever wants to know what a file says of itself |
//! | the disk | [`Disk`] | whoever wants what the guest sees |
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
//!         Segment::Data(bytes) => data += bytes.len(), // lent, not copied
//!         Segment::Zero(_) => {}
//!     }
//! }
//! println!("{} bytes, of which {data} are in files", disk.size());
//! # Ok(())
//! # }
//! ```
//!
//! Further: [`Disk::extents`] for the map, [`Disk::read_at`] and [`Disk::slice`] for random reads, [`Disk::reader`] for
//! [`Read`](std::io::Read) and [`Seek`](std::io::Seek),
#![cfg_attr(feature = "rayon", doc = "[`Disk::par_segments`] for all cores,")]
#![cfg_attr(not(feature = "rayon"), doc = "`Disk::par_segments` for all cores (feature `rayon`),")]
//! [`ops`] for work on whole disks, [`LogReport`] for what is in a log.
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `mmap` | yes | `Source::map` and, on Unix, `guard_mappings` and `guard_is_active`; without it the crate holds no `unsafe` code at all |
//! | `rayon` | yes | `Disk::par_segments`, and every core for bulk work |
//! | `ops` | no | work on whole disks: `Input::scan`, and in `ops` extraction, digests, manifests, comparison |
//! | `serde` | no | `report`: what the command prints as JSON, as types; those about work on whole disks need `ops`, too |
//! | `schema` | no | `report::schemas`: JSON Schema of all reports; brings `ops` and `serde` |
//!
//! The command `vhdx` is a package of its own, `vhdx-cli`.
//!
//! How it is made, and why: [`design`].
#![cfg_attr(
    not(all(feature = "ops", feature = "mmap", feature = "rayon")),
    allow(dead_code, unused_imports, reason = "what optional parts need is there without them, too")
)]

mod checksum;
#[doc = include_str!("design.md")]
pub mod design {}
mod disk;
mod error;
pub mod format;
mod image;
mod num;
pub mod ops;
#[cfg(feature = "serde")]
pub mod report;
mod scan;
mod source;
mod threads;
mod zero;

pub use disk::{
    Block, Chain, Disk, DiskRange, Extents, FoundBy, Layer, Location, Loss, Losses, MAX_PARENTS, OpenOptions,
    ParentFinder, ParentLink, ParentRequest, Parents, Reader, Run, Runs, Segment, Segments, SharedBytes,
};
pub use error::{Candidate, Category, Error, ErrorKind, ParentRejection, Result, Rule, Severity, Structure};
pub use format::PayloadBlockState;
#[cfg(feature = "ops")]
pub use image::Finding;
pub use image::{
    BlockStates, CurrentHeader, EntryContent, EntryStatus, Image, ImageKind, Linkage, LogEntryError, LogPolicy,
    LogReport, LogReportEntry, LogState, MetadataOverrides, ParentLocator, Region, Replay, Strictness, Warning,
};
#[cfg(feature = "rayon")]
pub use scan::ParSegments;
#[cfg(feature = "ops")]
pub use scan::{Input, PageCachePolicy, Progress, ScanError, ScanOptions, Uncounted};
pub use source::{FileId, ReadAt, Source};
#[cfg(all(unix, feature = "mmap"))]
pub use source::{guard_is_active, guard_mappings};
pub use zero::{ZERO_PAGES_LENGTH, is_zero, zero_pages};
