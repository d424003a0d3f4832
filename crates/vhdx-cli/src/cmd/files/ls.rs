//! `vhdx ls`: lists files in a disk.

use std::io::{BufWriter, Stdout, Write};

use vhdx_files::report::FileRow;
use vhdx_files::{FileKind, Found, Metadata, Named, Node, Time, Unread, Walk};

use crate::args::{Common, LsArgs, TimeChoice};
use crate::exit::{Exit, Failure};
use crate::files::{FilePath, Opened};
use crate::json;
use crate::size::short;
use crate::term::{name_for_output, write_csv_field};

use super::{is_hidden, mode_text};

pub(crate) fn run(args: &LsArgs, common: &Common) -> Result<Exit, Failure> {
    let mut out = json::stdout();
    let mut list = List { args, out: &mut out, exit: Exit::Done };
    list.begin()?;
    for (number, argument) in args.paths.iter().enumerate() {
        let listed = Opened::new(argument, args.disk, common).and_then(|opened| {
            let node = opened.node()?;
            list.path(&opened, node, number)
        });
        match listed {
            Ok(()) => {}
            Err(failure) => {
                if args.output.is_json() {
                    json::failed_line::<FileRow>(list.out, &FilePath::parse(argument).image, &failure)?;
                }
                if args.paths.len() == 1 || !matches!(failure, Failure::Message { .. }) {
                    return Err(failure);
                }
                list.exit = failure.report();
            }
        }
    }
    list.end()
}

struct List<'l> {
    args: &'l LsArgs,
    out: &'l mut BufWriter<Stdout>,
    exit: Exit,
}

