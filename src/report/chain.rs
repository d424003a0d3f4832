//! The chain of an image: `vhdx chain`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk::{self, FoundBy, Layer};
use crate::image::{ImageKind, Linkage};

use super::{LogUse, NameBytes, Report, Schema, text_of};

/// The images of a chain and how they were found.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Chain {
    /// Name of this format.
    pub schema: Schema<Self>,
    /// The images, from the one that was opened to the base.
    pub layers: Vec<ChainLayer>,
    /// False if a parent is missing.
    pub complete: bool,
    /// The error of the missing parent; none if no parent was searched for.
    pub error: Option<String>,
}

impl Report for Chain {
    const SCHEMA: &'static str = "vhdx-mmap/chain/1";
}

/// An image of a chain.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChainLayer {
    /// Number of the layer: 0 is the image that was opened, 1 its parent.
    pub depth: usize,
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// Kind of the image.
    pub kind: ImageKind,
    /// Size of the disk, in bytes.
    pub virtual_size: u64,
    /// What was done with the log.
    pub log: LogUse,
    /// Whether another program has the file open for writing; none if unknown.
    #[serde(default)]
    pub in_use: Option<bool>,
    /// Identity of the content; none if both headers are lost.
    pub data_write_guid: Option<Uuid>,
    /// How the image was found; none for the image that was opened.
    pub found_by: Option<FoundBy>,
    /// The key of the child's locator that names the identity of this image; none for the image that was opened.
    pub linkage: Option<Linkage>,
    /// Name of the parent, as the image stores it; none if it has no parent or no readable locator.
    pub parent: Option<String>,
    /// Identity that the parent must have.
    pub parent_linkage: Option<Uuid>,
}

impl Chain {
    /// Describes a chain.
    #[must_use]
    pub fn of(chain: &disk::Chain) -> Self {
        Self {
            schema: Schema::default(),
            layers: chain.layers().iter().enumerate().map(|(depth, layer)| ChainLayer::of(depth, layer)).collect(),
            complete: !chain.needs_parent(),
            error: chain.broken().map(|error| format!("{error:#}")),
        }
    }
}

impl ChainLayer {
    fn of(depth: usize, layer: &Layer) -> Self {
        let image = layer.image();
        let locator = image.parent_locator().ok().flatten();
        Self {
            depth,
            filename: text_of(image.path()),
            filename_bytes: image.path().and_then(NameBytes::of),
            kind: image.kind(),
            virtual_size: image.virtual_disk_size(),
            log: image.log_state().into(),
            in_use: image.source().in_use(),
            data_write_guid: image.header().known_data_write_guid(),
            found_by: layer.link().map(|link| link.found_by),
            linkage: layer.link().map(|link| link.linkage),
            parent: locator.as_ref().map(|locator| locator.name().to_owned()),
            parent_linkage: locator.as_ref().map(|locator| locator.parent_linkage),
        }
    }
}
