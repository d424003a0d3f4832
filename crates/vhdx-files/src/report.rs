//! Files as JSON: what the commands of `vhdx` that show files print.
//!
//! The feature `schema` adds `schemas`: a JSON Schema for each command.

use serde::Serialize;
#[cfg(feature = "schema")]
use vhdx_mmap::report::schema_of;
use vhdx_mmap::report::{NameBytes, Report, Schema, path_of_bytes};

use crate::error::Result;
use crate::volume::{FileKind, Metadata, Node, Times, Volume};

/// A file.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileRow {
    /// Name of this format.
    pub schema: Schema<Self>,
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
    /// What users have to know of the volume that it is in, such as `journal-ignored`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_warnings: Vec<&'static str>,
}

/// Times, as RFC 3339 has them; those are left out that the file system does not have.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StreamRow {
    /// Its name.
    pub name: String,
    /// Its length, in bytes.
    pub size: u64,
}

impl Report for FileRow {
    const SCHEMA: &'static str = "vhdx-files/file/1";
}

/// A file that `vhdx find` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FindRow {
    /// The file.
    #[serde(flatten)]
    pub file: FileRow,
    /// SHA-256 digest of its content, in hexadecimal; only if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A file that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChangeRow {
    /// What was done: `added`, `removed`, `changed` or `renamed`.
    pub change: &'static str,
    /// Number of its partition; absent if it is on the disk as a whole, or in a logical volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// `GROUP/NAME` of its logical volume; absent if it is in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_volume: Option<String>,
    /// Its path before, if it was renamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What of it is not as it was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<&'static str>,
    /// The file as it is, or as it was if it was removed.
    #[serde(flatten)]
    pub file: FileRow,
}

/// A file with the parts of it that lie in the ranges that were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LocateRow {
    /// Number of its partition; none if it is on the disk as a whole, or in a logical volume.
    pub partition: Option<u32>,
    /// `GROUP/NAME` of its logical volume; absent if it is in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_volume: Option<String>,
    /// The file.
    #[serde(flatten)]
    pub file: FileRow,
    /// Name of the stream, if it is not the main one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The parts.
    pub ranges: Vec<LocatedRange>,
}

/// A part of a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LocatedRange {
    /// Offset in the file.
    pub start: u64,
    /// Length.
    pub length: u64,
    /// Offset in the disk.
    pub offset: u64,
}

/// The file systems of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Df {
    /// Name of this format.
    pub schema: Schema<Self>,
    /// Path of the image.
    pub filename: String,
    /// The partitions, or the disk as a whole.
    pub volumes: Vec<DfRow>,
}

impl Report for Df {
    const SCHEMA: &'static str = "vhdx-files/df/1";
}

/// A file system. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DfRow {
    /// Number of the partition; none for the disk as a whole, and for a logical volume.
    pub partition: Option<u32>,
    /// `GROUP/NAME` of a logical volume; none for anything else.
    pub logical_volume: Option<String>,
    /// What it holds; none if that is not known.
    #[serde(rename = "type")]
    pub kind: Option<&'static str>,
    /// Label, empty if it has none.
    pub label: String,
    /// UUID or serial number, empty if it has none.
    pub uuid: String,
    /// Size of the file system; none if it cannot be read.
    pub size: Option<u64>,
    /// What of it is in use.
    pub used: Option<u64>,
    /// What of it is free.
    pub free: Option<u64>,
    /// What the image and its parents hold of the partition.
    pub allocated: u64,
    /// What they hold although the file system does not use it: at least this much could be given back.
    pub reclaimable: Option<u64>,
    /// Whether its journal was replayed in memory.
    pub is_replayed: bool,
    /// What users of the files have to know, such as `journal-ignored`.
    pub warnings: Vec<&'static str>,
    /// What must be known of its content, such as that of a member of a RAID.
    pub note: Option<String>,
    /// Why it cannot be read; none if it can, or if it is nothing that is read.
    pub error: Option<String>,
}

/// JSON Schema (draft 2020-12) of the output of each command with `--output json`, by the name of the command; of
/// `vhdx diff --files`, by `diff-files`.
#[cfg(feature = "schema")]
#[must_use]
pub fn schemas() -> Vec<(&'static str, serde_json::Value)> {
    vec![
        ("ls", schema_of::<FileRow>("vhdx ls: one object on each line", false)),
        ("find", schema_of::<FindRow>("vhdx find: one object on each line", false)),
        ("locate", schema_of::<LocateRow>("vhdx locate: one object on each line", false)),
        ("diff-files", schema_of::<ChangeRow>("vhdx diff --files: one object on each line", false)),
        ("df", schema_of::<OneOrMore<Df>>("vhdx df: an object, or an array for several images", true)),
    ]
}

/// What a command prints of one image or of several.
#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum OneOrMore<R> {
    One(R),
    More(Vec<R>),
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
            volume_warnings: volume.about().warnings.iter().map(|warning| warning.as_str()).collect(),
            ..Self::of_metadata(path, node, metadata)
        })
    }

    /// Describes a file by its metadata alone: without the target of a link, and without streams.
    #[must_use]
    pub fn of_metadata(path: &[u8], node: Node, metadata: &Metadata) -> Self {
        Self {
            schema: Schema::default(),
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
            volume_warnings: Vec::new(),
        }
    }
}
