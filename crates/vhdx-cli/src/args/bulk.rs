//! Arguments of the commands that work on whole disks.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vhdx_mmap::ops::{Algorithm, UnknownAlgorithm};

use crate::size::ByteRange;

use super::{CacheArgs, FolderArgs, Output, SalvageArgs, ShareArgs};

pub(super) fn parse_algorithm(text: &str) -> Result<Algorithm, UnknownAlgorithm> {
    text.parse()
}

/// Print digests of the disk, several in one pass
///
/// A digest of the disk is the one that sha256sum prints for the raw disk. It differs from the digest of the image
/// file, which --file prints as well, in the format of sha256sum. crc32 and blake3 use all cores; sha256, sha1 and md5
/// use one core each.
///
/// With --manifest, every block gets its own digest, so that `vhdx verify` can find the blocks that have changed.
/// Several machines can share the work: each one processes a --shard, and `vhdx merge` combines the results.
///
/// Example: vhdx hash -a blake3,sha256 disk.vhdx
#[derive(Args, Debug)]
pub(crate) struct HashArgs {
    /// Images to hash
    #[arg(required_unless_present = "split", value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Algorithms: any of crc32,blake3,sha256,sha1,md5
    #[arg(
        long = "algorithm",
        short,
        value_name = "ALGORITHMS",
        value_delimiter = ',',
        default_value = "sha256",
        value_parser = parse_algorithm
    )]
    pub(crate) algorithms: Vec<Algorithm>,
    /// Print digests of the image file, too
    #[arg(long, conflicts_with_all = ["manifest", "share"])]
    pub(crate) file: bool,
    /// Format of the lines: bsd, which says that a digest is of the disk, or sha256sum
    ///
    /// A list in the format sha256sum is for the raw disks: `sha256sum --check` would compare the image files with it.
    #[arg(
        long,
        value_enum,
        default_value_t = SumFormat::Bsd,
        value_name = "bsd|sha256sum",
        hide_possible_values = true
    )]
    pub(crate) format: SumFormat,
    /// Hash LENGTH bytes of the disk from OFFSET; without LENGTH, to the end [default: the whole disk]
    #[arg(long, value_name = "OFFSET:LENGTH", conflicts_with_all = ["manifest", "share"])]
    pub(crate) range: Option<ByteRange>,
    /// Write the digest of every block to FILE, as JSON lines, and print the digest of these digests; - for standard
    /// output; for several images, a folder that gets IMAGE.manifest for each
    /// [default: no manifest]
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Replace an existing manifest
    #[arg(long, short, requires = "manifest")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) share: ShareArgs,
    #[command(flatten)]
    pub(crate) folders: FolderArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) salvage: SalvageArgs,
}

/// Format of a list of digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SumFormat {
    Bsd,
    Sha256sum,
}

/// Verify a disk against a manifest, or several disks against a list of digests
///
/// With a manifest (`vhdx hash --manifest`), every block that differs is listed with its offset. With a list of
/// digests (the output of `vhdx hash`, `vhdx extract --hash` or sha256sum), every disk in the list is hashed. A line
/// that does not say what its digest is of may be of the disk or of the file. The exit code is 1 if anything differs.
///
/// Example: vhdx verify disk.vhdx --manifest disk.manifest
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Images to verify
    #[arg(value_name = "IMAGE", required_unless_present = "check", conflicts_with = "check")]
    pub(crate) images: Vec<PathBuf>,
    /// Manifest to compare the blocks of the image with; for several images, a folder with IMAGE.manifest for each
    /// [default: none; required without --check]
    #[arg(long, value_name = "FILE", required_unless_present = "check", conflicts_with = "check")]
    pub(crate) manifest: Option<PathBuf>,
    /// List of digests and file names, relative to the current folder; - for standard input [default: none]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) check: Option<PathBuf>,
    /// Algorithm of lines without one [default: by length of the digest: crc32, md5, sha1 or sha256]
    #[arg(
        long = "algorithm",
        short,
        value_name = "ALGORITHM",
        value_parser = parse_algorithm,
        requires = "check"
    )]
    pub(crate) algorithm: Option<Algorithm>,
    #[command(flatten)]
    pub(crate) folders: FolderArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Format of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    Auto,
    Vhdx,
    Raw,
}

