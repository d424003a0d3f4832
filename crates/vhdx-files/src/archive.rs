//! Trees as a stream in the format of tar.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;

use tar::{Builder, EntryType, Header};
use vhdx_mmap::Progress;

use crate::content::Content;
use crate::error::{Error, Result};
use crate::volume::{FileKind, Metadata, Node, Volume};
use crate::walk::{Found, Unread, Walk};

/// Largest numbers of users and groups in a header: seven octal digits.
const MOST_IN_HEADER: u32 = 0o777_7777;

/// Writes a file, or a directory with everything in it, as a stream in the format of tar (POSIX.1-2001, pax), with
/// `name` as the name of its beginning; empty for the root. No name in the stream leads elsewhere ([`Found::path`]),
/// and none occurs twice. Owners, modes, times in nanoseconds, links and extended attributes are kept; holes become
/// zeros. Returns the number of files and directories.
///
/// What cannot be read goes to `unread`, and is left out, unless it fails in the midst of its content: then the stream
/// ends with an error, for there is no way to take back what was written.
///
/// # Errors
/// Fails if `out` fails, and with what was said above.
pub fn write_tar(
    volume: &dyn Volume,
    from: Node,
    name: &[u8],
    out: impl Write,
    progress: &dyn Progress,
    unread: &mut dyn FnMut(Unread),
) -> Result<u64> {
    let mut archive = Builder::new(out);
    let mut links: HashMap<Node, Vec<u8>> = HashMap::new();
    let mut count = 0_u64;
    // Names so far in each directory on the way: of two files of one name, who unpacks them may follow one to write the
    // other.
    let mut names: Vec<HashSet<Vec<u8>>> = Vec::new();
    let mut walk = Walk::new(volume, from);
    while let Some(found) = walk.next() {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                unread(error);
                continue;
            }
        };
        names.resize_with(found.depth.saturating_add(1), HashSet::new);
        if names.last_mut().is_some_and(|names| !names.insert(found.path.clone())) {
            walk.skip_directory();
            let error = Error::damaged(volume.about().kind, "a directory has this name twice");
            unread(Unread { path: found.path, error });
            continue;
        }
        let path: Vec<u8> = match (name.is_empty(), found.path.is_empty()) {
            (true, true) => b".".to_vec(),
            (true, false) => found.path.clone(),
            (false, true) => name.to_vec(),
            (false, false) => [name, found.path.as_slice()].join(&b'/'),
        };
        match append(volume, &mut archive, &mut links, &found, path, progress) {
            Ok(true) => count = count.saturating_add(1),
            Ok(false) => {}
            Err(Failed::Before(error)) => unread(Unread { path: found.path, error }),
            Err(Failed::Within(error)) => return Err(error),
        }
    }
    archive.finish().map_err(output)?;
    Ok(count)
}

/// What failed: something that can be left out, or the stream.
enum Failed {
    Before(Error),
    Within(Error),
}

fn output(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::Host("the archive cannot be written".to_owned(), error),
    }
}

