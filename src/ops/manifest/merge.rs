//! Merging of shards: the results of several machines.

use std::io::{BufRead, Chain, Cursor, Read, Write};

use crate::num::to_u64;
use crate::ops::share::Share;
use crate::scan::{ScanError, ScanOptions};

use super::digests::{DigestsDocument, MAX_ABOUT_LEN, TYPE};
use super::format::{Header, Identity, ManifestReader, ManifestWriter, Root};
use super::{Algorithm, Digest, Part, Shard, check_algorithms};

/// Length of the beginning of a document that identifies its kind, in bytes.
const BEGINNING: u64 = 75;

/// Largest length of a shard of digests, in bytes: the `about` value, and 64 KiB for all else. There are few subtrees,
/// whatever the disk.
const LONGEST: u64 = MAX_ABOUT_LEN + (64 << 10);

const CONTRADICTION: &str = "the values in this shard contradict each other";

/// Result of a merge.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum Merged {
    /// The digests of a disk.
    Digests {
        /// The digests, in the order in which they were requested.
        digests: Vec<Digest>,
        /// The `about` value of the first shard, as passed to [`hash_shard`](super::hash_shard).
        about: serde_json::Value,
    },
    /// A manifest, which was written, and its roots.
    Manifest(Vec<Root>),
}

/// One shard, of either kind.
enum Document<R> {
    Digests(DigestsDocument),
    Manifest(ManifestReader<R>),
}

/// Merges shards of the work, in any order, into the result of a single run. Shards of a manifest are written to `out`
/// as a manifest.
///
/// # Errors
/// [`ManifestError::Format`](super::ManifestError::Format) if a shard is missing, occurs twice, is of another disk, or
/// was computed by another division of the work; otherwise see [`ManifestError`](super::ManifestError).
pub fn merge<R: BufRead>(shares: Vec<R>, out: &mut dyn Write) -> Result<Merged, ScanError> {
    merge_with(shares, &ScanOptions::new(), out)
}

/// Merges shards like [`merge`], with progress reports and cancellation. Progress counts bytes of the disk. A few lines
/// of a manifest may stand for millions of blocks, whose digests take seconds to combine: that is done at the end, when
/// all shards are known to be valid (or earlier, if a manifest has thousands of lines).
///
/// # Errors
/// [`ScanError::Cancelled`] if [`Progress::advance`](crate::Progress::advance) cancels the merge; otherwise the errors
/// of [`merge`].
pub fn merge_with<R: BufRead>(
    shares: Vec<R>,
    options: &ScanOptions<'_>,
    out: &mut dyn Write,
) -> Result<Merged, ScanError> {
    let (mut digests, mut manifests) = (Vec::new(), Vec::new());
    for (number, input) in shares.into_iter().enumerate() {
        match open(input, number)? {
            Document::Digests(mut document) => {
                // Other shards' values of `about` are not returned, and may be long.
                if number > 0 {
                    document.about = serde_json::Value::Null;
                }
                digests.push((number, document));
            }
            Document::Manifest(reader) => manifests.push((number, reader)),
        }
    }
    match (digests.is_empty(), manifests.is_empty()) {
        (false, true) => merge_digests(digests),
        (true, false) => merge_manifests(manifests, options, out),
        (true, true) => Err(bad(0, "there is nothing to merge")),
        (false, false) => Err(bad(0, "some of these are shards of a manifest, and some are not")),
    }
}

fn bad(document: usize, what: impl Into<String>) -> ScanError {
    ScanError::bad_manifest(None, document, what)
}

/// A reader whose first bytes have been read.
type Begun<R> = Chain<Cursor<Vec<u8>>, R>;

/// Detects the kind of a shard by its first bytes.
fn open<R: BufRead>(mut input: R, number: usize) -> Result<Document<Begun<R>>, ScanError> {
    // The buffer of a reader may be short, so it is not used for this: these bytes are read, and put before the rest.
    let mut beginning = Vec::new();
    input.by_ref().take(BEGINNING).read_to_end(&mut beginning).map_err(ScanError::manifest_io)?;
    let is_digests = beginning.windows(TYPE.len()).any(|bytes| bytes == TYPE.as_bytes());
    let input = Cursor::new(beginning).chain(input);
    if !is_digests {
        return ManifestReader::new(input, number).map(Document::Manifest);
    }
    let mut text = Vec::new();
    input.take(LONGEST.saturating_add(1)).read_to_end(&mut text).map_err(ScanError::manifest_io)?;
    if to_u64(text.len()) > LONGEST {
        return Err(bad(number, format!("the shard is too long (expected at most {LONGEST} bytes)")));
    }
    let document: DigestsDocument = serde_json::from_slice(&text)
        .map_err(|error| bad(number, format!("not a shard of digests, or truncated: {error}")))?;
    if document.r#type != TYPE || document.schema != 1 {
        return Err(bad(number, "unknown version of the shard"));
    }
    if document.document_sha256 != document.digest() {
        return Err(bad(number, "the shard was changed: its digest is wrong"));
    }
    let can_be = document.algorithms.iter().all(|algorithm| algorithm.is_mergeable())
        && document.identity.virtual_size <= crate::format::MAX_VIRTUAL_DISK_SIZE;
    if !can_be || check_algorithms(&document.algorithms).is_err() {
        return Err(bad(number, CONTRADICTION));
    }
    Ok(Document::Digests(document))
}

