//! Changes to the structures of an image, with checksums corrected afterwards.

use arbitrary::Arbitrary;

use crate::kit::builder::Image;
use crate::kit::{FileBytes, SparseBytes};
use crate::scratch::Scratch;

/// Image that can be changed in place: one that is kept, or one that is built for one input.
pub(crate) trait Patch {
    /// Returns bytes of the image. Returns `None` if some do not exist.
    fn peek(&self, at: usize, length: usize) -> Option<Vec<u8>>;
    /// Overwrites bytes of the image, if all of them exist.
    fn poke(&mut self, at: usize, new: &[u8]);
}

impl Patch for Scratch {
    fn peek(&self, at: usize, length: usize) -> Option<Vec<u8>> {
        self.bytes().get(at..at.checked_add(length)?).map(<[u8]>::to_vec)
    }

    fn poke(&mut self, at: usize, new: &[u8]) {
        self.write(at, new);
    }
}

impl Patch for SparseBytes {
    fn peek(&self, at: usize, length: usize) -> Option<Vec<u8>> {
        let end = at.checked_add(length)? as u64;
        (end <= self.len()).then(|| self.bytes_at(at as u64, length))
    }

    fn poke(&mut self, at: usize, new: &[u8]) {
        if self.peek(at, new.len()).is_some() {
            self.write(at as u64, new);
        }
    }
}

/// Offsets of the structures of an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(crate) log: usize,
    pub(crate) metadata: usize,
    pub(crate) bat: usize,
    /// The sector bitmap; 0 if there is none.
    pub(crate) bitmap: usize,
}

impl Places {
    pub(crate) fn of(image: &Image) -> Self {
        let bitmap = if image.spec.has_parent { image.bitmap_at(0) } else { 0 };
        let [log, metadata, bat, bitmap] =
            [image.spec.log_offset, image.spec.metadata_offset, image.spec.bat_offset, bitmap].map(|at| at as usize);
        Self { log, metadata, bat, bitmap }
    }
}

/// A change to an image: eight bytes or fewer, somewhere in a structure.
#[derive(Arbitrary, Debug)]
pub(crate) struct Change {
    place: Place,
    at: u16,
    value: Value,
    width: u8,
}

#[derive(Arbitrary, Debug)]
enum Place {
    Header(bool),
    RegionTable(bool),
    Metadata,
    MetadataItems,
    Bat,
    Log,
    Bitmap,
    Anywhere(u32),
}

/// A number: any, or one with a meaning in many fields.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Value {
    Any(u64),
    Mebibytes(u8, u8),
    Small(u8),
    Ones,
}

impl Value {
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Any(value) => value,
            Self::Mebibytes(number, low) => u64::from(number) << 20 | u64::from(low),
            Self::Small(value) => value.into(),
            Self::Ones => u64::MAX,
        }
    }
}

impl Change {
    fn start(&self, places: &Places) -> usize {
        let at = usize::from(self.at);
        match self.place {
            Place::Header(second) => 0x1_0000 + usize::from(second) * 0x1_0000 + at % 128,
            Place::RegionTable(second) => 0x3_0000 + usize::from(second) * 0x1_0000 + at % 128,
            Place::Metadata => places.metadata + at % 320,
            Place::MetadataItems => places.metadata + 0x1_0000 + at % 2048,
            Place::Bat => places.bat + at % 64,
            Place::Log => places.log + at * 16,
            Place::Bitmap => places.bitmap + at % 512,
            Place::Anywhere(at) => at as usize,
        }
    }

    /// Returns the bytes of the change, and their offset.
    pub(crate) fn bytes(&self, places: &Places) -> (usize, Vec<u8>) {
        let width = usize::from(self.width % 8) + 1;
        (self.start(places), self.value.number().to_le_bytes()[..width].to_vec())
    }
}

/// Applies the changes, and corrects the checksums afterwards if `mends` is true.
pub(crate) fn apply(image: &mut impl Patch, places: &Places, changes: &[Change], mends: bool) {
    for change in changes {
        let (at, bytes) = change.bytes(places);
        image.poke(at, &bytes);
    }
    if mends {
        mend(image, places.log);
    }
}

/// Corrects every checksum: of headers, region tables, and everything that begins like an entry of the log.
fn mend(image: &mut impl Patch, log: usize) {
    for (start, length) in [(0x1_0000, 4096), (0x2_0000, 4096), (0x3_0000, 0x1_0000), (0x4_0000, 0x1_0000)] {
        seal(image, start, length);
    }
    for start in (log..log + (1 << 20)).step_by(4096) {
        let Some(head) = image.peek(start, 12).filter(|head| head.starts_with(b"loge")) else { continue };
        let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        // An entry would wrap at the end of the ring; the bytes after the ring do not belong to it.
        seal(image, start, (length as usize).min(log + (1 << 20) - start));
    }
}

/// Corrects the checksum at 4..8 of a structure.
fn seal(image: &mut impl Patch, start: usize, length: usize) {
    let Some(mut structure) = image.peek(start, length).filter(|found| found.len() >= 8) else { return };
    structure[4..8].fill(0);
    image.poke(start + 4, &crc32c::crc32c(&structure).to_le_bytes());
}
