//! Reading the content of all blocks: what the media do not give, and what holds nothing.

use std::ops::Range;

use crate::check::Findings;
use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Rule, Severity, Structure};
use crate::format::PayloadBlockState;
use crate::scan::{Input, ScanError, ScanOptions};
use crate::zero::is_zero;

/// Reads all that the chain holds, and looks for blocks of the image that hold only zeros.
pub(super) fn read(disk: &Disk, options: &ScanOptions<'_>, findings: &mut Findings) -> Result<(), ScanError> {
    let mut zeros = ZeroBlocks { disk, at_hand: None, count: 0, kept_from: 0 };
    let scanned = Input::disk(disk).scan(
        options,
        |_, segments| segments.iter().all(|segment| segment.slices().all(is_zero)),
        |range, unit| match unit {
            Some(is_zero) => zeros.unit(range.start, is_zero),
            None => zeros.hole(&range),
        },
    );
    zeros.close();
    match scanned {
        // What can't be read is zero in a disk that is being salvaged, and told by its losses.
        Ok(()) => {}
        Err(ScanError::Read(error)) => findings.reject(Rule::Medium, error, None),
        Err(cancelled) => return Err(cancelled),
    }
    let count = zeros.count;
    if count > 0 {
        let length = count.saturating_mul(disk.image().block_size());
        findings.add(Rule::ZeroBlock, Error::of(Structure::Disk, ErrorKind::ZeroBlocks { count, length }), None);
    }
    medium(disk, findings);
    Ok(())
}

/// Blocks that are present in the image and hold only zeros, counted as the disk is gone through.
struct ZeroBlocks<'d> {
    disk: &'d Disk,
    /// The block of the last unit, and whether all of it was zero so far.
    at_hand: Option<(u64, bool)>,
    count: u64,
    /// Where the part of the BAT begins that has been read and not given back.
    kept_from: u64,
}

impl ZeroBlocks<'_> {
    fn block_of(&self, position: u64) -> u64 {
        position.checked_div(self.disk.image().block_size()).unwrap_or(0)
    }

    /// A unit that was looked at: it is no longer than a block, and never lies in two.
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

    /// A range that is known to be zero: parts of blocks, or whole ones.
    fn hole(&mut self, range: &Range<u64>) {
        let (first, last) = (self.block_of(range.start), self.block_of(range.end.saturating_sub(1)));
        self.unit(range.start, true);
        if last > first {
            self.close();
            self.add(first.saturating_add(1)..last);
            self.at_hand = Some((last, true));
        }
    }

    /// There is no more of the block at hand.
    fn close(&mut self) {
        if let Some((block, true)) = self.at_hand.take() {
            self.add(block..block.saturating_add(1));
        }
    }

    /// Counts those of these blocks, all of them zero from end to end, that are present.
    fn add(&mut self, blocks: Range<u64>) {
        let image = self.disk.image();
        // Asked once for all: mostly, nothing is.
        let has_losses = self.lost_of(blocks.clone()) > 0;
        let mut block = blocks.start;
        while block < blocks.end {
            let behind = blocks.end.saturating_sub(block).saturating_sub(1);
            let (alike, is_present) = match image.block_state(block) {
                // Blocks of one state are looked at as one: there may be 64 million of them, and most of the BAT a hole.
                Ok((state, _)) => {
                    (image.same_state_count(block, behind).unwrap_or(0), state == PayloadBlockState::FullyPresent)
                }
                // The table ends before it, and before all that come behind it.
                Err(error) if matches!(error.kind(), ErrorKind::OutOfBounds { .. }) => break,
                Err(_) => (0, false),
            };
            let end = block.saturating_add(1).saturating_add(alike);
            if is_present {
                // What is lost is not zero.
                let lost = if has_losses { self.lost_of(block..end) } else { 0 };
                let kept = end.saturating_sub(block).saturating_sub(lost);
                self.count = self.count.saturating_add(kept);
            }
            block = end;
            self.kept_from = image.forget_bat(self.kept_from, block.saturating_mul(image.block_size()));
        }
    }

    /// Of how many of these blocks something is lost.
    fn lost_of(&self, blocks: Range<u64>) -> u64 {
        let start_of = |block: u64| block.saturating_mul(self.disk.image().block_size());
        let (mut lost, mut counted_to) = (0_u64, blocks.start);
        for loss in self.disk.losses(start_of(blocks.start)..start_of(blocks.end).min(self.disk.size())) {
            let first = self.block_of(loss.range.start).max(counted_to);
            let behind = self.block_of(loss.range.end.saturating_sub(1)).saturating_add(1);
            lost = lost.saturating_add(behind.saturating_sub(first));
            counted_to = behind.max(counted_to);
        }
        lost
    }
}

/// Tells of what the media have failed to give, and which parts of the disk that are.
fn medium(disk: &Disk, findings: &mut Findings) {
    let mut told: Vec<(usize, Range<u64>)> = Vec::new();
    for loss in disk.losses(..) {
        if let (ErrorKind::MediumFailed, Some(start)) = (loss.reason.kind(), loss.reason.offset()) {
            let length = loss.range.end.saturating_sub(loss.range.start);
            told.push((loss.reason.layer(), start..start.saturating_add(length)));
            findings.add_as(Rule::Medium, Severity::Corruption, loss.reason, Some(loss.range));
        }
    }
    told.sort_by_key(|(layer, range)| (*layer, range.start));
    // What is no part of the disk.
    for (number, layer) in disk.layers().iter().enumerate() {
        let image = layer.image();
        let mut at = 0;
        while let Some(lost) = layer.first_unread(at, u64::MAX.saturating_sub(at)) {
            at = lost.end;
            let before = told.partition_point(|(layer, range)| (*layer, range.start) < (number, lost.end));
            let last = before.checked_sub(1).and_then(|last| told.get(last));
            if last.is_none_or(|(layer, range)| *layer != number || range.end <= lost.start) {
                let detail = Error::at(Structure::File, lost.start, ErrorKind::MediumFailed);
                let detail = detail.in_layer(number, image.path());
                findings.add_as(Rule::Medium, Severity::Corruption, detail, None);
            }
        }
    }
}
