//! Mounts, and the NBD server as its clients see it: a client of the tests' own, which shares no code with the server,
//! asks for disks whose content the image builder knows.
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
mod handshake;
mod loss;
mod reads;
mod requests;
mod status;
