//! Builds VHDX files byte by byte, valid and invalid ones, and knows the content of their disks.
//!
//! A [`Spec`] describes one file; [`Spec::build`] makes the [`Image`]. Any field may have an invalid value: the builder
//! writes it and checks nothing.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{Bitmap, Block, Fill, Geometry, KIB, MIB, Model, ModelBlock, PAGE, Place, SparseBytes, pattern};

/// Region: block allocation table.
pub const BAT_REGION: Uuid = Uuid::from_u128(0x2DC27766_F623_4200_9D64_115E9BFD4A08);
/// Region: metadata.
pub const METADATA_REGION: Uuid = Uuid::from_u128(0x8B7CA206_4790_4B9A_B8FE_575F050F886E);
/// Item: block size and flags.
pub const FILE_PARAMETERS: Uuid = Uuid::from_u128(0xCAA16737_FA36_4D43_B3B6_33F0AA44E76B);
/// Item: size of the virtual disk.
pub const DISK_SIZE: Uuid = Uuid::from_u128(0x2FA54224_CD1B_4876_B211_5DBED83BF4B8);
/// Item: identity of the virtual disk.
pub const DISK_ID: Uuid = Uuid::from_u128(0xBECA12AB_B2E6_4523_93EF_C309E000C746);
/// Item: logical sector size.
pub const LOGICAL_SECTOR: Uuid = Uuid::from_u128(0x8141BF1D_A96F_4709_BA47_F233A8FAAB5F);
/// Item: physical sector size.
pub const PHYSICAL_SECTOR: Uuid = Uuid::from_u128(0xCDA348C7_445D_4471_9CC9_E9885251C556);
/// Item: parent locator.
pub const PARENT_LOCATOR: Uuid = Uuid::from_u128(0xA8D35F2D_B30B_454D_ABF7_D3D84834AB0C);
/// Item: marks a file whose creation did not finish.
pub const INCOMPLETE_FILE: Uuid = Uuid::from_u128(0x71CC85F0_1B69_4E28_9558_C3BF83AE75D3);
/// The only type of parent locator that the format defines.
pub const VHDX_LOCATOR: Uuid = Uuid::from_u128(0xB04AEFB7_D19E_4A81_B789_25B8E9445913);

/// Item flag: belongs to the user, not to the system.
pub const IS_USER: u32 = 1;
/// Item flag: describes the virtual disk, not the file.
pub const IS_VIRTUAL_DISK: u32 = 2;
/// Item flag: a reader must know the item.
pub const IS_REQUIRED: u32 = 4;

/// Entry of the region table.
#[derive(Debug, Clone)]
pub struct Region {
    /// Identifier of the region.
    pub guid: Uuid,
    /// Offset in the file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u32,
    /// The Required field; 0 or 1 if valid.
    pub required: u32,
}

/// Content of a metadata item.
#[derive(Debug, Clone)]
pub enum Body {
    /// The fields of the `Spec`; only for the known items.
    FromSpec,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// Metadata item.
#[derive(Debug, Clone)]
pub struct Item {
    /// Identifier of the item.
    pub id: Uuid,
    /// The Flags field.
    pub flags: u32,
    /// Offset in the region; by default after the item before it (0 if empty).
    pub offset: Option<u32>,
    /// The Length field; by default the length of the body.
    pub length: Option<u32>,
    /// Content.
    pub body: Body,
}

impl Item {
    /// An item with its own body, at the next free offset.
    pub fn new(id: Uuid, flags: u32, body: &[u8]) -> Self {
        Self { id, flags, offset: None, length: None, body: Body::Bytes(body.to_vec()) }
    }
}

/// Parent locator item.
#[derive(Debug, Clone)]
pub enum Locator {
    /// A well-formed item with these keys and values in this order.
    Pairs(Uuid, Vec<(String, String)>),
    /// These bytes, valid or not.
    Raw(Vec<u8>),
}

impl Locator {
    /// The five keys that Hyper-V writes, in its order.
    pub fn linked_to(data_write_guid: Uuid, parent_name: &str) -> Self {
        let mut out = Self::Pairs(VHDX_LOCATOR, Vec::new());
        out.set("parent_linkage", &format!("{{{data_write_guid}}}"));
        out.set("absolute_win32_path", &format!("C:\\disks\\{parent_name}"));
        out.set("relative_path", &format!(".\\{parent_name}"));
        let volume = Uuid::from_u128(0xEEEE_EEEE);
        out.set("volume_path", &format!("\\\\?\\Volume{{{volume}}}\\disks\\{parent_name}"));
        out.set("parent_linkage2", &format!("{{{}}}", Uuid::nil()));
        out
    }

