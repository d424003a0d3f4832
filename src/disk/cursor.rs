//! Which layer has what: the pieces of a range of the disk, in order.

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::PayloadBlockState;
use crate::image::{Image, Local};
use crate::num::to_u64;
use crate::source::Stored;

use super::Disk;

/// How many layers keep the part of their BAT that was looked at last. Of a longer chain, those behind them give it back at once:
/// the system may show 2 MiB of a file for one byte of it, and there may be hundreds of them.
pub(super) const FEW_LAYERS: usize = 16;

/// A piece of the disk that one layer answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it begins in the disk.
    pub(super) start: u64,
    pub(super) length: u64,
    /// The layer that answers.
    pub(super) layer: usize,
    /// The state of the block in that layer; none behind the end of a parent that is smaller than its child.
    pub(super) state: Option<PayloadBlockState>,
    pub(super) content: Content,
}

/// Where the bytes of a piece are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// In the layer's file, at this offset.
    File(u64),
    /// Rebuilt from the layer's log, which puts them at this offset.
    Log(u64),
    /// They are zeros.
    Zero,
    /// They can't be read, and are taken for zeros.
    Lost,
}

impl Piece {
    /// What remains of the piece behind its first `length` bytes, if anything does.
    pub(super) fn behind(&self, length: u64) -> Option<Self> {
        let left = self.length.checked_sub(length).filter(|left| *left > 0)?;
        let content = match self.content {
            Content::File(offset) => Content::File(offset.saturating_add(length)),
            Content::Log(offset) => Content::Log(offset.saturating_add(length)),
            Content::Zero => Content::Zero,
            Content::Lost => Content::Lost,
        };
        Some(Self { start: self.start.saturating_add(length), length: left, content, ..*self })
    }

    /// Whether the bytes of `next` follow those of this piece, in the same file.
    pub(super) fn goes_on_in(&self, next: &Self) -> bool {
        let same = |offset: u64, next: u64| offset.checked_add(self.length) == Some(next);
        self.layer == next.layer
            && match (self.content, next.content) {
                (Content::File(offset), Content::File(next)) | (Content::Log(offset), Content::Log(next)) => {
                    same(offset, next)
                }
                _ => false,
            }
    }
}

/// What a layer has said of the disk from `start` to `until`.
#[derive(Clone, Copy, Debug)]
struct Answer {
    start: u64,
    until: u64,
    local: Local,
    /// Where the part of the BAT begins that has been read and not given back.
    kept_from: u64,
}

/// Goes through a range of the disk once, and through each layer's part of it at most once: what a layer has said is kept
/// until it is used up, however finely the other layers cut it.
#[derive(Debug)]
pub(super) struct Cursor<'d> {
    disk: &'d Disk,
    position: u64,
    end: u64,
    /// The last answer of the image that was opened: apart, since most disks have no other, and need no vector.
    top: Option<Answer>,
    /// The last answers of its parents.
    parents: Vec<Answer>,
    /// Why the last piece is lost, if it is.
    lost: Option<Error>,
    /// From where on nothing is known, since the last item was an error.
    failed_at: u64,
    /// How many layers have been asked for anything.
    layers_asked: usize,
    /// Where it began.
    start: u64,
}

impl<'d> Cursor<'d> {
    /// The range must lie inside the disk. In place of the last piece, an error says if the tables were not whole.
    pub(super) fn new(disk: &'d Disk, start: u64, end: u64) -> Self {
        let (top, parents, lost) = (None, Vec::new(), None);
        Self { disk, position: start, end, top, parents, lost, failed_at: end, layers_asked: 0, start }
    }

