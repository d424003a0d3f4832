//! Arguments that divide the work on a disk among machines.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args};
use vhdx_mmap::ops::manifest::{NotAShard, Shard};
use vhdx_mmap::ops::plan::Split;

use crate::size::parse_size;

/// Divide the work on a disk into splits for several machines, as JSON
///
/// Splits have about the same amount of data. The plan holds the paths and the states of all files of the chain: hash,
/// check, diff and extract with --split open exactly these files, look for no parents, and fail if a file has changed.
/// Each prints the result of its share, and `vhdx merge` makes the result of one run of them.
///
/// Example: vhdx plan disk.avhdx --splits 8 > plan.json
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("division").args(["splits", "split_size"]))]
pub(crate) struct PlanArgs {
    /// Image to divide
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// Number of splits [default: one for every 4 GiB of data]
    ///
    /// Splits begin at blocks of the disk. If it has fewer, some splits are empty.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(crate) splits: Option<u32>,
    /// Data in each split, in bytes [default: 4G]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) split_size: Option<u64>,
    /// Bytes after its end that a search in a split reads, too: one less than the longest match
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "0")]
    pub(crate) overlap: u64,
    /// Leave the times of the files out of the plan, for machines that read copies of the files
    #[arg(long)]
    pub(crate) no_times: bool,
    /// Print each split as a document of its own, one on each line, instead of the plan
    #[arg(long)]
    pub(crate) lines: bool,
}

/// What --shard and --split stand for.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) portion: Part,
    /// Whether the image is opened under the path that the user gave, not under that of the plan.
    pub(crate) is_named: bool,
}

/// The part of the work on a disk that one of several machines does.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Shard(Shard),
    Split(Box<Split>),
}

/// The work on one disk, divided among machines.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Several machines")]
#[command(group = ArgGroup::new("share").args(["shard", "split"]).multiple(true))]
pub(crate) struct ShareArgs {
    /// Process part I of N, counted from 1; hash prints the result as JSON, the others with --json
    /// [default: the whole disk]
    ///
    /// `vhdx merge` merges the results of all parts. With --split, it says which split of a plan to process.
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<ShardNumber>,
    /// Number of the first part: 0 or 1 [default: 1]
    ///
    /// Kubernetes (JOB_COMPLETION_INDEX) and the arrays of most batch systems count from 0.
    #[arg(long, value_name = "0|1", requires = "shard", value_parser = clap::value_parser!(u32).range(0..=1))]
    pub(crate) shard_base: Option<u32>,
    /// Process a split of `vhdx plan`: FILE is one split, or a plan, of which --shard names the split [default: none]
    ///
    /// The image need not be named. If it is, it is opened under that path, and must be in the state of the plan.
    #[arg(long, value_name = "FILE")]
    pub(crate) split: Option<PathBuf>,
    /// Write the result of the share to FILE, as JSON; it gets its name when it is complete, and replaces an older one
    /// [default: standard output]
    #[arg(long, value_name = "FILE", requires = "share")]
    pub(crate) result: Option<PathBuf>,
    /// What the options above stand for, once they are read.
    #[arg(skip)]
    pub(crate) task: Option<Task>,
}

/// Text such as `2/5`, the number of a shard and the number of shards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardNumber {
    index: u32,
    count: u32,
}

impl FromStr for ShardNumber {
    type Err = NotAShard;

    fn from_str(text: &str) -> Result<Self, NotAShard> {
        let (index, count) = text.split_once('/').ok_or(NotAShard)?;
        let number = |text: &str| text.parse().map_err(|_| NotAShard);
        let (index, count) = (number(index)?, number(count)?);
        // Whichever number is the first.
        if index <= count && Shard::new(count, count).is_some() { Ok(Self { index, count }) } else { Err(NotAShard) }
    }
}

impl ShareArgs {
    /// The shard of --shard; fails if it is not one of those that --shard-base counts.
    pub(crate) fn shard(&self) -> Result<Option<Shard>, String> {
        let Some(ShardNumber { index, count }) = self.shard else { return Ok(None) };
        let base = self.shard_base.unwrap_or(1);
        let shard = index.checked_add(1).and_then(|after| Shard::new(after.checked_sub(base)?, count));
        let (first, last) = (base, count.saturating_add(base).saturating_sub(1));
        shard
            .map(Some)
            .ok_or_else(|| format!("--shard {index}/{count}: not a shard (expected {first}/{count} to {last}/{count})"))
    }
}
