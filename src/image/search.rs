//! Search for the regions of a file whose two region tables are lost (MS-VHDX 2.2.3): both begin at a multiple of
//! 1 MiB.
//!
//! A metadata region begins with its signature, and has the sizes from which the length of the BAT follows. A BAT is
//! recognised by its entries, all of which must be valid. What lies in a block of the disk is content, such as an image
//! in an image. Only if exactly one pair remains, it is used. At most 64 KiB of each MiB are read, and a limited number
//! of whole tables.

use std::cell::Cell;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::{BatEntry, Guid, KIB_64, MIB, MetadataTableHeader, RegionTableEntry};
use crate::num::to_u64;
use crate::source::View;

use super::assumed::MetadataOverrides;
use super::geometry::{Geometry, ImageKind};
use super::metadata;
use super::region::Region;
use super::warning::{Strictness, Warnings};

/// The regions that a search has found.
pub(super) struct FoundRegions {
    pub(super) metadata: Region,
    pub(super) bat: Region,
}

/// Largest number of metadata tables and of BATs that are compared. With more, none is the right one for certain.
const MOST: usize = 8;

/// Number of bytes of all tables that are read as a whole: the longest valid one has 513 MiB.
const MOST_READ: u64 = 2 << 30;

/// Number of bytes that are read of a possible table at a time.
const PIECE: u64 = 4096;

/// Searches for the regions, except for those whose offsets the caller gives.
///
/// # Errors
/// [`ErrorKind::RegionSearch`], with what was found instead of one of each.
pub(super) fn find(view: &View, assumed: &MetadataOverrides) -> Result<FoundRegions> {
    if let (Some(metadata), Some(bat)) = (assumed.metadata_offset, assumed.bat_offset) {
        let left = view.length().saturating_sub(bat).next_multiple_of(MIB).min(4095 * MIB);
        let bat = Region { len: u32::try_from(left).unwrap_or(0), ..region(RegionTableEntry::BAT, bat) };
        return Ok(FoundRegions { metadata: metadata_region(view, Some(metadata)), bat });
    }
    let search = Search { view, left: Cell::new(MOST_READ) };
    let mut pairs = Vec::new();
    let mut without_bat = Vec::new();
    for place in search.metadata_places(assumed) {
        let Some(geometry) = geometry(view, place, assumed) else { continue };
        let bats = search.bat_places(place, &geometry, assumed);
        if bats.is_empty() {
            without_bat.push((place, None));
        }
        pairs.extend(bats.into_iter().map(|bat| Pair { metadata: place, bat, geometry: geometry.clone() }));
    }
    if (2..=MOST).contains(&pairs.len()) {
        let is_content: Vec<bool> =
            pairs.iter().map(|pair| pairs.iter().any(|other| search.is_content(pair, other))).collect();
        let mut is_content = is_content.into_iter();
        pairs.retain(|_| !is_content.next().unwrap_or(false));
    }
    match pairs.as_slice() {
        _ if search.left.get() == 0 => {
            let what = "lost, and too many parts of the file look like a BAT";
            Err(Error::of(Structure::RegionTables, ErrorKind::Text { what }))
        }
        [pair] => Ok(FoundRegions {
            metadata: metadata_region(view, pair.metadata),
            bat: bat_region(pair.bat, &pair.geometry),
        }),
        _ => {
            let found = pairs.iter().map(|pair| (pair.metadata, Some(pair.bat)));
            let found = found.chain(without_bat).take(MOST).collect();
            Err(Error::of(Structure::RegionTables, ErrorKind::RegionSearch { found }))
        }
    }
}

/// Possible locations of both regions. The metadata may be lost, and all of its values given.
struct Pair {
    metadata: Option<u64>,
    bat: u64,
    geometry: Geometry,
}

/// Makes the metadata region at `place`, or a region without a place if it is lost.
fn metadata_region(view: &View, place: Option<u64>) -> Region {
    let len = place.map_or(0, |place| view.length().saturating_sub(place).min(MIB));
    let len = u32::try_from(len).unwrap_or(0);
    Region { len, ..region(RegionTableEntry::METADATA, place.unwrap_or(0)) }
}

fn region(guid: Guid, offset: u64) -> Region {
    Region { guid: guid.to_uuid(), offset, len: 0, required: true }
}

