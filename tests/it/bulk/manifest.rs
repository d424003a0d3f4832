//! Manifests: their content, their shards, and the detection of every change.

use std::io::{BufReader, Cursor, Read};

use serde_json::Value;
use vhdx_mmap::ops::manifest::{self, ManifestError, Merged, Mismatch, Shard};
use vhdx_mmap::ops::{self, Algorithm};
use vhdx_mmap::{Disk, Input as Of, ScanError, ScanOptions};

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB};
use crate::lab::{Rng, open_chain};

use super::hash::{plain, some_algorithms, texts};
use super::{Case, pool};

fn create(disk: &Disk, algorithms: &[Algorithm], shard: Option<Shard>) -> Vec<u8> {
    let mut out = Vec::new();
    manifest::create_manifest(disk, algorithms, shard, &ScanOptions::new(), &mut out).unwrap();
    out
}

fn lines(manifest: &[u8]) -> Vec<Value> {
    std::str::from_utf8(manifest).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn verify(disk: &Disk, manifest: &[u8]) -> Result<(manifest::Verified, Vec<Mismatch>), ScanError> {
    let mut found = Vec::new();
    let verified = manifest::verify(disk, Cursor::new(manifest), &ScanOptions::new(), |mismatch| found.push(mismatch))?;
    Ok((verified, found))
}

fn shares(count: u32) -> impl Iterator<Item = Shard> {
    (1..=count).map(move |index| Shard::new(index, count).unwrap())
}

pub(super) fn agrees(case: &Case, rng: &mut Rng) {
    let disk = &case.disk;
    let algorithms = some_algorithms(rng);
    let manifest = pool(rng).install(|| create(disk, &algorithms, None));
    contents(case, &manifest, &algorithms);
    let (verified, mismatches) = pool(rng).install(|| verify(disk, &manifest)).unwrap();
    assert!(verified.is_same_image && mismatches.is_empty());
    assert_eq!(verified.blocks, disk.size().div_ceil(disk.block_size()));

    let count = rng.pick(&[1, 2, 3, 7]);
    let mut parts: Vec<Cursor<Vec<u8>>> =
        shares(count).map(|shard| Cursor::new(pool(rng).install(|| create(disk, &algorithms, Some(shard))))).collect();
    rng.shuffle(&mut parts);
    let mut merged = Vec::new();
    manifest::merge(parts, &mut merged).unwrap();
    assert_eq!(String::from_utf8(merged), String::from_utf8(manifest), "merged from {count} shards");

    let algorithms: Vec<Algorithm> = algorithms.into_iter().filter(|algorithm| algorithm.is_mergeable()).collect();
    if algorithms.is_empty() {
        return;
    }
    let mut parts = Vec::new();
    for shard in shares(count) {
        let mut out = Vec::new();
        let about = serde_json::json!({ "filename": shard.to_string() });
        pool(rng)
            .install(|| manifest::hash_shard(disk, &algorithms, shard, about, &ScanOptions::new(), &mut out))
            .unwrap();
        parts.push(Cursor::new(out));
    }
    let Merged::Digests { digests, about } = manifest::merge(parts, &mut Vec::new()).unwrap() else {
        unreachable!("shards of digests make digests")
    };
    let expected = ops::hash(Of::disk(disk), &algorithms, &ScanOptions::new()).unwrap();
    assert_eq!(texts(&digests), texts(&expected));
    assert_eq!(about["filename"], format!("1/{count}"));
}

/// Checks every line of a manifest against the model.
fn contents(case: &Case, manifest: &[u8], algorithms: &[Algorithm]) {
    let lines = lines(manifest);
    let (first, rest) = lines.split_first().unwrap();
    let (last, blocks) = rest.split_last().unwrap();
    assert_eq!(first["virtual-size"], case.disk.size());
    assert_eq!(first["block-size"], case.disk.block_size());
    let mut all: Vec<Vec<u8>> = vec![Vec::new(); algorithms.len()];
    let mut block = 0;
    for line in blocks {
        assert_eq!(line["block"], block);
        let count = line.get("count").map_or(1, |count| count.as_u64().unwrap());
        let is_zero = line.get("zero").is_some();
        assert!(count == 1 || is_zero);
        let start = block * case.disk.block_size();
        let end = ((block + count) * case.disk.block_size()).min(case.disk.size());
        assert_eq!((line["offset"].as_u64().unwrap(), line["length"].as_u64().unwrap()), (start, end - start));
        for number in block..block + count {
            let state = case.disk.block(number).unwrap().state();
            assert_eq!(line["state"], state.as_str(), "block {number}");
            let start = number * case.disk.block_size();
            let bytes = case.content.read(start..(start + case.disk.block_size()).min(case.disk.size()));
            assert!(!is_zero || bytes.iter().all(|byte| *byte == 0));
            for (algorithm, all) in algorithms.iter().zip(&mut all) {
                let digest = plain(*algorithm, &bytes);
                assert_eq!(line[algorithm.as_str()], digest, "{algorithm} of block {number}");
                all.extend(
                    (0..digest.len() / 2).map(|at| u8::from_str_radix(&digest[2 * at..2 * at + 2], 16).unwrap()),
                );
            }
        }
        block += count;
    }
    assert_eq!(last["blocks"], block);
    for ((algorithm, all), root) in algorithms.iter().zip(&all).zip(last["root"].as_array().unwrap()) {
        assert_eq!(root["name"], format!("{algorithm}-of-block-digests"));
        assert_eq!(root["digest"], plain(*algorithm, all));
    }
}

/// Two disks that differ in blocks 2 and 5: one is changed, one has become zero.
fn two_disks() -> (Disk, Disk) {
    let one = Spec::default();
    let mut other = one.clone().block(2, Block::full().bytes(b"other"));
    other.blocks.remove(&5);
    (open_chain(&[&one.build()]).unwrap(), open_chain(&[&other.build()]).unwrap())
}

#[test]
fn verify_finds_every_different_block() {
    let (one, other) = two_disks();
    for algorithms in [&[Algorithm::Sha256][..], &[Algorithm::Blake3], &[Algorithm::Crc32, Algorithm::Md5]] {
        for (of, with) in [(&one, &other), (&other, &one)] {
            let (verified, found) = verify(with, &create(of, algorithms, None)).unwrap();
            assert_eq!((verified.blocks, verified.mismatches), (8, 2));
            let places: Vec<_> = found.iter().map(|mismatch| (mismatch.block, mismatch.range.clone())).collect();
            assert_eq!(places, [(2, 2 * MIB..3 * MIB), (5, 5 * MIB..6 * MIB)]);
            assert!(found.iter().all(|mismatch| mismatch.found != mismatch.expected));
        }
    }
}

#[test]
fn verify_works_with_any_block_size() {
    let one = Spec::default();
    let content = crate::lab::Expected::of(&[&one.build()]);
    let mut other = Spec { block_size: 4 << 20, ..Spec::empty(8 * MIB) };
    for number in 0..2 {
        let start = number * 4 * MIB;
        let piece = (0, content.read(start..start + 4 * MIB));
        other = other.block(number, Block::full().fill(crate::kit::Fill::Pieces(vec![piece])));
    }
    other.data_write_guid = uuid::Uuid::from_u128(77);
    let (one, other) = (open_chain(&[&one.build()]).unwrap(), open_chain(&[&other.build()]).unwrap());
    let (verified, found) = verify(&other, &create(&one, &[Algorithm::Sha256], None)).unwrap();
    assert_eq!((verified.blocks, found.len(), verified.is_same_image), (8, 0, false));
    let (verified, found) = verify(&one, &create(&other, &[Algorithm::Sha256], None)).unwrap();
    assert_eq!((verified.blocks, found.len()), (2, 0));
}

/// Returns the line and the message with which a manifest is rejected.
fn refused(disk: &Disk, manifest: &[u8]) -> (Option<u64>, String) {
    match verify(disk, manifest).unwrap_err() {
        ScanError::Manifest(ManifestError::Format { line, what, .. }) => (line, what),
        ScanError::Manifest(error @ ManifestError::OtherSize { .. }) => (None, error.to_string()),
        error => unreachable!("{error:?}"),
    }
}

#[test]
fn truncated_or_changed_manifest_is_rejected() {
    let (disk, _) = two_disks();
    let manifest = create(&disk, &[Algorithm::Sha256], None);
    let text = String::from_utf8(manifest.clone()).unwrap();
    for length in 0..manifest.len() {
        let (_, what) = refused(&disk, &manifest[..length]);
        assert!(["truncated", "is empty"].iter().any(|words| what.contains(words)), "cut at {length}: {what}");
    }
    for at in 0..manifest.len() {
        let mut changed = manifest.clone();
        changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
        refused(&disk, &changed);
    }
    let lines: Vec<&str> = text.lines().collect();
    for (what, changed) in [
        ("not a manifest", text.replace("vhdx-manifest", "vhdx-manifesto")),
        ("version", text.replace("\"schema\":1", "\"schema\":2")),
        ("do not follow", [&lines[..2], &lines[3..]].concat().join("\n") + "\n"),
        ("data after", text.clone() + "\n"),
        ("about a block", text.replace("\"state\"", "\"status\"")),
        ("too long", text.replace("\"state\"", &format!("\"{}\"", "x".repeat(1 << 16)))),
        ("not UTF-8", String::new()),
    ] {
        let bytes = if what == "not UTF-8" { [&b"\xff\n"[..], &manifest].concat() } else { changed.into_bytes() };
        let (_, found) = refused(&disk, &bytes);
        assert!(found.contains(what), "{what}: {found}");
    }
    // Blocks of one byte would make a short manifest very expensive.
    let header = lines[0].replace("\"block-size\":1048576", "\"block-size\":1");
    assert_ne!(header, lines[0]);
    let (line, what) = refused(&disk, format!("{header}\n").as_bytes());
    assert_eq!((line, what.as_str()), (Some(1), "the values contradict each other"));
}

#[test]
fn manifest_of_other_size_is_rejected() {
    let (disk, _) = two_disks();
    let larger = open_chain(&[&Spec::empty(9 * MIB).build()]).unwrap();
    let (_, what) = refused(&larger, &create(&disk, &[Algorithm::Crc32], None));
    assert!(what.contains("8388608") && what.contains("9437184"), "{what}");
}

fn merge_error(parts: &[Vec<u8>]) -> (usize, String) {
    let parts = parts.iter().map(Cursor::new).collect();
    let error = manifest::merge(parts, &mut Vec::new()).unwrap_err();
    let ScanError::Manifest(ManifestError::Format { document, what, .. }) = error else { unreachable!("{error:?}") };
    (document, what)
}

#[test]
fn shares_of_different_work_are_not_merged() {
    let (one, _) = two_disks();
    let renamed = Spec { data_write_guid: uuid::Uuid::from_u128(5), ..Spec::default() };
    let renamed = open_chain(&[&renamed.build()]).unwrap();
    let share = |disk: &Disk, text: &str| create(disk, &[Algorithm::Crc32], Some(text.parse().unwrap()));
    let digests = |disk: &Disk, text: &str| {
        let mut out = Vec::new();
        let shard = text.parse().unwrap();
        let nothing = Value::Null;
        manifest::hash_shard(disk, &[Algorithm::Blake3], shard, nothing, &ScanOptions::new(), &mut out).unwrap();
        out
    };
    type Make<'a> = &'a dyn Fn(&Disk, &str) -> Vec<u8>;
    let makes: [Make<'_>; 2] = [&share, &digests];
    for make in makes {
        let all = [make(&one, "1/3"), make(&one, "2/3"), make(&one, "3/3")];
        assert_eq!(merge_error(&all[..2]), (0, "shard 3/3 is missing".to_owned()));
        let [first, second, third] = all.clone();
        let (document, what) = merge_error(&[first.clone(), third.clone()]);
        assert_eq!((document, what.as_str()), (1, "shard 2/3 is missing"));
        let (document, what) = merge_error(&[first.clone(), second.clone(), second.clone()]);
        assert_eq!((document, what.as_str()), (2, "shard 2/3 occurs twice"));
        let (document, what) = merge_error(&[first.clone(), make(&one, "2/4"), third.clone()]);
        assert!(document == 1 && what.contains("2/4") && what.contains("1/3"), "{what}");
        let (document, what) = merge_error(&[first.clone(), make(&renamed, "2/3"), third.clone()]);
        assert!(document == 1 && what.contains("another disk"), "{what}");
        let cut = second[..second.len() - 2].to_vec();
        let changed = String::from_utf8(second.clone()).unwrap().replacen("[[0,", "[[1,", 1);
        let mut changed = changed.into_bytes();
        let at = changed.len() - 8;
        changed[at] ^= 1;
        merge_error(&[first.clone(), changed, third.clone()]);
        let (document, what) = merge_error(&[first, cut, third]);
        assert!(document == 1 && what.contains("truncated"), "{what}");
    }
    // The map of this one differs, and so do the shards, although it claims to be the same disk.
    let moved = open_chain(&[&Spec::default().block(6, Block::full()).block(7, Block::full()).build()]).unwrap();
    let (_, what) = merge_error(&[share(&one, "1/2"), share(&moved, "2/2")]);
    assert!(what.contains("same image"), "{what}");
    assert!(merge_error(&[share(&one, "1/2"), digests(&one, "2/2")]).1.contains("some are not"));
    assert!(merge_error(&[create(&one, &[Algorithm::Crc32], None)]).1.contains("whole manifest"));
    assert!(merge_error(&[]).1.contains("nothing to merge"));
    assert!(merge_error(&[b"{}\n".to_vec()]).1.contains("not a manifest"));
}

#[test]
fn shares_are_numbered_from_one() {
    for bad in ["0/3", "4/3", "1/0", "", "1", "1/", "/2", "a/b", "-1/2", "1/99999999", "1/2/3"] {
        assert!(bad.parse::<Shard>().is_err(), "{bad}");
    }
    let shard: Shard = "2/5".parse().unwrap();
    assert_eq!((shard.index(), shard.count(), shard.to_string().as_str()), (2, 5, "2/5"));
}

#[test]
fn shares_have_similar_amounts_of_data() {
    // All data is in the last eighth of the disk.
    let spec = (112..128).fold(Spec::empty(128 * MIB), |spec, block| spec.block(block, Block::full()));
    let disk = open_chain(&[&spec.build()]).unwrap();
    for shard in shares(4) {
        let manifest = create(&disk, &[Algorithm::Crc32], Some(shard));
        let data = lines(&manifest).iter().filter(|line| line["state"] == "FULLY_PRESENT").count();
        assert_eq!(data, 4, "shard {shard}");
    }
}

#[test]
fn sequential_digest_is_not_computed_in_shares() {
    let (disk, _) = two_disks();
    let (shard, nothing) = (Shard::new(1, 2).unwrap(), Value::Null);
    let algorithms = [Algorithm::Crc32, Algorithm::Sha256];
    let error = manifest::hash_shard(&disk, &algorithms, shard, nothing, &ScanOptions::new(), &mut Vec::new());
    assert!(error.unwrap_err().to_string().contains("sha256"));
}

/// All shards of a manifest, and of digests.
fn all_shares(disk: &Disk, count: u32) -> [Vec<Vec<u8>>; 2] {
    let of_manifest = shares(count).map(|shard| create(disk, &[Algorithm::Crc32, Algorithm::Sha256], Some(shard)));
    let of_digests = shares(count).map(|shard| {
        let mut out = Vec::new();
        let algorithms = [Algorithm::Blake3, Algorithm::Crc32];
        manifest::hash_shard(disk, &algorithms, shard, Value::Null, &ScanOptions::new(), &mut out).unwrap();
        out
    });
    [of_manifest.collect(), of_digests.collect()]
}

#[test]
fn merge_accepts_readers_with_any_buffer() {
    let (disk, _) = two_disks();
    let whole = create(&disk, &[Algorithm::Crc32, Algorithm::Sha256], None);
    let digests = ops::hash(Of::disk(&disk), &[Algorithm::Blake3, Algorithm::Crc32], &ScanOptions::new()).unwrap();
    let check = |merged: Merged, out: Vec<u8>, how: &str| match merged {
        Merged::Digests { digests: found, .. } => assert_eq!(texts(&found), texts(&digests), "{how}"),
        _ => assert!(out == whole, "{how}"),
    };
    for parts in all_shares(&disk, 3) {
        for capacity in [1, 2, 7, 16, 74, 75, 76, 4096] {
            let readers = parts.iter().map(|part| BufReader::with_capacity(capacity, &part[..])).collect();
            let mut out = Vec::new();
            let merged = manifest::merge(readers, &mut out).unwrap();
            check(merged, out, &format!("a buffer of {capacity} bytes"));
        }
        for cut in [0, 1, 5, 40, 70, 76, 200] {
            let readers = parts.iter().map(|part| part[..cut].chain(&part[cut..])).collect();
            let mut out = Vec::new();
            let merged = manifest::merge(readers, &mut out).unwrap();
            check(merged, out, &format!("a chain that is cut at {cut}"));
        }
    }
}

/// Nested arrays: `depth` brackets.
fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, _| Value::from(vec![inner]))
}

