//! The layout of a metadata image, and its bytes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use vhdx_mmap::{Disk, DiskRange};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::cost::Choice;
use super::directory::{self, Entry};
use super::format::{
    Attributes, BLOCK, DeviceSlot, FileType, HOLE, INODE_SIZE, INODE_UNIT, Index, Inode, SLOT_SIZE, SLOTS_OFFSET,
    SUPER_OFFSET, SuperBlock,
};
use super::pages::{Pages, Segment};
use super::{Device, Devices, Error, Metadata, Options, Plan, pages_of, segments};
use crate::Export;
use crate::tree::{Content, Node, Tree};

/// Bytes that are read, or written, at a time.
const PIECE: usize = 1 << 20;

fn too_large(what: &'static str, needed: u64, limit: u64) -> Result<(), Error> {
    if needed > limit { Err(Error::TooLarge { what, needed, limit }) } else { Ok(()) }
}

/// Place of a node in the image.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Offset of the inode, in bytes.
    inode: u64,
    /// First block of plain data.
    block: u64,
}

impl Place {
    /// Returns the number of the inode, as entries of directories have it.
    fn number(&self) -> u64 {
        self.inode.checked_div(INODE_UNIT).unwrap_or(0)
    }
}

/// Writes the image.
pub(super) fn write(
    tree: &Tree,
    plans: &[Plan],
    devices: Devices,
    out: &File,
    options: &Options,
) -> Result<Metadata, Error> {
    let nodes = || tree.nodes().iter().zip(plans).enumerate();
    let count = u64::try_from(devices.list.len()).unwrap_or(u64::MAX);
    let mut places = vec![Place::default(); plans.len()];
    let mut at = count.saturating_mul(SLOT_SIZE).saturating_add(SLOTS_OFFSET);
    // Directories and small files come first: the number of the root's inode is small.
    for has_chunks in [false, true] {
        for (place, plan) in places.iter_mut().zip(plans) {
            let Plan::Own(choice) = plan else { continue };
            if choice.is_some() == has_chunks {
                place.inode = at.next_multiple_of(INODE_SIZE);
                let entries = choice.map_or(0, |choice: Choice| choice.entries);
                at = place.inode.saturating_add(INODE_SIZE).saturating_add(entries);
            }
        }
    }
    let copied = plans.iter().fold(0_u64, |sum, plan| match plan {
        Plan::Own(Some(choice)) => sum.saturating_add(choice.copied),
        _ => sum,
    });
    too_large("size in bytes", at, options.most_metadata)?;
    too_large("bytes to copy", copied, options.most_copied)?;
    for (number, plan) in plans.iter().enumerate() {
        if let Plan::Same(same) = plan {
            let known = places.get(*same).copied().unwrap_or_default();
            places.get_mut(number).into_iter().for_each(|place| *place = known);
        }
    }
    // Plain data, in blocks of its own.
    let mut block = at.div_ceil(BLOCK);
    let mut plain = Vec::with_capacity(plans.len());
    for (number, (node, _)) in nodes() {
        let bytes = plain_content(tree, number, node, plans, &places)?;
        places.get_mut(number).into_iter().for_each(|place| place.block = block.max(place.block));
        block = block.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX).div_ceil(BLOCK));
        plain.push(bytes);
    }
    too_large("size in bytes", block.saturating_mul(BLOCK), options.most_metadata)?;
    let mut copies = Copies { out, next: block };
    for ((number, (node, plan)), bytes) in nodes().zip(&plain) {
        let (Plan::Own(choice), Some(place)) = (plan, places.get(number)) else { continue };
        let same = |other: &&Plan| matches!(other, Plan::Same(same) if *same == number);
        let links = match node.content() {
            Content::Directory(_) => directories_in(tree, number).saturating_add(2),
            _ => plans.iter().filter(same).count().saturating_add(1),
        };
        let attributes = attributes(number, node, bytes, links, options);
        let inode = match choice {
            Some(choice) => Inode::chunked(attributes, choice.bits, choice.has_indexes),
            None => Inode::plain(attributes, u32::try_from(place.block).unwrap_or(0)),
        };
        out.write_all_at(inode.as_bytes(), place.inode)?;
        out.write_all_at(bytes, place.block.saturating_mul(BLOCK))?;
        if let (Some(choice), Content::Disk(export)) = (choice, node.content()) {
            let at = place.inode.saturating_add(INODE_SIZE);
            let file = Chunks { export, devices: &devices, bits: choice.bits, options };
            let addresses = (!choice.has_indexes).then_some(devices.addresses.as_slice());
            let written = file.write(Entries { out, addresses, at, buffer: Vec::new() }, &mut copies);
            written.map_err(|failed| failed.in_file(tree, number))?;
        }
    }
    // Chunks that were copied once more may need more than was planned. Past the first address of a device, the kernel
    // would look for them there.
    if let Some(first) = devices.addresses.first().map(|first| u64::from(*first)) {
        too_large("bytes to copy", copies.next.saturating_mul(BLOCK), first.saturating_mul(BLOCK))?;
    }
    let blocks = u32::try_from(copies.next).unwrap_or(HOLE);
    let root = places.first().and_then(|place| u16::try_from(place.number()).ok()).unwrap_or(0);
    let identity = tree_identity(tree);
    let inodes = u64::try_from(plans.len()).unwrap_or(u64::MAX);
    let super_block = SuperBlock::new(root, inodes, blocks, u16::try_from(count).unwrap_or(u16::MAX), identity);
    out.write_all_at(super_block.as_bytes(), SUPER_OFFSET)?;
    let addresses = devices.addresses.iter().copied().chain(std::iter::repeat(0));
    for ((device, address), at) in
        devices.list.iter().zip(addresses).zip((SLOTS_OFFSET..).step_by(size_of::<DeviceSlot>()))
    {
        out.write_all_at(slot(device, address).as_bytes(), at)?;
    }
    out.set_len(copies.next.saturating_mul(BLOCK))?;
    let left_out = nodes().filter(|(_, (_, plan))| matches!(plan, Plan::LeftOut)).map(|(number, _)| tree.path(number));
    Ok(Metadata {
        left_out: left_out.collect(),
        devices: devices.list,
        len: block.saturating_mul(BLOCK),
        copied: copies.next.saturating_sub(block).saturating_mul(BLOCK),
    })
}

