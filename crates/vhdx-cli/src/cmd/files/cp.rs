//! `vhdx cp`: copies files out of a disk.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use vhdx_files::{Copied, CopyEvent, CopyOptions, Error, FileKind, Node, Walk};

use crate::args::{Common, CpArgs};
use crate::exit::{Exit, Failure};
use crate::files::{Opened, last_name};
use crate::progress::{Work, without_bars};
use crate::size::{counted, human};
use crate::term::{self, escape, name_for_output};

use super::ls::below;

/// Most messages of one kind; the rest is counted.
const MOST_MESSAGES: u64 = 20;

pub(crate) fn run(args: &CpArgs, common: &Common) -> Result<Exit, Failure> {
    let is_folder = args.target.is_dir();
    if args.paths.len() > 1 && !is_folder {
        let text = format!("{}: is no folder, and there are several files to copy", args.target.display());
        return Err(Failure::usage(text));
    }
    let mut exit = Exit::Done;
    let mut total = Copied::default();
    for argument in &args.paths {
        match copy(argument, args, common, is_folder) {
            Ok((copied, of_files)) => {
                total.add(&copied);
                exit = first_but_for_damage(exit, of_files);
            }
            Err(failure @ Failure::Message { .. }) if args.paths.len() > 1 => {
                exit = first_but_for_damage(exit, failure.report());
            }
            Err(failure) => return Err(failure),
        }
    }
    if !common.quiet && !args.dry_run {
        let files = counted(total.files, "file");
        let directories = counted(total.directories, "directory");
        let failed = if total.failed > 0 { format!("; {} failed", total.failed) } else { String::new() };
        let text = format!("{files} and {directories}, {}{failed}", human(total.bytes));
        term::message("copied", term::HINT, &text);
    }
    Ok(exit)
}

/// The exit code after another result: damage of the disk counts most, since it cannot be mended here.
fn first_but_for_damage(exit: Exit, next: Exit) -> Exit {
    if exit == Exit::Done || next == Exit::Corrupt { next } else { exit }
}

/// Copies what an argument names: what was copied, and the exit code of the files that were not.
fn copy(argument: &OsStr, args: &CpArgs, common: &Common, is_folder: bool) -> Result<(Copied, Exit), Failure> {
    let opened = Opened::new(argument, args.disk, common)?;
    let node = opened.node()?;
    let metadata = opened.volume.metadata(node).map_err(|error| opened.failure(&opened.path, error))?;
    if metadata.kind == FileKind::Directory && !args.recursive {
        let text = format!("{}: is a directory", opened.from.shown(&opened.path));
        return Err(Failure::usage(text).with_hint("pass --recursive (-r) to copy it with everything in it"));
    }
    let name = last_name(&opened.path);
    // The root has no name, so its content goes into the folder itself.
    let target: PathBuf =
        if is_folder && !is_root(&opened.path) { args.target.join(&name) } else { args.target.clone() };
    if args.dry_run {
        let copied = show(&opened, node, &target)?;
        return Ok((copied, if copied.failed > 0 { Exit::Corrupt } else { Exit::Done }));
    }
    let total = if metadata.kind == FileKind::File { metadata.size } else { 0 };
    let work = Work::new(total, "copy", &opened.from.image, common);
    work.listen().map_err(|error| Failure::new(Exit::Io, format!("signal handler: {error}")))?;
    let mut options = CopyOptions::default();
    options.force = args.force;
    options.same_owner = !args.no_same_owner && (args.same_owner || is_root_user());
    options.threads = match common.threads {
        None | Some(0) => std::thread::available_parallelism().map_or(1, usize::from),
        Some(threads) => usize::from(threads),
    };
    let messages = Messages { opened: &opened, target: &target, told: Mutex::default() };
    let copied = vhdx_files::copy(&*opened.volume, node, &target, options, &work, &|event| messages.tell(event));
    work.finish();
    let exit = messages.finish();
    match copied {
        Err(Error::Cancelled) => match work.signal() {
            Some(signal) => Err(Failure::Interrupted { signal }),
            None => Err(Failure::new(Exit::Io, "cancelled")),
        },
        Err(Error::Host(what, cause)) => {
            let failure = Failure::new(Exit::CannotCreate, format!("{what}: cannot be created: {cause}"));
            Err(match cause.kind() {
                io::ErrorKind::AlreadyExists => failure.with_hint("pass --force to replace it"),
                io::ErrorKind::NotFound => failure.with_hint("make the folder above it first"),
                _ => failure,
            })
        }
        Err(error) => Err(opened.failure(&opened.path, error)),
        Ok(copied) => Ok((copied, exit)),
    }
}

