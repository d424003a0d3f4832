//! Mounts by the Linux kernel: EROFS whose metadata and images are files, and the end of mounts.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use vhdx_mmap::Source;

use crate::erofs;

/// Why the kernel has not mounted.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// The user must be root (`CAP_SYS_ADMIN`).
    NotPermitted,
    /// The kernel cannot mount EROFS from files (Linux 6.12 and later can).
    Unsupported(io::Error),
    /// The kernel would return zeros for bytes that a file has lost.
    ShortReads,
    /// An image is not a regular file. The name is that of the image.
    NotAFile(String),
    /// An image was changed since it was opened. The name is that of the image.
    Changed(String),
    /// The kernel has refused. `log` is what it says about that; it may be empty.
    Refused {
        /// What it was asked for.
        what: &'static str,
        /// Its error.
        error: io::Error,
        /// Its messages.
        log: String,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotPermitted => to.write_str("mount: not permitted (expected root)"),
            Self::Unsupported(error) => {
                write!(to, "mount: this kernel cannot mount EROFS from files (expected Linux 6.12 or later): {error}")
            }
            Self::ShortReads => {
                to.write_str("mount: EROFS of this kernel reads zeros where a file is too short (expected an error)")
            }
            Self::NotAFile(name) => write!(to, "{name}: not a regular file, which EROFS needs"),
            Self::Changed(name) => write!(to, "{name}: changed since it was opened"),
            Self::Refused { what, error, log } if log.is_empty() => write!(to, "{what}: {error}"),
            Self::Refused { what, error, log } => write!(to, "{what}: {error}: {log}"),
        }
    }
}

impl std::error::Error for Error {}

/// A mounted file system that has no place in the tree of files yet. It ends when it is dropped.
#[derive(Debug)]
pub struct Detached(OwnedFd);

impl Detached {
    /// Mounts EROFS metadata and its devices, read-only. `metadata` is on a drive: the kernel takes none from tmpfs.
    ///
    /// The images are compared with their state when they were opened, before and after the kernel opens them. The
    /// kernel opens the files that the sources have open, whatever their paths mean now.
    ///
    /// # Errors
    /// Fails if an image has changed, and if the kernel refuses.
    pub fn erofs(metadata: &Path, devices: &[erofs::Device]) -> Result<Self, Error> {
        let mut paths = Vec::new();
        for device in devices {
            paths.push(path_of_open(&device.source)?);
        }
        fail_if_changed(devices)?;
        let mounted = Self::files(metadata, &paths)?;
        fail_if_changed(devices)?;
        Ok(mounted)
    }

    fn files(metadata: &Path, devices: &[PathBuf]) -> Result<Self, Error> {
        let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| match error {
            Errno::PERM => Error::NotPermitted,
            error => Error::Unsupported(error.into()),
        })?;
        let refused =
            |error: Errno| Error::Refused { what: "mount EROFS", error: error.into(), log: messages(&context) };
        fsconfig_set_string(context.as_fd(), "source", metadata).map_err(refused)?;
        for device in devices {
            fsconfig_set_string(context.as_fd(), "device", device.as_path()).map_err(refused)?;
        }
        // Without this option, content is in the page cache twice: as that of the image, too. Older kernels lack it.
        let _ = fsconfig_set_flag(context.as_fd(), "directio");
        let before = read_ahead_files();
        fsconfig_create(context.as_fd()).map_err(|error| match error {
            // A kernel that takes block devices only.
            Errno::NOTBLK => Error::Unsupported(error.into()),
            error => refused(error),
        })?;
        for file in read_ahead_files().iter().filter(|file| !before.contains(file)) {
            // With less, reads are slower, and nothing else.
            let _ = std::fs::write(file, read_ahead(devices).to_string());
        }
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map(Self).map_err(refused)
    }

    /// Gives the file system its place: a directory.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub fn attach(self, directory: &Path) -> Result<(), Error> {
        move_mount(self.0.as_fd(), "", CWD, directory, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|error| Error::Refused { what: "mount", error: error.into(), log: String::new() })
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// Fails if there is no such file.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let opened = rustix::fs::openat(self.0.as_fd(), path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        Ok(File::from(opened?))
    }
}

/// Least read-ahead of a mount, in KiB: its pages are filled directly, so that nothing below it reads ahead.
const READ_AHEAD_KIB: u64 = 2048;

/// Returns the read-ahead that a mount of files gets, in KiB: that of their drive, if it is more than the least.
fn read_ahead(files: &[PathBuf]) -> u64 {
    let of_drive = files.iter().filter_map(|file| {
        let device = std::fs::metadata(file).ok()?.dev();
        let name = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let text = std::fs::read_to_string(Path::new("/sys/class/bdi").join(name).join("read_ahead_kb")).ok()?;
        text.trim().parse().ok()
    });
    of_drive.fold(READ_AHEAD_KIB, u64::max)
}

/// Returns the files with the read-ahead of each mounted EROFS.
fn read_ahead_files() -> Vec<PathBuf> {
    let all = std::fs::read_dir("/sys/class/bdi").into_iter().flatten().flatten();
    let of_erofs = all.filter(|entry| entry.file_name().as_bytes().starts_with(b"erofs-"));
    of_erofs.map(|entry| entry.path().join("read_ahead_kb")).collect()
}

