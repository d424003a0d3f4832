//! Opening a file so that nothing but a file is opened: no pipe that waits for a writer, no device with side effects.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result, Structure};

/// Which file it is, whatever path leads to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileId(Id);

#[cfg(unix)]
type Id = (u64, u64);
#[cfg(not(unix))]
type Id = PathBuf;

/// A file opened for reading.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    length: u64,
}

impl OpenFile {
    /// Opens the file at `path`, or says why it can't be.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::of(Structure::File, ErrorKind::Open(error));
        // Looked at before it is opened, since opening a device can do things; and again after, since it may have been
        // exchanged between.
        require_file(std::fs::metadata(path).map_err(failed)?.file_type())?;
        let mut file = options().open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        require_file(metadata.file_type())?;
        // A block device has no length but where its end is.
        let length = if metadata.is_file() { metadata.len() } else { file.seek(SeekFrom::End(0)).map_err(failed)? };
        let id = FileId(id(&metadata, path).map_err(failed)?);
        Ok(Self { file, path: path.to_path_buf(), id, length })
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
fn require_file(file_type: FileType) -> Result<()> {
    if file_type.is_file() || is_block_device(file_type) {
        return Ok(());
    }
    let what = if file_type.is_dir() { "a directory" } else { special_file(file_type) };
    Err(Error::of(Structure::File, ErrorKind::NotAFile { what }))
}

#[cfg(unix)]
fn options() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = OpenOptions::new();
    options.read(true);
    // Where the file has become a pipe since it was looked at, opening it must not wait for a writer.
    if let Ok(flags) = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()) {
        options.custom_flags(flags);
    }
    options
}

#[cfg(not(unix))]
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true);
    options
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
