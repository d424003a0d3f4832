//! Small reads of a part of a disk, and of the fields in what was read.

use uuid::Uuid;
use zerocopy::big_endian::{U16, U32, U64};

use crate::disk::{Disk, DiskRange};
use crate::error::Result;
use crate::num::{to_u64, to_usize_saturating};

/// A part of a disk, for small reads.
pub(super) type Area<'d> = dyn AreaBytes + 'd;

/// A disk, for small reads.
pub(super) type WholeDisk<'d> = DiskRange<&'d Disk>;

/// Bytes of an area.
pub(super) trait AreaBytes {
    /// Size, in bytes.
    fn size(&self) -> u64;

    /// Copies bytes from `offset` on into `buffer`, and returns their number, which is less at the end only.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize>;
}

impl AreaBytes for DiskRange<&Disk> {
    fn size(&self) -> u64 {
        self.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.read_at(buffer, offset)
    }
}

/// An area of some size that a function reads.
pub(super) struct ReadArea<R> {
    pub(super) size: u64,
    pub(super) read: R,
}

impl<R: Fn(&mut [u8], u64) -> Result<usize>> AreaBytes for ReadArea<R> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        (self.read)(buffer, offset)
    }
}

/// `N` bytes at an offset; none if the area ends before them.
pub(super) fn bytes<const N: usize>(area: &Area<'_>, offset: u64) -> Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    let read = area.read_at(&mut bytes, offset)?;
    Ok((read == N).then_some(bytes))
}

/// `length` bytes at an offset, of which there are not many; none if the area ends before them.
pub(super) fn read_bytes(area: &Area<'_>, offset: u64, length: u64) -> Result<Option<Vec<u8>>> {
    if offset.checked_add(length).is_none_or(|end| end > area.size()) {
        return Ok(None);
    }
    let mut bytes = vec![0; to_usize_saturating(length)];
    let read = area.read_at(&mut bytes, offset)?;
    Ok((to_u64(read) == length).then_some(bytes))
}

/// Whether these bytes are at an offset.
pub(super) fn has<const N: usize>(area: &Area<'_>, offset: u64, expected: &[u8; N]) -> Result<bool> {
    Ok(bytes::<N>(area, offset)?.as_ref() == Some(expected))
}

/// A structure that was read. Fields past its end are zero.
#[derive(Default)]
pub(super) struct Fields(Vec<u8>);

impl Fields {
    /// Reads the `length` bytes at an offset. If the area ends before them, all fields are zero.
    pub(super) fn read(area: &Area<'_>, offset: u64, length: u64) -> Result<Self> {
        Ok(Self(read_bytes(area, offset, length)?.unwrap_or_default()))
    }

    pub(super) fn bytes(&self, at: usize, length: usize) -> &[u8] {
        self.0.get(at..).and_then(|rest| rest.get(..length)).unwrap_or_default()
    }

    pub(super) fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes(at, N).try_into().unwrap_or([0; N])
    }

    pub(super) fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    pub(super) fn le16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub(super) fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub(super) fn le64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    pub(super) fn be16(&self, at: usize) -> u16 {
        U16::from_bytes(self.array(at)).get()
    }

    pub(super) fn be32(&self, at: usize) -> u32 {
        U32::from_bytes(self.array(at)).get()
    }

    pub(super) fn be64(&self, at: usize) -> u64 {
        U64::from_bytes(self.array(at)).get()
    }

    /// A UUID in the order in which it is written; none if it is nil.
    pub(super) fn uuid(&self, at: usize) -> Option<String> {
        let id = Uuid::from_bytes(self.array(at));
        (!id.is_nil()).then(|| id.to_string())
    }

    /// Text of at most `length` bytes, up to the first zero; none if it is empty.
    pub(super) fn text(&self, at: usize, length: usize) -> Option<String> {
        let text = self.bytes(at, length).split(|byte| *byte == 0).next().unwrap_or_default();
        some_text(&String::from_utf8_lossy(text))
    }

    /// Text of at most `length` bytes in UTF-16, up to the first zero; none if it is empty.
    pub(super) fn utf16(&self, at: usize, length: usize) -> Option<String> {
        utf16(self.bytes(at, length), u16::from_le_bytes)
    }

    /// Text of at most `length` bytes in UTF-16, with the high byte first.
    pub(super) fn utf16_be(&self, at: usize, length: usize) -> Option<String> {
        utf16_be(self.bytes(at, length))
    }

    pub(super) fn length(&self) -> usize {
        self.0.len()
    }

    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Text in UTF-16 with the high byte first, up to the first zero; none if it is empty.
pub(super) fn utf16_be(bytes: &[u8]) -> Option<String> {
    utf16(bytes, |pair| U16::from_bytes(pair).get())
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let units = bytes.chunks_exact(2).map(|pair| unit(pair.try_into().unwrap_or_default()));
    let text: String = char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|read| read.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    some_text(&text)
}

fn some_text(text: &str) -> Option<String> {
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}
