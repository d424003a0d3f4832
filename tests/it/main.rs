//! Tests from outside: the library through its public interface, and the command as its users run it.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that panics fails, as it should"
)]

mod agree;
mod api;
mod bulk;
mod cli;
mod corpus;
mod damaged;
mod faults;
mod guard;
mod hostile;
mod kit;
mod lab;
mod layers;
mod loss;
mod optional;
mod parents;
mod qemu;
mod readme;
mod replay;
mod support;
#[cfg(all(target_os = "linux", feature = "cli"))]
#[allow(dead_code, reason = "tests here hold programs, `tests/bounded` counts what they do")]
mod traced;
mod traps;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only the command is a program to watch"))]
mod watchdog;
