//! `vhdx compare`.

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
use crate::term::{self, TextOut, escape};

pub(crate) fn run(args: &CompareArgs, common: &Common) -> Result<Exit, Failure> {
    let one = open::input(&args.one, args.one_format, common)?;
    let other = open::input(&args.other, args.other_format, common)?;
    let sizes = (one.content().length(), other.content().length());
    let mut told = Told::begin(args, one.content(), other.content())?;
    if sizes.0 != sizes.1 {
        if args.strict {
            return told.end_at_once(sizes);
        }
        if !common.quiet {
            let longer = if sizes.0 > sizes.1 { &args.one } else { &args.other };
            let text = format!("{}: is longer; the rest of it is compared with zeros", longer.display());
            term::tell("note", term::HINT, &escape(&text));
        }
    }
    let work = Work::new(sizes.0.max(sizes.1), common.quiet);
    let options = bulk::scan_options(args.cache, &work);
    let (mut first, mut failed) = (None, None);
    let on_difference = |difference: Difference| {
        first.get_or_insert(difference.first);
        match told.difference(&difference) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    };
    let pool = bulk::pool(common, usize::MAX)?;
    let compared = if args.all {
        pool.install(|| ops::compare(one.content(), other.content(), &options, on_difference))
    } else {
        let found = pool.install(|| ops::first_difference(one.content(), other.content(), &options));
        found.map(|found| first = found)
    };
    work.finish();
    if let Some(failure) = failed {
        return Err(failure);
    }
    let compared = compared.map_err(|stopped| match stopped {
        ScanError::Read(error) => Failure::of_one_of_several(&args.one, &error),
        _ => Failure::Interrupted { signal: work.signal().unwrap_or(0) },
    });
    other.fail_if_changed(one.fail_if_changed(compared))?;
    told.end(first)
}

/// What is told of a comparison, as it is found.
struct Told<'a> {
    args: &'a CompareArgs,
    out: Out,
    ranges: u64,
    bytes: u64,
}

enum Out {
    Text(TextOut),
    Json(Listing<BufWriter<Stdout>>),
}

impl<'a> Told<'a> {
    fn begin(args: &'a CompareArgs, one: Input<'_>, other: Input<'_>) -> Result<Self, Failure> {
        let out = if args.output.is_json() {
            let start = CompareStart::of(one, other);
            Out::Json(Listing::begin(json::stdout(), &start, args.all.then_some("differences"))?)
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
            Out::Json(listing) => Ok(listing.item(&CompareEntry::of(difference))?),
            Out::Text(out) => Ok(writeln!(out, "{start:<#18x} {length:<#18x} {first:#x}")?),
        }
    }

    /// Tells that the sizes differ, which is enough.
    fn end_at_once(self, (one, other): (u64, u64)) -> Result<Exit, Failure> {
        match self.out {
            Out::Json(listing) => listing.end(&CompareEnd::of_other_size())?,
            Out::Text(mut out) => {
                writeln!(out, "The sizes differ: {one} and {other} bytes")?;
                out.flush()?;
            }
        }
        Ok(Exit::No)
    }

    /// Tells the result. `first` is the first byte that differs.
    fn end(self, first: Option<u64>) -> Result<Exit, Failure> {
        match self.out {
            Out::Json(listing) => {
                listing.end(&CompareEnd::of(first, self.args.all.then_some(self.bytes)))?;
            }
            Out::Text(mut out) => {
                match first {
                    None => writeln!(out, "Images are identical.")?,
                    Some(_) if self.ranges > 0 => {
                        writeln!(out, "Content mismatch: {} bytes in {} ranges", self.bytes, self.ranges)?;
                    }
                    Some(first) => writeln!(out, "Content mismatch at offset {first}!")?,
                }
                out.flush()?;
            }
        }
        Ok(if first.is_none() { Exit::Done } else { Exit::No })
    }
}
