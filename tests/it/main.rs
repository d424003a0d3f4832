//! Tests of the library through its public interface.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that panics fails, as it should"
)]

mod agree;
mod api;
mod bulk;
mod corpus;
mod damaged;
mod doors;
mod faults;
mod guard;
mod hostile;
mod inventory;
mod layers;
mod loss;
mod parents;
mod replay;
mod report;
mod traps;

// So that tests use shared code by short paths.
use vhdx_testkit::{self as kit, lab, support, watchdog};
