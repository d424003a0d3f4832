//! The resolver: which layer has what of a disk, and where. Everything that reads a disk or maps it goes by this.

use std::iter::FusedIterator;
use std::ops::{Deref, Range, RangeBounds};

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::PayloadBlockState;
use crate::image::{BlockLookup, Image};
use crate::source::Stored;

use super::{Disk, Layer};

/// How many layers keep the part of their BAT that was looked at last. Of a longer chain, those below them give it back at once:
/// the system may show 2 MiB of a file for one byte of it, and there may be hundreds of them.
pub(super) const FEW_LAYERS: usize = 16;

/// A part of the disk that one layer answers for, all of it in one place.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it begins in the disk, in bytes.
    pub start: u64,
    /// Length in bytes, at least 1.
    pub len: u64,
    /// The layer that answers for it: 0 is the image that was opened.
    pub layer: usize,
    /// The state of the block in that layer; none past the end of a parent that is smaller than its child, and where it
    /// is not known.
    pub state: Option<PayloadBlockState>,
    /// Where its bytes are.
    pub at: Location,
}

/// Where the bytes of a run are.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// In the layer's file, from this file offset on.
    File(u64),
    /// Rebuilt from the layer's log, which puts them at this file offset.
    Log(u64),
    /// Unallocated, or zero by the state of the block or by a replay: they read as zeros.
    Zero,
    /// They can't be read, and read as zeros: only of a disk that is salvaged.
    Lost,
}

impl Location {
    /// The location `length` bytes further on.
    pub(crate) fn after(self, length: u64) -> Self {
        match self {
            Self::File(offset) => Self::File(offset.saturating_add(length)),
            Self::Log(offset) => Self::Log(offset.saturating_add(length)),
            Self::Zero | Self::Lost => self,
        }
    }
}

impl Run {
    /// Where it ends in the disk, in bytes.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Where its bytes begin in the layer's file, in bytes; none if they are not in their place in the file.
    #[must_use]
    pub fn file_offset(&self) -> Option<u64> {
        match self.at {
            Location::File(offset) => Some(offset),
            Location::Log(_) | Location::Zero | Location::Lost => None,
        }
    }

    /// Whether a file or its log holds bytes for it. Everything else reads as zeros.
    #[must_use]
    pub fn is_data(&self) -> bool {
        matches!(self.at, Location::File(_) | Location::Log(_))
    }

    /// Whether some layer has decided what it reads as, data or zeros. What is not present is zero because it was never
    /// written.
    #[must_use]
    pub fn is_present(&self) -> bool {
        !matches!(self.state, None | Some(PayloadBlockState::NotPresent))
    }

    /// What remains of the run after its first `length` bytes, if anything does.
    pub(crate) fn after(&self, length: u64) -> Option<Self> {
        let left = self.len.checked_sub(length).filter(|left| *left > 0)?;
        Some(Self { start: self.start.saturating_add(length), len: left, at: self.at.after(length), ..*self })
    }

    /// Whether the bytes of `next` follow those of this run, in the same file or log.
    pub(super) fn goes_on_in(&self, next: &Self) -> bool {
        self.layer == next.layer && self.is_data() && self.at.after(self.len) == next.at
    }

    /// Whether both are one extent.
    fn is_one_extent(&self, next: &Self) -> bool {
        let both_zero = !self.is_data() && self.at == next.at;
        (self.goes_on_in(next) || both_zero) && self.layer == next.layer && self.state == next.state
    }
}

/// What a layer has said of the disk.
#[derive(Clone, Copy, Debug)]
struct Answer {
    start: u64,
    lookup: BlockLookup,
    /// Where the part of the BAT begins that has been read and not given back.
    kept_from: u64,
}

impl Answer {
    /// Up to where it holds.
    fn end(&self) -> u64 {
        self.start.saturating_add(self.lookup.length())
    }
}

/// Goes through a range of a disk once, and through each layer's part of it at most once: what a layer has said is kept until it
/// is used up, however finely the other layers cut it. The disk is given with each call, so that its owner can be of any kind.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    start: u64,
    position: u64,
    end: u64,
    /// The last answer of the image that was opened: apart, since most disks have no other, and need no vector.
    top: Option<Answer>,
    /// The last answers of its parents.
    parents: Vec<Answer>,
    /// Why the last run is lost, if it is.
    lost: Option<Error>,
    /// From where on nothing is known, since the last item was an error.
    failed_at: u64,
    /// How many layers have been asked for anything.
    layers_asked: usize,
    /// What was looked at ahead, to find out whether it goes on.
    next: Option<Option<Result<Run>>>,
}

