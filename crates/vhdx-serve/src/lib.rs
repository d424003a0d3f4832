//! Hyper-V disk images as devices, for programs that read no VHDX: nothing is converted, copied or written.
//!
//! - [`nbd`]: a read-only server of the Network Block Device protocol.
//! - `fuse`: mounts by FUSE, on Linux.
//! - [`tree`]: the files under which disks appear in a mount.
//!
//! The page `docs/device.md` has recipes, limits and the security of each way.

mod export;
#[cfg(target_os = "linux")]
pub mod fuse;
pub mod nbd;
mod observer;
pub mod tree;

pub use export::Export;
pub use observer::Observer;
