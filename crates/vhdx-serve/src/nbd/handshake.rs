//! The handshake: options, until the client chooses an export.

use std::io::{self, BufRead, Read};
use std::time::Instant;

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::status::Context;
use super::transmission::{BATCH, Connection, Mode, invalid};
use super::wire::{
    EXPORT_FLAGS, FIXED_NEWSTYLE, NBD_MAGIC, NO_ZEROES, OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionHeader,
    STRUCTURED_EXPORT_FLAGS, info, option, rep, to_u32,
};
use super::{MAX_OPTION, MAX_REQUEST, Wire};
use crate::Export;

/// Reply to an option: an error, with a text for people.
type Refusal = (u32, &'static str);

const MALFORMED: Refusal = (rep::ERR_INVALID, "the data of the option is malformed");
const UNKNOWN_EXPORT: Refusal = (rep::ERR_UNKNOWN, "there is no export of this name");

/// Data of an option, taken apart from its beginning.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn number<T: FromBytes + zerocopy::Unaligned>(&mut self) -> Result<T, Refusal> {
        let (number, rest) = T::read_from_prefix(self.0).map_err(|_| MALFORMED)?;
        self.0 = rest;
        Ok(number)
    }

    fn text(&mut self) -> Result<&'b str, Refusal> {
        let length = usize::try_from(self.number::<U32>()?.get()).map_err(|_| MALFORMED)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(MALFORMED)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| MALFORMED)
    }

    fn end(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(MALFORMED) }
    }
}