impl Walk {
    /// The range must lie inside the disk.
    pub(super) fn new(start: u64, end: u64) -> Self {
        let (top, parents, lost, next) = (None, Vec::new(), None, None);
        Self { start, position: start, end, top, parents, lost, failed_at: end, layers_asked: 0, next }
    }

    /// From where on nothing is known, and where the range ends, if the last item was an error.
    pub(super) fn unknown(&self) -> Range<u64> {
        self.failed_at..self.end
    }

    /// Why the last run is lost.
    pub(super) fn take_lost(&mut self) -> Option<Error> {
        self.lost.take()
    }

    /// The next run. An error is the last item; in place of the last run, one says if the tables were not whole.
    #[inline]
    pub(super) fn next(&mut self, disk: &Disk) -> Option<Result<Run>> {
        if let Some(next) = self.next.take() {
            return next;
        }
        if self.position >= self.end {
            return None;
        }
        let run = self.run(disk).or_else(|error| self.lose(disk, error));
        match &run {
            Ok(run) => self.position = run.end(),
            Err(_) => {
                self.failed_at = self.position;
                self.position = self.end;
            }
        }
        // Before the last item is given, since somebody who knows how far to go does not ask for what comes after it. What is
        // against the format may have been zeros that stood in for what is lost.
        if self.position >= self.end
            && let Err(lost) = disk.check_tables_of(self.layers_asked)
        {
            self.failed_at = self.start;
            return Some(Err(lost));
        }
        Some(run)
    }

    /// The next run, with all after it that `are_one` with what comes before.
    #[inline]
    pub(super) fn next_joined(&mut self, disk: &Disk, are_one: fn(&Run, &Run) -> bool) -> Option<Result<Run>> {
        let mut run = match self.next(disk)? {
            Ok(run) => run,
            error => return Some(error),
        };
        loop {
            match self.next(disk) {
                Some(Ok(next)) if are_one(&run, &next) => run.len = run.len.saturating_add(next.len),
                next => {
                    self.next = Some(next);
                    return Some(Ok(run));
                }
            }
        }
    }

    fn run(&mut self, disk: &Disk) -> Result<Run> {
        let start = self.position;
        let mut end = self.end;
        for (layer, image) in disk.layers().iter().map(Layer::image).enumerate() {
            if start >= image.virtual_disk_size() {
                // A parent that is smaller than its child reads as zeros past its end.
                let length = end.saturating_sub(start);
                return Ok(Run { start, len: length, layer, state: None, at: Location::Zero });
            }
            let answer = self.ask(layer, image)?;
            end = end.min(answer.end());
            let length = end.saturating_sub(start);
            match answer.lookup {
                BlockLookup::Parent { .. } => {}
                BlockLookup::Zero { state, .. } => {
                    return Ok(Run { start, len: length, layer, state: Some(state), at: Location::Zero });
                }
                BlockLookup::Data { offset, state, .. } => {
                    let offset = offset.saturating_add(start.saturating_sub(answer.start));
                    let stored = image.stored(offset, length).map_err(|error| error.in_layer(layer, image.path()))?;
                    let at = match stored {
                        Stored::File(_) => Location::File(offset),
                        Stored::Log(_) => Location::Log(offset),
                        Stored::Zero(_) => Location::Zero,
                    };
                    return Ok(Run { start, len: stored.length(), layer, state: Some(state), at });
                }
            }
        }
        let layer = self.parents.len();
        let unattached = || Error::of(Structure::Parent, ErrorKind::NoParentAttached).in_layer(layer, None);
        if disk.is_salvaged() {
            self.lost = Some(disk.missing.clone().unwrap_or_else(unattached));
            return Ok(Run { start, len: end.saturating_sub(start), layer, state: None, at: Location::Lost });
        }
        // Whoever opened the disk without its parents can read what it has itself, and nothing else.
        Err(unattached())
    }

