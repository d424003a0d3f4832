//! One VHDX file: what it says of itself, and what it has of its disk.

mod assumed;
pub(crate) mod bat;
pub(crate) mod geometry;
pub(crate) mod header;
mod identifier;
mod locator;
pub(crate) mod log;
mod lost;
pub(crate) mod metadata;
pub(crate) mod region;
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
pub use region::Region;
pub use warning::{Strictness, Warning};
pub(crate) use warning::{Warnings, severity_of};

/// One VHDX file, opened: its headers checked, its log replayed in memory, its tables found.
///
/// An image of the differencing kind is not a disk yet: see [`Disk`](crate::Disk).
#[derive(Debug)]
pub struct Image {
    pub(crate) view: View,
    pub(crate) creator: String,
    pub(crate) header: CurrentHeader,
    pub(crate) log_state: LogState,
    pub(crate) regions: Regions,
    /// Of an image that is being salvaged, what blocks really can't share: a region is no longer than what is in it.
    pub(crate) reserved_for_salvage: Option<ReservedRanges>,
    pub(crate) geometry: Geometry,
    pub(crate) virtual_disk_id: Option<Uuid>,
    /// Where the parent locator item lies: file offset and length in bytes.
    parent_locator: Option<(u64, u64)>,
    /// How many entries the metadata table has.
    pub(crate) metadata_entries: usize,
    pub(crate) warnings: Warnings,
}

/// What is looked at of the identifier and of each header, in bytes: the rest of their 64 KiB is reserved (MS-VHDX 2.2).
const HEADER_PAGE: u64 = 4096;

/// Where the identifier and the two headers begin, in bytes (MS-VHDX 2.2).
const HEADERS: [u64; 3] = [0, KIB_64, 2 * KIB_64];

/// Where the region tables begin and end, in bytes (MS-VHDX 2.2).
const REGION_TABLES: (u64, u64) = (3 * KIB_64, 5 * KIB_64);

/// The metadata table, and as much room for items as most images use, in bytes (MS-VHDX 2.6).
const USUAL_METADATA: u64 = MetadataTableHeader::TABLE_LENGTH + 4096;

impl Image {
    /// Opens an image. What this costs depends on its log, and on nothing else: the BAT is looked at when it is needed.
    ///
    /// The order is the format's: identifier, headers, log, region tables, metadata, BAT (MS-VHDX 2.2 to 2.6). Nothing
    /// behind the headers is looked at before the log has been replayed.
    ///
    /// # Errors
    /// [`Category::NotVhdx`](crate::Category::NotVhdx), [`Category::Corrupt`](crate::Category::Corrupt),
    /// [`Category::Unsupported`](crate::Category::Unsupported), or [`Category::DirtyLog`](crate::Category::DirtyLog) by
    /// `log_policy`; [`ErrorKind::Lost`], unless that is one copy of something that there is twice.
    pub fn open(source: Source, log_policy: LogPolicy) -> Result<Self> {
        Self::open_noting(source, log_policy, &MetadataOverrides::default(), &mut Warnings::default())
    }

    /// Opens an image, or what is left of one: with [`Strictness::Salvage`], whatever can be opened is, and the warnings say
    /// what is wrong. What `assumed` says counts instead of what the metadata say.
    ///
    /// # Errors
    /// As for [`Image::open`]; with [`Strictness::Salvage`], only where there is no region table, or a size that is needed is not
    /// known.
    pub fn open_with(
        source: Source,
        log_policy: LogPolicy,
        strictness: Strictness,
        assumed: &MetadataOverrides,
    ) -> Result<Self> {
        Self::open_noting(source, log_policy, assumed, &mut Warnings::new(strictness))
    }

