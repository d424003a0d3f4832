//! Where a file system lies: ranges of a disk, one after the other.

use std::ops::Range;
use std::sync::Arc;

use vhdx_mmap::{Disk, DiskRange};

/// Bytes that hold a file system: ranges of a disk, one after the other. A partition is one range, and a logical volume
/// can have several.
#[derive(Clone, Debug)]
pub struct Storage {
    disk: Arc<Disk>,
    /// In order, without gaps. All of them lie inside the disk.
    pieces: Arc<[Piece]>,
    size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// Offset in the storage, in bytes.
    start: u64,
    /// Offset in the disk, in bytes.
    at: u64,
    /// Length in bytes, at least 1.
    length: u64,
}

impl Piece {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

impl From<DiskRange<Arc<Disk>>> for Storage {
    fn from(range: DiskRange<Arc<Disk>>) -> Self {
        Self::of(range.disk(), std::iter::once(range.start()..range.start().saturating_add(range.size())))
    }
}

impl Storage {
    fn of(disk: &Arc<Disk>, ranges: impl Iterator<Item = Range<u64>>) -> Self {
        let (mut pieces, mut size) = (Vec::<Piece>::new(), 0_u64);
        for range in ranges {
            let length = range.end.saturating_sub(range.start);
            match pieces.last_mut() {
                _ if length == 0 => {}
                Some(last) if last.at.checked_add(last.length) == Some(range.start) => {
                    last.length = last.length.saturating_add(length);
                }
                _ => pieces.push(Piece { start: size, at: range.start, length }),
            }
            size = size.saturating_add(length);
        }
        Self { disk: Arc::clone(disk), pieces: pieces.into(), size }
    }

    /// Puts parts of one disk behind one another.
    pub(crate) fn joined(disk: &Arc<Disk>, parts: &[Self]) -> Self {
        let ranges = parts.iter().flat_map(|part| part.in_disk(0..part.size).map(|(_, range)| range));
        Self::of(disk, ranges)
    }

    /// Returns a part; none if it does not lie inside.
    pub(crate) fn part(&self, start: u64, length: u64) -> Option<Self> {
        let end = start.checked_add(length).filter(|end| *end <= self.size)?;
        Some(Self::of(&self.disk, self.in_disk(start..end).map(|(_, range)| range)))
    }

    /// Returns the disk.
    #[must_use]
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Returns the size, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Copies bytes from `offset` on into `buffer`, and returns their number: the length of `buffer`, or fewer at the
    /// end of the storage.
    ///
    /// # Errors
    /// The errors of [`Disk::read_at`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> vhdx_mmap::Result<usize> {
        let most = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let mut rest = buffer.get_mut(..most).unwrap_or_default();
        let end = offset.saturating_add(u64::try_from(most).unwrap_or(u64::MAX));
        for (_, range) in self.in_disk(offset..end) {
            let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            let (piece, behind) = rest.split_at_mut(length.min(rest.len()));
            let read = self.disk.read_at(piece, range.start)?;
            if read < piece.len() {
                let missing = piece.len().saturating_sub(read).saturating_add(behind.len());
                return Ok(most.saturating_sub(missing));
            }
            rest = behind;
        }
        Ok(most)
    }

    /// Returns where a range of the storage lies: offsets in the storage, and ranges of the disk, in order. Ranges end
    /// where the storage ends.
    pub fn in_disk(&self, range: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
        let first = self.pieces.partition_point(|piece| piece.end() <= range.start);
        let pieces = self.pieces.get(first..).unwrap_or_default().iter();
        let end = range.end;
        pieces.take_while(move |piece| piece.start < end).map(move |piece| {
            let start = piece.start.max(range.start);
            let at = piece.at.saturating_add(start.saturating_sub(piece.start));
            (start, at..at.saturating_add(piece.end().min(end).saturating_sub(start)))
        })
    }

    /// Returns the parts of the storage that lie in ranges of the disk, in order.
    #[must_use]
    pub fn within(&self, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        let mut sorted: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        sorted.sort_by_key(|range| range.start);
        // Without overlaps, ends are in order, too.
        let mut apart: Vec<Range<u64>> = Vec::new();
        for range in sorted {
            match apart.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => apart.push(range),
            }
        }
        let mut found = Vec::new();
        for piece in self.pieces.iter() {
            let end = piece.at.saturating_add(piece.length);
            let first = apart.partition_point(|range| range.end <= piece.at);
            let near = apart.get(first..).unwrap_or_default().iter().take_while(|range| range.start < end);
            found.extend(near.map(|range| {
                let inside = |at: u64| piece.start.saturating_add(at.clamp(piece.at, end).saturating_sub(piece.at));
                inside(range.start)..inside(range.end)
            }));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vhdx_mmap::{Disk, OpenOptions, Source};

    use super::Storage;

    #[test]
    fn ranges_of_pieces() {
        let source = Source::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/images/hello.vhdx")).unwrap();
        let disk = Arc::new(Disk::open(source, &OpenOptions::new()).unwrap());
        let storage = Storage::of(&disk, [1000..1100, 1100..1200, 100..100, 0..50, 5000..5010].into_iter());
        assert_eq!(storage.size(), 260);
        let all: Vec<_> = storage.in_disk(0..u64::MAX).collect();
        assert_eq!(all, [(0, 1000..1200), (200, 0..50), (250, 5000..5010)]);
        let some: Vec<_> = storage.in_disk(199..251).collect();
        assert_eq!(some, [(199, 1199..1200), (200, 0..50), (250, 5000..5001)]);
        assert_eq!(storage.in_disk(260..300).count(), 0);
        let part = storage.part(150, 60).unwrap();
        assert_eq!(part.in_disk(0..60).collect::<Vec<_>>(), [(0, 1150..1200), (50, 0..10)]);
        assert!(storage.part(201, 60).is_none());
        assert_eq!(storage.within(&[5005..6000, 10..20, 15..30, 7..7, 1199..1300]), [199..200, 210..230, 255..260]);
        let mut expected = vec![0; 260];
        for (start, range) in all {
            let start = usize::try_from(start).unwrap();
            let length = usize::try_from(range.end - range.start).unwrap();
            assert_eq!(disk.read_at(&mut expected[start..start + length], range.start).unwrap(), length);
        }
        let mut read = vec![0; 300];
        assert_eq!(storage.read_at(&mut read, 0).unwrap(), 260);
        assert!(read[..260] == expected);
        assert_eq!(storage.read_at(&mut read, 190).unwrap(), 70);
        assert!(read[..70] == expected[190..]);
        assert_eq!(storage.read_at(&mut read, 260).unwrap(), 0);
    }
}
