//! Bases and their checkpoints: `vhdx chain --tree`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::image::ImageKind;
use crate::ops::inventory::{ForestImage, ForestLeaf, ForestParent, Listing};

use super::{LooksLike, NameBytes, Report, Schema, text_of};

/// Images and how they depend on each other, by identity.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageForest {
    /// Name of this format.
    pub schema: Schema<Self>,
    /// The images, in the order in which they were found.
    pub images: Vec<ForestImageEntry>,
    /// Paths that cannot be read, and why.
    pub failed: Vec<ForestFailure>,
}

impl Report for ImageForest {
    const SCHEMA: &'static str = "vhdx-mmap/forest/1";
}

/// An image of a forest.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ForestImageEntry {
    /// Number of the image: its position in the list.
    pub number: usize,
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// Kind of the image.
    pub kind: ImageKind,
    /// Size of the disk, in bytes.
    pub virtual_size: u64,
    /// Identity of the content.
    pub data_write_guid: Uuid,
    /// Whether the log has changes.
    pub dirty_flag: bool,
    /// What is known of the parent.
    pub parent_state: ForestParentState,
    /// Number of the parent; for a stale image, of the image with the stored name; none without either.
    pub parent: Option<usize>,
    /// Identity that the parent must have; none for a base.
    pub parent_linkage: Option<Uuid>,
    /// Name of the parent, as the image stores it; none for a base.
    pub parent_filename: Option<String>,
    /// Numbers of the images that have this image as their parent.
    pub children: Vec<usize>,
    /// Number of the images that depend on this image.
    pub descendants: usize,
    /// Numbers of the images that name this file as their parent, but store another identity.
    pub stale_children: Vec<usize>,
    /// Number of the first other image with this identity; none if there is no other.
    pub duplicate_of: Option<usize>,
    /// What the image is among the leaves of its tree: `current` for the only one, which holds the current state of the
    /// disk; of several, `newest` for the one whose file was changed last, and `branch` for the others; none for an
    /// image with children, also of a copy or stale ones, for the other copies of a leaf, or without all parents.
    pub leaf: Option<ForestLeaf>,
}

/// What is known of the parent of an image.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ForestParentState {
    /// The image needs no parent.
    Base,
    /// The parent was found by its identity.
    Found,
    /// The file with the stored name has another identity: it was changed after the child was made.
    Stale,
    /// No file has the identity or the name.
    Orphan,
    /// The chain leads back to the image.
    Cycle,
}

/// A path that cannot be read.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ForestFailure {
    /// The path.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// Why it cannot be read.
    pub error: String,
    /// What the file is, if it is not a VHDX image; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looks_like: Option<LooksLike>,
}

impl ImageForest {
    /// Describes the images of a listing, and the paths that could not be read.
    #[must_use]
    pub fn of(listing: &Listing) -> Self {
        let images = listing.forest().images().iter().enumerate();
        Self {
            schema: Schema::default(),
            images: images.map(|(number, image)| ForestImageEntry::of(number, image)).collect(),
            failed: listing.failed().map(|(path, error)| ForestFailure::of(path, error)).collect(),
        }
    }
}

impl ForestImageEntry {
    fn of(number: usize, image: &ForestImage) -> Self {
        let (parent_state, parent) = match image.parent {
            ForestParent::None => (ForestParentState::Base, None),
            ForestParent::Found(parent) => (ForestParentState::Found, Some(parent)),
            ForestParent::Stale(named) => (ForestParentState::Stale, Some(named)),
            ForestParent::Missing => (ForestParentState::Orphan, None),
            ForestParent::Cycle(parent) => (ForestParentState::Cycle, Some(parent)),
        };
        let stored = image.stored.as_ref();
        Self {
            number,
            filename: text_of(Some(&image.path)),
            filename_bytes: NameBytes::of(&image.path),
            kind: image.kind,
            virtual_size: image.virtual_size,
            data_write_guid: image.data_write_guid,
            dirty_flag: image.is_dirty,
            parent_state,
            parent,
            parent_linkage: stored.map(|stored| stored.linkage),
            parent_filename: stored.map(|stored| stored.name.clone()),
            children: image.children.clone(),
            descendants: image.descendants,
            stale_children: image.stale_children.clone(),
            duplicate_of: image.duplicate_of,
            leaf: image.leaf,
        }
    }
}

impl ForestFailure {
    fn of(path: &Path, error: &Error) -> Self {
        Self {
            filename: text_of(Some(path)),
            filename_bytes: NameBytes::of(path),
            error: format!("{error:#}"),
            looks_like: LooksLike::of_error(error),
        }
    }
}
