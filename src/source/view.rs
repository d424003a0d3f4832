//! The one gate to the bytes of a file: every range is checked here, and replayed changes are folded in here.

use std::borrow::Cow;

use zerocopy::FromBytes;

use super::overlay::{Overlay, Patched};
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
}

/// Bytes that lie together: lent, or known to be zero without being anywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Run<'a> {
    Data(&'a [u8]),
    Zero(u64),
}

/// Where bytes are, and how many lie together.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored<'a> {
    /// In the file, as they are.
    File(&'a [u8]),
    /// Rebuilt from the log.
    Log(&'a [u8]),
    /// They are zeros that the replay has made.
    Nowhere(u64),
}

impl View {
    /// The file as it is.
    pub(crate) fn new(source: Source) -> Self {
        let length = source.length();
        Self { source, overlay: Overlay::default(), length, had: 0 }
    }

    /// Folds in the changes of a log, after which the file is at least `length` bytes long. What that adds is zero, but for
    /// what the file `had` before: that is missing. Where it has lost some of that, nobody knows what was behind it.
    pub(crate) fn replay(&mut self, overlay: Overlay, length: u64, had: u64) {
        self.length = self.length.max(length).max(overlay.end());
        self.had = if self.source.length() < had { self.length } else { had };
        self.overlay = overlay;
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
        if self.source.length() < self.had { self.source.length() } else { self.length }
    }

    /// Whether all the bytes from `start` to `end` can be had.
    pub(crate) fn has(&self, start: u64, end: u64) -> bool {
        let missing = self.source.length()..self.had;
        end <= self.length
            && (end <= missing.start
                || start >= missing.end
                || self.overlay.covers(start.max(missing.start), end.min(missing.end)))
    }

    /// What is stored at `offset`, and how far that goes, at most `most` bytes; none past the end of the file.
    #[inline]
    pub(crate) fn stored(&self, offset: u64, most: u64) -> Option<Stored<'_>> {
        let most = self.length.checked_sub(offset).filter(|left| *left > 0)?.min(most);
        if self.overlay.is_empty() {
            return self.beneath(offset, most);
        }
        let up_to = |end: u64| end.saturating_sub(offset).min(most);
        Some(match self.overlay.at(offset) {
            Patched::Bytes(bytes) => Stored::Log(bytes.get(..to_usize_saturating(most)).unwrap_or(bytes)),
            Patched::Zero(end) => Stored::Nowhere(up_to(end)),
            Patched::Not(end) => return self.beneath(offset, up_to(end)),
        })
    }

    /// The same of the file itself, which may be shorter than the view.
    #[inline]
    fn beneath(&self, offset: u64, most: u64) -> Option<Stored<'_>> {
        let file = self.source.as_bytes();
        match usize::try_from(offset).ok().and_then(|offset| file.get(offset..)) {
            Some(rest) if !rest.is_empty() => Some(Stored::File(rest.get(..to_usize_saturating(most)).unwrap_or(rest))),
            _ if offset < self.had => None,
            _ => Some(Stored::Nowhere(most)),
        }
    }

    /// Whether a replay changes any of the bytes from `start` to `end`.
    pub(crate) fn is_changed_by_replay(&self, start: u64, end: u64) -> bool {
        match self.overlay.at(start) {
            Patched::Not(next) => next < end,
            Patched::Bytes(_) | Patched::Zero(_) => start < end,
        }
    }

    /// Whether a replay writes all the bytes from `start` to `end`.
    pub(crate) fn is_written_by_replay(&self, start: u64, end: u64) -> bool {
        self.overlay.covers(start, end)
    }

    /// Why nothing is stored at `offset`, and how far that goes, at most `most` bytes.
    #[cold]
    pub(crate) fn missing(&self, offset: u64, most: u64) -> Error {
        let end = match self.overlay.at(offset) {
            Patched::Not(end) if offset < self.had => end.min(self.had),
            _ => u64::MAX,
        };
        let kind = ErrorKind::OutOfBounds { length: end.saturating_sub(offset).min(most), limit: self.file_end() };
        Error::at(Structure::File, offset, kind)
    }

    /// The longest run from `offset` on that is at most `most` bytes long. It has at least one byte, unless `most` is 0.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`], said of `what`, if the file ends at or before `offset`; [`ErrorKind::Lost`] if that is known
    /// of the first byte. Whoever looks at the bytes has to ask again behind that: [`View::check`].
    #[inline]
    pub(crate) fn run(&self, what: Structure, offset: u64, most: u64) -> Result<Run<'_>> {
        match self.stored(offset, most) {
            Some(Stored::File(bytes)) => Ok(Run::Data(self.source.good(what, offset, bytes)?)),
            Some(Stored::Log(bytes)) => Ok(Run::Data(bytes)),
            Some(Stored::Nowhere(length)) => Ok(Run::Zero(length)),
            None => Err(self.out_of_bounds(what, offset, most)),
        }
    }

    /// That none of the bytes is lost that were looked at: `length` of them from `offset` on.
    #[inline]
    pub(crate) fn check(&self, what: Structure, offset: u64, length: u64) -> Result<()> {
        self.source.check(what, offset, length)
    }

    /// The `length` bytes at `offset`: lent where they lie together, put together where they do not. For structures,
    /// whose length the caller has bounded.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`], said of `what`, if they reach behind the end of the file; [`ErrorKind::Lost`] as for
    /// [`View::run`].
    pub(crate) fn bytes(&self, what: Structure, offset: u64, length: u64) -> Result<Cow<'_, [u8]>> {
        if length == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(self.out_of_bounds(what, offset, length));
        }
        if length > SEVERAL_PAGES {
            self.source.will_need(offset, length);
        }
        if let Run::Data(bytes) = self.run(what, offset, length)?
            && to_u64(bytes.len()) == length
        {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut bytes = Vec::with_capacity(to_usize_saturating(length));
        let (mut at, mut left) = (offset, length);
        while left > 0 {
            let taken = match self.run(what, at, left)? {
                Run::Data(run) => {
                    bytes.extend_from_slice(run);
                    to_u64(run.len())
                }
                Run::Zero(zeros) => {
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
        let fetched = match self.stored(offset, length) {
            Some(Stored::File(bytes) | Stored::Log(bytes)) => T::read_from_bytes(bytes).ok(),
            _ => None,
        };
        let fetched = match fetched {
            Some(fetched) => fetched,
            None => self.fetch_in_pieces(what, offset, length)?,
        };
        self.check(what, offset, length)?;
        Ok(fetched)
    }

    /// The same where it does not lie together, or not at all.
    #[cold]
    fn fetch_in_pieces<T: FromBytes>(&self, what: Structure, offset: u64, length: u64) -> Result<T> {
        let bytes = self.bytes(what, offset, length)?;
        T::read_from_bytes(&bytes).map_err(|_| self.out_of_bounds(what, offset, length))
    }

    /// Up to where, from `offset` on and at most to `end`, the bytes are known to be zero without being looked at.
    pub(crate) fn known_zero_end(&self, offset: u64, end: u64) -> u64 {
        match self.overlay.at(offset) {
            Patched::Bytes(_) => offset,
            Patched::Zero(zero) => zero.min(end),
            Patched::Not(beneath) => self.source.hole_end(offset, beneath.min(end)),
        }
    }

    /// Up to where, from `offset` on and at most to `end`, the file itself has no hole, as far as that is known.
    pub(crate) fn data_end(&self, offset: u64, end: u64) -> u64 {
        self.source.data_end(offset, end)
    }

    /// Tells the system that these bytes are not needed soon.
    pub(crate) fn forget(&self, offset: u64, end: u64) {
        self.source.forget(offset, end);
    }

    /// Tells the system that these bytes are about to be looked at.
    pub(crate) fn will_need(&self, offset: u64, length: u64) {
        self.source.will_need(offset, length);
    }

    fn out_of_bounds(&self, what: Structure, offset: u64, length: u64) -> Error {
        Error::at(what, offset, ErrorKind::OutOfBounds { length, limit: self.length })
    }
}
