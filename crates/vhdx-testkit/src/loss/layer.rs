//! A file of a chain, which can be cut.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::builder::{Image, Slot};

/// A file of a chain.
pub struct Layer {
    pub image: Image,
    pub is_dirty: bool,
    pub(super) file: File,
    /// Path or bytes that the library opens.
    pub(super) path: PathBuf,
}

impl Layer {
    /// A layer whose file is in memory.
    pub(super) fn in_memory(image: Image, is_dirty: bool) -> Self {
        let file = File::from(memfd_create("image", MemfdFlags::CLOEXEC).unwrap());
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Self { image, is_dirty, file, path }.written()
    }

    /// A layer whose file is in a folder.
    pub(super) fn in_folder(image: Image, path: PathBuf) -> Self {
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        Self { image, is_dirty: false, file, path }.written()
    }

    pub(super) fn written(self) -> Self {
        self.file.set_len(self.image.bytes.len()).unwrap();
        for (offset, bytes) in self.image.bytes.pieces() {
            self.file.write_all_at(bytes, offset).unwrap();
        }
        self
    }

    /// Whether two blocks have the same file offset.
    pub fn has_shared_blocks(&self) -> bool {
        let Image { spec, places, .. } = &self.image;
        let stored = spec.blocks.iter().filter(|(_, block)| block.state >= 6);
        let mut places: Vec<u64> = stored.map(|(number, _)| places[&Slot::Block(*number)]).collect();
        let count = places.len();
        places.sort_unstable();
        places.dedup();
        places.len() < count
    }
}
