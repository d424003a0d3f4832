//! BAT entries, blocks and sector bitmaps: V63 to V75. They fail the reads that need them, and no others.

use std::io::{self, Read, Seek, SeekFrom};

use vhdx_mmap::{Category, Disk, Error, ErrorKind, Rule, Segment, Structure};

use super::{Place, Rows, kind, outside, overlaps};
use crate::kit::builder::{FileLength, Image, Region, Spec};
use crate::kit::{Bitmap, Block, MIB, TIB, pattern};
use crate::lab::{Expected, assert_reads, open_chain, open_image, run, size};

/// Offset of the BAT; the entry of block n is its n-th while the disk has one chunk.
const BAT: u64 = 0x30_0000;

/// Reads the first sector of a block.
fn read(disk: &Disk, block: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0xA5; 512];
    disk.read_at(&mut bytes, block * disk.block_size()).map(|_| bytes)
}

/// The default image with another entry for block 2.
fn with_entry(entry: u64) -> Image {
    let mut image = Spec::default().build();
    image.set_bat(2, entry);
    image
}

/// Checks that block 2 cannot be read, in any way, and that all others can.
fn only_block_2_fails(rows: &mut Rows, what: &str, chain: &[&Image], place: Place, is_it: super::IsIt<'_>) {
    let disk = open_chain(chain).unwrap();
    rows.failed(what, read(&disk, 2), place, is_it);
    rows.failed(what, disk.slice(2 * MIB, 512), place, is_it);
    rows.failed(what, disk.extents(2 * MIB..).next().unwrap(), place, is_it);
    let mut reader = disk.reader();
    reader.seek(SeekFrom::Start(2 * MIB)).unwrap();
    let error = reader.read(&mut [0; 9]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}");
    rows.error(what, error.get_ref().unwrap().downcast_ref().unwrap(), place, is_it);
    // Valid items before it are returned, and the error is the last item.
    let whole = Expected::of(&[&Spec::default().build()]);
    let segments: Vec<_> = disk.segments(..).collect();
    let (last, good) = segments.split_last().unwrap();
    let mut at = 0;
    for segment in good {
        let segment = *segment.as_ref().unwrap();
        if chain.len() == 1 {
            assert_eq!(whole.differs(at, segment), None, "{what}");
        }
        at += segment.len();
    }
    assert_eq!(at, 2 * MIB, "{what}");
    rows.error(what, last.as_ref().unwrap_err(), place, is_it);
    for block in (0..8).filter(|block| *block != 2) {
        assert!(read(&disk, block).is_ok(), "{what}: block {block}");
    }
}

#[test]
fn invalid_entry_fails_only_its_block() {
    let mut rows = Rows::default();
    let in_entry = (Structure::PayloadBatEntry(2), Some(BAT + 16), Category::Corrupt);
    for state in [4, 5] {
        // V65
        let is_it =
            |kind: &ErrorKind| matches!(kind, ErrorKind::ReservedState { state: found } if u64::from(*found) == state);
        only_block_2_fails(&mut rows, "V65", &[&with_entry((5 * MIB) | state)], in_entry, &is_it);
        let disk = open_chain(&[&with_entry(state)]).unwrap();
        rows.failed("V65 block", disk.block(2), in_entry, &is_it);
        rows.failed("V65 payload_block", disk.image().payload_block(2), in_entry, &is_it);
        assert_eq!(disk.image().block_states().unwrap().reserved(), 1);
    }
    // V66
    let is_it = kind!(ErrorKind::PartiallyPresentWithoutParent);
    only_block_2_fails(&mut rows, "V66", &[&with_entry((5 * MIB) | 7)], in_entry, is_it);
    rows.end();
}

