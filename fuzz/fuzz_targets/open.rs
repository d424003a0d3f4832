//! Headers, region tables and metadata of any content: the library opens what the naive reader opens, and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::open::{Input, run};

fuzz_target!(|input: Input| run(&input));
