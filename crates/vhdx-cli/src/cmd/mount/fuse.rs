//! Mounts by FUSE: a process of this program serves the files.
//!
//! Unless it stays in the foreground, it is started anew: with a pipe as its standard output, on which it reports that
//! the files can be read. Until then its messages and its exit code are those of the command.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vhdx_serve::fuse::{Mount, Options};

use crate::args::{Common, MountArgs};
use crate::exit::{Exit, Failure};
use crate::serving::{Reasons, stop_on_signals};
use crate::term::{self, escape};

use super::Opened;
use super::lines::volume_of;

/// Environment variable of the process that is started to serve the files.
const IS_SERVER: &str = "VHDX_MOUNT_SERVER";

/// What it writes when the files can be read.
const READY: &[u8] = b"ready\n";

/// Whether this process was started by `mount` to serve the files with FUSE.
pub(super) fn is_server() -> bool {
    std::env::var_os(IS_SERVER).is_some()
}

/// Mounts the images on a directory.
pub(super) fn run(paths: &[PathBuf], directory: &Path, args: &MountArgs, common: &Common) -> Result<Exit, Failure> {
    if !args.foreground && !is_server() {
        return start();
    }
    let stop = stop_on_signals().map_err(|error| Failure::new(Exit::Io, format!("signal handler: {error}")))?;
    let opened = Opened::new(paths, args, common)?;
    let volume = volume_of(&opened, args.partition)?;
    let mount = Mount::new(opened.tree()?, directory, &options(paths, args), Reasons::of(""));
    let mount = mount.map_err(|error| failed(directory, &error))?;
    // The kernel reads the files as root.
    if let Some(volume) = volume.filter(|_| args.allow_other || rustix::process::getuid().is_root()) {
        term::message("hint", term::HINT, &escape(&volume.line(directory, Path::new("/mnt"))));
    }
    if !args.foreground {
        leave_terminal().map_err(|error| Failure::new(Exit::Io, format!("server: {error}")))?;
    }
    let result = mount.run(stop).map(|()| Exit::Done).map_err(|error| failed(directory, &error));
    opened.fail_if_changed(result)
}

fn options(paths: &[PathBuf], args: &MountArgs) -> Options {
    let mut options = Options::default();
    let source = paths.first().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    options.source = source.map_or_else(OsString::new, PathBuf::into_os_string);
    options.allow_other = args.allow_other;
    options.is_direct = args.direct;
    options.threads = args.threads.and_then(|threads| NonZeroUsize::new(threads.into())).unwrap_or(options.threads);
    options
}

fn failed(directory: &Path, error: &io::Error) -> Failure {
    let text = error.to_string();
    let hint = if text.contains("user_allow_other") {
        Some("leave out --allow-other, or let the administrator write user_allow_other into /etc/fuse.conf")
    } else if text.contains("/dev/fuse") {
        Some("the kernel needs FUSE: `modprobe fuse` as root")
    } else if error.kind() == io::ErrorKind::NotFound {
        Some("install fuse3, or run it as root")
    } else {
        None
    };
    let failure = Failure::new(Exit::Io, format!("{}: {text}", directory.display()));
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// Starts the process that serves the files, and waits until they can be read.
fn start() -> Result<Exit, Failure> {
    let system = |error: io::Error| Failure::new(Exit::Io, format!("server: {error}"));
    let mut words = std::env::args_os();
    // The program itself, also if its file has been replaced.
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    // What else this process was given, such as a lock or the pipe of a script, is not for a server that stays.
    close_fds::set_fds_cloexec(3, &[]);
    command.args(words).env(IS_SERVER, "1").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = command.spawn().map_err(system)?;
    let mut said = Vec::new();
    if let Some(out) = &mut server.stdout {
        out.read_to_end(&mut said).map_err(system)?;
    }
    if said == READY {
        return Ok(Exit::Done);
    }
    let status = server.wait().map_err(system)?;
    match (status.code(), status.signal()) {
        // It has printed why.
        (Some(code), _) if code != 0 => Ok(Exit::OfProgram(u8::try_from(code).unwrap_or(u8::MAX))),
        (_, Some(signal)) => Err(Failure::new(Exit::Io, format!("server: ended by signal {signal}"))),
        _ => Err(Failure::new(Exit::Io, "server: ended before the files could be read")),
    }
}

/// Lets go of what belongs to the command that has started this process, and reports that the files can be read.
/// Messages go to the system's log from now on; also to standard error, if that is a file.
fn leave_terminal() -> io::Result<()> {
    rustix::process::setsid()?;
    std::env::set_current_dir("/")?;
    term::log_to_system();
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let errors = rustix::fs::fstat(io::stderr())?;
    if !rustix::fs::FileType::from_raw_mode(errors.st_mode).is_file() {
        rustix::stdio::dup2_stderr(&null)?;
    }
    let mut out = io::stdout().lock();
    out.write_all(READY)?;
    out.flush()?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}
