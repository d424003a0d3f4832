//! `vhdx umount`.

use std::io;
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;
use vhdx_serve::mount;

use crate::args::UmountArgs;
use crate::exit::{Exit, Failure};

pub(crate) fn umount(args: &UmountArgs) -> Result<Exit, Failure> {
    let name = args.directory.display();
    let cannot_open = |error: io::Error| Failure::new(Exit::NoInput, format!("{name}: {error}"));
    let directory = std::fs::canonicalize(&args.directory).or_else(|error| match Errno::from_io_error(&error) {
        // The program that served it has ended.
        Some(Errno::NOTCONN) => std::path::absolute(&args.directory),
        _ => Err(error),
    });
    let directory = directory.map_err(cannot_open)?;
    let list = mount::list().map_err(|error| Failure::new(Exit::Io, format!("mounts: {error}")))?;
    let Some(found) = list.iter().rev().find(|mounted| mounted.directory == directory) else {
        return Err(Failure::usage(format!("{name}: nothing is mounted here")));
    };
    let is_loop = found.source.to_string_lossy().starts_with("/dev/loop");
    if found.kind != "erofs" && found.kind != "fuse.vhdx" && !is_loop {
        let text = format!("{name}: not mounted by vhdx (found {})", found.kind);
        return Err(Failure::usage(text).with_hint("`umount` unmounts any file system"));
    }
    let from_it =
        mount::mounted_from(&directory).map_err(|error| Failure::new(Exit::Io, format!("mounts: {error}")))?;
    for mounted in from_it {
        unmount_one(&mounted, args.lazy)?;
    }
    unmount_one(&directory, args.lazy)?;
    Ok(Exit::Done)
}

fn unmount_one(directory: &Path, lazily: bool) -> Result<(), Failure> {
    let error = match mount::unmount_directory(directory, lazily) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    if Errno::from_io_error(&error) == Some(Errno::PERM) {
        // Users can unmount what they have mounted with FUSE.
        let mut command = Command::new("fusermount3");
        command.arg("-u").args(lazily.then_some("-z")).arg("--").arg(directory);
        if command.output().is_ok_and(|ran| ran.status.success()) {
            return Ok(());
        }
    }
    let failure = Failure::new(Exit::Io, format!("{}: {error}", directory.display()));
    Err(match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => failure.with_hint("end the programs that use its files, or pass --lazy"),
        Some(Errno::PERM) => failure.with_hint("run it as root"),
        _ => failure,
    })
}