fn slot(device: &Device, address: u32) -> DeviceSlot {
    let name = device.source.path().and_then(std::path::Path::file_name).unwrap_or_default();
    DeviceSlot::new(&name.to_string_lossy(), u32::try_from(device.blocks()).unwrap_or(u32::MAX), address)
}

/// Returns the identity of the file system: that of the content of the first image.
fn tree_identity(tree: &Tree) -> [u8; 16] {
    let first = super::disks_of(tree).next();
    first.map_or([0; 16], |export| export.range().disk().image().header().data_write_guid.into_bytes())
}

fn directories_in(tree: &Tree, number: usize) -> usize {
    let is_in = |node: &&Node| matches!(node.content(), Content::Directory(_)) && node.parent() == number;
    tree.nodes().iter().skip(1).filter(is_in).count()
}

fn attributes(number: usize, node: &Node, bytes: &[u8], links: usize, options: &Options) -> Attributes {
    const DIRECTORY: u16 = 0o040_000;
    const REGULAR: u16 = 0o100_000;

    let is_directory = matches!(node.content(), Content::Directory(_));
    let mode = match (is_directory, options.allow_other) {
        (true, true) => DIRECTORY | 0o555,
        (true, false) => DIRECTORY | 0o500,
        (false, true) => REGULAR | 0o444,
        (false, false) => REGULAR | 0o400,
    };
    let modified = node.modified().duration_since(UNIX_EPOCH).unwrap_or_default();
    Attributes {
        number: u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1),
        mode,
        size: if is_directory { u64::try_from(bytes.len()).unwrap_or(u64::MAX) } else { node.size() },
        links: u32::try_from(links).unwrap_or(u32::MAX),
        modified: (modified.as_secs(), modified.subsec_nanos()),
    }
}

/// Returns the bytes of a node that has no chunks.
fn plain_content(tree: &Tree, number: usize, node: &Node, plans: &[Plan], places: &[Place]) -> Result<Vec<u8>, Error> {
    let inside = match node.content() {
        Content::Directory(inside) => inside,
        Content::Bytes(bytes) => return Ok(bytes.to_vec()),
        Content::Disk(_) => return Ok(Vec::new()),
    };
    let number_of = |node: usize| places.get(node).map_or(0, Place::number);
    let mut entries = vec![
        Entry { name: ".", node: number_of(number), kind: FileType::Directory },
        Entry { name: "..", node: number_of(node.parent()), kind: FileType::Directory },
    ];
    for entry in inside {
        let (Some(node), Some(plan)) = (tree.nodes().get(*entry), plans.get(*entry)) else { continue };
        if matches!(plan, Plan::LeftOut) {
            continue;
        }
        if node.name().len() > 255 {
            return Err(Error::LongName(node.name().to_owned()));
        }
        let is_directory = matches!(node.content(), Content::Directory(_));
        let kind = if is_directory { FileType::Directory } else { FileType::Regular };
        entries.push(Entry { name: node.name(), node: number_of(*entry), kind });
    }
    Ok(directory::content(entries))
}