    pub(super) fn disk(&self) -> &'d Disk {
        self.disk
    }

    fn piece(&mut self) -> Result<Piece> {
        let start = self.position;
        let mut until = self.end;
        for (layer, image) in self.disk.layers().iter().map(super::Layer::image).enumerate() {
            if start >= image.virtual_disk_size() {
                // A parent that is smaller than its child reads as zeros behind its end.
                let length = until.saturating_sub(start);
                return Ok(Piece { start, length, layer, state: None, content: Content::Zero });
            }
            let answer = self.ask(layer, image)?;
            until = until.min(answer.until);
            let length = until.saturating_sub(start);
            match answer.local {
                Local::Parent { .. } => {}
                Local::Zero { state, .. } => {
                    return Ok(Piece { start, length, layer, state: Some(state), content: Content::Zero });
                }
                Local::Data { offset, state, .. } => {
                    let offset = offset.saturating_add(start.saturating_sub(answer.start));
                    let stored = image.stored(offset, length).map_err(|error| error.in_layer(layer, image.path()))?;
                    let (content, length) = match stored {
                        Stored::File(bytes) => (Content::File(offset), to_u64(bytes.len())),
                        Stored::Log(bytes) => (Content::Log(offset), to_u64(bytes.len())),
                        Stored::Nowhere(length) => (Content::Zero, length),
                    };
                    return Ok(Piece { start, length, layer, state: Some(state), content });
                }
            }
        }
        if self.disk.is_salvaged() {
            let unattached =
                || Error::of(Structure::Parent, ErrorKind::NoParentAttached).in_layer(self.parents.len(), None);
            self.lost = Some(self.disk.missing.clone().unwrap_or_else(unattached));
            let length = until.saturating_sub(start);
            return Ok(Piece { start, length, layer: self.parents.len(), state: None, content: Content::Lost });
        }
        // Whoever opened the disk without its parents can read what it has itself, and nothing else.
        Err(Error::of(Structure::Parent, ErrorKind::NoParentAttached).in_layer(self.parents.len(), None))
    }

    /// What can't be read, as far as that goes: to the end of the block, of which more may be readable behind that.
    #[cold]
    fn lose(&mut self, error: Error) -> Result<Piece> {
        if !self.disk.is_salvaged() {
            return Err(error);
        }
        let (start, layer) = (self.position, error.layer());
        let image = self.disk.layer_image(layer);
        let behind = match (error.structure(), error.kind()) {
            // So are the entries of all blocks behind this one, of which there may be millions.
            _ if is_behind_the_table(&error) => image.map_or(0, Image::virtual_disk_size),
            // The bytes that the file has not got, and nothing else of the block.
            (Structure::PayloadBlock(_) | Structure::File, ErrorKind::OutOfBounds { length, .. }) => {
                start.saturating_add(*length)
            }
            _ => start.saturating_add(1).next_multiple_of(image.map_or(1 << 20, Image::block_size)),
        };
        // What a layer above has is not lost with what it would hide.
        let above = self.top.iter().chain(&self.parents).take(layer).map(|answer| answer.until);
        let end = above.fold(self.end.min(behind), u64::min);
        self.lost = Some(error);
        let length = end.saturating_sub(start).max(1);
        Ok(Piece { start, length, layer, state: None, content: Content::Lost })
    }

    /// From where on nothing is known, since the last item was an error.
    pub(super) fn failed_at(&self) -> u64 {
        self.failed_at
    }

    /// Where the cursor ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Why the last piece is lost.
    pub(super) fn take_lost(&mut self) -> Option<Error> {
        self.lost.take()
    }

    /// What a layer has at the position. Every layer above it has been asked, and has nothing.
    #[inline]
    fn ask(&mut self, layer: usize, image: &Image) -> Result<Answer> {
        let start = self.position;
        let known = match layer.checked_sub(1) {
            None => self.top,
            Some(parent) => self.parents.get(parent).copied(),
        };
        if let Some(answer) = known.filter(|answer| answer.until > start) {
            return Ok(answer);
        }
        self.layers_asked = self.layers_asked.max(layer.saturating_add(1));
        // Asked for all that is left, not only for what the layers above leave to it.
        let most = self.end.min(image.virtual_disk_size()).saturating_sub(start);
        let local = image.local(start, most).map_err(|error| error.in_layer(layer, image.path()))?;
        let length = match local {
            Local::Data { length, .. } | Local::Zero { length, .. } | Local::Parent { length } => length,
        };
        let until = start.saturating_add(length);
        let kept_from = if layer < FEW_LAYERS {
            image.forget_bat(known.map_or(start, |answer| answer.kept_from), start)
        } else {
            image.forget_all_bat(start, until);
            until
        };
        let answer = Answer { start, until, local, kept_from };
        match layer.checked_sub(1) {
            None => self.top = Some(answer),
            Some(parent) => match self.parents.get_mut(parent) {
                Some(known) => *known = answer,
                None => self.parents.push(answer),
            },
        }
        Ok(answer)
    }
}

/// Whether a block has no entry, since the table ends before it would come.
fn is_behind_the_table(error: &Error) -> bool {
    match (error.structure(), error.offset(), error.kind()) {
        (Structure::PayloadBatEntry(_), Some(offset), ErrorKind::OutOfBounds { length, limit }) => {
            offset.saturating_add(*length) > *limit
        }
        _ => false,
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
        let piece = self.piece().or_else(|error| self.lose(error));
        match &piece {
            Ok(piece) => self.position = self.position.saturating_add(piece.length),
            Err(_) => {
                self.failed_at = self.position;
                self.position = self.end;
            }
        }
        // Before the last item is given, since somebody who knows how far to go does not ask for what comes after it. What is
        // against the format may have been zeros that stood in for what is lost.
        if self.position >= self.end
            && let Err(lost) = self.disk.check_tables_of(self.layers_asked)
        {
            self.failed_at = self.start;
            return Some(Err(lost));
        }
        Some(piece)
    }
}
