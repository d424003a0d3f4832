//! Structures that an error can be about.

use std::fmt;

/// Structure that an error is about: of a VHDX file, as MS-VHDX names it, or of a chain.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Structure {
    /// The file as a whole.
    File,
    /// A folder of images.
    Folder,
    /// The file type identifier at offset 0 (MS-VHDX 2.2.1).
    FileIdentifier,
    /// Header 1 or 2 (MS-VHDX 2.2.2).
    Header(u8),
    /// Both headers.
    Headers,
    /// Region table 1 or 2 (MS-VHDX 2.2.3).
    RegionTable(u8),
    /// Both region tables.
    RegionTables,
    /// The log region (MS-VHDX 2.3).
    Log,
    /// An entry of the log (MS-VHDX 2.3.1).
    LogEntry,
    /// The metadata region (MS-VHDX 2.6).
    MetadataRegion,
    /// The metadata table (MS-VHDX 2.6.1).
    MetadataTable,
    /// A metadata item, by name (MS-VHDX 2.6.2).
    MetadataItem(&'static str),
    /// The parent locator item (MS-VHDX 2.6.2.6).
    ParentLocator,
    /// The region of the block allocation table (MS-VHDX 2.5).
    Bat,
    /// The BAT entry of a payload block, by block number.
    PayloadBatEntry(u64),
    /// The BAT entry of a sector bitmap block, by chunk number.
    BitmapBatEntry(u64),
    /// A payload block, by number (MS-VHDX 2.4.1).
    PayloadBlock(u64),
    /// A sector bitmap block, by chunk number (MS-VHDX 2.4.2).
    SectorBitmap(u64),
    /// A region that this crate does not know (MS-VHDX 2.2.3).
    OtherRegion,
    /// The first MiB of the file, with the headers and the region tables (MS-VHDX 2.2).
    HeaderSection,
    /// The virtual disk.
    Disk,
    /// The link from an image to its parent.
    Parent,
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Folder => f.write_str("folder"),
            Self::FileIdentifier => f.write_str("file type identifier"),
            Self::Header(copy) => write!(f, "header {copy}"),
            Self::Headers => f.write_str("headers"),
            Self::RegionTable(copy) => write!(f, "region table {copy}"),
            Self::RegionTables => f.write_str("region tables"),
            Self::Log => f.write_str("log"),
            Self::LogEntry => f.write_str("log entry"),
            Self::MetadataRegion => f.write_str("metadata region"),
            Self::MetadataTable => f.write_str("metadata table"),
            Self::MetadataItem(name) => write!(f, "metadata item {name}"),
            Self::ParentLocator => f.write_str("parent locator"),
            Self::Bat => f.write_str("BAT"),
            Self::PayloadBatEntry(block) => write!(f, "BAT entry of payload block {block}"),
            Self::BitmapBatEntry(chunk) => write!(f, "BAT entry of sector bitmap block {chunk}"),
            Self::PayloadBlock(block) => write!(f, "payload block {block}"),
            Self::SectorBitmap(chunk) => write!(f, "sector bitmap block {chunk}"),
            Self::OtherRegion => f.write_str("other region"),
            Self::HeaderSection => f.write_str("header section"),
            Self::Disk => f.write_str("virtual disk"),
            Self::Parent => f.write_str("parent"),
        }
    }
}
