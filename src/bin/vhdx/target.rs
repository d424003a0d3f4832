//! Where an extraction goes: what is there already, what may be overwritten, and how a file appears only when it is
//! complete.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use same_file::Handle;
use tempfile::NamedTempFile;
use vhdx_mmap::{Disk, ops};

use crate::exit::{Exit, Failure};
use crate::size::human;

/// A place that takes a disk.
pub(crate) enum Target {
    /// A file that gets its name when it is complete.
    NewFile { file: NamedTempFile, path: PathBuf, replace: bool },
    /// A block device.
    Device { file: File },
    /// Standard output, a pipe, or a device that is no disk: takes bytes in order.
    Stream { file: File },
}

impl Target {
    /// Finds out what `out` is, and makes sure before any work that it can take `length` bytes, of which `data` need room.
    pub(crate) fn open(out: &Path, disk: &Disk, force: bool, length: u64, data: u64) -> Result<Self, Failure> {
        if out == Path::new("-") {
            refuse_terminal(force, "--force writes there all the same")?;
            return Self::standard_output();
        }
        let metadata = match std::fs::metadata(out) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(cannot_create(out, &error)),
        };
        refuse_own_files(out, disk)?;
        match metadata {
            None => Self::new_file(out, None, length, data),
            Some(metadata) if metadata.is_dir() => {
                Err(Failure::new(Exit::CannotCreate, format!("{}: is a directory", out.display())))
            }
            Some(metadata) if metadata.is_file() => {
                require_force(out, force, "exists already", "--force replaces it when the new one is complete")?;
                // The file that a link leads to is replaced, not the link.
                let real = std::fs::canonicalize(out).map_err(|error| cannot_create(out, &error))?;
                Self::new_file(&real, Some(&metadata), length, data)
            }
            Some(metadata) if is_block_device(metadata.file_type()) => {
                require_force(out, force, "is a block device", "--force overwrites what is on it")?;
                Self::device(out, length)
            }
            Some(_) => {
                let file = OpenOptions::new().write(true).open(out).map_err(|error| cannot_create(out, &error))?;
                Ok(Self::Stream { file })
            }
        }
    }

    #[cfg(unix)]
    pub(crate) fn standard_output() -> Result<Self, Failure> {
        use std::os::fd::AsFd;

        // Past the line buffer of the standard library, which would look for line ends in the disk.
        let file = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        Ok(Self::Stream { file: file.map_err(|error| cannot_create(Path::new("-"), &error))? })
    }

    #[cfg(windows)]
    pub(crate) fn standard_output() -> Result<Self, Failure> {
        use std::os::windows::io::AsHandle;

        let file = io::stdout().as_handle().try_clone_to_owned().map(File::from);
        Ok(Self::Stream { file: file.map_err(|error| cannot_create(Path::new("-"), &error))? })
    }

    /// A file beside the one to be, so that it can take its place in one step.
    fn new_file(path: &Path, replaced: Option<&Metadata>, length: u64, data: u64) -> Result<Self, Failure> {
        let failed = |error: &io::Error| cannot_create(path, error);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().ok_or_else(|| failed(&io::ErrorKind::InvalidInput.into()))?;
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".partial");
        let permissions = replaced.map(Metadata::permissions).or_else(permissions_of_new_files);
        if let Some(permissions) = permissions {
            builder.permissions(permissions);
        }
        let file = builder.tempfile_in(folder).map_err(|error| failed(&error))?;
        require_room(file.as_file(), folder, path, length, data)?;
        Ok(Self::NewFile { file, path: path.to_path_buf(), replace: replaced.is_some() })
    }

    fn device(path: &Path, length: u64) -> Result<Self, Failure> {
        let failed = |error: io::Error| cannot_create(path, &error);
        let mut file = OpenOptions::new().write(true).open(path).map_err(failed)?;
        let room = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if room < length {
            let text = format!("{}: has room for {}, needs {}", path.display(), human(room), human(length));
            return Err(Failure::new(Exit::CannotCreate, text));
        }
        file.rewind().map_err(failed)?;
        Ok(Self::Device { file })
    }

    /// The file to write to.
    pub(crate) fn file(&self) -> &File {
        match self {
            Self::NewFile { file, .. } => file.as_file(),
            Self::Device { file } | Self::Stream { file } => file,
        }
    }

    /// What the target holds before; none if it takes bytes in order only.
    pub(crate) fn content(&self) -> Option<ops::Target> {
        match self {
            Self::NewFile { .. } => Some(ops::Target::Blank),
            Self::Device { .. } => Some(ops::Target::Used),
            Self::Stream { .. } => None,
        }
    }

    /// All is written: gives a new file its name, and makes sure that a device has everything.
    pub(crate) fn complete(self) -> Result<(), Failure> {
        match self {
            Self::NewFile { file, path, replace } => {
                let named = if replace { file.persist(&path) } else { file.persist_noclobber(&path) };
                named.map(drop).map_err(|error| cannot_create(&path, &error.error))
            }
            Self::Device { file } => {
                file.sync_all().map_err(|error| Failure::new(Exit::Io, format!("the device: {error}")))
            }
            Self::Stream { .. } => Ok(()),
        }
    }
}