#[test]
fn about_of_a_share_round_trips_or_is_rejected() {
    let (disk, _) = two_disks();
    let through = |about: &Value| {
        let mut out = Vec::new();
        let shard = Shard::new(1, 1).unwrap();
        manifest::hash_shard(&disk, &Algorithm::ALL[..2], shard, about.clone(), &ScanOptions::new(), &mut out)
            .inspect_err(|_| assert!(out.is_empty(), "something was written"))?;
        match manifest::merge(vec![&out[..]], &mut Vec::new()).unwrap() {
            Merged::Digests { about, .. } => Ok::<_, ScanError>(about),
            other => unreachable!("{other:?}"),
        }
    };
    let limit = manifest::MAX_ABOUT_LEN;
    let text = |length: u64| Value::from("x".repeat(usize::try_from(length).unwrap() - 2));
    for about in [text(1000), text(limit / 2), text(limit - 1), text(limit), nested(100)] {
        assert!(through(&about).unwrap() == about);
    }
    // Numbers that a careless parser rounds to other values.
    for number in
        [0.1 + 0.2, 1.0 / 3.0, 5e-324, 1.797_693_134_862_315_7e308, 7.038_531e-26, -0.0, 9_007_199_254_740_993.0]
    {
        assert_eq!(through(&Value::from(vec![number])).unwrap(), Value::from(vec![number]));
    }
    for number in [u64::MAX, 0] {
        assert_eq!(through(&Value::from(number)).unwrap(), Value::from(number));
    }
    for length in [limit + 1, 2 * limit, 8 * limit] {
        let error = through(&text(length)).unwrap_err();
        let ScanError::Manifest(ManifestError::AboutTooLong { length: found, limit: most }) = error else {
            panic!("{error:?}")
        };
        assert_eq!((found, most), (length, limit));
    }
    // At some depth, readers of JSON give up.
    let refused: Vec<bool> = (100..140)
        .map(|depth| match through(&nested(depth)) {
            Ok(about) => {
                assert!(about == nested(depth));
                false
            }
            Err(error) => {
                assert!(matches!(error, ScanError::Manifest(ManifestError::AboutTooDeep)), "{error:?}");
                true
            }
        })
        .collect();
    assert!(refused.is_sorted() && refused[39], "{refused:?}");
}

