//! EROFS metadata for a tree: a file system whose files point into the images themselves, for the Linux kernel.
//!
//! The metadata image has the directories, an index of the chunks of each disk, and a copy of the few bytes that no
//! image has in whole blocks of 4096 bytes: what a log replay or the bitmap of a partial block puts together. The files
//! of the images are further devices of the file system. Nothing else is copied.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use vhdx_mmap::{Disk, DiskRange, Source};

use crate::Export;
use crate::tree::{Content, Tree};

mod cost;
mod directory;
mod format;
mod pages;
#[cfg(target_os = "linux")]
mod probe;
mod write;

use cost::{Choice, Costs};
use format::BLOCK;
use pages::{Extent, Segments};
#[cfg(target_os = "linux")]
pub(crate) use probe::probe;

/// How metadata is written, and how large it may become.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Options {
    /// Makes metadata for loop devices, which kernels before 6.12 need: each file of an image is a device that begins
    /// at [`Device::start`]. The kernel confuses devices if a part on one ends at the block at which the next part
    /// begins on another one; these starts prevent that.
    pub for_loop_devices: bool,
    /// Lets every user read the files. Otherwise only their owner can, which is root.
    pub allow_other: bool,
    /// Largest size of the metadata without the copied bytes, in bytes.
    pub most_metadata: u64,
    /// Largest number of bytes that are copied from the images.
    pub most_copied: u64,
    /// Largest index of a file, in bytes, that names devices by their numbers. A larger one gives the blocks of all
    /// devices addresses in one row, and takes half as much. The kernel follows both, but `fsck.erofs` up to version
    /// 1.8 only the numbers.
    pub most_index: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            for_loop_devices: false,
            allow_other: false,
            most_metadata: 1 << 30,
            most_copied: 16 << 30,
            most_index: 4 << 20,
        }
    }
}

/// Metadata that was written.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Metadata {
    /// The devices of the file system, in the order in which the kernel must be given them.
    pub devices: Vec<Device>,
    /// Size of the metadata without the copied bytes, in bytes.
    pub len: u64,
    /// Space for the bytes that were copied, in bytes.
    pub copied: u64,
    /// Paths of partitions that are left out: they do not begin at a multiple of 4096 bytes, so that all of their bytes
    /// had to be copied, or their index were much larger than that of the disk.
    pub left_out: Vec<String>,
}

/// A device of the file system: the file of an image.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Device {
    /// The file.
    pub source: Source,
    /// Offset in the file at which the device begins, in bytes. 0 except for loop devices.
    pub start: u64,
}

impl Device {
    /// Returns the number of its whole blocks.
    fn blocks(&self) -> u64 {
        self.source.len().saturating_sub(self.start).checked_div(BLOCK).unwrap_or(0)
    }
}

