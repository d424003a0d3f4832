//! Whether a disk reads as the naive reader reads it.

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
            // The library is finer in what of a broken block, or of one with a broken bitmap, it can still read.
            (Ok(_), Err(Fault::Corrupt("payload block past end of file" | "bitmap past end of file"))) => {}
            // And it does not believe a sector bitmap that lies where something else is.
            (Err(error), Ok(_)) if is_misplaced_bitmap(&error) => {}
            (read, expected) => panic!("sector {sector}: {read:?} instead of {expected:x?}"),
        }
    }
}

fn is_misplaced_bitmap(error: &vhdx_mmap::Error) -> bool {
    matches!((error.structure(), error.kind()), (Structure::SectorBitmap(_), ErrorKind::Overlap { .. }))
}

/// The sectors that are worth a look: some at both ends of the disk and of its first blocks, and a few between.
pub(crate) fn some_sectors(disk: &Disk) -> impl Iterator<Item = u64> + use<> {
    let sector_size = u64::from(disk.image().logical_sector_size());
    let sectors = disk.size() / sector_size;
    let block = disk.block_size() / sector_size;
    let about = |place: u64| place.saturating_sub(3)..place.saturating_add(67);
    let blocks = (0..4).flat_map(move |number| about(number * block));
    let between = (0..sectors.min(4 * block)).step_by(113);
    blocks.chain(between).chain(about(sectors)).filter(move |sector| *sector < sectors)
}

/// Asks for everything that can be asked of a chain. Nothing of this may panic, whatever it finds.
pub(crate) fn look_at_everything(chain: &Chain) {
    let disk = &Disk::so_far(&chain);
    let image = disk.image();
    let mut told = format!("{:?}{image:?}", chain.broken().map(ToString::to_string));
    told.extend(disk.warnings().map(|(_, warning)| warning.to_string()));
    told += &format!("{:?}{:?}", image.parent_locator(), image.block_states());
    let blocks = image.payload_blocks();
    for block in [0, 1, 2, blocks / 2, blocks.saturating_sub(1), blocks, u64::MAX] {
        told += &format!("{:?}", disk.block(block).map(|block| block.state()));
    }
    told += &format!("{:?}", ops::detect(disk).is_ok());
    let length: u64 = disk.extents(..).take(5000).map_while(Result::ok).map(|extent| extent.len).sum();
    assert!(length <= disk.size() && !told.is_empty());
    let segments = disk.segments(..).take(5000).map_while(Result::ok);
    let length: u64 = segments.map(|segment| segment.len()).sum();
    assert!(length <= disk.size());
    // A slice is what a read copies.
    for at in [0, 511, 512, disk.size() / 2] {
        let mut found = [0; 700];
        if let (Ok(Some(lent)), Ok(read)) = (disk.slice(at, 700), disk.read_at(&mut found, at)) {
            assert_eq!(lent, &found[..read]);
        }
    }
}

/// Asks for the log of a file.
pub(crate) fn look_at_log(source: vhdx_mmap::Source) {
    let told = match LogReport::read(source) {
        Ok(report) => format!("{report:?}"),
        Err(error) => error.to_string(),
    };
    assert!(!told.is_empty());
}

/// Whether a segment is data or zeros, and how long.
pub(crate) fn nature(segment: &Segment<'_>) -> (bool, u64) {
    (matches!(segment, Segment::Data(_)), segment.len())
}
