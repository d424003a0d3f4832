//! Tips for command lines that other programs would understand.

use std::path::Path;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use crate::hint::shell_word;

/// For `version`, and for `-v` alone, which is the option of other commands.
const VERSION: &str = "`vhdx --version` prints the version";

/// Words that people try as a command, and what to do instead.
const TIPS: [(&[&str], &str); 15] = [
    (
        &["ls", "dir", "find", "scan", "inventory"],
        "`vhdx list FOLDER` lists the images of a folder; `vhdx info IMAGE` shows what is on a disk",
    ),
    (&["tree", "forest"], "`vhdx chain --tree FOLDER` shows how images depend on each other"),
    (
        &["stat", "show", "inspect", "identify", "open"],
        "`vhdx info IMAGE` shows what an image is and what is on its disk",
    ),
    (
        &["mount", "attach", "nbd", "serve"],
        "vhdx does not mount: run `vhdx extract IMAGE disk.raw`, then `mount -o loop,ro disk.raw /mnt`",
    ),
    (&["version", "ver", "-version"], VERSION),
    (&["-?", "/?", "/h", "usage"], "`vhdx --help` lists all commands"),
    (
        &["dd", "cat", "dump", "hexdump", "xxd", "hd"],
        "`vhdx extract IMAGE disk.raw` writes the disk; `vhdx read IMAGE --range 0:512 --hex` shows a part of it",
    ),
    (
        &["export", "unpack", "x", "e", "copy", "cp", "clone", "flatten"],
        "`vhdx extract IMAGE disk.raw` writes the disk",
    ),
    (
        &["sha256", "sha256sum", "md5", "md5sum", "b3sum", "digest", "checksum"],
        "`vhdx hash IMAGE` prints digests of the disk",
    ),
    (&["cmp"], "`vhdx compare A B` compares two disks"),
    (&["fsck", "test", "validate", "t"], "`vhdx check IMAGE` lists every problem"),
    (&["snapshot", "snapshots", "checkpoint", "checkpoints", "parents"], "`vhdx chain IMAGE` lists the parents"),
    (&["journal", "replay"], "`vhdx log IMAGE` lists the entries of the log; every command replays them in memory"),
    (&["blocks", "extents", "bat"], "`vhdx map IMAGE` prints the allocation map"),
    (
        &["repair", "fix", "recover", "salvage", "create", "resize", "commit", "rebase", "compact", "defrag"],
        "vhdx never writes to an image; `vhdx extract --salvage IMAGE disk.raw` reads what is left of a damaged one",
    ),
];

/// The failure for a wrong command line, if there is a better tip than a list of all commands.
pub(crate) fn for_usage(error: &clap::Error) -> Option<Failure> {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    let (word, what) = match error.kind() {
        ErrorKind::InvalidSubcommand => (word(ContextKind::InvalidSubcommand)?, "command"),
        ErrorKind::UnknownArgument => (word(ContextKind::InvalidArg)?, "option"),
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
