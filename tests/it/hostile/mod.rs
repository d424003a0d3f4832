//! Crafted, truncated and damaged files: everything that is read from them is correct, or an error. Nothing panics,
//! nothing runs for ever, and lost bytes are never zeros.

mod cuts;
mod damage;
mod extremes;
#[cfg(feature = "ops")]
mod layout;
mod noise;
mod sweep;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use vhdx_mmap::{Chain, Disk, LogReport, OpenOptions, Parents, Segment, Source};

use crate::damaged::{check_agrees, salvage_agrees};
use crate::kit::FileBytes;
use crate::kit::builder::{Image, Spec};
use crate::kit::log::Dirty;
use crate::kit::optional::stride;
use crate::kit::oracle::{Fault, LogPolicy, Oracle};
use crate::kit::{Block, MIB};
use crate::lab::{Expected, Rng, file_of, run, size, wide};
use crate::support::{map, temp_dir};

/// Result of reading a damaged image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is rejected.
    Refused,
    /// It reads as if it were not damaged.
    Same,
    /// Some of it reads differently, as it must, or not at all.
    Other,
}

/// Number of images with each verdict, so that a test can assert that it has tested something.
#[derive(Debug, Default)]
struct Tally {
    refused: u32,
    same: u32,
    other: u32,
}

impl Tally {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Refused => self.refused += 1,
            Verdict::Same => self.same += 1,
            Verdict::Other => self.other += 1,
        }
    }

    /// Asserts that more than these numbers of all ways were refused, harmless, and read as other bytes, or of those of
    /// them that were tried.
    #[track_caller]
    fn assert_more_than(&self, least: [u32; 3]) {
        let [refused, same, other] = least.map(|least| least / u32::try_from(stride()).unwrap());
        let is_other = least[2] == 0 || self.other > other;
        assert!(self.refused > refused && self.same > same && is_other, "{self:?}");
    }
}

/// An image in a file, to be damaged in one place after the other, with the parents that it needs.
struct Victim {
    image: Image,
    parents: Vec<Image>,
    content: Expected,
    path: PathBuf,
    file: File,
    rng: Rng,
    folder: TempDir,
}

impl Victim {
    fn new(image: Image, parents: Vec<Image>) -> Self {
        let folder = temp_dir();
        let path = folder.path().join("0");
        image.bytes.write_file(&path).unwrap();
        for (layer, parent) in parents.iter().enumerate() {
            parent.bytes.write_file(&folder.path().join((layer + 1).to_string())).unwrap();
        }
        let file = File::options().write(true).open(&path).unwrap();
        let chain: Vec<&Image> = std::iter::once(&image).chain(&parents).collect();
        let content = Expected::of(&chain);
        Self { content, image, parents, path, file, rng: Rng::new(7), folder }
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.image.bytes.write(at, bytes);
        self.file.seek(SeekFrom::Start(at)).unwrap();
        self.file.write_all(bytes).unwrap();
    }

    /// Damages the image, judges what is read from it, and repairs it again.
    fn damaged(&mut self, patches: &[(u64, Vec<u8>)]) -> Result<Verdict, String> {
        let before: Vec<(u64, Vec<u8>)> =
            patches.iter().map(|(at, bytes)| (*at, self.image.bytes.read(*at, bytes.len()))).collect();
        patches.iter().for_each(|(at, bytes)| self.put(*at, bytes));
        let verdict = self.judge();
        before.iter().rev().for_each(|(at, bytes)| self.put(*at, bytes));
        let (at, bytes) = &patches[0];
        verdict.map_err(|wrong| format!("{at:#x} {:x?}: {wrong}", brief(bytes)))
    }

    fn options(&self) -> OpenOptions {
        let folder = self.folder.path().to_path_buf();
        let count = self.parents.len();
        OpenOptions::new().parents(Parents::With(Arc::new(move |request| {
            let parent = request.layer + 1;
            Ok((parent <= count).then(|| map(&folder.join(parent.to_string()))))
        })))
    }

    /// Compares what is read with the intended content, or, if that differs, with what the oracle reads.
    fn judge(&mut self) -> Result<Verdict, String> {
        look_at_everything(&self.path);
        let disk = Disk::open(map(&self.path), &self.options());
        check_agrees(&self.path, &self.options(), &disk)?;
        // Reading everything again takes time.
        if self.rng.one_in(4) {
            salvage_agrees(&self.path, &self.options(), &disk)?;
        }
        let mut files: Vec<&dyn FileBytes> = std::iter::once(&self.image).chain(&self.parents).map(file_of).collect();
        // An image that has become a base is not asked for parents.
        files.truncate(disk.as_ref().map_or(files.len(), |disk| disk.layers().len()));
        let below = Oracle::open(&files[1..], LogPolicy::Replay).ok().filter(|_| files.len() > 1);
        match (disk, Oracle::open(&files, LogPolicy::Replay)) {
            (Err(_), Err(_)) => Ok(Verdict::Refused),
            (Ok(disk), Ok(oracle)) => compare(&disk, [Some(&oracle), below.as_ref()], &self.content, &mut self.rng),
            (Err(error), Ok(_)) => Err(format!("refused, though it can be read: {error:?}")),
            (Ok(_), Err(fault)) => Err(format!("opened, though it is {fault:?}")),
        }
    }
}

/// Returns the beginning of bytes that may be long.
fn brief(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(8)]
}

