//! Options for opening an image and its parents.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::image::{LogPolicy, MetadataOverrides, Strictness};
use crate::source::{Allow, Source};

use super::fingerprint::ChainFingerprint;
use super::identities::KnownFolders;
use super::parents::Parents;

/// Options for opening an image and its parents.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Policy for dirty logs, of the image and of each parent.
    pub log_policy: LogPolicy,
    /// Places where parents may be searched.
    pub parents: Parents,
    /// Policy for damaged images. With [`Strictness::Salvage`], ranges that cannot be read are zero, and
    /// [`Disk::losses`](crate::Disk::losses) lists them. If a medium fails, this applies to bytes that are read
    /// ([`Disk::read_at`](crate::Disk::read_at), scans and operations in `ops`); bytes that are borrowed from a mapping
    /// ([`Disk::segments`](crate::Disk::segments), [`Disk::slice`](crate::Disk::slice)) fail with an error.
    pub strictness: Strictness,
    /// Values that replace the metadata of the image. They do not apply to its parents.
    pub overrides: MetadataOverrides,
    maps_parents: bool,
    rejects_links: bool,
    pub(super) folders: Option<Arc<KnownFolders>>,
    pub(super) expected: Option<ChainFingerprint>,
}

impl OpenOptions {
    /// Makes the default options: logs are replayed in memory, and only the given file is opened.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the policy for dirty logs.
    #[must_use]
    pub fn log_policy(mut self, log_policy: LogPolicy) -> Self {
        self.log_policy = log_policy;
        self
    }

    /// Sets the policy for damaged images.
    #[must_use]
    pub fn strictness(mut self, strictness: Strictness) -> Self {
        self.strictness = strictness;
        self
    }

    /// Sets values that replace the metadata of the image.
    #[must_use]
    pub fn overrides(mut self, overrides: MetadataOverrides) -> Self {
        self.overrides = overrides;
        self
    }

    /// Maps the parents that a search finds and opens ([`Parents::Beside`], [`Parents::Within`],
    /// [`Parents::Explicit`]), like [`Source::map`]. By default, they are opened with [`Source::open`], and their bytes
    /// cannot be borrowed.
    ///
    /// # Safety
    /// The promise of [`Source::map`] for all files that such a search opens: their content and length do not change
    /// while a disk uses them.
    #[cfg(feature = "mmap")]
    #[expect(unsafe_code, reason = "a promise about files, which no type can make")]
    #[must_use]
    pub unsafe fn map_parents(mut self) -> Self {
        self.maps_parents = true;
        self
    }

    /// Rejects symbolic links in the paths of [`Parents::Explicit`], like [`Source::open_without_links`]. A search
    /// never follows links out of its folders.
    #[must_use]
    pub fn without_links(mut self) -> Self {
        self.rejects_links = true;
        self
    }

    /// Remembers what searches find in folders, for all clones of these options: for many images with parents in the
    /// same folders. Files that appear there later may not be found.
    #[must_use]
    pub fn remember_folders(mut self) -> Self {
        self.folders.get_or_insert_default();
        self
    }

    /// Kinds of paths that a caller may name.
    pub(super) fn allow_named(&self) -> Allow {
        if self.rejects_links { Allow::WithoutLinks } else { Allow::Named }
    }

    /// A parent that a search has found and opened, and of which nobody else has a handle.
    pub(super) fn open_parent(&self, file: Source) -> Result<Source> {
        #[cfg(feature = "mmap")]
        if self.maps_parents {
            let Some(file) = file.into_file() else {
                return Err(Error::of(Structure::Parent, ErrorKind::Text { what: "it is in use while it is opened" }));
            };
            #[expect(unsafe_code, reason = "a promise about files is passed on")]
            // SAFETY: only `map_parents` sets this, whose caller has made the promise for all parents.
            return unsafe { Source::map_open(file) };
        }
        Ok(file)
    }

    /// Sets the places where parents may be searched.
    #[must_use]
    pub fn parents(mut self, parents: Parents) -> Self {
        self.parents = parents;
        self
    }

    /// Sets the expected fingerprint. Opening fails with [`ErrorKind::OtherFiles`] if an
    /// image of the chain differs, or was written to since the fingerprint was taken. A parent that cannot be used
    /// is an error of its own.
    #[must_use]
    pub fn expect(mut self, fingerprint: ChainFingerprint) -> Self {
        self.expected = Some(fingerprint);
        self
    }
}
