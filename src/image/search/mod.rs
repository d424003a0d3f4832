//! Search for the regions of a file whose two region tables are lost (MS-VHDX 2.2.3): both begin at a multiple of
//! 1 MiB.
//!
//! A metadata region begins with its signature, and has the sizes from which the length of the BAT follows. A BAT is
//! recognised by its entries, of which no more than a few may be damaged. An image in the disk has region tables of its
//! own, relative to its beginning: what these name is content. Only if exactly one pair remains, it is used: nothing
//! distinguishes an old copy of a BAT from the current one. At most 64 KiB of each MiB are read, and a limited number
//! of whole tables.

mod late;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::{
    BatEntry, Guid, KIB_64, MIB, MetadataTableHeader, RegionTableEntry, RegionTableHeader, region_table_offset,
};
use crate::num::to_u64;
use crate::source::View;

use super::assumed::MetadataOverrides;
use super::geometry::{Geometry, ImageKind};
use super::metadata;
use super::region_table::{Region, named_by_table_at};
use super::warning::{Strictness, Warnings};

/// The regions that a search has found. Those that are lost have no length.
pub(super) struct FoundRegions {
    pub(super) metadata: Region,
    pub(super) bat: Region,
}

/// Largest number of metadata tables and of BATs that are compared. With more, none is the right one for certain.
const MOST: usize = 8;

/// Largest number of images in the disk that are recognised.
const MOST_NESTED: usize = 1 << 16;

/// Largest number of damaged entries of a BAT: those of one sector of the drive. At most one in eight may be damaged.
const MOST_DAMAGED: u64 = 64;

/// Number of bytes of all tables that are read as a whole: the longest valid one has 513 MiB.
const MOST_READ: u64 = 2 << 30;

/// Number of bytes that are read of a possible table at a time.
const PIECE: u64 = 4096;

/// Searches for the regions, except for those whose offsets the caller gives. An image whose blocks are read where a
/// fixed image has them needs no BAT.
///
/// # Errors
/// [`ErrorKind::RegionSearch`], with what was found instead of one of each; the first error of reading the file, since
/// the regions may be where it cannot be read.
pub(super) fn find(view: &View, assumed: &MetadataOverrides) -> Result<FoundRegions> {
    if let (Some(metadata), Some(bat)) = (assumed.metadata_offset, assumed.bat_offset) {
        // Without sizes, nothing can be read, whatever the length of the BAT is.
        let bat = geometry(view, Some(metadata), assumed)
            .map_or_else(|_| region(RegionTableEntry::BAT, bat), |geometry| bat_region(bat, &geometry));
        return Ok(FoundRegions { metadata: metadata_region(view, Some(metadata)), bat });
    }
    let search = Search::new(view);
    let nested = search.nested();
    let places = search.metadata_places(assumed, &nested);
    let mut pairs = Vec::new();
    let mut without_bat = Vec::new();
    for (place, geometry) in &places {
        let bats = search.bat_places(*place, geometry, assumed, &nested);
        if bats.is_empty() {
            without_bat.push((*place, None));
        }
        pairs.extend(bats.into_iter().map(|bat| Pair { metadata: *place, bat, geometry: geometry.clone() }));
    }
    let others: Vec<u64> = without_bat.iter().filter_map(|(place, _)| *place).collect();
    let wins = |pair: &Pair| places.len() <= MOST && (others.is_empty() || search.has_blocks_over(pair, &others));
    let single = <[Pair; 1]>::try_from(pairs);
    let single = single.map(|[pair]| if wins(&pair) { Ok(pair) } else { Err(vec![pair]) });
    if let Some(error) = search.failed.take() {
        return Err(error);
    }
    match single.unwrap_or_else(Err) {
        _ if search.left.get() == 0 => {
            let what = "lost, and too many parts of the file look like a BAT";
            Err(Error::of(Structure::RegionTables, ErrorKind::Text { what }))
        }
        Ok(pair) => Ok(FoundRegions {
            metadata: metadata_region(view, pair.metadata),
            bat: bat_region(pair.bat, &pair.geometry),
        }),
        Err(pairs) if assumed.is_linear && pairs.is_empty() && has_single_place(&places) => {
            let metadata = metadata_region(view, without_bat.first().and_then(|(place, _)| *place));
            Ok(FoundRegions { metadata, bat: region(RegionTableEntry::BAT, 0) })
        }
        Err(pairs) => {
            let found = pairs.iter().map(|pair| (pair.metadata, Some(pair.bat)));
            let found = found.chain(without_bat).take(MOST).collect();
            Err(Error::of(Structure::RegionTables, ErrorKind::RegionSearch { found }))
        }
    }
}

