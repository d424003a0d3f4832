//! Opens a checkpoint whose parents lie somewhere else, by a search of one's own:
//! `cargo run --example parents_by_closure -- disk.avhdx /archive`.

#![expect(clippy::print_stdout, reason = "results are printed")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use vhdx_mmap::{Disk, Image, OpenOptions, ParentRequest, Parents, Source};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(image), Some(folder)) = (arguments.next(), arguments.next().map(PathBuf::from)) else {
        return Err("usage: parents_by_closure IMAGE FOLDER".into());
    };
    // The file whose headers have the identity that the child stores, whatever its name. The library verifies it again.
    let find = move |request: &ParentRequest<'_>| {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(source) = Source::open(entry.path()) else { continue };
            let Ok(header) = Image::identity(&source) else { continue };
            if request.locator.linkage_of(header.data_write_guid).is_some() {
                return Ok(Some(source));
            }
        }
        Ok(None)
    };
    let disk = Disk::open(Source::open(image)?, &OpenOptions::new().parents(Parents::With(Arc::new(find))))?;
    for (number, layer) in disk.layers().iter().enumerate() {
        let path = layer.image().path().map_or("-".into(), |path| path.to_string_lossy());
        println!("layer {number}: {} {path}", layer.image().kind());
    }
    Ok(())
}
