//! Logs of any entries: a file after a replay equals a plain vector of bytes after the same writes.
//!
//! The ring gets the remains of older sessions, and then a valid session; the model knows which entries count, since it
//! made them. If the input damages the ring afterwards, the naive reader decides what counts.

use std::cell::RefCell;

use arbitrary::Arbitrary;
use uuid::Uuid;
use vhdx_mmap::{Disk, LogPolicy, LogState};

use crate::bases::Base;
use crate::change::{Change, Value, apply};
use crate::judge::{assert_same, look_at_log, some_sectors};
use crate::kit::builder::{FileLength, Spec};
use crate::kit::log::{Descriptor, Entry, LOG_GUID};
use crate::kit::oracle::{self, Oracle};
use crate::kit::{Block, FileBytes, KIB, MIB, PAGE, pattern};
use crate::scratch::Kept;

/// Number of sectors of the ring.
const RING: u64 = 256;

/// Content of the log.
#[derive(Arbitrary, Debug)]
pub struct Input {
    is_child: bool,
    start: u8,
    first_number: FirstNumber,
    tail: u8,
    session: Vec<Written>,
    older: Vec<Older>,
    torn: Option<Torn>,
    /// An entry with a higher number, whose tail is not an entry of its sequence.
    lost: Option<u8>,
    spoiled: Vec<Change>,
    mends_checksums: bool,
}

#[derive(Arbitrary, Debug)]
enum FirstNumber {
    Usual,
    /// The low half overflows within the session.
    Long(u8),
    /// The last entry has a number near the highest one.
    Last(u8),
}

/// An entry of the session.
#[derive(Arbitrary, Debug)]
struct Written {
    writes: Vec<Write>,
    growth: u8,
    tail: u8,
}

#[derive(Arbitrary, Debug)]
enum Write {
    Page(Target, Content),
    Zeros(Target, u8),
}

/// Destination of a write.
#[derive(Arbitrary, Debug)]
enum Target {
    RegionTable(u8),
    Metadata(bool),
    Bat,
    Bitmap,
    Block(bool, u8),
    Behind(u8),
    Any(u16),
}

#[derive(Arbitrary, Debug)]
enum Content {
    /// The content that the image has there.
    Same,
    /// The content that the image has there, with a change.
    Changed(u16, Value),
    Fill(u8),
}

/// An entry of an older session, or of another log, somewhere in the ring.
#[derive(Arbitrary, Debug)]
struct Older {
    at: u8,
    number: u8,
    is_foreign: bool,
    tail: u8,
    writes: Vec<Write>,
}

/// The fault of the entry after the session.
#[derive(Arbitrary, Debug)]
enum Torn {
    Checksum,
    Guid,
    Reserved,
    Number,
    DescriptorNumber,
    DescriptorSignature,
    DataSignature,
    DataHigh,
    DataLow,
    Length,
    Tail,
}

struct Lab {
    base: Base,
    /// The file after the writes of a replay.
    model: Kept,
}

thread_local! {
    static LABS: RefCell<[Lab; 2]> = RefCell::new(labs());
}

/// Makes an image of two blocks, and a child of it, both with a log in use.
fn labs() -> [Lab; 2] {
    let size = MIB + 64 * KIB;
    let spec =
        Spec { file_length: FileLength::Short, ..Spec::empty(size) }.block(0, Block::full()).block(1, Block::full());
    let child = Spec { file_length: FileLength::Short, ..Spec::child_of(&spec, "parent") };
    let child = child.block(0, Block::partial(&[3..40, 50..51, 2000..2048])).block(1, Block::full());
    [(spec.clone(), None), (child, Some(&spec))].map(|(spec, parent)| {
        let mut image = spec.build();
        let model = Kept::new(image.bytes.to_vec());
        image.set_log_guid(LOG_GUID);
        Lab { base: Base::new(&image, parent), model }
    })
}

pub fn run(input: &Input) {
    LABS.with_borrow_mut(|labs| {
        let lab = &mut labs[usize::from(input.is_child)];
        lab.judge(input);
        lab.base.scratch.restore();
        lab.model.reset();
    });
}

