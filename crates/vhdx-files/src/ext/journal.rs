//! The journal of ext3 and ext4.
//!
//! The reader walks through the journal, and says which of its blocks belong where; it would hold their content in
//! memory, all of it. Here, such a block is read from its place in the journal whenever it is asked for. So what a
//! replay takes does not depend on how much the journal holds, but for the list of places, which is bounded.
//!
//! To keep the reader from its own replay, it is shown a superblock without a journal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fs_ext4::block_io::BlockDevice;
use fs_ext4::checksum::linux_crc32c;
use fs_ext4::features::Incompat;
use fs_ext4::inode::Inode;
use fs_ext4::jbd2::{
    JBD2_DESCRIPTOR_BLOCK, JBD2_MAGIC_NUMBER, JBD2_REVOKE_BLOCK, JournalSuperblock, journal_block_to_physical,
};
use fs_ext4::journal::{TAG_ESCAPED, TAG_LAST, TAG_SAME_UUID};
use fs_ext4::{Error as ExtError, Filesystem, Result, jbd2, journal};

use crate::content::Run;
use crate::device::Device;
use crate::patched::overlay;

/// Where the superblock is, and its size.
const SUPERBLOCK: u64 = 1024;
const SUPERBLOCK_SIZE: usize = 1024;

/// Fields of the superblock: features, number of the inode of the journal, checksum.
const INCOMPATIBLE: usize = 0x60;
const READ_ONLY_COMPATIBLE: usize = 0x64;
const JOURNAL: usize = 0xe0;
const CHECKSUM: usize = 0x3fc;

/// Feature of checksums of metadata.
const METADATA_CSUM: u32 = 0x400;

/// Most blocks that a journal may replace, and most that it may revoke. A journal of 1 GiB, the largest that `mke2fs`
/// makes of its own accord, has half as many blocks of 4 KiB.
const MOST_BLOCKS: usize = 1 << 19;

/// Most blocks of the tree of places of a journal that are kept during the walk.
const MOST_KEPT: usize = 256;

/// Which blocks of the volume a journal replaces.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    block_size: u64,
    /// The blocks of the volume, in order, and where their content is in the journal, in bytes. The lowest bit of it
    /// says that the first word of the block is the magic number of journals, which the journal itself cannot have.
    blocks: Vec<(u64, u64)>,
}

impl Replaced {
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The replaced blocks that begin in a range of bytes, or reach into it: where each begins, and what is there.
    fn within(&self, start: u64, length: u64) -> &[(u64, u64)] {
        let Some(first) = start.checked_div(self.block_size) else { return &[] };
        let end = start.saturating_add(length).div_ceil(self.block_size);
        let from = self.blocks.partition_point(|(block, _)| *block < first);
        let to = self.blocks.partition_point(|(block, _)| *block < end);
        self.blocks.get(from..to).unwrap_or_default()
    }

    /// Returns where content lies that lay in `runs` before the replay. None if that is not the content as it is.
    pub(super) fn moved(&self, runs: &[Run]) -> Option<Vec<Run>> {
        let mut moved = Vec::new();
        for run in runs {
            let Some(at) = run.at else { continue };
            // Begins at a block, as all runs of this file system do.
            let mut done = 0;
            let mut push = |from: u64, to: u64, at: u64| {
                let start = run.start.saturating_add(from);
                moved.push(Run { start, length: to.saturating_sub(from), at: Some(at) });
            };
            for (block, journal) in self.within(at, run.length) {
                if journal & 1 != 0 {
                    return None;
                }
                let from = block.saturating_mul(self.block_size).saturating_sub(at);
                let to = from.saturating_add(self.block_size).min(run.length);
                push(done, from, at.saturating_add(done));
                push(from, to, *journal);
                done = to;
            }
            push(done, run.length, at.saturating_add(done));
        }
        Some(moved)
    }
}

/// The volume without a journal: what the journal replaces is replaced.
#[derive(Clone, Debug)]
pub(super) struct Replayed {
    device: Device,
    superblock: Option<Vec<u8>>,
    replaced: Arc<Replaced>,
}

