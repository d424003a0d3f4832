//! Damaged file systems are read within bounds, and every answer is the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::files::{Input, let_readers_panic, run};

fuzz_target!(init: let_readers_panic(), |input: Input| run(&input));