impl Lab {
    fn judge(&mut self, input: &Input) {
        let Some(session) = self.write_ring(input) else { return };
        if !input.spoiled.is_empty() {
            apply(&mut self.base.scratch, &self.base.places, &input.spoiled, input.mends_checksums);
        }
        look_at_log(self.base.scratch.source());
        let disk = Disk::open(self.base.scratch.source(), &self.base.options(LogPolicy::Replay));
        if input.spoiled.is_empty() {
            self.compare_with_model(disk, &session);
        } else {
            let layers = disk.as_ref().map_or(2, |disk| disk.layers().len());
            compare(disk, Oracle::open(&self.base.files(layers), oracle::LogPolicy::Replay));
        }
    }

    fn compare_with_model(&mut self, disk: vhdx_mmap::Result<Disk>, session: &[Entry]) {
        for entry in session {
            self.replay(entry);
        }
        let last = session.last().map_or(0, |entry| entry.last);
        self.model.grow(last as usize);
        if let Ok(disk) = &disk {
            let LogState::Replayed(replay) = disk.image().log_state() else { panic!("no replay") };
            assert_eq!(replay.entries, session.len() as u64);
            assert_eq!(Some(replay.first_sequence_number), session.first().map(|entry| entry.sequence));
            assert_eq!(disk.image().file_len(), self.model.bytes().len() as u64);
        }
        let layers = disk.as_ref().map_or(2, |disk| disk.layers().len());
        let mut files = self.base.files(layers);
        files[0] = self.model.bytes();
        compare(disk, Oracle::open(&files, oracle::LogPolicy::Replay));
    }

    /// Applies an entry to the model.
    fn replay(&mut self, entry: &Entry) {
        for descriptor in &entry.descriptors {
            let (at, bytes) = match descriptor {
                Descriptor::Data(at, bytes) => (*at, bytes.clone()),
                Descriptor::Zero(at, length) => (*at, vec![0; *length as usize]),
            };
            if !bytes.is_empty() {
                self.model.grow(at as usize + bytes.len());
                self.model.write(at as usize, &bytes);
            }
        }
    }

    /// Writes all entries into the ring, and returns those to replay. Returns `None` if there is no session.
    fn write_ring(&mut self, input: &Input) -> Option<Vec<Entry>> {
        for older in input.older.iter().take(12) {
            let mut entry = self.entry(u64::from(older.number) + 1, &older.writes);
            entry.tail = u32::from(older.tail) * 4096;
            if older.is_foreign {
                (entry.guid, entry.sequence) = (Uuid::from_u128(0xF0), u64::MAX - entry.sequence);
            }
            self.put(older.at.into(), &entry);
        }
        let mut number = match input.first_number {
            FirstNumber::Usual => 1000,
            FirstNumber::Long(before) => (1 << 32) - u64::from(before % 8),
            FirstNumber::Last(before) => u64::MAX - 16 - u64::from(before % 4),
        };
        let (mut at, mut used) = (u64::from(input.start), 0);
        let mut session: Vec<(u64, Entry)> = Vec::new();
        for written in input.session.iter().take(16) {
            let mut entry = self.entry(number, &written.writes);
            entry.last =
                (self.base.scratch.bytes().len() as u64).next_multiple_of(MIB) + u64::from(written.growth % 3) * MIB;
            entry.tail = u32::from(written.tail) * 4096;
            let length = u64::from(entry.length()) / PAGE;
            if used + length > RING {
                break;
            }
            session.push((at, entry));
            (at, used, number) = ((at + length) % RING, used + length, number + 1);
        }
        let count = session.len();
        let first = usize::from(input.tail) % count.max(1);
        let tail = session.get(first)?.0;
        if let Some((_, last)) = session.last_mut() {
            last.tail = (tail * PAGE) as u32;
        }
        for (at, entry) in &session {
            self.put(*at, entry);
        }
        self.write_after(input, number, at, used);
        Some(session.into_iter().skip(first).map(|(_, entry)| entry).collect())
    }

