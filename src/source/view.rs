//! The one gate to the bytes of a file: every range is checked here, and replayed changes are folded in here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use zerocopy::FromBytes;

use super::overlay::{Overlay, Stored};
use super::pages::TablePages;
use super::{Source, to_u64, to_usize_saturating};
use crate::error::{Error, ErrorKind, Result, Structure};

/// Longer structures are asked for as a whole before they are looked at page by page, in bytes.
const SEVERAL_PAGES: u64 = 16 << 10;

/// A file as it would be after the replay of its log.
#[derive(Debug)]
pub(crate) struct View {
    source: Source,
    overlay: Overlay,
    length: u64,
    /// Up to where the file once had content; what it does not have of that any more is lost, and not zero.
    had: u64,
    /// Of a source that does not lend: what an opening has asked for at once, with its place.
    preloaded: Vec<(u64, Vec<u8>)>,
    /// Of a source that does not lend: parts of tables.
    pages: TablePages,
    failed: Arc<FailedReads>,
}

/// Reads of structures that have failed. Who asked may have done without: of two copies, one is enough, and a log entry that
/// can't be read looks like the end of the log. Of a mapping, the record of lost pages says the same.
#[derive(Debug, Default)]
pub(crate) struct FailedReads(Mutex<BTreeMap<u64, Error>>);

impl FailedReads {
    /// Structures that there are twice have 64 KiB of their own each, in the first 320 KiB: failures are kept apart by that.
    pub(crate) const SLOT: u64 = 64 << 10;

    fn note(&self, error: Error) -> Error {
        let slot = error.offset().map_or(u64::MAX, |offset| offset / Self::SLOT).min(8);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(slot).or_insert_with(|| error.clone());
        error
    }

    /// The first failure that is none in these slots of 64 KiB, which are among the first eight.
    pub(crate) fn first_but_for(&self, slots: &[u64]) -> Option<Error> {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.iter().find(|(slot, _)| !slots.contains(slot)).map(|(_, error)| error.clone())
    }
}

/// Bytes that lie together, or are known to be zero without being anywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bytes<'a> {
    Data(&'a [u8]),
    Zero(u64),
}

impl View {
    /// The file as it is.
    pub(crate) fn new(source: Source) -> Self {
        let length = source.len();
        let (overlay, pages, failed) = (Overlay::default(), TablePages::default(), Arc::default());
        Self { source, overlay, length, had: 0, preloaded: Vec::new(), pages, failed }
    }

    /// Gets `length` bytes at `offset` in one request, since all of them are about to be looked at.
    pub(crate) fn preload(&mut self, offset: u64, length: u64) {
        if self.source.can_borrow() {
            self.will_need(offset, length);
            return;
        }
        let length = self.source.len().saturating_sub(offset).min(length);
        let mut bytes = vec![0; to_usize_saturating(length)];
        // Where that fails, each structure is asked for by itself, and says what is wrong.
        if self.source.read_exact_at(offset, &mut bytes).is_ok() {
            self.preloaded.push((offset, bytes));
        }
    }

    /// Gives back what was preloaded.
    pub(crate) fn release_preloaded(&mut self) {
        self.preloaded = Vec::new();
    }

    /// Folds in the changes of a log, after which the file is at least `length` bytes long. What that adds is zero, but for
    /// what the file `had` before: that is missing. Where it has lost some of that, nobody knows what was behind it.
    pub(crate) fn replay(&mut self, overlay: Overlay, length: u64, had: u64) {
        self.length = self.length.max(length).max(overlay.end());
        self.had = if self.source.len() < had { self.length } else { had };
        self.overlay = overlay;
    }

    /// The reads of structures that fail, also while the view belongs to somebody else.
    pub(crate) fn failed_reads(&self) -> Arc<FailedReads> {
        Arc::clone(&self.failed)
    }

    /// CRC-32C of all changes of a replay; none if there are none.
    pub(crate) fn overlay_crc32c(&self) -> Option<u32> {
        (!self.overlay.is_empty()).then(|| self.overlay.crc32c())
    }

    /// The file beneath.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Length in bytes, with what a replay adds.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Where the file ends that is really there, with what a replay adds where nothing is missing before it.
    pub(crate) fn file_end(&self) -> u64 {
        if self.source.len() < self.had { self.source.len() } else { self.length }
    }

    /// Whether all the bytes from `start` to `end` can be had.
    pub(crate) fn has(&self, start: u64, end: u64) -> bool {
        let missing = self.source.len()..self.had;
        end <= self.length
            && (end <= missing.start
                || start >= missing.end
                || self.overlay.covers(start.max(missing.start), end.min(missing.end)))
    }

