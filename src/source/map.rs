//! Mappings of files. No other module maps files.
#![expect(unsafe_code, reason = "mapping a file is a promise about the file, which no type can make")]

use std::io;
use std::path::Path;
#[cfg(unix)]
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(unix)]
use std::sync::{Mutex, PoisonError};

use memmap2::{Mmap, MmapMut, MmapOptions};

#[cfg(unix)]
use super::guard::{Guarded, count_loss};
use super::open::{Allow, OpenFile};
use super::{Door, Source};
use crate::error::{Error, ErrorKind, Result, Structure};

impl Source {
    /// Maps the file at `path`. The cost does not depend on the length of the file, and reads borrow its pages.
    ///
    /// # Safety
    /// From this call until the source, its clones, and all objects that hold one (an [`Image`](crate::Image), a
    /// [`Disk`](crate::Disk)) are dropped, the content and the length of the file at `path` must not change, neither by
    /// this process nor by another. The promise is about this file alone: parents that are found for it are opened by
    /// [`Source::open`], unless [`OpenOptions::map_parents`](crate::OpenOptions::map_parents) promises the same for
    /// them.
    ///
    /// The crate hands out references to the mapped bytes. If the bytes change while they are borrowed, the behaviour
    /// is undefined. No file lock prevents this for certain. If the promise cannot be made, use [`Source::open`]. If it
    /// was broken, [`Source::has_changed`] reports it in most cases.
    ///
    /// If the file becomes shorter, or its medium fails for bytes that were not read before, access to these bytes ends
    /// the process with SIGBUS, unless
    #[cfg_attr(unix, doc = "[`guard_mappings`](super::guard_mappings)")]
    #[cfg_attr(not(unix), doc = "`guard_mappings`")]
    /// was called: then it is an error.
    ///
    /// # Errors
    /// [`Category::Open`](crate::Category::Open) if the file does not exist or cannot be read, or is a directory, a
    /// pipe, a socket or a character device; [`Category::Io`](crate::Category::Io) if its file system cannot map files,
    /// or if `guard_mappings` was called before and its handler cannot be installed again.
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self> {
        let file = OpenFile::open(path.as_ref(), Allow::Named)?;
        // SAFETY: the caller makes the promise for this file.
        unsafe { Self::map_open(file) }
    }

    /// Maps the file at `path` like [`Source::map`], if no part of the path is a symbolic link: see
    /// [`Source::open_without_links`].
    ///
    /// # Safety
    /// The conditions of [`Source::map`].
    ///
    /// # Errors
    /// As for [`Source::map`] and [`Source::open_without_links`].
    pub unsafe fn map_without_links(path: impl AsRef<Path>) -> Result<Self> {
        let file = OpenFile::open(path.as_ref(), Allow::WithoutLinks)?;
        // SAFETY: the caller makes the promise for this file.
        unsafe { Self::map_open(file) }
    }

    /// # Safety
    /// The conditions of [`FileMapping::new`].
    pub(crate) unsafe fn map_open(file: OpenFile) -> Result<Self> {
        // SAFETY: the caller's promise is passed on.
        let door = unsafe { door_of(&file) }
            .map_err(|error| Error::of(Structure::File, ErrorKind::Io(error.into())).in_file(Some(&file.path)))?;
        let length = file.length();
        Ok(Self::new(door, Some(file), length))
    }
}

/// # Safety
/// The conditions of [`FileMapping::new`].
unsafe fn door_of(open: &OpenFile) -> io::Result<Door> {
    match open.length_in_memory()? {
        // An empty file cannot be mapped.
        0 => Ok(Door::Owned(Vec::new())),
        // SAFETY: the caller's promise is passed on.
        length => Ok(Door::Mapped(unsafe { FileMapping::new(open, length) }?)),
    }
}

/// Mapping of a file, for reading.
///
/// A page fault makes the system read the surrounding pages as well: 8 MiB on some machines. That is right for callers
/// who go on to read them, and waste for a look at a table. So the mapping is advised as randomly accessed, except for
/// ranges that are borrowed to be read in order.
pub(super) struct FileMapping {
    /// Before the mapping, since fields are dropped in order.
    #[cfg(unix)]
    guarded: Guarded,
    /// The smallest length that the file was seen to have: bytes past it are lost.
    #[cfg(unix)]
    shortest: AtomicU64,
    mapping: Mmap,
    #[cfg(unix)]
    walked: Mutex<Walked>,
}

/// Shorter ranges, in bytes, are not worth advice of their own.
#[cfg(unix)]
const MIN_WALK: usize = 128 << 10;

/// Number of ranges of one mapping that get advice of their own. Each of them splits the mapping into more mappings. A
/// process may have 65,530 of them, and a chain has up to 257 files.
#[cfg(unix)]
const MOST_WALKS: u32 = 64;

/// The range that was advised last, and the number of such ranges.
#[cfg(unix)]
#[derive(Debug, Default)]
struct Walked {
    start: usize,
    end: usize,
    count: u32,
}

