//! Putting together what several machines have done.

use std::io::{BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use crate::ops::hash::{Running, StoredPart};

use super::format::{Header, Identity, ManifestReader, ManifestWriter, Root, Share};
use super::{Algorithm, Digest, ManifestError, Part, Shard};

/// What a share of digests says it is.
const TYPE: &str = "vhdx-digests";

/// The longest document of a share of digests, in bytes: subtrees are few, whatever the disk.
const LONGEST: u64 = 1 << 20;

/// A share of digests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DigestsDocument {
    schema: u32,
    r#type: String,
    #[serde(flatten)]
    identity: Identity,
    algorithms: Vec<Algorithm>,
    share: Share,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc32: Option<String>,
    /// Start, length and chaining value of subtrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blake3: Option<Vec<(u64, u64, String)>>,
    about: serde_json::Value,
    /// SHA-256 of the document without this: whoever changes it by mistake does not go unnoticed.
    #[serde(default, rename = "document-sha256", skip_serializing_if = "String::is_empty")]
    document_sha256: String,
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

    /// The digest of the document as it is written, but for the digest itself.
    fn digest(&self) -> String {
        let bare = Self { document_sha256: String::new(), ..self.clone() };
        let mut running = Running::new(Algorithm::Sha256);
        running.update(&serde_json::to_vec(&bare).unwrap_or_default());
        running.finish().map(|digest| digest.to_string()).unwrap_or_default()
    }

    /// The part that is in it, if all of it is.
    fn part(&self) -> Option<Part> {
        let has = |algorithm| self.algorithms.contains(&algorithm);
        let crc32 = match &self.crc32 {
            Some(text) => Some(u32::from_str_radix(text, 16).ok()?),
            None => None,
        };
        let subtree = |(start, length, text): &(u64, u64, String)| {
            Some((*start, *length, <[u8; 32]>::try_from(Digest::parse(Algorithm::Blake3, text)?.bytes()).ok()?))
        };
        let blake3 = match &self.blake3 {
            Some(subtrees) => Some(subtrees.iter().map(subtree).collect::<Option<Vec<_>>>()?),
            None => None,
        };
        if (crc32.is_some(), blake3.is_some()) != (has(Algorithm::Crc32), has(Algorithm::Blake3)) {
            return None;
        }
        let stored = StoredPart { start: self.share.offset, length: self.share.length, crc32, blake3 };
        Part::from_stored(stored, self.identity.virtual_size)
    }
}

/// What was put together.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum Merged {
    /// The digests of a disk.
    Digests {
        /// In the order in which they were asked for.
        digests: Vec<Digest>,
        /// What the first share says of the image: what was handed to [`hash_share`](super::hash_share).
        about: serde_json::Value,
    },
    /// A manifest, which was written, and its digests of digests.
    Manifest(Vec<Root>),
}

/// One share, of either kind.
enum Document<R> {
    Digests(DigestsDocument),
    Manifest(ManifestReader<R>),
}

/// Puts shares of the work together, given in any order: to what one run gives. Where they are of a manifest, it is written to
/// `out`.
///
/// # Errors
/// [`ManifestError::Format`] if a share is missing, is there twice, is of another disk or was computed by another division of
/// the work; otherwise see [`ManifestError`].
pub fn merge<R: BufRead>(shares: Vec<R>, out: &mut dyn Write) -> Result<Merged, ManifestError> {
    let (mut digests, mut manifests) = (Vec::new(), Vec::new());
    for (number, input) in shares.into_iter().enumerate() {
        match open(input, number)? {
            Document::Digests(document) => digests.push((number, document)),
            Document::Manifest(reader) => manifests.push((number, reader)),
        }
    }
    match (digests.is_empty(), manifests.is_empty()) {
        (false, true) => merge_digests(digests),
        (true, false) => merge_manifests(manifests, out),
        (true, true) => Err(bad(0, "there is nothing to merge")),
        (false, false) => Err(bad(0, "some of these are shares of a manifest, and some are not")),
    }
}

fn bad(document: usize, what: impl Into<String>) -> ManifestError {
    ManifestError::Format { line: None, document, what: what.into() }
}

/// Finds out of which kind a share is, by its first bytes.
fn open<R: BufRead>(mut input: R, number: usize) -> Result<Document<R>, ManifestError> {
    // The beginning of the document lies in the first buffer that any reader has.
    let is_digests = input.fill_buf()?.windows(TYPE.len()).take(64).any(|bytes| bytes == TYPE.as_bytes());
    if !is_digests {
        return ManifestReader::new(input, number).map(Document::Manifest);
    }
    let mut text = String::new();
    input.take(LONGEST).read_to_string(&mut text)?;
    let document: DigestsDocument =
        serde_json::from_str(&text).map_err(|_| bad(number, "this is not a share of digests, or it is cut off"))?;
    if document.r#type != TYPE || document.schema != 1 {
        return Err(bad(number, "the share is of a version that is not known"));
    }
    if document.document_sha256 != document.digest() {
        return Err(bad(number, "the share was changed: it does not have the digest that it says"));
    }
    Ok(Document::Digests(document))
}

