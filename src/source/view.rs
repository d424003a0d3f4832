//! The only access to the bytes of a file: checks every range, and applies replayed changes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use zerocopy::FromBytes;

use super::overlay::{Overlay, Stored};
use super::pages::TablePages;
use super::{Source, to_u64, to_usize_saturating};
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::MIB;
use crate::zero::is_zero;

/// Longer structures are read in one request before they are parsed, in bytes.
const SEVERAL_PAGES: u64 = 16 << 10;

/// A file as it would be after the replay of its log.
#[derive(Debug)]
pub(crate) struct View {
    source: Source,
    overlay: Overlay,
    length: u64,
    /// Length that the file once had. Bytes before it that are missing now are lost, not zero.
    length_before_truncation: u64,
    /// For sources that cannot borrow: bytes that were read in advance, with their offsets.
    preloaded: Vec<(u64, Vec<u8>)>,
    /// For sources that cannot borrow: cached parts of tables.
    pages: TablePages,
    failed: Arc<FailedReads>,
}

/// Failed reads of structures. The caller may not have needed them: of two copies, one is enough, and a log entry that
/// cannot be read looks like the end of the log. For mappings, the record of lost pages has the same purpose.
#[derive(Debug, Default)]
pub(crate) struct FailedReads(Mutex<BTreeMap<u64, Error>>);

impl FailedReads {
    /// Each structure that exists twice has 64 KiB of its own, in the first 320 KiB: failures are recorded per slot.
    pub(crate) const SLOT: u64 = 64 << 10;

    fn note(&self, error: Error) -> Error {
        let slot = error.offset().map_or(u64::MAX, |offset| offset / Self::SLOT).min(8);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(slot).or_insert_with(|| error.clone());
        error
    }

    /// Returns the first failure outside these slots of 64 KiB, which are among the first eight.
    pub(crate) fn first_but_for(&self, slots: &[u64]) -> Option<Error> {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.iter().find(|(slot, _)| !slots.contains(slot)).map(|(_, error)| error.clone())
    }
}

/// Contiguous bytes, or known zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bytes<'a> {
    Data(&'a [u8]),
    Zero(u64),
}

impl View {
    /// Makes a view of the file as it is.
    pub(crate) fn new(source: Source) -> Self {
        let length = source.len();
        let (overlay, pages, failed) = (Overlay::default(), TablePages::default(), Arc::default());
        Self { source, overlay, length, length_before_truncation: 0, preloaded: Vec::new(), pages, failed }
    }

    /// Reads `length` bytes at `offset` in one request, since all of them are about to be used.
    pub(crate) fn preload(&mut self, offset: u64, length: u64) {
        if self.source.can_borrow() {
            self.will_need(offset, length);
            return;
        }
        let length = self.source.len().saturating_sub(offset).min(length);
        let mut bytes = vec![0; to_usize_saturating(length)];
        // If this fails, each structure is read separately, and reports its own error.
        if self.source.read_exact_at(offset, &mut bytes).is_ok() {
            self.preloaded.push((offset, bytes));
        }
    }

    /// Releases the preloaded bytes.
    pub(crate) fn release_preloaded(&mut self) {
        self.preloaded = Vec::new();
    }

    /// Applies the changes of a log, after which the file is at least `length` bytes long. Added bytes are zero, except
    /// below `length_before_truncation`: if the file has lost some of those, their content is unknown.
    pub(crate) fn replay(&mut self, overlay: Overlay, length: u64, length_before_truncation: u64) {
        self.length = self.length.max(length).max(overlay.end());
        self.length_before_truncation =
            if self.source.len() < length_before_truncation { self.length } else { length_before_truncation };
        self.overlay = overlay;
    }

    /// Returns the record of failed reads, which outlives the view.
    pub(crate) fn failed_reads(&self) -> Arc<FailedReads> {
        Arc::clone(&self.failed)
    }

    /// Returns the CRC-32C of all changes of a replay, if there are any.
    pub(crate) fn overlay_crc32c(&self) -> Option<u32> {
        (!self.overlay.is_empty()).then(|| self.overlay.crc32c())
    }

    /// Returns the source.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Returns the length in bytes after the replay.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Returns the end of the bytes that exist, including those that a replay adds if nothing is missing before them.
    pub(crate) fn file_end(&self) -> u64 {
        if self.source.len() < self.length_before_truncation { self.source.len() } else { self.length }
    }

    /// Returns whether all bytes from `start` to `end` are available.
    pub(crate) fn has(&self, start: u64, end: u64) -> bool {
        let missing = self.source.len()..self.length_before_truncation;
        end <= self.length
            && (end <= missing.start
                || start >= missing.end
                || self.overlay.covers(start.max(missing.start), end.min(missing.end)))
    }

