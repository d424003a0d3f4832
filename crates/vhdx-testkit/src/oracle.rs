//! A reader as simple and slow as possible, written from the format document, to compare with.
//!
//! It takes the files of a chain, replays their logs into a list of writes, and then looks up every logical sector: BAT
//! entry, bitmap bit, parent. Where the document leaves a choice, it follows the recommendation.

use std::collections::HashMap;
use std::rc::Rc;

use super::FileBytes;

const MIB: u64 = 1 << 20;

const BAT_REGION: &str = "2DC27766-F623-4200-9D64-115E9BFD4A08";
const METADATA_REGION: &str = "8B7CA206-4790-4B9A-B8FE-575F050F886E";
const FILE_PARAMETERS: &str = "CAA16737-FA36-4D43-B3B6-33F0AA44E76B";
const DISK_SIZE: &str = "2FA54224-CD1B-4876-B211-5DBED83BF4B8";
const LOGICAL_SECTOR: &str = "8141BF1D-A96F-4709-BA47-F233A8FAAB5F";
const PARENT_LOCATOR: &str = "A8D35F2D-B30B-454D-ABF7-D3D84834AB0C";
const KNOWN_ITEMS: [&str; 6] = [
    FILE_PARAMETERS,
    DISK_SIZE,
    LOGICAL_SECTOR,
    PARENT_LOCATOR,
    // Virtual Disk ID and Physical Sector Size: no content depends on them.
    "BECA12AB-B2E6-4523-93EF-C309E000C746",
    "CDA348C7-445D-4471-9CC9-E9885251C556",
];
/// Items outside the specification (CHS parameters, PMEM label area) that change nothing.
const IGNORED_ITEMS: [&str; 2] = ["DA02D7BC-3D3A-423C-AC88-2A36AB21479B", "10E1AE8A-4B7E-4169-A40F-CD70DE928393"];
const INCOMPLETE_FILE: &str = "71CC85F0-1B69-4E28-9558-C3BF83AE75D3";
const VHDX_LOCATOR: &str = "B04AEFB7-D19E-4A81-B789-25B8E9445913";

/// Whether a dirty log is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPolicy {
    /// Replay it, in memory.
    Replay,
    /// Read the file as if it had no log.
    Ignore,
}

/// Why a chain cannot be opened or a sector cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not the signature of a VHDX file.
    NotVhdx,
    /// Violates the format.
    Corrupt(&'static str),
    /// Valid, but not supported by this version of the format.
    Unsupported(&'static str),
    /// A sector is in the parent, and the chain ends here.
    NoParent,
    /// The next file of the chain is not the parent of this one.
    ParentMismatch,
}

/// Source of a sector of the disk. Layer 0 is the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The file of this layer, at this offset.
    File {
        /// The layer.
        layer: usize,
        /// The offset in its file, after replay.
        offset: u64,
    },
    /// Zeros, because of the state (1, 2 or 3) of its block in this layer.
    Zero {
        /// The layer.
        layer: usize,
        /// The state of the block.
        state: u8,
    },
    /// Zeros, because no layer has the sector. The layer is the one that ends the search: the last of the chain, or one
    /// whose disk is shorter.
    Absent {
        /// The layer.
        layer: usize,
    },
}

/// An open chain.
pub struct Oracle<'a> {
    layers: Vec<Layer<'a>>,
}

impl<'a> Oracle<'a> {
    /// Opens a chain, child first. A missing parent fails only the reads that need it.
    pub fn open(chain: &[&'a dyn FileBytes], log: LogPolicy) -> Result<Self, Fault> {
        ensure(chain.len() <= 256, Fault::Unsupported("depth of the chain"))?;
        let mut layers = Vec::new();
        for file in chain {
            layers.push(Layer::open(*file, log)?);
        }
        for pair in layers.windows(2) {
            let (child, parent) = (&pair[0], &pair[1]);
            ensure(
                child.linkage.contains(&parent.data_write_guid) && child.sector == parent.sector,
                Fault::ParentMismatch,
            )?;
        }
        Ok(Self { layers })
    }

    /// The size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.layers[0].size
    }

    /// The logical sector size.
    pub fn sector_size(&self) -> u64 {
        self.layers[0].sector
    }

    /// The block size of a layer.
    pub fn block_size(&self, layer: usize) -> u64 {
        self.layers[layer].block
    }

    /// The whole disk.
    pub fn read_all(&self) -> Result<Vec<u8>, Fault> {
        self.read(0, self.size() as usize)
    }

