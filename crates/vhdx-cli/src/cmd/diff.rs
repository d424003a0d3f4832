//! `vhdx diff`: lists the changes between a disk and an ancestor.

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use vhdx_mmap::ops::plan::Share;
use vhdx_mmap::ops::{self, Change, ExtractOptions, Reflink, Sparse, TargetContent};
use vhdx_mmap::report::{self, DiffEnd, DiffEntry, DiffMode, DiffStart};
use vhdx_mmap::{Disk, FileId, ImageKind, Input, Layer, ScanError, Uncounted};

use crate::args::{Common, DiffArgs, SalvageArgs};
use crate::bulk;
use crate::exit::{Exit, Failure};
use crate::json::Listing;
use crate::open;
use crate::progress::Work;
use crate::share;
use crate::shell::shell_word;
use crate::size::human;
use crate::target::{Consent, Destination, Target};
use crate::term::{self, TextOut};

pub(crate) fn run(args: &DiffArgs, common: &Common) -> Result<Exit, Failure> {
    // The tables of the child suffice, unless an ancestor further down is named.
    let (disk, share) = if let Some(task) = &args.share.task {
        task.open(&args.image, common, &SalvageArgs::only(false)).map(|(disk, share)| (disk, Some(share)))?
    } else if args.allocated && args.ancestor.is_none() {
        (open::disk_so_far(&args.image, common)?, None)
    } else {
        (open::disk(&args.image, common)?, None)
    };
    let ancestor = find_ancestor(&disk, args)?;
    if args.files {
        let before = disk.ancestor(ancestor).ok_or_else(|| Failure::usage("there is no such ancestor"))?;
        return super::files::changes::run(disk, before, args, common);
    }
    let range = share.as_ref().map_or(0..disk.size(), Share::range);
    let work = Work::new(range.end.saturating_sub(range.start), "diff", &args.image, common);
    if args.delta.is_some() {
        // A signal must not leave a partial delta.
        work.listen().map_err(|error| Failure::new(Exit::Io, format!("signal handler: {error}")))?;
    }
    let delta = args.delta.as_ref().map(|path| open_delta(path, &disk, args.force)).transpose()?;
    let output = share::Output::new(args.share.result.as_deref(), disk.layers())?;
    let mut report = Report::begin(args, &disk, ancestor, share.as_ref(), &output)?;
    let options = bulk::scan_options(args.cache, &work);
    let mut failed = None;
    let mut on_change = |change: Change| {
        let written = report.change(&change).and_then(|()| match &delta {
            Some(delta) => write(&disk, &change, delta.file(), args, &work),
            None => Ok(()),
        });
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    };
    let pool = bulk::all_threads(common)?;
    let found = pool.install(|| {
        if args.allocated {
            ops::allocated_changes_in(&disk, ancestor, range.clone(), &mut on_change)
        } else {
            ops::content_changes_in(&disk, ancestor, range.clone(), &options, &mut on_change)
        }
    });
    work.finish();
    if let Some(failure) = failed {
        return report.abort(failure);
    }
    let found = found.map_err(|error| match &error {
        ScanError::Read(error) => Failure::of_one_input(&args.image, error),
        _ => Failure::Interrupted { signal: work.signal().unwrap_or(0) },
    });
    if let Err(failure) = open::fail_if_changed(disk.layers(), found) {
        return report.abort(failure);
    }
    if let Some(signal) = work.signal() {
        return Err(Failure::Interrupted { signal });
    }
    // The delta is of no use without the complete list, so it gets its name after that.
    report.end()?;
    let completed = delta.map_or(Ok(()), |delta| delta.complete(false)).and_then(|()| output.complete());
    // The document is complete: none can follow.
    Ok(completed.map_or_else(Failure::report, |()| Exit::Done))
}

