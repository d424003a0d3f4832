//! Which layer has what: the pieces of a range of the disk, in order.

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::PayloadBlockState;
use crate::image::Local;

use super::Disk;

/// A piece of the disk that one layer answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it begins in the disk.
    pub(super) start: u64,
    pub(super) length: u64,
    /// The layer that answers.
    pub(super) layer: usize,
    /// The file offset of the bytes in that layer; none for zeros.
    pub(super) offset: Option<u64>,
    /// The state of the block in that layer; none behind the end of a parent that is smaller than its child.
    pub(super) state: Option<PayloadBlockState>,
}

impl Piece {
    /// What remains of the piece behind its first `length` bytes, if anything does.
    pub(super) fn behind(&self, length: u64) -> Option<Self> {
        let left = self.length.checked_sub(length).filter(|left| *left > 0)?;
        let offset = self.offset.map(|offset| offset.saturating_add(length));
        Some(Self { start: self.start.saturating_add(length), length: left, offset, ..*self })
    }

    /// Whether the bytes of `next` follow those of this piece, in the same file.
    pub(super) fn goes_on_in(&self, next: &Self) -> bool {
        let end = self.offset.and_then(|offset| offset.checked_add(self.length));
        end.is_some() && end == next.offset && self.layer == next.layer
    }
}

/// Goes through a range of the disk once, and through each layer's part of it at most once: what a layer leaves to the
/// one below it is noted, so that it is not asked again for every piece that is found there.
#[derive(Debug)]
pub(super) struct Cursor<'d> {
    disk: &'d Disk,
    position: u64,
    end: u64,
    /// Up to where each layer, from the top one on, has left the disk to the one below it. Each reaches at most as far
    /// as the one before.
    left_to_next: Vec<u64>,
}

impl<'d> Cursor<'d> {
    /// The range must lie inside the disk.
    pub(super) fn new(disk: &'d Disk, start: u64, end: u64) -> Self {
        Self { disk, position: start, end, left_to_next: Vec::new() }
    }

    pub(super) fn disk(&self) -> &'d Disk {
        self.disk
    }

    fn piece(&mut self) -> Result<Piece> {
        let start = self.position;
        while self.left_to_next.last().is_some_and(|until| *until <= start) {
            self.left_to_next.pop();
        }
        loop {
            let layer = self.left_to_next.len();
            let until = self.left_to_next.last().copied().unwrap_or(self.end);
            let Some(image) = self.disk.layers.get(layer).map(super::Layer::image) else {
                // Whoever opened the disk without its parents can read what it has itself, and nothing else.
                let child = layer.saturating_sub(1);
                return Err(Error::of(Structure::Parent, ErrorKind::NoParentAttached)
                    .in_layer(child, self.disk.layers.get(child).and_then(|layer| layer.image().path())));
            };
            let size = image.virtual_disk_size();
            let most = until.min(size).saturating_sub(start);
            if most == 0 {
                // A parent that is smaller than its child reads as zeros behind its end.
                return Ok(Piece { start, length: until.saturating_sub(start), layer, offset: None, state: None });
            }
            let local = image.local(start, most).map_err(|error| error.in_layer(layer, image.path()))?;
            match local {
                Local::Data { offset, length, state } => {
                    return Ok(Piece { start, length, layer, offset: Some(offset), state: Some(state) });
                }
                Local::Zero { length, state } => {
                    return Ok(Piece { start, length, layer, offset: None, state: Some(state) });
                }
                Local::Parent { length } => self.left_to_next.push(start.saturating_add(length)),
            }
        }
    }
}

impl Iterator for Cursor<'_> {
    type Item = Result<Piece>;

    /// The next piece. An error is the last item.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.end {
            return None;
        }
        let piece = self.piece();
        self.position = match &piece {
            Ok(piece) => self.position.saturating_add(piece.length),
            Err(_) => self.end,
        };
        Some(piece)
    }
}
