//! The regions of an image (MS-VHDX 2.2.3): which copy of the region table is in use, the locations of BAT and
//! metadata, and the reserved parts of the file.

use std::mem::offset_of;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::{
    DataSector, Descriptor, Guid, LogEntryHeader, MIB, MetadataTableHeader, RegionTableEntry, RegionTableHeader,
    region_table_offset,
};
use crate::num::to_u64;
use crate::source::View;

use super::assumed::MetadataOverrides;
use super::header::CurrentHeader;
use super::region_table::{Region, Table};
use super::search::{self, FoundRegions};
use super::warning::{Strictness, Warnings};
use crate::error::{Rule, Severity};

/// The region table in use.
#[derive(Debug)]
pub(crate) struct Regions {
    /// Number of the copy: 1 or 2; none if both are lost, and a search or the caller has replaced them.
    pub(crate) copy: Option<u8>,
    pub(crate) all: Vec<Region>,
    pub(crate) bat: Region,
    pub(crate) metadata: Region,
    pub(crate) reserved: ReservedRanges,
}

/// Reads the region table from its first usable copy. In a salvage, regions whose tables are lost are searched for.
///
/// # Errors
/// [`ErrorKind::NoValidCopy`] if neither is usable, and errors in the table itself; in a salvage,
/// [`ErrorKind::RegionSearch`].
pub(crate) fn read(
    view: &View,
    header: &CurrentHeader,
    assumed: &MetadataOverrides,
    warnings: &mut Warnings,
) -> Result<Regions> {
    if warnings.is_lenient() && (assumed.bat_offset.is_some() || assumed.metadata_offset.is_some()) {
        let intact = Table::read(view, 1).or_else(|_| Table::read(view, 2)).ok();
        let place = |guid| intact.as_ref().and_then(|table| table.place_of(guid));
        let mut assumed = assumed.clone();
        assumed.bat_offset = assumed.bat_offset.or_else(|| place(RegionTableEntry::BAT));
        assumed.metadata_offset = assumed.metadata_offset.or_else(|| place(RegionTableEntry::METADATA));
        return Regions::without_table(search::find(view, &assumed), view, header, warnings);
    }
    let (copy, table) = match (Table::read(view, 1), Table::read(view, 2)) {
        (Ok(first), Ok(second)) => {
            if first.bytes != second.bytes {
                let offset = region_table_offset(2);
                let differ = Error::at(Structure::RegionTable(2), offset, ErrorKind::CopiesDiffer);
                warnings.add(Rule::RegionTableCopies, differ);
            }
            (1, first)
        }
        (Ok(first), Err(broken)) => {
            warnings.add(Rule::RegionTableCopies, broken);
            (1, first)
        }
        (Err(broken), Ok(second)) => {
            warnings.add(Rule::RegionTableCopies, broken);
            (2, second)
        }
        (Err(first), Err(second)) => {
            let detail = Error::of(Structure::RegionTables, ErrorKind::NoValidCopy { first, second });
            let usable = [1, 2].into_iter().filter(|_| warnings.is_lenient());
            let mut usable = usable.filter_map(|copy| Some((copy, Table::read_unchecked(view, copy, assumed)?)));
            let usable = usable.next();
            warnings.reject(Rule::RegionTables, detail)?;
            match usable {
                Some(usable) if usable.1.leads_to_regions(view, assumed) == Some(true) => usable,
                Some(usable) => match search::find(view, assumed) {
                    // Nothing better was found, and nothing shows that the table is wrong.
                    Err(_) if usable.1.leads_to_regions(view, assumed).is_none() => usable,
                    found => return Regions::without_table(found, view, header, warnings),
                },
                None => return Regions::without_table(search::find(view, assumed), view, header, warnings),
            }
        }
    };
    if !warnings.is_lenient() {
        return Regions::of(view, header, copy, &table, warnings);
    }
    let table = table.completed(view, assumed);
    let (copy, table) = more_sensible(view, header, assumed, (copy, table), warnings)?;
    let Some(what) = table.missing() else { return Regions::of(view, header, copy, &table, warnings) };
    let missing = Error::at(Structure::RegionTable(copy), region_table_offset(copy), ErrorKind::Missing { what });
    warnings.reject(Rule::RegionMissing, missing)?;
    let assumed = MetadataOverrides {
        bat_offset: table.place_of(RegionTableEntry::BAT),
        metadata_offset: table.place_of(RegionTableEntry::METADATA),
        ..assumed.clone()
    };
    Regions::without_table(search::find(view, &assumed), view, header, warnings)
}

