//! Truncated files.

use vhdx_mmap::{Category, Chain, Disk, Error, ErrorKind, OpenOptions, Source};

use super::{Victim, child, clean, look_at_chain, look_at_everything, look_at_log, right_up_to};
use crate::kit::builder::{FileLength, Spec};
use crate::kit::log::Dirty;
use crate::kit::{Block, KIB, MIB, PAGE, pattern};
use crate::lab::{size, wide};
use crate::support::{map, temp_dir};

/// Returns lengths to truncate a file to: every 4 KiB, and every byte near the borders of structures, from long to
/// short.
fn lengths(victim: &Victim) -> Vec<u64> {
    let length = victim.image.bytes.len();
    let mut lengths: Vec<u64> = (0..length).step_by(size(PAGE)).collect();
    let regions =
        victim.image.regions.iter().flat_map(|region| [region.offset, region.offset + u64::from(region.length)]);
    let places = victim.image.places.values().flat_map(|place| [*place, place + 512, place + MIB]);
    let fixed = [8, 520, 64 * KIB, 68 * KIB, 128 * KIB, 132 * KIB, 192 * KIB, 256 * KIB, 320 * KIB, MIB, 2 * MIB];
    let items = victim.image.items.iter().flat_map(|(_, entry, body)| [*entry, *body]);
    let bat = [victim.image.block_entry_at(0), victim.image.bat_entry_at(victim.image.geometry.entries)];
    for border in regions.chain(places).chain(fixed).chain(items).chain(bat) {
        lengths.extend(border.saturating_sub(9)..border + 10);
    }
    lengths.retain(|cut| *cut < length);
    lengths.sort_unstable();
    lengths.dedup();
    lengths.reverse();
    lengths
}

/// Truncates the file more and more: readable bytes are correct, and lost ones are an error.
fn cut_everywhere(mut victim: Victim) {
    let whole = victim.content.size();
    let (mut read, mut refused, mut lost) = (0, 0, 0);
    for length in lengths(&victim) {
        victim.file.set_len(length).unwrap();
        if length % 8 == 0 {
            look_at_everything(&victim.path);
        }
        let disk = match Disk::open(map(&victim.path), &victim.options()) {
            Ok(disk) => disk,
            Err(error) => {
                assert!(matches!(error.category(), Category::Corrupt | Category::NotVhdx), "{length:#x}: {error:?}");
                refused += 1;
                continue;
            }
        };
        let end = right_up_to(&disk, &victim.content);
        assert!(end.is_ok(), "cut to {length:#x}: another byte at {end:x?}");
        if end == Ok(whole) {
            read += 1;
        } else {
            lost += 1;
        }
        // Bytes after the first error are correct or an error as well.
        for _ in 0..20 {
            let at = victim.rng.below(whole / 512) * 512;
            let mut found = [0; 512];
            if disk.read_at(&mut found, at).is_ok() {
                assert!(found[..] == victim.content.read(at..at + 512), "{length:#x}: other bytes at {at:#x}");
            }
        }
    }
    assert!(refused > 500 && lost > 200, "{read} read, {lost} in part, {refused} refused");
}

#[test]
fn truncated_clean_image_is_correct_or_fails() {
    cut_everywhere(Victim::new(clean().build(), Vec::new()));
}

#[test]
fn truncated_fixed_image_is_correct_or_fails() {
    // Here the tables are after the blocks.
    let mut spec = Spec { leave_blocks_allocated: true, ..clean() }.block(1, Block::full());
    (spec.log_offset, spec.metadata_offset, spec.bat_offset) = (5 * MIB, 6 * MIB, 4 * MIB);
    spec.disk_size = 2 * MIB;
    spec.blocks.retain(|number, _| *number < 2);
    let victim = Victim::new(spec.build(), Vec::new());
    assert_eq!(victim.image.bytes.len(), 7 * MIB);
    // Everything up to the end of the metadata region is necessary: no part of the disk can be read without it.
    for length in lengths(&victim) {
        victim.file.set_len(length).unwrap();
        assert!(Disk::open(map(&victim.path), &victim.options()).is_err(), "{length:#x}");
    }
}

#[test]
fn truncated_differencing_image_is_correct_or_fails() {
    cut_everywhere(Victim::new(child().build(), vec![clean().build()]));
}

#[test]
fn truncated_dirty_image_is_correct_or_fails() {
    cut_everywhere(Victim::new(Dirty::ManyEntries.build(&clean()), Vec::new()));
}