    /// Sets a key: replaces its value, or adds it at the end.
    pub fn set(&mut self, key: &str, value: &str) {
        let Self::Pairs(_, pairs) = self else {
            panic!("a raw locator has no keys");
        };
        match pairs.iter_mut().find(|(k, _)| k == key) {
            Some(pair) => pair.1 = value.to_owned(),
            None => pairs.push((key.to_owned(), value.to_owned())),
        }
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) {
        if let Self::Pairs(_, pairs) = self {
            pairs.retain(|(k, _)| k != key);
        }
    }

    /// Bytes of the item.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, pairs) = match self {
            Self::Raw(bytes) => return bytes.clone(),
            Self::Pairs(kind, pairs) => (kind, pairs),
        };
        let utf16 = |s: &str| -> Vec<u8> { s.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        let mut table = kind.to_bytes_le().to_vec();
        table.extend(0u16.to_le_bytes());
        table.extend((pairs.len() as u16).to_le_bytes());
        let mut strings = Vec::new();
        let base = 20 + 12 * pairs.len();
        for (key, value) in pairs {
            let (key, value) = (utf16(key), utf16(value));
            let key_at = base + strings.len();
            table.extend((key_at as u32).to_le_bytes());
            table.extend(((key_at + key.len()) as u32).to_le_bytes());
            table.extend((key.len() as u16).to_le_bytes());
            table.extend((value.len() as u16).to_le_bytes());
            strings.extend(key);
            strings.extend(value);
        }
        table.extend(strings);
        table
    }
}

/// Payload or bitmap block, for the order of allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// The payload block of this number.
    Block(u64),
    /// The bitmap block of this chunk.
    Bitmap(u64),
}

/// Length of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileLength {
    /// Up to the end of all objects.
    Auto,
    /// Like `Auto`, without the unaddressable part of the last block of the disk.
    Short,
    /// Like `Auto`, followed by this many bytes of junk.
    Trailing(u64),
    /// Exactly this length; the model ignores a truncation.
    Exact(u64),
}