#[test]
fn block_must_be_in_file_without_overlap() {
    let mut rows = Rows::default();
    let block = |offset: u64| (Structure::PayloadBlock(2), Some(offset), Category::Corrupt);
    // V67
    let is_it = kind!(ErrorKind::Overlap { with: Structure::HeaderSection, offset: 0 });
    only_block_2_fails(&mut rows, "V67", &[&with_entry(6)], block(0), is_it);
    for offset in [7 * MIB, 8 * MIB, TIB, u64::MAX >> 20 << 20] {
        // V68
        let is_it = kind!(ErrorKind::OutOfBounds { limit: 0x70_0000, .. });
        only_block_2_fails(&mut rows, "V68", &[&with_entry(offset | 6)], block(offset), is_it);
    }
    for (offset, with) in [(MIB, Structure::Log), (2 * MIB, Structure::MetadataRegion), (BAT, Structure::Bat)] {
        // V69
        let is_it = overlaps(with, offset);
        only_block_2_fails(&mut rows, "V69", &[&with_entry(offset | 6)], block(offset), &is_it);
    }
    // V69: an unknown region is reserved, too.
    let other = Region { guid: uuid::Uuid::from_u128(9), offset: 9 * MIB, length: 1 << 20, required: 0 };
    let mut image = Spec { extra_regions: vec![other], ..Spec::default() }.build();
    image.set_bat(2, (9 * MIB) | 6);
    let is_it = kind!(ErrorKind::Overlap { with: Structure::OtherRegion, offset: 0x90_0000 });
    only_block_2_fails(&mut rows, "V69 other", &[&image], block(9 * MIB), is_it);
    rows.end();
}

#[test]
fn block_must_not_reach_into_region() {
    // V69: a block of 2 MiB before the BAT, with 1 MiB between. The error contains the offset of the block.
    let mut rows = Rows::default();
    let mut spec = Spec { block_size: 2 << 20, bat_offset: 6 * MIB, ..Spec::empty(8 * MIB) };
    let mut image = spec.build();
    image.set_bat(1, (5 * MIB) | 6);
    let disk = open_chain(&[&image]).unwrap();
    let place = (Structure::PayloadBlock(1), Some(5 * MIB), Category::Corrupt);
    rows.failed("V69", read(&disk, 1), place, kind!(ErrorKind::Overlap { with: Structure::Bat, offset: 0x60_0000 }));
    rows.end();
    // But bytes that no disk can address may overlap anything.
    spec.disk_size = 3 * MIB;
    let mut image = spec.build();
    let content = pattern(3, 0, size(MIB));
    image.bytes.write(5 * MIB, &content);
    image.set_bat(1, (5 * MIB) | 6);
    let mut found = vec![0; size(MIB)];
    open_chain(&[&image]).unwrap().read_at(&mut found, 2 * MIB).unwrap();
    assert!(found == content);
}

#[test]
fn run_ends_before_overlapping_block() {
    // V69: three contiguous blocks in the file, of which the last one begins in, or reaches into, the BAT.
    for (bat_offset, block_size) in [(8 * MIB, 1_u32 << 20), (11 * MIB, 2 << 20), (10 * MIB, 2 << 20)] {
        let length = u64::from(block_size);
        let place = (bat_offset - 2 * length) / (2 * MIB) * 2 * MIB;
        let spec = Spec { bat_offset, block_size, ..Spec::empty(8 * MIB) };
        let mut image = spec.block(0, Block::full().at(place)).block(1, Block::full().at(place + length)).build();
        image.set_bat(2, (place + 2 * length) | 6);
        let disk = open_chain(&[&image]).unwrap();
        let found: Vec<_> = disk.segments(..).collect();
        let expected = pattern(1, 0, size(2 * length));
        assert!(matches!(&found[0], Ok(Segment::Data(bytes)) if *bytes == expected), "BAT at {bat_offset:#x}");
        let mut rows = Rows::default();
        let error = (Structure::PayloadBlock(2), Some(place + 2 * length), Category::Corrupt);
        rows.error("V69", found[1].as_ref().unwrap_err(), error, &overlaps(Structure::Bat, bat_offset));
        rows.end();
        assert_eq!(found.len(), 2);
    }
}

#[test]
fn truncated_block_keeps_prefix() {
    // V68
    let spec = Spec { file_length: FileLength::Exact(7 * MIB - 1000), ..Spec::default() };
    let image = spec.build();
    assert_eq!(image.block_at(5), 6 * MIB);
    let disk = open_chain(&[&image]).unwrap();
    let content = Expected::of(&[&Spec::default().build()]);
    let mut at = 0;
    let mut failed = None;
    for segment in disk.segments(..) {
        match segment {
            Ok(segment) => {
                assert_eq!(content.differs(at, segment), None);
                at += segment.len();
            }
            Err(error) => failed = Some(error),
        }
    }
    assert_eq!(at, 6 * MIB - 1000);
    let mut rows = Rows::default();
    let place = (Structure::PayloadBlock(5), Some(7 * MIB - 1000), Category::Corrupt);
    let is_it = outside(7 * MIB - 1000);
    rows.error("V68", &failed.unwrap(), place, &is_it);
    let mut last = [0; 100];
    rows.failed("V68 across", disk.read_at(&mut last, 6 * MIB - 1050), place, &is_it);
    rows.end();
    assert_eq!(disk.read_at(&mut last, 6 * MIB - 1100).unwrap(), 100);
}

