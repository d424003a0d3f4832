//! File systems that are kept in `bases`, and the checksums of their structures.

use std::collections::BTreeMap;

use crate::kit::builder::Spec;
use crate::kit::{Block, Fill, MIB};

/// What file systems are damaged in: pages of structures are not larger.
pub(crate) const PAGE: usize = 4096;

/// Corrects the checksums in a page.
pub(crate) type Repair = fn(&mut [u8]);

/// A disk with a file system, in an image.
pub(crate) struct Packed {
    pub(crate) name: &'static str,
    /// Length of the file of the image, in bytes.
    pub(crate) length: u64,
    /// The pages of the file that are not zeros, by their offsets.
    pub(crate) pages: BTreeMap<u64, Vec<u8>>,
    /// Offsets in the file of the pages that belong to the file system.
    pub(crate) places: Vec<u64>,
    pub(crate) repair: Repair,
}

macro_rules! packed {
    ($($name:literal: $repair:expr),* $(,)?) => {
        const ALL: &[(&str, &[u8], Repair)] =
            &[$(($name, include_bytes!(concat!("../bases/", $name, ".base")), $repair)),*];
    };
}

packed! {
    "ext2": |_| {},
    "ext4": |_| {},
    "ext4-sums": ext,
    "ext4-journal": |_| {},
    "xfs": xfs,
    "xfs-log": xfs,
    "btrfs": btrfs,
    "ntfs": |_| {},
    "fat12": |_| {},
    "fat16": |_| {},
    "fat32": |_| {},
    "exfat": |_| {},
    "erofs": erofs,
    "erofs-lz4": erofs,
    "squashfs": |_| {},
    "squashfs-zlib": |_| {},
}

/// Unpacks all file systems, and puts each into an image.
pub(crate) fn all() -> Vec<Packed> {
    ALL.iter().map(|(name, packed, repair)| unpack(name, packed, *repair)).collect()
}

fn unpack(name: &'static str, packed: &[u8], repair: Repair) -> Packed {
    let bytes = miniz_oxide::inflate::decompress_to_vec_zlib(packed).expect("a base that `make` wrote");
    let (size, rest) = bytes.split_first_chunk().expect("a size");
    let size = u64::from_le_bytes(*size);
    let mut pages = BTreeMap::new();
    for entry in rest.chunks(8 + PAGE) {
        let (at, page) = entry.split_first_chunk().expect("an offset");
        let at = u64::from_le_bytes(*at);
        let mut page = page.to_vec();
        // The lowest bit says that these are differences of 16-bit numbers.
        if at & 1 != 0 {
            let mut word = 0_u16;
            for step in page.as_chunks_mut::<2>().0 {
                word = word.wrapping_add(u16::from_le_bytes(*step));
                *step = word.to_le_bytes();
            }
        }
        pages.insert(at & !1, page);
    }
    let mut spec = Spec { block_size: 1 << 20, ..Spec::empty(size.next_multiple_of(MIB)) };
    let mut numbers: Vec<u64> = pages.keys().map(|at| at / MIB).collect();
    numbers.dedup();
    for number in &numbers {
        spec = spec.block(*number, Block::full().fill(Fill::Pieces(Vec::new())));
    }
    let mut built = spec.build();
    let blocks: BTreeMap<u64, u64> = numbers.iter().map(|number| (*number, built.block_at(*number))).collect();
    let mut places = Vec::new();
    for (at, page) in pages {
        let place = blocks[&(at / MIB)] + at % MIB;
        built.bytes.write(place, &page);
        places.push(place);
    }
    let pages = built.bytes.pieces().map(|(at, piece)| (at, [piece, &vec![0; PAGE - piece.len()]].concat())).collect();
    Packed { name, length: built.bytes.len(), pages, places, repair }
}

fn stamp(bytes: &mut [u8], sum: usize) {
    bytes[sum..sum + 4].fill(0);
    let value = crc32c::crc32c(bytes);
    bytes[sum..sum + 4].copy_from_slice(&value.to_le_bytes());
}

/// The checksum of Linux, which is not inverted at its end, and begins where another one ended.
fn linux(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// Corrects the superblock of ext4. The checksums of other structures depend on what they belong to; damage of those is
/// found in the bases that have none.
fn ext(page: &mut [u8]) {
    const MAGIC: [u8; 2] = [0x53, 0xef];
    if page[1024 + 56..1024 + 58] == MAGIC {
        let sum = linux(!0, &page[1024..1024 + 0x3fc]);
        page[1024 + 0x3fc..2048].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Corrects the checksums of version 5 of XFS.
fn xfs(page: &mut [u8]) {
    match &page[..4] {
        b"XFSB" => {
            stamp(&mut page[..512], 224);
            // The headers of a group come behind it, in one page with sectors of 512 bytes.
            for (at, magic, sum) in [(512, b"XAGF", 216), (1024, b"XAGI", 312), (1536, b"XAFL", 32)] {
                if page[at..].starts_with(magic) {
                    stamp(&mut page[at..at + 512], sum);
                }
            }
        }
        b"XDB3" | b"XDD3" => stamp(page, 4),
        b"BMA3" => stamp(page, 64),
        // A record of the log without a checksum is believed.
        [0xfe, 0xed, 0xba, 0xbe] => page[32..36].fill(0),
        [b'I', b'N', ..] => page.chunks_mut(512).for_each(|inode| stamp(inode, 100)),
        b"XARM" | b"XSLM" => stamp(page, 12),
        _ if matches!(page[8..10], [0x3d, 0xf1 | 0xff] | [0x3e, 0xbe] | [0x3b, 0xee]) => stamp(page, 12),
        _ => {}
    }
}

/// Corrects the checksum of a block of a tree, or of the superblock.
fn btrfs(page: &mut [u8]) {
    const UUID: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    if page[32..36] == UUID {
        let sum = crc32c::crc32c(&page[32..]);
        page[..4].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Corrects the superblock of EROFS.
fn erofs(page: &mut [u8]) {
    const MAGIC: [u8; 4] = [0xe2, 0xe1, 0xf5, 0xe0];
    if page[1024..1028] == MAGIC {
        page[1028..1032].fill(0);
        let sum = linux(!0, &page[1024..]);
        page[1028..1032].copy_from_slice(&sum.to_le_bytes());
    }
}
