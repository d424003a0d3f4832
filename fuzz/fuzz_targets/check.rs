//! A check finds what keeps an image from being read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::check::{Input, run};

fuzz_target!(|input: Input| run(&input));
