//! Formats of files that are given in place of an image.

/// Format of a file that is not a VHDX image, as far as its content or its name shows it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherFormat {
    /// Short name that does not change, for programs: `gzip`, `html`.
    pub key: &'static str,
    /// Name in words, with an article: `a gzip file`.
    pub name: &'static str,
    /// What it is used for.
    pub group: FormatGroup,
}

/// What a format is used for.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FormatGroup {
    /// One packed file: the image may be in it.
    Packed,
    /// An archive of files.
    Archive,
    /// An encrypted file.
    Encrypted,
    /// A disk image in another format.
    DiskImage,
    /// A disk or a file system as it is.
    RawDisk,
    /// Another file of a virtual machine.
    VirtualMachine,
    /// An answer of a server that was saved in place of the file.
    ServerAnswer,
    /// A short text that stands for the file.
    Pointer,
    /// No content: a download or a copy that did not begin, or the placeholder of a cloud folder.
    NoContent,
    /// Another file that is no image.
    OtherFile,
    /// Unknown: other data, or an image whose beginning is lost.
    Unknown,
}

impl FormatGroup {
    /// Returns the name in lower case, with hyphens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Packed => "packed",
            Self::Archive => "archive",
            Self::Encrypted => "encrypted",
            Self::DiskImage => "disk-image",
            Self::RawDisk => "raw-disk",
            Self::VirtualMachine => "virtual-machine",
            Self::ServerAnswer => "server-answer",
            Self::Pointer => "pointer",
            Self::NoContent => "no-content",
            Self::OtherFile => "other-file",
            Self::Unknown => "unknown",
        }
    }

    /// Returns whether the file was certainly never an image: one whose beginning was overwritten looks otherwise.
    pub(crate) const fn is_certain(self) -> bool {
        !matches!(self, Self::RawDisk | Self::Unknown)
    }
}

crate::error::display_as_str!(FormatGroup);
