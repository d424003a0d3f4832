//! A client, written from the protocol's specification.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use vhdx_mmap::{Disk, Error};
use vhdx_serve::Export;
use vhdx_serve::nbd::{Exports, Limits, Observer, Server, Socket};
use vhdx_testkit::watchdog::PATIENCE;

/// Options.
pub(crate) const EXPORT_NAME: u32 = 1;
pub(crate) const ABORT: u32 = 2;
pub(crate) const LIST: u32 = 3;
pub(crate) const STARTTLS: u32 = 5;
pub(crate) const INFO: u32 = 6;
pub(crate) const GO: u32 = 7;
pub(crate) const STRUCTURED_REPLY: u32 = 8;
pub(crate) const LIST_META_CONTEXT: u32 = 9;
pub(crate) const SET_META_CONTEXT: u32 = 10;
pub(crate) const EXTENDED_HEADERS: u32 = 11;

/// Replies to options.
pub(crate) const ACK: u32 = 1;
pub(crate) const UNSUP: u32 = (1 << 31) + 1;
pub(crate) const INVALID: u32 = (1 << 31) + 3;
pub(crate) const UNKNOWN: u32 = (1 << 31) + 6;
pub(crate) const TOO_BIG: u32 = (1 << 31) + 9;

/// Commands.
pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISC: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const CACHE: u16 = 5;
pub(crate) const WRITE_ZEROES: u16 = 6;
pub(crate) const BLOCK_STATUS: u16 = 7;

pub(crate) const DF: u16 = 4;
pub(crate) const REQ_ONE: u16 = 8;

pub(crate) const EPERM: u32 = 1;
pub(crate) const EIO: u32 = 5;
pub(crate) const EINVAL: u32 = 22;

/// What clients and the server have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Simple,
    Structured,
    Extended,
}

/// Counts errors.
#[derive(Default)]
pub(crate) struct Count(std::sync::Mutex<Vec<String>>);

impl Observer for Count {
    fn read_failed(&self, _: &Export, error: &Error) {
        self.0.lock().unwrap().push(error.to_string());
    }
}

pub(crate) fn server_of(disk: Disk) -> Arc<Server<Count>> {
    let exports = Export::of_disk(&Arc::new(disk), None).unwrap();
    Arc::new(Server::new(Exports::new(exports, true), Limits::default(), Count::default()))
}

/// Extents of a context: its number, and pairs of lengths and statuses.
pub(crate) type Status = (u32, Vec<(u64, u64)>);

/// The chunks of a reply, in their order.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) error: u32,
    /// Data, with its offset.
    pub(crate) data: Vec<(u64, Vec<u8>)>,
    /// Offsets and lengths.
    pub(crate) holes: Vec<(u64, u64)>,
    pub(crate) status: Vec<Status>,
}

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    mode: Mode,
    cookie: u64,
    /// Whether a file has zeros as data: otherwise zeros are holes, since the builder's patterns have none.
    pub(crate) has_zeros: bool,
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

impl Client {
    /// Connects, and reads the greeting.
    pub(crate) fn connect(server: &Arc<Server<Count>>) -> Self {
        let (stream, other) = UnixStream::pair().unwrap();
        server.start(Socket::Unix(other));
        Self::greet(stream)
    }

    pub(crate) fn greet(stream: UnixStream) -> Self {
        // A server that hangs is a failure, not the end of the tests.
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self { stream, mode: Mode::Simple, cookie: 77, has_zeros: false };
        assert_eq!(client.take(18), *b"NBDMAGICIHAVEOPT\0\x03");
        client
    }

