//! What the fuzz targets do with an input, and what they share.
//!
//! It is a library, and not in the targets, so that `cargo test` can go through the inputs that are kept, without the fuzzer
//! and its compiler.

pub mod chain;
pub mod check;
pub mod loss;
pub mod map;
pub mod open;
pub mod read;
pub mod replay;
pub mod salvage;

mod bases;
mod change;
mod damage;
mod judge;
mod scratch;

// The test kit of the library: it makes the images, and has the naive reader.
use vhdx_testkit as kit;
