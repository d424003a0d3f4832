//! Files that are changed for an input, mapped, and restored: the cost of an input does not depend on the length of the
//! image.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};
use vhdx_mmap::Source;

use crate::kit::SparseBytes;

const PAGE: usize = 4096;

/// Bytes that can be restored.
pub(crate) struct Kept {
    pristine: Vec<u8>,
    bytes: Vec<u8>,
    /// The overwritten bytes, the newest last.
    undo: Vec<(usize, Vec<u8>)>,
}

impl Kept {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { pristine: bytes.clone(), bytes, undo: Vec::new() }
    }

    pub(crate) fn bytes(&self) -> &Vec<u8> {
        &self.bytes
    }

    /// Overwrites bytes, if all of them exist. Returns false otherwise.
    pub(crate) fn write(&mut self, at: usize, new: &[u8]) -> bool {
        let Some(old) = at.checked_add(new.len()).and_then(|end| self.bytes.get_mut(at..end)) else { return false };
        self.undo.push((at, old.to_vec()));
        old.copy_from_slice(new);
        true
    }

    /// Extends the bytes with zeros.
    pub(crate) fn grow(&mut self, length: usize) {
        let length = length.max(self.bytes.len());
        self.bytes.resize(length, 0);
    }

    fn restore(&mut self, mut undone: impl FnMut(usize, &[u8])) {
        let kept = self.bytes.len();
        if let Some(lost) = self.pristine.get(kept..) {
            self.bytes.extend_from_slice(lost);
        }
        self.bytes.truncate(self.pristine.len());
        for (at, mut old) in std::mem::take(&mut self.undo).into_iter().rev() {
            old.truncate(self.bytes.len().saturating_sub(at));
            if let Some(target) = self.bytes.get_mut(at..at + old.len()) {
                target.copy_from_slice(&old);
                undone(at, &old);
            }
        }
    }

    /// Restores the original bytes.
    pub(crate) fn reset(&mut self) {
        self.restore(|_, _| {});
    }
}

/// An image in memory, and a copy in a file.
pub(crate) struct Scratch {
    kept: Kept,
    file: File,
}

fn memory_file() -> File {
    File::from(memfd_create("image", MemfdFlags::CLOEXEC).expect("a file in memory"))
}

/// Maps a file in memory.
fn map(file: &File) -> Source {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: no other process has the file, and it is changed only while it is not mapped.
    unsafe { Source::map(path) }.expect("a mapping")
}

/// Makes a file for an image that is built for one input.
pub(crate) fn mapped(bytes: &SparseBytes) -> Source {
    let file = memory_file();
    file.set_len(bytes.len()).expect("a long file");
    for (offset, page) in bytes.pieces() {
        file.write_all_at(page, offset).expect("room in memory");
    }
    map(&file)
}

impl Scratch {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let scratch = Self { kept: Kept::new(bytes), file: memory_file() };
        scratch.write_from(0);
        scratch
    }

    /// Rewrites the file from an offset on; zeros become holes.
    fn write_from(&self, start: usize) {
        let pristine = &self.kept.pristine;
        self.file.set_len(pristine.len() as u64).expect("a long file");
        let first = start / PAGE * PAGE;
        for (index, page) in pristine[first..].chunks(PAGE).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                self.file.write_all_at(page, (first + index * PAGE) as u64).expect("room in memory");
            }
        }
    }

    /// Returns the current image.
    pub(crate) fn bytes(&self) -> &Vec<u8> {
        self.kept.bytes()
    }

    /// Returns the current image, mapped. All objects that use it must be dropped before the image is changed again.
    pub(crate) fn source(&self) -> Source {
        map(&self.file)
    }

    /// Overwrites bytes of the image, if they exist.
    pub(crate) fn write(&mut self, at: usize, new: &[u8]) {
        if self.kept.write(at, new) {
            self.file.write_all_at(new, at as u64).expect("room in memory");
        }
    }

    /// Truncates the image.
    pub(crate) fn cut(&mut self, length: usize) {
        self.kept.bytes.truncate(length);
        self.file.set_len(self.bytes().len() as u64).expect("a shorter file");
    }

    /// Restores the original image.
    pub(crate) fn restore(&mut self) {
        let cut = self.bytes().len();
        if cut < self.kept.pristine.len() {
            self.write_from(cut);
        }
        let file = &self.file;
        self.kept.restore(|at, old| file.write_all_at(old, at as u64).expect("room in memory"));
    }
}
