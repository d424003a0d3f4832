//! Mounts by the kernel: EROFS metadata in a file that has no name any more, whose files point into the images.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::{NamedTempFile, TempDir};
use vhdx_serve::erofs::{self, Metadata, Options};
use vhdx_serve::mount::{self, Detached};

use crate::args::{Common, MountArgs};
use crate::exit::{Exit, Failure};
use crate::shell::shell_word;
use crate::target::{Consent, Destination};
use crate::term::{self, escape};

use super::Opened;
use super::lines::{Volume, device_lines, how_to_choose, volume_of};

/// Folders for metadata, which must be on a drive: the kernel takes none from tmpfs.
fn folders() -> impl Iterator<Item = PathBuf> {
    std::env::var_os("TMPDIR").into_iter().map(PathBuf::from).chain([PathBuf::from("/var/tmp")])
}

/// The folder for metadata. Fails if the kernel cannot mount, or not safely.
pub(super) fn check() -> Result<PathBuf, Failure> {
    let mut last = None;
    for folder in folders() {
        match mount::can_mount_erofs(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| Failure::new(Exit::Unsupported, "mount: no folder for metadata"), |error| failed(&error)))
}

fn failed(error: &mount::Error) -> Failure {
    let exit = match error {
        mount::Error::Unsupported(_) | mount::Error::ShortReads | mount::Error::NotAFile(_) => Exit::Unsupported,
        _ => Exit::Io,
    };
    let failure = Failure::new(exit, error.to_string());
    match error {
        mount::Error::NotPermitted => failure.with_hint("run it as root, or leave out --kernel and --loop"),
        mount::Error::Changed(_) => failure.with_hint("stop the program that writes to the image, and try again"),
        mount::Error::Unsupported(_) => failure.with_hint(
            "the kernel takes metadata from drives only, not from tmpfs: TMPDIR names a folder; --fuse needs neither",
        ),
        _ => failure,
    }
}

fn options(args: &MountArgs) -> Options {
    let mut options = Options::default();
    options.allow_other = args.allow_other;
    options
}

fn of_metadata(error: &erofs::Error) -> Failure {
    match error {
        erofs::Error::Image { error: cause, .. } => Failure::new(Exit::from(cause.category()), error.to_string())
            .with_hint("--salvage mounts the rest: reads of lost ranges fail"),
        erofs::Error::Write(_) => Failure::new(Exit::CannotCreate, error.to_string()),
        _ => Failure::new(Exit::Unsupported, error.to_string()).with_hint("--fuse needs no metadata"),
    }
}

/// Writes the metadata, and names the partitions that it leaves out.
fn write_metadata(opened: &Opened, file: &File, options: &Options) -> Result<Metadata, Failure> {
    let written = erofs::write(&opened.tree()?, file, options).map_err(|error| of_metadata(&error))?;
    for path in &written.left_out {
        let text = format!("{path}: left out, since most of it had to be copied; it is a part of disk.raw");
        term::message("note", term::HINT, &escape(&text));
    }
    Ok(written)
}

/// Mounts the images on a directory.
pub(super) fn run(
    opened: &Opened,
    paths: &[PathBuf],
    directory: &Path,
    folder: &Path,
    (args, common): (&MountArgs, &Common),
) -> Result<Exit, Failure> {
    let volume = volume_of(opened, args.partition)?;
    if args.loop_ && volume.is_none() {
        let text = match args.partition {
            Some(number) => format!("--loop: partition {number} has no file system that can be mounted"),
            None => "--loop: the disk does not have a single file system that can be mounted".to_owned(),
        };
        return Err(Failure::usage(text).with_hint(how_to_choose(paths)));
    }
    let cannot_create = |error: io::Error| {
        let text = format!("{}: EROFS metadata: {error}", folder.display());
        Failure::new(Exit::CannotCreate, text).with_hint("TMPDIR names another folder for it")
    };
    // The kernel keeps the file when its name is removed.
    let metadata = tempfile::Builder::new().prefix("vhdx-").suffix(".erofs").tempfile_in(folder);
    let metadata: NamedTempFile = metadata.map_err(cannot_create)?;
    let written = write_metadata(opened, metadata.as_file(), &options(args))?;
    let mounted = Detached::erofs(metadata.path(), &written.devices).map_err(|error| failed(&error))?;
    match volume.map(|volume| volume.without(&written.left_out)) {
        Some(volume) if args.loop_ => mount_volume(mounted, &volume, directory),
        volume => {
            mounted.attach(directory).map_err(|error| failed(&error))?;
            if let Some(volume) = volume.filter(|_| !common.quiet) {
                term::message("hint", term::HINT, &escape(&volume.line(directory, Path::new("/mnt"))));
            }
            Ok(Exit::Done)
        }
    }
}

/// A mount in a folder of its own, for a moment.
struct Private {
    folder: TempDir,
}

impl Private {
    fn new(mounted: Detached) -> Result<Self, Failure> {
        let above = Some(PathBuf::from("/run")).filter(|path| path.is_dir()).unwrap_or_else(std::env::temp_dir);
        let folder = tempfile::Builder::new().prefix("vhdx-").tempdir_in(&above);
        let folder =
            folder.map_err(|error| Failure::new(Exit::CannotCreate, format!("{}: {error}", above.display())))?;
        mounted.attach(folder.path()).map_err(|error| failed(&error))?;
        Ok(Self { folder })
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // What is mounted from it keeps the file system, until that is unmounted.
        let _ = mount::unmount_directory(self.folder.path(), true);
    }
}

/// Mounts a file system of the disk: nothing else stays, and unmounting it ends everything.
fn mount_volume(mounted: Detached, volume: &Volume, directory: &Path) -> Result<Exit, Failure> {
    let private = Private::new(mounted)?;
    let mut words = volume.command(private.folder.path(), directory).into_iter();
    let program = words.next().unwrap_or_default();
    let ran = Command::new(&program).args(words).output();
    let ran = ran.map_err(|error| Failure::new(Exit::NoInput, format!("{}: {error}", program.display())))?;
    if ran.status.success() {
        return Ok(Exit::Done);
    }
    let text = String::from_utf8_lossy(&ran.stderr);
    let text = text.trim().replace('\n', "; ");
    Err(Failure::new(Exit::Io, escape(&format!("{}: {}: {text}", directory.display(), program.display())).to_string()))
}

/// Writes the metadata to a new file, and prints the commands that mount it.
pub(super) fn write(path: &Path, opened: &Opened, args: &MountArgs) -> Result<Exit, Failure> {
    let consent = Consent { force: false, in_place: false };
    let destination = Destination::new(path, &[], consent)?;
    if !destination.is_file() {
        return Err(Failure::usage(format!("--write-erofs {}: not a regular file", path.display())));
    }
    let target = destination.open(0, 0, false)?;
    let mut options = options(args);
    options.for_loop_devices = true;
    let written = opened.fail_if_changed(write_metadata(opened, target.file(), &options))?;
    target.complete(true)?;
    let mut out = io::stdout().lock();
    for line in device_lines(&written.devices, &shell_word(path))? {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    Ok(Exit::Done)
}
