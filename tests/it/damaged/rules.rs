//! What a check tells of an image, through the library. Each rule has its row in `table`, which is with the tests of the command.

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
    assert!(error.to_string().contains("damaged, and was the current header"), "{error}");
}
