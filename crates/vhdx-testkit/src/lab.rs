//! Shared parts of the tests with built images: opening them, their expected content, and dirty logs.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;
use vhdx_mmap::{Disk, OpenOptions, Parents, Result, Segment, Source};

use crate::builder::{Image, Slot};
use crate::log::{Descriptor, Entry, LOG_GUID};
use crate::oracle::{LogPolicy, Oracle};
pub use crate::states::number_of;
use crate::support::{map, mapped, temp_dir};
use crate::{FileBytes, MIB, Model, PAGE, Part, pattern};

/// Converts a length for slices.
pub fn size(length: u64) -> usize {
    usize::try_from(length).unwrap()
}

/// Converts a length for files.
pub fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap()
}

/// Pseudo-random numbers that are the same in every run (splitmix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..end`; 0 if that is empty.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[size(self.below(wide(all.len())))].clone()
    }

    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for end in (1..all.len()).rev() {
            all.swap(end, size(self.below(wide(end) + 1)));
        }
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.take(length.div_ceil(8)).flatten().take(length).collect()
    }
}

/// Bytes of a built image as a source.
pub fn source(image: &Image) -> Source {
    Source::from_vec(image.bytes.to_vec())
}

/// Opens a built image as one file.
pub fn open_image(image: &Image) -> Result<vhdx_mmap::Image> {
    vhdx_mmap::Image::open(source(image), vhdx_mmap::LogPolicy::Replay)
}

/// A search that finds the images of `chain`, child first, by their layer.
pub fn parents_of(chain: &[&Image]) -> Parents {
    let files: Vec<Vec<u8>> = chain.iter().map(|image| image.bytes.to_vec()).collect();
    Parents::With(Arc::new(move |request| Ok(files.get(request.layer + 1).cloned().map(Source::from_vec))))
}

/// Opens a chain of built images, child first, from memory.
pub fn open_chain(chain: &[&Image]) -> Result<Disk> {
    open_chain_with(chain, vhdx_mmap::LogPolicy::Replay)
}

/// Opens a chain of built images, child first, from memory, with a policy for dirty logs.
pub fn open_chain_with(chain: &[&Image], policy: vhdx_mmap::LogPolicy) -> Result<Disk> {
    Disk::open(source(chain[0]), &OpenOptions::new().log_policy(policy).parents(parents_of(chain)))
}

/// The ways to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Memory,
    Map,
    Open,
    Reader,
}

impl Door {
    pub const ALL: [Self; 4] = [Self::Memory, Self::Map, Self::Open, Self::Reader];

    /// Opens the file at `path` through this door.
    pub fn source(self, path: &Path) -> Result<Source> {
        match self {
            Self::Memory => Source::load(path),
            Self::Map => Ok(map(path)),
            Self::Open => Source::open(path),
            Self::Reader => Source::from_reader(File::open(path).unwrap()),
        }
    }
}

/// Opens a chain of built images, child first. In a folder, they have the names `0.vhdx`, `1.vhdx` and so on.
pub fn open_through(door: Door, chain: &[&Image]) -> Result<Disk> {
    if door == Door::Memory {
        return open_chain(chain);
    }
    let folder = temp_dir();
    let path = |layer: usize| folder.path().join(format!("{layer}.vhdx"));
    for (layer, image) in chain.iter().enumerate() {
        image.bytes.write_file(&path(layer)).unwrap();
    }
    // An open file outlives its name.
    let options = match door {
        Door::Map => mapped(OpenOptions::new().parents(Parents::Beside)),
        Door::Open => OpenOptions::new().parents(Parents::Explicit((1..chain.len()).map(path).collect())),
        Door::Reader | Door::Memory => {
            let paths: Vec<PathBuf> = (1..chain.len()).map(path).collect();
            OpenOptions::new().parents(Parents::With(Arc::new(move |request| {
                paths.get(request.layer).map(|path| door.source(path)).transpose()
            })))
        }
    };
    Disk::open(door.source(&path(0))?, &options)
}

/// Bytes of a built image for the oracle.
pub fn file_of(image: &Image) -> &dyn FileBytes {
    &image.bytes
}

/// A single run of sectors.
pub fn run(sectors: Range<u64>) -> [Range<u64>; 1] {
    [sectors]
}

/// The oracle for a chain, child first.
pub fn oracle<'a>(chain: &[&'a Image], policy: LogPolicy) -> Oracle<'a> {
    let files: Vec<&dyn FileBytes> = chain.iter().copied().map(file_of).collect();
    Oracle::open(&files, policy).unwrap()
}

/// Expected content of a disk, from the model: bytes, or a length of zeros.
#[derive(Debug)]
pub struct Expected {
    pieces: Vec<(Range<u64>, Option<Vec<u8>>)>,
    size: u64,
}

