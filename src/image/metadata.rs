//! Metadata region (MS-VHDX 2.6): the items that a reader needs.

use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::FromBytes;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::{FileParameters, Guid, MAX_TABLE_ENTRIES, MetadataEntry, MetadataTableHeader, U32, U64, item};
use crate::num::to_u64;
use crate::num::to_usize_saturating;
use crate::source::View;

use super::assumed::MetadataOverrides;
use super::region_table::Region;
use super::warning::Warnings;
use crate::error::{Rule, Severity};

/// The items of the file, found and with the right lengths, but not validated yet.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) file_parameters: Item<FileParameters>,
    pub(crate) virtual_disk_size: Item<U64>,
    pub(crate) logical_sector_size: Item<U32>,
    pub(crate) physical_sector_size: Option<Item<U32>>,
    pub(crate) virtual_disk_id: Option<Uuid>,
    /// File offset and length of the parent locator, in bytes.
    pub(crate) parent_locator: Option<(u64, u64)>,
    /// Number of entries of the table.
    pub(crate) entries: usize,
}

/// A value, and its file offset in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<T> {
    pub(crate) value: T,
    pub(crate) offset: u64,
}

/// Description of an item (MS-VHDX 2.6.2).
struct Known {
    id: Guid,
    name: &'static str,
    /// IsVirtualDisk and IsRequired.
    flags: u32,
}

const VIRTUAL_DISK: u32 = MetadataEntry::IS_VIRTUAL_DISK | MetadataEntry::IS_REQUIRED;

const KNOWN: [Known; 6] = [
    Known { id: item::FILE_PARAMETERS, name: "FileParameters", flags: MetadataEntry::IS_REQUIRED },
    Known { id: item::VIRTUAL_DISK_SIZE, name: "VirtualDiskSize", flags: VIRTUAL_DISK },
    Known { id: item::VIRTUAL_DISK_ID, name: "VirtualDiskId", flags: VIRTUAL_DISK },
    Known { id: item::LOGICAL_SECTOR_SIZE, name: "LogicalSectorSize", flags: VIRTUAL_DISK },
    Known { id: item::PHYSICAL_SECTOR_SIZE, name: "PhysicalSectorSize", flags: VIRTUAL_DISK },
    Known { id: item::PARENT_LOCATOR, name: "ParentLocator", flags: MetadataEntry::IS_REQUIRED },
];

/// Items that are in use without being in MS-VHDX, and have no meaning for a reader.
const MEANINGLESS: [Guid; 2] = [item::CHS_PARAMETERS, item::PMEM_LABEL_AREA];

fn known(entry: &MetadataEntry) -> Option<&'static Known> {
    // Users may use any GUID for their items, which have a name space of their own.
    KNOWN.iter().find(|known| entry.flags.get() & MetadataEntry::IS_USER == 0 && known.id == entry.item_id)
}

