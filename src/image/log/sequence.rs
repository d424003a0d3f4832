//! Active sequence of the log (MS-VHDX 2.3.2, 2.3.3).

use uuid::Uuid;

use super::entry::{Entry, Ring, STEP};

/// Calls `found` for every sector of the ring that may begin an entry, in order. Holes are free, and the memory of
/// sectors that were read is released.
pub(crate) fn for_each_beginning(ring: &Ring<'_>, mut found: impl FnMut(u64)) {
    let (mut index, mut data_end, mut kept_from) = (0, 0, 0);
    while index < ring.sectors() {
        // Asked once for each run of data: some file systems read all of it to find its end.
        if index >= data_end {
            index = index.max(ring.hole_end(index));
            data_end = ring.data_end(index);
        }
        let stop = index.saturating_add(STEP).min(data_end).min(ring.sectors());
        ring.will_need(index, stop);
        (index..stop).filter(|index| ring.may_begin(*index)).for_each(&mut found);
        // From the end of the previous release: the system maps pages around those that are read, including those of
        // holes.
        ring.forget(kept_from, stop);
        kept_from = stop;
        index = stop.max(index.saturating_add(1));
    }
}

/// Returns the valid entries of a log, or of all logs, in the order of their offsets.
pub(crate) fn valid_entries(ring: &Ring<'_>, log_guid: Option<Uuid>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for_each_beginning(ring, |index| entries.extend(Entry::read(ring, index, log_guid)));
    entries
}

/// A chain of entries: each begins at the end of the previous one, and has the next number.
struct Chain {
    /// Indices of its entries, first to last.
    members: Vec<usize>,
    /// Index of the member that the last one names as the tail.
    tail: usize,
}

/// Finds the active sequence among the valid entries of one log (in the order of their offsets, of a ring of `ring`
/// sectors), and returns the indices of those to replay, in order: from the one that the head names as its tail, to the
/// head.
///
/// Valid entries never overlap, so each has at most one predecessor and one successor, and they form chains. A sequence
/// as the specification collects it, from any beginning, is the rest of such a chain; and it can be valid only if the
/// whole chain is, since both have the same head. So it is enough to check whole chains: one pass, whatever the log
/// holds.
pub(crate) fn find_active(entries: &[Entry], ring: u64) -> Option<Vec<usize>> {
    let at = |start: u64| entries.binary_search_by_key(&start, |entry| entry.start).ok();
    let next_of = |index: usize| {
        let entry = entries.get(index)?;
        let end = entry.start.checked_add(entry.length)?.checked_rem(ring)?;
        let next = at(end)?;
        let number = entries.get(next)?.sequence_number;
        (entry.sequence_number.checked_add(1) == Some(number)).then_some(next)
    };

    let mut has_predecessor = vec![false; entries.len()];
    for next in (0..entries.len()).filter_map(next_of) {
        if let Some(has) = has_predecessor.get_mut(next) {
            *has = true;
        }
    }
    let first_members = has_predecessor.iter().enumerate().filter(|(_, has)| !**has).map(|(index, _)| index);

    let mut best: Option<(u64, u64, Vec<usize>)> = None;
    for first in first_members {
        let Some(chain) = Chain::from(first, entries, &at, &next_of) else { continue };
        let Some(head) = chain.members.last().and_then(|index| entries.get(*index)) else { continue };
        // Of two sequences with the same head number, which no writer makes, the one that is found first counts: the
        // one with the first place from which its tail can still be collected.
        let found_at = chain.members.iter().take(chain.tail.saturating_add(1));
        let found_at = found_at.filter_map(|index| entries.get(*index)).map(|entry| entry.start).min().unwrap_or(0);
        let is_better = best.as_ref().is_none_or(|(number, place, _)| {
            head.sequence_number > *number || (head.sequence_number == *number && found_at < *place)
        });
        if is_better {
            let active = chain.members.get(chain.tail..).unwrap_or_default().to_vec();
            best = Some((head.sequence_number, found_at, active));
        }
    }
    best.map(|(.., active)| active)
}

