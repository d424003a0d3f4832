//! Tips for command lines that other programs would understand.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use crate::shell::shell_word;
use crate::sums;

/// For `version`, and for `-v` alone, which is the option of other commands.
const VERSION: &str = "`vhdx --version` prints the version";

/// Words that people try as a command, and what to do instead.
const TIPS: [(&[&str], &str); 20] = [
    (
        &["dir", "l", "scan", "inventory"],
        "`vhdx list FOLDER` lists the images of a folder; `vhdx ls IMAGE:/` lists the files in a disk",
    ),
    (
        &["fls", "icat", "copy-out", "mactime", "files"],
        "`vhdx ls IMAGE:/` lists the files in a disk; cat, cp, find and timeline do more with them",
    ),
    (&["forest"], "`vhdx chain --tree FOLDER` shows how images depend on each other"),
    (
        &["stat", "show", "inspect", "identify", "open", "file", "blkid", "fsstat", "img_stat", "measure", "get-vhd"],
        "`vhdx info IMAGE` shows what an image is and what is on its disk",
    ),
    (
        &[
            "attach",
            "guestmount",
            "mount-vhd",
            "vhdimount",
            "vdimount",
            "affuse",
            "xmount",
            "losetup",
            "mount-diskimage",
        ],
        "`vhdx mount IMAGE DIR` mounts the disk as a raw file; `vhdx ls IMAGE:/` and `vhdx cp` need no mount",
    ),
    (
        &["unmount", "detach", "guestunmount", "dismount", "dismount-vhd", "dismount-diskimage"],
        "`vhdx umount DIR` unmounts a disk",
    ),
    (&["nbd", "nbdkit", "qemu-nbd", "nbd-server"], "`vhdx serve IMAGE` serves the disk over NBD"),
    (&["version", "ver", "-version"], VERSION),
    (&["-?", "/?", "/h", "usage"], "`vhdx --help` lists all commands"),
    (
        &["dd", "dump", "hexdump", "xxd", "hd", "img_cat"],
        "`vhdx extract IMAGE disk.raw` writes the disk; `vhdx read IMAGE --range 0:512 --hex` shows a part of it",
    ),
    (
        &["export", "unpack", "x", "e", "copy", "clone", "flatten", "apply", "convert-vhd", "merge-vhd"],
        "`vhdx extract IMAGE disk.raw` writes the disk, that of a checkpoint with all of its parents",
    ),
    (
        &["sha256", "sha256sum", "md5", "md5sum", "b3sum", "digest", "checksum", "h"],
        "`vhdx hash IMAGE` prints digests of the disk",
    ),
    (&["cmp"], "`vhdx compare A B` compares two disks"),
    (&["fsck", "test", "validate", "t", "test-vhd"], "`vhdx check IMAGE` lists every problem"),
    (&["snapshot", "snapshots", "checkpoint", "checkpoints", "parents"], "`vhdx chain IMAGE` lists the parents"),
    (
        &["partitions", "parts", "fdisk", "parted", "sfdisk", "lsblk", "mmls", "volumes"],
        "`vhdx info IMAGE` shows the partitions and file systems of the disk",
    ),
    (
        &["undelete", "carve", "photorec", "testdisk", "ntfsundelete"],
        "run `vhdx extract IMAGE disk.raw`, then search the raw disk for files",
    ),
    (&["journal", "replay"], "`vhdx log IMAGE` lists the entries of the log; every command replays them in memory"),
    (&["blocks", "extents", "bat"], "`vhdx map IMAGE` prints the allocation map"),
    (
        &[
            "repair",
            "fix",
            "recover",
            "salvage",
            "create",
            "resize",
            "commit",
            "rebase",
            "compact",
            "defrag",
            "amend",
            "optimize",
            "shrink",
            "new-vhd",
            "resize-vhd",
            "optimize-vhd",
            "ntfsfix",
        ],
        "vhdx never writes to an image; `vhdx extract --salvage IMAGE disk.raw` reads what is left of a damaged one",
    ),
];

/// The failure for a wrong command line, if there is a better tip than a list of all commands.
pub(crate) fn for_usage(error: &clap::Error) -> Option<Failure> {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (word, what) = match error.kind() {
        ErrorKind::InvalidSubcommand => (word(ContextKind::InvalidSubcommand)?, "command"),
        ErrorKind::UnknownArgument => {
            let option = word(ContextKind::InvalidArg)?;
            if let Some(tip) = tip_for_option(option, &args) {
                return Some(Failure::new(Exit::Usage, format!("{option}: unknown option")).with_hint(tip));
            }
            (option, "option")
        }
        ErrorKind::MissingRequiredArgument => {
            let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else { return None };
            return for_missing(missing, &args);
        }
        ErrorKind::MissingSubcommand if std::env::args_os().skip(1).eq(["-v"]) => {
            return Some(Failure::new(Exit::Usage, "-v: a command is missing").with_hint(VERSION));
        }
        _ => return None,
    };
    let tip = if what == "command" && Path::new(word).is_dir() {
        format!("`vhdx list {}` lists the images of the folder", shell_word(Path::new(word)))
    } else if what == "command" && Path::new(word).exists() {
        format!("`vhdx info {}` shows what it is", shell_word(Path::new(word)))
    } else {
        tip(word)?
    };
    Some(Failure::new(Exit::Usage, format!("{word}: unknown {what}")).with_hint(tip))
}

