//! Files that became shorter: every way to read them, many mappings, many threads.

use std::sync::Barrier;

use vhdx_mmap::{Segment, guard_mappings};

use super::{FIRST_BLOCK, WAYS, content, cut, dense, map, open, sum, touched_at};
use crate::kit::MIB;
use crate::lab::Rng;
use crate::support::temp_dir;

#[test]
fn truncated_file_is_an_error_with_offset_in_every_way() {
    let folder = temp_dir();
    for (name, way) in WAYS {
        // In the middle of a block, of a page, and of the table; after the headers; an empty file.
        for end in [FIRST_BLOCK + 5 * MIB + 4096, FIRST_BLOCK + 2 * MIB + 100, 3 * MIB, MIB, 0] {
            let path = dense(folder.path(), "disk.vhdx", 9);
            let disk = open(&path);
            way(&disk).unwrap_or_else(|error| panic!("{name}: {error}"));
            cut(&path, end);
            match way(&disk) {
                Err(error) => assert!(super::lost_at(&error) >= end, "{name}, {end:#x}: {error}"),
                Ok(()) => panic!("{name}, {end:#x}: nothing was noticed"),
            }
            let source = disk.image().source();
            assert!(super::lost_at(&source.check_lost().unwrap_err()) >= end);
            assert!(source.has_changed().unwrap());
            // The error stays.
            assert!(way(&disk).is_err(), "{name}");
        }
    }
}

#[test]
fn truncated_file_keeps_prefix() {
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", 8);
    let disk = open(&path);
    let end = FIRST_BLOCK + 3 * MIB + 8192;
    cut(&path, end);
    let expected = content(8);
    let mut found = Vec::new();
    let mut failed = None;
    for segment in disk.segments(..) {
        match segment {
            Ok(Segment::Data(bytes)) => found.extend_from_slice(bytes),
            Ok(Segment::Zero(_)) => panic!("nothing is zero"),
            Err(error) => failed = Some(touched_at(&error)),
        }
    }
    // Bytes that are known to be lost are not borrowed.
    let place = end - FIRST_BLOCK;
    assert_eq!((failed, u64::try_from(found.len()).unwrap()), (Some(end), place));
    assert!(found == expected[..found.len()]);
    let mut segments = disk.segments(..);
    let Some(Ok(Segment::Data(good))) = segments.next() else { panic!("nothing is left") };
    assert_eq!(good.len(), (3 << 20) + 8192);
    assert!(good == &expected[..good.len()]);
    assert_eq!(touched_at(&segments.next().unwrap().unwrap_err()), end);
    assert!(segments.next().is_none());
    assert!(disk.slice(place - 4096, 4096).unwrap().unwrap() == &expected[good.len() - 4096..good.len()]);
    assert!(!matches!(disk.slice(place, 4096), Ok(Some(_))));
    assert!(disk.check_lost(..place).is_ok());
    assert_eq!(touched_at(&disk.check_lost(..).unwrap_err()), end);
    let mut buffer = vec![0; good.len()];
    assert_eq!(disk.read_at(&mut buffer, 0).unwrap(), good.len());
    assert!(buffer == good);
    assert_eq!(touched_at(&disk.read_at(&mut [0; 10], place + 5).unwrap_err()), end + 5);
}

#[test]
fn threads_that_fault_at_once_all_continue() {
    const THREADS: u64 = 8;
    let folder = temp_dir();
    for round in 0..20 {
        let path = dense(folder.path(), "disk.vhdx", 8);
        let disk = open(&path);
        let bytes = disk.slice(0, 8 * MIB).unwrap().unwrap();
        let start = Barrier::new(usize::try_from(THREADS).unwrap() + 1);
        std::thread::scope(|scope| {
            let (bytes, start, disk) = (bytes, &start, &disk);
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let mut rng = Rng::new(round * THREADS + thread);
                    start.wait();
                    // Each page is accessed by one thread, and some by all of them, in a different order by each.
                    let mut pages: Vec<u64> =
                        (0..2048).filter(|page| page % THREADS == thread || page % 64 == 0).collect();
                    rng.shuffle(&mut pages);
                    for page in pages {
                        let at = usize::try_from(page * 4096).unwrap();
                        let expected = sum(&crate::kit::pattern(1, page * 4096, 4096));
                        // Correct, or known to be lost by the time that it was read.
                        let is_right = sum(&bytes[at..at + 4096]) == expected;
                        assert!(is_right || disk.check_lost(page * 4096..page * 4096 + 4096).is_err());
                    }
                });
            }
            start.wait();
            cut(&path, FIRST_BLOCK + 4096 * (round * 37 % 2048));
        });
    }
}

#[test]
fn loss_affects_only_its_mapping() {
    guard_mappings().unwrap();
    let folder = temp_dir();
    let path = dense(folder.path(), "good.vhdx", 2);
    let other = dense(folder.path(), "bad.vhdx", 2);
    // More than one piece of the table can hold.
    let before: Vec<_> = (0..150).map(|_| map(&path)).collect();
    let bad = open(&other);
    let after: Vec<_> = (0..150).map(|_| map(&path)).collect();
    cut(&other, FIRST_BLOCK);
    assert_eq!(touched_at(&super::WAYS[0].1(&bad).unwrap_err()), FIRST_BLOCK);
    assert!(before.iter().chain(&after).all(|source| source.check_lost().is_ok()));
    // A mapping that takes the slot of another one starts anew.
    drop((before, bad));
    let again: Vec<_> = (0..200).map(|_| map(&path)).collect();
    assert!(again.iter().chain(&after).all(|source| source.check_lost().is_ok()));
    assert!(super::WAYS[0].1(&open(&path)).is_ok());
}

#[test]
fn scattered_lost_pages_are_detected() {
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", 4);
    let disk = open(&path);
    let bytes = disk.slice(0, 4 * MIB).unwrap().unwrap();
    cut(&path, FIRST_BLOCK);
    // Many more places than are kept apart: then everything counts as lost, and nothing lost as valid.
    for page in (0..1024_u64).step_by(3) {
        let at = usize::try_from(page * 4096).unwrap();
        assert_eq!(sum(&bytes[at..at + 4096]), 0);
        assert!(disk.check_lost(page * 4096..page * 4096 + 1).is_err(), "page {page}");
    }
}
