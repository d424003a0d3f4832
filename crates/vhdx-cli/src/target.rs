//! Output of an extraction: what exists already, what may be overwritten, and files that get their name when complete.

use std::fmt;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf, is_separator};

use vhdx_mmap::ops::TargetContent;
use vhdx_mmap::{FileId, Layer};

use crate::exit::{Exit, Failure, STANDARD_OUTPUT};
use crate::new_file::{NewFile, NotNamed};
use crate::size::human;

/// What the user allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Consent {
    /// Replace an existing file, or overwrite a device.
    pub(crate) force: bool,
    /// Write into an existing file or device.
    pub(crate) in_place: bool,
}

/// Kind of OUT, determined without opening it.
pub(crate) enum Destination {
    /// File that does not exist yet.
    NewFile(PathBuf),
    /// Existing file that will be replaced, by its canonical path.
    OldFile(PathBuf, Metadata),
    /// Existing file that will be written into.
    InPlace(PathBuf),
    /// Block device.
    Device(PathBuf),
    /// Pipe, or device that is not a disk.
    Stream(PathBuf),
    /// Standard output.
    Standard,
}

impl Destination {
    /// Determines what `out` is, and fails if it must not be written to.
    pub(crate) fn new(out: &Path, layers: &[Layer], Consent { force, in_place }: Consent) -> Result<Self, Failure> {
        if out == Path::new("-") {
            reject_terminal(force, "--force writes to the terminal")?;
            return Ok(Self::Standard);
        }
        let metadata = match std::fs::metadata(out) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if std::fs::symlink_metadata(out).is_ok() {
                    let text = format!("{}: dangling symbolic link", out.display());
                    return Err(Failure::new(Exit::CannotCreate, text).with_hint("name the file instead of the link"));
                }
                // Without this check, the name would be rejected only after all the work.
                if out.as_os_str().as_encoded_bytes().last().is_some_and(|&byte| is_separator(char::from(byte))) {
                    let text = format!("{}: no such directory", out.display());
                    let hint = "name a file in an existing directory";
                    return Err(Failure::new(Exit::CannotCreate, text).with_hint(hint));
                }
                if in_place {
                    let text = format!("{}: no such file", out.display());
                    return Err(Failure::new(Exit::CannotCreate, text).with_hint("leave out --no-create to create it"));
                }
                return Ok(Self::NewFile(out.to_path_buf()));
            }
            Err(error) => return Err(cannot_create(out, &error)),
        };
        reject_own_files(out, layers)?;
        if metadata.is_dir() {
            let failure = Failure::new(Exit::CannotCreate, format!("{}: is a directory", out.display()));
            return Err(failure.with_hint("name a file in this directory"));
        }
        if metadata.is_file() && in_place {
            return Ok(Self::InPlace(out.to_path_buf()));
        }
        if metadata.is_file() {
            require_force(out, force, "exists already", "--force replaces it when the new file is complete")?;
            // Replace the file that a link points to, not the link.
            let real = std::fs::canonicalize(out).map_err(|error| cannot_create(out, &error))?;
            return Ok(Self::OldFile(real, metadata));
        }
        if is_block_device(metadata.file_type()) {
            reject_own_backing_file(out, &metadata, layers)?;
            require_force(out, force || in_place, "is a block device", "--force overwrites its content")?;
            return Ok(Self::Device(out.to_path_buf()));
        }
        Ok(Self::Stream(out.to_path_buf()))
    }

    /// Determines what `out` is, for a share of a disk: a file into which others write their shares at the same time,
    /// or a block device. A file that does not exist yet is made.
    pub(crate) fn shared(out: &Path, layers: &[Layer]) -> Result<Self, Failure> {
        let text = |what: &str| format!("{}: {what}", out.display());
        if out != Path::new("-") && std::fs::symlink_metadata(out).is_err() {
            // Another worker may make it at the same time: it is never made anew.
            let made = OpenOptions::new().write(true).create(true).truncate(false).open(out);
            made.map_err(|error| cannot_create(out, &error))?;
        }
        match Self::new(out, layers, Consent { force: false, in_place: true })? {
            found @ (Self::InPlace(_) | Self::Device(_)) => Ok(found),
            _ => Err(Failure::usage(text("a share cannot be written there (expected a file or a block device)"))),
        }
    }

    /// Whether it will be a new file, which gets its name when it is complete.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::NewFile(_) | Self::OldFile(..))
    }

    /// Whether bytes can be written in order only.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_) | Self::Standard)
    }

    /// Opens the output, and checks that it has space for `length` bytes, of which at most `data` occupy space.
    ///
    /// `footer`: the output ends with a footer, which readers search at the end of the device.
    pub(crate) fn open(&self, length: u64, data: u64, footer: bool) -> Result<Target, Failure> {
        match self {
            Self::NewFile(path) => new_file(path, None, length, data),
            Self::OldFile(path, metadata) => new_file(path, Some(metadata), length, data),
            Self::InPlace(path) => in_place(path, length, footer),
            Self::Device(path) => device(path, length, footer),
            Self::Stream(path) => {
                let file = OpenOptions::new().write(true).open(path);
                Ok(Target::Stream { file: file.map_err(|error| cannot_create(path, &error))? })
            }
            Self::Standard => standard_output().map(|file| Target::Stream { file }),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewFile(path)
            | Self::OldFile(path, _)
            | Self::InPlace(path)
            | Self::Device(path)
            | Self::Stream(path) => {
                write!(f, "{}", path.display())
            }
            Self::Standard => f.write_str(STANDARD_OUTPUT),
        }
    }
}