fn bat_region(offset: u64, geometry: &Geometry) -> Region {
    let len = geometry.bat_length().max(1).next_multiple_of(MIB);
    Region { len: u32::try_from(len).unwrap_or(u32::MAX), ..region(RegionTableEntry::BAT, offset) }
}

/// Returns the sizes in the metadata at `place`, if all are there and valid.
fn geometry(view: &View, place: Option<u64>, assumed: &MetadataOverrides) -> Option<Geometry> {
    let mut trial = Warnings::new(Strictness::Salvage);
    let metadata = metadata::read(view, &metadata_region(view, place), assumed, &mut trial).ok()?;
    Geometry::new(&metadata, &mut trial).ok()
}

struct Search<'v> {
    view: &'v View,
    /// Number of bytes of whole tables that may still be read.
    left: Cell<u64>,
}

impl Search<'_> {
    /// Returns the possible locations of the metadata region.
    fn metadata_places(&self, assumed: &MetadataOverrides) -> Vec<Option<u64>> {
        if let Some(given) = assumed.metadata_offset {
            return vec![Some(given)];
        }
        let mut found: Vec<Option<u64>> = self
            .places()
            .filter(|place| {
                let signature = self.read(*place, to_u64(MetadataTableHeader::SIGNATURE.len()));
                signature.is_some_and(|found| found == MetadataTableHeader::SIGNATURE.as_bytes())
                    && geometry(self.view, Some(*place), assumed).is_some()
            })
            .take(MOST)
            .map(Some)
            .collect();
        if found.is_empty() && assumed.has_all_sizes() {
            found.push(None);
        }
        found
    }

    /// Returns the possible locations of the BAT for these sizes.
    fn bat_places(&self, metadata: Option<u64>, geometry: &Geometry, assumed: &MetadataOverrides) -> Vec<u64> {
        if let Some(given) = assumed.bat_offset {
            return vec![given];
        }
        let (length, end) = (geometry.bat_length(), self.view.length());
        if length == 0 {
            return Vec::new();
        }
        let mut found = Vec::new();
        for place in self.places() {
            let bat = Table { place, metadata, geometry, file_length: end };
            let fits = place.checked_add(length).is_some_and(|bat_end| bat_end <= end);
            if fits && Some(place) != metadata && self.begins_like_a_bat(&bat) && self.is_bat(&bat) {
                found.push(place);
                if found.len() > MOST {
                    break;
                }
            }
        }
        found
    }

    /// Returns all multiples of 1 MiB, except for those whose first 64 KiB are known to be zero.
    fn places(&self) -> impl Iterator<Item = u64> + use<'_> {
        let (view, end) = (self.view, self.view.length());
        let mut next = MIB;
        std::iter::from_fn(move || {
            while next < end {
                let place = next;
                let zero_end = view.known_zero_end(place, end);
                next = place.saturating_add(MIB);
                if zero_end < place.saturating_add(KIB_64) {
                    return Some(place);
                }
                // The one before the end of the zeros may have some at its beginning.
                next = next.max(zero_end & !MIB.saturating_sub(1));
            }
            None
        })
    }

    /// Returns `length` bytes, if they can be read, without keeping them in the page cache.
    fn read(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
        let bytes = self.view.copy(Structure::File, offset, length).ok();
        self.view.forget(offset, offset.saturating_add(length));
        bytes
    }

    /// Returns whether the first 64 KiB have only valid entries, up to the piece with the first allocated block.
    fn begins_like_a_bat(&self, bat: &Table<'_>) -> bool {
        let end = bat.geometry.bat_length().min(KIB_64);
        let mut at = 0;
        while at < end {
            let Some(bytes) = self.read(bat.place.saturating_add(at), end.saturating_sub(at).min(PIECE)) else {
                return false;
            };
            match bat.count(at, &bytes) {
                None => return false,
                Some(0) => at = at.saturating_add(PIECE),
                Some(_) => return true,
            }
        }
        false
    }

    /// Returns whether all entries are valid, and their blocks fit into the file.
    fn is_bat(&self, bat: &Table<'_>) -> bool {
        let mut allocated = 0_u64;
        let is_valid = self.pieces(bat, |at, bytes| {
            let count = bat.count(at, bytes);
            allocated = allocated.saturating_add(count.unwrap_or(0));
            count.is_some()
        });
        let space = allocated.saturating_sub(1).saturating_mul(bat.geometry.block_size());
        is_valid && space <= bat.file_length
    }

    /// Passes on the entries until the function returns false, and returns whether it never did.
    fn pieces(&self, bat: &Table<'_>, mut each: impl FnMut(u64, &[u8]) -> bool) -> bool {
        let length = bat.geometry.bat_length();
        let mut at = 0;
        while at < length {
            let place = bat.place.saturating_add(at);
            let zero_end = self.view.known_zero_end(place, bat.place.saturating_add(length));
            if zero_end >= place.saturating_add(PIECE) {
                at = zero_end.saturating_sub(bat.place) & !PIECE.saturating_sub(1);
                continue;
            }
            let step = length.saturating_sub(at).min(KIB_64);
            self.left.set(self.left.get().saturating_sub(step));
            let Some(bytes) = self.read(place, step).filter(|_| self.left.get() > 0) else { return false };
            if !each(at, &bytes) {
                return false;
            }
            at = at.saturating_add(step);
        }
        true
    }

    /// Returns whether a structure of `pair` lies in a block of `other`, and none of `other` in a block of `pair`.
    fn is_content(&self, pair: &Pair, other: &Pair) -> bool {
        let of = |pair: &Pair| [Some(pair.bat), pair.metadata];
        self.has_block_over(other, of(pair)) && !self.has_block_over(pair, of(other))
    }

    /// Returns whether a block of `pair` covers one of these offsets, which are not its own.
    fn has_block_over(&self, pair: &Pair, offsets: [Option<u64>; 2]) -> bool {
        let bat = Table {
            place: pair.bat,
            metadata: pair.metadata,
            geometry: &pair.geometry,
            file_length: self.view.length(),
        };
        let mut is_over = false;
        self.pieces(&bat, |at, bytes| {
            is_over = bat.entries(at, bytes).any(|(is_bitmap, entry)| {
                let (start, length) = (entry.file_offset(), bat.length_of(is_bitmap));
                let covers = |offset: u64| offset >= start && offset.saturating_sub(start) < length;
                entry.is_allocated() && offsets.iter().flatten().any(|offset| covers(*offset))
            });
            !is_over
        });
        is_over
    }
}

