//! Random chains of small images, in files that can be truncated and restored.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vhdx_mmap::{Disk, OpenOptions, Parents, Result, Source, Strictness};

use super::dice::{Dice, size, wide};
use super::layer::Layer;
use super::truth::Truth;
use crate::builder::{FileLength, Image, PARENT_LOCATOR, Slot, Spec};
use crate::log::Dirty;
use crate::{Block, Fill, Geometry, KIB, MIB, PAGE, Place, pattern};

/// File offset of the structure that is last in the file. Everything else fits before it.
const LAST: u64 = 40 * MIB;

/// File offset of blocks that share it.
const SHARED: u64 = 36 * MIB;

/// Start and length of a partition in a master boot record, in sectors.
pub const PARTITION: (u32, u32) = (64, 900);

/// How the bytes of a file are accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Map,
    Memory,
    Open,
    Reader,
}

/// A chain, child first, and the content of each of its disks.
pub struct Chain {
    pub layers: Vec<Layer>,
    /// The disk of each layer.
    pub truths: Vec<Truth>,
}

/// A master boot record with one partition.
pub fn boot_record() -> Vec<u8> {
    let mut sector = vec![0; 512];
    sector[446 + 4] = 0x83;
    sector[446 + 8..446 + 12].copy_from_slice(&PARTITION.0.to_le_bytes());
    sector[446 + 12..446 + 16].copy_from_slice(&PARTITION.1.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    sector
}

impl Chain {
    pub fn new(dice: &mut Dice, is_tight: bool) -> Self {
        let sector: u32 = dice.pick(&[512, 512, 4096]);
        let is_wide = dice.one_in(3);
        let count = 1 + dice.below(4);
        let mut specs: Vec<Spec> = Vec::new();
        for _ in 0..count {
            let spec = some_spec(specs.last(), sector, is_wide, dice);
            specs.push(spec);
        }
        let mut layers = Vec::new();
        for spec in specs.iter().rev() {
            let may_be_dirty = !is_tight && !spec.blocks.is_empty() && !has_fixed_places(spec);
            let is_dirty = may_be_dirty && dice.one_in(5);
            let mut image = if is_dirty { dice.pick(&dirty_kinds()).build(&in_order(spec)) } else { spec.build() };
            if !is_dirty && (is_tight || dice.one_in(2)) {
                let end = used_end(&image);
                image.bytes.truncate(end);
            }
            layers.push(Layer::in_memory(image, is_dirty));
        }
        Self::of(layers)
    }

    /// A chain of images, child first.
    pub fn in_memory(images: Vec<Image>) -> Self {
        Self::of(images.into_iter().map(|image| Layer::in_memory(image, false)).collect())
    }

    /// A chain of images in a folder, child first.
    pub fn in_folder(images: Vec<Image>, folder: &Path) -> Self {
        let layers = images.into_iter().enumerate();
        Self::of(layers.map(|(layer, image)| Layer::in_folder(image, folder.join(format!("{layer}.vhdx")))).collect())
    }

    fn of(layers: Vec<Layer>) -> Self {
        let truths = (0..layers.len()).map(|top| Truth::of(&layers[top..])).collect();
        Self { layers, truths }
    }

    /// Opens the bytes of a layer's file.
    pub fn source(&self, layer: usize, door: Door) -> Source {
        let path = &self.layers[layer].path;
        match door {
            Door::Memory => Source::load(path).unwrap(),
            Door::Map => map(path),
            Door::Open => Source::open(path).unwrap(),
            Door::Reader => Source::from_reader(File::open(path).unwrap()).unwrap(),
        }
    }

    /// Opens the bytes of all files.
    pub fn sources(&self, door: Door) -> Vec<Source> {
        (0..self.layers.len()).map(|layer| self.source(layer, door)).collect()
    }

    /// Lets the library read a layer from another path, with the same bytes, or some of them.
    pub fn read_from(&mut self, layer: usize, path: PathBuf) {
        self.layers[layer].path = path;
    }

    /// Another handle to a file, to truncate it.
    pub fn handle(&self, layer: usize) -> File {
        self.layers[layer].file.try_clone().unwrap()
    }

    /// Restores a truncated file. It must not be mapped.
    pub fn mend(&self, layer: usize) {
        let Layer { file, image, .. } = &self.layers[layer];
        let kept = file.metadata().unwrap().len();
        file.set_len(image.bytes.len()).unwrap();
        for (offset, bytes) in image.bytes.pieces() {
            if offset + wide(bytes.len()) > kept {
                file.write_all_at(bytes, offset).unwrap();
            }
        }
    }
}

/// Kinds of dirty logs. Those that extend the file are left out: a file that is shorter than its log requires is a
/// finding of a check, whether it was truncated or not.
fn dirty_kinds() -> Vec<Dirty> {
    let grows = |dirty: &Dirty| matches!(dirty, Dirty::Growth | Dirty::GrowthByData);
    Dirty::ALL.into_iter().filter(|dirty| !grows(dirty)).collect()
}

/// Opens a disk over sources of all layers, child first. `asked` is called for every search for a parent.
pub fn open(sources: &[Source], strictness: Strictness, asked: impl Fn() + Send + Sync + 'static) -> Result<Disk> {
    let parents = sources.to_vec();
    let finder = Parents::With(Arc::new(move |request| {
        asked();
        Ok(parents.get(request.layer + 1).cloned())
    }));
    Disk::open(sources[0].clone(), &OpenOptions::new().strictness(strictness).parents(finder))
}

#[expect(unsafe_code, reason = "the library's one unsafe function")]
fn map(path: &Path) -> Source {
    vhdx_mmap::guard_mappings().unwrap();
    // SAFETY: the promise is broken on purpose. The file is truncated while it is mapped; these tests are about what
    // the library does then. All borrowed bytes are copied, and the copies are compared only after the library has
    // reported that none of them was lost. The file is restored only when nothing has it mapped.
    unsafe { Source::map(path) }.unwrap()
}

fn some_spec(parent: Option<&Spec>, sector: u32, is_wide: bool, dice: &mut Dice) -> Spec {
    let mut spec = parent.map_or_else(|| Spec::empty(MIB), |parent| Spec::child_of(parent, "parent.vhdx"));
    spec.sector_size = sector;
    spec.block_size = u32::try_from(dice.pick(&[1, 1, 1, 2]) * MIB).unwrap();
    let chunk = u64::from(sector) << 23;
    spec.disk_size = match parent {
        Some(parent) if !dice.one_in(4) => parent.disk_size,
        _ if is_wide => chunk + (1 + dice.below(chunk / u64::from(sector))) * u64::from(sector),
        _ => (1 + dice.below(6 * MIB / u64::from(sector))) * u64::from(sector),
    };
    add_blocks(&mut spec, dice);
    // The end of the file is lost most often.
    match dice.below(4) {
        0 => spec.bat_offset = LAST,
        1 => spec.metadata_offset = LAST,
        // By default, bitmaps come after all blocks; now a block is last.
        2 => {
            let geometry = Geometry::of(spec.disk_size, spec.block_size, spec.sector_size, spec.has_parent);
            let partial = spec.blocks.iter().filter(|(_, block)| block.state == 7);
            let mut bitmaps: Vec<Slot> = partial.map(|(number, _)| Slot::Bitmap(number / geometry.ratio)).collect();
            bitmaps.dedup();
            spec.order = bitmaps;
        }
        _ => {}
    }
    spec
}

fn add_blocks(spec: &mut Spec, dice: &mut Dice) {
    let geometry = Geometry::of(spec.disk_size, spec.block_size, spec.sector_size, spec.has_parent);
    let size = u64::from(spec.block_size);
    let sectors = size / u64::from(spec.sector_size);
    for _ in 0..dice.below(6) + 1 {
        // Adjacent blocks on both sides of a page of the BAT or of a chunk, or anywhere.
        let entries = PAGE / 8;
        let border = dice.pick(&[0, entries, 2 * entries, geometry.ratio, geometry.blocks]);
        let near = (border + dice.below(4)).saturating_sub(2);
        let number = dice.pick(&[near, dice.clone().below(geometry.blocks)]);
        dice.below(2);
        let number = number.min(geometry.blocks - 1);
        let mut block = Block::new(if spec.has_parent {
            dice.pick(&[7, 7, 7, 6, 6, 6, 0, 1, 2, 3])
        } else {
            dice.pick(&[6, 6, 6, 6, 6, 0, 1, 2, 3])
        });
        if block.state == 7 {
            for _ in 0..1 + dice.below(3) {
                let start = dice.below(sectors);
                block.present.push(start..(start + 1 + dice.below(sectors)).min(sectors));
            }
        }
        if block.state >= 6 {
            block.fill = Some(some_fill(number, size, dice));
        }
        spec.blocks.insert(number, block);
    }
    spec.seed += dice.below(1 << 16) << 8;
    if dice.one_in(5) {
        share_offset(spec);
    }
}

/// Gives two fully present blocks the same file offset, if there are two. Both have the same content, so the disk reads
/// right.
fn share_offset(spec: &mut Spec) {
    let mut full: Vec<&mut Block> = spec.blocks.values_mut().filter(|block| block.state == 6).take(2).collect();
    if let [one, other] = &mut full[..] {
        (one.place, other.place) = (Place::At(SHARED), Place::At(SHARED));
        other.fill.clone_from(&one.fill);
    }
}

/// Like that, with blocks in the order of their numbers: a log may add and remove some.
fn in_order(spec: &Spec) -> Spec {
    Spec { order: Vec::new(), ..spec.clone() }
}

fn has_fixed_places(spec: &Spec) -> bool {
    spec.blocks.values().any(|block| matches!(block.place, Place::At(_)))
}

/// A few bytes that are not zero, at the beginning and the end of a block and between.
fn some_fill(number: u64, length: u64, dice: &mut Dice) -> Fill {
    let mut pieces = Vec::new();
    let seed = dice.below(1 << 32);
    if number == 0 && dice.one_in(2) {
        pieces.push((0, boot_record()));
    } else {
        pieces.push((0, pattern(seed, 0, size(3 * PAGE))));
    }
    for _ in 0..dice.below(3) {
        let at = 4 * PAGE + dice.below(length - 8 * PAGE);
        pieces.push((at, pattern(seed, at, size(1 + dice.below(2 * PAGE)))));
    }
    pieces.push((length - 2 * PAGE, pattern(seed, length, size(2 * PAGE))));
    Fill::Pieces(pieces)
}

/// Parts of a file that a reader needs.
pub fn spans(image: &Image) -> Vec<(ImageKind, Range<u64>)> {
    let spec = &image.spec;
    let (size, sector) = (u64::from(spec.block_size), u64::from(spec.sector_size));
    let bat = image.bat_entry_at(0);
    let mut spans = vec![(ImageKind::Bat, bat..bat + image.geometry.entries * 8)];
    for (number, block) in &spec.blocks {
        let entry = image.block_entry_at(*number);
        spans.push((ImageKind::Bat, entry..entry + 8));
        if block.state < 6 {
            continue;
        }
        let place = image.block_at(*number);
        let used = size.min(spec.disk_size - number * size);
        spans.push((ImageKind::Payload, place..place + used));
        if *number == 0 {
            spans.push((ImageKind::Start, place..place + 512.min(used)));
        }
        if let Some(Fill::Pieces(pieces)) = &block.fill {
            let pieces = pieces.iter().filter(|(at, _)| *at < used);
            spans.extend(
                pieces.map(|(at, bytes)| (ImageKind::Payload, place + at..place + (at + wide(bytes.len())).min(used))),
            );
        }
        if block.state == 7 {
            let chunk = number / image.geometry.ratio;
            let entry = image.bitmap_entry_at(chunk);
            spans.push((ImageKind::Bat, entry..entry + 8));
            let first = image.bitmap_at(chunk) + number % image.geometry.ratio * (size / sector) / 8;
            spans.push((ImageKind::Bitmap, first..first + (used / sector).div_ceil(8)));
            // All blocks of the chunk have their bits in it.
            let sectors = (spec.disk_size / sector - (chunk << 23)).min(1 << 23);
            let start = image.bitmap_at(chunk);
            spans.push((ImageKind::Bitmap, start..start + sectors.div_ceil(8)));
        }
    }
    if spec.locator.is_some() {
        let at = image.item_at(PARENT_LOCATOR);
        spans.push((ImageKind::Metadata, at..at + 600));
    }
    spans.push((ImageKind::Metadata, spec.metadata_offset..spec.metadata_offset + 65 * KIB));
    spans.push((ImageKind::Headers, 0..320 * KIB));
    if !spec.log_guid.is_nil() {
        spans.push((ImageKind::Headers, spec.log_offset..spec.log_offset + u64::from(spec.log_length)));
    }
    spans
}

/// Content of a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    Bat,
    Bitmap,
    Payload,
    /// The first sector of the disk.
    Start,
    Metadata,
    Headers,
}

