//! Images that depend on an image: a part of `vhdx info`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ops::inventory::Checkpoints;

use super::{NameBytes, text_of};

/// Images that depend on an image, in the folder of the image.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoCheckpoints {
    /// Number of checkpoints.
    pub count: usize,
    /// Path of the newest checkpoint, which holds the current state of the disk; none without checkpoints.
    pub newest: Option<String>,
    /// Bytes of this path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_bytes: Option<NameBytes>,
    /// Number of checkpoints without checkpoints of their own; more than 1 if the chain has branches.
    pub leaves: usize,
    /// Paths of the checkpoints, each after its parent.
    pub files: Vec<String>,
    /// Bytes of those paths that are not Unicode; absent if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_bytes: Option<Vec<Option<NameBytes>>>,
    /// Paths of images that name this file as their parent, but store another identity.
    pub stale: Vec<String>,
    /// Bytes of those paths that are not Unicode; absent if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_bytes: Option<Vec<Option<NameBytes>>>,
    /// Whether all files of the folder that may be checkpoints were looked at.
    pub complete: bool,
    /// Paths of files that may be checkpoints, but cannot be read or are damaged; of the folder if that cannot be read.
    #[serde(default)]
    pub unreadable: Vec<String>,
    /// Bytes of those paths that are not Unicode; absent if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable_bytes: Option<Vec<Option<NameBytes>>>,
    /// Paths of other files with names of images that are damaged or no images: hardly checkpoints.
    #[serde(default)]
    pub damaged: Vec<String>,
    /// Bytes of those paths that are not Unicode; absent if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged_bytes: Option<Vec<Option<NameBytes>>>,
}

impl InfoCheckpoints {
    pub(super) fn of(found: &Checkpoints) -> Self {
        let text = |path: &PathBuf| text_of(Some(path));
        let bytes = |paths: &[PathBuf]| NameBytes::of_all(paths.iter().map(|path| Some(path.as_path())));
        Self {
            count: found.files.len(),
            newest: found.newest.as_ref().map(text),
            newest_bytes: found.newest.as_deref().and_then(NameBytes::of),
            leaves: found.leaves,
            files: found.files.iter().map(text).collect(),
            files_bytes: bytes(&found.files),
            stale: found.stale.iter().map(text).collect(),
            stale_bytes: bytes(&found.stale),
            complete: found.is_complete,
            unreadable: found.unreadable.iter().map(text).collect(),
            unreadable_bytes: bytes(&found.unreadable),
            damaged: found.damaged.iter().map(text).collect(),
            damaged_bytes: bytes(&found.damaged),
        }
    }
}
