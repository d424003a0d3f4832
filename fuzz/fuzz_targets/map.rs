//! The map of a chain and what has changed in it: both are what a comparison sector by sector finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::map::{Input, run};

fuzz_target!(|input: Input| run(&input));