/// Returns the path of a file by which others can open what a source has open.
fn path_of_open(source: &Source) -> Result<PathBuf, Error> {
    let name = || source.path().map_or_else(|| "image".to_owned(), |path| path.display().to_string());
    let file = source.file().ok_or_else(|| Error::NotAFile(name()))?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(Error::NotAFile(name()));
    }
    Ok(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))
}

fn fail_if_changed(devices: &[erofs::Device]) -> Result<(), Error> {
    for device in devices {
        let name = || device.source.path().map_or_else(|| "image".to_owned(), |path| path.display().to_string());
        match device.source.has_changed() {
            Ok(false) => {}
            Ok(true) => return Err(Error::Changed(name())),
            Err(error) => {
                let error = io::Error::other(format!("{}: {error}", name()));
                return Err(Error::Refused { what: "mount", error, log: String::new() });
            }
        }
    }
    Ok(())
}

/// Returns the kernel's messages about a mount that failed.
fn messages(context: &OwnedFd) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read) = rustix::io::read(context, &mut buffer)
        && read > 0
    {
        if !text.is_empty() {
            text.extend_from_slice(b"; ");
        }
        text.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// Checks that this process can mount EROFS from files, and that the kernel does not make zeros of bytes that a file
/// has lost. `folder` is where metadata will be; the files that this needs are removed.
///
/// # Errors
/// Fails if it cannot.
pub fn can_mount_erofs(folder: &Path) -> Result<(), Error> {
    const NAME: &str = "probe";

    let made = |error: io::Error| Error::Refused { what: "mount EROFS", error, log: String::new() };
    let file = || tempfile::Builder::new().prefix("vhdx-probe-").tempfile_in(folder);
    let (metadata, device) = (file().map_err(made)?, file().map_err(made)?);
    // One block of the two that the file has.
    device.as_file().set_len(4096).map_err(made)?;
    for (bytes, at) in erofs::probe(NAME) {
        metadata.as_file().write_all_at(&bytes, at).map_err(made)?;
    }
    metadata.as_file().set_len(2 * 4096).map_err(made)?;
    let mounted = Detached::files(metadata.path(), &[device.path().to_path_buf()])?;
    let mut file = mounted.open(Path::new(NAME)).map_err(made)?;
    let mut content = [1; 2 * 4096];
    let (first, second) = content.split_at_mut(4096);
    file.read_exact(first).map_err(made)?;
    match file.read_exact(second) {
        Ok(()) => Err(Error::ShortReads),
        Err(_) if first.iter().all(|byte| *byte == 0) => Ok(()),
        Err(_) => Err(Error::ShortReads),
    }
}

/// A mounted file system, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Directory.
    pub directory: PathBuf,
    /// Number of its device, as in `0:57`: of two mounts of one directory, it differs.
    pub device: String,
    /// Type of the file system.
    pub kind: String,
    /// What is mounted.
    pub source: PathBuf,
}

/// Returns the mounted file systems, in the order in which they were mounted.
///
/// # Errors
/// Fails if the list cannot be read.
pub fn list() -> io::Result<Vec<Mounted>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Reads `/proc/self/mountinfo` (proc(5)).
fn parse(text: &[u8]) -> Vec<Mounted> {
    let lines = text.split(|byte| *byte == b'\n');
    let mounted = lines.filter_map(|line| {
        let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
        let mut fields = line.split(|byte| *byte == b' ');
        let device = text(fields.nth(2)?);
        let directory = unescaped(fields.nth(1)?);
        let mut after = fields.skip_while(|field| *field != b"-").skip(1);
        let kind = text(after.next()?);
        Some(Mounted { directory, device, kind, source: unescaped(after.next()?) })
    });
    mounted.collect()
}

/// Returns a path of the list, in which some characters are `\` and three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), field);
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Returns the directories of file systems that are mounted from a file below a directory by loop devices, the last one
/// first.
///
/// # Errors
/// Fails if the lists of the kernel cannot be read.
pub fn mounted_from(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mounted = list()?;
    let is_from = |mounted: &&Mounted| {
        let name = mounted.source.strip_prefix("/dev").unwrap_or(Path::new("-"));
        let file = std::fs::read(Path::new("/sys/block").join(name).join("loop/backing_file"));
        file.is_ok_and(|file| Path::new(std::ffi::OsStr::from_bytes(file.trim_ascii_end())).starts_with(directory))
    };
    Ok(mounted.iter().rev().filter(is_from).map(|mounted| mounted.directory.clone()).collect())
}

/// Unmounts a directory. With `lazily`, what is in use ends when it is not used any more.
///
/// # Errors
/// Fails if the kernel refuses: `EBUSY` if files are in use.
pub fn unmount_directory(directory: &Path, lazily: bool) -> io::Result<()> {
    let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    Ok(unmount(directory, flags | UnmountFlags::NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Mounted, parse, unescaped};

    #[test]
    fn list_has_paths_with_spaces() {
        let text = b"36 35 98:0 /mnt1 /mnt/my\\040disk rw,noatime master:1 - ext4 /dev/root\\134x rw\n\
            37 35 0:5 / /proc rw - proc proc rw\nno line\n";
        let found = parse(text);
        let first = Mounted {
            directory: Path::new("/mnt/my disk").into(),
            device: "98:0".to_owned(),
            kind: "ext4".to_owned(),
            source: Path::new("/dev/root\\x").into(),
        };
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], first);
        assert_eq!(found[1].directory, Path::new("/proc"));
        assert_eq!(unescaped(br"\999\012"), Path::new("\\999\n"));
    }
}
