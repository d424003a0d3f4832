//! Digests of a part of a disk, to be merged with those of the other parts.

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::num::to_u64;
use crate::ops::hash::{Running, StoredPart};
use crate::ops::share::{Shard, Share};
use crate::scan::{Input, ScanError, ScanOptions, UNIT};

use super::format::Identity;
use super::{Algorithm, Digest, ManifestError, Part, PartPlan, check_algorithms};

/// Type in a shard of digests.
pub(super) const TYPE: &str = "vhdx-digests";

/// A shard of digests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DigestsDocument {
    pub(super) schema: u32,
    pub(super) r#type: String,
    #[serde(flatten)]
    pub(super) identity: Identity,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) share: Share,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc32: Option<String>,
    /// Start, length and chaining value of subtrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blake3: Option<Vec<(u64, u64, String)>>,
    pub(super) about: serde_json::Value,
    /// SHA-256 of the document without this field: accidental changes are detected.
    #[serde(default, rename = "document-sha256", skip_serializing_if = "String::is_empty")]
    pub(super) document_sha256: String,
}

impl DigestsDocument {
    pub(super) fn new(
        identity: Identity,
        algorithms: &[Algorithm],
        share: Share,
        part: &Part,
        about: serde_json::Value,
    ) -> Self {
        let StoredPart { crc32, blake3, .. } = part.to_stored();
        let hex = |(start, length, value): (u64, u64, [u8; 32])| {
            Some((start, length, Digest::new(Algorithm::Blake3, &value)?.to_string()))
        };
        let mut document = Self {
            schema: 1,
            r#type: TYPE.to_owned(),
            identity,
            algorithms: algorithms.to_vec(),
            share,
            crc32: crc32.map(|sum| format!("{sum:08x}")),
            blake3: blake3.map(|subtrees| subtrees.into_iter().filter_map(hex).collect()),
            about,
            document_sha256: String::new(),
        };
        document.document_sha256 = document.digest();
        document
    }

    /// Returns the digest of the document as it is written, without the digest itself.
    pub(super) fn digest(&self) -> String {
        let bare = Self { document_sha256: String::new(), ..self.clone() };
        let mut running = Running::new(Algorithm::Sha256);
        running.update(&serde_json::to_vec(&bare).unwrap_or_default());
        running.finish().map(|digest| digest.to_string()).unwrap_or_default()
    }

    /// Returns the part that the document contains. Returns `None` if it is incomplete.
    pub(super) fn part(&self) -> Option<Part> {
        let has = |algorithm| self.algorithms.contains(&algorithm);
        let crc32 = match &self.crc32 {
            Some(text) => Some(u32::from_str_radix(text, 16).ok()?),
            None => None,
        };
        let subtree = |(start, length, text): &(u64, u64, String)| {
            Some((*start, *length, <[u8; 32]>::try_from(Digest::from_hex(Algorithm::Blake3, text)?.bytes()).ok()?))
        };
        let blake3 = match &self.blake3 {
            Some(subtrees) => Some(subtrees.iter().map(subtree).collect::<Option<Vec<_>>>()?),
            None => None,
        };
        if (crc32.is_some(), blake3.is_some()) != (has(Algorithm::Crc32), has(Algorithm::Blake3)) {
            return None;
        }
        let stored = StoredPart { start: self.share.offset, length: self.share.len, crc32, blake3 };
        Part::from_stored(stored, self.identity.virtual_size)
    }
}

/// Largest length of the `about` value of a shard of digests, as JSON, in bytes: 1 MiB. [`merge`](super::merge())
/// rejects longer ones.
pub const MAX_ABOUT_LEN: u64 = 1 << 20;

/// Rejects values that could be written, but not read again.
fn check_about(about: &serde_json::Value) -> Result<(), ScanError> {
    // In a shard, it is nested in the document.
    let nested = serde_json::to_vec(&[about]).map_err(|error| ScanError::manifest_io(error.into()))?;
    let length = to_u64(nested.len()).saturating_sub(2);
    if length > MAX_ABOUT_LEN {
        return Err(ManifestError::AboutTooLong { length, limit: MAX_ABOUT_LEN }.into());
    }
    let parsed: Result<[serde_json::Value; 1], _> = serde_json::from_slice(&nested);
    parsed.map(drop).map_err(|_| ManifestError::AboutTooDeep.into())
}

/// Computes the shard `shard` of digests of a disk, and writes it to `out`, a line of JSON, for
/// [`merge`](super::merge()). All `algorithms` must be [mergeable](Algorithm::is_mergeable). `about` is passed to the
/// caller of `merge`: at most [`MAX_ABOUT_LEN`] bytes of JSON. Shards have about the same amount of data; if an
/// algorithm has to process zeros (BLAKE3), about the same length.
///
/// # Errors
/// [`ManifestError::AboutTooLong`] and [`ManifestError::AboutTooDeep`] if `about` cannot be passed on; otherwise see
/// [`ManifestError`].
pub fn hash_shard(
    disk: &Disk,
    algorithms: &[Algorithm],
    shard: Shard,
    about: serde_json::Value,
    options: &ScanOptions<'_>,
    out: &mut dyn Write,
) -> Result<(), ScanError> {
    let visit_zeros = algorithms.contains(&Algorithm::Blake3);
    let share = Share::new(shard, shard.range_of(disk, UNIT, visit_zeros)?);
    hash_share(disk, algorithms, &share, about, options, out)
}

/// Computes the digests of a share of a disk like [`hash_shard`], for a share of a [plan](crate::ops::plan).
///
/// # Errors
/// [`ScanError::Manifest`] also if the share does not begin or end where one can: at a multiple of
/// [`ScanOptions::UNIT`], or at the end of the disk. Otherwise those of [`hash_shard`].
pub fn hash_share(
    disk: &Disk,
    algorithms: &[Algorithm],
    share: &Share,
    about: serde_json::Value,
    options: &ScanOptions<'_>,
    out: &mut dyn Write,
) -> Result<(), ScanError> {
    if let Some(other) = algorithms.iter().find(|algorithm| !algorithm.is_mergeable()) {
        let what = format!("{other} can't be computed in shards");
        return Err(ScanError::bad_manifest(None, 0, what));
    }
    check_algorithms(algorithms)?;
    check_about(&about)?;
    share.check(disk, UNIT)?;
    let part = PartPlan::new(disk.size(), algorithms).compute(Input::disk(disk), share.range(), options)?;
    let share = Share { shard: share.shard, offset: part.start(), len: part.length() };
    let document = DigestsDocument::new(Identity::of(disk), algorithms, share, &part, about);
    serde_json::to_writer(&mut *out, &document).map_err(|error| ScanError::manifest_io(error.into()))?;
    out.write_all(b"\n").and_then(|()| out.flush()).map_err(ScanError::manifest_io)
}
