//! Logs of any entries: a file after a replay equals a plain vector of bytes after the same writes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::replay::{Input, run};

fuzz_target!(|input: Input| run(&input));