/// Why the chunks of a file were not written.
enum Failed {
    Image(vhdx_mmap::Error),
    Write(io::Error),
    Loop,
}

impl Failed {
    fn in_file(self, tree: &Tree, number: usize) -> Error {
        match self {
            Self::Image(error) => Error::Image { path: tree.path(number), error },
            Self::Write(error) => Error::Write(error),
            Self::Loop => Error::TooLarge { what: "number of images for loop devices", needed: 256, limit: 255 },
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<vhdx_mmap::Error> for Failed {
    fn from(error: vhdx_mmap::Error) -> Self {
        Self::Image(error)
    }
}

/// Place of a chunk.
#[derive(Clone, Copy, Debug)]
enum ChunkPlace {
    Hole,
    /// Blocks of a device from this one on; device 0 is the metadata image.
    On {
        device: u16,
        block: u32,
    },
}

/// Indexes or addresses of a file's chunks, as they are written.
struct Entries<'a> {
    out: &'a File,
    /// Addresses of all devices, if chunks have addresses.
    addresses: Option<&'a [u32]>,
    /// Offset of the buffer's first byte in the image.
    at: u64,
    buffer: Vec<u8>,
}

/// Adds the address of a chunk to `to`, or without `addresses` of the devices its index.
fn encode(addresses: Option<&[u32]>, place: ChunkPlace, to: &mut Vec<u8>) -> io::Result<()> {
    let address = match (addresses, place) {
        (None, ChunkPlace::Hole) => {
            to.extend_from_slice(Index::hole().as_bytes());
            return Ok(());
        }
        (None, ChunkPlace::On { device, block }) => {
            to.extend_from_slice(Index::new(device, block).as_bytes());
            return Ok(());
        }
        (Some(_), ChunkPlace::Hole) => HOLE,
        (Some(_), ChunkPlace::On { device: 0, block }) => block,
        (Some(addresses), ChunkPlace::On { device, block }) => {
            let first = usize::from(device).checked_sub(1).and_then(|number| addresses.get(number));
            // A place without an address must not become a hole.
            let address = first.and_then(|first| first.checked_add(block)).filter(|address| *address != HOLE);
            address.ok_or(io::ErrorKind::InvalidData)?
        }
    };
    to.extend_from_slice(U32::new(address).as_bytes());
    Ok(())
}

impl Entries<'_> {
    fn push(&mut self, place: ChunkPlace) -> io::Result<()> {
        encode(self.addresses, place, &mut self.buffer)?;
        if self.buffer.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all_at(&self.buffer, self.at)?;
        self.at = self.next();
        self.buffer.clear();
        Ok(())
    }

    /// Returns the offset of the next entry.
    fn next(&self) -> u64 {
        self.at.saturating_add(u64::try_from(self.buffer.len()).unwrap_or(u64::MAX))
    }

    /// Replaces an entry.
    fn replace(&mut self, at: u64, place: ChunkPlace) -> io::Result<()> {
        self.flush()?;
        let mut entry = Vec::new();
        encode(self.addresses, place, &mut entry)?;
        self.out.write_all_at(&entry, at)
    }
}

/// Copied chunks, at the end of the image.
struct Copies<'a> {
    out: &'a File,
    /// Block for the next chunk.
    next: u64,
}

