//! Content of directories.

use zerocopy::IntoBytes;

use super::format::{BLOCK, DIRENT_SIZE, Dirent, FileType};

/// An entry of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    /// Number of the inode, as entries have it.
    pub(super) node: u64,
    pub(super) kind: FileType,
}

impl Entry<'_> {
    fn size(&self) -> u64 {
        u64::try_from(self.name.len()).unwrap_or(u64::MAX).saturating_add(DIRENT_SIZE)
    }
}

/// Returns the bytes of a directory. Each block has entries and their names; all are in the order of their bytes.
pub(super) fn content(mut entries: Vec<Entry<'_>>) -> Vec<u8> {
    entries.sort_by(|one, other| one.name.as_bytes().cmp(other.name.as_bytes()));
    let mut bytes = Vec::new();
    let mut rest = entries.as_slice();
    while !rest.is_empty() {
        let mut size = 0_u64;
        let fit = rest.iter().take_while(|entry| {
            size = size.saturating_add(entry.size());
            size <= BLOCK
        });
        // A name has at most 255 bytes, so at least one entry fits.
        let (block, after) = rest.split_at(fit.count().max(1));
        // Blocks but the last one are filled with zeros.
        bytes.resize(bytes.len().next_multiple_of(usize::try_from(BLOCK).unwrap_or(1)), 0);
        let mut name_at = u64::try_from(block.len()).unwrap_or(0).saturating_mul(DIRENT_SIZE);
        for entry in block {
            let at = u16::try_from(name_at).unwrap_or(u16::MAX);
            bytes.extend_from_slice(Dirent::new(entry.node, at, entry.kind).as_bytes());
            name_at = name_at.saturating_add(u64::try_from(entry.name.len()).unwrap_or(0));
        }
        block.iter().for_each(|entry| bytes.extend_from_slice(entry.name.as_bytes()));
        rest = after;
    }
    bytes
}