impl Chain {
    /// Returns the chain that begins with `first`, if its last member names one of it as the tail.
    fn from(
        first: usize,
        entries: &[Entry],
        at: &impl Fn(u64) -> Option<usize>,
        next_of: &impl Fn(usize) -> Option<usize>,
    ) -> Option<Self> {
        let members: Vec<usize> = std::iter::successors(Some(first), |index| next_of(*index)).collect();
        let head = entries.get(*members.last()?)?;
        let tail_entry = at(head.tail)?;
        let tail = members.iter().position(|index| *index == tail_entry)?;
        Some(Self { members, tail })
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers")]
mod tests {
    use super::{Entry, find_active};

    fn entry(start: u64, length: u64, tail: u64, sequence_number: u64) -> Entry {
        Entry {
            start,
            length,
            tail,
            sequence_number,
            descriptors: 0,
            log_guid: uuid::Uuid::nil(),
            flushed_file_offset: 0,
            last_file_offset: 0,
        }
    }

    /// The active entries by their numbers.
    fn active(entries: &[Entry], ring: u64) -> Option<Vec<u64>> {
        Some(find_active(entries, ring)?.iter().map(|index| entries[*index].sequence_number).collect())
    }

    /// The search as the specification describes it: collect from every place, and keep the best.
    fn active_by_the_book(entries: &[Entry], ring: u64) -> Option<Vec<u64>> {
        let valid = |at: u64| entries.iter().find(|entry| entry.start == at);
        let (mut best, mut start): (Option<Vec<&Entry>>, _) = (None, 0);
        while start < ring {
            let (mut sequence, mut head, mut used) = (Vec::<&Entry>::new(), start, 0);
            while used < ring {
                let Some(entry) = valid(head) else { break };
                let goes_on = sequence.last().is_none_or(|last| last.sequence_number + 1 == entry.sequence_number);
                if used + entry.length > ring || !goes_on {
                    break;
                }
                sequence.push(entry);
                used += entry.length;
                head = (head + entry.length) % ring;
            }
            let is_valid = sequence.last().is_some_and(|last| sequence.iter().any(|entry| entry.start == last.tail));
            if is_valid {
                let number = |sequence: &[&Entry]| sequence.last().unwrap().sequence_number;
                if best.as_ref().is_none_or(|best| number(&sequence) > number(best)) {
                    best = Some(sequence);
                }
                start += used;
            } else {
                start += 1;
            }
        }
        let best = best?;
        let tail = best.last()?.tail;
        Some(best.iter().skip_while(|entry| entry.start != tail).map(|entry| entry.sequence_number).collect())
    }

    #[test]
    fn sequence_may_wrap_and_fill_the_ring() {
        let wrapped = [entry(0, 2, 6, 12), entry(6, 1, 6, 10), entry(7, 1, 6, 11)];
        assert_eq!(active(&wrapped, 8), Some(vec![10, 11, 12]));
        let full = [entry(0, 4, 4, 8), entry(4, 4, 4, 7)];
        assert_eq!(active(&full, 8), Some(vec![7, 8]));
    }

    #[test]
    fn every_small_ring_follows_specification() {
        // All ways to fill a ring of 5 sectors with entries of 1 or 2 sectors, numbers 1 to 3 and any tail would be too
        // many; a generator picks 200 000 of them.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut found = 0;
        for _ in 0..200_000 {
            let ring = 2 + next(7);
            let (mut entries, mut at, mut number) = (Vec::new(), next(2), 1 + next(4));
            while at < ring {
                // The last entry may reach into the free sectors at the beginning.
                let free = ring - at + entries.first().map_or(0, |first: &Entry| first.start);
                let length = (1 + next(2)).min(free);
                if next(5) > 0 {
                    number = if next(4) > 0 { number + 1 } else { 1 + next(4) };
                    entries.push(entry(at, length, next(ring), number));
                }
                at += length;
            }
            let expected = active_by_the_book(&entries, ring);
            found += usize::from(expected.is_some());
            assert_eq!(active(&entries, ring), expected, "ring of {ring}: {entries:?}");
        }
        assert!(found > 20_000, "only {found} rings with an active sequence");
    }
}
