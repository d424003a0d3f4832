//! Computes digests of a disk, shows how far it is, and stops after a while:
//! `cargo run --release --example hash_with_progress --features ops -- disk.vhdx`.

#![expect(clippy::print_stdout, reason = "results are printed")]

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use vhdx_mmap::ops::{self, Algorithm};
use vhdx_mmap::{Disk, Input, OpenOptions, Progress, ScanError, ScanOptions, Source, Threads};

/// Counts bytes, and stops the work after `most` of them.
struct Count {
    done: AtomicU64,
    most: u64,
}

impl Progress for Count {
    fn advance(&self, bytes: u64) -> ControlFlow<()> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if done > self.most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: hash_with_progress IMAGE")?;
    let disk = Disk::open(Source::open(path)?, &OpenOptions::new())?;
    let count = Count { done: AtomicU64::new(0), most: 1 << 40 };
    let options = ScanOptions::new().progress(&count);
    // On threads of its own, not on those of the whole program.
    let threads = Threads::new(2)?;
    match threads.run(|| ops::hash(Input::disk(&disk), &[Algorithm::Sha256, Algorithm::Crc32], &options)) {
        Ok(digests) => digests.iter().for_each(|digest| println!("{} {digest}", digest.algorithm())),
        Err(ScanError::Cancelled) => println!("stopped"),
        Err(error) => return Err(error.into()),
    }
    println!("{} of {} bytes", count.done.into_inner(), disk.size());
    Ok(())
}
