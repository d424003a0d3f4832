//! A fast, read-only reader of Hyper-V's VHDX and AVHDX disk images. It returns correct bytes, or an error that names
//! the structure and the file offset.
//!
//! - **Correct or an error.** Every checksum is verified before a field is used, a dirty log is replayed in memory, a
//!   chain of checkpoints is read as one disk. There are no silent zeros.
//! - **Read-only.** Files are never written and never locked.
//! - **Zero-copy.** Data is borrowed from the mapping ([`Segment::Data`]), unallocated space is a length
//!   ([`Segment::Zero`]). Nothing is allocated in proportion to the disk, the file or its tables.
//! - **Any input is safe.** No bytes make it panic, loop, or use unbounded memory.
//!
//! # Levels
//!
//! | level | entry | for |
//! |---|---|---|
//! | on-disk structures | [`format`](mod@format) | raw bytes |
//! | the bytes of one file | [`Source`] | files, mappings, readers of your own |
//! | one image | [`Image`] | what a file says about itself |
//! | the disk | [`Disk`] | what the guest sees |
//!
//! # Example
//!
//! ```
//! use vhdx_mmap::{Disk, OpenOptions, Parents, Source};
//!
//! let source = Source::open("tests/images/hello.vhdx")?;
//! let disk = Disk::open(source, &OpenOptions::new().parents(Parents::Beside))?;
//! assert_eq!(disk.size(), 16 << 20);
//! // The magic number of the ext4 file system on this disk.
//! let mut magic = [0; 2];
//! disk.read_at(&mut magic, 1024 + 56)?;
//! assert_eq!(magic, [0x53, 0xef]);
//! let mut data = 0;
//! for extent in disk.extents(..) {
//!     let extent = extent?;
//!     if extent.is_data() {
//!         data += extent.len;
//!     }
//! }
//! assert!(data < disk.size(), "the rest is unallocated");
//! # Ok::<(), vhdx_mmap::Error>(())
//! ```
//!
#![cfg_attr(
    all(feature = "mmap", feature = "ops", feature = "rayon", feature = "serde"),
    doc = "The [`guide`] shows every way in and out: doors, borrowing, whole disks, threads, errors, the guard."
)]
#![cfg_attr(
    not(all(feature = "mmap", feature = "ops", feature = "rayon", feature = "serde")),
    doc = "The page `docs/library.md` shows every way in and out: doors, borrowing, whole disks, threads, errors."
)]
//! The [`design`] page says how it is made, and why.
//!
//! # Features
//!
//! | feature | default | for |
//! |---|---|---|
//! | `mmap` | yes | `Source::map` and, on Unix, `guard_mappings`; without it the crate contains no `unsafe` code |
//! | `rayon` | yes | `Disk::par_segments`, `Threads`, and all cores for work on whole disks |
//! | `ops` | no | work on whole disks: `Input::scan`, and in `ops` extraction, digests, manifests, comparison, checks |
//! | `serde` | no | `report`: the JSON of the command as types; those of `info` and of whole disks need `ops`, too |
//! | `schema` | no | `report::schemas`: JSON Schema of all reports; enables `ops` and `serde` |
//!
//! The command `vhdx` is a separate package, `vhdx-cli`.
#![cfg_attr(
    not(all(feature = "ops", feature = "mmap", feature = "rayon")),
    allow(dead_code, unused_imports, reason = "code that only optional parts need is compiled without them, too")
)]

#[cfg(feature = "ops")]
mod check;
mod checksum;
#[doc = include_str!("design.md")]
pub mod design {}
#[cfg(all(feature = "mmap", feature = "ops", feature = "rayon", feature = "serde"))]
#[doc = include_str!("../docs/library.md")]
pub mod guide {}
mod disk;
mod error;
pub mod format;
mod image;
mod num;
#[cfg(feature = "ops")]
pub mod ops;
#[cfg(feature = "serde")]
pub mod report;
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
pub use error::{
    Candidate, Category, Error, ErrorKind, FormatGroup, OtherFormat, ParentRejection, Result, Rule, Severity, Structure,
};
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
/// Identities in images are of this type, of the crate `uuid`.
pub use uuid::Uuid;
pub use zero::{ZERO_PAGES_LEN, is_zero, zero_pages};
