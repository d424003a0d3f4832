//! The command, with images that are truncated, written to, or on a failing drive while it runs: it reports that, and
//! no signal ends it. The faults are real.
#![cfg(target_os = "linux")]

mod changed;
mod copies;
mod cut;
mod fuse;
mod torn;
