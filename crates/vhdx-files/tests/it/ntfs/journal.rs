//! Journals that hold changes: written here, as Windows 8 and later write them.

use std::fs;

use vhdx_files::{Error, VolumeWarning, lookup};
use vhdx_testkit::lab::Rng;

use super::{made, mount, read};
use crate::lab::Lab;
use crate::ntfs::raw::Raw;

/// Size of the pages of a journal, and of what it calls the pages of the system.
const PAGE: usize = 4096;

/// Where records begin in a page.
const DATA: usize = 0x40;

/// The page of the journal that has the records.
const HOME: usize = 16 * PAGE;

/// What an undo or redo operation does.
const NOTHING: u16 = 0;
const UPDATE_RESIDENT_VALUE: u16 = 7;
const FORGET_TRANSACTION: u16 = 0x1b;
const OPEN_NONRESIDENT_ATTRIBUTE: u16 = 0x1c;

/// The attribute that the records are about: the place of `$MFT` in the table of open attributes.
const TARGET: u16 = 0x18;

/// A journal with some records in one page.
struct Journal {
    size: usize,
    /// Bits of a sequence number that count how often the journal began anew.
    sequence_bits: u32,
    page: Vec<u8>,
    /// Sequence numbers of the records.
    numbers: Vec<u64>,
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap()
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

/// Protects a page by an update sequence.
fn protect(page: &mut [u8], at: usize) {
    let at_field = u16::try_from(at).unwrap().to_le_bytes();
    put(page, 4, &at_field);
    put(page, 6, &9_u16.to_le_bytes());
    put(page, at, &1_u16.to_le_bytes());
    for sector in 0..8 {
        let end = sector * 512 + 510;
        let saved = [page[end], page[end + 1]];
        put(page, at + 2 + sector * 2, &saved);
        put(page, end, &1_u16.to_le_bytes());
    }
}

impl Journal {
    fn new(size: usize) -> Self {
        let offset_bits = (size / 8).ilog2();
        let sequence_bits = 64 - (offset_bits + 1);
        let mut journal = Self { size, sequence_bits, page: Vec::new(), numbers: Vec::new() };
        // A checkpoint with nothing before it.
        let mut checkpoint = vec![0; 0x40];
        put(&mut checkpoint, 0, &1_u32.to_le_bytes());
        journal.append(2, &checkpoint);
        journal
    }

    /// Appends a record, of a client (1) or of a checkpoint (2).
    fn append(&mut self, kind: u32, data: &[u8]) {
        let at = DATA + self.page.len();
        let sequence = 5_u64;
        let number = sequence << (64 - self.sequence_bits) | wide(HOME + at) >> 3;
        let mut record = vec![0; 0x30];
        put(&mut record, 0, &number.to_le_bytes());
        if kind == 1 {
            let before = self.numbers.get(1..).and_then(<[u64]>::last).copied().unwrap_or(0);
            put(&mut record, 8, &before.to_le_bytes());
            put(&mut record, 0x10, &before.to_le_bytes());
            put(&mut record, 0x24, &0x40_u32.to_le_bytes());
        }
        put(&mut record, 0x18, &u32::try_from(data.len()).unwrap().to_le_bytes());
        put(&mut record, 0x20, &kind.to_le_bytes());
        record.extend(data);
        record.resize(record.len().next_multiple_of(8), 0);
        self.page.extend(record);
        self.numbers.push(number);
    }

    /// Appends an operation. `target` has the fields from the one for the attribute on, and the clusters.
    fn operation(&mut self, redo: (u16, &[u8]), undo: (u16, &[u8]), fields: [u16; 6], clusters: (u64, &[u64])) {
        let mut data = vec![0; 0x20];
        let place = 0x20 + clusters.1.len().max(1) * 8;
        let [redo_length, undo_length] = [redo.1.len(), undo.1.len()].map(|length| u16::try_from(length).unwrap());
        let undo_place = place + redo.1.len().next_multiple_of(8);
        let places = [place, undo_place].map(|place| u16::try_from(place).unwrap());
        let header = [redo.0, undo.0, places[0], redo_length, places[1], undo_length].map(u16::to_le_bytes).concat();
        put(&mut data, 0, &header);
        put(&mut data, 0xc, &fields.map(u16::to_le_bytes).concat());
        put(&mut data, 0x18, &clusters.0.to_le_bytes());
        data.extend(clusters.1.iter().flat_map(|cluster| cluster.to_le_bytes()));
        data.resize(place, 0);
        data.extend(redo.1);
        data.resize(undo_place, 0);
        data.extend(undo.1);
        self.append(1, &data);
    }

