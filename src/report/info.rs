//! What an image is: `vhdx info`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::check::Finding;
use crate::disk::{Chain, Disk, FoundBy};
use crate::error::{Error, ErrorKind, Result, Rule, Severity, Structure};
use crate::format::PayloadBlockState;
use crate::image::{BlockStates, Image, ImageKind, ParentLocator, Region};
use crate::ops::inventory::Checkpoints;
use crate::ops::{self, DiskLayout};

use super::{Fields, InfoCheckpoints, LogUse, NameBytes, Report, Schema, Span, Truncated, entries_replayed, text_of};

/// An image: the keys of `qemu-img info` first, and everything else under `format-specific`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Info {
    /// Size of the disk, in bytes.
    pub virtual_size: u64,
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// Size of a block, in bytes.
    pub cluster_size: u64,
    /// `vhdx`.
    #[cfg_attr(feature = "schema", schemars(extend("const" = "vhdx")))]
    pub format: Cow<'static, str>,
    /// Space that the file occupies, in bytes; none if the system does not say.
    pub actual_size: Option<u64>,
    /// Whether the log has changes; none if both headers are lost.
    pub dirty_flag: Option<bool>,
    /// The image file, as qemu-img describes it.
    pub children: Vec<InfoChild>,
    /// Name of the parent, as the image stores it; absent without parent locator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing_filename: Option<String>,
    /// Path of the parent; absent if it was not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_backing_filename: Option<String>,
    /// Bytes of this path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_backing_filename_bytes: Option<NameBytes>,
    /// `vhdx`; absent without parent locator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("const" = "vhdx")))]
    pub backing_filename_format: Option<Cow<'static, str>>,
    /// Everything that qemu-img has no key for.
    pub format_specific: InfoSpecific<InfoData>,
    /// Name of this format.
    pub schema: Schema<Self>,
}

impl Report for Info {
    const SCHEMA: &'static str = "vhdx-mmap/info/1";
}

/// What belongs to one format.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoSpecific<D> {
    /// Name of the format: `vhdx` or `file`.
    pub r#type: Cow<'static, str>,
    /// The values.
    pub data: D,
}

/// A file below an image, as qemu-img describes it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoChild {
    /// `file`.
    #[cfg_attr(feature = "schema", schemars(extend("const" = "file")))]
    pub name: Cow<'static, str>,
    /// The file.
    pub info: InfoFile,
}

/// The file of an image, as qemu-img describes it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoFile {
    /// Empty.
    pub children: Vec<InfoNothing>,
    /// Length of the file, in bytes.
    pub virtual_size: u64,
    /// Path of the file.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// `file`.
    #[cfg_attr(feature = "schema", schemars(extend("const" = "file")))]
    pub format: Cow<'static, str>,
    /// Space that the file occupies, in bytes; none if the system does not say.
    pub actual_size: Option<u64>,
    /// Nothing.
    pub format_specific: InfoSpecific<InfoNothing>,
    /// False.
    pub dirty_flag: bool,
}

/// An object without keys.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoNothing {}

/// What qemu-img has no key for.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoData {
    /// Version of this object: 1.
    pub schema: u32,
    /// Kind of the image.
    pub kind: ImageKind,
    /// Length of the file, in bytes.
    pub file_length: u64,
    /// Whether another program has the file open for writing; none if unknown.
    #[serde(default)]
    pub in_use: Option<bool>,
    /// Logical sector size, in bytes: 512 or 4096.
    pub logical_sector_size: u32,
    /// Size of a sector of the drive that the disk claims to be, in bytes; none if the image does not say.
    pub physical_sector_size: Option<u32>,
    /// Identity of the disk, the same in parent and child; none if the image does not say.
    pub virtual_disk_id: Option<Uuid>,
    /// The program that made the image, as it calls itself.
    pub creator: String,
    /// The current header; none if both are lost.
    pub header: Option<InfoHeader>,
    /// The log.
    pub log: InfoLog,
    /// The region table in use.
    pub region_table: InfoRegionTable,
    /// The payload blocks.
    pub blocks: InfoBlocks,
    /// The parent; none without a readable parent locator.
    pub parent: Option<InfoParent>,
    /// Paths of the images from this one to the base.
    pub chain: Vec<String>,
    /// Bytes of those paths that are not Unicode; absent if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_bytes: Option<Vec<Option<NameBytes>>>,
    /// Content of the disk; none for a parent.
    pub contents: Option<InfoContents>,
    /// Images in the folder of the image that depend on it; none if they were not looked for.
    pub checkpoints: Option<InfoCheckpoints>,
    /// What a truncated file has lost; none if it has all of its blocks.
    pub truncated: Option<Truncated>,
    /// What is unusual or damaged in the image, and for the image that was opened, what its parents have lost of the
    /// disk.
    pub warnings: Vec<InfoWarning>,
}

