//! File records, their attributes, and files: all attributes of one, in as many records as it takes.

use std::collections::HashMap;

use super::raw::{Fields, damaged, restore, to_u64, to_usize};
use super::view::View;
use crate::error::{Error, Result};
use crate::names::{from_utf16, units};
use crate::volume::Node;

pub(super) const STANDARD_INFORMATION: u32 = 0x10;
const ATTRIBUTE_LIST: u32 = 0x20;
pub(super) const FILE_NAME: u32 = 0x30;
pub(super) const VOLUME_NAME: u32 = 0x60;
pub(super) const VOLUME_INFORMATION: u32 = 0x70;
pub(super) const DATA: u32 = 0x80;
pub(super) const INDEX_ROOT: u32 = 0x90;
pub(super) const INDEX_ALLOCATION: u32 = 0xa0;
pub(super) const REPARSE_POINT: u32 = 0xc0;
pub(super) const EXTENDED: u32 = 0xe0;

/// Marks the end of the attributes of a record.
const END: u32 = 0xffff_ffff;

/// Flag of a record that is in use.
const IN_USE: u16 = 1;

/// Flag of the record of a directory.
const DIRECTORY: u16 = 2;

/// Largest size of a list of attributes, in bytes. Windows makes none of more than 256 KiB.
const LARGEST_LIST: u64 = 1 << 20;

/// Bits of a reference to a file that are the number of its record. Those above are the sequence number.
const NUMBER_BITS: u32 = 48;

/// Splits a reference to a file: the number of the record, and its sequence number.
pub(super) fn split(reference: u64) -> (u64, u16) {
    let sequence = u16::try_from(reference >> NUMBER_BITS).unwrap_or(0);
    (reference & !(u64::MAX << NUMBER_BITS), sequence)
}

/// File record, with its update sequence undone.
#[derive(Debug)]
pub(super) struct Record {
    number: u64,
    sequence: u16,
    links: u16,
    flags: u16,
    /// Reference to the record that this one belongs to; 0 if it is the first one of its file.
    base: u64,
    /// What is in use of it.
    bytes: Vec<u8>,
}

impl Record {
    pub(super) fn parse(number: u64, mut bytes: Vec<u8>, sector: usize) -> Result<Self> {
        let of = |error| damaged(format!("file record {number}: {}", reason_of(&error)));
        restore(&mut bytes, *b"FILE", sector).map_err(of)?;
        let used = to_usize(bytes.u32(0x18)?);
        if used > bytes.len() {
            return Err(damaged(format!("file record {number} uses more bytes than it has")));
        }
        bytes.truncate(used);
        Ok(Self {
            number,
            sequence: bytes.u16(0x10)?,
            links: bytes.u16(0x12)?,
            flags: bytes.u16(0x16)?,
            base: bytes.u64(0x20)?,
            bytes,
        })
    }

    /// Returns the attributes, in their order.
    pub(super) fn attributes(&self) -> Result<Vec<Attribute<'_>>> {
        let mut attributes = Vec::new();
        let mut at = usize::from(self.bytes.u16(0x14)?);
        while self.bytes.u32(at)? != END {
            let attribute = self.attribute(at)?;
            at = at.saturating_add(attribute.length);
            attributes.push(attribute);
        }
        Ok(attributes)
    }

    fn attribute(&self, at: usize) -> Result<Attribute<'_>> {
        let length = to_usize(self.bytes.u32(at.saturating_add(4))?);
        if length < 0x18 || length & 7 != 0 {
            return Err(damaged(format!("file record {} has an attribute of {length} bytes", self.number)));
        }
        let bytes = self.bytes.part(at, length)?;
        let name_length = usize::from(bytes.u8(9)?).saturating_mul(2);
        let body = if bytes.u8(8)? == 0 {
            Body::Resident(bytes.part(usize::from(bytes.u16(0x14)?), to_usize(bytes.u32(0x10)?))?)
        } else {
            let pairs = usize::from(bytes.u16(0x20)?);
            if pairs < 0x40 {
                return Err(damaged(format!("file record {} has a list of runs in a header", self.number)));
            }
            Body::Clusters {
                first: bytes.u64(0x10)?,
                last: bytes.u64(0x18)?,
                unit: bytes.u16(0x22)?,
                allocated: bytes.u64(0x28)?,
                size: bytes.u64(0x30)?,
                initialised: bytes.u64(0x38)?,
                stored: if pairs >= 0x48 { Some(bytes.u64(0x40)?) } else { None },
                pairs: bytes.part(pairs, length.saturating_sub(pairs))?,
            }
        };
        Ok(Attribute {
            kind: bytes.u32(0)?,
            id: bytes.u16(0xe)?,
            flags: bytes.u16(0xc)?,
            name: if name_length == 0 { &[] } else { bytes.part(usize::from(bytes.u16(0xa)?), name_length)? },
            length,
            body,
        })
    }
}

