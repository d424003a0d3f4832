//! The traps of the log: T8 to T15.

use uuid::Uuid;
use vhdx_mmap::{EntryStatus, LogReport, LogState};

use super::{checks, read};
use crate::kit::builder::Spec;
use crate::kit::log::{Descriptor, Dirty, Entry, Journal, LOG_GUID, Old, worked_example};
use crate::kit::{Block, MIB, PAGE, pattern};
use crate::lab::{assert_reads, open_chain, open_image, size, source};

// T8
#[test]
fn dirty_log_is_replayed() {
    let disk = open_chain(&[&worked_example()]).unwrap();
    assert!(matches!(disk.image().log_state(), LogState::Replayed(_)));
    assert_eq!(read(&disk, 0..510).unwrap(), pattern(1, 0, 510));
}

// T9
#[test]
fn entries_before_the_tail_are_not_replayed() {
    let mut image = Spec::empty(MIB).block(0, Block::full()).build();
    let place = image.block_at(0);
    let mut journal = Journal::new(0, 50);
    // Done long ago; since then, its destination has been overwritten, and no later entry contains that content.
    journal.append(&mut image, &[Descriptor::Data(place, vec![1; size(PAGE)])]);
    journal.append(&mut image, &[Descriptor::Zero(3 * MIB, MIB)]);
    journal.tail = Some(journal.at);
    journal.append(&mut image, &[]);
    journal.append(&mut image, &[]);
    image.set_log_guid(LOG_GUID);
    assert_reads(&[&image]);
}

// T10
#[test]
fn tail_may_advance_within_sequence() {
    let mut image = Spec::default().build();
    let repairs = image.unapply(&[2 * MIB, 3 * MIB], Old::Junk(3));
    let mut journal = Journal::new(0, 50);
    journal.append(&mut image, &[]);
    journal.append(&mut image, &repairs[..1]);
    journal.tail = Some(4096);
    journal.append(&mut image, &repairs[1..]);
    image.set_log_guid(LOG_GUID);
    assert_reads(&[&image]);
    let report = LogReport::read(source(&image)).unwrap();
    let found: Vec<_> = report.entries().iter().map(|entry| entry.status).collect();
    assert_eq!(found, [EntryStatus::Stale, EntryStatus::Active, EntryStatus::Active]);
}

// T11
#[test]
fn zero_descriptors_have_no_data_sectors() {
    for zeros in [1, 3, 125, 126, 127, 200] {
        let mut image = Spec::empty(MIB).block(0, Block::full()).build();
        let place = image.block_at(0);
        let pages: Vec<Vec<u8>> = (0..3).map(|page| pattern(40 + page, 0, size(PAGE))).collect();
        let mut entry = Entry::new(LOG_GUID, 1 << 33, 0).data(place, &pages[0]);
        for _ in 0..zeros {
            entry = entry.zero(place + 8 * PAGE, PAGE);
        }
        image.put_entry(0, &entry.data(place + PAGE, &pages[1]).data(place + 2 * PAGE, &pages[2]));
        image.set_log_guid(LOG_GUID);
        let disk = open_chain(&[&image]).unwrap();
        // Including the first and the last byte of each, which are in the descriptors.
        assert!(read(&disk, 0..3 * PAGE).unwrap() == pages.concat(), "{zeros} zero descriptors");
        assert!(read(&disk, 8 * PAGE..9 * PAGE).unwrap() == vec![0; size(PAGE)]);
    }
}

// T12
#[test]
fn sequence_with_greatest_head_number_is_active() {
    for older_first in [true, false] {
        let (older_at, newer_at) = if older_first { (0, 512 << 10) } else { (512 << 10, 0) };
        let mut image = Spec::default().build();
        let repairs = image.unapply(&[2 * MIB, 3 * MIB], Old::Junk(3));
        // It begins with a greater number than the active one, and ends with a smaller one.
        let mut older = Journal::new(older_at, 103);
        older.append(&mut image, &[Descriptor::Zero(2 * MIB, MIB)]);
        let mut newer = Journal::new(newer_at, 102);
        newer.append(&mut image, &repairs[..1]);
        newer.append(&mut image, &repairs[1..]);
        newer.append(&mut image, &[]);
        image.set_log_guid(LOG_GUID);
        assert_reads(&[&image]);
    }
}

// T12
#[test]
fn second_entry_must_follow_first() {
    let mut image = Spec::default().build();
    let mut journal = Journal::new(0, 50);
    journal.append(&mut image, &[Descriptor::Data(2 * MIB, vec![1; size(PAGE)])]);
    journal.sequence = 60;
    journal.tail = Some(journal.at);
    journal.append(&mut image, &[]);
    image.set_log_guid(LOG_GUID);
    assert_reads(&[&image]);
}

// T13
#[test]
fn wrapping_entry_is_replayed() {
    for before_the_end in 1..6 {
        let mut image = Spec::empty(MIB).block(0, Block::full()).build();
        let pages: Vec<u64> = (0..4).map(|page| image.block_at(0) + page * PAGE).collect();
        let changes = image.unapply(&pages, Old::Junk(8));
        Journal::new((256 - before_the_end) * 4096, 9).append(&mut image, &changes);
        image.set_log_guid(LOG_GUID);
        assert_reads(&[&image]);
    }
}

// T14
#[test]
fn file_grows_to_any_length() {
    for more in [4096, MIB, 3 * MIB + 4096] {
        let mut image = Spec::default().build();
        let before = image.bytes.len();
        let mut journal = Journal::new(0, 9);
        (journal.flushed, journal.last) = (before, before + more);
        journal.append(&mut image, &[]);
        image.set_log_guid(LOG_GUID);
        assert_eq!(open_image(&image).unwrap().file_len(), before + more);
    }
    assert_reads(&[&Dirty::Growth.build(&Spec::default())]);
}

// T15
#[test]
fn log_of_windows_is_replayed() {
    let mut image = Spec::default().build();
    let length = image.bytes.len();
    let repairs = image.unapply(&[3 * MIB], Old::Zero);
    let session = |at: u32, number: u64, guid: u128| {
        let log = Journal::new(at, number);
        Journal { guid: Uuid::from_u128(guid), flushed: length, last: length, ..log }
    };
    // An old session, with valid entries and greater numbers; the current one overwrites its first entries.
    let mut old = session(0, 9_000_000_000_000_000_000, 0x01D);
    for _ in 0..9 {
        old.append(&mut image, &[Descriptor::Zero(2 * MIB, PAGE)]);
    }
    let mut now = session(0, 80_117_443_871_106_387, LOG_GUID.as_u128());
    now.append(&mut image, &[]);
    now.tail = Some(now.at);
    now.last = length + 32 * MIB;
    now.append(&mut image, &repairs);
    image.set_log_guid(LOG_GUID);
    assert_reads(&[&image]);
    assert_eq!(open_image(&image).unwrap().file_len(), length + 32 * MIB);
    assert!(checks(&image).is_empty());
}
