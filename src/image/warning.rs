//! What is against the format in an image, but does not change what is read from it.

use std::fmt;

use crate::error::{Error, Result};

/// Something in an image that is against the format, or out of the ordinary, without harm to what is read from it.
#[derive(Debug)]
pub struct Warning {
    /// The rule that is broken.
    pub check: Check,
    /// Where, what was found, and what was expected.
    pub detail: Error,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.detail, self.check.code())
    }
}

/// The rules whose breach does not keep an image from being read.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// The creator is text.
    Creator,
    /// Both headers are valid.
    HeaderCopies,
    /// The two headers have different sequence numbers.
    HeaderSequence,
    /// LogVersion is 0, also where the log is not in use.
    LogVersion,
    /// LogOffset and LogLength are multiples of 1 MiB, also where the log is not in use.
    LogAlignment,
    /// The log lies behind the header section and inside the file, also where it is not in use.
    LogPlace,
    /// The file lengths in a log entry are multiples of 1 MiB.
    LogFileOffsets,
    /// Both region tables are valid, and equal.
    RegionTableCopies,
    /// Reserved fields of the region table are zero.
    RegionTableReserved,
    /// Regions lie on multiples of 1 MiB.
    RegionAlignment,
    /// Regions lie inside the file.
    RegionPlace,
    /// The BAT and the metadata region are marked as required.
    RegionRequired,
    /// Reserved fields and flags of the metadata table are zero.
    MetadataReserved,
    /// Metadata items are unique.
    MetadataUnique,
    /// Metadata items lie in their region, behind the table.
    MetadataPlace,
    /// Metadata items do not overlap.
    MetadataOverlap,
    /// VirtualDiskId and PhysicalSectorSize are there.
    MetadataPresent,
    /// Reserved bits of the file parameters are zero.
    FileParametersReserved,
    /// PhysicalSectorSize is 512 or 4096.
    PhysicalSectorSize,
    /// The disk has a size.
    EmptyDisk,
    /// The flags of the known metadata items are as MS-VHDX 2.6.2 gives them.
    MetadataFlags,
    /// Only a differencing image has a parent locator.
    UnneededLocator,
    /// The GUIDs of the parent locator are in braces.
    LinkageBraces,
    /// The parent locator has a path.
    LocatorPath,
    /// The parent is linked by `parent_linkage`, not by `parent_linkage2`, which stands for a merge in progress.
    Linkage2,
    /// Parent and child have the same size.
    ParentSize,
}

/// How much a warning matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A habit of some writer. Many images in good health have it.
    Note,
    /// A sign that something was damaged, or that the image is in the middle of something.
    Warning,
}

impl Severity {
    /// The name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
        }
    }
}

impl Check {
    /// How much its breach matters.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::HeaderCopies
            | Self::RegionTableCopies
            | Self::RegionPlace
            | Self::MetadataUnique
            | Self::MetadataPlace
            | Self::MetadataOverlap
            | Self::EmptyDisk
            | Self::UnneededLocator
            | Self::Linkage2
            | Self::ParentSize => Severity::Warning,
            _ => Severity::Note,
        }
    }

    /// A short name that stays the same in all versions.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Creator => "V3",
            Self::HeaderCopies => "V5",
            Self::HeaderSequence => "V6",
            Self::LogVersion => "V9",
            Self::LogAlignment => "V10",
            Self::LogPlace => "V12",
            Self::LogFileOffsets => "V23",
            Self::RegionTableCopies => "V26",
            Self::RegionTableReserved => "V28",
            Self::RegionAlignment => "V30",
            Self::RegionPlace => "V32",
            Self::RegionRequired => "V36",
            Self::MetadataReserved => "V39",
            Self::MetadataUnique => "V40",
            Self::MetadataPlace => "V41",
            Self::MetadataOverlap => "V42",
            Self::MetadataPresent => "V45",
            Self::FileParametersReserved => "V47",
            Self::PhysicalSectorSize => "V49",
            Self::EmptyDisk => "V52",
            Self::MetadataFlags => "V53",
            Self::UnneededLocator => "V54",
            Self::LinkageBraces => "V57",
            Self::LocatorPath => "V58",
            Self::Linkage2 => "V59",
            Self::ParentSize => "V61",
        }
    }
}

/// The warnings of one image, as they are found: at most a few for each entry of its tables.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Vec<Warning>);

impl Warnings {
    /// Notes that `check` fails, as `detail` says.
    pub(crate) fn add(&mut self, check: Check, detail: Error) {
        self.0.push(Warning { check, detail });
    }

    /// Notes that `check` fails, if it does.
    pub(crate) fn add_if_err(&mut self, check: Check, result: Result<()>) {
        if let Err(detail) = result {
            self.add(check, detail);
        }
    }

    pub(crate) fn as_slice(&self) -> &[Warning] {
        &self.0
    }
}