    /// The bytes of a range, cut at the end of the disk.
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        let end = offset.saturating_add(len as u64).min(self.size());
        let mut at = offset;
        while at < end {
            let within = at % self.sector_size();
            let n = (self.sector_size() - within).min(end - at);
            match self.locate(at / self.sector_size())? {
                Origin::File { layer, offset } => {
                    let file = &self.layers[layer].file;
                    out.extend(file.read(offset + within, n as usize));
                }
                Origin::Zero { .. } | Origin::Absent { .. } => out.resize(out.len() + n as usize, 0),
            }
            at += n;
        }
        Ok(out)
    }

    /// Source of a logical sector.
    pub fn locate(&self, sector: u64) -> Result<Origin, Fault> {
        let mut at = 0;
        loop {
            let layer = self.layers.get(at).ok_or(Fault::NoParent)?;
            match layer.locate(sector)? {
                Found::File(offset) => return Ok(Origin::File { layer: at, offset }),
                Found::Zero(state) => return Ok(Origin::Zero { layer: at, state }),
                Found::Absent => return Ok(Origin::Absent { layer: at }),
                Found::Parent => at += 1,
            }
        }
    }

    /// The bytes of a layer's file after replay.
    pub fn file_bytes(&self, layer: usize, offset: u64, len: usize) -> Vec<u8> {
        self.layers[layer].file.read(offset, len)
    }

    /// The length of a layer's file after replay.
    pub fn file_len(&self, layer: usize) -> u64 {
        self.layers[layer].file.len
    }

    /// Number of log entries that were replayed in a layer.
    pub fn replayed(&self, layer: usize) -> usize {
        self.layers[layer].file.entries
    }
}

fn ensure(holds: bool, fault: Fault) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(fault) }
}

fn sound(holds: bool, what: &'static str) -> Result<(), Fault> {
    ensure(holds, Fault::Corrupt(what))
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(bytes[at]) | u64::from(bytes[at + 1]) << 8
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}

type Guid = [u8; 16];

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    bytes[at..at + 16].try_into().unwrap()
}

/// Parses a GUID, with or without braces, in either case, into its file form.
fn guid(text: &str) -> Option<Guid> {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
    let text = inner.unwrap_or(text);
    let dashes = [8, 13, 18, 23];
    if text.len() != 36 || !text.is_ascii() {
        return None;
    }
    let mut digits = Vec::new();
    for (i, c) in text.char_indices() {
        match c.to_digit(16) {
            Some(digit) if !dashes.contains(&i) => digits.push(digit as u8),
            None if dashes.contains(&i) && c == '-' => {}
            _ => return None,
        }
    }
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    Some(order.map(|i: usize| digits[2 * i] << 4 | digits[2 * i + 1]))
}

/// Whether the checksum at 4..8 is right.
fn sealed(structure: &[u8]) -> bool {
    let mut copy = structure.to_vec();
    copy[4..8].fill(0);
    u64::from(crc32c::crc32c(&copy)) == u32_at(structure, 4)
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    let end = |(offset, length)| u128::from(offset) + u128::from(length);
    a.1 > 0 && b.1 > 0 && u128::from(a.0) < end(b) && u128::from(b.0) < end(a)
}

fn ends_by((offset, length): (u64, u64), limit: u64) -> bool {
    offset.checked_add(length).is_some_and(|end| end <= limit)
}

/// One change of the log; without bytes it writes zeros.
#[derive(Clone)]
struct Write {
    offset: u64,
    length: u64,
    bytes: Option<Vec<u8>>,
}

/// A file with the changes of its log applied, in order.
struct Replayed<'a> {
    file: &'a dyn FileBytes,
    writes: Vec<Write>,
    len: u64,
    entries: usize,
}

impl Replayed<'_> {
    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = self.file.bytes_at(offset, len);
        for write in &self.writes {
            let from = offset.max(write.offset);
            let to = (offset + len as u64).min(write.offset + write.length);
            for at in from..to {
                let new = write.bytes.as_ref();
                out[(at - offset) as usize] = new.map_or(0, |b| b[(at - write.offset) as usize]);
            }
        }
        out
    }
}

/// The ring, and the GUID that its entries must have.
struct Ring<'a> {
    file: &'a dyn FileBytes,
    offset: u64,
    length: u64,
    guid: Guid,
}

struct Entry {
    sequence: u64,
    tail: u64,
    length: u64,
    flushed: u64,
    last: u64,
    writes: Vec<Write>,
}

