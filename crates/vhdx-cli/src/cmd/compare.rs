//! `vhdx compare`: compares two disks.

use std::io::{BufWriter, Stdout, Write};
use std::ops::ControlFlow;

use vhdx_mmap::ops::{self, Difference};
use vhdx_mmap::report::{CompareEnd, CompareEntry, CompareStart};
use vhdx_mmap::{Input, ScanError};

use crate::args::{Common, CompareArgs};
use crate::bulk;
use crate::exit::{Exit, Failure};
use crate::json::{self, Listing};
use crate::open;
use crate::progress::Work;
use crate::size::counted;
use crate::term::{self, TextOut, escape};

pub(crate) fn run(args: &CompareArgs, common: &Common) -> Result<Exit, Failure> {
    let first = open::input(&args.first, args.first_format, common)?;
    let second = open::input(&args.second, args.second_format, common)?;
    let sizes = (first.content().len(), second.content().len());
    let mut report = Report::begin(args, first.content(), second.content(), common.quiet)?;
    if sizes.0 != sizes.1 {
        if args.strict {
            return report.end_with_sizes(sizes);
        }
        if !common.quiet {
            let longer = if sizes.0 > sizes.1 { &args.first } else { &args.second };
            let text = format!("{}: longer than the other disk: the rest is compared with zeros", longer.display());
            term::message("note", term::HINT, &escape(&text));
        }
    }
    let work = Work::new(sizes.0.max(sizes.1), "compare", &args.first, common);
    let options = bulk::scan_options(args.cache, &work);
    let (mut first_byte, mut failed) = (None, None);
    let on_difference = |difference: Difference| {
        first_byte.get_or_insert(difference.first);
        match report.difference(&difference) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    };
    let pool = bulk::all_threads(common)?;
    let compared = if args.all {
        pool.install(|| ops::compare(first.content(), second.content(), &options, on_difference))
    } else {
        let found = pool.install(|| ops::first_difference(first.content(), second.content(), &options));
        found.map(|found| first_byte = found)
    };
    work.finish();
    if let Some(failure) = failed {
        return Err(failure);
    }
    let compared = compared.map_err(|error| match error {
        ScanError::Read(error) => Failure::of_one_input(&args.first, &error),
        _ => Failure::Interrupted { signal: work.signal().unwrap_or(0) },
    });
    match second.fail_if_changed(first.fail_if_changed(compared)) {
        Ok(()) => report.end(first_byte),
        Err(failure) => report.abort(failure),
    }
}

/// Output of a comparison, written as differences are found.
struct Report<'a> {
    args: &'a CompareArgs,
    out: Out,
    ranges: u64,
    bytes: u64,
}

enum Out {
    Quiet,
    Text(TextOut),
    Json(Listing<BufWriter<Stdout>>),
}

impl<'a> Report<'a> {
    fn begin(args: &'a CompareArgs, first: Input<'_>, second: Input<'_>, is_quiet: bool) -> Result<Self, Failure> {
        let out = if args.output.is_json() {
            let start = CompareStart::of(first, second);
            Out::Json(Listing::begin(json::stdout(), &start, args.all.then_some("differences"))?)
        } else if is_quiet {
            // As for qemu-img, the exit code is the answer.
            Out::Quiet
        } else {
            let (mut out, title) = (term::stdout(), term::TITLE);
            if args.all {
                writeln!(out, "{title}{:<18} {:<18} First byte that differs{title:#}", "Offset", "Length")?;
            }
            Out::Text(out)
        };
        Ok(Self { args, out, ranges: 0, bytes: 0 })
    }

    fn difference(&mut self, difference: &Difference) -> Result<(), Failure> {
        let (start, first) = (difference.range.start, difference.first);
        let length = difference.range.end.saturating_sub(start);
        self.ranges = self.ranges.saturating_add(1);
        self.bytes = self.bytes.saturating_add(length);
        match &mut self.out {
            Out::Quiet => Ok(()),
            Out::Json(listing) => Ok(listing.item(&CompareEntry::of(difference))?),
            Out::Text(out) => Ok(writeln!(out, "{start:<#18x} {length:<#18x} {first:#x}")?),
        }
    }

    /// Ends the output if the sizes differ, which is enough with --strict.
    fn end_with_sizes(self, (first, second): (u64, u64)) -> Result<Exit, Failure> {
        match self.out {
            Out::Quiet => {}
            Out::Json(listing) => listing.end(&CompareEnd::of_other_size())?,
            Out::Text(mut out) => {
                writeln!(out, "The sizes differ: {first} and {second} bytes")?;
                out.flush()?;
            }
        }
        Ok(Exit::Mismatch)
    }

    /// Ends the output of a comparison that failed.
    fn abort(self, failure: Failure) -> Result<Exit, Failure> {
        match self.out {
            Out::Json(listing) => listing.abort(failure),
            Out::Quiet | Out::Text(_) => Err(failure),
        }
    }

    /// Ends the output with the result. `first` is the offset of the first byte that differs.
    fn end(self, first: Option<u64>) -> Result<Exit, Failure> {
        match self.out {
            Out::Quiet => {}
            Out::Json(listing) => {
                listing.end(&CompareEnd::of(first, self.args.all.then_some(self.bytes)))?;
            }
            Out::Text(mut out) => {
                match first {
                    None => writeln!(out, "Images are identical.")?,
                    Some(_) if self.ranges > 0 => {
                        let (bytes, ranges) = (counted(self.bytes, "byte"), counted(self.ranges, "range"));
                        writeln!(out, "Content mismatch: {bytes} in {ranges}")?;
                    }
                    Some(first) => writeln!(out, "Content mismatch at offset {first}!")?,
                }
                out.flush()?;
            }
        }
        Ok(if first.is_none() { Exit::Done } else { Exit::Mismatch })
    }
}
