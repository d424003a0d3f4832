//! What is asked of the system: to mount and to unmount.

use std::ffi::{CString, OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{getgid, getuid};

use super::Options;
use crate::mount::{self, Mounted};

/// Type of the mounts in the table of mounts.
const TYPE: &str = "fuse.vhdx";

/// Programs that mount and unmount for users other than root.
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];

/// Environment variable with the number of the socket on which a helper sends the device.
const SOCKET: &str = "_FUSE_COMMFD";

/// Read-ahead that root can set, in KiB.
const READ_AHEAD: &str = "1024";

/// Mounts a device that this process answers, and returns it.
pub(super) fn mount(directory: &Path, options: &Options) -> io::Result<OwnedFd> {
    if !directory.is_dir() {
        return Err(Errno::NOTDIR.into());
    }
    let mounted = mount_as_root(directory, options);
    match mounted {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => mount_as_user(directory, options),
        mounted => mounted,
    }
}

fn mount_as_root(directory: &Path, options: &Options) -> io::Result<OwnedFd> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let other = if options.allow_other { ",allow_other" } else { "" };
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let number = device.as_raw_fd();
    let data = format!("fd={number},rootmode=40555,user_id={user},group_id={group},default_permissions{other}");
    let data = CString::new(data)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount(&*options.source, directory, TYPE, flags, &*data)?;
    Ok(device.into())
}

fn mount_as_user(directory: &Path, options: &Options) -> io::Result<OwnedFd> {
    let (ours, socket) = UnixStream::pair()?;
    // The helper gets this one.
    fcntl_setfd(&socket, FdFlags::empty())?;
    let mut list = OsString::from("ro,nosuid,nodev,default_permissions,subtype=vhdx,");
    if options.allow_other {
        list.push("allow_other,");
    }
    list.push("fsname=");
    list.push(escaped(&options.source));
    let helper = run_helper(&[OsStr::new("-o"), &list, OsStr::new("--"), directory.as_os_str()], |command| {
        command.env(SOCKET, socket.as_raw_fd().to_string());
    })?;
    drop(socket);
    let received = receive(&ours);
    let ran = helper.wait_with_output()?;
    if ran.status.success() { received } else { Err(io::Error::other(said(&ran.stderr))) }
}

/// Escapes what separates options.
fn escaped(text: &OsStr) -> OsString {
    let escape = |byte: &u8| if b",\\".contains(byte) { vec![b'\\', *byte] } else { vec![*byte] };
    OsString::from_vec(text.as_bytes().iter().flat_map(escape).collect())
}

fn run_helper(args: &[&OsStr], set: impl Fn(&mut Command)) -> io::Result<std::process::Child> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for name in HELPERS {
        let mut command = Command::new(name);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        set(&mut command);
        result = command.spawn();
        if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    result.map_err(|error| io::Error::new(error.kind(), format!("fusermount3: {error}")))
}

fn said(errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(errors);
    if text.trim().is_empty() { "fusermount3 has failed".to_owned() } else { text.trim().to_owned() }
}

fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    while let Err(error) = recvmsg(socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC) {
        if error != Errno::INTR {
            return Err(error.into());
        }
    }
    let mut messages = control.drain();
    let device = messages.find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    device.ok_or_else(|| io::Error::other("fusermount3 has sent no device"))
}

/// Returns the mount that is seen at a path.
fn mounted_at(directory: &Path) -> io::Result<Option<Mounted>> {
    // The last one covers the others.
    Ok(mount::list()?.into_iter().rfind(|mounted| mounted.directory == directory))
}

/// Returns the device number of the mount at a path, as in `0:57`.
pub(super) fn device_of(directory: &Path) -> io::Result<Option<String>> {
    Ok(mounted_at(directory)?.map(|mounted| mounted.device))
}

/// Lets the kernel read further ahead than its default of 128 KiB. Only root can.
pub(super) fn read_far_ahead(device: &str) {
    // Without it, reads are slower.
    let _ = std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), READ_AHEAD);
}

/// Returns the absolute path of a directory, also if the process that serves it has ended: then nothing can be asked of
/// the directory itself.
fn absolute(directory: &Path) -> io::Result<PathBuf> {
    directory.canonicalize().or_else(|error| match (directory.parent(), directory.file_name()) {
        (Some(parent), Some(name)) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        _ => Err(error),
    })
}

/// Returns whether a tree is mounted on a directory by [`Mount`](super::Mount), of this or any other process. It may
/// have ended.
///
/// # Errors
/// Fails if the directory or the table of mounts cannot be read.
pub fn is_mounted(directory: &Path) -> io::Result<bool> {
    Ok(mounted_at(&absolute(directory)?)?.is_some_and(|mounted| mounted.kind == TYPE))
}

/// Unmounts a tree. The process that serves it ends then.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] if programs use files in it; otherwise the errors of umount(2), or for users other
/// than root, what `fusermount3` says.
pub fn unmount(directory: &Path) -> io::Result<()> {
    unmount_with(&absolute(directory)?, UnmountFlags::NOFOLLOW, &["-u"])
}

/// Unmounts a tree. Files that programs have open can be read until the process that serves them ends.
pub(super) fn detach(directory: &Path) -> io::Result<()> {
    unmount_with(directory, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH, &["-u", "-z"])
}

fn unmount_with(directory: &Path, flags: UnmountFlags, options: &[&str]) -> io::Result<()> {
    match rustix::mount::unmount(directory, flags) {
        Err(Errno::PERM) => {}
        result => return Ok(result?),
    }
    let mut args: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
    args.extend([OsStr::new("--"), directory.as_os_str()]);
    let helper = run_helper(&args, |command| {
        // Its messages are compared.
        command.env("LC_ALL", "C");
    })?;
    let ran = helper.wait_with_output()?;
    if ran.status.success() {
        return Ok(());
    }
    let text = said(&ran.stderr);
    let kind = if text.contains("busy") { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other };
    Err(io::Error::new(kind, text))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::escaped;

    #[test]
    fn sources_cannot_add_options() {
        assert_eq!(escaped(OsStr::new("a,rw\\b")), "a\\,rw\\\\b");
    }
}
