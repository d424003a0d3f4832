//! What the replay of a dirty log by the reader must not meet, and what it leaves out.
//!
//! The reader applies items in the order of the log, and leaves intents alone. Linux sorts the items of each
//! transaction, and finishes what intents began. Here the same records are gone through, and a log is refused in which
//! that makes a difference that a file shows:
//!
//! - an intent without its end that maps blocks to a file, exchanges content, or sets an attribute;
//! - an inode and a buffer of one transaction for one place, in another order than that of Linux;
//! - trees that change their owner;
//! - a header of a transaction that is split between two records, which makes the reader lose the transaction;
//! - records that do not follow one another: of a log that was torn, one of an older round can stand in the way.
//!
//! Device numbers of inodes are in the items alone, where the reader does not look for them: they are collected.

use std::collections::{HashMap, HashSet};

use fs_xfs::Superblock;
use fs_xfs::log::XLOG_HEADER_MAGIC;
use vhdx_mmap::ops::Volume as Kind;

use crate::device::Device;
use crate::error::{Error, Result};

const KIND: Kind = Kind::Xfs;

/// Unit of a log, in bytes.
const BLOCK: usize = 512;

/// What one block of a header describes of a record, in bytes.
const DESCRIBED: u64 = 32 << 10;

/// Longest record, with its header, in bytes.
const LONGEST_RECORD: u64 = (256 << 10) + (8 << 9);

/// Largest place of an item, in units of 512 bytes: 64 inodes of 2 KiB. Buffers of metadata are half as large.
const LARGEST_PLACE: u64 = 256;

/// How much is read at once in search of records, in blocks.
const PIECE: u64 = 2048;

/// Flags of an operation.
mod operation {
    pub(super) const START: u8 = 0x01;
    pub(super) const COMMIT: u8 = 0x02;
    pub(super) const CONTINUED: u8 = 0x08;
    pub(super) const UNMOUNT: u8 = 0x20;
    pub(super) const HEADER: usize = 12;
}

/// Types of items.
mod item {
    pub(super) const UNLINKED: u16 = 0x1238;
    pub(super) const INODE: u16 = 0x123b;
    pub(super) const BUFFER: u16 = 0x123c;
    pub(super) const QUOTA: u16 = 0x123d;
    pub(super) const QUOTA_OFF: u16 = 0x123e;
    pub(super) const INODES_MADE: u16 = 0x123f;
    /// Intents to free, map and count blocks, and their ends: what they leave undone is the count of free blocks.
    pub(super) const ACCOUNTING: [u16; 12] =
        [0x1236, 0x1237, 0x1240, 0x1241, 0x1242, 0x1243, 0x124a, 0x124b, 0x124c, 0x124d, 0x124e, 0x124f];
    pub(super) const MAP: u16 = 0x1244;
    pub(super) const MAPPED: u16 = 0x1245;
    pub(super) const ATTRIBUTE: u16 = 0x1246;
    pub(super) const ATTRIBUTE_SET: u16 = 0x1247;
    pub(super) const EXCHANGE: u16 = 0x1248;
    pub(super) const EXCHANGED: u16 = 0x1249;
}

fn torn(what: &str) -> Error {
    Error::damaged(KIND, format!("the log is torn, and was not replayed: {what}"))
}

fn refused(what: &str) -> Error {
    Error::unsupported(KIND, format!("the log was not replayed: {what}"))
}

pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes).swap_bytes())
}

pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes).swap_bytes())
}

/// Returns a number of an item. Items are in the order of bytes of the machine that wrote them, which the reader
/// requires to be that of this one.
fn ne16(bytes: &[u8], at: usize) -> u16 {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_le_bytes(*bytes));
    if cfg!(target_endian = "big") { number.swap_bytes() } else { number }
}

fn ne32(bytes: &[u8], at: usize) -> u32 {
    if cfg!(target_endian = "big") { be32(bytes, at) } else { be32(bytes, at).swap_bytes() }
}

fn ne64(bytes: &[u8], at: usize) -> u64 {
    if cfg!(target_endian = "big") { be64(bytes, at) } else { be64(bytes, at).swap_bytes() }
}

/// Header of a record.
struct Header {
    cycle: u32,
    length: u64,
    tail: u64,
    operations: u32,
    blocks: u64,
}

