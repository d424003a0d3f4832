//! Where an extraction goes: what is there already, what may be overwritten, and how a file appears only when it is
//! complete.

use std::fmt;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf, is_separator};

use tempfile::NamedTempFile;
use vhdx_mmap::ops::TargetContent;
use vhdx_mmap::{FileId, Layer};

use crate::exit::{Exit, Failure, STANDARD_OUTPUT};
use crate::size::human;

/// What the user has agreed to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Consent {
    /// To replace what is there.
    pub(crate) force: bool,
    /// To write into what is there.
    pub(crate) in_place: bool,
}

/// What OUT is, found out without opening it.
pub(crate) enum Destination {
    /// A file that is not there yet.
    NewFile(PathBuf),
    /// A file that is there and is to be replaced, by its real path.
    OldFile(PathBuf, Metadata),
    /// A file that is there and is to be written into.
    InPlace(PathBuf),
    /// A block device.
    Device(PathBuf),
    /// A pipe, or a device that is no disk.
    Stream(PathBuf),
    /// Standard output.
    Standard,
}

impl Destination {
    /// Finds out what `out` is, and refuses what must not be written to.
    pub(crate) fn new(out: &Path, layers: &[Layer], Consent { force, in_place }: Consent) -> Result<Self, Failure> {
        if out == Path::new("-") {
            refuse_terminal(force, "--force writes there all the same")?;
            return Ok(Self::Standard);
        }
        let metadata = match std::fs::metadata(out) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if std::fs::symlink_metadata(out).is_ok() {
                    let text = format!("{}: is a link that leads nowhere", out.display());
                    return Err(Failure::new(Exit::CannotCreate, text).with_hint("name the file itself"));
                }
                // Such a name is found out to be unusable only when all the work is done.
                if out.as_os_str().as_encoded_bytes().last().is_some_and(|&byte| is_separator(char::from(byte))) {
                    let text = format!("{}: is the name of a directory, and there is none", out.display());
                    return Err(
                        Failure::new(Exit::CannotCreate, text).with_hint("name a file in a directory that is there")
                    );
                }
                if in_place {
                    let text = format!("{}: there is no such file to write into", out.display());
                    return Err(Failure::new(Exit::CannotCreate, text).with_hint("without --no-create it is made"));
                }
                return Ok(Self::NewFile(out.to_path_buf()));
            }
            Err(error) => return Err(cannot_create(out, &error)),
        };
        refuse_own_files(out, layers)?;
        if metadata.is_dir() {
            let failure = Failure::new(Exit::CannotCreate, format!("{}: is a directory", out.display()));
            return Err(failure.with_hint("name a file in it"));
        }
        if metadata.is_file() && in_place {
            return Ok(Self::InPlace(out.to_path_buf()));
        }
        if metadata.is_file() {
            require_force(out, force, "exists already", "--force replaces it when the new one is complete")?;
            // The file that a link leads to is replaced, not the link.
            let real = std::fs::canonicalize(out).map_err(|error| cannot_create(out, &error))?;
            return Ok(Self::OldFile(real, metadata));
        }
        if is_block_device(metadata.file_type()) {
            refuse_own_backing_file(out, &metadata, layers)?;
            require_force(out, force || in_place, "is a block device", "--force overwrites what is on it")?;
            return Ok(Self::Device(out.to_path_buf()));
        }
        Ok(Self::Stream(out.to_path_buf()))
    }

    /// Whether it is, or will be, a file that is complete or not there.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::NewFile(_) | Self::OldFile(..))
    }

    /// Whether bytes can only be written in order.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_) | Self::Standard)
    }

    /// Opens it, and makes sure that it has room for `length` bytes, of which at most `data` have to be stored.
    ///
    /// With `footer`, what will be written ends with something that readers look for at the end of a device.
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

/// A place that takes a disk.
pub(crate) enum Target {
    /// A file that gets its name when it is complete.
    File { file: NamedTempFile, path: PathBuf, replace: bool },
    /// A block device, or a file that was there before.
    InPlace { file: File, path: PathBuf, is_device: bool },
    /// What takes bytes in order.
    Stream { file: File },
}

