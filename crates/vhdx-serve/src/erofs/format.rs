//! Structures of EROFS on its device (Linux, Documentation/filesystems/erofs.rst).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, KnownLayout};

/// Size of a block, in bytes.
pub(super) const BLOCK: u64 = 4096;
/// Size of a block as a power of 2.
pub(super) const BLOCK_BITS: u8 = 12;
/// Offset of the super block, in bytes.
pub(super) const SUPER_OFFSET: u64 = 1024;
/// Number of a device slot's bytes; the place of the table counts in these.
pub(super) const SLOT_SIZE: u64 = 128;
/// Offset of the device table, in bytes: after the super block.
pub(super) const SLOTS_OFFSET: u64 = SUPER_OFFSET + 128;
/// Place of the device table, in slots.
const SLOTS_PLACE: u16 = 9;
const _: () = assert!(SLOTS_OFFSET == 9 * SLOT_SIZE);
/// Numbers of inodes count in units of this many bytes.
pub(super) const INODE_UNIT: u64 = 32;
/// Size of an extended inode, in bytes.
pub(super) const INODE_SIZE: u64 = 64;
/// Size of the index of a chunk, in bytes.
pub(super) const INDEX_SIZE: u64 = 8;
/// Size of the address of a chunk, in bytes.
pub(super) const ADDRESS_SIZE: u64 = 4;
/// Size of an entry of a directory without its name, in bytes.
pub(super) const DIRENT_SIZE: u64 = 12;
/// Largest size of a chunk, as a power of 2 of blocks.
pub(super) const MAX_CHUNK_BITS: u8 = 31;
/// Block address of a hole.
pub(super) const HOLE: u32 = u32::MAX;

const MAGIC: u32 = 0xe0f5_e1e2;
const CHUNKED_FILE: u32 = 0x4;
const DEVICE_TABLE: u32 = 0x8;
const CHUNK_INDEXES: u32 = 0x20;

/// Data of an inode lies in one piece, whole blocks.
const FLAT_PLAIN: u16 = 0;
/// An index or an address for each chunk.
const CHUNK_BASED: u16 = 4;
const EXTENDED: u16 = 1;

/// Kind of a file, in an entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileType {
    Regular,
    Directory,
}

/// Super block.
#[derive(IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SuperBlock {
    magic: U32,
    checksum: U32,
    feature_compat: U32,
    block_bits: u8,
    ext_slots: u8,
    root: U16,
    inodes: U64,
    epoch: U64,
    fixed_nanoseconds: U32,
    blocks: U32,
    metadata_block: U32,
    xattr_block: U32,
    uuid: [u8; 16],
    volume_name: [u8; 16],
    feature_incompat: U32,
    compression: U16,
    extra_devices: U16,
    device_table: U16,
    directory_block_bits: u8,
    reserved: [u8; 37],
}

impl SuperBlock {
    /// Makes a super block. `blocks` counts those of the metadata image; `root` is the number of the root's inode.
    pub(super) fn new(root: u16, inodes: u64, blocks: u32, devices: u16, uuid: [u8; 16]) -> Self {
        let mut volume_name = [0; 16];
        volume_name.iter_mut().zip(b"vhdx").for_each(|(to, from)| *to = *from);
        Self {
            magic: MAGIC.into(),
            checksum: 0.into(),
            feature_compat: 0.into(),
            block_bits: BLOCK_BITS,
            ext_slots: 0,
            root: root.into(),
            inodes: inodes.into(),
            epoch: 0.into(),
            fixed_nanoseconds: 0.into(),
            blocks: blocks.into(),
            metadata_block: 0.into(),
            xattr_block: 0.into(),
            uuid,
            volume_name,
            feature_incompat: (CHUNKED_FILE | if devices == 0 { 0 } else { DEVICE_TABLE }).into(),
            compression: 0.into(),
            extra_devices: devices.into(),
            device_table: if devices == 0 { 0 } else { SLOTS_PLACE }.into(),
            directory_block_bits: 0,
            reserved: [0; 37],
        }
    }
}