/// In a salvage, returns this copy of the table, or the second one if that has fewer errors, whatever its checksum is.
fn more_sensible(
    view: &View,
    header: &CurrentHeader,
    assumed: &MetadataOverrides,
    (copy, table): (u8, Table),
    warnings: &mut Warnings,
) -> Result<(u8, Table)> {
    let nonsense = |copy, table: &Table| {
        let mut trial = Warnings::new(Strictness::Salvage);
        let Ok(regions) = Regions::of(view, header, copy, table, &mut trial) else { return usize::MAX };
        let signature = view.copy(Structure::MetadataTable, regions.metadata.offset, 8);
        let has_metadata = signature.is_ok_and(|found| found == MetadataTableHeader::SIGNATURE.as_bytes());
        // Only errors that prevent any other way of reading: otherwise, the same table is read as without a salvage.
        let bad = trial.as_slice().iter().filter(|warning| warning.severity >= Severity::Unchecked).count();
        let has_bat = regions.bat.offset < view.length();
        bad.saturating_add(usize::from(!has_metadata)).saturating_add(usize::from(!has_bat))
    };
    let found = nonsense(copy, &table);
    let other = 3_u8.saturating_sub(copy);
    if found > 0
        && let Some(better) = Table::read_unchecked(view, other, assumed)
        && nonsense(other, &better) < found
    {
        let what = "invalid values: the other copy is used";
        let detail = Error::at(Structure::RegionTable(copy), region_table_offset(copy), ErrorKind::Text { what });
        warnings.reject(Rule::RegionTables, detail)?;
        return Ok((other, better));
    }
    Ok((copy, table))
}

impl Regions {
    /// Returns the regions of a table.
    fn of(view: &View, header: &CurrentHeader, copy: u8, table: &Table, warnings: &mut Warnings) -> Result<Self> {
        if table.reserved != 0 {
            let found = u64::from(table.reserved);
            let offset = region_table_offset(copy).saturating_add(to_u64(offset_of!(RegionTableHeader, reserved)));
            let kind = ErrorKind::Field { field: "Reserved", found, expected: "0" };
            warnings.add(Rule::RegionTableReserved, Error::at(Structure::RegionTable(copy), offset, kind));
        }
        let entries = Entries { copy, entries: &table.entries, file_length: view.length() };
        for (index, what) in &table.taken {
            warnings.reject(Rule::RegionMissing, entries.at(*index, 0, ErrorKind::Text { what }))?;
        }
        // With a region missing, an unknown one is no sign of a newer version of the format.
        if table.missing().is_none() {
            entries.check_known(warnings)?;
        }
        let bat = entries.find(RegionTableEntry::BAT, "the BAT region", warnings);
        let metadata = entries.find(RegionTableEntry::METADATA, "the metadata region", warnings);
        let (bat, metadata) = warnings.both(Rule::RegionMissing, bat, metadata)?;
        warnings.require(Rule::RegionPlace, entries.check_metadata_place(&metadata))?;
        let all = entries.all(warnings);
        let reserved = ReservedRanges::new(&all, header, view.length(), warnings)?;
        Ok(Self { copy: Some(copy), all, bat, metadata, reserved })
    }

    /// Returns the regions of a file that has lost its tables, from a search or from the caller.
    fn without_table(
        found: Result<FoundRegions>,
        view: &View,
        header: &CurrentHeader,
        warnings: &mut Warnings,
    ) -> Result<Self> {
        let FoundRegions { metadata, bat } = found.map_err(|error| warnings.fatal(Rule::RegionTables, error))?;
        let place = |region: &Region| Some(region.offset).filter(|_| region.len > 0);
        let kind = ErrorKind::RegionSearch { found: vec![(place(&metadata), place(&bat))] };
        warnings.add_as(Rule::RegionTables, Severity::Warning, Error::of(Structure::RegionTables, kind));
        let all: Vec<Region> = [bat, metadata].into_iter().filter(|region| region.len > 0).collect();
        let reserved = ReservedRanges::new(&all, header, view.length(), warnings)?;
        Ok(Self { copy: None, all, bat, metadata, reserved })
    }

