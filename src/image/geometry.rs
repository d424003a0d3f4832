//! Geometry: the validated sizes of the disk and its blocks, and the layout of the BAT that follows from them (MS-VHDX
//! 2.5, 2.6.2).

use std::mem::offset_of;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::{BatEntry, FileParameters, MAX_VIRTUAL_DISK_SIZE, SECTORS_PER_CHUNK};
use crate::num::to_u64;

use super::metadata::Metadata;
use super::warning::Warnings;
use crate::error::Rule;

/// Kind of a VHDX file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageKind {
    /// Fixed: all blocks were allocated when the file was made. Only a label: the BAT decides.
    Fixed,
    /// Dynamic: blocks are allocated when they are written.
    Dynamic,
    /// Differencing: content that is not in the file is in its parent.
    Differencing,
}

impl ImageKind {
    /// Returns the name in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Dynamic => "dynamic",
            Self::Differencing => "differencing",
        }
    }
}

/// Sizes in bytes and numbers of blocks. Small powers of two are kept as exponents, to avoid divisions.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    pub(crate) kind: ImageKind,
    pub(crate) virtual_disk_size: u64,
    pub(crate) logical_sector_size: u32,
    pub(crate) physical_sector_size: Option<u32>,
    /// log2 of the block size: 20 to 28.
    block_shift: u32,
    /// log2 of the chunk ratio, the number of payload blocks per sector bitmap block: 4 to 15.
    chunk_shift: u32,
}

impl Geometry {
    /// # Errors
    /// Fails if the format does not allow a value.
    pub(crate) fn new(metadata: &Metadata, warnings: &mut Warnings) -> Result<Self> {
        // Without these values, nothing can be read; all wrong ones are reported.
        let mut breaches = Vec::new();
        let parameters = &metadata.file_parameters;
        let block_size = parameters.value.block_size.get();
        if !block_size.is_power_of_two() || !(1 << 20..=1 << 28).contains(&block_size) {
            let expected = "a power of two from 1 MiB to 256 MiB";
            let kind = ErrorKind::Field { field: "BlockSize", found: u64::from(block_size), expected };
            breaches
                .push((Rule::BlockSize, Error::at(Structure::MetadataItem("FileParameters"), parameters.offset, kind)));
        }
        let flags = parameters.value.flags.get();
        if flags & !(FileParameters::LEAVE_BLOCKS_ALLOCATED | FileParameters::HAS_PARENT) != 0 {
            let offset = parameters.offset.saturating_add(to_u64(offset_of!(FileParameters, flags)));
            let kind = ErrorKind::Field { field: "flags", found: u64::from(flags), expected: "bits 0 and 1 only" };
            let detail = Error::at(Structure::MetadataItem("FileParameters"), offset, kind);
            warnings.add(Rule::FileParametersReserved, detail);
        }
        let kind = if flags & FileParameters::HAS_PARENT != 0 {
            ImageKind::Differencing
        } else if flags & FileParameters::LEAVE_BLOCKS_ALLOCATED != 0 {
            ImageKind::Fixed
        } else {
            ImageKind::Dynamic
        };

        let logical = &metadata.logical_sector_size;
        let logical_sector_size = logical.value.get();
        if !matches!(logical_sector_size, 512 | 4096) {
            let found = u64::from(logical_sector_size);
            let kind = ErrorKind::Field { field: "LogicalSectorSize", found, expected: "512 or 4096" };
            let detail = Error::at(Structure::MetadataItem("LogicalSectorSize"), logical.offset, kind);
            breaches.push((Rule::LogicalSectorSize, detail));
        }
        // Informational, and smaller than the logical sector size in some images: nothing depends on it.
        let physical = &metadata.physical_sector_size;
        if let Some(item) = physical.as_ref().filter(|item| !matches!(item.value.get(), 512 | 4096)) {
            let found = u64::from(item.value.get());
            let kind = ErrorKind::Field { field: "PhysicalSectorSize", found, expected: "512 or 4096" };
            let detail = Error::at(Structure::MetadataItem("PhysicalSectorSize"), item.offset, kind);
            warnings.add(Rule::PhysicalSectorSize, detail);
        }

        let size = &metadata.virtual_disk_size;
        let mut virtual_disk_size = size.value.get();
        let bad_size = |expected| {
            let kind = ErrorKind::Field { field: "VirtualDiskSize", found: size.value.get(), expected };
            Error::at(Structure::MetadataItem("VirtualDiskSize"), size.offset, kind)
        };
        if virtual_disk_size > MAX_VIRTUAL_DISK_SIZE {
            breaches.push((Rule::DiskSize, bad_size("at most 64 TiB")));
        }
        warnings.fatal_all(breaches)?;
        if !virtual_disk_size.is_multiple_of(u64::from(logical_sector_size)) {
            warnings.reject(Rule::DiskSizeAlignment, bad_size("a multiple of LogicalSectorSize"))?;
            virtual_disk_size &= !u64::from(logical_sector_size).saturating_sub(1);
        }
        if virtual_disk_size == 0 {
            warnings.add(Rule::EmptyDisk, bad_size("at least one sector"));
        }

        let block_shift = block_size.trailing_zeros();
        let chunk_size = SECTORS_PER_CHUNK.saturating_mul(u64::from(logical_sector_size));
        let chunk_shift = chunk_size.trailing_zeros().saturating_sub(block_shift);
        Ok(Self {
            kind,
            virtual_disk_size,
            logical_sector_size,
            physical_sector_size: physical.as_ref().map(|item| item.value.get()),
            block_shift,
            chunk_shift,
        })
    }

