//! `vhdx serve`: disks over NBD.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{
    Pid, Resource, Signal, WaitId, WaitIdOptions, getrlimit, kill_process, setrlimit, umask, waitid,
};
use tempfile::TempDir;
use vhdx_mmap::Disk;
use vhdx_serve::Export;
use vhdx_serve::nbd::{Exports, Limits, Listener, Server, Wire, serve_connection};

use crate::args::{Common, SalvageArgs, ServeArgs};
use crate::exit::{Exit, Failure};
use crate::names::names_of;
use crate::open;
use crate::serving::{Reasons, stop_on_signals};
use crate::term::{self, escape};

pub(crate) fn run(args: &ServeArgs, common: &Common) -> Result<Exit, Failure> {
    // Before files are opened: they must not get the numbers of sockets that are passed.
    let passed = passed_sockets()?;
    let names = names_of(&args.images)?;
    let (mut disks, mut list) = (Vec::new(), Vec::new());
    for (path, name) in args.images.iter().zip(&names) {
        let disk = Arc::new(open::salvaged(path, common, &SalvageArgs::only(args.salvage))?);
        let name = name.as_deref().filter(|_| names.len() > 1);
        list.extend(Export::of_disk(&disk, name).unwrap_or_else(|error| {
            let text = format!("{}: partitions are not served: {error:#}", path.display());
            term::message("warning", term::WARNING, &escape(&text));
            Export::without_partitions(&disk, name)
        }));
        disks.push(disk);
    }
    let exports = Exports::new(list, disks.len() == 1);
    let mut limits = Limits::default();
    limits.connections = usize::try_from(args.max_connections).unwrap_or(usize::MAX);
    let result = if args.stdio && passed.is_empty() {
        serve_stdio(&exports, &limits)
    } else {
        let layers = disks
            .iter()
            .fold(0_u64, |sum, disk| u64::try_from(disk.layers().len()).unwrap_or(u64::MAX).saturating_add(sum));
        allow_files(layers.saturating_add(args.max_connections.into()));
        serve_sockets(args, passed, exports, limits)
    };
    disks.iter().fold(result, |result, disk: &Arc<Disk>| open::fail_if_changed(disk.layers(), result))
}

/// The sockets that systemd, or a client by the same rules, has passed to this process.
fn passed_sockets() -> Result<Vec<Listener>, Failure> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        let unix = passed.take_unix_listener(index).ok().flatten().map(Listener::Unix);
        let listener = match unix {
            Some(unix) => Some(unix),
            None => passed.take_tcp_listener(index).ok().flatten().map(Listener::Tcp),
        };
        listeners.push(listener.ok_or_else(|| {
            Failure::usage("LISTEN_FDS: a file descriptor is no socket that listens (expected: Unix or TCP)")
        })?);
    }
    Ok(listeners)
}

/// Raises the number of files that this process may open, as far as that is allowed.
fn allow_files(wanted: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    // Standard streams, sockets and pipes; and the files that are opened for a moment.
    let wanted = wanted.saturating_add(64);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
        // With fewer files, further clients have to wait.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// One client on standard input and output.
struct Stdio {
    input: File,
    output: File,
}

impl Read for Stdio {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl Write for Stdio {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.output.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire for Stdio {
    /// The client has started this program: it may take its time.
    fn wait_at_most(&self, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }
}

fn serve_stdio(exports: &Exports, limits: &Limits) -> Result<Exit, Failure> {
    if io::stdin().is_terminal() || io::stdout().is_terminal() {
        let failure = Failure::usage("--stdio: standard input and output are a terminal (expected a client)");
        return Err(failure.with_hint("use the brackets of libnbd: nbdinfo -- [ vhdx serve --stdio disk.vhdx ]"));
    }
    let file = |stream: io::Result<std::os::fd::OwnedFd>| stream.map(File::from);
    let input = file(io::stdin().as_fd().try_clone_to_owned())?;
    let output = file(io::stdout().as_fd().try_clone_to_owned())?;
    match serve_connection(Stdio { input, output }, exports, limits, &Reasons::of("export ")) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Io, format!("standard input and output: {error}")))
        }
        _ => Ok(Exit::Done),
    }
}