/// Reads the metadata table and the items that a reader needs.
///
/// # Errors
/// Fails if the table is damaged, a required item is missing, or an unknown item is marked as required.
pub(crate) fn read(
    view: &View,
    region: &Region,
    assumed: &MetadataOverrides,
    warnings: &mut Warnings,
) -> Result<Metadata> {
    let table = Table::read(view, region, warnings)?;
    table.check_understood(warnings)?;
    table.check_unique(warnings)?;
    table.check_places(warnings)?;
    table.check_overlaps(warnings)?;
    table.check_flags(warnings);
    let physical_sector_size = table.want(view, item::PHYSICAL_SECTOR_SIZE, "PhysicalSectorSize", warnings);
    let virtual_disk_id: Option<Item<Guid>> = table.want(view, item::VIRTUAL_DISK_ID, "VirtualDiskId", warnings);
    let parameters = table.need(view, item::FILE_PARAMETERS, "FileParameters");
    let has_parent = table.find(item::PARENT_LOCATOR).is_some();
    let flags = parameters.as_ref().map_or_else(
        |_| U32::new(if has_parent { FileParameters::HAS_PARENT } else { 0 }),
        |item: &Item<FileParameters>| item.value.flags,
    );
    let assumed_parameters = assumed.block_size.map(|size| FileParameters { block_size: U32::new(size), flags });
    let mut parameters = table.assume(parameters, assumed_parameters, "BlockSize", warnings);
    if let Ok(Item { value: FileParameters { flags, .. }, offset }) = &mut parameters
        && assumed.has_parent
        && flags.get() & FileParameters::HAS_PARENT == 0
    {
        *flags |= FileParameters::HAS_PARENT;
        let detail = Error::at(Structure::MetadataTable, *offset, ErrorKind::Overridden { field: "HasParent" });
        warnings.add_as(Rule::MetadataValues, Severity::Corruption, detail);
    }
    let size = table.need(view, item::VIRTUAL_DISK_SIZE, "VirtualDiskSize");
    let size = table.assume(size, assumed.disk_size.map(U64::new), "VirtualDiskSize", warnings);
    let sector_size = table.need(view, item::LOGICAL_SECTOR_SIZE, "LogicalSectorSize");
    let sector_size = table.assume(sector_size, assumed.sector_size.map(U32::new), "LogicalSectorSize", warnings);
    let sizes = warnings.both(Rule::MetadataValues, parameters, size);
    let ((file_parameters, virtual_disk_size), logical_sector_size) =
        warnings.both(Rule::MetadataValues, sizes, sector_size)?;
    Ok(Metadata {
        file_parameters,
        virtual_disk_size,
        logical_sector_size,
        physical_sector_size,
        virtual_disk_id: virtual_disk_id.map(|found| found.value.to_uuid()),
        parent_locator: table.find(item::PARENT_LOCATOR).map(|(_, entry)| table.place_of(entry)),
        entries: table.entries.len(),
    })
}

/// Returns the unused parts of the metadata region after its table: begin and end of each (file offsets). `entries` is
/// the number of entries of the table.
pub(crate) fn unused(view: &View, region: &Region, entries: usize) -> Vec<(u64, u64)> {
    let head = to_u64(size_of::<MetadataTableHeader>());
    let at = |within: u64| region.offset.saturating_add(within);
    let bytes = view.bytes(Structure::MetadataTable, at(0), MetadataTableHeader::TABLE_LENGTH).unwrap_or_default();
    let rest = bytes.get(to_usize_saturating(head)..).unwrap_or_default();
    let mut items: Vec<(u64, u64)> = entries_in(rest)
        .take(entries)
        .map(|entry| (u64::from(entry.offset.get()), u64::from(entry.length.get())))
        .filter(|(_, length)| *length > 0)
        .map(|(offset, length)| (offset, offset.saturating_add(length)))
        .collect();
    items.sort_unstable();
    let mut used_end = MetadataTableHeader::TABLE_LENGTH;
    let mut unused = Vec::new();
    for (start, end) in items.into_iter().chain([(region.len.into(), u64::MAX)]) {
        if start > used_end {
            unused.push((at(used_end), at(start.min(region.len.into()))));
        }
        used_end = used_end.max(end);
    }
    unused
}

/// Returns all possible entries, regardless of the count in the table.
fn entries_in(table: &[u8]) -> impl Iterator<Item = MetadataEntry> {
    table.chunks(size_of::<MetadataEntry>()).filter_map(|entry| MetadataEntry::read_from_bytes(entry).ok())
}

/// Location of an item in its region, and the index of its entry.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    end: u64,
    index: usize,
}

impl Span {
    /// Returns the other span, if this one, which does not begin before it, begins inside it.
    fn runs_into(&self, other: Option<Self>) -> Option<Self> {
        other.filter(|other| self.start < other.end)
    }

    fn farther(self, other: Option<Self>) -> Self {
        other.filter(|other| other.end >= self.end).unwrap_or(self)
    }
}

struct Table {
    /// Begin and end of the region (file offsets).
    start: u64,
    length: u64,
    entries: Vec<MetadataEntry>,
    /// Why there are no entries, if the file has lost the table: its content is unknown.
    lost: Option<Error>,
}

