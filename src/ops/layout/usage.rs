//! How full a file system is.

/// How full a file system is, and what an image holds of it. All sizes are in bytes.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Usage {
    /// Size of the file system.
    pub size: u64,
    /// What of it is in use; none if the file system does not say.
    pub used: Option<u64>,
    /// What of it is free; none if the file system does not say.
    pub free: Option<u64>,
    /// What the image and its parents hold of the partition.
    pub allocated: u64,
    /// What they hold although the file system does not use it: at least this much could be given back. None if the
    /// file system does not say what it uses.
    pub reclaimable: Option<u64>,
}

impl Usage {
    /// Makes the usage of a file system of `size` bytes, `used` of which are in use, where the image and its parents
    /// hold `allocated` bytes.
    #[must_use]
    pub fn new(size: u64, used: Option<u64>, allocated: u64) -> Self {
        let without = |total: u64| used.map(|used| total.saturating_sub(used));
        Self { size, used, free: without(size), allocated, reclaimable: without(allocated) }
    }
}
