//! Searches a whole disk for some bytes, on all cores, without copying it:
//! `cargo run --release --example search -- disk.vhdx "some text"`.

#![expect(unsafe_code, reason = "mapping a file is a promise about the file")]
#![expect(clippy::print_stdout, reason = "results are printed")]

use std::error::Error;

use rayon::iter::ParallelIterator;
use vhdx_mmap::{Disk, OpenOptions, Segment, Source};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(image), Some(wanted)) = (arguments.next(), arguments.next()) else {
        return Err("usage: search IMAGE TEXT".into());
    };
    // A file that becomes shorter under the mapping is an error then, and no signal.
    #[cfg(unix)]
    vhdx_mmap::guard_mappings()?;
    // SAFETY: no program changes this file while this one runs.
    let source = unsafe { Source::map(image)? };
    let disk = Disk::open(source, &OpenOptions::new())?;
    let wanted = wanted.as_bytes();
    let find = |(start, segment): (u64, Segment<'_>)| match segment {
        Segment::Data(bytes) => {
            let found = bytes.windows(wanted.len().max(1)).enumerate().filter(|(_, window)| *window == wanted);
            found.filter_map(|(at, _)| start.checked_add(u64::try_from(at).ok()?)).collect::<Vec<u64>>()
        }
        Segment::Zero(_) => Vec::new(),
    };
    let found: Vec<Vec<u64>> = disk.par_segments(..).map(|piece| piece.map(find)).collect::<Result<_, _>>()?;
    // Only now it is certain that all of them were bytes of the file.
    disk.check_lost(..)?;
    for at in found.into_iter().flatten() {
        println!("{at:#x}");
    }
    Ok(())
}
