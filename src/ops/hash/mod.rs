//! Digests of content: of what a guest sees of a disk, or of the bytes of a file.
//!
//! CRC-32 and BLAKE3 are put together from parts, so every core works on its own. SHA-256, SHA-1 and MD5 can only go through
//! the content from its beginning to its end, each on one core: several of them at once, over the same bytes in memory.

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

/// The algorithms of digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Algorithm {
    /// CRC-32 as in zlib, gzip and zip: against accidents, not against intent.
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
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Crc32, Self::Blake3, Self::Sha256, Self::Sha1, Self::Md5];

    /// The name in lower case: `crc32`, `blake3`, `sha256`, `sha1`, `md5`.
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

    /// Length of a digest, in bytes.
    #[must_use]
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Crc32 => 4,
            Self::Blake3 | Self::Sha256 => 32,
            Self::Sha1 => 20,
            Self::Md5 => 16,
        }
    }

    /// Whether a digest can be put together from those of parts, computed by different threads or on different machines.
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

    /// Upper and lower case do not matter.
    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(text)).ok_or(UnknownAlgorithm)
    }
}

/// There is no algorithm of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm;

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not one of crc32, blake3, sha256, sha1 and md5")
    }
}

impl std::error::Error for UnknownAlgorithm {}

/// A digest. Its text is lower-case hexadecimal; that of a CRC-32 is the number, as all tools write it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; 32],
}

impl Digest {
    /// A digest of these bytes, if they are as many as the algorithm has.
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

    /// A digest in hexadecimal, upper or lower case, if the text is one.
    #[must_use]
    pub fn from_hex(algorithm: Algorithm, text: &str) -> Option<Self> {
        let nibbles: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
        let pairs = nibbles.chunks_exact(2);
        let bytes: Vec<u8> =
            pairs.map_while(|pair| u8::try_from(pair.iter().fold(0, |n, d| n << 4 | d)).ok()).collect();
        Self::new(algorithm, &bytes).filter(|_| text.len() == algorithm.digest_len() << 1)
    }

    /// By which algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The bytes; those of a CRC-32 with the most significant one first.
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

/// Digests of a content, in one pass, in the order of `algorithms`. With the feature `rayon`, the threads of the current pool
/// do it.
///
/// What zeros cost that are nowhere depends on the algorithm: next to nothing for CRC-32, as much as data for the others.
///
/// # Errors
/// See [`ScanError`].
pub fn hash(content: Input<'_>, algorithms: &[Algorithm], options: &ScanOptions<'_>) -> Result<Vec<Digest>, ScanError> {
    if algorithms.is_empty() {
        return Ok(Vec::new());
    }
    if algorithms.iter().all(|algorithm| algorithm.is_mergeable()) {
        let mut hasher = Hasher::new(algorithms, content.len());
        let length = content.checked_length()?;
        hasher.part = hasher.plan.compute(content, 0..length, options)?;
        return Ok(hasher.finish());
    }
    hash_in_order(content, algorithms, options, false)
}

/// The same on the thread that calls it alone: for whoever has other work for the others.
pub(crate) fn hash_on_one_thread(
    content: Input<'_>,
    algorithms: &[Algorithm],
    options: &ScanOptions<'_>,
) -> Result<Vec<Digest>, ScanError> {
    hash_in_order(content, algorithms, options, true)
}

fn hash_in_order(
    content: Input<'_>,
    algorithms: &[Algorithm],
    options: &ScanOptions<'_>,
    alone: bool,
) -> Result<Vec<Digest>, ScanError> {
    let mut hasher = Hasher::new(algorithms, content.len());
    let Hasher { streams, plan, part, .. } = &mut hasher;
    let plan = *plan;
    let map = |unit: &UnitBytes<'_>, _: &mut Buffer| Ok::<_, ScanError>(plan.of_unit(unit.start, unit.segments()));
    let take = |done: Done<Part>| {
        done.value.into_iter().for_each(|unit| part.append(unit));
        options.advance(done.length)
    };
    // Read, not lent: the thread that does so runs ahead, and the one that computes never waits for a page.
    let bulk = Bulk { contents: [content], access: Access::Read, visit_zeros: true, options: *options };
    if alone {
        bulk.on_one_thread(map, consumers(streams), take)?;
    } else {
        bulk.in_order(map, consumers(streams), take)?;
    }
    Ok(hasher.finish())
}

/// What goes through a content in order for each digest that needs it.
pub(crate) fn consumers<'c, E: Send + 'c>(streams: &'c mut [Stream]) -> Vec<Consumer<'c, E>> {
    let consumer = |stream: &'c mut Stream| -> Consumer<'c, E> {
        Box::new(|unit| {
            unit.segments().for_each(|segment| stream.update(segment));
            Ok(())
        })
    };
    streams.iter_mut().map(consumer).collect()
}

/// Digests that are being computed.
pub(crate) struct Hasher {
    algorithms: Vec<Algorithm>,
    /// Of the algorithms that need the content in order.
    pub(crate) streams: Vec<Stream>,
    /// Of all others: which they are, and what is known of them.
    pub(crate) plan: PartPlan,
    pub(crate) part: Part,
}

impl Hasher {
    /// Of a content of `length` bytes. An algorithm that is there twice is computed once.
    pub(crate) fn new(algorithms: &[Algorithm], length: u64) -> Self {
        let once: BTreeSet<Algorithm> = algorithms.iter().copied().collect();
        let streams = once.into_iter().filter_map(Stream::new).collect();
        let plan = PartPlan::new(length, algorithms);
        Self { algorithms: algorithms.to_vec(), streams, plan, part: plan.empty(0) }
    }

    /// Whether some algorithm needs the content in order.
    pub(crate) fn is_in_order(&self) -> bool {
        !self.streams.is_empty()
    }

    /// The digests, in the order in which the algorithms were given.
    pub(crate) fn finish(self) -> Vec<Digest> {
        let mut digests = self.part.digests();
        digests.extend(self.streams.into_iter().filter_map(Stream::finish));
        let of = |algorithm: &Algorithm| digests.iter().find(|digest| digest.algorithm == *algorithm).copied();
        self.algorithms.iter().filter_map(of).collect()
    }
}