/// Specification of one file. Change what a test is about and keep the rest of the default: a clean dynamic image of 8
/// MiB in blocks of 1 MiB, of which 0, 2 and 5 are present.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Seed of the pattern in the payload blocks.
    pub seed: u64,
    /// The creator string, in UTF-16 units.
    pub creator: Vec<u16>,
    /// SequenceNumber of header 1 and of header 2.
    pub sequence: [u64; 2],
    /// FileWriteGuid of both headers.
    pub file_write_guid: Uuid,
    /// DataWriteGuid of both headers.
    pub data_write_guid: Uuid,
    /// LogGuid of both headers; nil for a clean file.
    pub log_guid: Uuid,
    /// LogVersion of both headers.
    pub log_version: u16,
    /// Version of both headers.
    pub version: u16,
    /// LogOffset of both headers.
    pub log_offset: u64,
    /// LogLength of both headers.
    pub log_length: u32,
    /// Offset of the metadata region.
    pub metadata_offset: u64,
    /// Length of the metadata region.
    pub metadata_length: u32,
    /// Offset of the BAT region.
    pub bat_offset: u64,
    /// Length of the BAT region; by default what the disk needs, in whole MiB.
    pub bat_length: Option<u32>,
    /// Required field of the metadata and of the BAT region.
    pub regions_required: u32,
    /// Region entries after those of BAT and metadata.
    pub extra_regions: Vec<Region>,
    /// All region entries, instead of the automatic ones.
    pub regions: Option<Vec<Region>>,
    /// VirtualDiskSize.
    pub disk_size: u64,
    /// BlockSize.
    pub block_size: u32,
    /// LogicalSectorSize.
    pub sector_size: u32,
    /// PhysicalSectorSize.
    pub physical_sector_size: u32,
    /// Bit 0 of the file parameters.
    pub leave_blocks_allocated: bool,
    /// Bit 1 of the file parameters; also decides the size of the BAT.
    pub has_parent: bool,
    /// Other bits of the file parameters.
    pub more_flags: u32,
    /// Virtual Disk ID.
    pub disk_id: Uuid,
    /// Metadata items in the order of their table; the locator is left out while `locator` is `None`.
    pub items: Vec<Item>,
    /// The parent locator.
    pub locator: Option<Locator>,
    /// Payload blocks by number; the others are NOT_PRESENT.
    pub blocks: BTreeMap<u64, Block>,
    /// Bitmaps by chunk; a chunk of a child with a PARTIALLY_PRESENT block gets one automatically.
    pub bitmaps: BTreeMap<u64, Bitmap>,
    /// BAT entries by BAT index that replace those of the builder; the model ignores them.
    pub raw_bat: BTreeMap<u64, u64>,
    /// Blocks to allocate first, in this order; the rest follows by number.
    pub order: Vec<Slot>,
    /// No block is allocated before this offset.
    pub payload_start: u64,
    /// Length of the file.
    pub file_length: FileLength,
}

impl Default for Spec {
    fn default() -> Self {
        let mut out = Self::empty(8 * MIB);
        for b in [0, 2, 5] {
            out.blocks.insert(b, Block::full());
        }
        out
    }
}

impl Spec {
    /// A clean dynamic image with blocks of 1 MiB, none of them present.
    pub fn empty(disk_size: u64) -> Self {
        let known = |id, flags| Item { id, flags, offset: None, length: None, body: Body::FromSpec };
        Self {
            seed: 1,
            creator: "test kit".encode_utf16().collect(),
            sequence: [7, 8],
            file_write_guid: Uuid::from_u128(0xF11E_0001),
            data_write_guid: Uuid::from_u128(0xDA7A_0001),
            log_guid: Uuid::nil(),
            log_version: 0,
            version: 1,
            log_offset: MIB,
            log_length: MIB as u32,
            metadata_offset: 2 * MIB,
            metadata_length: MIB as u32,
            bat_offset: 3 * MIB,
            bat_length: None,
            regions_required: 1,
            extra_regions: Vec::new(),
            regions: None,
            disk_size,
            block_size: MIB as u32,
            sector_size: 512,
            physical_sector_size: 4096,
            leave_blocks_allocated: false,
            has_parent: false,
            more_flags: 0,
            disk_id: Uuid::from_u128(0xD15C_0001),
            items: vec![
                known(FILE_PARAMETERS, IS_REQUIRED),
                known(DISK_SIZE, IS_VIRTUAL_DISK | IS_REQUIRED),
                known(DISK_ID, IS_VIRTUAL_DISK | IS_REQUIRED),
                known(LOGICAL_SECTOR, IS_VIRTUAL_DISK | IS_REQUIRED),
                known(PHYSICAL_SECTOR, IS_VIRTUAL_DISK | IS_REQUIRED),
                known(PARENT_LOCATOR, IS_REQUIRED),
            ],
            locator: None,
            blocks: BTreeMap::new(),
            bitmaps: BTreeMap::new(),
            raw_bat: BTreeMap::new(),
            order: Vec::new(),
            payload_start: MIB,
            file_length: FileLength::Auto,
        }
    }

