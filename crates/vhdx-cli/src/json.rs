//! JSON on standard output, with characters that can control a terminal as escapes.

use std::io::{self, BufWriter, Stdout, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};
use serde_json::{Map, Value};
use vhdx_mmap::report::{Aborted, Report};

use crate::exit::{Exit, Failure};
use crate::term::is_unsafe;
use crate::time;

/// Standard output for JSON: no colours, no changes.
pub(crate) fn stdout() -> BufWriter<Stdout> {
    BufWriter::new(io::stdout())
}

/// Writes a value on one line.
pub(crate) fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut serializer = Serializer::with_formatter(out, Escaping(CompactFormatter));
    value.serialize(&mut serializer).map_err(io::Error::from)
}

/// Keys of every document that say what made it, and when.
#[derive(Clone, Copy, Serialize)]
struct Stamp {
    tool: &'static str,
    version: &'static str,
    time: &'static str,
}

/// A document: a report with its stamp.
#[derive(Serialize)]
struct Stamped<'a, R> {
    #[serde(flatten)]
    report: &'a R,
    #[serde(flatten)]
    stamp: Stamp,
}

fn stamped<R>(report: &R) -> Stamped<'_, R> {
    Stamped { report, stamp: Stamp { tool: "vhdx", version: env!("CARGO_PKG_VERSION"), time: &time::OF_PROGRAM } }
}

/// Writes a report on one line.
pub(crate) fn write_document(out: &mut impl Write, report: &impl Serialize) -> io::Result<()> {
    write_line(out, &stamped(report))
}

/// Prints a report, indented.
pub(crate) fn print(report: &impl Serialize) -> Result<(), Failure> {
    write(&mut stdout(), &stamped(report))
}

/// Where a document goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Standard output.
    Output,
    /// Standard error, where standard output holds the disk.
    Error,
}

impl Place {
    /// Prints a report, indented.
    pub(crate) fn print(self, report: &impl Serialize) -> Result<(), Failure> {
        match self {
            Self::Output => print(report),
            Self::Error => match write(&mut io::stderr(), &stamped(report)) {
                // The exit code does not depend on who reads standard error.
                Err(Failure::ClosedPipe { .. }) => Ok(()),
                written => written,
            },
        }
    }
}

/// The result of a command that has printed nothing if it failed. Then, a document says why.
pub(crate) fn or_failed<R: Report>(
    place: Option<Place>,
    image: &Path,
    result: Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    if let (Some(place), Err(failure)) = (place, &result)
        && let Some(failed) = failure.in_place_of::<R>(image)
    {
        // Where that cannot be written, the message that follows says more.
        drop(place.print(&failed));
    }
    result
}

/// The result of a command that prints a report on each line. If it failed, the last line says why.
pub(crate) fn line_or_failed<R: Report>(
    is_json: bool,
    image: &Path,
    result: Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    if let (true, Err(failure)) = (is_json, &result) {
        // Where that cannot be written, the message that follows says more.
        drop(failed_line::<R>(&mut stdout(), image, failure));
    }
    result
}

/// Writes a failure in place of the lines of an image, if it is a message.
pub(crate) fn failed_line<R: Report>(out: &mut impl Write, image: &Path, failure: &Failure) -> io::Result<()> {
    let Some(failed) = failure.in_place_of::<R>(image) else { return Ok(()) };
    write_line(out, &failed)?;
    writeln!(out)?;
    out.flush()
}

/// Prints several reports as an array.
pub(crate) fn print_all<R: Serialize>(reports: &[R]) -> Result<(), Failure> {
    write(&mut stdout(), &reports.iter().map(stamped).collect::<Vec<_>>())
}

/// Writes a report, indented.
pub(crate) fn write_to(out: &mut impl Write, report: &impl Serialize) -> Result<(), Failure> {
    write(out, &stamped(report))
}

