//! A connection: its state, and its requests after the handshake.

use std::io::{self, BufRead, BufReader, IoSlice, Read};
use std::ops::Range;
use std::time::Instant;

use vhdx_mmap::{Error, zero_pages};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::status::{Context, ShortExtents, extents};
use super::system::{ask_for, is_fault};
use super::wire::{
    CHUNK_MAGIC, DONE, EXTENDED_CHUNK_MAGIC, EXTENDED_REQUEST_MAGIC, FLAG_DF, FLAG_PAYLOAD_LEN, FLAG_REQ_ONE,
    REQUEST_MAGIC, RequestHead, SIMPLE_REPLY_MAGIC, chunk, cmd, errno, to_u32, to_u64,
};
use super::{Exports, Limits, MAX_REQUEST, Observer, Wire};
use crate::Export;

/// How replies look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Simple,
    Structured,
    /// Structured, with headers that have lengths of 64 bits.
    Extended,
}

/// A client.
pub(super) struct Connection<'s, W: Wire> {
    pub(super) exports: &'s Exports,
    pub(super) observer: &'s dyn Observer,
    pub(super) wire: BufReader<W>,
    /// Replies that were not sent yet. They are sent before the connection waits for the client.
    pub(super) out: Vec<u8>,
    pub(super) mode: Mode,
    /// Name of the export for which contexts were chosen.
    pub(super) contexts_of: Option<String>,
    pub(super) contexts: Vec<Context>,
    short_extents: ShortExtents,
}

/// A request.
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) kind: u16,
    pub(super) cookie: U64,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Request {
    pub(super) fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.length)
    }
}

