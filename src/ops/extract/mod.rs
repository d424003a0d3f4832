//! Input, written elsewhere: to a file or a device at the places that the bytes have, or to a stream in order.

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

/// What a target holds before anything is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetContent {
    /// Zeros, as a new file of the right length does: what is zero need not be written.
    Zeros,
    /// Anything, as a block device does: every byte is written, or made zero in another way.
    Anything,
}

/// Which zeros become holes of the target, where it can have holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sparse {
    /// None: the target takes all the room that its length says.
    None,
    /// Those that are nowhere.
    Blocks,
    /// Those, and runs of 4 KiB that are all zero inside of what is somewhere.
    #[default]
    Zeros,
}

/// Whether a target may share its blocks with the image, where the file system of both can do that: the copy is made when
/// one of them is written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reflink {
    /// Where it can be, and with [`Sparse::Blocks`] and [`Sparse::Zeros`] only; the rest is copied.
    #[default]
    Auto,
    /// Nowhere.
    Never,
}

/// Where to write.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Target<'f> {
    /// The file or device. Its position does not matter, and is not changed.
    pub file: &'f File,
    /// The same, opened to be written to past the system's memory (`O_DIRECT`): it takes what is aligned to 4 KiB.
    pub direct: Option<&'f File>,
    /// Where the first byte goes, in bytes.
    pub offset: u64,
    /// What is there before.
    pub content: TargetContent,
}

impl<'f> Target<'f> {
    /// The beginning of a file.
    #[must_use]
    pub fn new(file: &'f File, content: TargetContent) -> Self {
        Self { file, direct: None, offset: 0, content }
    }

    /// Sets where the first byte goes, in bytes.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Sets the same file, opened to be written to past the system's memory.
    #[must_use]
    pub fn direct(mut self, direct: Option<&'f File>) -> Self {
        self.direct = direct;
        self
    }
}

/// How an extraction is done.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct ExtractOptions<'p> {
    /// As for any bulk work.
    pub scan: ScanOptions<'p>,
    /// Which zeros become holes.
    pub sparse: Sparse,
    /// Whether blocks may be shared.
    pub reflink: Reflink,
    /// Digests that are wanted of what is written.
    pub hash: Vec<Algorithm>,
}

impl<'p> ExtractOptions<'p> {
    /// All zeros become holes, what can be shared is, and no digests are wanted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what goes for any bulk work.
    #[must_use]
    pub fn scan(mut self, scan: ScanOptions<'p>) -> Self {
        self.scan = scan;
        self
    }

    /// Sets which zeros become holes.
    #[must_use]
    pub fn sparse(mut self, sparse: Sparse) -> Self {
        self.sparse = sparse;
        self
    }

    /// Sets whether blocks may be shared.
    #[must_use]
    pub fn reflink(mut self, reflink: Reflink) -> Self {
        self.reflink = reflink;
        self
    }

    /// Sets the digests that are wanted.
    #[must_use]
    pub fn hash(mut self, hash: Vec<Algorithm>) -> Self {
        self.hash = hash;
        self
    }
}

/// What an extraction did, in bytes.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// That came from files.
    pub data: u64,
    /// That are zero because nothing holds them, or since they are holes of the image's file.
    pub zero: u64,
    /// Of `data`, those that the target shares with the image's file.
    pub shared: u64,
    /// The digests that were asked for, in that order.
    pub digests: Vec<Digest>,
}

/// How much of a range of the disk is data, and how much is zero without being anywhere: what an extraction will write at
/// most, found without a look at the content.
///
/// # Errors
/// If the map of the range can't be read to its end.
pub fn measure(disk: &Disk, range: Range<u64>) -> Result<Extracted, Error> {
    disk.extents(range).try_fold(Extracted::default(), |mut sum, extent| {
        let extent = extent?;
        let counted = if extent.is_data() { &mut sum.data } else { &mut sum.zero };
        *counted = counted.saturating_add(extent.len);
        Ok(sum)
    })
}

/// Writes a content to a file or a block device, at the places that its bytes have in it. With the feature `rayon`, the
/// threads of the current pool do it: two are faster than one where the system copies from memory to memory.
///
/// Where it ends with zeros that are not written, the file is not made longer by them: set its length before.
///
/// # Errors
/// See [`ScanError`]; [`ScanError::Write`] also where the content would end past the largest file offset, 2^63 - 1. Nothing
/// has been written then.
#[cfg(any(unix, windows))]
pub fn extract_to_file(
    content: Input<'_>,
    target: &Target<'_>,
    options: &ExtractOptions<'_>,
) -> Result<Extracted, ScanError> {
    check_end(content, target)?;
    let writer = Writer::new(target, options);
    let extracted = extract_by_best_way(content, &writer, options)?;
    writer.finish().map_err(ScanError::Write)?;
    Ok(extracted)
}

