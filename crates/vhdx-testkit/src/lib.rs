//! Test kit: an image builder that writes every structure by hand, and a naive reader to compare with.
//!
//! Neither part uses the library under test, and the two share no knowledge of the format: `builder` and `log` only
//! write; `oracle` only reads and uses nothing from here except [`FileBytes`]. The rest of this file serves the
//! builder: a container for huge sparse files, the pattern that fills test disks, and the model of the content of a
//! disk, which is made from the specification and never from the bytes of the file.

//!
//! The other modules hold what tests share: programs under observation, and, if enabled by features, helpers that use
//! the library.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic in the kit is a failed test, which is what a broken test wants"
)]
#![allow(
    clippy::len_without_is_empty,
    clippy::should_implement_trait,
    missing_debug_implementations,
    missing_docs,
    reason = "only tests of this workspace use it"
)]

pub mod builder;
#[cfg(feature = "lab")]
pub mod cuts;
pub mod dense;
#[cfg(all(feature = "lab", unix))]
pub mod device;
#[cfg(all(feature = "lab", target_os = "linux"))]
pub mod fuse;
#[cfg(unix)]
pub mod inputs;
#[cfg(feature = "lab")]
pub mod lab;
pub mod log;
#[cfg(all(feature = "loss", target_os = "linux"))]
pub mod loss;
#[cfg(all(feature = "lab", unix))]
pub mod lvm;
pub mod optional;
pub mod oracle;
#[cfg(all(feature = "lab", target_os = "linux"))]
pub mod page_cache;
#[cfg(any(feature = "lab", all(feature = "loss", target_os = "linux")))]
pub mod states;
#[cfg(feature = "lab")]
pub mod support;
#[cfg(all(feature = "lab", target_os = "linux"))]
pub mod traced;
pub mod watchdog;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

/// 1 KiB.
pub const KIB: u64 = 1 << 10;
/// 1 MiB, the alignment of nearly everything in the format.
pub const MIB: u64 = 1 << 20;
/// 1 GiB.
pub const GIB: u64 = 1 << 30;
/// 1 TiB.
pub const TIB: u64 = 1 << 40;
/// The unit of the log, and of `SparseBytes`.
pub const PAGE: u64 = 4096;

/// `len` bytes of the test pattern of `seed`, at `offset` of an endless stream.
///
/// No byte is zero, and every byte depends on its offset and on the seed, so that a byte from a wrong offset, a wrong
/// layer or unallocated space is noticed.
pub fn pattern(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 16);
    for word in offset / 8..(offset + len as u64).div_ceil(8) {
        out.extend(mix(seed, word).map(|b| b.max(1)));
    }
    out.drain(..(offset % 8) as usize);
    out.truncate(len);
    out
}

/// Eight well-mixed bytes for one word of the pattern (the finaliser of splitmix64).
fn mix(seed: u64, word: u64) -> [u8; 8] {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ word.wrapping_mul(0xD1B5_4A32_D192_ED03);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x ^ (x >> 31)).to_le_bytes()
}

/// The bytes of a whole file.
pub trait FileBytes {
    /// The length of the file.
    fn file_len(&self) -> u64;
    /// `len` bytes from `offset`; bytes past the end of the file are zero.
    fn bytes_at(&self, offset: u64, len: usize) -> Vec<u8>;
}

impl FileBytes for [u8] {
    fn file_len(&self) -> u64 {
        self.len() as u64
    }

    fn bytes_at(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        if offset < self.file_len() {
            let from = &self[offset as usize..];
            let n = len.min(from.len());
            out[..n].copy_from_slice(&from[..n]);
        }
        out
    }
}

impl FileBytes for Vec<u8> {
    fn file_len(&self) -> u64 {
        self.as_slice().file_len()
    }

    fn bytes_at(&self, offset: u64, len: usize) -> Vec<u8> {
        self.as_slice().bytes_at(offset, len)
    }
}

/// One user at a time: reading moves the position of the file.
impl FileBytes for File {
    fn file_len(&self) -> u64 {
        self.metadata().unwrap().len()
    }

    fn bytes_at(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        let mut file = self;
        if offset < self.file_len() {
            file.seek(SeekFrom::Start(offset)).unwrap();
            file.take(len as u64).read_to_end(&mut out).unwrap();
        }
        out.resize(len, 0);
        out
    }
}

impl FileBytes for SparseBytes {
    fn file_len(&self) -> u64 {
        self.len()
    }

    fn bytes_at(&self, offset: u64, len: usize) -> Vec<u8> {
        self.read(offset, len)
    }
}

/// A file in memory of which only the written pages exist, so that it can be terabytes long.
#[derive(Debug, Clone, Default)]
pub struct SparseBytes {
    len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl SparseBytes {
    /// An all-zero file.
    pub fn new(len: u64) -> Self {
        Self { len, pages: BTreeMap::new() }
    }

    /// A file that holds just these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut out = Self::new(0);
        out.write(0, bytes);
        out
    }

