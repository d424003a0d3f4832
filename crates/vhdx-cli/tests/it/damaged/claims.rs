//! Structures that claim too much or lack something, in files whose other structures show what is right.

use std::path::Path;

use uuid::Uuid;

use super::salvage::{extract, ranges};
use crate::kit::builder::{BAT_REGION, FILE_PARAMETERS, Image, METADATA_REGION, Region, Spec};
use crate::kit::log::{Descriptor, Entry, Journal, Old};
use crate::kit::{Block, MIB, PAGE};
use crate::lab::{Expected, assert_reads, run as sectors, size};
use crate::support::{Ran, loss_map, run, temp_dir, vhdx};

fn check(path: &Path) -> Ran {
    run(vhdx(["check"]).arg(path))
}

#[test]
fn unreadable_header_may_have_been_current() {
    let folder = temp_dir();
    let path = folder.path().join("image.vhdx");
    // Only the log holds the BAT, and only the current header refers to the log.
    let mut dirty = Spec::default().build();
    dirty.log_only(&[3 * MIB], Old::Zero);
    let current = dirty.current_header();
    dirty.patch_header(3 - current, 48, &[0; 16]);
    assert_reads(&[&dirty]);
    let damages: [(u64, &[u8]); 4] = [(0, &[0x5a; 4096]), (0, &[0; 512]), (8, &[0; 8]), (48, &[0xee])];
    for (at, damage) in damages {
        let mut image = dirty.clone();
        image.patch_header_raw(current, at, damage);
        image.bytes.write_file(&path).unwrap();
        let report = check(&path);
        let finding = format!("unchecked: {}: header {current} at ", path.display());
        assert!(report.text().contains(&finding) && report.status.code() == Some(1), "{at}: {}", report.text());
        let (ran, ..) = extract(&path, &[]);
        assert!(ran.status.code() == Some(65) && ran.err.contains("may be stale"), "{at}: {}", ran.err);
        let ran = run(vhdx(["hash"]).arg(&path));
        let warns = ran.err.contains("damaged, and may have been the current header");
        assert!(ran.status.code() == Some(0) && warns, "{at}: {}", ran.err);
    }
    // A log whose changes are in the file already loses nothing.
    for (change, code) in [(0, 0), (1, 1), (2, 1)] {
        let mut image = Spec::default().build();
        let mut page = image.bytes.read(3 * MIB + PAGE, size(PAGE));
        page[100] ^= u8::from(change == 1);
        // Without this, the entries of the last log would be in its place.
        let zeros = Descriptor::Zero(3 * MIB + if change == 2 { 0 } else { 2 * PAGE }, PAGE);
        let mut journal = Journal::new(0, 1);
        // Older changes of the same pages do not count.
        let older =
            [Descriptor::Data(3 * MIB + PAGE, vec![7; 4096]), Descriptor::Data(3 * MIB + 2 * PAGE, vec![7; 4096])];
        journal.append(&mut image, &older);
        journal.append(&mut image, &[zeros, Descriptor::Data(3 * MIB + PAGE, page)]);
        image.patch_header_raw(3 - image.current_header(), 0, &[0; 4096]);
        image.bytes.write_file(&path).unwrap();
        let report = check(&path);
        assert_eq!(report.status.code(), Some(code), "{change}: {}", report.text());
    }
}

#[test]
fn damaged_header_matters_only_if_it_could_be_current() {
    let folder = temp_dir();
    let path = folder.path().join("image.vhdx");
    // Both the older and the newer session left a log; only the newer log holds the BAT.
    let (older, newer) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut image = Spec::default().build();
    let logged = image.unapply(&[3 * MIB], Old::Zero);
    let entry = |guid, start: u32, changes: &[Descriptor]| Entry {
        descriptors: changes.to_vec(),
        ..Entry::new(guid, 9, start)
    };
    image.put_entry(0, &entry(older, 0, &[Descriptor::Data(3 * MIB, vec![0; size(PAGE)])]));
    image.put_entry(0x8000, &entry(newer, 0x8000, &logged));
    let current = image.current_header();
    image.patch_header(3 - current, 48, &older.to_bytes_le());
    image.patch_header(current, 48, &newer.to_bytes_le());
    assert_reads(&[&image]);
    for (at, damage, code) in [(4000, &[1][..], 2), (0, &[0; 4096], 1)] {
        let mut damaged = image.clone();
        damaged.patch_header_raw(current, at, damage);
        damaged.bytes.write_file(&path).unwrap();
        let report = check(&path);
        assert!(report.status.code() == Some(code) && report.text().contains("[V5]"), "{at}: {}", report.text());
        assert_eq!(extract(&path, &[]).0.status.code(), Some(65), "{at}");
    }
    // The newer session is complete except for its header: replaying the older log would undo it.
    let mut over = image.clone();
    over.put_entry(0, &entry(older, 0, &[Descriptor::Data(3 * MIB, vec![7; size(PAGE)])]));
    let Some(Descriptor::Data(at, page)) = logged.first() else { panic!("no page") };
    over.bytes.write(*at, page);
    for (number, damage) in [(4000, &[1][..]), (0, &[0; 4096])] {
        for guid in [newer, Uuid::nil()] {
            let mut damaged = over.clone();
            damaged.patch_header(current, 48, &guid.to_bytes_le());
            damaged.patch_header_raw(current, number, damage);
            damaged.bytes.write_file(&path).unwrap();
            let report = check(&path);
            let is_doubted = report.text().contains("may have been the current header");
            assert!(is_doubted, "{number} {guid}: {}", report.text());
            assert_eq!(extract(&path, &[]).0.status.code(), Some(65), "{number} {guid}");
        }
    }
    // A byte of the older header is wrong: of its sequence number, so that it looks newer, or of another field.
    for (at, code) in [(15, 65), (0, 0), (60, 0), (4000, 0)] {
        let mut damaged = image.clone();
        // All changes of its log are in the file.
        damaged.put_entry(0, &entry(older, 0, &[Descriptor::Data(3 * MIB + PAGE, vec![0; 4096])]));
        damaged.patch_header_raw(3 - current, at, &[0x7f]);
        damaged.bytes.write_file(&path).unwrap();
        let (ran, bytes, _) = extract(&path, &[]);
        let content = Expected::of(&[&Spec::default().build()]).read(0..8 * MIB);
        assert!(ran.status.code() == Some(code) && bytes == content, "{at}: {}", ran.err);
        assert!(check(&path).text().contains("warning: "), "{at}");
        // If the log of the other header has been replayed, it does not matter which header counts.
        damaged.patch_header(current, 48, &[0; 16]);
        damaged.bytes.write(3 * MIB, page);
        damaged.put_entry(0x8000, &entry(newer, 0x8000, &[]));
        damaged.bytes.write_file(&path).unwrap();
        assert_eq!(extract(&path, &[]).0.status.code(), Some(0), "{at}");
    }
}

