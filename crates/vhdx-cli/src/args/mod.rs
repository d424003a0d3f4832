//! What can be typed after `vhdx`, and the help that says so.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use vhdx_mmap::ops::Algorithm;

use crate::size::{ByteRange, parse_size};

mod bulk;
mod damage;

use bulk::parse_algorithm;
pub(crate) use bulk::{CacheArgs, CacheChoice, CompareArgs, DiffArgs, HashArgs, InputFormat, MergeArgs, VerifyArgs};
use damage::parse_byte;
pub(crate) use damage::{CheckArgs, LossMapFormat, SalvageArgs};

const AFTER_HELP: &str = "\
A tour:
  vhdx info disk.vhdx                  what is this, and what is on it?
  vhdx extract disk.vhdx disk.raw      the raw disk, with holes where it is empty
  vhdx extract disk.avhdx - | zstd     a checkpoint and its parents as one stream
  vhdx extract disk.vhdx disk.vhd --format vhd   a fixed VHD, as Azure takes it
  vhdx hash disk.vhdx                  the digest of the disk, as sha256sum gives of the raw disk
  vhdx compare disk.vhdx disk.raw      are they the same?
  vhdx diff child.avhdx --output json  what has changed since the checkpoint
  vhdx map disk.vhdx --output json     which bytes lie where, as qemu-img says it
  vhdx read disk.vhdx --range 0:512 --hex        a look at the first sector
  vhdx log disk.vhdx                   what the log holds, and what of it counts
  vhdx chain disk.avhdx                the parents, and how they were found
  vhdx check disk.vhdx                 everything that is wrong with it
  vhdx extract --salvage --loss-map lost.json broken.vhdx disk.raw   what is left of it

Exit codes:
  0    done
  1    the answer is no: the disks differ, or a digest is another one
  2    wrong usage
  65   the image is corrupt, or not a VHDX; with --salvage, something was lost
  66   the image cannot be opened
  69   the image may be valid, but needs what this program does not support
  73   the output cannot be created
  74   an I/O error
  80   the log holds changes, and --log refuse was given
  81   a parent was not found
  82   a parent was found, but it is not the one
  130  interrupted

check ends as qemu-img check does: 0 all is well, 1 not checked, 2 corruption, 3 leaks, 63 unsupported.

Images are only ever read: a dirty log is replayed in memory. Sizes and offsets take 512, 64K, 1M, 2G, 1T or 0x200.";

/// Reads Hyper-V's VHDX and AVHDX disk images: right to the last byte, or with an error that says why not.
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
    Hash(HashArgs),
    Verify(VerifyArgs),
    Compare(CompareArgs),
    Diff(DiffArgs),
    Merge(MergeArgs),
    Read(ReadArgs),
    Log(LogArgs),
    Chain(ChainArgs),
    Check(CheckArgs),
}

fn not_empty(text: OsString) -> Result<OsString, &'static str> {
    if text.is_empty() { Err("a folder has a name") } else { Ok(text) }
}

/// Options of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// A file that may be a parent in the chain; repeat it for several, in any order
    ///
    /// Each child takes the one whose identity it asks for. Where none of them is it, --parents decides.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) parent: Vec<PathBuf>,

    /// Where parents are looked for: none, beside (where the image says, within its own folder), or beside and then in DIR
    ///
    /// An image can name any file as its parent, so nothing outside of these folders is opened, nor are symbolic links
    /// followed out of them. With none, what an image itself holds can be read, and the rest is an error.
    #[arg(long, global = true, value_name = "none|beside|DIR", default_value = "beside", value_parser = OsStringValueParser::new().try_map(not_empty))]
    pub(crate) parents: OsString,

    /// What to do with a log that holds changes: replay it in memory, refuse the image, or ignore it
    ///
    /// Ignored, the image is read as it lies in the file: what is read may be stale or torn.
    #[arg(long, global = true, value_enum, default_value_t = LogChoice::Replay, value_name = "replay|refuse|ignore", hide_possible_values = true)]
    pub(crate) log: LogChoice,

    /// Copy the image to memory instead of mapping it
    ///
    /// For images that others write to meanwhile, and file systems that cannot map. Takes as much memory as the file has
    /// data.
    #[arg(long, global = true)]
    pub(crate) no_mmap: bool,

    /// Threads that work at once; 0 for one per core [default: what suits the command]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub(crate) threads: Option<u16>,

    /// No progress, no notes, no warnings: only errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,

    /// Colours: auto, always or never; NO_COLOR is respected
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN", hide_possible_values = true)]
    pub(crate) color: ColorChoice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogChoice {
    Replay,
    Refuse,
    Ignore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    Human,
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct Output {
    /// For people, or for programs: human or json
    #[arg(long = "output", value_enum, default_value_t = OutputFormat::Human, value_name = "human|json", hide_possible_values = true)]
    pub(crate) format: OutputFormat,
}

impl Output {
    pub(crate) fn is_json(&self) -> bool {
        self.format == OutputFormat::Json
    }
}

/// Tell what an image is and what is on it: kind, sizes, identity, log, blocks, parent, partitions, warnings
///
/// Partitions and file systems are recognised by their signatures; a disk that holds a file system without partition
/// table is told as such. JSON begins with the keys of qemu-img info.
///
/// Where a parent is missing, everything else is told all the same.
///
/// Example: vhdx info --output json disk.vhdx
#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Tell of each image of the chain, from the given one to its base
    #[arg(long)]
    pub(crate) backing_chain: bool,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) salvage: SalvageArgs,
}

