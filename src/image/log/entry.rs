//! Entries of the log (MS-VHDX 2.3.1): validation, and their changes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use uuid::Uuid;
use zerocopy::FromBytes;

use crate::checksum::{crc32c_append, crc32c_of_structure};
use crate::error::Structure;
use crate::format::{DataSector, Descriptor, KIB_64, LogEntryHeader, SECTOR_4K};
use crate::num::to_u64;
use crate::source::{Bytes, Change, Sector, View};

use super::super::header::CurrentHeader;
use super::sectors;

/// Number of sectors to read before their memory is released: 1 MiB, of which the length of a log is a multiple.
pub(crate) const STEP: u64 = 256;

/// Number of sectors that are read at once from a source that cannot borrow: 256 KiB.
const READ_AT_ONCE: u64 = 64;

/// The ring of sectors with the entries. An entry that reaches the end continues at the beginning.
#[derive(Debug)]
pub(crate) struct Ring<'a> {
    view: &'a View,
    offset: u64,
    sectors: u64,
    /// For sources that cannot borrow: the sectors that were read last.
    read: RefCell<ReadSectors>,
}

/// Sectors in memory, from number `first` on.
#[derive(Debug, Default)]
struct ReadSectors {
    first: u64,
    bytes: Vec<u8>,
}

impl ReadSectors {
    fn end(&self) -> u64 {
        self.first.saturating_add(sectors(to_u64(self.bytes.len())))
    }

    fn get(&self, index: u64) -> Option<&LogSector> {
        let start = usize::try_from(index.checked_sub(self.first)?.checked_mul(SECTOR_4K)?).ok()?;
        self.bytes.get(start..)?.first_chunk()
    }
}

/// A stored sector of the log.
type LogSector = [u8; 4096];

impl<'a> Ring<'a> {
    /// Makes the ring of a log that is inside the file.
    pub(crate) fn new(view: &'a View, header: &CurrentHeader) -> Self {
        let sectors = sectors(u64::from(header.log_length));
        Self { view, offset: header.log_offset, sectors, read: RefCell::default() }
    }

    pub(crate) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Returns the sector with this index. The index continues after the end of the ring.
    fn sector(&self, index: u64) -> Option<Cow<'a, LogSector>> {
        let index = index.checked_rem(self.sectors)?;
        if !self.view.source().can_borrow() {
            return self.read_sector(index).map(Cow::Owned);
        }
        match self.view.borrow(Structure::Log, self.file_offset(index), SECTOR_4K) {
            Ok(Bytes::Data(bytes)) => <&LogSector>::try_from(bytes).ok().map(Cow::Borrowed),
            _ => None,
        }
    }

    fn read_sector(&self, index: u64) -> Option<LogSector> {
        let mut read = self.read.borrow_mut();
        if let Some(sector) = read.get(index) {
            return Some(*sector);
        }
        // Sequential access reads many sectors at once, random access does not.
        let most = if index == read.end() { READ_AT_ONCE } else { 1 };
        self.read_sectors(&mut read, index, most);
        if read.get(index).is_none() {
            self.read_sectors(&mut read, index, 1);
        }
        read.get(index).copied()
    }

    /// Reads `count` sectors from `first` on, or those before one that cannot be read.
    fn read_sectors(&self, read: &mut ReadSectors, first: u64, count: u64) {
        let count = count.min(self.sectors.saturating_sub(first));
        let length = count.saturating_mul(SECTOR_4K);
        let mut memory = std::mem::take(&mut read.bytes);
        let got = match self.view.run(Structure::Log, self.file_offset(first), length, &mut memory) {
            // Preloaded bytes are not in `memory`.
            Ok(Bytes::Data(bytes)) => bytes.to_vec(),
            _ => Vec::new(),
        };
        *read = ReadSectors { first, bytes: got };
    }

    /// Returns whether an entry may begin at a sector: whether the sector has its signature.
    pub(crate) fn may_begin(&self, index: u64) -> bool {
        self.sector(index).is_some_and(|sector| sector.starts_with(&LogEntryHeader::SIGNATURE))
    }

    /// Returns the end of the hole of the file at sector `index`.
    pub(crate) fn hole_end(&self, index: u64) -> u64 {
        let end = self.view.known_zero_end(self.file_offset(index), self.file_offset(self.sectors));
        sectors(end.saturating_sub(self.offset))
    }

    /// Returns the end of the data of the file at sector `index`.
    pub(crate) fn data_end(&self, index: u64) -> u64 {
        let end = self.view.data_end(self.file_offset(index), self.file_offset(self.sectors));
        // A sector that is a hole in part is read.
        end.saturating_sub(self.offset).div_ceil(SECTOR_4K)
    }

    /// Informs the system that the sectors from `start` to `end` are about to be read.
    pub(crate) fn will_need(&self, start: u64, end: u64) {
        let offset = self.file_offset(start);
        if self.view.source().can_borrow() {
            self.view.will_need(offset, self.file_offset(end).saturating_sub(offset));
        } else {
            self.read_sectors(&mut self.read.borrow_mut(), start, end.saturating_sub(start));
        }
    }

    /// Releases the memory of the sectors from `start` to `end`.
    pub(crate) fn forget(&self, start: u64, end: u64) {
        self.view.forget(self.file_offset(start), self.file_offset(end));
    }

    /// Notes a sector of a sequential pass: releases the memory of every `STEP` sectors.
    fn pass(&self, index: u64) {
        let Some(index) = index.checked_rem(self.sectors) else { return };
        if index.is_multiple_of(STEP) {
            let end = if index == 0 { self.sectors } else { index };
            self.forget(end.saturating_sub(STEP), end);
        }
    }

    /// Returns the file offset of a sector.
    pub(crate) fn file_offset(&self, index: u64) -> u64 {
        self.offset.saturating_add(index.saturating_mul(SECTOR_4K))
    }

    /// Returns the file range of the log: first byte and end.
    fn file_range(&self) -> (u64, u64) {
        (self.offset, self.file_offset(self.sectors))
    }
}

