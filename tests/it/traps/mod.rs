//! The traps T1 to T31 of the format: mistakes of other readers, and peculiarities of other writers.

mod log;

use std::ops::Range;

use uuid::Uuid;
use vhdx_mmap::{Disk, ErrorKind, ImageKind, Rule, Segment, Structure};

use crate::kit::builder::{FileLength, IS_REQUIRED, Image, Item, LOGICAL_SECTOR, Locator, PHYSICAL_SECTOR, Slot, Spec};
use crate::kit::log::Dirty;
use crate::kit::{Bitmap, Block, GIB, MIB, Place, pattern};
use crate::lab::{Door, Expected, assert_reads, open_chain, open_image, open_through, run, size};

fn checks(image: &Image) -> Vec<Rule> {
    open_image(image).unwrap().warnings().iter().map(|warning| warning.rule).collect()
}

/// Returns the bytes of a range.
fn read(disk: &Disk, range: Range<u64>) -> vhdx_mmap::Result<Vec<u8>> {
    let mut bytes = vec![0xA5; size(range.end - range.start)];
    let read = disk.read_at(&mut bytes, range.start)?;
    bytes.truncate(read);
    Ok(bytes)
}

// T1
#[test]
fn one_valid_header_and_region_table_are_enough() {
    for header in [1, 2] {
        for table in [1, 2] {
            let mut image = Spec::default().build();
            image.patch_header_raw(header, 0, &[0; 4096]);
            image.patch_region_table_raw(table, 0, &[0; 65536]);
            assert_reads(&[&image]);
            let opened = open_image(&image).unwrap();
            assert_eq!(
                (opened.header().copy, usize::from(opened.region_table_copy().unwrap())),
                (if header == 1 { 2 } else { 1 }, 3 - table)
            );
        }
    }
}

// T1
#[test]
fn damaged_header_does_not_prevent_replay() {
    for header in [1, 2] {
        let mut image = Dirty::ManyEntries.build(&Spec::default());
        image.patch_header_raw(header, 4000, &[1]);
        assert_reads(&[&image]);
    }
}

// T2
#[test]
fn newer_header_with_wrong_checksum_is_not_current() {
    for newer in [1, 2] {
        let mut image = Spec { sequence: [7, 7], ..Spec::default() }.build();
        // It would make the file dirty, with nothing to replay.
        image.patch_header(newer, 8, &99_u64.to_le_bytes());
        image.patch_header_raw(newer, 48, &[0xEE; 16]);
        assert_reads(&[&image]);
        assert_eq!(usize::from(open_image(&image).unwrap().header().copy), 3 - newer);
    }
}

// T3
#[test]
fn two_equal_headers_are_accepted() {
    for number in [0, 5, u64::MAX] {
        let image = Spec { sequence: [number, number], ..Spec::default() }.build();
        assert_reads(&[&image]);
        assert_eq!(checks(&image), [Rule::HeaderSequence]);
    }
}

/// A disk of more than two chunks, with blocks near their borders.
fn three_chunks(sector_size: u32) -> Spec {
    let ratio = u64::from(sector_size) * 8;
    let mut spec = Spec::empty((2 * ratio + 5) * MIB);
    spec.sector_size = sector_size;
    for number in [0, ratio - 1, ratio, ratio + 1, 2 * ratio - 1, 2 * ratio, 2 * ratio + 4] {
        spec.blocks.insert(number, Block::full());
    }
    spec
}

fn assert_reads_from_file(image: &Image) {
    Expected::of(&[image]).assert_read_from(&open_through(Door::Map, &[image]).unwrap());
}

// T4
#[test]
fn sector_bitmap_entries_without_parent_are_ignored() {
    let junk = [7, 6, (3 * MIB) | 6, (4 * MIB) | 6, 0xFFFF_FFFF_FFFF_FFFF, 5 | (1 << 60), 0x8_0000];
    for leave_blocks_allocated in [false, true] {
        for pair in junk.windows(2) {
            let mut spec = Spec { leave_blocks_allocated, ..three_chunks(512) };
            spec.raw_bat.extend([(4096, pair[0]), (2 * 4097 - 1, pair[1])]);
            assert_reads_from_file(&spec.build());
        }
    }
}

// T5
#[test]
fn regions_not_marked_as_required_are_found() {
    let image = Spec { regions_required: 0, ..Spec::default() }.build();
    assert_reads(&[&image]);
    assert_eq!(checks(&image), [Rule::RegionRequired, Rule::RegionRequired]);
}

