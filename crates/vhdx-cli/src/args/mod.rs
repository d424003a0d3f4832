//! The command line: commands, options and their help.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use vhdx_mmap::ops::Algorithm;

use crate::exit::Failure;
use crate::json::Place;
use crate::size::{ByteRange, parse_size};

mod bulk;
mod cache;
mod damage;
mod files;
mod folder;
mod mount;
mod serve;
mod share;

use bulk::parse_algorithm;
pub(crate) use bulk::{CompareArgs, DiffArgs, HashArgs, InputFormat, MergeArgs, SumFormat, VerifyArgs};
pub(crate) use cache::{CacheArgs, CacheChoice};
use damage::parse_byte;
pub(crate) use damage::{CheckArgs, LossMapFormat, SalvageArgs};
pub(crate) use files::{
    CatArgs, CpArgs, DfArgs, DiskArgs, FindArgs, JournalArgs, KindChoice, LocateArgs, LsArgs, TarArgs, TimeChoice,
    TimelineArgs, TimelineFormat, TreeArgs,
};
pub(crate) use folder::{FolderArgs, ListArgs, ListFormat, SortKey};
pub(crate) use mount::{MountArgs, UmountArgs};
pub(crate) use serve::ServeArgs;
pub(crate) use share::{Part, PlanArgs, ShareArgs, Task};

const AFTER_HELP: &str = "\
A tour:
  vhdx info disk.vhdx                  format, sizes, log state, parents and partitions
  vhdx list /backup                    a row for every image in a folder
  vhdx extract disk.vhdx disk.raw      the raw disk, with holes where it is empty
  vhdx extract disk.avhdx - | zstd     a checkpoint and its parents as one stream
  vhdx extract disk.vhdx disk.vhd --format vhd   a fixed VHD, as Azure needs it
  vhdx hash disk.vhdx                  the digest that sha256sum prints for the raw disk
  vhdx compare disk.vhdx disk.raw      are the disks equal?
  vhdx diff child.avhdx --output json  the changes since the checkpoint
  vhdx map disk.vhdx --output json     the allocation map, with the keys of qemu-img map
  vhdx read disk.vhdx --range 0:512 --hex        the first sector
  vhdx log disk.vhdx                   the entries of the log, and which of them count
  vhdx chain disk.avhdx                the parents, and how each was found
  vhdx chain --tree /vms               which checkpoints depend on which images
  vhdx check disk.vhdx                 every problem, each with a code
  vhdx plan disk.vhdx --splits 8       the work on a disk, divided for eight machines
  vhdx ls -l ext4.vhdx:/home           the files in the disk
  vhdx cp -r ext4.vhdx:/home/me back   files out of the disk, without mounting it
  vhdx serve disk.vhdx                 the disk as a device, over NBD
  vhdx mount disk.vhdx /mnt            the raw disk as a file; vhdx umount ends it
  vhdx extract --salvage --loss-map lost.json broken.vhdx disk.raw   what can be read of a damaged image

Exit codes:
  0    done
  1    disks differ, or digest mismatch
  2    wrong usage
  65   corrupt image, or not a VHDX; with --salvage: parts are lost or may be wrong
  66   image cannot be opened
  69   image needs a feature that this program does not support
  73   output cannot be created
  74   I/O error, or the image changed while it was read
  80   dirty log, and --log refuse was given
  81   parent not found
  82   parent identity mismatch
  130  interrupted

check has the exit codes of qemu-img check: 0 no errors, 1 not checked, 2 corruption, 3 leaks only, 63 unsupported.

Images are never written to: a dirty log is replayed in memory. Sizes and offsets: 512, 64K, 1M, 2G, 1T or 0x200.";

