//! Access to the bytes of a unit: borrowed from the mapping, or read into memory of the worker.

use crate::disk::Segment;
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::{to_u64, to_usize_saturating};
use crate::source::{Buffer, SourceRef, any_lost, whole_pages};

use super::input::{Origin, Piece};
use super::options::Access;
use super::plan::UNIT;
use super::release::Released;

/// Largest number of bytes that a worker reads into its memory for one unit. Further bytes are borrowed, if possible.
/// Only a unit whose sectors come from many layers needs that much.
const MOST_READ: u64 = 16 * UNIT;

/// Runs that are closer to each other than this are read in one request.
const MOST_GAP: u64 = 64 << 10;

/// A part of a file that contains bytes of a unit.
#[derive(Debug)]
struct ReadSpan<'a> {
    source: SourceRef<'a>,
    layer: usize,
    start: u64,
    end: u64,
    /// Offset in the memory of the worker. `None` if the part is borrowed.
    read_to: Option<usize>,
}

impl ReadSpan<'_> {
    fn length(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Reads only the bytes that belong to the unit, to their offsets in `memory`.
    fn read_apart(&self, pieces: &[Piece<'_>], memory: &mut [u8]) -> Result<()> {
        for piece in pieces {
            let Origin::File(source, offset) = piece.origin else { continue };
            if self.contains(source, offset, piece.length) {
                let at = to_usize_saturating(offset.saturating_sub(self.start));
                let end = at.saturating_add(to_usize_saturating(piece.length));
                source.read_exact_at(offset, memory.get_mut(at..end).unwrap_or_default())?;
            }
        }
        Ok(())
    }

    /// Spans may overlap, so one that contains the first byte need not contain the last.
    fn contains(&self, source: SourceRef<'_>, offset: u64, length: u64) -> bool {
        self.source.is(source) && self.start <= offset && offset.saturating_add(length) <= self.end
    }
}

/// The bytes of one unit, as a worker holds them.
#[derive(Debug, Default)]
pub(super) struct UnitBuffer<'a> {
    spans: Vec<ReadSpan<'a>>,
    read: Buffer,
}