impl Table {
    fn read(view: &View, region: &Region, warnings: &mut Warnings) -> Result<Self> {
        let start = region.offset;
        let at = |field: usize, kind| Error::at(Structure::MetadataTable, start.saturating_add(to_u64(field)), kind);
        let nothing = Self { start, length: u64::from(region.len), entries: Vec::new(), lost: None };
        if region.offset == 0 && warnings.is_lenient() {
            // A search has not found the region.
            let what = "the metadata region";
            let lost = Some(Error::of(Structure::MetadataTable, ErrorKind::Missing { what }));
            return Ok(Self { lost, ..nothing });
        }
        let bytes = view.copy(Structure::MetadataTable, start, MetadataTableHeader::TABLE_LENGTH);
        let lost = bytes.as_ref().err().filter(|error| matches!(error.kind(), ErrorKind::Lost)).cloned();
        let Some(bytes) = warnings.accept(Rule::MetadataTable, bytes)? else { return Ok(Self { lost, ..nothing }) };
        let Ok((head, rest)) = MetadataTableHeader::read_from_prefix(&bytes) else {
            return Err(at(0, ErrorKind::OutOfBounds { length: 32, limit: view.length() }));
        };
        if head.signature != *MetadataTableHeader::SIGNATURE.as_bytes() {
            let kind = ErrorKind::Signature { found: head.signature, expected: MetadataTableHeader::SIGNATURE };
            warnings.reject(Rule::MetadataTable, at(0, kind))?;
            // This is not a table, unless it contains an item that every table has.
            if !entries_in(rest).take(64).any(|entry| known(&entry).is_some()) {
                return Ok(nothing);
            }
        }
        let count = head.entry_count.get();
        let entries = Some(count)
            .filter(|count| u32::from(*count) <= MAX_TABLE_ENTRIES)
            .and_then(|count| <[MetadataEntry]>::ref_from_prefix_with_elems(rest, usize::from(count)).ok());
        let Some((entries, _)) = entries else {
            let kind = ErrorKind::Field { field: "EntryCount", found: u64::from(count), expected: "at most 2047" };
            warnings.reject(Rule::MetadataCount, at(offset_of!(MetadataTableHeader, entry_count), kind))?;
            let entries = entries_in(rest).take_while(|entry| !entry.item_id.to_uuid().is_nil()).collect();
            return Ok(Self { entries, ..nothing });
        };
        let entries = entries.to_vec();
        let users = entries.iter().filter(|entry| entry.flags.get() & MetadataEntry::IS_USER != 0).count();
        if users > MetadataEntry::MAX_USER_ENTRIES {
            let expected = "at most 1024 entries of users";
            let kind = ErrorKind::Field { field: "EntryCount", found: to_u64(users), expected };
            warnings.reject(Rule::MetadataCount, at(offset_of!(MetadataTableHeader, entry_count), kind))?;
        }
        let reserved = [
            (offset_of!(MetadataTableHeader, reserved), "Reserved", u64::from(head.reserved.get())),
            // The byte does not matter: the first one that is not zero.
            (
                offset_of!(MetadataTableHeader, reserved2),
                "Reserved2",
                head.reserved2.into_iter().find(|byte| *byte != 0).map_or(0, u64::from),
            ),
        ];
        for (field, name, found) in reserved.into_iter().filter(|(.., found)| *found != 0) {
            let kind = ErrorKind::Field { field: name, found, expected: "0" };
            warnings.add(Rule::MetadataReserved, at(field, kind));
        }
        Ok(Self { entries, ..nothing })
    }

    /// Makes an error in a field of an entry.
    fn at(&self, index: usize, field: usize, kind: ErrorKind) -> Error {
        let within = index
            .saturating_mul(size_of::<MetadataEntry>())
            .saturating_add(size_of::<MetadataTableHeader>())
            .saturating_add(field);
        Error::at(Structure::MetadataTable, self.start.saturating_add(to_u64(within)), kind)
    }