/// The disk as bytes does no terminal good.
pub(crate) fn refuse_terminal(force: bool, hint: &str) -> Result<(), Failure> {
    if io::IsTerminal::is_terminal(&io::stdout()) && !force {
        return Err(Failure::usage("standard output is a terminal").with_hint(hint));
    }
    Ok(())
}

fn cannot_create(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::CannotCreate, format!("{}: cannot be created: {error}", path.display()))
}

fn require_force(path: &Path, force: bool, what: &str, hint: &str) -> Result<(), Failure> {
    if force {
        return Ok(());
    }
    Err(Failure::new(Exit::CannotCreate, format!("{}: {what}", path.display())).with_hint(hint))
}

/// Nothing of the chain is ever written to.
fn refuse_own_files(out: &Path, disk: &Disk) -> Result<(), Failure> {
    let Ok(target) = Handle::from_path(out) else { return Ok(()) };
    for layer in disk.layers() {
        let Some(file) = layer.image().source().file() else { continue };
        let own = file.try_clone().and_then(Handle::from_file).map_err(|error| cannot_create(out, &error))?;
        if own == target {
            let text = format!("{}: is the image itself, or one of its parents", out.display());
            return Err(Failure::usage(text));
        }
    }
    Ok(())
}

/// Makes the file as long as it will be, and makes sure that the file system has room for what will be written.
fn require_room(file: &File, folder: &Path, path: &Path, length: u64, data: u64) -> Result<(), Failure> {
    file.set_len(length).map_err(|error| {
        let text = format!("{}: cannot be a file of {}: {error}", path.display(), human(length));
        Failure::new(Exit::CannotCreate, text).with_hint("write it elsewhere, or only a --range of it")
    })?;
    match room_in(folder) {
        Some(room) if room < data => {
            let text = format!("{}: needs {}, and there are {} free", path.display(), human(data), human(room));
            Err(Failure::new(Exit::CannotCreate, text))
        }
        _ => Ok(()),
    }
}

/// Free bytes of the file system of a folder, if it says.
#[cfg(unix)]
fn room_in(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(not(unix))]
fn room_in(_: &Path) -> Option<u64> {
    None
}

#[cfg(unix)]
fn is_block_device(file_type: FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_block_device(&file_type)
}

#[cfg(not(unix))]
fn is_block_device(_: FileType) -> bool {
    false
}

/// What the user's umask leaves of it, as for any file that a program makes.
#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere there are none")]
fn permissions_of_new_files() -> Option<std::fs::Permissions> {
    Some(std::os::unix::fs::PermissionsExt::from_mode(0o666))
}

#[cfg(not(unix))]
fn permissions_of_new_files() -> Option<std::fs::Permissions> {
    None
}