/// Compare two disks: VHDX images, chains of them, raw files or devices
///
/// If the sizes differ, the rest of the longer disk is compared with zeros, unless --strict is given. The exit code is
/// 0 if the disks are equal, 1 if they differ, and greater if they cannot be compared.
///
/// Example: vhdx compare disk.avhdx disk.raw
#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// First image, raw file or device
    #[arg(value_name = "A")]
    pub(crate) first: PathBuf,
    /// Second image, raw file or device
    #[arg(value_name = "B")]
    pub(crate) second: PathBuf,
    /// Format of A: auto, vhdx or raw; auto detects images by their signature and name
    #[arg(
        long = "format",
        short = 'f',
        value_enum,
        default_value_t = InputFormat::Auto,
        value_name = "auto|vhdx|raw",
        hide_possible_values = true
    )]
    pub(crate) first_format: InputFormat,
    /// Format of B: auto, vhdx or raw
    #[arg(
        long = "other-format",
        short = 'F',
        value_enum,
        default_value_t = InputFormat::Auto,
        value_name = "auto|vhdx|raw",
        hide_possible_values = true
    )]
    pub(crate) second_format: InputFormat,
    /// List every range that differs, in steps of 512 bytes, instead of the first byte only
    #[arg(long)]
    pub(crate) all: bool,
    /// Treat disks of different sizes as different
    #[arg(long, short)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// List the changes between a disk and an ancestor in its chain, for incremental backups
///
/// --content reads what the child holds, and lists the bytes that really differ. --allocated lists what the child
/// holds, from the tables alone. That is instant, but a guest may have written the same bytes again.
///
/// With --delta, the changed bytes are also written to a raw file of the size of the disk, at their offsets; the rest
/// is a hole. The printed list says which bytes of the file count.
///
/// Example: vhdx diff child.avhdx --output json --delta child.delta
#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// Image with the changes
    #[arg(value_name = "CHILD", required_unless_present = "split")]
    pub(crate) child: Option<PathBuf>,
    /// The image, once it is known.
    #[arg(skip)]
    pub(crate) image: PathBuf,
    /// Image in its chain to compare with [default: its parent]
    #[arg(value_name = "ANCESTOR")]
    pub(crate) ancestor: Option<PathBuf>,
    // Not a doc comment: rustdoc takes `[default]` for a link.
    #[arg(long, conflicts_with = "allocated", help = "List the bytes that differ [default]")]
    pub(crate) content: bool,
    /// List what the images between the child and the ancestor hold, the child included
    #[arg(long)]
    pub(crate) allocated: bool,
    /// List the files that were added, removed, changed or renamed; with --content, by their content, too
    #[arg(long, conflicts_with_all = ["allocated", "delta", "share"])]
    pub(crate) files: bool,
    /// With --files, leave out the changes in journals; files can be outdated or damaged
    #[arg(long, requires = "files")]
    pub(crate) ignore_journal: bool,
    /// Write the changed bytes to FILE [default: no file]
    #[arg(long, value_name = "FILE", conflicts_with = "share")]
    pub(crate) delta: Option<PathBuf>,
    /// Replace an existing delta
    #[arg(long, short, requires = "delta")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) share: ShareArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Merge the results of all shares of the work on a disk
///
/// Shares are what hash, check, diff and extract do with --shard or --split. The output equals that of one run without
/// these options; results of check, diff and extract are JSON documents (--json or --result), and so is what is printed
/// for them. Fails if a share is missing or occurs twice, if shares overlap, or if they are not of the same disk.
///
/// Example: vhdx merge part1 part2 part3 part4
#[derive(Args, Debug)]
pub(crate) struct MergeArgs {
    /// Files with the results of all shards, in any order
    #[arg(required = true, value_name = "SHARD")]
    pub(crate) shards: Vec<PathBuf>,
    /// Write the manifest to FILE, if the shards are of a manifest [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Replace an existing manifest
    #[arg(long, short, requires = "manifest")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}