#[test]
fn overlapping_blocks_are_both_read() {
    // V69: unusual, but harmless for reads.
    let mut image = Spec::default().build();
    image.set_bat(3, image.block_at(0) | 6);
    let disk = open_chain(&[&image]).unwrap();
    assert_eq!(read(&disk, 3).unwrap(), pattern(1, 0, 512));
    assert_eq!(read(&disk, 0).unwrap(), pattern(1, 0, 512));
}

#[test]
fn reserved_bits_of_entry_are_ignored() {
    // V64
    let mut image = Spec::default().build();
    for block in 0..8 {
        image.set_bat(block, image.bat(block) | 0xF_FFF8);
    }
    assert_reads(&[&image]);
    let base = Spec::default().build();
    let mut child = Spec::child_of(&base.spec, "base").block(1, Block::partial(&run(4..700))).build();
    for index in [1, 4096] {
        child.set_bat(index, child.bat(index) | 0xF_FFF8);
    }
    assert_reads(&[&child, &base]);
}

/// A child with block 2 partially present, and its parent.
fn family() -> (Image, Image) {
    let base = Spec::default();
    (Spec::child_of(&base, "base").block(2, Block::partial(&[0..9, 100..2048])).build(), base.build())
}

#[test]
fn partially_present_block_needs_sector_bitmap() {
    let mut rows = Rows::default();
    let (child, base) = family();
    // One chunk of 4096 entries, followed by that of its bitmap.
    assert_eq!(child.bitmap_entry_at(0), BAT + 8 * 4096);
    for state in [0, 1, 2, 3, 4, 5, 7] {
        // V71, V72
        let mut child = child.clone();
        child.set_bat(4096, child.bitmap_at(0) | state);
        let place = (Structure::BitmapBatEntry(0), Some(BAT + 8 * 4096), Category::Corrupt);
        let is_it =
            |kind: &ErrorKind| matches!(kind, ErrorKind::NoSectorBitmap { state: found } if u64::from(*found) == state);
        only_block_2_fails(&mut rows, "V71", &[&child, &base], place, &is_it);
    }
    // Block 2 has the third 256 bytes of its bitmap.
    let bitmap = |offset: u64| (Structure::SectorBitmap(0), Some(offset + 512), Category::Corrupt);
    let places = [
        (0, Structure::HeaderSection),
        (MIB, Structure::Log),
        (2 * MIB, Structure::MetadataRegion),
        (BAT, Structure::Bat),
    ];
    for (offset, with) in places {
        // V72
        let mut child = child.clone();
        child.set_bat(4096, offset | 6);
        let is_it = overlaps(with, offset);
        only_block_2_fails(&mut rows, "V72 overlap", &[&child, &base], bitmap(offset), &is_it);
    }
    for offset in [child.bytes.len(), TIB, u64::MAX >> 20 << 20] {
        // V72
        let mut child = child.clone();
        child.set_bat(4096, offset | 6);
        let length = child.bytes.len();
        let is_it = outside(length);
        only_block_2_fails(&mut rows, "V72 outside", &[&child, &base], bitmap(offset), &is_it);
    }
    rows.end();
}

#[test]
fn partially_present_block_is_validated() {
    let mut rows = Rows::default();
    let (child, base) = family();
    let block = |offset: u64| (Structure::PayloadBlock(2), Some(offset), Category::Corrupt);
    let overlap = kind!(ErrorKind::Overlap { .. });
    for offset in [0, MIB, 2 * MIB, BAT] {
        // V67, V69
        let mut child = child.clone();
        child.set_bat(2, offset | 7);
        only_block_2_fails(&mut rows, "V67, V69", &[&child, &base], block(offset), overlap);
    }
    // V68
    let mut outside = child.clone();
    outside.set_bat(2, TIB | 7);
    only_block_2_fails(&mut rows, "V68", &[&outside, &base], block(TIB), kind!(ErrorKind::OutOfBounds { .. }));
    rows.end();
}

