//! Check of the content of all blocks: unreadable bytes, and blocks that hold only zeros.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::check::Findings;
use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Rule, Severity, Structure};
use crate::format::PayloadBlockState;
use crate::ops::share::Share;
use crate::scan::{Input, ScanError, ScanOptions};
use crate::zero::is_zero;

/// What the content of a share of a disk adds to a check.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadCheck {
    /// The share whose content was read.
    pub share: Share,
    /// Size of the disk, in bytes.
    pub disk_size: u64,
    /// State of the files: [`state_of`](crate::ops::plan::state_of).
    pub state: String,
    /// Place in [`CheckReport::findings`](super::CheckReport::findings) of the first finding about the content.
    pub first_finding: usize,
    /// Number of findings of each kind about the content.
    pub counts: BTreeMap<(Rule, Severity), u64>,
    /// Number of allocated blocks in the share that hold only zeros.
    pub zero_blocks: u64,
    /// Block size of the image, in bytes.
    pub block_size: u64,
}

/// Returns the finding that this number of blocks hold only zeros.
pub(crate) fn zero_blocks(count: u64, block_size: u64) -> Error {
    let length = count.saturating_mul(block_size);
    Error::of(Structure::Disk, ErrorKind::ZeroBlocks { count, length })
}

/// Reads the content of the chain in a range of whole blocks, and looks for blocks of the image that hold only zeros.
/// Returns the number of these.
pub(super) fn read(
    disk: &Disk,
    range: Range<u64>,
    options: &ScanOptions<'_>,
    findings: &mut Findings,
) -> Result<u64, ScanError> {
    let mut zeros = ZeroBlocks { disk, at_hand: None, count: 0, kept_from: 0 };
    let of_disk = |place: u64| range.start.saturating_add(place);
    let scanned = Input::disk(disk).range(range.clone()).scan(
        options,
        |_, segments| segments.iter().all(|segment| segment.slices().all(is_zero)),
        |found, unit| match unit {
            Some(is_zero) => zeros.unit(of_disk(found.start), is_zero),
            None => zeros.hole(&(of_disk(found.start)..of_disk(found.end))),
        },
    );
    zeros.close();
    match scanned {
        // In a salvage, unreadable ranges are zero, and reported as losses.
        Ok(()) => {}
        Err(ScanError::Read(error)) => findings.reject(Rule::Medium, error, None),
        Err(cancelled) => return Err(cancelled),
    }
    let count = zeros.count;
    if count > 0 {
        findings.add(Rule::ZeroBlock, zero_blocks(count, disk.image().block_size()), None);
    }
    medium(disk, range, findings);
    Ok(count)
}

/// Allocated blocks of the image that hold only zeros, counted during a pass over the disk.
struct ZeroBlocks<'d> {
    disk: &'d Disk,
    /// The block of the last unit, and whether all of it was zero so far.
    at_hand: Option<(u64, bool)>,
    count: u64,
    /// Start of the part of the BAT that was read and not given back.
    kept_from: u64,
}

impl ZeroBlocks<'_> {
    fn block_of(&self, position: u64) -> u64 {
        position.checked_div(self.disk.image().block_size()).unwrap_or(0)
    }

    /// Notes a unit that was read: it is no longer than a block, and never lies in two.
    fn unit(&mut self, start: u64, is_zero: bool) {
        let block = self.block_of(start);
        match &mut self.at_hand {
            Some((at_hand, so_far)) if *at_hand == block => *so_far &= is_zero,
            _ => {
                self.close();
                self.at_hand = Some((block, is_zero));
            }
        }
    }

    /// Notes a range that is known to be zero: parts of blocks, or whole ones.
    fn hole(&mut self, range: &Range<u64>) {
        let (first, last) = (self.block_of(range.start), self.block_of(range.end.saturating_sub(1)));
        self.unit(range.start, true);
        if last > first {
            self.close();
            self.add(first.saturating_add(1)..last);
            self.at_hand = Some((last, true));
        }
    }

    /// Ends the current block.
    fn close(&mut self) {
        if let Some((block, true)) = self.at_hand.take() {
            self.add(block..block.saturating_add(1));
        }
    }

    /// Counts the allocated ones of these blocks, all of which are zero from end to end.
    fn add(&mut self, blocks: Range<u64>) {
        let image = self.disk.image();
        // Asked once for all blocks: mostly, nothing is lost.
        let has_losses = self.lost_of(blocks.clone()) > 0;
        let mut block = blocks.start;
        while block < blocks.end {
            let after = blocks.end.saturating_sub(block).saturating_sub(1);
            let (same_state_count, is_present) = match image.block_state(block) {
                // Blocks of one state are counted at once: there may be 64 million of them, and most of the BAT a hole.
                Ok((state, _)) => {
                    (image.same_state_count(block, after).unwrap_or(0), state == PayloadBlockState::FullyPresent)
                }
                // The table ends before the entries of this and all following blocks.
                Err(error) if matches!(error.kind(), ErrorKind::OutOfBounds { .. }) => break,
                Err(_) => (0, false),
            };
            let end = block.saturating_add(1).saturating_add(same_state_count);
            if is_present {
                // Lost blocks are not zero.
                let lost = if has_losses { self.lost_of(block..end) } else { 0 };
                let kept = end.saturating_sub(block).saturating_sub(lost);
                self.count = self.count.saturating_add(kept);
            }
            block = end;
            self.kept_from = image.forget_bat(self.kept_from, block.saturating_mul(image.block_size()));
        }
    }

    /// Returns the number of these blocks with losses.
    fn lost_of(&self, blocks: Range<u64>) -> u64 {
        let start_of = |block: u64| block.saturating_mul(self.disk.image().block_size());
        let (mut lost, mut counted_to) = (0_u64, blocks.start);
        for loss in self.disk.losses(start_of(blocks.start)..start_of(blocks.end).min(self.disk.size())) {
            let first = self.block_of(loss.range.start).max(counted_to);
            let after = self.block_of(loss.range.end.saturating_sub(1)).saturating_add(1);
            lost = lost.saturating_add(after.saturating_sub(first));
            counted_to = after.max(counted_to);
        }
        lost
    }
}

/// Reports the bytes that the media have failed to return, and the affected ranges of the disk.
fn medium(disk: &Disk, range: Range<u64>, findings: &mut Findings) {
    let mut reported: Vec<(usize, Range<u64>)> = Vec::new();
    for loss in disk.losses(range) {
        if let (ErrorKind::MediumFailed, Some(start)) = (loss.reason.kind(), loss.reason.offset()) {
            let length = loss.range.end.saturating_sub(loss.range.start);
            reported.push((loss.reason.layer(), start..start.saturating_add(length)));
            findings.add_as(Rule::Medium, Severity::Corruption, loss.reason, Some(loss.range));
        }
    }
    reported.sort_by_key(|(layer, range)| (*layer, range.start));
    // Bytes that do not belong to the disk.
    for (number, layer) in disk.layers().iter().enumerate() {
        let image = layer.image();
        let mut at = 0;
        while let Some(lost) = layer.first_unread(at, u64::MAX.saturating_sub(at)) {
            at = lost.end;
            let before = reported.partition_point(|(layer, range)| (*layer, range.start) < (number, lost.end));
            let last = before.checked_sub(1).and_then(|last| reported.get(last));
            if last.is_none_or(|(layer, range)| *layer != number || range.end <= lost.start) {
                let detail = Error::at(Structure::File, lost.start, ErrorKind::MediumFailed);
                let detail = detail.in_layer(number, image.path());
                findings.add_as(Rule::Medium, Severity::Corruption, detail, None);
            }
        }
    }
}
