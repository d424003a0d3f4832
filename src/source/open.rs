//! Opening a file so that nothing but a file is opened: no pipe that waits for a writer, no device with side effects.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, ErrorKind, Result, Structure};

/// Which file it is, whatever path leads to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileId(Id);

#[cfg(unix)]
type Id = (u64, u64);
#[cfg(not(unix))]
type Id = PathBuf;

impl FileId {
    /// Which file is at `path`, by any path that leads there. Nothing is opened.
    ///
    /// # Errors
    /// If there is none, or it can't be looked at.
    pub fn of(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        id(&std::fs::metadata(path)?, path).map(Self)
    }

    /// Which file an open file is.
    ///
    /// # Errors
    /// If it can't be looked at.
    #[cfg(unix)]
    pub fn of_open(file: &File) -> io::Result<Self> {
        id(&file.metadata()?, Path::new("")).map(Self)
    }
}

/// A file opened for reading, before anything of it is in memory.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    length: u64,
    /// When it was last changed before it was opened; none of a block device.
    changed: Option<LastChange>,
}

/// When a file was last changed, by what its system says.
#[derive(Debug, PartialEq, Eq)]
struct LastChange {
    content: SystemTime,
    /// Of anything about it: seconds and nanoseconds. Whoever sets the other time back can't do that with this one.
    #[cfg(unix)]
    status: (i64, i64),
}

impl LastChange {
    fn of(metadata: &std::fs::Metadata) -> io::Result<Self> {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;

        Ok(Self {
            content: metadata.modified()?,
            #[cfg(unix)]
            status: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// What an opened path may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allow {
    /// What a user names: a regular file or a block device, by any path.
    Named,
    /// What an image names: a regular file, and not by a link.
    Searched,
}

impl OpenFile {
    /// Opens the file at `path`, or says why it can't be.
    pub(crate) fn open(path: &Path, allow: Allow) -> Result<Self> {
        let failed = |error: io::Error| Error::of(Structure::File, ErrorKind::Open(error.into()));
        // Looked at before it is opened, since opening a device can do things; and again after, since it may have been
        // exchanged between.
        let before = match allow {
            Allow::Named => std::fs::metadata(path),
            Allow::Searched => std::fs::symlink_metadata(path),
        };
        require_file(before.map_err(failed)?.file_type(), allow)?;
        let mut file = open_without_waiting(path, allow).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        require_file(metadata.file_type(), allow)?;
        // A block device has no length but where its end is.
        let length = if metadata.is_file() { metadata.len() } else { file.seek(SeekFrom::End(0)).map_err(failed)? };
        let changed = if metadata.is_file() { LastChange::of(&metadata).ok() } else { None };
        let id = FileId(id(&metadata, path).map_err(failed)?);
        Ok(Self { file, path: path.to_path_buf(), id, length, changed })
    }

    /// When it was last changed before it was opened.
    pub(super) fn modified(&self) -> Option<SystemTime> {
        self.changed.as_ref().map(|changed| changed.content)
    }

    /// How long the file was when it was opened, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// How long the file is now, in bytes.
    #[cfg(unix)]
    pub(super) fn length_now(&self) -> io::Result<u64> {
        // Asked after every small read, so by the one call that is made for it.
        let stat = rustix::fs::fstat(&self.file)?;
        match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::RegularFile => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
            _ => (&self.file).seek(SeekFrom::End(0)),
        }
    }

    #[cfg(not(unix))]
    pub(super) fn length_now(&self) -> io::Result<u64> {
        let metadata = self.file.metadata()?;
        if metadata.is_file() { Ok(metadata.len()) } else { (&self.file).seek(SeekFrom::End(0)) }
    }

    /// Whether the file has been changed since it was opened, as far as its size and the times of its last change tell.
    pub(super) fn has_changed(&self) -> io::Result<bool> {
        let is_same_time = match &self.changed {
            Some(before) => LastChange::of(&self.file.metadata()?)? == *before,
            None => true,
        };
        Ok(!is_same_time || self.length_now()? != self.length)
    }

    /// The length, if memory can hold so much at all.
    pub(super) fn length_in_memory(&self) -> io::Result<usize> {
        usize::try_from(self.length)
            .ok()
            .filter(|length| isize::try_from(*length).is_ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "larger than the address space"))
    }
}

/// Refuses what can't be read at any place.
fn require_file(file_type: FileType, allow: Allow) -> Result<()> {
    if file_type.is_file() || (allow == Allow::Named && is_block_device(file_type)) {
        return Ok(());
    }
    let what = if file_type.is_dir() { "a directory" } else { special_file(file_type) };
    Err(Error::of(Structure::File, ErrorKind::NotAFile { what }))
}

#[cfg(unix)]
fn open_without_waiting(path: &Path, allow: Allow) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;

    let open = |flags: OFlags| {
        if allow == Allow::Searched
            && let Some(opened) = open_without_links(path, flags)
        {
            return opened;
        }
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    };
    let no_link = if allow == Allow::Searched { OFlags::NOFOLLOW } else { OFlags::empty() };
    // Where the file has become a pipe since it was looked at, opening it must not wait for a writer.
    match open(no_link | OFlags::NONBLOCK) {
        // Of a regular file this means that another machine's lease on it is being broken, which takes a moment.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => open(no_link),
        opened => opened,
    }
}

/// Opens a path of which no part may have become a link since it was looked at; none where the system can't do that.
#[cfg(target_os = "linux")]
fn open_without_links(path: &Path, flags: rustix::fs::OFlags) -> Option<io::Result<File>> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    use rustix::io::Errno;

    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(file) => Some(Ok(File::from(file))),
        // Linux before 5.6, or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => None,
        Err(error) => Some(Err(error.into())),
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
fn open_without_links(_: &Path, _: rustix::fs::OFlags) -> Option<io::Result<File>> {
    None
}

#[cfg(not(unix))]
fn open_without_waiting(path: &Path, _: Allow) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

#[cfg(unix)]
fn is_block_device(file_type: FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_block_device(&file_type)
}

#[cfg(not(unix))]
fn is_block_device(_: FileType) -> bool {
    false
}

#[cfg(unix)]
fn special_file(file_type: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;

    if file_type.is_fifo() {
        "a pipe"
    } else if file_type.is_socket() {
        "a socket"
    } else if file_type.is_char_device() {
        "a character device"
    } else {
        "a special file"
    }
}

#[cfg(not(unix))]
fn special_file(_: FileType) -> &'static str {
    "a special file"
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere the identity is a path, and finding it can fail")]
fn id(metadata: &std::fs::Metadata, _: &Path) -> io::Result<Id> {
    use std::os::unix::fs::MetadataExt;

    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn id(_: &std::fs::Metadata, path: &Path) -> io::Result<Id> {
    std::fs::canonicalize(path)
}