/// End of the last byte that a reader needs: a file may end there.
fn used_end(image: &Image) -> u64 {
    assert_eq!(image.spec.file_length, FileLength::Auto);
    let log_end = image.spec.log_offset + u64::from(image.spec.log_length);
    let metadata_end = image.spec.metadata_offset + u64::from(image.spec.metadata_length);
    spans(image).into_iter().map(|(_, span)| span.end).fold(log_end.max(metadata_end), u64::max)
}

/// Where to truncate a file: often in a structure that is needed, at its borders, and at those of its pages.
pub fn some_cut(image: &Image, dice: &mut Dice) -> u64 {
    let length = image.bytes.len();
    let wanted = dice.pick(&[
        Some(ImageKind::Bat),
        Some(ImageKind::Bat),
        Some(ImageKind::Bat),
        Some(ImageKind::Bitmap),
        Some(ImageKind::Bitmap),
        Some(ImageKind::Payload),
        Some(ImageKind::Payload),
        Some(ImageKind::Start),
        Some(ImageKind::Metadata),
        Some(ImageKind::Headers),
        None,
    ]);
    let spans: Vec<Range<u64>> =
        spans(image).into_iter().filter(|(kind, _)| Some(*kind) == wanted).map(|(_, span)| span).collect();
    if spans.is_empty() {
        return dice.below(length);
    }
    let span = dice.pick(&spans);
    let inside = span.start + dice.below(span.end - span.start);
    let page = inside / PAGE * PAGE;
    let cut = dice.pick(&[
        span.start,
        span.start + 1,
        inside,
        inside,
        inside,
        span.end - 1,
        page,
        page + 1,
        page + PAGE - 1,
        page + PAGE / 2,
    ]);
    cut.min(length - 1)
}

