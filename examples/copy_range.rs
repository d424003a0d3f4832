//! Copies a range of a disk, such as a partition, to a file:
//! `cargo run --example copy_range -- disk.vhdx 1048576 16777216 part.raw`.

#![expect(clippy::print_stdout, reason = "results are printed")]

use std::error::Error;
use std::fs::File;
use std::io;
use std::sync::Arc;

use vhdx_mmap::{Disk, DiskRange, OpenOptions, Parents, Source};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [image, start, length, out] = &arguments[..] else {
        return Err("usage: copy_range IMAGE START LENGTH FILE".into());
    };
    let (start, length): (u64, u64) = (start.parse()?, length.parse()?);
    let disk = Arc::new(Disk::open(Source::open(image)?, &OpenOptions::new().parents(Parents::Beside))?);
    // The range owns its share of the disk: it can go to another thread, or into a struct.
    let part = DiskRange::new(disk, start..start.saturating_add(length))?;
    let copied = io::copy(&mut part.into_reader(), &mut File::create_new(out)?)?;
    println!("{copied} bytes");
    Ok(())
}
