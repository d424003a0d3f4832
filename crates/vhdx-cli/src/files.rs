//! Paths inside disks, and the volumes that they lead to.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vhdx_files::{Error, Node, Volume};
use vhdx_mmap::ops::{self, Volume as Kind};
use vhdx_mmap::report::path_of_bytes;
use vhdx_mmap::{Disk, DiskRange};

use crate::args::{Common, DiskArgs, JournalArgs, SalvageArgs};
use crate::exit::{Exit, Failure};
use crate::open;
use crate::size::short;
use crate::term::{self, escape};

/// `IMAGE`, `IMAGE:PATH` or `IMAGE:PART:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePath {
    pub(crate) image: PathBuf,
    pub(crate) part: Option<String>,
    /// The path inside the volume, as it was written.
    pub(crate) path: Vec<u8>,
}

impl FilePath {
    /// Splits an argument. A file whose own name has colons is found by being there.
    pub(crate) fn parse(argument: &OsStr) -> Self {
        let bytes = argument.as_encoded_bytes();
        let colons: Vec<usize> =
            bytes.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at).collect();
        let image_of = |end: usize| path_of_bytes(bytes.get(..end).unwrap_or_default().to_vec());
        // The letter of a drive of Windows belongs to the path of the image.
        let is_drive = |end: usize| cfg!(windows) && end == 1;
        let ends = || colons.iter().copied().filter(|end| !is_drive(*end));
        let end = ends().find(|end| image_of(*end).is_file());
        let end = end.or_else(|| if PathBuf::from(argument).exists() { None } else { ends().next() });
        let Some(end) = end else {
            return Self { image: argument.into(), part: None, path: Vec::new() };
        };
        let rest = bytes.get(end.saturating_add(1)..).unwrap_or_default();
        let is_path = rest.first().is_none_or(|first| matches!(first, b'/' | b'\\'));
        let colon = rest.iter().position(|byte| *byte == b':').filter(|_| !is_path);
        let (part, path) = match colon {
            Some(colon) => {
                let (part, path) = rest.split_at(colon);
                (Some(String::from_utf8_lossy(part).into_owned()), path.get(1..).unwrap_or_default())
            }
            None => (None, rest),
        };
        Self { image: image_of(end), part: part.filter(|part| !part.is_empty()), path: path.to_vec() }
    }

    /// The argument again, with another path.
    pub(crate) fn shown(&self, path: &[u8]) -> String {
        let part = self.part.as_ref().map(|part| format!(":{part}")).unwrap_or_default();
        format!("{}{part}:/{}", self.image.display(), String::from_utf8_lossy(path).trim_start_matches('/'))
    }
}

/// A volume of a disk, opened.
pub(crate) struct Opened {
    pub(crate) from: FilePath,
    pub(crate) volume: Box<dyn Volume>,
    /// The path inside the volume, with `/` between its parts.
    pub(crate) path: Vec<u8>,
}

impl Opened {
    /// Opens the volume of a path.
    pub(crate) fn new(argument: &OsStr, args: DiskArgs, common: &Common) -> Result<Self, Failure> {
        let from = FilePath::parse(argument);
        let disk = disk(&from.image, args, common)?;
        let volume = open_volume(&disk, &from, args.journal, common)?;
        let has_backslashes = volume.about().ignores_case;
        let path = from.path.iter().map(|byte| if has_backslashes && *byte == b'\\' { b'/' } else { *byte }).collect();
        Ok(Self { from, volume, path })
    }

    /// Finds what the path names; a link that it ends with is followed.
    pub(crate) fn node(&self) -> Result<Node, Failure> {
        vhdx_files::lookup(&*self.volume, &self.path).map_err(|error| self.failure(&self.path, error))
    }

    /// The failure of something in this volume.
    pub(crate) fn failure(&self, path: &[u8], error: Error) -> Failure {
        failure(&self.from, path, error)
    }

    /// Prints what could not be read, and goes on.
    pub(crate) fn warn(&self, path: &[u8], error: &Error) {
        let text = match error {
            Error::NotFound(_) | Error::NotDirectory(_) | Error::NotFile(_) => error.to_string(),
            error => format!("{}: {error}", self.from.shown(path)),
        };
        term::message("error", term::ERROR, &escape(&text));
    }
}

