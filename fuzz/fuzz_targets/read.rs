//! Images with changes in their structures: what opens must read as the naive reader reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::read::{Input, run};

fuzz_target!(|input: Input| run(&input));