#[test]
fn oversized_regions_and_logs_lose_no_blocks() {
    let folder = temp_dir();
    let path = folder.path().join("image.vhdx");
    let patched = |patch: &dyn Fn(&mut Image)| {
        let mut image = Spec::default().build();
        patch(&mut image);
        image
    };
    let longer = |region: Uuid| {
        patched(&|image: &mut Image| {
            let at = image.region_entry_at(1, region) - Image::region_table_at(1);
            image.patch_region_tables(at + 24, &(9_u32 << 20).to_le_bytes());
        })
    };
    let unknown = Region { guid: Uuid::from_u128(7), offset: 8 * MIB, length: 3 << 20, required: 0 };
    let mut over_blocks = Spec { extra_regions: vec![unknown.clone()], ..Spec::default() }.build();
    let at = over_blocks.region_entry_at(1, unknown.guid) - Image::region_table_at(1);
    over_blocks.patch_region_tables(at + 16, &(4 * MIB).to_le_bytes());
    let cases = [
        ("BAT", longer(BAT_REGION)),
        ("metadata", longer(METADATA_REGION)),
        ("unknown region", over_blocks),
        ("unused log", patched(&|image| image.patch_headers(72, &(4 * MIB).to_le_bytes()))),
    ];
    let content = Expected::of(&[&Spec::default().build()]).read(0..8 * MIB);
    for (what, image) in cases {
        image.bytes.write_file(&path).unwrap();
        let (ran, bytes, losses) = extract(&path, &[]);
        assert_eq!((ran.status.code(), ranges(&losses)), (Some(65), vec![]), "{what}: {}", ran.err);
        assert!(bytes == content, "{what}");
        // Without --salvage, nothing is guessed.
        assert_eq!(run(vhdx(["hash"]).arg(&path)).status.code(), Some(65), "{what}");
        assert_eq!(check(&path).status.code(), Some(2), "{what}");
    }
}

#[test]
fn salvage_child_without_parent_flag_uses_its_parent() {
    let folder = temp_dir();
    let [child, parent] = ["child.vhdx", "parent.vhdx"].map(|name| folder.path().join(name));
    let base = Spec::default();
    let spec = || Spec::child_of(&base, "parent.vhdx").block(1, Block::partial(&sectors(0..8))).block(3, Block::full());
    let (whole, base) = (spec().build(), base.build());
    base.bytes.write_file(&parent).unwrap();
    let content = Expected::of(&[&whole, &base]).read(0..8 * MIB);

    // The flag is lost, but the locator is intact.
    let mut image = whole.clone();
    let at = image.item_at(FILE_PARAMETERS) + 4;
    image.bytes.write(at, &[0]);
    image.bytes.write_file(&child).unwrap();
    let (ran, bytes, losses) = extract(&child, &[]);
    assert_eq!((ran.status.code(), ranges(&losses)), (Some(65), vec![]), "{}", ran.err);
    assert!(bytes == content && ran.err.contains("HasParent"), "{}", ran.err);
    // Without the parent, the image is read by its flag.
    let (ran, bytes, _) = extract(&child, &["--parents", "none"]);
    assert_eq!((ran.status.code(), bytes == content), (Some(65), false), "{}", ran.err);

    // All metadata is lost; the sizes and the parent are given.
    let mut image = whole;
    image.bytes.write(2 * MIB, &vec![0; size(MIB)]);
    image.bytes.write_file(&child).unwrap();
    let sizes = ["block-size=1M", "disk-size=8M", "sector-size=512"];
    let mut more: Vec<&str> = sizes.iter().flat_map(|size| ["--assume", size]).collect();
    more.extend(["--parent", parent.to_str().unwrap()]);
    let (ran, bytes, losses) = extract(&child, &more);
    assert_eq!((ran.status.code(), ranges(&losses)), (Some(65), vec![]), "{}", ran.err);
    assert!(bytes == content, "{}", ran.err);
}

#[test]
fn loss_map_escapes_control_characters() {
    let folder = temp_dir();
    let path = folder.path().join("a\u{9b}\u{202e}\u{e0041}.vhdx");
    Spec { raw_bat: [(2, 5)].into(), ..Spec::default() }.build().bytes.write_file(&path).unwrap();
    let map = folder.path().join("map");
    let ran = run(vhdx(["map", "--salvage", "--loss-map"]).arg(&map).arg(&path));
    assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
    let text = std::fs::read_to_string(&map).unwrap();
    assert!(text.is_ascii(), "{text}");
    assert_eq!(loss_map(&map)["filename"], path.to_str().unwrap());
}
