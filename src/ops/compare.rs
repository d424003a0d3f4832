//! Comparison of two inputs: disks, chains of images, raw files, in any combination.

use std::ops::{ControlFlow, Range};

use crate::disk::Segment;
use crate::num::{to_u64, to_usize_saturating};
use crate::scan::{Access, Bulk, Input, ScanError, ScanOptions, UnitBytes};
use crate::zero::is_zero;

/// Granularity of differences, in bytes: the smaller of the two sector sizes.
pub const COMPARE_STEP: u64 = 512;

/// Range in which two inputs differ.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The range, counted from the beginning of the inputs: whole steps of [`COMPARE_STEP`], except for the end of the
    /// longer input. Every step of it differs.
    pub range: Range<u64>,
    /// Offset of the first byte in the range that differs.
    pub first: u64,
}

/// Reason why a comparison ended early.
enum Ended {
    ScanError(ScanError),
    /// The caller needs no more differences.
    Enough,
}

impl From<ScanError> for Ended {
    fn from(error: ScanError) -> Self {
        Self::ScanError(error)
    }
}

/// Compares two inputs, and calls `on_difference` for each range in which they differ, in order, until it breaks. The
/// shorter input is compared as if zeros followed it. With the feature `rayon`, the threads of the current pool do it.
///
/// Ranges that are unallocated in both inputs are free, and so are ranges with the same bytes of the same file, such as
/// those of the common parent of two children.
///
/// # Errors
/// See [`ScanError`]. Differences before an error in reading have been reported.
pub fn compare(
    one: Input<'_>,
    other: Input<'_>,
    options: &ScanOptions<'_>,
    mut on_difference: impl FnMut(Difference) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    let bulk = Bulk { inputs: [one, other], access: Access::Borrow, visit_zeros: false, options: *options };
    // A difference that reaches the end of a unit may continue in the next one.
    let mut pending: Option<Difference> = None;
    let mut report = |difference: Difference| match on_difference(difference) {
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
                    _ => pending.replace(next).map_or(Ok(()), &mut report)?,
                }
            }
            Ok(())
        },
    );
    let last = match &compared {
        Ok(()) | Err(Ended::ScanError(ScanError::Read(_))) => pending.take().map_or(Ok(()), report),
        Err(_) => Ok(()),
    };
    match compared.and(last) {
        Ok(()) => Ok(()),
        Err(Ended::Enough) => bulk.check_tables(),
        Err(Ended::ScanError(error)) => Err(error),
    }
}

/// Returns the differences in a unit of work.
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

/// Returns the offset of the first byte in which two inputs differ, as if zeros followed the shorter one. Returns
/// `None` if they are equal.
///
/// # Errors
/// See [`ScanError`].
pub fn first_difference(one: Input<'_>, other: Input<'_>, options: &ScanOptions<'_>) -> Result<Option<u64>, ScanError> {
    let bulk = Bulk { inputs: [one, other], access: Access::Borrow, visit_zeros: false, options: *options };
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
        Err(Ended::ScanError(error)) => Err(error),
    }
}

/// Number of bytes that are compared at once, in the fastest way, to find those that are equal.
const CHUNK: usize = 16 << 10;

/// The differences of a unit, so far.
struct Differences {
    all: Vec<Difference>,
    /// Length of the longer input: the last step may be shorter.
    length: u64,
}

impl Differences {
    /// Compares two pieces of the same length, which begin at `position`.
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
                    let (beside, remaining) = rest.split_at_checked(chunk.len()).unwrap_or((rest, &[]));
                    rest = remaining;
                    if chunk != beside {
                        let mut beside = beside;
                        let differ = |step: &[u8]| {
                            let (now, remaining) = beside.split_at_checked(step.len()).unwrap_or((beside, &[]));
                            beside = remaining;
                            if step == now { None } else { step.iter().zip(now).position(|(a, b)| a != b) }
                        };
                        self.steps(position, chunk, differ);
                    }
                });
            }
        }
    }

    /// Compares a chunk step by step. `differ` returns the first difference in a step.
    fn steps(&mut self, position: u64, chunk: &[u8], mut differ: impl FnMut(&[u8]) -> Option<usize>) {
        let to_step = COMPARE_STEP.saturating_sub(position % COMPARE_STEP);
        let (head, rest) = chunk.split_at_checked(to_usize_saturating(to_step)).unwrap_or((chunk, &[]));
        let mut at = position;
        for piece in std::iter::once(head).chain(rest.chunks(to_usize_saturating(COMPARE_STEP))) {
            if let Some(first) = differ(piece) {
                // The whole step counts, also if a piece begins or ends inside it.
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
