//! Directories: trees of names, sorted without regard to case.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::file::File;
use super::raw::{Fields, damaged, restore, to_u64, to_usize};
use super::record::{INDEX_ALLOCATION, INDEX_ROOT, Name};
use super::runs::{Clusters, clusters_of};
use super::view::View;
use crate::error::Result;
use crate::names::units;

/// Name of the index of a directory, `$I30`, in UTF-16.
const I30: &[u8] = b"$\0I\x003\x000\0";

/// What the names of a directory are sorted by.
const BY_NAME: u32 = 1;

/// Most levels of a tree. One of 2^32 names has less than ten.
const DEEPEST: u32 = 16;

/// Size of what blocks are numbered by where clusters are larger than blocks, in bytes.
const SMALL_UNIT: u64 = 512;

/// Flags of an entry: it has a tree of lower names, and it ends its block.
const HAS_CHILD: u16 = 1;
const IS_LAST: u16 = 2;

/// Table that makes names the same that differ in case alone.
#[derive(Debug)]
pub(super) struct UpCase(Vec<u16>);

impl UpCase {
    /// Length of the table, in bytes.
    pub(super) const LENGTH: usize = 2 << 16;

    /// Takes the table of the volume, or the one that Windows makes if it has none that is whole.
    pub(super) fn new(table: Option<Vec<u8>>) -> Self {
        let table = table.filter(|table| table.len() == Self::LENGTH);
        Self(units(&table.unwrap_or_else(fs_ntfs::upcase::generate_upcase_table)).collect())
    }

    fn fold(&self, unit: u16) -> u16 {
        self.0.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// Compares names without regard to case.
    pub(super) fn compare(&self, a: impl Iterator<Item = u16>, b: impl Iterator<Item = u16>) -> Ordering {
        a.map(|unit| self.fold(unit)).cmp(b.map(|unit| self.fold(unit)))
    }
}

/// Reads a block of names, and checks it.
pub(super) type ReadBlock<'r> = &'r dyn Fn() -> Result<Vec<u8>>;

/// Directory whose names can be read.
#[derive(Debug)]
pub(super) struct Directory {
    root: Vec<u8>,
    blocks: Option<Clusters>,
    block_size: usize,
    /// Size of what blocks are numbered by, in bytes.
    unit: u64,
}

/// Entry of a directory.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) reference: u64,
    /// None at the end of a block.
    pub(super) name: Option<Name<'a>>,
    child: Option<u64>,
}

impl Directory {
    pub(super) fn of(view: &View, file: &File) -> Result<Self> {
        let root = file.pieces(INDEX_ROOT, I30)?;
        let [root] = root.as_slice() else {
            return Err(damaged("a directory has not one index of names"));
        };
        let root = root.resident()?;
        let block_size = root.u32(8)?;
        if root.u32(4)? != BY_NAME || !(512..=65_536).contains(&block_size) || !block_size.is_power_of_two() {
            return Err(damaged("a directory is not sorted by name, or has blocks of a wrong size"));
        }
        let pieces = file.pieces(INDEX_ALLOCATION, I30)?;
        let blocks = if pieces.is_empty() {
            None
        } else {
            let blocks = clusters_of(&pieces.iter().collect::<Vec<_>>(), view.cluster())?;
            blocks.require_whole(view.cluster())?;
            blocks.require_plain()?;
            Some(blocks)
        };
        let unit = if view.cluster() <= u64::from(block_size) { view.cluster() } else { SMALL_UNIT };
        Ok(Self { root: root.to_vec(), blocks, block_size: to_usize(block_size), unit })
    }

    /// Reads a block of names.
    fn block(&self, view: &View, number: u64) -> Result<Vec<u8>> {
        let blocks = self.blocks.as_ref().ok_or_else(|| damaged("a directory has names in blocks, and no blocks"))?;
        // Where clusters are larger than blocks, some tools count sectors.
        let units = [self.unit, to_u64(view.sector())];
        let count = if self.unit == view.cluster() || units.first() == units.last() { 1 } else { 2 };
        let mut done = Err(damaged("a block of names lies past the end of its directory"));
        for unit in units.iter().take(count) {
            let at = number.saturating_mul(*unit);
            if at.saturating_add(to_u64(self.block_size)) > blocks.initialised {
                continue;
            }
            done = self.block_at(view, blocks, at, number);
            if done.is_ok() {
                break;
            }
        }
        done
    }

    fn block_at(&self, view: &View, blocks: &Clusters, at: u64, number: u64) -> Result<Vec<u8>> {
        let mut block = vec![0; self.block_size];
        view.read_runs(&blocks.runs, at, &mut block)?;
        restore(&mut block, *b"INDX", view.sector())?;
        if block.u64(0x10)? != number {
            return Err(damaged(format!("a block of names has the number {}, not {number}", block.u64(0x10)?)));
        }
        Ok(block)
    }