    /// The same; what is found goes to `warnings` also where it can't be opened.
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
        // Whatever is said of a file that is not there any more, it is not what the file said.
        let noted = opened.as_ref().map_or(&*warnings, |image| &image.warnings);
        match (lost::check(&file, &failed, noted), opened) {
            (Ok(()), opened) => opened,
            (Err(lost), Ok(mut image)) => {
                image.warnings.reject(Rule::Medium, lost)?;
                Ok(image)
            }
            (Err(lost), Err(_)) => Err(warnings.fatal(Rule::Medium, lost)),
        }
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
        let regions = region::read(&view, &header, warnings)?;
        view.preload(regions.metadata.offset, u64::from(regions.metadata.len).min(USUAL_METADATA));
        let metadata = metadata::read(&view, &regions.metadata, assumed, warnings)?;
        let geometry = Geometry::new(&metadata, warnings)?;
        warnings.require(Rule::BatSize, bat::check_region(&view, &regions.bat, &geometry))?;
        if let Some((offset, _)) = metadata.parent_locator.filter(|_| geometry.kind != ImageKind::Differencing) {
            let expected = "2 (HasParent), since there is a parent locator";
            let found = u64::from(metadata.file_parameters.value.flags.get());
            let kind = ErrorKind::Field { field: "flags", found, expected };
            // If it had a parent, what it has not itself reads as zeros now.
            let detail = Error::at(Structure::ParentLocator, offset, kind);
            warnings.add_as(Rule::ParentLocator, Severity::Unchecked, detail);
        }
        view.release_preloaded();
        let reserved_for_salvage =
            warnings.is_lenient().then(|| regions.reserved_for_salvage(&view, &header, geometry.bat_length()));
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
            warnings: std::mem::take(warnings),
        })
    }

    /// What the current header of an image says, without a look at anything after the headers: for inventories of many
    /// images. Reads three pages of 4 KiB (MS-VHDX 2.2).
    ///
    /// # Errors
    /// As for [`Image::open`], if the file is not an image, or has no current header.
    pub fn identity(source: &Source) -> Result<CurrentHeader> {
        Self::header_of(source.clone(), Strictness::Strict)
    }

    /// What the current header says. With [`Strictness::Salvage`], a file without the signature of an image has one, too.
    ///
    /// # Errors
    /// As for [`Image::identity`].
    pub(crate) fn header_of(source: Source, strictness: Strictness) -> Result<CurrentHeader> {
        source.read_exactly(true);
        let file = source.clone();
        let header = Self::read_header(View::new(source), strictness);
        file.read_exactly(false);
        header
    }

    fn read_header(mut view: View, strictness: Strictness) -> Result<CurrentHeader> {
        HEADERS.iter().for_each(|at| view.preload(*at, HEADER_PAGE));
        let mut noted = Warnings::default();
        let signature = match strictness {
            Strictness::Salvage => Ok(()),
            Strictness::Strict => identifier::check_signature(&view),
        };
        let header = signature.and_then(|()| header::select(&view, &mut noted));
        // Both are sure of the pages that they have looked at, and no other is of interest here; a part of one can be gone.
        view.source().check_length(view.length())?;
        header
    }

    /// The file's bytes as they are, without what a replay changes.
    #[must_use]
    pub fn source(&self) -> &Source {
        self.view.source()
    }

    /// The path under which the file was opened, if it was.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.source().path()
    }

    /// Length of the file in bytes, with what a replay of its log adds.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.view.length()
    }

    /// The program that made the file, as it calls itself (MS-VHDX 2.2.1). Not to be trusted, nor to be printed as it is.
    #[must_use]
    pub fn creator(&self) -> &str {
        &self.creator
    }

    /// The current header (MS-VHDX 2.2.2).
    #[must_use]
    pub fn header(&self) -> &CurrentHeader {
        &self.header
    }

    /// CRC-32C of all changes that a replay of the log made; none of a clean log.
    pub(crate) fn log_crc32c(&self) -> Option<u32> {
        self.view.overlay_crc32c()
    }

    /// What became of the log.
    #[must_use]
    pub fn log_state(&self) -> &LogState {
        &self.log_state
    }

    /// Which copy of the region table is in use: 1 or 2 (MS-VHDX 2.2.3).
    #[must_use]
    pub fn region_table_copy(&self) -> u8 {
        self.regions.copy
    }

    /// The regions, in the order of the table.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions.all
    }

    /// The kind of file (MS-VHDX 2.6.2.1).
    #[must_use]
    pub fn kind(&self) -> ImageKind {
        self.geometry.kind
    }

    /// Size of the virtual disk, in bytes: 0 to 64 TiB, a multiple of the logical sector size.
    #[must_use]
    pub fn virtual_disk_size(&self) -> u64 {
        self.geometry.virtual_disk_size
    }

    /// Size of a payload block, in bytes: a power of two from 1 MiB to 256 MiB.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        self.geometry.block_size()
    }

    /// Number of payload blocks; of the last one only a part may belong to the disk.
    #[must_use]
    pub fn payload_blocks(&self) -> u64 {
        self.geometry.payload_blocks()
    }

    /// Size of a sector of the disk, in bytes: 512 or 4096.
    #[must_use]
    pub fn logical_sector_size(&self) -> u32 {
        self.geometry.logical_sector_size
    }

    /// Size of a sector of the medium that the disk claims to be, in bytes; none where the file does not say. Nothing
    /// depends on it.
    #[must_use]
    pub fn physical_sector_size(&self) -> Option<u32> {
        self.geometry.physical_sector_size
    }

    /// Identity of the virtual disk, the same in parent and child; none where the file does not say.
    #[must_use]
    pub fn virtual_disk_id(&self) -> Option<Uuid> {
        self.virtual_disk_id
    }

    /// State of a payload block, and its place in the file in bytes, which has a meaning only where the state says that
    /// the block is present (MS-VHDX 2.5.1.1).
    ///
    /// # Errors
    /// [`ErrorKind::OutsideDisk`] if there is no such block, [`ErrorKind::ReservedState`] if its state does not exist,
    /// [`ErrorKind::PartiallyPresentWithoutParent`]; [`ErrorKind::Lost`] if the file has become shorter than the BAT needs.
    pub fn payload_block(&self, block: u64) -> Result<(PayloadBlockState, u64)> {
        let found = self.block_state(block);
        self.check_tables()?;
        found
    }

    /// State and place of a payload block, as [`Image::payload_block`] gives them, for those who ask for the tables themselves
    /// when they have seen all that they want: [`Image::check_tables`].
    pub(crate) fn block_state(&self, block: u64) -> Result<(PayloadBlockState, u64)> {
        if block >= self.payload_blocks() {
            let end = block.saturating_add(1).saturating_mul(self.block_size());
            let kind = ErrorKind::OutsideDisk { end, size: self.virtual_disk_size() };
            return Err(Error::of(Structure::Disk, kind));
        }
        self.bat().payload(block)
    }

    /// How many blocks behind `block`, at most `most`, are in the same state. The caller has to ask for the tables, too:
    /// [`Image::check_tables`].
    ///
    /// # Errors
    /// If the BAT can't be read.
    pub(crate) fn same_state_count(&self, block: u64, most: u64) -> Result<u64> {
        Ok(self.bat().alike(block, self.bat().payload(block)?.0, most))
    }

    /// Counts the payload blocks by state. Looks at the whole BAT, but for its holes.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`] if the file has become shorter, or its medium fails; otherwise none that [`Image::open`] would not
    /// have given.
    pub fn block_states(&self) -> Result<BlockStates> {
        let states = self.bat().states();
        self.check_tables()?;
        states
    }

    /// How the image knows its parent; none unless it is of the differencing kind (MS-VHDX 2.6.2.6).
    ///
    /// # Errors
    /// [`Category::Corrupt`](crate::Category::Corrupt) if the locator is missing or broken,
    /// [`Category::Unsupported`](crate::Category::Unsupported) if it is of an unknown type.
    pub fn parent_locator(&self) -> Result<Option<ParentLocator>> {
        self.read_parent_locator(&mut Warnings::default())
    }

    pub(crate) fn read_parent_locator(&self, warnings: &mut Warnings) -> Result<Option<ParentLocator>> {
        match self.parent_locator {
            _ if self.kind() != ImageKind::Differencing => Ok(None),
            Some(place) => {
                self.source().read_exactly(true);
                let read = locator::read(&self.view, place, warnings).map(Some);
                self.source().read_exactly(false);
                // A part of a page that is gone can still be touched.
                self.source().check_length(self.source().len()).map_err(|lost| warnings.fatal(Rule::Medium, lost))?;
                // A chain may be long, and the pages around what was looked at would add up.
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

    /// What is against the format, without harm to what is read.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        self.warnings.as_slice()
    }

    /// The BAT as it is read.
    #[inline]
    fn bat(&self) -> Bat<'_> {
        Bat { reserved: self.reserved_for_salvage.as_ref().unwrap_or(&self.regions.reserved), ..self.bat_by_the_book() }
    }

    /// The BAT with all that no block may overlap.
    #[inline]
    pub(crate) fn bat_by_the_book(&self) -> Bat<'_> {
        let Region { offset, len: length, .. } = self.regions.bat;
        Bat {
            view: &self.view,
            geometry: &self.geometry,
            reserved: &self.regions.reserved,
            offset,
            length: length.into(),
        }
    }

    /// What this file has of the disk at `position`: a run of at most `most` bytes, which is not 0. Both lie inside the
    /// disk.
    #[inline]
    pub(crate) fn lookup(&self, position: u64, most: u64) -> Result<BlockLookup> {
        debug_assert!(most > 0 && position.saturating_add(most) <= self.virtual_disk_size());
        self.bat().lookup(position, most)
    }

    /// That the tables are still in the file, as a whole. Asked after a look at them, the answer holds for what was seen:
    /// where a file ends in the middle of a page, the rest of the page reads as zeros, and no signal tells.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`].
    pub(crate) fn check_tables(&self) -> Result<()> {
        let end = match self.kind() {
            // Sector bitmaps may lie anywhere.
            ImageKind::Differencing => self.source().len(),
            ImageKind::Fixed | ImageKind::Dynamic => self.regions.bat.offset.saturating_add(self.geometry.bat_length()),
        };
        self.source().check_length(end)
    }

    /// What is stored at a file offset, and how far that goes, at most `most` bytes.
    #[inline]
    pub(crate) fn stored(&self, offset: u64, most: u64) -> Result<Stored<'_>> {
        self.view.stored(offset, most).ok_or_else(|| self.view.missing(offset, most))
    }

    /// Gives back the memory of the part of the BAT that tells of the disk from `from` to `to`, if that is worth it, and
    /// returns from where on it is kept then.
    pub(crate) fn forget_bat(&self, from: u64, to: u64) -> u64 {
        if self.bat().forget(from, to) { to } else { from }
    }

    /// Gives back all memory of that part of the BAT.
    pub(crate) fn forget_all_bat(&self, from: u64, to: u64) {
        self.bat().forget_all(from, to);
    }

    /// The bytes at a file offset, at most `most`, where the file lends them.
    #[inline]
    pub(crate) fn borrow(&self, offset: u64, most: u64) -> Result<Bytes<'_>> {
        self.view.borrow(Structure::File, offset, most)
    }
}