/// The current header of an image.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoHeader {
    /// Which of the two headers is current: 1 or 2.
    pub copy: u8,
    /// Number of the header; the older header has a smaller one.
    pub sequence_number: u64,
    /// Version of the format: 1.
    pub version: u16,
    /// Identity that changes when a session starts to change the file.
    pub file_write_guid: Uuid,
    /// Identity of the content, by which children know the image.
    pub data_write_guid: Uuid,
}

/// The log of an image.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoLog {
    /// What was done with the log.
    pub state: LogUse,
    /// Identity of the log; nil if it has no changes.
    pub guid: Option<Uuid>,
    /// Version of the format of the log: 0.
    pub version: Option<u16>,
    /// File offset of the log, in bytes.
    pub offset: Option<u64>,
    /// Length of the log, in bytes.
    pub length: Option<u32>,
    /// Number of entries that were replayed.
    pub entries_replayed: u64,
    /// Length of the file after the replay, in bytes.
    pub file_length_after: u64,
}

/// A region table.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoRegionTable {
    /// Which of the two region tables is in use: 1 or 2; none if both are lost.
    pub copy: Option<u8>,
    /// Regions, in the order of the table.
    pub regions: Vec<Region>,
}

/// The payload blocks of an image.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoBlocks {
    /// Number of blocks.
    pub total: u64,
    /// Number of blocks in each state that occurs, with the names of MS-VHDX and `reserved`; none if a part of the BAT
    /// is lost.
    pub states: Option<Fields<u64>>,
}

/// The parent of an image.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoParent {
    /// The stored keys and values, in the order of the file.
    pub locator: Fields<String>,
    /// Path of the parent; none if it was not found.
    pub filename: Option<String>,
    /// Bytes of this path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// How the parent was found; none if it was not.
    pub found_by: Option<FoundBy>,
    /// Why the parent was not found.
    pub error: Option<String>,
}

/// Content of a disk, or why it is unknown.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum InfoContents {
    /// A sector that is needed can't be read.
    Unknown {
        /// The error.
        error: String,
    },
    /// What is on the disk.
    Known(Box<DiskLayout>),
}

/// Something that is unusual or damaged in an image.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoWarning {
    /// Code of the rule.
    pub code: Rule,
    /// How much it matters.
    pub severity: Severity,
    /// What was found, and where.
    pub text: String,
    /// The bytes of the disk that it concerns.
    pub range: Option<Span>,
    /// The program that is known to write images like this, if it made the image: then it is harmless.
    pub habit_of: Option<Cow<'static, str>>,
}

impl Info {
    /// Adds the images that depend on the image.
    #[must_use]
    pub fn checkpoints(mut self, found: &Checkpoints) -> Self {
        self.format_specific.data.checkpoints = Some(InfoCheckpoints::of(found));
        self
    }

    /// Describes the image that was opened, and what is on its disk.
    ///
    /// # Errors
    /// If the BAT can't be read, except for a chain that is salvaged.
    pub fn of(chain: &Chain) -> Result<Self> {
        Self::of_layer(chain, 0)
    }

