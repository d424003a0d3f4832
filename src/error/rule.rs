//! The rules of the format, each with a code that is the same in all versions.

/// Severity of a breach of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A habit of some writer. Many healthy images have it.
    Note,
    /// A sign of damage, or of an unfinished operation.
    Warning,
    /// Space in the file that nothing refers to.
    Leak,
    /// The check could not determine whether this is correct.
    Unchecked,
    /// The image may be valid, but needs something that this crate does not support.
    Unsupported,
    /// The image or a part of it cannot be read, or it contradicts itself.
    Corruption,
}

impl Severity {
    /// Returns the name in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Leak => "leak",
            Self::Unchecked => "unchecked",
            Self::Unsupported => "unsupported",
            Self::Corruption => "corruption",
        }
    }
}

super::display_as_str!(Severity);

/// Makes the enum of rules from their texts, names, codes, and severities (of a breach that does not prevent reading).
macro_rules! rules {
    ($($(#[doc = $text:literal])+ $name:ident = $code:literal, $severity:ident;)+) => {
/// Rule that an image must follow. Codes with a V are the rules of the format, in the order in which an image is read;
        /// the other rules go beyond the format.
        #[non_exhaustive]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[doc = $text])+ $name,)+
        }

        impl Rule {
/// All rules, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

/// Returns the code of the rule, such as `V68`, which is the same in all versions.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }

/// Returns the severity of a breach that does not prevent reading the image or a part of it.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)+
                }
            }

/// Returns the text of the rule: one sentence.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($text),+).trim_ascii_start(),)+
                }
            }
        }
    };
}

