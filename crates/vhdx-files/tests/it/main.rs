//! File systems made by their own tools and filled by the kernel, read by this crate and compared.
#![cfg(target_os = "linux")]
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that panics fails, as it should"
)]

mod btrfs;
mod damage;
mod erofs;
mod ext;
mod fat;
mod iso;
mod lab;
mod lvm;
mod ntfs;
mod parts;
mod raid;
mod squashfs;
mod state;
mod xfs;
