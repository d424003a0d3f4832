//! Writes to a file or a device: bytes, and zeros in the cheapest reliable way.

use std::fs::File;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::num::{to_u64, to_usize_saturating};
use crate::scan::PageCachePolicy;
use crate::threads::lock;
use crate::zero::{is_zero, zero_pages};

use super::{ExtractOptions, Sparse, Target, TargetContent};

/// Allocation unit of file systems, and alignment of direct writes, in bytes.
const PAGE: u64 = 4096;

/// In a target that may hold anything, shorter runs of zeros, in bytes, are written like other bytes.
const MIN_ZEROS: u64 = 64 << 10;

/// Number of bytes of a long run of zeros that are zeroed at once, so that progress can be reported.
const ZEROS_STEP: u64 = 64 << 20;

/// With [`PageCachePolicy::Drop`]: number of bytes that may be written before the system has to write them to the
/// medium and drop them.
const MOST_CACHED: u64 = 128 << 20;

/// Length of one write, in bytes. The system allocates memory for a file in pieces as long as the write; after some
/// uptime, it has to compact memory for pieces of 1 MiB, which made writing two to three times slower.
const MOST_AT_ONCE: usize = 256 << 10;

/// A target, and how it is written to.
#[derive(Debug)]
pub(super) struct Writer<'t> {
    target: Target<'t>,
    sparse: Sparse,
    cache: PageCachePolicy,
    /// The first of [`Writer::ways`] that may work; those before it do not.
    way: AtomicU8,
    /// Bytes written since the last ones were dropped from the page cache.
    written: AtomicU64,
    /// Held while a file is written to through the page cache. The system lets in one writer at a time, and the others
    /// would spin instead of reading what comes next.
    turn: Mutex<()>,
}

/// A way to zero a range without writing to it.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The range reads as zeros, and occupies no space.
    Punch,
    /// The range reads as zeros, and occupies its space.
    Zero,
    /// The range, which is zero, occupies its space.
    Allocate,
}

impl<'t> Writer<'t> {
    pub(super) fn new(target: &Target<'t>, options: &ExtractOptions<'_>) -> Self {
        let (sparse, cache) = (options.sparse, options.scan.cache);
        Self { target: *target, sparse, cache, way: AtomicU8::new(0), written: AtomicU64::new(0), turn: Mutex::new(()) }
    }

    /// Makes a writer for an input that begins at `position` of this one.
    pub(super) fn at(&self, position: u64) -> Self {
        let target = Target { offset: self.target.offset.saturating_add(position), ..self.target };
        let way = AtomicU8::new(self.way.load(Ordering::Relaxed));
        Self { target, sparse: self.sparse, cache: self.cache, way, written: AtomicU64::new(0), turn: Mutex::new(()) }
    }

