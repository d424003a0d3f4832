//! Work on whole disks.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom, Write};
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::Value;
use sha2::Digest as _;
use vhdx_mmap::ops::manifest::{self, ManifestError, Merged, Shard};
use vhdx_mmap::ops::plan::{Plan, PlanOptions};
use vhdx_mmap::ops::{self, Algorithm, Digest, ExtractOptions, Extracted, Sparse, Target, TargetContent};
use vhdx_mmap::{Input, ScanError, Segment, Source};

use super::super::dice::{Dice, size, wide};
use super::super::truth::{Truth, differences};
use super::{Failure, Judged, Stage, ensure, ensure_bytes, ensure_eq};
use crate::MIB;

/// Limit of what is hashed or copied, in bytes: a disk may be gigabytes of zeros.
const MOST: u64 = 6 * MIB;

/// A digest of bytes in hexadecimal, by crates that the library's answer does not depend on.
fn digest_of(algorithm: Algorithm, bytes: &[u8]) -> String {
    match algorithm {
        Algorithm::Crc32 => format!("{:08x}", crc32fast::hash(bytes)),
        Algorithm::Blake3 => blake3::hash(bytes).to_hex().to_string(),
        _ => sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn some_algorithms(dice: &mut Dice) -> Vec<Algorithm> {
    use Algorithm::{Blake3, Crc32, Sha256};

    dice.pick(&[vec![Crc32], vec![Blake3], vec![Sha256], vec![Crc32, Blake3], vec![Sha256, Crc32]])
}

fn ensure_digests(found: &[Digest], algorithms: &[Algorithm], bytes: &[u8]) -> Judged {
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    let expected: Vec<String> = algorithms.iter().map(|algorithm| digest_of(*algorithm, bytes)).collect();
    ensure_eq(&found, &expected, "digests")
}

/// A copy of a segment: its length, and its bytes if it has any.
type Copied = (u64, Option<Vec<u8>>);

pub(super) fn scan(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let range = stage.some_range(dice, stage.truth().size);
    let mut found: Vec<(Range<u64>, Option<Vec<Copied>>)> = Vec::new();
    Input::disk(stage.disk).range(range.clone()).scan(
        &stage.scan(),
        |_, segments| {
            let copied = segments.iter().map(|segment| match segment {
                Segment::Data(bytes) => (segment.len(), Some(bytes.to_vec())),
                Segment::Zero(length) => (*length, None),
            });
            copied.collect::<Vec<_>>()
        },
        |unit, copied| {
            stage.tick();
            found.push((unit, copied));
        },
    )?;
    let mut at = range.start;
    for (unit, copied) in found {
        ensure_eq(&(range.start + unit.start), &at, "the start of a unit")?;
        for (length, bytes) in copied.unwrap_or_else(|| vec![(unit.end - unit.start, None)]) {
            match bytes {
                Some(bytes) => ensure_bytes(&bytes, stage.truth(), at)?,
                None => {
                    let pages = stage.truth().bytes.written_pages(at, at + length).into_iter();
                    let parts = pages.map(|page| page.max(at)..(page + 4096).min(at + length));
                    let mut parts = parts.filter(|part| part.start < part.end);
                    let data = parts.find(|part| stage.truth().read(part.clone()).iter().any(|byte| *byte != 0));
                    ensure(data.is_none(), || format!("zeros at {data:x?} of the disk, where there is data"))?;
                }
            }
            at += length;
        }
    }
    ensure_eq(&at, &range.end, "the end of the units")
}

pub(super) fn hash(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let range = stage.some_range(dice, MOST);
    let algorithms = some_algorithms(dice);
    let found = ops::hash(Input::disk(stage.disk).range(range.clone()), &algorithms, &stage.scan())?;
    ensure_digests(&found, &algorithms, &stage.truth().read(range))
}

/// A writer that calls the trigger at every write.
struct Sink<'a> {
    stage: &'a Stage<'a>,
    bytes: Vec<u8>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stage.tick();
        // In pieces, so that there are many moments.
        let taken = bytes.len().min(300_000);
        self.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that calls the trigger at every read.
struct Tap<'a> {
    stage: &'a Stage<'a>,
    inner: Cursor<&'a [u8]>,
}

impl Read for Tap<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stage.tick();
        let most = buffer.len().min(500);
        self.inner.read(&mut buffer[..most])
    }
}

