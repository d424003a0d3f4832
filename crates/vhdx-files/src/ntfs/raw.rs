//! Fields of structures, their update sequences, and names.

use std::fmt::Display;

use vhdx_mmap::ops::Volume as Kind;

use crate::error::{Error, Result};

/// Makes the error of a structure that is damaged.
pub(super) fn damaged(reason: impl Display) -> Error {
    Error::damaged(Kind::Ntfs, reason)
}

/// Makes the error of something that is not supported.
pub(super) fn unsupported(reason: impl Display) -> Error {
    Error::unsupported(Kind::Ntfs, reason)
}

/// Returns the number as a `usize`, or the largest one.
pub(super) fn to_usize(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

/// Returns the number as a `u64`, or the largest one.
pub(super) fn to_u64(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

/// Fields of a structure, by their offsets in bytes. Reading past the end of the structure is an error.
pub(super) trait Fields {
    fn part(&self, at: usize, length: usize) -> Result<&[u8]>;

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]>;

    fn u8(&self, at: usize) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array(at)?))
    }

    fn u16(&self, at: usize) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }

    fn u32(&self, at: usize) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    fn u64(&self, at: usize) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }
}

impl Fields for [u8] {
    fn part(&self, at: usize, length: usize) -> Result<&[u8]> {
        let part = self.get(at..).and_then(|rest| rest.get(..length));
        part.ok_or_else(|| damaged("a structure ends before its last field"))
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let part = self.get(at..).and_then(|rest| rest.first_chunk::<N>());
        part.copied().ok_or_else(|| damaged("a structure ends before its last field"))
    }
}

/// Checks the signature and the update sequence of a structure of several sectors, and restores the bytes that the
/// update sequence replaces. A part of it that was not written is an error.
pub(super) fn restore(block: &mut [u8], signature: [u8; 4], sector: usize) -> Result<()> {
    if block.first_chunk() != Some(&signature) {
        let expected = String::from_utf8_lossy(&signature).into_owned();
        return Err(damaged(format!("a structure has not the signature {expected}")));
    }
    let (at, count) = (usize::from(block.u16(4)?), usize::from(block.u16(6)?));
    let stride = stride_of(block.len(), count, sector)?;
    let sequence: Vec<[u8; 2]> = block.part(at, count.saturating_mul(2))?.as_chunks::<2>().0.to_vec();
    let (number, saved) = sequence.split_first().ok_or_else(|| damaged("an update sequence is empty"))?;
    for (piece, saved) in block.chunks_exact_mut(stride).zip(saved) {
        let end = piece.last_chunk_mut::<2>().ok_or_else(|| damaged("an update sequence is empty"))?;
        if end != number {
            return Err(damaged("a structure was written in part: its update sequence differs"));
        }
        *end = *saved;
    }
    Ok(())
}

/// Returns how far apart the places are that an update sequence with `count` entries protects. It is 512 bytes, also
/// where sectors are larger; some tools take the size of the sector.
pub(super) fn stride_of(length: usize, count: usize, sector: usize) -> Result<usize> {
    let stride = count.checked_sub(1).and_then(|pieces| length.checked_div(pieces)).unwrap_or(0);
    let is_whole = stride != 0 && length.checked_rem(stride) == Some(0);
    if is_whole && (stride == 512 || stride == sector) {
        return Ok(stride);
    }
    Err(damaged(format!("an update sequence has {count} entries in a structure of {length} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_sequence_is_checked_and_undone() {
        let mut block = vec![7; 1024];
        block[..8].copy_from_slice(b"FILE\x30\0\x03\0");
        block[0x30..0x36].copy_from_slice(&[9, 9, 1, 2, 3, 4]);
        block[510..512].copy_from_slice(&[9, 9]);
        let mut torn = block.clone();
        restore(&mut torn, *b"FILE", 512).unwrap_err();
        block[1022..].copy_from_slice(&[9, 9]);
        restore(&mut block, *b"FILE", 512).unwrap();
        assert_eq!((&block[510..512], &block[1022..]), (&[1, 2][..], &[3, 4][..]));
        restore(&mut block, *b"INDX", 512).unwrap_err();
    }
}
