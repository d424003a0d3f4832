//! Log entries, valid and invalid ones, and images whose last changes are only in the log.

use uuid::Uuid;

use super::builder::{BAT_REGION, Image, METADATA_REGION, Slot, Spec, seal};
use super::{Block, Fill, GIB, KIB, MIB, PAGE, pattern};

/// The log GUID of the images made dirty here.
pub const LOG_GUID: Uuid = Uuid::from_u128(0xE6FC_743C_81ED_4FE8_BF54_698E_D57B_A0B8);

/// A change in an entry.
#[derive(Debug, Clone)]
pub enum Descriptor {
    /// These 4096 bytes at this offset of the file.
    Data(u64, Vec<u8>),
    /// Zeros at `.0`, `.1` bytes long.
    Zero(u64, u64),
}

/// A log entry. The fields may hold anything; `patches` can change the rest.
#[derive(Debug, Clone)]
pub struct Entry {
    /// SequenceNumber of entry, descriptors and data sectors.
    pub sequence: u64,
    /// Tail.
    pub tail: u32,
    /// LogGuid.
    pub guid: Uuid,
    /// FlushedFileOffset.
    pub flushed: u64,
    /// LastFileOffset.
    pub last: u64,
    /// The changes.
    pub descriptors: Vec<Descriptor>,
    /// Bytes written over the encoded entry before its checksum is made.
    pub patches: Vec<(usize, Vec<u8>)>,
    /// XORed into the checksum.
    pub crc_xor: u32,
}

impl Entry {
    /// An entry without changes, for a file that is long enough already.
    pub fn new(guid: Uuid, sequence: u64, tail: u32) -> Self {
        Self { sequence, tail, guid, flushed: MIB, last: MIB, descriptors: Vec::new(), patches: Vec::new(), crc_xor: 0 }
    }

    /// Adds a change of one page.
    pub fn data(mut self, offset: u64, page: &[u8]) -> Self {
        self.descriptors.push(Descriptor::Data(offset, page.to_vec()));
        self
    }

    /// Adds a change to zeros.
    pub fn zero(mut self, offset: u64, length: u64) -> Self {
        self.descriptors.push(Descriptor::Zero(offset, length));
        self
    }

    /// Writes bytes over the entry before its checksum is made.
    pub fn patch(mut self, at: usize, bytes: &[u8]) -> Self {
        self.patches.push((at, bytes.to_vec()));
        self
    }

    /// Makes the checksum wrong.
    pub fn bad_crc(mut self) -> Self {
        self.crc_xor = 1;
        self
    }

    /// Replaces the signature.
    pub fn bad_signature(self) -> Self {
        self.patch(0, b"logE")
    }

    /// Replaces EntryLength. The checksum is made over that length, with zeros added, so that the length is the only
    /// fault before an empty ring; above 64 MiB it is unchanged.
    pub fn entry_length(self, length: u32) -> Self {
        self.patch(8, &length.to_le_bytes())
    }

    /// Replaces DescriptorCount.
    pub fn count(self, count: u32) -> Self {
        self.patch(24, &count.to_le_bytes())
    }

    /// Sets the Reserved field.
    pub fn reserved(self, value: u32) -> Self {
        self.patch(28, &value.to_le_bytes())
    }

    /// Replaces the signature of a descriptor.
    pub fn descriptor_signature(self, index: usize, signature: [u8; 4]) -> Self {
        self.patch(64 + 32 * index, &signature)
    }

    /// Replaces the SequenceNumber of a descriptor.
    pub fn descriptor_sequence(self, index: usize, sequence: u64) -> Self {
        self.patch(64 + 32 * index + 24, &sequence.to_le_bytes())
    }

    /// Replaces the signature of a data sector, counted among the data sectors.
    pub fn data_signature(self, index: usize) -> Self {
        let at = self.data_at(index);
        self.patch(at, b"dAta")
    }

    /// Replaces the SequenceHigh of a data sector.
    pub fn data_high(self, index: usize, value: u32) -> Self {
        let at = self.data_at(index) + 4;
        self.patch(at, &value.to_le_bytes())
    }

    /// Replaces the SequenceLow of a data sector.
    pub fn data_low(self, index: usize, value: u32) -> Self {
        let at = self.data_at(index) + 4092;
        self.patch(at, &value.to_le_bytes())
    }