    /// The bytes of the journal.
    fn bytes(&self, major: u16, flags: u16) -> Vec<u8> {
        let mut bytes = vec![0xff; self.size];
        let last = *self.numbers.last().unwrap();
        let mut restart = vec![0; PAGE];
        put(&mut restart, 0, b"RSTR");
        put(&mut restart, 0x10, &4096_u32.to_le_bytes());
        put(&mut restart, 0x14, &4096_u32.to_le_bytes());
        put(&mut restart, 0x18, &0x30_u16.to_le_bytes());
        put(&mut restart, 0x1c, &major.to_le_bytes());
        let area = 0x30;
        put(&mut restart, area, &self.numbers[0].to_le_bytes());
        put(&mut restart, area + 8, &[1_u16, 0xffff, 0, flags].map(u16::to_le_bytes).concat());
        put(&mut restart, area + 0x10, &self.sequence_bits.to_le_bytes());
        put(&mut restart, area + 0x14, &[0xe0_u16, 0x40].map(u16::to_le_bytes).concat());
        put(&mut restart, area + 0x18, &wide(self.size).to_le_bytes());
        put(&mut restart, area + 0x24, &[0x30_u16, 0x40].map(u16::to_le_bytes).concat());
        // The client, whose last checkpoint this is.
        put(&mut restart, area + 0x40, &[self.numbers[0], self.numbers[0]].map(u64::to_le_bytes).concat());
        protect(&mut restart, 0x1e);
        put(&mut bytes, 0, &restart);
        put(&mut bytes, PAGE, &restart);
        let mut page = vec![0; PAGE];
        put(&mut page, 0, b"RCRD");
        put(&mut page, 8, &last.to_le_bytes());
        put(&mut page, 0x10, &1_u32.to_le_bytes());
        put(&mut page, 0x14, &[1_u16, 1].map(u16::to_le_bytes).concat());
        put(&mut page, 0x18, &u16::try_from(DATA + self.page.len()).unwrap().to_le_bytes());
        put(&mut page, 0x20, &last.to_le_bytes());
        put(&mut page, DATA, &self.page);
        protect(&mut page, 0x28);
        put(&mut bytes, HOME, &page);
        bytes
    }
}

/// Makes a volume with a small file, and a journal that changes its content from `old` to `new`. The transaction ends
/// if `is_whole`.
fn journaled(is_whole: bool, major: u16, flags: u16) -> Option<Lab> {
    let lab = made("4096", "512", 32)?;
    let point = mount(&lab, "")?;
    fs::write(point.path.join("file"), "is the old content").unwrap();
    drop(point);
    let file = lookup(&*lab.open().unwrap(), b"file").unwrap();
    let mut disk = Raw::of(&lab);
    let (log, size) = disk.first_run(2);
    let data = disk.attribute(file.0, 0x80);
    let offset = disk.value(data) - data;
    let record = disk.record(file.0);
    let number = usize::try_from(file.0 & 0xffff_ffff_ffff).unwrap();
    let mut journal = Journal::new(size);
    let mut opened = vec![0; 0x28];
    put(&mut opened, 0, &u32::MAX.to_le_bytes());
    put(&mut opened, 8, &0x80_u32.to_le_bytes());
    journal.operation((OPEN_NONRESIDENT_ATTRIBUTE, &opened), (NOTHING, &[]), [TARGET, 0, 0, 0, 0, 0], (0, &[]));
    let field = |value: usize| u16::try_from(value).unwrap();
    let in_page = number * 1024 % PAGE / 512;
    let cluster = wide(disk.table() / 4096 + number / 4);
    let fields = [TARGET, 1, field(data - record), field(offset + 7), field(in_page), 2];
    journal.operation(
        (UPDATE_RESIDENT_VALUE, b"new"),
        (UPDATE_RESIDENT_VALUE, b"old"),
        fields,
        (wide(number / 4), &[cluster]),
    );
    if is_whole {
        journal.operation((FORGET_TRANSACTION, &[]), (NOTHING, &[]), [0; 6], (0, &[]));
    }
    let bytes = journal.bytes(major, flags);
    disk.bytes[log..log + bytes.len()].copy_from_slice(&bytes);
    disk.write(&lab);
    Some(lab)
}

/// What the file has, and whether the journal was replayed.
fn found(lab: &Lab) -> (String, bool) {
    let volume = lab.open().unwrap();
    let bytes = read(&*volume, lookup(&*volume, b"file").unwrap(), None);
    (String::from_utf8(bytes).unwrap(), volume.about().is_replayed)
}

#[test]
fn a_whole_transaction_is_replayed() {
    let Some(lab) = journaled(true, 2, 0) else { return };
    assert_eq!(found(&lab), ("is the new content".to_owned(), true));
}

#[test]
fn a_transaction_without_an_end_is_undone() {
    let Some(lab) = journaled(false, 2, 0) else { return };
    assert_eq!(found(&lab), ("is the old content".to_owned(), true));
}

#[test]
fn a_journal_of_a_volume_that_was_unmounted_is_left_alone() {
    // The flag that Windows sets when it unmounts a volume.
    let Some(lab) = journaled(true, 2, 2) else { return };
    assert_eq!(found(&lab), ("is the old content".to_owned(), false));
}

/// Asserts that a volume is refused for its journal.
fn refused(lab: &Lab) {
    let error = lab.open().unwrap_err();
    assert!(matches!(error, Error::FileSystem { is_unsupported: true, .. }), "{error}");
    assert!(error.to_string().contains("journal"), "{error}");
    // It can be left out.
    let volume = lab.open_without_journal().unwrap();
    assert_eq!(volume.about().warnings, [VolumeWarning::JournalIgnored]);
    let file = lookup(&*volume, b"file").unwrap();
    assert_eq!(read(&*volume, file, None), b"is the old content");
}

#[test]
fn a_journal_that_cannot_be_replayed_is_refused() {
    // Windows 7 and before.
    let Some(lab) = journaled(true, 1, 0) else { return };
    refused(&lab);
    // A page with records was written in part.
    let Some(lab) = journaled(true, 2, 0) else { return };
    let mut disk = Raw::of(&lab);
    let (log, _) = disk.first_run(2);
    disk.bytes[log + HOME + 1022] ^= 1;
    disk.write(&lab);
    refused(&lab);
    // Neither page that describes the journal can be read.
    let mut disk = Raw::of(&lab);
    disk.bytes[log] = 0;
    disk.bytes[log + PAGE] = 0;
    disk.write(&lab);
    refused(&lab);
}

#[test]
fn a_journal_that_was_made_to_delay_is_refused() {
    let Some(lab) = journaled(true, 2, 0) else { return };
    let mut disk = Raw::of(&lab);
    let (log, size) = disk.first_run(2);
    let mut journal = Journal::new(size);
    for _ in 0..20 {
        journal.append(1, &[0; 0x28]);
    }
    // Each record says that it goes on through half of the journal.
    let half = u32::try_from(size / 2).unwrap().to_le_bytes();
    for number in 1..20 {
        let at = 0x70 + number * 0x58 + 0x18;
        put(&mut journal.page, at, &half);
    }
    disk.bytes[log..log + size].copy_from_slice(&journal.bytes(2, 0));
    disk.write(&lab);
    let error = lab.open().unwrap_err().to_string();
    assert!(error.contains("made to delay"), "{error}");
}

#[test]
fn damaged_journals_end_in_errors() {
    let Some(lab) = journaled(true, 2, 0) else { return };
    let disk = Raw::of(&lab);
    let (log, _) = disk.first_run(2);
    let sound = disk.into_image();
    let mut rng = Rng::new(17);
    let mut refused = 0;
    for _ in 0..500 {
        let mut image = sound.clone();
        for _ in 0..=rng.below(2) {
            let page = rng.pick(&[0, PAGE, HOME, HOME, HOME, HOME]);
            let at = log + page + usize::try_from(rng.below(0x220)).unwrap();
            let random = rng.bytes(1)[0];
            let new = rng.pick(&[0, 1, 0x7f, 0xff, random, image.byte(at).wrapping_add(8)]);
            image.set(at, new);
            // Both pages that describe the journal are damaged alike.
            if page == PAGE {
                image.set(at - PAGE, new);
            }
        }
        match vhdx_files::open(image.open()) {
            Ok(volume) => assert!(!volume.entries(volume.root()).unwrap().is_empty()),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn a_volume_that_is_marked_dirty_is_read() {
    let Some(lab) = made("4096", "512", 32) else { return };
    let Some(point) = mount(&lab, "") else { return };
    fs::write(point.path.join("file"), "content").unwrap();
    drop(point);
    let mut disk = Raw::of(&lab);
    let flags = disk.value(disk.attribute(3, 0x70)) + 10;
    disk.put(flags, &1_u16.to_le_bytes());
    disk.write(&lab);
    assert_eq!(found(&lab), ("content".to_owned(), false));
    assert_eq!(lab.open().unwrap().about().warnings, [VolumeWarning::CheckScheduled]);
}

#[test]
fn hibernated_windows_is_a_warning() {
    let Some(lab) = made("4096", "512", 32) else { return };
    for (beginning, expected) in [
        ("hibr", &[VolumeWarning::Hibernated][..]),
        ("HIBR", &[VolumeWarning::Hibernated]),
        ("WAKE", &[]),
        ("\0\0\0\0", &[]),
    ] {
        // ntfs-3g does not write to such a volume, so what it has written is changed.
        let Some(point) = mount(&lab, ",remove_hiberfile") else { return };
        fs::write(point.path.join("Hiberfil.sys"), [b"mark".as_slice(), &[7; 9000]].concat()).unwrap();
        drop(point);
        let mut disk = Raw::of(&lab);
        assert_eq!(disk.replace(&[b"mark".as_slice(), &[7; 400]].concat(), 0, beginning.as_bytes()), 1);
        disk.write(&lab);
        assert_eq!(lab.open().unwrap().about().warnings, expected, "{beginning}");
        disk = Raw::of(&lab);
        assert_eq!(disk.replace(&[beginning.as_bytes(), &[7; 400]].concat(), 0, b"mark"), 1);
        disk.write(&lab);
    }
}