    /// What can't be read, as far as that goes: to the end of the block, of which more may be readable after that.
    #[cold]
    fn lose(&mut self, disk: &Disk, error: Error) -> Result<Run> {
        if !disk.is_salvaged() {
            return Err(error);
        }
        let (start, layer) = (self.position, error.layer());
        let image = disk.layers().get(layer).map(Layer::image);
        let lost_end = match (error.structure(), error.kind()) {
            // So are the entries of all blocks after this one, of which there may be millions.
            _ if is_past_the_table(&error) => image.map_or(0, Image::virtual_disk_size),
            // The bytes that the file has not got, and nothing else of the block.
            (Structure::PayloadBlock(_) | Structure::File, ErrorKind::OutOfBounds { length, .. }) => {
                start.saturating_add(*length)
            }
            _ => start.saturating_add(1).next_multiple_of(image.map_or(1 << 20, Image::block_size)),
        };
        // What a layer above has is not lost with what it would hide.
        let above = self.top.iter().chain(&self.parents).take(layer).map(Answer::end);
        let end = above.fold(self.end.min(lost_end), u64::min);
        self.lost = Some(error);
        let length = end.saturating_sub(start).max(1);
        Ok(Run { start, len: length, layer, state: None, at: Location::Lost })
    }

    /// What a layer has at the position. Every layer above it has been asked, and has nothing.
    #[inline]
    fn ask(&mut self, layer: usize, image: &Image) -> Result<Answer> {
        let start = self.position;
        let known = match layer.checked_sub(1) {
            None => self.top,
            Some(parent) => self.parents.get(parent).copied(),
        };
        if let Some(answer) = known.filter(|answer| answer.end() > start) {
            return Ok(answer);
        }
        self.layers_asked = self.layers_asked.max(layer.saturating_add(1));
        // Asked for all that is left, not only for what the layers above leave to it.
        let most = self.end.min(image.virtual_disk_size()).saturating_sub(start);
        let lookup = image.lookup(start, most).map_err(|error| error.in_layer(layer, image.path()))?;
        let end = start.saturating_add(lookup.length());
        let kept_from = if layer < FEW_LAYERS {
            image.forget_bat(known.map_or(start, |answer| answer.kept_from), start)
        } else {
            image.forget_all_bat(start, end);
            end
        };
        let answer = Answer { start, lookup, kept_from };
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
fn is_past_the_table(error: &Error) -> bool {
    match (error.structure(), error.offset(), error.kind()) {
        (Structure::PayloadBatEntry(_), Some(offset), ErrorKind::OutOfBounds { length, limit }) => {
            offset.saturating_add(*length) > *limit
        }
        _ => false,
    }
}

/// The runs of a range, in order, as they are found: neighbours may go on in the same place. Made by [`Disk::runs`].
#[derive(Clone, Debug)]
pub struct Runs<D> {
    disk: D,
    walk: Walk,
}

impl<D: Deref<Target = Disk>> Runs<D> {
    /// The runs of a range of bytes of the disk: [`Disk::runs`], for any owner of a disk.
    pub fn new(disk: D, range: impl RangeBounds<u64>) -> Self {
        let (start, end) = disk.bounds(range);
        Self { disk, walk: Walk::new(start, end) }
    }
}

impl<D: Deref<Target = Disk>> Iterator for Runs<D> {
    type Item = Result<Run>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.walk.next(&self.disk)
    }
}

impl<D: Deref<Target = Disk>> FusedIterator for Runs<D> {}

/// The extents of a range, in order: runs that are as long as can be. Made by [`Disk::extents`].
#[derive(Clone, Debug)]
pub struct Extents<D>(Runs<D>);

impl<D: Deref<Target = Disk>> Extents<D> {
    /// The extents of a range of bytes of the disk: [`Disk::extents`], for any owner of a disk.
    pub fn new(disk: D, range: impl RangeBounds<u64>) -> Self {
        Self(Runs::new(disk, range))
    }
}

impl<D: Deref<Target = Disk>> Iterator for Extents<D> {
    type Item = Result<Run>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.walk.next_joined(&self.0.disk, Run::is_one_extent)
    }
}

impl<D: Deref<Target = Disk>> FusedIterator for Extents<D> {}
