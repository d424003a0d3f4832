//! Logs of any entries: what a replay makes of a file is what a plain vector of bytes is after the same writes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::replay::{Input, run};

fuzz_target!(|input: Input| run(&input));
