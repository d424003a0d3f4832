//! What somebody says of an image that does not say it itself any more.

/// Values that are taken instead of those in the metadata of an image: for images whose metadata are damaged. They must be what the
/// image was made with, or what is read is nonsense.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataOverrides {
    /// Size of a payload block, in bytes: a power of two from 1 MiB to 256 MiB.
    pub block_size: Option<u32>,
    /// Size of the virtual disk, in bytes: at most 64 TiB.
    pub disk_size: Option<u64>,
    /// Logical sector size, in bytes: 512 or 4096.
    pub sector_size: Option<u32>,
    /// That the image has a parent, whatever its flags say (MS-VHDX 2.6.2.1).
    pub has_parent: bool,
}

impl MetadataOverrides {
    /// Whether nothing is.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}
