//! Damage of every byte and every field of every structure in turn.

use std::ops::Range;

use super::{Tally, Victim, victims};
use crate::kit::builder::{BAT_REGION, Image, METADATA_REGION, Slot};
use crate::kit::optional::stride;
use crate::kit::{KIB, MIB, PAGE};
use crate::lab::{size, wide};

/// Returns the used ranges of an image, with the distance between the offsets that are tried.
pub(super) fn spans(image: &Image) -> Vec<(Range<u64>, u64)> {
    let mut spans = vec![(0..520, 1), (520..64 * KIB, 9001)];
    for copy in 1..=2 {
        let header = Image::header_at(copy);
        spans.extend([(header..header + 80, 1), (header + 80..header + 64 * KIB, 2003)]);
        let table = Image::region_table_at(copy);
        let used = 16 + 32 * wide(image.regions.len() + 1);
        spans.extend([(table..table + used, 1), (table + used..table + 64 * KIB, 4001)]);
    }
    let region = |guid| image.regions.iter().find(|region| region.guid == guid).unwrap();
    let metadata = region(METADATA_REGION).offset;
    let used = 32 + 32 * wide(image.items.len() + 1);
    let items = image.bytes.written_pages(metadata + 64 * KIB, metadata + MIB).len();
    spans.extend([(metadata..metadata + used, 1), (metadata + used..metadata + 64 * KIB, 4001)]);
    spans.push((metadata + 64 * KIB..metadata + 64 * KIB + if items > 0 { 700 } else { 0 }, 1));
    let bat = region(BAT_REGION).offset;
    spans.push((bat..bat + 8 * (image.geometry.blocks + 2), 1));
    for (slot, &place) in &image.places {
        if let Slot::Bitmap(_) = slot {
            let bitmap = image.bitmap_entry_at(0);
            // The bits of the first three blocks.
            spans.extend([(bitmap..bitmap + 8, 1), (place..place + 3 * 256, 5)]);
        }
    }
    spans.extend(
        entries(image).into_iter().flat_map(|(at, length)| [(at..at + 64 + 32 * 4, 1), (at + 192..at + length, 509)]),
    );
    spans
}

/// Returns the log entries of an image that do not wrap: file offset and length.
pub(super) fn entries(image: &Image) -> Vec<(u64, u64)> {
    let (log, length) = (image.spec.log_offset, u64::from(image.spec.log_length));
    let pages = (log..log + length).step_by(size(PAGE));
    pages
        .filter(|at| image.bytes.read(*at, 4) == b"loge")
        .map(|at| (at, u64::from(u32_at(image, at + 8))))
        .filter(|(at, entry)| at + entry <= log + length)
        .collect()
}

fn u32_at(image: &Image, at: u64) -> u32 {
    u32::from_le_bytes(image.bytes.read(at, 4).try_into().unwrap())
}

/// Damages every used byte of an image in each of some ways.
fn sweep(victim: &mut Victim, ways: impl Fn(u64, u8) -> Vec<u8>) -> Tally {
    let mut all = Vec::new();
    for (span, step) in spans(&victim.image) {
        for at in span.step_by(size(step)) {
            let byte = victim.image.bytes.read(at, 1)[0];
            all.extend(ways(at, byte).into_iter().map(|damaged| vec![(at, vec![damaged])]));
        }
    }
    each(victim, &all)
}

