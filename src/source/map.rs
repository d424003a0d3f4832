//! The only place where files are mapped.
#![expect(unsafe_code, reason = "mapping a file is a promise about the file, which no type can make")]

use std::io;
use std::path::Path;
#[cfg(unix)]
use std::sync::{Mutex, PoisonError};

use memmap2::{Mmap, MmapMut, MmapOptions};

#[cfg(unix)]
use super::guard::Guarded;
use super::open::{Allow, OpenFile};
use super::{Door, Source};
use crate::error::{Error, ErrorKind, Result, Structure};

impl Source {
    /// Maps the file at `path`: costs the same for any length, and reads lend the pages of the file itself.
    ///
    /// # Safety
    /// From this call until the source and its clones are dropped, and with them whatever holds one (an
    /// [`Image`](crate::Image), a [`Disk`](crate::Disk)), the content and the length of the file at `path` must not
    /// change, neither by this process nor by another. The promise is about this file alone: parents that are found for
    /// it are opened by [`Source::open`], unless
    /// [`OpenOptions::map_parents`](crate::OpenOptions::map_parents) promises for them, too.
    ///
    /// The crate lends references to the mapped bytes. If the bytes change under them, the behaviour is undefined. No lock
    /// that the system offers makes this certain. Where the promise can't be made, use [`Source::open`]; where it was
    /// broken, [`Source::has_changed`] says so, for the most part.
    ///
    /// If the file becomes shorter, or the medium fails where nothing has been read yet, touching what is gone ends the
    /// process with SIGBUS, unless
    #[cfg_attr(unix, doc = "[`guard_mappings`](super::guard_mappings)")]
    #[cfg_attr(not(unix), doc = "`guard_mappings`")]
    /// has been called: then it is an error.
    ///
    /// # Errors
    /// [`Category::Open`](crate::Category::Open) if there is no such file, it can't be read, or it is a directory, a
    /// pipe, a socket or a character device; [`Category::Io`](crate::Category::Io) if its file system can't map files, or
    /// `guard_mappings` was called before and its handler cannot be installed again.
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self> {
        let file = OpenFile::open(path.as_ref(), Allow::Named)?;
        // SAFETY: the caller makes the promise for this file.
        unsafe { Self::map_open(file) }
    }

    /// # Safety
    /// As for [`FileMapping::new`].
    pub(crate) unsafe fn map_open(file: OpenFile) -> Result<Self> {
        // SAFETY: the caller's promise is passed on.
        let door =
            unsafe { door_of(&file) }.map_err(|error| Error::of(Structure::File, ErrorKind::Io(error.into())))?;
        let length = file.length();
        Ok(Self::new(door, Some(file), length))
    }
}

/// # Safety
/// As for [`FileMapping::new`].
unsafe fn door_of(open: &OpenFile) -> io::Result<Door> {
    match open.length_in_memory()? {
        // Nothing can be mapped of an empty file.
        0 => Ok(Door::Owned(Vec::new())),
        // SAFETY: the caller's promise is passed on.
        length => Ok(Door::Mapped(unsafe { FileMapping::new(open, length) }?)),
    }
}

/// A file, mapped for reading.
///
/// A page fault makes the system read what lies around the page as well: 8 MiB of it on some machines. That is right for those
/// who go on to read it, and waste for a look at a table. So the mapping is advised as one that is looked at here and there,
/// but for the ranges that somebody borrows to go through them.
pub(super) struct FileMapping {
    /// Before the mapping, since that is dropped behind it.
    #[cfg(unix)]
    guarded: Guarded,
    mapping: Mmap,
    #[cfg(unix)]
    walked: Mutex<Walked>,
}

/// Shorter ranges are not worth advice of their own, in bytes.
#[cfg(unix)]
const MIN_WALK: usize = 128 << 10;

/// Number of ranges of one mapping that get advice of their own. For the system, each cuts the mapping into more mappings, of
/// which a process may have 65,530, and a chain has up to 257 files.
#[cfg(unix)]
const MOST_WALKS: u32 = 64;

/// The range that was advised last as one that somebody goes through, and the number of such ranges.
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
        // It is advice: where it fails, more is read than needed.
        #[cfg(unix)]
        drop(mapping.advise(memmap2::Advice::Random));
        Ok(Self {
            #[cfg(unix)]
            guarded: Guarded::new(&mapping, &open.file)?,
            mapping,
            #[cfg(unix)]
            walked: Mutex::default(),
        })
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.mapping
    }

    /// The bytes from `start` to `end` have been borrowed by somebody who may go through them one after the other. It is advice:
    /// where it fails, that takes longer.
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

    /// The first place from `start` on and before `end` that could not be read when it was touched.
    #[cfg(unix)]
    pub(super) fn first_lost(&self, start: u64, end: u64) -> Option<u64> {
        self.guarded.first_lost(start, end)
    }

    #[cfg(not(unix))]
    #[expect(clippy::unused_self, reason = "other systems do not tell in this way")]
    pub(super) fn first_lost(&self, _: u64, _: u64) -> Option<u64> {
        None
    }

    /// Detaches the pages from `start` to `end`. It is advice: where it fails, nothing is lost but memory.
    #[cfg(unix)]
    pub(super) fn forget(&self, start: usize, end: usize) {
        let all = self.mapping.len();
        let start = start.min(all);
        let Some(length) = end.min(all).checked_sub(start).filter(|length| *length > 0) else { return };
        // SAFETY: memmap2 leaves MADV_DONTNEED unchecked because it may change bytes that are borrowed: in private
        // memory, it throws away what was written there. This is a shared mapping of a file that can't be written to.
        // Its pages are only detached; whoever touches one again, through a borrow that is older or newer, gets the page
        // of the file, whose bytes are the same as before by the promise under which the mapping was made. So no
        // borrowed byte ever changes, which is all that a shared reference asks for. Pages of zeros that stand in for lost ones
        // (`guard`) cannot be written to either, and stay what they are.
        let advised = unsafe { self.mapping.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, length) };
        drop(advised);
    }

    #[cfg(not(unix))]
    #[expect(clippy::unused_self, reason = "other systems have no such advice")]
    pub(super) fn forget(&self, _: usize, _: usize) {}
}

/// Memory that takes room only where it was written.
pub(super) struct Memory(Mmap);

impl Memory {
    /// Memory of `length` zeros, which `fill` may write to before it becomes read-only.
    pub(super) fn filled(length: usize, fill: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<Self> {
        let mut memory: MmapMut = MmapOptions::new().len(length).no_reserve_swap().map_anon()?;
        fill(&mut memory)?;
        Ok(Self(memory.make_read_only()?))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
