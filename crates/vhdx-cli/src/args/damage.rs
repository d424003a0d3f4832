//! The arguments that have to do with damaged images.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vhdx_mmap::MetadataOverrides;

use crate::exit::Failure;
use crate::size::parse_size;

use super::{CacheArgs, Output};

/// Find everything that is wrong with images and their chains, and everything that is out of the ordinary
///
/// Every rule of the format is checked, and more: blocks that overlap, room that nothing refers to, contradictions, leftovers.
/// Nothing stops at the first finding. Each has a code; docs/checks.md tells what it means and what to do.
///
/// Exit codes are those of qemu-img check: 0 all is well, 1 it could not be checked, 2 corruption, 3 only leaks (room in the file that
/// nothing refers to), 63 the image needs what is not supported.
///
/// Example: vhdx check --payload disk.vhdx
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Take warnings for corruption
    #[arg(long)]
    pub(crate) strict: bool,
    /// Read the content of all blocks as well
    #[arg(long)]
    pub(crate) payload: bool,
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

/// For images that are damaged.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Damaged images")]
pub(crate) struct SalvageArgs {
    /// Open whatever can be opened, and read what can be read; what is lost is zero, and exit code 65 says that something was
    #[arg(long)]
    pub(crate) salvage: bool,
    /// A value that the image has lost: block-size=, disk-size= or sector-size=; repeat it for several [default: none]
    #[arg(long, value_name = "NAME=SIZE", requires = "salvage", value_parser = parse_assumption)]
    pub(crate) assume: Vec<Assumption>,
    /// Write to FILE which ranges of the disk are lost, and why; one that is there is replaced. What a medium does not give is
    /// found out by commands that read content: extract and hash [default: no file]
    #[arg(long, value_name = "FILE", requires = "salvage")]
    pub(crate) loss_map: Option<PathBuf>,
    /// How the ranges are written: json, or as ddrescue writes its mapfiles
    #[arg(long, value_enum, default_value_t = LossMapFormat::Json, value_name = "json|ddrescue", hide_possible_values = true, requires = "loss_map")]
    pub(crate) loss_map_format: LossMapFormat,
}

impl SalvageArgs {
    /// What is assumed, all together.
    pub(crate) fn assumed(&self) -> Result<MetadataOverrides, Failure> {
        let mut assumed = MetadataOverrides::default();
        for assumption in &self.assume {
            let (name, is_known) = match *assumption {
                Assumption::Block(size) => ("block-size", assumed.block_size.replace(size).is_some()),
                Assumption::Disk(size) => ("disk-size", assumed.disk_size.replace(size).is_some()),
                Assumption::Sector(size) => ("sector-size", assumed.sector_size.replace(size).is_some()),
            };
            if is_known {
                return Err(Failure::usage(format!("--assume {name}: is given twice")));
            }
        }
        Ok(assumed)
    }
}

/// A value that the user knows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Assumption {
    Block(u32),
    Disk(u64),
    Sector(u32),
}

fn parse_assumption(text: &str) -> Result<Assumption, String> {
    let (name, size) = text.split_once('=').ok_or("name a value: block-size=, disk-size= or sector-size=")?;
    let size: u64 = parse_size(size)?;
    let small = || u32::try_from(size).map_err(|_| format!("{size} is too large for it"));
    match name {
        "block-size" if size.is_power_of_two() && (1 << 20..=1 << 28).contains(&size) => {
            Ok(Assumption::Block(small()?))
        }
        "block-size" => Err("a block has a power of two from 1M to 256M".to_owned()),
        "disk-size" if size <= 64 << 40 => Ok(Assumption::Disk(size)),
        "disk-size" => Err("a disk has at most 64T".to_owned()),
        "sector-size" if matches!(size, 512 | 4096) => Ok(Assumption::Sector(small()?)),
        "sector-size" => Err("a sector has 512 or 4096 bytes".to_owned()),
        other => Err(format!("{other} can't be assumed: block-size, disk-size and sector-size can")),
    }
}

pub(super) fn parse_byte(text: &str) -> Result<u8, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("\"{text}\" is no byte: 0 to 255, or 0x00 to 0xff"))
}
