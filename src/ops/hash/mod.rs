//! Digests of inputs: of a disk as a guest sees it, or of the bytes of a file.
//!
//! CRC-32 and BLAKE3 are combined from parts, so every core works on its own. SHA-256, SHA-1 and MD5 have to process
//! the input from its beginning to its end, each on one core: several of them at once, over the same bytes in memory.

mod blake3_tree;
mod part;
mod stream;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zerocopy::big_endian::U32;

use crate::checksum::Crc32;
use crate::scan::{Access, Bulk, Consumer, Done, Input, ScanError, ScanOptions, UnitBytes};
use crate::source::Buffer;

pub(crate) use part::{Part, PartPlan, StoredPart};
pub(crate) use stream::Running;
pub(crate) use stream::Stream;
#[cfg(test)]
pub(crate) use stream::work;

/// Digest algorithm.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Algorithm {
    /// CRC-32 as in zlib, gzip and zip: detects accidental changes, not intended ones.
    Crc32,
    /// BLAKE3, 256 bits.
    Blake3,
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-1 (FIPS 180-4). Broken: for comparison with old records.
    Sha1,
    /// MD5 (RFC 1321). Broken: for comparison with old records.
    Md5,
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: &'static [Self] = &[Self::Crc32, Self::Blake3, Self::Sha256, Self::Sha1, Self::Md5];

    /// Returns the name in lower case: `crc32`, `blake3`, `sha256`, `sha1`, `md5`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crc32 => "crc32",
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
            Self::Sha1 => "sha1",
            Self::Md5 => "md5",
        }
    }

    /// Returns the length of a digest, in bytes.
    #[must_use]
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Crc32 => 4,
            Self::Blake3 | Self::Sha256 => 32,
            Self::Sha1 => 20,
            Self::Md5 => 16,
        }
    }

    /// Returns whether a digest can be combined from those of parts, computed by different threads or on different
    /// machines.
    #[must_use]
    pub const fn is_mergeable(self) -> bool {
        matches!(self, Self::Crc32 | Self::Blake3)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    /// Parses a name. Case does not matter.
    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .iter()
            .copied()
            .find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(text))
            .ok_or(UnknownAlgorithm)
    }
}

/// Error: there is no algorithm with this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm;

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not one of crc32, blake3, sha256, sha1 and md5")
    }
}

impl std::error::Error for UnknownAlgorithm {}

/// Digest. Its text is lower-case hexadecimal; that of a CRC-32 is the number, as all tools write it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; 32],
}

impl Digest {
    /// Makes a digest of these bytes. Returns `None` unless their number is [`Algorithm::digest_len`].
    #[must_use]
    pub fn new(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != algorithm.digest_len() {
            return None;
        }
        let mut all = [0; 32];
        all.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Some(Self { algorithm, bytes: all })
    }

    pub(crate) fn of_crc32(sum: &Crc32) -> Option<Self> {
        Self::new(Algorithm::Crc32, &U32::new(sum.value()).to_bytes())
    }

    /// Parses a digest in hexadecimal, upper or lower case. Returns `None` if the text is invalid.
    #[must_use]
    pub fn from_hex(algorithm: Algorithm, text: &str) -> Option<Self> {
        let nibbles: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
        let pairs = nibbles.chunks_exact(2);
        let bytes: Vec<u8> =
            pairs.map_while(|pair| u8::try_from(pair.iter().fold(0, |n, d| n << 4 | d)).ok()).collect();
        Self::new(algorithm, &bytes).filter(|_| text.len() == algorithm.digest_len() << 1)
    }

    /// Returns the algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the bytes; for a CRC-32, the most significant one first.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.algorithm.digest_len()).unwrap_or(&self.bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.algorithm)
    }
}