impl Target {
    /// The file to write to.
    pub(crate) fn file(&self) -> &File {
        match self {
            Self::File { file, .. } => file.as_file(),
            Self::InPlace { file, .. } | Self::Stream { file } => file,
        }
    }

    /// What the target holds before; none if it takes bytes in order only.
    pub(crate) fn content(&self) -> Option<TargetContent> {
        match self {
            Self::File { .. } => Some(TargetContent::Zeros),
            Self::InPlace { .. } => Some(TargetContent::Anything),
            Self::Stream { .. } => None,
        }
    }

    /// Where it can be opened once more; none of what takes bytes in order only.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::File { file, .. } => Some(file.path()),
            Self::InPlace { path, .. } => Some(path),
            Self::Stream { .. } => None,
        }
    }

    /// The same file or device, to be written to past the memory of the system.
    pub(crate) fn open_direct(&self) -> Result<File, Failure> {
        let path = self.path().ok_or_else(|| Failure::usage("--direct: a stream has no other way"))?;
        open_direct(path).map_err(|error| {
            let text = format!("{}: can't be written to directly: {error}", path.display());
            Failure::new(Exit::CannotCreate, text).with_hint("leave out --direct")
        })
    }

    /// All is written: gives a new file its name, and makes sure that a device has everything. With `sync`, a file is on
    /// the medium when this is done.
    pub(crate) fn complete(self, sync: bool) -> Result<(), Failure> {
        let not_synced = |path: &Path, error: io::Error| Failure::new(Exit::Io, format!("{}: {error}", path.display()));
        match self {
            Self::File { file, path, replace } => {
                if sync {
                    file.as_file().sync_all().map_err(|error| not_synced(&path, error))?;
                }
                let named = if replace { file.persist(&path) } else { file.persist_noclobber(&path) };
                named.map(drop).map_err(|failed| keep(failed, &path))
            }
            Self::InPlace { file, path, is_device } if sync || is_device => {
                file.sync_all().map_err(|error| not_synced(&path, error))
            }
            Self::InPlace { .. } => Ok(()),
            Self::Stream { .. } => Ok(()),
        }
    }

    /// What a target that could not be completed is left as, if that is of interest.
    pub(crate) fn left_as(&self) -> Option<String> {
        match self {
            Self::InPlace { path, .. } => Some(format!("{}: holds a part of the disk now", path.display())),
            Self::File { .. } | Self::Stream { .. } => None,
        }
    }
}

/// A complete file that can't get its name is not thrown away.
fn keep(failed: tempfile::PersistError, path: &Path) -> Failure {
    let failure = cannot_create(path, &failed.error);
    if !failed.file.path().exists() {
        return failure.with_hint("its folder was removed or renamed while it was written: nothing is left");
    }
    match failed.file.keep() {
        Ok((_, kept)) => failure.with_hint(format!("everything is in {}", kept.display())),
        Err(_) => failure,
    }
}

/// Standard output as a file: past the line buffer of the standard library, which would look for line ends in the disk.
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

/// A file beside the one to be, so that it can take its place in one step.
fn new_file(path: &Path, replaced: Option<&Metadata>, length: u64, data: u64) -> Result<Target, Failure> {
    let failed = |error: io::Error| cannot_create(path, &error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".vhdx-").suffix(".partial");
    if let Some(permissions) = permissions_of_new_files() {
        builder.permissions(permissions);
    }
    let file = builder.tempfile_in(folder).map_err(failed)?;
    if let Some(replaced) = replaced {
        file.as_file().set_permissions(replaced.permissions()).map_err(failed)?;
    }
    file.as_file().set_len(length).map_err(|error| {
        let text = format!("{}: cannot be a file of {}: {error}", path.display(), human(length));
        Failure::new(Exit::CannotCreate, text).with_hint("write it elsewhere, or only a --range of it")
    })?;
    match room_in(folder) {
        Some(room) if room < data => {
            let text = format!("{}: needs up to {}, and there are {} free", path.display(), human(data), human(room));
            Err(Failure::new(Exit::CannotCreate, text).with_hint("write it elsewhere, or only a --range of it"))
        }
        _ => Ok(Target::File { file, path: path.to_path_buf(), replace: replaced.is_some() }),
    }
}