    /// Calls `visit` with the names in their order. `read` makes a call of the reader of one block.
    pub(super) fn for_each(
        &self,
        view: &View,
        read: &dyn Fn(ReadBlock<'_>) -> Result<Vec<u8>>,
        visit: &mut dyn FnMut(u64, Name<'_>),
    ) -> Result<()> {
        Walk { directory: self, view, read, seen: HashSet::new() }.all(&self.root, ROOT_HEADER, 0, visit)
    }

    /// Returns the references of the entries with a name: of the one that has it as it is, if there is one, or else of
    /// one that has it in another case.
    pub(super) fn find(&self, view: &View, upcase: &UpCase, name: &[u16]) -> Result<Option<u64>> {
        let mut found = Found { name, exact: None, similar: None };
        let mut walk = Walk { directory: self, view, read: &|work| work(), seen: HashSet::new() };
        walk.find(&self.root, ROOT_HEADER, 0, upcase, &mut found)?;
        Ok(found.exact.or(found.similar))
    }
}

/// Where the header of the names is in the root of a tree, and in a block.
const ROOT_HEADER: usize = 0x10;
const BLOCK_HEADER: usize = 0x18;

struct Found<'n> {
    name: &'n [u16],
    exact: Option<u64>,
    similar: Option<u64>,
}

struct Walk<'d> {
    directory: &'d Directory,
    view: &'d View,
    read: &'d dyn Fn(ReadBlock<'_>) -> Result<Vec<u8>>,
    seen: HashSet<u64>,
}

impl Walk<'_> {
    /// Reads a block below, once.
    fn child(&mut self, number: u64, depth: u32) -> Result<Vec<u8>> {
        if depth >= DEEPEST || !self.seen.insert(number) {
            return Err(damaged("the tree of a directory leads back to itself"));
        }
        (self.read)(&|| self.directory.block(self.view, number))
    }

    fn all(&mut self, block: &[u8], header: usize, depth: u32, visit: &mut dyn FnMut(u64, Name<'_>)) -> Result<()> {
        let mut items = Items::new(block, header)?;
        while let Some(item) = items.next()? {
            if let Some(number) = item.child {
                let child = self.child(number, depth)?;
                self.all(&child, BLOCK_HEADER, depth.saturating_add(1), visit)?;
            }
            if let Some(name) = item.name {
                visit(item.reference, name);
            }
        }
        Ok(())
    }

    fn find(&mut self, block: &[u8], header: usize, depth: u32, upcase: &UpCase, found: &mut Found<'_>) -> Result<()> {
        let mut items = Items::new(block, header)?;
        while let Some(item) = items.next()? {
            let order = item
                .name
                .map_or(Ordering::Greater, |name| upcase.compare(units(name.units), found.name.iter().copied()));
            if order == Ordering::Less {
                continue;
            }
            // Names that differ in case alone may be on both sides of an entry.
            if let Some(number) = item.child {
                let child = self.child(number, depth)?;
                self.find(&child, BLOCK_HEADER, depth.saturating_add(1), upcase, found)?;
            }
            if order == Ordering::Greater {
                break;
            }
            let is_exact = item.name.is_some_and(|name| units(name.units).eq(found.name.iter().copied()));
            let place = if is_exact { &mut found.exact } else { &mut found.similar };
            place.get_or_insert(item.reference);
        }
        Ok(())
    }
}

/// Entries of a block.
struct Items<'b> {
    rest: &'b [u8],
    is_done: bool,
}

impl<'b> Items<'b> {
    fn new(block: &'b [u8], header: usize) -> Result<Self> {
        let node = block.get(header..).unwrap_or_default();
        let (first, end) = (to_usize(node.u32(0)?), to_usize(node.u32(4)?));
        Ok(Self { rest: node.part(first, end.saturating_sub(first))?, is_done: false })
    }

    fn next(&mut self) -> Result<Option<Item<'b>>> {
        if self.is_done {
            return Ok(None);
        }
        let (length, key) = (usize::from(self.rest.u16(8)?), usize::from(self.rest.u16(0xa)?));
        let flags = self.rest.u16(0xc)?;
        if length < 0x10 || length & 7 != 0 {
            return Err(damaged(format!("a directory has an entry of {length} bytes")));
        }
        let (entry, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| damaged("an entry of a directory is cut"))?;
        self.rest = rest;
        self.is_done = flags & IS_LAST != 0;
        let (entry, child) = if flags & HAS_CHILD == 0 {
            (entry, None)
        } else {
            let at = length.saturating_sub(8);
            (entry.part(0, at)?, Some(entry.u64(at)?))
        };
        let name = if self.is_done { None } else { Some(Name::parse(entry.part(0x10, key)?)?) };
        Ok(Some(Item { reference: entry.u64(0)?, name, child }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_without_regard_to_case() {
        let upcase = UpCase::new(None);
        let compare = |a: &str, b: &str| upcase.compare(a.encode_utf16(), b.encode_utf16());
        assert_eq!(compare("Ünïcode.TXT", "üNÏCODE.txt"), Ordering::Equal);
        assert_eq!(compare("a", "B"), Ordering::Less);
        assert_eq!(compare("ab", "A"), Ordering::Greater);
        // Windows has no capital letter for these.
        assert_ne!(compare("ß", "ẞ"), Ordering::Equal);
        assert_eq!(UpCase::new(Some(vec![0; 7])).0, upcase.0);
    }
}