    /// Returns the parts of the file that are certainly not used by blocks: the log, if it looks like one, `bat_length`
    /// bytes of the BAT, and in the metadata region the space of a table and small items.
    pub(crate) fn reserved_for_salvage(&self, view: &View, header: &CurrentHeader, bat_length: u64) -> ReservedRanges {
        let mut header = header.clone();
        let begins_with = view.bytes(Structure::Log, header.log_offset, 4).unwrap_or_default();
        let of_log = [LogEntryHeader::SIGNATURE, Descriptor::DATA, Descriptor::ZERO, DataSector::SIGNATURE, [0; 4]];
        if !header.is_dirty() && !of_log.iter().any(|signature| *begins_with == signature[..]) {
            header.log_length = 0;
        }
        let up_to = |region: &Region, most: u64| {
            let most = u32::try_from(most).unwrap_or(u32::MAX);
            Region { len: region.len.min(most), ..*region }
        };
        let regions = [up_to(&self.bat, bat_length), up_to(&self.metadata, MIB)];
        // Their overlaps were reported.
        let reserved = ReservedRanges::new(&regions, &header, view.length(), &mut Warnings::new(Strictness::Salvage));
        reserved.unwrap_or_else(|_| ReservedRanges { ranges: Vec::new() })
    }
}

/// Largest number of entries with an unknown GUID among which that of a lost region is looked for.
const MOST_UNKNOWN: usize = 4;

/// Largest number of bits in which a damaged GUID differs. In two unrelated ones, about 64 differ.
const MOST_BITS: u32 = 16;

/// What a salvage makes of damaged copies.
impl Table {
    /// Reads a copy with a wrong signature or checksum, if it has the necessary entries: better than none.
    fn read_unchecked(view: &View, copy: u8, assumed: &MetadataOverrides) -> Option<Self> {
        let table = Self::parse(view, copy, 0, false).ok()?.completed(view, assumed);
        table.missing().is_none().then_some(table)
    }

    /// Gives an entry with an unknown GUID that of a required region that no entry has, if it can only be that one: by
    /// its GUID, of which a few bits differ, or else by what is there.
    fn completed(mut self, view: &View, assumed: &MetadataOverrides) -> Self {
        let has_signature = |place: u64| {
            let signature = MetadataTableHeader::SIGNATURE.as_bytes();
            view.copy(Structure::MetadataTable, place, to_u64(signature.len())).is_ok_and(|found| found == signature)
        };
        let what = "unknown GUID: taken for the metadata region, which no other entry can be";
        self.take(RegionTableEntry::METADATA, what, has_signature);
        let metadata = self.place_of(RegionTableEntry::METADATA);
        let is_bat = |place: u64| metadata.and_then(|at| search::is_pair(view, at, place, assumed)) == Some(true);
        let what = "unknown GUID: taken for the BAT region, which no other entry can be";
        self.take(RegionTableEntry::BAT, what, is_bat);
        self
    }

    /// Gives the only entry with an unknown GUID that can be this region its GUID, if no entry has it.
    fn take(&mut self, guid: Guid, what: &'static str, is_there: impl Fn(u64) -> bool) {
        if self.place_of(guid).is_some() {
            return;
        }
        let is_known =
            |entry: &RegionTableEntry| entry.guid == RegionTableEntry::BAT || entry.guid == RegionTableEntry::METADATA;
        let bits = |found: Guid| (found.to_uuid().as_u128() ^ guid.to_uuid().as_u128()).count_ones();
        let unknown: Vec<_> = self.entries.iter().enumerate().filter(|(_, entry)| !is_known(entry)).collect();
        let alike = unknown.iter().filter(|(_, entry)| bits(entry.guid) <= MOST_BITS);
        let mut possible: Vec<usize> = alike.map(|(index, _)| *index).collect();
        if possible.is_empty() && unknown.len() <= MOST_UNKNOWN {
            let there = unknown.iter().filter(|(_, entry)| is_there(entry.file_offset.get()));
            possible = there.map(|(index, _)| *index).collect();
        }
        if let [index] = *possible
            && let Some(entry) = self.entries.get_mut(index)
        {
            entry.guid = guid;
            self.taken.push((index, what));
        }
    }