impl<'a> UnitBuffer<'a> {
    /// Loads the bytes of a unit, and releases those of the previous one.
    pub(super) fn load(&mut self, pieces: &[Piece<'a>], access: Access) -> Result<()> {
        self.spans = spans(pieces, MOST_GAP);
        let mut needed = self.place(access);
        if to_u64(needed) > MOST_READ {
            // If the source cannot borrow, everything has to be read: then only the bytes of the unit.
            self.spans = spans(pieces, 0);
            needed = self.place(access);
        }
        let mut memory = if needed > 0 { self.read.reserve(needed) } else { &mut [] };
        for span in self.spans.iter().filter(|span| span.read_to.is_some()) {
            let taken = to_usize_saturating(whole_pages(span.length())).min(memory.len());
            let (piece, rest) = memory.split_at_mut(taken);
            let wanted = piece.get_mut(..to_usize_saturating(span.length())).unwrap_or_default();
            let read = span.source.read_exact_at(span.start, wanted);
            // The reason may be the bytes in between, which are not needed.
            let read = read.or_else(|_| span.read_apart(pieces, wanted));
            read.map_err(|error| said_of(error, span.layer, span.source))?;
            memory = rest;
        }
        Ok(())
    }

    /// Decides which spans are read, and to where. Returns the necessary memory, in bytes.
    fn place(&mut self, access: Access) -> usize {
        let mut needed = 0_usize;
        for span in &mut self.spans {
            let end = needed.saturating_add(to_usize_saturating(whole_pages(span.length())));
            let has_room = to_u64(end) <= MOST_READ;
            let wants_read = access == Access::Read || span.source.is_salvaged();
            let last = span.end.saturating_sub(1);
            let is_read = !span.source.can_borrow()
                || (has_room && (wants_read || !span.source.is_cached(span.start) || !span.source.is_cached(last)));
            if is_read {
                span.read_to = Some(needed);
                needed = end;
            }
        }
        needed
    }

    /// Returns the bytes of the loaded unit, which has these pieces.
    pub(super) fn segments<'b>(&'b self, pieces: &[Piece<'b>]) -> Result<Vec<Segment<'b>>> {
        pieces.iter().map(|piece| self.segment(piece)).collect()
    }

    fn segment<'b>(&'b self, piece: &Piece<'b>) -> Result<Segment<'b>> {
        let length = to_usize_saturating(piece.length);
        let bytes = match piece.origin {
            Origin::Zero => return Ok(Segment::Zero(piece.length)),
            Origin::Memory(bytes) => bytes.get(..length),
            Origin::File(source, offset) => match self.span_of(source, offset, piece.length) {
                Some((at, within)) => self.read.get(at.saturating_add(to_usize_saturating(within)), length),
                None => source.source().borrow(offset, piece.length),
            },
        };
        // Impossible, since pieces are inside their files. If it happens, an error is better than missing bytes.
        let missing = || ErrorKind::OutOfBounds { length: piece.length, limit: 0 };
        Ok(Segment::Data(bytes.ok_or_else(|| Error::of(Structure::File, missing()))?))
    }

    /// Returns the memory of the span that contains a piece, and the offset of the piece in it. Returns `None` if the
    /// piece is borrowed.
    fn span_of(&self, source: SourceRef<'_>, offset: u64, length: u64) -> Option<(usize, u64)> {
        let span = self.spans.iter().rev().find(|span| span.contains(source, offset, length))?;
        Some((span.read_to?, offset.checked_sub(span.start)?))
    }

    /// Checks that no borrowed byte of the loaded unit, which has these pieces, was lost. Certain if called after the
    /// bytes were read.
    pub(super) fn check(&self, pieces: &[Piece<'_>]) -> Result<()> {
        self.check_lengths()?;
        if !any_lost() {
            return Ok(());
        }
        for Piece { length, layer, origin } in pieces {
            let Origin::File(source, offset) = *origin else { continue };
            if self.span_of(source, offset, *length).is_none() {
                let checked = source.check(Structure::File, offset, *length);
                checked.map_err(|error| said_of(error, *layer, source))?;
            }
        }
        Ok(())
    }

    /// Checks that no file with borrowed bytes of the unit has become shorter: access to its last page does not show
    /// that.
    fn check_lengths(&self) -> Result<()> {
        // There are few files, and each is checked once.
        let mut ends: Vec<(SourceRef<'_>, usize, u64)> = Vec::new();
        for span in self.spans.iter().filter(|span| span.read_to.is_none()) {
            match ends.iter_mut().find(|(source, ..)| source.is(span.source)) {
                Some((_, _, end)) => *end = span.end.max(*end),
                None => ends.push((span.source, span.layer, span.end)),
            }
        }
        ends.into_iter().try_for_each(|(source, layer, end)| {
            source.check_mapped(end).map_err(|error| said_of(error, layer, source))
        })
    }

    /// Returns the ranges that are not needed any more; with `uncache`, not even in the page cache.
    pub(super) fn leave(&mut self, uncache: bool) -> impl Iterator<Item = Released<'a>> {
        self.spans.drain(..).filter_map(move |span| {
            let ReadSpan { source, start, end, .. } = span;
            let is_borrowed = span.read_to.is_none();
            (is_borrowed || uncache).then_some(Released { source: source.source(), start, end, is_borrowed, uncache })
        })
    }
}

/// Adds the layer and the file to an error.
fn said_of(error: Error, layer: usize, source: SourceRef<'_>) -> Error {
    error.in_layer(layer, source.source().path())
}

/// Returns the parts of files with bytes of a unit. Parts with gaps of at most `most_gap` bytes are joined.
fn spans<'a>(pieces: &[Piece<'a>], most_gap: u64) -> Vec<ReadSpan<'a>> {
    let mut spans: Vec<ReadSpan<'a>> = Vec::new();
    for Piece { length, layer, origin } in pieces {
        let Origin::File(source, start) = *origin else { continue };
        let end = start.saturating_add(*length);
        let near = |span: &&mut ReadSpan<'_>| {
            span.source.is(source)
                && start <= span.end.saturating_add(most_gap)
                && span.start <= end.saturating_add(most_gap)
        };
        // The last one first: the next run of a file is mostly near it.
        match spans.iter_mut().rev().find(near) {
            Some(span) => {
                span.start = span.start.min(start);
                span.end = span.end.max(end);
            }
            None => spans.push(ReadSpan { source, layer: *layer, start, end, read_to: None }),
        }
    }
    spans
}

/// Returns the bytes of a unit as one slice: borrowed if they are contiguous, or else copied into `whole`.
pub(crate) fn contiguous<'b>(segments: &[Segment<'b>], whole: &'b mut Buffer) -> &'b [u8] {
    if let [Segment::Data(bytes)] = segments {
        return bytes;
    }
    let length = segments.iter().fold(0_u64, |sum, segment| sum.saturating_add(segment.len()));
    let all = whole.reserve(to_usize_saturating(length));
    let (length, mut rest) = (all.len(), all);
    for segment in segments {
        let (to, after) = rest.split_at_mut(to_usize_saturating(segment.len()).min(rest.len()));
        match segment {
            Segment::Data(bytes) => to.copy_from_slice(bytes),
            Segment::Zero(_) => to.fill(0),
        }
        rest = after;
    }
    whole.get(0, length).unwrap_or_default()
}