/// A valid entry. Offsets and lengths in the ring are in sectors of 4 KiB.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) tail: u64,
    pub(crate) sequence_number: u64,
    pub(crate) descriptors: u32,
    pub(crate) log_guid: Uuid,
    pub(crate) flushed_file_offset: u64,
    pub(crate) last_file_offset: u64,
}

/// Reason why something that begins like a log entry is invalid.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEntryError {
    /// Its GUID is that of another log.
    OtherLog,
    /// A reserved field is not zero.
    Reserved,
    /// Its sequence number is 0.
    SequenceNumber,
    /// Its length is not a multiple of 4 KiB, is longer than the log, or contradicts its descriptors.
    Length,
    /// Its tail is not a multiple of 4 KiB, or not in the log.
    Tail,
    /// The descriptor with this index does not belong to the entry.
    Descriptor(u32),
    /// The range that the descriptor with this index changes is not aligned to 4 KiB, or its end overflows.
    DescriptorRange(u32),
    /// The descriptor with this index changes the headers or the log itself.
    DescriptorPlace(u32),
    /// The data sector with this index does not belong to the entry.
    DataSector(u32),
    /// Its checksum is wrong.
    Checksum,
}

impl fmt::Display for LogEntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherLog => f.write_str("other LogGuid"),
            Self::Reserved => f.write_str("reserved field not zero"),
            Self::SequenceNumber => f.write_str("SequenceNumber 0"),
            Self::Length => f.write_str("wrong EntryLength"),
            Self::Tail => f.write_str("wrong Tail"),
            Self::Descriptor(index) => write!(f, "wrong descriptor {index}"),
            Self::DescriptorRange(index) => write!(f, "descriptor {index} is not aligned to 4 KiB"),
            Self::DescriptorPlace(index) => write!(f, "descriptor {index} changes headers or log"),
            Self::DataSector(index) => write!(f, "wrong data sector {index}"),
            Self::Checksum => f.write_str("wrong CRC-32C"),
        }
    }
}

/// Descriptors that fit after the header of an entry in its first sector, and in each following sector.
const FIRST_DESCRIPTORS: u64 = 126;
const NEXT_DESCRIPTORS: u64 = 128;

