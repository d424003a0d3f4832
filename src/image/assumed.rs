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
    /// Whether blocks that are not present are read where a fixed image has them: one after the other, in their order.
    /// For images whose BAT is lost.
    pub is_linear: bool,
    /// File offset of the metadata region, in bytes, whatever the region tables say (MS-VHDX 2.2.3).
    pub metadata_offset: Option<u64>,
    /// File offset of the BAT region, in bytes, whatever the region tables say (MS-VHDX 2.2.3).
    pub bat_offset: Option<u64>,
}

impl MetadataOverrides {
    /// Returns whether no value is replaced.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether nothing in the metadata is necessary.
    pub(crate) fn has_all_sizes(&self) -> bool {
        self.block_size.is_some() && self.disk_size.is_some() && self.sector_size.is_some()
    }
}
