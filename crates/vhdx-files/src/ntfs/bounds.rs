//! Bounds on journals. The replay takes records as they are, so one made for it could keep it at work for hours: with
//! records inside of others, or such that change whole volumes. No journal that Windows wrote has any of these.

use std::collections::HashMap;

use super::raw::{Fields, restore, to_u64, to_usize};
use crate::error::Result;

/// Most pages that wait for being written where they belong.
const MOST_WAITING: usize = 128;

/// Most pages among them that have the same last record.
const MOST_ALIKE: usize = 4;

/// Most times that all records together may be longer than the journal: those of its last round may still be in it.
const MOST_ROUNDS: u64 = 4;

/// Most clusters of a page that a record is about. Pages have 4 KiB, and clusters at least 512 bytes.
const MOST_CLUSTERS: usize = 64;

/// Most bits that all records together change.
const MOST_BITS: u64 = 64 << 20;

/// Length of the header of a record.
const HEADER: usize = 0x30;

/// Operations that set or clear bits, and the one that has a table of pages.
const BITS: [u16; 2] = [0x15, 0x16];
const TABLE_OF_PAGES: u16 = 0x1f;

/// Copy of a page: its last record, whether it is where it belongs, and its number.
type Copy = (u64, bool, usize);

/// Pages of a journal with records.
struct Pages {
    length: usize,
    page: usize,
    sequence_bits: u32,
    data: usize,
    first: usize,
    pages: Vec<Vec<u8>>,
    copies: HashMap<usize, Vec<Copy>>,
}

/// Returns whether replaying a journal takes time and memory in proportion to its length. A journal that cannot be read
/// at all does.
pub(super) fn is_bounded(log: &[u8]) -> bool {
    let area = |at: usize, page: usize| -> Result<(u64, Pages)> {
        let mut restart = log.part(at, page)?.to_vec();
        restore(&mut restart, *b"RSTR", 512)?;
        let area = usize::from(restart.u16(0x18)?);
        let pages = Pages {
            length: log.len(),
            page: to_usize(restart.u32(0x14)?),
            sequence_bits: restart.u32(area.saturating_add(0x10))?,
            data: usize::from(restart.u16(area.saturating_add(0x26))?),
            first: log.len(),
            pages: Vec::new(),
            copies: HashMap::new(),
        };
        Ok((restart.u64(area)?, pages))
    };
    let page = log.u32(0x10).map_or(0, to_usize);
    if !(512..=65_536).contains(&page) || !page.is_power_of_two() {
        return true;
    }
    let (first, second) = (area(0, page).ok(), area(page, page).ok());
    let newer = match (first, second) {
        (Some(first), Some(second)) => Some(if second.0 > first.0 { second } else { first }),
        (first, second) => first.or(second),
    };
    let Some((_, mut pages)) = newer else { return true };
    let is_sound = (512..=65_536).contains(&pages.page)
        && pages.page.is_power_of_two()
        && (3..64).contains(&pages.sequence_bits)
        && (0x28..pages.page).contains(&pages.data);
    !is_sound || pages.fill(log, page.saturating_mul(2)).is_some_and(|()| pages.are_bounded())
}

impl Pages {
    fn offset(&self, number: u64) -> usize {
        let shift = self.sequence_bits.saturating_sub(3);
        to_usize(number.unbounded_shl(self.sequence_bits).unbounded_shr(shift))
    }

    fn within(&self, at: usize) -> usize {
        at & self.page.saturating_sub(1)
    }

    /// Sorts the pages by where they belong. None if there are more copies than any journal has.
    fn fill(&mut self, log: &[u8], start: usize) -> Option<()> {
        let mut found = Vec::new();
        for (at, bytes) in (start..).step_by(self.page).zip(log.get(start..)?.chunks_exact(self.page)) {
            let mut bytes = bytes.to_vec();
            if restore(&mut bytes, *b"RCRD", 512).is_err() {
                continue;
            }
            let last = bytes.u64(8).ok()?;
            let home = self.offset(last).saturating_sub(self.within(self.offset(last)));
            found.push((at, home, last, self.pages.len()));
            self.pages.push(bytes);
        }
        let at_home = found.iter().filter(|(at, home, ..)| at == home).map(|(at, ..)| *at).min();
        self.first = at_home.unwrap_or(self.length);
        let mut waiting = 0_usize;
        let mut spanning = Vec::new();
        for (at, home, last, number) in found {
            if home != at && at < self.first {
                waiting = waiting.saturating_add(1);
                let bytes = self.pages.get(number)?;
                let is_end = bytes.u32(0x10).ok()? & 1 != 0 && bytes.u64(0x20).ok()? == last;
                if is_end && usize::from(bytes.u16(0x18).ok()?) <= self.within(self.offset(last)) {
                    spanning.push((home, last, number));
                } else {
                    self.add(home, (last, false, number))?;
                }
            }
            self.add(at, (last, true, number))?;
        }
        let mut placed = Vec::new();
        for (start, last, number) in spanning {
            let within = self.within(self.offset(last));
            let Some(bytes) = self.copy(start, last) else { continue };
            let Ok(length) = bytes.u32(within.saturating_add(0x18)) else { continue };
            let rest = to_usize(length).saturating_sub(self.page.saturating_sub(within).saturating_sub(HEADER));
            let steps = rest.div_ceil(self.page.saturating_sub(self.data)).max(1);
            // More steps than the journal has pages lead to no record that can be read.
            let steps = steps.min(self.pages.len().saturating_add(1));
            let home = (0..steps).fold(start, |home, _| self.after(home));
            placed.push((home, (last, false, number)));
        }
        for (home, copy) in placed {
            self.add(home, copy)?;
        }
        (waiting <= MOST_WAITING).then_some(())
    }