/// The failure of something at a path of a volume.
pub(crate) fn failure(from: &FilePath, path: &[u8], error: Error) -> Failure {
    let shown = from.shown(path);
    match error {
        Error::Disk(error) => Failure::of_image(&from.image, &error),
        Error::NotFound(_) => Failure::new(Exit::NoInput, format!("{shown}: no such file or directory"))
            .with_hint(format!("`vhdx ls {}` lists what is there", from.shown(b""))),
        Error::NotDirectory(_) => Failure::new(Exit::NoInput, format!("{shown}: is not a directory")),
        Error::NotFile(_) => Failure::new(Exit::NoInput, format!("{shown}: is not a regular file")),
        Error::LinkLoop(_) => Failure::new(Exit::Corrupt, format!("{shown}: symbolic links lead to one another")),
        Error::FileSystem { is_unsupported: true, .. } => Failure::new(Exit::Unsupported, format!("{shown}: {error}")),
        Error::NoFileSystem { found } => no_file_system(from, found),
        Error::Cancelled => Failure::new(Exit::Io, format!("{shown}: cancelled")),
        Error::Host(what, cause) => Failure::new(Exit::Io, format!("{what}: {cause}")),
        error => Failure::new(Exit::Corrupt, format!("{shown}: {error}")),
    }
}

fn no_file_system(from: &FilePath, found: Option<Kind>) -> Failure {
    let image = from.image.display();
    let what = match found {
        Some(found) => format!("{image}: no file system that can be read (found {})", found.as_str()),
        None => format!("{image}: no file system that can be read was found"),
    };
    let failure = Failure::new(Exit::Unsupported, what);
    match found {
        Some(Kind::Luks) => {
            failure.with_hint("extract the disk, and open the volume with `cryptsetup open --readonly`")
        }
        Some(Kind::BitLocker) => {
            failure.with_hint("extract the disk, and open the volume with `cryptsetup bitlkOpen` or dislocker")
        }
        Some(Kind::Lvm | Kind::MdRaid | Kind::Zfs) => {
            failure.with_hint("extract the disk, attach it with losetup, and let the system assemble it")
        }
        _ => failure.with_hint(format!("`vhdx info {image}` shows what is on the disk")),
    }
}

/// Opens the disk of a path. It is read piece by piece: structures of file systems are small and far apart, and what is
/// mapped counts as memory.
pub(crate) fn disk(image: &Path, args: DiskArgs, common: &Common) -> Result<Arc<Disk>, Failure> {
    let mut common = common.clone();
    common.no_mmap = true;
    Ok(Arc::new(open::salvaged(image, &common, &SalvageArgs::only(args.salvage))?))
}

/// A place on a disk where a file system can be.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Number of the partition; none for the whole disk.
    pub(crate) number: Option<u32>,
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) kind: Option<Kind>,
    pub(crate) label: Option<String>,
    uuid: Option<String>,
    name: String,
}

impl Part {
    /// Whether it holds a file system whose files can be read.
    pub(crate) fn is_readable(&self) -> bool {
        self.kind.is_some_and(vhdx_files::can_read)
    }

    pub(crate) fn range(&self, disk: &Arc<Disk>) -> vhdx_mmap::Result<DiskRange<Arc<Disk>>> {
        // Partitions can claim more than the disk has.
        let end = self.start.saturating_add(self.length).min(disk.size());
        DiskRange::new(Arc::clone(disk), self.start.min(end)..end)
    }

    /// In words: `partition 2 (ext4, 40 GiB)`.
    fn shown(&self) -> String {
        let kind = self.kind.map_or("unknown", Kind::as_str);
        let place = self.number.map_or_else(|| "the whole disk".to_owned(), |number| format!("partition {number}"));
        format!("{place} ({kind}, {})", short(self.length))
    }
}

/// The places where file systems can be: the partitions, or else the whole disk.
pub(crate) fn parts(disk: &Disk, image: &Path) -> Result<Vec<Part>, Failure> {
    let layout = ops::detect(disk).map_err(|error| Failure::of_image(image, &error))?;
    let mut parts = Vec::new();
    for partition in layout.partition_table.iter().flat_map(|table| &table.partitions) {
        let details = partition.details.clone().unwrap_or_default();
        parts.push(Part {
            number: Some(partition.number),
            start: partition.start,
            length: partition.length,
            kind: partition.volume,
            label: details.label,
            uuid: details.uuid,
            name: partition.name.clone(),
        });
    }
    if parts.is_empty() || layout.volume.is_some() {
        let details = layout.details.unwrap_or_default();
        parts.push(Part {
            number: None,
            start: 0,
            length: disk.size(),
            kind: layout.volume,
            label: details.label,
            uuid: details.uuid,
            name: String::new(),
        });
    }
    Ok(parts)
}

/// Opens the volume that a path asks for: the named one, or the only or largest that can be read.
pub(crate) fn open_volume(
    disk: &Arc<Disk>,
    from: &FilePath,
    journal: JournalArgs,
    common: &Common,
) -> Result<Box<dyn Volume>, Failure> {
    let parts = parts(disk, &from.image)?;
    let part = match &from.part {
        Some(wanted) => named(&parts, wanted, from)?,
        None => largest(&parts, from, common)?,
    };
    open_part(disk, part, from, journal)
}

