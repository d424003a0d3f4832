//! Paths inside disks, and the volumes that they lead to.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vhdx_files::{Error, Node, Place, Volume};
use vhdx_mmap::Disk;
use vhdx_mmap::ops::Volume as Kind;
use vhdx_mmap::report::path_of_bytes;

use crate::args::{Common, DiskArgs, JournalArgs, SalvageArgs};
use crate::exit::{Exit, Failure};
use crate::open;
use crate::shell::shell_word;
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
        let text = format!("{}: {}", self.from.shown(path), reason(error));
        term::message("error", term::ERROR, &escape(&text));
    }

    /// The failure of a path that is no directory.
    pub(crate) fn not_directory(&self) -> Failure {
        self.failure(&self.path, Error::NotDirectory(self.path.clone()))
    }
}

/// An error of something whose path is printed beside it.
fn reason(error: &Error) -> String {
    match error {
        Error::NotFound(_) => "no such file or directory".to_owned(),
        Error::NotDirectory(_) => "is not a directory".to_owned(),
        Error::NotFile(_) => "is not a regular file".to_owned(),
        Error::LinkLoop(_) => "symbolic links lead to one another".to_owned(),
        error => format!("{error:#}"),
    }
}

/// The failure of something at a path of a volume.
pub(crate) fn failure(from: &FilePath, path: &[u8], error: Error) -> Failure {
    let text = format!("{}: {}", from.shown(path), reason(&error));
    match error {
        Error::Disk(error) => Failure::of_image(&from.image, &error),
        Error::NotFound(_) => {
            let root = shell_word(Path::new(&from.shown(b"")));
            Failure::new(Exit::NoInput, text).with_hint(format!("`vhdx ls {root}` lists what is there"))
        }
        Error::NotDirectory(_) | Error::NotFile(_) => Failure::new(Exit::NoInput, text),
        Error::FileSystem { is_unsupported: true, .. } => Failure::new(Exit::Unsupported, text),
        Error::NoFileSystem { found } => no_file_system(from, found),
        Error::Cancelled => Failure::new(Exit::Io, text),
        Error::Host(what, cause) => Failure::new(Exit::Io, format!("{what}: {cause}")),
        _ => Failure::new(Exit::Corrupt, text),
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
        Some(Kind::Udf) => {
            failure.with_hint("extract the disk, and mount it (`mount -t udf -o loop,ro`), or list it with `7z l`")
        }
        Some(Kind::Hfs | Kind::HfsPlus | Kind::Hfsx) => {
            failure.with_hint("extract the disk, and mount it (`mount -t hfsplus -o loop,ro`), or list it with `7z l`")
        }
        Some(Kind::Lvm | Kind::MdRaid | Kind::Zfs) => {
            failure.with_hint("extract the disk, attach it with losetup, and let the system assemble it")
        }
        _ => failure.with_hint(format!("`vhdx info {}` shows what is on the disk", shell_word(&from.image))),
    }
}

/// Opens the disk of a path. It is read piece by piece: structures of file systems are small and far apart, and what is
/// mapped counts as memory.
pub(crate) fn disk(image: &Path, args: DiskArgs, common: &Common) -> Result<Arc<Disk>, Failure> {
    let mut common = common.clone();
    common.no_mmap = true;
    Ok(Arc::new(open::salvaged(image, &common, &SalvageArgs::only(args.salvage))?))
}

/// A place in words: `partition 2 (ext4, 40 GiB)`, `rhel/root (XFS, 35 GiB)`.
fn shown(place: &Place) -> String {
    let kind = place.kind.map_or("unknown", Kind::as_str);
    let which = match place.partition {
        Some(number) => format!("partition {number}"),
        None if place.logical_uuid.is_some() => place.name.clone(),
        None => "the whole disk".to_owned(),
    };
    format!("{which} ({kind}, {})", short(place.size))
}

/// What names a place in a path: `2`, `rhel/root`; none for the whole disk.
pub(crate) fn part_name(place: &Place) -> Option<String> {
    let number = place.partition.map(|number| number.to_string());
    number.or_else(|| place.logical_uuid.as_ref().map(|_| place.name.clone()))
}

/// The places where file systems can be: the partitions, or else the whole disk, and logical volumes.
pub(crate) fn places(disk: &Arc<Disk>, image: &Path) -> Result<Vec<Place>, Failure> {
    let from = FilePath { image: image.to_path_buf(), part: None, path: Vec::new() };
    vhdx_files::places(disk).map_err(|error| failure(&from, b"", error))
}

/// Opens the volume that a path asks for: the named one, or the only or largest that can be read.
pub(crate) fn open_volume(
    disk: &Arc<Disk>,
    from: &FilePath,
    journal: JournalArgs,
    common: &Common,
) -> Result<Box<dyn Volume>, Failure> {
    let places = places(disk, &from.image)?;
    let place = match &from.part {
        Some(wanted) => named(&places, wanted, from)?,
        None => largest(&places, from, common)?,
    };
    if let Some(note) = place.note.as_ref().filter(|_| !common.quiet) {
        let text = format!("{}: {}: {note}", from.image.display(), shown(place));
        term::message("note", term::HINT, &escape(&text));
    }
    open_place(place, from, journal)
}

