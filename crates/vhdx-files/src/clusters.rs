//! Clusters of FAT and exFAT: chains in the file allocation table, and the times of their directories.

use vhdx_mmap::ops::Volume as Kind;

use crate::content::Run;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::time::Time;

/// How much of the table is read at once, in bytes, while a chain is followed.
const WINDOW: usize = 4096;

/// Kind of the entries of a file allocation table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// 12 bits: two entries in three bytes.
    Twelve,
    /// 16 bits.
    Sixteen,
    /// 32 bits, of which the lower 28 count.
    TwentyEight,
    /// 32 bits: exFAT.
    ThirtyTwo,
}

impl Width {
    /// The mask of an entry. Values from the mask minus 7 on end a chain, the one below marks a bad cluster.
    const fn mask(self) -> u32 {
        match self {
            Self::Twelve => 0xfff,
            Self::Sixteen => 0xffff,
            Self::TwentyEight => 0xfff_ffff,
            Self::ThirtyTwo => 0xffff_ffff,
        }
    }

    /// Offset of an entry in the table, in bytes.
    fn offset(self, cluster: u32) -> u64 {
        let cluster = u64::from(cluster);
        match self {
            Self::Twelve => cluster.saturating_mul(3) / 2,
            Self::Sixteen => cluster.saturating_mul(2),
            Self::TwentyEight | Self::ThirtyTwo => cluster.saturating_mul(4),
        }
    }
}

/// Clusters of a volume. The first one has the number 2.
#[derive(Clone, Debug)]
pub(crate) struct Clusters {
    pub(crate) kind: Kind,
    pub(crate) device: Device,
    pub(crate) width: Width,
    /// Offset of the active table in the volume, in bytes.
    pub(crate) table: u64,
    /// Offset of the first cluster, in bytes.
    pub(crate) start: u64,
    /// Size of a cluster, in bytes; at least 1.
    pub(crate) size: u64,
    /// Number of clusters.
    pub(crate) count: u32,
}

impl Clusters {
    fn damaged(&self, reason: &str) -> Error {
        Error::damaged(self.kind, reason)
    }

    /// Fills `buffer` from the volume.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.device.fill(offset, buffer).map_err(|error| Error::damaged(self.kind, error))
    }

    /// Returns the offset of a cluster in the volume, in bytes.
    pub(crate) fn offset(&self, cluster: u32) -> Result<u64> {
        let index = cluster.checked_sub(2).filter(|index| *index < self.count);
        let index = index.ok_or_else(|| self.damaged("a cluster outside of the volume is named"))?;
        Ok(self.start.saturating_add(u64::from(index).saturating_mul(self.size)))
    }

    /// Returns the number of the cluster at an offset of the volume, in bytes; none before the first.
    pub(crate) fn at(&self, offset: u64) -> Option<u32> {
        let index = offset.checked_sub(self.start)?.checked_div(self.size)?;
        u32::try_from(index).ok()?.checked_add(2)
    }

    /// Returns the clusters of a chain as runs, at most as many clusters as `most` bytes need.
    pub(crate) fn chain(&self, first: u32, most: u64) -> Result<Vec<Run>> {
        let needed = most.div_ceil(self.size.max(1));
        let (mut runs, mut walk) = (Vec::<Run>::new(), Walk::new(self));
        let (mut next, mut start, mut count) = (Some(first), 0_u64, 0_u64);
        while let Some(cluster) = next.filter(|_| count < needed) {
            if count >= u64::from(self.count) {
                return Err(self.damaged("a chain of clusters leads back to itself"));
            }
            let at = self.offset(cluster)?;
            match runs.last_mut() {
                Some(last) if last.at.map(|begin| begin.saturating_add(last.length)) == Some(at) => {
                    last.length = last.length.saturating_add(self.size);
                }
                _ => runs.push(Run { start, length: self.size, at: Some(at) }),
            }
            start = start.saturating_add(self.size);
            count = count.saturating_add(1);
            next = if count < needed { walk.next(cluster)? } else { None };
        }
        Ok(runs)
    }

    /// Returns clusters that lie one after the other as a run.
    pub(crate) fn contiguous(&self, first: u32, most: u64) -> Result<Vec<Run>> {
        let needed = most.div_ceil(self.size.max(1));
        let last = u32::try_from(needed).ok().and_then(|needed| first.checked_add(needed.saturating_sub(1)));
        self.offset(last.ok_or_else(|| self.damaged("content is larger than the volume"))?)?;
        let at = self.offset(first)?;
        Ok(vec![Run { start: 0, length: needed.saturating_mul(self.size), at: Some(at) }])
    }

    /// Returns the cluster behind another in its chain.
    pub(crate) fn next(&self, cluster: u32) -> Result<Option<u32>> {
        Walk::new(self).next(cluster)
    }

    /// Counts the entries of the table that are not 0: the clusters in use.
    pub(crate) fn used(&self) -> Result<u64> {
        let (mut walk, mut used) = (Walk::new(self), 0_u64);
        for index in 0..self.count {
            let in_use = walk.entry(index.saturating_add(2))? != 0;
            used = used.saturating_add(u64::from(in_use));
        }
        Ok(used)
    }
}

