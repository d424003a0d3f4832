//! Prints the allocation map of a disk, and what is on it: `cargo run --example map --features ops -- disk.vhdx`.

#![expect(clippy::print_stdout, reason = "results are printed")]

use std::error::Error;

use vhdx_mmap::{Disk, Location, OpenOptions, Parents, Source, ops};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: map IMAGE")?;
    // Reads piece by piece: safe, whatever others do to the file. Nothing here borrows bytes.
    let disk = Disk::open(Source::open(path)?, &OpenOptions::new().parents(Parents::Beside))?;
    for extent in disk.extents(..) {
        let extent = extent?;
        let place = match extent.at {
            Location::File(offset) => format!("layer {} at {offset:#x}", extent.layer),
            Location::Log(_) => format!("log of layer {}", extent.layer),
            _ => "zeros".to_owned(),
        };
        println!("{:#014x} {:#012x} {place}", extent.start, extent.len);
    }
    let layout = ops::detect(&disk)?;
    for partition in layout.partition_table.iter().flat_map(|table| &table.partitions) {
        println!("partition {}: {} bytes at {:#x}", partition.number, partition.len, partition.start);
    }
    if let Some(volume) = layout.volume {
        println!("file system: {volume}");
    }
    Ok(())
}