/// Why no metadata was written.
#[non_exhaustive]
#[derive(Debug)]
pub enum Error {
    /// A part of an image cannot be read. `path` is that of the file in the tree.
    Image {
        /// Path of the file in the tree.
        path: String,
        /// What is wrong with the image.
        error: vhdx_mmap::Error,
    },
    /// The metadata cannot be written.
    Write(io::Error),
    /// A limit is exceeded.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Size or number that is needed.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// A name in a directory has more than 255 bytes.
    LongName(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Image { path, error } => write!(to, "{path}: {error:#}"),
            Self::Write(error) => write!(to, "EROFS metadata: {error}"),
            Self::TooLarge { what, needed, limit } => {
                write!(to, "EROFS metadata: too large: {what} (found {needed}, expected at most {limit})")
            }
            Self::LongName(name) => write!(to, "{name}: the name has more than 255 bytes"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Image { error, .. } => Some(error),
            Self::Write(error) => Some(error),
            Self::TooLarge { .. } | Self::LongName(_) => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// Number of devices that the kernel can tell apart, without one number that no device has.
const MOST_DEVICES: usize = 0xfffe;
/// Cost of the index of a partition, in bytes, that is never too large.
const SMALL_COST: u64 = 16 << 20;

/// The devices of a tree, and which disk has which.
#[derive(Debug, Default)]
struct Devices {
    list: Vec<Device>,
    /// Devices of each disk's layers, by the address of the disk.
    of_disk: HashMap<usize, Vec<Extent>>,
    /// Address of each device's first block among the blocks of all devices; empty if there are too many blocks.
    addresses: Vec<u32>,
}

impl Devices {
    fn of(tree: &Tree, options: &Options) -> Result<Self, Error> {
        let (mut devices, mut known) = (Self::default(), HashMap::new());
        for export in disks_of(tree) {
            let disk = export.range().disk();
            if devices.of_disk.contains_key(&address(disk)) {
                continue;
            }
            let mut extents = Vec::new();
            for layer in disk.layers() {
                let source = layer.image().source();
                let found = source.id().and_then(|id| known.get(&id).copied());
                let extent = match found {
                    Some(extent) => extent,
                    None => devices.add(source, options)?,
                };
                source.id().and_then(|id| known.insert(id, extent));
                extents.push(extent);
            }
            devices.of_disk.insert(address(disk), extents);
        }
        // The metadata, and what is copied, have the first addresses.
        let own = options.most_metadata.saturating_add(options.most_copied).div_ceil(BLOCK).max(1);
        let mut next = own;
        for device in &devices.list {
            devices.addresses.extend(u32::try_from(next));
            next = next.saturating_add(device.blocks());
        }
        if next > u64::from(format::HOLE) {
            devices.addresses.clear();
        }
        Ok(devices)
    }

    fn add(&mut self, source: &Source, options: &Options) -> Result<Extent, Error> {
        let number = self.list.len().saturating_add(1);
        let device = u16::try_from(number).ok().filter(|_| number < MOST_DEVICES).ok_or(Error::TooLarge {
            what: "number of image files",
            needed: u64::try_from(number).unwrap_or(u64::MAX),
            limit: u64::try_from(MOST_DEVICES).unwrap_or(u64::MAX),
        })?;
        // Payload begins after 1 MiB, and blocks at multiples of that: with different starts below 1 MiB, no two images
        // have a part of a disk at the same block of their devices.
        let start = match options.for_loop_devices {
            true => u64::from(device).checked_rem(255).unwrap_or(0).saturating_add(1).saturating_mul(BLOCK),
            false => 0,
        };
        let added = Device { source: source.clone(), start };
        let blocks = added.blocks();
        if blocks >= u64::from(format::HOLE) {
            let limit = u64::from(format::HOLE).saturating_mul(BLOCK);
            return Err(Error::TooLarge { what: "size of an image file in bytes", needed: source.len(), limit });
        }
        self.list.push(added);
        Ok(Extent { device, blocks, start })
    }

    fn of_disk(&self, disk: &Arc<Disk>) -> &[Extent] {
        self.of_disk.get(&address(disk)).map_or(&[], Vec::as_slice)
    }
}

fn disks_of(tree: &Tree) -> impl Iterator<Item = &Export> {
    tree.nodes().iter().filter_map(|node| match node.content() {
        Content::Disk(export) => Some(export),
        _ => None,
    })
}

fn address(disk: &Arc<Disk>) -> usize {
    Arc::as_ptr(disk).addr()
}

/// What is written for a node of the tree.
#[derive(Clone, Copy, Debug)]
enum Plan {
    /// An inode of its own.
    Own(Option<Choice>),
    /// The inode of an earlier node, with the same content.
    Same(usize),
    /// Nothing.
    LeftOut,
}

fn segments<'a>(
    range: &'a DiskRange<Arc<Disk>>,
    devices: &'a Devices,
) -> Segments<'a, impl Iterator<Item = vhdx_mmap::Result<vhdx_mmap::Run>>> {
    Segments::new(range.extents(..), devices.of_disk(range.disk()), range.size())
}

/// Returns the number of pages of a range.
fn pages_of(range: &DiskRange<Arc<Disk>>) -> u64 {
    range.size().div_ceil(BLOCK)
}

/// Decides what is written for each node.
fn plan(tree: &Tree, devices: &Devices, most_index: u64) -> Result<(Vec<Plan>, bool), Error> {
    let (mut plans, mut known, mut of_disk) = (Vec::new(), HashMap::new(), HashMap::new());
    let mut has_lost = false;
    for (number, node) in tree.nodes().iter().enumerate() {
        let Content::Disk(export) = node.content() else {
            plans.push(Plan::Own(None));
            continue;
        };
        let range = export.range();
        let key = (address(range.disk()), range.start(), range.size());
        if let Some(same) = known.get(&key) {
            plans.push(Plan::Same(*same));
            continue;
        }
        let mut costs = Costs::new(pages_of(range));
        for segment in segments(range, devices) {
            let segment = segment.map_err(|error| Error::Image { path: tree.path(number), error })?;
            has_lost |= segment.content == pages::Pages::Lost;
            costs.add(&segment);
        }
        let mut choice = costs.choose(pages_of(range), true);
        if choice.entries > most_index && !devices.addresses.is_empty() && !costs.has_lost() {
            choice = costs.choose(pages_of(range), false);
        }
        let is_whole = range.size() == range.disk().size();
        let most = of_disk.get(&address(range.disk())).map_or(u64::MAX, |cost: &u64| cost.saturating_mul(2));
        if is_whole {
            of_disk.insert(address(range.disk()), choice.cost());
        } else if choice.cost() > most.max(SMALL_COST) {
            plans.push(Plan::LeftOut);
            continue;
        }
        known.insert(key, number);
        plans.push(Plan::Own(Some(choice)));
    }
    Ok((plans, has_lost))
}

/// Writes the metadata of a tree to an empty file.
///
/// # Errors
/// Fails if a part of an image cannot be read, a limit of the options is exceeded, or writing fails.
pub fn write(tree: &Tree, out: &File, options: &Options) -> Result<Metadata, Error> {
    let mut devices = Devices::of(tree, options)?;
    let (plans, has_lost) = plan(tree, &devices, options.most_index)?;
    let count = devices.list.len();
    // A number that no device has is one that the kernel refuses to read from. It counts in powers of 2.
    let lost_device = count.saturating_add(1);
    if has_lost && lost_device.is_power_of_two() {
        devices.list.extend(devices.list.last().cloned());
    }
    write::write(tree, &plans, devices, out, options)
}
