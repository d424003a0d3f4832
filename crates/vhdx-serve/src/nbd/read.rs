//! `NBD_CMD_READ`.
//!
//! Short replies are put together in memory, with bytes that were checked. Longer content is sent from where it lies,
//! and checked after that: an error chunk says that what was sent is not valid.

use std::io;
use std::ops::Range;

use vhdx_mmap::Result;
use zerocopy::IntoBytes;
use zerocopy::big_endian::{U32, U64};

use super::Wire;
use super::transmission::{BATCH, Connection, Failed, Mode, Request};
use super::wire::{DONE, FLAG_DF, chunk, errno, to_u64};
use crate::export::{Export, Part};

/// Replies with at most this many bytes are put together in memory: one system call instead of two.
const SHORT: u64 = 64 << 10;

/// Data of at most this many bytes is copied, also in a long reply.
const TINY: u64 = 16 << 10;

/// Content that cannot be borrowed is read in pieces of this many bytes.
const PIECE: u64 = 256 << 10;

/// Most slices that are handed to the system at once.
const SLICES: usize = 256;

/// Whether content was sent, or why the request fails.
type Outcome = std::result::Result<(), Failed>;

impl<W: Wire> Connection<'_, W> {
    /// Answers a read whose range is inside the export and not too long.
    ///
    /// # Errors
    /// Fails if the connection has to end: the client has vanished, or bytes of a simple reply are lost.
    pub(super) fn read_range(&mut self, request: &Request, export: &Export) -> io::Result<Outcome> {
        let range = request.range();
        let mut parts = match export.parts(range.clone()) {
            Ok(parts) => parts,
            Err(error) => return Ok(Err(self.unreadable(export, &error))),
        };
        let is_simple = self.mode == Mode::Simple;
        let is_whole = is_simple || request.flags & FLAG_DF != 0;
        if is_whole && !range.is_empty() && (is_simple || parts.iter().any(|part| !part.is_hole)) {
            parts = vec![Part { range: range.clone(), is_hole: false }];
        }
        if request.length <= SHORT {
            let before = self.out.len();
            let pushed = self.push_short(request, export, &parts);
            if let Err(error) = pushed.and_then(|()| export.fail_if_lost(range)) {
                self.out.truncate(before);
                return Ok(Err(self.unreadable(export, &error)));
            }
            return Ok(Ok(()));
        }
        if is_simple {
            // What is lost can be said only now.
            let checked = export.range().check_lost(range.clone()).and_then(|()| export.fail_if_lost(range.clone()));
            if let Err(error) = checked {
                return Ok(Err(self.unreadable(export, &error)));
            }
            self.push_simple(request, 0);
            // Only what was checked is sent: if the rest is lost, the client must not get a whole reply.
            return match self.send_copied(export, &range)? {
                (_, Ok(())) => Ok(Ok(())),
                (_, Err((_, text))) => Err(io::Error::other(text)),
            };
        }
        for part in parts {
            if self.out.len() > BATCH {
                self.flush()?;
            }
            let length = part.range.end.saturating_sub(part.range.start);
            let before = self.out.len();
            if part.is_hole {
                self.push_hole(request, 0, &part.range);
                continue;
            }
            self.push_data(request, 0, &part.range);
            let result = if length <= TINY {
                self.push_content(export, &part.range).map_err(|error| {
                    self.out.truncate(before);
                    self.unreadable(export, &error)
                })
            } else {
                self.send_content(export, part.range)?
            };
            if result.is_err() {
                return Ok(result);
            }
        }
        self.push_done(request, None);
        Ok(Ok(()))
    }

    /// Adds a whole reply.
    fn push_short(&mut self, request: &Request, export: &Export, parts: &[Part]) -> Result<()> {
        if parts.is_empty() {
            self.push_done(request, None);
        }
        for (number, part) in parts.iter().enumerate() {
            let flags = if number.saturating_add(1) == parts.len() { DONE } else { 0 };
            if self.mode == Mode::Simple {
                self.push_simple(request, 0);
            } else if part.is_hole {
                self.push_hole(request, flags, &part.range);
                continue;
            } else {
                self.push_data(request, flags, &part.range);
            }
            self.push_content(export, &part.range)?;
        }
        Ok(())
    }

    fn push_hole(&mut self, request: &Request, flags: u16, range: &Range<u64>) {
        // Not longer than a read can be.
        let length = u32::try_from(range.end.saturating_sub(range.start)).unwrap_or(u32::MAX);
        let payload = [U64::new(range.start).as_bytes(), U32::new(length).as_bytes()].concat();
        self.push_chunk(request, flags, chunk::OFFSET_HOLE, &payload, 0);
    }

    fn push_data(&mut self, request: &Request, flags: u16, range: &Range<u64>) {
        let length = range.end.saturating_sub(range.start);
        self.push_chunk(request, flags, chunk::OFFSET_DATA, U64::new(range.start).as_bytes(), length);
    }

    /// Adds a copy of content.
    fn push_content(&mut self, export: &Export, range: &Range<u64>) -> Result<()> {
        let start = self.out.len();
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        self.out.resize(start.saturating_add(length), 0);
        export.range().read_at(self.out.get_mut(start..).unwrap_or_default(), range.start).map(drop)
    }

    /// Sends all replies, and then content. What cannot be read is replaced by zeros; then the result is a failure.
    fn send_content(&mut self, export: &Export, range: Range<u64>) -> io::Result<Outcome> {
        let (sent, result) =
            if export.can_borrow() { self.send_borrowed(export, &range)? } else { self.send_copied(export, &range)? };
        self.send_zeros(range.end.saturating_sub(range.start).saturating_sub(sent))?;
        Ok(result)
    }

    fn send_borrowed(&mut self, export: &Export, range: &Range<u64>) -> io::Result<(u64, Outcome)> {
        let mut batch: Vec<&[u8]> = Vec::new();
        let (mut sent, mut failed, mut is_whole) = (0_u64, None, true);
        let mut segments = export.range().segments(range.clone());
        loop {
            let segment = segments.next();
            let is_end = !matches!(segment, Some(Ok(_)));
            match segment {
                Some(Ok(segment)) => batch.extend(segment.slices()),
                Some(Err(error)) => failed = Some(error),
                None => {}
            }
            if batch.len() >= SLICES || is_end {
                is_whole = self.send(&batch)? && is_whole;
                sent = batch.iter().fold(sent, |sum, slice| sum.saturating_add(to_u64(slice.len())));
                batch.clear();
            }
            if is_end || !is_whole {
                break;
            }
        }
        // After the use of the bytes: now it is known whether they were those of the files.
        let checked = failed.map_or(Ok(()), Err).and_then(|()| export.range().check_lost(range.clone()));
        let result = match checked {
            Err(error) => Err(self.unreadable(export, &error)),
            Ok(()) if !is_whole => Err((errno::EIO, "a page of the image cannot be read")),
            Ok(()) => Ok(()),
        };
        Ok((sent, result))
    }

    fn send_copied(&mut self, export: &Export, range: &Range<u64>) -> io::Result<(u64, Outcome)> {
        let length = range.end.saturating_sub(range.start);
        let mut buffer = vec![0; usize::try_from(length.min(PIECE)).unwrap_or(0)];
        let mut sent = 0_u64;
        while sent < length {
            let most = usize::try_from(length.saturating_sub(sent)).unwrap_or(usize::MAX).min(buffer.len());
            let piece = buffer.get_mut(..most).unwrap_or_default();
            let at = range.start.saturating_add(sent);
            let end = at.saturating_add(to_u64(piece.len()));
            let read = export.range().read_at(piece, at).and_then(|_| export.fail_if_lost(at..end));
            if let Err(error) = read {
                self.flush()?;
                return Ok((sent, Err(self.unreadable(export, &error))));
            }
            self.send(&[piece])?;
            sent = sent.saturating_add(to_u64(piece.len()));
        }
        Ok((sent, Ok(())))
    }
}
