//! The arguments of the commands that go through whole disks.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vhdx_mmap::ops::manifest::Shard;
use vhdx_mmap::ops::{Algorithm, UnknownAlgorithm};

use crate::size::ByteRange;

use super::{Output, SalvageArgs};

pub(super) fn parse_algorithm(text: &str) -> Result<Algorithm, UnknownAlgorithm> {
    text.parse()
}

/// What becomes of the machine's memory.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct CacheArgs {
    /// Whether the system keeps in its memory what it has to read and write for this: keep or drop
    ///
    /// With drop, a large image does not push out of memory what others need. What was there before stays.
    #[arg(long, value_enum, default_value_t = CacheChoice::Keep, value_name = "keep|drop", hide_possible_values = true)]
    pub(crate) cache: CacheChoice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CacheChoice {
    Keep,
    Drop,
}

/// Print digests of the disk, as sha256sum and the like would of the raw disk; several in one pass
///
/// crc32 and blake3 use all cores. sha256, sha1 and md5 can't, but run side by side. A digest is of what a guest sees of the
/// disk; that of the image file itself is another one, and is printed as well with --file.
///
/// With --manifest, every block gets its digest, so that `vhdx verify` can tell later which blocks have changed. Several machines
/// can share the work: each does one --shard, and `vhdx merge` puts together what they have found.
///
/// Example: vhdx hash -a blake3,sha256 disk.vhdx
#[derive(Args, Debug)]
pub(crate) struct HashArgs {
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Any of crc32,blake3,sha256,sha1,md5
    #[arg(long = "algorithm", short, value_name = "ALGORITHMS", value_delimiter = ',', default_value = "sha256", value_parser = parse_algorithm)]
    pub(crate) algorithms: Vec<Algorithm>,
    /// Of the image file itself, too
    #[arg(long, conflicts_with_all = ["manifest", "shard"])]
    pub(crate) file: bool,
    /// Only of these bytes of the disk: from OFFSET, LENGTH bytes; to the end without LENGTH [default: all]
    #[arg(long, value_name = "OFFSET:LENGTH", conflicts_with_all = ["manifest", "shard"])]
    pub(crate) range: Option<ByteRange>,
    /// Write the digests of all blocks to FILE, as lines of JSON, and print the digest of these digests; - for standard output [default: no manifest]
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Do one share of the work: I of N, from 1; without --manifest, what is found goes to standard output as JSON [default: all of it]
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<Shard>,
    /// Replace a manifest that is there
    #[arg(long, short, requires = "manifest")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) salvage: SalvageArgs,
}

/// Compare disks with digests that were taken earlier: of every block, or of whole disks
///
/// With a manifest (`vhdx hash --manifest`), every block that differs is told, with its place. With a list of digests (the output of
/// `vhdx hash`, `vhdx extract --hash` or sha256sum), every disk named in it is. Exit code 1 if anything differs.
///
/// Example: vhdx verify disk.vhdx --manifest disk.manifest
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The image
    #[arg(value_name = "IMAGE", required_unless_present = "check", conflicts_with = "check")]
    pub(crate) image: Option<PathBuf>,
    /// The manifest that its blocks are compared with [default: none, but a list to --check]
    #[arg(long, value_name = "FILE", required_unless_present = "check", conflicts_with = "check")]
    pub(crate) manifest: Option<PathBuf>,
    /// A list of digests and images, whose names are looked up in the current folder; - for standard input [default: none]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) check: Option<PathBuf>,
    /// The algorithm of lines that do not name it [default: by the length of the digest: crc32, md5, sha1 or sha256]
    #[arg(long = "algorithm", short, value_name = "ALGORITHM", value_parser = parse_algorithm, requires = "check")]
    pub(crate) algorithm: Option<Algorithm>,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What an input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    Auto,
    Vhdx,
    Raw,
}

/// Tell whether two disks are the same: VHDX images, chains of them, raw files or devices
///
/// If one is longer, the other is taken as if zeros were behind it, unless --strict is given. Exit code 0 if they are the same,
/// 1 if not, more if that can't be told.
///
/// Example: vhdx compare disk.avhdx disk.raw
#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// The one
    #[arg(value_name = "A")]
    pub(crate) one: PathBuf,
    /// The other
    #[arg(value_name = "B")]
    pub(crate) other: PathBuf,
    /// What A is: auto, vhdx or raw; auto takes for an image what begins like one
    #[arg(long = "format", short = 'f', value_enum, default_value_t = InputFormat::Auto, value_name = "auto|vhdx|raw", hide_possible_values = true)]
    pub(crate) one_format: InputFormat,
    /// What B is: auto, vhdx or raw
    #[arg(long = "other-format", short = 'F', value_enum, default_value_t = InputFormat::Auto, value_name = "auto|vhdx|raw", hide_possible_values = true)]
    pub(crate) other_format: InputFormat,
    /// Tell of every range that differs, in steps of 512 bytes, not only of the first byte
    #[arg(long)]
    pub(crate) all: bool,
    /// Disks of different sizes differ
    #[arg(long, short)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Tell what has changed between a disk and an ancestor in its chain: what an incremental backup has to hold
///
/// --content reads what the child holds, and tells what really differs. --allocated tells what the child holds, by the tables
/// alone: that takes no time, but a guest may have written what was there before.
///
/// With --delta, the changed bytes are also written to a raw file of the size of the disk, at their places; all else is a hole.
/// The list that is printed says which of its bytes count.
///
/// Example: vhdx diff child.avhdx --output json --delta child.delta
#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// The image
    #[arg(value_name = "CHILD")]
    pub(crate) image: PathBuf,
    /// A file of its chain [default: its parent]
    #[arg(value_name = "ANCESTOR")]
    pub(crate) ancestor: Option<PathBuf>,
    // Not a doc comment: rustdoc takes `[default]` for a link.
    #[arg(long, conflicts_with = "allocated", help = "What really differs [default]")]
    pub(crate) content: bool,
    /// What the images above the ancestor hold
    #[arg(long)]
    pub(crate) allocated: bool,
    /// Write the changed bytes to FILE [default: no file]
    #[arg(long, value_name = "FILE")]
    pub(crate) delta: Option<PathBuf>,
    /// Replace a delta that is there
    #[arg(long, short, requires = "delta")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Put together the shares of digests or of a manifest that several runs of `vhdx hash --shard` have made
///
/// The result is exactly what one run without --shard gives.
///
/// Example: vhdx merge part1 part2 part3 part4
#[derive(Args, Debug)]
pub(crate) struct MergeArgs {
    /// The files with the shares, in any order
    #[arg(required = true, value_name = "SHARE")]
    pub(crate) shares: Vec<PathBuf>,
    /// Where the manifest goes, if the shares are of one [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Replace a manifest that is there
    #[arg(long, short, requires = "manifest")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}