/// Open output of an extraction.
pub(crate) enum Target {
    /// File that gets its name when it is complete.
    File { file: NewFile, path: PathBuf, replace: bool },
    /// Block device, or file that existed before.
    InPlace { file: File, path: PathBuf, is_device: bool },
    /// Output that takes bytes in order only.
    Stream { file: File },
}

impl Target {
    /// The file to write to.
    pub(crate) fn file(&self) -> &File {
        match self {
            Self::File { file, .. } => file.file(),
            Self::InPlace { file, .. } | Self::Stream { file } => file,
        }
    }

    /// Content before the extraction; `None` for a stream.
    pub(crate) fn content(&self) -> Option<TargetContent> {
        match self {
            Self::File { .. } => Some(TargetContent::Zeros),
            Self::InPlace { .. } => Some(TargetContent::Anything),
            Self::Stream { .. } => None,
        }
    }

    /// Path to open the output again; `None` for a stream.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::File { file, .. } => Some(file.path()),
            Self::InPlace { path, .. } => Some(path),
            Self::Stream { .. } => None,
        }
    }

    /// Opens the file or device again, for writes that bypass the page cache.
    pub(crate) fn open_direct(&self) -> Result<File, Failure> {
        let path = self
            .path()
            .ok_or_else(|| Failure::usage("--direct: the output is a stream (expected a file or a device)"))?;
        open_direct(path).map_err(|error| {
            let text = format!("{}: cannot be opened for direct writes: {error}", path.display());
            Failure::new(Exit::CannotCreate, text).with_hint("leave out --direct")
        })
    }

    /// Completes the output: gives a new file its name, and syncs a device. With `sync`, files are synced, too.
    pub(crate) fn complete(self, sync: bool) -> Result<(), Failure> {
        let not_synced = |path: &Path, error: io::Error| Failure::new(Exit::Io, format!("{}: {error}", path.display()));
        match self {
            Self::File { file, path, replace } => {
                if sync {
                    file.file().sync_all().map_err(|error| not_synced(&path, error))?;
                }
                file.name(&path, replace).map_err(|failed| not_named(&failed, &path))
            }
            Self::InPlace { file, path, is_device } if sync || is_device => {
                file.sync_all().map_err(|error| not_synced(&path, error))
            }
            Self::InPlace { .. } => Ok(()),
            Self::Stream { .. } => Ok(()),
        }
    }

    /// Warning about an output that was not completed but keeps a part of the disk.
    pub(crate) fn partial_output(&self) -> Option<String> {
        match self {
            Self::InPlace { path, .. } => Some(format!("{}: now holds a part of the disk", path.display())),
            Self::File { .. } | Self::Stream { .. } => None,
        }
    }
}

