//! The NBD server with clients that send anything: each connection ends, and content is that of the disk.

use std::io::{self, Cursor, Read, Write};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use vhdx_mmap::{Disk, OpenOptions, Parents, Source};
use vhdx_serve::Export;
use vhdx_serve::nbd::{Exports, Limits, Wire, serve_connection};

use crate::kit::builder::Spec;
use crate::kit::log::Dirty;
use crate::kit::{Block, MIB, Model};

/// A client: a raw stream of bytes, or a good handshake and requests.
#[derive(Arbitrary, Debug)]
pub struct Input {
    is_raw: bool,
    mode: u8,
    has_contexts: bool,
    is_damaged: bool,
    requests: Vec<Request>,
    raw: Vec<u8>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Request {
    flags: u8,
    command: u8,
    offset: u32,
    length: u32,
}

/// Connection in memory.
struct Stream<'o> {
    input: Cursor<Vec<u8>>,
    output: &'o mut Vec<u8>,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire for Stream<'_> {
    fn wait_at_most(&self, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }
}

/// What is served, and its content; of a damaged image, block 3 cannot be read.
struct Served {
    exports: Exports,
    content: Vec<u8>,
}

fn served(is_damaged: bool) -> Served {
    let parent = Spec::empty(4 * MIB + 512).block(0, Block::full()).block(3, Block::full());
    let child = Spec::child_of(&parent, "parent").block(0, Block::partial(&[3..9, 100..2000])).block(1, Block::full());
    let mut child = Dirty::ManyEntries.build(&child);
    let parent = parent.build();
    let content = Model::read(&[&child.model, &parent.model], 0, (4 << 20) + 512).expect("every byte can be read");
    if is_damaged {
        // A state that does not exist.
        let damaged = Spec::child_of(&parent.spec, "parent");
        let mut damaged = damaged.block(0, Block::partial(&[3..9, 100..2000])).block(1, Block::full());
        damaged.raw_bat.insert(3, 5);
        child = damaged.build();
    }
    let parent = Source::from_vec(parent.bytes.to_vec());
    let finder = Parents::With(Arc::new(move |_| Ok(Some(parent.clone()))));
    let disk = Disk::open(Source::from_vec(child.bytes.to_vec()), &OpenOptions::new().parents(finder));
    let exports = Export::without_partitions(&Arc::new(disk.expect("a valid image")), None);
    Served { exports: Exports::new(exports, true), content }
}

static SERVED: LazyLock<[Served; 2]> = LazyLock::new(|| [false, true].map(served));

/// Bytes that are taken from the front.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, count: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self, count: usize) -> u64 {
        self.take(count).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    [b"IHAVEOPT", number.to_be_bytes().as_slice(), &(data.len() as u32).to_be_bytes(), data].concat()
}

impl Input {
    fn stream(&self) -> Vec<u8> {
        if self.is_raw {
            return self.raw.clone();
        }
        let mut stream = vec![0, 0, 0, 3];
        match self.mode % 3 {
            0 => {}
            1 => stream.extend(option(8, &[])),
            _ => stream.extend(option(11, &[])),
        }
        if self.has_contexts {
            let queries =
                ["base:allocation", "vhdx:layer"].map(|name| [&[0, 0, 0, name.len() as u8], name.as_bytes()].concat());
            stream.extend(option(10, &[vec![0, 0, 0, 0, 0, 0, 0, 2], queries.concat()].concat()));
        }
        stream.extend(option(7, &[0; 6]));
        let is_extended = self.mode % 3 == 2;
        for (cookie, request) in self.requests().enumerate() {
            let magic: u32 = if is_extended { 0x21e4_1c71 } else { 0x2560_9513 };
            stream.extend(magic.to_be_bytes());
            stream.extend([0, request.flags, 0, request.command]);
            stream.extend((cookie as u64).to_be_bytes());
            stream.extend(u64::from(request.offset).to_be_bytes());
            stream.extend(if is_extended { &[0; 4][..] } else { &[] });
            stream.extend(request.length.to_be_bytes());
            if request.has_payload(self.mode) {
                stream.extend(vec![0x21; request.length as usize]);
            }
        }
        stream
    }

    /// The requests, most of them inside the disk.
    fn requests(&self) -> impl Iterator<Item = Request> {
        self.requests.iter().take(16).map(|request| {
            let mut request = *request;
            request.command %= 9;
            request.offset %= 5 << 20;
            request.length %= if request.has_payload(self.mode) { 4096 } else { 5 << 20 };
            request
        })
    }
}