/// Tell which bytes of the disk lie where: in which layer of the chain, at which offset of its file, or nowhere
///
/// JSON has the keys of qemu-img map: depth is the layer (0 is the image itself), offset the place in that layer's file.
/// Content is not looked at.
///
/// Example: vhdx map --start-offset 1G --max-length 64M disk.vhdx
#[derive(Args, Debug)]
pub(crate) struct MapArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// Begin at this byte of the disk
    #[arg(long, short, value_name = "OFFSET", value_parser = parse_size, default_value = "0")]
    pub(crate) start_offset: u64,
    /// Tell of so many bytes at most [default: all]
    #[arg(long, short = 'l', value_name = "LENGTH", value_parser = parse_size)]
    pub(crate) max_length: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) salvage: SalvageArgs,
}

/// Write the disk to a file, a block device, or standard output
///
/// A new file has holes where the disk is empty. It appears under its name when it is complete, and not at all if the
/// work fails or is interrupted. A block device is written to in place, zeros included.
///
/// Example: vhdx extract disk.vhdx disk.raw
#[derive(Args, Debug)]
#[command(visible_alias = "convert")]
pub(crate) struct ExtractArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// The file to make; - for standard output
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Only these bytes of the disk: from OFFSET, LENGTH bytes; to the end without LENGTH [default: all]
    #[arg(long, value_name = "OFFSET:LENGTH")]
    pub(crate) range: Option<ByteRange>,
    /// raw: the disk as it is; vhd: a fixed VHD, which is the disk, zeros up to a whole MiB, and a footer, as Azure takes it
    #[arg(long, short = 'O', value_enum, default_value_t = DiskFormat::Raw, value_name = "raw|vhd", hide_possible_values = true)]
    pub(crate) format: DiskFormat,
    /// Replace a file that is there, or write to a block device
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Write into the file that is there instead of making a new one: zeros included, none is assumed to be there
    ///
    /// The file is made longer if need be, and keeps what it has behind the disk. If the work fails, it holds a part of both.
    #[arg(long, short = 'n', visible_alias = "in-place", conflicts_with = "force")]
    pub(crate) no_create: bool,
    /// Which zeros become holes: blocks (those that are nowhere), zeros (runs of 4 KiB inside of blocks, too), or none
    /// [default: zeros where bytes are copied, blocks where they are shared]
    #[arg(long, value_enum, value_name = "blocks|zeros|none", hide_possible_values = true)]
    pub(crate) sparse: Option<SparseChoice>,
    /// Whether the file may share blocks with the image, where the file system can do that (XFS, Btrfs): auto or never
    #[arg(long, value_enum, default_value_t = ReflinkChoice::Auto, value_name = "auto|never", hide_possible_values = true)]
    pub(crate) reflink: ReflinkChoice,
    /// Print digests of what is written, computed in the same pass: any of crc32,blake3,sha256,sha1,md5 [default: none]
    #[arg(long, value_name = "ALGORITHMS", value_delimiter = ',', value_parser = parse_algorithm)]
    pub(crate) hash: Vec<Algorithm>,
    /// Read the file again when it is written, from the medium where it can be, and compare it with the disk
    #[arg(long)]
    pub(crate) verify: bool,
    /// Write past the memory of the system (O_DIRECT): for devices
    #[arg(long)]
    pub(crate) direct: bool,
    /// Wait until the file is on its medium before it gets its name (a block device always is)
    #[arg(long)]
    pub(crate) sync: bool,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) salvage: SalvageArgs,
    /// Fill what is lost with bytes of this value instead of zeros: 0 to 255, or 0x00 to 0xff [default: zeros, as holes]
    #[arg(long, value_name = "BYTE", requires = "salvage", conflicts_with = "hash", value_parser = parse_byte, help_heading = "Damaged images")]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiskFormat {
    Raw,
    Vhd,
}

/// Write bytes of the disk to standard output
///
/// Example: vhdx read disk.vhdx --range 1M:4K --hex
#[derive(Args, Debug)]
pub(crate) struct ReadArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// Which bytes: from OFFSET, LENGTH bytes; to the end of the disk without LENGTH
    #[arg(long, value_name = "OFFSET:LENGTH")]
    pub(crate) range: ByteRange,
    /// As hexadecimal digits and text, in the form of hexdump -C
    #[arg(long)]
    pub(crate) hex: bool,
}

/// Tell what the log of an image holds, entry by entry: what would be replayed, what is stale or broken, and why
///
/// Nothing but the headers of the image needs to be in order for that.
///
/// Example: vhdx log disk.vhdx
#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Tell which images a disk consists of, from the given one to its base, and how each parent was found
///
/// Where the chain is broken, what there is of it is told before the error.
///
/// Example: vhdx chain --parents /backup/vms disk.avhdx
#[derive(Args, Debug)]
pub(crate) struct ChainArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
