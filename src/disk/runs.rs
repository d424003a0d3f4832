//! The resolver: maps offsets of the disk to layers and file offsets. All reads and maps use it.

use std::iter::FusedIterator;
use std::ops::{Deref, Range, RangeBounds};

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::PayloadBlockState;
use crate::image::{BlockLookup, Image};
use crate::source::{Source, Stored, losses_known};

use super::{Disk, Layer};

/// Number of layers that keep the part of their BAT that was read last. Layers further down give it back at once: the
/// system may map 2 MiB of a file for one byte of it, and a chain may have hundreds of files.
pub(super) const FEW_LAYERS: usize = 16;

/// Run: a part of the disk that one layer defines, contiguous in one location.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Offset of the run in the disk, in bytes.
    pub start: u64,
    /// Length in bytes, at least 1.
    pub len: u64,
    /// The layer that defines the run: 0 is the opened image.
    pub layer: usize,
    /// State of the block in that layer. `None` past the end of a parent that is smaller than its child, and if the
    /// state is unknown.
    pub state: Option<PayloadBlockState>,
    /// Location of the bytes.
    pub at: Location,
}

/// Location of the bytes of a run.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// In the layer's file, at this file offset.
    File(u64),
    /// In the layer's log, which writes them to this file offset.
    Log(u64),
    /// Zeros: unallocated, or zero by the state of the block or by a replay.
    Zero,
    /// Lost: cannot be read, and reads as zeros. Only in a salvage.
    Lost,
}

impl Location {
    /// Returns the location `length` bytes further on.
    pub(crate) fn after(self, length: u64) -> Self {
        match self {
            Self::File(offset) => Self::File(offset.saturating_add(length)),
            Self::Log(offset) => Self::Log(offset.saturating_add(length)),
            Self::Zero | Self::Lost => self,
        }
    }
}

impl Run {
    /// Returns the end of the run in the disk, in bytes.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Returns the file offset of the run in the layer's file, in bytes. Returns `None` if the bytes are not in the
    /// file.
    #[must_use]
    pub fn file_offset(&self) -> Option<u64> {
        match self.at {
            Location::File(offset) => Some(offset),
            Location::Log(_) | Location::Zero | Location::Lost => None,
        }
    }

    /// Returns whether a file or its log has bytes for the run. Other runs read as zeros.
    #[must_use]
    pub fn is_data(&self) -> bool {
        matches!(self.at, Location::File(_) | Location::Log(_))
    }

    /// Returns whether some layer defines the content, as data or as zeros. Runs that are not present are zero because
    /// they were never written.
    #[must_use]
    pub fn is_present(&self) -> bool {
        !matches!(self.state, None | Some(PayloadBlockState::NotPresent))
    }

    /// Returns the rest of the run after its first `length` bytes, if any.
    pub(crate) fn after(&self, length: u64) -> Option<Self> {
        let left = self.len.checked_sub(length).filter(|left| *left > 0)?;
        Some(Self { start: self.start.saturating_add(length), len: left, at: self.at.after(length), ..*self })
    }

    /// Returns whether `next` follows this run in the same file or log.
    pub(super) fn goes_on_in(&self, next: &Self) -> bool {
        self.layer == next.layer && self.is_data() && self.at.after(self.len) == next.at
    }

    /// Returns whether both are one extent.
    fn is_one_extent(&self, next: &Self) -> bool {
        let both_zero = !self.is_data() && self.at == next.at;
        (self.goes_on_in(next) || both_zero) && self.layer == next.layer && self.state == next.state
    }
}

/// A run of one layer.
#[derive(Clone, Copy, Debug)]
struct Answer {
    start: u64,
    lookup: BlockLookup,
    /// Start of the part of the BAT that was read and not given back.
    kept_from: u64,
}

impl Answer {
    /// Returns the end of the run.
    fn end(&self) -> u64 {
        self.start.saturating_add(self.lookup.length())
    }
}