/// Damages an image in each of these ways, or in those of them that are tried.
fn each(victim: &mut Victim, all: &[Vec<(u64, Vec<u8>)>]) -> Tally {
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    for patches in all.iter().step_by(stride()) {
        match victim.damaged(patches) {
            Ok(verdict) => tally.add(verdict),
            Err(said) => wrong.push(said),
        }
    }
    assert!(wrong.is_empty(), "{} of {tally:?}:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    tally
}

/// One bit, and all bits.
fn flips(at: u64, byte: u8) -> Vec<u8> {
    vec![byte ^ (1 << (at % 8)), !byte]
}

#[test]
fn flipped_byte_of_clean_image_is_detected_or_harmless() {
    let [mut victim, ..] = victims();
    let tally = sweep(&mut victim, flips);
    tally.assert_more_than([100, 500, 10]);
}

#[test]
fn flipped_byte_of_dirty_image_is_detected_or_harmless() {
    let [_, mut victim, ..] = victims();
    let tally = sweep(&mut victim, |at, byte| vec![byte ^ (1 << (at % 8))]);
    tally.assert_more_than([100, 500, 0]);
}

#[test]
fn flipped_byte_of_differencing_image_is_detected_or_harmless() {
    let [_, _, mut victim, _] = victims();
    let tally = sweep(&mut victim, flips);
    tally.assert_more_than([100, 500, 100]);
}

#[test]
fn flipped_byte_of_dirty_child_is_detected_or_harmless() {
    let [.., mut victim] = victims();
    let tally = sweep(&mut victim, |at, byte| vec![byte ^ (1 << (at % 8))]);
    // Nearly everything that it needs is in its log, and most of its log is in one entry that wraps.
    tally.assert_more_than([0, 500, 0]);
}

/// Returns the structures with a checksum: file offset and length.
pub(super) fn sealed(image: &Image) -> Vec<(u64, u64)> {
    let headers = [1, 2].map(|copy| (Image::header_at(copy), PAGE));
    let tables = [1, 2].map(|copy| (Image::region_table_at(copy), 64 * KIB));
    headers.into_iter().chain(tables).chain(entries(image)).collect()
}

/// Returns a change of a field, with the checksum of its structure corrected.
pub(super) fn resealed(image: &Image, sealed: &[(u64, u64)], at: u64, bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let end = at + wide(bytes.len());
    let inside = |(start, length): &&(u64, u64)| *start <= at && end <= start + length;
    let Some((start, length)) = sealed.iter().find(inside) else { return vec![(at, bytes.to_vec())] };
    let mut structure = image.bytes.read(*start, size(*length));
    structure[size(at - start)..size(end - start)].copy_from_slice(bytes);
    structure[4..8].fill(0);
    let checksum = crc32c::crc32c(&structure);
    structure[4..8].copy_from_slice(&checksum.to_le_bytes());
    vec![(*start, structure)]
}

/// Returns values that a field may not expect, in its width.
fn values(width: u64) -> Vec<Vec<u8>> {
    let narrow = |value: u32| value.to_le_bytes().to_vec();
    let wide = |value: u64| value.to_le_bytes().to_vec();
    match width {
        4 => [0, 1, u32::MAX, 1 << 31, 3 << 20].map(narrow).to_vec(),
        _ => [0, 1, u64::MAX, 1 << 63, (6 * MIB) | 6].map(wide).to_vec(),
    }
}

/// Puts each value into each field of both widths, all of which are aligned.
fn fields(mut victim: Victim) {
    let sealed = sealed(&victim.image);
    let mut all = Vec::new();
    for (span, step) in spans(&victim.image) {
        for at in span.step_by(size(step.max(4))) {
            let at = at / 4 * 4;
            let values = [4, 8].into_iter().filter(|width| at % width == 0).flat_map(values);
            let values = values.filter(|value| victim.image.bytes.read(at, value.len()) != *value);
            all.extend(values.map(|value| resealed(&victim.image, &sealed, at, &value)));
        }
    }
    each(&mut victim, &all).assert_more_than([20, 500, 0]);
}

#[test]
fn any_field_value_in_clean_image_is_detected_or_harmless() {
    let [victim, ..] = victims();
    fields(victim);
}

#[test]
fn any_field_value_in_dirty_image_is_detected_or_harmless() {
    let [_, victim, ..] = victims();
    fields(victim);
}

#[test]
fn any_field_value_in_differencing_image_is_detected_or_harmless() {
    let [_, _, victim, _] = victims();
    fields(victim);
}
