//! Salvage of chains: damage in one file loses nothing that another file holds.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;
use uuid::Uuid;

use super::cuts::{chain_of_three, cut, lost};
use super::salvage::{extract, ranges};
use crate::kit::builder::{FILE_PARAMETERS, Image, PARENT_LOCATOR, Slot, Spec};
use crate::kit::{Block, MIB};
use crate::lab::{Expected, run as sectors, size};
use crate::support::{loss_map, run, temp_dir, vhdx};

/// Writes a chain under the names by which it is linked: `0.vhdx`, its parent `1.vhdx` and so on.
fn write(folder: &Path, chain: &[&Image]) -> PathBuf {
    for (layer, image) in chain.iter().enumerate() {
        image.bytes.write_file(&folder.join(format!("{layer}.vhdx"))).unwrap();
    }
    folder.join("0.vhdx")
}

/// Content of a chain, with zeros for lost ranges.
fn content_without(chain: &[&Image], lost: &[(u64, u64)]) -> Vec<u8> {
    let content = Expected::of(chain);
    let mut bytes = content.read(0..content.size());
    lost.iter().for_each(|(start, length)| bytes[size(*start)..size(start + length)].fill(0));
    bytes
}

/// A loss: start, length, beginning of its reason after the file name, and layer.
type Lost<'a> = (u64, u64, &'a str, u64);

