//! Opening of files, and of nothing else: no pipe that waits for a writer, no device with side effects.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, ErrorKind, Result, Structure};

use super::in_use::is_in_use;

/// Identity of a file, which does not depend on the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileId(Id);

#[cfg(unix)]
type Id = (u64, u64);
#[cfg(not(unix))]
type Id = PathBuf;

impl FileId {
    /// Returns the identity of the file at `path`, without opening it.
    ///
    /// # Errors
    /// Fails if the file does not exist or cannot be accessed.
    pub fn of(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        id(&std::fs::metadata(path)?, path).map(Self)
    }

    /// Returns the identity of an open file.
    ///
    /// # Errors
    /// Fails if the file cannot be accessed.
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
    /// Last change before the file was opened. `None` for block devices.
    changed: Option<LastChange>,
    /// Whether another process had to give up its lease on the file.
    had_lease: bool,
}

/// Last change of a file, as reported by its system.
#[derive(Debug, PartialEq, Eq)]
struct LastChange {
    content: SystemTime,
    /// Status change time: seconds and nanoseconds. Unlike the modification time, it cannot be set back.
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

/// Kinds of paths that may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allow {
    /// A path named by a user: a regular file or a block device, by any path.
    Named,
    /// A path named by a user who allows no symbolic link in it.
    WithoutLinks,
    /// A path named by an image: a regular file, without a link.
    Searched,
}

impl OpenFile {
    /// Opens the file at `path`.
    pub(crate) fn open(path: &Path, allow: Allow) -> Result<Self> {
        Self::open_unnamed(path, allow).map_err(|error| error.in_file(Some(path)))
    }

    /// As [`OpenFile::open`], with errors that do not name the path.
    fn open_unnamed(path: &Path, allow: Allow) -> Result<Self> {
        let failed = |error: io::Error| Error::of(Structure::File, ErrorKind::Open(error.into()));
        // Inspected before it is opened, since opening a device can have side effects, and again afterwards, since it
        // may have been replaced in between.
        let before = match allow {
            Allow::Named => std::fs::metadata(path),
            Allow::WithoutLinks | Allow::Searched => std::fs::symlink_metadata(path),
        };
        if allow == Allow::WithoutLinks && has_link(path) {
            return Err(Error::of(Structure::File, ErrorKind::NotAFile { what: "reached by a symbolic link" }));
        }
        require_file(before.map_err(failed)?.file_type(), allow)?;
        let (mut file, had_lease) = open_without_waiting(path, allow).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        require_file(metadata.file_type(), allow)?;
        // The length of a block device is only known by its end.
        let length = if metadata.is_file() { metadata.len() } else { file.seek(SeekFrom::End(0)).map_err(failed)? };
        let changed = if metadata.is_file() { LastChange::of(&metadata).ok() } else { None };
        let id = FileId(id(&metadata, path).map_err(failed)?);
        Ok(Self { file, path: path.to_path_buf(), id, length, changed, had_lease })
    }

    /// Returns the time of the last change before the file was opened.
    pub(super) fn modified(&self) -> Option<SystemTime> {
        self.changed.as_ref().map(|changed| changed.content)
    }

    /// Returns the length when the file was opened, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Returns the current length, in bytes.
    #[cfg(unix)]
    pub(super) fn length_now(&self) -> io::Result<u64> {
        // Called after every small read, so by the one system call that is made for it.
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

    /// Returns whether the file has been changed since it was opened, according to its size and the times of its last
    /// change.
    pub(super) fn has_changed(&self) -> io::Result<bool> {
        let is_same_time = match &self.changed {
            Some(before) => LastChange::of(&self.file.metadata()?)? == *before,
            None => true,
        };
        Ok(!is_same_time || self.length_now()? != self.length)
    }

    /// Returns whether another program has the file open for writing; `None` if that is unknown.
    pub(super) fn in_use(&self) -> Option<bool> {
        if self.had_lease { Some(true) } else { is_in_use(&self.file) }
    }

    /// Returns the length, if memory can hold that many bytes.
    pub(super) fn length_in_memory(&self) -> io::Result<usize> {
        usize::try_from(self.length)
            .ok()
            .filter(|length| isize::try_from(*length).is_ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "larger than the address space"))
    }
}

/// Rejects files that cannot be read at any offset.
fn require_file(file_type: FileType, allow: Allow) -> Result<()> {
    if file_type.is_file() || (allow != Allow::Searched && is_block_device(file_type)) {
        return Ok(());
    }
    let what = if file_type.is_dir() { "a directory" } else { special_file(file_type) };
    Err(Error::of(Structure::File, ErrorKind::NotAFile { what }))
}

/// Whether a part of the path is a symbolic link. Opening rejects links that are made later, where the system can.
fn has_link(path: &Path) -> bool {
    let parts = path.ancestors().filter(|part| !part.as_os_str().is_empty());
    parts.into_iter().any(|part| std::fs::symlink_metadata(part).is_ok_and(|metadata| metadata.is_symlink()))
}

/// Opens a file, and returns whether another process had to give up its lease on it.
///
/// Reading it does not change its access time, if the system allows that to this user.
#[cfg(unix)]
fn open_without_waiting(path: &Path, allow: Allow) -> io::Result<(File, bool)> {
    use rustix::fs::OFlags;

    #[cfg(target_os = "linux")]
    {
        use rustix::io::Errno;

        // Linux says EPERM to a user who does not own the file; servers of file systems refuse an unknown flag by other
        // errors. These are the errors that another flag cannot change.
        let is_final = |error: &io::Error| {
            matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::AGAIN | Errno::LOOP | Errno::INTR))
        };
        match open_with_flags(path, allow, OFlags::NOATIME) {
            Err(error) if !is_final(&error) => {}
            opened => return opened,
        }
    }
    open_with_flags(path, allow, OFlags::empty())
}

#[cfg(unix)]
fn open_with_flags(path: &Path, allow: Allow, more: rustix::fs::OFlags) -> io::Result<(File, bool)> {
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;

    let open = |flags: OFlags| {
        if allow != Allow::Named
            && let Some(opened) = open_without_links(path, flags)
        {
            return opened;
        }
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    };
    let flags = if allow == Allow::Named { more } else { more | OFlags::NOFOLLOW };
    // If the file was replaced by a pipe since it was inspected, opening it must not wait for a writer.
    match open(flags | OFlags::NONBLOCK) {
        // For a regular file, this means that another process's lease on it is being broken, which takes a moment.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => open(flags).map(|file| (file, true)),
        opened => opened.map(|file| (file, false)),
    }
}

/// Opens a path without following links, in case a part of it was replaced by one. Returns `None` if the system cannot
/// do that.
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
fn open_without_waiting(path: &Path, _: Allow) -> io::Result<(File, bool)> {
    OpenOptions::new().read(true).open(path).map(|file| (file, false))
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
