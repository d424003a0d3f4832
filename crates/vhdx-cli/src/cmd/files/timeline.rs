//! `vhdx timeline`: all times of all files.

use std::io::{self, Write};

use vhdx_files::{FileKind, Found, Time, Times, Walk};

use crate::args::{Common, TimelineArgs, TimelineFormat};
use crate::exit::{Exit, Failure};
use crate::files::Opened;
use crate::json;
use crate::term::{escape, write_csv_field};

use super::{ls::below, mode_text};

pub(crate) fn run(args: &TimelineArgs, common: &Common) -> Result<Exit, Failure> {
    let opened = Opened::new(&args.path, args.disk, common)?;
    let node = opened.node()?;
    let mut out = json::stdout();
    let mut exit = Exit::Done;
    if args.format == TimelineFormat::Csv {
        writeln!(out, "datetime,timestamp_desc,path,size,node,mode,uid,gid")?;
    }
    for found in Walk::new(&*opened.volume, node) {
        let found = match found {
            Ok(found) => found,
            Err(unread) => {
                out.flush()?;
                opened.warn(&below(&opened.path, &unread.path), &unread.error);
                exit = Exit::Corrupt;
                continue;
            }
        };
        let path = below(&opened.path, &found.path);
        let target = match found.metadata.kind == FileKind::Link {
            true => opened.volume.link_target(found.node).ok(),
            false => None,
        };
        let mut shown = path;
        if let Some(target) = target {
            shown.extend_from_slice(b" -> ");
            shown.extend_from_slice(&target);
        }
        line(&mut out, args.format, &found, &shown, &found.metadata.times)?;
        if let Some(times) = &found.metadata.name_times {
            shown.extend_from_slice(b" ($FILE_NAME)");
            line(&mut out, args.format, &found, &shown, times)?;
        }
    }
    out.flush()?;
    Ok(exit)
}

fn line(out: &mut impl Write, format: TimelineFormat, found: &Found, path: &[u8], times: &Times) -> io::Result<()> {
    let metadata = &found.metadata;
    let (user, group) = metadata.owner.unwrap_or((0, 0));
    let (mode, node) = (mode_text(metadata), found.node);
    // One line for each file, whatever its name is.
    let name = escape(&String::from_utf8_lossy(path)).replace('|', "\\u{7c}");
    if format == TimelineFormat::Bodyfile {
        let seconds = |time: Option<Time>| time.map_or(0, |time| time.seconds);
        let Times { modified, accessed, changed, created } = *times;
        return writeln!(
            out,
            "0|{name}|{node}|{mode}|{user}|{group}|{}|{}|{}|{}|{}",
            metadata.size,
            seconds(accessed),
            seconds(modified),
            seconds(changed),
            seconds(created)
        );
    }
    for (time, description) in [
        (times.modified, "Content Modification Time"),
        (times.accessed, "Last Access Time"),
        (times.changed, "Metadata Modification Time"),
        (times.created, "Creation Time"),
    ] {
        let Some(time) = time else { continue };
        write_csv_field(out, time.to_string().as_bytes(), true)?;
        for field in [description, &name, &metadata.size.to_string(), &node.to_string(), &mode] {
            write_csv_field(out, field.as_bytes(), false)?;
        }
        writeln!(out, ",{user},{group}")?;
    }
    Ok(())
}