/// Why a request fails: a number, and a text for people.
pub(super) type Failed = (u32, &'static str);

pub(super) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Serves a client until it leaves, on the calling thread.
///
/// # Errors
/// Fails if the client breaks the protocol, vanishes in the middle of a request, or takes longer for its handshake than
/// `limits` allow. No error concerns other connections.
pub fn serve_connection<W: Wire>(
    wire: W,
    exports: &Exports,
    limits: &Limits,
    observer: &dyn Observer,
) -> io::Result<()> {
    let wire = BufReader::with_capacity(4096, wire);
    let mut connection = Connection {
        exports,
        observer,
        wire,
        out: Vec::new(),
        mode: Mode::Simple,
        contexts_of: None,
        contexts: Vec::new(),
        short_extents: ShortExtents::default(),
    };
    let deadline = Instant::now().checked_add(limits.handshake).ok_or(io::ErrorKind::InvalidInput)?;
    let Some(export) = connection.negotiate(deadline)? else { return Ok(()) };
    connection.flush()?;
    connection.wire.get_ref().wait_at_most(None)?;
    connection.transmit(export)
}

impl<W: Wire> Connection<'_, W> {
    /// Answers requests until the client leaves.
    fn transmit(&mut self, export: &Export) -> io::Result<()> {
        while let Some(request) = self.next_request()? {
            let is_extended = self.mode == Mode::Extended;
            if request.kind == cmd::WRITE || (is_extended && request.flags & FLAG_PAYLOAD_LEN != 0) {
                if request.length > u64::from(MAX_REQUEST) {
                    return Err(invalid("the client writes more than is allowed"));
                }
                io::copy(&mut (&mut self.wire).take(request.length), &mut io::sink())?;
            }
            let is_inside = request.offset.checked_add(request.length).is_some_and(|end| end <= export.range().size());
            let flags = match request.kind {
                cmd::READ if self.mode != Mode::Simple => FLAG_DF,
                cmd::BLOCK_STATUS => FLAG_REQ_ONE,
                // These fail anyway.
                cmd::WRITE | cmd::TRIM | cmd::WRITE_ZEROES => u16::MAX,
                _ => 0,
            };
            let result = match request.kind {
                cmd::DISC => return self.flush(),
                _ if request.flags & !flags != 0 => Err((errno::EINVAL, "a flag is unknown or not negotiated")),
                cmd::WRITE | cmd::TRIM | cmd::WRITE_ZEROES => Err((errno::EPERM, "the export is read-only")),
                cmd::FLUSH => Ok(true),
                _ if !is_inside => Err((errno::EINVAL, "the range is not inside the export")),
                cmd::READ if request.length > u64::from(MAX_REQUEST) => {
                    Err((errno::EINVAL, "the range is longer than the largest block size"))
                }
                cmd::READ => self.read_range(&request, export)?.map(|()| false),
                cmd::BLOCK_STATUS => self.block_status(&request, export).map(|()| false),
                cmd::CACHE => {
                    ask_for(export, request.range());
                    Ok(true)
                }
                _ => Err((errno::EINVAL, "the command is unknown")),
            };
            match result {
                Ok(is_done) if is_done => self.push_done(&request, None),
                Ok(_) => {}
                Err(failed) => self.push_done(&request, Some(failed)),
            }
        }
        Ok(())
    }

    /// Returns the next request; `None` if the client has left between two requests.
    fn next_request(&mut self) -> io::Result<Option<Request>> {
        let is_extended = self.mode == Mode::Extended;
        let length = size_of::<RequestHead>().saturating_add(if is_extended { 8 } else { 4 });
        if self.wire.buffer().len() < length || self.out.len() > BATCH {
            self.flush()?;
        }
        if self.wire.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let (mut head, mut length) = (RequestHead::new_zeroed(), [U32::ZERO; 2]);
        self.wire.read_exact(head.as_mut_bytes())?;
        // The first half of a length of 64 bits is missing in a compact request.
        self.wire.read_exact(if is_extended { &mut length } else { length.split_at_mut(1).1 }.as_mut_bytes())?;
        if head.magic.get() != if is_extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC } {
            return Err(invalid("the client sends no request"));
        }
        let [high, low] = length.map(|half| u64::from(half.get()));
        let (flags, kind, cookie) = (head.flags.get(), head.kind.get(), head.cookie);
        Ok(Some(Request { flags, kind, cookie, offset: head.offset.get(), length: high << 32 | low }))
    }

    /// Adds the last reply to a request: success without content, or an error.
    pub(super) fn push_done(&mut self, request: &Request, failed: Option<Failed>) {
        match (self.mode, failed) {
            (Mode::Simple, _) => self.push_simple(request, failed.map_or(0, |(error, _)| error)),
            (_, None) => self.push_chunk(request, DONE, chunk::NONE, &[], 0),
            (_, Some((error, text))) => {
                let length = U16::new(u16::try_from(text.len()).unwrap_or(0));
                let payload = [U32::new(error).as_bytes(), length.as_bytes(), text.as_bytes()].concat();
                self.push_chunk(request, DONE, chunk::ERROR, &payload, 0);
            }
        }
    }

    pub(super) fn push_simple(&mut self, request: &Request, error: u32) {
        let (magic, error) = (U32::new(SIMPLE_REPLY_MAGIC), U32::new(error));
        self.put(&[magic.as_bytes(), error.as_bytes(), request.cookie.as_bytes()]);
    }

    /// Adds a chunk of a structured reply: its header, and the first part of its payload; `more` bytes will follow.
    pub(super) fn push_chunk(&mut self, request: &Request, flags: u16, kind: u16, payload: &[u8], more: u64) {
        let (flags, kind, cookie) = (U16::new(flags), U16::new(kind), request.cookie);
        let length = to_u64(payload.len()).saturating_add(more);
        let is_extended = self.mode == Mode::Extended;
        let magic = U32::new(if is_extended { EXTENDED_CHUNK_MAGIC } else { CHUNK_MAGIC });
        self.put(&[magic.as_bytes(), flags.as_bytes(), kind.as_bytes(), cookie.as_bytes()]);
        if is_extended {
            self.put(&[U64::new(request.offset).as_bytes(), U64::new(length).as_bytes(), payload]);
        } else {
            self.put(&[U32::new(u32::try_from(length).unwrap_or(u32::MAX)).as_bytes(), payload]);
        }
    }

    /// Adds fields to the replies.
    pub(super) fn put(&mut self, fields: &[&[u8]]) {
        fields.iter().for_each(|field| self.out.extend_from_slice(field));
    }

    fn block_status(&mut self, request: &Request, export: &Export) -> Result<(), Failed> {
        if self.contexts.is_empty() || request.length == 0 {
            return Err((errno::EINVAL, "no context was negotiated, or the range is empty"));
        }
        let contexts = self.contexts.clone();
        let is_one = request.flags & FLAG_REQ_ONE != 0;
        let is_extended = self.mode == Mode::Extended;
        let found = contexts.iter().map(|context| match is_extended || is_one {
            true => extents(export, request.range(), *context, is_one),
            false => self.short_extents.of(export, request.range(), *context),
        });
        let found = found.collect::<vhdx_mmap::Result<Vec<_>>>().map_err(|error| self.unreadable(export, &error))?;
        for (number, (context, extents)) in contexts.iter().zip(&found).enumerate() {
            let flags = if number.saturating_add(1) == found.len() { DONE } else { 0 };
            let mut payload = U32::new(context.id()).as_bytes().to_vec();
            if is_extended {
                payload.extend_from_slice(U32::new(to_u32(extents.len())).as_bytes());
            }
            for (length, status) in extents {
                if is_extended {
                    payload.extend_from_slice([U64::new(*length), U64::new(u64::from(*status))].as_bytes());
                } else {
                    let length = u32::try_from(*length).unwrap_or(u32::MAX);
                    payload.extend_from_slice([U32::new(length), U32::new(*status)].as_bytes());
                }
            }
            let kind = if is_extended { chunk::BLOCK_STATUS_EXT } else { chunk::BLOCK_STATUS };
            self.push_chunk(request, flags, kind, &payload, 0);
        }
        Ok(())
    }

    /// The failure of a request for what cannot be read. The client does not get the reason: it may name files.
    pub(super) fn unreadable(&self, export: &Export, error: &Error) -> Failed {
        self.observer.read_failed(export, error);
        (errno::EIO, "a part of the image cannot be read; the server has the reason")
    }

    /// Sends all replies.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.send(&[])?;
        }
        // A client that does nothing takes up no memory.
        if self.out.capacity() > BATCH.saturating_mul(2) {
            self.out = Vec::new();
        }
        self.wire.get_mut().flush()
    }

    /// Sends all replies, and then these bytes, which may be parts of a mapping. Returns false if a page of them is
    /// lost: zeros were sent in its place, and in the place of all later ones.
    pub(super) fn send(&mut self, content: &[&[u8]]) -> io::Result<bool> {
        let mut slices: Vec<IoSlice<'_>> =
            std::iter::once(self.out.as_slice()).chain(content.iter().copied()).map(IoSlice::new).collect();
        let mut left = slices.as_mut_slice();
        // Leaves out slices that are empty.
        IoSlice::advance_slices(&mut left, 0);
        let wire = self.wire.get_mut();
        let (mut sent, mut is_lost) = (0_usize, false);
        while !left.is_empty() && !is_lost {
            match wire.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    sent = sent.saturating_add(written);
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_fault(&error) => is_lost = true,
                Err(error) => return Err(error),
            }
        }
        if is_lost {
            wire.write_all(self.out.get(sent..).unwrap_or_default())?;
            let whole = content.iter().fold(0, |sum, piece| to_u64(piece.len()).saturating_add(sum));
            let of_content = to_u64(sent.saturating_sub(self.out.len()));
            self.send_zeros(whole.saturating_sub(of_content))?;
        }
        self.out.clear();
        Ok(!is_lost)
    }

    /// Sends zeros in the place of what cannot be read.
    pub(super) fn send_zeros(&mut self, mut length: u64) -> io::Result<()> {
        while length > 0 {
            let zeros = zero_pages(length);
            self.wire.get_mut().write_all(zeros)?;
            length = length.saturating_sub(to_u64(zeros.len()));
        }
        Ok(())
    }
}

/// Replies of this many bytes are sent even if the client has sent further requests.
pub(super) const BATCH: usize = 128 << 10;