    /// A child of `parent`, with the next seed and no block present. Its locator names the parent by `parent_name` in
    /// the same folder.
    pub fn child_of(parent: &Self, parent_name: &str) -> Self {
        let next = |guid: Uuid| Uuid::from_u128(guid.as_u128().wrapping_add(1));
        Self {
            seed: parent.seed + 1,
            file_write_guid: next(parent.file_write_guid),
            data_write_guid: next(parent.data_write_guid),
            block_size: parent.block_size,
            sector_size: parent.sector_size,
            physical_sector_size: parent.physical_sector_size,
            disk_id: parent.disk_id,
            has_parent: true,
            locator: Some(Locator::linked_to(parent.data_write_guid, parent_name)),
            ..Self::empty(parent.disk_size)
        }
    }

    /// Adds or replaces a payload block.
    pub fn block(mut self, number: u64, block: Block) -> Self {
        self.blocks.insert(number, block);
        self
    }

    /// Item with this identifier, to change it.
    pub fn item(&mut self, id: Uuid) -> &mut Item {
        self.items.iter_mut().find(|item| item.id == id).unwrap()
    }

    /// Leaves out an item.
    pub fn omit(&mut self, id: Uuid) {
        self.items.retain(|item| item.id != id);
    }

    /// Content of an item.
    fn body(&self, item: &Item) -> Vec<u8> {
        if let Body::Bytes(bytes) = &item.body {
            return bytes.clone();
        }
        match item.id {
            FILE_PARAMETERS => {
                let flags =
                    self.more_flags | u32::from(self.leave_blocks_allocated) | (u32::from(self.has_parent) << 1);
                [self.block_size.to_le_bytes(), flags.to_le_bytes()].concat()
            }
            DISK_SIZE => self.disk_size.to_le_bytes().to_vec(),
            DISK_ID => self.disk_id.to_bytes_le().to_vec(),
            LOGICAL_SECTOR => self.sector_size.to_le_bytes().to_vec(),
            PHYSICAL_SECTOR => self.physical_sector_size.to_le_bytes().to_vec(),
            PARENT_LOCATOR => self.locator.as_ref().unwrap().encode(),
            other => panic!("no field of the specification belongs to item {other}"),
        }
    }
}

/// A built file: its bytes, the content of its disk, and the offsets of all structures.
///
/// The offsets are those of the specification; changes of `bytes` do not move them.
#[derive(Debug, Clone)]
pub struct Image {
    /// The file.
    pub bytes: SparseBytes,
    /// Content of the disk.
    pub model: Model,
    /// Specification that the file was built from.
    pub spec: Spec,
    /// Counts and indices of blocks.
    pub geometry: Geometry,
    /// The entries of the region table.
    pub regions: Vec<Region>,
    /// Offsets of the allocated payload and bitmap blocks.
    pub places: BTreeMap<Slot, u64>,
    /// For each metadata item: identifier, offset of its table entry, offset of its body.
    pub items: Vec<(Uuid, u64, u64)>,
}

/// Sets the checksum at 4..8 of a structure.
pub fn seal(structure: &mut [u8]) {
    structure[4..8].fill(0);
    let crc = crc32c::crc32c(structure);
    structure[4..8].copy_from_slice(&crc.to_le_bytes());
}

impl Spec {
    /// Builds the file.
    pub fn build(&self) -> Image {
        let geometry = Geometry::of(self.disk_size, self.block_size, self.sector_size, self.has_parent);
        let bitmaps = self.all_bitmaps(&geometry);
        let regions = self.all_regions(&geometry);
        let places = self.allocate(&bitmaps, &regions);
        let mut image = Image {
            bytes: SparseBytes::new(0),
            model: self.model(&geometry, &bitmaps),
            spec: self.clone(),
            geometry,
            regions,
            places,
            items: Vec::new(),
        };
        image.write_headers();
        image.write_region_tables();
        image.write_metadata();
        image.write_blocks();
        image.write_bitmaps(&bitmaps);
        for (&index, &value) in &self.raw_bat {
            image.set_bat(index, value);
        }
        image.set_length();
        image
    }