impl FileMapping {
    /// Maps the first `length` bytes of the file; `length` is not 0.
    ///
    /// # Safety
    /// The file must keep its content and its length for as long as the mapping lives, and stay open as long.
    unsafe fn new(open: &OpenFile, length: usize) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.len(length);
        // SAFETY: memmap2 asks that the file does not change while it is mapped, which is the caller's promise.
        let mapping = unsafe { options.map(&open.file) }?;
        // Advice: if it fails, more is read than needed.
        #[cfg(unix)]
        drop(mapping.advise(memmap2::Advice::Random));
        Ok(Self {
            #[cfg(unix)]
            guarded: Guarded::new(&mapping, &open.file)?,
            #[cfg(unix)]
            shortest: AtomicU64::new(u64::MAX),
            mapping,
            #[cfg(unix)]
            walked: Mutex::default(),
        })
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.mapping
    }

    /// Returns whether the file still reaches the end of `bytes`, which are in this mapping at offset `after` or later:
    /// certain if true, unknown if false. It costs no system call.
    ///
    /// From the end of a file that has become shorter to the end of that page, a mapping reads as zeros. So if the last
    /// byte is not zero now, the file ends after it, and whatever was read before this call and lies before the end of
    /// `bytes` was in the file.
    #[inline]
    pub(super) fn still_reaches(&self, bytes: &[u8], after: u64) -> bool {
        let start = bytes.as_ptr().addr().checked_sub(self.mapping.as_ptr().addr());
        let is_here = start.is_some_and(|start| {
            start.checked_add(bytes.len()).is_some_and(|end| end <= self.mapping.len()) && super::to_u64(start) >= after
        });
        let Some(last) = bytes.last().filter(|_| is_here) else { return false };
        // Keeps earlier reads before this one.
        std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
        // SAFETY: the pointer is that of a reference. The read is volatile so that it is made, and made now: the value
        // may differ from one that was read before, if the promise of `Source::map` was broken.
        let now = unsafe { std::ptr::from_ref(last).read_volatile() };
        now != 0
    }

    /// Informs the system that the bytes from `start` to `end` have been borrowed, and may be read in order. Advice: if
    /// it fails, reading takes longer.
    #[cfg(unix)]
    pub(super) fn will_walk(&self, start: usize, end: usize) {
        if end.saturating_sub(start) < MIN_WALK {
            return;
        }
        let mut walked = self.walked.lock().unwrap_or_else(PoisonError::into_inner);
        if walked.start <= start && end <= walked.end {
            return;
        }
        if start <= walked.end && walked.start <= end {
            (walked.start, walked.end) = (start.min(walked.start), end.max(walked.end));
        } else {
            (walked.start, walked.end) = (start, end);
            walked.count = walked.count.saturating_add(1);
        }
        if walked.count > MOST_WALKS {
            (walked.start, walked.end) = (0, self.mapping.len());
            drop(self.mapping.advise(memmap2::Advice::Normal));
        } else {
            drop(self.mapping.advise_range(memmap2::Advice::Normal, start, end.saturating_sub(start)));
        }
    }

    #[cfg(not(unix))]
    #[expect(clippy::unused_self, reason = "other systems have no such advice")]
    pub(super) fn will_walk(&self, _: usize, _: usize) {}

    /// Returns the first offset from `start` on and before `end` that is known to be lost.
    #[cfg(unix)]
    pub(super) fn first_lost(&self, start: u64, end: u64) -> Option<u64> {
        let shortest = self.shortest.load(Ordering::Acquire);
        let past_the_end = (shortest < end && start < end).then(|| shortest.max(start));
        self.guarded.first_lost(start, end).into_iter().chain(past_the_end).min()
    }

    /// Records that the file was seen to end at `end`, which is before the end of the mapping. Access to the rest of
    /// its last page causes no signal.
    #[cfg(unix)]
    pub(super) fn record_end(&self, end: u64) {
        if self.shortest.fetch_min(end, Ordering::AcqRel) > end {
            count_loss();
        }
    }

    #[cfg(not(unix))]
    #[expect(clippy::unused_self, reason = "other systems do not truncate mapped files")]
    pub(super) fn record_end(&self, _: u64) {}

    #[cfg(not(unix))]
    #[expect(clippy::unused_self, reason = "other systems have no such record")]
    pub(super) fn first_lost(&self, _: u64, _: u64) -> Option<u64> {
        None
    }

    /// Detaches the pages from `start` to `end`. Advice: if it fails, they stay in memory.
    #[cfg(unix)]
    pub(super) fn forget(&self, start: usize, end: usize) {
        let all = self.mapping.len();
        let start = start.min(all);
        let Some(length) = end.min(all).checked_sub(start).filter(|length| *length > 0) else { return };
        // SAFETY: memmap2 marks MADV_DONTNEED as unchecked because it may change borrowed bytes: in private memory, it
        // discards what was written there. This is a shared mapping of a file that cannot be written to. Its pages are
        // only detached. A later access, through an older or a newer borrow, gets the page of the file, whose bytes are
        // the same as before by the promise under which the mapping was made. So no borrowed byte ever changes, which
        // is what a shared reference requires. Zero pages that replace lost pages (`guard`) cannot be written to
        // either, and stay in place.
        let advised = unsafe { self.mapping.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, length) };
        drop(advised);
    }

    #[cfg(not(unix))]
    #[expect(clippy::unused_self, reason = "other systems have no such advice")]
    pub(super) fn forget(&self, _: usize, _: usize) {}
}

/// Memory that takes space only where it was written.
pub(super) struct Memory(Mmap);

impl Memory {
    /// Allocates `length` zero bytes, which `fill` may write to before they become read-only.
    pub(super) fn filled(length: usize, fill: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<Self> {
        let mut memory: MmapMut = MmapOptions::new().len(length).no_reserve_swap().map_anon()?;
        fill(&mut memory)?;
        Ok(Self(memory.make_read_only()?))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