/// Options that people know from other programs: commands that lack them, and what to do instead.
const OPTIONS: [(&[&str], &[&str], &str); 7] = [
    (
        &["hash"],
        &["--sha256", "--sha1", "--md5", "--blake3", "--crc32", "-t", "-m", "-d"],
        "-a names the algorithms: `vhdx hash -a sha256,md5 IMAGE`",
    ),
    (&["extract", "convert"], &["-m", "-j"], "--threads sets the number of threads"),
    (&["extract", "convert"], &["-c", "--compress"], "pack the disk: `vhdx extract IMAGE -` writes it to a pipe"),
    (
        &["extract", "convert"],
        &["-S"],
        "--sparse says which zeros become holes: `vhdx extract --sparse zeros IMAGE OUT`",
    ),
    (
        &["extract", "convert", "compare", "check"],
        &["-t", "-T", "-W"],
        "leave it out; --cache drop spares the page cache",
    ),
    (&["info", "map", "check", "compare"], &["-U", "--force-share"], "leave it out: images are read without locks"),
    (&["extract", "convert"], &["-l", "--snapshot"], "name the file of the checkpoint: `vhdx chain IMAGE` lists them"),
];

fn tip_for_option(option: &str, args: &[OsString]) -> Option<String> {
    let command = args.iter().find_map(|arg| arg.to_str().filter(|arg| !arg.starts_with('-')))?;
    if command == "hash" && ["-c", "--check"].contains(&option) {
        let given = args.iter().skip_while(|arg| *arg != option).nth(1);
        let list = given.map_or_else(|| "LIST".to_owned(), |list| shell_word(Path::new(list)));
        return Some(format!("`vhdx verify --check {list}` compares images with a list of digests"));
    }
    let is_it =
        |(commands, options, _): &&(&[&str], &[&str], &str)| commands.contains(&command) && options.contains(&option);
    OPTIONS.iter().find(is_it).map(|(_, _, tip)| (*tip).to_owned())
}

/// The failure for a command line that lacks something, if it says what was meant.
fn for_missing(missing: &[String], args: &[OsString]) -> Option<Failure> {
    let (command, words) = args.split_first()?;
    let lacks = |name: &str| missing.iter().any(|missing| missing.starts_with(name));
    let mut files = words.iter().map(Path::new).filter(|path| path.is_file());
    let (text, tip) = match command.to_str()? {
        "verify" => match files.clone().find(|path| is_list_of_digests(path)) {
            Some(list) => (
                format!("{}: is a list of digests, not an image", list.display()),
                format!("`vhdx verify --check {}` compares images with the list", shell_word(list)),
            ),
            None => (
                format!("{}: nothing to compare it with (expected --manifest or --check)", files.next()?.display()),
                "`vhdx hash --manifest FILE IMAGE` makes a manifest; `vhdx check IMAGE` looks for damage".to_owned(),
            ),
        },
        name @ ("extract" | "convert") if lacks("<OUT>") => {
            let image = files.next()?;
            let (image, out) = (shell_word(image), shell_word(&image.with_extension("raw")));
            (format!("{name}: no output is named"), format!("`vhdx extract {image} {out}` writes the raw disk"))
        }
        "locate" if lacks("--offset") => (
            "locate: nothing to look for (expected --offset or --loss-map)".to_owned(),
            format!("`vhdx locate --offset 0x100000 {}` names the file that has this byte", shell_word(files.next()?)),
        ),
        "read" if lacks("--range") => {
            let text = "read: no range is named".to_owned();
            (text, format!("`vhdx read {} --range 0:512 --hex` shows the first sector", shell_word(files.next()?)))
        }
        _ => return None,
    };
    Some(Failure::new(Exit::Usage, text).with_hint(tip))
}

/// Whether the beginning of a file is a list of digests.
fn is_list_of_digests(path: &Path) -> bool {
    const BEGINNING: u64 = 1 << 16;

    // To open a pipe would wait for its writer.
    let is_file = path.metadata().is_ok_and(|metadata| metadata.is_file());
    let Some(file) = is_file.then(|| File::open(path).ok()).flatten() else { return false };
    sums::parse(BufReader::new(file.take(BEGINNING)), None).is_ok_and(|found| !found.sums.is_empty())
}

fn tip(word: &str) -> Option<String> {
    let word = word.to_ascii_lowercase();
    if let Some((_, tip)) = TIPS.iter().find(|(words, _)| words.contains(&word.as_str())) {
        return Some((*tip).to_owned());
    }
    // A command as an option: `vhdx --info disk.vhdx`.
    let name = word.trim_start_matches(['-', '/']);
    if name == word {
        return None;
    }
    let command = Cli::command();
    let command = command.find_subcommand(name)?;
    Some(format!("`vhdx {} --help` describes the command", command.get_name()))
}