    /// Bitmaps of the specification, and those that PARTIALLY_PRESENT blocks need.
    fn all_bitmaps(&self, geometry: &Geometry) -> BTreeMap<u64, Bitmap> {
        let mut out = self.bitmaps.clone();
        for (number, block) in &self.blocks {
            if self.has_parent && block.state == 7 {
                out.entry(number / geometry.ratio).or_insert(Bitmap {
                    state: 6,
                    place: Place::Auto,
                    present: Vec::new(),
                });
            }
        }
        out
    }

    /// The entries of the region table.
    fn all_regions(&self, geometry: &Geometry) -> Vec<Region> {
        if let Some(regions) = &self.regions {
            return regions.clone();
        }
        let needed = geometry.entries.saturating_mul(8).max(1);
        // A geometry that needs more than this is a fault on purpose.
        let needed = if needed > 1 << 30 { MIB } else { needed };
        let mut out = vec![
            Region {
                guid: BAT_REGION,
                offset: self.bat_offset,
                length: self.bat_length.unwrap_or(needed.next_multiple_of(MIB) as u32),
                required: self.regions_required,
            },
            Region {
                guid: METADATA_REGION,
                offset: self.metadata_offset,
                length: self.metadata_length,
                required: self.regions_required,
            },
        ];
        out.extend(self.extra_regions.iter().cloned());
        out
    }

    /// Extents of log and regions, except those too wild to avoid.
    fn extents(&self, regions: &[Region]) -> Vec<(u64, u64)> {
        let log = (self.log_offset, u64::from(self.log_length));
        let regions = regions.iter().map(|r| (r.offset, u64::from(r.length)));
        std::iter::once(log)
            .chain(regions)
            .filter(|(offset, _)| *offset < 1 << 50)
            .map(|(offset, length)| (offset, offset + length))
            .collect()
    }

    /// Allocates every block that needs space.
    fn allocate(&self, bitmaps: &BTreeMap<u64, Bitmap>, regions: &[Region]) -> BTreeMap<Slot, u64> {
        let mut wanted = BTreeMap::new();
        let payload = u64::from(self.block_size).max(1).next_multiple_of(MIB);
        for (&number, block) in &self.blocks {
            wanted.insert(Slot::Block(number), (block.state, block.place, payload));
        }
        for (&chunk, bitmap) in bitmaps {
            wanted.insert(Slot::Bitmap(chunk), (bitmap.state, bitmap.place, MIB));
        }
        let mut taken = self.extents(regions);
        taken.push((0, MIB));
        let mut places = BTreeMap::new();
        for (&slot, &(state, place, length)) in &wanted {
            if let Place::At(offset) = place {
                places.insert(slot, offset);
                if state >= 6 {
                    taken.push((offset, offset.saturating_add(length)));
                }
            }
        }
        let mut at = self.payload_start.next_multiple_of(MIB);
        let mut seen = BTreeSet::new();
        for slot in self.order.iter().chain(wanted.keys()) {
            let (state, place, length) = wanted[slot];
            if state < 6 || place != Place::Auto || !seen.insert(*slot) {
                continue;
            }
            while let Some((_, end)) = taken.iter().find(|t| t.0 < at + length && at < t.1) {
                at = end.next_multiple_of(MIB);
            }
            places.insert(*slot, at);
            at += length;
        }
        places
    }