    /// Where the bytes at `offset` are, and how many lie together there, at most `most`; none past the end of the file.
    #[inline]
    pub(crate) fn stored(&self, offset: u64, most: u64) -> Option<Stored<'_>> {
        let most = self.length.checked_sub(offset).filter(|left| *left > 0)?.min(most);
        let length = match if self.overlay.is_empty() { Stored::File(most) } else { self.overlay.at(offset, most) } {
            Stored::File(length) => length,
            written => return Some(written),
        };
        // The file itself may be shorter than the view.
        match self.source.len().checked_sub(offset) {
            Some(left) if left > 0 => Some(Stored::File(left.min(length))),
            _ if offset < self.had => None,
            _ => Some(Stored::Zero(length)),
        }
    }

    /// Whether a replay changes any of the bytes from `start` to `end`.
    pub(crate) fn is_changed_by_replay(&self, start: u64, end: u64) -> bool {
        match self.overlay.at(start, end.saturating_sub(start)) {
            Stored::File(length) => length < end.saturating_sub(start),
            Stored::Log(_) | Stored::Zero(_) => start < end,
        }
    }

    /// Whether a replay writes all the bytes from `start` to `end`.
    pub(crate) fn is_written_by_replay(&self, start: u64, end: u64) -> bool {
        self.overlay.covers(start, end)
    }

    /// Why nothing is stored at `offset`, and how far that goes, at most `most` bytes.
    #[cold]
    pub(crate) fn missing(&self, offset: u64, most: u64) -> Error {
        let length = match self.overlay.at(offset, most) {
            Stored::File(length) if offset < self.had => self.had.saturating_sub(offset).min(length),
            _ => most,
        };
        let kind = ErrorKind::OutOfBounds { length, limit: self.file_end() };
        Error::at(Structure::File, offset, kind)
    }

    /// The bytes at `offset`, at most `most`, where the source can lend them. There is at least one, unless `most` is 0.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`], said of `what`, if the file ends at or before `offset`; [`ErrorKind::Lost`] if that is known
    /// of the first byte; [`ErrorKind::NotBorrowable`]. Whoever looks at the bytes has to ask again after that:
    /// [`View::check`].
    #[inline]
    pub(crate) fn borrow(&self, what: Structure, offset: u64, most: u64) -> Result<Bytes<'_>> {
        match self.stored(offset, most) {
            Some(Stored::File(length)) => match self.source.borrow(offset, length) {
                Some(bytes) => Ok(Bytes::Data(self.source.good(what, offset, bytes)?)),
                None => Err(Error::at(what, offset, ErrorKind::NotBorrowable)),
            },
            Some(Stored::Log(bytes)) => Ok(Bytes::Data(bytes)),
            Some(Stored::Zero(length)) => Ok(Bytes::Zero(length)),
            None => Err(self.out_of_bounds(what, offset, most)),
        }
    }

    /// The bytes at `offset`, at most `most`: borrowed where the source lends, read into `memory` where it does not. There is
    /// at least one, unless `most` is 0. The caller bounds `most`, which is what is read.
    ///
    /// # Errors
    /// As for [`View::borrow`], and what is wrong with reading.
    #[inline]
    pub(crate) fn run<'v>(
        &'v self,
        what: Structure,
        offset: u64,
        most: u64,
        memory: &'v mut Vec<u8>,
    ) -> Result<Bytes<'v>> {
        if self.source.can_borrow() { self.borrow(what, offset, most) } else { self.read(what, offset, most, memory) }
    }

    /// All of `length` bytes at `offset`, where they lie together and the source can lend them.
    #[inline]
    fn borrow_whole(&self, what: Structure, offset: u64, length: u64) -> Option<&[u8]> {
        if !self.source.can_borrow() {
            return self.preloaded(offset, length).filter(|_| self.overlay.is_empty());
        }
        match self.borrow(what, offset, length) {
            Ok(Bytes::Data(bytes)) if to_u64(bytes.len()) == length => Some(bytes),
            _ => None,
        }
    }

    fn read<'v>(&'v self, what: Structure, offset: u64, most: u64, memory: &'v mut Vec<u8>) -> Result<Bytes<'v>> {
        let length = match self.stored(offset, most) {
            Some(Stored::File(length)) => length,
            _ => return self.borrow(what, offset, most),
        };
        if let Some(bytes) = self.preloaded(offset, length) {
            return Ok(Bytes::Data(bytes));
        }
        memory.clear();
        memory.resize(to_usize_saturating(length), 0);
        if !self.pages.read(&self.source, offset, memory) {
            let read = self.source.read_before_loss(offset, memory);
            let good = read.map_err(|error| self.failed.note(error).said_of(what))?;
            memory.truncate(good);
        }
        Ok(Bytes::Data(memory))
    }

    fn preloaded(&self, offset: u64, length: u64) -> Option<&[u8]> {
        self.preloaded.iter().find_map(|(start, bytes)| {
            let within = usize::try_from(offset.checked_sub(*start)?).ok()?;
            bytes.get(within..)?.get(..usize::try_from(length).ok()?)
        })
    }

    /// That none of the bytes is lost that were looked at: `length` of them from `offset` on.
    #[inline]
    pub(crate) fn check(&self, what: Structure, offset: u64, length: u64) -> Result<()> {
        self.source.check(what, offset, length)
    }

    /// The `length` bytes at `offset`: borrowed where they lie together and can be, put together where not. For structures,
    /// whose length the caller has bounded.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`], said of `what`, if they reach past the end of the file; [`ErrorKind::Lost`] and others as
    /// for [`View::run`].
    pub(crate) fn bytes(&self, what: Structure, offset: u64, length: u64) -> Result<Cow<'_, [u8]>> {
        if length == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(self.out_of_bounds(what, offset, length));
        }
        if length > SEVERAL_PAGES && self.source.can_borrow() {
            self.source.will_need(offset, length);
        }
        if let Some(bytes) = self.borrow_whole(what, offset, length) {
            return Ok(Cow::Borrowed(bytes));
        }
        let (mut bytes, mut memory) = (Vec::with_capacity(to_usize_saturating(length)), Vec::new());
        let (mut at, mut left) = (offset, length);
        while left > 0 {
            let taken = match self.run(what, at, left, &mut memory)? {
                Bytes::Data(run) => {
                    bytes.extend_from_slice(run);
                    to_u64(run.len())
                }
                Bytes::Zero(zeros) => {
                    bytes.resize(bytes.len().saturating_add(to_usize_saturating(zeros)), 0);
                    zeros
                }
            };
            at = at.saturating_add(taken);
            left = left.saturating_sub(taken);
        }
        Ok(Cow::Owned(bytes))
    }

    /// The same as a copy, of which nothing is lost: zeros that stand in for what is are never taken for a structure, be it a wrong
    /// one.
    ///
    /// # Errors
    /// As for [`View::bytes`]; [`ErrorKind::Lost`] of any of them.
    pub(crate) fn copy(&self, what: Structure, offset: u64, length: u64) -> Result<Vec<u8>> {
        let copy = self.bytes(what, offset, length)?.into_owned();
        self.check(what, offset, length)?;
        Ok(copy)
    }

    /// A copy of the structure at `offset`, fetched once: what is checked is what is used.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`], said of `what`, if it reaches behind the end of the file; [`ErrorKind::Lost`].
    #[inline]
    pub(crate) fn fetch<T: FromBytes>(&self, what: Structure, offset: u64) -> Result<T> {
        let length = to_u64(size_of::<T>());
        let borrowed = self.borrow_whole(what, offset, length).and_then(|bytes| T::read_from_bytes(bytes).ok());
        let fetched = match borrowed {
            Some(fetched) => fetched,
            None => self.fetch_in_pieces(what, offset, length)?,
        };
        self.check(what, offset, length)?;
        Ok(fetched)
    }

    /// The same where it does not lie together, has to be read, or is not there.
    fn fetch_in_pieces<T: FromBytes>(&self, what: Structure, offset: u64, length: u64) -> Result<T> {
        let bytes = self.bytes(what, offset, length)?;
        T::read_from_bytes(&bytes).map_err(|_| self.out_of_bounds(what, offset, length))
    }

    /// Up to where, from `offset` on and at most to `end`, the bytes are known to be zero without being looked at.
    pub(crate) fn known_zero_end(&self, offset: u64, end: u64) -> u64 {
        match self.overlay.at(offset, end.saturating_sub(offset)) {
            Stored::Log(_) => offset,
            Stored::Zero(length) => offset.saturating_add(length),
            Stored::File(length) => self.source.hole_end(offset, offset.saturating_add(length)),
        }
    }

    /// Up to where, from `offset` on and at most to `end`, the file itself has no hole, as far as that is known.
    pub(crate) fn data_end(&self, offset: u64, end: u64) -> u64 {
        self.source.data_end(offset, end)
    }

    /// Tells the system that these bytes are not needed soon.
    pub(crate) fn forget(&self, offset: u64, end: u64) {
        self.source.forget(offset, end);
        if !self.source.can_borrow() {
            self.pages.forget(offset, end);
        }
    }

    /// Tells the system that these bytes are about to be looked at.
    pub(crate) fn will_need(&self, offset: u64, length: u64) {
        self.source.will_need(offset, length);
    }

    fn out_of_bounds(&self, what: Structure, offset: u64, length: u64) -> Error {
        Error::at(what, offset, ErrorKind::OutOfBounds { length, limit: self.length })
    }
}