/// Read Hyper-V's VHDX and AVHDX disk images: get correct bytes, or an error that names the structure and file offset
#[derive(Debug, Parser)]
#[command(name = "vhdx", version, after_help = AFTER_HELP, max_term_width = 110, help_expected = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Info(InfoArgs),
    Map(MapArgs),
    Extract(ExtractArgs),
    List(ListArgs),
    Hash(HashArgs),
    Verify(VerifyArgs),
    Compare(CompareArgs),
    Diff(DiffArgs),
    Plan(PlanArgs),
    Merge(MergeArgs),
    Read(ReadArgs),
    Log(LogArgs),
    Chain(ChainArgs),
    Check(CheckArgs),
    Ls(LsArgs),
    Tree(TreeArgs),
    Cat(CatArgs),
    Cp(CpArgs),
    Df(DfArgs),
    Find(FindArgs),
    Tar(TarArgs),
    Timeline(TimelineArgs),
    Locate(LocateArgs),
    Serve(ServeArgs),
    Mount(MountArgs),
    Umount(UmountArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Arguments without the words `-f vhdx`, by which command lines of qemu-img name the format of the image. Fails if
/// they name another format.
pub(crate) fn without_image_format(mut args: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    const OTHERS: [&str; 10] = ["raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vpc", "vhd", "parallels", "luks"];

    let is = |arg: Option<&OsString>, words: &[&str]| {
        arg.and_then(|arg| arg.to_str()).is_some_and(|arg| words.iter().any(|word| arg.eq_ignore_ascii_case(word)))
    };
    let command = args.iter().position(|arg| is(Some(arg), &["extract", "convert", "info", "check", "map"]));
    let Some(command) = command else { return Ok(args) };
    let format = args.windows(2).skip(command).position(|pair| match pair {
        [option, value] => option == "-f" && (is(Some(value), &["vhdx"]) || is(Some(value), &OTHERS)),
        _ => false,
    });
    if let Some(format) = format {
        let format = format.saturating_add(command);
        if let Some(other) = args.get(format.saturating_add(1)).filter(|value| is(Some(value), &OTHERS)) {
            let text = format!("-f {}: only VHDX and AVHDX images can be read", other.display());
            return Err(Failure::usage(text).with_hint("leave out -f; -O names the format of the output"));
        }
        args.drain(format..=format.saturating_add(1));
    }
    Ok(args)
}

impl Command {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Info(_) => "info",
            Self::Map(_) => "map",
            Self::Extract(_) => "extract",
            Self::List(_) => "list",
            Self::Hash(_) => "hash",
            Self::Verify(_) => "verify",
            Self::Compare(_) => "compare",
            Self::Diff(_) => "diff",
            Self::Plan(_) => "plan",
            Self::Merge(_) => "merge",
            Self::Read(_) => "read",
            Self::Log(_) => "log",
            Self::Chain(_) => "chain",
            Self::Check(_) => "check",
            Self::Ls(_) => "ls",
            Self::Tree(_) => "tree",
            Self::Cat(_) => "cat",
            Self::Cp(_) => "cp",
            Self::Df(_) => "df",
            Self::Find(_) => "find",
            Self::Tar(_) => "tar",
            Self::Timeline(_) => "timeline",
            Self::Locate(_) => "locate",
            Self::Serve(_) => "serve",
            Self::Mount(_) => "mount",
            Self::Umount(_) => "umount",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
        }
    }

    /// Reads the splits that options name, and sets the images that they are of.
    pub(crate) fn load_shares(&mut self) -> Result<(), Failure> {
        let load_one = |share: &mut ShareArgs, given: &Option<PathBuf>, image: &mut PathBuf| {
            let mut images: Vec<PathBuf> = given.iter().cloned().collect();
            share.load(&mut images)?;
            images.into_iter().for_each(|path| *image = path);
            Ok(())
        };
        match self {
            Self::Hash(args) => args.share.load(&mut args.images),
            Self::Check(args) => args.share.load(&mut args.images),
            Self::Diff(args) => load_one(&mut args.share, &args.child, &mut args.image),
            Self::Extract(args) => {
                let (given, out) = match &args.second {
                    Some(out) => (Some(args.first.clone()), out),
                    None => (None, &args.first),
                };
                args.out.clone_from(out);
                load_one(&mut args.share, &given, &mut args.image)
            }
            _ => Ok(()),
        }
    }

    /// Whether the command runs with --salvage.
    pub(crate) fn is_salvage(&self) -> bool {
        match self {
            Self::Info(args) => args.salvage.salvage,
            Self::Map(args) => args.salvage.salvage,
            Self::Extract(args) => args.salvage.salvage,
            Self::Hash(args) => args.salvage.salvage,
            Self::Ls(args) => args.disk.salvage,
            Self::Tree(args) => args.disk.salvage,
            Self::Cat(args) => args.disk.salvage,
            Self::Cp(args) => args.disk.salvage,
            Self::Df(args) => args.disk.salvage,
            Self::Find(args) => args.disk.salvage,
            Self::Tar(args) => args.disk.salvage,
            Self::Timeline(args) => args.disk.salvage,
            Self::Locate(args) => args.disk.salvage,
            Self::Serve(args) => args.salvage,
            Self::Mount(args) => args.salvage,
            _ => false,
        }
    }
}

