//! File records, and what is in them: attributes, entries of their lists, and names.

use super::raw::{Fields, damaged, restore, to_u64, to_usize};
use crate::error::{Error, Result};
use crate::names::{from_utf16, units};

pub(super) const STANDARD_INFORMATION: u32 = 0x10;
pub(super) const ATTRIBUTE_LIST: u32 = 0x20;
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
pub(super) const IN_USE: u16 = 1;

/// Flag of the record of a directory.
pub(super) const DIRECTORY: u16 = 2;

/// Bits of a reference to a file that are the number of its record. Those above are the sequence number.
pub(super) const NUMBER_BITS: u32 = 48;

/// Splits a reference to a file: the number of the record, and its sequence number.
pub(super) fn split(reference: u64) -> (u64, u16) {
    let sequence = u16::try_from(reference >> NUMBER_BITS).unwrap_or(0);
    (reference & !(u64::MAX << NUMBER_BITS), sequence)
}

/// File record, with its update sequence undone.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) number: u64,
    pub(super) sequence: u16,
    pub(super) links: u16,
    pub(super) flags: u16,
    /// Reference to the record that this one belongs to; 0 if it is the first one of its file.
    pub(super) base: u64,
    /// What is in use of it.
    pub(super) bytes: Vec<u8>,
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

    pub(super) fn attribute(&self, at: usize) -> Result<Attribute<'_>> {
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
    pub(super) length: usize,
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
    pub(super) reference: u64,
    id: u16,
}

impl ListEntry {
    /// Parses a list of attributes.
    pub(super) fn parse_all(list: &[u8]) -> Result<Vec<Self>> {
        let mut entries = Vec::new();
        let mut rest = list;
        while !rest.is_empty() {
            let length = usize::from(rest.u16(4)?);
            if length < 0x1a {
                return Err(damaged("a list of attributes has an entry without a length"));
            }
            let entry = rest.part(0, length)?;
            let name_length = usize::from(entry.u8(6)?).saturating_mul(2);
            let name: &[u8] =
                if name_length == 0 { &[] } else { entry.part(usize::from(entry.u8(7)?), name_length)? };
            entries.push(Self {
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
