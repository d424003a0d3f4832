//! Extraction by sharing (reflinks): the file system lets the target share blocks with the image, and copies a block
//! when one of the files is written to. XFS, Btrfs and others support it; nothing is read, and no space is used.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;

use reflink_copy::ReflinkBlockBuilder;

use crate::ops::hash::hash;
use crate::scan::{Input, Origin, Uncounted};
use crate::source::Source;

use super::write::Writer;
use super::{ExtractOptions, Extracted, Reflink, ScanError, Sparse, copy};

/// Shorter runs, in bytes, are copied: sharing costs more than that.
const MIN_SHARED: u64 = 64 << 10;

/// Number of bytes that are shared at once, so that progress can be reported.
const MOST_AT_ONCE: u64 = 1 << 30;

/// Shares the blocks of an input as far as possible, and copies the rest. Returns `None` if nothing can be shared, in
/// which case nothing has been done.
pub(super) fn extract(
    input: Input<'_>,
    writer: &Writer<'_>,
    options: &ExtractOptions<'_>,
) -> Result<Option<Extracted>, ScanError> {
    // Shared blocks are not read, so a salvage would not detect bytes that the medium does not return.
    let wanted = options.reflink == Reflink::Auto
        && options.sparse != Sparse::None
        && writer.target().direct.is_none()
        && !input.is_salvaged();
    if !wanted || !is_possible(input, writer) {
        return Ok(None);
    }
    let mut sharing = Sharing { input, writer, options, extracted: Extracted::default(), to_copy: None };
    let mut position = 0_u64;
    for run in input.pieces() {
        let run = run?;
        let end = position.saturating_add(run.length);
        match run.origin {
            Origin::File(source, offset) if run.length >= MIN_SHARED => {
                sharing.share(source.source(), offset, position, end)?
            }
            Origin::Zero if run.length >= MIN_SHARED => sharing.zeros(position, end)?,
            _ => sharing.copy_later(position, end),
        }
        position = end;
    }
    sharing.copy_now()?;
    // Blocks that were shared existed in the file, or the system would have refused. That they were the right blocks
    // was checked with the last piece.
    // Shared blocks were counted, but not read.
    let uncounted = Uncounted(options.scan.progress);
    let scan = options.scan.progress(&uncounted);
    sharing.extracted.digests = hash(input, &options.hash, &scan)?;
    Ok(Some(sharing.extracted))
}

/// Tries to share the beginning of the first run that can be shared.
fn is_possible(input: Input<'_>, writer: &Writer<'_>) -> bool {
    let mut position = 0_u64;
    for run in input.pieces().map_while(Result::ok) {
        if let Origin::File(source, offset) = run.origin
            && run.length >= MIN_SHARED
            && let Some((skip, length)) = writer.aligned(offset, position, run.length)
        {
            // As little as possible: it is shared again with the rest of the run.
            let length = length.min(writer.sharing_unit());
            return writer
                .share(source.source(), offset.saturating_add(skip), position.saturating_add(skip), length)
                .is_ok();
        }
        position = position.saturating_add(run.length);
    }
    false
}

/// State of the work.
struct Sharing<'a, 'w, 'p> {
    input: Input<'a>,
    writer: &'w Writer<'w>,
    options: &'w ExtractOptions<'p>,
    extracted: Extracted,
    /// A range of the input that has to be copied, and may become longer.
    to_copy: Option<(u64, u64)>,
}

impl Sharing<'_, '_, '_> {
    fn share(&mut self, source: &Source, offset: u64, position: u64, end: u64) -> Result<(), ScanError> {
        let Some((skip, length)) = self.writer.aligned(offset, position, end.saturating_sub(position)) else {
            self.copy_later(position, end);
            return Ok(());
        };
        let start = position.saturating_add(skip);
        if skip > 0 {
            self.copy_later(position, start);
        }
        self.copy_now()?;
        let mut done = 0;
        while done < length {
            let step = length.saturating_sub(done).min(MOST_AT_ONCE);
            let from = offset.saturating_add(skip).saturating_add(done);
            match self.writer.share(source, from, start.saturating_add(done), step) {
                Ok(()) => {
                    self.extracted.data = self.extracted.data.saturating_add(step);
                    self.extracted.shared = self.extracted.shared.saturating_add(step);
                    self.options.scan.advance(step)?;
                }
                // Another file of the chain may be on another file system.
                Err(_) => self.copy_later(start.saturating_add(done), start.saturating_add(done).saturating_add(step)),
            }
            done = done.saturating_add(step);
        }
        let shared_end = start.saturating_add(length);
        if shared_end < end {
            self.copy_later(shared_end, end);
        }
        Ok(())
    }

    fn zeros(&mut self, position: u64, end: u64) -> Result<(), ScanError> {
        self.copy_now()?;
        let length = end.saturating_sub(position);
        self.extracted.zero = self.extracted.zero.saturating_add(length);
        let scan = self.options.scan;
        self.writer.zeros_of(position, length, |done| scan.advance(done))
    }

    fn copy_later(&mut self, position: u64, end: u64) {
        match &mut self.to_copy {
            Some((_, before)) => *before = end,
            none => *none = Some((position, end)),
        }
    }

    /// Copies the pending range.
    fn copy_now(&mut self) -> Result<(), ScanError> {
        let Some((start, end)) = self.to_copy.take() else { return Ok(()) };
        let part = self.input.part(start, end);
        let copied = copy(part, &self.writer.at(start), self.options.scan, false, |_, _| (), |_, _| ())?;
        self.extracted.data = self.extracted.data.saturating_add(copied.data);
        self.extracted.zero = self.extracted.zero.saturating_add(copied.zero);
        Ok(())
    }
}

impl Writer<'_> {
    /// Returns the part of a run that can be shared, since it begins and ends at blocks of the file systems: the number
    /// of bytes before it, and its length.
    fn aligned(&self, offset: u64, position: u64, length: u64) -> Option<(u64, u64)> {
        let to = self.target().offset.saturating_add(position);
        let unit = self.sharing_unit();
        let skip = offset.checked_next_multiple_of(unit)?.saturating_sub(offset);
        let length = length.checked_sub(skip)?;
        let length = length.saturating_sub(length.checked_rem(unit)?);
        (to.saturating_add(skip).is_multiple_of(unit) && length > 0).then_some((skip, length))
    }

    fn share(&self, source: &Source, offset: u64, position: u64, length: u64) -> io::Result<()> {
        let file = source.file().ok_or(io::ErrorKind::Unsupported)?;
        let length = NonZeroU64::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        ReflinkBlockBuilder::new(file, self.target().file, length)
            .from_offset(offset)
            .to_offset(self.target().offset.saturating_add(position))
            .reflink_block()
    }

    /// Returns the alignment of blocks in the target's file system, in bytes.
    fn sharing_unit(&self) -> u64 {
        block_size(self.target().file).clamp(4096, 64 << 10)
    }
}

#[cfg(unix)]
fn block_size(file: &File) -> u64 {
    use std::os::unix::fs::MetadataExt;

    // Not by statvfs, which waits on XFS and Btrfs until files that were removed before are gone.
    file.metadata().map_or(4096, |metadata| metadata.blksize())
}

#[cfg(not(unix))]
fn block_size(_: &File) -> u64 {
    // Clusters of ReFS are 4 KiB or 64 KiB.
    64 << 10
}
