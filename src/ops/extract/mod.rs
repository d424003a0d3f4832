//! Extraction: an input is written to a file or a device at the same offsets, or to a stream in order.

mod share;
mod stream;
mod write;

use std::fs::File;
use std::io;
use std::ops::Range;

use crate::disk::{Disk, Segment};
use crate::error::Error;
use crate::scan::{Access, Bulk, Done, Input, ScanError, ScanOptions, UnitBytes, contiguous};
use crate::source::Buffer;

use super::hash::{Algorithm, Digest, Hasher, consumers};

pub use stream::{extract_to_stream, extract_to_writer};
use write::Writer;

/// Content of a target before it is written to.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetContent {
    /// Zeros, like a new file of the right length: zeros need not be written.
    Zeros,
    /// Anything, like a block device: every byte is written, or zeroed in another way.
    Anything,
}

/// Policy for holes in the target, if it can have holes.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sparse {
    /// No holes: the target occupies its full length.
    None,
    /// Holes for unallocated blocks and other zeros that are not in a file.
    Blocks,
    /// Holes for these zeros, and for pages of 4 KiB that are all zero.
    #[default]
    Zeros,
}

/// Policy for shared blocks (reflinks): the target shares blocks with the image, if the file system of both supports
/// it. A shared block is copied when one of the files is written to.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reflink {
    /// Shares blocks if possible, and only with [`Sparse::Blocks`] and [`Sparse::Zeros`]; the rest is copied.
    #[default]
    Auto,
    /// Never shares blocks.
    Never,
}

/// Target of an extraction.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Target<'f> {
    /// The file or device. Its position is neither used nor changed.
    pub file: &'f File,
    /// The same file or device, opened for direct writes (`O_DIRECT`): it receives writes that are aligned to 4 KiB.
    pub direct: Option<&'f File>,
    /// Offset of the first byte in the target, in bytes.
    pub offset: u64,
    /// Content of the target before the extraction.
    pub content: TargetContent,
}

impl<'f> Target<'f> {
    /// Makes a target that begins at offset 0 of a file.
    #[must_use]
    pub fn new(file: &'f File, content: TargetContent) -> Self {
        Self { file, direct: None, offset: 0, content }
    }

    /// Sets the offset of the first byte in the target, in bytes.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Sets a second handle of the same file, opened for direct writes (`O_DIRECT`).
    #[must_use]
    pub fn direct(mut self, direct: Option<&'f File>) -> Self {
        self.direct = direct;
        self
    }
}

/// Options for an extraction.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct ExtractOptions<'p> {
    /// Options for reading the input.
    pub scan: ScanOptions<'p>,
    /// Policy for holes in the target.
    pub sparse: Sparse,
    /// Policy for shared blocks.
    pub reflink: Reflink,
    /// Digests to compute of the written bytes.
    pub hash: Vec<Algorithm>,
}

impl<'p> ExtractOptions<'p> {
    /// Makes the default options: all zeros become holes, blocks are shared if possible, and no digests are computed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the options for reading the input.
    #[must_use]
    pub fn scan(mut self, scan: ScanOptions<'p>) -> Self {
        self.scan = scan;
        self
    }

    /// Sets the policy for holes in the target.
    #[must_use]
    pub fn sparse(mut self, sparse: Sparse) -> Self {
        self.sparse = sparse;
        self
    }

    /// Sets the policy for shared blocks.
    #[must_use]
    pub fn reflink(mut self, reflink: Reflink) -> Self {
        self.reflink = reflink;
        self
    }

    /// Sets the digests to compute.
    #[must_use]
    pub fn hash(mut self, hash: Vec<Algorithm>) -> Self {
        self.hash = hash;
        self
    }
}

/// Result of an extraction. Lengths are in bytes.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Number of bytes from files.
    pub data: u64,
    /// Number of zeros that are not in a file, or are in holes of the image's file.
    pub zero: u64,
    /// Number of bytes of `data` that the target shares with the image's file.
    pub shared: u64,
    /// The requested digests, in the requested order.
    pub digests: Vec<Digest>,
}

/// Returns how much of a range of the disk is data, and how much is zero without being in a file. This is an upper
/// limit for an extraction, computed without reading the content.
///
/// # Errors
/// Fails if the map of the range cannot be read to its end.
pub fn measure(disk: &Disk, range: Range<u64>) -> Result<Extracted, Error> {
    disk.extents(range).try_fold(Extracted::default(), |mut sum, extent| {
        let extent = extent?;
        let counted = if extent.is_data() { &mut sum.data } else { &mut sum.zero };
        *counted = counted.saturating_add(extent.len);
        Ok(sum)
    })
}

/// Writes an input to a file or a block device, at the offsets of its bytes. With the feature `rayon`, the threads of
/// the current pool do it: one writes while the others read what comes next.
///
/// If the input ends with zeros that are not written, they do not extend the file: set its length before.
///
/// # Errors
/// See [`ScanError`]; [`ScanError::Write`] also if the input would end past the largest file offset, 2^63 - 1. Nothing
/// has been written then.
#[cfg(any(unix, windows))]
pub fn extract_to_file(
    input: Input<'_>,
    target: &Target<'_>,
    options: &ExtractOptions<'_>,
) -> Result<Extracted, ScanError> {
    check_end(input, target)?;
    let writer = Writer::new(target, options);
    let extracted = extract_by_best_way(input, &writer, options)?;
    writer.finish().map_err(ScanError::Write)?;
    Ok(extracted)
}

