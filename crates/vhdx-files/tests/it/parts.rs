//! Raw disks with partitions, and what is written into these.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vhdx_files::{Place, Storage};
use vhdx_testkit::MIB;

use super::lab::Made;

/// A raw disk with a table of up to four partitions (MBR), each of some MiB, from 1 MiB on.
pub(crate) struct Parts {
    pub(crate) raw: PathBuf,
    /// Start and length in bytes.
    pub(crate) parts: Vec<(u64, u64)>,
}

impl Parts {
    pub(crate) fn new(folder: &Path, mebibytes: &[u64]) -> Self {
        let raw = folder.join("parts.raw");
        let (mut parts, mut sector, mut start) = (Vec::new(), [0_u8; 512], MIB);
        for (size, entry) in mebibytes.iter().zip(sector[446..].chunks_exact_mut(16)) {
            let length = size * MIB;
            entry[4] = 0x8e;
            entry[8..12].copy_from_slice(&u32::try_from(start / 512).unwrap().to_le_bytes());
            entry[12..].copy_from_slice(&u32::try_from(length / 512).unwrap().to_le_bytes());
            parts.push((start, length));
            start += length;
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let file = File::create(&raw).unwrap();
        file.write_all_at(&sector, 0).unwrap();
        file.set_len(start).unwrap();
        Self { raw, parts }
    }

    pub(crate) fn write(&self, part: usize, at: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(&self.raw).unwrap();
        file.write_all_at(bytes, self.parts[part].0 + at).unwrap();
    }

    pub(crate) fn read(&self, part: usize) -> Vec<u8> {
        let (start, length) = self.parts[part];
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        File::open(&self.raw).unwrap().read_exact_at(&mut bytes, start).unwrap();
        bytes
    }

    pub(crate) fn places(&self) -> Vec<Place> {
        self.image().places()
    }

    /// An image of the disk as it is now, of which a few bytes can be changed.
    pub(crate) fn image(&self) -> Image {
        Image { made: Made::of(&self.raw), starts: self.parts.iter().map(|(start, _)| *start).collect() }
    }
}

pub(crate) struct Image {
    made: Made,
    starts: Vec<u64>,
}

impl Image {
    /// Changes bytes of a partition that lie in one mebibyte of it, in which something was before.
    pub(crate) fn write(&self, part: usize, at: usize, bytes: &[u8]) {
        self.made.write(usize::try_from(self.starts[part]).unwrap() + at, bytes);
    }

    pub(crate) fn places(&self) -> Vec<Place> {
        vhdx_files::places(&self.made.disk()).unwrap()
    }
}

/// Where a storage lies.
pub(crate) fn ranges(storage: &Storage) -> Vec<(u64, std::ops::Range<u64>)> {
    storage.in_disk(0..u64::MAX).collect()
}

/// The place with a name; there must be one.
pub(crate) fn place<'p>(places: &'p [Place], name: &str) -> &'p Place {
    let mut found = places.iter().filter(|place| place.name == name);
    let place = found.next().unwrap_or_else(|| panic!("no {name}: {places:?}"));
    assert!(found.next().is_none(), "{name} is twice there");
    place
}

/// Whether a storage has exactly these bytes.
pub(crate) fn holds(storage: &Storage, expected: &Path) -> bool {
    let expected = fs::read(expected).unwrap();
    let mut bytes = vec![0; expected.len() + 1];
    storage.read_at(&mut bytes, 0).unwrap() == expected.len() && bytes[..expected.len()] == expected
}

/// Why a place cannot be read.
pub(crate) fn refusal(place: &Place) -> String {
    assert!(!place.is_readable(), "{place:?}");
    place.storage.as_ref().unwrap_err().to_string()
}