    /// The length of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Writes bytes; a write past the end extends the file.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = (at % PAGE) as usize;
            let n = rest.len().min(PAGE as usize - within);
            let (now, later) = rest.split_at(n);
            // Zeros written to a page that does not exist change nothing.
            if self.pages.contains_key(&(at / PAGE)) || now.iter().any(|&b| b != 0) {
                let page = self.pages.entry(at / PAGE).or_insert_with(|| vec![0; PAGE as usize]);
                page[within..within + n].copy_from_slice(now);
            }
            at += n as u64;
            rest = later;
        }
        self.len = self.len.max(at);
    }

    /// `len` bytes from `offset`; bytes that were not written, or are past the end, are zero.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        if len == 0 {
            return out;
        }
        let end = offset.saturating_add(len as u64);
        for (&index, page) in self.pages.range(offset / PAGE..=(end - 1) / PAGE) {
            let start = index * PAGE;
            let from = offset.max(start);
            let to = end.min(start + PAGE);
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
        }
        out
    }

    /// Changes the length: truncates, or adds zeros.
    pub fn truncate(&mut self, len: u64) {
        if len < self.len {
            drop(self.pages.split_off(&len.div_ceil(PAGE)));
            if let Some(page) = self.pages.get_mut(&(len / PAGE)) {
                page[(len % PAGE) as usize..].fill(0);
            }
        }
        self.len = len;
    }

    /// Offsets of the written pages within `from..to`, in order; all other bytes are zero.
    pub fn written_pages(&self, from: u64, to: u64) -> Vec<u64> {
        self.pages.range(from / PAGE..to.div_ceil(PAGE)).map(|(index, _)| index * PAGE).collect()
    }

    /// The written pieces in order, not merged, up to the end of the file.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pages.iter().map(|(&index, page)| {
            let offset = index * PAGE;
            let n = PAGE.min(self.len - offset) as usize;
            (offset, &page[..n])
        })
    }

    /// The whole file; only for small ones.
    pub fn to_vec(&self) -> Vec<u8> {
        assert!(self.len <= 2 * GIB, "too long to hold: {}", self.len);
        self.read(0, self.len as usize)
    }

    /// Writes a sparse file: its holes are never touched.
    pub fn write_file(&self, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.set_len(self.len)?;
        let mut position = 0;
        for (offset, bytes) in self.pieces() {
            if position != offset {
                file.seek(SeekFrom::Start(offset))?;
            }
            file.write_all(bytes)?;
            position = offset + bytes.len() as u64;
        }
        Ok(())
    }
}

/// Location of a payload or bitmap block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At the next free 1 MiB for the states that need space, unallocated for the others.
    Auto,
    /// At this offset of the file, a multiple of 1 MiB.
    At(u64),
    /// At file offset 0, and no content is written.
    Nowhere,
}

/// Content of a payload block.
#[derive(Debug, Clone)]
pub enum Fill {
    /// The pattern of this seed, by the offset of the virtual disk.
    Pattern(u64),
    /// These bytes at these offsets of the block, zeros between.
    Pieces(Vec<(u64, Vec<u8>)>),
}

impl Fill {
    /// `len` bytes from `within` of the block that begins at `start` of the disk.
    pub fn read(&self, start: u64, within: u64, len: usize) -> Vec<u8> {
        let pieces = match self {
            Self::Pattern(seed) => return pattern(*seed, start + within, len),
            Self::Pieces(pieces) => pieces,
        };
        let mut out = vec![0; len];
        for (offset, bytes) in pieces {
            let from = within.max(*offset);
            let to = (within + len as u64).min(offset + bytes.len() as u64);
            if from < to {
                out[(from - within) as usize..(to - within) as usize]
                    .copy_from_slice(&bytes[(from - offset) as usize..(to - offset) as usize]);
            }
        }
        out
    }
}

/// A payload block: its BAT entry and its bytes.
#[derive(Debug, Clone)]
pub struct Block {
    /// The state, 0 to 7.
    pub state: u8,
    /// Location in the file.
    pub place: Place,
    /// Content. `None`: the pattern of the image's seed in states 6 and 7; in the other states, nothing is written.
    pub fill: Option<Fill>,
    /// Sectors of the block whose bit is set in the sector bitmap.
    pub present: Vec<Range<u64>>,
}

impl Block {
    /// A block of any state, with the default location and content.
    pub fn new(state: u8) -> Self {
        Self { state, place: Place::Auto, fill: None, present: Vec::new() }
    }

    /// FULLY_PRESENT.
    pub fn full() -> Self {
        Self::new(6)
    }

    /// ZERO.
    pub fn zero() -> Self {
        Self::new(2)
    }

    /// PARTIALLY_PRESENT, with these sectors of the block in this file.
    pub fn partial(present: &[Range<u64>]) -> Self {
        Self { present: present.to_vec(), ..Self::new(7) }
    }

    /// The same block at a file offset (a stale offset in the states 0 to 3).
    pub fn at(self, offset: u64) -> Self {
        Self { place: Place::At(offset), ..self }
    }

    /// The same block with these bytes at its start, followed by zeros.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.fill(Fill::Pieces(vec![(0, bytes.to_vec())]))
    }

    /// The same block with other content.
    pub fn fill(self, fill: Fill) -> Self {
        Self { fill: Some(fill), ..self }
    }
}

