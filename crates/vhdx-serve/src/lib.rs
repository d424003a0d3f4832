//! Hyper-V disk images as devices, for programs that read no VHDX: nothing is converted, copied or written.
//!
//! - [`nbd`]: a read-only server of the Network Block Device protocol.
//! - `fuse`: mounts by FUSE, on Linux.
//! - `erofs`: metadata with which the Linux kernel mounts disks.
//! - `mount`: mounts of such metadata, without further programs.
//! - [`tree`]: the files under which disks appear in a mount.
//!
//! The page `docs/device.md` has recipes, limits and the security of each way.

#[cfg(unix)]
pub mod erofs;
mod export;
#[cfg(target_os = "linux")]
pub mod fuse;
#[cfg(target_os = "linux")]
pub mod mount;
pub mod nbd;
mod observer;
pub mod tree;

pub use export::Export;
pub use observer::Observer;
