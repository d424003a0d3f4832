//! Contents of files: bytes of the disk where they lie, or what a reader makes of them.

use std::fmt;

use vhdx_mmap::ops::Volume as Kind;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Offset in the file, in bytes.
    pub start: u64,
    /// Length in bytes, at least 1.
    pub length: u64,
    /// Where it lies: the offset in the volume, in bytes; none if it reads as zeros.
    pub at: Option<u64>,
}

/// Reads bytes: of content that lies in runs from an offset of the volume, otherwise from an offset of the content.
pub(crate) type Read<'v> = Box<dyn Fn(u64, &mut [u8]) -> Result<()> + Send + Sync + 'v>;

/// Content of a file, opened for reading.
pub struct Content<'v> {
    size: u64,
    /// From offset 0 to the size, without a gap. Content that lies nowhere as it is, is one run that begins at 0.
    runs: Vec<Run>,
    read: Read<'v>,
    /// The volume, if the bytes of the runs are those of the disk.
    volume: Option<&'v Storage>,
}

impl fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("size", &self.size).field("runs", &self.runs).finish_non_exhaustive()
    }
}

impl<'v> Content<'v> {
    /// Makes content of the runs with data, in order; what is between them reads as zeros.
    pub(crate) fn of_runs(
        kind: Kind,
        size: u64,
        device: &'v Device,
        data: impl IntoIterator<Item = Run>,
    ) -> Result<Self> {
        let volume = device.range();
        let read = move |at: u64, buffer: &mut [u8]| match volume.read_at(buffer, at)? {
            read if read == buffer.len() => Device::check_lost(volume, at, u64::try_from(read).unwrap_or(u64::MAX)),
            _ => Err(Error::damaged(kind, "content lies outside of the volume")),
        };
        let runs = complete(kind, size, volume.size(), data)?;
        Ok(Self { size, runs, read: Box::new(read), volume: Some(volume) })
    }

    /// As [`Content::of_runs`], but what lies in the runs is not read from the disk alone: a journal has changed it.
    pub(crate) fn of_changed_runs(
        kind: Kind,
        size: u64,
        volume_size: u64,
        data: impl IntoIterator<Item = Run>,
        read: Read<'v>,
    ) -> Result<Self> {
        Ok(Self { size, runs: complete(kind, size, volume_size, data)?, read, volume: None })
    }

    /// Makes content that a reader reads. It is asked for ranges inside the content alone.
    pub(crate) fn of_reader(size: u64, read: Read<'v>) -> Self {
        let runs = if size == 0 { Vec::new() } else { vec![Run { start: 0, length: size, at: Some(0) }] };
        Self { size, runs, read, volume: None }
    }

    /// Makes content of bytes.
    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Self {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let read = move |offset: u64, buffer: &mut [u8]| {
            let from = usize::try_from(offset).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
            buffer.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            Ok(())
        };
        Self::of_reader(size, Box::new(read))
    }

    /// Returns the length, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the runs of the content, in order and without gaps, and the volume that their places belong to; none if
    /// the content does not lie in the volume as it is.
    #[must_use]
    pub fn runs(&self) -> Option<(&'v Storage, &[Run])> {
        self.volume.map(|volume| (volume, self.runs.as_slice()))
    }

    /// Returns the run at `offset`, cut to begin there: its length, and whether it may hold anything but zeros. None at
    /// the end.
    #[must_use]
    pub fn run_at(&self, offset: u64) -> Option<(u64, bool)> {
        self.run(offset).map(|run| (run.length, run.at.is_some()))
    }

    fn run(&self, offset: u64) -> Option<Run> {
        let index = self.runs.partition_point(|run| run.start.saturating_add(run.length) <= offset);
        let run = self.runs.get(index)?;
        let skipped = offset.saturating_sub(run.start);
        let length = run.length.saturating_sub(skipped);
        Some(Run { start: offset, length, at: run.at.map(|at| at.saturating_add(skipped)) })
    }

    /// Copies bytes from `offset` on into `buffer`, and returns their number: the length of `buffer`, or fewer at the
    /// end of the content.
    ///
    /// # Errors
    /// Fails if the disk cannot be read there, and if a reader finds the content damaged.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let rest = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let most = rest.min(buffer.len());
        let mut buffer = buffer.get_mut(..most).unwrap_or_default();
        let mut offset = offset;
        while let Some(run) = (!buffer.is_empty()).then(|| self.run(offset)).flatten() {
            let length = usize::try_from(run.length).unwrap_or(usize::MAX).min(buffer.len());
            let (piece, behind) = buffer.split_at_mut(length);
            match run.at {
                None => piece.fill(0),
                Some(at) => (self.read)(at, piece)?,
            }
            buffer = behind;
            offset = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        }
        Ok(most)
    }
}

/// Completes runs with data to runs of all of the content, and refuses what no sound file has.
fn complete(kind: Kind, size: u64, volume: u64, data: impl IntoIterator<Item = Run>) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let mut push = |run: Run| {
        if run.length == 0 {
            return;
        }
        match runs.last_mut() {
            Some(last) if continues(last, &run) => last.length = last.length.saturating_add(run.length),
            _ => runs.push(run),
        }
    };
    let mut end = 0_u64;
    for run in data {
        if run.start < end {
            return Err(Error::damaged(kind, "pieces of a file overlap"));
        }
        // What is allocated behind the end of the content is no part of it.
        let stop = run.start.saturating_add(run.length).min(size);
        let length = stop.saturating_sub(run.start);
        if length == 0 {
            continue;
        }
        if run.at.is_some_and(|at| at.checked_add(length).is_none_or(|behind| behind > volume)) {
            return Err(Error::damaged(kind, "a piece of a file lies outside of the volume"));
        }
        push(Run { start: end, length: run.start.saturating_sub(end), at: None });
        push(Run { length, ..run });
        end = stop;
    }
    push(Run { start: end, length: size.saturating_sub(end), at: None });
    Ok(runs)
}

fn continues(last: &Run, next: &Run) -> bool {
    match (last.at, next.at) {
        (None, None) => true,
        (Some(last_at), Some(at)) => last_at.checked_add(last.length) == Some(at),
        _ => false,
    }
}
