use vhdx_mmap::{Disk, OpenOptions, Parents, Segment, Source};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: nobody changes this file, nor its parents, while they are mapped. `Source::read` needs no such promise.
    let source = unsafe { Source::map("disk.avhdx")? };
    let disk = Disk::open(source, &OpenOptions::new().parents(Parents::Beside))?;
    for segment in disk.segments(..) {
        match segment? {
            Segment::Data(bytes) => println!("{} bytes, lent from the mapping", bytes.len()),
            Segment::Zero(length) => println!("{length} zeros, which are nowhere"),
        }
    }
    Ok(())
}