/// The failure if a complete file cannot get its name.
fn not_named(failed: &NotNamed, path: &Path) -> Failure {
    let failure = cannot_create(path, &failed.error);
    match &failed.kept {
        Some(kept) => failure.with_hint(format!("the complete output is in {}", kept.display())),
        None if failed.error.kind() == io::ErrorKind::NotFound => {
            failure.with_hint("its folder was removed or renamed meanwhile: write it to an existing folder")
        }
        None => failure,
    }
}

/// Standard output as a file, without the line buffer of the standard library, which would search the disk for
/// newlines.
#[cfg(unix)]
pub(crate) fn standard_output() -> Result<File, Failure> {
    use std::os::fd::AsFd;

    let file = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    file.map_err(|error| cannot_create(Path::new("-"), &error))
}

#[cfg(windows)]
pub(crate) fn standard_output() -> Result<File, Failure> {
    use std::os::windows::io::AsHandle;

    let file = io::stdout().as_handle().try_clone_to_owned().map(File::from);
    file.map_err(|error| cannot_create(Path::new("-"), &error))
}

/// Creates a file in the folder of `path`, which gets its name at once when it is complete.
fn new_file(path: &Path, replaced: Option<&Metadata>, length: u64, data: u64) -> Result<Target, Failure> {
    let failed = |error: io::Error| cannot_create(path, &error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = NewFile::create_in(folder).map_err(failed)?;
    if let Some(replaced) = replaced {
        file.file().set_permissions(replaced.permissions()).map_err(failed)?;
    }
    file.file().set_len(length).map_err(|error| {
        let text = format!("{}: cannot be a file of {}: {error}", path.display(), human(length));
        Failure::new(Exit::CannotCreate, text).with_hint("write to another file system, or only a part with --range")
    })?;
    match free_space(folder) {
        Some(room) if room < data => {
            let text =
                format!("{}: not enough space (found {}, expected up to {})", path.display(), human(room), human(data));
            Err(Failure::new(Exit::CannotCreate, text)
                .with_hint("write to another file system, or only a part with --range"))
        }
        _ => Ok(Target::File { file, path: path.to_path_buf(), replace: replaced.is_some() }),
    }
}

fn device(path: &Path, length: u64, footer: bool) -> Result<Target, Failure> {
    let failed = |error: io::Error| cannot_create(path, &error);
    // A read-only device can be opened for writing, and fails at the first write.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if device_attribute(&metadata, "ro").is_some_and(|answer| answer == "1") {
        let failure = Failure::new(Exit::CannotCreate, format!("{}: is read-only", path.display()));
        return Err(failure.with_hint("name a writable device"));
    }
    let mut file = open_device(path).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => Failure::new(Exit::CannotCreate, format!("{}: is in use", path.display()))
            .with_hint("unmount the device first"),
        _ => failed(error),
    })?;
    let room = file.seek(SeekFrom::End(0)).map_err(failed)?;
    if room < length {
        let text = format!("{}: device too small (found {}, expected {})", path.display(), human(room), human(length));
        return Err(Failure::new(Exit::CannotCreate, text).with_hint("write a part of the disk with --range"));
    }
    if footer && room > length {
        return Err(footer_not_found(path, room, length));
    }
    file.rewind().map_err(failed)?;
    Ok(Target::InPlace { file, path: path.to_path_buf(), is_device: true })
}

