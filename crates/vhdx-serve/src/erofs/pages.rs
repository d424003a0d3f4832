//! What the pages of a file are: holes, blocks of a device, or bytes that must be copied.

use std::collections::VecDeque;
use std::ops::Range;

use vhdx_mmap::{Location, Result, Run};

use super::format::BLOCK;

/// Content of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// Zeros.
    Hole,
    /// Blocks of a device, from this one on. Devices count from 1.
    Direct { device: u16, block: u32 },
    /// Bytes that no device has in whole blocks.
    Copied,
    /// Bytes that cannot be read.
    Lost,
}

/// Pages with one kind of content: as many as possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Numbers of the pages.
    pub(super) pages: Range<u64>,
    pub(super) content: Pages,
}

impl Segment {
    /// Returns the content from a later page on.
    pub(super) fn content_at(&self, page: u64) -> Pages {
        match self.content {
            Pages::Direct { device, block } => {
                let further = u32::try_from(page.saturating_sub(self.pages.start)).unwrap_or(u32::MAX);
                Pages::Direct { device, block: block.saturating_add(further) }
            }
            content => content,
        }
    }

    fn goes_on_in(&self, next: &Self) -> bool {
        self.pages.end == next.pages.start && self.content_at(self.pages.end) == next.content
    }
}

/// Content of a part of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Hole,
    /// The device's bytes; `origin` is the offset in the device that the first byte of the page would have.
    Device {
        device: u16,
        origin: u64,
    },
    Copied,
    Lost,
}

impl Piece {
    /// Returns the content of a page that has this part and `other`.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (one, other) if one == other => one,
            (Self::Lost, _) | (_, Self::Lost) => Self::Lost,
            _ => Self::Copied,
        }
    }
}

/// A device as far as segments need it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Number of the device, from 1.
    pub(super) device: u16,
    /// Number of the whole blocks in it, from `start` on.
    pub(super) blocks: u64,
    /// Offset in the file of the layer at which the device begins, in bytes.
    pub(super) start: u64,
}

/// Segments of a file, from its extents.
#[derive(Debug)]
pub(super) struct Segments<'a, I> {
    runs: I,
    /// Devices of the layers.
    devices: &'a [Extent],
    /// Size of the file, in bytes.
    size: u64,
    /// A page of which a part is known.
    open: Option<(u64, Piece)>,
    found: VecDeque<Segment>,
    last: Option<Segment>,
    has_ended: bool,
}

impl<'a, I: Iterator<Item = Result<Run>>> Segments<'a, I> {
    /// Makes segments from extents that count from the first byte of the file.
    pub(super) fn new(runs: I, devices: &'a [Extent], size: u64) -> Self {
        Self { runs, devices, size, open: None, found: VecDeque::new(), last: None, has_ended: false }
    }

    fn piece(&self, run: &Run, at: u64) -> Piece {
        match run.at {
            Location::Zero => Piece::Hole,
            Location::Lost => Piece::Lost,
            Location::File(offset) => {
                let device = self.devices.get(run.layer);
                let origin = offset
                    .checked_add(at.saturating_sub(run.start))
                    .and_then(|at_device| at_device.checked_sub(device?.start)?.checked_sub(at.checked_rem(BLOCK)?));
                match device.zip(origin) {
                    Some((device, origin)) => Piece::Device { device: device.device, origin },
                    None => Piece::Copied,
                }
            }
            _ => Piece::Copied,
        }
    }

    /// Returns the content of whole pages, of which `piece` is the first.
    fn content(&self, piece: Piece, pages: u64) -> Pages {
        match piece {
            Piece::Hole => Pages::Hole,
            Piece::Lost => Pages::Lost,
            Piece::Copied => Pages::Copied,
            Piece::Device { device, origin } => {
                let first = origin.checked_div(BLOCK).unwrap_or(0);
                let blocks = self.devices.iter().find(|known| known.device == device).map_or(0, |known| known.blocks);
                let end = first.checked_add(pages).filter(|end| *end <= blocks);
                match u32::try_from(end.unwrap_or(u64::MAX)).and(u32::try_from(first)) {
                    Ok(block) if origin.is_multiple_of(BLOCK) => Pages::Direct { device, block },
                    _ => Pages::Copied,
                }
            }
        }
    }

    fn push(&mut self, pages: Range<u64>, content: Pages) {
        if pages.is_empty() {
            return;
        }
        let next = Segment { pages, content };
        match &mut self.last {
            Some(last) if last.goes_on_in(&next) => last.pages.end = next.pages.end,
            last => self.found.extend(last.replace(next)),
        }
    }

    fn close(&mut self) {
        if let Some((page, piece)) = self.open.take() {
            let content = self.content(piece, 1);
            self.push(page..page.saturating_add(1), content);
        }
    }

    fn add(&mut self, run: &Run) {
        let mut at = run.start;
        let end = run.end().min(self.size);
        while at < end {
            let page = at.checked_div(BLOCK).unwrap_or(0);
            let whole = if end == self.size { end.div_ceil(BLOCK) } else { end.checked_div(BLOCK).unwrap_or(0) };
            let piece = self.piece(run, at);
            if at.is_multiple_of(BLOCK) && whole > page {
                self.close();
                let content = self.content(piece, whole.saturating_sub(page));
                self.push(page..whole, content);
                at = whole.saturating_mul(BLOCK);
                continue;
            }
            // A part of a page.
            self.open = match self.open.take() {
                Some((open, known)) if open == page => Some((page, known.and(piece))),
                other => {
                    self.open = other;
                    self.close();
                    Some((page, piece))
                }
            };
            at = end.min(page.saturating_add(1).saturating_mul(BLOCK));
        }
    }
}

impl<I: Iterator<Item = Result<Run>>> Iterator for Segments<'_, I> {
    type Item = Result<Segment>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Some(Ok(found));
            }
            if self.has_ended {
                return self.last.take().map(Ok);
            }
            match self.runs.next() {
                Some(Ok(run)) => self.add(&run),
                Some(Err(error)) => {
                    self.has_ended = true;
                    self.last = None;
                    return Some(Err(error));
                }
                None => {
                    self.close();
                    self.has_ended = true;
                }
            }
        }
    }
}
