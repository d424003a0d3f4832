//! Limits of numbers that callers pass: the largest ones give the right answer, or an error.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::{Bound, ControlFlow};

use vhdx_mmap::ops::manifest::{self, ManifestError, Shard};
use vhdx_mmap::ops::{self, Algorithm, ExtractOptions, Sparse, Target, TargetContent};
use vhdx_mmap::{Category, Disk, ErrorKind, Input as Of, ScanError, ScanOptions, Source};

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB};
use crate::lab::{Rng, open_chain, size, wide};

use super::POOLS;

fn crc32_of(content: Of<'_>) -> Result<String, ScanError> {
    ops::hash(content, &[Algorithm::Crc32], &ScanOptions::new()).map(|digests| digests[0].to_string())
}

#[test]
fn crc32_is_correct_for_every_padding() {
    let source = Source::from_vec(b"abc".to_vec());
    let content = Of::raw(&source);
    // By x^(8n) modulo the polynomial, in Python.
    for (padding, expected) in [
        (1 << 48, "3e0da476"),
        ((1 << 50) - 512, "50ca8520"),
        (1 << 63, "461330df"),
        // With this one, the input has 2^64 - 1 bytes.
        (u64::MAX - 9, "5390c691"),
    ] {
        let padded = content.followed_by(padding, b"footer");
        assert_eq!(padded.len(), padding + 9);
        for pool in &*POOLS {
            assert_eq!(pool.install(|| crc32_of(padded)).unwrap(), expected, "{padding} zeros");
        }
    }
    let padded = content.followed_by(1 << 50, b"footer");
    assert_eq!(crc32_of(padded.range(1..1 << 49)).unwrap(), "08045bab");
    assert_eq!(crc32_of(padded.range(1 << 49..)).unwrap(), "1cb68266");
    let nothing = Source::from_vec(Vec::new());
    assert_eq!(crc32_of(Of::raw(&nothing).followed_by(u64::MAX, &[])).unwrap(), "00000000");
}

#[test]
fn input_longer_than_u64_is_an_error() {
    let disk = open_chain(&[&Spec::default().build()]).unwrap();
    let source = Source::from_vec(b"abc".to_vec());
    let too_long = |error: ScanError| match error {
        ScanError::Read(error) => {
            assert_eq!(error.category(), Category::InvalidInput);
            let ErrorKind::ContentTooLong { found } = error.kind() else { panic!("{error:?}") };
            *found
        }
        other => panic!("{other:?}"),
    };
    let of_extract = |error| match error {
        ScanError::Read(error) => too_long(ScanError::Read(error)),
        other => panic!("{other:?}"),
    };
    let short = Of::raw(&source);
    for content in [Of::raw(&source), Of::disk(&disk), Of::disk(&disk).range(..3)] {
        let length = u128::from(content.len());
        for (padding, tail) in [(u64::MAX, &b"footer"[..]), (u64::MAX, b""), (u64::MAX - 3, b"x")] {
            let content = content.followed_by(padding, tail);
            let expected = length + u128::from(padding) + u128::from(wide(tail.len()));
            assert_eq!(content.len(), u64::MAX);
            let options = ScanOptions::new();
            for algorithms in [&[Algorithm::Crc32][..], &[Algorithm::Blake3], &[Algorithm::Md5]] {
                assert_eq!(too_long(ops::hash(content, algorithms, &options).unwrap_err()), expected);
            }
            assert_eq!(too_long(content.scan(&options, |_, _| (), |_, _| ()).unwrap_err()), expected);
            assert_eq!(too_long(ops::first_difference(short, content, &options).unwrap_err()), expected);
            let compared = ops::compare(content, short, &options, |_| ControlFlow::Continue(()));
            assert_eq!(too_long(compared.unwrap_err()), expected);
            let (file, options) = (tempfile::tempfile().unwrap(), ExtractOptions::new());
            let target = Target::new(&file, TargetContent::Zeros);
            assert_eq!(of_extract(ops::extract_to_file(content, &target, &options).unwrap_err()), expected);
            assert_eq!(of_extract(ops::extract_to_stream(content, &file, &options).unwrap_err()), expected);
            let null = File::options().write(true).open("/dev/null").unwrap();
            assert_eq!(of_extract(ops::extract_to_stream(content, &null, &options).unwrap_err()), expected);
            let mut out = Vec::new();
            assert_eq!(of_extract(ops::extract_to_writer(content, &mut out, &options).unwrap_err()), expected);
            assert!(out.is_empty() && file.metadata().unwrap().len() == 0, "something was written");
            // A range of it may be short enough.
            assert_eq!(crc32_of(content.range(..0)).unwrap(), "00000000");
        }
    }
}

