//! Verification of a disk with a manifest, block by block.

use std::io::{BufRead, Seek};
use std::ops::Range;

use crate::disk::Disk;
use crate::scan::{ScanError, ScanOptions};

use super::format::{Identity, ManifestReader};
use super::{Algorithm, BATCH, Digest, ManifestError, ZeroDigests, digests_of};

/// Block whose digest differs from that in the manifest.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Number of the block in the manifest.
    pub block: u64,
    /// Range of the disk, in bytes.
    pub range: Range<u64>,
    /// Digest of the disk's block.
    pub found: Digest,
    /// Digest in the manifest.
    pub expected: Digest,
}

/// Result of a verification.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Verified {
    /// Identity of the disk from which the manifest was made.
    pub manifest: Identity,
    /// Whether the image has the identity of that disk, in the same state. A conversion of that image has another
    /// identity, but may have the same content.
    pub is_same_image: bool,
    /// The algorithms of the manifest.
    pub algorithms: Vec<Algorithm>,
    /// Range of the disk that the manifest covers, in bytes: all of it, or a shard.
    pub range: Range<u64>,
    /// Number of blocks that were compared.
    pub blocks: u64,
    /// Number of blocks that differ.
    pub mismatches: u64,
}

/// Compares a disk with a manifest, or a range of it with a shard of a manifest, and calls `on_mismatch` for each block
/// that differs, in order. The manifest is read twice: before anything is compared, it is checked.
///
/// # Errors
/// [`ManifestError::Format`] if the manifest is truncated or was changed; [`ManifestError::OtherSize`] if it is of a
/// disk of another size; [`ManifestError::EmptyShard`] if it is a shard without blocks; otherwise see
/// [`ManifestError`].
pub fn verify<R: BufRead + Seek>(
    disk: &Disk,
    mut manifest: R,
    options: &ScanOptions<'_>,
    mut on_mismatch: impl FnMut(Mismatch),
) -> Result<Verified, ScanError> {
    let mut reader = ManifestReader::new(&mut manifest, 0)?;
    let identity = reader.header.identity.clone();
    if identity.virtual_size != disk.size() {
        return Err(ManifestError::OtherSize { manifest: identity.virtual_size, disk: disk.size() }.into());
    }
    while reader.next(options)?.is_some() {}
    let range = reader.header.range();
    if let Some(share) = reader.header.share.filter(|_| range.is_empty() && identity.virtual_size > 0) {
        return Err(ManifestError::EmptyShard { index: share.shard.index(), count: share.shard.count() }.into());
    }
    let lines_sha256 = reader.into_lines_sha256();
    manifest.rewind().map_err(ScanError::manifest_io)?;
    let mut reader = ManifestReader::again(&mut manifest, 0, lines_sha256)?;
    let mut verified = Verified {
        is_same_image: identity == Identity::of(disk),
        manifest: identity,
        algorithms: reader.header.algorithms.clone(),
        range,
        blocks: 0,
        mismatches: 0,
    };
    let mut comparison = Comparison {
        disk,
        options,
        block_size: verified.manifest.block_size,
        zeros: ZeroDigests::new(&verified.algorithms),
        batch: Vec::new(),
        mismatches: 0,
        on_mismatch: &mut on_mismatch,
    };
    while let Some((line, expected)) = reader.next(options)? {
        verified.blocks = verified.blocks.saturating_add(line.count);
        comparison.line(line.offset..line.offset.saturating_add(line.length), &expected)?;
    }
    comparison.compare_batch()?;
    verified.mismatches = comparison.mismatches;
    Ok(verified)
}

/// State of the work.
struct Comparison<'a, 'p> {
    disk: &'a Disk,
    options: &'a ScanOptions<'p>,
    /// Block size of the manifest: the image may have another one.
    block_size: u64,
    zeros: ZeroDigests,
    /// Blocks to read, and their expected digests.
    batch: Vec<(Range<u64>, Vec<Digest>)>,
    mismatches: u64,
    on_mismatch: &'a mut dyn FnMut(Mismatch),
}

impl Comparison<'_, '_> {
    /// Processes a run of blocks, each of which should have these digests.
    fn line(&mut self, range: Range<u64>, expected: &[Digest]) -> Result<(), ScanError> {
        let mut at = range.start;
        for extent in self.disk.extents(range.clone()) {
            let extent = extent?;
            if !extent.is_data() {
                continue;
            }
            let start = extent.start.saturating_sub(extent.start.checked_rem(self.block_size).unwrap_or(0));
            self.zeros(at..start, expected)?;
            at = at.max(start);
            let end = extent.start.saturating_add(extent.len);
            while at < end {
                let block = at..at.saturating_add(self.block_size).min(range.end);
                at = block.end;
                self.batch.push((block, expected.to_vec()));
                if self.batch.len() >= BATCH {
                    self.compare_batch()?;
                }
            }
        }
        self.zeros(at..range.end, expected)
    }

    /// Processes blocks that are zero and not in a file.
    fn zeros(&mut self, range: Range<u64>, expected: &[Digest]) -> Result<(), ScanError> {
        let mut at = range.start;
        while at < range.end {
            let block = at..at.saturating_add(self.block_size).min(range.end);
            let found = self.zeros.of(block.end.saturating_sub(block.start))?;
            if found == expected {
                // The same holds for all blocks of this length.
                let left = range.end.saturating_sub(at);
                let whole = left.saturating_sub(left.checked_rem(self.block_size).unwrap_or(0)).max(self.block_size);
                at = at.saturating_add(whole).min(range.end);
                self.options.advance(whole.min(left))?;
                continue;
            }
            self.compare_batch()?;
            at = block.end;
            self.options.advance(block.end.saturating_sub(block.start))?;
            self.report(block, &found, expected);
        }
        Ok(())
    }

    fn compare_batch(&mut self) -> Result<(), ScanError> {
        let batch = std::mem::take(&mut self.batch);
        let algorithms: Vec<Algorithm> = self.zeros.algorithms().to_vec();
        let ranges: Vec<Range<u64>> = batch.iter().map(|(range, _)| range.clone()).collect();
        let found = digests_of(self.disk, &algorithms, self.options, &ranges)?;
        for ((range, expected), found) in batch.into_iter().zip(found) {
            self.report(range, &found, &expected);
        }
        Ok(())
    }

    /// Reports a block, if its digests differ.
    fn report(&mut self, range: Range<u64>, found: &[Digest], expected: &[Digest]) {
        if let Some((found, expected)) = found.iter().zip(expected).find(|(found, expected)| found != expected) {
            self.mismatches = self.mismatches.saturating_add(1);
            let block = range.start.checked_div(self.block_size).unwrap_or(0);
            (self.on_mismatch)(Mismatch { block, range, found: *found, expected: *expected });
        }
    }
}