impl Request {
    fn has_payload(&self, mode: u8) -> bool {
        self.command == 1 || (mode % 3 == 2 && self.flags & 32 != 0)
    }
}

pub fn run(input: &Input) {
    let served = &SERVED[usize::from(input.is_damaged)];
    let mut output = Vec::new();
    let wire = Stream { input: Cursor::new(input.stream()), output: &mut output };
    let result = serve_connection(wire, &served.exports, &Limits::default(), &());
    if input.is_raw {
        return;
    }
    result.expect("requests that can be taken apart do not end the connection");
    let mut output = Bytes(&output);
    assert_eq!(output.take(18), b"NBDMAGICIHAVEOPT\0\x03");
    loop {
        output.number(8);
        let (option, kind, length) = (output.number(4), output.number(4), output.number(4));
        output.take(length as usize);
        if (option, kind) == (7, 1) {
            break;
        }
    }
    for (cookie, request) in input.requests().enumerate() {
        if request.command == 2 {
            break;
        }
        judge_reply(&mut output, input, served, cookie as u64, request);
    }
    assert!(output.0.is_empty(), "{} bytes too many", output.0.len());
}

/// Asserts that a reply has the bytes of the disk, each of them once, or is an error that it may be.
fn judge_reply(output: &mut Bytes<'_>, input: &Input, served: &Served, cookie: u64, request: Request) {
    let (start, length) = (request.offset as usize, request.length as usize);
    let is_inside = start + length <= served.content.len();
    let may_fail = input.is_damaged && length > 0 && start < 4 << 20 && start + length > 3 << 20;
    let (mut error, mut came, mut extents) = (0, Vec::new(), Vec::new());
    if input.mode.is_multiple_of(3) {
        assert_eq!(output.number(4), 0x6744_6698);
        error = output.number(4);
        assert_eq!(output.number(8), cookie);
        if error == 0 && request.command == 0 {
            came.push((start, Some(output.take(length))));
        }
    } else {
        let is_extended = input.mode % 3 == 2;
        loop {
            assert_eq!(output.number(4), if is_extended { 0x6e8a_278c } else { 0x668e_33ef });
            let (flags, kind) = (output.number(2), output.number(2));
            assert_eq!(output.number(8), cookie);
            if is_extended {
                assert_eq!(output.number(8), u64::from(request.offset));
            }
            let chunk = output.number(if is_extended { 8 } else { 4 }) as usize;
            let mut chunk = Bytes(output.take(chunk));
            match kind {
                0 => {}
                1 => came.push((chunk.number(8) as usize, Some(chunk.take(chunk.0.len())))),
                2 => {
                    let at = chunk.number(8) as usize;
                    let hole = chunk.number(4) as usize;
                    assert!(served.content[at..at + hole].iter().all(|byte| *byte == 0), "a hole that is none");
                    came.push((at, None));
                    // Its length counts like that of data.
                    came.push((at + hole, Some(&[])));
                }
                5 | 6 => {
                    let width = if kind == 6 { 8 } else { 4 };
                    chunk.number(width);
                    let mut sum = 0;
                    while !chunk.0.is_empty() {
                        sum += chunk.number(width);
                        chunk.number(width);
                    }
                    extents.push(sum as usize);
                }
                0x8001 => error = chunk.number(4),
                _ => panic!("a chunk of type {kind}"),
            }
            if flags & 1 != 0 {
                break;
            }
        }
    }
    match (error, request.command) {
        (0, 0) => {
            assert!(is_inside && !may_fail, "{request:?} must fail");
            let mut at = start;
            for (offset, data) in came {
                match data {
                    Some([]) => at = offset,
                    Some(data) => {
                        assert_eq!(offset, at);
                        assert!(data == &served.content[at..at + data.len()], "{request:?}: wrong bytes");
                        at += data.len();
                    }
                    None => assert_eq!(offset, at),
                }
            }
            assert_eq!(at, start + length);
        }
        (0, 7) => assert!(!extents.is_empty() && extents.iter().all(|sum| (1..=length).contains(sum)), "{extents:?}"),
        (0, command) => assert!(matches!(command, 3 | 5), "{request:?} is no error"),
        (1, command) => assert!(matches!(command, 1 | 4 | 6), "{request:?}"),
        (5, 0) => assert!(may_fail, "{request:?} can be read"),
        (22, 0) => assert!(!is_inside || request.flags != 0, "{request:?} is right"),
        (22, _) => {}
        _ => panic!("{request:?}: error {error}"),
    }
}