// T6
#[test]
fn bitmap_entry_follows_each_chunk_in_all_kinds() {
    for sector_size in [512, 4096] {
        let mut dynamic = three_chunks(sector_size);
        let built = dynamic.build();
        let ratio = u64::from(sector_size) * 8;
        // Block `ratio` is the first of the second chunk: one entry is between.
        assert_eq!(built.block_entry_at(ratio), 3 * MIB + 8 * (ratio + 1));
        assert_eq!(built.block_entry_at(2 * ratio), 3 * MIB + 8 * (2 * ratio + 2));
        assert_reads_from_file(&built);
        dynamic.leave_blocks_allocated = true;
        assert_reads_from_file(&dynamic.build());

        let mut child = Spec::child_of(&dynamic, "1.vhdx");
        for number in [ratio - 1, ratio, 2 * ratio, 2 * ratio + 3] {
            child.blocks.insert(number, Block::partial(&[3..9, 100..101]));
        }
        let chain = [&child.build(), &built];
        Expected::of(&chain).assert_read_from(&open_through(Door::Map, &chain).unwrap());
    }
}

// T7
#[test]
fn sectors_of_4096_bytes_change_neither_size_nor_content() {
    let mut spec = Spec::default();
    (spec.sector_size, spec.disk_size) = (4096, 7 * MIB + 4096);
    let image = spec.build();
    let disk = open_chain(&[&image]).unwrap();
    assert_eq!(disk.size(), 7 * MIB + 4096);
    assert_eq!(read(&disk, 0..2 * 4096).unwrap(), pattern(1, 0, 2 * 4096));
    assert_reads(&[&image]);
    let child = Spec::child_of(&spec, "base").block(2, Block::partial(&[0..1, 5..6, 255..256])).build();
    assert_reads(&[&child, &image]);
}

// T16
#[test]
fn unallocated_block_is_not_read_from_offset_zero() {
    let disk = open_chain(&[&Spec::default().build()]).unwrap();
    assert_eq!(disk.segments(MIB..2 * MIB).next().unwrap().unwrap(), Segment::Zero(MIB));
}

// T16
#[test]
fn allocated_block_with_offset_zero_is_an_error() {
    let base = Spec::default().build();
    for state in [6, 7] {
        let mut child = Spec::child_of(&base.spec, "base").block(3, Block::partial(&run(0..2048))).build();
        child.set_bat(3, state);
        let disk = open_chain(&[&child, &base]).unwrap();
        let error = read(&disk, 3 * MIB..3 * MIB + 512).unwrap_err();
        let overlap = ErrorKind::Overlap { with: Structure::HeaderSection, offset: 0 };
        assert_eq!(format!("{:?}", error.kind()), format!("{overlap:?}"));
        assert_eq!((error.structure(), error.offset()), (Structure::PayloadBlock(3), Some(0)));
    }
}

/// Result of reading a block.
#[derive(Debug, PartialEq)]
enum Gives {
    Zeros,
    Own,
    Parents,
    Error,
}

fn gives(disk: &Disk, own: &[u8], parents: &[u8]) -> Gives {
    match read(disk, 0..MIB) {
        Err(_) => Gives::Error,
        Ok(bytes) if bytes.iter().all(|byte| *byte == 0) => Gives::Zeros,
        Ok(bytes) if bytes == own => Gives::Own,
        Ok(bytes) if bytes == parents => Gives::Parents,
        Ok(_) => unreachable!("bytes without a source"),
    }
}

// T17
#[test]
fn every_state_reads_as_defined() {
    use Gives::{Error, Own, Parents, Zeros};

    let base = Spec::empty(MIB).block(0, Block::full());
    let [own, parents] = [2, 1].map(|seed| pattern(seed, 0, size(MIB)));
    let alone = [Zeros, Zeros, Zeros, Zeros, Error, Error, Own, Error];
    let with_parent = [Parents, Zeros, Zeros, Zeros, Error, Error, Own, Own];
    for state in 0..8 {
        let block = || Block {
            present: run(0..2048).to_vec(),
            ..Block::new(state).at(8 * MIB).fill(crate::kit::Fill::Pattern(2))
        };
        let dynamic = Spec::empty(MIB).block(0, block()).build();
        let fixed = Spec { leave_blocks_allocated: true, ..dynamic.spec.clone() }.build();
        let child = Spec::child_of(&base, "base").block(0, block()).build();
        let number = usize::from(state);
        assert_eq!(gives(&open_chain(&[&dynamic]).unwrap(), &own, &parents), alone[number], "state {state}");
        assert_eq!(gives(&open_chain(&[&fixed]).unwrap(), &own, &parents), alone[number], "state {state}, fixed");
        let disk = open_chain(&[&child, &base.build()]).unwrap();
        assert_eq!(gives(&disk, &own, &parents), with_parent[number], "state {state} of a child");
    }
}