impl Seek for Tap<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

fn field(line: &Value, key: &str) -> Result<u64, Failure> {
    line[key].as_u64().ok_or_else(|| Failure::Wrong(format!("no {key} in {line}")))
}

/// Each shard is right for its own range; all of them, merged, are right for the disk. Shards of one disk that do not
/// fit together were divided by different maps, and are rejected.
pub(super) fn hash_shard(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let truth = stage.truth();
    let algorithms =
        if truth.size <= MOST { vec![Algorithm::Crc32, Algorithm::Blake3] } else { vec![Algorithm::Crc32] };
    let count = dice.pick(&[1, 1, 2, 3]);
    let mut shares = Vec::new();
    for index in 1..=count {
        let shard = Shard::new(index, count).unwrap();
        let mut out = Sink { stage, bytes: Vec::new() };
        manifest::hash_shard(stage.disk, &algorithms, shard, Value::Null, &stage.scan(), &mut out)?;
        let found: Value = serde_json::from_slice(&out.bytes).map_err(|error| Failure::Wrong(error.to_string()))?;
        let (start, length) = (field(&found["share"], "offset")?, field(&found["share"], "length")?);
        let expected = format!("{:08x}", crc32_of(truth, start..start + length));
        ensure_eq(&found["crc32"], &Value::from(expected), "the CRC-32 of a shard")?;
        shares.push(out.bytes);
    }
    ensure_merged(stage, &shares, &algorithms, count > 1)
}

/// Splits of a plan are shards whose ranges are known from the beginning.
pub(super) fn hash_splits(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let algorithms =
        if stage.truth().size <= MOST { vec![Algorithm::Crc32, Algorithm::Blake3] } else { vec![Algorithm::Crc32] };
    let plan = Plan::new(stage.disk, &PlanOptions::splits(dice.pick(&[1, 2, 3])))?;
    let mut shares = Vec::new();
    for split in plan.splits() {
        let mut out = Sink { stage, bytes: Vec::new() };
        manifest::hash_share(stage.disk, &algorithms, &split.share(), Value::Null, &stage.scan(), &mut out)?;
        shares.push(out.bytes);
    }
    ensure_merged(stage, &shares, &algorithms, false)
}

/// Merges shards of digests. `may_differ`: each was divided by a map of its own.
fn ensure_merged(stage: &Stage<'_>, shares: &[Vec<u8>], algorithms: &[Algorithm], may_differ: bool) -> Judged {
    let truth = stage.truth();
    let merged = manifest::merge(
        shares.iter().map(|share| BufReader::with_capacity(1 << 16, &share[..])).collect(),
        &mut io::sink(),
    );
    let digests = match merged {
        Ok(Merged::Digests { digests, .. }) => digests,
        Ok(_) => return Err(Failure::Wrong("a manifest".to_owned())),
        Err(ScanError::Manifest(ManifestError::Format { .. })) if stage.trigger.is_spent() && may_differ => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if truth.size <= MOST {
        return ensure_digests(&digests, algorithms, &truth.read(0..truth.size));
    }
    ensure_eq(&digests[0].to_string(), &format!("{:08x}", crc32_of(truth, 0..truth.size)), "the CRC-32 of the disk")
}

/// CRC-32 of a range that may be gigabytes of zeros.
fn crc32_of(truth: &Truth, range: Range<u64>) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    let mut at = range.start;
    for page in truth.bytes.written_pages(range.start, range.end) {
        let (start, end) = (page.max(range.start), (page + 4096).min(range.end));
        if start >= end {
            continue;
        }
        append_zeros(&mut sum, start - at);
        sum.update(&truth.read(start..end));
        at = end;
    }
    append_zeros(&mut sum, range.end - at);
    sum.finalize()
}