impl Ring<'_> {
    /// Bytes of the ring from a sector boundary on, wrapping at its end.
    fn read(&self, at: u64, len: u64) -> Vec<u8> {
        let mut out = Vec::new();
        for sector in 0..len / 4096 {
            let within = (at + sector * 4096) % self.length;
            out.extend(self.file.bytes_at(self.offset + within, 4096));
        }
        out
    }

    /// The entry at a ring offset, if it is valid.
    fn entry(&self, at: u64) -> Option<Rc<Entry>> {
        let head = self.read(at, 4096);
        let length = u32_at(&head, 8);
        let tail = u32_at(&head, 12);
        let sequence = u64_at(&head, 16);
        let count = u32_at(&head, 24);
        let sectors = (64 + 32 * count).div_ceil(4096);
        let valid = head.starts_with(b"loge")
            && guid_at(&head, 32) == self.guid
            && u32_at(&head, 28) == 0
            && sequence > 0
            && length.is_multiple_of(4096)
            && length >= 4096
            && length <= self.length
            && tail.is_multiple_of(4096)
            && tail < self.length
            && sectors * 4096 <= length;
        if !valid {
            return None;
        }
        let bytes = self.read(at, length);
        let mut writes = Vec::new();
        let mut data = sectors * 4096;
        for i in 0..count as usize {
            let descriptor = &bytes[64 + 32 * i..96 + 32 * i];
            let offset = u64_at(descriptor, 16);
            let write = if descriptor.starts_with(b"zero") {
                Write { offset, length: u64_at(descriptor, 8), bytes: None }
            } else if descriptor.starts_with(b"desc") {
                let sector = bytes.get(data as usize..data as usize + 4096)?;
                let number = u32_at(sector, 4) << 32 | u32_at(sector, 4092);
                if !sector.starts_with(b"data") || number != sequence {
                    return None;
                }
                data += 4096;
                let rebuilt = [&descriptor[8..16], &sector[8..4092], &descriptor[4..8]].concat();
                Write { offset, length: 4096, bytes: Some(rebuilt) }
            } else {
                return None;
            };
            let extent = (write.offset, write.length);
            let valid = u64_at(descriptor, 24) == sequence
                && write.offset.is_multiple_of(4096)
                && write.length.is_multiple_of(4096)
                && write.offset >= 192 * 1024
                && ends_by(extent, u64::MAX)
                && !overlap(extent, (self.offset, self.length));
            if !valid {
                return None;
            }
            writes.push(write);
        }
        let entry = Entry { sequence, tail, length, flushed: u64_at(&head, 48), last: u64_at(&head, 56), writes };
        (data == length && sealed(&bytes)).then(|| Rc::new(entry))
    }

    /// The entries to replay, in order; none if no sequence is valid.
    fn active(&self) -> Vec<Rc<Entry>> {
        let mut known: HashMap<u64, Option<Rc<Entry>>> = HashMap::new();
        let mut best: Vec<(u64, Rc<Entry>)> = Vec::new();
        let mut start = 0;
        while start < self.length {
            let mut run: Vec<(u64, Rc<Entry>)> = Vec::new();
            let mut head = start;
            let mut used = 0;
            while used < self.length {
                let entry = known.entry(head).or_insert_with(|| self.entry(head));
                let Some(entry) = entry.clone() else { break };
                let follows = run.last().is_none_or(|(_, last)| last.sequence.checked_add(1) == Some(entry.sequence));
                if used + entry.length > self.length || !follows {
                    break;
                }
                used += entry.length;
                let next = (head + entry.length) % self.length;
                run.push((head, entry));
                head = next;
            }
            let tail = run.last().map(|(_, last)| last.tail);
            if run.iter().any(|(at, _)| Some(*at) == tail) {
                let number = |run: &[(u64, Rc<Entry>)]| run.last().map(|(_, e)| e.sequence);
                if number(&run) > number(&best) {
                    best = run;
                }
                start += used;
            } else {
                start += 4096;
            }
        }
        let tail = best.last().map(|(_, last)| last.tail);
        best.into_iter().skip_while(|(at, _)| Some(*at) != tail).map(|(_, entry)| entry).collect()
    }
}

/// Content of a sector in one layer.
enum Found {
    File(u64),
    Zero(u8),
    Absent,
    Parent,
}

/// A file of the chain.
struct Layer<'a> {
    file: Replayed<'a>,
    data_write_guid: Guid,
    linkage: Vec<Guid>,
    /// Header section, log and regions: payload blocks must not overlap these.
    taken: Vec<(u64, u64)>,
    bat: u64,
    block: u64,
    sector: u64,
    size: u64,
    has_parent: bool,
}