#[test]
fn inputs_of_any_length_are_compared() {
    let source = Source::from_vec(b"abc".to_vec());
    let content = Of::raw(&source);
    for padding in [1 << 48, 1 << 60, u64::MAX - 4] {
        let longer = content.followed_by(padding, b"x");
        let first = ops::first_difference(content, longer, &ScanOptions::new()).unwrap();
        assert_eq!(first, Some(padding + 3));
        let mut found = Vec::new();
        ops::compare(longer, content, &ScanOptions::new(), |difference| {
            found.push((difference.range.clone(), difference.first));
            ControlFlow::Continue(())
        })
        .unwrap();
        let at = padding + 3;
        assert_eq!(found, [(at & !511..at + 1, at)]);
        let mut units = Vec::new();
        longer.scan(&ScanOptions::new(), |at, _| at, |range, at| units.push((range, at))).unwrap();
        assert_eq!(units.last().unwrap().0.end, longer.len());
    }
}

#[test]
fn target_without_enough_offsets_is_rejected() {
    let disk = open_chain(&[&Spec::default().build()]).unwrap();
    let (bytes, zeros) = (Source::from_vec(vec![7; 5000]), Source::from_vec(Vec::new()));
    let last = u64::try_from(i64::MAX).unwrap();
    let contents = [Of::disk(&disk), Of::raw(&bytes), Of::raw(&zeros).followed_by(5000, &[]), Of::raw(&zeros)];
    for content in contents {
        let length = content.len();
        for offset in [u64::MAX, u64::MAX - 5, u64::MAX - 4096, 1 << 63, last - length + 1] {
            for before in [TargetContent::Zeros, TargetContent::Anything] {
                for sparse in [Sparse::None, Sparse::Blocks, Sparse::Zeros] {
                    for algorithms in [vec![], vec![Algorithm::Crc32], vec![Algorithm::Md5]] {
                        let file = tempfile::tempfile().unwrap();
                        let options = ExtractOptions::new().sparse(sparse).hash(algorithms);
                        let target = Target::new(&file, before).at(offset);
                        let error = ops::extract_to_file(content, &target, &options).unwrap_err();
                        let ScanError::Write(error) = error else { panic!("{error:?}") };
                        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
                        assert_eq!(file.metadata().unwrap().len(), 0);
                    }
                }
            }
        }
    }
    // Existing zeros need no offset that the file system can write to.
    let file = tempfile::tempfile().unwrap();
    let target = Target::new(&file, TargetContent::Zeros).at(last - 5000);
    ops::extract_to_file(Of::raw(&zeros).followed_by(5000, &[]), &target, &ExtractOptions::new()).unwrap();
}

/// Model of an input: every byte, with its position.
#[derive(Clone)]
struct Model {
    /// Position of the first byte.
    place: u128,
    /// Bytes of the disk or file.
    own: Vec<u8>,
    /// Bytes that follow them.
    more: Vec<u8>,
}

impl Model {
    fn range(&self, range: (Bound<u64>, Bound<u64>)) -> Self {
        let is_inside = |place: u128| {
            let from = match range.0 {
                Bound::Included(start) => place >= start.into(),
                Bound::Excluded(before) => place > before.into(),
                Bound::Unbounded => true,
            };
            let to = match range.1 {
                Bound::Included(last) => place <= last.into(),
                Bound::Excluded(end) => place < end.into(),
                Bound::Unbounded => true,
            };
            from && to
        };
        let kept = |place: u128, bytes: &[u8]| -> Vec<u8> {
            (place..).zip(bytes).filter(|(place, _)| is_inside(*place)).map(|(_, byte)| *byte).collect()
        };
        let more_at = self.place + u128::from(wide(self.own.len()));
        let end = more_at + u128::from(wide(self.more.len()));
        Self {
            place: (self.place..end).find(|place| is_inside(*place)).unwrap_or(self.place),
            own: kept(self.place, &self.own),
            more: kept(more_at, &self.more),
        }
    }
}

fn some_bound(rng: &mut Rng, around: u64, length: u64) -> Bound<u64> {
    let near = around.saturating_add(rng.below(length + 3));
    let place = rng.pick(&[near, near, near, near.saturating_sub(3), 0, u64::MAX, u64::MAX - 1]);
    rng.pick(&[Bound::Included(place), Bound::Excluded(place), Bound::Unbounded])
}

