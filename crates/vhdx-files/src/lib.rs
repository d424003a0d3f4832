//! Files inside VHDX disks: file systems of Linux and Windows with one trait, read-only.
//!
//! - **Right or refused.** What a file system holds is read as its own system would read it: a dirty journal is
//!   replayed in memory, holes and what was allocated but never written read as zeros. What cannot be read right is
//!   refused by name.
//! - **Bounded.** Every call ends, and takes memory in proportion to what it returns, whatever the disk holds.
//! - **In place.** Where content lies in the volume as it is, it is read there, and its holes cost nothing.
//!
//! # What is read
//!
//! | file system | reader | times | owners, modes | extended attributes | streams | where content lies |
//! |---|---|---|---|---|---|---|
//! | ext2, ext3, ext4 | `rust-fs-ext4` | ns | yes | yes | | yes |
//! | NTFS | own, `rust-fs-ntfs` | 100 ns, both sets | of WSL | yes | yes | yes |
//! | FAT12, FAT16, FAT32, exFAT | own | 2 s to 10 ms | | | | yes |
//! | XFS | `rust-fs-xfs` | ns | yes | yes | | yes |
//! | Btrfs (experimental) | `rust-fs-btrfs` | ns | yes | yes | | holes |
//! | EROFS (experimental) | `rust-fs-erofs` | ns | yes | yes | | if not compressed |
//! | squashfs (experimental) | `rust-fs-squashfs` | s | yes | yes | | holes |
//! | ISO 9660 with Rock Ridge or Joliet (experimental) | own | s | Rock Ridge | | | yes |
//!
//! Checksums of Btrfs are verified, those of content too, and subvolumes are directories below the top one. A log tree
//! of Btrfs, external logs, realtime files and dirty logs of version 4 of XFS, and volumes on several disks are
//! refused. [`VolumeOptions::ignore_journal`] reads volumes without what their journal holds, and [`About::warnings`]
//! names volumes that were not unmounted, or are marked as damaged. The extended attributes of NTFS include
//! `system.ntfs_acl`, the security descriptor, unless `$Secure` is damaged.
//!
//! [`places`] finds where file systems are: in partitions, in linear logical volumes of LVM2, and in members of RAIDs
//! of level 1 of Linux' md driver.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//!
//! use vhdx_mmap::{Disk, DiskRange, OpenOptions, Source};
//!
//! let source = Source::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/images/hello.vhdx"))?;
//! let disk = Arc::new(Disk::open(source, &OpenOptions::new())?);
//! let volume = vhdx_files::open(DiskRange::whole(disk))?;
//! let file = vhdx_files::lookup(&*volume, b"/hello.txt")?;
//! let content = volume.open(file, None)?;
//! let mut bytes = vec![0; 64];
//! let length = content.read_at(&mut bytes, 0)?;
//! assert!(bytes[..length].starts_with(b"Hello"));
//! # Ok::<(), vhdx_files::Error>(())
//! ```

mod archive;
mod btrfs;
mod changes;
mod clusters;
mod content;
#[cfg(unix)]
mod copy;
mod device;
mod erofs;
mod error;
mod exfat;
mod ext;
mod fat;
mod fields;
mod host_name;
mod iso;
mod locate;
mod lvm;
mod names;
mod ntfs;
mod options;
mod patched;
mod path;
mod place;
mod raid;
#[cfg(feature = "serde")]
pub mod report;
mod squashfs;
mod storage;
mod time;
mod usage;
mod volume;
mod walk;
mod xfs;

use vhdx_mmap::ops::Volume as Kind;

pub use archive::write_tar;
pub use changes::{ChangeKind, FileChange, changes};
pub use content::{Content, Run};
#[cfg(unix)]
pub use copy::{Copied, CopyEvent, CopyOptions, copy};
pub use device::is_panic_caught;
pub use error::{Error, Result};
pub use host_name::host_name;
pub use locate::{Owner, locate};
pub use options::{VolumeOptions, VolumeWarning};
pub use path::{lookup, lookup_link};
pub use place::{Place, places};
pub use storage::Storage;
pub use time::Time;
pub use usage::{add_usage, allocated};
pub use volume::{About, Attribute, Entry, FileKind, Metadata, Node, Stream, Times, Volume};
pub use walk::{Found, Named, Unread, Walk};

use device::Device;

/// Returns whether files of a volume of this kind can be read.
#[must_use]
pub const fn can_read(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Ext2
            | Kind::Ext3
            | Kind::Ext4
            | Kind::Ntfs
            | Kind::Fat
            | Kind::Fat32
            | Kind::ExFat
            | Kind::Xfs
            | Kind::Btrfs
            | Kind::Erofs
            | Kind::Squashfs
            | Kind::Iso9660
    )
}

/// Opens the file system on a disk, a partition ([`DiskRange`](vhdx_mmap::DiskRange)) or a logical volume.
///
/// # Errors
/// Fails if the disk holds no such file system or cannot be read, and if the file system cannot be read right.
pub fn open(storage: impl Into<Storage>) -> Result<Box<dyn Volume>> {
    open_with(storage, &VolumeOptions::new())
}

/// Opens the file system on a disk, a partition or a logical volume, with options.
///
/// # Errors
/// Those of [`open`].
pub fn open_with(storage: impl Into<Storage>, options: &VolumeOptions) -> Result<Box<dyn Volume>> {
    let storage = storage.into();
    let (kind, details) = place::detect(&storage)?.ok_or(Error::NoFileSystem { found: None })?;
    let device = Device::new(storage);
    let about = About::new(kind, details);
    Ok(match kind {
        Kind::Ext2 | Kind::Ext3 | Kind::Ext4 => Box::new(ext::Ext::open(device, about, options)?),
        Kind::Ntfs => Box::new(ntfs::Ntfs::open(device, about, options)?),
        Kind::Fat | Kind::Fat32 => Box::new(fat::Fat::open(device, about)?),
        Kind::ExFat => Box::new(exfat::ExFat::open(device, about)?),
        Kind::Xfs => Box::new(xfs::Xfs::open(device, about, options)?),
        Kind::Btrfs => Box::new(btrfs::Btrfs::open(device, about, options)?),
        Kind::Erofs => Box::new(erofs::Erofs::open(device, about)?),
        Kind::Squashfs => Box::new(squashfs::Squashfs::open(device, about)?),
        Kind::Iso9660 => Box::new(iso::Iso::open(device, about)?),
        found => return Err(Error::NoFileSystem { found: Some(found) }),
    })
}