impl<'a> Layer<'a> {
    fn open(bytes: &'a dyn FileBytes, policy: LogPolicy) -> Result<Self, Fault> {
        ensure(bytes.bytes_at(0, 8) == b"vhdxfile", Fault::NotVhdx)?;
        sound(bytes.file_len() >= MIB, "file length")?;
        let header = current_header(bytes)?;
        ensure(u16_at(&header, 66) == 1, Fault::Unsupported("version"))?;
        let log_guid = guid_at(&header, 48);
        let log = (u64_at(&header, 72), u32_at(&header, 68));
        let mut file = Replayed { file: bytes, writes: Vec::new(), len: bytes.file_len(), entries: 0 };
        if log_guid != [0; 16] && policy == LogPolicy::Replay {
            let version = u16_at(&header, 64);
            ensure(version == 0, Fault::Unsupported("log version"))?;
            replay(&mut file, log_guid, log)?;
        }
        // An unused log may be anywhere: it occupies space only at a valid offset.
        let placed = log_place(log, bytes.file_len()).is_ok();
        let log = if placed { log } else { (0, 0) };
        let (regions, bat, metadata) = regions(&file, log)?;
        let mut taken = vec![(0, MIB), log];
        taken.extend(regions);
        let mut layer = Self {
            file,
            data_write_guid: guid_at(&header, 32),
            linkage: Vec::new(),
            taken,
            bat: bat.0,
            block: 0,
            sector: 0,
            size: 0,
            has_parent: false,
        };
        layer.read_metadata(metadata)?;
        let ratio = layer.ratio();
        let blocks = layer.size.div_ceil(layer.block);
        let entries = if layer.has_parent {
            blocks.div_ceil(ratio) * (ratio + 1)
        } else {
            blocks + blocks.saturating_sub(1) / ratio
        };
        sound(entries * 8 <= bat.1, "BAT region too small")?;
        sound(ends_by((bat.0, entries * 8), layer.file.len), "BAT past end of file")?;
        Ok(layer)
    }

    fn ratio(&self) -> u64 {
        (self.sector << 23) / self.block
    }

    fn read_metadata(&mut self, region: (u64, u64)) -> Result<(), Fault> {
        let items = items(&self.file, region)?;
        let body = |text: &str| {
            let id = guid(text);
            let extent = items.iter().find(|i| Some(i.0) == id)?.1;
            Some(self.file.read(region.0 + extent.0, extent.1 as usize))
        };
        let sized = |text: &str, len: usize, what: &'static str| {
            let found = body(text).filter(|b| b.len() == len);
            found.ok_or(Fault::Corrupt(what))
        };
        let parameters = sized(FILE_PARAMETERS, 8, "file parameters")?;
        let size = u64_at(&sized(DISK_SIZE, 8, "disk size")?, 0);
        let sector = u32_at(&sized(LOGICAL_SECTOR, 4, "logical sector size")?, 0);
        let block = u32_at(&parameters, 0);
        let has_parent = parameters[4] & 2 != 0;
        sound(block.is_power_of_two() && (MIB..=256 * MIB).contains(&block), "block size")?;
        sound(sector == 512 || sector == 4096, "logical sector size")?;
        sound(size <= 1 << 46 && size.is_multiple_of(sector), "disk size")?;
        let linkage = match body(PARENT_LOCATOR) {
            Some(locator) if has_parent => linkage(&locator)?,
            None if has_parent => return Err(Fault::Corrupt("no parent locator")),
            _ => Vec::new(),
        };
        (self.block, self.sector, self.size) = (block, sector, size);
        (self.has_parent, self.linkage) = (has_parent, linkage);
        Ok(())
    }

    /// The state and the file offset of a BAT entry.
    fn entry(&self, index: u64) -> (u8, u64) {
        let entry = u64_at(&self.file.read(self.bat + index * 8, 8), 0);
        ((entry % 8) as u8, entry - entry % MIB)
    }

    fn locate(&self, sector: u64) -> Result<Found, Fault> {
        let at = sector * self.sector;
        if at >= self.size {
            return Ok(Found::Absent);
        }
        let number = at / self.block;
        let (state, place) = self.entry(number + number / self.ratio());
        match state {
            0 if self.has_parent => Ok(Found::Parent),
            0 => Ok(Found::Absent),
            1..=3 => Ok(Found::Zero(state)),
            6 | 7 => {
                // Only the part that the disk can address must exist.
                let start = number * self.block;
                let payload = (place, self.block.min(self.size - start));
                sound(place >= MIB, "payload block in the header section")?;
                sound(ends_by(payload, self.file.len), "payload block past end of file")?;
                let clear = !self.taken.iter().any(|t| overlap(*t, payload));
                sound(clear, "payload block over another structure")?;
                if state == 7 && !self.bit(sector, payload.1 / self.sector)? {
                    return Ok(Found::Parent);
                }
                Ok(Found::File(place + (at - start)))
            }
            _ => Err(Fault::Corrupt("payload block state")),
        }
    }

    /// The bit of a sector in the bitmap; `sectors` is the number of sectors per block.
    fn bit(&self, sector: u64, sectors: u64) -> Result<bool, Fault> {
        sound(self.has_parent, "partial block without a parent")?;
        let chunk = sector >> 23;
        let ratio = self.ratio();
        let (state, place) = self.entry(chunk * (ratio + 1) + ratio);
        sound(state == 6, "partial block without a bitmap")?;
        sound(place >= MIB, "bitmap in the header section")?;
        let bit = sector % (1 << 23);
        let first = bit - bit % (self.block / self.sector);
        let slice = (place + first / 8, sectors.div_ceil(8));
        sound(ends_by(slice, self.file.len), "bitmap past end of file")?;
        let byte = self.file.read(place + bit / 8, 1)[0];
        Ok(byte >> (bit % 8) & 1 == 1)
    }
}