/// Calls every query for an unknown file.
fn look_at_everything(path: &Path) {
    look_at_log(map(path));
    match Chain::open(map(path), &OpenOptions::new()) {
        Ok(chain) => look_at_chain(&chain),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn look_at_log(source: Source) {
    let output = match LogReport::read(source) {
        Ok(report) => format!("{report:?}"),
        Err(error) => error.to_string(),
    };
    assert!(!output.is_empty());
}

fn look_at_chain(chain: &Chain) {
    let disk = &Disk::so_far(chain);
    let image = disk.image();
    let mut output = format!("{:?}{image:?}", chain.broken().map(ToString::to_string));
    output.extend(disk.warnings().map(|(_, warning)| warning.to_string()));
    output += &format!("{:?}{:?}", image.parent_locator(), image.block_states());
    let blocks = image.payload_blocks();
    for block in [0, 1, 2, blocks / 2, blocks.saturating_sub(1), blocks, u64::MAX] {
        output += &format!("{:?}", disk.block(block).map(|block| block.state()));
    }
    let length: u64 = disk.extents(..).take(5000).map_while(Result::ok).map(|extent| extent.len).sum();
    assert!(length <= disk.size() && !output.is_empty());
}

/// Compares a disk with the intended content, or, if that differs, with what the oracle reads of its chain. The second
/// oracle has only its parents.
fn compare(
    disk: &Disk,
    [oracle, below]: [Option<&Oracle<'_>>; 2],
    content: &Expected,
    rng: &mut Rng,
) -> Result<Verdict, String> {
    let oracle = oracle.expect("a chain that can be opened");
    if disk.size() != oracle.size() {
        return Err(format!("{} bytes instead of {}", disk.size(), oracle.size()));
    }
    let as_meant = disk.size() == content.size() && reads_as_meant(disk, content);
    let sector_size = oracle.sector_size();
    let sectors = disk.size() / sector_size;
    let some: Vec<u64> = if !as_meant && sectors <= 20_000 {
        (0..sectors).collect()
    } else {
        let border = |rng: &mut Rng| rng.below(9) * (MIB / sector_size);
        (0..40).map(|_| if rng.one_in(2) { rng.below(sectors) } else { border(rng) }).filter(|s| *s < sectors).collect()
    };
    for sector in some {
        let (at, length) = (sector * sector_size, size(sector_size));
        let mut found = vec![0xA5; length];
        let read = disk.read_at(&mut found, at);
        match (read, oracle.read(at, length)) {
            (Ok(_), Ok(expected)) if found == expected => {}
            (Err(_), Err(_)) => {}
            // A part of a block that is truncated, or of which the parent has a part, may be readable.
            (Ok(_), Err(Fault::Corrupt("payload block past end of file")))
                if before_the_end(oracle, at, length).as_ref() == Some(&found)
                    || below.is_some_and(|below| below.read(at, length).as_ref() == Ok(&found)) => {}
            (read, expected) => {
                let expected = expected.as_deref().map(brief);
                return Err(format!("sector {sector}: {read:?}, {:x?} instead of {expected:x?}", brief(&found)));
            }
        }
    }
    Ok(if as_meant { Verdict::Same } else { Verdict::Other })
}

/// Returns the bytes of a sector of a block that begins in the file, if they are before its end. The images here have
/// their BAT at 3 MiB, and their disks one chunk.
fn before_the_end(oracle: &Oracle<'_>, at: u64, length: usize) -> Option<Vec<u8>> {
    let block_size = oracle.block_size(0);
    let entry = oracle.file_bytes(0, 3 * MIB + at / block_size * 8, 8);
    let place = u64::from_le_bytes(entry.try_into().unwrap()) >> 20 << 20;
    let end = place.checked_add(at % block_size)?.checked_add(wide(length))?;
    (end <= oracle.file_len(0)).then(|| oracle.file_bytes(0, end - wide(length), length))
}

/// Returns whether every byte of a disk of the right size can be read and is correct.
fn reads_as_meant(disk: &Disk, content: &Expected) -> bool {
    let mut at = 0;
    for segment in disk.segments(..) {
        match segment {
            Ok(segment) if content.differs(at, segment).is_none() => at += segment.len(),
            _ => return false,
        }
    }
    at == content.size()
}

/// Returns the end of the readable part of a disk, all of which must be correct.
fn right_up_to(disk: &Disk, content: &Expected) -> Result<u64, u64> {
    let mut at = 0;
    for segment in disk.segments(..) {
        let Ok(segment) = segment else { return Ok(at) };
        match content.differs(at, segment) {
            Some(wrong) => return Err(wrong),
            None => at += segment.len(),
        }
    }
    Ok(at)
}

/// A small valid image.
fn clean() -> Spec {
    Spec { disk_size: 4 * MIB - 512, ..Spec::empty(MIB) }
        .block(0, Block::full())
        .block(2, Block::full())
        .block(3, Block::new(3))
}

/// A child of [`clean`], with some sectors of its own.
fn child() -> Spec {
    let child = Spec::child_of(&clean(), "1");
    child
        .block(0, Block::partial(&[0..1, 9..300, 2047..2048]))
        .block(1, Block::partial(&run(16..17)))
        .block(2, Block::zero())
}

/// The victims of the tests: clean, dirty, differencing, and a dirty child.
fn victims() -> [Victim; 4] {
    [
        Victim::new(clean().build(), Vec::new()),
        Victim::new(Dirty::ManyEntries.build(&clean()), Vec::new()),
        Victim::new(child().build(), vec![clean().build()]),
        Victim::new(Dirty::WrapInside.build(&child()), vec![clean().build()]),
    ]
}

/// Returns the total lengths of the segments of a disk before an error: of data, and of zeros.
fn totals(disk: &Disk) -> (u64, u64) {
    disk.segments(..).fold((0, 0), |(data, zeros), segment| match segment.unwrap() {
        Segment::Data(bytes) => (data + wide(bytes.len()), zeros),
        Segment::Zero(length) => (data, zeros + length),
    })
}