/// An item, as far as it was gathered: its first region, and how many more belong to it.
struct Item {
    first: Vec<u8>,
    have: usize,
    total: usize,
}

/// What an item changes: a buffer, inodes that are made, an inode, or nothing but that older changes of a place do not
/// count.
#[derive(Clone, Copy)]
enum Change {
    Buffer,
    InodesMade,
    Inode,
    Freed,
}

/// What a transaction has changed in one place so far.
#[derive(Clone, Copy, Default)]
struct Changes {
    buffer: bool,
    inode: bool,
    freed: bool,
}

/// A transaction whose end was not met yet.
#[derive(Default)]
struct Transaction {
    has_header: bool,
    items: Vec<Item>,
}

pub(super) struct Log<'d> {
    device: &'d Device,
    start: u64,
    blocks: u64,
    uuid: [u8; 16],
    inode_size: u64,
    block_size: u64,
    superblock: &'d Superblock,
    open: HashMap<u32, Transaction>,
    /// Intents without an end so far: the type, and the number.
    unfinished: HashSet<(u16, u64)>,
    device_numbers: HashMap<u64, u32>,
}

impl<'d> Log<'d> {
    pub(super) fn new(device: &'d Device, superblock: &'d Superblock) -> Self {
        let block_size = u64::from(superblock.blocksize);
        Self {
            device,
            start: superblock.fsblock_offset(superblock.logstart),
            blocks: u64::from(superblock.logblocks).saturating_mul(block_size) / 512,
            uuid: superblock.uuid,
            inode_size: u64::from(superblock.inodesize),
            block_size,
            superblock,
            open: HashMap::new(),
            unfinished: HashSet::new(),
            device_numbers: HashMap::new(),
        }
    }

    /// Goes through the log, and returns the device numbers that it holds, by inode.
    pub(super) fn check(mut self) -> Result<HashMap<u64, u32>> {
        let (newest, header) = self.newest()?;
        let mut at = header.tail & u64::from(u32::MAX);
        let mut cycle = u32::try_from(header.tail >> 32).unwrap_or(u32::MAX);
        let mut passed = 0_u64;
        while passed <= self.blocks {
            let block = self.read(at, 1)?;
            let header = self.header(&block).ok_or_else(|| torn("a record is missing"))?;
            if be64(&block, 16) != (u64::from(cycle) << 32 | at) || header.cycle != cycle {
                return Err(torn("an older record is in the place of one"));
            }
            let data = header.length.div_ceil(512);
            self.record(at, &header, data)?;
            if at == newest {
                return self.end();
            }
            let size = header.blocks.saturating_add(data);
            passed = passed.saturating_add(size);
            at = at.saturating_add(size);
            if at >= self.blocks {
                at = at.saturating_sub(self.blocks);
                cycle = cycle.saturating_add(1);
            }
        }
        Err(torn("its records do not lead to the newest"))
    }

    fn end(self) -> Result<HashMap<u64, u32>> {
        if self.unfinished.is_empty() {
            Ok(self.device_numbers)
        } else {
            Err(refused("it holds an operation on a file that was begun, and has to be finished"))
        }
    }

    /// Reads blocks, from the beginning again after the last one.
    fn read(&self, at: u64, count: u64) -> Result<Vec<u8>> {
        let size = count.saturating_mul(512);
        let mut bytes = vec![0; usize::try_from(size.min(LONGEST_RECORD.max(PIECE << 9))).unwrap_or_default()];
        let first = usize::try_from(self.blocks.saturating_sub(at).saturating_mul(512)).unwrap_or(usize::MAX);
        let first = first.min(bytes.len());
        let (head, tail) = bytes.split_at_mut(first);
        let offset = self.start.saturating_add(at.saturating_mul(512));
        let read = self.device.fill(offset, head).and_then(|()| self.device.fill(self.start, tail));
        read.map_err(|error| Error::damaged(KIND, error))?;
        Ok(bytes)
    }

    fn header(&self, block: &[u8]) -> Option<Header> {
        if be32(block, 0) != XLOG_HEADER_MAGIC || block.get(304..320) != Some(self.uuid.as_slice()) {
            return None;
        }
        let size = u64::from(be32(block, 320));
        let is_long = be32(block, 8) & 2 != 0 && size > DESCRIBED;
        Some(Header {
            cycle: be32(block, 4),
            length: u64::from(be32(block, 12)),
            tail: be64(block, 24),
            operations: be32(block, 40),
            blocks: if is_long { size.div_ceil(DESCRIBED) } else { 1 },
        })
    }