/// Unix socket with a name, which is removed at the end.
struct SocketFile {
    path: PathBuf,
    /// Device and inode: a file that has taken the place of the socket stays.
    id: Option<(u64, u64)>,
    /// The folder of the socket, if it was made for it.
    _folder: Option<TempDir>,
}

impl SocketFile {
    fn id_of(path: &Path) -> Option<(u64, u64)> {
        std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
    }

    /// Creates a socket that only this user can connect to, at any time.
    fn create(path: Option<&Path>) -> Result<(Self, Listener), Failure> {
        let failed = |path: &Path, error: &io::Error| {
            Failure::new(Exit::CannotCreate, format!("{}: socket: {error}", path.display()))
        };
        let (path, folder) = match path {
            Some(path) => (path.to_path_buf(), None),
            None => {
                let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
                let above = runtime.unwrap_or_else(std::env::temp_dir);
                // Only this user can enter it.
                let mode = std::fs::Permissions::from_mode(0o700);
                let folder = tempfile::Builder::new().prefix("vhdx-").permissions(mode).tempdir_in(&above);
                let folder = folder.map_err(|error| failed(&above, &error))?;
                (folder.path().join("nbd.sock"), Some(folder))
            }
        };
        // The socket has its mode when it appears. No other thread makes files yet.
        let before = umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(&path);
        umask(before);
        let listener = bound.map_err(|error| {
            let failure = failed(&path, &error);
            if error.kind() == io::ErrorKind::AddrInUse {
                failure.with_hint("remove the file, if no server uses it, or choose another path")
            } else {
                failure
            }
        })?;
        let id = Self::id_of(&path);
        Ok((Self { path, id, _folder: folder }, Listener::Unix(listener)))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && Self::id_of(&self.path) == self.id {
            // What cannot be removed stays.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn listen_on_tcp(args: &ServeArgs, port: u16) -> Result<Listener, Failure> {
    let address = SocketAddr::new(args.bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port);
    if !address.ip().is_loopback() {
        let text = format!("{address}: who can reach this address can read the disk, and the data is not encrypted");
        term::message("warning", term::WARNING, &text);
    }
    let bound = TcpListener::bind(address);
    bound.map(Listener::Tcp).map_err(|error| Failure::new(Exit::CannotCreate, format!("{address}: {error}")))
}

fn serve_sockets(args: &ServeArgs, passed: Vec<Listener>, exports: Exports, limits: Limits) -> Result<Exit, Failure> {
    let system = |error: io::Error| Failure::new(Exit::Io, format!("server: {error}"));
    let stop = stop_on_signals().map_err(system)?;
    let was_passed = !passed.is_empty();
    let (mut listeners, mut socket) = (passed, None);
    if !was_passed {
        match args.port {
            Some(port) => listeners.push(listen_on_tcp(args, port)?),
            None => {
                let (file, listener) = SocketFile::create(args.socket.as_deref())?;
                listeners.push(listener);
                socket = Some(file);
            }
        }
    }
    let names = exports.iter().map(Export::name);
    let default = exports.has_default().then_some("");
    // The default export has a name, too, which need not be listed.
    let names: Vec<&str> = default.into_iter().chain(names.skip(usize::from(exports.has_default()))).collect();
    // Sockets that were passed may have no path, and only a program needs the URI.
    let first = listeners.first().zip(names.first()).filter(|_| !args.command.is_empty());
    let first = first.map(|(listener, name)| uri(listener, name)).transpose().map_err(system)?.unwrap_or_default();
    if args.command.is_empty() && !was_passed {
        let mut out = io::stdout().lock();
        for listener in &listeners {
            for name in &names {
                out.write_all(uri(listener, name).map_err(system)?.as_bytes())?;
                out.write_all(b"\n")?;
            }
        }
        out.flush()?;
    }
    drop(names);
    let server = Arc::new(Server::new(exports, limits, Reasons::of("export ")));
    let exit = if args.command.is_empty() {
        server.run(&listeners, stop).map(|()| Exit::Done).map_err(system)
    } else {
        run_with(&args.command, &first, &server, listeners, stop)
    };
    drop(socket);
    exit
}

/// The URI of an export.
fn uri(listener: &Listener, name: &str) -> io::Result<OsString> {
    let name = encoded(name.as_bytes());
    Ok(match listener {
        Listener::Tcp(listener) => format!("nbd://{}/{name}", listener.local_addr()?).into(),
        Listener::Unix(listener) => {
            let address = listener.local_addr()?;
            let path = address.as_pathname().ok_or_else(|| io::Error::other("the socket has no path for a URI"))?;
            let path = std::path::absolute(path)?;
            format!("nbd+unix:///{name}?socket={}", encoded(path.as_os_str().as_bytes())).into()
        }
    })
}

/// Bytes as a part of a URI (RFC 3986).
fn encoded(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

/// Replaces `$uri` in an argument.
fn with_uri(argument: &OsStr, uri: &OsStr) -> OsString {
    const WORD: &[u8] = b"$uri";

    let (mut made, mut rest) = (Vec::new(), argument.as_bytes());
    while let Some(at) = rest.windows(WORD.len()).position(|word| word == WORD) {
        let (before, after) = rest.split_at(at);
        made.extend_from_slice(before);
        made.extend_from_slice(uri.as_bytes());
        rest = after.get(WORD.len()..).unwrap_or_default();
    }
    made.extend_from_slice(rest);
    OsString::from_vec(made)
}

/// Runs a program while the server works, and returns its exit code. Signals are passed on to it.
fn run_with(
    command: &[OsString],
    uri: &OsStr,
    server: &Arc<Server<Reasons>>,
    listeners: Vec<Listener>,
    signal: UnixStream,
) -> Result<Exit, Failure> {
    let system = |error: io::Error| Failure::new(Exit::Io, format!("server: {error}"));
    let mut words = command.iter().map(|word| with_uri(word, uri));
    let program = words.next().unwrap_or_default();
    let (stop, end) = UnixStream::pair().map_err(system)?;
    let mut child = Command::new(&program)
        .args(words)
        .env("uri", uri)
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_PID")
        .spawn()
        .map_err(|error| Failure::new(Exit::NoInput, format!("{}: {error}", program.display())))?;
    let server = Arc::clone(server);
    let work = std::thread::spawn(move || server.run(&listeners, stop));
    // The number of the program may be used again once its end was taken note of; so nothing is sent after that.
    let running = Arc::new(Mutex::new(Some(Pid::from_child(&child))));
    let to_signal = Arc::clone(&running);
    std::thread::spawn(move || {
        let mut signals = signal;
        while matches!(signals.read(&mut [0]), Ok(1)) {
            if let Some(pid) = *to_signal.lock().unwrap_or_else(PoisonError::into_inner) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    });
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(error) = waitid(WaitId::Pid(Pid::from_child(&child)), options) {
        if error != rustix::io::Errno::INTR {
            break;
        }
    }
    *running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    let status = child.wait().map_err(system)?;
    drop(end);
    let ended = work.join().map_err(|_| Failure::new(Exit::Io, "server: a thread has failed"))?;
    ended.map_err(system)?;
    // As a shell says it.
    let code = status.code().unwrap_or_else(|| status.signal().unwrap_or(0).saturating_add(128));
    Ok(Exit::OfProgram(u8::try_from(code).unwrap_or(u8::MAX)))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::{encoded, with_uri};

    #[test]
    fn uri_replaces_its_word_everywhere() {
        let with = |argument: &str| with_uri(OsStr::new(argument), OsStr::new("nbd://x/"));
        assert_eq!(with("a"), "a");
        assert_eq!(with("$uri"), "nbd://x/");
        assert_eq!(with("nbd:$uri,$uri;"), "nbd:nbd://x/,nbd://x/;");
    }

    #[test]
    fn special_characters_are_encoded() {
        assert_eq!(encoded("/tmp/a b&c%/ü".as_bytes()), "/tmp/a%20b%26c%25/%C3%BC");
    }
}