#[test]
fn dirty_image_must_have_length_known_to_log() {
    for dirty in [Dirty::Growth, Dirty::GrowthByData] {
        let victim = Victim::new(dirty.build(&clean()), Vec::new());
        for length in lengths(&victim) {
            victim.file.set_len(length).unwrap();
            let error = Disk::open(map(&victim.path), &victim.options()).unwrap_err();
            assert!(matches!(error.category(), Category::Corrupt | Category::NotVhdx), "{length:#x}: {error:?}");
        }
    }
}

#[test]
fn truncated_parent_keeps_prefix() {
    let base = Spec { file_length: FileLength::Exact(5 * MIB + 700), ..clean() }.build();
    let victim = Victim::new(child().build(), vec![clean().build()]);
    let whole = victim.content.size();
    base.bytes.write_file(&victim.folder.path().join("1")).unwrap();
    let disk = Disk::open(map(&victim.path), &victim.options()).unwrap();
    // Its block 2 is lost, but the child hides that; its block 0 is complete.
    assert_eq!(right_up_to(&disk, &victim.content), Ok(whole));
    drop(disk);
    let base = Spec { file_length: FileLength::Exact(4 * MIB + 400 * 512 + 7), ..clean() }.build();
    base.bytes.write_file(&victim.folder.path().join("1")).unwrap();
    let disk = Disk::open(map(&victim.path), &victim.options()).unwrap();
    assert_eq!(right_up_to(&disk, &victim.content), Ok(400 * 512 + 7));
    let error = disk.segments(..).find_map(Result::err).unwrap();
    assert!(matches!(error.kind(), ErrorKind::OutOfBounds { .. }), "{error:?}");
    assert_eq!((error.layer(), error.offset()), (1, Some(4 * MIB + 400 * 512 + 7)));
}

#[test]
fn tiny_files_are_rejected() {
    let image = clean().build().bytes.read(0, size(2 * MIB));
    let mut lengths: Vec<usize> = (0..=40).chain(500..530).collect();
    lengths.extend([4095, 4096, 4097, 65_535, 65_536, 65_544, 131_072, 327_680, (1 << 20) - 1]);
    for length in lengths {
        let signature = |mut bytes: Vec<u8>| {
            let signed = bytes.len().min(8);
            bytes[..signed].copy_from_slice(&b"vhdxfile"[..signed]);
            bytes
        };
        let noise = pattern(5, 0, length);
        let files = [image[..length].to_vec(), vec![0; length], vec![0xFF; length], noise.clone(), signature(noise)];
        for bytes in files {
            let same = || Source::from_vec(bytes.clone());
            look_at_log(same());
            let error = Chain::open(same(), &OpenOptions::new()).unwrap_err();
            let category = if bytes.starts_with(b"vhdxfile") { Category::Corrupt } else { Category::NotVhdx };
            assert_eq!(error.category(), category, "{length} bytes: {error:?}");
        }
    }
    // Long enough, but with nothing except the signature.
    for (length, fill) in [(size(MIB), 0), (size(MIB), 0xFF), (size(5 * MIB), 0)] {
        let mut bytes = vec![fill; length];
        bytes[..8].copy_from_slice(b"vhdxfile");
        let error = Chain::open(Source::from_vec(bytes), &OpenOptions::new()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoValidCopy { .. }), "{error:?}");
    }
}

#[test]
fn empty_file_is_rejected_in_every_way() {
    let folder = temp_dir();
    let path = folder.path().join("empty");
    std::fs::write(&path, []).unwrap();
    for source in [map(&path), Source::load(&path).unwrap(), Source::from_vec(Vec::new())] {
        assert_eq!(source.len(), 0);
        let error = Chain::open(source, &OpenOptions::new()).unwrap_err();
        assert!(error.looks_like().is_some_and(|format| format.key == "empty"), "{error:?}");
    }
}

#[test]
fn truncated_image_in_memory_equals_one_in_file() {
    let victim = Victim::new(child().build(), vec![clean().build()]);
    let bytes = victim.image.bytes.to_vec();
    for length in lengths(&victim).into_iter().step_by(60) {
        let cut = || bytes[..size(length)].to_vec();
        let outcome = |source: Source| match Disk::open(source, &victim.options()) {
            Ok(disk) => {
                look_at_chain(&Chain::open(Source::from_vec(cut()), &victim.options()).unwrap());
                // Bytes in memory have no path.
                let said = |error: Error| format!("{error:#}");
                let segments = disk.segments(..).map(|segment| segment.map(|segment| segment.len()).map_err(said));
                format!("{:?}", segments.collect::<Vec<_>>())
            }
            Err(error) => format!("{error:#}"),
        };
        victim.file.set_len(length).unwrap();
        assert_eq!(outcome(Source::from_vec(cut())), outcome(map(&victim.path)), "{length:#x}");
        assert_eq!(wide(cut().len()), length);
    }
}
