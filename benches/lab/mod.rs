//! Shared code of the benchmarks: images, and expected results.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vhdx_mmap::{Disk, OpenOptions, ParentRequest, Parents, Segment, Source};
pub(crate) use vhdx_testkit as kit;

use kit::builder::{Slot, Spec};
use kit::{Block, Fill, MIB};

/// Returns a folder of the build for images.
pub(crate) fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) fn map(path: &Path) -> Source {
    // SAFETY: no other process uses the file, and this one does not change it while it is mapped.
    unsafe { Source::map(path) }.unwrap()
}

pub(crate) fn open(path: &Path) -> Disk {
    Disk::open(map(path), &OpenOptions::new()).unwrap()
}

pub(crate) fn write(name: &str, spec: &Spec) -> PathBuf {
    let path = folder().join(name);
    spec.build().bytes.write_file(&path).unwrap();
    path
}

/// Makes an image of `size` bytes in blocks of 1 MiB, with the blocks that `block` returns.
pub(crate) fn image(size: u64, block: impl Fn(u64) -> Option<Block>) -> Spec {
    let spec = Spec::empty(size);
    (0..size / MIB).fold(spec, |spec, index| match block(index) {
        Some(block) => spec.block(index, block),
        None => spec,
    })
}

/// Writes a dense image of `mebibytes` MiB. Its content does not pass through the builder, which keeps everything in
/// memory.
pub(crate) fn dense(name: &str, mebibytes: u64) -> PathBuf {
    let path = folder().join(name);
    let empty = || Block::full().fill(Fill::Pieces(Vec::new()));
    let image = image(mebibytes * MIB, |_| Some(empty())).build();
    image.bytes.write_file(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    for block in 0..mebibytes {
        let bytes = kit::pattern(1, block * MIB, usize::try_from(MIB).unwrap());
        file.write_all_at(&bytes, image.block_at(block)).unwrap();
    }
    path
}

/// Makes the same disk with a different block order: no two neighbours in the disk are neighbours in the file.
pub(crate) fn fragmented(spec: &Spec) -> Spec {
    let blocks = spec.disk_size / MIB;
    let order = (0..blocks).map(|index| Slot::Block(index * 37 % blocks)).collect();
    Spec { order, ..spec.clone() }
}

/// Opens a chain of `layers` images above `base`. Each has every other sector of the content below it.
pub(crate) fn checkerboard(base: &Spec, layers: u64) -> Disk {
    let blocks = base.disk_size / MIB;
    let mut paths = vec![write("layer0.vhdx", base)];
    let mut spec = base.clone();
    for layer in 1..layers {
        let step = 1 << layer;
        let sectors: Vec<_> = (0..MIB / 512).step_by(step).map(|sector| sector..sector + 1).collect();
        let child = Spec::child_of(&spec, "parent");
        spec = (0..blocks).fold(child, |spec, index| spec.block(index, Block::partial(&sectors)));
        spec.seed = layer;
        spec.data_write_guid = uuid::Uuid::from_u128(1000 + u128::from(layer));
        paths.push(write(&format!("layer{layer}.vhdx"), &spec));
    }
    let top = map(paths.last().unwrap());
    let finder = move |request: &ParentRequest<'_>| {
        let parent = paths.len().checked_sub(request.layer + 2).and_then(|index| paths.get(index));
        Ok(parent.map(|path| map(path)))
    };
    Disk::open(top, &OpenOptions::new().parents(Parents::With(std::sync::Arc::new(finder)))).unwrap()
}

/// Sums the words of some bytes: the minimum of work on all of them.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    // SAFETY: any eight bytes are a u64.
    let (_, words, _) = unsafe { bytes.align_to::<u64>() };
    words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

/// Sums all bytes that a pass borrows.
pub(crate) fn sum_of(disk: &Disk) -> u64 {
    disk.segments(..).map(Result::unwrap).fold(0, |total, segment| match segment {
        Segment::Data(bytes) => total.wrapping_add(sum(bytes)),
        Segment::Zero(_) => total,
    })
}

/// Returns numbers that look random and are the same in every run: multiples of 4096 below `end`.
pub(crate) fn random_pages(end: u64) -> impl FnMut() -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % (end / 4096) * 4096
    }
}

/// Page-aligned memory: the system copies into other memory at a fraction of the speed.
pub(crate) struct Aligned(Vec<u8>, usize, usize);

impl Aligned {
    pub(crate) fn new(length: usize) -> Self {
        let bytes = vec![0; length + 4096];
        let skip = bytes.as_ptr().align_offset(4096);
        Self(bytes, skip, length)
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.0[self.1..self.1 + self.2]
    }
}
