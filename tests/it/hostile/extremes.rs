//! The largest and the most unusual images that the format allows, and crafted ones: the work on them stays in
//! proportion.

use rayon::iter::ParallelIterator;
use uuid::Uuid;
use vhdx_mmap::{
    Disk, EntryStatus, ErrorKind, LogReport, LogState, OpenOptions, PayloadBlockState, Rule, Segment, Source,
};

use super::totals;
use crate::kit::builder::{Image, Item, Locator, PARENT_LOCATOR, Region, Spec, VHDX_LOCATOR};
use crate::kit::log::{Descriptor, Entry, Journal, LOG_GUID};
use crate::kit::{Block, GIB, MIB, PAGE, TIB, pattern};
use crate::lab::{Expected, assert_reads, open_chain, open_image, run, size, wide};
use crate::support::{self, map, temp_dir};

/// Maps a built image, which may be very long and sparse.
fn mapped(image: &Image) -> Source {
    let folder = temp_dir();
    let path = folder.path().join("image");
    image.bytes.write_file(&path).unwrap();
    map(&path)
}

fn open_mapped(image: &Image) -> Disk {
    Disk::open(mapped(image), &OpenOptions::new()).unwrap()
}

#[test]
fn reads_of_64_tib_skip_unallocated_space() {
    let last = 64 * 1024 * 1024 - 1;
    let blocks = [0, 4095, 4096, last / 2, last / 2 + 1, last];
    let mut spec = Spec::empty(64 * TIB);
    spec.blocks = blocks.map(|number| (number, Block::full())).into();
    let image = spec.build();
    assert_eq!(image.geometry.entries, 67_125_247);
    let disk = open_mapped(&image);
    assert_eq!(disk.image().payload_blocks(), last + 1);

    let found: Vec<(u64, u64, bool)> = disk
        .extents(..)
        .map(|extent| extent.map(|extent| (extent.start, extent.len, extent.is_data())).unwrap())
        .collect();
    // 4095 and 4096 are contiguous in the disk and in the file, and so are the two in the middle.
    let mib = |start: u64, end: u64, is_data| (start * MIB, (end - start) * MIB, is_data);
    let expected = [
        mib(0, 1, true),
        mib(1, 4095, false),
        mib(4095, 4097, true),
        mib(4097, last / 2, false),
        mib(last / 2, last / 2 + 2, true),
        mib(last / 2 + 2, last, false),
        mib(last, last + 1, true),
    ];
    assert_eq!(found, expected);
    assert_eq!(totals(&disk), (6 * MIB, 64 * TIB - 6 * MIB));
    let mut bytes = vec![0; 1000];
    for number in blocks {
        let at = number * MIB + 12_345;
        disk.read_at(&mut bytes, at).unwrap();
        assert_eq!(bytes, pattern(1, at, 1000));
    }
    let states = disk.image().block_states().unwrap();
    assert_eq!(states.count(PayloadBlockState::FullyPresent), 6);
    assert_eq!(states.count(PayloadBlockState::NotPresent), last - 5);
    let data = disk.par_segments(63 * TIB..).map(|piece| match piece.unwrap() {
        (_, Segment::Data(bytes)) => wide(bytes.len()),
        (_, Segment::Zero(_)) => 0,
    });
    assert_eq!(data.sum::<u64>(), MIB);
}

#[test]
fn reads_of_64_tib_chain_skip_unallocated_space() {
    let base = Spec::empty(64 * TIB).block(9_999_999, Block::full());
    let middle = Spec::child_of(&base, "1");
    let child = Spec::child_of(&middle, "2").block(40_000_000, Block::partial(&run(8..16)));
    let images = [child.build(), middle.build(), base.build()];
    let folder = temp_dir();
    for (layer, image) in images.iter().enumerate() {
        image.bytes.write_file(&folder.path().join(layer.to_string())).unwrap();
    }
    let path = |layer: usize| folder.path().join(layer.to_string());
    let parents = vhdx_mmap::Parents::Explicit(vec![path(1), path(2)]);
    let disk = Disk::open(map(&path(0)), &support::mapped(OpenOptions::new().parents(parents))).unwrap();
    let found: Vec<_> = disk.segments(..).map(|segment| segment.unwrap()).collect();
    assert_eq!(found.len(), 5);
    let data = (pattern(base.seed, 9_999_999 * MIB, size(MIB)), pattern(child.seed, 40_000_000 * MIB + 4096, 4096));
    assert!(found[1] == Segment::Data(&data.0) && found[3] == Segment::Data(&data.1));
    assert_eq!(found[0], Segment::Zero(9_999_999 * MIB));
    assert_eq!(found[4], Segment::Zero(24 * TIB - 8192 + (64 * TIB - 24 * TIB - 40_000_000 * MIB)));
}

