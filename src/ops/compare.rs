//! Whether two contents are the same: disks, chains of images, raw files, in any combination.

use std::ops::{ControlFlow, Range};

use crate::disk::Segment;
use crate::num::{to_u64, to_usize_saturating};
use crate::scan::{Access, Bulk, Input, ScanError, ScanOptions, UnitBytes};
use crate::zero::is_zero;

/// In what steps differences are told, in bytes: a sector of the smaller kind.
pub const COMPARE_STEP: u64 = 512;

/// A range in which two contents differ.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The range, counted from the beginning of the contents: whole steps of [`COMPARE_STEP`], but for the end of the longer
    /// content. Its first and its last step differ, and every step between.
    pub range: Range<u64>,
    /// The first byte in it that differs.
    pub first: u64,
}

/// Why a comparison ended before its end.
enum Ended {
    ScanError(ScanError),
    /// Whoever is told of the differences knows enough.
    Enough,
}

impl From<ScanError> for Ended {
    fn from(stopped: ScanError) -> Self {
        Self::ScanError(stopped)
    }
}

/// Compares two contents, the shorter one as if zeros were behind it, and tells `on_difference` of each range in which they
/// differ, in order, until it has enough. With the feature `rayon`, the threads of the current pool do it.
///
/// What both have nowhere costs nothing, and neither does what both have in the same place of the same file, as two children
/// of one parent have.
///
/// # Errors
/// See [`ScanError`]; what was found before an error in reading has been told.
pub fn compare(
    one: Input<'_>,
    other: Input<'_>,
    options: &ScanOptions<'_>,
    mut on_difference: impl FnMut(Difference) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    let bulk = Bulk { contents: [one, other], access: Access::Borrow, visit_zeros: false, options: *options };
    // A difference that reaches the end of a unit may go on in the next one.
    let mut pending: Option<Difference> = None;
    let mut tell = |difference: Difference| match on_difference(difference) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Ended::Enough),
    };
    let length = one.len().max(other.len());
    let compared = bulk.each(
        |unit, _| Ok(differences(unit, length)),
        |done| {
            if done.value.is_none() {
                options.advance(done.length)?;
            }
            for next in done.value.into_iter().flatten() {
                match &mut pending {
                    Some(before) if next.range.start <= before.range.end => before.range.end = next.range.end,
                    _ => pending.replace(next).map_or(Ok(()), &mut tell)?,
                }
            }
            Ok(())
        },
    );
    let last = match &compared {
        Ok(()) | Err(Ended::ScanError(ScanError::Read(_))) => pending.take().map_or(Ok(()), tell),
        Err(_) => Ok(()),
    };
    match compared.and(last) {
        Ok(()) => Ok(()),
        Err(Ended::Enough) => bulk.check_tables(),
        Err(Ended::ScanError(stopped)) => Err(stopped),
    }
}

/// The differences of a unit of work.
fn differences(unit: &UnitBytes<'_>, length: u64) -> Vec<Difference> {
    let mut found = Differences { all: Vec::new(), length };
    let mut position = unit.start;
    for pair in unit.segments.chunks_exact(2) {
        let [one, other] = pair else { continue };
        found.between(*one, *other, position);
        position = position.saturating_add(one.len());
    }
    found.all
}

/// Whether two contents are the same, the shorter one with zeros behind it; if not, the first byte that differs.
///
/// # Errors
/// See [`ScanError`].
pub fn first_difference(one: Input<'_>, other: Input<'_>, options: &ScanOptions<'_>) -> Result<Option<u64>, ScanError> {
    let bulk = Bulk { contents: [one, other], access: Access::Borrow, visit_zeros: false, options: *options };
    let length = one.len().max(other.len());
    let mut first = None;
    let compared = bulk.each(
        |unit, _| Ok(differences(unit, length).first().map(|difference| difference.first)),
        |done| {
            if done.value.is_none() {
                options.advance(done.length)?;
            }
            first = done.value.flatten();
            if first.is_some() { Err(Ended::Enough) } else { Ok(()) }
        },
    );
    match compared {
        Ok(()) => Ok(first),
        Err(Ended::Enough) => bulk.check_tables().map(|()| first),
        Err(Ended::ScanError(stopped)) => Err(stopped),
    }
}

/// Bytes that are looked at as one: those that are equal are told so by the fastest way there is.
const CHUNK: usize = 16 << 10;

/// The differences of a unit, so far.
struct Differences {
    all: Vec<Difference>,
    /// Of the longer content: the last step may be cut.
    length: u64,
}

impl Differences {
    /// Finds where two pieces of the same length differ, the pieces beginning at `position`.
    fn between(&mut self, one: Segment<'_>, other: Segment<'_>, position: u64) {
        match (one, other) {
            (Segment::Zero(_), Segment::Zero(_)) => {}
            (Segment::Data(bytes), Segment::Zero(_)) | (Segment::Zero(_), Segment::Data(bytes)) => {
                chunks(position, bytes, |position, chunk| {
                    if !is_zero(chunk) {
                        self.steps(position, chunk, |chunk| chunk.iter().position(|byte| *byte != 0));
                    }
                });
            }
            (Segment::Data(one), Segment::Data(other)) => {
                let mut rest = other;
                chunks(position, one, |position, chunk| {
                    let (beside, behind) = rest.split_at_checked(chunk.len()).unwrap_or((rest, &[]));
                    rest = behind;
                    if chunk != beside {
                        let mut beside = beside;
                        let differ = |step: &[u8]| {
                            let (now, behind) = beside.split_at_checked(step.len()).unwrap_or((beside, &[]));
                            beside = behind;
                            if step == now { None } else { step.iter().zip(now).position(|(a, b)| a != b) }
                        };
                        self.steps(position, chunk, differ);
                    }
                });
            }
        }
    }

    /// Goes through a chunk step by step. `differ` says where in a step the first difference is.
    fn steps(&mut self, position: u64, chunk: &[u8], mut differ: impl FnMut(&[u8]) -> Option<usize>) {
        let to_step = COMPARE_STEP.saturating_sub(position % COMPARE_STEP);
        let (head, rest) = chunk.split_at_checked(to_usize_saturating(to_step)).unwrap_or((chunk, &[]));
        let mut at = position;
        for piece in std::iter::once(head).chain(rest.chunks(to_usize_saturating(COMPARE_STEP))) {
            if let Some(first) = differ(piece) {
                // The whole step counts, also where a piece begins or ends inside of it.
                let start = at & !COMPARE_STEP.saturating_sub(1);
                let end = start.saturating_add(COMPARE_STEP).min(self.length);
                match self.all.last_mut().filter(|before| start <= before.range.end) {
                    Some(before) => before.range.end = end,
                    None => self.all.push(Difference { range: start..end, first: at.saturating_add(to_u64(first)) }),
                }
            }
            at = at.saturating_add(to_u64(piece.len()));
        }
    }
}

/// Shows `bytes`, which begin at `position`, chunk by chunk.
fn chunks<'b>(position: u64, bytes: &'b [u8], mut show: impl FnMut(u64, &'b [u8])) {
    let mut at = position;
    for chunk in bytes.chunks(CHUNK) {
        show(at, chunk);
        at = at.saturating_add(to_u64(chunk.len()));
    }
}
