//! Comparison of a disk with the naive reader.

use vhdx_mmap::{Chain, Disk, ErrorKind, LogReport, Segment, Structure, ops};

use crate::kit::oracle::{Fault, Oracle};

/// Compares these sectors.
pub(crate) fn assert_same(disk: &Disk, oracle: &Oracle<'_>, sectors: impl IntoIterator<Item = u64>) {
    assert_eq!(disk.size(), oracle.size());
    let sector_size = oracle.sector_size();
    let mut found = vec![0; sector_size as usize];
    for sector in sectors {
        let at = sector * sector_size;
        found.fill(0xA5);
        let read = disk.read_at(&mut found, at);
        match (read, oracle.read(at, sector_size as usize)) {
            (Ok(length), Ok(expected)) => assert_eq!(found[..length], expected[..], "sector {sector}"),
            (Err(_), Err(_)) => {}
            // Of a damaged block, or of one with a damaged bitmap, the library can read more.
            (Ok(_), Err(Fault::Corrupt("payload block past end of file" | "bitmap past end of file"))) => {}
            // The library does not believe a sector bitmap that overlaps another structure.
            (Err(error), Ok(_)) if is_misplaced_bitmap(&error) => {}
            (read, expected) => panic!("sector {sector}: {read:?} instead of {expected:x?}"),
        }
    }
}

fn is_misplaced_bitmap(error: &vhdx_mmap::Error) -> bool {
    matches!((error.structure(), error.kind()), (Structure::SectorBitmap(_), ErrorKind::Overlap { .. }))
}

/// Returns the interesting sectors: some at both ends of the disk and of its first blocks, and a few in between.
pub(crate) fn some_sectors(disk: &Disk) -> impl Iterator<Item = u64> + use<> {
    let sector_size = u64::from(disk.image().logical_sector_size());
    let sectors = disk.size() / sector_size;
    let block = disk.block_size() / sector_size;
    let about = |place: u64| place.saturating_sub(3)..place.saturating_add(67);
    let blocks = (0..4).flat_map(move |number| about(number * block));
    let between = (0..sectors.min(4 * block)).step_by(113);
    blocks.chain(between).chain(about(sectors)).filter(move |sector| *sector < sectors)
}

/// Calls every query of a chain. None of them may panic, whatever the chain is.
pub(crate) fn look_at_everything(chain: &Chain) {
    let disk = &Disk::so_far(chain);
    let image = disk.image();
    let mut output = format!("{:?}{image:?}", chain.broken().map(ToString::to_string));
    output.extend(disk.warnings().map(|(_, warning)| warning.to_string()));
    output += &format!("{:?}{:?}", image.parent_locator(), image.block_states());
    let blocks = image.payload_blocks();
    for block in [0, 1, 2, blocks / 2, blocks.saturating_sub(1), blocks, u64::MAX] {
        output += &format!("{:?}", disk.block(block).map(|block| block.state()));
    }
    output += &format!("{:?}", ops::detect(disk).is_ok());
    let length: u64 = disk.extents(..).take(5000).map_while(Result::ok).map(|extent| extent.len).sum();
    assert!(length <= disk.size() && !output.is_empty());
    let segments = disk.segments(..).take(5000).map_while(Result::ok);
    let length: u64 = segments.map(|segment| segment.len()).sum();
    assert!(length <= disk.size());
    // A slice equals a copy.
    for at in [0, 511, 512, disk.size() / 2] {
        let mut found = [0; 700];
        if let (Ok(Some(borrowed)), Ok(read)) = (disk.slice(at, 700), disk.read_at(&mut found, at)) {
            assert_eq!(borrowed, &found[..read]);
        }
    }
}

/// Reads the log of a file.
pub(crate) fn look_at_log(source: vhdx_mmap::Source) {
    let output = match LogReport::read(source) {
        Ok(report) => format!("{report:?}"),
        Err(error) => error.to_string(),
    };
    assert!(!output.is_empty());
}

/// Returns whether a segment is data or zeros, and its length.
pub(crate) fn nature(segment: &Segment<'_>) -> (bool, u64) {
    (matches!(segment, Segment::Data(_)), segment.len())
}
