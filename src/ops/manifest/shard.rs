//! Shards: division of the work on a disk among machines that share nothing but the image.

use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::error::Error;
use crate::num::to_u64;
use crate::scan::{Input, ScanError, ScanOptions, UNIT};

use super::format::{Identity, Share};
use super::merge::DigestsDocument;
use super::{Algorithm, ManifestError, PartPlan, check_algorithms};

/// Shard: one of several shares of the work, `index` of `count`, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Shard {
    index: u32,
    count: u32,
}

/// The fields of a [`Shard`], not validated.
#[derive(Deserialize)]
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
const MOST_SHARDS: u32 = 1 << 20;

impl Shard {
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
    pub(super) fn range_of(self, disk: &Disk, step: u64, visit_zeros: bool) -> Result<Range<u64>, Error> {
        let weight_of = |is_data: bool, length: u64| if is_data || visit_zeros { length } else { 0 };
        let mut total = 0_u64;
        for extent in disk.extents(..) {
            let extent = extent?;
            total = total.saturating_add(weight_of(extent.is_data(), extent.len));
        }
        // If there is nothing to read, any division will do.
        let even = total == 0;
        let total = if even { disk.size() } else { total };
        let part_of = |index: u32| {
            let part = u128::from(total).saturating_mul(u128::from(index)).checked_div(u128::from(self.count));
            u64::try_from(part.unwrap_or(0)).unwrap_or(u64::MAX)
        };
        let (from, to) = (part_of(self.index.saturating_sub(1)), part_of(self.index));
        let (mut start, mut end, mut before) = (None, None, 0_u64);
        for extent in disk.extents(..) {
            let extent = extent?;
            let weight = if even { extent.len } else { weight_of(extent.is_data(), extent.len) };
            let after = before.saturating_add(weight);
            // The first position before which there is as much data as that.
            let place =
                |wanted: u64| (after > wanted).then(|| extent.start.saturating_add(wanted.saturating_sub(before)));
            start = start.or_else(|| place(from));
            end = end.or_else(|| place(to));
            before = after;
        }
        let aligned = |place: Option<u64>| match place {
            Some(place) => place.saturating_sub(place.checked_rem(step).unwrap_or(0)),
            None => disk.size(),
        };
        let start = if self.index == 1 { 0 } else { aligned(start) };
        let end = if self.index == self.count { disk.size() } else { aligned(end) };
        Ok(start..end)
    }
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
        f.write_str("not a share such as 1/4, the first of four")
    }
}

impl std::error::Error for NotAShard {}

/// Largest length of the `about` value of a share of digests, as JSON, in bytes: 1 MiB. [`merge`](super::merge())
/// rejects longer ones.
pub const MAX_ABOUT_LENGTH: u64 = 1 << 20;

/// Rejects values that could be written, but not read again.
fn check_about(about: &serde_json::Value) -> Result<(), ScanError> {
    // In a share, it is nested in the document.
    let nested = serde_json::to_vec(&[about]).map_err(|error| ScanError::manifest_io(error.into()))?;
    let length = to_u64(nested.len()).saturating_sub(2);
    if length > MAX_ABOUT_LENGTH {
        return Err(ManifestError::AboutTooLong { length, limit: MAX_ABOUT_LENGTH }.into());
    }
    let parsed: Result<[serde_json::Value; 1], _> = serde_json::from_slice(&nested);
    parsed.map(drop).map_err(|_| ManifestError::AboutTooDeep.into())
}

/// Computes the share `shard` of digests of a disk, and writes it to `out`, a line of JSON, for
/// [`merge`](super::merge()). All `algorithms` must be [mergeable](Algorithm::is_mergeable). `about` is passed to the
/// caller of `merge`: at most [`MAX_ABOUT_LENGTH`] bytes of JSON.
///
/// # Errors
/// [`ManifestError::AboutTooLong`] and [`ManifestError::AboutTooDeep`] if `about` cannot be passed on; otherwise see
/// [`ManifestError`].
pub fn hash_share(
    disk: &Disk,
    algorithms: &[Algorithm],
    shard: Shard,
    about: serde_json::Value,
    options: &ScanOptions<'_>,
    out: &mut dyn Write,
) -> Result<(), ScanError> {
    if let Some(other) = algorithms.iter().find(|algorithm| !algorithm.is_mergeable()) {
        let what = format!("{other} cannot be computed in shares");
        return Err(ScanError::bad_manifest(None, 0, what));
    }
    check_algorithms(algorithms)?;
    check_about(&about)?;
    let visit_zeros = algorithms.contains(&Algorithm::Blake3);
    let range = shard.range_of(disk, UNIT, visit_zeros)?;
    let part = PartPlan::new(disk.size(), algorithms).compute(Input::disk(disk), range, options)?;
    let share = Share { shard, offset: part.start(), length: part.length() };
    let document = DigestsDocument::new(Identity::of(disk), algorithms, share, &part, about);
    serde_json::to_writer(&mut *out, &document).map_err(|error| ScanError::manifest_io(error.into()))?;
    out.write_all(b"\n").and_then(|()| out.flush()).map_err(ScanError::manifest_io)
}
