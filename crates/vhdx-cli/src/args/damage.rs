//! Arguments for damaged images.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vhdx_mmap::MetadataOverrides;

use crate::size::parse_size;

use super::{CacheArgs, FolderArgs, Output, ShareArgs};

/// Check images and their chains, and list every problem
///
/// Checks every rule of the format, and more: overlapping blocks, space that nothing refers to, contradictions,
/// leftovers. The check continues after each finding. Every finding has a code; docs/checks.md explains it.
///
/// The exit codes are those of qemu-img check: 0 no errors, 1 not checked, 2 corruption, 3 leaks only (space in the
/// file that nothing refers to), 63 the image needs a feature that this program does not support.
///
/// Example: vhdx check --payload disk.vhdx
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Images to check
    #[arg(required_unless_present = "split", value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Treat warnings as corruption
    #[arg(long)]
    pub(crate) strict: bool,
    /// Read the content of all blocks, too
    #[arg(long)]
    pub(crate) payload: bool,
    #[command(flatten)]
    pub(crate) share: ShareArgs,
    #[command(flatten)]
    pub(crate) folders: FolderArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LossMapFormat {
    Json,
    Ddrescue,
}

/// Options for damaged images.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Damaged images")]
pub(crate) struct SalvageArgs {
    /// Read everything that can be read; lost ranges read as zeros, and the exit code is 65 if there are any
    #[arg(long)]
    pub(crate) salvage: bool,
    /// Value that the image has lost: block-size=, disk-size=, sector-size=, or the file offsets metadata-offset= and
    /// bat-offset=; or layout=linear, to read blocks that are not present where a fixed image has them; repeat the
    /// option, or separate by commas [default: none]
    #[arg(
        long,
        value_name = "NAME=VALUE",
        requires = "salvage",
        value_delimiter = ',',
        value_parser = parse_assumption
    )]
    pub(crate) assume: Vec<Assumption>,
    /// Write the lost ranges of the disk, and why they are lost, to FILE; an existing file is replaced
    /// [default: no file]
    ///
    /// Only extract and hash read all content, and so find the ranges that a failing drive cannot read.
    #[arg(long, value_name = "FILE", requires = "salvage")]
    pub(crate) loss_map: Option<PathBuf>,
    /// Format of the loss map: json, or ddrescue for a mapfile of GNU ddrescue
    #[arg(
        long,
        value_enum,
        default_value_t = LossMapFormat::Json,
        value_name = "json|ddrescue",
        hide_possible_values = true,
        requires = "loss_map"
    )]
    pub(crate) loss_map_format: LossMapFormat,
}

impl SalvageArgs {
    /// Values of all --assume options.
    pub(crate) fn metadata_overrides(&self) -> Result<MetadataOverrides, String> {
        let mut overrides = MetadataOverrides::default();
        for assumption in &self.assume {
            let (name, is_given) = match *assumption {
                Assumption::Block(size) => ("block-size", overrides.block_size.replace(size).is_some()),
                Assumption::Disk(size) => ("disk-size", overrides.disk_size.replace(size).is_some()),
                Assumption::Sector(size) => ("sector-size", overrides.sector_size.replace(size).is_some()),
                Assumption::Linear => ("layout", std::mem::replace(&mut overrides.is_linear, true)),
                Assumption::Metadata(place) => ("metadata-offset", overrides.metadata_offset.replace(place).is_some()),
                Assumption::Bat(place) => ("bat-offset", overrides.bat_offset.replace(place).is_some()),
            };
            if is_given {
                return Err(format!("--assume {name}: given twice"));
            }
        }
        Ok(overrides)
    }
}

impl SalvageArgs {
    /// The options with --salvage alone, or with nothing.
    pub(crate) fn only(salvage: bool) -> Self {
        Self { salvage, assume: Vec::new(), loss_map: None, loss_map_format: LossMapFormat::Json }
    }
}

/// Value of a metadata item, or file offset of a region, that the user gives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Assumption {
    Block(u32),
    Disk(u64),
    Sector(u32),
    Metadata(u64),
    Bat(u64),
    Linear,
}

fn parse_assumption(text: &str) -> Result<Assumption, String> {
    const NAMES: &str = "expected block-size, disk-size, sector-size, metadata-offset, bat-offset or layout";

    if let Some(layout) = text.strip_prefix("layout=") {
        return if layout == "linear" { Ok(Assumption::Linear) } else { Err("expected layout=linear".to_owned()) };
    }
    let (name, size) = text.split_once('=').ok_or_else(|| format!("{NAMES}, and =VALUE"))?;
    let size: u64 = parse_size(size)?;
    let small = || u32::try_from(size).map_err(|_| format!("{size} is too large"));
    match name {
        "block-size" if size.is_power_of_two() && (1 << 20..=1 << 28).contains(&size) => {
            Ok(Assumption::Block(small()?))
        }
        "block-size" => Err("expected a power of two from 1M to 256M".to_owned()),
        "disk-size" if size <= 64 << 40 => Ok(Assumption::Disk(size)),
        "disk-size" => Err("expected at most 64T".to_owned()),
        "sector-size" if matches!(size, 512 | 4096) => Ok(Assumption::Sector(small()?)),
        "sector-size" => Err("expected 512 or 4096".to_owned()),
        "metadata-offset" | "bat-offset" if size == 0 || !size.is_multiple_of(1 << 20) => {
            Err("expected a multiple of 1M, at least 1M".to_owned())
        }
        "metadata-offset" => Ok(Assumption::Metadata(size)),
        "bat-offset" => Ok(Assumption::Bat(size)),
        other => Err(format!("unknown name {other}: {NAMES}")),
    }
}

pub(super) fn parse_byte(text: &str) -> Result<u8, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("\"{text}\" is not a byte: expected 0 to 255, or 0x00 to 0xff"))
}
