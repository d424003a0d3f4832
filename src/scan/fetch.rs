//! Getting at the bytes of a unit: borrowed from the mapping, or read into memory of the worker's own.

use crate::disk::Segment;
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::{to_u64, to_usize_saturating};
use crate::source::{Buffer, SourceRef, any_lost, whole_pages};

use super::input::{Origin, Piece};
use super::options::Access;
use super::plan::UNIT;
use super::release::Released;

/// What a worker reads into memory of its own for one unit, at most: what is beyond is borrowed, where it can be. Only a unit whose
/// sectors come from many layers has so much.
const MOST_READ: u64 = 16 * UNIT;

/// Runs that lie closer to each other than this are read as one piece.
const MOST_GAP: u64 = 64 << 10;

/// A part of a file in which bytes of a unit lie.
#[derive(Debug)]
struct ReadSpan<'a> {
    source: SourceRef<'a>,
    layer: usize,
    start: u64,
    end: u64,
    /// Where in the memory of the worker it was read to; none if it is borrowed.
    read_to: Option<usize>,
}

impl ReadSpan<'_> {
    fn length(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Reads only what the unit has in it, to where it lies in `memory`.
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

    /// Spans may overlap, so one that has the first byte need not have the last.
    fn contains(&self, source: SourceRef<'_>, offset: u64, length: u64) -> bool {
        self.source.is(source) && self.start <= offset && offset.saturating_add(length) <= self.end
    }
}

/// A worker's hold of the bytes of one unit.
#[derive(Debug, Default)]
pub(super) struct UnitBuffer<'a> {
    spans: Vec<ReadSpan<'a>>,
    read: Buffer,
    /// Whether errors say which file they are about, since there are several inputs.
    names_files: bool,
}

impl<'a> UnitBuffer<'a> {
    /// Takes hold of the bytes of a unit, and lets go of those that were held before.
    pub(super) fn load(&mut self, pieces: &[Piece<'a>], access: Access, names_files: bool) -> Result<()> {
        self.names_files = names_files;
        self.spans = spans(pieces, MOST_GAP);
        let mut needed = self.place(access);
        if to_u64(needed) > MOST_READ {
            // Of a source that does not lend, all has to be read: then only what the unit has in it.
            self.spans = spans(pieces, 0);
            needed = self.place(access);
        }
        let mut memory = if needed > 0 { self.read.reserve(needed) } else { &mut [] };
        for span in self.spans.iter().filter(|span| span.read_to.is_some()) {
            let taken = to_usize_saturating(whole_pages(span.length())).min(memory.len());
            let (piece, rest) = memory.split_at_mut(taken);
            let wanted = piece.get_mut(..to_usize_saturating(span.length())).unwrap_or_default();
            let read = span.source.read_exact_at(span.start, wanted);
            // It may be for what lies between, which is of no interest.
            let read = read.or_else(|_| span.read_apart(pieces, wanted));
            read.map_err(|error| said_of(error, span.layer, span.source, names_files))?;
            memory = rest;
        }
        Ok(())
    }

    /// Finds out which spans are to be read, and to where. Returns how much memory that takes, in bytes.
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

    /// The bytes of the unit that was loaded, which has these pieces.
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
        // Pieces lie in their files, so this can't be; if it is, nobody shall get fewer bytes than there are.
        let missing = || ErrorKind::OutOfBounds { length: piece.length, limit: 0 };
        Ok(Segment::Data(bytes.ok_or_else(|| Error::of(Structure::File, missing()))?))
    }

    /// Where the bytes of a piece were read to: the memory of their span, and how far into it they begin; none if they are
    /// borrowed.
    fn span_of(&self, source: SourceRef<'_>, offset: u64, length: u64) -> Option<(usize, u64)> {
        let span = self.spans.iter().rev().find(|span| span.contains(source, offset, length))?;
        Some((span.read_to?, offset.checked_sub(span.start)?))
    }

    /// That nothing was lost of what was borrowed of the unit that was loaded, which has these pieces. Asked after a look at
    /// the bytes, it is certain.
    pub(super) fn check(&self, pieces: &[Piece<'_>]) -> Result<()> {
        self.check_lengths()?;
        if !any_lost() {
            return Ok(());
        }
        for Piece { length, layer, origin } in pieces {
            let Origin::File(source, offset) = *origin else { continue };
            if self.span_of(source, offset, *length).is_none() {
                let checked = source.check(Structure::File, offset, *length);
                checked.map_err(|error| said_of(error, *layer, source, self.names_files))?;
            }
        }
        Ok(())
    }

    /// That no file has become shorter of which the unit has borrowed bytes: in its last page, that can't be seen when it is
    /// touched.
    fn check_lengths(&self) -> Result<()> {
        // Files are few, and what a unit has of one is asked for once.
        let mut ends: Vec<(SourceRef<'_>, usize, u64)> = Vec::new();
        for span in self.spans.iter().filter(|span| span.read_to.is_none()) {
            match ends.iter_mut().find(|(source, ..)| source.is(span.source)) {
                Some((_, _, end)) => *end = span.end.max(*end),
                None => ends.push((span.source, span.layer, span.end)),
            }
        }
        ends.into_iter().try_for_each(|(source, layer, end)| {
            source.check_length(end).map_err(|error| said_of(error, layer, source, self.names_files))
        })
    }

    /// What is not needed any more, since nobody looks at these bytes again; with `uncache`, nor at the system's own copy.
    pub(super) fn leave(&mut self, uncache: bool) -> impl Iterator<Item = Released<'a>> {
        self.spans.drain(..).filter_map(move |span| {
            let ReadSpan { source, start, end, .. } = span;
            let is_lent = span.read_to.is_none();
            (is_lent || uncache).then_some(Released { source: source.source(), start, end, is_lent, uncache })
        })
    }
}

/// An error in the file of a layer; with its name, if there are several inputs.
fn said_of(error: Error, layer: usize, source: SourceRef<'_>, names_files: bool) -> Error {
    let file = source.source().path();
    error.in_layer(layer, file).in_file(file.filter(|_| names_files))
}

/// The parts of the files that a unit has bytes in. Those that are not farther apart than `most_gap` are one.
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
        // From the last one on: the next run of a file mostly lies after the last one.
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

/// The bytes of a unit as one slice: borrowed where they lie together, put together in `whole` where they do not.
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