    /// Finds the record that was written last.
    fn newest(&self) -> Result<(u64, Header)> {
        let mut newest: Option<(u64, u64, Header)> = None;
        let mut at = 0;
        while at < self.blocks {
            let bytes = self.read(at, PIECE.min(self.blocks.saturating_sub(at)))?;
            let (blocks, _) = bytes.as_chunks::<BLOCK>();
            for (block, number) in blocks.iter().zip(at..) {
                let Some(header) = self.header(block) else { continue };
                let sequence = be64(block, 16);
                if newest.as_ref().is_none_or(|(newest, ..)| *newest < sequence) {
                    newest = Some((sequence, number, header));
                }
            }
            at = at.saturating_add(PIECE);
        }
        newest.map(|(_, at, header)| (at, header)).ok_or_else(|| torn("it has no record"))
    }

    /// Goes through the operations of a record.
    fn record(&mut self, at: u64, header: &Header, data: u64) -> Result<()> {
        let size = header.blocks.saturating_add(data);
        if size > self.blocks || size.saturating_mul(512) > LONGEST_RECORD {
            return Err(torn("a record is longer than any can be"));
        }
        let bytes = self.read(at, size)?;
        let (headers, mut data) = self.split(&bytes, header)?;
        // The first word of each block was moved to the header, to make room for the number of the round.
        let words = headers.as_chunks::<BLOCK>().0.iter().enumerate().flat_map(|(index, block)| {
            let from = if index == 0 { 44 } else { 4 };
            block.get(from..).and_then(|rest| rest.get(..256)).unwrap_or_default().as_chunks::<4>().0
        });
        for (block, word) in data.as_chunks_mut::<BLOCK>().0.iter_mut().zip(words) {
            if let Some(first) = block.first_chunk_mut() {
                *first = *word;
            }
        }
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        let mut rest = data.get(..length).ok_or_else(|| torn("a record is shorter than it says"))?;
        for _ in 0..header.operations {
            let (operation, behind) =
                rest.split_at_checked(operation::HEADER).ok_or_else(|| torn("an operation is cut off"))?;
            let length = usize::try_from(be32(operation, 4)).unwrap_or(usize::MAX);
            let (body, behind) = behind.split_at_checked(length).ok_or_else(|| torn("an operation is cut off"))?;
            self.operation(be32(operation, 0), operation.get(9).copied().unwrap_or_default(), body)?;
            rest = behind;
        }
        Ok(())
    }

