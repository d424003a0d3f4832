//! Chains of any shape, and parent locators of any bytes: only a real parent is accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::chain::{Input, run};

fuzz_target!(|input: Input| run(&input));
