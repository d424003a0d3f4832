//! Values of the caller for images whose metadata are damaged.

/// Values that replace those in the metadata of an image, for images whose metadata are damaged. With wrong values, the
/// content that is read is meaningless.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataOverrides {
    /// Size of a payload block, in bytes: a power of two from 1 MiB to 256 MiB.
    pub block_size: Option<u32>,
    /// Size of the virtual disk, in bytes: at most 64 TiB.
    pub disk_size: Option<u64>,
    /// Logical sector size, in bytes: 512 or 4096.
    pub sector_size: Option<u32>,
    /// Whether the image has a parent, whatever its flags are (MS-VHDX 2.6.2.1).
    pub has_parent: bool,
}

impl MetadataOverrides {
    /// Returns whether no value is replaced.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}
