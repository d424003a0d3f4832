//! Nothing of the structures is left out: every byte is flipped, and every field of eight bytes gets odd values, in a clean,
//! a dirty and a differencing image.
//!
//! What comes of it is the same bytes, an error, or other bytes. Other bytes are right only where the naive reader reads the
//! same, and where nothing in the format could have told: see [`UNTOLD`].

mod lab;

use std::ops::Range;

use vhdx_mmap::ops::{self, CheckOptions};
use vhdx_mmap::{Rule, Severity};

use crate::kit::builder::{BAT_REGION, Image, Item, METADATA_REGION, PARENT_LOCATOR, Slot, Spec};
use crate::kit::log::{Descriptor, Journal, LOG_GUID, Old};
use crate::kit::{Block, KIB, MIB, PAGE};
use crate::lab::{run, source, wide};

use super::damage::{entries, resealed, sealed};
use lab::ParentRejection::{Other, Refused, Same};
use lab::{Mutant, ParentRejection, Results, sweep};

/// The structures of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Identifier,
    Header,
    RegionTable,
    MetadataTable,
    MetadataItem,
    Locator,
    Bat,
    Bitmap,
    LogEntry,
}

/// Where a change can give other bytes that nothing in the file speaks against.
///
/// Metadata, BAT and sector bitmaps have no checksum: another legal value is as good as the right one. An entry of the log
/// has one, but the format takes a broken entry for one that was never finished, and the log for what is before it.
const UNTOLD: [Place; 5] = [Place::MetadataTable, Place::MetadataItem, Place::Bat, Place::Bitmap, Place::LogEntry];

/// Whether a check of the image finds something wrong with it, although it can be read. That its parent is elsewhere is
/// nothing wrong.
fn told_by_check(image: &Image) -> bool {
    let report = ops::check(source(image), &CheckOptions::default()).unwrap();
    report.counts.keys().any(|(check, severity)| *severity >= Severity::Leak && *check != Rule::ParentMissing)
}

/// What of an image says something, and what structure it belongs to.
fn structures(image: &Image) -> Vec<(Place, Range<u64>)> {
    let mut all = vec![(Place::Identifier, 0..520)];
    for copy in 1..=2 {
        let (header, table) = (Image::header_at(copy), Image::region_table_at(copy));
        all.push((Place::Header, header..header + PAGE));
        let used = table + 16 + 32 * wide(image.regions.len() + 1);
        all.push((Place::RegionTable, table..used));
        // Of the rest, which the checksum covers, and which is zeros, some.
        let rest = (used..table + 64 * KIB).step_by(1009);
        all.extend(rest.map(|at| (Place::RegionTable, at..(at + 1).min(table + 64 * KIB))));
    }
    let region = |guid| image.regions.iter().find(|region| region.guid == guid).unwrap().offset;
    let metadata = region(METADATA_REGION);
    all.push((Place::MetadataTable, metadata..metadata + 32 + 32 * wide(image.items.len() + 1)));
    for (id, _, body) in &image.items {
        let (place, length) = if *id == PARENT_LOCATOR {
            (Place::Locator, image.spec.locator.as_ref().unwrap().encode().len())
        } else {
            (Place::MetadataItem, 16)
        };
        all.push((place, *body..body + wide(length)));
    }
    let bat = region(BAT_REGION);
    all.push((Place::Bat, bat..bat + 8 * (image.geometry.blocks + 1)));
    for (slot, &place) in &image.places {
        if let Slot::Bitmap(chunk) = slot {
            let entry = image.bitmap_entry_at(*chunk);
            let bits = image.spec.disk_size.div_ceil(image.spec.sector_size.into());
            all.extend([(Place::Bat, entry..entry + 8), (Place::Bitmap, place..place + bits.div_ceil(8))]);
        }
    }
    all.extend(entries(image).into_iter().map(|(at, length)| (Place::LogEntry, at..at + length)));
    all
}

/// Each byte flipped, all of it and its lowest bit.
fn flips(image: &Image) -> Vec<Mutant> {
    let mut all = Vec::new();
    for (place, span) in structures(image) {
        for at in span {
            let byte = image.bytes.read(at, 1)[0];
            all.extend([byte ^ 0xFF, byte ^ 1].map(|flipped| Mutant { place, patches: vec![(at, vec![flipped])] }));
        }
    }
    all
}

/// Each aligned field of eight bytes with each of some values, and where there is a checksum, both with the old one and with
/// one that is right.
fn fields(image: &Image) -> Vec<Mutant> {
    let sealed = sealed(image);
    let mut all = Vec::new();
    for (place, span) in structures(image) {
        for at in (span.start.next_multiple_of(8)..span.end).step_by(8) {
            // What follows the bytes of a sector is noise like what follows its first: enough of it is flipped byte by byte.
            if place == Place::LogEntry && at % PAGE > 512 && at % 64 > 0 {
                continue;
            }
            for value in [0, 1, u64::MAX, 1 << 63, 1 << 31].map(u64::to_le_bytes) {
                let patches = resealed(image, &sealed, at, &value);
                if patches != [(at, value.to_vec())] {
                    all.push(Mutant { place, patches });
                }
                all.push(Mutant { place, patches: vec![(at, value.to_vec())] });
            }
        }
    }
    all
}

