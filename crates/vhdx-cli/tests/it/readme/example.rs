use vhdx_mmap::{Disk, OpenOptions, Parents, Segment, Source};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: no program changes this file while it is mapped.
    let source = unsafe { Source::map("disk.avhdx")? };
    // SAFETY: nor its parents.
    let options = unsafe { OpenOptions::new().parents(Parents::Beside).map_parents() };
    let disk = Disk::open(source, &options)?;
    for segment in disk.segments(..) {
        match segment? {
            Segment::Data(bytes) => println!("{} bytes, borrowed from the mapping", bytes.len()),
            Segment::Zero(length) => println!("{length} zeros"),
        }
    }
    Ok(())
}
