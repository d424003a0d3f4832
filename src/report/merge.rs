//! A manifest that was merged: `vhdx merge --manifest`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ops::manifest::Root;

use super::{NameBytes, Report, Schema, text_of};

/// A manifest that was merged from its shards. Merged shards of digests give the report of `hash`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Merge {
    /// Name of this format.
    pub schema: Schema<Self>,
    /// Path of the manifest.
    pub manifest: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_bytes: Option<NameBytes>,
    /// Digests of all block digests.
    pub root: Vec<Root>,
}

impl Report for Merge {
    const SCHEMA: &'static str = "vhdx-mmap/merge/1";
}

impl Merge {
    /// Describes the manifest at `manifest` by the digests of its block digests.
    #[must_use]
    pub fn of(manifest: &Path, roots: &[Root]) -> Self {
        Self {
            schema: Schema::default(),
            manifest: text_of(Some(manifest)),
            manifest_bytes: NameBytes::of(manifest),
            root: roots.to_vec(),
        }
    }
}
