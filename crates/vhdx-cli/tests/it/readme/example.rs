use vhdx_mmap::{Disk, OpenOptions, Parents, Segment, Source};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: no program changes this file or its parents while they are mapped.
    let source = unsafe { Source::map("disk.avhdx")? };
    let disk = Disk::open(source, &OpenOptions::new().parents(Parents::Beside))?;
    for segment in disk.segments(..) {
        match segment? {
            Segment::Data(bytes) => println!("{} bytes, borrowed from the mapping", bytes.len()),
            Segment::Zero(length) => println!("{length} zeros"),
        }
    }
    Ok(())
}
