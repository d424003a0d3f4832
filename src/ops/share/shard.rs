//! Shards: division of the work on a disk among machines that share nothing but the image.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::error::Error;

/// One of several parts of the work, for several machines: `index` of `count`, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shard {
    index: u32,
    count: u32,
}

/// The fields of a [`Shard`], not validated.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Unchecked {
    index: u32,
    count: u32,
}

impl TryFrom<Unchecked> for Shard {
    type Error = NotAShard;

    fn try_from(found: Unchecked) -> Result<Self, NotAShard> {
        Self::new(found.index, found.count).ok_or(NotAShard)
    }
}

/// Largest number of shards.
pub(in crate::ops) const MOST_SHARDS: u32 = 1 << 20;

impl Shard {
    /// The only shard.
    pub(in crate::ops) const ONLY: Self = Self { index: 1, count: 1 };

    /// Makes shard `index` of `count`. Returns `None` unless 1 ≤ `index` ≤ `count` ≤ 2^20.
    #[must_use]
    pub const fn new(index: u32, count: u32) -> Option<Self> {
        if index >= 1 && index <= count && count <= MOST_SHARDS { Some(Self { index, count }) } else { None }
    }

    /// Returns the number of the shard, from 1.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Returns the number of shards.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.count
    }

    /// Returns the range of the disk of this shard: all shards together cover the disk, and each has about the same
    /// amount of data. The result depends only on the map of the disk, so it is the same on all machines. Ranges begin
    /// at multiples of `step`.
    ///
    /// # Errors
    /// Fails if the map of the disk cannot be read.
    pub(in crate::ops) fn range_of(self, disk: &Disk, step: u64, visit_zeros: bool) -> Result<Range<u64>, Error> {
        let before = self.index.saturating_sub(1);
        let places = boundaries(disk, self.count, before..=self.index, step, visit_zeros)?;
        let (start, end) = (places.first().copied().unwrap_or(0), places.last().copied().unwrap_or(0));
        Ok(start..end)
    }
}

/// Returns the boundaries with the numbers `wanted` of a division of a disk into `count` parts with about the same
/// amount of data; with `visit_zeros`, all bytes count. The parts cover the disk: boundary 0 is its beginning, and
/// boundary `count` its end. All others are multiples of `step`.
///
/// # Errors
/// Fails if the map of the disk cannot be read.
pub(in crate::ops) fn boundaries(
    disk: &Disk,
    count: u32,
    wanted: RangeInclusive<u32>,
    step: u64,
    visit_zeros: bool,
) -> Result<Vec<u64>, Error> {
    let weight_of = |is_data: bool, length: u64| if is_data || visit_zeros { length } else { 0 };
    let mut total = 0_u64;
    for extent in disk.extents(..) {
        let extent = extent?;
        total = total.saturating_add(weight_of(extent.is_data(), extent.len));
    }
    // If there is nothing to read, any division will do.
    let even = total == 0;
    let total = if even { disk.size() } else { total };
    // The weight before a boundary that lies inside of the disk.
    let weight_before = |number: u32| {
        let part = u128::from(total).saturating_mul(u128::from(number)).checked_div(u128::from(count));
        u64::try_from(part.unwrap_or(0)).unwrap_or(u64::MAX)
    };
    let (mut places, mut before) = (Vec::new(), 0_u64);
    let mut numbers = wanted.peekable();
    if numbers.next_if_eq(&0).is_some() {
        places.push(0);
    }
    for extent in disk.extents(..) {
        let extent = extent?;
        let weight = if even { extent.len } else { weight_of(extent.is_data(), extent.len) };
        let after = before.saturating_add(weight);
        // The first position before which there is as much data as that.
        while let Some(number) = numbers.next_if(|number| *number < count && after > weight_before(*number)) {
            let place = extent.start.saturating_add(weight_before(number).saturating_sub(before));
            places.push(place.saturating_sub(place.checked_rem(step).unwrap_or(0)));
        }
        before = after;
    }
    places.extend(numbers.map(|_| disk.size()));
    Ok(places)
}

impl FromStr for Shard {
    type Err = NotAShard;

    /// Parses text such as `2/5`, the second of five.
    fn from_str(text: &str) -> Result<Self, NotAShard> {
        let (index, count) = text.split_once('/').ok_or(NotAShard)?;
        let number = |text: &str| text.parse().map_err(|_| NotAShard);
        Self::new(number(index)?, number(count)?).ok_or(NotAShard)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// Error: the text is not a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAShard;

impl fmt::Display for NotAShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a shard such as 1/4, the first of four")
    }
}

impl std::error::Error for NotAShard {}
