//! Salvage: opens damaged images, and reports lost ranges.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::mem::Discriminant;
use std::ops::Range;
use std::path::{Path, PathBuf};

use vhdx_mmap::ops::{self, ExtractOptions, Extracted};
use vhdx_mmap::report::{LossMapEnd, LossMapEntry, LossMapStart};
use vhdx_mmap::{
    Disk, ErrorKind, Input, Loss, OpenOptions, Rule, ScanError, ScanOptions, Severity, Strictness, Warning,
};

use crate::args::{FolderArgs, LossMapFormat, SalvageArgs};
use crate::exit::{Exit, Failure};
use crate::json::Listing;
use crate::size::{counted, human};
use crate::target::{Consent, Destination};
use crate::term::{self, escape};

impl SalvageArgs {
    /// Adds --salvage and --assume to the options.
    pub(crate) fn open_options(&self, options: OpenOptions) -> Result<OpenOptions, Failure> {
        let overrides = self.metadata_overrides().map_err(Failure::usage)?;
        Ok(if self.salvage { options.strictness(Strictness::Salvage).overrides(overrides) } else { options })
    }
}

/// Checks before the work that the loss map can be written: a failing drive may not survive a second pass. The loss map
/// must not be an image, `out`, or the file of standard output.
pub(crate) fn prepare(args: &SalvageArgs, disk: &Disk, out: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = &args.loss_map else { return Ok(()) };
    if out.is_some_and(|out| is_same_file(path, out)) || is_standard_output(path)? {
        return Err(Failure::usage(format!("{}: cannot be both output and loss map", path.display())));
    }
    let destination = loss_map_destination(path, disk)?;
    if destination.is_file() {
        drop(destination.open(0, 0, false)?);
    }
    Ok(())
}

/// Fails if --loss-map is given with several images.
pub(crate) fn reject_several_images(
    args: &SalvageArgs,
    images: &[PathBuf],
    folders: FolderArgs,
) -> Result<(), Failure> {
    if args.loss_map.is_some() && folders.recursive {
        return Err(Failure::usage("--loss-map cannot be combined with --recursive")
            .with_hint("run the command for one image at a time"));
    }
    if args.loss_map.is_some() && images.len() > 1 {
        return Err(Failure::usage(format!("--loss-map: several images (found {}, expected 1)", images.len()))
            .with_hint("run the command for one image at a time"));
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
        _ => Err(Failure::usage(format!("--loss-map {}: not a regular file", path.display()))),
    }
}

/// Whether both paths name the same file, or would if it existed.
fn is_same_file(first: &Path, second: &Path) -> bool {
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let made = || Some(std::fs::canonicalize(folder).ok()?.join(path.file_name()?));
        std::fs::canonicalize(path).ok().or_else(made)
    };
    place(first).is_some_and(|of_first| Some(of_first) == place(second))
}

/// Whether standard output is the file or pipe with this name: the loss map would overwrite the text or follow it.
/// Terminals and /dev/null are allowed, since they keep nothing.
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
#[expect(clippy::unnecessary_wraps, reason = "fallible on Unix, where standard output can be identified")]
fn is_standard_output(_: &Path) -> Result<bool, Failure> {
    Ok(false)
}

/// Reports what is lost of `range`, and returns the exit code: 65 if anything is lost or may be wrong.
pub(crate) fn finish(image: &Path, disk: &Disk, range: Range<u64>, args: &SalvageArgs) -> Result<Exit, Failure> {
    if !args.salvage {
        return Ok(Exit::Done);
    }
    let mut lost = Lost::default();
    let length = range.end.saturating_sub(range.start);
    let mapped = args.loss_map.as_ref().map_or(Ok(()), |path| write_loss_map(path, disk, range.clone(), args));
    disk.losses(range).for_each(|loss| lost.add(&loss));
    // The warnings themselves were printed when the image was opened.
    let content = ops::content_warnings(disk);
    let is_damaged = disk.warnings().any(|(_, warning)| may_be_wrong(warning)) || !content.is_empty();
    // Blocks that no entry of the BAT names belong to no range that is known to be lost.
    let is_unlisted = |rule: Rule| matches!(rule, Rule::LostBlocks | Rule::BitmapUnneeded | Rule::EmptyDisk);
    let may_lack = content.iter().any(|finding| is_unlisted(finding.rule))
        || disk.warnings().any(|(_, warning)| may_be_wrong(warning) && is_unlisted(warning.rule));
    let name = image.display();
    if lost.ranges > 0 {
        let (recovered, ranges) = (human(length.saturating_sub(lost.bytes)), counted(lost.ranges, "range"));
        let text =
            format!("{name}: recovered {recovered} of {}, lost {} in {ranges}", human(length), human(lost.bytes));
        term::message("warning", term::WARNING, &escape(&text));
        for Group { ranges, bytes, first, .. } in &lost.groups {
            let (ranges, bytes) = (counted(*ranges, "range"), human(*bytes));
            let label = if lost.groups.len() > 1 { format!("{bytes} in {ranges}, first") } else { "first".to_owned() };
            term::message("note", term::HINT, &escape(&format!("{label} lost range: {first}")));
        }
    }
    if lost.ranges == 0 && is_damaged && !may_lack {
        let text =
            format!("{name}: recovered all of {}: nothing is lost, but content may be stale or wrong", human(length));
        term::message("warning", term::WARNING, &escape(&text));
    }
    if may_lack {
        let text =
            format!("{name}: content may be missing that no entry of the BAT lists, and content may be stale or wrong");
        term::message("warning", term::WARNING, &escape(&text));
    }
    // What is lost has been said: without the map, the ranges are not known, and the command fails.
    mapped.map(|()| if lost.ranges > 0 || is_damaged { Exit::Corrupt } else { Exit::Done })
}