/// Opens an existing file, and extends it if it is too short.
fn in_place(path: &Path, length: u64, footer: bool) -> Result<Target, Failure> {
    let failed = |error: io::Error| cannot_create(path, &error);
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    let before = file.metadata().map_err(failed)?.len();
    if before < length {
        file.set_len(length).map_err(failed)?;
    } else if before > length && footer {
        return Err(footer_not_found(path, before, length));
    }
    Ok(Target::InPlace { file, path: path.to_path_buf(), is_device: false })
}

fn footer_not_found(path: &Path, room: u64, length: u64) -> Failure {
    let text = format!(
        "{}: too large: the VHD footer must be at the end (found {room} bytes, expected {length})",
        path.display()
    );
    Failure::new(Exit::CannotCreate, text).with_hint("write the VHD to a new file, or --format raw")
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
    OpenOptions::new().write(true).custom_flags(direct).open(path)
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Opens a block device. O_EXCL fails on Linux if the device is in use, such as mounted.
#[cfg(target_os = "linux")]
fn open_device(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    let exclusive = i32::try_from(rustix::fs::OFlags::EXCL.bits()).unwrap_or(0);
    OpenOptions::new().write(true).custom_flags(exclusive).open(path)
}

#[cfg(not(target_os = "linux"))]
fn open_device(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

/// Fails if standard output is a terminal: the bytes of a disk would garble it.
pub(crate) fn reject_terminal(force: bool, hint: &str) -> Result<(), Failure> {
    if io::IsTerminal::is_terminal(&io::stdout()) && !force {
        return Err(Failure::usage("standard output: is a terminal (expected a file or a pipe)").with_hint(hint));
    }
    Ok(())
}

fn cannot_create(path: &Path, error: &io::Error) -> Failure {
    // tempfile adds the name of the temporary file.
    let text = error.to_string();
    let cause = text.split(" at path ").next().unwrap_or_default();
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "create the folder first",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "write to a folder that you have permission to write to"
        }
        _ => "write to another folder, or to standard output with `-`",
    };
    Failure::new(Exit::CannotCreate, format!("{}: cannot be created: {cause}", path.display())).with_hint(hint)
}

fn require_force(path: &Path, force: bool, what: &str, hint: &str) -> Result<(), Failure> {
    if force {
        return Ok(());
    }
    Err(Failure::new(Exit::CannotCreate, format!("{}: {what}", path.display())).with_hint(hint))
}

/// Fails if the output is an image of the chain.
fn reject_own_files(out: &Path, layers: &[Layer]) -> Result<(), Failure> {
    let target = FileId::of(out).map_err(|error| cannot_create(out, &error))?;
    reject_layers(&target, layers, out.display())
}

fn reject_layers(target: &FileId, layers: &[Layer], name: impl fmt::Display) -> Result<(), Failure> {
    if layers.iter().any(|layer| layer.image().source().id().as_ref() == Some(target)) {
        return Err(Failure::usage(format!("{name}: is the image itself or one of its parents")));
    }
    Ok(())
}

/// Fails if the output is a loop device with an image of the chain.
fn reject_own_backing_file(device: &Path, metadata: &Metadata, layers: &[Layer]) -> Result<(), Failure> {
    match device_attribute(metadata, "loop/backing_file").map(FileId::of) {
        Some(Ok(target)) => reject_layers(&target, layers, device.display()),
        // Not a loop device, or its file was deleted.
        Some(Err(_)) | None => Ok(()),
    }
}

/// Reads an attribute of a block device from sysfs.
#[cfg(target_os = "linux")]
fn device_attribute(metadata: &Metadata, name: &str) -> Option<String> {
    let device = std::os::unix::fs::MetadataExt::rdev(metadata);
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let text = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/{name}")).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

#[cfg(not(target_os = "linux"))]
fn device_attribute(_: &Metadata, _: &str) -> Option<String> {
    None
}

/// Free space in the file system of a folder, in bytes, if known.
#[cfg(unix)]
fn free_space(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(not(unix))]
fn free_space(_: &Path) -> Option<u64> {
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
