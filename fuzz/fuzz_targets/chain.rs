//! Chains of any shape, and parent locators of any bytes: what is taken for a parent is one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::chain::{Input, run};

fuzz_target!(|input: Input| run(&input));