    fn split<'b>(&self, bytes: &'b [u8], header: &Header) -> Result<(&'b [u8], Vec<u8>)> {
        let length = usize::try_from(header.blocks.saturating_mul(512)).unwrap_or(usize::MAX);
        let (headers, data) = bytes.split_at_checked(length).ok_or_else(|| torn("a header is cut off"))?;
        Ok((headers, data.to_vec()))
    }

    fn operation(&mut self, id: u32, flags: u8, body: &[u8]) -> Result<()> {
        if flags & operation::UNMOUNT != 0 {
            return Ok(());
        }
        if flags & operation::START != 0 {
            self.open.insert(id, Transaction::default());
            return Ok(());
        }
        if flags & operation::COMMIT != 0 {
            // What began before the tail was written to its places long ago.
            return self.open.remove(&id).map_or(Ok(()), |transaction| self.commit(&transaction.items));
        }
        let Some(transaction) = self.open.get_mut(&id) else { return Ok(()) };
        if flags & operation::CONTINUED != 0 {
            if let Some(item) = transaction.items.last_mut().filter(|item| item.have == 1) {
                item.first.extend_from_slice(body);
            } else if transaction.items.is_empty() {
                return Err(refused("a header of it is split between two records"));
            }
            return Ok(());
        }
        if body.is_empty() {
            return Ok(());
        }
        if !transaction.has_header {
            /// `TRAN`.
            const TRANSACTION: u32 = 0x5452_414e;
            if body.len() != 16 || ne32(body, 0) != TRANSACTION {
                return Err(refused("a header of it is split between two records"));
            }
            transaction.has_header = true;
            return Ok(());
        }
        match transaction.items.last_mut() {
            Some(item) if item.have < item.total => item.have = item.have.saturating_add(1),
            _ => {
                let total = usize::from(ne16(body, 2)).max(1);
                transaction.items.push(Item { first: body.to_vec(), have: 1, total });
            }
        }
        Ok(())
    }

    /// Looks at the items of a transaction that was completed.
    ///
    /// Linux applies buffers first, then inodes, and leaves out inodes of which the place was freed. The reader takes
    /// them as they come. An inode that it leaves in a place that was freed before is not seen by any reader, unless
    /// the same transaction has made something else of that place.
    fn commit(&mut self, items: &[Item]) -> Result<()> {
        let mut changes: HashMap<u64, Changes> = HashMap::new();
        for item in items {
            let Some((change, at, length)) = self.item(&item.first)? else { continue };
            if length > LARGEST_PLACE {
                return Err(refused("it changes a place that is larger than any can be"));
            }
            for block in at..at.saturating_add(length) {
                let before = changes.entry(block).or_default();
                let is_other = match change {
                    Change::Buffer => before.inode && !before.freed,
                    Change::InodesMade => before.buffer || (before.inode && !before.freed),
                    Change::Inode => before.freed && before.buffer,
                    Change::Freed => false,
                };
                if is_other {
                    return Err(refused("it changes one place twice, in an order of its own"));
                }
                match change {
                    Change::Buffer => before.buffer = true,
                    Change::InodesMade => {}
                    Change::Inode => before.inode = true,
                    Change::Freed => before.freed = true,
                }
            }
        }
        Ok(())
    }

    /// Looks at an item: what it changes, and where, in units of 512 bytes, if it has a place.
    fn item(&mut self, bytes: &[u8]) -> Result<Option<(Change, u64, u64)>> {
        const INODE_BUFFER: u16 = 1;
        const CANCELLED: u16 = 2;
        const DEVICE: u32 = 0x010;
        const NEW_OWNER: u32 = 0x600;
        const PARENTS: std::ops::RangeInclusive<u32> = 4..=6;
        let number = ne64(bytes, 8);
        Ok(match ne16(bytes, 0) {
            item::BUFFER => {
                let flags = ne16(bytes, 4);
                let change = if flags & CANCELLED != 0 { Change::Freed } else { Change::Buffer };
                // Of buffers of inodes, only the list of deleted inodes is taken, which inodes leave alone.
                let is_list = flags & (CANCELLED | INODE_BUFFER) == INODE_BUFFER;
                (!is_list).then(|| (change, number, u64::from(ne16(bytes, 6))))
            }
            item::INODE => {
                let fields = ne32(bytes, 4);
                if fields & NEW_OWNER != 0 {
                    return Err(refused("it gives the tree of a file to another"));
                }
                if fields & DEVICE != 0 {
                    self.device_numbers.insert(ne64(bytes, 16), ne32(bytes, 24));
                }
                let place = ne64(bytes, 40).saturating_add(u64::from(ne32(bytes, 52)) / 512);
                Some((Change::Inode, place, self.inode_size.div_ceil(512)))
            }
            item::INODES_MADE => {
                // In the order of bytes of the disk, unlike all others.
                let (group, block) = (u64::from(be32(bytes, 4)), u64::from(be32(bytes, 8)));
                let at = self.superblock.fsblock_offset(group << self.superblock.agblklog.min(32) | block) / 512;
                let length = u64::from(be32(bytes, 20)).saturating_mul(self.block_size) / 512;
                Some((Change::InodesMade, at, length))
            }
            item::MAP | item::EXCHANGE => {
                self.unfinished.insert((ne16(bytes, 0), number));
                None
            }
            // Pointers to parents are attributes that no one is shown.
            item::ATTRIBUTE if PARENTS.contains(&(ne32(bytes, 24) & 0xff)) => None,
            item::ATTRIBUTE => {
                self.unfinished.insert((item::ATTRIBUTE, number));
                None
            }
            kind @ (item::MAPPED | item::ATTRIBUTE_SET | item::EXCHANGED) => {
                self.unfinished.remove(&(kind.saturating_sub(1), number));
                None
            }
            item::UNLINKED | item::QUOTA | item::QUOTA_OFF => None,
            kind if item::ACCOUNTING.contains(&kind) => None,
            kind => return Err(refused(&format!("it holds an item of unknown type {kind:#x}"))),
        })
    }
}
