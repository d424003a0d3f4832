//! A salvage returns what is left of an image, and no more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::salvage::{Input, run};

fuzz_target!(|input: Input| run(&input));