fn append_zeros(sum: &mut crc32fast::Hasher, length: u64) {
    let mut power = crc32fast::Hasher::new();
    power.update(&[0]);
    let mut left = length;
    while left > 0 {
        if left & 1 == 1 {
            sum.combine(&power);
        }
        left >>= 1;
        let same = power.clone();
        power.combine(&same);
    }
}

const STATES: [&str; 8] =
    ["NOT_PRESENT", "UNDEFINED", "ZERO", "UNMAPPED", "", "", "FULLY_PRESENT", "PARTIALLY_PRESENT"];

/// Compares a manifest of blocks with the truth.
pub fn judge_manifest(text: &[u8], truth: &Truth, algorithms: &[Algorithm]) -> Judged {
    let lines: Vec<Value> = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::Wrong(format!("no manifest: {error}")))?;
    let [header, blocks @ .., footer] = &lines[..] else { return Err(Failure::Wrong("a short manifest".to_owned())) };
    let range = match header.get("share") {
        Some(share) => field(share, "offset")?..field(share, "offset")? + field(share, "length")?,
        None => 0..truth.size,
    };
    let mut at = range.start;
    let mut all_digests = vec![Vec::new(); algorithms.len()];
    let mut zeros = std::collections::BTreeMap::new();
    for line in blocks {
        let (block, offset, length) = (field(line, "block")?, field(line, "offset")?, field(line, "length")?);
        let count = line.get("count").and_then(Value::as_u64).unwrap_or(1);
        let is_zero = line.get("zero").is_some_and(|zero| *zero == true);
        ensure_eq(&(offset, block), &(at, at / truth.block_size), "the place of a block")?;
        let end = truth.block(block + count - 1, truth.block_size).end;
        ensure_eq(&length, &(end - offset), "the length of blocks")?;
        at = end;
        let different =
            truth.states.range(block..block + count).find(|(_, state)| line["state"] != STATES[usize::from(**state)]);
        ensure(different.is_none(), || format!("the state in {line}, and the truth is {different:?}"))?;
        let named = wide(truth.states.range(block..block + count).count());
        ensure(named == count || line["state"] == STATES[0], || format!("the state in {line}"))?;
        let has_data = truth.within(offset..end).any(|run| run.at.is_some() && !run.may_be_zero);
        ensure(is_zero != has_data || !has_data && !is_zero, || format!("data or none in {line}"))?;
        let each = truth.block(block, truth.block_size);
        for (algorithm, all) in algorithms.iter().zip(&mut all_digests) {
            let expected = if has_data {
                digest_of(*algorithm, &truth.read(each.clone()))
            } else {
                let zeros = zeros.entry((*algorithm, each.end - each.start));
                zeros.or_insert_with(|| digest_of(*algorithm, &vec![0; size(each.end - each.start)])).clone()
            };
            ensure(line[algorithm.as_str()] == expected, || {
                format!("{algorithm} in {line}, and the truth is {expected}")
            })?;
            let bytes: Vec<u8> = (0..expected.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&expected[at..at + 2], 16).unwrap())
                .collect();
            (0..count).for_each(|_| all.extend_from_slice(&bytes));
        }
    }
    ensure_eq(&at, &range.end, "the end of a manifest")?;
    let blocks = (range.end - range.start).div_ceil(truth.block_size);
    ensure_eq(&field(footer, "blocks")?, &blocks, "blocks of a manifest")?;
    if header.get("share").is_none() {
        for (root, (algorithm, all)) in
            footer["root"].as_array().into_iter().flatten().zip(algorithms.iter().zip(&all_digests))
        {
            ensure_eq(&root["digest"], &Value::from(digest_of(*algorithm, all)), "a digest of digests")?;
        }
    }
    Ok(())
}