fn append(
    volume: &dyn Volume,
    archive: &mut Builder<impl Write>,
    links: &mut HashMap<Node, Vec<u8>>,
    found: &Found,
    path: Vec<u8>,
    progress: &dyn Progress,
) -> std::result::Result<bool, Failed> {
    let (node, metadata) = (found.node, &found.metadata);
    let mut header = Header::new_ustar();
    let mut records: Vec<(String, Vec<u8>)> = vec![("path".to_owned(), path.clone())];
    describe(metadata, &mut header, &mut records);
    for attribute in volume.attributes(node).map_err(Failed::Before)? {
        let name = String::from_utf8_lossy(&attribute.name).into_owned();
        records.push((format!("SCHILY.xattr.{name}"), attribute.value));
    }
    let mut content = None;
    let first = links.get(&node).filter(|_| metadata.kind != FileKind::Directory);
    let kind = match metadata.kind {
        _ if first.is_some() => {
            records.push(("linkpath".to_owned(), first.cloned().unwrap_or_default()));
            EntryType::Link
        }
        FileKind::File => {
            let opened = volume.open(node, None).map_err(Failed::Before)?;
            header.set_size(opened.size());
            if opened.size() > 0o777_7777_7777 {
                records.push(("size".to_owned(), opened.size().to_string().into_bytes()));
            }
            content = Some(opened);
            EntryType::Regular
        }
        FileKind::Directory => EntryType::Directory,
        FileKind::Link => {
            records.push(("linkpath".to_owned(), volume.link_target(node).map_err(Failed::Before)?));
            EntryType::Symlink
        }
        FileKind::CharacterDevice => EntryType::Char,
        FileKind::BlockDevice => EntryType::Block,
        FileKind::Pipe => EntryType::Fifo,
        FileKind::Socket | FileKind::Other => return Ok(false),
    };
    header.set_entry_type(kind);
    let within = |error| Failed::Within(output(error));
    let pairs = records.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    archive.append_pax_extensions(pairs).map_err(within)?;
    // Readers of the records above do not look at the name in the header; others see the end of a long one.
    let start = path.len().saturating_sub(99);
    let short: Vec<u8> = path.get(start..).unwrap_or_default().to_vec();
    if let Some(field) = header.as_mut_bytes().get_mut(..short.len()) {
        field.copy_from_slice(&short);
    }
    header.set_cksum();
    match &content {
        Some(content) => archive.append(&header, ContentReader { content, at: 0, progress }).map_err(within)?,
        None => archive.append(&header, io::empty()).map_err(within)?,
    }
    if metadata.links.is_some_and(|links| links > 1) && first.is_none() {
        links.insert(node, path);
    }
    Ok(true)
}

fn describe(metadata: &Metadata, header: &mut Header, records: &mut Vec<(String, Vec<u8>)>) {
    let default = if metadata.kind == FileKind::Directory { 0o755 } else { 0o644 };
    header.set_mode(metadata.mode.unwrap_or(default));
    header.set_size(0);
    let (user, group) = metadata.owner.unwrap_or((0, 0));
    for (id, key, is_user) in [(user, "uid", true), (group, "gid", false)] {
        let shown = u64::from(if id > MOST_IN_HEADER { 0 } else { id });
        if is_user {
            header.set_uid(shown)
        } else {
            header.set_gid(shown)
        }
        if id > MOST_IN_HEADER {
            records.push((key.to_owned(), id.to_string().into_bytes()));
        }
    }
    if let Some((major, minor)) = metadata.device {
        // Both exist in a header of this kind, so setting them cannot fail.
        drop(header.set_device_major(major));
        drop(header.set_device_minor(minor));
    }
    let times =
        [("mtime", metadata.times.modified), ("atime", metadata.times.accessed), ("ctime", metadata.times.changed)];
    for (key, time) in times {
        let Some(time) = time else { continue };
        if key == "mtime" {
            header.set_mtime(u64::try_from(time.seconds).unwrap_or(0));
        }
        records.push((key.to_owned(), decimal(time.seconds, time.nanoseconds).into_bytes()));
    }
}

/// A time as pax writes it: a decimal number of seconds, which is negative before 1970.
fn decimal(seconds: i64, nanoseconds: u32) -> String {
    match (seconds < 0, nanoseconds) {
        (_, 0) => seconds.to_string(),
        (false, _) => format!("{seconds}.{nanoseconds:09}"),
        (true, _) => {
            let (whole, part) = (seconds.saturating_add(1), 1_000_000_000_u32.saturating_sub(nanoseconds));
            format!("-{}.{part:09}", whole.unsigned_abs())
        }
    }
}

/// Content as a stream.
struct ContentReader<'c, 'v> {
    content: &'c Content<'v>,
    at: u64,
    progress: &'c dyn Progress,
}

impl Read for ContentReader<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read_at(buffer, self.at).map_err(io::Error::other)?;
        let length = u64::try_from(read).unwrap_or(u64::MAX);
        self.at = self.at.saturating_add(length);
        match self.progress.advance(length) {
            ControlFlow::Continue(()) => Ok(read),
            ControlFlow::Break(()) => Err(io::Error::other(Error::Cancelled)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn times_of_pax() {
        assert_eq!(decimal(5, 0), "5");
        assert_eq!(decimal(5, 70), "5.000000070");
        // A quarter of a second before 1970, and one and a quarter.
        assert_eq!(decimal(-1, 750_000_000), "-0.250000000");
        assert_eq!(decimal(-2, 750_000_000), "-1.250000000");
        assert_eq!(decimal(-2, 0), "-2");
    }
}