/// A possible BAT.
struct Table<'a> {
    place: u64,
    metadata: Option<u64>,
    geometry: &'a Geometry,
    file_length: u64,
}

impl Table<'_> {
    /// Returns the entries in a part of the table, `at` bytes from its beginning, and whether each is that of a sector
    /// bitmap block.
    fn entries<'b>(&self, at: u64, bytes: &'b [u8]) -> impl Iterator<Item = (bool, BatEntry)> + use<'b> {
        let period = self.geometry.chunk_blocks().saturating_add(1);
        let first = at / BatEntry::LENGTH;
        (first..).zip(bytes.chunks_exact(8)).map(move |(index, entry)| {
            let is_bitmap = index.checked_rem(period) == period.checked_sub(1);
            (is_bitmap, BatEntry(u64::from_le_bytes(entry.try_into().unwrap_or_default())))
        })
    }

    fn length_of(&self, is_bitmap: bool) -> u64 {
        if is_bitmap { MIB } else { self.geometry.block_size() }
    }

    /// Returns the number of allocated blocks. Returns `None` if an entry is invalid.
    fn count(&self, at: u64, bytes: &[u8]) -> Option<u64> {
        let mut allocated = 0_u64;
        for (is_bitmap, entry) in self.entries(at, bytes) {
            let offset = entry.file_offset();
            let is_valid = match (is_bitmap, entry.state()) {
                (_, 6) => self.can_hold(offset, is_bitmap),
                (false, 7) => self.geometry.kind == ImageKind::Differencing && self.can_hold(offset, false),
                (true, 0) | (false, 0..=3) => offset < self.file_length,
                _ => false,
            };
            if !is_valid || entry.reserved() != 0 {
                return None;
            }
            allocated = allocated.saturating_add(u64::from(entry.is_allocated()));
        }
        Some(allocated)
    }

    /// Returns whether a block can be there: in the file, after the header section, and apart from the regions.
    fn can_hold(&self, offset: u64, is_bitmap: bool) -> bool {
        let end = offset.saturating_add(self.length_of(is_bitmap));
        let is_apart = |start: u64, length: u64| end <= start || offset >= start.saturating_add(length);
        (MIB..self.file_length).contains(&offset)
            && is_apart(self.place, self.geometry.bat_length())
            && self.metadata.is_none_or(|metadata| is_apart(metadata, MIB))
    }
}
