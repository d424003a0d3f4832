//! Structures of random bytes, with the signatures and checksums that they need to be read at all.

use super::damage::{resealed, sealed, spans};
use super::{Tally, Victim, child, clean, look_at_log, victims};
use crate::kit::builder::{Image, METADATA_REGION};
use crate::kit::log::{Dirty, LOG_GUID};
use crate::kit::optional::stride;
use crate::kit::{KIB, MIB, PAGE};
use crate::lab::{Rng, size, wide};
use vhdx_mmap::{Chain, OpenOptions, Source};

/// Tries `count` random damages, or some of them.
fn noise(victim: &mut Victim, count: u64, mut patches: impl FnMut(&Image, &mut Rng) -> Vec<(u64, Vec<u8>)>) -> Tally {
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    for seed in (0..count).step_by(stride()) {
        let patches = patches(&victim.image, &mut Rng::new(seed));
        match victim.damaged(&patches) {
            Ok(verdict) => tally.add(verdict),
            Err(said) => wrong.push(format!("seed {seed}: {said}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {tally:?}:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    tally
}

/// Returns a number with some bits set, mostly an unusual one.
fn number(rng: &mut Rng) -> u64 {
    let bits = rng.below(64);
    rng.next() >> bits
}

#[test]
fn noise_files_are_rejected_or_read() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut bytes = rng.bytes(size(320 * KIB));
        bytes.resize(size(4 * MIB), 0);
        bytes[..8].copy_from_slice(b"vhdxfile");
        for (at, length, signature) in
            [(0x1_0000, 4096, b"head"), (0x2_0000, 4096, b"head"), (0x3_0000, 65_536, b"regi")]
        {
            let structure = &mut bytes[at..at + length];
            structure[..4].copy_from_slice(signature);
            if length == 4096 {
                structure[66..68].copy_from_slice(&[1, 0]);
            } else {
                structure[8..12].copy_from_slice(&u32::to_le_bytes(u32::try_from(rng.below(2100)).unwrap()));
            }
            structure[4..8].fill(0);
            let checksum = crc32c::crc32c(structure);
            structure[4..8].copy_from_slice(&checksum.to_le_bytes());
        }
        look_at_log(Source::from_vec(bytes.clone()));
        assert!(Chain::open(Source::from_vec(bytes), &OpenOptions::new()).is_err());
    }
}

#[test]
fn noise_headers_are_rejected_or_read() {
    let [mut victim, ..] = victims();
    let header = |image: &Image, rng: &mut Rng| {
        let (at, mut header) = (Image::header_at(2), image.bytes.read(Image::header_at(2), size(PAGE)));
        for _ in 0..=rng.below(3) {
            let field = size(rng.pick(&[8, 16, 32, 48, 64, 66, 68, 72]));
            header[field..field + 8].copy_from_slice(&number(rng).to_le_bytes());
        }
        resealed(image, &[(at, PAGE)], at, &header)
    };
    let tally = noise(&mut victim, 400, header);
    tally.assert_more_than([50, 50, 0]);
}

#[test]
fn noise_region_tables_are_rejected_or_read() {
    let [mut victim, ..] = victims();
    let table = |image: &Image, rng: &mut Rng| {
        let at = Image::region_table_at(1);
        let mut table = image.bytes.read(at, size(64 * KIB));
        let count: u32 = rng.pick(&[2, 2, 3, 5, 40]);
        table[8..12].copy_from_slice(&count.to_le_bytes());
        for entry in 2..size(count.into()) {
            let offset = if rng.one_in(2) { rng.below(30) * MIB } else { number(rng) };
            let length = if rng.one_in(2) { 1 << 20 } else { number(rng) & 0xFFFF_FFFF };
            let fields = [rng.next(), rng.next(), offset, length];
            table[16 + 32 * entry..48 + 32 * entry].copy_from_slice(&fields.map(u64::to_le_bytes).concat());
        }
        if rng.one_in(2) {
            let field = size(16 + rng.below(8) * 8);
            let value = if rng.one_in(2) { rng.below(9) * MIB } else { number(rng) };
            table[field..field + 8].copy_from_slice(&value.to_le_bytes());
        }
        resealed(image, &[(at, 64 * KIB)], at, &table)
    };
    let tally = noise(&mut victim, 600, table);
    tally.assert_more_than([50, 50, 0]);
}

#[test]
fn noise_metadata_is_rejected_or_read() {
    let [mut clean, _, mut child, _] = victims();
    let metadata = |image: &Image, rng: &mut Rng| {
        let at = image.regions.iter().find(|region| region.guid == METADATA_REGION).unwrap().offset;
        let count = image.items.len() + size(rng.below(4));
        let mut table = image.bytes.read(at, 32 + 32 * count);
        table[10] = u8::try_from(count).unwrap();
        for entry in image.items.len()..count {
            let (offset, length) = (64 * KIB + rng.below(200), rng.below(300));
            let flags = rng.pick(&[0, 1, 2, 3, 8]);
            let fields = [rng.next(), rng.next(), offset | length << 32, flags];
            table[32 + 32 * entry..64 + 32 * entry].copy_from_slice(&fields.map(u64::to_le_bytes).concat());
        }
        for _ in 0..rng.below(3) {
            let field = size(32 + rng.below(wide(count) * 8) * 4);
            let value = if rng.one_in(2) { 64 * KIB + rng.below(64) } else { number(rng) };
            table[field..field + 4].copy_from_slice(&value.to_le_bytes()[..4]);
        }
        let items = rng.pick(&[at + 64 * KIB, at + 64 * KIB + 4, at + 64 * KIB + 8, at + 64 * KIB + 32]);
        let value = if rng.one_in(2) { 1 << rng.below(64) } else { number(rng) };
        let mut patches = vec![(at, table)];
        if rng.one_in(3) {
            patches.push((items, value.to_le_bytes()[..4].to_vec()));
        }
        patches
    };
    let tally = noise(&mut clean, 600, metadata);
    tally.assert_more_than([50, 50, 0]);
    let tally = noise(&mut child, 600, metadata);
    tally.assert_more_than([50, 50, 0]);
}

#[test]
fn noise_block_tables_fail_only_their_blocks() {
    let [mut clean, _, mut child, _] = victims();
    let bat = |image: &Image, rng: &mut Rng| {
        let end = image.bytes.len();
        let mut places: Vec<u64> = (0..=end / MIB + 1).map(|place| place * MIB).collect();
        places.extend([1 << 40, u64::MAX >> 20 << 20]);
        let mut patches: Vec<_> = (0..image.geometry.blocks)
            .map(|block| {
                let reserved = if rng.one_in(4) { rng.next() & 0xF_FFF8 } else { 0 };
                let entry = rng.pick(&places) | reserved | rng.pick(&[0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 7, 7, 7]);
                (image.block_entry_at(block), entry.to_le_bytes().to_vec())
            })
            .collect();
        if rng.one_in(3) {
            let entry = rng.pick(&[0, end, 1 << 40]) | rng.pick(&[0, 6, 6, 7]);
            patches.push((image.bitmap_entry_at(0), entry.to_le_bytes().to_vec()));
        }
        patches
    };
    let tally = noise(&mut clean, 150, bat);
    assert!(tally.refused == 0 && tally.other > 2 * tally.same, "{tally:?}");
    let tally = noise(&mut child, 150, bat);
    assert!(tally.refused == 0 && tally.other > 2 * tally.same, "{tally:?}");
}

#[test]
fn noise_sector_bitmaps_are_read_bit_by_bit() {
    let [_, _, mut victim, _] = victims();
    let bitmap = |image: &Image, rng: &mut Rng| {
        let length = size(rng.below(600));
        vec![(image.bitmap_at(0) + rng.below(600), rng.bytes(length))]
    };
    let tally = noise(&mut victim, 60, bitmap);
    assert!(tally.refused == 0 && tally.other > 2 * tally.same, "{tally:?}");
}

#[test]
fn noise_logs_are_rejected_or_replayed() {
    for (image, parents) in
        [(Dirty::ManyEntries.build(&clean()), vec![]), (Dirty::OneEntry.build(&child()), vec![clean().build()])]
    {
        let mut victim = Victim::new(image, parents);
        let sealed = sealed(&victim.image);
        let log = |image: &Image, rng: &mut Rng| {
            // A field of the header, or of a descriptor.
            let (at, _) = rng.pick(&sealed[4..]);
            let field = at + rng.pick(&[8, 12, 16, 24, 28, 32, 48, 56, 64, 68, 72, 80, 88, 112, 120, 4096, 4100, 8188]);
            let value = match rng.below(4) {
                0 => number(rng),
                1 => rng.below(256) * PAGE,
                2 => rng.below(9) * MIB,
                _ => LOG_GUID.as_u64_pair().0,
            };
            resealed(image, &sealed, field, &value.to_le_bytes())
        };
        let tally = noise(&mut victim, 600, log);
        tally.assert_more_than([50, 10, 0]);
    }
}

#[test]
fn several_damages_are_detected_or_harmless() {
    for mut victim in victims() {
        let (sealed, spans) = (sealed(&victim.image), spans(&victim.image));
        let many = |image: &Image, rng: &mut Rng| {
            let mut patches = Vec::new();
            for _ in 0..=rng.below(3) {
                let (span, _) = rng.pick(&spans);
                let at = (span.start + rng.below(span.end - span.start)) / 4 * 4;
                let value = number(rng).to_le_bytes();
                let width = if at.is_multiple_of(8) && rng.one_in(2) { 8 } else { 4 };
                // The checksum is corrected for only one damage of a structure.
                patches.extend(resealed(image, &sealed, at, &value[..width]));
            }
            patches
        };
        let tally = noise(&mut victim, 500, many);
        tally.assert_more_than([10, 50, 0]);
    }
}