/// Rejects a target whose offsets do not suffice for the input: not every way of writing detects that by itself.
fn check_end(input: Input<'_>, target: &Target<'_>) -> Result<(), ScanError> {
    /// File offsets of systems are signed.
    const LAST: u64 = i64::MAX.unsigned_abs();

    let (offset, length) = (target.offset, input.checked_length()?);
    if offset.checked_add(length).is_some_and(|end| end <= LAST) {
        return Ok(());
    }
    let text =
        format!("the target ends too late (found {length} bytes at {offset}, expected an end of at most {LAST})");
    Err(ScanError::Write(io::Error::new(io::ErrorKind::InvalidInput, text)))
}

fn extract_by_best_way(
    input: Input<'_>,
    writer: &Writer<'_>,
    options: &ExtractOptions<'_>,
) -> Result<Extracted, ScanError> {
    if let Some(extracted) = share::extract(input, writer, options)? {
        return Ok(extracted);
    }
    if !options.hash.is_empty() {
        return copy_and_hash(input, writer, options);
    }
    copy(input, writer, options.scan, false, |_, _| (), |_, _| ())
}

/// Copies an input. The results of `look` for the bytes of each unit, as they are written, go to `take` in order; for
/// zeros that were not read, `take` gets only their length.
fn copy<P: Send>(
    input: Input<'_>,
    writer: &Writer<'_>,
    scan: ScanOptions<'_>,
    visit_zeros: bool,
    look: impl Fn(u64, &[u8]) -> P + Sync,
    mut take: impl FnMut(Option<P>, u64),
) -> Result<Extracted, ScanError> {
    let mut extracted = Extracted::default();
    Bulk { inputs: [input], access: Access::Read, visit_zeros, options: scan }.each(
        |unit, memory| write_unit(unit, memory, writer, &look),
        |Done { start, length, value }| {
            let (data, looked) = match value {
                Some((data, looked)) => (data, Some(looked)),
                None => {
                    writer.zeros_of(start, length, |done| scan.advance(done))?;
                    (0, None)
                }
            };
            extracted.count(data, length);
            take(looked, length);
            Ok(())
        },
    )?;
    Ok(extracted)
}

/// Writes a unit. Returns the number of its bytes that are in files, and the result of `look`.
fn write_unit<P>(
    unit: &UnitBytes<'_>,
    memory: &mut Buffer,
    writer: &Writer<'_>,
    look: impl Fn(u64, &[u8]) -> P,
) -> Result<(u64, P), ScanError> {
    let data = data_of(unit);
    let (bytes, written) = if data == 0 {
        (contiguous(&unit.segments, memory), writer.zeros(unit.start, unit.length))
    } else {
        let bytes = contiguous(&unit.segments, memory);
        (bytes, writer.write(unit.start, bytes))
    };
    written.map_err(ScanError::Write)?;
    Ok((data, look(unit.start, bytes)))
}

/// Returns the number of bytes of a unit that are in files.
fn data_of(unit: &UnitBytes<'_>) -> u64 {
    let is_data = |segment: &Segment<'_>| matches!(segment, Segment::Data(_));
    unit.segments().filter(is_data).fold(0, |sum, segment| sum.saturating_add(segment.len()))
}

impl Extracted {
    /// Counts `length` bytes, of which `data` came from files.
    fn count(&mut self, data: u64, length: u64) {
        self.data = self.data.saturating_add(data);
        self.zero = self.zero.saturating_add(length.saturating_sub(data));
    }
}

/// Copies an input, and computes digests of the written bytes.
fn copy_and_hash(input: Input<'_>, writer: &Writer<'_>, options: &ExtractOptions<'_>) -> Result<Extracted, ScanError> {
    let mut hasher = Hasher::new(&options.hash, input.len());
    let is_in_order = hasher.is_in_order();
    let (mut extracted, scan) = (Extracted::default(), options.scan);
    let Hasher { streams, plan, part, .. } = &mut hasher;
    let plan = *plan;
    let of_unit = |start, bytes: &[u8]| plan.of_unit(start, std::iter::once(Segment::Data(bytes)));
    if is_in_order {
        // Digests that need the bytes in order process them while other threads write the same bytes, and read the
        // next.
        let bulk = Bulk { inputs: [input], access: Access::Read, visit_zeros: true, options: scan };
        bulk.in_order(
            |unit, memory| write_unit(unit, memory, writer, of_unit),
            consumers(streams),
            |Done { length, value, .. }| {
                if let Some((data, unit)) = value {
                    extracted.count(data, length);
                    part.append(unit);
                }
                scan.advance(length)
            },
        )?;
    } else {
        extracted = copy(input, writer, scan, plan.visit_zeros(), of_unit, |unit, length| match unit {
            Some(unit) => part.append(unit),
            None => part.append_zeros(length),
        })?;
    }
    extracted.digests = hasher.finish();
    Ok(extracted)
}