fn device(path: &Path, length: u64, footer: bool) -> Result<Target, Failure> {
    let failed = |error: io::Error| cannot_create(path, &error);
    // Such a device can be opened for writing, and refuses the first write.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if fact_of_device(&metadata, "ro").is_some_and(|answer| answer == "1") {
        let failure = Failure::new(Exit::CannotCreate, format!("{}: is read-only", path.display()));
        return Err(failure.with_hint("name a device that can be written to"));
    }
    let mut file = open_device(path).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => Failure::new(Exit::CannotCreate, format!("{}: is in use", path.display()))
            .with_hint("a mounted device is not written to: unmount it first"),
        _ => failed(error),
    })?;
    let room = file.seek(SeekFrom::End(0)).map_err(failed)?;
    if room < length {
        let text = format!("{}: has room for {}, needs {}", path.display(), human(room), human(length));
        return Err(Failure::new(Exit::CannotCreate, text).with_hint("--range writes a part of the disk"));
    }
    if footer && room > length {
        return Err(footer_not_found(path, room, length));
    }
    file.rewind().map_err(failed)?;
    Ok(Target::InPlace { file, path: path.to_path_buf(), is_device: true })
}

/// A file that is there, as long as it has to be at least.
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
    let text = format!("{}: has {room} bytes, and the VHD {length}: its footer would not be found", path.display());
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

/// Opens a block device that nothing else uses: on Linux, that is what O_EXCL means for it.
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

/// The disk as bytes does no terminal good.
pub(crate) fn refuse_terminal(force: bool, hint: &str) -> Result<(), Failure> {
    if io::IsTerminal::is_terminal(&io::stdout()) && !force {
        return Err(Failure::usage("standard output is a terminal").with_hint(hint));
    }
    Ok(())
}

fn cannot_create(path: &Path, error: &io::Error) -> Failure {
    // tempfile adds the name of a file that nobody knows of.
    let text = error.to_string();
    let cause = text.split(" at path ").next().unwrap_or_default();
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "make its folder first",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "write it where you may",
        _ => "write it elsewhere, or with `-` to standard output",
    };
    Failure::new(Exit::CannotCreate, format!("{}: cannot be created: {cause}", path.display())).with_hint(hint)
}

fn require_force(path: &Path, force: bool, what: &str, hint: &str) -> Result<(), Failure> {
    if force {
        return Ok(());
    }
    Err(Failure::new(Exit::CannotCreate, format!("{}: {what}", path.display())).with_hint(hint))
}

/// Nothing of the chain is ever written to.
fn refuse_own_files(out: &Path, layers: &[Layer]) -> Result<(), Failure> {
    let target = FileId::of(out).map_err(|error| cannot_create(out, &error))?;
    refuse_layers(&target, layers, out.display())
}

fn refuse_layers(target: &FileId, layers: &[Layer], name: impl fmt::Display) -> Result<(), Failure> {
    if layers.iter().any(|layer| layer.image().source().id().as_ref() == Some(target)) {
        return Err(Failure::usage(format!("{name}: is the image itself, or one of its parents")));
    }
    Ok(())
}

/// The same for the file that a loop device shows.
fn refuse_own_backing_file(device: &Path, metadata: &Metadata, layers: &[Layer]) -> Result<(), Failure> {
    match fact_of_device(metadata, "loop/backing_file").map(FileId::of) {
        Some(Ok(target)) => refuse_layers(&target, layers, device.display()),
        // No loop device, or one whose file has no path any more.
        Some(Err(_)) | None => Ok(()),
    }
}

/// What the system says of a block device under this name.
#[cfg(target_os = "linux")]
fn fact_of_device(metadata: &Metadata, name: &str) -> Option<String> {
    let device = std::os::unix::fs::MetadataExt::rdev(metadata);
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let text = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/{name}")).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

#[cfg(not(target_os = "linux"))]
fn fact_of_device(_: &Metadata, _: &str) -> Option<String> {
    None
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