    /// Content of the disk.
    fn model(&self, geometry: &Geometry, bitmaps: &BTreeMap<u64, Bitmap>) -> Model {
        let mut blocks = BTreeMap::new();
        for (&number, block) in &self.blocks {
            let fill = block.fill.clone().unwrap_or(Fill::Pattern(self.seed));
            let bitmap = bitmaps.get(&(number / geometry.ratio));
            let present = bitmap.filter(|b| b.state == 6).map(|bitmap| {
                // Sectors of the chunk before this block.
                let before = number % geometry.ratio * u64::from(self.block_size) / u64::from(self.sector_size.max(1));
                let of_chunk =
                    bitmap.present.iter().map(|r| r.start.saturating_sub(before)..r.end.saturating_sub(before));
                block.present.iter().cloned().chain(of_chunk).collect()
            });
            let state = block.state;
            blocks.insert(number, ModelBlock { state, fill, present });
        }
        Model {
            size: self.disk_size,
            sector_size: self.sector_size.into(),
            block_size: self.block_size.into(),
            has_parent: self.has_parent,
            blocks,
        }
    }
}

impl Image {
    fn write_headers(&mut self) {
        let spec = self.spec.clone();
        self.bytes.write(0, b"vhdxfile");
        let creator: Vec<u8> = spec.creator.iter().flat_map(|u| u.to_le_bytes()).collect();
        self.bytes.write(8, &creator);
        for copy in 1..=2 {
            let mut header = vec![0; PAGE as usize];
            header[..4].copy_from_slice(b"head");
            header[8..16].copy_from_slice(&spec.sequence[copy - 1].to_le_bytes());
            header[16..32].copy_from_slice(&spec.file_write_guid.to_bytes_le());
            header[32..48].copy_from_slice(&spec.data_write_guid.to_bytes_le());
            header[48..64].copy_from_slice(&spec.log_guid.to_bytes_le());
            header[64..66].copy_from_slice(&spec.log_version.to_le_bytes());
            header[66..68].copy_from_slice(&spec.version.to_le_bytes());
            header[68..72].copy_from_slice(&spec.log_length.to_le_bytes());
            header[72..80].copy_from_slice(&spec.log_offset.to_le_bytes());
            seal(&mut header);
            self.bytes.write(Self::header_at(copy), &header);
        }
    }

    fn write_region_tables(&mut self) {
        let mut table = vec![0; 64 * KIB as usize];
        table[..4].copy_from_slice(b"regi");
        table[8..12].copy_from_slice(&(self.regions.len() as u32).to_le_bytes());
        for (i, region) in self.regions.iter().enumerate() {
            let entry = &mut table[16 + 32 * i..][..32];
            entry[..16].copy_from_slice(&region.guid.to_bytes_le());
            entry[16..24].copy_from_slice(&region.offset.to_le_bytes());
            entry[24..28].copy_from_slice(&region.length.to_le_bytes());
            entry[28..].copy_from_slice(&region.required.to_le_bytes());
        }
        seal(&mut table);
        for copy in 1..=2 {
            self.bytes.write(Self::region_table_at(copy), &table);
        }
    }

    fn write_metadata(&mut self) {
        let base = self.spec.metadata_offset;
        let mut items = self.spec.items.clone();
        if self.spec.locator.is_none() {
            items.retain(|i| i.id != PARENT_LOCATOR || matches!(i.body, Body::Bytes(_)));
        }
        self.bytes.write(base, b"metadata");
        self.bytes.write(base + 10, &(items.len() as u16).to_le_bytes());
        let mut next = 64 * KIB as u32;
        for (i, item) in items.iter().enumerate() {
            let body = self.spec.body(item);
            let length = item.length.unwrap_or(body.len() as u32);
            let offset = item.offset.unwrap_or(if length == 0 { 0 } else { next });
            if item.offset.is_none() {
                next += body.len() as u32;
            }
            let entry_at = base + 32 + 32 * i as u64;
            let fields = [offset, length, item.flags].map(u32::to_le_bytes).concat();
            self.bytes.write(entry_at, &item.id.to_bytes_le());
            self.bytes.write(entry_at + 16, &fields);
            let body_at = base + u64::from(offset);
            // A body with a false offset must not damage what is there.
            if u64::from(offset) + body.len() as u64 <= u64::from(self.spec.metadata_length) {
                self.bytes.write(body_at, &body);
            }
            self.items.push((item.id, entry_at, body_at));
        }
    }

