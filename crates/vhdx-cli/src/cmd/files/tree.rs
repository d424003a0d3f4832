//! `vhdx tree`: directories in a disk as a tree.

use std::io::Write;

use vhdx_files::{Entry, FileKind, Node};

use crate::args::{Common, TreeArgs};
use crate::exit::{Exit, Failure};
use crate::files::Opened;
use crate::json;
use crate::size::counted;
use crate::term::name_for_output;

use super::{is_hidden, ls::below};

pub(crate) fn run(args: &TreeArgs, common: &Common) -> Result<Exit, Failure> {
    let opened = Opened::new(&args.path, args.disk, common)?;
    let node = opened.node()?;
    let metadata = opened.volume.metadata(node).map_err(|error| opened.failure(&opened.path, error))?;
    if metadata.kind != FileKind::Directory {
        return Err(opened.not_directory());
    }
    let mut out = json::stdout();
    out.write_all(&name_for_output(opened.from.shown(&opened.path).as_bytes()))?;
    writeln!(out)?;
    let mut tree = Tree { args, opened: &opened, out, directories: 0, files: 0, exit: Exit::Done };
    let mut way = vec![node];
    tree.branch(&mut way, &opened.path, "")?;
    let (directories, files) = (tree.directories, tree.files);
    let directories = if directories == 1 { "1 directory".to_owned() } else { format!("{directories} directories") };
    writeln!(tree.out, "\n{directories}, {}", counted(files, "file"))?;
    tree.out.flush()?;
    Ok(tree.exit)
}

struct Tree<'t, W> {
    args: &'t TreeArgs,
    opened: &'t Opened,
    out: W,
    directories: u64,
    files: u64,
    exit: Exit,
}

impl<W: Write> Tree<'_, W> {
    /// Shows what is in the last directory of the way.
    fn branch(&mut self, way: &mut Vec<Node>, path: &[u8], before: &str) -> Result<(), Failure> {
        let Some(directory) = way.last().copied() else { return Ok(()) };
        let mut entries: Vec<Entry> = match self.opened.volume.entries(directory) {
            Ok(entries) => entries.into_iter().filter(|entry| !is_hidden(&entry.name, self.args.all)).collect(),
            Err(error) => {
                self.out.flush()?;
                self.opened.warn(path, &error);
                self.exit = Exit::Corrupt;
                return Ok(());
            }
        };
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let count = entries.len();
        for (number, entry) in entries.into_iter().enumerate() {
            let is_last = number.saturating_add(1) == count;
            write!(self.out, "{before}{} ", if is_last { "└──" } else { "├──" })?;
            self.out.write_all(&name_for_output(&entry.name))?;
            let path = below(path, &entry.name);
            let kind = entry.kind.map_or_else(|| Ok(self.opened.volume.metadata(entry.node)?.kind), Ok);
            let kind = match kind {
                Ok(kind) => kind,
                Err(error) => {
                    writeln!(self.out)?;
                    self.out.flush()?;
                    self.opened.warn(&path, &error);
                    self.exit = Exit::Corrupt;
                    continue;
                }
            };
            let mut failed = None;
            if kind == FileKind::Link {
                match self.opened.volume.link_target(entry.node) {
                    Ok(target) => {
                        write!(self.out, " -> ")?;
                        self.out.write_all(&name_for_output(&target))?;
                    }
                    Err(error) => failed = Some(error),
                }
            }
            writeln!(self.out)?;
            if let Some(error) = failed {
                self.out.flush()?;
                self.opened.warn(&path, &error);
                self.exit = Exit::Corrupt;
            }
            if kind != FileKind::Directory {
                self.files = self.files.saturating_add(1);
                continue;
            }
            self.directories = self.directories.saturating_add(1);
            // A directory that is on the way to itself is damage, and would have no end.
            let is_loop = way.contains(&entry.node) || way.len() > MOST_LEVELS;
            if !is_loop && self.args.level.is_none_or(|level| way.len() < level) {
                way.push(entry.node);
                let before = format!("{before}{}", if is_last { "    " } else { "│   " });
                self.branch(way, &path, &before)?;
                way.pop();
            }
        }
        Ok(())
    }
}

/// Most levels that are shown.
const MOST_LEVELS: usize = 256;
