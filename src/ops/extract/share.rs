//! Extraction by sharing: the file system is told that the target has the blocks that the image has, and copies one of them
//! when it is written to. XFS, Btrfs and others can; nothing is read, and nothing takes room.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;

use reflink_copy::ReflinkBlockBuilder;

use crate::ops::hash::hash;
use crate::scan::{Input, Origin, Uncounted};
use crate::source::Source;

use super::write::Writer;
use super::{ExtractOptions, Extracted, Reflink, ScanError, Sparse, copy};

/// Shorter runs are copied: to share costs more than that.
const MIN_SHARED: u64 = 64 << 10;

/// How much is shared at once, so that somebody can be told how far it is, in bytes.
const MOST_AT_ONCE: u64 = 1 << 30;

/// Writes what can be shared in this way, and everything else as always. None if nothing can be, in which case nothing has
/// been done.
pub(super) fn extract(
    content: Input<'_>,
    writer: &Writer<'_>,
    options: &ExtractOptions<'_>,
) -> Result<Option<Extracted>, ScanError> {
    // What is shared is not read, so a salvage would not learn what the medium does not give.
    let wanted = options.reflink == Reflink::Auto
        && options.sparse != Sparse::None
        && writer.target().direct.is_none()
        && !content.is_salvaged();
    if !wanted || !is_possible(content, writer) {
        return Ok(None);
    }
    let mut sharing = Sharing { content, writer, options, extracted: Extracted::default(), to_copy: None };
    let mut position = 0_u64;
    for run in content.pieces() {
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
    // What was shared was in the file, or the system would not have shared it. That it was the right part of the file depends
    // on the tables.
    content.check_tables()?;
    // What is shared was not looked at for that, but it has been counted.
    let uncounted = Uncounted(options.scan.progress);
    let scan = options.scan.progress(&uncounted);
    sharing.extracted.digests = hash(content, &options.hash, &scan)?;
    Ok(Some(sharing.extracted))
}

/// Whether the first run that may be shared can be: by doing so.
fn is_possible(content: Input<'_>, writer: &Writer<'_>) -> bool {
    let mut position = 0_u64;
    for run in content.pieces().map_while(Result::ok) {
        if let Origin::File(source, offset) = run.origin
            && let Some((skip, length)) = writer.aligned(offset, position, run.length)
            && run.length >= MIN_SHARED
        {
            return writer
                .share(source.source(), offset.saturating_add(skip), position.saturating_add(skip), length)
                .is_ok();
        }
        position = position.saturating_add(run.length);
    }
    false
}

/// The work while it is done.
struct Sharing<'a, 'w, 'p> {
    content: Input<'a>,
    writer: &'w Writer<'w>,
    options: &'w ExtractOptions<'p>,
    extracted: Extracted,
    /// A range of the content that has to be copied, and may become longer.
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
                // Another file of the chain may lie elsewhere.
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
        self.writer.zeros_of(position, length, |done| scan.advance(done).map_err(ScanError::from))
    }

    fn copy_later(&mut self, position: u64, end: u64) {
        match &mut self.to_copy {
            Some((_, before)) => *before = end,
            none => *none = Some((position, end)),
        }
    }

    /// Copies what waits for it.
    fn copy_now(&mut self) -> Result<(), ScanError> {
        let Some((start, end)) = self.to_copy.take() else { return Ok(()) };
        let part = self.content.part(start, end);
        let copied = copy(part, &self.writer.at(start), self.options.scan, false, |_, _| (), |_, _| ())?;
        self.extracted.data = self.extracted.data.saturating_add(copied.data);
        self.extracted.zero = self.extracted.zero.saturating_add(copied.zero);
        Ok(())
    }
}

impl Writer<'_> {
    /// The part of a run that can be shared, since it begins and ends where blocks of the file systems do: how many bytes
    /// come before it, and its length.
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

    /// What blocks of the target's file system are multiples of, in bytes.
    fn sharing_unit(&self) -> u64 {
        block_size(self.target().file).max(4096)
    }
}

#[cfg(unix)]
fn block_size(file: &File) -> u64 {
    rustix::fs::fstatvfs(file).map_or(4096, |found| found.f_bsize)
}

#[cfg(not(unix))]
fn block_size(_: &File) -> u64 {
    // Clusters of ReFS are 4 KiB or 64 KiB.
    64 << 10
}
