//! Comparing a disk with a manifest, block by block.

use std::io::{BufRead, Seek};
use std::ops::Range;

use crate::disk::Disk;
use crate::scan::{ScanError, ScanOptions};

use super::format::{Identity, ManifestReader};
use super::{Algorithm, BATCH, Digest, ManifestError, ZeroDigests, digests_of};

/// A block that is not as the manifest says.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The number of the block in the manifest.
    pub block: u64,
    /// Where it is in the disk, in bytes.
    pub range: Range<u64>,
    /// The digest of what is there.
    pub found: Digest,
    /// The digest that the manifest has.
    pub expected: Digest,
}

/// What a comparison with a manifest has found.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Verified {
    /// Which disk the manifest was made from.
    pub manifest: Identity,
    /// Whether the image has the identity of that disk, in the same state. An image that has been made from it anew has not,
    /// but may well have the same content.
    pub is_same_image: bool,
    /// By which algorithms.
    pub algorithms: Vec<Algorithm>,
    /// What of the disk the manifest covers, in bytes: all of it, or a share.
    pub range: Range<u64>,
    /// How many blocks were compared.
    pub blocks: u64,
    /// How many of them differ.
    pub mismatches: u64,
}

/// Compares a disk, or the share of it that a share of a manifest covers, with a manifest, and tells `on_mismatch` of each
/// block that differs, in order. The manifest is read twice: before anything is compared, it is made sure that it is whole.
///
/// # Errors
/// [`ManifestError::Format`] if the manifest is cut, changed, or of a disk of another size; [`ManifestError::EmptyShare`] if it is
/// a share without blocks; otherwise see [`ManifestError`].
pub fn verify<R: BufRead + Seek>(
    disk: &Disk,
    mut manifest: R,
    options: &ScanOptions<'_>,
    mut on_mismatch: impl FnMut(Mismatch),
) -> Result<Verified, ScanError> {
    let mut reader = ManifestReader::new(&mut manifest, 0)?;
    let identity = reader.header.identity.clone();
    if identity.virtual_size != disk.size() {
        let what = format!("wrong size of the disk (found {}, expected {})", identity.virtual_size, disk.size());
        return Err(ScanError::bad_manifest(None, 0, what));
    }
    while reader.next(options)?.is_some() {}
    let range = reader.header.range();
    if let Some(share) = reader.header.share.filter(|_| range.is_empty() && identity.virtual_size > 0) {
        return Err(ManifestError::EmptyShare { index: share.shard.index(), count: share.shard.count() }.into());
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

/// The work while it is done.
struct Comparison<'a, 'p> {
    disk: &'a Disk,
    options: &'a ScanOptions<'p>,
    /// Of the manifest: the image may have blocks of another size than the one that it was made from.
    block_size: u64,
    zeros: ZeroDigests,
    /// Blocks that have to be looked at, and what their digests should be.
    batch: Vec<(Range<u64>, Vec<Digest>)>,
    mismatches: u64,
    on_mismatch: &'a mut dyn FnMut(Mismatch),
}

impl Comparison<'_, '_> {
    /// A run of blocks, each of which should have these digests.
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

    /// Blocks that are zero and nowhere.
    fn zeros(&mut self, range: Range<u64>, expected: &[Digest]) -> Result<(), ScanError> {
        let mut at = range.start;
        while at < range.end {
            let block = at..at.saturating_add(self.block_size).min(range.end);
            let found = self.zeros.of(block.end.saturating_sub(block.start))?;
            if found == expected {
                // So are all that are as long.
                let left = range.end.saturating_sub(at);
                let whole = left.saturating_sub(left.checked_rem(self.block_size).unwrap_or(0)).max(self.block_size);
                at = at.saturating_add(whole).min(range.end);
                self.options.advance(whole.min(left))?;
                continue;
            }
            self.compare_batch()?;
            at = block.end;
            self.options.advance(block.end.saturating_sub(block.start))?;
            self.tell(block, &found, expected);
        }
        Ok(())
    }

    fn compare_batch(&mut self) -> Result<(), ScanError> {
        let batch = std::mem::take(&mut self.batch);
        let algorithms: Vec<Algorithm> = self.zeros.algorithms().to_vec();
        let ranges: Vec<Range<u64>> = batch.iter().map(|(range, _)| range.clone()).collect();
        let found = digests_of(self.disk, &algorithms, self.options, &ranges)?;
        for ((range, expected), found) in batch.into_iter().zip(found) {
            self.tell(range, &found, &expected);
        }
        Ok(())
    }

    /// Tells of a block, if it is not as it should be.
    fn tell(&mut self, range: Range<u64>, found: &[Digest], expected: &[Digest]) {
        if let Some((found, expected)) = found.iter().zip(expected).find(|(found, expected)| found != expected) {
            self.mismatches = self.mismatches.saturating_add(1);
            let block = range.start.checked_div(self.block_size).unwrap_or(0);
            (self.on_mismatch)(Mismatch { block, range, found: *found, expected: *expected });
        }
    }
}
