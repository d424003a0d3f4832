//! A file system that shows what the kernel does where a device is too short.

use zerocopy::IntoBytes;

use super::directory::{self, Entry};
use super::format::{
    Attributes, DeviceSlot, FileType, INODE_SIZE, INODE_UNIT, Index, Inode, SLOT_SIZE, SLOTS_OFFSET, SUPER_OFFSET,
    SuperBlock,
};

/// Returns the bytes of a metadata image, and their offsets: a file that is the first two blocks of the only device.
pub(crate) fn probe(name: &str) -> Vec<(Vec<u8>, u64)> {
    const ROOT: u64 = SLOTS_OFFSET + SLOT_SIZE;
    const FILE: u64 = ROOT + INODE_SIZE;
    const DIRECTORY: u64 = 4096;

    let number = |offset: u64| offset.checked_div(INODE_UNIT).unwrap_or(0);
    let entry = |name, at, kind| Entry { name, node: number(at), kind };
    let entries = directory::content(vec![
        entry(".", ROOT, FileType::Directory),
        entry("..", ROOT, FileType::Directory),
        entry(name, FILE, FileType::Regular),
    ]);
    let size = u64::try_from(entries.len()).unwrap_or(0);
    let root = Attributes { number: 1, mode: 0o040_500, size, links: 2, modified: (0, 0) };
    let file = Attributes { number: 2, mode: 0o100_400, size: 2 * 4096, links: 1, modified: (0, 0) };
    let super_block = SuperBlock::new(u16::try_from(number(ROOT)).unwrap_or(0), 2, 2, 1, [0; 16]);
    let bytes = |structure: &[u8]| structure.to_vec();
    vec![
        (bytes(super_block.as_bytes()), SUPER_OFFSET),
        (bytes(DeviceSlot::new("device", 2, 0).as_bytes()), SLOTS_OFFSET),
        (bytes(Inode::plain(root, 1).as_bytes()), ROOT),
        (bytes(Inode::chunked(file, 1, true).as_bytes()), FILE),
        (bytes(Index::new(1, 0).as_bytes()), FILE + INODE_SIZE),
        (entries, DIRECTORY),
    ]
}