    #[inline]
    pub(crate) fn block_size(&self) -> u64 {
        1 << self.block_shift
    }

    /// Returns the payload block that contains a byte of the disk.
    #[inline]
    pub(crate) fn block_of(&self, position: u64) -> u64 {
        position >> self.block_shift
    }

    /// Returns the offset of a payload block in the disk. The block must exist.
    #[inline]
    pub(crate) fn block_start(&self, block: u64) -> u64 {
        block << self.block_shift
    }

    /// Returns the number of payload blocks of the disk; the last one may be used in part only.
    #[inline]
    pub(crate) fn payload_blocks(&self) -> u64 {
        self.virtual_disk_size.div_ceil(self.block_size())
    }

    /// Returns the chunk ratio: the number of payload blocks per sector bitmap block.
    pub(crate) fn chunk_blocks(&self) -> u64 {
        1 << self.chunk_shift
    }

    /// Returns the chunk of a payload block, which is the number of its sector bitmap block.
    #[inline]
    pub(crate) fn chunk_of(&self, block: u64) -> u64 {
        block >> self.chunk_shift
    }

    /// Returns the index of a payload block's entry in the BAT. The entries of each chunk are followed by that of its
    /// sector bitmap block, in every kind of file.
    #[inline]
    pub(crate) fn payload_index(&self, block: u64) -> u64 {
        block.saturating_add(self.chunk_of(block))
    }

    /// Returns the index of a sector bitmap block's entry in the BAT.
    #[inline]
    pub(crate) fn bitmap_index(&self, chunk: u64) -> u64 {
        let chunk_ratio = 1_u64 << self.chunk_shift;
        chunk.saturating_mul(chunk_ratio.saturating_add(1)).saturating_add(chunk_ratio)
    }

    /// Returns the number of payload blocks whose entries are before `index` in the BAT.
    #[inline]
    pub(crate) fn payload_blocks_before(&self, index: u64) -> u64 {
        let chunk_ratio = 1_u64 << self.chunk_shift;
        let per_chunk = chunk_ratio.saturating_add(1);
        let whole = index.checked_div(per_chunk).unwrap_or(0);
        index.saturating_sub(whole)
    }

    /// Returns the number of BAT entries in use. The rest of the region is padding.
    pub(crate) fn bat_entries(&self) -> u64 {
        let Some(last) = self.payload_blocks().checked_sub(1) else { return 0 };
        match self.kind {
            ImageKind::Differencing => self.bitmap_index(self.chunk_of(last)).saturating_add(1),
            ImageKind::Fixed | ImageKind::Dynamic => self.payload_index(last).saturating_add(1),
        }
    }

    /// Returns the length of the entries in use, in bytes.
    pub(crate) fn bat_length(&self) -> u64 {
        self.bat_entries().saturating_mul(BatEntry::LENGTH)
    }

    /// Returns the offset of the bitmap of a payload block in its sector bitmap block, in bytes. The bitmap has one bit
    /// for each sector of the block: always whole bytes, and never past the end.
    #[inline]
    pub(crate) fn bitmap_start(&self, block: u64) -> u64 {
        let within_chunk = block & (1_u64 << self.chunk_shift).saturating_sub(1);
        (within_chunk << self.block_shift) >> self.sector_shift().saturating_add(3)
    }

    /// Returns log2 of the logical sector size.
    #[inline]
    pub(crate) fn sector_shift(&self) -> u32 {
        self.logical_sector_size.trailing_zeros()
    }
}

crate::error::display_as_str!(ImageKind);
