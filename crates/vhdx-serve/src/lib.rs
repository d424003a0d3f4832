//! Hyper-V disk images as devices, for programs that read no VHDX: nothing is converted, copied or written.
//!
//! - [`nbd`]: a read-only server of the Network Block Device protocol.
//!
//! The page `docs/device.md` has recipes, limits and the security of each way.

pub mod nbd;
