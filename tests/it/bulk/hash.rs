//! Digests: each by its algorithm over the bytes of the model.

use sha2::Digest as _;
use vhdx_mmap::ops::{self, Algorithm, Digest};
use vhdx_mmap::{Disk, Input as Of, OpenOptions, ScanOptions, Source};

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB, TIB};
use crate::lab::{Rng, open_chain};
use crate::support::{hex, map, temp_dir};

use super::{Case, pool, some_range};

/// Computes a digest over the whole in one piece.
pub(super) fn plain(algorithm: Algorithm, bytes: &[u8]) -> String {
    match algorithm {
        Algorithm::Crc32 => format!("{:08x}", crc32(bytes)),
        Algorithm::Blake3 => blake3::hash(bytes).to_hex().to_string(),
        Algorithm::Sha256 => hex(&sha2::Sha256::digest(bytes)),
        Algorithm::Sha1 => hex(&sha1::Sha1::digest(bytes)),
        _ => {
            assert_eq!(algorithm, Algorithm::Md5);
            hex(&md5::Md5::digest(bytes))
        }
    }
}

/// CRC-32 as in textbooks: a table, and byte by byte.
fn crc32(bytes: &[u8]) -> u32 {
    static TABLE: std::sync::LazyLock<[u32; 256]> = std::sync::LazyLock::new(|| {
        std::array::from_fn(|byte| {
            (0..8).fold(u32::try_from(byte).unwrap(), |sum, _| (sum >> 1) ^ (sum & 1).wrapping_neg() & 0xedb8_8320)
        })
    });
    let step = |sum: u32, byte: &u8| (sum >> 8) ^ TABLE[usize::from(sum.to_le_bytes()[0] ^ byte)];
    !bytes.iter().fold(!0, step)
}

/// Returns some of the algorithms, in any order.
pub(super) fn some_algorithms(rng: &mut Rng) -> Vec<Algorithm> {
    let mut algorithms = Algorithm::ALL.to_vec();
    rng.shuffle(&mut algorithms);
    let count = rng.pick(&[1, 1, 2, 3, 5]);
    algorithms.truncate(count);
    algorithms
}

pub(super) fn texts(digests: &[Digest]) -> Vec<(Algorithm, String)> {
    digests.iter().map(|digest| (digest.algorithm(), digest.to_string())).collect()
}

pub(super) fn agrees(case: &Case, rng: &mut Rng) {
    let range = some_range(&case.disk, rng);
    let bytes = case.content.read(range.clone());
    let algorithms = some_algorithms(rng);
    let expected: Vec<_> = algorithms.iter().map(|algorithm| (*algorithm, plain(*algorithm, &bytes))).collect();
    let content = Of::disk(&case.disk).range(range.clone());
    let found = pool(rng).install(|| ops::hash(content, &algorithms, &ScanOptions::new())).unwrap();
    assert_eq!(texts(&found), expected, "digests of {range:x?}");

    let padding = rng.below(3 << 20);
    let padded = [&bytes[..], &vec![0; usize::try_from(padding).unwrap()], b"footer"].concat();
    let expected: Vec<_> = algorithms.iter().map(|algorithm| (*algorithm, plain(*algorithm, &padded))).collect();
    let content = content.followed_by(padding, b"footer");
    let found = pool(rng).install(|| ops::hash(content, &algorithms, &ScanOptions::new())).unwrap();
    assert_eq!(texts(&found), expected, "digests of {range:x?}, padded");
}

#[test]
fn digests_match_check_values() {
    let source = Source::from_vec(b"123456789".to_vec());
    let found = ops::hash(Of::raw(&source), Algorithm::ALL, &ScanOptions::new()).unwrap();
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "cbf43926",
            "b7d65b48420d1033cb2595293263b6f72eabee20d55e699d0df1973b3c9deed1",
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
            "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
            "25f9e794323b453885f5181f1b624d0b",
        ]
    );
}

#[test]
fn digest_text_round_trips() {
    let source = Source::from_vec(vec![7; 1000]);
    for digest in ops::hash(Of::raw(&source), Algorithm::ALL, &ScanOptions::new()).unwrap() {
        let algorithm = digest.algorithm();
        let text = digest.to_string();
        assert_eq!(Digest::from_hex(algorithm, &text), Some(digest));
        assert_eq!(Digest::from_hex(algorithm, &text.to_uppercase()), Some(digest));
        assert_eq!(Digest::new(algorithm, digest.bytes()), Some(digest));
        for bad in [&text[1..], &format!("{text}0"), &text.replace(&text[..1], "x"), &text.replace(&text[..1], "é"), ""]
        {
            assert_eq!(Digest::from_hex(algorithm, bad), None, "{bad}");
        }
        assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
    }
    assert!("sha512".parse::<Algorithm>().is_err());
}

#[test]
fn crc32_of_64_tib_skips_unallocated_space() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    let last = 64 * TIB / MIB - 1;
    let spec = Spec::empty(64 * TIB).block(1 << 20, Block::full().bytes(b"a"));
    Spec { block_size: 1 << 20, ..spec.block(last, Block::full().bytes(b"z")) }
        .build()
        .bytes
        .write_file(&path)
        .unwrap();
    let disk = Disk::open(map(&path), &OpenOptions::new()).unwrap();
    let found = ops::hash(Of::disk(&disk), &[Algorithm::Crc32], &ScanOptions::new()).unwrap();
    // By x^(8n) modulo the polynomial, in Python.
    assert_eq!(found[0].to_string(), "c70eebf7");
}

#[test]
fn holes_of_image_file_are_not_read() {
    // Blocks of which only the middle was ever written: the rest of each is a hole of the file.
    let spec = (0..8).fold(Spec::empty(8 * MIB), |spec, block| {
        let piece = (300_000, vec![u8::try_from(block + 1).unwrap(); 100_000]);
        spec.block(block, Block::full().fill(crate::kit::Fill::Pieces(vec![piece])))
    });
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    let image = spec.build();
    image.bytes.write_file(&path).unwrap();
    let disk = Disk::open(map(&path), &OpenOptions::new()).unwrap();
    let bytes = crate::lab::Expected::of(&[&image]).read(0..8 * MIB);
    for algorithms in [vec![Algorithm::Crc32], vec![Algorithm::Blake3, Algorithm::Sha256]] {
        let found = ops::hash(Of::disk(&disk), &algorithms, &ScanOptions::new()).unwrap();
        let expected: Vec<_> = algorithms.iter().map(|algorithm| (*algorithm, plain(*algorithm, &bytes))).collect();
        assert_eq!(texts(&found), expected);
    }
}

#[test]
fn empty_disk_has_digest_of_empty_input() {
    let disk = open_chain(&[&Spec::empty(0).build()]).unwrap();
    let found = ops::hash(Of::disk(&disk), Algorithm::ALL, &ScanOptions::new()).unwrap();
    let expected: Vec<_> = Algorithm::ALL.iter().copied().map(|algorithm| (algorithm, plain(algorithm, b""))).collect();
    assert_eq!(texts(&found), expected);
    assert!(ops::hash(Of::disk(&disk), &[], &ScanOptions::new()).unwrap().is_empty());
}