    /// Returns the location of the bytes at `offset`, and the number of contiguous bytes there, at most `most`. Returns
    /// `None` past the end of the file.
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
            _ if offset < self.length_before_truncation => None,
            _ => Some(Stored::Zero(length)),
        }
    }

    /// Returns whether a replay changes any of the bytes from `start` to `end`.
    pub(crate) fn is_changed_by_replay(&self, start: u64, end: u64) -> bool {
        match self.overlay.at(start, end.saturating_sub(start)) {
            Stored::File(length) => length < end.saturating_sub(start),
            Stored::Log(_) | Stored::Zero(_) => start < end,
        }
    }

    /// Returns whether a replay writes all bytes from `start` to `end`.
    pub(crate) fn is_written_by_replay(&self, start: u64, end: u64) -> bool {
        self.overlay.covers(start, end)
    }

    /// Returns the error for missing bytes at `offset`, at most `most`.
    #[cold]
    pub(crate) fn missing(&self, offset: u64, most: u64) -> Error {
        let length = match self.overlay.at(offset, most) {
            Stored::File(length) if offset < self.length_before_truncation => {
                self.length_before_truncation.saturating_sub(offset).min(length)
            }
            _ => most,
        };
        let kind = ErrorKind::OutOfBounds { length, limit: self.file_end() };
        Error::at(Structure::File, offset, kind)
    }

    /// Borrows up to `most` bytes at `offset`: at least one, unless `most` is 0.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`] in `what` if the file ends at or before `offset`; [`ErrorKind::Lost`] if the first
    /// byte is known to be lost; [`ErrorKind::NotBorrowable`]. After the bytes were used, the caller has to call
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

    /// Returns up to `most` bytes at `offset`, at least one, unless `most` is 0: borrowed if the source can borrow, or
    /// else read into `memory`. The caller limits `most`, which is what is read.
    ///
    /// # Errors
    /// The errors of [`View::borrow`], and those of reading.
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

    /// Borrows all of `length` bytes at `offset`, if they are contiguous and the source can borrow.
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

    /// Checks that none of the `length` bytes from `offset` on, which were used, was lost.
    #[inline]
    pub(crate) fn check(&self, what: Structure, offset: u64, length: u64) -> Result<()> {
        self.source.check(what, offset, length)
    }

    /// Returns `length` bytes at `offset`: borrowed if they are contiguous and the source can borrow, or else copied
    /// together. For structures, whose length the caller has limited.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`] in `what` if they go past the end of the file; [`ErrorKind::Lost`] and others as for
    /// [`View::run`].
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

    /// Returns a copy of `length` bytes at `offset`, none of which is lost: zeros that replace lost bytes are never
    /// parsed as a structure.
    ///
    /// # Errors
    /// The errors of [`View::bytes`]; [`ErrorKind::Lost`] if any byte is lost.
    pub(crate) fn copy(&self, what: Structure, offset: u64, length: u64) -> Result<Vec<u8>> {
        let copy = self.bytes(what, offset, length)?.into_owned();
        self.check(what, offset, length)?;
        Ok(copy)
    }

    /// Returns a copy of the structure at `offset`, fetched once: the checked bytes are those that are used.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`] in `what` if the structure goes past the end of the file; [`ErrorKind::Lost`].
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

    /// Fetches a structure that is not contiguous, has to be read, or is missing.
    fn fetch_in_pieces<T: FromBytes>(&self, what: Structure, offset: u64, length: u64) -> Result<T> {
        let bytes = self.bytes(what, offset, length)?;
        T::read_from_bytes(&bytes).map_err(|_| self.out_of_bounds(what, offset, length))
    }

    /// Returns the end of the bytes at `offset` that are known to be zero without being read, at most `end`.
    pub(crate) fn known_zero_end(&self, offset: u64, end: u64) -> u64 {
        match self.overlay.at(offset, end.saturating_sub(offset)) {
            Stored::Log(_) => offset,
            Stored::Zero(length) => offset.saturating_add(length),
            Stored::File(length) => self.source.hole_end(offset, offset.saturating_add(length)),
        }
    }

    /// Returns the end of the data of the file itself at `offset`, as far as that is known, at most `end`.
    pub(crate) fn data_end(&self, offset: u64, end: u64) -> u64 {
        self.source.data_end(offset, end)
    }

    /// Returns offset and value of the first nonzero byte between `start` and `end`. What was read is released.
    ///
    /// # Errors
    /// Fails if a byte before it cannot be read.
    pub(crate) fn first_set(&self, structure: Structure, start: u64, end: u64) -> Result<Option<(u64, u8)>> {
        let (mut at, mut kept_from, mut memory) = (start, start, Vec::new());
        while at < end {
            at = at.max(self.known_zero_end(at, end));
            if at >= end {
                break;
            }
            self.will_need(at, end.saturating_sub(at).min(MIB));
            match self.run(structure, at, end.saturating_sub(at).min(MIB), &mut memory)? {
                Bytes::Zero(length) => at = at.saturating_add(length.max(1)),
                Bytes::Data(bytes) => {
                    if !is_zero(bytes) {
                        let found = bytes.iter().zip(at..).find(|(byte, _)| **byte != 0);
                        return Ok(found.map(|(byte, at)| (at, *byte)));
                    }
                    let length = to_u64(bytes.len());
                    self.check(structure, at, length)?;
                    at = at.saturating_add(length.max(1));
                }
            }
            self.forget(kept_from, at);
            kept_from = at;
        }
        Ok(None)
    }

    /// Informs the system that these bytes are not needed soon.
    pub(crate) fn forget(&self, offset: u64, end: u64) {
        self.source.forget(offset, end);
        if !self.source.can_borrow() {
            self.pages.forget(offset, end);
        }
    }

    /// Informs the system that these bytes are about to be used.
    pub(crate) fn will_need(&self, offset: u64, length: u64) {
        self.source.will_need(offset, length);
    }

    fn out_of_bounds(&self, what: Structure, offset: u64, length: u64) -> Error {
        Error::at(what, offset, ErrorKind::OutOfBounds { length, limit: self.length })
    }
}
