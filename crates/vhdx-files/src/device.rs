//! What the readers of file systems read: a range of a disk, with bounds on the work of each call.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use vhdx_mmap::ops::Volume as Kind;

use crate::error::{Error, Result};
use crate::storage::Storage;

/// Most bytes that the structures for one call may take. A directory of two million files stays below.
const MOST_BYTES: u64 = 256 << 20;

/// What a read costs besides its bytes, in bytes.
const COST_OF_READ: u64 = 512;

/// What the current call of a reader may still read, and the first error of the disk that it met. Readers pass errors
/// on as text, if at all, so the error itself waits here.
#[derive(Debug, Default)]
struct Call {
    left: Option<u64>,
    failed: Option<Error>,
}

thread_local! {
    static CALL: RefCell<Call> = RefCell::default();
}

/// Returns whether a reader of file systems runs on this thread whose panics are caught and become errors. A panic
/// hook can leave them out.
#[must_use]
pub fn is_panic_caught() -> bool {
    CALL.try_with(|call| call.try_borrow().is_ok_and(|call| call.left.is_some())).unwrap_or(false)
}

/// Calls a reader: with a limit of what it may read, with the errors of the disk as they are, and with its panics as
/// errors.
pub(crate) fn call<T, E: Display>(
    kind: Kind,
    to_error: impl FnOnce(E) -> Error,
    work: impl FnOnce() -> std::result::Result<T, E>,
) -> Result<T> {
    call_within(kind, 0, to_error, work)
}

/// As [`call`], for a reader that may read `more` bytes than others, such as a journal.
pub(crate) fn call_within<T, E: Display>(
    kind: Kind,
    more: u64,
    to_error: impl FnOnce(E) -> Error,
    work: impl FnOnce() -> std::result::Result<T, E>,
) -> Result<T> {
    let left = Some(MOST_BYTES.saturating_add(more));
    let outer = CALL.with_borrow_mut(|call| std::mem::replace(call, Call { left, failed: None }));
    let done = catch_unwind(AssertUnwindSafe(work));
    let failed = CALL.with_borrow_mut(|call| std::mem::replace(call, outer)).failed;
    match (done, failed) {
        // A reader that swallowed the error of a read would go on with something else than the disk holds.
        (_, Some(failed)) => Err(failed),
        (Ok(Ok(value)), None) => Ok(value),
        (Ok(Err(error)), None) => Err(to_error(error)),
        (Err(_), None) => Err(Error::damaged(kind, "the reader of the file system gave up on its structures")),
    }
}

/// Storage as a device. It is never written.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    storage: Storage,
    cache: Arc<Cache>,
}

impl Device {
    pub(crate) fn new(storage: Storage) -> Self {
        Self { storage, cache: Arc::default() }
    }

    pub(crate) fn range(&self) -> &Storage {
        &self.storage
    }

    /// Fails if a part of the storage is lost. Of a salvaged disk, lost ranges read as zeros, which are not what a file
    /// holds.
    pub(crate) fn check_lost(storage: &Storage, offset: u64, length: u64) -> Result<()> {
        let disk = storage.disk();
        if !disk.is_salvaged() {
            return Ok(());
        }
        let mut ranges = storage.in_disk(offset..offset.saturating_add(length));
        match ranges.find_map(|(_, range)| disk.losses(range).next()) {
            Some(loss) => Err(Error::Disk(loss.reason)),
            None => Ok(()),
        }
    }

    /// Fills `buffer` with the bytes at `offset`, of the structures of the file system.
    pub(crate) fn fill(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let length = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        let spend = CALL.with_borrow_mut(|call| match &mut call.left {
            None => true,
            Some(left) => {
                *left = left.saturating_sub(length.saturating_add(COST_OF_READ));
                *left > 0
            }
        });
        let done = if spend {
            let read = match self.cache.read_at(&self.storage, buffer, offset) {
                true => Ok(buffer.len()),
                false => self.storage.read_at(buffer, offset).map_err(Error::Disk),
            };
            read.and_then(|read| Self::check_lost(&self.storage, offset, length).map(|()| read))
        } else {
            Err(Error::TooMuchWork)
        };
        match done {
            Ok(read) if read == buffer.len() => Ok(()),
            // Readers look for structures where damaged ones send them, so this is theirs to judge.
            Ok(_) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Err(error) => {
                let told = io::Error::other(error.to_string());
                CALL.with_borrow_mut(|call| {
                    call.failed.get_or_insert(error);
                });
                Err(told)
            }
        }
    }
}

/// The pieces of a volume that were read last. Structures are small, and near one another: the records of a directory's
/// files, each of which is asked for several times.
#[derive(Debug, Default)]
struct Cache(Mutex<VecDeque<(u64, Arc<[u8]>)>>);

impl Cache {
    /// Length of a piece, in bytes. Each begins at a multiple of it.
    const PIECE: u64 = 16 << 10;
    /// Most pieces that are kept.
    const MOST: usize = 32;
    /// Longest read that is answered from pieces, in bytes.
    const LONGEST: u64 = 4 << 10;

    /// Fills `buffer` from the piece around it, and returns whether it could. What could not be read is for the caller
    /// to read: an error is that of the bytes that were asked for, not of their neighbours.
    fn read_at(&self, storage: &Storage, buffer: &mut [u8], offset: u64) -> bool {
        let length = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        let skipped = offset.checked_rem(Self::PIECE).unwrap_or(0);
        if length > Self::LONGEST || skipped.saturating_add(length) > Self::PIECE {
            return false;
        }
        let start = offset.saturating_sub(skipped);
        let Some(piece) = self.piece(storage, start) else { return false };
        let from = usize::try_from(skipped).unwrap_or(usize::MAX);
        let Some(bytes) = piece.get(from..from.saturating_add(buffer.len())) else { return false };
        buffer.copy_from_slice(bytes);
        true
    }

    fn piece(&self, storage: &Storage, start: u64) -> Option<Arc<[u8]>> {
        let pieces = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = pieces().iter().find(|(at, _)| *at == start).map(|(_, piece)| Arc::clone(piece));
        if kept.is_some() {
            return kept;
        }
        let mut piece = vec![0; usize::try_from(Self::PIECE).unwrap_or(0)];
        let read = storage.read_at(&mut piece, start).ok()?;
        piece.truncate(read);
        let piece: Arc<[u8]> = piece.into();
        let mut pieces = pieces();
        if pieces.len() >= Self::MOST {
            pieces.pop_front();
        }
        pieces.push_back((start, Arc::clone(&piece)));
        Some(piece)
    }
}

impl fs_core::BlockRead for Device {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> fs_core::Result<()> {
        self.fill(offset, buffer).map_err(fs_core::Error::Io)
    }

    fn size_bytes(&self) -> u64 {
        self.storage.size()
    }
}

impl fs_core::BlockDevice for Device {}