fn new_manifest(stage: &Stage<'_>, dice: &mut Dice, shard: Option<Shard>) -> Judged {
    let algorithms = if stage.truth().size <= MOST { some_algorithms(dice) } else { vec![Algorithm::Crc32] };
    let mut out = Sink { stage, bytes: Vec::new() };
    manifest::create_manifest(stage.disk, &algorithms, shard, &stage.scan(), &mut out)?;
    judge_manifest(&out.bytes, stage.truth(), &algorithms)
}

pub(super) fn create_manifest(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    new_manifest(stage, dice, None)
}

pub(super) fn create_manifest_shard(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let count = 2 + u32::try_from(dice.below(2)).unwrap();
    let shard = Shard::new(1 + u32::try_from(dice.below(u64::from(count))).unwrap(), count);
    new_manifest(stage, dice, shard)
}

/// Compares the disk with the manifest of the disk of a layer.
fn verified(stage: &Stage<'_>, layer: usize) -> Judged {
    let (truth, other) = (stage.truth(), &stage.chain.truths[layer]);
    let inner = Cursor::new(&stage.manifests[layer][..]);
    let mut found = Vec::new();
    let manifest = BufReader::with_capacity(500, Tap { stage, inner });
    let verified = manifest::verify(stage.disk, manifest, &stage.scan(), |mismatch| {
        stage.tick();
        found.push(mismatch.range);
    })?;
    let mut expected: Vec<u64> = Vec::new();
    for (range, _) in differences(&truth.bytes, &other.bytes, truth.size) {
        expected.extend(range.start / other.block_size..range.end.div_ceil(other.block_size));
    }
    expected.dedup();
    let expected: Vec<Range<u64>> = expected.iter().map(|number| other.block(*number, other.block_size)).collect();
    ensure_eq(&found, &expected, "blocks that are not as in a manifest")?;
    let counts = (verified.mismatches, verified.blocks);
    ensure_eq(&counts, &(wide(expected.len()), truth.size.div_ceil(other.block_size)), "mismatches and blocks")
}

pub(super) fn verify_same(stage: &Stage<'_>, _: &mut Dice) -> Judged {
    verified(stage, 0)
}

pub(super) fn verify_other(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let other = stage.some_ancestor(dice).filter(|layer| stage.chain.truths[*layer].size == stage.truth().size);
    verified(stage, other.unwrap_or(0))
}