/// Walk through the table, with a piece of it at hand.
struct Walk<'c> {
    clusters: &'c Clusters,
    window: Vec<u8>,
    at: u64,
}

impl<'c> Walk<'c> {
    fn new(clusters: &'c Clusters) -> Self {
        Self { clusters, window: Vec::new(), at: 0 }
    }

    fn entry(&mut self, cluster: u32) -> Result<u32> {
        let width = self.clusters.width;
        let offset = width.offset(cluster);
        let bytes = match width {
            Width::Twelve | Width::Sixteen => {
                let [low, high] = self.bytes(offset)?;
                [low, high, 0, 0]
            }
            Width::TwentyEight | Width::ThirtyTwo => self.bytes(offset)?,
        };
        let value = u32::from_le_bytes(bytes);
        let is_odd_half = width == Width::Twelve && cluster % 2 == 1;
        Ok(if is_odd_half { value >> 4 } else { value & width.mask() })
    }

    fn next(&mut self, cluster: u32) -> Result<Option<u32>> {
        let value = self.entry(cluster)?;
        let end = self.clusters.width.mask().saturating_sub(7);
        match value {
            value if value >= end => Ok(None),
            value if value == end.saturating_sub(1) => Err(self.clusters.damaged("a chain leads to a bad cluster")),
            value => Ok(Some(value)),
        }
    }

    /// `N` bytes of the table.
    fn bytes<const N: usize>(&mut self, offset: u64) -> Result<[u8; N]> {
        if let Some(found) = self.at_hand(offset) {
            return Ok(found);
        }
        // The table ends where clusters begin, and is not read beyond.
        self.at = offset;
        let room = self.clusters.start.saturating_sub(self.clusters.table).saturating_sub(offset);
        let length = usize::try_from(room).unwrap_or(usize::MAX).min(WINDOW);
        self.window.resize(length, 0);
        self.clusters.read(self.clusters.table.saturating_add(offset), &mut self.window)?;
        self.at_hand(offset).ok_or_else(|| self.clusters.damaged("the file allocation table is too short"))
    }

    fn at_hand<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let within = usize::try_from(offset.checked_sub(self.at)?).ok()?;
        self.window.get(within..)?.first_chunk().copied()
    }
}

/// Converts a date and a time of DOS, and hundredths of a second, to a time. Such times have no time zone; UTC is
/// assumed. None if there is no such date.
pub(crate) fn time_of(date: u16, time: u16, hundredths: u8) -> Option<Time> {
    let (year, month, day) = (i64::from(date >> 9).saturating_add(1980), (date >> 5) & 0xf, date & 0x1f);
    if !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let (hour, minute, double) = (i64::from(time >> 11), i64::from((time >> 5) & 0x3f), i64::from(time & 0x1f));
    let days = days_of(year, i64::from(month), i64::from(day));
    let seconds =
        hour.saturating_mul(3600).saturating_add(minute.saturating_mul(60)).saturating_add(double.saturating_mul(2));
    let more = i64::from(hundredths / 100);
    let nanoseconds = u32::from(hundredths % 100).saturating_mul(10_000_000);
    Some(Time { seconds: days.saturating_mul(86_400).saturating_add(seconds).saturating_add(more), nanoseconds })
}

/// Days from the beginning of 1970 to a date after the year 0.
pub(crate) fn days_of(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the day of a leap year is their last.
    let (year, month) =
        if month <= 2 { (year.saturating_sub(1), month.saturating_add(9)) } else { (year, month.saturating_sub(3)) };
    let leap_days = (year / 4).saturating_sub(year / 100).saturating_add(year / 400);
    let days_of_months = month.saturating_mul(153).saturating_add(2) / 5;
    let days = year.saturating_mul(365).saturating_add(leap_days).saturating_add(days_of_months).saturating_add(day);
    // 1 March of the year 0 to 1 January 1970, and days count from 1.
    days.saturating_sub(719_469)
}

#[cfg(test)]
mod tests {
    use super::time_of;

    #[test]
    fn times_of_dos() {
        let date = |year: u16, month: u16, day: u16| ((year - 1980) << 9) | (month << 5) | day;
        let clock = |hour: u16, minute: u16, second: u16| (hour << 11) | (minute << 5) | (second / 2);
        // Seconds by `date -u -d ... +%s`.
        for (date, clock, seconds) in [
            (date(1980, 1, 1), clock(0, 0, 0), 315_532_800),
            (date(2000, 2, 29), clock(12, 34, 56), 951_827_696),
            (date(2026, 11, 28), clock(23, 59, 58), 1_795_910_398),
            (date(2107, 12, 31), clock(0, 0, 0), 4_354_732_800),
        ] {
            assert_eq!(time_of(date, clock, 0).unwrap().seconds, seconds);
        }
        let late = time_of(date(1980, 1, 1), 0, 199).unwrap();
        assert_eq!((late.seconds, late.nanoseconds), (315_532_801, 990_000_000));
        assert_eq!(time_of(0, 0, 0), None);
    }
}
