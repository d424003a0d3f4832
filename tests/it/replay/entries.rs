//! Validity of log entries: each rule for an entry, and for a sequence of them.

use vhdx_mmap::{Category, EntryStatus, ErrorKind, LogEntryError, Structure};

use super::{report, statuses};
use crate::kit::builder::Spec;
use crate::kit::log::{Descriptor, Entry, Journal, LOG_GUID, Old};
use crate::kit::{Block, KIB, MIB, PAGE, pattern};
use crate::lab::{assert_reads, open_chain, open_image, size};

/// An entry with one fault, and the expected error in a report.
fn faulty_entries(ring: u64, log: u64) -> Vec<(&'static str, Entry, LogEntryError)> {
    // One data and one zero descriptor: two sectors.
    let harm = pattern(9, 0, size(PAGE));
    let good = || Entry::new(LOG_GUID, 1001, 0).data(2 * MIB, &harm).zero(3 * MIB, PAGE);
    let target = |index: usize, offset: u64| good().patch(64 + 32 * index + 16, &offset.to_le_bytes());
    let zeros = |length: u64| good().patch(96 + 8, &length.to_le_bytes());
    let tail = |tail: u32| Entry { tail, ..good() };
    let ring = u32::try_from(ring).unwrap();
    vec![
        // 5.4, rule 1 (the signature and the GUID have tests of their own).
        ("Reserved", good().reserved(1), LogEntryError::Reserved),
        ("SequenceNumber 0", Entry { sequence: 0, ..good() }, LogEntryError::SequenceNumber),
        // Rule 2.
        ("EntryLength 0", good().entry_length(0), LogEntryError::Length),
        ("EntryLength not of sectors", good().entry_length(8191), LogEntryError::Length),
        ("EntryLength above that of the log", good().entry_length(ring + 4096), LogEntryError::Length),
        ("EntryLength at its most", good().entry_length(0xFFFF_F000), LogEntryError::Length),
        ("Tail not of sectors", tail(2048), LogEntryError::Tail),
        ("Tail after the log", tail(ring), LogEntryError::Tail),
        ("Tail at its most", tail(0xFFFF_F000), LogEntryError::Tail),
        // Rule 3.
        ("DescriptorCount too large for its length", good().count(383), LogEntryError::Length),
        ("DescriptorCount at its most", good().count(u32::MAX), LogEntryError::Length),
        (
            "DescriptorCount without one zero descriptor is right, without its data not",
            good().count(0),
            LogEntryError::Length,
        ),
        ("DescriptorCount with one that is empty", good().count(3), LogEntryError::Descriptor(2)),
        ("EntryLength a sector short", good().entry_length(4096), LogEntryError::Length),
        ("EntryLength a sector long", good().entry_length(3 * 4096), LogEntryError::Length),
        // Rule 4.
        ("signature of a descriptor", good().descriptor_signature(1, *b"zerO"), LogEntryError::Descriptor(1)),
        ("sequence of a data descriptor", good().descriptor_sequence(0, 1000), LogEntryError::Descriptor(0)),
        ("sequence of a zero descriptor", good().descriptor_sequence(1, 1002), LogEntryError::Descriptor(1)),
        ("FileOffset of data not of sectors", target(0, 2 * MIB + 512), LogEntryError::DescriptorRange(0)),
        ("FileOffset of zeros not of sectors", target(1, 3 * MIB + 1), LogEntryError::DescriptorRange(1)),
        ("ZeroLength not of sectors", zeros(PAGE + 512), LogEntryError::DescriptorRange(1)),
        ("data over the end of numbers", target(0, u64::MAX - 4095), LogEntryError::DescriptorRange(0)),
        ("zeros over the end of numbers", zeros(u64::MAX - 4095), LogEntryError::DescriptorRange(1)),
        ("data on the file identifier", target(0, 0), LogEntryError::DescriptorPlace(0)),
        ("data on a header", target(0, 64 * KIB), LogEntryError::DescriptorPlace(0)),
        ("data before the region tables", target(0, 192 * KIB - PAGE), LogEntryError::DescriptorPlace(0)),
        ("zeros before the region tables", target(1, 192 * KIB - PAGE), LogEntryError::DescriptorPlace(1)),
        ("data on the log's beginning", target(0, log), LogEntryError::DescriptorPlace(0)),
        ("data on the log's end", target(0, log + u64::from(ring) - PAGE), LogEntryError::DescriptorPlace(0)),
        ("zeros over the log", good().zero(log - PAGE, 3 * PAGE), LogEntryError::DescriptorPlace(2)),
        // Rule 5.
        ("signature of a data sector", good().data_signature(0), LogEntryError::DataSector(0)),
        ("SequenceHigh of a data sector", good().data_high(0, 1), LogEntryError::DataSector(0)),
        ("SequenceLow of a data sector", good().data_low(0, 1002), LogEntryError::DataSector(0)),
        ("a data sector after another", good().data(2 * MIB, &harm).data_high(1, 7), LogEntryError::DataSector(1)),
        // Rule 6.
        ("Checksum", good().bad_crc(), LogEntryError::Checksum),
    ]
}

