//! Changes that a log replay makes, kept in memory: 4 KiB sectors, and ranges of zeros.

use std::collections::BinaryHeap;

use crate::checksum::crc32c_append;
use crate::num::{to_u64, to_usize_saturating};

/// A rebuilt sector of the log.
pub(crate) type Sector = [u8; 4096];

/// One change to a file, from `start` to `end`: to a sector, made from an `S`, or to zeros.
pub(crate) struct Change<S> {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) sector: Option<S>,
}

/// All changes of a replay, in their final state.
///
/// A zero range is a pair of numbers, whatever its length: a log entry may ask for 2^63 zero bytes.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    /// In order, and disjoint.
    patches: Vec<Patch>,
    /// End of the last byte that was ever written.
    end: u64,
}

#[derive(Debug)]
struct Patch {
    start: u64,
    end: u64,
    /// `None`: zeros.
    sector: Option<Box<Sector>>,
}

/// Location of bytes of a file after a replay, and the number of contiguous bytes there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored<'a> {
    /// In the file, this many.
    File(u64),
    /// Rebuilt from the log.
    Log(&'a [u8]),
    /// This many zeros, made by the replay.
    Zero(u64),
}

impl Stored<'_> {
    /// Returns the length in bytes.
    #[inline]
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::File(length) | Self::Zero(length) => *length,
            Self::Log(bytes) => to_u64(bytes.len()),
        }
    }
}

impl Overlay {
    /// Applies `changes` in this order: later ones hide earlier ones. Only sectors that are not hidden as a whole are
    /// made. All bounds are multiples of 4 KiB, so that is always a whole sector.
    ///
    /// One sweep over the file, with the changes at the current position in a heap, the latest on top.
    pub(crate) fn new<S>(changes: &[Change<S>], make: impl Fn(&S) -> Box<Sector>) -> Self {
        let start_of = |index: usize| changes.get(index).map_or(u64::MAX, |change| change.start);
        let real = |index: &usize| changes.get(*index).is_some_and(|change| change.start < change.end);
        let mut by_start: Vec<usize> = (0..changes.len()).filter(real).collect();
        by_start.sort_by_key(|index| start_of(*index));
        let end = by_start.iter().filter_map(|index| changes.get(*index)).map(|change| change.end).max();
        let mut overlay = Self { patches: Vec::new(), end: end.unwrap_or(0) };
        let mut coming = by_start.into_iter().peekable();
        let mut reaching: BinaryHeap<usize> = BinaryHeap::new();
        let mut at = 0;
        loop {
            if reaching.is_empty() {
                let Some(next) = coming.peek() else { break };
                at = start_of(*next);
            }
            while let Some(index) = coming.next_if(|index| start_of(*index) <= at) {
                reaching.push(index);
            }
            let Some(change) = reaching.peek().and_then(|index| changes.get(*index)) else { break };
            if change.end <= at {
                reaching.pop();
                continue;
            }
            let end = coming.peek().map_or(change.end, |next| change.end.min(start_of(*next)));
            overlay.push(at, end, change.sector.as_ref().map(&make));
            at = end;
        }
        overlay
    }