/// The values that must be equal in all shards, and the place of each.
struct Place<'a> {
    number: usize,
    identity: &'a Identity,
    algorithms: &'a [Algorithm],
    share: Share,
}

/// Checks that these are all shards of one work, and returns their numbers in order.
fn order(places: &[Place<'_>]) -> Result<Vec<usize>, ScanError> {
    let Some(first) = places.first() else { return Err(bad(0, "there is nothing to merge")) };
    for place in places {
        if (place.identity, place.algorithms) != (first.identity, first.algorithms) {
            return Err(bad(place.number, "the shard is of another disk, another state of the disk, or other digests"));
        }
        if place.share.shard.count() != first.share.shard.count() {
            let (found, expected) = (place.share.shard, first.share.shard);
            return Err(bad(place.number, format!("wrong shard (found {found}, expected {expected})")));
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
            return Err(bad(place.number, format!("shard {} occurs twice", place.share.shard)));
        }
        if found > expected || place.share.offset != position {
            let missing = Shard::new(expected, first.share.shard.count());
            let what = match missing.filter(|_| found > expected) {
                Some(missing) => format!("shard {missing} is missing"),
                None => "the shards do not follow each other: they were not made from the same image".to_owned(),
            };
            return Err(bad(place.number, what));
        }
        position = place.share.offset.saturating_add(place.share.len);
    }
    let count = first.share.shard.count();
    if places.len() != usize::try_from(count).unwrap_or(usize::MAX) {
        let missing = u32::try_from(places.len()).unwrap_or(u32::MAX).saturating_add(1);
        return Err(bad(first.number, format!("shard {missing}/{count} is missing")));
    }
    if position != first.identity.virtual_size {
        return Err(bad(first.number, "the shards do not cover the disk: they were not made from the same image"));
    }
    Ok(order)
}

fn merge_digests(mut documents: Vec<(usize, DigestsDocument)>) -> Result<Merged, ScanError> {
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
        let part = document.part().ok_or_else(|| bad(*number, CONTRADICTION))?;
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
    options: &ScanOptions<'_>,
    out: &mut dyn Write,
) -> Result<Merged, ScanError> {
    if let Some((number, _)) = readers.iter().find(|(_, reader)| reader.header.share.is_none()) {
        return Err(bad(*number, "a whole manifest, not a shard of one"));
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
    let mut writer = ManifestWriter::new(out, &header, *options)?;
    for index in order {
        let Some((_, reader)) = readers.get_mut(index) else { continue };
        while let Some((line, digests)) = reader.next(options)? {
            options.advance(line.length)?;
            writer.line(line, &digests)?;
        }
    }
    Ok(Merged::Manifest(writer.finish()?))
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicU64, Ordering};

    use serde_json::{Value, json};

    use super::{Merged, merge, merge_with};
    use crate::ops::hash::work;
    use crate::scan::{Progress, ScanError, ScanOptions};

    const MIB: u64 = 1 << 20;

    /// A shard of a manifest by SHA-256 of a disk of `blocks` blocks of 1 MiB: `count` blocks from `first` on, all
    /// zero.
    fn share(index: u32, of: u32, blocks: u64, first: u64, count: u64) -> Vec<u8> {
        let header = json!({
            "schema": 1, "type": "vhdx-manifest", "virtual-size": blocks << 20, "block-size": MIB,
            "virtual-disk-id": null, "data-write-guid": "00000000-0000-0000-0000-000000000001",
            "algorithms": ["sha256"],
            "share": { "index": index, "count": of, "offset": first << 20, "length": count << 20 },
        });
        let line = json!({
            "block": first, "count": count, "offset": first << 20, "length": count << 20, "state": "NOT_PRESENT",
            "zero": true, "sha256": ZERO_MIB,
        });
        finish(&[header, line], json!({ "blocks": count }))
    }

    /// SHA-256 of 1 MiB of zeros, by hashlib in Python.
    const ZERO_MIB: &str = "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58";

    fn finish(lines: &[Value], mut footer: Value) -> Vec<u8> {
        use sha2::Digest as _;

        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let digest = sha2::Sha256::digest(&text);
        footer["lines-sha256"] = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        format!("{text}{footer}\n").into_bytes()
    }

    /// 64 GiB in blocks of 1 MiB.
    const BLOCKS: u64 = 1 << 16;

    /// Length of all block digests, in bytes.
    const DIGESTS: u64 = BLOCKS * 32;

    #[test]
    fn merge_hashes_repeated_digests_once() {
        let (one, other) = (share(1, 2, BLOCKS, 0, BLOCKS - 1), share(2, 2, BLOCKS, BLOCKS - 1, 1));
        let mut out = Vec::new();
        work::take();
        let Merged::Manifest(roots) = merge(vec![&other[..], &one], &mut out).unwrap() else { unreachable!() };
        let done = work::take();
        // By hashlib in Python.
        assert_eq!(roots[0].digest, "980e987f2e1198f5d2fb7d63297e1df20229f43033416f711ca890262499df70");
        // The lines that are read and written are hashed as well.
        assert!((DIGESTS..DIGESTS + 4096).contains(&done), "{done} bytes for {DIGESTS} bytes of digests");
        let last: Value = serde_json::from_slice(out.split(|byte| *byte == b'\n').rev().nth(1).unwrap()).unwrap();
        assert_eq!(
            (&last["blocks"], &last["root"][0]["digest"]),
            (&json!(BLOCKS), &json!("980e987f2e1198f5d2fb7d63297e1df20229f43033416f711ca890262499df70"))
        );
    }

    #[test]
    fn rejected_shares_need_little_work() {
        let (one, other) = (share(1, 2, BLOCKS, 0, BLOCKS - 1), share(2, 2, BLOCKS, BLOCKS - 1, 1));
        let text = String::from_utf8(other.clone()).unwrap();
        let changed = text.replace("NOT_PRESENT", "ZERO").into_bytes();
        let cut = other[..other.len() - 10].to_vec();
        let (of_another_disk, of_another_work) =
            (share(2, 2, BLOCKS + 1, BLOCKS - 1, 2), share(2, 3, BLOCKS, BLOCKS - 1, 1));
        let gap = share(2, 2, BLOCKS, BLOCKS, 0);
        for other in [changed, cut, of_another_disk, of_another_work, gap] {
            for shares in [vec![&one[..], &other], vec![&other[..], &one]] {
                work::take();
                assert!(merge(shares, &mut Vec::new()).is_err());
                assert!(work::take() < 4096, "of {}", String::from_utf8_lossy(&other));
            }
        }
        work::take();
        assert!(merge(vec![&one[..]], &mut Vec::new()).is_err());
        assert!(work::take() < 4096);
    }

    /// Cancels at call number `.0`.
    struct EndAt(u64, AtomicU64);

    impl Progress for EndAt {
        fn advance(&self, _: u64) -> ControlFlow<()> {
            let calls = self.1.fetch_add(1, Ordering::Relaxed);
            if calls >= self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }

    #[test]
    fn merge_ends_soon_after_cancellation() {
        let whole = share(1, 1, BLOCKS, 0, BLOCKS);
        for calls in 0..5 {
            let progress = EndAt(calls, AtomicU64::new(0));
            work::take();
            let merged = merge_with(vec![&whole[..]], &ScanOptions::new().progress(&progress), &mut Vec::new());
            assert!(matches!(merged, Err(ScanError::Cancelled)), "{merged:?}");
            let done = work::take();
            assert!(done <= 4096 + calls * (32 << 10), "{done} bytes after {calls} calls");
        }
    }

    #[test]
    fn crc32_of_repeated_digests_needs_no_work_for_each() {
        // 64 TiB in blocks of 1 MiB, all of which have the CRC-32 cbf43926.
        let text = String::from_utf8(share(1, 1, 1 << 26, 0, 1 << 26)).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (mut header, mut line) = (lines[0].clone(), lines[1].clone());
        header["algorithms"] = json!(["crc32"]);
        line.as_object_mut().unwrap().remove("sha256");
        line["crc32"] = json!("cbf43926");
        let share = finish(&[header, line], json!({ "blocks": 1 << 26 }));
        work::take();
        let Merged::Manifest(roots) = merge(vec![&share[..]], &mut Vec::new()).unwrap() else { unreachable!() };
        // By zlib in Python: the four bytes, 2^26 times.
        assert_eq!(roots[0].digest, "3d0a990c");
        assert!(work::take() < 4096);
    }

    #[test]
    fn unmergeable_algorithms_in_shares_are_rejected() {
        let document = |algorithms: Value, size: u64| {
            let mut document: super::DigestsDocument = serde_json::from_value(json!({
                "schema": 1, "type": "vhdx-digests", "virtual-size": size, "block-size": MIB, "virtual-disk-id": null,
                "data-write-guid": "00000000-0000-0000-0000-000000000001", "algorithms": algorithms,
                "share": { "index": 1, "count": 1, "offset": 0, "length": size }, "crc32": "00000000", "about": null,
            }))
            .unwrap();
            document.document_sha256 = document.digest();
            serde_json::to_vec(&document).unwrap()
        };
        let merged = |algorithms, size| merge(vec![&document(algorithms, size)[..]], &mut Vec::new());
        merged(json!(["crc32"]), 64 << 40).unwrap();
        for (algorithms, size) in [
            (json!([]), MIB),
            (json!(["crc32", "crc32"]), MIB),
            (json!(["crc32", "sha256"]), MIB),
            (json!(["crc32"]), (64 << 40) + 1),
            (json!(["crc32"]), u64::MAX),
        ] {
            let error = merged(algorithms.clone(), size).unwrap_err();
            assert!(error.to_string().contains("contradict"), "{algorithms} of {size} bytes: {error}");
        }
    }
}