    /// Connects to an export.
    pub(crate) fn open(server: &Arc<Server<Count>>, export: &str, mode: Mode, contexts: &[&str]) -> Self {
        let mut client = Self::connect(server);
        client.send(&3_u32.to_be_bytes());
        match mode {
            Mode::Simple => {}
            Mode::Structured => assert_eq!(client.option(STRUCTURED_REPLY, &[]), [(ACK, vec![])]),
            Mode::Extended => assert_eq!(client.option(EXTENDED_HEADERS, &[]), [(ACK, vec![])]),
        }
        if !contexts.is_empty() {
            let count = u32::try_from(contexts.len()).unwrap().to_be_bytes().to_vec();
            let queries: Vec<Vec<u8>> = contexts.iter().map(|context| text(context)).collect();
            let replies = client.option(SET_META_CONTEXT, &[text(export), count, queries.concat()].concat());
            assert_eq!(replies.len(), contexts.len() + 1);
        }
        let replies = client.option(GO, &[text(export), vec![0, 0]].concat());
        assert_eq!(replies.last().unwrap().0, ACK, "{replies:?}");
        client.mode = mode;
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn number(&mut self, length: usize) -> u64 {
        self.take(length).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Whether the server has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn send_option(&mut self, option: u32, data: &[u8]) {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        self.send(&[b"IHAVEOPT", option.to_be_bytes().as_slice(), &length, data].concat());
    }

    /// Sends an option, and returns all replies to it.
    pub(crate) fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.send_option(option, data);
        let mut replies = Vec::new();
        loop {
            assert_eq!(self.number(8), 0x0003_e889_0455_65a9);
            assert_eq!(self.number(4), u64::from(option));
            let kind = self.number(4) as u32;
            let length = self.number(4) as usize;
            let data = self.take(length);
            replies.push((kind, data));
            if kind == ACK || kind & (1 << 31) != 0 {
                return replies;
            }
        }
    }

    pub(crate) fn request(&mut self, flags: u16, command: u16, offset: u64, length: u64) {
        self.cookie += 1;
        let length = match self.mode {
            Mode::Extended => length.to_be_bytes().to_vec(),
            _ => u32::try_from(length).unwrap().to_be_bytes().to_vec(),
        };
        let magic: u32 = if self.mode == Mode::Extended { 0x21e4_1c71 } else { 0x2560_9513 };
        let head = [magic.to_be_bytes().as_slice(), &flags.to_be_bytes(), &command.to_be_bytes()].concat();
        self.send(&[head.as_slice(), &self.cookie.to_be_bytes(), &offset.to_be_bytes(), &length].concat());
    }

    /// The reply to the last request, which was a read of this length where `read` has it.
    pub(crate) fn reply(&mut self, offset: u64, read: u64) -> Reply {
        let mut reply = Reply::default();
        if self.mode == Mode::Simple {
            assert_eq!(self.number(4), 0x6744_6698);
            reply.error = self.number(4) as u32;
            assert_eq!(self.number(8), self.cookie);
            if reply.error == 0 && read > 0 {
                reply.data.push((offset, self.take(read as usize)));
            }
            return reply;
        }
        loop {
            let is_extended = self.mode == Mode::Extended;
            assert_eq!(self.number(4), if is_extended { 0x6e8a_278c } else { 0x668e_33ef });
            let (flags, kind) = (self.number(2), self.number(2));
            assert_eq!(self.number(8), self.cookie);
            if is_extended {
                assert_eq!(self.number(8), offset, "the offset of the request");
            }
            let length = self.number(if is_extended { 8 } else { 4 });
            match kind {
                0 => assert_eq!((flags, length), (1, 0), "a chunk without content is the last one"),
                1 => {
                    let offset = self.number(8);
                    reply.data.push((offset, self.take((length - 8) as usize)));
                }
                2 => {
                    assert_eq!(length, 12);
                    reply.holes.push((self.number(8), self.number(4)));
                }
                5 | 6 => {
                    assert_eq!(kind == 6, is_extended);
                    let context = self.number(4) as u32;
                    let width = if is_extended { 8 } else { 4 };
                    let head = if is_extended { 8 } else { 4 };
                    let count = (length - head) / (2 * width);
                    if is_extended {
                        assert_eq!(self.number(4), count);
                    }
                    let pair = |client: &mut Self| (client.number(width as usize), client.number(width as usize));
                    reply.status.push((context, (0..count).map(|_| pair(self)).collect()));
                }
                0x8001 => {
                    reply.error = self.number(4) as u32;
                    let text = self.number(2) as usize;
                    assert_eq!(length, 6 + text as u64);
                    String::from_utf8(self.take(text)).unwrap();
                }
                _ => panic!("a chunk of type {kind}"),
            }
            if flags & 1 != 0 {
                return reply;
            }
        }
    }

    /// Sends a request and returns its reply.
    pub(crate) fn ask(&mut self, flags: u16, command: u16, offset: u64, length: u64) -> Reply {
        self.request(flags, command, offset, length);
        self.reply(offset, if command == READ { length } else { 0 })
    }

    /// Reads a range, of which each byte comes exactly once: as data, or in a hole.
    pub(crate) fn read(&mut self, flags: u16, offset: u64, length: u64) -> Result<Vec<u8>, u32> {
        let reply = self.ask(flags, READ, offset, length);
        if reply.error != 0 {
            return Err(reply.error);
        }
        let mut bytes = vec![0; length as usize];
        let mut came: Vec<(u64, u64)> = reply.holes.clone();
        for (at, data) in &reply.data {
            came.push((*at, data.len() as u64));
            bytes[(at - offset) as usize..][..data.len()].copy_from_slice(data);
            let has_zeros_in_data = self.has_zeros || self.mode == Mode::Simple || flags & DF != 0;
            assert!(has_zeros_in_data || !data.contains(&0), "zeros on the wire");
        }
        came.sort_unstable();
        let end = came.iter().fold(offset, |end, (at, length)| {
            assert_eq!(*at, end);
            at + length
        });
        assert_eq!(end, offset + length);
        assert!(flags & DF == 0 || came.len() <= 1, "more than one chunk");
        Ok(bytes)
    }
}

/// Waits until the server has no more than this many connections.
pub(crate) fn wait_for_connections(server: &Arc<Server<Count>>, count: usize) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = Arc::clone(server);
    std::thread::spawn(move || {
        while server.connections() > count {
            std::thread::yield_now();
        }
        sender.send(()).unwrap();
    });
    let patience: Duration = PATIENCE;
    receiver.recv_timeout(patience).unwrap();
}