#[test]
fn overlong_share_is_rejected_early() {
    let (disk, _) = two_disks();
    let [_, parts] = all_shares(&disk, 1);
    let mut endless = parts[0].chain(std::io::repeat(b' '));
    let error = manifest::merge(vec![BufReader::new(&mut endless)], &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
}

#[test]
fn shard_is_validated_when_read() {
    let read = |text: &str| serde_json::from_str::<Shard>(text);
    let shard = Shard::new(2, 5).unwrap();
    assert_eq!(serde_json::to_string(&shard).unwrap(), r#"{"index":2,"count":5}"#);
    assert_eq!(read(r#"{"index":2,"count":5}"#).unwrap(), shard);
    assert_eq!(read(r#"{"count":1048576,"index":1048576}"#).unwrap(), Shard::new(1 << 20, 1 << 20).unwrap());
    for bad in [(0, 0), (0, 3), (5, 2), (1, 0), (1, (1 << 20) + 1), (u64::MAX, u64::MAX)] {
        let text = format!(r#"{{"index":{},"count":{}}}"#, bad.0, bad.1);
        assert!(read(&text).is_err(), "{text}");
    }
    // Inside documents with valid digests.
    let (disk, _) = two_disks();
    let [manifests, digests] = all_shares(&disk, 1);
    for (number, count) in [(0, 0), (5, 2), (1, 2_000_000)] {
        let fields = format!(r#""index":{number},"count":{count}"#);
        let change = |document: &[u8]| {
            let text = String::from_utf8(document.to_vec()).unwrap();
            let changed = text.replace(r#""index":1,"count":1"#, &fields);
            assert_ne!(changed, text);
            changed
        };
        let text = change(&manifests[0]);
        let (lines, last) = text.trim_end().rsplit_once('\n').unwrap();
        let mut last: Value = serde_json::from_str(last).unwrap();
        last["lines-sha256"] = plain(Algorithm::Sha256, format!("{lines}\n").as_bytes()).into();
        let (_, what) = merge_error(&[format!("{lines}\n{last}\n").into_bytes()]);
        assert!(what.contains("not a shard such as"), "{fields}: {what}");
        let mut document: Value = serde_json::from_str(&change(&digests[0])).unwrap();
        document.as_object_mut().unwrap().remove("document-sha256");
        document["document-sha256"] = plain(Algorithm::Sha256, document.to_string().as_bytes()).into();
        let (_, what) = merge_error(&[document.to_string().into_bytes()]);
        assert!(what.contains("not a shard such as"), "{fields}: {what}");
    }
}

#[test]
fn share_without_blocks_can_only_be_merged() {
    let (disk, _) = two_disks();
    let whole = create(&disk, &[Algorithm::Crc32, Algorithm::Sha256], None);
    let digests = ops::hash(Of::disk(&disk), &[Algorithm::Blake3, Algorithm::Crc32], &ScanOptions::new()).unwrap();
    // Eight blocks: most of 21 shards have none.
    let [manifests, parts] = all_shares(&disk, 21);
    let (mut empty, mut blocks) = (0, 0);
    for (share, shard) in manifests.iter().zip(shares(21)) {
        match verify(&disk, share) {
            Ok((verified, mismatches)) => {
                assert!(verified.blocks > 0 && !verified.range.is_empty() && mismatches.is_empty());
                blocks += verified.blocks;
            }
            Err(ScanError::Manifest(ManifestError::EmptyShard { index, count })) => {
                assert_eq!(Shard::new(index, count), Some(shard));
                empty += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(empty >= 13 && blocks == 8, "{empty} empty shards, {blocks} blocks");
    let mut merged = Vec::new();
    manifest::merge(manifests.iter().rev().map(|share| &share[..]).collect(), &mut merged).unwrap();
    assert_eq!(String::from_utf8(merged), String::from_utf8(whole));
    let merged = manifest::merge(parts.iter().map(|part| &part[..]).collect(), &mut Vec::new()).unwrap();
    let Merged::Digests { digests: found, .. } = merged else { unreachable!() };
    assert_eq!(texts(&found), texts(&digests));
    // An empty manifest verifies all of an empty disk.
    let nothing = open_chain(&[&Spec::empty(0).build()]).unwrap();
    for shard in [None, Shard::new(1, 2), Shard::new(2, 2)] {
        let (verified, _) = verify(&nothing, &create(&nothing, &[Algorithm::Crc32], shard)).unwrap();
        assert_eq!((verified.blocks, verified.range), (0, 0..0));
    }
}

/// A file that has other bytes when it is read again.
struct Changes<'a>(Cursor<&'a [u8]>, &'a [u8]);

impl Read for Changes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl std::io::Seek for Changes<'_> {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.0 = Cursor::new(self.1);
        self.0.seek(to)
    }
}

#[test]
fn manifest_changed_while_read_is_rejected() {
    let (one, other) = two_disks();
    let [one_manifest, other_manifest] = [&one, &other].map(|disk| create(disk, &[Algorithm::Sha256], None));
    let input = BufReader::new(Changes(Cursor::new(&one_manifest), &other_manifest));
    let error = manifest::verify(&one, input, &ScanOptions::new(), |_| ()).unwrap_err();
    assert!(error.to_string().contains("changed while it was read"), "{error}");
}

#[test]
fn invalid_manifests_are_not_written() {
    let (disk, _) = two_disks();
    let (shard, options) = (Shard::new(1, 2).unwrap(), ScanOptions::new());
    for algorithms in [&[][..], &[Algorithm::Crc32, Algorithm::Blake3, Algorithm::Crc32]] {
        let mut out = Vec::new();
        manifest::create_manifest(&disk, algorithms, None, &options, &mut out).unwrap_err();
        manifest::hash_shard(&disk, algorithms, shard, Value::Null, &options, &mut out).unwrap_err();
        assert!(out.is_empty());
    }
}
