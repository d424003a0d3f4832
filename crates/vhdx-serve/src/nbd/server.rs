//! Sockets: a thread for each client.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::{Exports, Limits, Observer, Wire, serve_connection};

/// Size of the stack of a thread: what the work takes, with room.
const STACK: usize = 512 << 10;

/// Time to wait if the system has no file descriptors or threads left.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket on which clients connect.
#[derive(Debug)]
pub enum Listener {
    /// A Unix socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Socket> {
        let socket = match self {
            Self::Unix(listener) => Socket::Unix(listener.accept()?.0),
            Self::Tcp(listener) => Socket::Tcp(listener.accept()?.0),
        };
        match &socket {
            Socket::Unix(stream) => stream.set_nonblocking(false)?,
            Socket::Tcp(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
            }
        }
        Ok(socket)
    }

    /// Lets `accept` fail where it would wait: a client may vanish between `poll` and `accept`.
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Unix(listener) => listener.set_nonblocking(true),
            Self::Tcp(listener) => listener.set_nonblocking(true),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// The connection to a client.
#[derive(Debug)]
pub enum Socket {
    /// A Unix socket.
    Unix(UnixStream),
    /// A TCP socket.
    Tcp(TcpStream),
}

impl Socket {
    fn shut_down(&self) {
        // It may be shut down already.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => (&mut &*stream).read(buffer),
            Socket::Tcp(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => (&mut &*stream).write_vectored(slices),
            Socket::Tcp(stream) => (&mut &*stream).write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire for &Socket {
    fn wait_at_most(&self, time: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => stream.set_read_timeout(time).and_then(|()| stream.set_write_timeout(time)),
            Socket::Tcp(stream) => stream.set_read_timeout(time).and_then(|()| stream.set_write_timeout(time)),
        }
    }
}

/// Server of exports: a thread for each connection, up to a limit.
pub struct Server<O: Observer + Send + 'static> {
    exports: Exports,
    limits: Limits,
    observer: O,
    /// The connections by number, and the next number.
    clients: Mutex<(BTreeMap<u64, Arc<Socket>>, u64)>,
}

impl<O: Observer + Send> std::fmt::Debug for Server<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("exports", &self.exports).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<O: Observer + Send> Server<O> {
    /// Makes a server.
    pub fn new(exports: Exports, limits: Limits, observer: O) -> Self {
        Self { exports, limits, observer, clients: Mutex::default() }
    }

    /// Returns the exports.
    pub fn exports(&self) -> &Exports {
        &self.exports
    }

    /// Returns the number of connections.
    pub fn connections(&self) -> usize {
        self.lock().0.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (BTreeMap<u64, Arc<Socket>>, u64)> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts clients on all listeners until `stop` can be read, or is closed at its other end; then all connections
    /// are shut down. Failures of single clients end their connections only.
    ///
    /// # Errors
    /// Fails if the system cannot wait for clients.
    pub fn run(self: &Arc<Self>, listeners: &[Listener], stop: impl AsFd) -> io::Result<()> {
        listeners.iter().try_for_each(Listener::set_nonblocking)?;
        let result = loop {
            let wait = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
            let mut polled: Vec<PollFd<'_>> = std::iter::once(wait(stop.as_fd()))
                .chain(listeners.iter().map(|listener| wait(listener.as_fd())))
                .collect();
            match poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => break Err(error.into()),
                Ok(_) => {}
            }
            let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
            if ready.next() == Some(true) {
                break Ok(());
            }
            for (listener, _) in listeners.iter().zip(ready).filter(|(_, is_ready)| *is_ready) {
                match listener.accept() {
                    Ok(socket) => self.start(socket),
                    // The client has vanished again.
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                        ) => {}
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
        };
        self.lock().0.values().for_each(|client| client.shut_down());
        result
    }

    /// Serves a client on a thread of its own. If that cannot be, the client is disconnected.
    pub fn start(self: &Arc<Self>, socket: Socket) {
        let socket = Arc::new(socket);
        let number = {
            let (clients, next) = &mut *self.lock();
            if clients.len() >= self.limits.connections {
                return;
            }
            *next = next.saturating_add(1);
            clients.insert(*next, Arc::clone(&socket));
            *next
        };
        let client = Client { server: Arc::clone(self), socket, number };
        let work = move || {
            let Server { exports, limits, observer, .. } = &*client.server;
            // The end of the connection is all that there is to say.
            let _ = serve_connection(&*client.socket, exports, limits, observer);
        };
        // Without a thread, the client is dropped.
        let _ = std::thread::Builder::new().name("nbd".to_owned()).stack_size(STACK).spawn(work);
    }
}

/// A client that is served. Its connection ends with it, whatever happens.
struct Client<O: Observer + Send + 'static> {
    server: Arc<Server<O>>,
    socket: Arc<Socket>,
    number: u64,
}

impl<O: Observer + Send> Drop for Client<O> {
    fn drop(&mut self) {
        self.socket.shut_down();
        self.server.lock().0.remove(&self.number);
    }
}
