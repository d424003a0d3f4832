//! Values that lie in clusters.

use fs_ntfs::data_runs::decode_runs;

use super::raw::{damaged, unsupported};
use super::record::{Attribute, Body};
use crate::content::Run;
use crate::error::Result;

/// Bits of the flags of an attribute that name how it is compressed.
const COMPRESSION: u16 = 0xff;

/// Flag of an attribute that is compressed with LZNT1.
const LZNT1: u16 = 1;

/// Flag of an attribute that is encrypted.
pub(super) const ENCRYPTED: u16 = 0x4000;

/// Value of an attribute that lies in clusters.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    /// Length in bytes.
    pub(super) size: u64,
    /// What was written of it, in bytes. The rest reads as zeros, whatever its clusters hold.
    pub(super) initialised: u64,
    /// From offset 0 on, without gaps, in bytes. Holes are among them.
    pub(super) runs: Vec<Run>,
    /// Flags of the attribute.
    pub(super) flags: u16,
    /// Binary logarithm of the clusters in a unit of compression.
    pub(super) unit: u16,
}

/// Returns the value of the pieces of one attribute, in their order.
pub(super) fn clusters_of(pieces: &[&Attribute<'_>], cluster: u64) -> Result<Clusters> {
    let Some(Attribute { flags, body: Body::Clusters { unit, size, initialised, .. }, .. }) = pieces.first() else {
        return Err(damaged("an attribute that has to be in clusters is not"));
    };
    if i64::try_from(*size).is_err() {
        return Err(damaged(format!("an attribute has {size} bytes")));
    }
    let initialised = *initialised.min(size);
    let mut value = Clusters { size: *size, initialised, runs: Vec::new(), flags: *flags, unit: *unit };
    for piece in pieces {
        value.append(piece, cluster)?;
    }
    Ok(value)
}

impl Clusters {
    /// Appends the runs of the next piece of the attribute.
    pub(super) fn append(&mut self, piece: &Attribute<'_>, cluster: u64) -> Result<()> {
        let Body::Clusters { first, last, pairs, .. } = &piece.body else {
            return Err(damaged("a piece of an attribute in clusters is not in clusters"));
        };
        let overflows = || damaged("a run of clusters is longer than any volume");
        let mut end = self.covered();
        if first.checked_mul(cluster) != Some(end) {
            return Err(damaged("the pieces of an attribute do not follow one another"));
        }
        let mut count = 0_u64;
        for run in decode_runs(pairs).map_err(damaged)? {
            let length = run.length.checked_mul(cluster).ok_or_else(overflows)?;
            let at = run.lcn.map(|lcn| lcn.checked_mul(cluster).ok_or_else(overflows)).transpose()?;
            self.runs.push(Run { start: end, length, at });
            end = end.checked_add(length).ok_or_else(overflows)?;
            count = count.saturating_add(run.length);
        }
        // One less than the first cluster if there are none.
        if last.wrapping_add(1) != first.wrapping_add(count) {
            return Err(damaged("a list of runs has more or fewer clusters than its attribute"));
        }
        Ok(())
    }

    /// Returns how many bytes the runs have, holes included.
    fn covered(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.start.saturating_add(run.length))
    }

    /// Refuses a value that is longer than its runs.
    pub(super) fn require_whole(&self, cluster: u64) -> Result<()> {
        if self.covered() >= self.size {
            return Ok(());
        }
        let missing = self.size.saturating_sub(self.covered()).div_ceil(cluster.max(1));
        Err(damaged(format!("an attribute of {} bytes lacks its last {missing} clusters", self.size)))
    }

    /// Refuses a value that is not stored as it is.
    pub(super) fn require_plain(&self) -> Result<()> {
        if self.is_encrypted() {
            return Err(unsupported("a file that is encrypted (EFS)"));
        }
        match self.flags & COMPRESSION {
            0 => Ok(()),
            _ => Err(unsupported("a compressed structure")),
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.flags & ENCRYPTED != 0
    }

    /// Returns the size of a unit of compression, in bytes; none if the value is not compressed.
    pub(super) fn compression_unit(&self, cluster: u64) -> Result<Option<u64>> {
        /// The largest unit, of 16 clusters of 64 KiB.
        const LARGEST: u64 = 1 << 20;
        match self.flags & COMPRESSION {
            0 => Ok(None),
            LZNT1 => {
                let unit = 1_u64.checked_shl(u32::from(self.unit)).and_then(|clusters| clusters.checked_mul(cluster));
                let unit = unit.filter(|unit| *unit <= LARGEST && *unit >= 4096 && self.unit != 0);
                unit.map(Some).ok_or_else(|| unsupported("a compressed file with units of an unknown size"))
            }
            other => Err(unsupported(format!("a file that is compressed in a way with the number {other}"))),
        }
    }

    /// Returns the runs that hold what was written, without holes, cut at its end.
    pub(super) fn data(&self) -> impl Iterator<Item = Run> {
        self.runs.iter().filter_map(|run| {
            let length = run.length.min(self.initialised.saturating_sub(run.start));
            (run.at.is_some() && length > 0).then_some(Run { length, ..*run })
        })
    }
}

/// Decompresses a unit of LZNT1. What its end leaves out reads as zeros.
pub(super) fn decompress(raw: &[u8], unit: usize) -> Result<Vec<u8>> {
    /// What a chunk stands for, in bytes.
    const CHUNK: usize = 4096;
    let mut plain = Vec::with_capacity(unit);
    let mut rest = raw;
    while plain.len() < unit {
        let header = rest.first_chunk::<2>().map_or(0, |header| u16::from_le_bytes(*header));
        if header == 0 {
            break;
        }
        let length = usize::from(header & 0xfff).saturating_add(3);
        let Some((chunk, behind)) = rest.split_at_checked(length) else {
            return Err(damaged("a compressed chunk ends past the end of its clusters"));
        };
        let is_compressed = header & 0x8000 != 0;
        if !is_compressed && length != CHUNK.saturating_add(2) {
            return Err(damaged("a chunk that is not compressed is too short"));
        }
        let end = plain.len().saturating_add(CHUNK);
        plain.extend(fs_ntfs::compression::decompress_unit(chunk, CHUNK).map_err(damaged)?);
        // A chunk that makes less than it stands for is followed by zeros.
        plain.resize(end, 0);
        rest = behind;
    }
    plain.resize(unit, 0);
    Ok(plain)
}

/// Returns the units that hold data, as runs of the content: a unit can only be read whole.
pub(super) fn units_with_data(clusters: &Clusters, unit: u64) -> Vec<Run> {
    let mut units: Vec<Run> = Vec::new();
    for run in clusters.data() {
        let end = run.start.saturating_add(run.length);
        let start = run.start.checked_div(unit).unwrap_or(0).saturating_mul(unit);
        let start = start.max(units.last().map_or(0, |last| last.start.saturating_add(last.length)));
        let end = end.div_ceil(unit).saturating_mul(unit).min(clusters.initialised);
        if start < end {
            units.push(Run { start, length: end.saturating_sub(start), at: Some(start) });
        }
    }
    units
}

/// Returns the length of what a unit has stored, in bytes, which has to be at its beginning; `unit` if it is stored as
/// it is.
pub(super) fn stored_in(runs: &[Run], start: u64, unit: u64) -> Result<u64> {
    let end = start.saturating_add(unit);
    let first = runs.partition_point(|run| run.start.saturating_add(run.length) <= start);
    let mut stored = 0_u64;
    let mut has_hole = false;
    for run in runs.iter().skip(first).take_while(|run| run.start < end) {
        let from = run.start.max(start);
        let length = run.start.saturating_add(run.length).min(end).saturating_sub(from);
        if run.at.is_none() {
            has_hole = true;
        } else if has_hole {
            return Err(damaged("a unit of a compressed file has a hole before its end"));
        } else {
            stored = stored.saturating_add(length);
        }
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three literals, then a copy from three before.
    const CHUNK: [u8; 8] = [0x05, 0xb0, 0b1000, b'a', b'b', b'c', 0x03, 0x20];

    #[test]
    fn a_short_chunk_is_followed_by_zeros() {
        let one = decompress(&CHUNK, 8192).unwrap();
        assert_eq!(&one[..10], b"abcabcabc\0");
        let raw = [CHUNK, CHUNK].concat();
        let both = decompress(&raw, 8192).unwrap();
        assert_eq!((&both[..10], &both[4096..4106]), (&b"abcabcabc\0"[..], &b"abcabcabc\0"[..]));
        assert_eq!(both.len(), 8192);
    }

    #[test]
    fn damaged_chunks_are_refused() {
        decompress(&[0x05, 0xb0, 0], 4096).unwrap_err();
        // Not compressed, and not of 4096 bytes.
        decompress(&[0x01, 0x30, 1, 2], 4096).unwrap_err();
        // A copy from before the beginning.
        decompress(&[0x02, 0xb0, 1, 0x03, 0x20], 4096).unwrap_err();
    }

    #[test]
    fn units_of_compression_are_whole() {
        let run = |start, length, at| Run { start, length, at };
        let runs = vec![
            run(0, 8192, Some(1 << 20)),
            run(8192, 57_344, None),
            run(65_536, 65_536, None),
            run(131_072, 65_536, Some(0)),
        ];
        let clusters = Clusters { size: 190_000, initialised: 190_000, runs, flags: 1, unit: 4 };
        assert_eq!(clusters.compression_unit(4096).unwrap(), Some(65_536));
        let units = units_with_data(&clusters, 65_536);
        assert_eq!(units, [run(0, 65_536, Some(0)), run(131_072, 58_928, Some(131_072))]);
        let stored = |start| stored_in(&clusters.runs, start, 65_536).unwrap();
        assert_eq!([stored(0), stored(65_536), stored(131_072)], [8192, 0, 65_536]);
        let holes = [run(0, 4096, None), run(4096, 4096, Some(0))];
        stored_in(&holes, 0, 65_536).unwrap_err();
    }
}