/// Walk over a range of a disk: it looks at each layer's part of the range at most once. The run of a layer is kept
/// until it is used up, however finely the other layers cut it. The disk is an argument of each call, so its owner can
/// be of any type.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    start: u64,
    position: u64,
    end: u64,
    /// Last run of the opened image. A field of its own, since most disks have no other layer and need no vector.
    top: Option<Answer>,
    /// Last runs of the parents.
    parents: Vec<Answer>,
    /// Why the last run is lost, if it is.
    lost: Option<Error>,
    /// Number of bytes in lost runs so far.
    lost_bytes: u64,
    /// Number of losses that were known when the walk began: it has met none of these without reporting it.
    losses_known: usize,
    /// Offset from which on the map is unknown, since the last item was an error.
    failed_at: u64,
    /// Number of layers that were asked for anything.
    layers_asked: usize,
    /// Number of layers that may be asked. What they leave to their parents is a run of the next layer, in no state.
    most_layers: usize,
    /// The item that was fetched in advance, to find out whether a run continues.
    next: Option<Option<Result<Run>>>,
}

impl Walk {
    /// Makes a walk over a range that is inside the disk.
    pub(super) fn new(start: u64, end: u64) -> Self {
        Self {
            start,
            position: start,
            end,
            top: None,
            parents: Vec::new(),
            lost: None,
            lost_bytes: 0,
            losses_known: losses_known(),
            failed_at: end,
            layers_asked: 0,
            most_layers: usize::MAX,
            next: None,
        }
    }

    /// Returns the range in which the map is unknown, if the last item was an error.
    pub(super) fn unknown(&self) -> Range<u64> {
        self.failed_at..self.end
    }

    /// Returns why the last run is lost.
    pub(super) fn take_lost(&mut self) -> Option<Error> {
        self.lost.take()
    }

    /// Returns the next run. An error is the last item. It replaces the last run if the tables were not complete.
    #[inline]
    pub(super) fn next(&mut self, disk: &Disk) -> Option<Result<Run>> {
        if let Some(next) = self.next.take() {
            return next;
        }
        if self.position >= self.end {
            return None;
        }
        if self.position == self.start && disk.is_salvaged() {
            // A salvage lists what is lost instead of failing, so it has to know that in advance.
            if let Err(error) = disk.are_whole(disk.layers().len(), Source::is_mapped) {
                return Some(Err(self.fail_at(self.start, error)));
            }
            self.losses_known = losses_known();
        }
        let run = self.step(disk).map_err(|error| self.fail_at(self.position, error));
        // Checked before the last item is returned, since a caller who knows the end of the range does not ask for
        // another one. An invalid value may be zeros that replace lost bytes.
        if self.position >= self.end
            && let Err(lost) = self.check_tables(disk)
        {
            return Some(Err(lost));
        }
        Some(run)
    }

    /// Ends the walk: the map is unknown from `position` on.
    #[cold]
    fn fail_at(&mut self, position: u64, error: Error) -> Error {
        self.failed_at = position;
        self.position = self.end;
        error
    }

    /// Checks that the tables were read as they are in the files. The rest of the last page of a truncated file reads
    /// as zeros without a signal.
    #[inline]
    fn check_tables(&mut self, disk: &Disk) -> Result<()> {
        let looked = disk.are_whole(self.layers_asked, Source::is_mapped);
        if looked.is_ok() && losses_known() == self.losses_known {
            return Ok(());
        }
        match looked {
            Ok(_) => self.repeat(disk),
            Err(error) => Err(self.fail_at(self.start, error)),
        }
    }

    /// Returns the run at the position, and advances past it.
    #[inline]
    fn step(&mut self, disk: &Disk) -> Result<Run> {
        let run = self.run(disk).or_else(|error| self.lose(disk, error))?;
        self.position = run.end();
        if run.at == Location::Lost {
            self.lost_bytes = self.lost_bytes.saturating_add(run.len);
        }
        Ok(run)
    }

    /// Repeats the walk, since losses were found while it was under way: it may have read lost bytes of the tables as
    /// zeros. A walk that knows the losses does not.
    ///
    /// # Errors
    /// Fails if the walk has reported a wrong run, or fails itself.
    #[cold]
    fn repeat(&mut self, disk: &Disk) -> Result<()> {
        loop {
            let mut again = Self { most_layers: self.most_layers, ..Self::new(self.start, self.end) };
            let mut lost = None;
            while again.position < again.end {
                again.step(disk).map_err(|error| self.fail_at(again.position, error))?;
                lost = lost.or(again.take_lost().filter(|error| matches!(error.kind(), ErrorKind::Lost)));
            }
            if again.lost_bytes != self.lost_bytes
                && let Some(lost) = lost
            {
                return Err(self.fail_at(self.start, lost));
            }
            self.layers_asked = self.layers_asked.max(again.layers_asked);
            // Each repetition is due to another loss: a file that became even shorter.
            let looked = disk.are_whole(self.layers_asked, Source::is_mapped);
            looked.map_err(|error| self.fail_at(self.start, error))?;
            if losses_known() == again.losses_known {
                return Ok(());
            }
        }
    }