fn not_empty(text: OsString) -> Result<OsString, &'static str> {
    if text.is_empty() { Err("the name of the folder is empty") } else { Ok(text) }
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// File that may be a parent in the chain; repeat the option for several, in any order
    ///
    /// Each child takes the file with the identity that it requires. If none has it, --parents decides.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) parent: Vec<PathBuf>,

    /// Where to look for parents: none, beside (the stored paths, inside the folder of the image), or beside and then
    /// DIR
    ///
    /// In DIR and its subfolders, a parent is found by its stored path, or else by its identity under any name.
    ///
    /// An image can name any file as its parent. Files outside these folders are not opened, and symbolic links that
    /// lead out of them are not followed. With none, only the data in the image itself can be read.
    #[arg(
        long,
        global = true,
        value_name = "none|beside|DIR",
        default_value = "beside",
        value_parser = OsStringValueParser::new().try_map(not_empty)
    )]
    pub(crate) parents: OsString,

    /// Do not look for checkpoints beside the image
    ///
    /// Without this option, the headers of the images in the same folder are read, since the base of a chain alone is
    /// an old state of the disk.
    #[arg(long, global = true)]
    pub(crate) no_siblings: bool,

    /// How to treat a dirty log: replay it in memory, refuse the image, or ignore the log
    ///
    /// With ignore, the content may be stale or torn.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = LogChoice::Replay,
        value_name = "replay|refuse|ignore",
        hide_possible_values = true
    )]
    pub(crate) log: LogChoice,

    /// Read images piece by piece instead of mapping them into memory
    ///
    /// Makes no copy in memory. Works for images of any size, on file systems that cannot map files, and for images
    /// that other programs write to: the command fails if an image changed while it was read. Without this option, no
    /// program may change the images while the command runs.
    #[arg(long, global = true)]
    pub(crate) no_mmap: bool,

    /// Number of threads; 0 for one per core [default: depends on the command]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub(crate) threads: Option<u16>,

    /// Print errors only: no progress, notes or warnings
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,

    /// Print notes, too: harmless habits of the programs that make images
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
    /// Progress on standard error: auto (a bar on a terminal), plain (percent, as qemu-img -p), json (lines) or none
    ///
    /// A bar appears when the work turns out to be long, and leaves a line with the size, the time and the rate; plain
    /// prints that line after all work. SIGUSR1 makes the command print one line of progress.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = ProgressChoice::Auto,
        value_name = "WHEN",
        hide_possible_values = true
    )]
    progress: ProgressChoice,

    /// Print progress in percent, like --progress plain
    #[arg(short = 'p', global = true)]
    plain_progress: bool,

    /// Reject images that are, or are reached by, a symbolic link; parents of --parent, too
    ///
    /// For folders to which others can write, such as uploads. Only the given path counts: not what is above the
    /// current folder if the path is relative.
    #[arg(long, global = true)]
    pub(crate) no_follow: bool,

    /// When to use colours: auto, always or never; auto respects NO_COLOR
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = ColorChoice::Auto,
        value_name = "WHEN",
        hide_possible_values = true
    )]
    pub(crate) color: ColorChoice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogChoice {
    Replay,
    Refuse,
    Ignore,
}

impl Common {
    /// How progress is shown.
    pub(crate) fn progress(&self) -> ProgressChoice {
        match self.progress {
            _ if self.quiet => ProgressChoice::None,
            ProgressChoice::Auto if self.plain_progress => ProgressChoice::Plain,
            chosen => chosen,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressChoice {
    Auto,
    Plain,
    Json,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    Auto,
    Always,
    Never,
}

impl ColorChoice {
    /// The choice of a command line that may be wrong: help and messages about it are coloured, too.
    pub(crate) fn of_args(args: &[OsString]) -> Self {
        let mut chosen = Self::Auto;
        for (number, arg) in args.iter().enumerate() {
            let value = match arg.to_str() {
                Some("--") => break,
                Some("--color") => args.get(number.saturating_add(1)).and_then(|value| value.to_str()),
                Some(arg) => arg.strip_prefix("--color="),
                None => None,
            };
            chosen = value.and_then(|value| Self::from_str(value, false).ok()).unwrap_or(chosen);
        }
        chosen
    }

    pub(crate) fn of_help(self) -> clap::ColorChoice {
        match self {
            Self::Auto => clap::ColorChoice::Auto,
            Self::Always => clap::ColorChoice::Always,
            Self::Never => clap::ColorChoice::Never,
        }
    }

    /// Sets the colours of the whole program. With auto, NO_COLOR, CLICOLOR, TERM and the terminal decide.
    pub(crate) fn set(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    Human,
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct Output {
    /// Output format: human or json
    #[arg(
        long,
        value_enum,
        default_value_t = OutputFormat::Human,
        value_name = "human|json",
        hide_possible_values = true
    )]
    output: OutputFormat,
    /// Print a JSON document, like --output json
    #[arg(long)]
    pub(crate) json: bool,
}

impl Output {
    pub(crate) fn is_json(&self) -> bool {
        self.json || self.output == OutputFormat::Json
    }

    /// Where a JSON document goes, if one was asked for.
    pub(crate) fn place(&self) -> Option<Place> {
        self.is_json().then_some(Place::Output)
    }

    /// Where a JSON document goes that was asked for beside the disk itself.
    pub(crate) fn beside_disk(&self) -> Option<Place> {
        self.is_json().then_some(Place::Error)
    }
}

/// Show format, sizes, log state, parents and partitions
///
/// Partitions and file systems are recognised by their signatures, also a file system on the whole disk, without a
/// partition table. JSON output begins with the keys of qemu-img info.
///
/// If a parent is missing, everything else is still shown.
///
/// Example: vhdx info --output json disk.vhdx
#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// Images to show
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Show every image of the chain, from the given image to its base
    #[arg(long)]
    pub(crate) backing_chain: bool,
    /// End with exit code 65 if an image has warnings, such as a truncated one
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) folders: FolderArgs,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) salvage: SalvageArgs,
}