/// What has to be the same in all shares, and the place of each.
struct Place<'a> {
    number: usize,
    identity: &'a Identity,
    algorithms: &'a [Algorithm],
    share: Share,
}

/// Makes sure that these are all the shares of one work, and returns their numbers in order.
fn order(places: &[Place<'_>]) -> Result<Vec<usize>, ManifestError> {
    let Some(first) = places.first() else { return Err(bad(0, "there is nothing to merge")) };
    for place in places {
        if (place.identity, place.algorithms) != (first.identity, first.algorithms) {
            return Err(bad(
                place.number,
                "this share is of another disk, of another state of it, or of other digests",
            ));
        }
        if place.share.shard.count() != first.share.shard.count() {
            let (found, expected) = (place.share.shard, first.share.shard);
            return Err(bad(place.number, format!("this is share {found}, the first one is {expected}")));
        }
    }
    let mut order: Vec<usize> = (0..places.len()).collect();
    let shard = |index: &usize| places.get(*index).map(|place| place.share.shard.index());
    order.sort_by_key(shard);
    let mut position = 0;
    for (expected, index) in (1_u32..).zip(&order) {
        let Some(place) = places.get(*index) else { continue };
        let found = place.share.shard.index();
        if found < expected {
            return Err(bad(place.number, format!("share {} is there twice", place.share.shard)));
        }
        if found > expected || place.share.offset != position {
            let missing = Shard::new(expected, first.share.shard.count());
            let what = match missing.filter(|_| found > expected) {
                Some(missing) => format!("share {missing} is missing"),
                None => "the shares do not follow each other: they were not made from the same image".to_owned(),
            };
            return Err(bad(place.number, what));
        }
        position = place.share.offset.saturating_add(place.share.length);
    }
    let count = first.share.shard.count();
    if places.len() != usize::try_from(count).unwrap_or(usize::MAX) {
        let missing = u32::try_from(places.len()).unwrap_or(u32::MAX).saturating_add(1);
        return Err(bad(first.number, format!("share {missing}/{count} is missing")));
    }
    if position != first.identity.virtual_size {
        return Err(bad(first.number, "the shares do not cover the disk: they were not made from the same image"));
    }
    Ok(order)
}

fn merge_digests(mut documents: Vec<(usize, DigestsDocument)>) -> Result<Merged, ManifestError> {
    let places: Vec<Place<'_>> = documents
        .iter()
        .map(|(number, document)| Place {
            number: *number,
            identity: &document.identity,
            algorithms: &document.algorithms,
            share: document.share,
        })
        .collect();
    let order = order(&places)?;
    let mut whole: Option<Part> = None;
    for index in order {
        let Some((number, document)) = documents.get(index) else { continue };
        let part = document.part().ok_or_else(|| bad(*number, "the values in this share contradict each other"))?;
        match &mut whole {
            Some(whole) => whole.append(part),
            None => whole = Some(part),
        }
    }
    let (_, first) = documents.swap_remove(0);
    let digests = whole.map(|part| part.digests()).unwrap_or_default();
    let of = |algorithm: &Algorithm| digests.iter().find(|digest| digest.algorithm() == *algorithm).copied();
    Ok(Merged::Digests { digests: first.algorithms.iter().filter_map(of).collect(), about: first.about })
}

fn merge_manifests<R: BufRead>(
    mut readers: Vec<(usize, ManifestReader<R>)>,
    out: &mut dyn Write,
) -> Result<Merged, ManifestError> {
    if let Some((number, _)) = readers.iter().find(|(_, reader)| reader.header.share.is_none()) {
        return Err(bad(*number, "this is a whole manifest, not a share of one"));
    }
    let places: Vec<Place<'_>> = readers
        .iter()
        .filter_map(|(number, reader)| {
            let header = &reader.header;
            Some(Place {
                number: *number,
                identity: &header.identity,
                algorithms: &header.algorithms,
                share: header.share?,
            })
        })
        .collect();
    let order = order(&places)?;
    let header = readers.first().map(|(_, reader)| Header { share: None, ..reader.header.clone() });
    let header = header.ok_or_else(|| bad(0, "there is nothing to merge"))?;
    let mut writer = ManifestWriter::new(out, &header)?;
    for index in order {
        let Some((_, reader)) = readers.get_mut(index) else { continue };
        while let Some((line, digests)) = reader.next()? {
            writer.line(line, &digests)?;
        }
    }
    Ok(Merged::Manifest(writer.finish()?))
}
