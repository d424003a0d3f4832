//! The bytes of a file system in a raw disk, for looking at its structures and for changing them.

use std::sync::Arc;

use vhdx_files::Time;
use vhdx_mmap::{Disk, DiskRange, OpenOptions, Source};
use vhdx_testkit::builder::Spec;
use vhdx_testkit::{Block, Fill, MIB};

use crate::lab::Lab;

/// Bytes of a volume.
pub(super) struct Raw {
    pub(super) bytes: Vec<u8>,
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// The time of a number of units of 100 ns since 1601.
pub(super) fn time(ticks: u64) -> Time {
    let nanoseconds = i128::from(ticks) * 100 - 11_644_473_600_000_000_000;
    Time {
        seconds: i64::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap(),
        nanoseconds: u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap(),
    }
}

impl Raw {
    pub(super) fn of(lab: &Lab) -> Self {
        Self { bytes: std::fs::read(&lab.raw).unwrap() }
    }

    pub(super) fn write(&self, lab: &Lab) {
        std::fs::write(&lab.raw, &self.bytes).unwrap();
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes[at..at + 2].try_into().unwrap())
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    pub(super) fn serial(&self) -> u64 {
        self.u64(0x48)
    }

    /// Size of a cluster, of volumes with clusters of 64 KiB at most.
    pub(super) fn cluster(&self) -> usize {
        usize::from(self.u16(0xb)) * usize::from(self.bytes[0xd])
    }

    /// Where `$MFT` begins.
    pub(super) fn table(&self) -> usize {
        size(self.u64(0x30)) * self.cluster()
    }

    /// Where a file record of 1024 bytes is; `$MFT` has to be in one piece up to there.
    pub(super) fn record(&self, reference: u64) -> usize {
        let at = self.table() + size(reference & 0xffff_ffff_ffff) * 1024;
        assert_eq!(&self.bytes[at..at + 4], b"FILE");
        at
    }

    /// Where the first attribute of a kind is.
    pub(super) fn attribute(&self, reference: u64, kind: u32) -> usize {
        let record = self.record(reference);
        let mut at = record + usize::from(self.u16(record + 0x14));
        while self.u32(at) != kind {
            assert_ne!(self.u32(at), u32::MAX, "the record has no such attribute");
            at += size(u64::from(self.u32(at + 4)));
        }
        at
    }

    /// Where the value of an attribute is that is in its record.
    pub(super) fn value(&self, attribute: usize) -> usize {
        assert_eq!(self.bytes[attribute + 8], 0);
        attribute + usize::from(self.u16(attribute + 0x14))
    }

    /// Changes bytes of a structure; those that an update sequence replaces cannot be changed.
    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        assert!(at % 512 + bytes.len() <= 510, "an update sequence replaces these bytes");
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Changes bytes at an offset in each place that holds `found`, and returns the number of places.
    pub(super) fn replace(&mut self, found: &[u8], offset: usize, bytes: &[u8]) -> usize {
        let places: Vec<usize> =
            self.bytes.windows(found.len()).enumerate().filter(|(_, part)| *part == found).map(|(at, _)| at).collect();
        for at in &places {
            self.put(at + offset, bytes);
        }
        places.len()
    }

    /// Where the first piece of the content of a file is, and its length.
    pub(super) fn first_run(&self, reference: u64) -> (usize, usize) {
        let data = self.attribute(reference, 0x80);
        let pairs = data + usize::from(self.u16(data + 0x20));
        let number = |at: usize, length: u8| {
            self.bytes[at..at + usize::from(length)].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        };
        let (of_length, of_place) = (self.bytes[pairs] & 15, self.bytes[pairs] >> 4);
        let place = number(pairs + 1 + usize::from(of_length), of_place);
        (place * self.cluster(), number(pairs + 1, of_length) * self.cluster())
    }

    /// Number of pieces that the record of a file has a list of.
    pub(super) fn run_count(&self, reference: u64) -> usize {
        let data = self.attribute(reference, 0x80);
        let mut at = data + usize::from(self.u16(data + 0x20));
        let mut count = 0;
        while self.bytes[at] != 0 {
            at += 1 + usize::from(self.bytes[at] & 15) + usize::from(self.bytes[at] >> 4);
            count += 1;
        }
        count
    }

    pub(super) fn into_image(self) -> Image {
        let mib = size(MIB);
        let mut spec = Spec { block_size: 1 << 20, ..Spec::empty(u64::try_from(self.bytes.len()).unwrap()) };
        for (number, piece) in (0..).zip(self.bytes.chunks(mib)) {
            spec = spec.block(number, Block::full().fill(Fill::Pieces(vec![(0, piece.to_vec())])));
        }
        let image = spec.build().bytes.to_vec();
        // Where each block of the disk is in the image.
        let places = self
            .bytes
            .chunks(mib)
            .map(|piece| mib * image.chunks(mib).position(|part| part == piece).expect("blocks are aligned"))
            .collect();
        Image { raw: Arc::new(self), image, places }
    }
}

/// An image of a volume whose bytes can be changed.
#[derive(Clone)]
pub(super) struct Image {
    raw: Arc<Raw>,
    image: Vec<u8>,
    places: Vec<usize>,
}

impl Image {
    fn place(&self, at: usize) -> usize {
        self.places[at / size(MIB)] + at % size(MIB)
    }

    pub(super) fn byte(&self, at: usize) -> u8 {
        self.image[self.place(at)]
    }

    pub(super) fn set(&mut self, at: usize, byte: u8) {
        let place = self.place(at);
        self.image[place] = byte;
    }

    pub(super) fn open(self) -> DiskRange<Arc<Disk>> {
        let disk = Disk::open(Source::from_vec(self.image), &OpenOptions::new()).unwrap();
        DiskRange::whole(Arc::new(disk))
    }

    /// The file records in use and the blocks of directories, and the boot sector: where they begin, and the length of
    /// what is in use of them.
    pub(super) fn structures(&self) -> Vec<(usize, usize)> {
        let raw = &self.raw;
        let mut found = vec![(0, 0x50)];
        for at in (0..raw.bytes.len()).step_by(1024) {
            match &raw.bytes[at..at + 4] {
                b"FILE" if raw.u16(at + 0x16) & 1 != 0 => found.push((at, size(u64::from(raw.u32(at + 0x18))))),
                b"INDX" => found.push((at, 0x18 + size(u64::from(raw.u32(at + 0x1c))))),
                _ => {}
            }
        }
        found
    }
}