impl BlockDevice for Replayed {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.device.fill(offset, buffer).map_err(ExtError::Io)?;
        let size = self.replaced.block_size;
        let end = offset.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
        for (block, journal) in self.replaced.within(offset, end.saturating_sub(offset)) {
            let begin = block.saturating_mul(size);
            let (from, to) = (begin.max(offset), begin.saturating_add(size).min(end));
            let range = [from, to].map(|at| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX));
            let [first, last] = range;
            let Some(piece) = buffer.get_mut(first..last) else { continue };
            let at = (journal & !1).saturating_add(from.saturating_sub(begin));
            self.device.fill(at, piece).map_err(ExtError::Io)?;
            if journal & 1 != 0 {
                overlay(piece, from, &JBD2_MAGIC_NUMBER.swap_bytes().to_le_bytes(), begin);
            }
        }
        if let Some(superblock) = &self.superblock {
            overlay(buffer, offset, superblock, SUPERBLOCK);
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.device.range().size()
    }
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    le32(bytes, at).swap_bytes()
}

impl Replayed {
    /// Makes a volume whose superblock knows of no journal. If its checksum is wrong, it is left for the reader to
    /// refuse.
    fn new(device: &Device, replaced: Arc<Replaced>) -> Result<Self> {
        let mut this = Self { device: device.clone(), superblock: None, replaced };
        let mut bytes = vec![0; SUPERBLOCK_SIZE];
        this.read_at(SUPERBLOCK, &mut bytes)?;
        let has_checksum = le32(&bytes, READ_ONLY_COMPATIBLE) & METADATA_CSUM != 0;
        let sum = |bytes: &[u8]| linux_crc32c(!0, bytes.get(..CHECKSUM).unwrap_or_default());
        if has_checksum && sum(&bytes) != le32(&bytes, CHECKSUM) {
            return Ok(this);
        }
        let incompatible = le32(&bytes, INCOMPATIBLE) & !Incompat::RECOVER.bits();
        let mut put =
            |at: usize, word: u32| overlay(&mut bytes, 0, &word.to_le_bytes(), u64::try_from(at).unwrap_or(0));
        put(INCOMPATIBLE, incompatible);
        put(JOURNAL, 0);
        if has_checksum {
            let sum = sum(&bytes);
            overlay(&mut bytes, 0, &sum.to_le_bytes(), u64::try_from(CHECKSUM).unwrap_or(0));
        }
        this.superblock = Some(bytes);
        Ok(this)
    }
}

/// The volume during the walk through its journal. It counts what the walk keeps in memory.
struct Walked {
    volume: Replayed,
    state: Mutex<Walk>,
}

#[derive(Default)]
struct Walk {
    journal: Option<JournalSuperblock>,
    /// Blocks that were met so far, of those that are written and of those that are revoked.
    written: usize,
    revoked: usize,
    /// Blocks that are no part of the log.
    kept: HashMap<u64, Vec<u8>>,
}

impl BlockDevice for Walked {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(journal) = state.journal.clone() else { return self.volume.read_at(offset, buffer) };
        if let Some(kept) = state.kept.get(&offset).filter(|kept| kept.len() == buffer.len()) {
            buffer.copy_from_slice(kept);
            return Ok(());
        }
        self.volume.read_at(offset, buffer)?;
        match (be32(buffer, 0), be32(buffer, 4)) {
            (JBD2_MAGIC_NUMBER, JBD2_DESCRIPTOR_BLOCK) => {
                state.written = state.written.saturating_add(tags(buffer, &journal));
            }
            (JBD2_MAGIC_NUMBER, JBD2_REVOKE_BLOCK) => {
                let length = usize::try_from(be32(buffer, 12)).unwrap_or(usize::MAX).min(buffer.len());
                state.revoked = state.revoked.saturating_add(length / 4);
            }
            (JBD2_MAGIC_NUMBER, _) => {}
            _ => {
                if state.kept.len() >= MOST_KEPT {
                    state.kept.clear();
                }
                state.kept.insert(offset, buffer.to_vec());
            }
        }
        // Those that are revoked may have 4 or 8 bytes each.
        if state.written > MOST_BLOCKS || state.revoked > MOST_BLOCKS.saturating_mul(2) {
            return Err(ExtError::Unsupported(
                "the journal was not replayed: it changes more blocks than are replayed",
            ));
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.volume.size_bytes()
    }
}

/// Counts the blocks that a descriptor of a journal names.
fn tags(block: &[u8], journal: &JournalSuperblock) -> usize {
    let mut at = 12_usize;
    let mut count = 0_usize;
    while at < block.len() {
        count = count.saturating_add(1);
        let word = be32(block, at.saturating_add(4));
        let flags = if journal.uses_csum_v3() { word } else { word & 0xffff };
        if flags & TAG_LAST != 0 {
            break;
        }
        let uuid = if flags & TAG_SAME_UUID == 0 { 16 } else { 0 };
        at = at.saturating_add(journal.tag_bytes()).saturating_add(uuid);
    }
    count
}

