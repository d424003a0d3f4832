//! Servers as their clients see them, with disks whose content the image builder knows. The client of the NBD server
//! is the tests' own, and shares no code with it.
#![cfg(target_os = "linux")]
#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::big_endian_bytes,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that panics fails, as it should"
)]

mod client;
mod clients;
mod erofs;
mod fuse;
mod handshake;
mod loss;
mod reads;
mod requests;
mod status;