/// Computes digests of an input in one pass, in the order of `algorithms`. With the feature `rayon`, the threads of the
/// current pool do it.
///
/// The cost of unallocated space depends on the algorithm: almost none for CRC-32, as much as data for the others.
///
/// # Errors
/// See [`ScanError`].
pub fn hash(input: Input<'_>, algorithms: &[Algorithm], options: &ScanOptions<'_>) -> Result<Vec<Digest>, ScanError> {
    if algorithms.is_empty() {
        return Ok(Vec::new());
    }
    if algorithms.iter().all(|algorithm| algorithm.is_mergeable()) {
        let mut hasher = Hasher::new(algorithms, input.len());
        let length = input.checked_length()?;
        hasher.part = hasher.plan.compute(input, 0..length, options)?;
        return Ok(hasher.finish());
    }
    hash_in_order(input, algorithms, options, false)
}

/// Computes digests on the calling thread alone, for callers that have other work for the other threads.
pub(crate) fn hash_on_one_thread(
    input: Input<'_>,
    algorithms: &[Algorithm],
    options: &ScanOptions<'_>,
) -> Result<Vec<Digest>, ScanError> {
    hash_in_order(input, algorithms, options, true)
}

fn hash_in_order(
    input: Input<'_>,
    algorithms: &[Algorithm],
    options: &ScanOptions<'_>,
    alone: bool,
) -> Result<Vec<Digest>, ScanError> {
    let mut hasher = Hasher::new(algorithms, input.len());
    let Hasher { streams, plan, part, .. } = &mut hasher;
    let plan = *plan;
    let map = |unit: &UnitBytes<'_>, _: &mut Buffer| Ok::<_, ScanError>(plan.of_unit(unit.start, unit.segments()));
    let take = |done: Done<Part>| {
        done.value.into_iter().for_each(|unit| part.append(unit));
        options.advance(done.length)
    };
    // Read, not borrowed: the thread that reads runs ahead, and the one that computes never waits for a page.
    let bulk = Bulk { inputs: [input], access: Access::Read, visit_zeros: true, options: *options };
    if alone {
        bulk.on_one_thread(map, consumers(streams), take)?;
    } else {
        bulk.in_order(map, consumers(streams), take)?;
    }
    Ok(hasher.finish())
}

/// Returns a consumer of an input in order for each digest that needs it.
pub(crate) fn consumers<'c, E: Send + 'c>(streams: &'c mut [Stream]) -> Vec<Consumer<'c, E>> {
    let consumer = |stream: &'c mut Stream| -> Consumer<'c, E> {
        Box::new(|unit| {
            unit.segments().for_each(|segment| stream.update(segment));
            Ok(())
        })
    };
    streams.iter_mut().map(consumer).collect()
}

/// Digests in the making.
pub(crate) struct Hasher {
    algorithms: Vec<Algorithm>,
    /// Those of the algorithms that need the input in order.
    pub(crate) streams: Vec<Stream>,
    /// The plan for all other algorithms.
    pub(crate) plan: PartPlan,
    pub(crate) part: Part,
}

impl Hasher {
    /// Makes digests of an input of `length` bytes. An algorithm that occurs twice is computed once.
    pub(crate) fn new(algorithms: &[Algorithm], length: u64) -> Self {
        let once: BTreeSet<Algorithm> = algorithms.iter().copied().collect();
        let streams = once.into_iter().filter_map(Stream::new).collect();
        let plan = PartPlan::new(length, algorithms);
        Self { algorithms: algorithms.to_vec(), streams, plan, part: plan.empty(0) }
    }

    /// Returns whether some algorithm needs the input in order.
    pub(crate) fn is_in_order(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Returns the digests, in the order in which the algorithms were given.
    pub(crate) fn finish(self) -> Vec<Digest> {
        let mut digests = self.part.digests();
        digests.extend(self.streams.into_iter().filter_map(Stream::finish));
        let of = |algorithm: &Algorithm| digests.iter().find(|digest| digest.algorithm == *algorithm).copied();
        self.algorithms.iter().filter_map(of).collect()
    }
}