    /// Writes entries that do not count after the session, as far as there is space.
    fn write_after(&mut self, input: &Input, number: u64, mut at: u64, mut used: u64) {
        if let Some(torn) = &input.torn {
            let harm = [Write::Page(Target::Metadata(false), Content::Fill(7))];
            let next = self.entry(number, &harm);
            let next = match torn {
                Torn::Checksum => next.bad_crc(),
                Torn::Guid => Entry { guid: Uuid::from_u128(0xF1), ..next },
                Torn::Reserved => next.reserved(1),
                // Not the next number.
                Torn::Number => Entry { sequence: 500, ..next },
                Torn::DescriptorNumber => next.descriptor_sequence(0, number.wrapping_add(1)),
                Torn::DescriptorSignature => next.descriptor_signature(0, *b"dess"),
                Torn::DataSignature => next.data_signature(0),
                Torn::DataHigh => next.data_high(0, 77),
                Torn::DataLow => next.data_low(0, 77),
                Torn::Length => next.entry_length(3 * 4096),
                Torn::Tail => Entry { tail: 77, ..next },
            };
            if used + 3 <= RING {
                self.put(at, &next);
                (at, used) = ((at + 3) % RING, used + 3);
            }
        }
        if let Some(gap) = input.lost {
            let gap = 1 + u64::from(gap % 8);
            let mut lost = self.entry(number.saturating_add(7), &[Write::Zeros(Target::Metadata(false), 1)]);
            // The sector after it, where no entry of its sequence begins.
            lost.tail = ((at + gap + 1) % RING * PAGE) as u32;
            if used + gap + 2 <= RING && lost.sequence > number {
                self.put((at + gap) % RING, &lost);
                // No entry may follow it.
                self.base.scratch.write(self.ring((at + gap + 1) % RING), &[0; 4]);
            }
        }
    }

    /// Returns the file offset of a sector of the ring.
    fn ring(&self, sector: u64) -> usize {
        self.base.places.log + (sector * PAGE) as usize
    }

    fn put(&mut self, at: u64, entry: &Entry) {
        for (index, page) in entry.encode().chunks(PAGE as usize).enumerate() {
            let at = self.ring((at + index as u64) % RING);
            self.base.scratch.write(at, page);
        }
    }

    fn entry(&self, sequence: u64, writes: &[Write]) -> Entry {
        let mut entry = Entry::new(LOG_GUID, sequence, 0);
        entry.descriptors.extend(writes.iter().take(20).filter_map(|write| self.descriptor(write)));
        entry
    }

    fn descriptor(&self, write: &Write) -> Option<Descriptor> {
        match write {
            Write::Page(target, content) => {
                let at = self.place(target)?;
                let mut page = self.base.scratch.bytes().bytes_at(at, PAGE as usize);
                match content {
                    Content::Same => {}
                    Content::Changed(within, value) => {
                        let within = usize::from(*within) % 509 * 8;
                        page[within..within + 8].copy_from_slice(&value.number().to_le_bytes());
                    }
                    Content::Fill(seed) => page = pattern((*seed).into(), at, PAGE as usize),
                }
                Some(Descriptor::Data(at, page))
            }
            Write::Zeros(target, pages) => {
                let at = self.place(target)?;
                let length = u64::from(pages % 40) * PAGE;
                // Not over the log, which is after the first MiB.
                let clear = at >= 2 * MIB || at + length <= MIB;
                clear.then_some(Descriptor::Zero(at, length))
            }
        }
    }

    fn place(&self, target: &Target) -> Option<u64> {
        let places = &self.base.places;
        let page = |start: usize, page: u64| start as u64 + page * PAGE;
        let at = match target {
            Target::RegionTable(number) => page(0x3_0000, u64::from(number % 32)),
            Target::Metadata(items) => page(places.metadata, u64::from(*items) * 16),
            Target::Bat => page(places.bat, 0),
            Target::Bitmap => page(places.bitmap.max(places.bat), 0),
            // Blocks are after the table.
            Target::Block(second, number) => page(places.bat, 256 * (1 + u64::from(*second)) + u64::from(number % 9)),
            Target::Behind(number) => page(self.base.scratch.bytes().len().next_multiple_of(4096), (*number).into()),
            Target::Any(number) => page(0x3_0000, u64::from(*number) % 2000),
        };
        (!(MIB..2 * MIB).contains(&at)).then_some(at)
    }
}

fn compare(disk: vhdx_mmap::Result<Disk>, oracle: Result<Oracle<'_>, oracle::Fault>) {
    match (disk, oracle) {
        (Ok(disk), Ok(oracle)) => assert_same(&disk, &oracle, some_sectors(&disk)),
        (Err(_), Err(_)) => {}
        (Ok(_), Err(fault)) => panic!("opened, but it is {fault:?}"),
        (Err(error), Ok(_)) => panic!("what can be opened is refused: {error}"),
    }
}