    /// Returns whether a metadata region and its BAT are where the table says. Returns `None` if that cannot be read.
    fn leads_to_regions(&self, view: &View, assumed: &MetadataOverrides) -> Option<bool> {
        let (metadata, bat) = self.place_of(RegionTableEntry::METADATA).zip(self.place_of(RegionTableEntry::BAT))?;
        search::is_pair(view, metadata, bat, assumed)
    }
}

/// The entries of the table in use, and their location for errors.
struct Entries<'a> {
    copy: u8,
    entries: &'a [RegionTableEntry],
    file_length: u64,
}

impl Entries<'_> {
    /// Makes an error in a field of an entry.
    fn at(&self, index: usize, field: usize, kind: ErrorKind) -> Error {
        let within = index
            .saturating_mul(size_of::<RegionTableEntry>())
            .saturating_add(size_of::<RegionTableHeader>())
            .saturating_add(field);
        let offset = region_table_offset(self.copy).saturating_add(to_u64(within));
        Error::at(Structure::RegionTable(self.copy), offset, kind)
    }

    /// Checks that no region occurs twice, and that no unknown region is required.
    fn check_known(&self, warnings: &mut Warnings) -> Result<()> {
        let mut order: Vec<_> =
            self.entries.iter().enumerate().map(|(index, entry)| (entry.guid.to_uuid(), index)).collect();
        order.sort_unstable();
        for (one, other) in order.iter().zip(order.iter().skip(1)) {
            if one.0 == other.0 {
                warnings.reject(Rule::RegionUnique, self.at(other.1, 0, ErrorKind::Duplicate { id: other.0 }))?;
            }
        }
        for (index, entry) in self.entries.iter().enumerate() {
            let known: [Guid; 2] = [RegionTableEntry::BAT, RegionTableEntry::METADATA];
            if entry.required.get() != 0 && !known.contains(&entry.guid) {
                let detail = self.at(index, 0, ErrorKind::UnknownRequired { id: entry.guid.to_uuid() });
                warnings.reject(Rule::RegionUnknown, detail)?;
            }
        }
        Ok(())
    }

    /// Returns a required region, after checks of its location.
    fn find(&self, guid: Guid, what: &'static str, warnings: &mut Warnings) -> Result<Region> {
        let Some((index, entry)) = self.entries.iter().enumerate().find(|(_, entry)| entry.guid == guid) else {
            let structure = Structure::RegionTable(self.copy);
            let detail = Error::at(structure, region_table_offset(self.copy), ErrorKind::Missing { what });
            return Err(warnings.fatal(Rule::RegionMissing, detail));
        };
        warnings.require(Rule::RegionAlignment, self.check_alignment(index, entry))?;
        if entry.length.get() == 0 {
            let kind = ErrorKind::Field { field: "Length", found: 0, expected: "at least 1 MiB" };
            warnings.reject(Rule::RegionLength, self.at(index, offset_of!(RegionTableEntry, length), kind))?;
        }
        // Writers forget this flag (T5), and set it to other values than 1.
        let required = entry.required.get();
        if required != 1 {
            let kind = ErrorKind::Field { field: "Required", found: u64::from(required), expected: "1" };
            let detail = self.at(index, offset_of!(RegionTableEntry, required), kind);
            warnings.add(Rule::RegionRequired, detail);
        }
        Ok(region_of(entry))
    }

    fn check_alignment(&self, index: usize, entry: &RegionTableEntry) -> Result<()> {
        let file_offset = entry.file_offset.get();
        if file_offset < MIB || !file_offset.is_multiple_of(MIB) {
            let expected = "a multiple of 1 MiB, at least 1 MiB";
            let kind = ErrorKind::Field { field: "FileOffset", found: file_offset, expected };
            return Err(self.at(index, offset_of!(RegionTableEntry, file_offset), kind));
        }
        let length = u64::from(entry.length.get());
        if !length.is_multiple_of(MIB) {
            let kind = ErrorKind::Field { field: "Length", found: length, expected: "a multiple of 1 MiB" };
            return Err(self.at(index, offset_of!(RegionTableEntry, length), kind));
        }
        Ok(())
    }

    /// Checks that the metadata region is inside the file. (The BAT may be needed only in part, which its reader
    /// checks.)
    fn check_metadata_place(&self, metadata: &Region) -> Result<()> {
        if metadata.end().is_some_and(|end| end <= self.file_length) {
            return Ok(());
        }
        let kind = ErrorKind::OutOfBounds { length: u64::from(metadata.len), limit: self.file_length };
        Err(Error::at(Structure::MetadataRegion, metadata.offset, kind))
    }

    /// Returns all regions. Problems of those that are not needed are only warnings.
    fn all(&self, warnings: &mut Warnings) -> Vec<Region> {
        let mut all = Vec::with_capacity(self.entries.len());
        for (index, entry) in self.entries.iter().enumerate() {
            let region = region_of(entry);
            let structure = structure_of(&region);
            // The others were reported.
            if structure == Structure::OtherRegion {
                warnings.add_if_err(Rule::RegionAlignment, self.check_alignment(index, entry));
            }
            if structure != Structure::MetadataRegion && region.end().is_none_or(|end| end > self.file_length) {
                let kind = ErrorKind::OutOfBounds { length: u64::from(region.len), limit: self.file_length };
                warnings.add(Rule::RegionPlace, Error::at(structure, region.offset, kind));
            }
            all.push(region);
        }
        all
    }
}

