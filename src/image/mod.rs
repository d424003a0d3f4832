//! One VHDX file: its structures, and its part of the disk.

mod assumed;
pub(crate) mod bat;
pub(crate) mod geometry;
pub(crate) mod header;
mod identifier;
mod locator;
pub(crate) mod log;
mod lost;
pub(crate) mod metadata;
mod other_format;
pub(crate) mod region;
mod region_table;
mod search;
mod warning;

use std::path::Path;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result, Rule, Severity, Structure};
use crate::format::{KIB_64, MetadataTableHeader, PayloadBlockState};
use crate::source::{Bytes, Source, Stored, View};

use bat::Bat;
use geometry::Geometry;
use region::{Regions, ReservedRanges};

pub use assumed::MetadataOverrides;
pub(crate) use bat::BlockLookup;
pub use bat::BlockStates;
pub use geometry::ImageKind;
pub use header::CurrentHeader;
pub use locator::{Linkage, ParentLocator};
pub use log::{EntryContent, EntryStatus, LogEntryError, LogPolicy, LogReport, LogReportEntry, LogState, Replay};
pub use region_table::Region;
pub use warning::{Strictness, Warning};
pub(crate) use warning::{Warnings, severity_of};

/// Open VHDX file, with its headers checked, its log replayed in memory, and its tables found.
///
/// A differencing image is only a part of a disk: see [`Disk`](crate::Disk).
#[derive(Debug)]
pub struct Image {
    pub(crate) view: View,
    pub(crate) creator: String,
    pub(crate) header: CurrentHeader,
    pub(crate) log_state: LogState,
    pub(crate) regions: Regions,
    /// In a salvage: the ranges that blocks certainly cannot share. A region is no longer than its content.
    pub(crate) reserved_for_salvage: Option<ReservedRanges>,
    pub(crate) geometry: Geometry,
    pub(crate) virtual_disk_id: Option<Uuid>,
    /// File offset and length of the parent locator item, in bytes.
    parent_locator: Option<(u64, u64)>,
    /// Number of entries of the metadata table.
    pub(crate) metadata_entries: usize,
    /// File offset of block 0, by order of the caller: see [`MetadataOverrides::is_linear`].
    assumed_start: Option<u64>,
    pub(crate) warnings: Warnings,
    /// Warnings of the content, and the ranges of the disk that they concern, as soon as the image was surveyed.
    #[cfg(feature = "ops")]
    pub(crate) surveyed: std::sync::OnceLock<Vec<(Warning, Option<std::ops::Range<u64>>)>>,
}

/// Number of bytes that are read of the identifier and of each header: the rest of their 64 KiB is reserved
/// (MS-VHDX 2.2).
const HEADER_PAGE: u64 = 4096;

/// Offsets of the identifier and the two headers, in bytes (MS-VHDX 2.2).
const HEADERS: [u64; 3] = [0, KIB_64, 2 * KIB_64];

/// Start and end of the region tables, in bytes (MS-VHDX 2.2).
const REGION_TABLES: (u64, u64) = (3 * KIB_64, 5 * KIB_64);

/// The metadata table, and the space for items that most images use, in bytes (MS-VHDX 2.6).
const USUAL_METADATA: u64 = MetadataTableHeader::TABLE_LENGTH + 4096;

impl Image {
    /// Opens an image. The cost depends only on its log: the BAT is read when it is needed.
    ///
    /// The order is that of the format: identifier, headers, log, region tables, metadata, BAT (MS-VHDX 2.2 to 2.6).
    /// Nothing after the headers is read before the log has been replayed.
    ///
    /// # Errors
    /// [`Category::NotVhdx`](crate::Category::NotVhdx), [`Category::Corrupt`](crate::Category::Corrupt),
    /// [`Category::Unsupported`](crate::Category::Unsupported), or [`Category::DirtyLog`](crate::Category::DirtyLog) by
    /// `log_policy`; [`ErrorKind::Lost`], unless only one copy of a structure that exists twice is lost.
    pub fn open(source: Source, log_policy: LogPolicy) -> Result<Self> {
        Self::open_noting(source, log_policy, &MetadataOverrides::default(), &mut Warnings::default())
    }

