//! `vhdx locate`: the files that lie in ranges of the disk.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use vhdx_files::report::{FileRow, LocateRow, LocatedRange};
use vhdx_files::{Owner, Unread};
use vhdx_mmap::Disk;
use vhdx_mmap::report::LossMap;

use crate::args::{Common, JournalArgs, LocateArgs};
use crate::exit::{Exit, Failure};
use crate::files::{self, FilePath, Part};
use crate::json;
use crate::size::{counted, human};
use crate::term::{self, escape, name_for_output};

pub(crate) fn run(args: &LocateArgs, common: &Common) -> Result<Exit, Failure> {
    let disk = files::disk(&args.image, args.disk, common)?;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for offset in &args.offset {
        if *offset >= disk.size() {
            return Err(Failure::usage(format!("--offset: past the end of the disk ({} bytes)", disk.size())));
        }
        ranges.push(*offset..offset.saturating_add(1));
    }
    if let Some(path) = &args.loss_map {
        ranges.extend(lost(path)?);
    }
    let mut search = Search { args, files: 0, unknown: 0, out: json::stdout() };
    for part in files::parts(&disk, &args.image)? {
        search.part(&disk, &part, &ranges)?;
    }
    search.out.flush()?;
    let (files, is_loss) = (search.files, args.loss_map.is_some());
    if !args.output.is_json() && !common.quiet {
        let found = counted(files, "file");
        let text = if is_loss { format!("{found} damaged") } else { format!("{found} found") };
        term::message("found", term::HINT, &text);
        if search.unknown > 0 {
            let text = format!("of {} it is not known where they lie", counted(search.unknown, "file"));
            term::message("note", term::HINT, &text);
        }
    }
    Ok(if is_loss && files > 0 { Exit::Corrupt } else { Exit::Done })
}

/// Names that are shown of damaged files; the others are counted.
const MOST_NAMES: usize = 20;

/// Says which files lie in the lost ranges of a salvaged disk.
pub(crate) fn tell_damaged(disk: &Arc<Disk>, image: &Path, range: Range<u64>) {
    let lost: Vec<Range<u64>> = disk.losses(range).map(|loss| loss.range).take(1 << 20).collect();
    // Of an empty list, no file system needs to be opened.
    let parts = if lost.is_empty() { Ok(Vec::new()) } else { files::parts(disk, image) };
    let (mut names, mut count, mut unknown) = (Vec::new(), 0_u64, 0_u64);
    for part in parts.iter().flatten().filter(|part| part.is_readable()) {
        let place = part.number.map(|number| number.to_string());
        let from = FilePath { image: image.to_path_buf(), part: place, path: Vec::new() };
        let Ok(volume) = files::open_part(disk, part, &from, JournalArgs { ignore_journal: false }) else {
            unknown = unknown.saturating_add(1);
            continue;
        };
        let mut unread = |_: Unread| unknown = unknown.saturating_add(1);
        let mut visit = |owner: Owner| -> Result<(), std::convert::Infallible> {
            count = count.saturating_add(1);
            if names.len() < MOST_NAMES {
                names.push(from.shown(&owner.found.path));
            }
            Ok(())
        };
        let Ok(()) = vhdx_files::locate(&*volume, &within(&lost, part), &mut unread, &mut visit);
    }
    if count > 0 {
        let text = format!("{}: {} damaged:", image.display(), counted(count, "file"));
        term::message("warning", term::WARNING, &escape(&text));
        for name in &names {
            term::message("note", term::HINT, &escape(name));
        }
        if count > u64::try_from(names.len()).unwrap_or(u64::MAX) {
            let text = format!("`vhdx locate --salvage --loss-map FILE {}` names the others", image.display());
            term::message("hint", term::HINT, &escape(&text));
        }
    }
    if unknown > 0 {
        let text =
            format!("{}: of {} it is not known whether they are damaged", image.display(), counted(unknown, "file"));
        term::message("note", term::HINT, &escape(&text));
    }
}

/// Ranges of the disk as far as they lie in a part of it, counted from its beginning.
fn within(ranges: &[Range<u64>], part: &Part) -> Vec<Range<u64>> {
    let end = part.start.saturating_add(part.length);
    ranges
        .iter()
        .map(|range| range.start.max(part.start)..range.end.min(end))
        .filter(|range| range.start < range.end)
        .map(|range| range.start.saturating_sub(part.start)..range.end.saturating_sub(part.start))
        .collect()
}

/// The lost ranges of a loss map.
fn lost(path: &Path) -> Result<Vec<Range<u64>>, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::NoInput, format!("{}: cannot be read as a loss map: {error}", path.display()))
            .with_hint("name the file that `vhdx extract --salvage --loss-map FILE` wrote, as JSON")
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let map: LossMap = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    Ok(map.losses.iter().map(|loss| loss.start..loss.start.saturating_add(loss.length)).collect())
}

struct Search<'s, W> {
    args: &'s LocateArgs,
    files: u64,
    unknown: u64,
    out: W,
}

impl<W: Write> Search<'_, W> {
    fn part(&mut self, disk: &Arc<Disk>, part: &Part, ranges: &[Range<u64>]) -> Result<(), Failure> {
        let inside = within(ranges, part);
        if inside.is_empty() || !part.is_readable() {
            return Ok(());
        }
        let place = part.number.map(|number| number.to_string());
        let from = FilePath { image: self.args.image.clone(), part: place, path: Vec::new() };
        let volume = files::open_part(disk, part, &from, self.args.disk.journal)?;
        let warnings: Vec<&'static str> = volume.about().warnings.iter().map(|warning| warning.as_str()).collect();
        let mut unknown = 0_u64;
        let mut unread = |unread: Unread| {
            unknown = unknown.saturating_add(1);
            let text = format!("{}: {}", from.shown(&unread.path), unread.error);
            term::message("warning", term::WARNING, &escape(&text));
        };
        let located =
            vhdx_files::locate(&*volume, &inside, &mut unread, &mut |owner| self.print(part, &from, &warnings, owner));
        self.unknown = self.unknown.saturating_add(unknown);
        located
    }

    fn print(&mut self, part: &Part, from: &FilePath, warnings: &[&'static str], owner: Owner) -> Result<(), Failure> {
        self.files = self.files.saturating_add(1);
        let Owner { found, stream, parts, .. } = owner;
        let path = [b"/".as_slice(), &found.path].concat();
        if self.args.output.is_json() {
            let ranges = parts.iter().map(|(start, at, length)| LocatedRange {
                start: *start,
                length: *length,
                offset: part.start.saturating_add(*at),
            });
            let mut file = FileRow::of_metadata(&path, found.node, &found.metadata);
            file.volume_warnings = warnings.to_vec();
            let located = LocateRow { partition: part.number, file, stream, ranges: ranges.collect() };
            json::write_line(&mut self.out, &located)?;
            return Ok(writeln!(self.out)?);
        }
        self.out.write_all(&name_for_output(from.shown(&path).as_bytes()))?;
        if let Some(stream) = stream {
            write!(self.out, ":{}", escape(&stream))?;
        }
        let bytes = parts.iter().fold(0_u64, |sum, (_, _, length)| sum.saturating_add(*length));
        let first = parts.first().map_or(0, |(start, ..)| *start);
        Ok(writeln!(self.out, "  {} from byte {first} of {}", human(bytes), human(found.metadata.size))?)
    }
}
