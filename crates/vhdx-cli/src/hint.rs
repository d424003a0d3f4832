//! Hints: what the user can do after an error. A hint is never the command that has just failed.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use vhdx_mmap::{Candidate, Category, Error, ErrorKind, ParentRejection, Structure};

use crate::mistaken;
use crate::shell::shell_word;

/// The command that runs.
struct Running {
    name: &'static str,
    is_salvage: bool,
}

static RUNNING: OnceLock<Running> = OnceLock::new();

/// Remembers the command that runs, so that no hint repeats it.
pub(crate) fn set_command(name: &'static str, is_salvage: bool) {
    let _ = RUNNING.set(Running { name, is_salvage });
}

fn is_running(name: &str) -> bool {
    RUNNING.get().is_some_and(|running| running.name == name)
}

#[cfg(unix)]
fn is_loop_of_links(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP)
}

#[cfg(not(unix))]
fn is_loop_of_links(_: &io::Error) -> bool {
    false
}

fn is_salvage() -> bool {
    RUNNING.get().is_some_and(|running| running.is_salvage)
}

/// What to do about damage: salvage the image; if the command does so already, see what is wrong.
fn for_damage(image: &str) -> String {
    if is_salvage() {
        format!("`vhdx check {image}` lists every problem")
    } else {
        format!("`vhdx extract --salvage {image} disk.raw` reads the rest")
    }
}

/// How to pass a value that the image has lost.
fn for_lost_value(image: &str, value: &str) -> String {
    if is_salvage() {
        format!("pass the lost value: --assume {value}")
    } else {
        format!("pass the lost value: `vhdx extract --salvage --assume {value} {image} disk.raw`")
    }
}

/// What to do if a search for the regions has not found exactly one pair.
fn for_search(image: &str, found: &[(Option<u64>, Option<u64>)]) -> String {
    let values = |(metadata, bat): &(Option<u64>, Option<u64>)| {
        let values = [("metadata-offset", metadata), ("bat-offset", bat)];
        let known = values.iter().filter_map(|(name, offset)| Some(format!("{name}={:#x}", (**offset)?)));
        known.collect::<Vec<_>>().join(",")
    };
    match found {
        [(Some(metadata), None)] => {
            let offsets = format!("metadata-offset={metadata:#x},bat-offset=OFFSET");
            format!("{}; if the image is a fixed one: --assume layout=linear", for_lost_value(image, &offsets))
        }
        [_, ..] => {
            let pairs = found.iter().filter(|(_, bat)| bat.is_some());
            let pairs: Vec<String> = pairs.map(|pair| format!("--assume {}", values(pair))).collect();
            match pairs.as_slice() {
                [] => "only one metadata region can be that of the image: --assume metadata-offset=OFFSET,\
                       bat-offset=OFFSET"
                    .to_owned(),
                pairs => format!("at most one pair is that of the image: choose {}", pairs.join(" or ")),
            }
        }
        [] => "give the sizes, if another image or the machine shows them: --assume block-size=SIZE,disk-size=SIZE,\
               sector-size=SIZE; or look for another copy of the file"
            .to_owned(),
    }
}

/// Whether all images of a folder were looked at, as --parents DIR does.
fn searched_folder(tried: &[Candidate]) -> bool {
    tried.iter().any(|candidate| matches!(candidate.rejection, ParentRejection::NoneWithin { .. }))
}