fn region_of(entry: &RegionTableEntry) -> Region {
    Region {
        guid: entry.guid.to_uuid(),
        offset: entry.file_offset.get(),
        len: entry.length.get(),
        required: entry.required.get() != 0,
    }
}

fn structure_of(region: &Region) -> Structure {
    if region.guid == RegionTableEntry::BAT.to_uuid() {
        Structure::Bat
    } else if region.guid == RegionTableEntry::METADATA.to_uuid() {
        Structure::MetadataRegion
    } else {
        Structure::OtherRegion
    }
}

/// The parts of the file that belong to structures other than blocks.
#[derive(Debug)]
pub(crate) struct ReservedRanges {
    /// First byte, end, and structure: in order and disjoint.
    ranges: Vec<(u64, u64, Structure)>,
}

impl ReservedRanges {
    fn new(regions: &[Region], header: &CurrentHeader, file_length: u64, warnings: &mut Warnings) -> Result<Self> {
        let mut ranges = vec![(0, MIB, Structure::HeaderSection)];
        // An impossible location of a log is not reserved (T23, T30): the log is not in use, or it is ignored.
        let log_counts = header.check_log_alignment().is_ok() && header.check_log_place(file_length).is_ok();
        if let Some(end) = header.log_end().filter(|end| log_counts && *end > header.log_offset) {
            ranges.push((header.log_offset, end, Structure::Log));
        }
        for region in regions {
            let end = region.end().unwrap_or(u64::MAX);
            if end > region.offset {
                ranges.push((region.offset, end, structure_of(region)));
            }
        }
        ranges.sort_unstable_by_key(|(start, end, _)| (*start, *end));
        let mut disjoint: Vec<(u64, u64, Structure)> = Vec::with_capacity(ranges.len());
        for (start, end, what) in ranges {
            match disjoint.last().copied().filter(|before| start < before.1) {
                Some(before) => {
                    let kind = ErrorKind::Overlap { with: before.2, offset: before.0 };
                    warnings.reject(Rule::RegionOverlap, Error::at(what, start, kind))?;
                    if end > before.1 {
                        disjoint.push((before.1, end, what));
                    }
                }
                None => disjoint.push((start, end, what)),
            }
        }
        Ok(Self { ranges: disjoint })
    }

    /// Returns first byte, end, and structure of each part: in order and disjoint.
    pub(crate) fn ranges(&self) -> &[(u64, u64, Structure)] {
        &self.ranges
    }

    /// Returns the structure that the bytes from `start` to `end` overlap, and its file offset.
    #[inline]
    pub(crate) fn overlap(&self, start: u64, end: u64) -> Option<(Structure, u64)> {
        // Most blocks lie after all structures.
        if self.ranges.last().is_none_or(|(_, last_end, _)| *last_end <= start) {
            return None;
        }
        let index = self.ranges.partition_point(|(_, taken_end, _)| *taken_end <= start);
        self.ranges.get(index).filter(|(reserved, ..)| *reserved < end).map(|(reserved, _, what)| (*what, *reserved))
    }
}
