//! How an image and its parents are opened.

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::image::{LogPolicy, MetadataOverrides, Strictness};
use crate::source::Source;

use super::fingerprint::ChainFingerprint;
use super::parents::Parents;

/// How an image and its parents are to be opened.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// What to do with a log that holds changes: of the image and of each parent.
    pub log_policy: LogPolicy,
    /// Where parents may be looked for.
    pub parents: Parents,
    /// What to do with images that are damaged. With [`Strictness::Salvage`], what can't be read is zero, and [`Disk::losses`]
    /// tells what that is. Where a medium fails, that holds for bytes that are read ([`Disk::read_at`], scans and what
    /// `ops` has); those that are lent from a mapping ([`Disk::segments`], [`Disk::slice`]) are an error there.
    pub strictness: Strictness,
    /// What counts instead of what the metadata of the image say. Of its parents, nothing is assumed.
    pub overrides: MetadataOverrides,
    maps_parents: bool,
    pub(super) expected: Option<ChainFingerprint>,
}

impl OpenOptions {
    /// Logs are replayed in memory, and no file is opened but the one that is given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what to do with a log that holds changes.
    #[must_use]
    pub fn log_policy(mut self, log_policy: LogPolicy) -> Self {
        self.log_policy = log_policy;
        self
    }

    /// Sets what to do with images that are damaged.
    #[must_use]
    pub fn strictness(mut self, strictness: Strictness) -> Self {
        self.strictness = strictness;
        self
    }

    /// Sets what counts instead of what the metadata of the image say.
    #[must_use]
    pub fn overrides(mut self, overrides: MetadataOverrides) -> Self {
        self.overrides = overrides;
        self
    }

    /// Maps the parents that a search finds and opens ([`Parents::Beside`], [`Parents::Within`], [`Parents::Explicit`]), as
    /// [`Source::map`] does. Without this they are opened by [`Source::open`], and nothing can be borrowed of what lies in
    /// them.
    ///
    /// # Safety
    /// The promise of [`Source::map`], made for all files that such a search opens: their content and their length do not
    /// change while a disk of them lives.
    #[cfg(feature = "mmap")]
    #[expect(unsafe_code, reason = "a promise about files, which no type can make")]
    #[must_use]
    pub unsafe fn map_parents(mut self) -> Self {
        self.maps_parents = true;
        self
    }

    /// A parent that a search has found and opened, and of which nobody else has a handle.
    pub(super) fn open_parent(&self, file: Source) -> Result<Source> {
        #[cfg(feature = "mmap")]
        if self.maps_parents {
            let Some(file) = file.into_file() else {
                return Err(Error::of(Structure::Parent, ErrorKind::Text { what: "it is in use while it is opened" }));
            };
            #[expect(unsafe_code, reason = "a promise about files is passed on")]
            // SAFETY: only `map_parents` sets this, whose caller has promised it for all parents.
            return unsafe { Source::map_open(file) };
        }
        Ok(file)
    }

    /// Sets where parents may be looked for.
    #[must_use]
    pub fn parents(mut self, parents: Parents) -> Self {
        self.parents = parents;
        self
    }

    /// Sets which files the opening must find: it fails with [`ErrorKind::OtherFiles`](crate::ErrorKind::OtherFiles) if an image of the chain is
    /// another one, or was written to since the fingerprint was taken.
    #[must_use]
    pub fn expect(mut self, fingerprint: ChainFingerprint) -> Self {
        self.expected = Some(fingerprint);
        self
    }
}
