//! A read-only NBD server: fixed newstyle handshake, structured and extended replies, block status, any number of
//! connections to each export.
//!
//! Data goes out of the mapping of the image (`writev`), holes as hole chunks. What cannot be read is an error of that
//! request: a lost page, an invalid table entry, a truncated file. Bytes that were sent before a loss was noticed are
//! followed by an error chunk, which makes the client discard them. Simple replies have no such chunk: their content is
//! copied and checked before it is sent, and if a part is lost after the reply has begun, the connection ends before
//! the reply is complete.
//!
//! [`serve_connection`] serves one client on any stream; [`Server`] accepts clients on sockets, with a thread for each.

mod exports;
mod handshake;
mod read;
#[cfg(unix)]
mod server;
mod status;
mod system;
mod transmission;
mod wire;

use std::io::{self, Read, Write};
use std::time::Duration;

pub use crate::Observer;
pub use exports::Exports;
#[cfg(unix)]
pub use server::{Listener, Server, Socket};
pub use status::layer_status;
pub use transmission::serve_connection;

/// Longest range of a read, in bytes. Longer requests get `EINVAL`.
pub const MAX_REQUEST: u32 = 32 << 20;

/// Longest data of an option in the handshake, in bytes. Longer options get `NBD_REP_ERR_TOO_BIG`; an option of more
/// than 16 times as much ends the connection.
pub const MAX_OPTION: u32 = 64 << 10;

/// Largest number of extents in a reply to `NBD_CMD_BLOCK_STATUS`. The client asks again for the rest of its range.
pub const MAX_EXTENTS: usize = 1 << 17;

/// Largest number of bytes that a connection holds in memory: replies to small reads, and content that is copied.
/// Borrowed content is not copied.
pub const MAX_BUFFERED: usize = 1 << 20;

/// Limits of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Largest number of connections at a time. Further clients are disconnected at once.
    pub connections: usize,
    /// Longest time from the connection of a client to the end of its handshake.
    pub handshake: Duration,
}

impl Default for Limits {
    /// 1000 connections, 30 seconds.
    fn default() -> Self {
        Self { connections: 1000, handshake: Duration::from_secs(30) }
    }
}

/// Stream of bytes from and to a client.
pub trait Wire: Read + Write {
    /// Sets the longest time that a read or a write may wait; `None` for no limit.
    ///
    /// # Errors
    /// The errors of the system.
    fn wait_at_most(&self, time: Option<Duration>) -> io::Result<()>;
}