    fn write_blocks(&mut self) {
        let size = u64::from(self.spec.block_size);
        for (number, block) in self.spec.blocks.clone() {
            let place = self.places.get(&Slot::Block(number)).copied();
            let entry = place.unwrap_or(0) | u64::from(block.state);
            self.set_bat(self.geometry.block_index(number), entry);
            let fill = match block.fill {
                None if block.state >= 6 => Fill::Pattern(self.spec.seed),
                None => continue,
                Some(fill) => fill,
            };
            if let Some(place) = place {
                let bytes = fill.read(number * size, 0, size as usize);
                self.bytes.write(place, &bytes);
            }
        }
    }

    fn write_bitmaps(&mut self, bitmaps: &BTreeMap<u64, Bitmap>) {
        let per_block = u64::from(self.spec.block_size) / u64::from(self.spec.sector_size.max(1));
        for (&chunk, bitmap) in bitmaps {
            let place = self.places.get(&Slot::Bitmap(chunk)).copied();
            let entry = place.unwrap_or(0) | u64::from(bitmap.state);
            self.set_bat(self.geometry.bitmap_index(chunk), entry);
            let first = chunk * self.geometry.ratio;
            let blocks = self.spec.blocks.range(first..first + self.geometry.ratio);
            let of_blocks = blocks.flat_map(|(number, block)| {
                let before = (number - first) * per_block;
                let present = block.present.iter();
                present.map(move |r| r.start + before..r.end + before)
            });
            let mut bits = vec![0u8; MIB as usize];
            for sector in bitmap.present.iter().cloned().chain(of_blocks).flatten() {
                bits[(sector / 8) as usize] |= 1 << (sector % 8);
            }
            if let Some(place) = place {
                self.bytes.write(place, &bits);
            }
        }
    }

    fn set_length(&mut self) {
        let block = u64::from(self.spec.block_size);
        let short = self.spec.file_length == FileLength::Short;
        let regions = self.spec.extents(&self.regions);
        let mut end = regions.iter().map(|e| e.1).fold(MIB, u64::max);
        for (slot, &place) in &self.places {
            let length = match slot {
                Slot::Bitmap(_) => MIB,
                Slot::Block(n) if self.spec.blocks[n].state < 6 => continue,
                Slot::Block(n) if short => block.min(self.spec.disk_size.saturating_sub(n * block)),
                Slot::Block(_) => block,
            };
            end = end.max(place.saturating_add(length));
        }
        match self.spec.file_length {
            FileLength::Auto | FileLength::Short => self.bytes.truncate(end),
            FileLength::Exact(length) => self.bytes.truncate(length),
            FileLength::Trailing(extra) => {
                self.bytes.truncate(end);
                self.bytes.write(end, &pattern(0, end, extra as usize));
            }
        }
    }

    /// The offset of header 1 or 2.
    pub fn header_at(copy: usize) -> u64 {
        copy as u64 * 64 * KIB
    }

    /// The offset of region table 1 or 2.
    pub fn region_table_at(copy: usize) -> u64 {
        (copy as u64 + 2) * 64 * KIB
    }

    /// The offset of an entry of region table 1 or 2.
    pub fn region_entry_at(&self, copy: usize, region: Uuid) -> u64 {
        let index = self.regions.iter().position(|r| r.guid == region).unwrap();
        Self::region_table_at(copy) + 16 + 32 * index as u64
    }