fn write(mut out: &mut impl Write, value: &impl Serialize) -> Result<(), Failure> {
    let mut serializer = Serializer::with_formatter(&mut out, Escaping(PrettyFormatter::new()));
    value.serialize(&mut serializer).map_err(io::Error::from)?;
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

/// The reports of a command: of one image, the report alone; of several, an array, written as they are made.
pub(crate) struct Reports {
    out: BufWriter<Stdout>,
    is_list: bool,
    items: u64,
}

impl Reports {
    pub(crate) fn begin(is_list: bool) -> Self {
        Self { out: stdout(), is_list, items: 0 }
    }

    pub(crate) fn item(&mut self, report: &impl Serialize) -> Result<(), Failure> {
        if !self.is_list {
            return print(report);
        }
        write!(self.out, "{}", if self.items == 0 { "[\n  " } else { ",\n  " })?;
        write_document(&mut self.out, report)?;
        self.items = self.items.saturating_add(1);
        // Reports of other images may take long.
        Ok(self.out.flush()?)
    }

    /// Writes a failure in place of a report, if it is a message.
    pub(crate) fn failed<R: Report>(&mut self, image: &Path, failure: &Failure) -> Result<(), Failure> {
        failure.in_place_of::<R>(image).map_or(Ok(()), |failed| self.item(&failed))
    }

    /// Begins the report of another image, which the caller writes.
    pub(crate) fn next(&mut self) -> Result<BufWriter<Stdout>, Failure> {
        if self.is_list {
            write!(self.out, "{}", if self.items == 0 { "[\n" } else { ",\n" })?;
            self.items = self.items.saturating_add(1);
            self.out.flush()?;
        }
        Ok(stdout())
    }

    /// Closes the array. Without this call it stays incomplete, so that no program takes a part of it for all of it.
    pub(crate) fn end(mut self) -> Result<(), Failure> {
        if self.is_list {
            writeln!(self.out, "{}", if self.items == 0 { "[]" } else { "\n]" })?;
        }
        Ok(self.out.flush()?)
    }
}

/// An object with a list that may not fit in memory: items are written as they are found.
pub(crate) struct Listing<W> {
    out: W,
    has_list: bool,
    items: u64,
}

impl<W: Write> Listing<W> {
    /// Writes the fields of `start` with the stamp of a document, and opens the list.
    pub(crate) fn begin(mut out: W, start: &impl Serialize, list: Option<&str>) -> io::Result<Self> {
        writeln!(out, "{{")?;
        for (key, value) in fields(&stamped(start))? {
            write_field(&mut out, &key, &value)?;
            writeln!(out, ",")?;
        }
        if let Some(list) = list {
            write!(out, "  \"{list}\": [")?;
        }
        Ok(Self { out, has_list: list.is_some(), items: 0 })
    }

    pub(crate) fn item(&mut self, item: &impl Serialize) -> io::Result<()> {
        write!(self.out, "{}    ", if self.items == 0 { "\n" } else { ",\n" })?;
        write_line(&mut self.out, item)?;
        self.items = self.items.saturating_add(1);
        Ok(())
    }

    /// Closes the list of work that failed, and writes the error in place of the other fields, so that no program
    /// takes a part of the list for all of it. Returns the exit code of a failure that has been reported.
    pub(crate) fn abort(self, failure: Failure) -> Result<Exit, Failure> {
        match failure {
            Failure::Message { ref text, .. } => {
                self.end(&Aborted::of(text))?;
                Ok(failure.report())
            }
            stopped => Err(stopped),
        }
    }

    /// Closes the list, and writes the fields of `end`. Without this call or `abort` the object stays incomplete.
    pub(crate) fn end(mut self, end: &impl Serialize) -> io::Result<()> {
        if self.has_list {
            writeln!(self.out, "{}],", if self.items == 0 { "" } else { "\n  " })?;
        }
        let mut before = "";
        for (key, value) in fields(end)? {
            write!(self.out, "{before}")?;
            write_field(&mut self.out, &key, &value)?;
            before = ",\n";
        }
        writeln!(self.out, "\n}}")?;
        self.out.flush()
    }
}

/// The fields of an object, which are few.
fn fields(of: &impl Serialize) -> io::Result<Map<String, Value>> {
    match serde_json::to_value(of)? {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

fn write_field(out: &mut impl Write, key: &str, value: &Value) -> io::Result<()> {
    write!(out, "  \"{key}\": ")?;
    write_line(out, value)
}

/// A formatter that escapes more characters than JSON requires. Parsers return the same strings.
struct Escaping<F>(F);

impl<F: Formatter> Formatter for Escaping<F> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unsafe(*c)) {
            let (head, tail) = rest.split_at(at);
            writer.write_all(head.as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = tail.strip_prefix(c).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}