// T18
#[test]
fn zero_blocks_of_child_hide_parent() {
    let base = Spec::default().build();
    for state in 1..=3 {
        for bits in [vec![], run(0..4096).to_vec()] {
            let mut spec = Spec::child_of(&base.spec, "base").block(0, Block::new(state)).block(2, Block::new(state));
            // The sector bitmap does not count there, whatever it contains.
            spec.bitmaps.insert(0, Bitmap { state: 6, place: Place::Auto, present: bits });
            assert_reads(&[&spec.build(), &base]);
        }
    }
}

// T18
#[test]
fn sector_bitmap_is_only_read_for_partially_present_blocks() {
    let base = Spec::default().build();
    for bits in [vec![], run(0..16384).to_vec()] {
        let mut spec = Spec::child_of(&base.spec, "base").block(2, Block::full());
        spec.bitmaps.insert(0, Bitmap { state: 6, place: Place::Auto, present: bits });
        assert_reads(&[&spec.build(), &base]);
    }
    // It need not even exist.
    assert_reads(&[&Spec::child_of(&base.spec, "base").block(2, Block::full()).build(), &base]);
}

// T19
#[test]
fn offsets_of_unallocated_blocks_are_ignored() {
    let base = Spec::default().build();
    for state in 0..=3 {
        for place in [0, MIB, 2 * MIB, base.block_at(0), 1 << 50, u64::MAX >> 20 << 20] {
            let spec = Spec::default().block(3, Block::new(state).at(place));
            assert_reads(&[&spec.build()]);
            assert_reads(&[&Spec::child_of(&base.spec, "base").block(2, Block::new(state).at(place)).build(), &base]);
        }
    }
}

// T20
#[test]
fn states_0_2_and_3_are_one_run_of_zeros() {
    let mut spec = Spec::empty(64 * MIB);
    for number in 0..64 {
        spec.blocks.insert(number, Block::new([2, 2, 0, 3][size(number % 4)]));
    }
    let disk = open_chain(&[&spec.build()]).unwrap();
    let segments: Vec<_> = disk.segments(..).collect::<Result<_, _>>().unwrap();
    assert_eq!(segments, [Segment::Zero(64 * MIB)]);
}

// T21
#[test]
fn file_may_end_with_used_part_of_last_block() {
    for has_parent in [false, true] {
        let base = Spec { disk_size: 3 * MIB + 700 * 512, ..Spec::default() };
        let mut spec = if has_parent { Spec::child_of(&base, "base") } else { base.clone() };
        (spec.disk_size, spec.file_length) = (base.disk_size, FileLength::Short);
        spec.blocks = [(0, Block::full()), (3, Block::full())].into();
        let image = spec.build();
        assert_eq!(image.bytes.len(), image.block_at(3) + 700 * 512);
        let base = base.build();
        assert_reads(&[&image, &base][..1 + usize::from(has_parent)]);
        assert!(checks(&image).is_empty());
    }
}

// T22
#[test]
fn file_may_have_any_length() {
    for extra in [1, 511, 4095, 12_345, MIB + 1] {
        let image = Spec { file_length: FileLength::Trailing(extra), ..Spec::default() }.build();
        assert_ne!(image.bytes.len() % MIB, 0);
        assert_reads(&[&image]);
        assert!(checks(&image).is_empty());
    }
}

// T23
#[test]
fn fixed_image_may_have_unusual_bat_and_log() {
    let mut spec = Spec { leave_blocks_allocated: true, ..Spec::empty(9 * MIB + 512) };
    (spec.log_offset, spec.log_length, spec.bat_length) = (9 * MIB + 512, 1 << 20, Some(2 << 20));
    let image = spec.build();
    let opened = open_image(&image).unwrap();
    assert_eq!(opened.kind(), ImageKind::Fixed);
    assert_eq!(checks(&image), [Rule::LogAlignment]);
    assert_reads(&[&image]);
    // Blocks at the apparent location of such a log are read nevertheless.
    let spec = spec.block(1, Block::full().at(9 * MIB));
    assert_reads(&[&spec.build()]);
}