fn current_header(file: &dyn FileBytes) -> Result<Vec<u8>, Fault> {
    let mut valid: Vec<Vec<u8>> = [64, 128]
        .map(|kib| file.bytes_at(kib * 1024, 4096))
        .into_iter()
        .filter(|h| h.starts_with(b"head") && sealed(h))
        .collect();
    valid.sort_by_key(|h| u64_at(h, 8));
    let current = valid.pop().ok_or(Fault::Corrupt("both headers"))?;
    let other = valid.pop();
    let tie = other.is_some_and(|o| u64_at(&o, 8) == u64_at(&current, 8) && o != current);
    sound(!tie, "two different headers with one sequence number")?;
    Ok(current)
}

fn log_place(log: Extent, file_len: u64) -> Result<(), Fault> {
    sound(log.0.is_multiple_of(MIB) && log.1.is_multiple_of(MIB), "log alignment")?;
    sound(log.1 > 0 && log.0 >= MIB && ends_by(log, file_len), "log place")
}

fn replay(file: &mut Replayed<'_>, guid: Guid, log: Extent) -> Result<(), Fault> {
    log_place(log, file.len)?;
    let (offset, length) = log;
    ensure(length <= 1 << 30, Fault::Unsupported("log length"))?;
    let ring = Ring { file: file.file, offset, length, guid };
    let active = ring.active();
    let head = active.last().ok_or(Fault::Corrupt("no valid log sequence"))?;
    sound(file.len >= head.flushed, "file shorter than its log says")?;
    file.len = file.len.max(head.last);
    file.entries = active.len();
    for write in active.iter().flat_map(|entry| &entry.writes) {
        if write.length > 0 {
            file.len = file.len.max(write.offset + write.length);
        }
        file.writes.push(write.clone());
    }
    Ok(())
}

type Extent = (u64, u64);

/// Extents of all regions, then those of BAT and metadata.
fn regions(file: &Replayed<'_>, log: Extent) -> Result<(Vec<Extent>, Extent, Extent), Fault> {
    let table = [192, 256]
        .map(|kib| file.read(kib * 1024, 65536))
        .into_iter()
        .find(|t| t.starts_with(b"regi") && sealed(t) && u32_at(t, 8) <= 2047)
        .ok_or(Fault::Corrupt("both region tables"))?;
    let count = u32_at(&table, 8) as usize;
    let mut seen: Vec<(Guid, Extent)> = Vec::new();
    for i in 0..count {
        let entry = &table[16 + 32 * i..48 + 32 * i];
        let id = guid_at(entry, 0);
        let extent = (u64_at(entry, 16), u32_at(entry, 24));
        let known = Some(id) == guid(BAT_REGION) || Some(id) == guid(METADATA_REGION);
        ensure(known || u32_at(entry, 28) == 0, Fault::Unsupported("required region"))?;
        if known {
            let aligned = extent.0.is_multiple_of(MIB) && extent.1.is_multiple_of(MIB);
            sound(aligned && extent.0 >= MIB && extent.1 > 0, "region place")?;
            sound(ends_by(extent, u64::MAX), "region place")?;
        }
        sound(!seen.iter().any(|s| s.0 == id), "region twice")?;
        let others = seen.iter().map(|s| s.1).chain([(0, MIB), log]);
        sound(!others.into_iter().any(|o| overlap(o, extent)), "region overlap")?;
        seen.push((id, extent));
    }
    let find = |text: &str| {
        let found = seen.iter().find(|s| Some(s.0) == guid(text));
        found.map(|s| s.1).ok_or(Fault::Corrupt("region missing"))
    };
    let (bat, metadata) = (find(BAT_REGION)?, find(METADATA_REGION)?);
    sound(ends_by(metadata, file.len), "metadata past end of file")?;
    Ok((seen.into_iter().map(|s| s.1).collect(), bat, metadata))
}