    /// Checks that no unknown item is required. Items of users are always unknown.
    fn check_understood(&self, warnings: &mut Warnings) -> Result<()> {
        for (index, entry) in self.entries.iter().enumerate() {
            let flags = entry.flags.get();
            if entry.item_id == item::INCOMPLETE_FILE && flags & MetadataEntry::IS_USER == 0 {
                warnings.reject(Rule::MetadataUnknown, self.at(index, 0, ErrorKind::IncompleteFile))?;
                continue;
            }
            let is_understood =
                known(entry).is_some() || (flags & MetadataEntry::IS_USER == 0 && MEANINGLESS.contains(&entry.item_id));
            if flags & MetadataEntry::IS_REQUIRED != 0 && !is_understood {
                let detail = self.at(index, 0, ErrorKind::UnknownRequired { id: entry.item_id.to_uuid() });
                warnings.reject(Rule::MetadataUnknown, detail)?;
            }
        }
        Ok(())
    }

    fn check_unique(&self, warnings: &mut Warnings) -> Result<()> {
        let mut order: Vec<_> = self
            .entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.item_id.to_uuid(), entry.flags.get() & MetadataEntry::IS_USER, index))
            .collect();
        order.sort_unstable();
        for (one, other) in order.iter().zip(order.iter().skip(1)) {
            if (one.0, one.1) == (other.0, other.1) {
                let twice = self.at(other.2, 0, ErrorKind::Duplicate { id: other.0 });
                if self.known(other.2).is_some() {
                    warnings.reject(Rule::MetadataUnique, twice)?;
                } else {
                    warnings.add(Rule::MetadataUnique, twice);
                }
            }
        }
        Ok(())
    }

    /// Checks that items are in the region, after the table.
    fn check_places(&self, warnings: &mut Warnings) -> Result<()> {
        for (index, entry) in self.entries.iter().enumerate() {
            let (offset, length) = (entry.offset.get(), entry.length.get());
            let result = if length > MetadataEntry::MAX_LENGTH {
                let kind = ErrorKind::Field { field: "Length", found: u64::from(length), expected: "at most 1 MiB" };
                Err(self.at(index, offset_of!(MetadataEntry, length), kind))
            } else if length == 0 && offset != 0 {
                let expected = "0 for an empty item";
                let kind = ErrorKind::Field { field: "Offset", found: u64::from(offset), expected };
                Err(self.at(index, offset_of!(MetadataEntry, offset), kind))
            } else if length > 0 && u64::from(offset) < MetadataTableHeader::TABLE_LENGTH {
                let kind = ErrorKind::Field { field: "Offset", found: u64::from(offset), expected: "at least 64 KiB" };
                Err(self.at(index, offset_of!(MetadataEntry, offset), kind))
            } else if u64::from(offset).saturating_add(u64::from(length)) > self.length {
                let limit = self.start.saturating_add(self.length);
                let kind = ErrorKind::OutOfBounds { length: u64::from(length), limit };
                Err(self.at(index, offset_of!(MetadataEntry, offset), kind))
            } else {
                Ok(())
            };
            if known(entry).is_some() {
                warnings.require(Rule::MetadataPlace, result)?;
            } else {
                warnings.add_if_err(Rule::MetadataPlace, result);
            }
        }
        Ok(())
    }

    fn check_overlaps(&self, warnings: &mut Warnings) -> Result<()> {
        let mut order: Vec<_> = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.length.get() > 0)
            .map(|(index, entry)| (entry.offset.get(), entry.length.get(), index))
            .collect();
        order.sort_unstable();
        // Of all previous items, and of the known ones, the one that reaches farthest: a long one may cover several.
        let (mut farthest, mut farthest_known): (Option<Span>, Option<Span>) = (None, None);
        for (offset, length, index) in order {
            let span = Span { start: offset.into(), end: u64::from(offset).saturating_add(length.into()), index };
            let is_known = self.known(index).is_some();
            if let Some(with) = span.runs_into(farthest_known).filter(|_| is_known) {
                warnings.reject(Rule::MetadataOverlap, self.overlap(&span, &with))?;
            } else if let Some(with) = span.runs_into(farthest) {
                warnings.add(Rule::MetadataOverlap, self.overlap(&span, &with));
            }
            farthest = Some(span.farther(farthest));
            if is_known {
                farthest_known = Some(span.farther(farthest_known));
            }
        }
        Ok(())
    }

    fn overlap(&self, span: &Span, with: &Span) -> Error {
        let with_item = Structure::MetadataItem(self.known(with.index).map_or("(unknown)", |known| known.name));
        let kind = ErrorKind::Overlap { with: with_item, offset: self.start.saturating_add(with.start) };
        self.at(span.index, offset_of!(MetadataEntry, offset), kind)
    }

    fn known(&self, index: usize) -> Option<&'static Known> {
        self.entries.get(index).and_then(known)
    }

    fn check_flags(&self, warnings: &mut Warnings) {
        for (index, entry) in self.entries.iter().enumerate() {
            let (flags, reserved) = (entry.flags.get(), entry.reserved2.get());
            let mut odd = |check, field, name, found: u32, expected| {
                let kind = ErrorKind::Field { field: name, found: found.into(), expected };
                warnings.add(check, self.at(index, field, kind));
            };
            if flags & !(MetadataEntry::IS_USER | VIRTUAL_DISK) != 0 {
                let field = offset_of!(MetadataEntry, flags);
                odd(Rule::MetadataReserved, field, "Flags", flags, "bits 0 to 2 only");
            }
            if reserved != 0 {
                odd(Rule::MetadataReserved, offset_of!(MetadataEntry, reserved2), "Reserved2", reserved, "0");
            }
            if let Some(known) = known(entry)
                && flags & VIRTUAL_DISK != known.flags
            {
                let expected = if known.flags == VIRTUAL_DISK { "6" } else { "4" };
                odd(Rule::MetadataFlags, offset_of!(MetadataEntry, flags), "Flags", flags, expected);
            }
        }
    }

    /// Returns the entry of a system item.
    fn find(&self, id: Guid) -> Option<(usize, &MetadataEntry)> {
        let is_it = |entry: &&MetadataEntry| known(entry).is_some_and(|known| known.id == id);
        self.entries.iter().enumerate().find(|(_, entry)| is_it(entry))
    }

    /// Returns file offset and length of an item, in bytes.
    fn place_of(&self, entry: &MetadataEntry) -> (u64, u64) {
        (self.start.saturating_add(u64::from(entry.offset.get())), u64::from(entry.length.get()))
    }

    /// Replaces the value of an item by the caller's, with a warning: everything that is read depends on it.
    fn assume<T: PartialEq>(
        &self,
        found: Result<Item<T>>,
        assumed: Option<T>,
        field: &'static str,
        warnings: &mut Warnings,
    ) -> Result<Item<T>> {
        let Some(value) = assumed else { return found.map_err(|error| warnings.fatal(Rule::MetadataValues, error)) };
        let detail = match found {
            Ok(item) if item.value == value => return Ok(item),
            Ok(item) => {
                let kind = ErrorKind::Overridden { field };
                Error::at(Structure::MetadataTable, item.offset, kind)
            }
            Err(error) => error,
        };
        warnings.add_as(Rule::MetadataValues, Severity::Corruption, detail);
        Ok(Item { value, offset: self.start })
    }

    /// Reads a required item, which must have exactly the length of a `T`.
    fn need<T: FromBytes>(&self, view: &View, id: Guid, name: &'static str) -> Result<Item<T>> {
        let Some((index, entry)) = self.find(id) else {
            let missing = || Error::at(Structure::MetadataTable, self.start, ErrorKind::Missing { what: name });
            return Err(self.lost.clone().unwrap_or_else(missing));
        };
        let (offset, length) = self.place_of(entry);
        if length != to_u64(size_of::<T>()) {
            let expected = if size_of::<T>() == 4 {
                "4"
            } else if size_of::<T>() == 8 {
                "8"
            } else {
                "16"
            };
            let kind = ErrorKind::Field { field: "Length", found: length, expected };
            return Err(self.at(index, offset_of!(MetadataEntry, length), kind));
        }
        let value = view.fetch(Structure::MetadataItem(name), offset)?;
        Ok(Item { value, offset })
    }

    /// Reads an optional item, with a warning if it is missing.
    fn want<T: FromBytes>(
        &self,
        view: &View,
        id: Guid,
        name: &'static str,
        warnings: &mut Warnings,
    ) -> Option<Item<T>> {
        match self.need(view, id, name) {
            Ok(item) => Some(item),
            Err(detail) => {
                warnings.add(Rule::MetadataPresent, detail);
                None
            }
        }
    }
}
