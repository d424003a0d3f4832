//! Manifests: the digests of the blocks of a disk, as lines of JSON. [`create_manifest`] makes one, or one machine's
//! shard of it; [`merge()`] combines shards, and [`verify()`] compares a disk with a manifest.
//!
//! The first line identifies the disk. It is followed by a line for each block, or for each run of unallocated zero
//! blocks; the last line has the root, a digest of all these digests. The result does not depend on the paths of the
//! files, or on the number of threads or machines.

mod blocks;
mod digests;
mod format;
mod merge;
mod verify;

use std::io::Write;
use std::ops::Range;

use crate::disk::Disk;
use crate::scan::{Input, ScanError, ScanOptions};
use crate::source::Source;
use crate::threads::all_at_once;

use super::hash::{Algorithm, Digest, Part, PartPlan, hash_on_one_thread};
use super::share::Share;

use blocks::{BlockRun, block_runs};
use format::{Header, ManifestWriter};

pub use super::share::{NotAShard, Shard};
pub use crate::scan::ManifestError;
pub use digests::{MAX_ABOUT_LEN, hash_shard, hash_share};
pub use format::{Identity, Root};
pub use merge::{Merged, merge, merge_with};
pub use verify::{Mismatch, Verified, verify};

/// Readers reject a manifest or a shard without digests, or with the same digest twice.
fn check_algorithms(algorithms: &[Algorithm]) -> Result<(), ScanError> {
    let bad = |what: String| Err(ScanError::bad_manifest(None, 0, what));
    if algorithms.is_empty() {
        return bad("no algorithm was requested".to_owned());
    }
    let twice = Algorithm::ALL.iter().find(|one| algorithms.iter().filter(|other| one == other).count() > 1);
    twice.map_or(Ok(()), |twice| bad(format!("{twice} was requested twice")))
}

/// Number of blocks to read that are in progress at once.
const BATCH: usize = 256;

/// Writes the manifest of a disk to `out`, or the shard `shard` of it, and returns its roots, of which a shard has
/// none. With the feature `rayon`, the threads of the current pool do it.
///
/// # Errors
/// See [`ManifestError`].
pub fn create_manifest(
    disk: &Disk,
    algorithms: &[Algorithm],
    shard: Option<Shard>,
    options: &ScanOptions<'_>,
    out: &mut dyn Write,
) -> Result<Vec<Root>, ScanError> {
    let share = shard.map(|shard| Share::of(disk, shard)).transpose()?;
    create_manifest_of(disk, algorithms, share.as_ref(), options, out)
}

/// Writes the manifest of a disk like [`create_manifest`], or of a share of a [plan](crate::ops::plan).
///
/// # Errors
/// [`ScanError::Manifest`] also if the share does not begin and end at blocks of the disk, or at its end. Otherwise
/// see [`ManifestError`].
pub fn create_manifest_of(
    disk: &Disk,
    algorithms: &[Algorithm],
    share: Option<&Share>,
    options: &ScanOptions<'_>,
    out: &mut dyn Write,
) -> Result<Vec<Root>, ScanError> {
    check_algorithms(algorithms)?;
    share.map_or(Ok(()), |share| share.check(disk, disk.block_size()))?;
    let range = share.map_or(0..disk.size(), Share::range);
    let header = Header::of(disk, algorithms, share.copied());
    let mut writer = ManifestWriter::new(out, &header, *options)?;
    let mut zeros = ZeroDigests::new(algorithms);
    let mut batch: Vec<BlockRun> = Vec::with_capacity(BATCH);
    let write_batch = |batch: &mut Vec<BlockRun>, writer: &mut ManifestWriter<'_>| {
        let ranges: Vec<Range<u64>> = batch.iter().map(BlockRun::range).collect();
        let digests = digests_of(disk, algorithms, options, &ranges)?;
        batch.drain(..).zip(digests).try_for_each(|(run, digests)| writer.run(&run, &digests))
    };
    for run in block_runs(disk, range.clone()) {
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
    // The states of blocks were read apart from their content.
    disk.check_tables(range)?;
    writer.finish()
}

/// Computes the digests of blocks, each by itself.
fn digests_of(
    disk: &Disk,
    algorithms: &[Algorithm],
    options: &ScanOptions<'_>,
    blocks: &[Range<u64>],
) -> Result<Vec<Vec<Digest>>, ScanError> {
    let tasks = blocks.iter().map(|block| {
        let block = Input::disk(disk).range(block.clone());
        move || hash_block(block, algorithms, options)
    });
    all_at_once(tasks.collect()).into_iter().collect()
}

/// If all algorithms can, several threads may work on the same block: it may be the only one.
fn hash_block(block: Input<'_>, algorithms: &[Algorithm], options: &ScanOptions<'_>) -> Result<Vec<Digest>, ScanError> {
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

    fn of(&mut self, length: u64) -> Result<Vec<Digest>, ScanError> {
        if let Some((_, digests)) = self.known.iter().find(|(known, _)| *known == length) {
            return Ok(digests.clone());
        }
        let nothing = Source::from_vec(Vec::new());
        let zeros = Input::raw(&nothing).followed_by(length, &[]);
        let digests = hash_block(zeros, &self.algorithms, &ScanOptions::default())?;
        self.known.push((length, digests.clone()));
        Ok(digests)
    }
}