#[test]
fn table_of_one_state_is_one_extent() {
    // 64 TiB in blocks of 256 MiB: the table has 262 144 entries and more, all of them written.
    let mut spec = Spec { block_size: 256 << 20, ..Spec::empty(64 * TIB) };
    spec.blocks = (0..262_144).map(|number| (number, Block::new(3).at(number * MIB))).collect();
    let image = spec.build();
    let disk = open_mapped(&image);
    let found: Vec<_> = disk.extents(..).map(|extent| extent.unwrap()).collect();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].len, found[0].state), (64 * TIB, Some(PayloadBlockState::Unmapped)));
    assert_eq!(disk.image().block_states().unwrap().count(PayloadBlockState::Unmapped), 262_144);
}

#[test]
fn alternating_sectors_of_layers_are_found() {
    // Layer n has every sector whose number, shifted right by n, is odd.
    let mut specs = vec![Spec::default().block(1, Block::full())];
    for layer in 0..9 {
        let child = Spec::child_of(specs.last().unwrap(), "parent");
        let step = 1 << layer;
        let present: Vec<_> = (step..4096).step_by(2 * size(step)).map(|sector| sector..sector + step).collect();
        let of_block = |block: u64| {
            let inside = |sectors: &std::ops::Range<u64>| {
                let (start, end) = (sectors.start.max(block * 2048), sectors.end.min((block + 1) * 2048));
                (start < end).then(|| start - block * 2048..end - block * 2048)
            };
            Block::partial(&present.iter().filter_map(inside).collect::<Vec<_>>())
        };
        let (first, second) = (of_block(0), of_block(1));
        specs.push(child.block(0, first).block(1, second));
    }
    let images: Vec<Image> = specs.iter().rev().map(Spec::build).collect();
    let chain: Vec<&Image> = images.iter().collect();
    Expected::of(&chain).assert_read_from(&open_chain(&chain).unwrap());
}

#[test]
fn full_region_table_is_read() {
    // V38: 2047 entries.
    let mut spec = Spec { payload_start: 3000 * MIB, ..Spec::default() };
    let region = |number: u64| Region {
        guid: Uuid::from_u128(number.into()),
        offset: number * MIB,
        length: 1 << 20,
        required: 0,
    };
    spec.extra_regions = (10..2055).rev().map(region).collect();
    let image = spec.build();
    assert_eq!(image.regions.len(), 2047);
    let disk = open_mapped(&image);
    Expected::of(&[&image]).assert_read_from(&disk);
    assert_eq!(disk.image().regions().len(), 2047);
    assert!(disk.image().warnings().is_empty());

    // All of them at one offset, or with one name.
    let mut overlapping = spec.clone();
    overlapping.extra_regions.iter_mut().for_each(|region| region.offset = 10 * MIB);
    let error = vhdx_mmap::Image::open(mapped(&overlapping.build()), vhdx_mmap::LogPolicy::Replay).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Overlap { .. }), "{error:?}");
    spec.extra_regions.iter_mut().for_each(|region| region.guid = Uuid::from_u128(1));
    let error = vhdx_mmap::Image::open(mapped(&spec.build()), vhdx_mmap::LogPolicy::Replay).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Duplicate { .. }), "{error:?}");
}

#[test]
fn thousands_of_unusual_items_are_reported_and_ignored() {
    let mut spec = Spec::default();
    spec.items.retain(|item| item.id != PARENT_LOCATOR);
    for number in 0..2042 {
        // Each overlaps all others of its kind, and occurs twice.
        let mut item = Item::new(Uuid::from_u128(0xABCD_0000 + number / 2), 8, &[]);
        (item.offset, item.length) = (Some(0x2_0000), Some(0x8_0000));
        spec.items.push(item);
    }
    let image = spec.build();
    assert_reads(&[&image]);
    let opened = open_image(&image).unwrap();
    // Flags of each; half of them occur twice; and each except the first at an offset overlaps another.
    let count = |check| opened.warnings().iter().filter(|warning| warning.rule == check).count();
    let checks = [Rule::MetadataReserved, Rule::MetadataUnique, Rule::MetadataOverlap];
    assert_eq!(checks.map(count), [2042, 1021, 2041]);
    assert_eq!(opened.warnings().len(), 2042 + 1021 + 2041);
}

/// A locator with the largest number of entries, all with the same long key and value.
fn shared_strings(length: u16) -> Locator {
    let mut raw = VHDX_LOCATOR.to_bytes_le().to_vec();
    raw.extend([0, 0, 0xFF, 0xFF]);
    let strings = 20_u32 + 12 * 65_535;
    for _ in 0..65_535 {
        raw.extend([strings.to_le_bytes(), strings.to_le_bytes()].concat());
        raw.extend([length.to_le_bytes(), length.to_le_bytes()].concat());
    }
    raw.extend("x".encode_utf16().flat_map(u16::to_le_bytes).cycle().take(usize::from(length)));
    Locator::Raw(raw)
}

