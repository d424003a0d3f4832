//! The copies of the region table as they are in the file (MS-VHDX 2.2.3), and the regions that they name.

use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::FromBytes;

use crate::checksum::crc32c_of_structure;
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::{Guid, MAX_TABLE_ENTRIES, RegionTableEntry, RegionTableHeader, region_table_offset};
use crate::num::to_u64;
use crate::source::View;

/// Region of the file (MS-VHDX 2.2.3.2).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Region {
    /// GUID of the region's type.
    pub guid: Uuid,
    /// File offset, in bytes.
    pub offset: u64,
    /// Length, in bytes.
    #[cfg_attr(feature = "serde", serde(rename = "length"))]
    pub len: u32,
    /// Whether a reader that does not know the region must refuse the file.
    pub required: bool,
}

impl Region {
    /// Returns the end (file offset), without overflow.
    pub(super) fn end(&self) -> Option<u64> {
        self.offset.checked_add(u64::from(self.len))
    }
}

/// A valid copy of the table: signature, checksum and count are right.
pub(super) struct Table {
    pub(super) bytes: Vec<u8>,
    pub(super) reserved: u32,
    pub(super) entries: Vec<RegionTableEntry>,
    /// In a salvage: entries with an unknown GUID that are taken for another region, and for which.
    pub(super) taken: Vec<(usize, &'static str)>,
}

impl Table {
    pub(super) fn read(view: &View, copy: u8) -> Result<Self> {
        Self::parse(view, copy, 0, true)
    }

    /// Returns the name of a required region that the table does not have.
    pub(super) fn missing(&self) -> Option<&'static str> {
        let regions = [(RegionTableEntry::BAT, "the BAT region"), (RegionTableEntry::METADATA, "the metadata region")];
        regions.into_iter().find(|(guid, _)| self.place_of(*guid).is_none()).map(|(_, what)| what)
    }

    /// Returns the file offset of a region.
    pub(super) fn place_of(&self, guid: Guid) -> Option<u64> {
        self.entries.iter().find(|entry| entry.guid == guid).map(|entry| entry.file_offset.get())
    }

    /// Parses a copy of the table of an image that begins at file offset `start`.
    pub(super) fn parse(view: &View, copy: u8, start: u64, is_checked: bool) -> Result<Self> {
        let (structure, offset) = (Structure::RegionTable(copy), start.saturating_add(region_table_offset(copy)));
        let at = |field: usize, kind| Error::at(structure, offset.saturating_add(to_u64(field)), kind);
        // A copy, so that the checked bytes are those that are used.
        let bytes = view.copy(structure, offset, RegionTableHeader::TABLE_LENGTH)?;
        let expected = crc32c_of_structure(&bytes, offset_of!(RegionTableHeader, checksum));
        let Ok((head, rest)) = RegionTableHeader::read_from_prefix(&bytes) else {
            return Err(at(0, ErrorKind::OutOfBounds { length: 16, limit: view.length() }));
        };
        if head.signature != *RegionTableHeader::SIGNATURE.as_bytes() && is_checked {
            return Err(at(0, ErrorKind::signature(&head.signature, RegionTableHeader::SIGNATURE)));
        }
        let found = head.checksum.get();
        if found != expected && is_checked {
            let kind = ErrorKind::Checksum { found, expected };
            return Err(at(offset_of!(RegionTableHeader, checksum), kind));
        }
        let count = head.entry_count.get();
        let entries = Some(count)
            .filter(|count| *count <= MAX_TABLE_ENTRIES)
            .and_then(|count| usize::try_from(count).ok())
            .and_then(|count| <[RegionTableEntry]>::ref_from_prefix_with_elems(rest, count).ok());
        let Some((entries, _)) = entries else {
            let kind = ErrorKind::Field { field: "EntryCount", found: u64::from(count), expected: "at most 2047" };
            return Err(at(offset_of!(RegionTableHeader, entry_count), kind));
        };
        let (entries, reserved) = (entries.to_vec(), head.reserved.get());
        Ok(Self { bytes, reserved, entries, taken: Vec::new() })
    }
}

/// Returns the file offsets of the regions of an image that begins at file offset `start`, by its valid region tables.
pub(super) fn named_by_table_at(view: &View, start: u64) -> Vec<u64> {
    let tables = (1..=2).filter_map(|copy| Table::parse(view, copy, start, true).ok());
    let places =
        tables.flat_map(|table| [RegionTableEntry::BAT, RegionTableEntry::METADATA].map(|guid| table.place_of(guid)));
    places.flatten().map(|place| start.saturating_add(place)).collect()
}
