//! Bytes of a disk that keep the disk alive: for other threads, other languages, and data that outlives a stack frame.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::Result;
use crate::num::{to_u64, to_usize_saturating};
use crate::source::Bytes;
use crate::zero::{ZERO_PAGES_LEN, zero_pages};

use super::runs::{Location, Run};
use super::{Disk, Layer};

/// Bytes borrowed from a disk, with a share in the disk: `'static`, cheap to clone, and never copied. Made by
/// [`Disk::shared_slice`].
///
/// The bytes of a mapped file are the pages of the file. [`SharedBytes::check_lost`], called after they were used,
/// returns whether they were valid.
#[derive(Clone)]
pub struct SharedBytes {
    disk: Arc<Disk>,
    /// Location of the bytes: in one file, in one sector of a log, or zeros that fit into the zero pages.
    run: Run,
}

impl SharedBytes {
    /// Borrows up to `length` contiguous bytes from `offset` on. Returns `None` past the end of the disk.
    pub(super) fn new(disk: &Arc<Disk>, offset: u64, length: u64) -> Result<Option<Self>> {
        let found = match disk.run_at_once(offset, length) {
            Some(run) => Some(run),
            None => disk.runs_in_files(disk.bounds(offset..offset.saturating_add(length))).next().transpose()?,
        };
        let Some(run) = found else { return Ok(None) };
        let length = match disk.borrow_run(&run)? {
            Bytes::Data(bytes) => to_u64(bytes.len()),
            Bytes::Zero(length) => length.min(to_u64(ZERO_PAGES_LEN)),
        };
        Ok(Some(Self { disk: Arc::clone(disk), run: Run { len: length, ..run } }))
    }

    /// Returns the disk.
    #[must_use]
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Returns the offset of the bytes in the disk.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.run.start
    }

    /// Returns the run of the bytes: where they are, and in which layer. Its length is that of the bytes.
    #[must_use]
    pub fn run(&self) -> Run {
        self.run
    }

    /// Checks that the bytes that were read before this call were those of the file. See [`Disk::check_lost`].
    ///
    /// # Errors
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost).
    pub fn check_lost(&self) -> Result<()> {
        self.disk.check_lost(self.run.start..self.run.end())
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some(image) = self.disk.layers().get(self.run.layer).map(Layer::image) else {
            return zero_pages(self.run.len);
        };
        let bytes = match self.run.at {
            Location::File(offset) => image.source().borrow(offset, self.run.len),
            // Changes of a log are in memory, and stay there.
            Location::Log(_) => match self.disk.borrow_run(&self.run) {
                Ok(Bytes::Data(bytes)) => bytes.get(..to_usize_saturating(self.run.len)),
                _ => None,
            },
            Location::Zero | Location::Lost => Some(zero_pages(self.run.len)),
        };
        // They were borrowed when this was made, and nothing has changed since.
        bytes.unwrap_or_default()
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBytes").field("run", &self.run).finish_non_exhaustive()
    }
}