/// Slot of the device table.
#[derive(IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DeviceSlot {
    tag: [u8; 64],
    blocks: U32,
    unified_address: U32,
    reserved: [u8; 56],
}

impl DeviceSlot {
    /// Makes the slot of a device with this many blocks. `tag` is for people, and cut at 63 bytes. `address` is that of
    /// its first block among the blocks of all devices; 0 if it has none.
    pub(super) fn new(tag: &str, blocks: u32, address: u32) -> Self {
        let mut bytes = [0; 64];
        bytes.iter_mut().zip(tag.bytes().take(63)).for_each(|(to, from)| *to = from);
        Self { tag: bytes, blocks: blocks.into(), unified_address: address.into(), reserved: [0; 56] }
    }
}

/// Extended inode.
#[derive(IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Inode {
    format: U16,
    xattrs: U16,
    mode: U16,
    reserved: U16,
    size: U64,
    /// First block of plain data, or the format of the chunks.
    data: U32,
    number: U32,
    user: U32,
    group: U32,
    modified: U64,
    modified_nanoseconds: U32,
    links: U32,
    reserved_2: [u8; 16],
}

/// What all kinds of inodes have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    pub(super) number: u32,
    /// Kind and permissions, as in `st_mode`.
    pub(super) mode: u16,
    pub(super) size: u64,
    pub(super) links: u32,
    /// Seconds since 1970, and nanoseconds.
    pub(super) modified: (u64, u32),
}

impl Inode {
    fn new(attributes: Attributes, layout: u16, data: u32) -> Self {
        Self {
            format: (EXTENDED | layout << 1).into(),
            xattrs: 0.into(),
            mode: attributes.mode.into(),
            reserved: 0.into(),
            size: attributes.size.into(),
            data: data.into(),
            number: attributes.number.into(),
            user: 0.into(),
            group: 0.into(),
            modified: attributes.modified.0.into(),
            modified_nanoseconds: attributes.modified.1.into(),
            links: attributes.links.into(),
            reserved_2: [0; 16],
        }
    }

    /// Makes the inode of a file or directory whose bytes begin at a block of the metadata image.
    pub(super) fn plain(attributes: Attributes, block: u32) -> Self {
        Self::new(attributes, FLAT_PLAIN, block)
    }

    /// Makes the inode of a file of chunks with this power of 2 of blocks, each of which has an index, or an address.
    pub(super) fn chunked(attributes: Attributes, chunk_bits: u8, has_indexes: bool) -> Self {
        let entries = if has_indexes { CHUNK_INDEXES } else { 0 };
        Self::new(attributes, CHUNK_BASED, entries | u32::from(chunk_bits))
    }
}

/// Index of a chunk: its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Index {
    advice: U16,
    device: U16,
    block: U32,
}

impl Index {
    pub(super) fn new(device: u16, block: u32) -> Self {
        Self { advice: 0.into(), device: device.into(), block: block.into() }
    }

    pub(super) fn hole() -> Self {
        Self { advice: u16::MAX.into(), device: u16::MAX.into(), block: HOLE.into() }
    }
}

/// Entry of a directory; the names follow all entries of a block.
#[derive(IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Dirent {
    node: U64,
    name_offset: U16,
    kind: u8,
    reserved: u8,
}

impl Dirent {
    pub(super) fn new(node: u64, name_offset: u16, kind: FileType) -> Self {
        let kind = match kind {
            FileType::Regular => 1,
            FileType::Directory => 2,
        };
        Self { node: node.into(), name_offset: name_offset.into(), kind, reserved: 0 }
    }
}

const _: () = assert!(size_of::<SuperBlock>() == 128);
const _: () = assert!(size_of::<DeviceSlot>() == 128);
const _: () = assert!(size_of::<Inode>() == 64);
const _: () = assert!(size_of::<Index>() == 8);
const _: () = assert!(size_of::<Dirent>() == 12);
