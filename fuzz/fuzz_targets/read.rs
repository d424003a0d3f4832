//! Images with changes in their structures: an image that opens reads as with the naive reader.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::read::{Input, run};

fuzz_target!(|input: Input| run(&input));