/// Opens the volume on a part of a disk, and prints what users have to know of it.
pub(crate) fn open_part(
    disk: &Arc<Disk>,
    part: &Part,
    from: &FilePath,
    journal: JournalArgs,
) -> Result<Box<dyn Volume>, Failure> {
    let range = part.range(disk).map_err(|error| Failure::of_image(&from.image, &error))?;
    let volume = vhdx_files::open_with(range, &journal.options()).map_err(|error| {
        let names_journal = |reason: &str| reason.contains("journal") || reason.contains("log");
        let is_of_journal =
            !journal.ignore_journal && matches!(&error, Error::FileSystem { reason, .. } if names_journal(reason));
        let failure = failure(from, b"", error);
        if is_of_journal {
            failure.with_hint("--ignore-journal reads the file system as it is on the disk; files can be outdated then")
        } else {
            failure
        }
    })?;
    for warning in &volume.about().warnings {
        let text = format!("{}: {warning}", from.shown(b""));
        term::message("warning", term::WARNING, &escape(&text));
    }
    Ok(volume)
}

fn largest<'p>(parts: &'p [Part], from: &FilePath, common: &Common) -> Result<&'p Part, Failure> {
    let readable: Vec<&Part> = parts.iter().filter(|part| part.is_readable()).collect();
    let Some(largest) = readable.iter().max_by_key(|part| part.length) else {
        let found = parts.iter().filter(|part| part.kind.is_some()).max_by_key(|part| part.length);
        return Err(no_file_system(from, found.and_then(|part| part.kind)));
    };
    if readable.len() > 1 && !common.quiet {
        let text = format!(
            "{}: {} is taken, the largest of {} file systems; IMAGE:PART:/path names another",
            from.image.display(),
            largest.shown(),
            readable.len(),
        );
        term::message("note", term::HINT, &escape(&text));
    }
    Ok(largest)
}

fn named<'p>(parts: &'p [Part], wanted: &str, from: &FilePath) -> Result<&'p Part, Failure> {
    let number = wanted.strip_prefix("part").unwrap_or(wanted).parse::<u32>().ok();
    let is = |text: &str| !text.is_empty() && text.eq_ignore_ascii_case(wanted);
    let by_number = || parts.iter().find(|part| number.is_some() && part.number == number);
    let by_name = || {
        parts.iter().find(|part| {
            is(&part.name) || part.label.as_deref().is_some_and(is) || part.uuid.as_deref().is_some_and(is)
        })
    };
    // Where Windows has its letters from is not on the disk; C: is the volume that it starts from, by all likelihood.
    let by_letter = || {
        let windows = parts.iter().filter(|part| part.kind == Some(Kind::Ntfs));
        if wanted.eq_ignore_ascii_case("c") { windows.max_by_key(|part| part.length) } else { None }
    };
    by_number().or_else(by_name).or_else(by_letter).ok_or_else(|| {
        let known: Vec<String> = parts.iter().map(Part::shown).collect();
        Failure::new(Exit::NoInput, format!("{}: has no partition {wanted}", from.image.display()))
            .with_hint(format!("there are: {}", known.join(", ")))
    })
}

/// Removes what a shell or a person put behind the name of a directory.
pub(crate) fn last_name(path: &[u8]) -> OsString {
    let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let last = parts.next_back().unwrap_or_default();
    path_of_bytes(vhdx_files::host_name(last)).into_os_string()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::FilePath;

    #[test]
    fn arguments_are_split_at_colons() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("a:b.vhdx");
        std::fs::write(&image, "").unwrap();
        let image = image.to_str().unwrap();
        for (argument, part, path) in [
            ("", None, ""),
            (":", None, ""),
            (":/", None, "/"),
            (":/etc/passwd", None, "/etc/passwd"),
            (":etc", None, "etc"),
            (":2:/etc", Some("2"), "/etc"),
            (":C:", Some("C"), ""),
            (":C:\\Users", Some("C"), "\\Users"),
            (":/file:stream", None, "/file:stream"),
            (":2:/file:stream", Some("2"), "/file:stream"),
        ] {
            let found = FilePath::parse(OsStr::new(&format!("{image}{argument}")));
            assert_eq!(found.image.to_str(), Some(image), "{argument}");
            assert_eq!((found.part.as_deref(), found.path.as_slice()), (part, path.as_bytes()), "{argument}");
        }
        let missing = FilePath::parse(OsStr::new("missing.vhdx:/etc"));
        assert_eq!((missing.image.to_str(), missing.path.as_slice()), (Some("missing.vhdx"), b"/etc".as_slice()));
    }
}
