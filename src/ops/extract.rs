//! The content of a disk, written to a file or a stream: the raw disk.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;

#[cfg(feature = "rayon")]
use rayon::iter::ParallelIterator;

use crate::disk::{Disk, Segment};
use crate::error::Error;
use crate::scan::{Pieces, Progress};

/// What a target holds before anything is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Zeros, as a new file does: zeros of the disk become holes.
    Blank,
    /// Anything, as a block device does: zeros of the disk are written.
    Used,
}

/// What an extraction did.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Bytes that came from the files.
    pub data: u64,
    /// Bytes that are zero because nothing holds them.
    pub zero: u64,
}

impl Extracted {
    fn of(segment: &Segment<'_>) -> Self {
        match segment {
            Segment::Data(_) => Self { data: segment.len(), zero: 0 },
            Segment::Zero(length) => Self { data: 0, zero: *length },
        }
    }

    fn and(self, other: Self) -> Self {
        Self { data: self.data.saturating_add(other.data), zero: self.zero.saturating_add(other.zero) }
    }
}

/// Why an extraction ended before its end. The target holds a part of the disk then.
#[non_exhaustive]
#[derive(Debug)]
pub enum ExtractError {
    /// The disk can't be read.
    Read(Error),
    /// The target can't be written to.
    Write(io::Error),
    /// [`Progress::advance`] asked for it.
    Cancelled,
}

impl fmt::Display for ExtractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Write(error) => write!(f, "cannot write: {error}"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for ExtractError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Write(error) => Some(error),
            Self::Cancelled => None,
        }
    }
}

impl From<Error> for ExtractError {
    fn from(error: Error) -> Self {
        Self::Read(error)
    }
}

/// How much of a range of the disk is data, and how much is zero without being anywhere: what an extraction will write,
/// found without a look at the content.
///
/// # Errors
/// If the map of the range can't be read to its end.
pub fn measure(disk: &Disk, range: Range<u64>) -> Result<Extracted, Error> {
    disk.extents(range).try_fold(Extracted::default(), |sum, extent| {
        let extent = extent?;
        let (data, zero) = if extent.is_data() { (extent.length, 0) } else { (0, extent.length) };
        Ok(sum.and(Extracted { data, zero }))
    })
}

/// Writes a range of the disk to `file`, from its beginning, at the places that the bytes have in the range. With the
/// feature `rayon`, the threads of the current pool do it.
///
/// The length of the file is not changed where the range ends with zeros that are not written: set it before.
///
/// # Errors
/// See [`ExtractError`].
pub fn extract_to_file(
    disk: &Disk,
    range: Range<u64>,
    file: &File,
    target: Target,
    progress: &dyn Progress,
) -> Result<Extracted, ExtractError> {
    let start = range.start;
    let write = |(position, segment): (u64, Segment<'_>)| {
        if matches!(segment, Segment::Data(_)) || target == Target::Used {
            let mut offset = position.saturating_sub(start);
            for bytes in segment.slices() {
                write_all_at(file, bytes, offset).map_err(ExtractError::Write)?;
                offset = offset.saturating_add(crate::num::to_u64(bytes.len()));
            }
        }
        report(progress, &segment)
    };

    #[cfg(feature = "rayon")]
    return disk
        .par_segments(range)
        .map(|piece| write(piece?))
        .try_reduce(Extracted::default, |one, other| Ok(one.and(other)));

    #[cfg(not(feature = "rayon"))]
    return Pieces::new(disk, range.start, range.end)
        .try_fold(Extracted::default(), |sum, piece| Ok(sum.and(write(piece?)?)));
}

/// Writes a range of the disk to `writer`, zeros included, in order.
///
/// # Errors
/// See [`ExtractError`].
pub fn extract_to_writer(
    disk: &Disk,
    range: Range<u64>,
    writer: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<Extracted, ExtractError> {
    Pieces::new(disk, range.start, range.end).try_fold(Extracted::default(), |sum, piece| {
        let (_, segment) = piece?;
        segment.slices().try_for_each(|bytes| writer.write_all(bytes)).map_err(ExtractError::Write)?;
        Ok(sum.and(report(progress, &segment)?))
    })
}

/// Tells `progress` that a segment is done.
fn report(progress: &dyn Progress, segment: &Segment<'_>) -> Result<Extracted, ExtractError> {
    if progress.advance(segment.len()).is_break() {
        return Err(ExtractError::Cancelled);
    }
    Ok(Extracted::of(segment))
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;

    while !bytes.is_empty() {
        let written = file.seek_write(bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
        offset = offset.saturating_add(crate::num::to_u64(written));
    }
    Ok(())
}