    /// Offset of a data sector in the entry.
    pub fn data_at(&self, index: usize) -> usize {
        let sectors = (64 + 32 * self.descriptors.len()).div_ceil(PAGE as usize);
        (sectors + index) * PAGE as usize
    }

    /// Correct length of the entry.
    pub fn length(&self) -> u32 {
        let data = self.descriptors.iter();
        let data = data.filter(|d| matches!(d, Descriptor::Data(..))).count();
        self.data_at(data) as u32
    }

    /// Bytes of the entry.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; self.length() as usize];
        out[..4].copy_from_slice(b"loge");
        out[8..12].copy_from_slice(&self.length().to_le_bytes());
        out[12..16].copy_from_slice(&self.tail.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..28].copy_from_slice(&(self.descriptors.len() as u32).to_le_bytes());
        out[32..48].copy_from_slice(&self.guid.to_bytes_le());
        out[48..56].copy_from_slice(&self.flushed.to_le_bytes());
        out[56..64].copy_from_slice(&self.last.to_le_bytes());
        let mut data_at = self.data_at(0);
        for (i, descriptor) in self.descriptors.iter().enumerate() {
            let at = 64 + 32 * i;
            out[at + 24..at + 32].copy_from_slice(&self.sequence.to_le_bytes());
            match descriptor {
                Descriptor::Zero(offset, length) => {
                    out[at..at + 4].copy_from_slice(b"zero");
                    out[at + 8..at + 16].copy_from_slice(&length.to_le_bytes());
                    out[at + 16..at + 24].copy_from_slice(&offset.to_le_bytes());
                }
                Descriptor::Data(offset, page) => {
                    out[at..at + 4].copy_from_slice(b"desc");
                    out[at + 4..at + 8].copy_from_slice(&page[4092..]);
                    out[at + 8..at + 16].copy_from_slice(&page[..8]);
                    out[at + 16..at + 24].copy_from_slice(&offset.to_le_bytes());
                    let sector = &mut out[data_at..data_at + PAGE as usize];
                    sector[..4].copy_from_slice(b"data");
                    sector[4..8].copy_from_slice(&((self.sequence >> 32) as u32).to_le_bytes());
                    sector[8..4092].copy_from_slice(&page[8..4092]);
                    sector[4092..].copy_from_slice(&(self.sequence as u32).to_le_bytes());
                    data_at += PAGE as usize;
                }
            }
        }
        for (at, bytes) in &self.patches {
            out[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        let length = u32::from_le_bytes(out[8..12].try_into().unwrap()) as usize;
        let mut covered = out.clone();
        if (8..=64 * MIB as usize).contains(&length) {
            covered.resize(length, 0);
        }
        seal(&mut covered);
        let crc = u32::from_le_bytes(covered[4..8].try_into().unwrap()) ^ self.crc_xor;
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// Writes entries one after the other, with rising numbers.
#[derive(Debug, Clone)]
pub struct Journal {
    /// Ring offset of the next entry; taken modulo the length of the ring.
    pub at: u32,
    /// SequenceNumber of the next entry.
    pub sequence: u64,
    /// Tail of the next entries; `None`: each refers to itself.
    pub tail: Option<u32>,
    /// LogGuid of the next entries.
    pub guid: Uuid,
    /// FlushedFileOffset of the next entries.
    pub flushed: u64,
    /// LastFileOffset of the next entries.
    pub last: u64,
}

impl Journal {
    /// A journal whose first entry is at this ring offset and is the tail of all.
    pub fn new(at: u32, sequence: u64) -> Self {
        Self { at, sequence, tail: Some(at), guid: LOG_GUID, flushed: MIB, last: MIB }
    }

    /// The entry that `append` would write.
    pub fn entry(&self, descriptors: &[Descriptor]) -> Entry {
        Entry {
            flushed: self.flushed,
            last: self.last,
            descriptors: descriptors.to_vec(),
            ..Entry::new(self.guid, self.sequence, self.tail.unwrap_or(self.at))
        }
    }

    /// Writes an entry and returns its ring offset; the next entry follows it.
    pub fn append(&mut self, image: &mut Image, descriptors: &[Descriptor]) -> u32 {
        let entry = self.entry(descriptors);
        let at = self.at;
        image.put_entry(at, &entry);
        self.at = (at + entry.length()) % image.spec.log_length;
        self.sequence = self.sequence.wrapping_add(1);
        at
    }
}

/// Content of a page in the file while its right content is only in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old {
    /// Zeros.
    Zero,
    /// The pattern of this seed.
    Junk(u64),
}

impl Image {
    /// Writes an entry at a ring offset; the part that does not fit before the end of the ring continues at its start.
    pub fn put_entry(&mut self, at: u32, entry: &Entry) {
        self.put_ring(at, &entry.encode());
    }

    /// Writes bytes at a ring offset, wrapping at the end of the ring.
    pub fn put_ring(&mut self, at: u32, bytes: &[u8]) {
        let ring = u64::from(self.spec.log_length);
        for (i, page) in bytes.chunks(PAGE as usize).enumerate() {
            let within = (u64::from(at) + i as u64 * PAGE) % ring;
            self.bytes.write(self.spec.log_offset + within, page);
        }
    }

    /// Sets LogGuid in both headers.
    pub fn set_log_guid(&mut self, guid: Uuid) {
        self.patch_headers(48, &guid.to_bytes_le());
    }

    /// Removes the content of these pages from the file, as if it were only in the log, and returns the changes that
    /// restore it.
    pub fn unapply(&mut self, pages: &[u64], old: Old) -> Vec<Descriptor> {
        let mut out = Vec::new();
        for &at in pages {
            out.push(Descriptor::Data(at, self.bytes.read(at, PAGE as usize)));
            let stale = match old {
                Old::Zero => vec![0; PAGE as usize],
                Old::Junk(seed) => pattern(seed, at, PAGE as usize),
            };
            self.bytes.write(at, &stale);
        }
        out
    }

    /// Makes the changes of these pages exist only in the log: one entry at the start of the ring restores them.
    pub fn log_only(&mut self, pages: &[u64], old: Old) {
        let changes = self.unapply(pages, old);
        Journal::new(0, 1000).append(self, &changes);
        self.set_log_guid(LOG_GUID);
    }

    /// Pages with structures that a log may change: region tables, metadata, BAT and bitmaps.
    pub fn structure_pages(&self) -> Vec<u64> {
        let mut spans = vec![(192 * KIB, 320 * KIB)];
        for guid in [METADATA_REGION, BAT_REGION] {
            let region = self.regions.iter().find(|r| r.guid == guid).unwrap();
            spans.push((region.offset, region.offset + u64::from(region.length)));
        }
        for (slot, &place) in &self.places {
            if matches!(slot, Slot::Bitmap(_)) {
                spans.push((place, place + MIB));
            }
        }
        let pages = |(from, to): &(u64, u64)| self.bytes.written_pages(*from, *to);
        spans.iter().flat_map(pages).collect()
    }
}

/// Kinds of dirty images. Each has the content of the clean image that it is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dirty {
    /// One entry with all changes, whose tail is itself.
    OneEntry,
    /// One entry for each page, the first being the tail; in the file are zeros.
    ManyEntries,
    /// The newest entry is at ring offset 0, the tail at the end of the ring.
    WrapBetween,
    /// An entry wraps at the end of the ring.
    WrapInside,
    /// The entries fill the ring to the last byte, and begin in its middle.
    FullRing,
    /// Entries of the same run before the tail, which must not be replayed.
    StaleBeforeTail,
    /// An older entry directly after the newest.
    StaleBehindHead,
    /// Entries with higher numbers and another GUID, after the newest and elsewhere.
    ForeignGuid,
    /// An older run elsewhere in the ring, whose first number is above that of the newest run.
    OlderRun,
    /// A newer entry that names a tail outside its run.
    LostTail,
    /// A newer entry whose checksum fails.
    TornHead,
    /// All changes are in the file, and the log holds only an empty entry.
    OnlyEmpty,
    /// An empty entry opens the session, like on Windows.
    SessionStart,
    /// In one entry zeros over pages and then data over some of them, and the reverse (over the highest block, which
    /// the log of a correct writer never changes).
    Order,
    /// Enough descriptors of both kinds to fill several sectors.
    ManyDescriptors,
    /// Numbers that exceed 32 bits inside the run.
    LongNumbers,
    /// The highest possible number.
    LastNumber,
    /// The file ends before a present block of zeros; only LastFileOffset shows that.
    Growth,
    /// The file ends before the BAT, which the log writes past the end.
    GrowthByData,
}

impl Dirty {
    /// All kinds.
    pub const ALL: [Self; 19] = [
        Self::OneEntry,
        Self::ManyEntries,
        Self::WrapBetween,
        Self::WrapInside,
        Self::FullRing,
        Self::StaleBeforeTail,
        Self::StaleBehindHead,
        Self::ForeignGuid,
        Self::OlderRun,
        Self::LostTail,
        Self::TornHead,
        Self::OnlyEmpty,
        Self::SessionStart,
        Self::Order,
        Self::ManyDescriptors,
        Self::LongNumbers,
        Self::LastNumber,
        Self::Growth,
        Self::GrowthByData,
    ];