impl<'s, W: Wire> Connection<'s, W> {
    /// Negotiates until the client chooses an export. Returns `None` if it leaves without one.
    pub(super) fn negotiate(&mut self, deadline: Instant) -> io::Result<Option<&'s Export>> {
        let flags = U16::new(FIXED_NEWSTYLE | NO_ZEROES);
        self.put(&[U64::new(NBD_MAGIC).as_bytes(), U64::new(OPTION_MAGIC).as_bytes(), flags.as_bytes()]);
        let flags = self.receive::<U32>(deadline)?.get();
        if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
            return Err(invalid("the client sends unknown flags"));
        }
        let (is_fixed, has_zeroes) = (flags & 1 != 0, flags & 2 == 0);
        loop {
            let header: OptionHeader = self.receive(deadline)?;
            let (number, length) = (header.option.get(), header.length.get());
            if header.magic.get() != OPTION_MAGIC || length > MAX_OPTION.saturating_mul(16) {
                return Err(invalid("the client sends no option, or one that is too long"));
            }
            let mut data = vec![0; usize::try_from(length.min(MAX_OPTION)).unwrap_or(0)];
            self.receive_into(&mut data, deadline)?;
            if length > MAX_OPTION {
                self.skip(length.saturating_sub(MAX_OPTION), deadline)?;
                self.reply_option(number, rep::ERR_TOO_BIG, b"the option is too long");
                continue;
            }
            if number == option::EXPORT_NAME {
                let export = std::str::from_utf8(&data).ok().and_then(|name| self.exports.find(name));
                let export = export.filter(|_| self.mode != Mode::Extended);
                // There is no other way to say no.
                let export = export.ok_or_else(|| invalid("the client asks for an unknown export"))?;
                let zeroes = if has_zeroes { 124 } else { 0 };
                self.put(&[&self.size_and_flags(export), &vec![0; zeroes]]);
                self.choose(std::str::from_utf8(&data).unwrap_or_default());
                return Ok(Some(export));
            }
            let result = match number {
                option::ABORT => {
                    self.reply_option(number, rep::ACK, b"");
                    self.flush()?;
                    return Ok(None);
                }
                _ if !is_fixed => return Err(invalid("the client sends options without the fixed handshake")),
                option::LIST if data.is_empty() => self.list(),
                option::INFO | option::GO => match self.describe(number, &data) {
                    Ok(export) if number == option::GO => {
                        self.reply_option(number, rep::ACK, b"");
                        return Ok(Some(export));
                    }
                    described => described.map(drop),
                },
                option::STRUCTURED_REPLY | option::EXTENDED_HEADERS if data.is_empty() => self.change_mode(number),
                option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.meta_context(number, &data),
                option::LIST | option::STRUCTURED_REPLY | option::EXTENDED_HEADERS => Err(MALFORMED),
                _ => Err((rep::ERR_UNSUP, "this server does not have the option")),
            };
            match result {
                Ok(()) => self.reply_option(number, rep::ACK, b""),
                Err((kind, text)) => self.reply_option(number, kind, text.as_bytes()),
            }
            if self.out.len() > BATCH {
                self.flush()?;
            }
        }
    }

    fn size_and_flags(&self, export: &Export) -> Vec<u8> {
        let flags = if self.mode == Mode::Simple { EXPORT_FLAGS } else { STRUCTURED_EXPORT_FLAGS };
        [U64::new(export.range().size()).as_bytes(), U16::new(flags).as_bytes()].concat()
    }

    fn list(&mut self) -> Result<(), Refusal> {
        let exports = self.exports;
        let default = exports.iter().next().filter(|_| exports.has_default()).map(|export| ("", export));
        for (name, export) in default.into_iter().chain(exports.iter().map(|export| (export.name(), export))) {
            let length = U32::new(to_u32(name.len()));
            let entry = [length.as_bytes(), name.as_bytes(), export.description().as_bytes()].concat();
            self.reply_option(option::LIST, rep::SERVER, &entry);
        }
        Ok(())
    }

    /// Answers `NBD_OPT_INFO` and `NBD_OPT_GO`, up to the last reply.
    fn describe(&mut self, number: u32, data: &[u8]) -> Result<&'s Export, Refusal> {
        let mut fields = Fields(data);
        let name = fields.text()?;
        let count = fields.number::<U16>()?.get();
        let wanted = (0..count).map(|_| Ok(fields.number::<U16>()?.get())).collect::<Result<Vec<_>, Refusal>>()?;
        fields.end()?;
        let export = self.exports.find(name).ok_or(UNKNOWN_EXPORT)?;
        let of_export = self.size_and_flags(export);
        let blocks = [U32::new(1), U32::new(4096), U32::new(MAX_REQUEST)];
        for (kind, content) in [
            (info::EXPORT, of_export.as_slice()),
            (info::NAME, export.name().as_bytes()),
            (info::DESCRIPTION, export.description().as_bytes()),
            (info::BLOCK_SIZE, blocks.as_bytes()),
        ] {
            if kind == info::EXPORT || wanted.contains(&kind) {
                self.reply_option(number, rep::INFO, &[U16::new(kind).as_bytes(), content].concat());
            }
        }
        if number == option::GO {
            self.choose(name);
        }
        Ok(export)
    }

    /// Keeps the contexts if they were chosen for this export.
    fn choose(&mut self, name: &str) {
        if self.contexts_of.as_deref() != Some(name) {
            self.contexts.clear();
        }
    }

    fn change_mode(&mut self, number: u32) -> Result<(), Refusal> {
        self.mode = match (number, self.mode) {
            (option::EXTENDED_HEADERS, Mode::Simple | Mode::Structured) => Mode::Extended,
            (option::STRUCTURED_REPLY, Mode::Simple) => Mode::Structured,
            (option::STRUCTURED_REPLY, Mode::Extended) => {
                return Err((rep::ERR_EXT_HEADER_REQD, "extended headers are in use already"));
            }
            _ => return Err((rep::ERR_INVALID, "the option was set already")),
        };
        Ok(())
    }

    fn meta_context(&mut self, number: u32, data: &[u8]) -> Result<(), Refusal> {
        let is_set = number == option::SET_META_CONTEXT;
        if is_set {
            self.contexts_of = None;
            self.contexts.clear();
        }
        if self.mode == Mode::Simple {
            return Err((rep::ERR_INVALID, "contexts need structured replies"));
        }
        let mut fields = Fields(data);
        let name = fields.text()?;
        let count = fields.number::<U32>()?.get();
        // Each query takes up room in the option, so the number that is claimed need not be believed.
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(fields.text()?);
        }
        fields.end()?;
        self.exports.find(name).ok_or(UNKNOWN_EXPORT)?;
        for context in Context::ALL {
            let is_listed =
                |query: &&str| *query == context.name() || context.name().split(':').next() == query.strip_suffix(':');
            let is_asked = if is_set {
                queries.contains(&context.name())
            } else {
                queries.is_empty() || queries.iter().any(is_listed)
            };
            if is_asked {
                let reply = [U32::new(context.id()).as_bytes(), context.name().as_bytes()].concat();
                self.reply_option(number, rep::META_CONTEXT, &reply);
                if is_set {
                    self.contexts.push(context);
                }
            }
        }
        if is_set {
            self.contexts_of = Some(name.to_owned());
        }
        Ok(())
    }

    fn reply_option(&mut self, number: u32, kind: u32, data: &[u8]) {
        let (magic, length) = (U64::new(OPTION_REPLY_MAGIC), U32::new(to_u32(data.len())));
        let (number, kind) = (U32::new(number), U32::new(kind));
        self.put(&[magic.as_bytes(), number.as_bytes(), kind.as_bytes(), length.as_bytes(), data]);
    }

    fn receive<T: FromBytes + FromZeros + IntoBytes>(&mut self, deadline: Instant) -> io::Result<T> {
        let mut value = T::new_zeroed();
        self.receive_into(value.as_mut_bytes(), deadline)?;
        Ok(value)
    }

    fn skip(&mut self, length: u32, deadline: Instant) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let mut left = usize::try_from(length).unwrap_or(usize::MAX);
        while left > 0 {
            let piece = buffer.get_mut(..left.min(4096)).unwrap_or_default();
            left = left.saturating_sub(piece.len());
            self.receive_into(piece, deadline)?;
        }
        Ok(())
    }

    /// Reads all bytes before the deadline, after all replies were sent.
    fn receive_into(&mut self, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !buffer.is_empty() {
            if self.wire.buffer().is_empty() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                self.wire.get_ref().wait_at_most(Some(left))?;
                self.flush()?;
                if self.wire.fill_buf()?.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let read = self.wire.read(buffer)?;
            buffer = buffer.get_mut(read..).unwrap_or_default();
        }
        Ok(())
    }
}