/// Refuses a target that has no offsets for all bytes of the content: not every way of writing finds that out by itself.
fn check_end(content: Input<'_>, target: &Target<'_>) -> Result<(), ScanError> {
    /// What systems count file offsets in is signed.
    const LAST: u64 = i64::MAX.unsigned_abs();

    let (offset, length) = (target.offset, content.checked_length()?);
    if offset.checked_add(length).is_some_and(|end| end <= LAST) {
        return Ok(());
    }
    let text =
        format!("the target ends too late (found {length} bytes at {offset}, expected an end of at most {LAST})");
    Err(ScanError::Write(io::Error::new(io::ErrorKind::InvalidInput, text)))
}

fn extract_by_best_way(
    content: Input<'_>,
    writer: &Writer<'_>,
    options: &ExtractOptions<'_>,
) -> Result<Extracted, ScanError> {
    if let Some(extracted) = share::extract(content, writer, options)? {
        return Ok(extracted);
    }
    if !options.hash.is_empty() {
        return copy_and_hash(content, writer, options);
    }
    copy(content, writer, options.scan, false, |_, _| (), |_, _| ())
}

/// Copies a content. What `look` makes of each unit's bytes, as they are written, goes to `take` in order; for zeros that
/// nobody looked at, `take` gets nothing but their length.
fn copy<P: Send>(
    content: Input<'_>,
    writer: &Writer<'_>,
    scan: ScanOptions<'_>,
    visit_zeros: bool,
    look: impl Fn(u64, &[u8]) -> P + Sync,
    mut take: impl FnMut(Option<P>, u64),
) -> Result<Extracted, ScanError> {
    let mut extracted = Extracted::default();
    Bulk { contents: [content], access: Access::Read, visit_zeros, options: scan }.each(
        |unit, memory| write_unit(unit, memory, writer, &look),
        |Done { start, length, value }| {
            let (data, looked) = match value {
                Some((data, looked)) => (data, Some(looked)),
                None => {
                    writer.zeros_of(start, length, |done| scan.advance(done).map_err(ScanError::from))?;
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

/// Writes a unit. Returns how many of its bytes are somewhere, and what `look` makes of them.
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

/// How many bytes of a unit are somewhere.
fn data_of(unit: &UnitBytes<'_>) -> u64 {
    let is_data = |segment: &Segment<'_>| matches!(segment, Segment::Data(_));
    unit.segments().filter(is_data).fold(0, |sum, segment| sum.saturating_add(segment.len()))
}

impl Extracted {
    /// Counts `length` bytes, of which `data` came from somewhere.
    fn count(&mut self, data: u64, length: u64) {
        self.data = self.data.saturating_add(data);
        self.zero = self.zero.saturating_add(length.saturating_sub(data));
    }
}

/// Copies a content, and computes digests of what is written.
fn copy_and_hash(
    content: Input<'_>,
    writer: &Writer<'_>,
    options: &ExtractOptions<'_>,
) -> Result<Extracted, ScanError> {
    let mut hasher = Hasher::new(&options.hash, content.len());
    let is_in_order = hasher.is_in_order();
    let (mut extracted, scan) = (Extracted::default(), options.scan);
    let Hasher { streams, plan, part, .. } = &mut hasher;
    let plan = *plan;
    let of_unit = |start, bytes: &[u8]| plan.of_unit(start, std::iter::once(Segment::Data(bytes)));
    if is_in_order {
        // Digests that need the bytes in order go through them while others write the same bytes, and read the next.
        let bulk = Bulk { contents: [content], access: Access::Read, visit_zeros: true, options: scan };
        bulk.in_order(
            |unit, memory| write_unit(unit, memory, writer, of_unit),
            consumers(streams),
            |Done { length, value, .. }| {
                if let Some((data, unit)) = value {
                    extracted.count(data, length);
                    part.append(unit);
                }
                Ok::<_, ScanError>(scan.advance(length)?)
            },
        )?;
    } else {
        extracted = copy(content, writer, scan, plan.visit_zeros(), of_unit, |unit, length| match unit {
            Some(unit) => part.append(unit),
            None => part.append_zeros(length),
        })?;
    }
    extracted.digests = hasher.finish();
    Ok(extracted)
}