fn write_loss_map(path: &Path, disk: &Disk, range: Range<u64>, args: &SalvageArgs) -> Result<(), Failure> {
    let destination = loss_map_destination(path, disk)?;
    let target = destination.open(0, 0, false)?;
    let mut out = BufWriter::new(target.file());
    let written = match args.loss_map_format {
        LossMapFormat::Json => write_json(&mut out, disk, range),
        LossMapFormat::Ddrescue => write_mapfile(&mut out, disk, range),
    };
    let written = written.and_then(|()| out.flush());
    written.map_err(|error| {
        Failure::new(Exit::Io, format!("{}: {error}", path.display()))
            .with_hint("`vhdx map --salvage --loss-map FILE` lists the lost ranges again")
    })?;
    drop(out);
    target.complete(false)
}

/// Whether content of an image with this warning may be wrong, although all of it can be read.
fn may_be_wrong(warning: &Warning) -> bool {
    match warning.rule {
        // Only the signature is damaged; everything else was found.
        Rule::Signature => false,
        // Log entries that were not replayed; a disk of size 0 that may have had content.
        Rule::LogEntrySequence | Rule::EmptyDisk => warning.severity >= Severity::Warning,
        _ => warning.severity >= Severity::Unchecked,
    }
}

/// Sum of all losses.
#[derive(Default)]
struct Lost {
    ranges: u64,
    bytes: u64,
    groups: Vec<Group>,
}

/// Lost ranges with reasons of one kind.
struct Group {
    rule: Option<Rule>,
    kind: Discriminant<ErrorKind>,
    ranges: u64,
    bytes: u64,
    first: String,
}

/// Largest number of groups. There are fewer kinds of reasons.
const MOST_GROUPS: usize = 16;

impl Lost {
    fn add(&mut self, loss: &Loss) {
        self.ranges = self.ranges.saturating_add(1);
        let bytes = loss.range.end.saturating_sub(loss.range.start);
        self.bytes = self.bytes.saturating_add(bytes);
        let (rule, kind) = (loss.reason.rule(), std::mem::discriminant(loss.reason.kind()));
        if let Some(group) = self.groups.iter_mut().find(|group| (group.rule, group.kind) == (rule, kind)) {
            group.ranges = group.ranges.saturating_add(1);
            group.bytes = group.bytes.saturating_add(bytes);
        } else if self.groups.len() < MOST_GROUPS {
            self.groups.push(Group { rule, kind, ranges: 1, bytes, first: format!("{:#}", loss.reason) });
        }
    }
}

fn write_json(out: &mut impl Write, disk: &Disk, range: Range<u64>) -> io::Result<()> {
    let mut listing = Listing::begin(out, &LossMapStart::of(disk, range.clone()), Some("losses"))?;
    let mut lost = 0_u64;
    for loss in disk.losses(range.clone()) {
        lost = lost.saturating_add(loss.range.end.saturating_sub(loss.range.start));
        listing.item(&LossMapEntry::of(&loss))?;
    }
    listing.end(&LossMapEnd::of(range, lost))
}

/// Writes a mapfile for GNU ddrescue, which covers the whole range: `+` for bytes that were read, `-` for lost ones.
fn write_mapfile(out: &mut impl Write, disk: &Disk, range: Range<u64>) -> io::Result<()> {
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
        line(at, loss.range.start, '+')?;
        line(loss.range.start, loss.range.end, '-')?;
        at = loss.range.end;
    }
    line(at, range.end, '+')
}

/// Number of bytes per write of filling.
const FILL_CHUNK: usize = 1 << 20;

/// Writes `fill` to the lost ranges in a file that holds `range` of the disk.
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
    let chunk_of = |left: u64| usize::try_from(left).unwrap_or(FILL_CHUNK).min(FILL_CHUNK);
    let filling = vec![fill; chunk_of(length)];
    let mut left = length;
    while left > 0 {
        let step = chunk_of(left);
        out.write_all(filling.get(..step).unwrap_or_default())?;
        left = left.saturating_sub(u64::try_from(step).unwrap_or(left));
    }
    Ok(())
}

/// Writes the disk to a stream, with `fill` for lost ranges. A stream takes bytes in order only, so a first pass finds
/// the ranges that the drive cannot read. `rest` adds the footer to the last part.
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
