//! Arguments of the commands that show and copy files inside disks.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vhdx_files::VolumeOptions;

use crate::size::parse_size;

use super::Output;

/// How the disk of a path is opened.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct DiskArgs {
    /// Open a damaged image, too; files in lost ranges cannot be read
    #[arg(long)]
    pub(crate) salvage: bool,
    #[command(flatten)]
    pub(crate) journal: JournalArgs,
}

/// What happens to the journals of file systems.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct JournalArgs {
    /// Leave out the changes in journals of file systems; files can be outdated or damaged
    #[arg(long, aliases = ["noload", "norecovery", "no-replay"])]
    pub(crate) ignore_journal: bool,
}

impl JournalArgs {
    pub(crate) fn options(self) -> VolumeOptions {
        VolumeOptions::new().ignore_journal(self.ignore_journal)
    }
}

/// Which time of a file is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimeChoice {
    Modified,
    Accessed,
    Changed,
    Created,
}

/// List the files in a disk
///
/// A path is IMAGE:/path, in the only or the largest file system of the disk, or IMAGE:PART:/path with the number, the
/// name, the label or the UUID of a partition, GROUP/NAME for a logical volume, or C: for the disk of Windows. Dirty
/// journals are replayed in memory.
///
/// Example: vhdx ls -l ext4.vhdx:/home
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct LsArgs {
    /// Directories or files to list
    #[arg(required = true, value_name = "IMAGE:PATH")]
    pub(crate) paths: Vec<OsString>,
    /// Show permissions, links, owners, sizes and times
    #[arg(long, short)]
    pub(crate) long: bool,
    /// Show names that begin with a dot, too
    #[arg(long, short)]
    pub(crate) all: bool,
    /// List directories with everything below them
    #[arg(long, short = 'R')]
    pub(crate) recursive: bool,
    /// Show sizes in units of 1024
    #[arg(long = "human-readable", short = 'h')]
    pub(crate) human: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
    /// Time to show, in UTC: modified, accessed, changed (its metadata) or created
    #[arg(
        long,
        value_enum,
        default_value_t = TimeChoice::Modified,
        value_name = "modified|accessed|changed|created",
        hide_possible_values = true
    )]
    pub(crate) time: TimeChoice,
    /// Print a row of values for each file, with a title
    #[arg(long, conflicts_with_all = ["output", "json"])]
    pub(crate) csv: bool,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}

/// Show the directories in a disk as a tree
///
/// Example: vhdx tree -L 2 disk.vhdx:C:/Users
#[derive(Args, Debug)]
pub(crate) struct TreeArgs {
    /// Directory to begin with
    #[arg(value_name = "IMAGE:PATH")]
    pub(crate) path: OsString,
    /// Show names that begin with a dot, too
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Number of levels to show [default: all]
    #[arg(long, short = 'L', value_name = "N")]
    pub(crate) level: Option<usize>,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}

/// Write the content of files in a disk to standard output
///
/// A stream of NTFS is named after its file: IMAGE:/file:stream.
///
/// Example: vhdx cat ext4.vhdx:/etc/os-release
#[derive(Args, Debug)]
pub(crate) struct CatArgs {
    /// Files to write, one after the other
    #[arg(required = true, value_name = "IMAGE:PATH")]
    pub(crate) paths: Vec<OsString>,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}

