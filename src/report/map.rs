//! The allocation map of a disk: `vhdx map`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, Layer, Location, Run};
use crate::format::PayloadBlockState;

use super::{NameBytes, Report, Schema, in_use, text_of};

/// The allocation map of a disk.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Map<'a> {
    /// The keys before the list.
    #[serde(flatten)]
    pub start: MapStart,
    /// The extents, in order.
    pub extents: Vec<MapEntry<'a>>,
    /// The keys after the list.
    #[serde(flatten)]
    pub end: MapEnd,
}

impl Report for Map<'_> {
    const SCHEMA: &'static str = "vhdx-mmap/map/1";
}

/// The keys of a map before the list `extents`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MapStart {
    /// Name of this format.
    pub schema: Schema<Map<'static>>,
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// Size of the disk, in bytes.
    pub virtual_size: u64,
    /// Whether another program has a file of the chain open for writing; none if unknown.
    #[serde(default)]
    pub in_use: Option<bool>,
}

/// The keys of a map after the list `extents`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MapEnd {
    /// Sums of all extents.
    pub totals: MapTotals,
}

/// Sums of the extents of a map.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MapTotals {
    /// Number of extents.
    pub extents: u64,
    /// Number of bytes with data.
    pub data_bytes: u64,
    /// Number of zeros without data that a layer says are zero.
    pub zero_bytes: u64,
    /// Number of zeros that no layer of the chain ever wrote.
    pub unallocated_bytes: u64,
    /// Number of bytes that can't be read: only of a disk that is salvaged.
    pub lost_bytes: u64,
}

impl<'a> Map<'a> {
    /// A whole report from its parts.
    #[must_use]
    pub fn of(start: MapStart, extents: Vec<MapEntry<'a>>, end: MapEnd) -> Self {
        Self { start, extents, end }
    }
}

impl MapStart {
    /// Describes a disk.
    #[must_use]
    pub fn of(disk: &Disk) -> Self {
        Self {
            schema: Schema::default(),
            filename: text_of(disk.image().path()),
            filename_bytes: disk.image().path().and_then(NameBytes::of),
            virtual_size: disk.size(),
            in_use: in_use(disk),
        }
    }
}

impl MapEnd {
    /// Ends a map with these sums.
    #[must_use]
    pub const fn of(totals: MapTotals) -> Self {
        Self { totals }
    }
}

impl MapTotals {
    /// Adds an extent.
    pub fn add(&mut self, extent: &Run) {
        self.extents = self.extents.saturating_add(1);
        let sum = if extent.at == Location::Lost {
            &mut self.lost_bytes
        } else if extent.is_data() {
            &mut self.data_bytes
        } else if extent.is_present() {
            &mut self.zero_bytes
        } else {
            &mut self.unallocated_bytes
        };
        *sum = sum.saturating_add(extent.len);
    }
}

/// An extent of the map, with the keys of `qemu-img map` and two more.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MapEntry<'a> {
    /// Start in the disk, in bytes.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Layer that the extent comes from: 0 is the image that was opened, 1 its parent.
    pub depth: usize,
    /// False if the extent is zero because no layer of the chain ever wrote it.
    pub present: bool,
    /// Whether the extent is zeros without data.
    pub zero: bool,
    /// Whether the extent has data.
    pub data: bool,
    /// False: VHDX has no compression.
    pub compressed: bool,
    /// File offset in the file of the layer, in bytes; only of data, and not of sectors that come from the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Path of the file of the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Cow<'a, str>>,
    /// Bytes of this path, if it is not Unicode.
    #[serde(default, rename = "layer-bytes", skip_serializing_if = "Option::is_none")]
    pub layer_bytes: Option<NameBytes>,
    /// State of the blocks; none past the end of a smaller parent.
    pub state: Option<MapState>,
}

/// State of the blocks of an extent.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum MapState {
    /// The content can't be read: only of a disk that is salvaged.
    Lost,
    /// A state that MS-VHDX defines.
    #[serde(untagged)]
    Block(PayloadBlockState),
}

impl MapState {
    /// The text in the report.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "LOST",
            Self::Block(state) => state.as_str(),
        }
    }

    /// State of the blocks of an extent; none past the end of a smaller parent.
    #[must_use]
    pub fn of(extent: &Run) -> Option<Self> {
        if extent.at == Location::Lost { Some(Self::Lost) } else { extent.state.map(Self::Block) }
    }
}

impl<'a> MapEntry<'a> {
    /// Describes an extent of a disk: one of [`Disk::extents`].
    #[must_use]
    pub fn of(disk: &'a Disk, extent: &Run) -> Self {
        let file = |layer: &'a Layer| layer.image().path().map_or("-".into(), |path| path.to_string_lossy());
        Self {
            start: extent.start,
            length: extent.len,
            depth: extent.layer,
            present: extent.is_present(),
            zero: !extent.is_data(),
            data: extent.is_data(),
            compressed: false,
            offset: extent.file_offset(),
            layer: disk.layers().get(extent.layer).map(file),
            layer_bytes: disk.layers().get(extent.layer).and_then(|layer| NameBytes::of(layer.image().path()?)),
            state: MapState::of(extent),
        }
    }
}