    /// Describes an image of a chain: 0 is the one that was opened, 1 its parent.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchLayer`]; otherwise as for [`Info::of`].
    pub fn of_layer(chain: &Chain, layer: usize) -> Result<Self> {
        let below = chain.layers().get(layer..).unwrap_or_default();
        let [this, parents @ ..] = below else {
            return Err(Error::of(Structure::Parent, ErrorKind::NoSuchLayer { layer }));
        };
        let image = this.image();
        let (filename, actual_size) = (text_of(image.path()), image.source().actual_size());
        let locator = image.parent_locator().ok().flatten();
        let parent = parents.first().map(|parent| text_of(parent.image().path()));
        let parent_bytes = parents.first().and_then(|parent| NameBytes::of(parent.image().path()?));
        let filename_bytes = image.path().and_then(NameBytes::of);
        let file = InfoFile {
            children: Vec::new(),
            virtual_size: image.source().len(),
            filename: filename.clone(),
            filename_bytes: filename_bytes.clone(),
            format: "file".into(),
            actual_size,
            format_specific: InfoSpecific { r#type: "file".into(), data: InfoNothing {} },
            dirty_flag: false,
        };
        let missing = chain.broken().filter(|_| parents.is_empty());
        // As seen from this image, it is layer 0. The disk that was opened consists of its parents, too.
        let found = if layer == 0 { ops::content_warnings(&Disk::so_far(chain)) } else { ops::layer_warnings(this, 0) };
        let data = InfoData {
            schema: 1,
            kind: image.kind(),
            file_length: image.source().len(),
            in_use: image.source().in_use(),
            logical_sector_size: image.logical_sector_size(),
            physical_sector_size: image.physical_sector_size(),
            virtual_disk_id: image.virtual_disk_id(),
            creator: image.creator().to_owned(),
            header: image.header().is_known().then(|| InfoHeader::of(image)),
            log: InfoLog::of(image),
            region_table: InfoRegionTable { copy: image.region_table_copy(), regions: image.regions().to_vec() },
            blocks: InfoBlocks::of(image, chain.is_salvaged())?,
            parent: locator.as_ref().map(|locator| {
                let found_by = parents.first().and_then(|parent| parent.link()).map(|link| link.found_by);
                let filename_bytes = parent_bytes.clone();
                InfoParent { found_by, filename_bytes, ..InfoParent::of(locator, parent.clone(), missing) }
            }),
            chain: below.iter().map(|layer| text_of(layer.image().path())).collect(),
            chain_bytes: NameBytes::of_all(below.iter().map(|layer| layer.image().path())),
            contents: (layer == 0).then(|| InfoContents::of(chain)),
            checkpoints: None,
            truncated: ops::truncated(&found).and_then(Truncated::of),
            warnings: this.findings().chain(found).map(|finding| InfoWarning::of(&finding)).collect(),
        };
        Ok(Self {
            virtual_size: image.virtual_disk_size(),
            filename,
            filename_bytes,
            cluster_size: image.block_size(),
            format: "vhdx".into(),
            actual_size,
            dirty_flag: image.header().is_known().then(|| image.header().is_dirty()),
            children: vec![InfoChild { name: "file".into(), info: file }],
            backing_filename: locator.as_ref().map(|locator| locator.name().to_owned()),
            full_backing_filename: parent.filter(|_| locator.is_some()),
            full_backing_filename_bytes: parent_bytes.filter(|_| locator.is_some()),
            backing_filename_format: locator.map(|_| "vhdx".into()),
            format_specific: InfoSpecific { r#type: "vhdx".into(), data },
            schema: Schema::default(),
        })
    }
}

impl InfoHeader {
    fn of(image: &Image) -> Self {
        let header = image.header();
        Self {
            copy: header.copy,
            sequence_number: header.sequence_number,
            version: header.version,
            file_write_guid: header.file_write_guid,
            data_write_guid: header.data_write_guid,
        }
    }
}

impl InfoLog {
    fn of(image: &Image) -> Self {
        let header = Some(image.header()).filter(|header| header.is_known());
        Self {
            state: image.log_state().into(),
            guid: header.map(|header| header.log_guid),
            version: header.map(|header| header.log_version),
            offset: header.map(|header| header.log_offset),
            length: header.map(|header| header.log_length),
            entries_replayed: entries_replayed(image.log_state()),
            file_length_after: image.file_len(),
        }
    }
}

impl InfoBlocks {
    fn of(image: &Image, is_salvaged: bool) -> Result<Self> {
        let states = match image.block_states() {
            Ok(states) => Some(states),
            Err(_) if is_salvaged => None,
            Err(error) => return Err(error),
        };
        Ok(Self { total: image.payload_blocks(), states: states.as_ref().map(Self::counts) })
    }

    /// The numbers of blocks, of each state that occurs.
    #[must_use]
    pub fn counts(states: &BlockStates) -> Fields<u64> {
        let known = PayloadBlockState::ALL.iter().map(|&state| (state.as_str(), states.count(state)));
        known.chain([("reserved", states.reserved())]).filter(|(_, count)| *count > 0).collect()
    }
}

impl InfoParent {
    fn of(locator: &ParentLocator, filename: Option<String>, missing: Option<&Error>) -> Self {
        Self {
            locator: locator.entries.iter().cloned().collect(),
            filename,
            filename_bytes: None,
            found_by: None,
            error: missing.map(|error| format!("{error:#}")),
        }
    }
}

impl InfoContents {
    fn of(chain: &Chain) -> Self {
        match ops::detect(&Disk::so_far(chain)) {
            Ok(layout) => Self::Known(Box::new(layout)),
            Err(error) => {
                // Where a parent is missing, the cause is what is wrong with that.
                let is_missing = matches!(error.kind(), ErrorKind::NoParentAttached);
                let cause = chain.broken().filter(|_| is_missing).unwrap_or(&error);
                Self::Unknown { error: format!("{cause:#}") }
            }
        }
    }
}

impl InfoWarning {
    fn of(finding: &Finding) -> Self {
        Self {
            code: finding.rule,
            severity: finding.severity,
            text: format!("{:#}", finding.detail),
            range: finding.range.clone().map(Span::from),
            habit_of: finding.habit_of.map(Cow::Borrowed),
        }
    }
}
