//! What a command does with an image that is damaged: it opens what can be opened, and tells what is lost.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use vhdx_mmap::ops::{self, ExtractOptions, Extracted};
use vhdx_mmap::report::{LossMapEnd, LossMapEntry, LossMapStart};
use vhdx_mmap::{Disk, Input, Loss, OpenOptions, Rule, ScanError, ScanOptions, Severity, Strictness, Warning};

use crate::args::{LossMapFormat, SalvageArgs};
use crate::exit::{Exit, Failure};
use crate::json::Listing;
use crate::size::human;
use crate::target::{Consent, Destination};
use crate::term::{self, escape};

impl SalvageArgs {
    /// These options, for what the user wants to be salvaged.
    pub(crate) fn open_options(&self, options: OpenOptions) -> Result<OpenOptions, Failure> {
        let assumed = self.assumed()?;
        Ok(if self.salvage { options.strictness(Strictness::Salvage).assumed(assumed) } else { options })
    }
}

/// Finds out, before the work, that there will be a place for the loss map: what a failing medium has lost is known only
/// once. It is neither an image nor `out`, nor what standard output goes to.
pub(crate) fn prepare(args: &SalvageArgs, disk: &Disk, out: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = &args.loss_map else { return Ok(()) };
    if out.is_some_and(|out| is_same_place(path, out)) || is_standard_output(path)? {
        return Err(Failure::usage(format!("{}: can't be the output and the loss map", path.display())));
    }
    let destination = loss_map_destination(path, disk)?;
    if destination.is_file() {
        drop(destination.open(0, 0, false)?);
    }
    Ok(())
}

/// A loss map is of one image.
pub(crate) fn refuse_several(args: &SalvageArgs, images: &[PathBuf]) -> Result<(), Failure> {
    if args.loss_map.is_some() && images.len() > 1 {
        return Err(Failure::usage("--loss-map: is of one image").with_hint("salvage one after the other"));
    }
    Ok(())
}

fn loss_map_destination(path: &Path, disk: &Disk) -> Result<Destination, Failure> {
    let destination = match path.to_str() {
        Some("-") => None,
        _ => Some(Destination::new(path, disk.layers(), Consent { force: true, in_place: false })?),
    };
    match destination {
        Some(destination) if !matches!(destination, Destination::Device(_)) => Ok(destination),
        _ => Err(Failure::usage(format!("--loss-map {}: is no file", path.display()))),
    }
}

/// Whether both are, or would be, the same file.
fn is_same_place(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let made = || Some(std::fs::canonicalize(folder).ok()?.join(path.file_name()?));
        std::fs::canonicalize(path).ok().or_else(made)
    };
    place(one).is_some_and(|place_of_one| Some(place_of_one) == place(other))
}

/// Whether what is printed goes to the file or pipe that has this name: the map would take its place, or come behind it. Of a terminal, or
/// where nothing is kept, nothing is lost by that.
#[cfg(unix)]
fn is_standard_output(path: &Path) -> Result<bool, Failure> {
    use std::os::unix::fs::FileTypeExt;

    use vhdx_mmap::FileId;

    use crate::target::standard_output;

    let output = standard_output()?;
    let keeps = !output.metadata()?.file_type().is_char_device();
    Ok(keeps && FileId::of(path).is_ok_and(|place| FileId::of_open(&output).is_ok_and(|output| output == place)))
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "on Unix, standard output tells which file it is")]
fn is_standard_output(_: &Path) -> Result<bool, Failure> {
    Ok(false)
}

/// Tells what of `range` is lost, and how the command has to end: with 65 where anything is, or where what was read may be
/// other than it was.
pub(crate) fn finish(image: &Path, disk: &Disk, range: Range<u64>, args: &SalvageArgs) -> Result<Exit, Failure> {
    if !args.salvage {
        return Ok(Exit::Done);
    }
    let mut lost = Lost::default();
    match &args.loss_map {
        Some(path) => {
            let destination = loss_map_destination(path, disk)?;
            let target = destination.open(0, 0, false)?;
            let mut out = BufWriter::new(target.file());
            let written = match args.loss_map_format {
                LossMapFormat::Json => write_json(&mut out, disk, range, &mut lost),
                LossMapFormat::Ddrescue => write_mapfile(&mut out, disk, range, &mut lost),
            };
            let written = written.and_then(|()| out.flush());
            written.map_err(|error| Failure::new(Exit::Io, format!("{}: {error}", path.display())))?;
            drop(out);
            target.complete(false)?;
        }
        None => disk.losses(range).for_each(|loss| lost.add(&loss)),
    }
    // What is wrong with the structures was told when the image was opened.
    let is_damaged = disk.warnings().any(|(_, warning)| may_be_wrong(warning)) || !ops::shared_blocks(disk).is_empty();
    if lost.ranges > 0 {
        let text = format!("{}: {} in {} ranges are lost", image.display(), human(lost.bytes), lost.ranges);
        term::tell("warning", term::WARNING, &escape(&text));
        if let Some(first) = lost.first {
            term::tell("note", term::HINT, &escape(&format!("the first of them: {first}")));
        }
    }
    if lost.ranges == 0 && is_damaged {
        let text = format!("{}: nothing is lost, but what was read may be stale or wrong", image.display());
        term::tell("warning", term::WARNING, &escape(&text));
    }
    Ok(if lost.ranges > 0 || is_damaged { Exit::Corrupt } else { Exit::Done })
}