/// The path that a file of the copied tree gets here.
fn target_of(target: &Path, path: &[u8]) -> Vec<u8> {
    let mut full = target.as_os_str().as_encoded_bytes().to_vec();
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        full.push(b'/');
        full.extend(vhdx_files::host_name(part));
    }
    full
}

fn is_root(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').all(|part| part.is_empty() || part == b"." || part == b"..")
}

fn is_root_user() -> bool {
    rustix::process::geteuid().is_root()
}

/// Shows what would be copied.
fn show(opened: &Opened, node: Node, target: &Path) -> Result<Copied, Failure> {
    let mut copied = Copied::default();
    for found in Walk::new(&*opened.volume, node) {
        let found = match found {
            Ok(found) => found,
            Err(unread) => {
                opened.warn(&below(&opened.path, &unread.path), &unread.error);
                copied.failed = copied.failed.saturating_add(1);
                continue;
            }
        };
        let path = target_of(target, &found.path);
        let from = opened.from.shown(&below(&opened.path, &found.path));
        let line = [name_for_output(from.as_bytes()).as_ref(), b" -> ", &name_for_output(&path), b"\n"].concat();
        io::Write::write_all(&mut io::stdout(), &line)?;
    }
    Ok(copied)
}

/// Messages on the way, of which not all are printed if they are many.
struct Messages<'m> {
    opened: &'m Opened,
    target: &'m Path,
    told: Mutex<Told>,
}

/// What was told so far.
struct Told {
    renamed: u64,
    left_out: u64,
    /// Files that this system did not take.
    unwritten: u64,
    /// Whether a file was there already.
    has_existing: bool,
    exit: Exit,
}

impl Default for Told {
    fn default() -> Self {
        Self { renamed: 0, left_out: 0, unwritten: 0, has_existing: false, exit: Exit::Done }
    }
}

impl Messages<'_> {
    fn tell(&self, event: CopyEvent<'_>) {
        let path = |path: &[u8]| self.opened.from.shown(&below(&self.opened.path, path));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, text) = match event {
            // Every damaged file is told: this list is what a rescue needs.
            CopyEvent::Failed(at, error) => return self.failed(&mut told, at, &error),
            CopyEvent::Renamed(at, name) => {
                let text = match at.ends_with(name) {
                    true => format!("{}: written so, since its name has characters that no name can have", path(at)),
                    false => format!("{}: is called {} here", path(at), String::from_utf8_lossy(name)),
                };
                (&mut told.renamed, text)
            }
            CopyEvent::LeftOut(at, why) => (&mut told.left_out, format!("{}: left out: {why}", path(at))),
        };
        *count = count.saturating_add(1);
        if *count <= MOST_MESSAGES {
            without_bars(|| term::message("note", term::HINT, &escape(&text)));
        }
    }

    /// Names a file that could not be read, or not be written here, and keeps the exit code.
    fn failed(&self, told: &mut Told, at: &[u8], error: &Error) {
        let Error::Host(what, cause) = error else {
            told.exit = first_but_for_damage(told.exit, Exit::Corrupt);
            return without_bars(|| self.opened.warn(&below(&self.opened.path, at), error));
        };
        told.has_existing |= cause.kind() == io::ErrorKind::AlreadyExists;
        told.exit = first_but_for_damage(told.exit, exit_of_host(cause));
        told.unwritten = told.unwritten.saturating_add(1);
        if told.unwritten <= MOST_MESSAGES {
            let target = target_of(self.target, at);
            let text = format!("{}: {what}: {cause}", String::from_utf8_lossy(&target));
            without_bars(|| term::message("error", term::ERROR, &escape(&text)));
        }
    }

    /// Prints the numbers of files that were not named, and returns the exit code.
    fn finish(&self) -> Exit {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.has_existing {
            term::message("hint", term::HINT, "pass --force to replace files that are there");
        }
        for (count, what) in [
            (told.unwritten, "could not be written"),
            (told.renamed, "have other names here"),
            (told.left_out, "were left out"),
        ] {
            let more = count.saturating_sub(MOST_MESSAGES);
            if more > 0 {
                term::message("note", term::HINT, &format!("{} more {what}", counted(more, "file")));
            }
        }
        told.exit
    }
}

/// The exit code of what this system did not do.
fn exit_of_host(cause: &io::Error) -> Exit {
    match cause.kind() {
        io::ErrorKind::AlreadyExists
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::ReadOnlyFilesystem => Exit::CannotCreate,
        _ => Exit::Io,
    }
}
