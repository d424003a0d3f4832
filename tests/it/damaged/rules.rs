//! One rule is broken, and the check says which one, how bad that is, and where.

use uuid::Uuid;
use vhdx_mmap::ops::{self, CheckOptions, CheckReport};
use vhdx_mmap::{OpenOptions, Severity};

use crate::kit::builder::{BAT_REGION, FileLength, Image, Item, LOGICAL_SECTOR, METADATA_REGION, Region, Spec};
use crate::kit::log::Dirty;
use crate::kit::{Block, GIB, KIB, MIB};
use crate::lab::{parents_of, run, source};

use Severity::{Corruption, Leak, Note, Unchecked, Unsupported, Warning};

fn check_chain(chain: &[&Image]) -> CheckReport {
    let open = OpenOptions::new().parents(parents_of(chain));
    ops::check(source(chain[0]), &CheckOptions::new(open).payload(true)).unwrap()
}

fn check(image: &Image) -> CheckReport {
    check_chain(&[image])
}

/// The codes found, with their severities and counts.
fn codes(report: &CheckReport) -> Vec<(&'static str, Severity, u64)> {
    report.counts.iter().map(|((check, severity), count)| (check.code(), *severity, *count)).collect()
}

/// A default image with entries of its BAT replaced.
fn with_bat(entries: &[(u64, u64)]) -> Image {
    let mut spec = Spec::default();
    spec.raw_bat.extend(entries.iter().copied());
    spec.build()
}

fn patched(patch: impl FnOnce(&mut Image)) -> Image {
    let mut image = Spec::default().build();
    patch(&mut image);
    image
}

#[test]
fn an_image_in_order_has_nothing_to_tell() {
    for image in [Spec::default().build(), Spec::empty(GIB).build(), Spec::default().block(7, Block::full()).build()] {
        let report = check(&image);
        assert_eq!(codes(&report), [], "{:?}", report.findings);
        assert_eq!((report.worst(), report.is_vhdx, report.unreferenced), (None, true, 0));
    }
    let report = check(&Spec::default().build());
    assert_eq!((report.blocks, report.allocated_blocks, report.fragmented_blocks), (8, 3, 0));
    assert_eq!(report.image_end, Some(7 * MIB));
}

/// What is found, all of it: code, severity, how often.
type Found = &'static [(&'static str, Severity, u64)];

