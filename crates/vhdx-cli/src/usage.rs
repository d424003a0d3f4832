//! How full file systems are, for people and in sums.

use vhdx_mmap::ops::{DiskLayout, Usage, VolumeDetails};

use crate::size::short;

/// How full a file system is, in words; none if it does not say.
pub(crate) fn text(usage: &Usage) -> Option<String> {
    let used = format!("{} of {} used", short(usage.used?), short(usage.size));
    Some(match usage.reclaimable {
        Some(reclaimable) if reclaimable > 0 => format!("{used} ({} reclaimable)", short(reclaimable)),
        _ => used,
    })
}

/// The file systems of a disk whose usage is known.
pub(crate) fn all(layout: &DiskLayout) -> impl Iterator<Item = &Usage> {
    let partitions = layout.partition_table.iter().flat_map(|table| &table.partitions);
    let details = layout.details.iter().chain(partitions.filter_map(|partition| partition.details.as_ref()));
    details.filter_map(|details: &VolumeDetails| details.usage.as_ref())
}

/// The sum of what the file systems of a disk say; none if no file system does.
pub(crate) fn sum(layout: &DiskLayout, of: impl Fn(&Usage) -> Option<u64>) -> Option<u64> {
    all(layout).filter_map(of).reduce(u64::saturating_add)
}
