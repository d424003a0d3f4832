//! How full the file systems of a disk are.

use std::ops::Range;
use std::sync::Arc;

use vhdx_mmap::ops::{DiskLayout, Usage};
use vhdx_mmap::{Disk, DiskRange};

use crate::error::Result;
use crate::storage::Storage;

/// Adds to the layout of a disk how full each file system is that can be read, or why that is unknown. Journals are
/// replayed in memory, and maps of free space are read: of NTFS and exFAT a bit for each cluster, of FAT the table.
pub fn add_usage(disk: &Arc<Disk>, layout: &mut DiskLayout) {
    for (range, kind, details) in layout.volumes_mut() {
        if !crate::can_read(kind) {
            continue;
        }
        match usage(disk, range) {
            Ok(usage) => details.usage = Some(usage),
            Err(error) => details.usage_error = Some(format!("{error:#}")),
        }
    }
}

fn usage(disk: &Arc<Disk>, range: Range<u64>) -> Result<Usage> {
    // Partitions can claim more than the disk has.
    let end = range.end.min(disk.size());
    let storage = Storage::from(DiskRange::new(Arc::clone(disk), range.start.min(end)..end)?);
    let allocated = allocated(&storage)?;
    let volume = crate::open(storage)?;
    let about = volume.about();
    Ok(Usage::new(about.size, about.used, allocated))
}

/// Returns how much of a storage the image and its parents hold, in bytes.
///
/// # Errors
/// Fails if a part of the tables that say so cannot be read.
pub fn allocated(storage: &Storage) -> Result<u64> {
    let mut allocated = 0_u64;
    for (_, range) in storage.in_disk(0..storage.size()) {
        for extent in storage.disk().extents(range) {
            let extent = extent?;
            if extent.is_data() {
                allocated = allocated.saturating_add(extent.len);
            }
        }
    }
    Ok(allocated)
}