/// Number of the layer of the ancestor.
fn find_ancestor(disk: &Disk, args: &DiffArgs) -> Result<usize, Failure> {
    let Some(path) = &args.ancestor else {
        return match disk.image().kind() {
            ImageKind::Fixed | ImageKind::Dynamic => {
                Err(Failure::usage(format!("{}: has no parent", args.image.display()))
                    .with_hint("compare disks that are not in a chain with `vhdx compare A B`"))
            }
            ImageKind::Differencing if disk.layers().len() == 1 && !args.allocated => {
                Err(Failure::usage(format!("{}: the parent was not searched (--parents none)", args.image.display()))
                    .with_hint("--allocated lists what the child holds without its parent"))
            }
            ImageKind::Differencing => Ok(1),
        };
    };
    let wanted = FileId::of(path).map_err(|error| {
        Failure::new(Exit::NoInput, format!("{}: cannot be opened: {error}", path.display()))
            .with_hint("check the path")
    })?;
    let is_wanted = |layer: &Layer| layer.image().source().id().as_ref() == Some(&wanted);
    match disk.layers().iter().position(is_wanted) {
        Some(0) => Err(Failure::usage(format!("{}: is the image itself", path.display()))),
        Some(layer) => Ok(layer),
        None => Err(Failure::usage(format!("{}: not an ancestor of {}", path.display(), args.image.display()))
            .with_hint(format!("`vhdx chain {}` lists the ancestors", shell_word(&args.image)))),
    }
}

fn open_delta(path: &Path, disk: &Disk, force: bool) -> Result<Target, Failure> {
    let destination = Destination::new(path, disk.layers(), Consent { force, in_place: false })?;
    if !destination.is_file() {
        return Err(Failure::usage(format!("{destination}: not a regular file (expected a file for the delta)")));
    }
    destination.open(disk.size(), 0, false)
}

/// Writes changed bytes at their offsets, zeros included.
fn write(disk: &Disk, change: &Change, file: &File, args: &DiffArgs, work: &Work) -> Result<(), Failure> {
    let uncounted = Uncounted(work);
    let scan = bulk::scan_options(args.cache, work).progress(&uncounted);
    let target = ops::Target::new(file, TargetContent::Zeros).at(change.range.start);
    let options = ExtractOptions::new().scan(scan).sparse(Sparse::Blocks).reflink(Reflink::Never);
    let content = Input::disk(disk).range(change.range.clone());
    match ops::extract_to_file(content, &target, &options) {
        Ok(_) => Ok(()),
        Err(ScanError::Read(error)) => Err(Failure::of_image(&args.image, &error)),
        Err(ScanError::Cancelled) => Err(Failure::Interrupted { signal: work.signal().unwrap_or(0) }),
        Err(error) => {
            let name = args.delta.as_deref().unwrap_or(Path::new("delta"));
            Err(Failure::new(Exit::Io, format!("{}: {error}", name.display())))
        }
    }
}

/// Output of the changes, written as they are found.
struct Report<'o> {
    out: Out<'o>,
    totals: DiffEnd,
}

enum Out<'o> {
    Text(TextOut),
    Json(Listing<Box<dyn Write + Send + 'o>>),
}

impl<'o> Report<'o> {
    fn begin(
        args: &DiffArgs,
        disk: &Disk,
        ancestor: usize,
        share: Option<&Share>,
        output: &'o share::Output,
    ) -> Result<Self, Failure> {
        let out = if args.output.is_json() || args.share.result.is_some() {
            let mode = if args.allocated { DiffMode::Allocated } else { DiffMode::Content };
            let start = DiffStart::of(disk, ancestor, mode);
            let start = share.into_iter().fold(start, |start, share| start.share(report::Share::of(disk, share)));
            Out::Json(Listing::begin(output.stream(), &start, Some("changes"))?)
        } else {
            let (mut out, title) = (term::stdout(), term::TITLE);
            writeln!(out, "{title}{:<18} {:<18} Content{title:#}", "Offset", "Length")?;
            Out::Text(out)
        };
        Ok(Self { out, totals: DiffEnd::default() })
    }

    fn change(&mut self, change: &Change) -> Result<(), Failure> {
        let (start, zero) = (change.range.start, change.is_zero);
        let length = change.range.end.saturating_sub(start);
        self.totals.add(change);
        match &mut self.out {
            Out::Json(listing) => Ok(listing.item(&DiffEntry::of(change))?),
            Out::Text(out) => {
                Ok(writeln!(out, "{start:<#18x} {length:<#18x} {}", if zero { "zeros" } else { "data" })?)
            }
        }
    }

    /// Ends the output of work that failed.
    fn abort(self, failure: Failure) -> Result<Exit, Failure> {
        match self.out {
            Out::Json(listing) => listing.abort(failure),
            Out::Text(_) => Err(failure),
        }
    }

    fn end(self) -> Result<(), Failure> {
        match self.out {
            Out::Json(listing) => Ok(listing.end(&self.totals)?),
            Out::Text(mut out) => {
                writeln!(out, "{} changed", human(self.totals.changed_bytes))?;
                Ok(out.flush()?)
            }
        }
    }
}
