//! Salvages of truncated files: the lost bytes follow from the layout that the builder chose, and no other bytes are
//! lost.

use std::ops::Range;
use std::sync::Arc;

use vhdx_mmap::{Disk, OpenOptions, Parents, Source, Strictness};

use vhdx_testkit::cuts::{chain_of_three, cut, has_sizes, lost, merged};

use crate::kit::builder::{Image, LOGICAL_SECTOR, PARENT_LOCATOR, Slot, Spec};
use crate::kit::log::{Descriptor, Dirty, Entry, LOG_GUID};
use crate::kit::{Block, GIB, MIB, PAGE};
use crate::lab::{Expected, source};
use crate::support::is_zero;

/// Salvages a chain with a truncated file: the right ranges are lost and zero; all others are correct.
fn salvages(chain: &[&Image], sources: &[Source], content: &Expected, what: &str) {
    let parents = sources.to_vec();
    let parents = Parents::With(Arc::new(move |request| Ok(parents.get(request.layer + 1).cloned())));
    let options = OpenOptions::new().parents(parents).strictness(Strictness::Salvage);
    let disk = Disk::open(sources[0].clone(), &options);
    assert_eq!(disk.is_ok(), has_sizes(chain[0]), "{what}: {disk:?}");
    let Ok(disk) = disk else { return };
    assert_eq!(losses(&disk), lost(chain, 0..content.size()), "{what}");
    all_else_is_right(&disk, content, what);
}

fn losses(disk: &Disk) -> Vec<Range<u64>> {
    merged(disk.losses(..).map(|loss| loss.range))
}

/// Asserts that lost ranges are zero, and all others correct.
fn all_else_is_right(disk: &Disk, content: &Expected, what: &str) {
    assert_eq!(disk.size(), content.size(), "{what}");
    let (mut at, end) = (0, content.size());
    for loss in losses(disk).into_iter().chain(std::iter::once(end..end)) {
        let mut place = at;
        for segment in disk.segments(at..loss.start) {
            let segment = segment.unwrap();
            assert_eq!(content.differs(place, segment), None, "{what}: in the segment at {place:#x}");
            place += segment.len();
        }
        assert_eq!(place, loss.start, "{what}: the segments end early");
        assert!(is_zero(disk, loss.clone()).unwrap(), "{what}: something stands at {loss:x?}");
        at = loss.end;
    }
}

/// Lengths at which a truncation matters: the borders of all structures in the file.
fn borders(image: &Image) -> Vec<u64> {
    let regions = image.regions.iter().flat_map(|region| [region.offset, region.offset + u64::from(region.length)]);
    let entries = (0..image.geometry.blocks).map(|number| image.block_entry_at(number));
    let bitmaps = image.spec.has_parent.then(|| image.bitmap_entry_at(0));
    let items = image.items.iter().filter(|item| [LOGICAL_SECTOR, PARENT_LOCATOR].contains(&item.0));
    let mut borders: Vec<u64> = regions.chain(entries).chain(bitmaps).collect();
    borders.extend(bitmaps.map(|entry| entry + 8));
    borders.extend(items.flat_map(|item| [item.2 + 4, item.2 + 40]));
    for (slot, place) in &image.places {
        match slot {
            // The bits of the first two blocks, and those of some sectors in between.
            Slot::Bitmap(_) => borders.extend([0, 3, 126, 256, 512, MIB].map(|within| place + within)),
            Slot::Block(_) => borders.extend([0, 120 * 512, MIB - 512, MIB].map(|within| place + within)),
        }
    }
    borders.extend([0, 64 << 10, 192 << 10, 256 << 10, MIB, 2 * MIB, image.bytes.len()]);
    borders
}

#[test]
fn salvage_truncated_chain_keeps_prefix() {
    // The BAT before the blocks, and after them.
    for bat_offset in [3 * MIB, 12 * MIB] {
        let built = chain_of_three(bat_offset).map(|spec| spec.build());
        let whole: Vec<&Image> = built.iter().collect();
        let content = Expected::of(&whole);
        let sources: Vec<Source> = built.iter().map(source).collect();
        let short_base = cut(whole[2], whole[2].block_at(1) + 777);
        salvages(&whole, &sources, &content, "whole");
        for layer in 0..3 {
            let mut lengths: Vec<u64> =
                borders(whole[layer]).into_iter().flat_map(|at| [at.saturating_sub(1), at, at + 1, at + 4]).collect();
            lengths.retain(|length| *length < whole[layer].bytes.len());
            lengths.sort_unstable();
            lengths.dedup();
            assert!(lengths.len() > 40);
            for (number, length) in lengths.into_iter().enumerate() {
                let short = cut(whole[layer], length);
                let (mut chain, mut sources) = (whole.clone(), sources.clone());
                chain[layer] = &short;
                sources[layer] = source(&short);
                // Sometimes, two of them are truncated.
                if layer < 2 && number % 4 == 0 {
                    chain[2] = &short_base;
                    sources[2] = source(&short_base);
                }
                salvages(
                    &chain,
                    &sources,
                    &content,
                    &format!("BAT at {bat_offset:#x}, layer {layer} cut to {length:#x}"),
                );
            }
        }
    }
}