/// The sector bitmap of one chunk.
#[derive(Debug, Clone)]
pub struct Bitmap {
    /// The state; 0 or 6 if legal.
    pub state: u8,
    /// Location in the file.
    pub place: Place,
    /// Sectors of the chunk whose bit is set, in addition to those of the blocks.
    pub present: Vec<Range<u64>>,
}

/// Numbers of blocks and BAT entries of a disk.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    /// Payload blocks of one chunk.
    pub ratio: u64,
    /// Number of payload blocks of the disk.
    pub blocks: u64,
    /// BAT entries that the format requires.
    pub entries: u64,
}

impl Geometry {
    /// Geometry of a disk; for impossible sizes, a result without a division by zero.
    pub fn of(disk_size: u64, block_size: u32, sector_size: u32, has_parent: bool) -> Self {
        let block = u64::from(block_size.max(1));
        let ratio = ((u64::from(sector_size) << 23) / block).max(1);
        let blocks = disk_size.div_ceil(block);
        let entries = if has_parent {
            blocks.div_ceil(ratio).saturating_mul(ratio + 1)
        } else {
            blocks + blocks.saturating_sub(1) / ratio
        };
        Self { ratio, blocks, entries }
    }

    /// The BAT index of a payload block.
    pub fn block_index(&self, block: u64) -> u64 {
        block + block / self.ratio
    }

    /// The BAT index of the sector bitmap of a chunk.
    pub fn bitmap_index(&self, chunk: u64) -> u64 {
        chunk * (self.ratio + 1) + self.ratio
    }
}

/// Content of a piece of the disk in one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// These bytes.
    Data(Vec<u8>),
    /// Zeros, whatever the parent holds.
    Zero,
    /// The content of the parent.
    Parent,
    /// An error: a reader must fail here.
    Fault,
}

/// Content of the disk of one image, as the builder intends it: independent of the bytes of the file.
#[derive(Debug, Clone)]
pub struct Model {
    /// VirtualDiskSize.
    pub size: u64,
    /// LogicalSectorSize.
    pub sector_size: u64,
    /// BlockSize.
    pub block_size: u64,
    /// Whether bytes that are not present are read from a parent.
    pub has_parent: bool,
    /// The blocks that are not NOT_PRESENT.
    pub blocks: BTreeMap<u64, ModelBlock>,
}

/// A payload block in the model.
#[derive(Debug, Clone)]
pub struct ModelBlock {
    /// The state.
    pub state: u8,
    /// The content.
    pub fill: Fill,
    /// Sectors of the block whose bit is set; `None` if the chunk has no bitmap.
    pub present: Option<Vec<Range<u64>>>,
}

impl Model {
    /// The parts of `offset..offset + len`, without gaps; the range must lie within the disk.
    pub fn parts(&self, offset: u64, len: u64) -> Vec<(Range<u64>, Part)> {
        let end = offset + len;
        assert!(end <= self.size, "the disk ends at {}", self.size);
        let absent = if self.has_parent { Part::Parent } else { Part::Zero };
        let mut out = Vec::new();
        let mut at = offset;
        while at < end {
            let number = at / self.block_size;
            let start = number * self.block_size;
            let block_end = end.min(start + self.block_size);
            let Some(block) = self.blocks.get(&number) else {
                let next = self.blocks.range(number..).next();
                let to = next.map_or(end, |(n, _)| end.min(n * self.block_size));
                out.push((at..to, absent.clone()));
                at = to;
                continue;
            };
            let data = |to: u64| Part::Data(block.fill.read(start, at - start, (to - at) as usize));
            let (to, part) = match (block.state, &block.present) {
                (0, _) => (block_end, absent.clone()),
                (1..=3, _) => (block_end, Part::Zero),
                (6, _) => (block_end, data(block_end)),
                (7, Some(present)) if self.has_parent => {
                    let has = |at: u64| {
                        let sector = (at - start) / self.sector_size;
                        present.iter().any(|r| r.contains(&sector))
                    };
                    let here = has(at);
                    let mut to = at;
                    while to < block_end && has(to) == here {
                        to = block_end.min((to / self.sector_size + 1) * self.sector_size);
                    }
                    (to, if here { data(to) } else { Part::Parent })
                }
                _ => (block_end, Part::Fault),
            };
            out.push((at..to, part));
            at = to;
        }
        out
    }

    /// Bytes of a range through a chain, child first. Bytes past the end of a smaller parent, and past the end of the
    /// child, are zeros. `None` if a reader must fail.
    pub fn read(chain: &[&Self], offset: u64, len: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; len];
        let (&first, parents) = chain.split_first()?;
        let within = first.size.saturating_sub(offset).min(len as u64);
        for (range, part) in first.parts(offset.min(first.size), within) {
            let bytes = match part {
                Part::Data(bytes) => bytes,
                Part::Zero => continue,
                Part::Parent => Self::read(parents, range.start, (range.end - range.start) as usize)?,
                Part::Fault => return None,
            };
            let to = (range.start - offset) as usize;
            out[to..to + bytes.len()].copy_from_slice(&bytes);
        }
        Some(out)
    }
}