/// The reason of an error, without the file system it names.
fn reason_of(error: &Error) -> String {
    match error {
        Error::FileSystem { reason, .. } => reason.clone(),
        error => error.to_string(),
    }
}

/// Attribute of a file, or a piece of one.
#[derive(Clone, Debug)]
pub(super) struct Attribute<'r> {
    pub(super) kind: u32,
    id: u16,
    /// 1 for LZNT1, 0x4000 for encrypted, 0x8000 for sparse.
    pub(super) flags: u16,
    /// In UTF-16, empty if it has none.
    pub(super) name: &'r [u8],
    length: usize,
    pub(super) body: Body<'r>,
}

/// Where the value of an attribute is.
#[derive(Clone, Debug)]
pub(super) enum Body<'r> {
    /// In the record.
    Resident(&'r [u8]),
    /// In clusters. Only the piece that begins at cluster 0 of the value has sizes.
    Clusters {
        /// First cluster of the value that this piece is about.
        first: u64,
        /// Last one of them; one less than `first` if there are none.
        last: u64,
        /// Binary logarithm of the clusters in a unit of compression.
        unit: u16,
        allocated: u64,
        size: u64,
        initialised: u64,
        /// What is allocated besides holes, where the attribute may have them.
        stored: Option<u64>,
        /// The list of runs, packed.
        pairs: &'r [u8],
    },
}

impl<'r> Attribute<'r> {
    /// Returns the first cluster of the value that this piece is about.
    pub(super) fn first(&self) -> u64 {
        match &self.body {
            Body::Resident(_) => 0,
            Body::Clusters { first, .. } => *first,
        }
    }

    /// Returns the length of the value, in bytes.
    pub(super) fn size(&self) -> u64 {
        match &self.body {
            Body::Resident(value) => to_u64(value.len()),
            Body::Clusters { size, .. } => *size,
        }
    }

    /// Returns the value, which has to be in the record.
    pub(super) fn resident(&self) -> Result<&'r [u8]> {
        match &self.body {
            Body::Resident(value) => Ok(value),
            Body::Clusters { .. } => Err(damaged("an attribute that has to be in a file record is not")),
        }
    }

    /// Returns what the value takes on the disk besides the record, in bytes.
    pub(super) fn allocated(&self) -> u64 {
        match &self.body {
            Body::Resident(_) => 0,
            Body::Clusters { allocated, stored, .. } => stored.unwrap_or(*allocated),
        }
    }
}

/// Entry of a list of attributes: which record holds a piece of one.
#[derive(Debug)]
pub(super) struct ListEntry {
    pub(super) kind: u32,
    pub(super) name: Vec<u8>,
    pub(super) first: u64,
    reference: u64,
    id: u16,
}

