//! `vhdx locate`: the files that lie in ranges of the disk.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use vhdx_files::report::{FileRow, LocateRow, LocatedRange};
use vhdx_files::{Owner, Place, Storage, Unread};
use vhdx_mmap::Disk;
use vhdx_mmap::report::LossMap;

use crate::args::{Common, JournalArgs, LocateArgs};
use crate::exit::{Exit, Failure};
use crate::files::{self, FilePath};
use crate::json;
use crate::shell::shell_word;
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
    for place in files::places(&disk, &args.image)? {
        search.place(&place, &ranges)?;
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
    let places = if lost.is_empty() { Ok(Vec::new()) } else { files::places(disk, image) };
    let (mut names, mut count, mut unknown) = (Vec::new(), 0_u64, 0_u64);
    for place in places.iter().flatten().filter(|place| place.is_readable()) {
        let from = FilePath { image: image.to_path_buf(), part: files::part_name(place), path: Vec::new() };
        let inside = place.storage.as_ref().map(|storage| storage.within(&lost)).unwrap_or_default();
        let Ok(volume) = files::open_place(place, &from, JournalArgs { ignore_journal: false }) else {
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
        let Ok(()) = vhdx_files::locate(&*volume, &inside, &mut unread, &mut visit);
    }
    if count > 0 {
        let text = format!("{}: {} damaged:", image.display(), counted(count, "file"));
        term::message("warning", term::WARNING, &escape(&text));
        for name in &names {
            term::message("note", term::HINT, &escape(name));
        }
        if count > u64::try_from(names.len()).unwrap_or(u64::MAX) {
            let text = format!("`vhdx locate --salvage --loss-map FILE {}` names the others", shell_word(image));
            term::message("hint", term::HINT, &escape(&text));
        }
    }
    if unknown > 0 {
        let text =
            format!("{}: of {} it is not known whether they are damaged", image.display(), counted(unknown, "file"));
        term::message("note", term::HINT, &escape(&text));
    }
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
    fn place(&mut self, place: &Place, ranges: &[Range<u64>]) -> Result<(), Failure> {
        let Some(storage) = place.storage.as_ref().ok().filter(|_| place.is_readable()) else { return Ok(()) };
        let inside = storage.within(ranges);
        if inside.is_empty() {
            return Ok(());
        }
        let from = FilePath { image: self.args.image.clone(), part: files::part_name(place), path: Vec::new() };
        let volume = files::open_place(place, &from, self.args.disk.journal)?;
        let warnings: Vec<&'static str> = volume.about().warnings.iter().map(|warning| warning.as_str()).collect();
        let mut unknown = 0_u64;
        let mut unread = |unread: Unread| {
            unknown = unknown.saturating_add(1);
            let text = format!("{}: {}", from.shown(&unread.path), unread.error);
            term::message("warning", term::WARNING, &escape(&text));
        };
        let located = vhdx_files::locate(&*volume, &inside, &mut unread, &mut |owner| {
            self.print(place, storage, &from, &warnings, owner)
        });
        self.unknown = self.unknown.saturating_add(unknown);
        located
    }

    fn print(
        &mut self,
        place: &Place,
        storage: &Storage,
        from: &FilePath,
        warnings: &[&'static str],
        owner: Owner,
    ) -> Result<(), Failure> {
        self.files = self.files.saturating_add(1);
        let Owner { found, stream, parts, .. } = owner;
        let path = [b"/".as_slice(), &found.path].concat();
        if self.args.output.is_json() {
            let ranges = parts.iter().flat_map(|(start, at, length)| {
                storage.in_disk(*at..at.saturating_add(*length)).map(move |(inside, range)| LocatedRange {
                    start: start.saturating_add(inside.saturating_sub(*at)),
                    length: range.end.saturating_sub(range.start),
                    offset: range.start,
                })
            });
            let mut file = FileRow::of_metadata(&path, found.node, &found.metadata);
            file.volume_warnings = warnings.to_vec();
            let logical_volume = place.logical_uuid.as_ref().map(|_| place.name.clone());
            let partition = place.partition;
            let located = LocateRow { partition, logical_volume, file, stream, ranges: ranges.collect() };
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