/// Opens the volume on a place of a disk, and prints what users have to know of it.
pub(crate) fn open_place(place: &Place, from: &FilePath, journal: JournalArgs) -> Result<Box<dyn Volume>, Failure> {
    let storage = place.storage.as_ref().map_err(|error| refusal(place, error, from))?;
    let volume = vhdx_files::open_with(storage.clone(), &journal.options()).map_err(|error| {
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

/// The failure of a place that cannot be read.
pub(crate) fn refusal(place: &Place, error: &Error, from: &FilePath) -> Failure {
    let exit = match error {
        Error::FileSystem { is_unsupported: true, .. } => Exit::Unsupported,
        Error::Disk(error) => error.category().into(),
        _ => Exit::Corrupt,
    };
    let failure = Failure::new(exit, format!("{}: {}: {error:#}", from.image.display(), shown(place)));
    if exit == Exit::Unsupported {
        failure.with_hint("extract the disk, attach it with losetup, and let the system assemble it")
    } else {
        failure
    }
}

fn largest<'p>(places: &'p [Place], from: &FilePath, common: &Common) -> Result<&'p Place, Failure> {
    let readable: Vec<&Place> = places.iter().filter(|place| place.is_readable()).collect();
    let Some(largest) = readable.iter().max_by_key(|place| place.size) else {
        return Err(none_readable(places, from));
    };
    if readable.len() > 1 && !common.quiet {
        let text = format!(
            "{}: {} is taken, the largest of {} file systems; IMAGE:PART:/path names another",
            from.image.display(),
            shown(largest),
            readable.len(),
        );
        term::message("note", term::HINT, &escape(&text));
    }
    Ok(largest)
}

/// Says why there is no file system to be read: a place that was refused, or else what was found.
fn none_readable(places: &[Place], from: &FilePath) -> Failure {
    let refused = places.iter().filter(|place| place.storage.is_err()).max_by_key(|place| place.size);
    if let Some((place, error)) = refused.and_then(|place| Some((place, place.storage.as_ref().err()?))) {
        return refusal(place, error, from);
    }
    let found = places.iter().filter(|place| place.kind.is_some()).max_by_key(|place| place.size);
    no_file_system(from, found.and_then(|place| place.kind))
}

fn named<'p>(places: &'p [Place], wanted: &str, from: &FilePath) -> Result<&'p Place, Failure> {
    let number = wanted.strip_prefix("part").unwrap_or(wanted).parse::<u32>().ok();
    let by_number = places.iter().find(|place| number.is_some() && place.partition == number);
    let found: Vec<&Place> = match by_number {
        Some(place) => vec![place],
        None => places.iter().filter(|place| is_called(place, wanted)).collect(),
    };
    // Where Windows has its letters from is not on the disk; C: is the volume that it starts from, by all likelihood.
    let by_letter = || {
        let windows = places.iter().filter(|place| place.kind == Some(Kind::Ntfs));
        if wanted.eq_ignore_ascii_case("c") { windows.max_by_key(|place| place.size) } else { None }
    };
    let list = |places: &[&Place]| places.iter().map(|place| shown(place)).collect::<Vec<_>>().join(", ");
    match found.as_slice() {
        [place] => inside(places, place, from),
        [] => by_letter().ok_or_else(|| {
            let known: Vec<&Place> = places.iter().collect();
            Failure::new(Exit::NoInput, format!("{}: has no partition or volume {wanted}", from.image.display()))
                .with_hint(format!("there are: {}", list(&known)))
        }),
        several => {
            let text = format!("{}: {wanted} is the name of {}", from.image.display(), list(several));
            Err(Failure::new(Exit::Usage, text).with_hint("name one by its number or its UUID, or as GROUP/NAME"))
        }
    }
}

/// Whether a place has a name: that of the partition, the label or the UUID of what it holds; of a logical volume also
/// `GROUP/NAME`, `GROUP-NAME` as in `/dev/mapper`, its name, or its UUID.
fn is_called(place: &Place, wanted: &str) -> bool {
    let is = |text: &str| !text.is_empty() && text.eq_ignore_ascii_case(wanted);
    let is_known = is(&place.name)
        || [&place.label, &place.uuid, &place.logical_uuid].iter().any(|text| text.as_deref().is_some_and(is));
    let is_logical = place.logical_name().is_some_and(|(group, name)| {
        let doubled = |text: &str| text.replace('-', "--");
        name == wanted || wanted == format!("{}-{}", doubled(group), doubled(name))
    });
    is_known || is_logical
}

/// What is read of a place: of a physical volume of LVM2, the only logical one that can be.
fn inside<'p>(places: &'p [Place], place: &'p Place, from: &FilePath) -> Result<&'p Place, Failure> {
    if place.kind != Some(Kind::Lvm) || place.storage.is_err() {
        return Ok(place);
    }
    let logical: Vec<&Place> = places.iter().filter(|place| place.logical_uuid.is_some()).collect();
    let readable: Vec<&Place> = logical.iter().copied().filter(|place| place.is_readable()).collect();
    match readable.as_slice() {
        [one] => Ok(one),
        _ => {
            let text = format!("{}: {} has no file system of its own", from.image.display(), shown(place));
            let known: Vec<String> = logical.iter().map(|place| shown(place)).collect();
            let failure = Failure::new(Exit::NoInput, text);
            Err(if known.is_empty() {
                failure
            } else {
                failure.with_hint(format!("name one of its volumes: {}", known.join(", ")))
            })
        }
    }
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