    /// Builds the image and makes it dirty. Its structures may fill about 200 pages.
    ///
    /// `Growth` and `Order` turn the highest block of the specification (there must be one) into a present block of
    /// zeros at the end of the file, also in the model. `GrowthByData` moves the BAT there, and blocks may use its old
    /// space.
    pub fn build(self, spec: &Spec) -> Image {
        let mut spec = spec.clone();
        match self {
            Self::Growth | Self::Order => {
                let last = *spec.blocks.keys().last().unwrap();
                let zeros = Block::full().fill(Fill::Pieces(Vec::new()));
                let end = spec.build().bytes.len().next_multiple_of(MIB);
                spec.blocks.insert(last, zeros.at(end));
            }
            Self::GrowthByData => {
                spec.bat_offset = spec.build().bytes.len().next_multiple_of(MIB);
            }
            _ => {}
        }
        let mut image = spec.build();
        self.soil(&mut image);
        image.set_log_guid(LOG_GUID);
        image
    }

    fn soil(self, image: &mut Image) {
        let ring = image.spec.log_length;
        let page = PAGE as u32;
        let end = image.bytes.len();
        let pages = image.structure_pages();
        // A page that every image needs, and space that is unused.
        let metadata = image.spec.metadata_offset;
        let harm = [Descriptor::Data(metadata, pattern(99, 0, PAGE as usize))];
        let unused = metadata + u64::from(image.spec.metadata_length) - 512 * KIB;
        let old = if self == Self::ManyEntries { Old::Zero } else { Old::Junk(98) };
        if self == Self::OnlyEmpty {
            Journal::new(64 * page, 5).append(image, &[]);
            return;
        }
        let mut changes = image.unapply(&pages, old);
        let mut journal = Journal::new(16 * page, 1000);
        match self {
            Self::OneEntry | Self::ManyEntries | Self::WrapBetween | Self::WrapInside | Self::FullRing => {}
            Self::StaleBeforeTail => {
                // They damage a page that no later entry repairs.
                if let Some(Descriptor::Data(at, right)) = changes.pop() {
                    image.bytes.write(at, &right);
                    journal.append(image, &[Descriptor::Data(at, vec![7; PAGE as usize])]);
                    journal.append(image, &[Descriptor::Zero(at, PAGE)]);
                    journal.tail = Some(journal.at);
                }
            }
            Self::StaleBehindHead => {
                let at = journal.at + journal.entry(&changes).length();
                image.put_entry(at, &Journal::new(at, 3).entry(&harm));
            }
            Self::ForeignGuid => {
                let at = journal.at + journal.entry(&changes).length();
                for (at, sequence) in [(at, 1001), (0, 1 << 40)] {
                    let mut foreign = Journal::new(at, sequence);
                    foreign.guid = Uuid::from_u128(0xBAD);
                    foreign.append(image, &harm);
                }
            }
            Self::OlderRun => {
                let mut older = Journal::new(0, 1001);
                older.append(image, &harm);
                older.append(image, &harm);
            }
            Self::LostTail => {
                let mut newer = Journal::new(0, 2000);
                newer.tail = Some(12 * page);
                newer.append(image, &harm);
                newer.append(image, &harm);
            }
            Self::TornHead => {
                let mut torn = journal.clone();
                torn.at += torn.entry(&changes).length();
                torn.sequence += 1;
                image.put_entry(torn.at, &torn.entry(&harm).bad_crc());
            }
            Self::SessionStart => {
                journal.append(image, &[]);
                journal.tail = Some(journal.at);
            }
            Self::Order => {
                let last = *image.spec.blocks.keys().last().unwrap();
                let at = image.block_at(last);
                image.bytes.write(at, &pattern(97, at, 64 * KIB as usize));
                let zeros = Descriptor::Zero(metadata, 128 * KIB);
                let junk = Descriptor::Data(at + PAGE, pattern(96, at, PAGE as usize));
                changes.splice(0..0, [zeros, junk, Descriptor::Zero(at, 64 * KIB)]);
            }
            Self::ManyDescriptors => {
                let mut all = Vec::new();
                for i in 0..128 {
                    all.push(Descriptor::Zero(unused + i % 100 * PAGE, PAGE));
                    if i % 3 == 0 {
                        all.extend(changes.pop());
                    }
                }
                all.extend(changes);
                changes = all;
            }
            Self::LongNumbers => journal.sequence = u64::from(u32::MAX),
            Self::LastNumber => journal.sequence = u64::MAX,
            Self::Growth => {
                let last = *image.spec.blocks.keys().last().unwrap();
                let at = image.block_at(last);
                image.bytes.truncate(at);
                (journal.flushed, journal.last) = (at, end);
            }
            Self::GrowthByData => {
                let at = image.spec.bat_offset;
                image.bytes.truncate(at);
                (journal.flushed, journal.last) = (at, end.next_multiple_of(MIB));
            }
            Self::OnlyEmpty => unreachable!("done above"),
        }
        match self {
            Self::ManyEntries | Self::OlderRun | Self::LongNumbers => {
                for change in changes {
                    journal.append(image, &[change]);
                }
            }
            Self::WrapBetween => {
                let first = journal.entry(&changes[..1]).length();
                journal = Journal::new(ring - first, 1000);
                journal.append(image, &changes[..1]);
                journal.append(image, &changes[1..]);
            }
            Self::WrapInside => {
                journal = Journal::new(ring - 2 * page, 1000);
                journal.append(image, &changes);
                journal.append(image, &[]);
            }
            Self::FullRing => {
                let mut left = (ring - journal.entry(&changes).length()) / page;
                while left > 0 {
                    let now = left.min(100);
                    let filler = vec![harm[0].clone(); now as usize - 1];
                    journal.append(image, &filler);
                    left -= now;
                }
                journal.append(image, &changes);
            }
            _ => {
                journal.append(image, &changes);
            }
        }
    }
}

/// The worked example of section 5.7 of the format document, with the pattern of seed 1 in its only block, except for
/// the boot signature.
pub fn worked_example() -> Image {
    let mut spec = Spec::empty(GIB);
    spec.block_size = 32 * MIB as u32;
    let mut block = pattern(1, 0, 512);
    block[510..].copy_from_slice(&[0x55, 0xAA]);
    spec.blocks.insert(0, Block::full().bytes(&block));
    let mut image = spec.build();
    let right = image.bytes.read(3 * MIB, PAGE as usize);
    image.bytes.write(3 * MIB, &vec![0; PAGE as usize]);
    // The first changes are intermediate states of the BAT: only the last one is complete.
    let early = vec![0; PAGE as usize];
    let (short, long) = (0x40_0000, 0x240_0000);
    let entries = [
        (0x0000, 0x0000, 387, None, short, short),
        (0x1000, 0x1000, 388, Some(&early), short, short),
        (0x3000, 0x1000, 389, Some(&early), short, short),
        (0x5000, 0x1000, 390, Some(&early), short, long),
        (0x7000, 0x5000, 391, Some(&right), long, long),
    ];
    for (at, tail, sequence, page, flushed, last) in entries {
        let mut entry = Entry::new(LOG_GUID, 80_117_443_871_106_000 + sequence, tail);
        (entry.flushed, entry.last) = (flushed, last);
        if let Some(page) = page {
            entry = entry.data(3 * MIB, page);
        }
        image.put_entry(at, &entry);
    }
    image.set_log_guid(LOG_GUID);
    image
}
