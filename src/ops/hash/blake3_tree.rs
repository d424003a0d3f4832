//! BLAKE3 in parts: its tree, combined from subtrees of one unit each, which may be computed anywhere.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::disk::Segment;
use crate::scan::UNIT;

/// A subtree over the bytes from `start` on: a unit, a power of two of units, or the rest at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subtree {
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) value: ChainingValue,
}

/// Adjacent subtrees of an input of `total` bytes. Neighbours that form a larger subtree have been merged, but never to
/// the whole tree, whose root is computed differently.
///
/// An input of one unit or less has no subtrees in this sense: `value` is its digest then.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    total: u64,
    subtrees: Vec<Subtree>,
}

impl Tree {
    pub(super) fn new(total: u64) -> Self {
        Self { total, subtrees: Vec::new() }
    }

    pub(super) fn subtrees(&self) -> &[Subtree] {
        &self.subtrees
    }

    /// Computes the subtree of a unit.
    pub(super) fn unit<'s>(&self, start: u64, segments: impl Iterator<Item = Segment<'s>>) -> Subtree {
        let is_whole = self.total <= UNIT;
        let mut hasher = blake3::Hasher::new();
        if !is_whole {
            hasher.set_input_offset(start);
        }
        for bytes in segments.flat_map(Segment::slices) {
            hasher.update(bytes);
        }
        let value = if is_whole { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() };
        Subtree { start, length: hasher.count(), value }
    }

    /// Adds the subtree after all others.
    pub(super) fn push(&mut self, mut right: Subtree) {
        // The left subtree of the whole: the largest power of two below its length.
        let most = self.total.checked_sub(1).and_then(u64::checked_ilog2).map_or(0, |power| 1 << power);
        while let Some(left) = self.subtrees.pop_if(|left| {
            let both = left.length.saturating_add(right.length);
            left.length == right.length && both <= most && left.start & both.saturating_sub(1) == 0
        }) {
            let value = merge_subtrees_non_root(&left.value, &right.value, Mode::Hash);
            right = Subtree { start: left.start, length: left.length.saturating_add(right.length), value };
        }
        self.subtrees.push(right);
    }

    /// Returns the digest. The subtrees must cover the whole input.
    pub(super) fn root(&self) -> [u8; 32] {
        let Some((first, rest)) = self.subtrees.split_first() else { return *blake3::hash(&[]).as_bytes() };
        // From the right: each subtree is the left one of all that follow.
        let Some((last, between)) = rest.split_last() else { return first.value };
        let right = between
            .iter()
            .rev()
            .fold(last.value, |right, left| merge_subtrees_non_root(&left.value, &right, Mode::Hash));
        *merge_subtrees_root(&first.value, &right, Mode::Hash).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::Tree;
    use crate::disk::Segment;
    use crate::scan::UNIT;

    /// Bytes that differ from unit to unit.
    fn bytes(length: u64) -> Vec<u8> {
        (0..length).map(|n| u8::try_from(n.wrapping_mul(n ^ 0x9e37_79b9) >> 13 & 0xff).unwrap()).collect()
    }

    #[test]
    fn parts_equal_whole_for_every_length() {
        let all = bytes(9 * UNIT + 1);
        for units in 0..=9 {
            for rest in [0, 1, 1024, UNIT / 2 + 512, UNIT - 1] {
                let length = usize::try_from(units * UNIT + rest).unwrap().min(all.len());
                let whole = &all[..length];
                let mut tree = Tree::new(u64::try_from(length).unwrap());
                for (index, unit) in (0_u64..).zip(whole.chunks(usize::try_from(UNIT).unwrap())) {
                    tree.push(tree.unit(index * UNIT, [Segment::Data(unit)].into_iter()));
                }
                assert_eq!(tree.root(), *blake3::hash(whole).as_bytes(), "{units} units and {rest} bytes");
                assert!(tree.subtrees().len() <= 5, "neighbours are merged");
            }
        }
    }
}