impl Entry {
    /// Reads and validates the entry that begins at sector `start`, which has the signature of an entry. If `log_guid`
    /// is given, entries of other logs are invalid.
    ///
    /// The order of the checks makes the work on a whole ring linear, whatever it contains. Every sector of an entry
    /// except the first begins with `desc`, `zero` or `data`, never with `loge`; so if the sectors are checked one by
    /// one first, no sector is read for more than one beginning, and checksums are computed only for entries that do
    /// not overlap.
    pub(crate) fn read(ring: &Ring<'_>, start: u64, log_guid: Option<Uuid>) -> Result<Self, LogEntryError> {
        let first = ring.sector(start).ok_or(LogEntryError::Length)?;
        let (head, _) = LogEntryHeader::ref_from_prefix(&first[..]).map_err(|_| LogEntryError::Length)?;
        if log_guid.is_some_and(|log_guid| head.log_guid.to_uuid() != log_guid) {
            return Err(LogEntryError::OtherLog);
        }
        if head.reserved.get() != 0 {
            return Err(LogEntryError::Reserved);
        }
        let sequence_number = head.sequence_number.get();
        if sequence_number == 0 {
            return Err(LogEntryError::SequenceNumber);
        }
        let (length, tail) = (u64::from(head.entry_length.get()), u64::from(head.tail.get()));
        if !length.is_multiple_of(SECTOR_4K) || length == 0 || sectors(length) > ring.sectors {
            return Err(LogEntryError::Length);
        }
        if !tail.is_multiple_of(SECTOR_4K) || sectors(tail) >= ring.sectors {
            return Err(LogEntryError::Tail);
        }
        let entry = Self {
            start,
            length: sectors(length),
            tail: sectors(tail),
            sequence_number,
            descriptors: head.descriptor_count.get(),
            log_guid: head.log_guid.to_uuid(),
            flushed_file_offset: head.flushed_file_offset.get(),
            last_file_offset: head.last_file_offset.get(),
        };
        entry.check_descriptors(ring)?;
        entry.check_data_sectors(ring)?;
        if entry.checksum(ring) == Some(head.checksum.get()) { Ok(entry) } else { Err(LogEntryError::Checksum) }
    }

    /// Returns the number of sectors with header and descriptors.
    fn descriptor_sectors(&self) -> u64 {
        u64::from(self.descriptors).saturating_sub(FIRST_DESCRIPTORS).div_ceil(NEXT_DESCRIPTORS).saturating_add(1)
    }

    /// Returns the descriptors, with their indices. `None` if the sector cannot be read.
    fn descriptors<'r>(&self, ring: &'r Ring<'_>) -> impl Iterator<Item = (u32, Option<Descriptor>)> + use<'r> {
        let start = self.start;
        let mut sector: Option<Cow<'r, LogSector>> = None;
        (0..self.descriptors).map(move |index| {
            // The header takes the space of two descriptors.
            let place = u64::from(index).saturating_add(2);
            let (at, within) = (start.saturating_add(place / NEXT_DESCRIPTORS), place % NEXT_DESCRIPTORS);
            if within == 0 {
                ring.pass(at);
            }
            if within == 0 || index == 0 {
                sector = ring.sector(at);
            }
            let descriptor = sector.as_ref().and_then(|sector| {
                let within = usize::try_from(within).ok()?.checked_mul(size_of::<Descriptor>())?;
                Some(Descriptor::read_from_prefix(sector.get(within..)?).ok()?.0)
            });
            (index, descriptor)
        })
    }

