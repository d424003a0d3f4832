//! `vhdx diff --files`: files that have changed since a checkpoint.

use std::io::Write;
use std::sync::Arc;

use vhdx_files::report::{ChangeRow, FileRow};
use vhdx_files::{ChangeKind, FileChange};
use vhdx_mmap::Disk;

use crate::args::{Common, DiffArgs, JournalArgs};
use crate::exit::{Exit, Failure};
use crate::files::{self, FilePath};
use crate::json;
use crate::term::{self, escape, name_for_output};

/// Lists the files of `disk` that are not as they were in `ancestor`.
pub(crate) fn run(disk: Disk, ancestor: Disk, args: &DiffArgs, common: &Common) -> Result<Exit, Failure> {
    let (now, before) = (Arc::new(disk), Arc::new(ancestor));
    let mut out = json::stdout();
    let (mut exit, mut volumes) = (Exit::Done, 0_u64);
    let old_places = files::places(&before, &args.image)?;
    for place in files::places(&now, &args.image)?.iter().filter(|place| place.is_readable()) {
        let from = FilePath { image: args.image.clone(), part: files::part_name(place), path: Vec::new() };
        let Some(old) = old_places.iter().find(|old| old.is_same(place)) else {
            let text = format!("{}: is new", from.shown(b""));
            term::message("note", term::HINT, &escape(&text));
            continue;
        };
        volumes = volumes.saturating_add(1);
        let journal = JournalArgs { ignore_journal: args.ignore_journal };
        let (new, old) = (files::open_place(place, &from, journal)?, files::open_place(old, &from, journal)?);
        let mut unread = |state: &'static str, unread: vhdx_files::Unread| {
            let text = format!("{} ({state}): {}", from.shown(&unread.path), unread.error);
            term::message("error", term::ERROR, &escape(&text));
            exit = Exit::Corrupt;
        };
        let mut print = |change: FileChange| -> Result<(), Failure> {
            let FileChange { kind, path, from: was, metadata, what, node, .. } = change;
            let absolute = |path: &[u8]| [b"/".as_slice(), path].concat();
            let path = absolute(&path);
            if args.output.is_json() {
                let mut file = FileRow::of_metadata(&path, node, &metadata);
                let warnings = [&new, &old].into_iter().flat_map(|volume| &volume.about().warnings);
                file.volume_warnings = warnings.map(|warning| warning.as_str()).collect();
                let was = was.map(|was| String::from_utf8_lossy(&absolute(&was)).into_owned());
                let logical_volume = place.logical_uuid.as_ref().map(|_| place.name.clone());
                let (change, partition) = (kind.as_str(), place.partition);
                let row = ChangeRow { change, partition, logical_volume, from: was, what, file };
                json::write_line(&mut out, &row)?;
                return Ok(writeln!(out)?);
            }
            let letter = match kind {
                ChangeKind::Added => 'A',
                ChangeKind::Removed => 'D',
                ChangeKind::Changed => 'M',
                ChangeKind::Renamed => 'R',
            };
            write!(out, "{letter} ")?;
            if let Some(was) = was {
                out.write_all(&name_for_output(from.shown(&was).as_bytes()))?;
                write!(out, " -> ")?;
            }
            out.write_all(&name_for_output(from.shown(&path).as_bytes()))?;
            if !what.is_empty() {
                write!(out, "  ({})", what.join(", "))?;
            }
            Ok(writeln!(out)?)
        };
        vhdx_files::changes(&*old, &*new, args.content, &mut unread, &mut print)?;
    }
    out.flush()?;
    if volumes == 0 && !common.quiet {
        let text = format!("{}: no file system that can be read in both states", args.image.display());
        return Err(Failure::new(Exit::Unsupported, text));
    }
    Ok(exit)
}