/// Salvages a chain with all four commands, and checks that they lose exactly this.
#[track_caller]
fn salvages(path: &Path, more: &[&str], whole: &[&Image], expected: &[Lost<'_>], code: i32) {
    let (ran, bytes, losses) = extract(path, more);
    assert_eq!(ran.status.code(), Some(code), "{}", ran.err);
    let report: Vec<(u64, u64)> = expected.iter().map(|(start, length, ..)| (*start, *length)).collect();
    assert_eq!(ranges(&losses), report, "{losses:#}");
    for (loss, (.., reason, layer)) in losses["losses"].as_array().unwrap().iter().zip(expected) {
        let text = loss["reason"].as_str().unwrap();
        // In a parent, the reason begins with the name of its file.
        let text =
            text.strip_prefix(&format!("layer {layer} (")).map_or(text, |named| named.split_once("): ").unwrap().1);
        assert!(text.starts_with(reason) && loss["layer"] == *layer, "{loss:#}");
    }
    let remaining = content_without(whole, &report);
    assert!(bytes == remaining, "other bytes");
    let with = |command: &str| {
        let map = path.with_extension("again");
        let ran = run(vhdx([command, "--salvage", "--loss-map"]).arg(&map).args(more).arg(path));
        assert_eq!(ran.status.code(), Some(code), "{command}: {}", ran.err);
        let again = loss_map(&map);
        assert_eq!(again["losses"], losses["losses"], "{command}");
        ran.text()
    };
    with("info");
    let map = with("map");
    assert_eq!(map.contains("LOST"), !report.is_empty(), "{map}");
    let hashed = with("hash");
    let sha = crate::support::hex(&<sha2::Sha256 as sha2::Digest>::digest(&remaining));
    assert!(hashed.trim_end().ends_with(&sha), "{hashed}");
}

#[test]
fn salvage_truncated_block_keeps_sectors_of_parent() {
    let folder = temp_dir();
    let base = Spec::default().build();
    let child = Spec::child_of(&Spec::default(), "1.vhdx")
        .block(0, Block::partial(&[0..100, 1000..1500, 1600..1601, 2047..2048]))
        .block(2, Block::full())
        .block(5, Block::partial(&sectors(8..16)));
    // The partially present block is the last one in the file.
    let child = Spec { order: vec![Slot::Bitmap(0), Slot::Block(2), Slot::Block(5), Slot::Block(0)], ..child }.build();
    let place = child.block_at(0);
    assert_eq!(place + MIB, child.bytes.len());
    let path = write(folder.path(), &[&cut(&child, place + 1200 * 512 + 7), &base]);
    let lost = [
        (1200 * 512 + 7, 300 * 512 - 7, "payload block 0 at", 0),
        (1600 * 512, 512, "payload block 0 at", 0),
        (2047 * 512, 512, "payload block 0 at", 0),
    ];
    salvages(&path, &[], &[&child, &base], &lost, 65);
    // Nothing of the child is lost if the file ends after its last sector but one: the parent has the last one.
    let path = write(folder.path(), &[&cut(&child, place + 2047 * 512), &base]);
    salvages(&path, &[], &[&child, &base], &lost[2..], 65);
}

#[test]
fn salvage_damaged_parent_loses_only_its_own_blocks() {
    let folder = temp_dir();
    let [top, middle, base] = chain_of_three(3 * MIB).map(|spec| spec.build());
    let whole = [&top, &middle, &base];
    let broken = |image: &Image, entry: u64, value: u64| {
        let mut image = image.clone();
        image.set_bat(entry, value);
        image
    };
    let sector = |from: u64, to: u64, reason, layer| (from * 512, (to - from) * 512, reason, layer);
    // The first block of the base, which covers two blocks of its children, has a reserved state.
    let path = write(folder.path(), &[&top, &middle, &broken(&base, 0, 5)]);
    let entry = "BAT entry of payload block 0 at";
    let lost = [
        sector(200, 1000, entry, 2),
        sector(1500, 2040, entry, 2),
        sector(2048, 2048 + 16, entry, 2),
        sector(2048 + 17, 4096, entry, 2),
    ];
    salvages(&path, &[], &whole, &lost, 65);
    // The second block of the base, of which the children need the first half only.
    let path = write(folder.path(), &[&top, &middle, &broken(&base, 1, 5)]);
    salvages(&path, &[], &whole, &[sector(4096, 6144, "BAT entry of payload block 1 at", 2)], 65);
    // A block of the middle is past the end of the file: what the top holds itself, and what it does not need, remains.
    let path = write(folder.path(), &[&top, &broken(&middle, 0, (1 << 40) | 7), &base]);
    let block = "payload block 0 at";
    let lost = [sector(0, 50, block, 1), sector(1000, 1500, block, 1)];
    salvages(&path, &[], &whole, &lost, 65);
    // Its sector bitmap is lost, and with it all sectors that the top does not hold.
    let bitmap = middle.geometry.bitmap_index(0);
    let path = write(folder.path(), &[&top, &broken(&middle, bitmap, 0), &base]);
    let entry = "BAT entry of sector bitmap block 0 at";
    salvages(&path, &[], &whole, &[sector(0, 50, entry, 1), sector(200, 2040, entry, 1)], 65);
}

#[test]
fn salvage_commands_agree_on_truncated_parent() {
    let folder = temp_dir();
    for bat_offset in [3 * MIB, 12 * MIB] {
        let built = chain_of_three(bat_offset).map(|spec| spec.build());
        let whole: Vec<&Image> = built.iter().collect();
        let (base, middle) = (&built[2], &built[1]);
        for (layer, length) in [
            (2, base.block_at(1) + MIB / 2),
            (2, base.block_entry_at(1) + 3),
            (1, middle.block_at(0) + 50 * 512 + 9),
            (1, middle.block_entry_at(3) + 7),
            (0, built[0].block_entry_at(5) + 4),
        ] {
            let short = cut(whole[layer], length);
            let mut chain = whole.clone();
            chain[layer] = &short;
            let content = Expected::of(&whole);
            let expected = lost(&chain, 0..content.size());
            assert!(!expected.is_empty());
            let path = write(folder.path(), &chain);
            let (ran, bytes, losses) = extract(&path, &[]);
            assert_eq!(ran.status.code(), Some(65), "{layer} {length:#x}: {}", ran.err);
            let covers =
                |range: &Range<u64>, (start, length): (u64, u64)| range.start <= start && start + length <= range.end;
            // A loss with another reason is listed separately.
            let report = ranges(&losses);
            assert!(report.iter().all(|loss| expected.iter().any(|range| covers(range, *loss))), "{losses:#}");
            let sum: u64 = report.iter().map(|(_, length)| length).sum();
            assert_eq!(sum, expected.iter().map(|range| range.end - range.start).sum::<u64>(), "{losses:#}");
            assert_eq!(losses["lost-bytes"], sum);
            assert!(bytes == content_without(&whole, &report), "{layer} {length:#x}");
            let map = path.with_extension("again");
            let ran = run(vhdx(["map", "--salvage", "--output", "json", "--loss-map"]).arg(&map).arg(&path));
            assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
            let again = loss_map(&map);
            assert_eq!(again["losses"], losses["losses"]);
            let extents = ran.json();
            let is_lost = |extent: &&Value| extent["state"] == "LOST";
            let lengths = extents.as_array().unwrap().iter().filter(is_lost).map(|extent| extent["length"].as_u64());
            assert_eq!(lengths.map(Option::unwrap).sum::<u64>(), sum, "{extents:#}");
        }
    }
}

#[test]
fn salvage_accepts_given_parent_without_identity() {
    let folder = temp_dir();
    let base = Spec::default().build();
    let child = Spec::child_of(&Spec::default(), "1.vhdx").block(1, Block::full()).build();
    let other = Spec { seed: 9, data_write_guid: Uuid::from_u128(77), ..Spec::default() }.build();
    let patched = |image: &Image, patch: &dyn Fn(&mut Image)| {
        let mut image = image.clone();
        patch(&mut image);
        image
    };
    let no_headers = |image: &mut Image| {
        image.patch_header_raw(1, 0, &[0; 80]);
        image.patch_header_raw(2, 0, &[0; 80]);
    };
    let no_linkage = patched(&child, &|image| image.bytes.write(image.item_at(PARENT_LOCATOR), &[0; 20]));
    let parent = folder.path().join("1.vhdx");
    let parent = parent.to_str().unwrap();
    let second = folder.path().join("2.vhdx");
    let second = second.to_str().unwrap();
    let named = ["--parents", "none", "--parent", parent];
    let with_other = [&named[..], &["--parent", second]].concat();
    let none: &[Lost<'_>] = &[];
    // A block that the child holds, and one that it does not.
    let missing = |reason, layer| [(0, MIB, reason, layer), (2 * MIB, 6 * MIB, reason, layer)];
    let (no_header, no_parent, no_locator) =
        (missing("headers: ", 1), missing("parent: ", 0), missing("parent locator at", 0));
    let signature = patched(&base, &|image| image.bytes.write(0, &[0; 8]));
    let headers = patched(&base, &no_headers);
    let identity = patched(&base, &|image| image.patch_headers(32, &[7; 16]));
    type Row<'a> = (&'a str, &'a Image, &'a Image, &'a [&'a str], &'a [Lost<'a>], i32);
    let rows: [Row<'_>; 10] = [
        // The identity is still intact.
        ("signature", &child, &signature, &named, none, 0),
        ("signature, searched", &child, &signature, &[], none, 0),
        ("headers", &child, &headers, &named, none, 65),
        ("headers, and another one", &child, &headers, &with_other, none, 65),
        // A parent without identity is not accepted if it was only found.
        ("headers, searched", &child, &headers, &[], &no_header, 65),
        ("identity", &child, &identity, &named, none, 65),
        ("identity, searched", &child, &identity, &[], &no_parent, 65),
        // Two candidates with the right identity are ambiguous.
        ("identity, and another one", &child, &identity, &with_other, &no_parent, 65),
        ("linkage", &no_linkage, &base, &named, none, 65),
        ("linkage, searched", &no_linkage, &base, &[], &no_locator, 65),
    ];
    for (what, child_file, parent_file, more, lost, code) in rows {
        let path = write(folder.path(), &[child_file, parent_file, &other]);
        salvages(&path, more, &[&child, &base], lost, code);
        let ran = extract(&path, more).0;
        let is_reported = ran.err.contains("identity not verified: used because the caller named it");
        assert_eq!(is_reported, lost.is_empty() && code == 65, "{what}: {}", ran.err);
    }
}

#[test]
fn salvage_assumed_block_size_keeps_parent() {
    let folder = temp_dir();
    let base = Spec::default().build();
    let mut spec = Spec::child_of(&Spec::default(), "1.vhdx").block(1, Block::full()).block(2, Block::zero());
    let whole = spec.build();
    spec.omit(FILE_PARAMETERS);
    let path = write(folder.path(), &[&spec.build(), &base]);
    salvages(&path, &["--assume", "block-size=1M"], &[&whole, &base], &[], 65);
}
