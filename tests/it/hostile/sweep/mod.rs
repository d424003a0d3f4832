//! Complete damage of the structures: every byte is flipped, and every field of eight bytes gets unusual values, in a
//! clean, a dirty and a differencing image.
//!
//! The result is the same bytes, an error, or other bytes. Other bytes are correct only if the naive reader reads the
//! same, and if nothing in the format could have detected the change: see [`UNDETECTED`].

mod lab;

use std::ops::Range;

use vhdx_mmap::ops::{self, CheckOptions};
use vhdx_mmap::{Rule, Severity};

use crate::kit::builder::{BAT_REGION, Image, Item, METADATA_REGION, PARENT_LOCATOR, Slot, Spec};
use crate::kit::log::{Descriptor, Journal, LOG_GUID, Old};
use crate::kit::optional::stride;
use crate::kit::{Block, KIB, MIB, PAGE};
use crate::lab::{run, source, wide};

use super::damage::{entries, resealed, sealed};
use lab::Outcome::{Other, Refused, Same};
use lab::{Mutant, Outcome, Results, sweep};

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

/// Structures in which a change can give other bytes that contradict nothing in the file.
///
/// Metadata, BAT and sector bitmaps have no checksum: another legal value is as good as the right one. An entry of the
/// log has one, but the format takes a damaged entry for an unfinished one, and the entries before it for the log.
const UNDETECTED: [Place; 5] = [Place::MetadataTable, Place::MetadataItem, Place::Bat, Place::Bitmap, Place::LogEntry];

/// Returns whether a check finds a problem of the image, although it can be read. A missing parent is not a problem.
fn is_detected_by_check(image: &Image) -> bool {
    let report = ops::check(source(image), &CheckOptions::default()).unwrap();
    report.counts.keys().any(|(check, severity)| *severity >= Severity::Leak && *check != Rule::ParentMissing)
}

/// Returns the used ranges of an image, with their structures.
fn structures(image: &Image) -> Vec<(Place, Range<u64>)> {
    let mut all = vec![(Place::Identifier, 0..520)];
    for copy in 1..=2 {
        let (header, table) = (Image::header_at(copy), Image::region_table_at(copy));
        all.push((Place::Header, header..header + PAGE));
        let used = table + 16 + 32 * wide(image.regions.len() + 1);
        all.push((Place::RegionTable, table..used));
        // Some of the rest, which is zero and covered by the checksum.
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

/// Each byte flipped: all bits, and the lowest bit.
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

/// Each aligned field of eight bytes with each of some values, and if there is a checksum, both with the old one and
/// with a correct one.
fn fields(image: &Image) -> Vec<Mutant> {
    let sealed = sealed(image);
    let mut all = Vec::new();
    for (place, span) in structures(image) {
        for at in (span.start.next_multiple_of(8)..span.end).step_by(8) {
            // The bytes of a sector are as random as its first ones: enough of them are flipped one by one.
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

/// Little content, so that a disk is read quickly: most of it is unallocated, and the last block is short.
fn small() -> Spec {
    let mut spec = Spec::empty(2 * MIB + 32 * KIB).block(1, Block::zero()).block(2, Block::full());
    spec.items.push(Item::new(uuid::Uuid::from_u128(0x1234), 0, &[1; 16]));
    spec
}

/// An image whose metadata and BAT are in its log, in two entries, with zeros over unused bytes.
fn dirty() -> Image {
    let mut image = small().build();
    let (table, bat) = (image.spec.metadata_offset, image.spec.bat_offset);
    let mut changes = image.unapply(&[table], Old::Junk(5));
    // A table that could as well be valid.
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

/// Applies the changes. No change that a checksum or a rule could have detected may read as other bytes.
#[track_caller]
fn judged(image: &Image, parents: &[Image], mutants: &[Mutant]) -> Results {
    let mutants: Vec<Mutant> = mutants.iter().step_by(stride()).cloned().collect();
    let results = sweep(image, parents, &mutants);
    let undetected: Vec<_> = results.undetected.iter().filter(|place| !UNDETECTED.contains(place)).collect();
    assert!(undetected.is_empty(), "undetected other bytes: {undetected:?}");
    results
}

/// Asserts that a structure was changed at all, and with each of these outcomes. Some take nearly all changes.
#[track_caller]
fn assert_outcomes(results: &Results, expected: &[(Place, &[Outcome])]) {
    if stride() > 1 {
        return;
    }
    for (place, outcomes) in expected {
        for outcome in *outcomes {
            assert!(results.of(*outcome, *place) > 0, "{place:?} is never {outcome:?}: {results:?}");
        }
    }
}

const ALL: &[Outcome] = &[Same, Refused, Other];

#[test]
fn clean_image_with_any_byte_flipped() {
    let image = small().build();
    let results = judged(&image, &[], &flips(&image));
    results.assert_at_least(Same, 16_000);
    let metadata = [(Place::MetadataTable, ALL), (Place::MetadataItem, ALL), (Place::Bat, ALL)];
    assert_outcomes(&results, &metadata);
    assert_outcomes(&results, &[(Place::Identifier, &[Same, Refused])]);
    // One of two copies is valid.
    for place in [Place::Header, Place::RegionTable] {
        assert_eq!((results.of(Refused, place), results.of(Other, place)), (0, 0), "{place:?}");
    }
}

#[test]
fn clean_image_with_unusual_fields() {
    let image = small().build();
    let results = judged(&image, &[], &fields(&image));
    results.assert_at_least(Same, 4000);
    // With a correct checksum, a header or a table of nonsense is believed.
    let expected = [Place::Header, Place::RegionTable].map(|place| (place, &[Same, Refused][..]));
    assert_outcomes(&results, &expected);
    assert_outcomes(
        &results,
        &[(Place::MetadataTable, &[Same, Refused]), (Place::MetadataItem, ALL), (Place::Bat, ALL)],
    );
}

#[test]
fn dirty_image_with_any_byte_flipped() {
    let image = dirty();
    let results = judged(&image, &[], &flips(&image));
    results.assert_at_least(Same, 16_000);
    assert_outcomes(&results, &[(Place::LogEntry, &[Refused, Other])]);
    // The content of the log counts, not the bytes that it overwrites.
    for place in [Place::MetadataTable, Place::Bat] {
        assert_eq!((results.of(Refused, place), results.of(Other, place)), (0, 0), "{place:?}");
    }
}

#[test]
fn dirty_image_with_unusual_fields() {
    let image = dirty();
    let results = judged(&image, &[], &fields(&image));
    results.assert_at_least(Same, 4000);
    assert_outcomes(&results, &[(Place::LogEntry, ALL), (Place::Header, &[Same, Refused])]);
}

#[test]
fn differencing_image_with_any_byte_flipped() {
    let image = child().build();
    let results = judged(&image, &[small().build()], &flips(&image));
    results.assert_at_least(Same, 16_000);
    // Each bit in use stands for a sector; if both layers have zeros there, it makes no difference.
    assert_outcomes(&results, &[(Place::Bitmap, &[Same, Other]), (Place::Bat, ALL)]);
    assert_outcomes(&results, &[(Place::Locator, &[Same, Refused])]);
}

#[test]
fn differencing_image_with_unusual_fields() {
    let image = child().build();
    let results = judged(&image, &[small().build()], &fields(&image));
    assert_outcomes(&results, &[(Place::Bitmap, &[Same, Other]), (Place::Locator, &[Same, Refused])]);
}