#[test]
fn faulty_entry_ends_sequence_before_it() {
    let probe = Spec::default().build();
    let (ring, log) = (u64::from(probe.spec.log_length), probe.spec.log_offset);
    for (what, entry, flaw) in faulty_entries(ring, log) {
        let mut image = Spec::default().build();
        let repair = image.unapply(&[image.spec.metadata_offset, 3 * MIB], Old::Zero);
        let mut journal = Journal::new(0, 1000);
        journal.append(&mut image, &repair);
        image.put_entry(journal.at, &entry);
        image.set_log_guid(LOG_GUID);
        assert_reads(&[&image]);
        let next = u64::from(journal.at);
        assert_eq!(statuses(&image), [(0, EntryStatus::Active), (next, EntryStatus::Broken(flaw))], "{what}");
        assert!(report(&image)[1].content.is_none(), "{what}");
    }
}

#[test]
fn faulty_entry_alone_is_not_replayed() {
    let probe = Spec::default().build();
    for (what, entry, _) in faulty_entries(u64::from(probe.spec.log_length), probe.spec.log_offset) {
        let mut image = Spec::default().build();
        image.put_entry(0, &entry);
        image.set_log_guid(LOG_GUID);
        let error = open_image(&image).unwrap_err();
        let is_it = match error.kind() {
            ErrorKind::NoActiveSequence { log_guid, entries: 0 } => *log_guid == LOG_GUID,
            _ => false,
        };
        assert!(is_it, "{what}: {error:?}");
        let said = (error.structure(), error.offset(), error.category());
        assert_eq!(said, (Structure::Log, Some(MIB), Category::Corrupt), "{what}");
    }
}

#[test]
fn entry_without_fault_is_replayed() {
    // The basis of the two tests above: nothing but the fault is wrong with those entries.
    let mut image = Spec::empty(MIB).block(0, Block::full()).build();
    let at = image.block_at(0);
    let page = pattern(9, 0, size(PAGE));
    image.put_entry(0, &Entry::new(LOG_GUID, 1001, 0).data(at, &page).zero(at + PAGE, PAGE));
    image.set_log_guid(LOG_GUID);
    let mut found = vec![1; size(2 * PAGE)];
    open_chain(&[&image]).unwrap().read_at(&mut found, 0).unwrap();
    assert!(found == [page, vec![0; size(PAGE)]].concat());
}

#[test]
fn entry_needs_signature() {
    let mut image = Spec::default().build();
    let mut journal = Journal::new(0, 7);
    journal.append(&mut image, &[]);
    let harm = Descriptor::Data(2 * MIB, vec![1; size(PAGE)]);
    image.put_entry(journal.at, &journal.entry(&[harm]).bad_signature());
    image.set_log_guid(LOG_GUID);
    assert_reads(&[&image]);
    assert_eq!(statuses(&image), [(0, EntryStatus::Active)]);
}

#[test]
fn tail_outside_sequences_leaves_nothing_to_replay() {
    let mut image = Spec::default().build();
    let mut journal = Journal::new(0, 7);
    journal.tail = Some(64 << 10);
    journal.append(&mut image, &[]);
    journal.append(&mut image, &[]);
    image.set_log_guid(LOG_GUID);
    let error = open_image(&image).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoActiveSequence { entries: 2, .. }), "{error:?}");
    assert_eq!(statuses(&image), [(0, EntryStatus::Stale), (4096, EntryStatus::Stale)]);
}

#[test]
fn gap_in_numbers_ends_sequence() {
    let mut image = Spec::default().build();
    let harm = || Descriptor::Zero(2 * MIB, MIB);
    let mut journal = Journal::new(0, 7);
    journal.append(&mut image, &[]);
    journal.sequence = 9;
    // Newer, but on its own it does not include its tail.
    journal.append(&mut image, &[harm()]);
    image.set_log_guid(LOG_GUID);
    assert_reads(&[&image]);
    assert_eq!(statuses(&image), [(0, EntryStatus::Active), (4096, EntryStatus::Stale)]);
}

#[test]
fn first_of_two_sequences_with_same_number_counts() {
    let mut image = Spec::default().build();
    Journal::new(8192, 7).append(&mut image, &[]);
    Journal::new(64 << 10, 7).append(&mut image, &[Descriptor::Zero(2 * MIB, MIB)]);
    image.set_log_guid(LOG_GUID);
    assert_reads(&[&image]);
    assert_eq!(statuses(&image), [(8192, EntryStatus::Active), (64 * KIB, EntryStatus::Stale)]);
}

#[test]
fn one_entry_may_fill_the_ring() {
    for at in [0, 8192, 255 * 4096] {
        let mut image = Spec::empty(MIB).block(0, Block::full()).build();
        let pages: Vec<u64> = (0..254).map(|page| image.block_at(0) + page * PAGE).collect();
        let changes = image.unapply(&pages, Old::Junk(5));
        let entry = Journal::new(at, 7).entry(&changes);
        assert_eq!(u64::from(entry.length()), MIB);
        image.put_entry(at, &entry);
        image.set_log_guid(LOG_GUID);
        assert_reads(&[&image]);
    }
}