#[test]
fn locator_with_shared_strings_is_rejected() {
    for length in [2, 1000, 65_534] {
        let mut spec = Spec::child_of(&Spec::default(), "base");
        (spec.locator, spec.metadata_length, spec.bat_offset) = (Some(shared_strings(length)), 2 << 20, 4 * MIB);
        let opened = open_image(&spec.build()).unwrap();
        // More than 1 MiB of strings are not read at all. Fewer are, and name no identity.
        let error = opened.parent_locator().unwrap_err();
        let is_refused = matches!(error.kind(), ErrorKind::Text { what: "more than 1 MiB of strings" });
        let has_no_identity = matches!(error.kind(), ErrorKind::Missing { what: "parent_linkage" });
        assert!(if length > 2 { is_refused } else { has_no_identity }, "{error:?}");
    }
}

#[test]
fn locator_of_thousands_of_keys_is_read() {
    let mut locator = Locator::linked_to(Uuid::from_u128(0xDA7A_0001), "base");
    for number in 0..20_000 {
        if let Locator::Pairs(_, pairs) = &mut locator {
            pairs.push((format!("{number}"), "value".to_owned()));
        }
    }
    let mut spec = Spec { locator: Some(locator), ..Spec::child_of(&Spec::default(), "base") };
    (spec.metadata_length, spec.bat_offset) = (2 << 20, 4 * MIB);
    let child = spec.build();
    assert_reads(&[&child, &Spec::default().build()]);
    assert_eq!(open_image(&child).unwrap().parent_locator().unwrap().unwrap().entries.len(), 20_005);
}

/// An image with a log of this many sectors.
fn with_log(sectors: u32) -> Image {
    Spec { log_offset: 16 * MIB, log_length: sectors * 4096, ..Spec::default() }.build()
}

#[test]
fn log_of_thousands_of_entries_without_tail_is_rejected() {
    let mut image = with_log(16_384);
    let mut journal = Journal::new(0, 1);
    // The one sector where no entry begins.
    journal.tail = Some(16_383 * 4096);
    for _ in 0..16_383 {
        journal.append(&mut image, &[]);
    }
    image.set_log_guid(LOG_GUID);
    let error = open_image(&image).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoActiveSequence { entries: 16_383, .. }), "{error:?}");
}

#[test]
fn log_of_thousands_of_active_entries_is_replayed() {
    let mut image = with_log(16_384);
    let metadata = image.bytes.read(2 * MIB, size(PAGE));
    let mut journal = Journal::new(0, 1);
    for _ in 0..8191 {
        journal.append(&mut image, &[Descriptor::Data(2 * MIB, pattern(journal.sequence, 0, size(PAGE)))]);
    }
    journal.append(&mut image, &[Descriptor::Data(2 * MIB, metadata)]);
    image.set_log_guid(LOG_GUID);
    let disk = open_chain(&[&image]).unwrap();
    Expected::of(&[&image]).assert_read_from(&disk);
    assert!(matches!(disk.image().log_state(), LogState::Replayed(replay) if replay.entries == 8192));
}

#[test]
fn overlapping_log_entries_need_linear_work() {
    // Every sector begins an entry that claims to be as long as the log, with the largest number of descriptors.
    let mut image = with_log(16_384);
    for sector in 0..16_384_u32 {
        let entry = Entry::new(LOG_GUID, u64::from(sector) + 1, 0).count(2_000_000).zero(3 * MIB, PAGE);
        let entry = entry.patch(8, &(16_384_u32 * 4096).to_le_bytes());
        // Encoded without the checksum of all of it, which would be the quadratic work of this test.
        let mut bytes = Entry { patches: Vec::new(), ..entry.clone() }.encode();
        entry.patches.iter().for_each(|(at, patch)| bytes[*at..at + patch.len()].copy_from_slice(patch));
        image.put_ring(sector * 4096, &bytes);
    }
    image.set_log_guid(LOG_GUID);
    let error = open_image(&image).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoActiveSequence { entries: 0, .. }), "{error:?}");
    let report = LogReport::read(Source::from_vec(image.bytes.to_vec())).unwrap();
    assert_eq!(report.entries().len(), 16_384);
    assert!(report.entries().iter().all(|entry| matches!(entry.status, EntryStatus::Broken(_))));
}

#[test]
fn log_may_fill_long_sparse_image_with_zeros() {
    let mut image = Spec { disk_size: 200 * GIB, ..Spec::empty(MIB) }.block(199 * 1024, Block::full()).build();
    let end = image.bytes.len();
    let bat = image.bytes.read(3 * MIB + 8 * (199 * 1024 + 49) / PAGE * PAGE, size(PAGE));
    let changes = [
        Descriptor::Zero(3 * MIB, 2 * MIB),
        Descriptor::Data(3 * MIB + 8 * (199 * 1024 + 49) / PAGE * PAGE, bat),
        Descriptor::Zero(end, 1 << 50),
    ];
    Journal::new(0, 5).append(&mut image, &changes);
    image.set_log_guid(LOG_GUID);
    let disk = open_mapped(&image);
    Expected::of(&[&image]).assert_read_from(&disk);
    assert_eq!(disk.image().file_len(), end + (1 << 50));
    assert_eq!(totals(&disk), (MIB, 200 * GIB - MIB));
}