// T24
#[test]
fn disk_may_have_any_number_of_sectors() {
    for (sector_size, sectors) in [(512, 1), (512, 2047), (512, 2049), (512, 16_383), (4096, 1), (4096, 257)] {
        let mut spec = Spec { sector_size, ..Spec::default() };
        spec.disk_size = sectors * u64::from(sector_size);
        spec.blocks.retain(|number, _| number * MIB < sectors * u64::from(sector_size));
        assert_reads(&[&spec.build()]);
    }
}

// T24
#[test]
fn disk_size_must_be_multiple_of_sector_size() {
    for (sector_size, disk_size) in [(512, 8 * MIB + 256), (512, 1), (4096, 8 * MIB + 512), (4096, 8 * MIB + 2048)] {
        let spec = Spec { sector_size, disk_size, ..Spec::default() };
        let error = open_image(&spec.build()).unwrap_err();
        let is_it = match error.kind() {
            ErrorKind::Field { field: "VirtualDiskSize", found, .. } => *found == disk_size,
            _ => false,
        };
        assert!(is_it, "{error:?}");
    }
}

// T25
#[test]
fn parent_locator_of_hyper_v_leads_to_parent() {
    let base = Spec::default();
    let mut child = Spec::child_of(&base, "1.vhdx").block(0, Block::partial(&run(5..6)));
    let mut locator = Locator::linked_to(base.data_write_guid, "1.vhdx");
    let nil = "{00000000-0000-0000-0000-000000000000}";
    locator.set("parent_linkage2", nil);
    locator.set("absolute_win32_path", "C:\\vms\\1.vhdx");
    child.locator = Some(locator);
    let chain = [&child.build(), &base.build()];
    for door in Door::ALL {
        let disk = open_through(door, &chain).unwrap();
        Expected::of(&chain).assert_read_from(&disk);
        assert_eq!(disk.warnings().count(), 0);
        assert_eq!(disk.layers()[1].link().unwrap().linkage.as_str(), "parent_linkage");
    }
    let locator = disk_locator(chain[0]);
    assert_eq!((locator.parent_linkage2, locator.absolute_win32_path.as_deref()), (None, Some("C:\\vms\\1.vhdx")));
    assert_eq!(locator.relative_path.as_deref(), Some(".\\1.vhdx"));
}

fn disk_locator(image: &Image) -> vhdx_mmap::ParentLocator {
    open_image(image).unwrap().parent_locator().unwrap().unwrap()
}

// T26
#[test]
fn differencing_image_may_leave_blocks_allocated() {
    let base = Spec::default().build();
    let mut child = Spec::child_of(&base.spec, "base").block(1, Block::partial(&run(0..9)));
    child.leave_blocks_allocated = true;
    let child = child.build();
    assert_eq!(child.bytes.read(child.item_at(crate::kit::builder::FILE_PARAMETERS) + 4, 4), [3, 0, 0, 0]);
    assert_eq!(open_image(&child).unwrap().kind(), ImageKind::Differencing);
    assert!(checks(&child).is_empty());
    assert_reads(&[&child, &base]);
}

// T27
#[test]
fn unusual_flags_and_unknown_items_are_accepted() {
    let mut spec = Spec::default();
    spec.items.iter_mut().for_each(|item| item.flags = IS_REQUIRED);
    assert_reads(&[&spec.build()]);
    assert_eq!(checks(&spec.build()), [Rule::MetadataFlags; 4]);

    let mut spec = Spec::default();
    spec.item(PHYSICAL_SECTOR).flags = 2;
    spec.item(LOGICAL_SECTOR).flags = 0;
    spec.items.insert(0, Item::new(Uuid::from_u128(1), 0, b"unknown"));
    spec.items.push(Item::new(Uuid::from_u128(2), 2, b"unknown too"));
    // The same GUID as that of a known item, in the users' name space.
    spec.items.push(Item::new(LOGICAL_SECTOR, 1, b"mine"));
    assert_reads(&[&spec.build()]);
    assert_eq!(checks(&spec.build()), [Rule::MetadataFlags; 2]);
}