/// Known items by identifier, with their extents in the region.
fn items(file: &Replayed<'_>, region: Extent) -> Result<Vec<(Guid, Extent)>, Fault> {
    let table = file.read(region.0, 65536);
    sound(table.starts_with(b"metadata"), "metadata signature")?;
    let count = u16_at(&table, 10) as usize;
    sound(count <= 2047, "metadata count")?;
    let mut items: Vec<(Guid, Extent)> = Vec::new();
    let mut users = 0;
    for i in 0..count {
        let entry = &table[32 + 32 * i..64 + 32 * i];
        let id = guid_at(entry, 0);
        let extent = (u32_at(entry, 16), u32_at(entry, 20));
        let flags = u32_at(entry, 24);
        let (user, required) = (flags & 1 != 0, flags & 4 != 0);
        users += u64::from(user);
        let is = |text: &&str| !user && guid(text) == Some(id);
        ensure(!is(&INCOMPLETE_FILE), Fault::Unsupported("incomplete file"))?;
        if !KNOWN_ITEMS.iter().any(&is) {
            let harmless = !required || IGNORED_ITEMS.iter().any(is);
            ensure(harmless, Fault::Unsupported("required metadata item"))?;
            continue;
        }
        let placed = if extent.1 == 0 {
            extent.0 == 0
        } else {
            extent.0 >= 65536 && extent.1 <= MIB && ends_by(extent, region.1)
        };
        sound(placed, "metadata item place")?;
        for other in &items {
            sound(other.0 != id, "metadata item twice")?;
            sound(!overlap(other.1, extent), "metadata item overlap")?;
        }
        items.push((id, extent));
    }
    sound(users <= 1024, "user item count")?;
    Ok(items)
}

/// GUIDs that the locator accepts for the parent. An entry that cannot be read does not count: a parent is accepted by
/// its identity alone.
fn linkage(locator: &[u8]) -> Result<Vec<Guid>, Fault> {
    sound(locator.len() >= 20, "locator length")?;
    ensure(Some(guid_at(locator, 0)) == guid(VHDX_LOCATOR), Fault::Unsupported("locator type"))?;
    let count = u16_at(locator, 18) as usize;
    let mut pairs: Vec<(String, String)> = Vec::new();
    for i in 0..count {
        let at = 20 + 12 * i;
        let entry = locator.get(at..at + 12);
        let entry = entry.ok_or(Fault::Corrupt("locator entries"))?;
        let text = |offset: u64, length: u64| {
            let bytes = locator.get(offset as usize..(offset + length) as usize)?;
            let units = bytes.chunks(2).map(|c| c.try_into().map(u16::from_le_bytes).ok());
            let units = units.collect::<Option<Vec<_>>>()?;
            let text = String::from_utf16_lossy(&units);
            let text = text.trim_end_matches('\0');
            (offset > 0 && !text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
        };
        let key = text(u32_at(entry, 0), u16_at(entry, 8));
        let value = text(u32_at(entry, 4), u16_at(entry, 10));
        let (Some(key), Some(value)) = (key, value) else { continue };
        let twice = pairs.iter().any(|p| p.0 == key);
        sound(!(twice && key.starts_with("parent_linkage")), "identity twice")?;
        pairs.push((key, value));
    }
    let find = |key: &str| {
        let pair = pairs.iter().find(|p| p.0 == key);
        pair.and_then(|p| guid(&p.1))
    };
    let first = find("parent_linkage").ok_or(Fault::Corrupt("parent_linkage"))?;
    let both = [Some(first), find("parent_linkage2")];
    Ok(both.into_iter().flatten().filter(|g| *g != [0; 16]).collect())
}