/// Print the allocation map: layer, file offset, or unallocated
///
/// JSON output has the keys of qemu-img map: depth is the layer (0 is the image itself), offset is the position in the
/// file of that layer. --output json prints an array of extents like qemu-img, --json an object with extents and
/// totals. The command does not read the content of blocks.
///
/// Example: vhdx map --start-offset 1G --max-length 64M disk.vhdx
#[derive(Args, Debug)]
pub(crate) struct MapArgs {
    /// Image to map
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// First byte of the disk to map
    #[arg(long, short, value_name = "OFFSET", value_parser = parse_size, default_value = "0")]
    pub(crate) start_offset: u64,
    /// Number of bytes to map [default: to the end of the disk]
    #[arg(long, short = 'l', value_name = "LENGTH", value_parser = parse_size)]
    pub(crate) max_length: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) salvage: SalvageArgs,
}

/// Write the disk to a file, a block device, or standard output
///
/// A new file has holes where the disk is empty. It gets its name when it is complete; if the command fails or is
/// interrupted, no file is left; only a complete file that cannot get its name keeps another, which is shown. A block
/// device is written in place, zeros included.
///
/// With --in-place and --shard or --split, several machines write one file: each writes its share, and no other byte.
/// The file is made, or extended to the size of the disk, by the first of them; none makes it shorter.
///
/// Example: vhdx extract disk.vhdx disk.raw
#[derive(Args, Debug)]
#[command(visible_alias = "convert")]
pub(crate) struct ExtractArgs {
    /// Image to extract; it can be left out with --split
    #[arg(value_name = "IMAGE")]
    pub(crate) first: PathBuf,
    /// File to create; - for standard output
    #[arg(value_name = "OUT", required_unless_present = "split")]
    pub(crate) second: Option<PathBuf>,
    /// Image and output, once it is known which of them were given.
    #[arg(skip)]
    pub(crate) image: PathBuf,
    #[arg(skip)]
    pub(crate) out: PathBuf,
    /// Extract LENGTH bytes of the disk from OFFSET; without LENGTH, to the end [default: the whole disk]
    #[arg(long, value_name = "OFFSET:LENGTH", conflicts_with = "share")]
    pub(crate) range: Option<ByteRange>,
    /// Output format: raw, or vhd (vpc) for a fixed VHD: the disk, zeros up to a whole MiB, and a footer, as Azure
    /// needs it [default: by the extension of OUT; raw if that says nothing]
    #[arg(long, short = 'O', value_name = "raw|vhd")]
    pub(crate) format: Option<String>,
    /// Options of `qemu-img convert -O vpc` that describe a fixed VHD
    #[arg(short = 'o', hide = true, value_delimiter = ',')]
    pub(crate) qemu_options: Vec<String>,
    /// Replace an existing file, or write to a block device
    ///
    /// As for qemu-img, `-f vhdx` names the format of IMAGE instead.
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Write into an existing file instead of creating one; zeros are written, too
    ///
    /// The file is extended if it is too short. Content past the end of the disk stays. If the command fails, the file
    /// holds a part of the disk.
    #[arg(long, short = 'n', visible_alias = "in-place", conflicts_with = "force")]
    pub(crate) no_create: bool,
    #[command(flatten)]
    pub(crate) share: ShareArgs,
    /// Which zeros become holes: blocks (unallocated blocks), zeros (zero-filled 4 KiB pages, too), or none
    /// [default: zeros if bytes are copied, blocks if they are shared]
    #[arg(long, value_enum, value_name = "blocks|zeros|none", hide_possible_values = true)]
    pub(crate) sparse: Option<SparseChoice>,
    /// Share blocks with the image if the file system can (XFS, Btrfs): auto or never
    #[arg(
        long,
        value_enum,
        default_value_t = ReflinkChoice::Auto,
        value_name = "auto|never",
        hide_possible_values = true
    )]
    pub(crate) reflink: ReflinkChoice,
    /// Print digests of the output, computed in the same pass: any of crc32,blake3,sha256,sha1,md5 [default: none]
    #[arg(long, value_name = "ALGORITHMS", value_delimiter = ',', value_parser = parse_algorithm)]
    pub(crate) hash: Vec<Algorithm>,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Read the output again, from the drive where possible, and compare it with the disk
    #[arg(long)]
    pub(crate) verify: bool,
    /// Bypass the page cache when writing (O_DIRECT); for devices
    #[arg(long)]
    pub(crate) direct: bool,
    /// Wait until the file is on the drive before it gets its name; block devices are always synced
    #[arg(long)]
    pub(crate) sync: bool,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) salvage: SalvageArgs,
    /// Fill lost ranges with this byte: 0 to 255, or 0x00 to 0xff [default: zeros, as holes]
    #[arg(
        long,
        value_name = "BYTE",
        requires = "salvage",
        conflicts_with_all = ["hash", "share"],
        value_parser = parse_byte,
        help_heading = "Damaged images"
    )]
    pub(crate) fill: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SparseChoice {
    Blocks,
    Zeros,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReflinkChoice {
    Auto,
    Never,
}

/// Write bytes of the disk to standard output
///
/// Example: vhdx read disk.vhdx --range 1M:4K --hex
#[derive(Args, Debug)]
pub(crate) struct ReadArgs {
    /// Image to read
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// Read LENGTH bytes of the disk from OFFSET; without LENGTH, to the end
    #[arg(long, value_name = "OFFSET:LENGTH")]
    pub(crate) range: ByteRange,
    /// Print hexadecimal digits and text, like hexdump -C
    #[arg(long)]
    pub(crate) hex: bool,
}

/// List the entries of the log: active, stale or broken, and why
///
/// Works if at least one header of the image is valid; the rest of the image may be damaged.
///
/// Example: vhdx log disk.vhdx
#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    /// Image with the log
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// List the images of the chain, from the given image to its base, and how each parent was found
///
/// If the chain is broken, its images up to that point are listed before the error.
///
/// Example: vhdx chain --parents /backup/vms disk.avhdx
#[derive(Args, Debug)]
pub(crate) struct ChainArgs {
    /// First image of the chain; with --tree, any number of images and folders
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Show how all images depend on each other, by their identities: bases, checkpoints, branches, orphans, and images
    /// whose parent has changed
    ///
    /// Folders are searched with their subfolders.
    #[arg(long)]
    pub(crate) tree: bool,
    /// Print the tree as a graph in the DOT language of Graphviz
    #[arg(long, requires = "tree", conflicts_with_all = ["output", "json"])]
    pub(crate) dot: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Print the completions of a shell
///
/// Example: vhdx completions bash > /usr/share/bash-completion/completions/vhdx
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// Shell: bash, zsh, fish, powershell or elvish
    #[arg(value_enum, value_name = "SHELL", hide_possible_values = true)]
    pub(crate) shell: clap_complete::Shell,
}

/// Write the manual pages of all commands to a folder
///
/// Example: vhdx man /usr/local/share/man/man1
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Folder, which must exist; pages in it are replaced
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Cli;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn command_names_are_those_of_the_command_line() {
        let minimal = [
            "info a",
            "map a",
            "extract a b",
            "hash a",
            "verify a --manifest b",
            "compare a b",
            "diff a",
            "plan a",
            "merge a",
            "read a --range 0:",
            "list a",
            "log a",
            "chain a",
            "check a",
            "ls a",
            "tree a",
            "cat a:b",
            "cp a:b c",
            "df a",
            "find a",
            "tar a",
            "timeline a",
            "locate a --offset 0",
            "serve a",
            "completions bash",
            "man a",
        ];
        for line in minimal {
            let words = std::iter::once("vhdx").chain(line.split(' '));
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!(line.split(' ').next(), Some(cli.command.name()));
        }
    }
}