    /// Checks all descriptors, and the total length.
    fn check_descriptors(&self, ring: &Ring<'_>) -> Result<(), LogEntryError> {
        if self.descriptor_sectors() > self.length {
            return Err(LogEntryError::Length);
        }
        let mut data_sectors = 0_u64;
        for (index, descriptor) in self.descriptors(ring) {
            let descriptor = descriptor.ok_or(LogEntryError::Descriptor(index))?;
            let length = match descriptor.signature {
                Descriptor::DATA => {
                    data_sectors = data_sectors.saturating_add(1);
                    SECTOR_4K
                }
                Descriptor::ZERO => descriptor.zero_length(),
                _ => return Err(LogEntryError::Descriptor(index)),
            };
            if descriptor.sequence_number.get() != self.sequence_number {
                return Err(LogEntryError::Descriptor(index));
            }
            let offset = descriptor.file_offset.get();
            let end = offset.checked_add(length).ok_or(LogEntryError::DescriptorRange(index))?;
            if !offset.is_multiple_of(SECTOR_4K) || !length.is_multiple_of(SECTOR_4K) {
                return Err(LogEntryError::DescriptorRange(index));
            }
            let (log, log_end) = ring.file_range();
            // A log must not change the headers or itself while it is replayed.
            if offset < 3 * KIB_64 || (offset < log_end && end > log) {
                return Err(LogEntryError::DescriptorPlace(index));
            }
        }
        if self.descriptor_sectors().checked_add(data_sectors) == Some(self.length) {
            Ok(())
        } else {
            Err(LogEntryError::Length)
        }
    }

    /// Returns the numbers of the data sectors, in the order of the data descriptors: zero descriptors have none.
    fn data_sectors<'r>(&self, ring: &'r Ring<'_>) -> impl Iterator<Item = u64> + use<'r> {
        let start = self.start;
        (self.descriptor_sectors()..self.length).map(move |index| {
            let index = start.saturating_add(index);
            ring.pass(index);
            index
        })
    }

    fn check_data_sectors(&self, ring: &Ring<'_>) -> Result<(), LogEntryError> {
        for (index, number) in (0_u32..).zip(self.data_sectors(ring)) {
            let sector = ring.sector(number).ok_or(LogEntryError::DataSector(index))?;
            let sector = DataSector::ref_from_bytes(&sector[..]).map_err(|_| LogEntryError::DataSector(index))?;
            let sequence = u64::from(sector.sequence_high.get()) << 32 | u64::from(sector.sequence_low.get());
            if sector.signature != DataSector::SIGNATURE || sequence != self.sequence_number {
                return Err(LogEntryError::DataSector(index));
            }
        }
        Ok(())
    }

    /// Computes the checksum of the stored entry.
    fn checksum(&self, ring: &Ring<'_>) -> Option<u32> {
        let first = ring.sector(self.start)?;
        let crc = crc32c_of_structure(&first[..], std::mem::offset_of!(LogEntryHeader, checksum));
        (1..self.length).map(|index| self.start.saturating_add(index)).try_fold(crc, |crc, index| {
            ring.pass(index);
            Some(crc32c_append(crc, &ring.sector(index)?[..]))
        })
    }

    /// Returns the changes of a valid entry, in order.
    pub(crate) fn changes<'r>(&self, ring: &'r Ring<'_>) -> impl Iterator<Item = Change<Rebuild>> + use<'r> {
        let mut data_sectors = self.data_sectors(ring);
        self.descriptors(ring).filter_map(move |(_, descriptor)| {
            let descriptor = descriptor?;
            let start = descriptor.file_offset.get();
            if descriptor.signature == Descriptor::ZERO {
                return Some(Change { start, end: start.saturating_add(descriptor.zero_length()), sector: None });
            }
            let Descriptor { leading_bytes, trailing_bytes, .. } = descriptor;
            let sector = Rebuild { leading_bytes, trailing_bytes, data: data_sectors.next()? };
            Some(Change { start, end: start.saturating_add(SECTOR_4K), sector: Some(sector) })
        })
    }
}

/// The parts of a sector: the descriptor has its two ends, which are replaced by stamps in the data sector.
#[derive(Clone, Copy)]
pub(crate) struct Rebuild {
    leading_bytes: [u8; 8],
    trailing_bytes: [u8; 4],
    /// Number of the data sector.
    data: u64,
}

impl Rebuild {
    /// Rebuilds the sector. Returns `None` if the data sector, which was read before, cannot be read any more.
    pub(crate) fn sector(&self, ring: &Ring<'_>) -> Option<Box<Sector>> {
        let data = ring.sector(self.data)?;
        let data = DataSector::ref_from_bytes(&data[..]).ok()?;
        let mut sector = Box::new([0; 4096]);
        let bytes = self.leading_bytes.iter().chain(&data.data).chain(&self.trailing_bytes);
        sector.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Some(sector)
    }
}