// T28
#[test]
fn bitmap_runs_begin_and_end_at_any_bit() {
    let base = Spec { blocks: (0..8).map(|number| (number, Block::full())).collect(), ..Spec::default() };
    let bits: Vec<Range<u64>> = [0..1, 2..3, 7..9, 15..17, 20..41, 43..64, 2030..2031, 2040..2048].into();
    let mut child = Spec::child_of(&base, "base");
    child.blocks = [(1, Block::partial(&bits)), (2, Block::partial(&bits)), (3, Block::partial(&[]))].into();
    let chain = [&child.build(), &base.build()];
    let disk = open_chain(&chain).unwrap();
    let content = Expected::of(&chain);
    for edge in [MIB, 2 * MIB, 3 * MIB] {
        for start in -20..50_i64 {
            for length in [1, 2, 3, 7, 8, 9, 31, 66] {
                let start = edge.checked_add_signed(start * 512).unwrap();
                for (cut, more) in [(0, 0), (1, 0), (511, 511), (0, 3)] {
                    let range = start + cut..start + length * 512 + more;
                    assert!(read(&disk, range.clone()).unwrap() == content.read(range.clone()), "{range:x?}");
                }
            }
        }
    }
}

// T29
#[test]
fn bat_may_end_with_its_last_entry() {
    // 131041 payload blocks have 31 bitmap entries between them: 131072 entries, which fill 1 MiB.
    let mut spec = Spec::empty(131_041 * MIB).block(131_040, Block::full()).block(0, Block::full());
    let image = spec.build();
    assert_eq!((image.geometry.entries * 8, image.regions[0].length), (MIB, 1 << 20));
    assert_reads_from_file(&image);
    // And the file may end there, too, although its region is longer.
    spec = Spec::empty(5 * GIB);
    spec.bat_length = Some(3 << 20);
    spec.file_length = FileLength::Exact(3 * MIB + 8 * (5 * 1024 + 1));
    let image = spec.build();
    assert_eq!(image.geometry.entries, 5 * 1024 + 1);
    assert_reads_from_file(&image);
    assert_eq!(checks(&image), [Rule::RegionPlace]);
}

// T30
#[test]
fn unused_log_version_and_location_are_ignored() {
    let far = 1_u64 << 60;
    let fields: [(u64, Vec<u8>, &[Rule]); 5] = [
        (64, vec![9, 0], &[Rule::LogVersion]),
        (72, (5 * MIB + 512).to_le_bytes().to_vec(), &[Rule::LogAlignment]),
        (68, 4096_u32.to_le_bytes().to_vec(), &[Rule::LogAlignment]),
        (72, far.to_le_bytes().to_vec(), &[Rule::LogPlace]),
        (72, vec![0; 8], &[Rule::LogPlace]),
    ];
    for (at, bytes, expected) in fields {
        let mut image = Spec::default().build();
        image.patch_headers(at, &bytes);
        assert_reads(&[&image]);
        assert_eq!(checks(&image), expected, "field at {at}");
    }
}

// T31
#[test]
fn parent_locator_without_parent_flag_is_accepted() {
    let spec = Spec { locator: Some(Locator::linked_to(Uuid::from_u128(5), "x")), ..Spec::default() };
    let image = spec.build();
    assert_reads(&[&image]);
    assert_eq!(checks(&image), [Rule::ParentLocator]);
    assert_eq!(open_image(&image).unwrap().parent_locator().unwrap(), None);
}

// T31
#[test]
fn differencing_images_are_read() {
    let base = Spec::default();
    let middle = Spec::child_of(&base, "base").block(1, Block::partial(&run(8..90))).block(2, Block::new(3));
    let child = Spec::child_of(&middle, "middle").block(1, Block::partial(&[0..9, 80..99])).block(7, Block::full());
    assert_reads(&[&child.build(), &middle.build(), &base.build()]);
}

// T6, T19: the order of the blocks in the file is free.
#[test]
fn blocks_may_be_in_any_order_in_file() {
    let mut spec = Spec::default().block(3, Block::full()).block(4, Block::full());
    spec.order = [5, 0, 4, 3, 2].map(Slot::Block).to_vec();
    let image = spec.build();
    assert!(image.block_at(5) < image.block_at(0) && image.block_at(4) < image.block_at(3));
    assert_reads(&[&image]);
    // 0, zeros, 2, 3, 4, 5, zeros: no two neighbours are contiguous in the file.
    assert_eq!(open_chain(&[&image]).unwrap().segments(..).count(), 7);
}
