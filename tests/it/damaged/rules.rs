//! Checks of images through the library. The tests of the command have a row for each rule in `table`.

use vhdx_mmap::ops::{self, CheckOptions, CheckReport};
use vhdx_mmap::{OpenOptions, Severity};

use crate::kit::builder::{Image, LOGICAL_SECTOR, Spec};
use crate::kit::log::Dirty;
use crate::kit::{Block, GIB, MIB};
use crate::lab::source;

use Severity::{Corruption, Leak, Unchecked, Warning};

fn check(image: &Image) -> CheckReport {
    ops::check(source(image), &CheckOptions::new(OpenOptions::new()).payload(true)).unwrap()
}

/// Returns the codes that were found, with their severities and counts.
fn codes(report: &CheckReport) -> Vec<(&'static str, Severity, u64)> {
    report.counts.iter().map(|((check, severity), count)| (check.code(), *severity, *count)).collect()
}

/// Makes a default image with some BAT entries replaced.
fn with_bat(entries: &[(u64, u64)]) -> Image {
    let mut spec = Spec::default();
    spec.raw_bat.extend(entries.iter().copied());
    spec.build()
}

#[test]
fn valid_image_has_no_findings() {
    for image in [Spec::default().build(), Spec::empty(GIB).build(), Spec::default().block(7, Block::full()).build()] {
        let report = check(&image);
        assert_eq!(codes(&report), [], "{:?}", report.findings);
        assert_eq!((report.worst(), report.is_vhdx, report.leaked_bytes), (None, true, 0));
    }
    let report = check(&Spec::default().build());
    assert_eq!((report.blocks, report.allocated_blocks, report.fragmented_blocks), (8, 3, 0));
    assert_eq!(report.image_end, Some(7 * MIB));
}

#[test]
fn finding_about_block_has_its_range() {
    let report = check(&with_bat(&[(2, 6), (7, 5)]));
    let ranges: Vec<_> = report.findings.iter().filter_map(|finding| finding.range.clone()).collect();
    assert_eq!(ranges, [2 * MIB..3 * MIB, 7 * MIB..8 * MIB]);
    let offsets: Vec<_> = report.findings.iter().map(|finding| finding.detail.offset()).collect();
    assert_eq!(offsets[1], Some(3 * MIB + 7 * 8));
}

#[test]
fn findings_are_limited_but_counted() {
    let mut spec = Spec::empty(64 * GIB);
    for number in 0..5000 {
        spec.raw_bat.insert(number + number / 4096, (1 << 50) | 6);
    }
    let report = check(&spec.build());
    assert_eq!(codes(&report), [("V68", Corruption, 5000)]);
    assert_eq!(report.findings.len(), 100);
    // Each of them shares its space with the first.
    let mut spec = Spec::empty(64 * GIB).block(0, Block::full().at(4 * MIB));
    for number in 1..5000 {
        spec.raw_bat.insert(number + number / 4096, (4 * MIB) | 6);
    }
    let report = check(&spec.build());
    assert_eq!(codes(&report), [("V69", Corruption, 5000)]);
    let texts: Vec<String> = report.findings.iter().map(|finding| finding.detail.to_string()).collect();
    assert_eq!(texts.len(), 100);
    assert!(
        texts[0].starts_with("payload block 0 at 0x400000: ") && texts[0].contains("payload block 1"),
        "{}",
        texts[0]
    );
    assert!(texts[99].starts_with("payload block 99 at ") && texts[99].contains("payload block 0"), "{}", texts[99]);
}

#[test]
fn missing_metadata_items_are_named() {
    let mut spec = Spec::default();
    spec.omit(LOGICAL_SECTOR);
    let report = check(&spec.build());
    assert_eq!(codes(&report), [("V44", Corruption, 1)]);
    assert!(report.findings[0].to_string().contains("LogicalSectorSize"));
    assert_eq!(report.image_end, None);
}

#[test]
fn log_is_checked_entry_by_entry() {
    for dirty in Dirty::ALL {
        let report = check(&dirty.build(&Spec::default()));
        if let Dirty::Growth = dirty {
            // A block that is missing in the file: the file may have been truncated.
            assert!(codes(&report).contains(&("V24", Unchecked, 1)), "{:?}", report.findings);
        } else {
            assert!(report.worst() <= Some(Leak), "{dirty:?}: {:?}", report.findings);
        }
    }
}

#[test]
fn damaged_current_header_of_dirty_image_is_detected() {
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
    assert!(error.to_string().contains("damaged, and was the current header"), "{error}");
}