    /// Opens an image, also a damaged one: with [`Strictness::Salvage`], everything that can be opened is, and the
    /// warnings list the problems. Values in `assumed` replace those of the metadata.
    ///
    /// # Errors
    /// The errors of [`Image::open`]; with [`Strictness::Salvage`], only if there is no region table and a search does
    /// not find the regions, or a necessary size is unknown.
    pub fn open_with(
        source: Source,
        log_policy: LogPolicy,
        strictness: Strictness,
        assumed: &MetadataOverrides,
    ) -> Result<Self> {
        Self::open_noting(source, log_policy, assumed, &mut Warnings::new(strictness))
    }

    /// Opens an image, and adds warnings to `warnings` also if that fails.
    pub(crate) fn open_noting(
        source: Source,
        log_policy: LogPolicy,
        assumed: &MetadataOverrides,
        warnings: &mut Warnings,
    ) -> Result<Self> {
        let file = source.clone();
        let view = View::new(source);
        let failed = view.failed_reads();
        file.read_exactly(true);
        let opened = Self::parse(view, log_policy, assumed, warnings);
        file.read_exactly(false);
        // If a part of the file is lost, other errors are not those of the file's content.
        let noted = opened.as_ref().map_or(&*warnings, |image| &image.warnings);
        match (lost::check(&file, &failed, noted), opened) {
            (Ok(()), opened) => opened,
            (Err(lost), Ok(mut image)) => {
                image.warnings.reject(Rule::Medium, lost)?;
                Ok(image)
            }
            (Err(lost), Err(_)) => Err(warnings.fatal(Rule::Medium, lost)),
        }
        .map_err(|error| Self::not_vhdx(&error, warnings).unwrap_or(error).in_file(file.path()))
    }

    /// Returns what a file is that a salvage cannot open, if it is certainly no image, or nothing of an image is in it.
    /// All other problems of the file follow from that. A file with any part of an image is one whose beginning was
    /// overwritten, whatever with.
    fn not_vhdx(error: &Error, warnings: &mut Warnings) -> Option<Error> {
        let is_lost = |rule| warnings.as_slice().iter().any(|warning| warning.rule == rule);
        let has_part = matches!(error.kind(), ErrorKind::RegionSearch { found } if !found.is_empty());
        if has_part || !is_lost(Rule::Headers) || !is_lost(Rule::RegionTables) {
            return None;
        }
        let is_nothing_there = matches!(error.kind(), ErrorKind::RegionSearch { found } if found.is_empty());
        let is_other =
            |error: &Error| error.looks_like().is_some_and(|format| is_nothing_there || format.group.is_certain());
        let other = warnings.as_slice().iter().map(|warning| &warning.detail).find(|detail| is_other(detail))?.clone();
        *warnings = Warnings::new(Strictness::Salvage);
        Some(warnings.fatal(Rule::Signature, other))
    }