#[test]
fn every_breach_has_its_code_and_its_severity() {
    // The default image has its blocks at 4, 5 and 6 MiB, its BAT at 3 MiB.
    let place = |mib: u64| (mib * MIB) | 6;
    let rows: Vec<(&str, Image, Found)> = vec![
        ("identifier", patched(|image| image.bytes.write(0, b"vhdxfilE")), &[("V2", Corruption, 1)]),
        ("creator", patched(|image| image.bytes.write(8, &[0, 0xd8])), &[("V3", Note, 1)]),
        ("creator's end", patched(|image| image.bytes.write(400, b"x")), &[("N3", Note, 1)]),
        (
            "both headers",
            patched(|image| {
                image.patch_header_raw(1, 100, b"x");
                image.patch_header_raw(2, 100, b"x");
            }),
            // Nobody knows where the log is.
            &[("V4", Corruption, 1), ("L1", Note, 1)],
        ),
        ("one header", patched(|image| image.patch_header_raw(1, 100, b"x")), &[("V5", Warning, 1)]),
        ("equal numbers", patched(|image| image.patch_headers(8, &[9, 0, 0, 0, 0, 0, 0, 0])), &[("V6", Note, 1)]),
        ("version", patched(|image| image.patch_headers(66, &[2, 0])), &[("V7", Unsupported, 1)]),
        ("log version", patched(|image| image.patch_headers(64, &[1, 0])), &[("V9", Note, 1)]),
        ("reserved", patched(|image| image.patch_header(1, 200, b"x")), &[("V14", Note, 1)]),
        ("no sequence", patched(|image| image.patch_headers(48, &[1; 16])), &[("V15", Corruption, 1)]),
        (
            "both region tables",
            patched(|image| {
                image.patch_region_table_raw(1, 300, b"x");
                image.patch_region_table_raw(2, 300, b"x");
            }),
            &[("V25", Corruption, 1), ("N1", Note, 1)],
        ),
        ("one region table", patched(|image| image.patch_region_table_raw(2, 300, b"x")), &[("V26", Warning, 1)]),
        ("region reserved", patched(|image| image.patch_region_tables(12, &[1])), &[("V28", Note, 1)]),
        (
            "region unknown",
            Spec {
                extra_regions: vec![Region { guid: Uuid::from_u128(7), offset: 7 * MIB, length: 1 << 20, required: 1 }],
                ..Spec::default()
            }
            .build(),
            &[("V35", Unsupported, 1)],
        ),
        (
            "regions that overlap",
            Spec {
                extra_regions: vec![Region { guid: Uuid::from_u128(7), offset: MIB, length: 1 << 20, required: 0 }],
                ..Spec::default()
            }
            .build(),
            &[("V33", Corruption, 1), ("V35", Note, 1)],
        ),
        ("metadata table", patched(|image| image.bytes.write(2 * MIB, b"M")), &[("V37", Corruption, 1)]),
        ("metadata reserved", patched(|image| image.bytes.write(2 * MIB + 8, b"x")), &[("V39", Note, 1)]),
        ("file parameters", Spec { more_flags: 8, ..Spec::default() }.build(), &[("V47", Note, 1)]),
        ("physical size", Spec { physical_sector_size: 7, ..Spec::default() }.build(), &[("V49", Note, 1)]),
        ("disk size", Spec { disk_size: 8 * MIB - 100, ..Spec::default() }.build(), &[("V51", Corruption, 1)]),
        ("empty", Spec::empty(0).build(), &[("V52", Warning, 1)]),
        ("reserved bits", with_bat(&[(2, place(5) | 8)]), &[("V64", Note, 1)]),
        ("state 5", with_bat(&[(2, (5 * MIB) | 5)]), &[("V65", Corruption, 1), ("L1", Leak, 1)]),
        ("partial", with_bat(&[(2, (5 * MIB) | 7)]), &[("V66", Corruption, 1), ("L1", Leak, 1)]),
        ("no place", with_bat(&[(2, 6)]), &[("V67", Corruption, 1), ("L1", Leak, 1)]),
        ("far away", with_bat(&[(2, place(1 << 20))]), &[("V68", Corruption, 1), ("L1", Leak, 1)]),
        ("on the BAT", with_bat(&[(2, place(3))]), &[("V69", Corruption, 1), ("L1", Leak, 1)]),
        ("shared", with_bat(&[(2, place(4))]), &[("V69", Corruption, 2), ("L1", Leak, 1)]),
        ("ghost", with_bat(&[(2, (5 * MIB) | 2)]), &[("V73", Note, 1), ("L1", Leak, 1)]),
        (
            "a zero slot",
            Spec { file_length: FileLength::Exact(8 * MIB), ..Spec::default() }.build(),
            &[("L1", Note, 1)],
        ),
        ("forgotten", with_bat(&[(2, 0)]), &[("L1", Leak, 1)]),
        ("rest of the header section", patched(|image| image.bytes.write(700 * KIB, b"x")), &[("N1", Note, 1)]),
        ("behind the items", patched(|image| image.bytes.write(2 * MIB + 900 * KIB, b"x")), &[("N1", Note, 1)]),
        ("rest of the BAT", patched(|image| image.bytes.write(3 * MIB + 900 * KIB, b"x")), &[("N1", Note, 1)]),
        (
            "nil",
            Spec { data_write_guid: Uuid::nil(), file_write_guid: Uuid::nil(), ..Spec::default() }.build(),
            &[("N4", Note, 2)],
        ),
        ("a zero block", patched(|image| image.bytes.write(4 * MIB, &vec![0; 1 << 20])), &[("N5", Note, 1)]),
    ];
    let mut wrong = Vec::new();
    for (what, image, expected) in rows {
        let report = check(&image);
        let mut expected: Vec<_> = expected.iter().copied().filter(|(.., count)| *count > 0).collect();
        let mut found = codes(&report);
        expected.sort();
        found.sort();
        if found != expected {
            wrong.push(format!("{what}: {found:?}, expected {expected:?}: {:?}", report.findings));
        }
        // What is told is counted, and each says where it is in words.
        let told: u64 = report.counts.values().sum();
        assert_eq!(told, crate::lab::wide(report.findings.len()), "{what}");
        assert!(report.findings.iter().all(|finding| finding.to_string().ends_with(']')), "{what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_finding_about_a_block_says_which_bytes_of_the_disk_it_is_about() {
    let report = check(&with_bat(&[(2, 6), (7, 5)]));
    let ranges: Vec<_> = report.findings.iter().filter_map(|finding| finding.range.clone()).collect();
    assert_eq!(ranges, [2 * MIB..3 * MIB, 7 * MIB..8 * MIB]);
    let offsets: Vec<_> = report.findings.iter().map(|finding| finding.detail.offset()).collect();
    assert_eq!(offsets[1], Some(3 * MIB + 7 * 8));
}

#[test]
fn of_many_findings_of_a_kind_some_are_told_and_all_are_counted() {
    let mut spec = Spec::empty(64 * GIB);
    for number in 0..5000 {
        spec.raw_bat.insert(number + number / 4096, (1 << 50) | 6);
    }
    let report = check(&spec.build());
    assert_eq!(codes(&report), [("V68", Corruption, 5000)]);
    assert_eq!(report.findings.len(), 100);
    // Each of them shares its place with the first.
    let mut spec = Spec::empty(64 * GIB).block(0, Block::full().at(4 * MIB));
    for number in 1..5000 {
        spec.raw_bat.insert(number + number / 4096, (4 * MIB) | 6);
    }
    let report = check(&spec.build());
    assert_eq!(codes(&report), [("V69", Corruption, 5000)]);
    let told: Vec<String> = report.findings.iter().map(|finding| finding.detail.to_string()).collect();
    assert_eq!(told.len(), 100);
    assert!(told[0].starts_with("payload block 0 at 0x400000: ") && told[0].contains("payload block 1"), "{}", told[0]);
    assert!(told[99].starts_with("payload block 99 at ") && told[99].contains("payload block 0"), "{}", told[99]);
}

#[test]
fn what_metadata_lack_is_told_by_name() {
    let mut spec = Spec::default();
    spec.omit(LOGICAL_SECTOR);
    let report = check(&spec.build());
    assert_eq!(codes(&report), [("V44", Corruption, 1)]);
    assert!(report.findings[0].to_string().contains("LogicalSectorSize"));
    assert_eq!(report.image_end, None);
    let mut spec = Spec::default();
    spec.items.push(Item::new(Uuid::from_u128(5), 4, b"x"));
    assert_eq!(codes(&check(&spec.build())), [("V43", Unsupported, 1)]);
    for region in [BAT_REGION, METADATA_REGION] {
        let image = Spec::default().build();
        let mut regions = image.regions.clone();
        regions.retain(|known| known.guid != region);
        let report = check(&Spec { regions: Some(regions), ..Spec::default() }.build());
        assert_eq!(codes(&report), [("V34", Corruption, 1)]);
    }
}

#[test]
fn a_log_is_told_of_entry_by_entry() {
    for dirty in Dirty::ALL {
        let report = check(&dirty.build(&Spec::default()));
        if let Dirty::Growth = dirty {
            // A block of which the file has nothing: it may have been cut off.
            assert!(codes(&report).contains(&("V24", Unchecked, 1)), "{:?}", report.findings);
        } else {
            assert!(report.worst() <= Some(Leak), "{dirty:?}: {:?}", report.findings);
        }
    }
}

#[test]
fn the_current_header_of_a_dirty_image_is_missed_when_it_is_damaged() {
    let mut image = Dirty::ManyEntries.build(&Spec::default());
    let current = image.current_header();
    // The other one is from before the session: its log was empty then.
    image.patch_header(3 - current, 48, &[0; 16]);
    assert!(check(&image).worst() <= Some(Leak));
    image.patch_header_raw(current, 200, b"x");
    let report = check(&image);
    assert_eq!(codes(&report).first(), Some(&("V5", Warning, 1)), "{:?}", report.findings);
    assert!(codes(&report).contains(&("V5", Corruption, 1)), "{:?}", report.findings);
    let error = crate::lab::open_image(&image).unwrap_err();
    assert!(error.to_string().contains("it is damaged and was the current one"), "{error}");
}

#[test]
fn the_chain_is_part_of_the_check() {
    let base = Spec::default();
    let child = Spec::child_of(&base, "base.vhdx").block(1, Block::partial(&run(0..8)));
    let (child, base) = (child.build(), base.build());
    assert_eq!(codes(&check_chain(&[&child, &base])), []);
    // Without its parent, nothing is wrong with the child; only not all could be checked.
    let alone = ops::check(source(&child), &CheckOptions::new(OpenOptions::new())).unwrap();
    assert_eq!(codes(&alone), [("P1", Unchecked, 1)]);
    let other = Spec { data_write_guid: Uuid::from_u128(1), ..Spec::default() }.build();
    assert_eq!(codes(&check_chain(&[&child, &other])), [("V59", Corruption, 1)]);
    let small = Spec { disk_size: 4 * MIB, ..Spec::empty(4 * MIB) }.build();
    assert_eq!(codes(&check_chain(&[&child, &small])), [("V61", Warning, 1)]);
    let broken = Spec { raw_bat: [(2, 5)].into(), ..Spec::default() }.build();
    let report = check_chain(&[&child, &broken]);
    assert_eq!(codes(&report), [("V65", Corruption, 1), ("L1", Leak, 1)]);
    assert!(report.findings.iter().all(|finding| finding.detail.layer() == 1), "{:?}", report.findings);
}

#[test]
fn bitmaps_that_contradict_their_blocks_are_told() {
    let base = Spec::default().build();
    let child = || Spec::child_of(&Spec::default(), "base.vhdx").block(1, Block::partial(&run(0..8)));
    let report = |patch: &dyn Fn(&mut Image)| {
        let mut image = child().build();
        patch(&mut image);
        codes(&check_chain(&[&image, &base]))
    };
    let bits = |image: &mut Image, block: u64, value: u8| {
        let at = image.bitmap_at(0) + block * 256;
        image.bytes.write(at, &[value; 256]);
    };
    assert_eq!(report(&|image| bits(image, 1, 0xff)), [("N6", Note, 1)]);
    assert_eq!(report(&|image| bits(image, 1, 0)), [("N6", Note, 1)]);
    assert_eq!(report(&|image| bits(image, 3, 1)), [("N6", Note, 1)]);
    let bitmap = |image: &mut Image, value: u64| {
        let at = image.bitmap_entry_at(0);
        image.bytes.write(at, &value.to_le_bytes());
    };
    // An entry for a block that the disk does not have.
    assert_eq!(report(&|image| image.bytes.write(image.bitmap_entry_at(0) - 8, &[2])), [("N1", Note, 1)]);
    assert_eq!(report(&|image| bitmap(image, 0))[0], ("V72", Corruption, 1));
    assert_eq!(report(&|image| bitmap(image, (1 << 50) | 6))[0], ("V72", Corruption, 1));
    let shared = |image: &mut Image| {
        let place = image.block_at(1);
        bitmap(image, place | 6);
    };
    assert!(report(&shared).contains(&("V69", Corruption, 2)), "{:?}", report(&shared));
}