/// Another content to compare the disk with: an equal or different disk from memory, an ancestor, or raw bytes.
fn with_other<T>(
    stage: &Stage<'_>,
    dice: &mut Dice,
    work: impl FnOnce(Input<'_>, &crate::SparseBytes) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let truth = stage.truth();
    let layer = stage.some_ancestor(dice).unwrap_or(0);
    match dice.below(4) {
        0 => work(Input::disk(&stage.copies[0]), &truth.bytes),
        1 => work(Input::disk(&stage.copies[layer]), &stage.chain.truths[layer].bytes),
        2 if truth.size <= MOST => {
            let mut other = truth.bytes.clone();
            for _ in 0..dice.below(4) {
                let at = dice.below(truth.size);
                let byte = other.read(at, 1)[0];
                other.write(at, &[byte ^ 1]);
            }
            let source = Source::from_vec(other.to_vec());
            work(Input::raw(&source), &other)
        }
        _ => {
            let ancestor = stage.disk.ancestor(layer).unwrap();
            work(Input::disk(&ancestor), &stage.chain.truths[layer].bytes)
        }
    }
}

fn compared(stage: &Stage<'_>, dice: &mut Dice, most: usize) -> Judged {
    with_other(stage, dice, |other, other_bytes| {
        let (mut found, mut is_broken_off) = (Vec::new(), false);
        let disk = Input::disk(stage.disk);
        ops::compare(disk, other, &stage.scan(), |difference| {
            stage.tick();
            found.push((difference.range, difference.first));
            if found.len() >= most {
                is_broken_off = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        let length = stage.truth().size.max(other_bytes.len());
        let mut expected = differences(&stage.truth().bytes, other_bytes, length);
        if is_broken_off {
            expected.truncate(most);
        }
        ensure(found == expected, || format!("differences {found:x?}, and the truth is {expected:x?}"))
    })
}

pub(super) fn compare(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    compared(stage, dice, usize::MAX)
}

pub(super) fn compare_break(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let most = dice.pick(&[1, 1, 2, 3]);
    compared(stage, dice, most)
}

pub(super) fn first_difference(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    with_other(stage, dice, |other, other_bytes| {
        let found = ops::first_difference(Input::disk(stage.disk), other, &stage.scan())?;
        let length = stage.truth().size.max(other_bytes.len());
        let expected = differences(&stage.truth().bytes, other_bytes, length).first().map(|(_, first)| *first);
        ensure_eq(&found, &expected, "the first difference")
    })
}

fn some_extraction<'p>(stage: &'p Stage<'_>, dice: &mut Dice) -> (Range<u64>, ExtractOptions<'p>) {
    let hash = if dice.one_in(2) { some_algorithms(dice) } else { Vec::new() };
    let sparse = dice.pick(&[Sparse::Zeros, Sparse::Blocks, Sparse::None]);
    let options = ExtractOptions::new().scan(stage.scan()).sparse(sparse).hash(hash);
    (stage.some_range(dice, MOST), options)
}

fn ensure_extracted(
    found: &[u8],
    extracted: &Extracted,
    options: &ExtractOptions<'_>,
    (truth, range): (&Truth, Range<u64>),
) -> Judged {
    ensure_bytes(found, truth, range.start)?;
    ensure_eq(&(wide(found.len())), &(range.end - range.start), "bytes extracted")?;
    ensure_eq(&(extracted.data + extracted.zero), &(range.end - range.start), "all bytes that were counted")?;
    ensure_digests(&extracted.digests, &options.hash, &truth.read(range))
}

fn memory_file() -> File {
    File::from(memfd_create("target", MemfdFlags::CLOEXEC).unwrap())
}

pub(super) fn extract_to_file(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let (range, options) = some_extraction(stage, dice);
    let length = range.end - range.start;
    let file = memory_file();
    file.set_len(length).unwrap();
    let content = dice.pick(&[TargetContent::Zeros, TargetContent::Anything]);
    if content == TargetContent::Anything {
        file.write_all_at(&vec![0xEE; size(length)], 0).unwrap();
    }
    let target = Target::new(&file, content);
    let extracted = ops::extract_to_file(Input::disk(stage.disk).range(range.clone()), &target, &options)?;
    let mut found = vec![0; size(length)];
    file.read_exact_at(&mut found, 0).unwrap();
    ensure_extracted(&found, &extracted, &options, (stage.truth(), range))
}

pub(super) fn extract_to_writer(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let (range, options) = some_extraction(stage, dice);
    let mut out = Sink { stage, bytes: Vec::new() };
    let extracted = ops::extract_to_writer(Input::disk(stage.disk).range(range.clone()), &mut out, &options)?;
    ensure_extracted(&out.bytes, &extracted, &options, (stage.truth(), range))
}

/// To a pipe, or to a file.
pub(super) fn extract_to_stream(stage: &Stage<'_>, dice: &mut Dice) -> Judged {
    let (range, options) = some_extraction(stage, dice);
    let content = Input::disk(stage.disk).range(range.clone());
    if dice.one_in(2) {
        let file = memory_file();
        let extracted = ops::extract_to_stream(content, &file, &options)?;
        let mut found = vec![0; size(file.metadata().unwrap().len())];
        file.read_exact_at(&mut found, 0).unwrap();
        return ensure_extracted(&found, &extracted, &options, (stage.truth(), range));
    }
    let (mut reader, writer) = io::pipe().unwrap();
    let writer = File::from(std::os::fd::OwnedFd::from(writer));
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut found = Vec::new();
            reader.read_to_end(&mut found).map(|_| found)
        });
        let extracted = ops::extract_to_stream(content, &writer, &options);
        drop(writer);
        let found = reading.join().unwrap().unwrap();
        ensure_extracted(&found, &extracted?, &options, (stage.truth(), range))
    })
}
