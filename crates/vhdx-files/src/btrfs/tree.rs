//! Trees of a Btrfs volume, with a cache of their blocks that all subvolumes share.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use fs_btrfs::btree::{Tree, TreeBlock, TreeGeometry};
use fs_btrfs::chunk::DiskKey;
use fs_btrfs::csum::{CSUM_TREE_OBJECTID, EXTENT_CSUM_KEY, EXTENT_CSUM_OBJECTID};
use fs_btrfs::fs::{ROOT_ITEM_KEY, root_item};
use fs_btrfs::{Error as BtrfsError, Filesystem, Result, Superblock};

use crate::device::{Device, call};

use super::{KIND, convert};

/// Most blocks of trees in one of the two halves of the cache; a block has 16 KiB by default.
const MOST_BLOCKS: usize = 512;

/// Visits an item, and says whether to go on.
pub(super) type Visit<'v> = &'v mut dyn FnMut(&DiskKey, &[u8]) -> Result<bool>;

/// Returns the number at `at`, and zero outside of the item, whose length was checked.
pub(super) fn le64(item: &[u8], at: usize) -> u64 {
    item.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Blocks that were verified: the younger half, and the one before it, which is let go as a whole.
#[derive(Default)]
struct Cache {
    young: HashMap<u64, TreeBlock>,
    old: HashMap<u64, TreeBlock>,
}

impl Cache {
    fn get(&mut self, logical: u64) -> Option<TreeBlock> {
        if let Some(found) = self.young.get(&logical) {
            return Some(found.clone());
        }
        let found = self.old.remove(&logical)?;
        self.put(logical, &found);
        Some(found)
    }

    fn put(&mut self, logical: u64, block: &TreeBlock) {
        if self.young.len() >= MOST_BLOCKS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(logical, block.clone());
    }
}

pub(super) struct Trees {
    device: Device,
    fs: Filesystem,
    /// The tree of checksums of content.
    sums: Option<u64>,
    cache: Mutex<Cache>,
}

impl Trees {
    pub(super) fn new(device: Device, fs: Filesystem) -> crate::error::Result<Self> {
        let mut this = Self { device, fs, sums: None, cache: Mutex::default() };
        let sums = call(KIND, convert, || {
            let mut sums = None;
            this.for_each_of(this.superblock().root, CSUM_TREE_OBJECTID, ROOT_ITEM_KEY, 0, &mut |_, item| {
                sums = (item.len() >= root_item::MIN_SIZE).then(|| le64(item, root_item::BYTENR));
                Ok(false)
            })?;
            Ok(sums)
        })?;
        this.sums = sums;
        Ok(this)
    }

    pub(super) fn superblock(&self) -> &Superblock {
        self.fs.superblock()
    }

    /// Reads what lies at a logical address, from one of its copies.
    fn read_copy(&self, logical: u64, copy: usize, buffer: &mut [u8]) -> Result<()> {
        let mut rest = buffer;
        let mut logical = logical;
        while !rest.is_empty() {
            let place = self.fs.chunk_map().map_mirror(logical, copy)?;
            if place.devid != self.superblock().dev_item.devid {
                return Err(BtrfsError::UnsupportedFeature("a piece lies on another device".into()));
            }
            let length = usize::try_from(place.len).unwrap_or(usize::MAX).min(rest.len());
            if length == 0 {
                return Err(BtrfsError::UnmappedLogical(logical));
            }
            let (piece, behind) = rest.split_at_mut(length);
            self.device.fill(place.physical, piece).map_err(|error| BtrfsError::Io(error.to_string()))?;
            rest = behind;
            logical = logical.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    pub(super) fn copies(&self, logical: u64) -> Result<usize> {
        self.fs.chunk_map().mirrors_at(logical)
    }

    fn with<T>(&self, work: impl FnOnce(&Tree<'_>) -> Result<T>) -> Result<T> {
        let cache = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |logical: u64, buffer: &mut [u8]| self.read_copy(logical, 0, buffer);
        let copies = |logical: u64| self.copies(logical);
        let read_copy = |logical: u64, copy: usize, buffer: &mut [u8]| self.read_copy(logical, copy, buffer);
        let get = |logical: u64| cache().get(logical);
        let put = |logical: u64, block: &TreeBlock| cache().put(logical, block);
        let tree = Tree::new(TreeGeometry::from_superblock(self.superblock()), &read);
        work(&tree.with_redundancy(&copies, &read_copy).with_cache(&get, &put))
    }

    /// Returns one item.
    pub(super) fn item(&self, root: u64, objectid: u64, key_type: u8, offset: u64) -> Result<Option<Vec<u8>>> {
        self.with(|tree| Ok(tree.search(root, &DiskKey { objectid, key_type, offset })?.map(|item| item.data)))
    }

    /// Visits all items of a tree.
    pub(super) fn for_each(&self, root: u64, visit: Visit<'_>) -> Result<()> {
        self.with(|tree| tree.for_each(root, visit))
    }

    /// Visits the items of one kind of one file, from an offset on.
    pub(super) fn for_each_of(
        &self,
        root: u64,
        objectid: u64,
        key_type: u8,
        offset: u64,
        visit: Visit<'_>,
    ) -> Result<()> {
        self.with(|tree| {
            tree.for_each_from(root, &DiskKey { objectid, key_type, offset }, &mut |key, item| {
                Ok(key.objectid == objectid && key.key_type == key_type && visit(key, item)?)
            })
        })
    }

    /// Reads content from whole sectors at a logical address, verifies those that have checksums, and returns whether
    /// all of them have.
    pub(super) fn read_content(&self, logical: u64, buffer: &mut [u8]) -> Result<bool> {
        let sums = self.sums_of(logical, buffer.len())?;
        let copies = self.copies(logical)?.max(1);
        let mut done = Ok(false);
        // A copy that is damaged is what the others are for.
        for copy in 0..copies {
            done = self.read_copy(logical, copy, buffer).and_then(|()| self.verify(logical, buffer, &sums));
            if done.is_ok() {
                break;
            }
        }
        done
    }

    fn verify(&self, logical: u64, buffer: &[u8], sums: &HashMap<u64, Vec<u8>>) -> Result<bool> {
        let superblock = self.superblock();
        let sector = usize::try_from(superblock.sectorsize.max(512)).unwrap_or(usize::MAX);
        let mut has_all = true;
        let addresses = (logical..).step_by(sector);
        for (bytes, offset) in buffer.chunks(sector).zip(addresses) {
            match sums.get(&offset) {
                Some(sum) if superblock.csum_type.verify(bytes, sum) => {}
                Some(_) => return Err(BtrfsError::ChecksumMismatch { what: "content", offset }),
                None => has_all = false,
            }
        }
        Ok(has_all)
    }

    /// Returns the checksums of the sectors of a range, by logical address. An item holds those of many sectors that
    /// follow one another, and the first item may begin before the range.
    fn sums_of(&self, logical: u64, length: usize) -> Result<HashMap<u64, Vec<u8>>> {
        let mut sums = HashMap::new();
        let Some(root) = self.sums else { return Ok(sums) };
        let end = logical.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        let sector = usize::try_from(self.superblock().sectorsize.max(512)).unwrap_or(usize::MAX);
        let size = self.superblock().csum_type.digest_len().max(1);
        let key = |offset| DiskKey { objectid: EXTENT_CSUM_OBJECTID, key_type: EXTENT_CSUM_KEY, offset };
        let leaf = self.with(|tree| tree.descend(root, &key(logical)))?;
        let before = leaf.body.items().unwrap_or_default().iter().rev().find(|item| {
            item.key.objectid == EXTENT_CSUM_OBJECTID
                && item.key.key_type == EXTENT_CSUM_KEY
                && item.key.offset <= logical
        });
        let first = before.map_or(logical, |item| item.key.offset);
        self.for_each_of(root, EXTENT_CSUM_OBJECTID, EXTENT_CSUM_KEY, first, &mut |key, item| {
            let sectors = item.chunks_exact(size).zip((key.offset..).step_by(sector));
            let inside = sectors.filter(|(_, at)| (logical..end).contains(at));
            sums.extend(inside.map(|(sum, at)| (at, sum.to_vec())));
            Ok(key.offset < end)
        })?;
        Ok(sums)
    }
}
