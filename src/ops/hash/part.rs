//! Digests of parts of an input, for algorithms that can combine them.

use std::ops::Range;

use crate::checksum::Crc32;
use crate::disk::Segment;
use crate::scan::{Access, Bulk, Input, ScanError, ScanOptions, UNIT};

use super::blake3_tree::{Subtree, Tree};
use super::{Algorithm, Digest};

/// The mergeable digests to compute, and the length of the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartPlan {
    total: u64,
    has_crc32: bool,
    has_blake3: bool,
}

/// Intermediate state of the mergeable digests for a part of an input. Adjacent parts are appended to each other,
/// wherever they were computed, and give the digests of the whole once they cover it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    start: u64,
    length: u64,
    crc32: Option<Crc32>,
    blake3: Option<Tree>,
}

impl PartPlan {
    /// Makes a plan for the mergeable ones of `algorithms`, and an input of `total` bytes.
    pub(crate) fn new(total: u64, algorithms: &[Algorithm]) -> Self {
        let has = |algorithm| algorithms.contains(&algorithm);
        Self { total, has_crc32: has(Algorithm::Crc32), has_blake3: has(Algorithm::Blake3) }
    }

    /// Computes the part of an input in `range`, counted from its beginning. The start of the range is rounded down to
    /// a multiple of [`ScanOptions::UNIT`], and so is its end, unless it is that of the input.
    ///
    /// # Errors
    /// See [`ScanError`].
    pub(crate) fn compute(
        self,
        input: Input<'_>,
        range: Range<u64>,
        options: &ScanOptions<'_>,
    ) -> Result<Part, ScanError> {
        let total = self.total;
        let aligned = |place: u64| if place >= total { total } else { place & !UNIT.saturating_sub(1) };
        let (start, end) = (aligned(range.start), aligned(range.end.max(range.start)));
        let inputs = [input.part(start, end)];
        let mut part = self.empty(start);
        let bulk = Bulk { inputs, access: Access::Borrow, visit_zeros: self.visit_zeros(), options: *options };
        bulk.each(
            |unit, _| Ok::<_, ScanError>(self.of_unit(start.saturating_add(unit.start), unit.segments())),
            |done| {
                match done.value {
                    Some(unit) => part.append(unit),
                    None => {
                        part.append_zeros(done.length);
                        options.advance(done.length)?;
                    }
                }
                Ok(())
            },
        )?;
        Ok(part)
    }

    /// Makes an empty part at `start`.
    pub(crate) fn empty(self, start: u64) -> Part {
        Part {
            start,
            length: 0,
            crc32: self.has_crc32.then(Crc32::default),
            blake3: self.has_blake3.then(|| Tree::new(self.total)),
        }
    }

    /// Computes the part of a unit.
    pub(crate) fn of_unit<'s>(self, start: u64, segments: impl Iterator<Item = Segment<'s>> + Clone) -> Part {
        let length = segments.clone().fold(0_u64, |sum, segment| sum.saturating_add(segment.len()));
        let crc32 = self.has_crc32.then(|| {
            segments.clone().fold(Crc32::default(), |mut sum, segment| {
                match segment {
                    Segment::Data(bytes) => sum.update(bytes),
                    Segment::Zero(length) => sum.append_zeros(length),
                }
                sum
            })
        });
        let blake3 = self.has_blake3.then(|| {
            let mut tree = Tree::new(self.total);
            tree.push(tree.unit(start, segments));
            tree
        });
        Part { start, length, crc32, blake3 }
    }

    /// Returns whether zeros have to be processed: only their CRC-32 can be computed in another way.
    pub(crate) fn visit_zeros(self) -> bool {
        self.has_blake3
    }
}

impl Part {
    /// Returns the start, counted from the beginning of the input, in bytes.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Returns the length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends the part after this one.
    pub(crate) fn append(&mut self, next: Self) {
        self.length = self.length.saturating_add(next.length);
        if let (Some(crc32), Some(next)) = (&mut self.crc32, &next.crc32) {
            crc32.append(next);
        }
        if let (Some(tree), Some(next)) = (&mut self.blake3, &next.blake3) {
            next.subtrees().iter().for_each(|subtree| tree.push(*subtree));
        }
    }

    /// Appends zeros, if they need not be processed.
    pub(crate) fn append_zeros(&mut self, length: u64) {
        self.length = self.length.saturating_add(length);
        if let Some(crc32) = &mut self.crc32 {
            crc32.append_zeros(length);
        }
    }

    /// Returns the digests of the whole input. The part must cover it.
    pub(crate) fn digests(&self) -> Vec<Digest> {
        let crc32 = self.crc32.as_ref().map(Digest::of_crc32);
        let blake3 = self.blake3.as_ref().map(|tree| Digest::new(Algorithm::Blake3, &tree.root()));
        [crc32, blake3].into_iter().flatten().flatten().collect()
    }

    /// Returns the state that is needed to continue elsewhere.
    pub(crate) fn to_stored(&self) -> StoredPart {
        let subtrees = self.blake3.as_ref().map(|tree| {
            let stored = |subtree: &Subtree| (subtree.start, subtree.length, subtree.value);
            tree.subtrees().iter().map(stored).collect()
        });
        StoredPart {
            start: self.start,
            length: self.length,
            crc32: self.crc32.as_ref().map(Crc32::value),
            blake3: subtrees,
        }
    }

    /// Makes a part of an input of `total` bytes from a stored state. Returns `None` if the state is invalid.
    pub(crate) fn from_stored(stored: StoredPart, total: u64) -> Option<Self> {
        let StoredPart { start, length, crc32, blake3 } = stored;
        let mut tree = blake3.as_ref().map(|_| Tree::new(total));
        let mut position = start;
        for (start, length, value) in blake3.into_iter().flatten() {
            let is_inner = length.is_power_of_two() && length >= UNIT && start & length.saturating_sub(1) == 0;
            let is_last = length <= UNIT && start.is_multiple_of(UNIT) && start.checked_add(length) == Some(total);
            if start != position || length == 0 || !(is_inner || is_last) {
                return None;
            }
            tree.as_mut()?.push(Subtree { start, length, value });
            position = position.checked_add(length)?;
        }
        let end = start.checked_add(length).filter(|end| *end <= total)?;
        if tree.is_some() && position != end {
            return None;
        }
        Some(Self { start, length, crc32: crc32.map(|sum| Crc32::of(sum, length)), blake3: tree })
    }
}

/// A part in a form that can be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredPart {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) crc32: Option<u32>,
    /// Start, length and value of each subtree, in order.
    pub(crate) blake3: Option<Vec<(u64, u64, [u8; 32])>>,
}