    pub(super) fn target(&self) -> &Target<'t> {
        &self.target
    }

    /// Writes `bytes`, which begin at `position` of the input.
    pub(super) fn write(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = self.target.offset.saturating_add(position);
        if self.sparse == Sparse::Zeros { self.write_but_zeros(bytes, offset) } else { self.write_all(bytes, offset) }
    }

    /// Zeroes `length` bytes at `position` of the input.
    pub(super) fn zeros(&self, position: u64, length: u64) -> io::Result<()> {
        self.zeros_at(self.target.offset.saturating_add(position), length)
    }

    /// Zeroes any number of bytes; `advance` gets the number of those that are done.
    pub(super) fn zeros_of<E: From<super::ScanError>>(
        &self,
        mut position: u64,
        mut length: u64,
        mut advance: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        while length > 0 {
            let step = if self.ways().is_empty() { length } else { length.min(ZEROS_STEP) };
            self.zeros(position, step).map_err(super::ScanError::Write)?;
            advance(step)?;
            (position, length) = (position.saturating_add(step), length.saturating_sub(step));
        }
        Ok(())
    }

    /// Completes the target.
    pub(super) fn finish(&self) -> io::Result<()> {
        if self.cache == PageCachePolicy::Drop { self.uncache() } else { Ok(()) }
    }

    /// Returns the ways to make zeros, best first; none if the target is zero already.
    fn ways(&self) -> &'static [Way] {
        match (self.target.content, self.sparse) {
            (TargetContent::Zeros, Sparse::None) => &[Way::Allocate],
            (TargetContent::Zeros, Sparse::Blocks | Sparse::Zeros) => &[],
            (TargetContent::Anything, Sparse::None) => &[Way::Zero],
            (TargetContent::Anything, Sparse::Blocks | Sparse::Zeros) => &[Way::Punch, Way::Zero],
        }
    }

    fn zeros_at(&self, offset: u64, length: u64) -> io::Result<()> {
        let ways = self.ways();
        if ways.is_empty() || length == 0 {
            return Ok(());
        }
        let first = self.way.load(Ordering::Relaxed);
        for (number, way) in (0_u8..).zip(ways).skip(usize::from(first)) {
            match apply(*way, self.target.file, offset, length) {
                Ok(()) => return Ok(()),
                Err(Refused::Here) => break,
                Err(Refused::Always) => drop(self.way.fetch_max(number.saturating_add(1), Ordering::Relaxed)),
                Err(Refused::Failed(error)) => return Err(error),
            }
        }
        let (mut at, mut left) = (offset, length);
        while left > 0 {
            let zeros = zero_pages(left);
            self.write_all(zeros, at)?;
            (at, left) = (at.saturating_add(to_u64(zeros.len())), left.saturating_sub(to_u64(zeros.len())));
        }
        Ok(())
    }

    /// Writes all bytes except pages of the target that would be all zero.
    fn write_but_zeros(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let to_page = offset.next_multiple_of(PAGE).saturating_sub(offset);
        let (head, pages) = bytes.split_at_checked(to_usize_saturating(to_page)).unwrap_or((bytes, &[]));
        let at = |place: usize| offset.saturating_add(to_u64(place));
        // Start of the bytes that have not been written yet, and of the zeros at their end.
        let (mut pending, mut zeros, mut place) = (0, None, 0_usize);
        for page in std::iter::once(head).chain(pages.chunks(to_usize_saturating(PAGE))) {
            if is_zero(page) {
                zeros.get_or_insert(place);
            } else if let Some(start) = zeros.take()
                && self.is_worth_it(to_u64(place.saturating_sub(start)))
            {
                self.write_all(bytes.get(pending..start).unwrap_or_default(), at(pending))?;
                self.zeros_at(at(start), to_u64(place.saturating_sub(start)))?;
                pending = place;
            }
            place = place.saturating_add(page.len());
        }
        match zeros.filter(|start| self.is_worth_it(to_u64(place.saturating_sub(*start)))) {
            Some(start) => {
                self.write_all(bytes.get(pending..start).unwrap_or_default(), at(pending))?;
                self.zeros_at(at(start), to_u64(place.saturating_sub(start)))
            }
            None => self.write_all(bytes.get(pending..).unwrap_or_default(), at(pending)),
        }
    }

    /// Returns whether `zeros` zeros among other bytes are worth a piece of their own.
    fn is_worth_it(&self, zeros: u64) -> bool {
        self.target.content == TargetContent::Zeros || zeros >= MIN_ZEROS
    }

    fn write_all(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let turn = self.target.direct.is_none().then(|| lock(&self.turn));
        let is_aligned = |number: u64| number.is_multiple_of(PAGE);
        let fits = is_aligned(offset) && bytes.as_ptr().align_offset(to_usize_saturating(PAGE)) == 0;
        match self.target.direct.filter(|_| fits) {
            Some(direct) => {
                // A rest that does not fill a page goes another way.
                let whole = bytes.len() & !to_usize_saturating(PAGE).saturating_sub(1);
                let (pages, rest) = bytes.split_at_checked(whole).unwrap_or((bytes, &[]));
                match write_all_at(direct, pages, offset) {
                    // Its sectors are larger than a page.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                        write_in_pieces(self.target.file, pages, offset)?;
                    }
                    written => written?,
                }
                write_all_at(self.target.file, rest, offset.saturating_add(to_u64(whole)))?;
            }
            None => write_in_pieces(self.target.file, bytes, offset)?,
        }
        drop(turn);
        let length = to_u64(bytes.len());
        let before = self.written.fetch_add(length, Ordering::Relaxed);
        if self.cache == PageCachePolicy::Drop && before < MOST_CACHED && before.saturating_add(length) >= MOST_CACHED {
            self.uncache()?;
        }
        Ok(())
    }

    /// Writes all data to the medium, so that it can be dropped from the page cache, and drops it.
    fn uncache(&self) -> io::Result<()> {
        self.written.store(0, Ordering::Relaxed);
        self.target.file.sync_data()?;
        #[cfg(target_os = "linux")]
        {
            // Advice: if it fails, the data stays in the page cache.
            let _ = rustix::fs::fadvise(self.target.file, 0, None, rustix::fs::Advice::DontNeed);
        }
        Ok(())
    }
}

/// Reason why a way was not taken.
enum Refused {
    /// It does not work for this range.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux has such ways"))]
    Here,
    /// It does not work for this target.
    Always,
    /// Writing would fail in the same way.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux has such ways"))]
    Failed(io::Error),
}

#[cfg(target_os = "linux")]
fn apply(way: Way, file: &File, offset: u64, length: u64) -> Result<(), Refused> {
    use rustix::fs::FallocateFlags as Flags;
    use rustix::io::Errno;

    let flags = match way {
        Way::Punch => Flags::PUNCH_HOLE | Flags::KEEP_SIZE,
        Way::Zero => Flags::ZERO_RANGE | Flags::KEEP_SIZE,
        Way::Allocate => Flags::KEEP_SIZE,
    };
    match rustix::fs::fallocate(file, flags, offset, length) {
        Ok(()) => Ok(()),
        // A device may require its own alignment.
        Err(Errno::INVAL | Errno::INTR) => Err(Refused::Here),
        Err(full @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO)) => Err(Refused::Failed(full.into())),
        Err(_) => Err(Refused::Always),
    }
}

#[cfg(not(target_os = "linux"))]
fn apply(_: Way, _: &File, _: u64, _: u64) -> Result<(), Refused> {
    Err(Refused::Always)
}

fn write_in_pieces(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut at = offset;
    for piece in bytes.chunks(MOST_AT_ONCE) {
        write_all_at(file, piece, at)?;
        at = at.saturating_add(to_u64(piece.len()));
    }
    Ok(())
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