/// Returns whether there is one set of sizes, and that of an image without a parent.
fn has_single_place(places: &[(Option<u64>, Geometry)]) -> bool {
    matches!(places, [(_, geometry)] if geometry.kind != ImageKind::Differencing)
}

/// Returns whether almost all entries of the BAT in this region are damaged, so that those in it that look valid are
/// not.
pub(super) fn is_no_bat(view: &View, metadata: &Region, bat: &Region, geometry: &Geometry) -> bool {
    let search = Search::new(view);
    let metadata = Some(metadata.offset).filter(|_| metadata.len > 0);
    let table = Table { place: bat.offset, metadata, geometry, file_length: view.length() };
    let mut tally = Tally::default();
    search.pieces(&table, 0, |at, bytes| {
        table.count(at, bytes, &mut tally);
        true
    });
    tally.damaged > table.most_damaged() && tally.damaged > tally.allocated.saturating_mul(8)
}

/// Returns whether the BAT at `bat` has entries that fit the metadata at `metadata`. Returns `None` if that cannot be
/// read.
pub(super) fn is_pair(view: &View, metadata: u64, bat: u64, assumed: &MetadataOverrides) -> Option<bool> {
    let geometry = geometry(view, Some(metadata), assumed).ok()?;
    let search = Search::new(view);
    let table = Table { place: bat, metadata: Some(metadata), geometry: &geometry, file_length: view.length() };
    let is_bat = bat >= MIB && bat.is_multiple_of(MIB) && search.is_bat(&table);
    search.failed.take().is_none().then_some(is_bat)
}

/// Returns whether bytes could not be read, as opposed to being invalid.
fn is_unread(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Lost | ErrorKind::Io(_))
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

/// Returns the sizes in the metadata at `place`.
///
/// # Errors
/// Fails unless all are there and valid.
fn geometry(view: &View, place: Option<u64>, assumed: &MetadataOverrides) -> Result<Geometry> {
    let mut trial = Warnings::new(Strictness::Salvage);
    let metadata = metadata::read(view, &metadata_region(view, place), assumed, &mut trial)?;
    Geometry::new(&metadata, &mut trial)
}

struct Search<'v> {
    view: &'v View,
    /// Number of bytes of whole tables that may still be read.
    left: Cell<u64>,
    /// The same for tables that begin with unallocated blocks: they are less plausible, and leave the others theirs.
    late_left: Cell<u64>,
    /// First error of reading the file.
    failed: RefCell<Option<Error>>,
}

impl<'v> Search<'v> {
    fn new(view: &'v View) -> Self {
        Self { view, left: Cell::new(MOST_READ), late_left: Cell::new(MOST_READ), failed: RefCell::new(None) }
    }

    /// Returns the regions of images in the disk, if they lie in the file as a whole: their region tables are not at
    /// the beginning of this file, and name places relative to the beginning of theirs.
    fn nested(&self) -> BTreeSet<u64> {
        let signature = RegionTableHeader::SIGNATURE.as_bytes();
        let is_table = |offset: u64| self.read(offset, 4).is_some_and(|found| found == signature);
        let has_table = |place: &u64| (1..=2).any(|copy| is_table(place.saturating_add(region_table_offset(copy))));
        self.places()
            .filter(has_table)
            .take(MOST_NESTED)
            .flat_map(|place| named_by_table_at(self.view, place))
            .collect()
    }

    /// Returns the possible locations of the metadata region, with their sizes: one more than [`MOST`] if there are
    /// more.
    fn metadata_places(&self, assumed: &MetadataOverrides, nested: &BTreeSet<u64>) -> Vec<(Option<u64>, Geometry)> {
        let sizes = |place: Option<u64>| match geometry(self.view, place, assumed) {
            Err(error) if is_unread(&error) => {
                self.failed.borrow_mut().get_or_insert(error);
                None
            }
            sizes => Some((place, sizes.ok()?)),
        };
        if let Some(given) = assumed.metadata_offset {
            return sizes(Some(given)).into_iter().collect();
        }
        let signature = MetadataTableHeader::SIGNATURE.as_bytes();
        let has_signature =
            |place: &u64| self.read(*place, to_u64(signature.len())).is_some_and(|found| found == signature);
        let places = self.places().filter(|place| !nested.contains(place) && has_signature(place));
        let mut found: Vec<_> = places.filter_map(|place| sizes(Some(place))).take(MOST.saturating_add(1)).collect();
        if found.is_empty() && assumed.has_all_sizes() {
            found.extend(sizes(None));
        }
        found
    }

