//! The map of a chain and its changes: both equal the result of a comparison sector by sector.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::map::{Input, run};

fuzz_target!(|input: Input| run(&input));
