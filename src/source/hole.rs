//! Holes of a file: ranges that read as zeros and have never been written.
//!
//! A 64 TiB disk of 1 MiB blocks has a BAT of 512 MiB, which in a new image is one hole. Reading it page by page makes
//! the system fill half a gigabyte with zeros first.

use std::fs::File;
use std::io;

use super::read::read_exact_at;
use crate::num::to_u64;

/// Returns the end of the hole at `offset`, at most `end`. Returns `offset` if it is not in a hole, or if the system
/// does not report holes.
#[cfg(target_os = "linux")]
pub(super) fn hole_end(file: &File, offset: u64, end: u64) -> u64 {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => data.clamp(offset, end.max(offset)),
        // No data after the offset: a hole up to the end of the file. A file that has become shorter has no hole there;
        // reading it will fail.
        Err(rustix::io::Errno::NXIO) if file.metadata().is_ok_and(|metadata| metadata.len() >= end) => end,
        Err(_) => offset,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn hole_end(_: &File, offset: u64, _: u64) -> u64 {
    offset
}

/// Returns the end of the data at `offset`, at most `end`.
#[cfg(target_os = "linux")]
pub(super) fn data_end(file: &File, offset: u64, end: u64) -> u64 {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(offset)) {
        Ok(hole) if hole > offset => hole.min(end),
        _ => end,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn data_end(_: &File, _: u64, end: u64) -> u64 {
    end
}

/// Reads the first `bytes.len()` bytes of the file into `bytes`, which are zero before, except for holes.
///
/// # Errors
/// The error of the read; `UnexpectedEof` if the file is shorter.
pub(super) fn read_data(file: &File, bytes: &mut [u8]) -> io::Result<()> {
    let end = to_u64(bytes.len());
    let (mut rest, mut at) = (bytes, 0);
    while at < end {
        let data = hole_end(file, at, end);
        let stop = if data < end { data_end(file, data, end) } else { end };
        let (Ok(skip), Ok(length)) = (usize::try_from(data.abs_diff(at)), usize::try_from(stop.abs_diff(data))) else {
            break;
        };
        let Some((piece, remaining)) =
            rest.split_at_mut_checked(skip).and_then(|(_, rest)| rest.split_at_mut_checked(length))
        else {
            break;
        };
        read_exact_at(file, piece, data)?;
        (rest, at) = (remaining, stop);
    }
    Ok(())
}
