//! Manifests: the digests of the blocks of a disk, as lines of JSON, and what can be done with them. [`create_manifest`] makes
//! one, or the share of it that one of several machines does; [`merge()`] puts shares together, and [`verify()`] compares a disk
//! with one.
//!
//! The first line says which disk it is. A line for each block follows, or for each run of blocks that are all zero and
//! nowhere; the last line has the digest of all these digests. Nothing in it depends on where the files of the disk are, or
//! on how many threads or machines did the work.

mod blocks;
mod format;
mod merge;
mod shard;
mod verify;

use std::fmt;
use std::io::{self, Write};
use std::ops::Range;

use crate::disk::Disk;
use crate::error::Error;
use crate::scan::{Content, ScanOptions, Stopped};
use crate::source::Source;
use crate::threads::all_at_once;

use super::hash::{Algorithm, Digest, Part, hash_on_one_thread};

use blocks::{BlockRun, block_runs};
use format::{Header, ManifestWriter};

pub use format::{Identity, Root};
pub use merge::{Merged, merge, merge_with};
pub use shard::{MAX_ABOUT_LENGTH, Shard, hash_share};
pub use verify::{Mismatch, Verified, verify};

/// Why work with manifests ended before its end.
#[non_exhaustive]
#[derive(Debug)]
pub enum ManifestError {
    /// The disk can't be read.
    Read(Error),
    /// [`Progress::advance`](crate::Progress::advance) asked for it.
    Cancelled,
    /// The manifest can't be read or written.
    Io(io::Error),
    /// The manifest, or one of several, is not what it should be.
    Format {
        /// The number of the line, from 1; none if it is about the whole.
        line: Option<u64>,
        /// Which of several it is, from 0.
        document: usize,
        /// What is wrong.
        what: String,
    },
    /// The manifest is a share that covers no blocks, as there are where a disk has fewer blocks than there are shares: a
    /// comparison with it would say nothing of the disk.
    EmptyShare {
        /// Which share it is.
        shard: Shard,
    },
    /// What [`hash_share`] is to hand through to [`merge()`] is too long.
    AboutTooLong {
        /// Its length as JSON, in bytes.
        length: u64,
        /// The longest that is handed through, in bytes.
        limit: u64,
    },
    /// What [`hash_share`] is to hand through to [`merge()`] is nested more deeply than readers of JSON accept.
    AboutTooDeep,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Io(error) => error.fmt(f),
            Self::Format { line: Some(line), what, .. } => write!(f, "line {line}: {what}"),
            Self::Format { line: None, what, .. } => f.write_str(what),
            Self::EmptyShare { shard } => write!(f, "share {shard} covers no blocks: nothing can be verified with it"),
            Self::AboutTooLong { length, limit } => {
                write!(f, "`about` is too long for a share (found {length} bytes, expected at most {limit})")
            }
            Self::AboutTooDeep => f.write_str("`about` is nested too deeply for a share"),
        }
    }
}

impl std::error::Error for ManifestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Stopped> for ManifestError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Read(error) => Self::Read(error),
            Stopped::Cancelled => Self::Cancelled,
        }
    }
}

impl From<Error> for ManifestError {
    fn from(error: Error) -> Self {
        Self::Read(error)
    }
}

impl From<io::Error> for ManifestError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Readers refuse a manifest or a share without digests, and one that has a digest twice.
fn check_algorithms(algorithms: &[Algorithm]) -> Result<(), ManifestError> {
    let bad = |what: String| Err(ManifestError::Format { line: None, document: 0, what });
    if algorithms.is_empty() {
        return bad("no algorithm is asked for".to_owned());
    }
    let twice = Algorithm::ALL.iter().find(|one| algorithms.iter().filter(|other| one == other).count() > 1);
    twice.map_or(Ok(()), |twice| bad(format!("{twice} is asked for twice")))
}

/// How many blocks that have to be looked at are in hand at once.
const BATCH: usize = 256;

/// Writes the manifest of a disk to `out`, or the share `shard` of it, and returns the digests of digests; of a share, there
/// are none. With the feature `rayon`, the threads of the current pool do it.
///
/// # Errors
/// See [`ManifestError`].
pub fn create_manifest(
    disk: &Disk,
    algorithms: &[Algorithm],
    shard: Option<Shard>,
    options: &ScanOptions<'_>,
    out: &mut dyn Write,
) -> Result<Vec<Root>, ManifestError> {
    check_algorithms(algorithms)?;
    let range = shard.map_or(Ok(0..disk.size()), |shard| shard.range_of(disk, disk.block_size(), false))?;
    let header = Header::of(disk, algorithms, shard, range.clone());
    let mut writer = ManifestWriter::new(out, &header, *options)?;
    let mut zeros = ZeroDigests::new(algorithms);
    let mut batch: Vec<BlockRun> = Vec::with_capacity(BATCH);
    let write_batch = |batch: &mut Vec<BlockRun>, writer: &mut ManifestWriter<'_>| {
        let ranges: Vec<Range<u64>> = batch.iter().map(BlockRun::range).collect();
        let digests = digests_of(disk, algorithms, options, &ranges)?;
        batch.drain(..).zip(digests).try_for_each(|(run, digests)| writer.run(&run, &digests))
    };
    for run in block_runs(disk, range) {
        let run = run?;
        if run.is_zero {
            write_batch(&mut batch, &mut writer)?;
            options.advance(run.length)?;
            writer.run(&run, &zeros.of(run.length_of_each())?)?;
        } else {
            batch.push(run);
            if batch.len() >= BATCH {
                write_batch(&mut batch, &mut writer)?;
            }
        }
    }
    write_batch(&mut batch, &mut writer)?;
    // The states of blocks were looked at apart from their content.
    disk.check_tables()?;
    writer.finish()
}

/// The digests of blocks, each by itself.
fn digests_of(
    disk: &Disk,
    algorithms: &[Algorithm],
    options: &ScanOptions<'_>,
    blocks: &[Range<u64>],
) -> Result<Vec<Vec<Digest>>, Stopped> {
    let tasks = blocks.iter().map(|block| {
        let block = Content::disk(disk).range(block.clone());
        move || hash_block(block, algorithms, options)
    });
    all_at_once(tasks.collect()).into_iter().collect()
}

/// Where all algorithms can, several threads may work on the same block: it may be the only one that there is.
fn hash_block(block: Content<'_>, algorithms: &[Algorithm], options: &ScanOptions<'_>) -> Result<Vec<Digest>, Stopped> {
    if algorithms.iter().all(|algorithm| algorithm.is_mergeable()) {
        super::hash::hash(block, algorithms, options)
    } else {
        hash_on_one_thread(block, algorithms, options)
    }
}

/// The digests of blocks of zeros, which have few lengths.
struct ZeroDigests {
    algorithms: Vec<Algorithm>,
    known: Vec<(u64, Vec<Digest>)>,
}

impl ZeroDigests {
    fn new(algorithms: &[Algorithm]) -> Self {
        Self { algorithms: algorithms.to_vec(), known: Vec::new() }
    }

    fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    fn of(&mut self, length: u64) -> Result<Vec<Digest>, Stopped> {
        if let Some((_, digests)) = self.known.iter().find(|(known, _)| *known == length) {
            return Ok(digests.clone());
        }
        let nothing = Source::from_vec(Vec::new());
        let zeros = Content::raw(&nothing).followed_by(length, &[]);
        let digests = hash_block(zeros, &self.algorithms, &ScanOptions::default())?;
        self.known.push((length, digests.clone()));
        Ok(digests)
    }
}