    /// Returns the possible locations of the BAT for these sizes.
    fn bat_places(
        &self,
        metadata: Option<u64>,
        geometry: &Geometry,
        assumed: &MetadataOverrides,
        nested: &BTreeSet<u64>,
    ) -> Vec<u64> {
        if let Some(given) = assumed.bat_offset {
            return vec![given];
        }
        let (length, end) = (geometry.bat_length(), self.view.length());
        if length == 0 {
            return Vec::new();
        }
        let mut found = Vec::new();
        for place in self.places().filter(|place| !nested.contains(place)) {
            let bat = Table { place, metadata, geometry, file_length: end };
            let fits = place.checked_add(length).is_some_and(|bat_end| bat_end <= end);
            if fits && Some(place) != metadata && self.begins_like_a_bat(&bat) && self.is_bat(&bat) {
                found.push(place);
                if found.len() > MOST {
                    break;
                }
            }
        }
        if length > KIB_64 {
            self.left.swap(&self.late_left);
            let late = self.late_bats(metadata, geometry, nested, &found);
            self.left.swap(&self.late_left);
            found.extend(late);
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
        let bytes = self.view.copy(Structure::File, offset, length);
        self.view.forget(offset, offset.saturating_add(length));
        if let Err(error) = &bytes
            && is_unread(error)
        {
            self.failed.borrow_mut().get_or_insert_with(|| error.clone());
        }
        bytes.ok()
    }

    /// Returns whether the first 64 KiB have valid entries, up to the piece with the first allocated block.
    fn begins_like_a_bat(&self, bat: &Table<'_>) -> bool {
        let end = bat.geometry.bat_length().min(KIB_64);
        let (mut at, mut tally) = (0, Tally::default());
        while at < end && tally.allocated == 0 {
            let Some(bytes) = self.read(bat.place.saturating_add(at), end.saturating_sub(at).min(PIECE)) else {
                return false;
            };
            bat.count(at, &bytes, &mut tally);
            if tally.damaged > bat.most_damaged() {
                return false;
            }
            at = at.saturating_add(PIECE);
        }
        tally.allocated > 0
    }

    /// Returns whether all entries are valid, except for a few, and their blocks fit into the file.
    fn is_bat(&self, bat: &Table<'_>) -> bool {
        let mut tally = Tally::default();
        let is_valid = self.pieces(bat, 0, |at, bytes| {
            bat.count(at, bytes, &mut tally);
            tally.damaged <= bat.most_damaged()
        });
        let space = tally.allocated.saturating_sub(1).saturating_mul(bat.geometry.block_size());
        // A few numbers that happen to be entries make no table.
        is_valid && space <= bat.file_length && tally.allocated >= tally.damaged.saturating_mul(2)
    }

    /// Passes on the entries from the byte `from` of the table on, until the function returns false, and returns
    /// whether it never did.
    fn pieces(&self, bat: &Table<'_>, from: u64, mut each: impl FnMut(u64, &[u8]) -> bool) -> bool {
        let length = bat.geometry.bat_length();
        let mut at = from;
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

    /// Returns whether blocks of `pair` cover all of these offsets.
    fn has_blocks_over(&self, pair: &Pair, offsets: &[u64]) -> bool {
        let bat = Table {
            place: pair.bat,
            metadata: pair.metadata,
            geometry: &pair.geometry,
            file_length: self.view.length(),
        };
        let mut left = offsets.to_vec();
        self.pieces(&bat, 0, |at, bytes| {
            for (is_bitmap, entry) in bat.entries(at, bytes).filter(|(_, entry)| entry.is_allocated()) {
                let (start, length) = (entry.file_offset(), bat.length_of(is_bitmap));
                left.retain(|offset| !(*offset >= start && offset.saturating_sub(start) < length));
            }
            !left.is_empty()
        });
        left.is_empty()
    }
}

/// Number of entries of a possible BAT.
#[derive(Default)]
struct Tally {
    allocated: u64,
    damaged: u64,
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

    /// Returns the largest number of damaged entries of this BAT.
    fn most_damaged(&self) -> u64 {
        (self.geometry.bat_entries() / 8).min(MOST_DAMAGED)
    }

    /// Counts the allocated blocks and the damaged entries in a part of the table.
    fn count(&self, at: u64, bytes: &[u8], tally: &mut Tally) {
        for (is_bitmap, entry) in self.entries(at, bytes) {
            let offset = entry.file_offset();
            let is_valid = match (is_bitmap, entry.state()) {
                (_, 6) => self.can_hold(offset, is_bitmap),
                (false, 7) => self.geometry.kind == ImageKind::Differencing && self.can_hold(offset, false),
                (true, 0) | (false, 0..=3) => offset < self.file_length,
                _ => false,
            };
            if !is_valid || entry.reserved() != 0 {
                tally.damaged = tally.damaged.saturating_add(1);
            } else {
                tally.allocated = tally.allocated.saturating_add(u64::from(entry.is_allocated()));
            }
        }
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
