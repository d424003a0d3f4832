//! Whether the log of an XFS file system has changes, without a replay.
//!
//! The log is a ring of sectors, and each sector begins with the number of its cycle, or belongs to the header of a
//! record. The head is where the number changes. In a log without changes, the last record before the head is the one
//! that an unmount writes. A binary search for the head and a few sectors before it are all that is read.

use crate::error::Result;

use super::super::area::{Area, Fields};

const SECTOR: u64 = 512;
const RECORD: u32 = 0xfeed_babe;
/// Flag of the only operation in the record of an unmount.
const UNMOUNT: u8 = 0x20;
/// Sectors of the longest record, and of its header.
const LONGEST_RECORD: u64 = 520;
/// Number of sectors that are read at a time in the search for the last record.
const STEP: u64 = 8;

/// Returns whether the log has changes. Returns `None` if the log is elsewhere, or is not a log.
pub(super) fn is_dirty(area: &Area<'_>, superblock: &Fields) -> Result<Option<bool>> {
    let Some(log) = Log::of(area, superblock) else { return Ok(None) };
    let (Some(first), Some(last)) = (log.cycle(0)?, log.cycle(log.sectors.saturating_sub(1))?) else {
        return Ok(None);
    };
    if first == 0 {
        return Ok(None);
    }
    // The first sector of another cycle than the first one, or the end.
    let (mut low, mut high) = (0, log.sectors);
    if first != last {
        while high.saturating_sub(low) > 1 {
            let middle = low.midpoint(high);
            let Some(cycle) = log.cycle(middle)? else { return Ok(None) };
            if cycle == first { low = middle } else { high = middle }
        }
    }
    log.ends_with_unmount(high).map(|clean| clean.map(|clean| !clean))
}

struct Log<'a, 'd> {
    area: &'a Area<'d>,
    start: u64,
    sectors: u64,
}

impl<'a, 'd> Log<'a, 'd> {
    fn of(area: &'a Area<'d>, superblock: &Fields) -> Option<Self> {
        let block_size = u64::from(superblock.be32(4));
        let (start, length) = (superblock.be64(48), u64::from(superblock.be32(96)));
        // The number of a block has that of its allocation group in its high bits.
        let shift = u32::from(superblock.byte(124));
        let group = start.checked_shr(shift)?;
        let within = start.checked_sub(group.checked_shl(shift)?)?;
        let block = group.checked_mul(u64::from(superblock.be32(84)))?.checked_add(within)?;
        // An external log has no start.
        let is_valid = (512..=65536).contains(&block_size) && block_size.is_power_of_two() && start > 0 && length > 0;
        let log = Self {
            area,
            start: block.checked_mul(block_size).filter(|_| is_valid)?,
            sectors: length.checked_mul(block_size)?.checked_div(SECTOR)?,
        };
        let end = log.start.checked_add(log.sectors.checked_mul(SECTOR)?)?;
        (end <= area.size()).then_some(log)
    }

    /// Returns up to `count` sectors from a sector on, within the log.
    fn read(&self, sector: u64, count: u64) -> Result<Fields> {
        let count = count.min(self.sectors.saturating_sub(sector));
        let offset = self.start.saturating_add(sector.saturating_mul(SECTOR));
        Fields::read(self.area, offset, count.saturating_mul(SECTOR))
    }

    /// Returns the number of the cycle in which a sector was written.
    fn cycle(&self, sector: u64) -> Result<Option<u32>> {
        if sector >= self.sectors {
            return Ok(None);
        }
        let head = self.read(sector, 1)?;
        Ok(Some(if head.be32(0) == RECORD { head.be32(4) } else { head.be32(0) }))
    }

    /// Returns whether the last record before a sector is that of an unmount. Returns `None` if there is no record.
    fn ends_with_unmount(&self, head: u64) -> Result<Option<bool>> {
        let lowest = head.saturating_sub(LONGEST_RECORD);
        let mut end = head;
        while end > lowest {
            let start = end.saturating_sub(STEP).max(lowest);
            let sectors = self.read(start, end.saturating_sub(start))?;
            for sector in (start..end).rev() {
                let at = usize::try_from(sector.saturating_sub(start).saturating_mul(SECTOR)).unwrap_or(usize::MAX);
                if sectors.be32(at) == RECORD {
                    return self.is_unmount(sector, head).map(Some);
                }
            }
            end = start;
        }
        Ok(None)
    }

    /// Returns whether the record at `sector` is that of an unmount, and ends at `head`.
    fn is_unmount(&self, sector: u64, head: u64) -> Result<bool> {
        let header = self.read(sector, 1)?;
        let (version, length, operations) = (header.be32(8), u64::from(header.be32(12)), header.be32(40));
        // Version 2 has a sector of header for each 32 KiB that a record can have.
        let headers = if version & 2 != 0 { u64::from(header.be32(320)).div_ceil(32 << 10).max(1) } else { 1 };
        let body = sector.saturating_add(headers);
        let end = body.saturating_add(length.div_ceil(SECTOR));
        Ok(operations == 1 && end == head && self.read(body, 1)?.byte(9) & UNMOUNT != 0)
    }
}