rules! {
    /// The file has at least the header section of 1 MiB.
    FileLength = "V1", Corruption;
    /// The file begins with `vhdxfile`.
    Signature = "V2", Corruption;
    /// The creator is text.
    Creator = "V3", Note;
    /// At least one header is valid.
    Headers = "V4", Corruption;
    /// Both headers are valid.
    HeaderCopies = "V5", Warning;
    /// The two headers have different sequence numbers.
    HeaderSequence = "V6", Note;
    /// The version of the format is 1.
    Version = "V7", Unsupported;
    /// LogVersion is 0 where the log is in use.
    LogVersionInUse = "V8", Unsupported;
    /// LogVersion is 0, also where the log is not in use.
    LogVersion = "V9", Note;
    /// LogOffset and LogLength are multiples of 1 MiB, also where the log is not in use.
    LogAlignment = "V10", Note;
    /// A log in use has a length.
    LogLength = "V11", Corruption;
    /// The log lies after the header section and inside the file, also where it is not in use.
    LogPlace = "V12", Note;
    /// A log in use is not longer than 1 GiB.
    LogTooLong = "V13", Unsupported;
    /// Reserved bytes of the headers are zero.
    HeaderReserved = "V14", Note;
    /// A log in use has a complete sequence of entries to replay.
    LogSequence = "V15", Corruption;
    /// Entries of the log belong to the log in use.
    LogEntryGuid = "V16", Note;
    /// Sequence numbers of log entries follow each other.
    LogEntrySequence = "V17", Note;
    /// Log entries have the right checksum, lengths, descriptors and data sectors.
    LogEntry = "V18", Note;
    /// The tail of a log entry lies in the log.
    LogEntryTail = "V19", Note;
    /// The changes in a log entry lie on multiples of 4 KiB.
    LogDescriptor = "V20", Note;
    /// A log entry changes neither headers nor log.
    LogDescriptorPlace = "V21", Note;
    /// The file is as long as it was when the last log entry was written.
    LogFileLength = "V22", Corruption;
    /// The file lengths in a log entry are multiples of 1 MiB.
    LogFileOffsets = "V23", Note;
    /// A replay makes the file as long as the last log entry says.
    LogGrowth = "V24", Unchecked;
    /// At least one region table is valid.
    RegionTables = "V25", Corruption;
    /// Both region tables are valid, and equal.
    RegionTableCopies = "V26", Warning;
    /// A region table has at most 2047 entries.
    RegionCount = "V27", Corruption;
    /// Reserved fields of the region table are zero.
    RegionTableReserved = "V28", Note;
    /// Regions are unique.
    RegionUnique = "V29", Corruption;
    /// Regions lie on multiples of 1 MiB.
    RegionAlignment = "V30", Note;
    /// The BAT and the metadata region have a length.
    RegionLength = "V31", Corruption;
    /// Regions lie inside the file.
    RegionPlace = "V32", Warning;
    /// Regions, log and header section do not overlap.
    RegionOverlap = "V33", Corruption;
    /// There are a BAT and a metadata region.
    RegionMissing = "V34", Corruption;
    /// No region that must be understood is unknown.
    RegionUnknown = "V35", Unsupported;
    /// The BAT and the metadata region are marked as required.
    RegionRequired = "V36", Note;
    /// The metadata region begins with `metadata`, and its table is there.
    MetadataTable = "V37", Corruption;
    /// The metadata table has at most 2047 entries, and at most 1024 of users.
    MetadataCount = "V38", Corruption;
    /// Reserved fields and flags of the metadata table are zero.
    MetadataReserved = "V39", Note;
    /// Metadata items are unique.
    MetadataUnique = "V40", Warning;
    /// Metadata items lie in their region, after the table.
    MetadataPlace = "V41", Warning;
    /// Metadata items do not overlap.
    MetadataOverlap = "V42", Warning;
    /// No metadata item that must be understood is unknown, and the image was completed.
    MetadataUnknown = "V43", Unsupported;
    /// FileParameters, VirtualDiskSize and LogicalSectorSize are there, with the right lengths.
    MetadataValues = "V44", Corruption;
    /// VirtualDiskId and PhysicalSectorSize are there.
    MetadataPresent = "V45", Note;
    /// BlockSize is a power of two from 1 MiB to 256 MiB.
    BlockSize = "V46", Corruption;
    /// Reserved bits of the file parameters are zero.
    FileParametersReserved = "V47", Note;
    /// LogicalSectorSize is 512 or 4096.
    LogicalSectorSize = "V48", Corruption;
    /// PhysicalSectorSize is 512 or 4096.
    PhysicalSectorSize = "V49", Note;
    /// VirtualDiskSize is at most 64 TiB.
    DiskSize = "V50", Corruption;
    /// VirtualDiskSize is a multiple of LogicalSectorSize.
    DiskSizeAlignment = "V51", Corruption;
    /// The disk has a size.
    EmptyDisk = "V52", Warning;
    /// The flags of the known metadata items are as MS-VHDX 2.6.2 gives them.
    MetadataFlags = "V53", Note;
    /// A differencing image has a parent locator, and no other has.
    ParentLocator = "V54", Unchecked;
    /// The entries and strings of the parent locator are in order.
    Locator = "V55", Corruption;
    /// The parent locator is of the type that MS-VHDX defines.
    LocatorType = "V56", Unsupported;
    /// The parent locator has a `parent_linkage`, and its GUIDs are in braces.
    ParentLinkage = "V57", Note;
    /// The parent locator has a path.
    LocatorPath = "V58", Note;
    /// The parent has the identity that `parent_linkage` asks for, not that of `parent_linkage2`, which stands for a
    /// merge in progress.
    ParentIdentity = "V59", Warning;
    /// Parent and child have the same logical sector size.
    ParentSectorSize = "V60", Corruption;
    /// Parent and child have the same size.
    ParentSize = "V61", Warning;
    /// A chain ends, after at most 256 parents.
    Chain = "V62", Corruption;
    /// The BAT region has an entry for every block, and lies in the file as far as it is needed.
    BatSize = "V63", Corruption;
    /// Reserved bits of BAT entries are zero.
    BatReserved = "V64", Note;
    /// The state of a payload block is one that exists.
    BlockState = "V65", Corruption;
    /// Only blocks of a differencing image are partially present.
    PartialWithoutParent = "V66", Corruption;
    /// A block that is present lies after the header section.
    BlockOffset = "V67", Corruption;
    /// A block that is present lies inside the file.
    BlockPlace = "V68", Corruption;
    /// Blocks overlap neither each other nor anything else.
    BlockOverlap = "V69", Corruption;
    /// Only a differencing image has sector bitmaps.
    BitmapUnneeded = "V70", Note;
    /// The state of a sector bitmap block is one that exists.
    BitmapState = "V71", Warning;
    /// A partially present block has a sector bitmap that lies inside the file.
    Bitmap = "V72", Corruption;
    /// A block that is not present has no place in the file.
    AbsentPlace = "V73", Note;
    /// Everything in the file is referred to.
    Unreferenced = "L1", Leak;
    /// The file ends where its last structure does, or at a multiple of 1 MiB.
    Trailing = "L2", Leak;
    /// A log changes structures, and no payload: a replay that changes a block hides bytes that are still in the file.
    LoggedPayload = "L3", Leak;
    /// Blocks are present if the file has content for them: in a fixed image, and in one without any block, space that
    /// nothing refers to is zero, if blocks fit there and it is longer than the log or long enough for all absent
    /// blocks. Sectors of an earlier log do not count.
    LostBlocks = "L4", Corruption;
    /// What the format leaves empty is zero: the rest of the header section, gaps, the unused parts of tables and
    /// regions, and BAT entries after that of the last block.
    NotEmpty = "N1", Note;
    /// An empty log holds no entries of earlier sessions.
    StaleLog = "N2", Note;
    /// The creator is a name that can be printed, and nothing follows its end.
    CreatorText = "N3", Note;
    /// The identities in the header and of the disk are not nil.
    NilIdentity = "N4", Note;
    /// A block that is present does not consist of zeros only.
    ZeroBlock = "N5", Note;
    /// The sector bitmap agrees with the states of the blocks.
    BitmapBits = "N6", Note;
    /// Where both headers are valid, they have the same version and the same log.
    HeadersDiffer = "N7", Note;
    /// The parent is there to be read.
    ParentMissing = "P1", Unchecked;
    /// The file, or a part of it, can be read from its medium.
    Medium = "P2", Unchecked;
    /// Blocks beyond 256 TiB of the file are not compared with each other.
    TooFar = "P3", Unchecked;
    /// The log is empty, or may be replayed.
    LogRefused = "P4", Unchecked;
}