impl ListEntry {
    /// Returns the attribute among those of the record that the entry names.
    pub(super) fn find<'a, 'r>(&self, attributes: &'a [Attribute<'r>]) -> Result<&'a Attribute<'r>> {
        let is_it = |attribute: &&Attribute<'_>| {
            attribute.kind == self.kind
                && attribute.id == self.id
                && attribute.name == self.name
                && attribute.first() == self.first
        };
        let found = attributes.iter().find(is_it);
        found.ok_or_else(|| {
            let (number, _) = split(self.reference);
            damaged(format!("file record {number} has not the attribute that a list of attributes names"))
        })
    }
}

/// Reads the list of attributes, if there is one among the attributes of the first record of a file.
pub(super) fn list_of(view: &View, attributes: &[Attribute<'_>]) -> Result<Vec<ListEntry>> {
    let Some(list) = attributes.iter().find(|attribute| attribute.kind == ATTRIBUTE_LIST) else {
        return Ok(Vec::new());
    };
    let value = view.value(&[list], LARGEST_LIST)?;
    let mut entries = Vec::new();
    let mut rest = value.as_slice();
    while !rest.is_empty() {
        let length = usize::from(rest.u16(4)?);
        if length < 0x1a {
            return Err(damaged("a list of attributes has an entry without a length"));
        }
        let entry = rest.part(0, length)?;
        let name_length = usize::from(entry.u8(6)?).saturating_mul(2);
        let name: &[u8] = if name_length == 0 { &[] } else { entry.part(usize::from(entry.u8(7)?), name_length)? };
        entries.push(ListEntry {
            kind: entry.u32(0)?,
            name: name.to_vec(),
            first: entry.u64(8)?,
            reference: entry.u64(0x10)?,
            id: entry.u16(0x18)?,
        });
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(entries)
}

/// Attributes of a file, as far as they were asked for.
#[derive(Debug)]
pub(super) struct File {
    /// The first one is the one that names of the file refer to.
    records: Vec<Record>,
    /// The kinds of the attributes, their records, and the offsets in them.
    places: Vec<(u32, usize, usize)>,
}

impl View {
    /// Reads a record that a list of attributes refers to. It has to belong to the file whose first record has the
    /// number `base`.
    pub(super) fn extension(&self, entry: &ListEntry, base: u64, sequence: Option<u16>) -> Result<Record> {
        let (number, wanted) = split(entry.reference);
        let record = self.record(number)?;
        let (owner, owner_sequence) = split(record.base);
        let is_stale = record.flags & IN_USE == 0 || record.sequence != wanted;
        if is_stale || owner != base || sequence.is_some_and(|sequence| sequence != owner_sequence) {
            return Err(damaged(format!("file record {number} is no part of the file with record {base}")));
        }
        Ok(record)
    }

    /// Reads the attributes of a file. `is_wanted` is asked for each whether it is needed, by its kind and the first
    /// cluster of its value that it is about; only then is the record read that holds it.
    pub(super) fn file(&self, node: Node, is_wanted: impl Fn(u32, u64) -> bool) -> Result<File> {
        let (number, sequence) = split(node.0);
        let base = self.record(number)?;
        if base.flags & IN_USE == 0 || (sequence != 0 && sequence != base.sequence) {
            return Err(damaged(format!("a name leads to file record {number}, whose file was deleted")));
        }
        if base.base != 0 {
            return Err(damaged(format!("a name leads to file record {number}, which is a part of another file")));
        }
        let attributes = base.attributes()?;
        let list = list_of(self, &attributes)?;
        let mut places = Vec::new();
        let mut at = usize::from(base.bytes.u16(0x14)?);
        for attribute in &attributes {
            if list.is_empty() && is_wanted(attribute.kind, attribute.first()) {
                places.push((attribute.kind, 0, at));
            }
            at = at.saturating_add(attribute.length);
        }
        let sequence = base.sequence;
        drop(attributes);
        let mut file = File { records: vec![base], places };
        if list.is_empty() {
            return Ok(file);
        }
        let mut indices = HashMap::from([(number, 0)]);
        for entry in &list {
            if !is_wanted(entry.kind, entry.first) {
                continue;
            }
            let (holder, _) = split(entry.reference);
            let index = match indices.get(&holder) {
                Some(index) => *index,
                None => {
                    file.records.push(self.extension(entry, number, Some(sequence))?);
                    let index = file.records.len().saturating_sub(1);
                    indices.insert(holder, index);
                    index
                }
            };
            let place = file.place(index, entry)?;
            file.places.push((entry.kind, index, place));
        }
        Ok(file)
    }
}

impl File {
    /// Finds the offset of the attribute in a record that an entry of a list names.
    fn place(&self, index: usize, entry: &ListEntry) -> Result<usize> {
        let Some(record) = self.records.get(index) else { return Ok(0) };
        let attributes = record.attributes()?;
        let found = entry.find(&attributes)?;
        let mut at = usize::from(record.bytes.u16(0x14)?);
        for attribute in &attributes {
            if std::ptr::eq(attribute, found) {
                break;
            }
            at = at.saturating_add(attribute.length);
        }
        Ok(at)
    }

    fn base(&self) -> Result<&Record> {
        self.records.first().ok_or_else(|| damaged("a file has no record"))
    }

    /// Returns the reference that names of the file have, with the sequence number.
    pub(super) fn reference(&self) -> Result<u64> {
        self.base().map(|record| u64::from(record.sequence) << NUMBER_BITS | record.number)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.base().is_ok_and(|record| record.flags & DIRECTORY != 0)
    }

    /// Returns the number of names that the record of the file counts, those of DOS included.
    pub(super) fn links(&self) -> u16 {
        self.base().map_or(0, |record| record.links)
    }

    /// Returns the attributes of a kind, in their order.
    pub(super) fn all(&self, kind: u32) -> Result<Vec<Attribute<'_>>> {
        let mut found = Vec::new();
        for (_, index, at) in self.places.iter().filter(|(found, ..)| *found == kind) {
            if let Some(record) = self.records.get(*index) {
                found.push(record.attribute(*at)?);
            }
        }
        Ok(found)
    }

    /// Returns the pieces of an attribute, in the order of its clusters. Empty if there is no such attribute.
    pub(super) fn pieces(&self, kind: u32, name: &[u8]) -> Result<Vec<Attribute<'_>>> {
        let mut found = self.all(kind)?;
        found.retain(|attribute| attribute.name == name);
        found.sort_by_key(Attribute::first);
        Ok(found)
    }

    /// Returns the names of the streams besides the main one, in UTF-16, and their first pieces.
    pub(super) fn streams(&self) -> Result<Vec<Attribute<'_>>> {
        let mut found = self.all(DATA)?;
        found.retain(|attribute| !attribute.name.is_empty() && attribute.first() == 0);
        Ok(found)
    }
}

/// Name of a file, as its record or a directory has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    /// Created, modified, metadata changed, accessed.
    pub(super) times: [u64; 4],
    /// Attributes of DOS and Windows, and 0x1000_0000 for a directory. They may be out of date.
    pub(super) attributes: u32,
    /// Whether it is a name for DOS alone, besides a longer one.
    pub(super) is_dos: bool,
    /// In UTF-16.
    pub(super) units: &'a [u8],
}

impl<'a> Name<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Result<Self> {
        let length = usize::from(value.u8(0x40)?).saturating_mul(2);
        Ok(Self {
            times: [value.u64(8)?, value.u64(0x10)?, value.u64(0x18)?, value.u64(0x20)?],
            attributes: value.u32(0x38)?,
            is_dos: value.u8(0x41)? == 2,
            units: value.part(0x42, length)?,
        })
    }

    pub(super) fn to_wtf8(self) -> Vec<u8> {
        from_utf16(&units(self.units).collect::<Vec<_>>())
    }
}