    /// Returns the next run, joined with all following ones for which `are_one` is true.
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
        for (layer, image) in disk.layers().iter().map(Layer::image).enumerate().take(self.most_layers) {
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
        if self.most_layers <= disk.layers().len() {
            let (layer, len) = (self.most_layers, end.saturating_sub(start));
            return Ok(Run { start, len, layer, state: None, at: Location::Zero });
        }
        let layer = self.parents.len();
        let unattached = || Error::of(Structure::Parent, ErrorKind::NoParentAttached).in_layer(layer, None);
        if disk.is_salvaged() {
            self.lost = Some(disk.missing.clone().unwrap_or_else(unattached));
            return Ok(Run { start, len: end.saturating_sub(start), layer, state: None, at: Location::Lost });
        }
        // A disk that was opened without its parents has only its own content.
        Err(unattached())
    }

    /// Returns the range that cannot be read as lost: to the end of the block, since later blocks may be readable.
    #[cold]
    fn lose(&mut self, disk: &Disk, error: Error) -> Result<Run> {
        if !disk.is_salvaged() {
            return Err(error);
        }
        let (start, layer) = (self.position, error.layer());
        let image = disk.layers().get(layer).map(Layer::image);
        let lost_end = match (error.structure(), error.kind()) {
            // The entries of all blocks after this one are missing, too; there may be millions of them.
            _ if is_past_the_table(&error) => image.map_or(0, Image::virtual_disk_size),
            // Only the bytes that are missing in the file, not the rest of the block.
            (Structure::PayloadBlock(_) | Structure::File, ErrorKind::OutOfBounds { length, .. }) => {
                start.saturating_add(*length)
            }
            _ => start.saturating_add(1).next_multiple_of(image.map_or(1 << 20, Image::block_size)),
        };
        // Content of the layers above hides this loss.
        let above = self.top.iter().chain(&self.parents).take(layer).map(Answer::end);
        let end = above.fold(self.end.min(lost_end), u64::min);
        self.lost = Some(error);
        let length = end.saturating_sub(start).max(1);
        Ok(Run { start, len: length, layer, state: None, at: Location::Lost })
    }

    /// Returns the run of a layer at the position. All layers above it leave the content to their parents.
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
        // Asks for all that is left of the range, not only for the part that the layers above leave to this one.
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

/// Returns whether the error is that the table ends before the entry of a block.
fn is_past_the_table(error: &Error) -> bool {
    match (error.structure(), error.offset(), error.kind()) {
        (Structure::PayloadBatEntry(_), Some(offset), ErrorKind::OutOfBounds { length, limit }) => {
            offset.saturating_add(*length) > *limit
        }
        _ => false,
    }
}

/// Iterator over the runs of a range, in order, as they are found: neighbours may be contiguous. Made by
/// [`Disk::runs`].
#[derive(Clone, Debug)]
pub struct Runs<D> {
    disk: D,
    walk: Walk,
}

impl<D: Deref<Target = Disk>> Runs<D> {
    /// Makes an iterator over the runs of a range of the disk, for any owner of a disk. See [`Disk::runs`].
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

/// Iterator over the extents of a range, in order: runs that are as long as possible. Made by [`Disk::extents`].
#[derive(Clone, Debug)]
pub struct Extents<D>(Runs<D>);

impl<D: Deref<Target = Disk>> Extents<D> {
    /// Makes an iterator over the extents of a range of the disk, for any owner of a disk. See [`Disk::extents`].
    pub fn new(disk: D, range: impl RangeBounds<u64>) -> Self {
        Self(Runs::new(disk, range))
    }

    /// Makes an iterator over the extents of a range of the disk that asks only the first `layers` layers.
    pub(crate) fn above(disk: D, range: impl RangeBounds<u64>, layers: usize) -> Self {
        let mut runs = Runs::new(disk, range);
        runs.walk.most_layers = layers;
        Self(runs)
    }
}

impl<D: Deref<Target = Disk>> Iterator for Extents<D> {
    type Item = Result<Run>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.walk.next_joined(&self.0.disk, Run::is_one_extent)
    }
}

impl<D: Deref<Target = Disk>> FusedIterator for Extents<D> {}