impl Copies<'_> {
    /// Copies pages, and returns their first block.
    fn add(&mut self, export: &Export, pages: &Range<u64>) -> Result<u32, Failed> {
        let range: &DiskRange<Arc<Disk>> = export.range();
        let block = u32::try_from(self.next).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let end = pages.end.saturating_mul(BLOCK).min(range.size());
        let (mut at, mut to) = (pages.start.saturating_mul(BLOCK), self.next.saturating_mul(BLOCK));
        let mut buffer = vec![0; PIECE.min(usize::try_from(end.saturating_sub(at)).unwrap_or(PIECE))];
        while at < end {
            let most = usize::try_from(end.saturating_sub(at)).unwrap_or(PIECE).min(buffer.len());
            let piece = buffer.get_mut(..most).unwrap_or_default();
            let read = range.read_at(piece, at)?;
            let length = u64::try_from(read).unwrap_or(u64::MAX).max(1);
            export.fail_if_lost(at..at.saturating_add(length))?;
            // The file is extended with zeros.
            let piece = piece.get(..read).unwrap_or_default();
            if piece.iter().any(|byte| *byte != 0) {
                self.out.write_all_at(piece, to)?;
            }
            (at, to) = (at.saturating_add(length), to.saturating_add(length));
        }
        self.next = self.next.saturating_add(pages.end.saturating_sub(pages.start));
        Ok(block)
    }
}

/// Last chunk of a file that is not a hole.
#[derive(Clone, Debug)]
struct Last {
    device: u16,
    /// Block after its last one.
    end: u64,
    copied: Option<CopiedChunk>,
}

/// A copied chunk, which can be copied once more.
#[derive(Clone, Debug)]
struct CopiedChunk {
    /// Offset of its index or address.
    entry: u64,
    pages: Range<u64>,
    /// Block after the part of an image that comes before it.
    after: Option<u64>,
}

/// File that is written in chunks.
struct Chunks<'a> {
    export: &'a Export,
    devices: &'a Devices,
    bits: u8,
    options: &'a Options,
}

impl Chunks<'_> {
    fn write(&self, mut entries: Entries<'_>, copies: &mut Copies<'_>) -> Result<(), Failed> {
        let range = self.export.range();
        let (pages, chunk) = (pages_of(range), 1_u64.checked_shl(self.bits.into()).unwrap_or(u64::MAX));
        // A device that is missing. What is lost is never in a file whose chunks have addresses.
        let device = u16::try_from(self.devices.list.len()).unwrap_or(u16::MAX).saturating_add(1);
        let lost = ChunkPlace::On { device, block: 0 };
        let mut segments = segments(range, self.devices);
        let mut segment: Option<Segment> = None;
        let mut last: Option<Last> = None;
        let mut start = 0_u64;
        while start < pages {
            let end = start.saturating_add(chunk).min(pages);
            while segment.as_ref().is_none_or(|segment| segment.pages.end <= start) {
                segment = Some(segments.next().ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))??);
            }
            let content = match &segment {
                Some(segment) if segment.pages.end >= end => segment.content_at(start),
                _ => Pages::Copied,
            };
            match content {
                Pages::Hole => entries.push(ChunkPlace::Hole)?,
                Pages::Lost => entries.push(lost)?,
                Pages::Direct { device, block } => {
                    if self.options.for_loop_devices {
                        keep_apart(self.export, &mut entries, copies, last.as_ref(), (device, block))?;
                    }
                    let end_block = u64::from(block).saturating_add(end.saturating_sub(start));
                    last = Some(Last { device, end: end_block, copied: None });
                    entries.push(ChunkPlace::On { device, block })?;
                }
                Pages::Copied => {
                    let after = last.as_ref().filter(|last| last.device != 0).map(|last| last.end);
                    if after == Some(copies.next) {
                        copies.next = copies.next.saturating_add(1);
                    }
                    let copied = Some(CopiedChunk { entry: entries.next(), pages: start..end, after });
                    let block = copies.add(self.export, &(start..end))?;
                    last = Some(Last { device: 0, end: copies.next, copied });
                    entries.push(ChunkPlace::On { device: 0, block })?;
                }
            }
            start = end;
        }
        entries.flush()?;
        Ok(())
    }
}

/// Prevents that a part of a device follows a part of another one that ends at the same block: the kernel would read on
/// in the first device.
fn keep_apart(
    export: &Export,
    entries: &mut Entries<'_>,
    copies: &mut Copies<'_>,
    last: Option<&Last>,
    (device, block): (u16, u32),
) -> Result<(), Failed> {
    let Some(last) = last.filter(|last| last.device != device && last.end == u64::from(block)) else { return Ok(()) };
    let Some(copied) = &last.copied else { return Err(Failed::Loop) };
    // The chunk is copied once more, to blocks that end elsewhere.
    copies.next = copies.next.saturating_add(1);
    if copied.after == Some(copies.next) {
        copies.next = copies.next.saturating_add(1);
    }
    let moved = copies.add(export, &copied.pages)?;
    entries.replace(copied.entry, ChunkPlace::On { device: 0, block: moved })?;
    Ok(())
}
