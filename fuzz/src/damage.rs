//! Checks and salvages of images with changes in their structures: a check finds every problem that prevents reading an
//! image, and a salvage returns what is left and no more.

use vhdx_mmap::ops::{self, CheckOptions};
use vhdx_mmap::{Disk, Error, ErrorKind, Segment, Severity, Strictness};

use crate::bases::policies;
use crate::read::{Input, with_changes};

/// Returns the first error in reading a disk.
fn first_error(disk: &Result<Disk, Error>) -> Option<String> {
    match disk {
        Ok(disk) => disk.segments(..).take(100_000).find_map(Result::err).map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

/// Asserts that a check agrees with reading.
pub fn check(input: &Input) {
    with_changes(input, |base, input| {
        let options = base.options(policies(input.ignores_log).0);
        let report = ops::check(base.scratch.source(), &CheckOptions::new(options.clone()).payload(true))
            .expect("the check was not cancelled");
        for finding in &report.findings {
            assert!(finding.to_string().ends_with(&format!("[{}]", finding.rule.code())));
        }
        let counted: u64 = report.counts.values().sum();
        assert!(counted >= report.findings.len() as u64 && report.allocated_blocks <= report.blocks);
        let disk = Disk::open(base.scratch.source(), &options);
        if let Some(error) = first_error(&disk) {
            assert!(report.worst() >= Some(Severity::Unchecked), "the check finds nothing, but: {error}");
        }
    });
}

/// Asserts that a salvage never returns other bytes than reading, and never more than exist.
pub fn salvage(input: &Input) {
    with_changes(input, |base, input| {
        let options = base.options(policies(input.ignores_log).0);
        let disk = Disk::open(base.scratch.source(), &options);
        let salvaged = Disk::open(base.scratch.source(), &options.strictness(Strictness::Salvage));
        let salvaged = match (&disk, salvaged) {
            (Ok(_), Err(error)) => panic!("it can be opened, but not to be salvaged: {error}"),
            (Err(_), Err(_)) => return,
            (_, Ok(salvaged)) => salvaged,
        };
        let mut at = 0;
        for segment in salvaged.segments(..).take(100_000) {
            at += segment.as_ref().map(Segment::len).expect("a salvage has no errors");
        }
        assert!(at <= salvaged.size());
        let mut before = 0;
        for loss in salvaged.losses(..).take(100_000) {
            let range = loss.range;
            assert!(before <= range.start && range.start < range.end && range.end <= salvaged.size(), "{range:x?}");
            assert!(!loss.reason.to_string().is_empty());
            before = range.end;
        }
        let Ok(disk) = disk else { return };
        assert_eq!(disk.size(), salvaged.size());
        let is_disputed = |error: &Error| {
            matches!(error.kind(), ErrorKind::Overlap { .. }) && !ops::shared_blocks(&salvaged).is_empty()
        };
        for at in (0..disk.size().min(64 << 20)).step_by(64 << 10) {
            let length = (disk.size() - at).min(64 << 10) as usize;
            let (mut found, mut expected) = (vec![0xA5; length], vec![0x5A; length]);
            salvaged.read_at(&mut found, at).expect("a salvage has no errors");
            let is_lost = || salvaged.losses(at..at + length as u64).next().is_some();
            match disk.read_at(&mut expected, at) {
                Ok(_) => assert!(found == expected, "another byte is salvaged at {at:#x}"),
                // Blocks that only overlap a claimed structure are read, and reported.
                Err(error) => assert!(is_lost() || is_disputed(&error), "not lost at {at:#x}, but: {error}"),
            }
        }
    });
}