/// Copy files out of a disk
///
/// Holes, times, permissions, links and extended attributes are kept. Owners are kept for root, or with --same-owner.
/// Names that this system cannot have are changed, and a note says so. Damaged files are left out and listed, and the
/// exit code is 65; the rest is still copied. Nothing is ever written outside of DEST.
///
/// Example: vhdx cp -r ext4.vhdx:/home/me ./rescued
#[derive(Args, Debug)]
pub(crate) struct CpArgs {
    /// Files and directories to copy
    #[arg(required = true, value_name = "IMAGE:PATH")]
    pub(crate) paths: Vec<OsString>,
    /// Folder of this system that gets the copies, or the new name of a single one
    #[arg(required = true, value_name = "DEST")]
    pub(crate) target: PathBuf,
    /// Copy directories with everything in them
    #[arg(long, short, visible_short_alias = 'R')]
    pub(crate) recursive: bool,
    /// Replace files that are there
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Keep owners, devices, and the attributes and permissions that only root can give [default: if root runs this]
    #[arg(long, overrides_with = "no_same_owner")]
    pub(crate) same_owner: bool,
    /// Give everything to the user who runs this
    #[arg(long)]
    pub(crate) no_same_owner: bool,
    /// Say what would be copied, and write nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}

/// Show the file systems in disks: size, used and free space, and what of it the image holds
///
/// Example: vhdx df disk.vhdx
#[derive(Args, Debug)]
pub(crate) struct DfArgs {
    /// Images to show
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Show sizes in bytes
    #[arg(long, short)]
    pub(crate) bytes: bool,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}

/// Find files in a disk
///
/// All conditions must hold. Names are patterns as shells have them, with *, ? and sets of characters in brackets.
///
/// Example: vhdx find disk.vhdx:C:/Users --iname '*.docx' --larger 1M
#[derive(Args, Debug)]
pub(crate) struct FindArgs {
    /// Directory to search
    #[arg(value_name = "IMAGE:PATH")]
    pub(crate) path: OsString,
    /// Pattern of the name
    #[arg(long, value_name = "PATTERN")]
    pub(crate) name: Option<String>,
    /// Pattern of the name, without regard to case
    #[arg(long, value_name = "PATTERN")]
    pub(crate) iname: Option<String>,
    /// Kind: f for files, d for directories, l for links
    #[arg(long = "type", value_enum, value_name = "f|d|l", hide_possible_values = true)]
    pub(crate) kind: Option<KindChoice>,
    /// Files of at least this size
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) larger: Option<u64>,
    /// Files of at most this size
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) smaller: Option<u64>,
    /// Files that were modified at this time or later: 2026-11-28, or 2026-11-28T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse)]
    pub(crate) newer: Option<i64>,
    /// Files that were modified before this time
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse)]
    pub(crate) older: Option<i64>,
    /// Print the SHA-256 of every file that is found, in the format of sha256sum
    #[arg(long)]
    pub(crate) sha256: bool,
    /// Separate paths by NUL bytes, for xargs -0
    #[arg(long, short = '0', conflicts_with_all = ["output", "json", "sha256"])]
    pub(crate) null: bool,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindChoice {
    F,
    D,
    L,
}

/// Write a tree of files in a disk as a tar stream
///
/// Owners, permissions, times, links and extended attributes are kept (pax format).
///
/// Example: vhdx tar ext4.vhdx:/home | zstd > home.tar.zst
#[derive(Args, Debug)]
pub(crate) struct TarArgs {
    /// Directory or file to write
    #[arg(value_name = "IMAGE:PATH")]
    pub(crate) path: OsString,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}

/// List all times of all files, for timelines
///
/// The bodyfile format (3.x) is that of mactime and of Timesketch. NTFS has two lines for each name: the second has the
/// times of the name ($FILE_NAME), which programs cannot set.
///
/// Example: vhdx timeline disk.vhdx:C: > body.txt
#[derive(Args, Debug)]
pub(crate) struct TimelineArgs {
    /// Directory to begin with
    #[arg(value_name = "IMAGE:PATH")]
    pub(crate) path: OsString,
    /// Format: bodyfile, or csv with a row for every time
    #[arg(
        long,
        value_enum,
        default_value_t = TimelineFormat::Bodyfile,
        value_name = "bodyfile|csv",
        hide_possible_values = true
    )]
    pub(crate) format: TimelineFormat,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimelineFormat {
    Bodyfile,
    Csv,
}

/// Name the files that lie in ranges of the disk
///
/// With the loss map of a salvaged disk, these are the damaged files; the exit code is 65 if there are any.
///
/// Example: vhdx locate disk.vhdx --loss-map lost.json
#[derive(Args, Debug)]
pub(crate) struct LocateArgs {
    /// Image with the disk
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// Offset in the disk, in bytes; repeat the option for several
    #[arg(long, value_name = "OFFSET", value_parser = parse_size, required_unless_present = "loss_map")]
    pub(crate) offset: Vec<u64>,
    /// Loss map that `vhdx extract --salvage --loss-map` wrote, as JSON
    /// [default: none]
    #[arg(long, value_name = "FILE")]
    pub(crate) loss_map: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}
