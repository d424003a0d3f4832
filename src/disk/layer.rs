//! One image of a chain, as an opening of the chain reads it.

use std::ops::Range;

use crate::image::{Image, Linkage, Strictness, Warning, Warnings};
use crate::source::{LostRanges, SourceRef};

use super::parents::FoundBy;

/// One image of a chain.
#[derive(Debug)]
pub struct Layer {
    pub(super) image: Image,
    link: Option<ParentLink>,
    /// What is out of the ordinary in its link to its parent.
    pub(super) warnings: Warnings,
    /// Of a layer that is salvaged: what its medium has failed to give so far.
    lost: Option<LostRanges>,
}

/// How a layer was found for the one above it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentLink {
    /// By which way.
    pub found_by: FoundBy,
    /// By which identity it was verified.
    pub linkage: Linkage,
}

impl Layer {
    pub(super) fn new(image: Image, link: Option<ParentLink>, strictness: Strictness) -> Self {
        let lost = (strictness == Strictness::Salvage).then(LostRanges::default);
        Self { image, link, warnings: Warnings::default(), lost }
    }

    /// The file, as this layer reads it.
    pub(crate) fn file(&self) -> SourceRef<'_> {
        SourceRef::new(self.image.source(), self.lost.as_ref())
    }

    /// What of `length` bytes of the file, from `offset` on, its medium has failed to give so far: the first such range. None
    /// of a layer that is not salvaged.
    pub(crate) fn first_unread(&self, offset: u64, length: u64) -> Option<Range<u64>> {
        self.lost.as_ref()?.first_in(offset, length)
    }

    /// The image.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// How it was found; none for the image that was opened.
    #[must_use]
    pub fn link(&self) -> Option<ParentLink> {
        self.link
    }

    /// What is out of the ordinary in the image, and in its link to its parent.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.image.warnings().iter().chain(self.warnings.as_slice())
    }
}
