//! Every operation over a chain of which a file becomes shorter at some moment returns an error, or correct content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::loss::{Input, run};

fuzz_target!(|input: Input| run(&input));