#[test]
fn salvage_truncated_table_keeps_earlier_blocks() {
    // More than a chunk, with blocks near the borders of pages (512 entries) and of the chunk (4096 blocks).
    let mut spec = Spec { bat_offset: 20 * MIB, payload_start: 3 * MIB, ..Spec::empty(5 * GIB) };
    for number in [0, 1, 510, 511, 512, 513, 4094, 4095, 4096, 4097, 5118, 5119] {
        spec.blocks.insert(number, Block::full());
    }
    let image = spec.build();
    let content = Expected::of(&[&image]);
    for number in [0, 1, 2, 3, 511, 512, 513, 1024, 4095, 4096, 4097, 4608, 5118, 5119] {
        for within in 0..=8 {
            let length = image.block_entry_at(number) + within;
            let start = (number + u64::from(within == 8)) * MIB;
            let short = cut(&image, length);
            let rest = start..5 * GIB;
            assert_eq!(lost(&[&short], 0..5 * GIB), Vec::from_iter((!rest.is_empty()).then_some(rest)));
            salvages(&[&short], &[source(&short)], &content, &format!("cut to {length:#x}"));
        }
    }
}

#[test]
fn salvage_truncated_table_keeps_earlier_contiguous_blocks() {
    let spec = Spec { bat_offset: 30 * MIB, ..Spec::empty(24 * MIB) };
    let spec = (0..24).fold(spec, |spec, number| spec.block(number, Block::full()));
    let image = spec.build();
    let content = Expected::of(&[&image]);
    for length in image.block_entry_at(0)..=image.block_entry_at(23) + 8 {
        let short = cut(&image, length);
        salvages(&[&short], &[source(&short)], &content, &format!("cut to {length:#x}"));
    }
}

#[test]
fn salvage_dirty_image_truncated_after_log_is_correct() {
    // The log of one writes to the last block: before that, a truncated file looks like one that has grown.
    for dirty in Dirty::ALL.into_iter().filter(|dirty| *dirty != Dirty::Order) {
        let image = dirty.build(&Spec::default().block(7, Block::full()));
        let content = Expected::of(&[&image]);
        let places = image.places.values().flat_map(|place| [*place, place + MIB / 2 + 7, place + MIB - 1]);
        let entries = [0, 2, 7].map(|number| image.block_entry_at(number) + 3);
        // The log and the metadata are before that.
        for length in places.chain(entries).filter(|length| (3 * MIB..image.bytes.len()).contains(length)) {
            let what = format!("{dirty:?} cut to {length:#x}");
            let short = cut(&image, length);
            let disk = Disk::open(source(&short), &OpenOptions::new().strictness(Strictness::Salvage)).unwrap();
            all_else_is_right(&disk, &content, &what);
            // Changes in the log are not lost, and it fills zeros past the end.
            let most = lost(&[&short], 0..content.size());
            let is_inside =
                |loss: &Range<u64>| most.iter().any(|most| most.start <= loss.start && loss.end <= most.end);
            assert!(losses(&disk).iter().all(is_inside), "{what}: {:x?} instead of {most:x?}", losses(&disk));
        }
    }
}

#[test]
fn salvage_truncated_file_loses_unflushed_bytes() {
    // Its last entry was written when the file had block 5, but before the medium certainly had it. It did have it.
    let mut image = Spec::default().build();
    let place = image.block_at(5);
    assert_eq!(place + MIB, image.bytes.len());
    let unused = image.spec.metadata_offset + u64::from(image.spec.metadata_length) - PAGE;
    let entry = Entry::new(LOG_GUID, 1, 0);
    let descriptors = vec![Descriptor::Zero(unused, PAGE)];
    image.put_entry(0, &Entry { flushed: place, last: place + MIB, descriptors, ..entry });
    image.set_log_guid(LOG_GUID);
    let content = Expected::of(&[&image]);
    for (length, expected) in [
        (place + MIB, vec![]),
        (place - 7, vec![3 * MIB - 7..3 * MIB, 5 * MIB..6 * MIB]),
        (place - MIB, vec![2 * MIB..3 * MIB, 5 * MIB..6 * MIB]),
    ] {
        let short = cut(&image, length);
        let disk = Disk::open(source(&short), &OpenOptions::new().strictness(Strictness::Salvage)).unwrap();
        assert_eq!(losses(&disk), expected, "cut to {length:#x}");
        all_else_is_right(&disk, &content, &format!("cut to {length:#x}"));
    }
}
