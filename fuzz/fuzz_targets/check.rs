//! A check finds every problem that prevents reading an image.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::check::{Input, run};

fuzz_target!(|input: Input| run(&input));