    /// Adds a patch after all others.
    fn push(&mut self, start: u64, end: u64, sector: Option<Box<Sector>>) {
        match self.patches.last_mut() {
            Some(last) if last.end == start && last.sector.is_none() && sector.is_none() => last.end = end,
            _ => self.patches.push(Patch { start, end, sector }),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// Returns the CRC-32C of all changes and their offsets.
    pub(super) fn crc32c(&self) -> u32 {
        self.patches.iter().fold(0, |crc, patch| {
            let crc = crc32c_append(crc, &patch.start.to_le_bytes());
            let crc = crc32c_append(crc, &patch.end.to_le_bytes());
            patch.sector.as_ref().map_or(crc, |sector| crc32c_append(crc, &sector[..]))
        })
    }

    /// Returns the smallest length of the file after these changes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Returns whether all bytes from `start` to `end` were written.
    pub(super) fn covers(&self, mut start: u64, end: u64) -> bool {
        while start < end {
            start = match self.at(start, u64::MAX) {
                Stored::File(_) => return false,
                written => start.saturating_add(written.length()),
            };
        }
        true
    }

    /// Returns the location of `offset`, at most `most` bytes. Bytes that were not written are in the file, if it
    /// contains them.
    pub(super) fn at(&self, offset: u64, most: u64) -> Stored<'_> {
        let index = self.patches.partition_point(|patch| patch.end <= offset);
        let up_to = |end: u64| end.saturating_sub(offset).min(most);
        match self.patches.get(index) {
            Some(patch) if patch.start <= offset => match &patch.sector {
                None => Stored::Zero(up_to(patch.end)),
                Some(sector) => {
                    let within = usize::try_from(offset.abs_diff(patch.start)).unwrap_or(sector.len());
                    let bytes = sector.get(within..).unwrap_or_default();
                    Stored::Log(bytes.get(..to_usize_saturating(most)).unwrap_or(bytes))
                }
            },
            Some(next) => Stored::File(up_to(next.start)),
            None => Stored::File(most),
        }
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers")]
mod tests {
    use super::{Change, Overlay, Stored};

    fn write(at: u64, value: u8) -> Change<u8> {
        Change { start: at * 4096, end: (at + 1) * 4096, sector: Some(value) }
    }

    fn zero(start: u64, end: u64) -> Change<u8> {
        Change { start: start * 4096, end: end * 4096, sector: None }
    }

    fn overlay(changes: &[Change<u8>]) -> Overlay {
        Overlay::new(changes, |value| Box::new([*value; 4096]))
    }

    /// One byte for each 4 KiB of a file of 32; 0xff if nothing was written.
    fn read(overlay: &Overlay) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < 32 {
            let at = u64::try_from(out.len()).unwrap() * 4096;
            match overlay.at(at + 5, u64::MAX) {
                Stored::Log(bytes) => {
                    assert_eq!(bytes.len(), 4091);
                    out.push(bytes[0]);
                }
                Stored::Zero(length) => out.resize(usize::try_from((at + 5 + length) / 4096).unwrap().min(32), 0),
                Stored::File(length) => {
                    out.resize(
                        usize::try_from(at.saturating_add(5).saturating_add(length) / 4096).unwrap().min(32),
                        0xff,
                    );
                }
            }
        }
        out
    }

    #[test]
    fn writes_in_any_order_equal_writes_to_a_file() {
        // A small generator suffices: 5000 histories of up to 12 writes.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..5000 {
            let (mut changes, mut model) = (Vec::new(), vec![0xff_u8; 32]);
            for value in 1..=next(12) {
                let start = next(32);
                let place = usize::try_from(start).unwrap();
                if next(2) == 0 {
                    let value = u8::try_from(value).unwrap();
                    changes.push(write(start, value));
                    model[place] = value;
                } else {
                    let end = start + next(33 - start);
                    changes.push(zero(start, end));
                    model[place..usize::try_from(end).unwrap()].fill(0);
                }
            }
            assert_eq!(read(&overlay(&changes)), model);
        }
    }

    #[test]
    fn zero_range_of_any_length_is_one_patch() {
        let changes = [zero(1 << 8, 1 << 51), write(1 << 28, 1), zero(1 << 30, 1 << 31)];
        let overlay = overlay(&changes);
        assert!(matches!(overlay.at(1 << 39, u64::MAX), Stored::Zero(length) if length == 1 << 39));
        let after = (1 << 40) + 4096;
        assert!(matches!(overlay.at(after, u64::MAX), Stored::Zero(length) if after + length == 1 << 63));
        assert!(matches!(overlay.at(after, 5), Stored::Zero(5)));
        assert_eq!((overlay.end(), overlay.patches.len()), (1 << 63, 3));
    }
}