/// What to do about an error of the library in the given image.
pub(crate) fn for_error(image: &Path, error: &Error) -> String {
    let file = error.file().unwrap_or(image);
    let of_layer = shell_word(file);
    let image = shell_word(image);

    let fixed = match (error.kind(), error.structure()) {
        (ErrorKind::DirtyLog { .. }, _) => {
            "--log replay, the default, replays the log in memory; the file is not changed"
        }
        (ErrorKind::NoActiveSequence { .. }, _) if is_running("log") => "--log ignore reads the image without the log",
        (ErrorKind::NoActiveSequence { .. }, _) => {
            return format!("`vhdx log {of_layer}` lists the entries; --log ignore reads the image without them");
        }
        (ErrorKind::ParentNotFound { tried, .. }, _) if searched_folder(tried) => {
            "pass --parent PATH if you know the parent: no image in the searched folder has the identity that the \
             child stores"
        }
        (ErrorKind::ParentNotFound { .. }, _) => {
            "pass --parent PATH, or --parents DIR to search a folder for it, under any name"
        }
        (ErrorKind::NoParentAttached, _) => "pass --parent PATH, or --parents beside to search the folder of the image",
        (ErrorKind::ParentMismatch { tried, .. }, _) if !searched_folder(tried) => {
            "the parent is a different image, or changed after the child was made: pass another one with --parent \
             PATH, or search a folder for it with --parents DIR"
        }
        (ErrorKind::ParentMismatch { .. }, _) => {
            "the parent is a different image, or changed after the child was made: pass another one with --parent PATH"
        }
        (ErrorKind::ChainCycle | ErrorKind::SectorSizeMismatch { .. }, _) if is_running("chain") => {
            "pass the right parent with --parent PATH"
        }
        (ErrorKind::ChainCycle | ErrorKind::SectorSizeMismatch { .. }, _) => {
            return format!("`vhdx chain {image}` shows how each parent was found; --parent PATH passes another one");
        }
        (ErrorKind::NotVhdx { looks_like }, _) => return mistaken::step(file, *looks_like, is_salvage()),
        (ErrorKind::RegionSearch { found }, _) => return for_search(&image, found),
        (ErrorKind::IncompleteFile, _) => "create the image again: the program that made it did not finish",
        (ErrorKind::FileTooShort { .. }, _)
        | (
            ErrorKind::OutOfBounds { .. },
            Structure::File
            | Structure::Log
            | Structure::MetadataRegion
            | Structure::Bat
            | Structure::PayloadBlock(_)
            | Structure::SectorBitmap(_),
        ) => {
            return format!("the file may be truncated: copy all of it again; {}", for_damage(&image));
        }
        (
            _,
            Structure::PayloadBatEntry(_)
            | Structure::BitmapBatEntry(_)
            | Structure::PayloadBlock(_)
            | Structure::SectorBitmap(_),
        ) => return for_damage(&image),
        (ErrorKind::Missing { .. }, Structure::RegionTable(_)) => return for_damage(&image),
        (ErrorKind::Missing { what: "FileParameters" }, _) => return for_lost_value(&image, "block-size=SIZE"),
        (ErrorKind::Missing { what: "VirtualDiskSize" }, _) => return for_lost_value(&image, "disk-size=SIZE"),
        (ErrorKind::Missing { what: "LogicalSectorSize" }, _) => return for_lost_value(&image, "sector-size=SIZE"),
        (ErrorKind::NotAFile { what: "a directory" }, _)
            if ["info", "check", "hash", "verify"].iter().any(|name| is_running(name)) =>
        {
            "pass --recursive (-r) to take all images in this folder"
        }
        (ErrorKind::NotAFile { what: "a directory" }, _) => {
            return format!("name an image in this folder; `vhdx list {image}` lists them");
        }
        (ErrorKind::NotAFile { what: "reached by a symbolic link" }, _) => {
            "name the file by a path without links, or leave out --no-follow"
        }
        (ErrorKind::Open(cause), _) if cause.kind() == io::ErrorKind::NotFound => "check the path",
        (ErrorKind::Open(cause), Structure::Folder) if cause.kind() == io::ErrorKind::Other => {
            return format!("`vhdx list {image}` lists the images in this folder");
        }
        (ErrorKind::Open(_), Structure::Folder) => "name a folder that you have permission to list",
        (ErrorKind::Open(cause), _) if is_loop_of_links(cause) => {
            "these links lead to each other, and to no file: name the file itself"
        }
        (ErrorKind::NotAFile { what: "a pipe" }, _) => "write the image to a file first, and name that",
        (ErrorKind::NotAFile { .. }, _) => "name a file or a block device",
        (ErrorKind::Open(_), _) => "name a file that you have permission to read",
        (ErrorKind::OtherFiles { .. }, _) => {
            "make the plan again: the files are not as they were; if they were only copied or restored, \
             `vhdx plan --no-times` makes one that does not depend on their times"
        }
        (ErrorKind::Lost, _) => "if no program has truncated the file, its drive may be failing: see the system log",
        (ErrorKind::Changed, _) => "stop the program that writes to the image, and try again",
        (ErrorKind::Io(_), _) if is_salvage() => "possible faulty drive, cable or controller: see the system log",
        (ErrorKind::Io(_), _) => return format!("possible faulty drive; {}", for_damage(&image)),
        _ => match error.category() {
            Category::Unsupported => "use a newer version of vhdx, or the program that made the image",
            Category::InvalidInput if is_running("info") => "check the values of the options",
            Category::InvalidInput => return format!("`vhdx info {image}` shows the size of the disk"),
            _ if is_running("check") => return for_damage(&image),
            _ => return format!("`vhdx check {image}` lists every problem"),
        },
    };
    fixed.to_owned()
}
