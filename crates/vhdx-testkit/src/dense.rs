//! Images whose disks are all data, and files that become shorter.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::builder::Spec;
use crate::{Block, MIB, pattern};

/// Blocks of an image of some length.
pub const BLOCKS_OF_WORK: u64 = 16;

/// Where the first block lies in the file of an image that [`dense`] makes, in bytes.
pub const FIRST_BLOCK: u64 = 4 * MIB;

/// An image of a disk of so many MiB, all of them data, one behind the other.
pub fn dense(folder: &Path, name: &str, blocks: u64) -> PathBuf {
    let spec = (0..blocks).fold(Spec::empty(blocks * MIB), |spec, number| spec.block(number, Block::full()));
    let path = folder.join(name);
    spec.build().bytes.write_file(&path).unwrap();
    path
}

/// What the disk of such an image holds.
pub fn content(blocks: u64) -> Vec<u8> {
    pattern(1, 0, usize::try_from(blocks * MIB).unwrap())
}

/// Makes a file shorter, or longer.
pub fn cut(path: &Path, length: u64) {
    File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Sets the time of a file's last change back, so that the next write changes it, however soon that is.
pub fn make_old(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}