impl Expected {
    /// Content of a chain, child first, of which every byte can be read.
    pub fn of(chain: &[&Image]) -> Self {
        let models: Vec<&Model> = chain.iter().map(|image| &image.model).collect();
        let (mut pieces, size) = (Vec::new(), models[0].size);
        flatten(&models, 0..size, &mut pieces);
        Self { pieces, size }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Pieces of a range.
    fn within(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Option<&[u8]>)> {
        let first = self.pieces.partition_point(|(piece, _)| piece.end <= range.start);
        let (start, end) = (range.start, range.end);
        self.pieces[first..].iter().take_while(move |(piece, _)| piece.start < end).map(move |(piece, bytes)| {
            let part = piece.start.max(start)..piece.end.min(end);
            let bytes = bytes.as_deref();
            let bytes = bytes.map(|bytes| &bytes[size(part.start - piece.start)..size(part.end - piece.start)]);
            (part, bytes)
        })
    }

    /// Bytes of a range.
    pub fn read(&self, range: Range<u64>) -> Vec<u8> {
        let mut out = vec![0; size(range.end - range.start)];
        for (piece, bytes) in self.within(range.clone()) {
            if let Some(bytes) = bytes {
                out[size(piece.start - range.start)..size(piece.end - range.start)].copy_from_slice(bytes);
            }
        }
        out
    }

    /// The first byte from `at` on that differs from `segment`.
    pub fn differs(&self, at: u64, segment: Segment<'_>) -> Option<u64> {
        let zeros = |bytes: &[u8]| bytes.iter().position(|byte| *byte != 0);
        self.within(at..at + segment.len()).find_map(|(piece, expected)| {
            let found = match segment {
                Segment::Data(bytes) => Some(&bytes[size(piece.start - at)..size(piece.end - at)]),
                Segment::Zero(_) => None,
            };
            let place = match (found, expected) {
                (Some(found), Some(expected)) if found == expected => None,
                (Some(found), Some(expected)) => found.iter().zip(expected).position(|(one, other)| one != other),
                (Some(bytes), None) | (None, Some(bytes)) => zeros(bytes),
                (None, None) => None,
            };
            place.map(|place| piece.start + wide(place))
        })
    }

    /// Asserts the content of a disk that does not borrow.
    fn assert_copied_from(&self, disk: &Disk) {
        let mut at = 0;
        for run in disk.runs(..) {
            let run = run.unwrap();
            assert_eq!(run.start, at);
            if !run.is_data() {
                assert_eq!(self.differs(at, Segment::Zero(run.len)), None, "in the run at {at:#x}");
            }
            while at < run.end() {
                let mut piece = vec![0xA5; size((run.end() - at).min(MIB))];
                if !run.is_data() {
                    at = run.end();
                    break;
                }
                assert_eq!(disk.read_at(&mut piece, at).unwrap(), piece.len());
                assert_eq!(self.differs(at, Segment::Data(&piece)), None, "in the run at {at:#x}");
                at += wide(piece.len());
            }
        }
        assert_eq!(at, self.size, "the runs end early");
    }

    /// Asserts the content of the whole disk.
    pub fn assert_read_from(&self, disk: &Disk) {
        assert_eq!(disk.size(), self.size);
        if !disk.can_borrow() {
            return self.assert_copied_from(disk);
        }
        let mut at = 0;
        for segment in disk.segments(..) {
            let segment = segment.unwrap();
            assert_eq!(self.differs(at, segment), None, "in the segment at {at:#x}");
            at += segment.len();
        }
        assert_eq!(at, self.size, "the segments end early");
    }
}

fn flatten(chain: &[&Model], range: Range<u64>, out: &mut Vec<(Range<u64>, Option<Vec<u8>>)>) {
    let (first, parents) = chain.split_first().expect("a chain that ends with a base");
    let inside = range.start.min(first.size)..range.end.min(first.size);
    for (piece, part) in first.parts(inside.start, inside.end - inside.start) {
        match part {
            Part::Data(bytes) => out.push((piece, Some(bytes))),
            Part::Zero => out.push((piece, None)),
            Part::Parent => flatten(parents, piece, out),
            Part::Fault => unreachable!("a model that can be read"),
        }
    }
    if inside.end < range.end {
        out.push((inside.end.max(range.start)..range.end, None));
    }
}

/// Asserts that a chain of built images, child first, has the content of the model and the oracle.
pub fn assert_reads(chain: &[&Image]) {
    let content = Expected::of(chain);
    content.assert_read_from(&open_chain(chain).unwrap());
    assert_eq!(oracle(chain, LogPolicy::Replay).read_all(), Ok(content.read(0..content.size)));
}

/// Removes the right content of some pages from the file, and writes a log that restores it, in a different way for
/// each seed. The content of the image does not change.
///
/// Entries before the tail would damage the image, entries of the active sequence write junk and repair it later, and
/// the rest of the ring is torn, foreign or older.
pub fn soil(image: &mut Image, rng: &mut Rng) {
    let ring = u64::from(image.spec.log_length);
    let repairs = remove_pages(image, rng);
    let harmed: Vec<u64> = repairs.iter().map(place_of).collect();
    let harm = harms(image, &harmed, rng);

    let (stale, active) = (rng.below(3), 1 + rng.below(5));
    let when: Vec<u64> = repairs.iter().map(|_| rng.below(active)).collect();
    let mut lists: Vec<Vec<Descriptor>> = Vec::new();
    for _ in 0..stale {
        lists.push((0..rng.below(3)).map(|_| rng.pick(&harm)).collect());
    }
    for now in 0..active {
        let mut changes = Vec::new();
        for (repair, &at) in repairs.iter().zip(&when) {
            let page = place_of(repair);
            if now <= at && rng.one_in(4) {
                let junk = Descriptor::Data(page, pattern(rng.next(), page, size(PAGE)));
                changes.push(if rng.one_in(3) { Descriptor::Zero(page, PAGE) } else { junk });
            }
            if now == at || (now > at && rng.one_in(8)) {
                changes.push(repair.clone());
            }
        }
        lists.push(changes);
    }

    let mut at = rng.below(ring / PAGE) * PAGE;
    let mut sequence = 1 + (rng.next() >> (1 + rng.below(60)));
    let (mut starts, mut used) = (Vec::new(), 0);
    let flushed = image.bytes.len() / MIB * MIB;
    let last = flushed + rng.below(3) * MIB;
    let narrow = |at: u64| u32::try_from(at).unwrap();
    for (number, changes) in lists.iter().enumerate() {
        starts.push(at);
        let tail = if number + 1 == lists.len() { starts[size(stale)] } else { rng.pick(&starts) };
        let new = Entry::new(LOG_GUID, sequence, narrow(tail));
        let entry = Entry { flushed, last, descriptors: changes.clone(), ..new };
        image.put_entry(narrow(at), &entry);
        (at, used) = ((at + u64::from(entry.length())) % ring, used + u64::from(entry.length()));
        sequence += 1;
    }
    assert!(used <= ring, "the ring is too small for this history");
    let next = Entry { descriptors: vec![rng.pick(&harm)], ..Entry::new(LOG_GUID, sequence, narrow(at)) };
    let following = match rng.below(5) {
        0 => next.bad_crc(),
        1 => Entry { guid: Uuid::from_u128(0xF0), ..next },
        2 => Entry { sequence: 1, ..next },
        3 => next.reserved(1),
        _ => return image.set_log_guid(LOG_GUID),
    };
    if used + u64::from(following.length()) <= ring {
        image.put_entry(narrow(at), &following);
    }
    image.set_log_guid(LOG_GUID);
}

/// Damages some pages of the structures, and returns the changes that repair them.
fn remove_pages(image: &mut Image, rng: &mut Rng) -> Vec<Descriptor> {
    let mut pages = image.structure_pages();
    rng.shuffle(&mut pages);
    pages.truncate(1 + size(rng.below(20)));
    let mut zeros = zero_pages_in_use(image);
    rng.shuffle(&mut zeros);
    zeros.truncate(size(rng.below(4)));
    let mut repairs = image.unapply(&pages, crate::log::Old::Junk(rng.next()));
    for page in zeros {
        image.bytes.write(page, &pattern(rng.next(), page, size(PAGE)));
        repairs.push(Descriptor::Zero(page, PAGE));
    }
    rng.shuffle(&mut repairs);
    repairs
}

/// Pages of BAT and sector bitmaps that hold only zeros.
fn zero_pages_in_use(image: &Image) -> Vec<u64> {
    let bat = image.bat_entry_at(0);
    let mut spans = vec![(bat, bat + image.geometry.entries * 8)];
    for (slot, &place) in &image.places {
        if matches!(slot, Slot::Bitmap(_)) && place > 0 {
            spans.push((place, place + 16 * PAGE));
        }
    }
    let mut pages = Vec::new();
    for (start, end) in spans {
        let written = image.bytes.written_pages(start, end);
        let page = (start..end).step_by(size(PAGE));
        pages.extend(page.filter(|page| !written.contains(page)));
    }
    pages
}

fn place_of(change: &Descriptor) -> u64 {
    match change {
        Descriptor::Data(offset, _) | Descriptor::Zero(offset, _) => *offset,
    }
}

/// Changes that damage the image, in pages that are not in `harmed`.
fn harms(image: &Image, harmed: &[u64], rng: &mut Rng) -> Vec<Descriptor> {
    let mut pages = image.structure_pages();
    pages.extend(image.places.iter().filter(|(slot, _)| image.has_content(slot)).map(|(_, place)| *place));
    pages.retain(|page| !harmed.contains(page));
    let mut out = Vec::new();
    for page in pages {
        let junk = Descriptor::Data(page, pattern(rng.next(), page, size(PAGE)));
        out.push(if rng.one_in(3) { Descriptor::Zero(page, PAGE) } else { junk });
    }
    // If no such page is left: an offset that no reader uses.
    let unused = image.spec.metadata_offset + u64::from(image.spec.metadata_length) - PAGE;
    out.push(Descriptor::Zero(unused, PAGE));
    out
}

impl Image {
    /// Whether the offset of a block is in use by the image: stale offsets may point anywhere.
    fn has_content(&self, slot: &Slot) -> bool {
        match slot {
            Slot::Block(number) => self.spec.blocks[number].state >= 6,
            Slot::Bitmap(_) => true,
        }
    }
}