#[test]
fn unneeded_sector_bitmaps_are_ignored() {
    // V70, V71
    let base = Spec::default();
    for entry in [0, 1, 5, 7, 6, TIB | 6, (2 * MIB) | 6, u64::MAX] {
        let mut child = Spec::child_of(&base, "base").block(2, Block::full()).block(3, Block::zero());
        child.raw_bat.insert(4096, entry);
        assert_reads(&[&child.build(), &base.build()]);
        // An entry after the last one in use.
        let mut alone = Spec::default();
        alone.raw_bat.extend([(8, entry), (4096, entry), (131_071, entry)]);
        assert_reads(&[&alone.build()]);
    }
    let mut unused = Spec::child_of(&base, "base").block(2, Block::full());
    unused.bitmaps.insert(0, Bitmap { state: 6, place: crate::kit::Place::At(8 * MIB), present: run(0..9).to_vec() });
    assert_reads(&[&unused.build(), &base.build()]);
}

#[test]
fn requests_end_with_the_disk() {
    // V75
    let spec = Spec { disk_size: 8 * MIB - 512, ..Spec::default() }.block(7, Block::full());
    let disk = open_chain(&[&spec.build()]).unwrap();
    let end = disk.size();
    let mut bytes = vec![0xA5; 2000];
    assert_eq!(disk.read_at(&mut bytes, end - 700).unwrap(), 700);
    assert_eq!(bytes[..700], pattern(1, end - 700, 700));
    for offset in [end, end + 1, u64::MAX] {
        assert_eq!(disk.read_at(&mut bytes, offset).unwrap(), 0);
        assert_eq!((disk.segments(offset..).count(), disk.extents(offset..).count()), (0, 0));
    }
    let lengths =
        |segments: vhdx_mmap::Segments<&vhdx_mmap::Disk>| segments.map(|segment| segment.unwrap().len()).sum::<u64>();
    assert_eq!(lengths(disk.segments(end - 5..end + 5)), 5);
    assert_eq!(lengths(disk.segments(end - 5..=u64::MAX)), 5);
    assert_eq!(lengths(disk.segments(..=99)), 100);
    assert_eq!(lengths(disk.block(7).unwrap().segments()), MIB - 512);

    let mut rows = Rows::default();
    let disks = (Structure::Disk, None, Category::InvalidInput);
    for (offset, length) in [(end, 1), (0, end + 1), (end - 1, 2), (u64::MAX, u64::MAX), (end + 1, 0)] {
        let last = offset.saturating_add(length);
        let is_it = |kind: &ErrorKind| match kind {
            ErrorKind::OutsideDisk { end: found, size } => (*found, *size) == (last, end),
            _ => false,
        };
        rows.failed("V75 slice", disk.slice(offset, length), disks, &is_it);
    }
    for block in [8, 9, u64::MAX] {
        let is_it = |kind: &ErrorKind| matches!(kind, ErrorKind::OutsideDisk { size, .. } if *size == end);
        rows.failed("V75 block", disk.block(block), disks, &is_it);
        rows.failed("V75 payload_block", disk.image().payload_block(block), disks, &is_it);
    }
    rows.end();
    assert_eq!(disk.slice(end, 0).unwrap(), Some(&[][..]));
}

#[test]
fn blocks_are_counted_by_state() {
    let mut spec = Spec::empty(20 * MIB);
    for (block, state) in [6, 6, 1, 2, 2, 2, 3, 4, 5, 7, 0, 6].into_iter().enumerate() {
        spec.blocks.insert(block.try_into().unwrap(), Block::new(state).at(8 * MIB));
    }
    let states = open_image(&spec.build()).unwrap().block_states().unwrap();
    let found = vhdx_mmap::PayloadBlockState::ALL.iter().map(|&state| states.count(state)).collect::<Vec<_>>();
    // 0, 1, 2, 3, 6, 7; states in the table are counted, also invalid ones.
    assert_eq!((found, states.reserved()), (vec![9, 1, 3, 1, 3, 1], 2));
    assert_eq!(disk_zeros(&Spec::empty(20 * MIB)), Segment::Zero(20 * MIB));
}

fn disk_zeros(spec: &Spec) -> Segment<'static> {
    let disk = open_chain(&[&spec.build()]).unwrap();
    let length = disk.segments(..).map(|segment| segment.unwrap().len()).sum();
    assert!(disk.warnings().all(|(_, warning)| warning.rule == Rule::EmptyDisk));
    Segment::Zero(length)
}