/// Applies random ranges and tails, and compares the result with the model.
fn ranges(content: Of<'_>, own: Vec<u8>, rng: &mut Rng) {
    let (mut content, mut model) = (content, Model { place: 0, own, more: Vec::new() });
    for _ in 0..rng.below(6) {
        if rng.one_in(3) {
            let padding = rng.pick(&[0, 1, 7, 600]);
            let tail = rng.pick(&[&b""[..], b"t", b"footer"]);
            content = content.followed_by(padding, tail);
            model.more = [&vec![0; size(padding)][..], tail].concat();
        } else {
            let around = rng.pick(&[content.start(), content.start() + wide(model.own.len())]).saturating_sub(2);
            let length = wide(model.own.len().min(20) + model.more.len());
            let range = (some_bound(rng, around, length), some_bound(rng, around, length));
            content = content.range(range);
            model = model.range(range);
        }
        let expected = [&model.own[..], &model.more].concat();
        assert_eq!(content.len(), wide(expected.len()));
        if !expected.is_empty() {
            assert_eq!(u128::from(content.start()), model.place);
        }
        let mut found = Vec::new();
        ops::extract_to_writer(content, &mut found, &ExtractOptions::new()).unwrap();
        assert!(found == expected, "{found:?} is not {expected:?}");
        if expected.is_empty() {
            // An empty input has no first byte, so the model has no position for it.
            return;
        }
    }
}

#[test]
fn range_restricts_padding_and_tail() {
    let image = Spec::empty(MIB).block(0, Block::full()).build();
    let disk = open_chain(&[&image]).unwrap();
    let bytes = crate::lab::Expected::of(&[&image]).read(0..MIB);
    let mut rng = Rng::new(9);
    for length in (0..40).cycle().take(4000) {
        let own: Vec<u8> = (1..=length).collect();
        ranges(Of::raw(&Source::from_vec(own.clone())), own, &mut rng);
    }
    for _ in 0..100 {
        ranges(Of::disk(&disk), bytes.clone(), &mut rng);
    }
    // The documented cases.
    let source = Source::from_vec(b"0123456789".to_vec());
    let content = Of::raw(&source).range(2..8).followed_by(3, b"end");
    let text = |content: Of<'_>| {
        let mut out = Vec::new();
        ops::extract_to_writer(content, &mut out, &ExtractOptions::new()).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(text(content.range(..)), "234567\0\0\0end");
    assert_eq!(text(content.range(4..9)), "4567\0");
    assert_eq!(text(content.range(..8)), "234567");
    assert_eq!(text(content.range(10..)), "\0end");
    assert_eq!(text(content.range(12..=12)), "n");
    assert_eq!(text(content.range(4..9).range(0..6)), "45");
    assert_eq!(text(Of::raw(&source).range(2..4).range(..)), "23");
}

/// Accepts all writes, and fails to flush.
struct FlushFails(Vec<u8>);

impl Write for FlushFails {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::Error::other("flushed"))
    }
}

/// A function that writes to the given writer.
type Work<'a> = &'a (dyn Fn(&mut (dyn Write + Send)) -> Result<(), io::Error> + Sync);

fn io_error(error: ScanError) -> io::Error {
    match error {
        ScanError::Manifest(ManifestError::Io(error)) => error,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn writers_are_flushed() {
    let disk: Disk = open_chain(&[&Spec::default().build()]).unwrap();
    let options = ScanOptions::new();
    let shard = Shard::new(1, 1).unwrap();
    let manifest = |out: &mut dyn Write| {
        manifest::create_manifest(&disk, &[Algorithm::Crc32], Some(shard), &options, out).map(drop)
    };
    let mut share = Vec::new();
    manifest(&mut share).unwrap();
    let extract = |algorithms: Vec<Algorithm>, out: &mut (dyn Write + Send)| {
        let written = ops::extract_to_writer(Of::disk(&disk), out, &ExtractOptions::new().hash(algorithms));
        written.map(drop).map_err(|error| {
            let ScanError::Write(error) = error else { panic!("{error:?}") };
            error
        })
    };
    let works: [(&str, Work<'_>); 5] = [
        ("extract_to_writer", &|out| extract(Vec::new(), out)),
        ("extract_to_writer with digests", &|out| extract(Algorithm::ALL.to_vec(), out)),
        ("create_manifest", &|out| manifest(out).map_err(io_error)),
        ("hash_shard", &|out| {
            let about = serde_json::Value::Null;
            manifest::hash_shard(&disk, &[Algorithm::Crc32], shard, about, &options, out).map_err(io_error)
        }),
        ("merge", &|out| manifest::merge(vec![&share[..]], out).map(drop).map_err(io_error)),
    ];
    for (name, work) in works {
        for pool in &*POOLS {
            pool.install(|| {
                let mut plain = Vec::new();
                work(&mut plain).unwrap();
                assert!(!plain.is_empty());
                let mut buffered = BufWriter::with_capacity(1 << 24, Vec::new());
                work(&mut buffered).unwrap();
                assert!(buffered.get_ref() == &plain, "{name} leaves bytes in the buffer");
                assert_eq!(work(&mut FlushFails(Vec::new())).unwrap_err().to_string(), "flushed", "{name}");
            });
        }
    }
}