/// A volume that was opened.
pub(super) struct Opened {
    pub(super) fs: Filesystem,
    pub(super) volume: Replayed,
    pub(super) replaced: Arc<Replaced>,
    /// Whether the journal holds changes that were left out.
    pub(super) is_ignored: bool,
}

/// Opens a volume, with what its journal holds unless that is to be ignored.
pub(super) fn open(device: &Device, ignores_journal: bool) -> Result<Opened> {
    let mut raw = vec![0; SUPERBLOCK_SIZE];
    device.fill(SUPERBLOCK, &mut raw).map_err(ExtError::Io)?;
    let number = le32(&raw, JOURNAL);
    let needs_recovery = le32(&raw, INCOMPATIBLE) & Incompat::RECOVER.bits() != 0;
    let volume = Replayed::new(device, Arc::default())?;
    let walked = Arc::new(Walked { volume: volume.clone(), state: Mutex::default() });
    // Without a cache, so that the walk through the journal is counted.
    let mut walk = Filesystem::mount_with_cache(Arc::<Walked>::clone(&walked), 0)?;
    walk.sb.journal_inode = number;
    let log = match jbd2::read_superblock(&walk) {
        Err(_) if ignores_journal => None,
        log => log?,
    };
    let is_clean = log.as_ref().is_none_or(JournalSuperblock::is_clean);
    if ignores_journal {
        let fs = Filesystem::mount(Arc::new(volume.clone()))?;
        return Ok(Opened { fs, volume, replaced: Arc::default(), is_ignored: needs_recovery || !is_clean });
    }
    let log = match log {
        None if needs_recovery => {
            return Err(ExtError::Unsupported("the journal is on another device, and was not replayed"));
        }
        // Linux throws such a journal away.
        Some(_) if !needs_recovery && !is_clean => {
            return Err(ExtError::Unsupported("the journal has changes that the superblock does not know of"));
        }
        Some(log) if !is_clean => log,
        _ => {
            let fs = Filesystem::mount(Arc::new(volume.clone()))?;
            return Ok(Opened { fs, volume, replaced: Arc::default(), is_ignored: false });
        }
    };
    walked.state.lock().unwrap_or_else(PoisonError::into_inner).journal = Some(log.clone());
    let replaced = Arc::new(replaced(&walk, &log)?);
    let volume = Replayed::new(device, Arc::clone(&replaced))?;
    let fs = Filesystem::mount(Arc::new(volume.clone()))?;
    let shape = |fs: &Filesystem| (fs.sb.block_size(), fs.sb.blocks_count, fs.sb.uuid);
    if shape(&fs) != shape(&walk) {
        return Err(ExtError::Unsupported("the journal was not replayed: it changes the size of the file system"));
    }
    Ok(Opened { fs, volume, replaced, is_ignored: false })
}

/// Walks through the journal, and finds out which blocks it replaces.
fn replaced(fs: &Filesystem, log: &JournalSuperblock) -> Result<Replaced> {
    let block_size = u64::from(fs.sb.block_size());
    let mut writes = journal::walk(fs, log)?.writes;
    // In the order of the blocks; of several writes to one, the last one counts.
    writes.reverse();
    writes.sort_by_key(|write| write.fs_block);
    writes.dedup_by_key(|write| write.fs_block);
    let inode = Inode::parse(&fs.read_inode_raw(fs.sb.journal_inode)?)?;
    let mut blocks = Vec::with_capacity(writes.len());
    for write in writes {
        let place = journal_block_to_physical(fs, &inode, write.journal_block)?;
        let place = place.ok_or(ExtError::Corrupt("a block of the journal has no place"))?;
        let is_inside = |block: u64| block < fs.sb.blocks_count;
        if !is_inside(place) || !is_inside(write.fs_block) {
            return Err(ExtError::Corrupt("the journal changes what is outside of the file system"));
        }
        let escaped = u64::from(write.flags & TAG_ESCAPED != 0);
        blocks.push((write.fs_block, place.saturating_mul(block_size) | escaped));
    }
    Ok(Replaced { block_size, blocks })
}
