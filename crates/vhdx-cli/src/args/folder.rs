//! Arguments for folders of images.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::CacheArgs;

/// How folders are treated.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct FolderArgs {
    /// Take all images in folders and their subfolders; symbolic links are not followed
    #[arg(long, short)]
    pub(crate) recursive: bool,
}

/// List the images in folders, one row each: kind, sizes, log, parents, checkpoints, health and contents
///
/// Folders are searched with their subfolders, for files with the names of images (.vhdx, .avhdx) and for files that
/// begin like an image. Symbolic links in them are not followed, and pipes and devices are not opened. An image that
/// cannot be opened is a row, too; the exit code is that of the first one.
///
/// JSON output has one object on each line.
///
/// Example: vhdx list /backup --sort allocated
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Images and folders
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Read the content, too: SHA-256 digests, blocks that hold only zeros, fragmentation, all checks of `vhdx check`
    #[arg(long)]
    pub(crate) deep: bool,
    /// Show how full each file system is, and what of it could be given back; --deep shows it, too
    #[arg(long)]
    pub(crate) usage: bool,
    /// Sort rows by name, kind, virtual, file, allocated, checkpoints or health; sizes in descending order, the worst
    /// health first [default: the order of the paths, and of the names in each folder]
    #[arg(long, value_enum, value_name = "KEY", hide_possible_values = true)]
    pub(crate) sort: Option<SortKey>,
    /// Output format: human, csv, or json
    #[arg(
        long = "output",
        value_enum,
        default_value_t = ListFormat::Human,
        value_name = "human|csv|json",
        hide_possible_values = true
    )]
    format: ListFormat,
    /// Print JSON lines, like --output json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
}

impl ListArgs {
    pub(crate) fn has_usage(&self) -> bool {
        self.usage || self.deep
    }

    pub(crate) fn format(&self) -> ListFormat {
        if self.json { ListFormat::Json } else { self.format }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    #[value(alias = "table")]
    Human,
    Csv,
    #[value(alias = "jsonl")]
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortKey {
    Name,
    Kind,
    Virtual,
    File,
    Allocated,
    Checkpoints,
    Health,
}
