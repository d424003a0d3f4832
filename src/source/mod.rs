//! The bytes of one file: opened for reading only, mapped or held in memory.

mod buffer;
#[cfg(all(unix, feature = "mmap"))]
mod guard;
mod hole;
mod lost;
#[cfg(feature = "mmap")]
mod map;
mod open;
mod overlay;
mod read;
mod salvage;
mod view;

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::num::{to_u64, to_usize_saturating};

pub(crate) use buffer::{Buffer, whole_pages};
#[cfg(all(unix, feature = "mmap"))]
pub use guard::{guard_is_active, guard_mappings};
pub(crate) use lost::any_lost;
pub use open::FileId;
pub(crate) use open::{Allow, OpenFile};
pub(crate) use overlay::{Change, Overlay, Sector};
pub(crate) use salvage::{LostRanges, SourceRef};
pub(crate) use view::{Run, Stored, View};

/// The bytes of one file, before anything is known of them.
///
/// The file is opened for reading, never locked and never written. A clone is another handle to the same bytes.
#[derive(Clone)]
pub struct Source(Arc<Inner>);

struct Inner {
    bytes: Bytes,
    file: Option<OpenFile>,
}

enum Bytes {
    #[cfg(feature = "mmap")]
    Mapped(map::FileMapping),
    #[cfg(feature = "mmap")]
    Copied(map::Memory),
    Owned(Vec<u8>),
}

impl Source {
    /// Copies the file at `path` into memory: the way to open a file that others may change meanwhile, for small images
    /// and for tests. Holes of the file take no memory where the feature `mmap` is on.
    ///
    /// # Errors
    /// [`Category::Open`](crate::Category::Open) if there is no such file, it can't be read, or it is a directory, a
    /// pipe, a socket or a character device; [`Category::Io`](crate::Category::Io) if reading it fails, memory does
    /// not suffice, or the file was changed *during* this call, as far as its size and times tell.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::copy(OpenFile::open(path.as_ref(), Allow::Named)?)
    }

    fn copy(file: OpenFile) -> Result<Self> {
        let failed = |error: std::io::Error| Error::of(Structure::File, ErrorKind::Io(error.into()));
        let bytes = Bytes::copy_of(&file).map_err(failed)?;
        if file.has_changed().map_err(failed)? {
            return Err(Error::of(Structure::File, ErrorKind::Changed));
        }
        Ok(Self(Arc::new(Inner { bytes, file: Some(file) })))
    }

    /// Takes bytes that are in memory already. Such a source has no path, so parents can't be found beside it.
    #[must_use]
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Inner { bytes: Bytes::Owned(bytes), file: None }))
    }

    /// The path under which the file was opened, if it was.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.file.as_ref().map(|open| open.path.as_path())
    }

    /// The open file, if there is one. Its position is of no meaning.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        self.0.file.as_ref().map(|open| &open.file)
    }

    /// Which file it is, whatever path leads to it; none for bytes from memory.
    #[must_use]
    pub fn id(&self) -> Option<FileId> {
        self.0.file.as_ref().map(|open| open.id.clone())
    }

    /// Whether another source has the bytes of the same file, be it that it was opened by another path.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.is_mapped() && other.is_mapped() && self.id() == other.id())
    }

    /// Length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        to_u64(self.as_bytes().len())
    }

    /// Whether the bytes are those of the file itself, not of a copy in memory.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        match &self.0.bytes {
            #[cfg(feature = "mmap")]
            Bytes::Mapped(_) => true,
            #[cfg(feature = "mmap")]
            Bytes::Copied(_) => false,
            Bytes::Owned(_) => false,
        }
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0.bytes {
            #[cfg(feature = "mmap")]
            Bytes::Mapped(mapping) => mapping.as_bytes(),
            #[cfg(feature = "mmap")]
            Bytes::Copied(memory) => memory.as_bytes(),
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// Up to where, from `offset` on and at most to `end`, the file is known to be a hole: bytes that are zero without
    /// having to be looked at. `offset` itself where nothing is known.
    pub(crate) fn hole_end(&self, offset: u64, end: u64) -> u64 {
        match &self.0.file {
            Some(open) if self.is_mapped() => hole::hole_end(&open.file, offset, end),
            _ => offset,
        }
    }

    /// Up to where, from `offset` on and at most to `end`, the file has no hole: `end` where nothing is known.
    pub(crate) fn data_end(&self, offset: u64, end: u64) -> u64 {
        match &self.0.file {
            Some(open) if self.is_mapped() => hole::data_end(&open.file, offset, end),
            _ => end,
        }
    }

    /// Tells the system that somebody may go through the bytes from `offset` to `end` of the mapping, one after the other. It
    /// reads ahead of them then.
    pub(crate) fn will_walk(&self, offset: u64, end: u64) {
        #[cfg(feature = "mmap")]
        if let Bytes::Mapped(mapping) = &self.0.bytes {
            mapping.will_walk(to_usize_saturating(offset), to_usize_saturating(end));
        }
        #[cfg(not(feature = "mmap"))]
        let _ = (offset, end);
    }

    /// Tells the system that the bytes from `offset` to `end` are not needed soon, so that they do not count as memory of
    /// this process. They can be read again at any time.
    pub(crate) fn forget(&self, offset: u64, end: u64) {
        #[cfg(feature = "mmap")]
        if let Bytes::Mapped(mapping) = &self.0.bytes {
            mapping.forget(to_usize_saturating(offset), to_usize_saturating(end));
        }
        #[cfg(not(feature = "mmap"))]
        let _ = (offset, end);
    }

    /// Takes a parent of this source into memory, in the only way there is without the feature `mmap`.
    #[cfg(not(feature = "mmap"))]
    #[expect(clippy::unused_self, reason = "with the feature `mmap`, it decides how")]
    pub(crate) fn alike(&self, file: OpenFile) -> Result<Self> {
        Self::copy(file)
    }
}

impl Bytes {
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
            .field("length", &self.length())
            .field("mapped", &self.is_mapped())
            .finish_non_exhaustive()
    }
}