    fn parse(
        mut view: View,
        log_policy: LogPolicy,
        assumed: &MetadataOverrides,
        warnings: &mut Warnings,
    ) -> Result<Self> {
        // Most of the first 320 KiB is reserved, and a chain may have hundreds of files.
        HEADERS.iter().for_each(|at| view.preload(*at, HEADER_PAGE));
        view.preload(REGION_TABLES.0, REGION_TABLES.1.saturating_sub(REGION_TABLES.0));
        let creator = identifier::read(&view, warnings)?;
        let header = header::select(&view, warnings)?;
        let log_state = log::replay(&mut view, &header, log_policy, warnings)?;
        let mut regions = region::read(&view, &header, assumed, warnings)?;
        view.preload(regions.metadata.offset, u64::from(regions.metadata.len).min(USUAL_METADATA));
        let metadata = metadata::read(&view, &regions.metadata, assumed, warnings)?;
        let geometry = Geometry::new(&metadata, warnings)?;
        if regions.bat.offset > 0 || regions.copy.is_some() {
            warnings.require(Rule::BatSize, bat::check_region(&view, &regions.bat, &geometry))?;
        }
        if let Some((offset, _)) = metadata.parent_locator.filter(|_| geometry.kind != ImageKind::Differencing) {
            let expected = "2 (HasParent), since there is a parent locator";
            let found = u64::from(metadata.file_parameters.value.flags.get());
            let kind = ErrorKind::Field { field: "flags", found, expected };
            // If it had a parent, content of the parent reads as zeros now.
            let detail = Error::at(Structure::ParentLocator, offset, kind);
            warnings.add_as(Rule::ParentLocator, Severity::Unchecked, detail);
        }
        let reserved_for_salvage =
            warnings.is_lenient().then(|| regions.reserved_for_salvage(&view, &header, geometry.bat_length()));
        let is_linear = assumed.is_linear && geometry.kind != ImageKind::Differencing;
        if is_linear && regions.bat.len > 0 && search::is_no_bat(&view, &regions.metadata, &regions.bat, &geometry) {
            let what = "not used, since almost all of its entries are damaged";
            let detail = Error::at(Structure::Bat, regions.bat.offset, ErrorKind::Text { what });
            warnings.add_as(Rule::LostBlocks, Severity::Corruption, detail);
            regions.bat.len = 0;
        }
        let assumed_start = is_linear.then(|| {
            let Region { offset, len: length, .. } = regions.bat;
            let reserved = reserved_for_salvage.as_ref().unwrap_or(&regions.reserved);
            let (view, geometry, length) = (&view, &geometry, length.into());
            let (start, other) = Bat { view, geometry, reserved, offset, length, assumed_start: None }.linear_start();
            let detail = Error::at(Structure::Bat, offset, ErrorKind::AssumedPlaces { offset: start, other });
            warnings.add_as(Rule::LostBlocks, Severity::Corruption, detail);
            start
        });
        view.release_preloaded();
        Ok(Self {
            reserved_for_salvage,
            view,
            creator,
            header,
            log_state,
            regions,
            geometry,
            virtual_disk_id: metadata.virtual_disk_id,
            parent_locator: metadata.parent_locator,
            metadata_entries: metadata.entries,
            assumed_start,
            warnings: std::mem::take(warnings),
            #[cfg(feature = "ops")]
            surveyed: std::sync::OnceLock::new(),
        })
    }

    /// What the current header of an image says, without a look at anything after the headers: for inventories of many
    /// images. Reads three pages of 4 KiB (MS-VHDX 2.2).
    ///
    /// # Errors
    /// The errors of [`Image::open`], if the file is not an image, or has no current header.
    pub fn identity(source: &Source) -> Result<CurrentHeader> {
        Self::header_of(source.clone(), Strictness::Strict)
    }

    /// Returns the current header. With [`Strictness::Salvage`], the signature of the file is not required.
    ///
    /// # Errors
    /// The errors of [`Image::identity`].
    pub(crate) fn header_of(source: Source, strictness: Strictness) -> Result<CurrentHeader> {
        source.read_exactly(true);
        let file = source.clone();
        let header = Self::read_header(View::new(source), strictness);
        file.read_exactly(false);
        header.map_err(|error| error.in_file(file.path()))
    }

    fn read_header(mut view: View, strictness: Strictness) -> Result<CurrentHeader> {
        HEADERS.iter().for_each(|at| view.preload(*at, HEADER_PAGE));
        let mut noted = Warnings::default();
        let signature = match strictness {
            Strictness::Salvage => Ok(()),
            Strictness::Strict => identifier::check_signature(&view),
        };
        let header = signature.and_then(|()| header::select(&view, &mut noted));
        // Both have checked the pages that they have read, except for the end of a file that has become shorter.
        view.source().check_still_has(view.length())?;
        header
    }

    /// Returns the source: the bytes of the file, without the changes of a replay.
    #[must_use]
    pub fn source(&self) -> &Source {
        self.view.source()
    }

