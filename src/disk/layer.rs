//! Images of a chain.

use std::ops::Range;

use crate::image::{Image, Linkage, Strictness, Warning, Warnings};
use crate::source::{LostRanges, SourceRef};

use super::parents::FoundBy;

/// Image of a chain.
#[derive(Debug)]
pub struct Layer {
    pub(super) image: Image,
    link: Option<ParentLink>,
    /// Warnings about the link to the parent.
    pub(super) warnings: Warnings,
    /// In a salvage: the ranges that the medium has failed to return so far.
    lost: Option<LostRanges>,
}

/// Reason why an image was accepted as the parent of the layer above it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentLink {
    /// How the file was found.
    pub found_by: FoundBy,
    /// Identity by which the file was verified.
    pub linkage: Linkage,
    /// Number of other files with the identity in the folder that was searched for it: copies, also of another
    /// length. The longest one that is usable was taken.
    pub others: usize,
}

impl Layer {
    pub(super) fn new(image: Image, link: Option<ParentLink>, strictness: Strictness) -> Self {
        let lost = (strictness == Strictness::Salvage).then(LostRanges::default);
        Self { image, link, warnings: Warnings::default(), lost }
    }

    /// Returns the file, as this layer reads it.
    pub(crate) fn file(&self) -> SourceRef<'_> {
        SourceRef::new(self.image.source(), self.lost.as_ref())
    }

    /// Returns the first range of `length` bytes of the file, from `offset` on, that the medium has failed to return so
    /// far. Returns `None` without a salvage.
    pub(crate) fn first_unread(&self, offset: u64, length: u64) -> Option<Range<u64>> {
        self.lost.as_ref()?.first_in(offset, length)
    }

    /// Returns the image.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Returns how the image was found as a parent. Returns `None` for the opened image.
    #[must_use]
    pub fn link(&self) -> Option<ParentLink> {
        self.link
    }

    /// Returns the warnings about the image and its link to its parent.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.image.warnings().iter().chain(self.warnings.as_slice())
    }
}