/// Whether what is read of an image may be other than it was, though all of it can be read.
fn may_be_wrong(warning: &Warning) -> bool {
    match warning.rule {
        // Whatever the beginning of the file says: everything that counts was found.
        Rule::Signature => false,
        // Changes in the log that were not made; a disk that may have had a size.
        Rule::LogEntrySequence | Rule::EmptyDisk => warning.severity >= Severity::Warning,
        _ => warning.severity >= Severity::Unchecked,
    }
}

/// What is lost, in all.
#[derive(Default)]
struct Lost {
    ranges: u64,
    bytes: u64,
    first: Option<String>,
}

impl Lost {
    fn add(&mut self, loss: &Loss) {
        self.ranges = self.ranges.saturating_add(1);
        self.bytes = self.bytes.saturating_add(loss.range.end.saturating_sub(loss.range.start));
        self.first.get_or_insert_with(|| loss.reason.to_string());
    }
}

fn write_json(out: &mut impl Write, disk: &Disk, range: Range<u64>, lost: &mut Lost) -> io::Result<()> {
    let mut listing = Listing::begin(out, &LossMapStart::of(disk, range.clone()), Some("losses"))?;
    for loss in disk.losses(range) {
        lost.add(&loss);
        listing.item(&LossMapEntry::of(&loss))?;
    }
    listing.end(&LossMapEnd::of(lost.bytes))
}

/// A mapfile, as GNU ddrescue reads it: every byte of the range has a line, `+` for what was read, `-` for what is lost.
fn write_mapfile(out: &mut impl Write, disk: &Disk, range: Range<u64>, lost: &mut Lost) -> io::Result<()> {
    writeln!(out, "# Mapfile. Created by vhdx")?;
    writeln!(out, "# current_pos  current_status  current_pass")?;
    writeln!(out, "{:#010x}     +               1", range.end)?;
    writeln!(out, "#      pos        size  status")?;
    let mut line = |start: u64, end: u64, status: char| {
        if end > start {
            writeln!(out, "{start:#010x}  {:#010x}  {status}", end.saturating_sub(start))?;
        }
        io::Result::Ok(())
    };
    let mut at = range.start;
    for loss in disk.losses(range.clone()) {
        lost.add(&loss);
        line(at, loss.range.start, '+')?;
        line(loss.range.start, loss.range.end, '-')?;
        at = loss.range.end;
    }
    line(at, range.end, '+')
}

/// How many bytes are filled with one call.
const FILLED_AT_ONCE: usize = 1 << 20;

/// Writes `fill` to what is lost of `range`, in a file that has the range from its beginning on.
pub(crate) fn fill(disk: &Disk, range: Range<u64>, fill: u8, file: &File) -> io::Result<()> {
    if fill == 0 {
        return Ok(());
    }
    let mut out = file;
    for loss in disk.losses(range.clone()) {
        out.seek(SeekFrom::Start(loss.range.start.saturating_sub(range.start)))?;
        write_filling(out, fill, loss.range.end.saturating_sub(loss.range.start))?;
    }
    Ok(())
}

fn write_filling(mut out: &File, fill: u8, length: u64) -> io::Result<()> {
    let at_once = |left: u64| usize::try_from(left).unwrap_or(FILLED_AT_ONCE).min(FILLED_AT_ONCE);
    let filling = vec![fill; at_once(length)];
    let mut left = length;
    while left > 0 {
        let step = at_once(left);
        out.write_all(filling.get(..step).unwrap_or_default())?;
        left = left.saturating_sub(u64::try_from(step).unwrap_or(left));
    }
    Ok(())
}

/// Writes the disk with `fill` for what is lost to a stream, which takes bytes in order: what the medium does not give is
/// found out before. `rest` makes the content of the last part, with what comes behind the disk.
pub(crate) fn fill_stream<'c>(
    disk: &'c Disk,
    range: Range<u64>,
    rest: impl FnOnce(Input<'c>) -> Input<'c>,
    fill: u8,
    file: &File,
    options: &ExtractOptions<'_>,
) -> Result<Extracted, ScanError> {
    Input::disk(disk).range(range.clone()).scan(&ScanOptions::new(), |_, _| (), |_, _| ())?;
    let mut at = range.start;
    for loss in disk.losses(range.clone()) {
        ops::extract_to_stream(Input::disk(disk).range(at..loss.range.start), file, options)?;
        write_filling(file, fill, loss.range.end.saturating_sub(loss.range.start)).map_err(ScanError::Write)?;
        at = loss.range.end;
    }
    ops::extract_to_stream(rest(Input::disk(disk).range(at..range.end)), file, options)
}