impl List<'_> {
    fn begin(&mut self) -> Result<(), Failure> {
        if self.args.csv {
            writeln!(
                self.out,
                "path,kind,size,allocated,node,modified,accessed,changed,created,mode,uid,gid,links,target"
            )?;
        }
        Ok(())
    }

    fn is_text(&self) -> bool {
        !self.args.csv && !self.args.output.is_json()
    }

    fn path(&mut self, opened: &Opened, node: Node, number: usize) -> Result<(), Failure> {
        let metadata = opened.volume.metadata(node).map_err(|error| opened.failure(&opened.path, error))?;
        let is_directory = metadata.kind == FileKind::Directory;
        if !is_directory {
            return self.row(opened, &opened.path, &opened.path, node, &metadata);
        }
        if self.is_text() && self.args.paths.len() > 1 && !self.args.recursive {
            let before = if number > 0 { "\n" } else { "" };
            write!(self.out, "{before}")?;
            self.out.write_all(&name_for_output(opened.from.shown(&opened.path).as_bytes()))?;
            writeln!(self.out, ":")?;
        }
        let deepest = if self.args.recursive { usize::MAX } else { 1 };
        let mut walk = Walk::new(&*opened.volume, node).deepest(deepest);
        while let Some(found) = self.next(&mut walk) {
            match found {
                Ok((named, _)) if named.depth == 0 => {}
                Ok((named, _)) if is_hidden(&named.name, self.args.all) => walk.skip_directory(),
                Ok((Named { path, name, node, .. }, metadata)) => {
                    let full = below(&opened.path, &path);
                    let shown = if self.args.recursive || !self.is_text() { &full } else { &name };
                    match metadata {
                        Some(metadata) => self.row(opened, shown, &full, node, &metadata)?,
                        None => self.name(shown, None)?,
                    }
                }
                Err(Unread { path, error, .. }) => {
                    self.out.flush()?;
                    opened.warn(&below(&opened.path, &path), &error);
                    self.exit = Exit::Corrupt;
                }
            }
        }
        Ok(())
    }

    /// Returns the next file, with its metadata if that is shown.
    fn next(&self, walk: &mut Walk<'_>) -> Option<Result<(Named, Option<Metadata>), Unread>> {
        if self.is_text() && !self.args.long {
            return walk.next_name().map(|named| named.map(|named| (named, None)));
        }
        walk.next().map(|found| found.map(Found::split).map(|(named, metadata)| (named, Some(metadata))))
    }

    fn name(&mut self, shown: &[u8], target: Option<&[u8]>) -> Result<(), Failure> {
        self.out.write_all(&name_for_output(shown))?;
        if let Some(target) = target {
            self.out.write_all(b" -> ")?;
            self.out.write_all(&name_for_output(target))?;
        }
        Ok(writeln!(self.out)?)
    }

    fn row(
        &mut self,
        opened: &Opened,
        shown: &[u8],
        path: &[u8],
        node: Node,
        metadata: &Metadata,
    ) -> Result<(), Failure> {
        if self.args.output.is_json() {
            let row =
                FileRow::of(&*opened.volume, path, node, metadata).map_err(|error| opened.failure(path, error))?;
            json::write_line(self.out, &row)?;
            writeln!(self.out)?;
            return Ok(());
        }
        let target = if metadata.kind == FileKind::Link && (self.args.long || self.args.csv) {
            Some(opened.volume.link_target(node).map_err(|error| opened.failure(path, error))?)
        } else {
            None
        };
        if self.args.csv {
            return Ok(self.csv(path, node, metadata, target.as_deref().unwrap_or_default())?);
        }
        if self.args.long {
            let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
            let size = match metadata.device {
                Some((major, minor)) => format!("{major}, {minor}"),
                None if self.args.human => short(metadata.size),
                None => metadata.size.to_string(),
            };
            let (user, group) = metadata.owner.unzip();
            let time = chosen(metadata, self.args.time).map_or_else(|| "-".to_owned(), minute);
            write!(
                self.out,
                "{} {:>3} {:>6} {:>6} {size:>12} {time:>16} ",
                mode_text(metadata),
                number(metadata.links),
                number(user),
                number(group),
            )?;
        }
        self.name(shown, target.as_deref())
    }

    fn csv(&mut self, path: &[u8], node: Node, metadata: &Metadata, target: &[u8]) -> std::io::Result<()> {
        let row = FileRow::of_metadata(path, node, metadata);
        let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
        write_csv_field(self.out, &name_for_output(path), true)?;
        let times = row.times;
        for field in [
            row.kind.to_owned(),
            row.size.to_string(),
            row.allocated.map(|size| size.to_string()).unwrap_or_default(),
            row.node.to_string(),
            times.modified.unwrap_or_default(),
            times.accessed.unwrap_or_default(),
            times.changed.unwrap_or_default(),
            times.created.unwrap_or_default(),
            row.mode.unwrap_or_default(),
            number(row.uid),
            number(row.gid),
            number(row.links),
        ] {
            write_csv_field(self.out, field.as_bytes(), false)?;
        }
        write_csv_field(self.out, &name_for_output(target), false)?;
        writeln!(self.out)
    }

    fn end(self) -> Result<Exit, Failure> {
        self.out.flush()?;
        Ok(self.exit)
    }
}

/// A path from the root of the volume: that of the argument, and what was found below it.
pub(super) fn below(begin: &[u8], path: &[u8]) -> Vec<u8> {
    let mut full = vec![b'/'];
    for part in
        begin.split(|byte| *byte == b'/').chain(path.split(|byte| *byte == b'/')).filter(|part| !part.is_empty())
    {
        if full.len() > 1 {
            full.push(b'/');
        }
        full.extend_from_slice(part);
    }
    full
}

fn chosen(metadata: &Metadata, choice: TimeChoice) -> Option<Time> {
    let times = metadata.times;
    match choice {
        TimeChoice::Modified => times.modified,
        TimeChoice::Accessed => times.accessed,
        TimeChoice::Changed => times.changed,
        TimeChoice::Created => times.created,
    }
}

/// A time for people, in UTC: `2026-11-28 19:12`.
pub(super) fn minute(time: Time) -> String {
    let ((year, month, day), (hour, minute, _)) = (time.date(), time.clock());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
}
