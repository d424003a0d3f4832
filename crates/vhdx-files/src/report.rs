//! Files as JSON: what the commands of `vhdx` that show files print.

use serde::Serialize;
use vhdx_mmap::report::{NameBytes, path_of_bytes};

use crate::error::Result;
use crate::volume::{FileKind, Metadata, Node, Times, Volume};

/// A file.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileRow {
    /// Name of this format: `vhdx-files/file/1`.
    pub schema: &'static str,
    /// Its path. What is not Unicode is replaced.
    pub path: String,
    /// Bytes of the path, as base64, if it is not Unicode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<NameBytes>,
    /// Its kind.
    pub kind: &'static str,
    /// Length of its content, in bytes.
    pub size: u64,
    /// What its content takes on the disk, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated: Option<u64>,
    /// Number of its inode, or what names it in its file system.
    pub node: u64,
    /// Its times, in UTC.
    #[serde(flatten)]
    pub times: TimesRow,
    /// The times of its name; NTFS alone has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_times: Option<TimesRow>,
    /// Its permissions, in octal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Number of the user that owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Number of its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Number of its names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<u32>,
    /// Attributes of DOS and Windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dos_attributes: Option<u32>,
    /// Whether its content is encrypted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_encrypted: bool,
    /// Target of a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Names and lengths of its streams.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamRow>,
}

/// Times, as RFC 3339 has them; those are left out that the file system does not have.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TimesRow {
    /// When its content was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
    /// When it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accessed: Option<String>,
    /// When its metadata were changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
}

/// A stream.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StreamRow {
    /// Its name.
    pub name: String,
    /// Its length, in bytes.
    pub size: u64,
}

impl From<Times> for TimesRow {
    fn from(times: Times) -> Self {
        let text = |time: Option<crate::Time>| time.map(|time| time.to_string());
        Self {
            modified: text(times.modified),
            accessed: text(times.accessed),
            changed: text(times.changed),
            created: text(times.created),
        }
    }
}

impl FileRow {
    /// Describes a file that has a path in a volume.
    ///
    /// # Errors
    /// Fails if the target of a link, or the streams, cannot be read.
    pub fn of(volume: &dyn Volume, path: &[u8], node: Node, metadata: &Metadata) -> Result<Self> {
        let target = match metadata.kind {
            FileKind::Link => Some(String::from_utf8_lossy(&volume.link_target(node)?).into_owned()),
            _ => None,
        };
        let streams = volume.streams(node)?;
        Ok(Self {
            streams: streams.into_iter().map(|stream| StreamRow { name: stream.name, size: stream.size }).collect(),
            target,
            ..Self::of_metadata(path, node, metadata)
        })
    }

    /// Describes a file by its metadata alone: without the target of a link, and without streams.
    #[must_use]
    pub fn of_metadata(path: &[u8], node: Node, metadata: &Metadata) -> Self {
        Self {
            schema: "vhdx-files/file/1",
            path: String::from_utf8_lossy(path).into_owned(),
            path_bytes: NameBytes::of(&path_of_bytes(path.to_vec())),
            kind: metadata.kind.as_str(),
            size: metadata.size,
            allocated: metadata.allocated,
            node: node.0,
            times: metadata.times.into(),
            name_times: metadata.name_times.map(TimesRow::from),
            mode: metadata.mode.map(|mode| format!("{mode:04o}")),
            uid: metadata.owner.map(|(user, _)| user),
            gid: metadata.owner.map(|(_, group)| group),
            links: metadata.links,
            dos_attributes: metadata.dos_attributes,
            is_encrypted: metadata.is_encrypted,
            target: None,
            streams: Vec::new(),
        }
    }
}
