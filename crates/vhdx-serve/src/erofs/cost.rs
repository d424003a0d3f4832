//! The chunk size of a file: what each one would cost.

use super::format::{ADDRESS_SIZE, BLOCK, INDEX_SIZE, MAX_CHUNK_BITS};
use super::pages::{Pages, Segment};

/// What one chunk size would cost.
#[derive(Clone, Copy, Debug)]
struct Level {
    bits: u8,
    /// Number of chunks that must be copied.
    copied: u64,
    /// The last of them.
    last: Option<u64>,
    /// Whether a chunk would have both bytes that can be read and such that cannot.
    mixes_lost: bool,
}

/// Cost of each chunk size for a file: bytes of indexes or addresses, and bytes that must be copied. A chunk lies in
/// one piece on one device, or is a hole: all others are copied whole.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    levels: Vec<Level>,
    before: Option<Pages>,
    has_lost: bool,
}

/// Chunk size of a file, and its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Size of a chunk, as a power of 2 of blocks.
    pub(super) bits: u8,
    /// Whether chunks have indexes; addresses otherwise.
    pub(super) has_indexes: bool,
    /// Size of all indexes or addresses, in bytes.
    pub(super) entries: u64,
    /// Size of what must be copied, in bytes, at most.
    pub(super) copied: u64,
}

impl Choice {
    pub(super) fn cost(&self) -> u64 {
        self.entries.saturating_add(self.copied)
    }
}

impl Costs {
    /// Starts with no page. Chunks larger than a file of `pages` are of no use.
    pub(super) fn new(pages: u64) -> Self {
        let level = |bits| Level { bits, copied: 0, last: None, mixes_lost: false };
        let largest = u8::try_from(pages.max(1).next_power_of_two().trailing_zeros()).unwrap_or(MAX_CHUNK_BITS);
        Self { levels: (0..=largest.min(MAX_CHUNK_BITS)).map(level).collect(), before: None, has_lost: false }
    }

    /// Adds the next segment.
    pub(super) fn add(&mut self, segment: &Segment) {
        let is_lost = segment.content == Pages::Lost;
        self.has_lost |= is_lost;
        let touches_lost = is_lost || self.before == Some(Pages::Lost);
        let start = segment.pages.start;
        for level in &mut self.levels {
            let chunk = |page: u64| page.checked_shr(level.bits.into()).unwrap_or(0);
            let first = chunk(start);
            if segment.content == Pages::Copied {
                let last = chunk(segment.pages.end.saturating_sub(1));
                let count = last.saturating_sub(first).saturating_add(u64::from(level.last != Some(first)));
                level.copied = level.copied.saturating_add(count);
                level.last = Some(last);
            }
            let is_mixed = first.checked_shl(level.bits.into()) != Some(start);
            if is_mixed && level.last != Some(first) && segment.content != Pages::Copied {
                level.copied = level.copied.saturating_add(1);
                level.last = Some(first);
            }
            level.mixes_lost |= is_mixed && touches_lost;
        }
        self.before = Some(segment.content);
    }

    /// Whether a part cannot be read: it is on a device that is missing, which only an index can say.
    pub(super) fn has_lost(&self) -> bool {
        self.has_lost
    }

    /// Returns the cheapest chunk size for a file of `pages` whose chunks have indexes, or addresses.
    pub(super) fn choose(&self, pages: u64, has_indexes: bool) -> Choice {
        let entries = |chunks: u64| chunks.saturating_mul(if has_indexes { INDEX_SIZE } else { ADDRESS_SIZE });
        let choices = self.levels.iter().filter(|level| !level.mixes_lost).map(|level| {
            let chunk = 1_u64.checked_shl(level.bits.into()).unwrap_or(u64::MAX);
            Choice {
                bits: level.bits,
                has_indexes,
                entries: entries(pages.div_ceil(chunk)),
                copied: level.copied.saturating_mul(chunk.min(pages)).saturating_mul(BLOCK),
            }
        });
        // Of equal costs the larger chunks: the kernel looks at fewer of them.
        let least = choices.min_by_key(|choice| (choice.cost(), u8::MAX.saturating_sub(choice.bits)));
        least.unwrap_or(Choice { bits: 0, has_indexes, entries: entries(pages), copied: 0 })
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test that panics fails, as it should")]
mod tests {
    use super::{Choice, Costs, Pages, Segment};

    /// Numbers that look random (xorshift).
    fn next(state: &mut u64, end: u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % end
    }

    /// Segments by chance, with ends at multiples of powers of 2 more often.
    fn segments(state: &mut u64, has_lost: bool) -> Vec<Segment> {
        let (mut all, mut start) = (Vec::new(), 0);
        for _ in 0..1 + next(state, 12) {
            let unit = 1 << next(state, 7);
            let end = (start + 1 + next(state, 200)).next_multiple_of(unit);
            let content = match next(state, if has_lost { 5 } else { 4 }) {
                0 => Pages::Copied,
                1 => Pages::Hole,
                4 => Pages::Lost,
                device => Pages::Direct { device: u16::try_from(device).unwrap(), block: 77 },
            };
            all.push(Segment { pages: start..end, content });
            start = end;
        }
        all
    }

    /// Cost of a chunk size, chunk by chunk. `None` if a chunk has bytes that can be read and such that cannot.
    fn cost(segments: &[Segment], bits: u8, has_indexes: bool) -> Option<(u64, u64)> {
        let (pages, chunk) = (segments.last().unwrap().pages.end, 1 << bits);
        let entry = if has_indexes { 8 } else { 4 };
        let (mut entries, mut copied) = (0, 0);
        for start in (0..pages).step_by(1 << bits) {
            entries += entry;
            let end = pages.min(start + chunk);
            let inside = segments.iter().filter(|one| one.pages.start < end && one.pages.end > start);
            let inside: Vec<Pages> = inside.map(|one| one.content).collect();
            if inside.len() > 1 && inside.contains(&Pages::Lost) {
                return None;
            }
            if inside.len() > 1 || inside == [Pages::Copied] {
                copied += chunk.min(pages) * 4096;
            }
        }
        Some((entries, copied))
    }

    #[test]
    fn choice_is_the_cheapest_one() {
        let state = &mut 0x1234_5678_9abc_def1;
        for round in 0..2000 {
            let all = segments(state, round % 2 == 1);
            let pages = all.last().unwrap().pages.end;
            let has_indexes = round % 3 != 0;
            let mut costs_of = Costs::new(pages);
            all.iter().for_each(|segment| costs_of.add(segment));
            let Choice { bits, entries, copied, .. } = costs_of.choose(pages, has_indexes);
            assert_eq!(cost(&all, bits, has_indexes), Some((entries, copied)), "{bits}: {all:?}");
            let costs = (0..12).filter_map(|bits| cost(&all, bits, has_indexes));
            let least = costs.map(|(entries, copied)| entries + copied).min();
            assert_eq!(least, Some(entries + copied), "{all:?}");
            assert_eq!(costs_of.has_lost(), all.iter().any(|segment| segment.content == Pages::Lost));
        }
    }
}