    fn add(&mut self, home: usize, copy: Copy) -> Option<()> {
        let copies = self.copies.entry(home).or_default();
        copies.push(copy);
        let alike = copies.iter().filter(|(last, ..)| *last == copy.0).count();
        (alike <= MOST_ALIKE && copies.len() <= MOST_WAITING).then_some(())
    }

    /// Returns the page after one, for what goes on there.
    fn after(&self, home: usize) -> usize {
        let next = home.saturating_add(self.page);
        if next.saturating_add(self.page) > self.length { self.first } else { next }
    }

    /// Returns the newest copy of a page that has a record.
    fn copy(&self, home: usize, number: u64) -> Option<&[u8]> {
        let copies = self.copies.get(&home)?.iter().filter(|(last, ..)| *last >= number);
        let (_, _, page) = copies.max_by_key(|(last, is_home, _)| (*last, *is_home))?;
        self.pages.get(*page).map(Vec::as_slice)
    }

    /// Returns whether all that may be taken for a record is bounded.
    fn are_bounded(&self) -> bool {
        let mut sum = Sum::default();
        let most = to_u64(self.length).saturating_mul(MOST_ROUNDS);
        for (home, copies) in &self.copies {
            for (_, _, number) in copies {
                let Some(bytes) = self.pages.get(*number) else { continue };
                for within in (0..self.page.saturating_sub(HEADER)).step_by(8) {
                    let Ok(record) = bytes.u64(within) else { continue };
                    if self.offset(record) != home.saturating_add(within) {
                        continue;
                    }
                    let length = bytes.u32(within.saturating_add(0x18)).map_or(0, to_usize);
                    // One that is longer than the journal is not read.
                    if length > self.length {
                        continue;
                    }
                    sum.length = sum.length.saturating_add(to_u64(length));
                    let is_operation = bytes.u32(within.saturating_add(0x20)).is_ok_and(|kind| kind == 1);
                    let data = self.beginning(*home, bytes, within, length);
                    if sum.length > most || !sum.add(&data, is_operation) {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Returns the beginning of the data of a record, as long as what is bounded in it may be.
    fn beginning(&self, home: usize, page: &[u8], within: usize, length: usize) -> Vec<u8> {
        const ENOUGH: usize = 1024;
        let length = length.min(ENOUGH);
        let number = page.u64(within).unwrap_or(u64::MAX);
        let here = page.get(within.saturating_add(HEADER)..).unwrap_or_default();
        let mut data = here.get(..length.min(here.len())).unwrap_or_default().to_vec();
        let mut home = home;
        while data.len() < length {
            home = self.after(home);
            let Some(next) = self.copy(home, number).and_then(|page| page.get(self.data..)) else { break };
            let missing = length.saturating_sub(data.len()).min(next.len());
            data.extend_from_slice(next.get(..missing).unwrap_or_default());
        }
        data
    }
}

/// What the records of a journal are together.
#[derive(Default)]
struct Sum {
    length: u64,
    bits: u64,
}

impl Sum {
    /// Adds a record by the beginning of its data, and returns whether it is bounded.
    fn add(&mut self, data: &[u8], is_operation: bool) -> bool {
        let field = |at: usize| usize::from(data.u16(at).unwrap_or(0));
        let operations = [(field(0), field(4)), (field(2), field(8))];
        for (operation, place) in operations {
            if BITS.iter().any(|bits| usize::from(*bits) == operation) {
                let bits = data.u32(place.saturating_add(4)).unwrap_or(0);
                self.bits = self.bits.saturating_add(u64::from(bits));
            }
            // Its entries have a number for each cluster of a page.
            let is_table = operation == usize::from(TABLE_OF_PAGES);
            if is_table && field(place) > MOST_CLUSTERS.saturating_mul(8).saturating_add(0x20) {
                return false;
            }
        }
        (!is_operation || field(0xe) <= MOST_CLUSTERS) && self.bits <= MOST_BITS
    }
}