    /// Returns the path under which the file was opened, if any.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.source().path()
    }

    /// Returns the length of the file in bytes, including growth by a replay of its log.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.view.length()
    }

    /// Returns the name of the program that made the file (MS-VHDX 2.2.1). It is not trustworthy, and must be escaped
    /// before it is printed.
    #[must_use]
    pub fn creator(&self) -> &str {
        &self.creator
    }

    /// Returns the current header (MS-VHDX 2.2.2). In a salvage, both may be lost: [`CurrentHeader::is_known`].
    #[must_use]
    pub fn header(&self) -> &CurrentHeader {
        &self.header
    }

    /// Returns the CRC-32C of all changes that a replay of the log made. Returns `None` if the log is clean.
    pub(crate) fn log_crc32c(&self) -> Option<u32> {
        self.view.overlay_crc32c()
    }

    /// Returns the state of the log.
    #[must_use]
    pub fn log_state(&self) -> &LogState {
        &self.log_state
    }

    /// Returns the number of the region table in use: 1 or 2 (MS-VHDX 2.2.3). Returns `None` if both are lost.
    #[must_use]
    pub fn region_table_copy(&self) -> Option<u8> {
        self.regions.copy
    }

    /// Returns the regions, in the order of the table.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions.all
    }

    /// Returns the kind of the image (MS-VHDX 2.6.2.1).
    #[must_use]
    pub fn kind(&self) -> ImageKind {
        self.geometry.kind
    }

    /// Returns the size of the virtual disk, in bytes: 0 to 64 TiB, a multiple of the logical sector size.
    #[must_use]
    pub fn virtual_disk_size(&self) -> u64 {
        self.geometry.virtual_disk_size
    }

    /// Returns the size of a payload block, in bytes: a power of two from 1 MiB to 256 MiB.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        self.geometry.block_size()
    }

    /// Returns the number of payload blocks; the last one may belong to the disk only in part.
    #[must_use]
    pub fn payload_blocks(&self) -> u64 {
        self.geometry.payload_blocks()
    }

    /// Returns the logical sector size, in bytes: 512 or 4096.
    #[must_use]
    pub fn logical_sector_size(&self) -> u32 {
        self.geometry.logical_sector_size
    }

    /// Returns the physical sector size that the disk claims to have, in bytes. Returns `None` if the file has no valid
    /// one. Nothing depends on it.
    #[must_use]
    pub fn physical_sector_size(&self) -> Option<u32> {
        self.geometry.physical_sector_size
    }

    /// Returns the VirtualDiskId, which is the same in parent and child. Returns `None` if the file has none.
    #[must_use]
    pub fn virtual_disk_id(&self) -> Option<Uuid> {
        self.virtual_disk_id
    }

    /// Returns state and file offset (bytes) of a payload block. The offset has a meaning only if the block is
    /// allocated (MS-VHDX 2.5.1.1).
    ///
    /// # Errors
    /// [`ErrorKind::OutsideDisk`] if the block does not exist, [`ErrorKind::ReservedState`] if its state is invalid,
    /// [`ErrorKind::PartiallyPresentWithoutParent`]; [`ErrorKind::Lost`] if the file has become shorter than the BAT
    /// needs.
    pub fn payload_block(&self, block: u64) -> Result<(PayloadBlockState, u64)> {
        let found = self.block_state(block);
        let entry = self.bat().payload_entry_end(block);
        self.source().check_mapped(entry).and(found).map_err(|error| error.in_file(self.path()))
    }

    /// Returns state and file offset of a payload block, like [`Image::payload_block`], but for callers that check the
    /// tables themselves after all reads: [`Disk::check_tables`](crate::Disk::check_tables).
    pub(crate) fn block_state(&self, block: u64) -> Result<(PayloadBlockState, u64)> {
        if block >= self.payload_blocks() {
            let end = block.saturating_add(1).saturating_mul(self.block_size());
            let kind = ErrorKind::OutsideDisk { end, size: self.virtual_disk_size() };
            return Err(Error::of(Structure::Disk, kind));
        }
        self.bat().payload(block)
    }

    /// Returns the number of blocks after `block`, at most `most`, in the same state. The caller has to call
    /// [`Disk::check_tables`](crate::Disk::check_tables), too.
    ///
    /// # Errors
    /// Fails if the BAT cannot be read.
    pub(crate) fn same_state_count(&self, block: u64, most: u64) -> Result<u64> {
        Ok(self.bat().same_state_count(block, self.bat().payload(block)?.0, most))
    }

    /// Counts the payload blocks by state. Reads the whole BAT, except for its holes.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`] if the file has become shorter, or its medium failed; otherwise only errors that
    /// [`Image::open`] returns.
    pub fn block_states(&self) -> Result<BlockStates> {
        let states = self.bat().states();
        self.check_bat().and(states).map_err(|error| error.in_file(self.path()))
    }

    /// Returns the parent locator (MS-VHDX 2.6.2.6). Returns `None` if the image is not a differencing one.
    ///
    /// # Errors
    /// [`Category::Corrupt`](crate::Category::Corrupt) if the locator is missing or damaged,
    /// [`Category::Unsupported`](crate::Category::Unsupported) if its type is unknown.
    pub fn parent_locator(&self) -> Result<Option<ParentLocator>> {
        self.read_parent_locator(&mut Warnings::default()).map_err(|error| error.in_file(self.path()))
    }

    pub(crate) fn read_parent_locator(&self, warnings: &mut Warnings) -> Result<Option<ParentLocator>> {
        match self.parent_locator {
            _ if self.kind() != ImageKind::Differencing => Ok(None),
            Some(place) => {
                self.source().read_exactly(true);
                let read = locator::read(&self.view, place, warnings).map(Some);
                self.source().read_exactly(false);
                // A partial page at the end of a truncated file can still be read.
                let (offset, length) = place;
                let checked = self.source().check_mapped(offset.saturating_add(length));
                checked.map_err(|lost| warnings.fatal(Rule::Medium, lost))?;
                // In a long chain, the pages around these structures would add up.
                self.view.forget(0, self.source().len());
                read
            }
            None => {
                let kind = ErrorKind::Missing { what: "the parent locator of a differencing image" };
                let detail = Error::at(Structure::MetadataTable, self.regions.metadata.offset, kind);
                Err(warnings.fatal(Rule::ParentLocator, detail))
            }
        }
    }

    /// Returns the warnings: breaches of the format that do not affect reads.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        self.warnings.as_slice()
    }

    /// Returns the BAT as it is read.
    #[inline]
    fn bat(&self) -> Bat<'_> {
        Bat { reserved: self.reserved_for_salvage.as_ref().unwrap_or(&self.regions.reserved), ..self.bat_by_the_book() }
    }

    /// Returns the BAT with all ranges that no block may overlap.
    #[inline]
    pub(crate) fn bat_by_the_book(&self) -> Bat<'_> {
        let Region { offset, len: length, .. } = self.regions.bat;
        Bat {
            view: &self.view,
            geometry: &self.geometry,
            reserved: &self.regions.reserved,
            offset,
            length: length.into(),
            assumed_start: self.assumed_start,
        }
    }

    /// Returns the file's run of the disk at `position`, at most `most` bytes, which is not 0. Both are inside the
    /// disk.
    #[inline]
    pub(crate) fn lookup(&self, position: u64, most: u64) -> Result<BlockLookup> {
        debug_assert!(most > 0 && position.saturating_add(most) <= self.virtual_disk_size());
        self.bat().lookup(position, most)
    }

    /// Returns whether `bytes`, which were borrowed and read, and the BAT entry that refers to them were those of the
    /// file: certain if true, unknown if false.
    #[inline]
    pub(crate) fn is_certain_of(&self, bytes: &[u8]) -> bool {
        // Of a differencing image, a sector bitmap was read as well, which may lie anywhere.
        let Region { offset, len, .. } = self.regions.bat;
        self.kind() != ImageKind::Differencing && self.source().still_reaches(bytes, offset.saturating_add(len.into()))
    }

    /// Checks that the whole BAT was still in the file when it was read before this call.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`].
    pub(crate) fn check_bat(&self) -> Result<()> {
        let Region { offset, len, .. } = self.regions.bat;
        let length = self.geometry.bat_length().min(len.into());
        self.source().check(Structure::Bat, offset, length)?;
        self.source().check_mapped(offset.saturating_add(length))
    }

    /// Returns the location of the bytes at a file offset, at most `most`.
    #[inline]
    pub(crate) fn stored(&self, offset: u64, most: u64) -> Result<Stored<'_>> {
        self.view.stored(offset, most).ok_or_else(|| self.view.missing(offset, most))
    }

    /// Releases the memory of the part of the BAT for the disk range `from` to `to`, if that is worthwhile, and returns
    /// the start of the part that is kept.
    pub(crate) fn forget_bat(&self, from: u64, to: u64) -> u64 {
        if self.bat().forget(from, to) { to } else { from }
    }

    /// Releases all memory of that part of the BAT.
    pub(crate) fn forget_all_bat(&self, from: u64, to: u64) {
        self.bat().forget_all(from, to);
    }

    /// Borrows up to `most` bytes at a file offset, if the source can borrow.
    #[inline]
    pub(crate) fn borrow(&self, offset: u64, most: u64) -> Result<Bytes<'_>> {
        self.view.borrow(Structure::File, offset, most)
    }
}
