//! The NBD server with clients that send anything: each connection ends, and content is that of the disk.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhdx_mmap_fuzz::nbd::{Input, run};

fuzz_target!(|input: Input| run(&input));
