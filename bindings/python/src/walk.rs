//! The runs of a range of a disk, whole or cut into blocks.

use std::sync::Arc;

use vhdx_mmap::{Disk, Extents, Location, Run};

/// Names of the kinds of what lies at a range of a disk.
pub(crate) const KINDS: [&str; 4] = ["data", "log", "zero", "lost"];

/// The number of a kind in [`KINDS`].
pub(crate) fn kind_of(run: &Run) -> i8 {
    match run.at {
        Location::File(_) => 0,
        Location::Log(_) => 1,
        Location::Zero => 2,
        _ => 3,
    }
}

/// What rows are about: a range of a disk, by extents or by blocks, with or without the bytes.
#[derive(Clone)]
pub(crate) struct Selection {
    pub(crate) disk: Arc<Disk>,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) block_size: Option<u64>,
    pub(crate) has_payload: bool,
    pub(crate) calls_python: bool,
}

impl Selection {
    pub(crate) fn walk(&self) -> Walk {
        let extents = Extents::new(Arc::clone(&self.disk), self.start..self.end);
        Walk { extents, block_size: self.block_size, rest: None }
    }
}

/// Runs of a range, cut at the ends of blocks if there is a block size.
pub(crate) struct Walk {
    extents: Extents<Arc<Disk>>,
    block_size: Option<u64>,
    /// What comes before the next extent: the rest of a run that was cut, or what was looked at already.
    pub(crate) rest: Option<vhdx_mmap::Result<Run>>,
}

impl Walk {
    /// Returns the number of the block that a run begins in.
    pub(crate) fn block_of(&self, run: &Run) -> Option<u64> {
        self.block_size.and_then(|size| run.start.checked_div(size))
    }

    /// Returns the next run, and the number of its rows: one, or as many whole blocks of one kind as `most` allows.
    pub(crate) fn next_rows(&mut self, most: u64) -> Option<vhdx_mmap::Result<(Run, u64)>> {
        let Some(size) = self.block_size else { return Some(self.next()?.map(|run| (run, 1))) };
        let run = match self.rest.take().map_or_else(|| self.extents.next(), Some)? {
            Ok(run) => run,
            Err(error) => return Some(Err(error)),
        };
        let rows = run.len.checked_div(size).unwrap_or(0).min(most);
        if rows < 2 || run.start.checked_rem(size) != Some(0) {
            self.rest = Some(Ok(run));
            return Some(self.next()?.map(|run| (run, 1)));
        }
        let (head, tail) = split(run, rows.saturating_mul(size));
        self.rest = (tail.len > 0).then_some(Ok(tail));
        Some(Ok((head, rows)))
    }
}

/// Splits a run after its first `length` bytes.
pub(crate) fn split(run: Run, length: u64) -> (Run, Run) {
    let (mut head, mut tail) = (run, run);
    head.len = length;
    tail.start = run.start.saturating_add(length);
    tail.len = run.len.saturating_sub(length);
    tail.at = match run.at {
        Location::File(offset) => Location::File(offset.saturating_add(length)),
        Location::Log(offset) => Location::Log(offset.saturating_add(length)),
        at => at,
    };
    (head, tail)
}

impl Iterator for Walk {
    type Item = vhdx_mmap::Result<Run>;

    fn next(&mut self) -> Option<Self::Item> {
        let run = match self.rest.take().map_or_else(|| self.extents.next(), Some)? {
            Ok(run) => run,
            Err(error) => return Some(Err(error)),
        };
        let Some(within) = self.block_size.and_then(|size| run.start.checked_rem(size)) else { return Some(Ok(run)) };
        let most = self.block_size.unwrap_or(run.len).saturating_sub(within);
        if run.len <= most {
            return Some(Ok(run));
        }
        let (head, tail) = split(run, most);
        self.rest = Some(Ok(tail));
        Some(Ok(head))
    }
}
