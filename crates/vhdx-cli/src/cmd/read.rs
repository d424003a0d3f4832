//! `vhdx read`: writes bytes of the disk to standard output.

use std::io::{self, Write};
use std::ops::Range;

use vhdx_mmap::ops::{self, ExtractOptions};
use vhdx_mmap::{Disk, Input};

use crate::args::{Common, ReadArgs};
use crate::exit::{Exit, Failure, STANDARD_OUTPUT};
use crate::open;
use crate::target::{reject_terminal, standard_output};
use crate::term;

pub(crate) fn run(args: &ReadArgs, common: &Common) -> Result<Exit, Failure> {
    let disk = open::disk(&args.image, common)?;
    let range = args.range.within(disk.size()).map_err(Failure::usage)?;
    if args.hex {
        open::fail_if_changed(disk.layers(), hex(&disk, range, args))?;
        return Ok(Exit::Done);
    }
    reject_terminal(false, "pass --hex to print text")?;
    let content = Input::disk(&disk).range(range);
    let extracted = ops::extract_to_stream(content, &standard_output()?, &ExtractOptions::new());
    let failed = |error| Failure::of_bulk_output(&args.image, STANDARD_OUTPUT, error);
    open::fail_if_changed(disk.layers(), extracted.map_err(failed))?;
    Ok(Exit::Done)
}

fn hex(disk: &Disk, range: Range<u64>, args: &ReadArgs) -> Result<(), Failure> {
    let mut dump = HexDump::new(term::stdout(), range.start);
    let failed = |error: vhdx_mmap::Error| Failure::of_image(&args.image, &error);
    let mut buffer = vec![0; 1 << 20];
    for run in disk.runs(range) {
        let run = run.map_err(failed)?;
        if !run.is_data() {
            dump.zeros(run.len)?;
            continue;
        }
        let mut at = run.start;
        while at < run.end() {
            let most = usize::try_from(run.end().saturating_sub(at)).unwrap_or(usize::MAX).min(buffer.len());
            let read = disk.read_at(buffer.get_mut(..most).unwrap_or_default(), at).map_err(failed)?;
            dump.bytes(buffer.get(..read).unwrap_or_default())?;
            at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        }
    }
    dump.end()?;
    Ok(())
}

/// Bytes per line.
const LINE: usize = 16;

/// Text in the format of `hexdump -C`: a star replaces lines that repeat the line above.
struct HexDump<W> {
    out: W,
    /// Offset of the next line.
    offset: u64,
    /// Bytes of the next line.
    pending: Vec<u8>,
    /// Last complete line.
    last: Option<[u8; LINE]>,
    starred: bool,
}

impl<W: Write> HexDump<W> {
    fn new(out: W, offset: u64) -> Self {
        Self { out, offset, pending: Vec::with_capacity(LINE), last: None, starred: false }
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let take = LINE.saturating_sub(self.pending.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(take);
            self.pending.extend_from_slice(head);
            bytes = rest;
            if let Ok(line) = <[u8; LINE]>::try_from(self.pending.as_slice()) {
                self.line(line)?;
                self.pending.clear();
            }
        }
        Ok(())
    }

    /// Adds zeros in constant time: after their first line, all of them are one star.
    fn zeros(&mut self, mut length: u64) -> io::Result<()> {
        while length > 0 {
            let whole_lines = length & !0xf;
            if self.pending.is_empty() && self.last == Some([0; LINE]) && whole_lines > 0 {
                self.line([0; LINE])?;
                // `line` has counted one line already.
                self.offset = self.offset.saturating_add(whole_lines.saturating_sub(0x10));
                length = length.saturating_sub(whole_lines);
            } else {
                let left_in_line = LINE.saturating_sub(self.pending.len());
                let take = usize::try_from(length).unwrap_or(LINE).min(left_in_line);
                self.bytes([0; LINE].get(..take).unwrap_or_default())?;
                length = length.saturating_sub(u64::try_from(take).unwrap_or(length));
            }
        }
        Ok(())
    }

    fn line(&mut self, line: [u8; LINE]) -> io::Result<()> {
        if self.last == Some(line) {
            if !self.starred {
                writeln!(self.out, "*")?;
                self.starred = true;
            }
        } else {
            self.write(&line)?;
            self.last = Some(line);
            self.starred = false;
        }
        self.offset = self.offset.saturating_add(0x10);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        write!(self.out, "{:08x} ", self.offset)?;
        for column in 0..LINE {
            let gap = if column.is_multiple_of(8) { " " } else { "" };
            match bytes.get(column) {
                Some(byte) => write!(self.out, "{gap}{byte:02x} ")?,
                None => write!(self.out, "{gap}   ")?,
            }
        }
        let text = bytes.iter().map(|byte| if matches!(byte, 0x20..=0x7e) { char::from(*byte) } else { '.' });
        writeln!(self.out, " |{}|", text.collect::<String>())
    }

    /// Writes the rest, and the end offset.
    fn end(mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.pending);
        if !rest.is_empty() {
            self.write(&rest)?;
            self.offset = self.offset.saturating_add(u64::try_from(rest.len()).unwrap_or(0));
        }
        writeln!(self.out, "{:08x}", self.offset)?;
        self.out.flush()
    }
}
