//! Images whose disks are all data, and files that are truncated.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::builder::Spec;
use crate::{Block, MIB, pattern};

/// Number of blocks in an image file of this length.
pub const BLOCKS_OF_WORK: u64 = 16;

/// File offset of the first block in an image that [`dense`] makes.
pub const FIRST_BLOCK: u64 = 4 * MIB;

/// An image of a disk of this many MiB, all of them data, contiguous in the file.
pub fn dense(folder: &Path, name: &str, blocks: u64) -> PathBuf {
    let spec = (0..blocks).fold(Spec::empty(blocks * MIB), |spec, number| spec.block(number, Block::full()));
    let path = folder.join(name);
    spec.build().bytes.write_file(&path).unwrap();
    path
}

/// Content of the disk of such an image.
pub fn content(blocks: u64) -> Vec<u8> {
    pattern(1, 0, usize::try_from(blocks * MIB).unwrap())
}

/// Truncates a file, or extends it.
pub fn cut(path: &Path, length: u64) {
    File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Sets the modification time of a file back, so that the next write changes it, however soon it happens.
pub fn make_old(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}
