//! Tests from outside: the command as its users run it.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that panics fails, as it should"
)]

mod cli;
#[cfg(unix)]
mod corpus;
mod damaged;
mod guard;
mod qemu;
mod readme;
mod schema;
mod support;

// Aliases, so that tests can use shared modules like their own.
#[cfg(target_os = "linux")]
use vhdx_testkit::traced;
#[cfg(unix)]
use vhdx_testkit::{self as kit, device, lab};
