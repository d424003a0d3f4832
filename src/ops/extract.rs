//! The content of a disk, written to a file or a stream: the raw disk.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;

#[cfg(feature = "rayon")]
use rayon::iter::ParallelIterator;

use crate::disk::{Disk, Segment};
use crate::error::Error;
use crate::num::{to_u64, to_usize_saturating};
use crate::scan::{Pieces, Progress};
use crate::zero::is_zero;

/// What a target holds before anything is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetContent {
    /// Zeros, as a new file does: what is zero is not written, and becomes a hole. That goes for pages of 4 KiB that are
    /// all zero, whether they are in a file or nowhere.
    Zeros,
    /// Anything, as a block device does: everything is written.
    Anything,
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
/// Where the range ends with zeros that are not written, the file is not made longer by them: set its length before.
///
/// # Errors
/// See [`ExtractError`].
#[cfg(any(unix, windows))]
pub fn extract_to_file(
    disk: &Disk,
    range: Range<u64>,
    file: &File,
    content: TargetContent,
    progress: &dyn Progress,
) -> Result<Extracted, ExtractError> {
    let start = range.start;
    let write = |(position, segment): (u64, Segment<'_>)| {
        let offset = position.saturating_sub(start);
        let written = match (segment, content) {
            (Segment::Zero(_), TargetContent::Zeros) => Ok(()),
            (Segment::Data(bytes), TargetContent::Zeros) => write_but_zeros(file, bytes, offset),
            (_, TargetContent::Anything) => write_all(file, segment, offset),
        };
        written.map_err(ExtractError::Write)?;
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

/// Writes everything.
fn write_all(file: &File, segment: Segment<'_>, offset: u64) -> io::Result<()> {
    let mut slices = segment.slices();
    let end = slices.try_fold(offset, |offset, bytes| {
        write_all_at(file, bytes, offset).map(|()| offset.saturating_add(to_u64(bytes.len())))
    });
    end.map(drop)
}

/// Writes everything but the pages of the target that would be all zero.
fn write_but_zeros(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    /// What file systems allocate.
    const PAGE: u64 = 4096;

    let to_page = offset.next_multiple_of(PAGE).saturating_sub(offset);
    let (head, pages) = bytes.split_at_checked(to_usize_saturating(to_page)).unwrap_or((bytes, &[]));
    // Where the run of bytes begins that has to be written and has not been yet; `at` is where the page at hand begins.
    let (mut pending, mut at) = (0, 0_usize);
    for page in std::iter::once(head).chain(pages.chunks(to_usize_saturating(PAGE))) {
        let end = at.saturating_add(page.len());
        if is_zero(page) {
            write_all_at(file, bytes.get(pending..at).unwrap_or_default(), offset.saturating_add(to_u64(pending)))?;
            pending = end;
        }
        at = end;
    }
    write_all_at(file, bytes.get(pending..).unwrap_or_default(), offset.saturating_add(to_u64(pending)))
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
        offset = offset.saturating_add(to_u64(written));
    }
    Ok(())
}