/// Where to truncate the last page of a file, so that no page is lost; `None` if it holds one byte only.
pub fn some_quiet_cut(image: &Image, dice: &mut Dice) -> Option<u64> {
    let length = image.bytes.len();
    let page = (length - 1) / PAGE * PAGE;
    (length - page > 1).then(|| page + 1 + dice.below(length - page - 1))
}

/// A page of a file whose loss lets the image be opened; `None` if the image holds nothing of its disk.
pub fn some_page(image: &Image, dice: &mut Dice) -> Option<Range<u64>> {
    let kind =
        dice.pick(&[ImageKind::Bat, ImageKind::Bitmap, ImageKind::Payload, ImageKind::Payload, ImageKind::Start]);
    let all: Vec<(ImageKind, Range<u64>)> = spans(image);
    let of_kind = |wanted: &[ImageKind]| -> Vec<Range<u64>> {
        all.iter().filter(|(kind, _)| wanted.contains(kind)).map(|(_, span)| span.clone()).collect()
    };
    let mut some = of_kind(&[kind]);
    if some.is_empty() {
        some = of_kind(&[ImageKind::Bat, ImageKind::Payload]);
    }
    let span = Some(some).filter(|some| !some.is_empty()).map(|some| dice.pick(&some))?;
    let page = (span.start + dice.below(span.end - span.start)) / PAGE * PAGE;
    Some(page..page + PAGE)
}
