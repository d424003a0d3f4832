//! Sources: the bytes of one file, opened for reading only.

mod buffer;
mod folder;
#[cfg(all(unix, feature = "mmap"))]
mod guard;
mod hole;
mod in_use;
mod lost;
#[cfg(feature = "mmap")]
mod map;
#[cfg(any(feature = "ops", feature = "serde"))]
#[cfg_attr(not(feature = "serde"), expect(dead_code, unreachable_pub, reason = "`report` makes it public"))]
mod name;
mod open;
mod overlay;
mod pages;
mod read;
mod read_at;
mod salvage;
mod view;

use std::fmt;
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::{to_u64, to_usize_saturating};

pub(crate) use buffer::{Buffer, whole_pages};
pub(crate) use folder::{FolderWalk, FoundFile, is_vanished};
#[cfg(all(unix, feature = "mmap"))]
pub use guard::{guard_is_active, guard_mappings};
pub(crate) use lost::{any_lost, losses_known};
#[cfg(all(feature = "ops", not(feature = "serde")))]
pub(crate) use name::NameBytes;
#[cfg(any(feature = "ops", feature = "serde"))]
pub(crate) use name::text_of;
#[cfg(feature = "serde")]
pub use name::{NameBytes, path_of_bytes};
pub use open::FileId;
pub(crate) use open::{Allow, OpenFile};
pub(crate) use overlay::{Change, Overlay, Sector, Stored};
pub use read_at::ReadAt;
pub(crate) use salvage::{LostRanges, SourceRef};
pub(crate) use view::{Bytes, FailedReads, View};

/// Bytes of one file, before anything is known about them.
///
/// There are four ways to open a file. All of them open it for reading only, and never lock or write it. On Linux, they
/// leave its access time as it is, unless the system refuses that: it allows it to the owner of the file and to root.
///
/// | constructor | safe | borrows | for |
/// |---|---|---|---|
/// | `Source::map` | `unsafe fn`: the file must not change meanwhile | yes | speed |
/// | [`Source::open`] | yes | no | untrusted files, network shares, failing media, files in use |
/// | [`Source::from_reader`] | yes | no | object stores, HTTP, archives: any [`ReadAt`] |
/// | [`Source::load`], [`Source::from_vec`] | yes | yes | small images, tests, fuzzing |
///
/// All sources return the same content. If a source cannot borrow ([`Source::can_borrow`]), calls that return borrowed
/// bytes fail with [`ErrorKind::NotBorrowable`], and all others work. A clone is another handle to the same bytes.
#[derive(Clone)]
pub struct Source(Arc<Inner>);

struct Inner {
    door: Door,
    file: Option<OpenFile>,
    /// Length in bytes when the source was made.
    length: u64,
}

enum Door {
    #[cfg(feature = "mmap")]
    Mapped(map::FileMapping),
    #[cfg(feature = "mmap")]
    Copied(map::Memory),
    Owned(Vec<u8>),
    /// Read from the file, piece by piece.
    File,
    /// The caller's reader. A panic in it leaves no object of this crate in an inconsistent state.
    Reader(AssertUnwindSafe<Box<dyn ReadAt>>),
}