/// Little content, so that a disk is read in no time: most of it is nowhere, and the last block is short.
fn small() -> Spec {
    let mut spec = Spec::empty(2 * MIB + 32 * KIB).block(1, Block::zero()).block(2, Block::full());
    spec.items.push(Item::new(uuid::Uuid::from_u128(0x1234), 0, &[1; 16]));
    spec
}

/// An image whose metadata and BAT are in its log, in two entries, and zeros over what nobody needs.
fn dirty() -> Image {
    let mut image = small().build();
    let (table, bat) = (image.spec.metadata_offset, image.spec.bat_offset);
    let mut changes = image.unapply(&[table], Old::Junk(5));
    // A table that could as well be right.
    changes.extend(image.unapply(&[bat], Old::Zero));
    let unused = Descriptor::Zero(image.spec.metadata_offset + 512 * KIB, 2 * PAGE);
    let mut journal = Journal::new(254 * 4096, 1000);
    journal.append(&mut image, &changes[..1]);
    journal.append(&mut image, &[changes[1].clone(), unused]);
    image.set_log_guid(LOG_GUID);
    image
}

fn child() -> Spec {
    let child = Spec::child_of(&small(), "1");
    child.block(0, Block::partial(&[1..9, 2040..2048])).block(2, Block::partial(&run(5..40)))
}

/// Makes the changes. Nothing in which a checksum or a rule could have told may come to be read otherwise.
#[track_caller]
fn judged(image: &Image, parents: &[Image], mutants: &[Mutant]) -> Results {
    let results = sweep(image, parents, mutants);
    let silent: Vec<_> = results.untold.iter().filter(|place| !UNTOLD.contains(place)).collect();
    assert!(silent.is_empty(), "other bytes, and nothing tells: {silent:?}");
    results
}

/// That a structure was changed at all, and with each of these outcomes.
#[track_caller]
fn assert_outcomes(results: &Results, expected: &[(Place, &[ParentRejection])]) {
    for (place, outcomes) in expected {
        for outcome in *outcomes {
            assert!(results.of(*outcome, *place) > 0, "{place:?} is never {outcome:?}: {results:?}");
        }
    }
}

const ALL: &[ParentRejection] = &[Same, Refused, Other];

#[test]
fn a_clean_image_with_any_byte_flipped() {
    let image = small().build();
    let results = judged(&image, &[], &flips(&image));
    results.assert_at_least(Same, 16_000);
    let metadata = [(Place::MetadataTable, ALL), (Place::MetadataItem, ALL), (Place::Bat, ALL)];
    assert_outcomes(&results, &metadata);
    assert_outcomes(&results, &[(Place::Identifier, &[Same, Refused])]);
    // Of two copies, one is whole.
    for place in [Place::Header, Place::RegionTable] {
        assert_eq!((results.of(Refused, place), results.of(Other, place)), (0, 0), "{place:?}");
    }
}

#[test]
fn a_clean_image_with_odd_fields() {
    let image = small().build();
    let results = judged(&image, &[], &fields(&image));
    results.assert_at_least(Same, 4000);
    // With a right checksum, a header or a table of nonsense is believed.
    let expected = [Place::Header, Place::RegionTable].map(|place| (place, &[Same, Refused][..]));
    assert_outcomes(&results, &expected);
    assert_outcomes(
        &results,
        &[(Place::MetadataTable, &[Same, Refused]), (Place::MetadataItem, ALL), (Place::Bat, ALL)],
    );
}

#[test]
fn a_dirty_image_with_any_byte_flipped() {
    let image = dirty();
    let results = judged(&image, &[], &flips(&image));
    results.assert_at_least(Same, 16_000);
    assert_outcomes(&results, &[(Place::LogEntry, &[Refused, Other])]);
    // What is in the log counts, not what it will be written over.
    for place in [Place::MetadataTable, Place::Bat] {
        assert_eq!((results.of(Refused, place), results.of(Other, place)), (0, 0), "{place:?}");
    }
}

#[test]
fn a_dirty_image_with_odd_fields() {
    let image = dirty();
    let results = judged(&image, &[], &fields(&image));
    results.assert_at_least(Same, 4000);
    assert_outcomes(&results, &[(Place::LogEntry, ALL), (Place::Header, &[Same, Refused])]);
}

#[test]
fn a_differencing_image_with_any_byte_flipped() {
    let image = child().build();
    let results = judged(&image, &[small().build()], &flips(&image));
    results.assert_at_least(Same, 16_000);
    // Each bit in use stands for a sector of its own; where both layers have zeros, it makes no difference.
    assert_outcomes(&results, &[(Place::Bitmap, &[Same, Other]), (Place::Bat, ALL)]);
    assert_outcomes(&results, &[(Place::Locator, &[Same, Refused])]);
}

#[test]
fn a_differencing_image_with_odd_fields() {
    let image = child().build();
    let results = judged(&image, &[small().build()], &fields(&image));
    assert_outcomes(&results, &[(Place::Bitmap, &[Same, Other]), (Place::Locator, &[Same, Refused])]);
}
