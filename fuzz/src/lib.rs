//! The work of the fuzz targets on an input, and their shared code.
//!
//! This is a library, not part of the targets, so that `cargo test` can run the stored inputs, without the fuzzer and
//! its compiler.

pub mod chain;
pub mod check;
pub mod files;
pub mod loss;
pub mod map;
pub mod nbd;
pub mod open;
pub mod read;
pub mod replay;
pub mod salvage;

mod bases;
mod change;
mod damage;
mod heap;
mod judge;
mod packed;
mod scratch;

// The test kit of the library: it makes the images, and contains the naive reader.
use vhdx_testkit as kit;
