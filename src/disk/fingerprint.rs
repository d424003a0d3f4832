//! Fingerprints of chains: they prevent that a plan for some files is used with others.

use std::time::UNIX_EPOCH;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result, Structure};

use super::layer::Layer;

/// Fingerprint of a chain: its files and their states. [`OpenOptions::expect`](crate::OpenOptions::expect) compares a
/// later opening with it, on another machine or after a pause.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(any(feature = "ops", feature = "serde"), derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChainFingerprint {
    /// Fingerprints of the layers: the opened image first, its base last.
    pub layers: Vec<LayerFingerprint>,
}

/// Fingerprint of one image: the values that distinguish its states.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(any(feature = "ops", feature = "serde"), derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(any(feature = "ops", feature = "serde"), serde(rename_all = "kebab-case"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LayerFingerprint {
    /// Length of the file, in bytes.
    pub len: u64,
    /// Time of the last change of the file: seconds since 1970, and nanoseconds. `None` if the source is not a regular
    /// file; the time is not compared then.
    pub modified: Option<(i64, u32)>,
    /// DataWriteGuid: identity of the content (MS-VHDX 2.2.2).
    pub data_write_guid: Uuid,
    /// FileWriteGuid: changes with each session that writes to the file (MS-VHDX 2.2.2).
    pub file_write_guid: Uuid,
    /// SequenceNumber of the current header (MS-VHDX 2.2.2).
    pub sequence_number: u64,
    /// CRC-32C of all changes that a replay of the log made. `None` if the log is clean.
    pub log_crc32c: Option<u32>,
}

impl ChainFingerprint {
    pub(super) fn of(layers: &[Layer]) -> Self {
        Self { layers: layers.iter().map(LayerFingerprint::of).collect() }
    }

    /// Checks that `found` is the same state of the same files; if its chain is broken, of the first of them.
    pub(super) fn check(&self, found: &Self, is_broken: bool) -> Result<()> {
        let other =
            |layer: usize, what| Err(Error::of(Structure::File, ErrorKind::OtherFiles { what }).in_layer(layer, None));
        for (layer, (expected, found)) in self.layers.iter().zip(&found.layers).enumerate() {
            if let Some(what) = expected.difference(found) {
                return other(layer, what);
            }
        }
        let (expected, found) = (self.layers.len(), found.layers.len());
        let are_all = expected == found || (is_broken && found < expected);
        if are_all { Ok(()) } else { other(expected.min(found), "number of layers") }
    }
}

impl LayerFingerprint {
    fn of(layer: &Layer) -> Self {
        let (image, header) = (layer.image(), layer.image().header());
        let modified = image.source().modified().map(|time| match time.duration_since(UNIX_EPOCH) {
            Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                (i64::try_from(before.as_secs()).map_or(i64::MIN, i64::wrapping_neg), before.subsec_nanos())
            }
        });
        Self {
            len: image.source().len(),
            modified,
            data_write_guid: header.data_write_guid,
            file_write_guid: header.file_write_guid,
            sequence_number: header.sequence_number,
            log_crc32c: image.log_crc32c(),
        }
    }

    /// Returns the name of the first difference from another state.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let has_other_time = self.modified.zip(other.modified).is_some_and(|(one, other)| one != other);
        let differences = [
            (self.data_write_guid != other.data_write_guid, "DataWriteGuid"),
            (self.len != other.len, "length"),
            (self.sequence_number != other.sequence_number, "SequenceNumber"),
            (self.file_write_guid != other.file_write_guid, "FileWriteGuid"),
            (self.log_crc32c != other.log_crc32c, "changes in the log"),
            (has_other_time, "time of the last change"),
        ];
        differences.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what)
    }
}
