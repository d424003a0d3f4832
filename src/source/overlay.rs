//! What a log replay would write to the file, kept in memory: 4 KiB sectors, and ranges of zeros.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::format::SECTOR_4K;

/// A rebuilt sector of the log.
pub(crate) type Sector = [u8; 4096];

/// Changes to a file, in the order in which they were made: later ones hide earlier ones.
///
/// A zero range is a pair of numbers, whatever its length: a log entry may ask for 2^63 zero bytes.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    /// By first byte; disjoint; all bounds multiples of 4 KiB, so a sector is always hidden as a whole or not at all.
    patches: BTreeMap<u64, Patch>,
    /// Where the last byte that was ever written ends.
    end: u64,
}

#[derive(Debug)]
struct Patch {
    end: u64,
    /// None: zeros.
    sector: Option<Box<Sector>>,
}

/// What an overlay says of a place.
pub(super) enum Layer<'a> {
    /// Nothing, up to this offset.
    Beneath(u64),
    /// The bytes from here to the end of a sector.
    Bytes(&'a [u8]),
    /// Zeros up to this offset.
    Zero(u64),
}

impl Overlay {
    pub(super) fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// How long the file is at least, after these changes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Writes `sector` at `offset`, a multiple of 4 KiB with room for it below 2^64.
    pub(crate) fn write(&mut self, offset: u64, sector: Box<Sector>) {
        self.put(offset, Patch { end: offset.saturating_add(SECTOR_4K), sector: Some(sector) });
    }

    /// Makes the bytes from `offset` to `end` zero, both multiples of 4 KiB.
    pub(crate) fn zero(&mut self, offset: u64, end: u64) {
        if offset < end {
            self.put(offset, Patch { end, sector: None });
        }
    }

    fn put(&mut self, start: u64, patch: Patch) {
        let end = patch.end;
        // What lies across the two bounds can only be zeros: cut it.
        if let Some((_, before)) = self.patches.range_mut(..start).next_back() {
            let behind = before.end;
            before.end = behind.min(start);
            if behind > end {
                self.patches.insert(end, Patch { end: behind, sector: None });
            }
        }
        while let Some((&hidden, _)) = self.patches.range(start..end).next() {
            if let Some(Patch { end: behind, sector: None }) = self.patches.remove(&hidden)
                && behind > end
            {
                self.patches.insert(end, Patch { end: behind, sector: None });
            }
        }
        self.patches.insert(start, patch);
        self.end = self.end.max(end);
    }

    /// What there is at `offset`.
    pub(super) fn at(&self, offset: u64) -> Layer<'_> {
        if let Some((&start, patch)) = self.patches.range(..=offset).next_back()
            && offset < patch.end
        {
            return match &patch.sector {
                None => Layer::Zero(patch.end),
                Some(sector) => {
                    let within = usize::try_from(offset.abs_diff(start)).unwrap_or(sector.len());
                    Layer::Bytes(sector.get(within..).unwrap_or_default())
                }
            };
        }
        Layer::Beneath(self.next_after(offset))
    }

    /// Where the first change behind `offset` begins; 2^64-1 where there is none.
    fn next_after(&self, offset: u64) -> u64 {
        let behind = (Bound::Excluded(offset), Bound::Unbounded);
        self.patches.range(behind).next().map_or(u64::MAX, |(&start, _)| start)
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers")]
mod tests {
    use super::{Layer, Overlay};

    /// The model: one byte for each 4 KiB of a file of 32; 0xff where nothing was written.
    fn read(overlay: &Overlay) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < 32 {
            let at = u64::try_from(out.len()).unwrap() * 4096;
            match overlay.at(at + 5) {
                Layer::Bytes(bytes) => {
                    assert_eq!(bytes.len(), 4091);
                    out.push(bytes[0]);
                }
                Layer::Zero(end) => out.resize(usize::try_from(end / 4096).unwrap().min(32), 0),
                Layer::Beneath(end) => out.resize(usize::try_from(end / 4096).unwrap().min(32), 0xff),
            }
        }
        out
    }

    #[test]
    fn any_order_of_writes_reads_as_if_written_to_a_file() {
        // A small generator will do: 2000 histories of up to 12 writes.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..2000 {
            let (mut overlay, mut model) = (Overlay::default(), vec![0xff_u8; 32]);
            for value in 1..=next(12) {
                let start = next(32);
                if next(2) == 0 {
                    let value = u8::try_from(value).unwrap();
                    overlay.write(start * 4096, Box::new([value; 4096]));
                    model[usize::try_from(start).unwrap()] = value;
                } else {
                    let end = start + next(33 - start);
                    overlay.zero(start * 4096, end * 4096);
                    model[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()].fill(0);
                }
                assert_eq!(read(&overlay), model);
            }
        }
    }

    #[test]
    fn a_zero_range_of_any_length_is_one_entry() {
        let mut overlay = Overlay::default();
        overlay.zero(1 << 20, !0xfff);
        overlay.write(1 << 40, Box::new([1; 4096]));
        assert!(matches!(overlay.at(1 << 39), Layer::Zero(end) if end == 1 << 40));
        assert!(matches!(overlay.at((1 << 40) + 4096), Layer::Zero(end) if end == !0xfff));
        assert_eq!(overlay.end(), !0xfff);
        assert_eq!(overlay.patches.len(), 3);
    }
}
