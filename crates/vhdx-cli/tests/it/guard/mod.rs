//! The command, with images that become shorter, are written to, or whose medium fails while it runs: it says so, and no signal
//! ends it. The faults are real ones.
#![cfg(target_os = "linux")]

mod changed;
mod copies;
mod cut;
mod fuse;
mod torn;
