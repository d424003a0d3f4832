//! A row of an inventory: `vhdx list`.

use serde::{Deserialize, Serialize};

use crate::image::ImageKind;
use crate::ops::inventory::{Health, InventoryRow, ParentStatus, RowContent};

use super::info::InfoContents;
use super::{Fields, LogUse, LooksLike, NameBytes, Report, Schema, text_of};

/// An image of an inventory, or a path that cannot be read.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct List {
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// Kind of the image; like all keys but the path and the sizes of the file, none if the image cannot be opened.
    pub kind: Option<ImageKind>,
    /// Size of the disk, in bytes.
    pub virtual_size: Option<u64>,
    /// Length of the file, in bytes; none if the file cannot be opened.
    pub file_length: Option<u64>,
    /// Space that the file occupies, in bytes; none if the system does not say.
    pub actual_size: Option<u64>,
    /// Size of the payload blocks that the file holds, in bytes; none if the BAT is damaged.
    pub allocated_size: Option<u64>,
    /// Whether another program has the file open for writing; none if the system does not say.
    #[serde(default)]
    pub in_use: Option<bool>,
    /// What was done with the log.
    pub log: Option<LogUse>,
    /// Whether the parents were found.
    pub parent: Option<ParentStatus>,
    /// Number of the listed images that depend on this image.
    pub checkpoints: Option<usize>,
    /// State of the image.
    pub health: Option<Health>,
    /// The first problem, if there is one.
    pub problem: Option<String>,
    /// Content of the disk, or why it is unknown.
    pub contents: Option<InfoContents>,
    /// Digests of the disk in hexadecimal, by algorithm; only if the content was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Fields<String>>,
    /// Number of allocated blocks that hold only zeros; only if the content was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_blocks: Option<u64>,
    /// Number of allocated blocks that do not follow the previous one in the file; only if the content was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragmented_blocks: Option<u64>,
    /// Why the image cannot be opened; none if it can.
    pub error: Option<String>,
    /// What the file is, if it is not a VHDX image; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looks_like: Option<LooksLike>,
    /// Name of this format.
    pub schema: Schema<Self>,
}

impl Report for List {
    const SCHEMA: &'static str = "vhdx-mmap/list/1";
}

impl List {
    /// Describes a row.
    #[must_use]
    pub fn of(row: &InventoryRow) -> Self {
        let image = row.image.as_ref().ok();
        let deep = |of: fn(&RowContent) -> Option<u64>| image.and_then(of);
        let digests = image.and_then(|image| image.digests.as_ref());
        Self {
            filename: text_of(Some(&row.path)),
            filename_bytes: NameBytes::of(&row.path),
            kind: image.map(|image| image.kind),
            virtual_size: image.map(|image| image.virtual_size),
            file_length: row.file_size,
            actual_size: row.actual_size,
            allocated_size: image.and_then(|image| image.allocated),
            in_use: row.in_use,
            log: image.map(|image| (&image.log).into()),
            parent: image.map(|image| image.parent),
            checkpoints: image.map(|image| image.checkpoints),
            health: image.map(|image| image.health),
            problem: image.and_then(|image| image.problem.as_ref()).map(|problem| format!("{problem:#}")),
            contents: image.map(|image| match &image.layout {
                Ok(layout) => InfoContents::Known(Box::new(layout.clone())),
                Err(error) => InfoContents::Unknown { error: format!("{error:#}") },
            }),
            disk: digests.map(|digests| {
                digests.iter().map(|digest| (digest.algorithm().as_str(), digest.to_string())).collect()
            }),
            zero_blocks: deep(|image| image.zero_blocks),
            fragmented_blocks: deep(|image| image.fragmented_blocks),
            error: row.image.as_ref().err().map(|error| format!("{error:#}")),
            looks_like: row.image.as_ref().err().and_then(LooksLike::of_error),
            schema: Schema::default(),
        }
    }
}