    /// The offset of the metadata table entry of an item.
    pub fn item_entry_at(&self, id: Uuid) -> u64 {
        self.items.iter().find(|i| i.0 == id).unwrap().1
    }

    /// The offset of the body of a metadata item, also of the locator.
    pub fn item_at(&self, id: Uuid) -> u64 {
        self.items.iter().find(|i| i.0 == id).unwrap().2
    }

    /// The offset of a BAT entry by its index.
    pub fn bat_entry_at(&self, index: u64) -> u64 {
        let bat = self.regions.iter().find(|r| r.guid == BAT_REGION).unwrap();
        bat.offset + 8 * index
    }

    /// The offset of the BAT entry of a payload block.
    pub fn block_entry_at(&self, block: u64) -> u64 {
        self.bat_entry_at(self.geometry.block_index(block))
    }

    /// The offset of the BAT entry of the bitmap of a chunk.
    pub fn bitmap_entry_at(&self, chunk: u64) -> u64 {
        self.bat_entry_at(self.geometry.bitmap_index(chunk))
    }

    /// The offset of a payload block.
    pub fn block_at(&self, block: u64) -> u64 {
        self.places[&Slot::Block(block)]
    }

    /// The offset of the bitmap of a chunk.
    pub fn bitmap_at(&self, chunk: u64) -> u64 {
        self.places[&Slot::Bitmap(chunk)]
    }

    /// Number of the current header.
    pub fn current_header(&self) -> usize {
        1 + usize::from(self.spec.sequence[1] > self.spec.sequence[0])
    }

    /// Sets a BAT entry by its index, even past the end of the BAT region.
    pub fn set_bat(&mut self, index: u64, value: u64) {
        if self.regions.iter().any(|r| r.guid == BAT_REGION) {
            let at = self.bat_entry_at(index);
            self.bytes.write(at, &value.to_le_bytes());
        }
    }

    /// The BAT entry of an index.
    pub fn bat(&self, index: u64) -> u64 {
        let bytes = self.bytes.read(self.bat_entry_at(index), 8);
        u64::from_le_bytes(bytes.try_into().unwrap())
    }

    /// Writes to header 1 or 2, and corrects its checksum.
    pub fn patch_header(&mut self, copy: usize, at: u64, bytes: &[u8]) {
        self.bytes.write(Self::header_at(copy) + at, bytes);
        self.seal_at(Self::header_at(copy), PAGE as usize);
    }

    /// Writes to both headers, and corrects their checksums.
    pub fn patch_headers(&mut self, at: u64, bytes: &[u8]) {
        self.patch_header(1, at, bytes);
        self.patch_header(2, at, bytes);
    }

    /// Writes to header 1 or 2, and leaves its checksum unchanged.
    pub fn patch_header_raw(&mut self, copy: usize, at: u64, bytes: &[u8]) {
        self.bytes.write(Self::header_at(copy) + at, bytes);
    }

    /// Writes to region table 1 or 2, and corrects its checksum.
    pub fn patch_region_table(&mut self, copy: usize, at: u64, bytes: &[u8]) {
        self.bytes.write(Self::region_table_at(copy) + at, bytes);
        self.seal_at(Self::region_table_at(copy), 64 * KIB as usize);
    }

    /// Writes to both region tables, and corrects their checksums.
    pub fn patch_region_tables(&mut self, at: u64, bytes: &[u8]) {
        self.patch_region_table(1, at, bytes);
        self.patch_region_table(2, at, bytes);
    }

    /// Writes to region table 1 or 2, and leaves its checksum unchanged.
    pub fn patch_region_table_raw(&mut self, copy: usize, at: u64, bytes: &[u8]) {
        self.bytes.write(Self::region_table_at(copy) + at, bytes);
    }

    fn seal_at(&mut self, offset: u64, len: usize) {
        let mut structure = self.bytes.read(offset, len);
        seal(&mut structure);
        self.bytes.write(offset, &structure);
    }
}
