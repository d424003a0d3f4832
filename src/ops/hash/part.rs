//! Digests of parts of a content, for those algorithms that can put them together.

use std::ops::Range;

use crate::checksum::Crc32;
use crate::disk::Segment;
use crate::scan::{Access, Bulk, Input, ScanError, ScanOptions, UNIT};

use super::blake3_tree::{Subtree, Tree};
use super::{Algorithm, Digest};

/// Which mergeable digests are computed, of an input of how many bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartPlan {
    total: u64,
    has_crc32: bool,
    has_blake3: bool,
}

/// What some share of the work has found of the mergeable digests of an input. Parts that lie side by side are appended to
/// each other, whoever computed them, and give the digests of the whole once they cover it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    start: u64,
    length: u64,
    crc32: Option<Crc32>,
    blake3: Option<Tree>,
}

impl PartPlan {
    /// The mergeable ones of `algorithms`, of an input of `total` bytes.
    pub(crate) fn new(total: u64, algorithms: &[Algorithm]) -> Self {
        let has = |algorithm| algorithms.contains(&algorithm);
        Self { total, has_crc32: has(Algorithm::Crc32), has_blake3: has(Algorithm::Blake3) }
    }

    /// The part of an input that lies in `range`, counted from its beginning. A range that does not begin at a multiple of
    /// [`ScanOptions::UNIT`] is begun at the one before; so is its end, unless it is that of the input.
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
        let bulk =
            Bulk { contents: inputs, access: Access::Borrow, visit_zeros: self.visit_zeros(), options: *options };
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

    /// Nothing yet, from `start` on.
    pub(crate) fn empty(self, start: u64) -> Part {
        Part {
            start,
            length: 0,
            crc32: self.has_crc32.then(Crc32::default),
            blake3: self.has_blake3.then(|| Tree::new(self.total)),
        }
    }

    /// The part that a unit is.
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

    /// Whether zeros have to be gone through: only their CRC-32 can be computed in another way.
    pub(crate) fn visit_zeros(self) -> bool {
        self.has_blake3
    }
}

impl Part {
    /// Where it begins, counted from the beginning of the content, in bytes.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Adds what lies behind it.
    pub(crate) fn append(&mut self, next: Self) {
        self.length = self.length.saturating_add(next.length);
        if let (Some(crc32), Some(next)) = (&mut self.crc32, &next.crc32) {
            crc32.append(next);
        }
        if let (Some(tree), Some(next)) = (&mut self.blake3, &next.blake3) {
            next.subtrees().iter().for_each(|subtree| tree.push(*subtree));
        }
    }

    /// Adds zeros, where they need not be gone through.
    pub(crate) fn append_zeros(&mut self, length: u64) {
        self.length = self.length.saturating_add(length);
        if let Some(crc32) = &mut self.crc32 {
            crc32.append_zeros(length);
        }
    }

    /// The digests of the whole content, once the part covers it.
    pub(crate) fn digests(&self) -> Vec<Digest> {
        let crc32 = self.crc32.as_ref().map(Digest::of_crc32);
        let blake3 = self.blake3.as_ref().map(|tree| Digest::new(Algorithm::Blake3, &tree.root()));
        [crc32, blake3].into_iter().flatten().flatten().collect()
    }

    /// What has to be known of it elsewhere, to go on there.
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

    /// The part of a content of `total` bytes that was stored; none if it is not one.
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

/// A part in a form that can be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredPart {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) crc32: Option<u32>,
    /// Start, length and value of each subtree, in order.
    pub(crate) blake3: Option<Vec<(u64, u64, [u8; 32])>>,
}