impl Source {
    /// Opens the file at `path`, to be read piece by piece (`pread`). This works on files of any size that others may
    /// write to, and on file systems that cannot map files. Nothing can be borrowed.
    ///
    /// # Errors
    /// [`Category::Open`](crate::Category::Open) if the file does not exist or cannot be read, or is a directory, a
    /// pipe, a socket or a character device.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::of_file(OpenFile::open(path.as_ref(), Allow::Named)?))
    }

    /// Opens the file at `path` like [`Source::open`], if no part of the path is a symbolic link: for folders that
    /// untrusted users can write to. `..` and a link above the current folder are no part of a relative path.
    ///
    /// # Errors
    /// As for [`Source::open`]; [`ErrorKind::NotAFile`] if a part of the path is a symbolic link.
    pub fn open_without_links(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::of_file(OpenFile::open(path.as_ref(), Allow::WithoutLinks)?))
    }

    /// Makes a source that reads through `reader`, and asks it for its length once. The source has no path: its parents
    /// are found only by [`Parents::With`](crate::Parents::With) or in given folders and files.
    ///
    /// # Errors
    /// [`Category::Io`](crate::Category::Io) if `reader` does not know its length.
    pub fn from_reader(reader: impl ReadAt + 'static) -> Result<Self> {
        let length = reader.len().map_err(|error| Error::of(Structure::File, ErrorKind::Io(error.into())))?;
        Ok(Self::new(Door::Reader(AssertUnwindSafe(Box::new(reader))), None, length))
    }

    /// Copies the file at `path` into memory: for small images and for tests. With the feature `mmap`, holes of the
    /// file take no memory.
    ///
    /// # Errors
    /// [`Category::Open`](crate::Category::Open) if the file does not exist or cannot be read, or is a directory, a
    /// pipe, a socket or a character device; [`Category::Io`](crate::Category::Io) if reading fails, memory does not
    /// suffice, or the file was changed *during* this call, according to its size and times.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let file = OpenFile::open(path.as_ref(), Allow::Named)?;
        let failed = |kind: ErrorKind| Error::of(Structure::File, kind).in_file(Some(&file.path));
        let unread = |error: std::io::Error| failed(ErrorKind::Io(error.into()));
        let door = Door::copy_of(&file).map_err(unread)?;
        if file.has_changed().map_err(unread)? {
            return Err(failed(ErrorKind::Changed));
        }
        let length = file.length();
        Ok(Self::new(door, Some(file), length))
    }

    /// Makes a source of bytes in memory. It has no path, so parents cannot be found beside it.
    #[must_use]
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let length = to_u64(bytes.len());
        Self::new(Door::Owned(bytes), None, length)
    }

    fn new(door: Door, file: Option<OpenFile>, length: u64) -> Self {
        Self(Arc::new(Inner { door, file, length }))
    }

    /// The open file, if this is the only handle to it.
    pub(crate) fn into_file(self) -> Option<OpenFile> {
        Arc::into_inner(self.0)?.file
    }

    /// Makes a source of an open file, to be read piece by piece.
    pub(crate) fn of_file(file: OpenFile) -> Self {
        let length = file.length();
        Self::new(Door::File, Some(file), length)
    }

    /// Returns the path under which the file was opened, if any.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.file.as_ref().map(|open| open.path.as_path())
    }

    /// Returns the open file, if any. Its position has no meaning.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        self.0.file.as_ref().map(|open| &open.file)
    }

    /// Returns the space that the file occupies on its medium, in bytes, if the system reports it.
    #[must_use]
    pub fn actual_size(&self) -> Option<u64> {
        let metadata = self.file()?.metadata().ok()?;
        #[cfg(unix)]
        {
            // The unit of this number is 512 bytes on every system.
            std::os::unix::fs::MetadataExt::blocks(&metadata).checked_mul(512)
        }
        #[cfg(not(unix))]
        Some(metadata.len())
    }

    /// Returns the time of the last change of the file before it was opened. Returns `None` for block devices, and for
    /// sources that are not files.
    #[must_use]
    pub fn modified(&self) -> Option<SystemTime> {
        self.0.file.as_ref()?.modified()
    }

    /// Returns whether another program has the file open for writing, as far as its locks say: record locks (POSIX, and
    /// OFD as QEMU takes them), `flock`, and leases. Programs that take no locks are not noticed. Locks are looked up,
    /// never taken. Returns `None` where that is unknown: on other systems than Linux, without a file, and if no lock
    /// is found in a container, which does not see the processes outside.
    #[must_use]
    pub fn in_use(&self) -> Option<bool> {
        self.0.file.as_ref()?.in_use()
    }

    /// Returns whether any of these files is in use; `None` if that is unknown.
    #[cfg(feature = "serde")]
    pub(crate) fn any_in_use<'s>(sources: impl IntoIterator<Item = &'s Self>) -> Option<bool> {
        let mut are_known = true;
        for source in sources {
            match source.in_use() {
                Some(true) => return Some(true),
                Some(false) => {}
                None => are_known = false,
            }
        }
        are_known.then_some(false)
    }

    /// Returns the identity of the file, which does not depend on the path. Returns `None` for bytes in memory.
    #[must_use]
    pub fn id(&self) -> Option<FileId> {
        self.0.file.as_ref().map(|open| open.id.clone())
    }

    /// Returns whether another source has the bytes of the same file, even if it was opened by another path.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.own_file().is_some() && other.own_file().is_some() && self.id() == other.id())
    }

    /// Returns the length in bytes when the source was made.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty file is not an image, so callers do not need it")]
    pub fn len(&self) -> u64 {
        self.0.length
    }

    /// Returns whether the source is a mapping of the file.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        match &self.0.door {
            #[cfg(feature = "mmap")]
            Door::Mapped(_) => true,
            _ => false,
        }
    }

    /// Returns whether all bytes are in memory of this process.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.can_borrow() && !self.is_mapped()
    }

    /// Returns whether bytes can be borrowed: the source is mapped, or in memory.
    #[must_use]
    pub fn can_borrow(&self) -> bool {
        self.as_bytes().is_some()
    }

    /// Returns all bytes, if they can be borrowed.
    #[inline]
    pub(crate) fn as_bytes(&self) -> Option<&[u8]> {
        match &self.0.door {
            #[cfg(feature = "mmap")]
            Door::Mapped(mapping) => Some(mapping.as_bytes()),
            #[cfg(feature = "mmap")]
            Door::Copied(memory) => Some(memory.as_bytes()),
            Door::Owned(bytes) => Some(bytes),
            Door::File | Door::Reader(_) => None,
        }
    }

    /// Returns the file, if the bytes are those of the file itself, not a copy in memory.
    pub(crate) fn own_file(&self) -> Option<&File> {
        self.own_open_file().map(|open| &open.file)
    }

    fn own_open_file(&self) -> Option<&OpenFile> {
        self.0.file.as_ref().filter(|_| self.is_mapped() || matches!(self.0.door, Door::File))
    }

    /// Returns the end of the known hole at `offset`, at most `end`: bytes that are zero without being read. Returns
    /// `offset` if nothing is known.
    pub(crate) fn hole_end(&self, offset: u64, end: u64) -> u64 {
        match (&self.0.door, self.own_file()) {
            (Door::Reader(reader), _) => reader.hole_end(offset, end).clamp(offset, end.max(offset)),
            (_, Some(file)) => hole::hole_end(file, offset, end),
            _ => offset,
        }
    }

    /// Returns the end of the data at `offset`, at most `end`. Returns `end` if nothing is known.
    pub(crate) fn data_end(&self, offset: u64, end: u64) -> u64 {
        match (&self.0.door, self.own_file()) {
            (Door::Reader(reader), _) => match reader.data_end(offset, end) {
                hole if hole > offset => hole.min(end),
                _ => end,
            },
            (_, Some(file)) => hole::data_end(file, offset, end),
            _ => end,
        }
    }

    /// Informs the system that the caller may read the bytes from `offset` to `end` of the mapping in order, so that it
    /// reads ahead.
    pub(crate) fn will_walk(&self, offset: u64, end: u64) {
        #[cfg(feature = "mmap")]
        if let Door::Mapped(mapping) = &self.0.door {
            mapping.will_walk(to_usize_saturating(offset), to_usize_saturating(end));
        }
        #[cfg(not(feature = "mmap"))]
        let _ = (offset, end);
    }

    /// Informs the system that the bytes from `offset` to `end` are not needed soon, so that they do not count as
    /// memory of this process. They can be read again at any time.
    pub(crate) fn forget(&self, offset: u64, end: u64) {
        #[cfg(feature = "mmap")]
        if let Door::Mapped(mapping) = &self.0.door {
            mapping.forget(to_usize_saturating(offset), to_usize_saturating(end));
        }
        #[cfg(not(feature = "mmap"))]
        let _ = (offset, end);
    }
}

impl Door {
    #[cfg(feature = "mmap")]
    fn copy_of(open: &OpenFile) -> std::io::Result<Self> {
        let length = open.length_in_memory()?;
        if length == 0 {
            return Ok(Self::Owned(Vec::new()));
        }
        let memory = map::Memory::filled(length, |bytes| hole::read_data(&open.file, bytes))?;
        Ok(Self::Copied(memory))
    }

    #[cfg(not(feature = "mmap"))]
    fn copy_of(open: &OpenFile) -> std::io::Result<Self> {
        let length = open.length_in_memory()?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(std::io::Error::other)?;
        bytes.resize(length, 0);
        hole::read_data(&open.file, &mut bytes)?;
        Ok(Self::Owned(bytes))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("path", &self.path())
            .field("length", &self.len())
            .field("mapped", &self.is_mapped())
            .field("can_borrow", &self.can_borrow())
            .finish_non_exhaustive()
    }
}
