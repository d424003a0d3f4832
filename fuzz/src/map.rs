//! The map of a chain and its changes: both equal the result of a comparison sector by sector.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use arbitrary::Arbitrary;
use vhdx_mmap::PayloadBlockState::{FullyPresent, PartiallyPresent, Undefined, Unmapped, Zero};
use vhdx_mmap::ops::{COMPARE_STEP, Change as Changed, allocated_changes, content_changes};
use vhdx_mmap::{Disk, Location, OpenOptions, ParentRequest, Parents, Run, ScanOptions, Source};

use crate::bases::policies;
use crate::change::{Change, Places, apply};
use crate::judge::{nature, some_sectors};
use crate::kit::builder::{Image, Spec};
use crate::kit::log::Dirty;
use crate::kit::oracle::{Oracle, Origin};
use crate::kit::{Block, FileBytes, Fill, KIB, MIB, pattern};
use crate::scratch::mapped;

/// A chain of images with much content in common.
#[derive(Arbitrary, Debug)]
pub struct Input {
    layers: Vec<Layer>,
    is_4k: bool,
    ancestor: u8,
    dirty: Option<u8>,
    ignores_log: bool,
    changes: Vec<Change>,
    mends_checksums: bool,
}

#[derive(Arbitrary, Debug)]
struct Layer {
    size: u8,
    block_shift: u8,
    blocks: [State; 3],
}

#[derive(Arbitrary, Clone, Debug)]
enum State {
    Absent,
    Undefined,
    Zero,
    Unmapped,
    Full(Content),
    Partial(Content, Vec<(u8, u8)>),
}

/// A few different contents, so that layers are often equal.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Content {
    Zeros,
    One,
    Other,
    /// As `One`, except for one byte.
    OneByte(u16),
}

impl Content {
    fn fill(self) -> Fill {
        let piece = |seed| vec![(0, pattern(seed, 0, 20_000)), (1000 * KIB, pattern(seed, 1, 24 << 10))];
        Fill::Pieces(match self {
            Self::Zeros => Vec::new(),
            Self::One => piece(1),
            Self::Other => piece(2),
            Self::OneByte(at) => {
                let mut pieces = piece(1);
                pieces[0].1[usize::from(at) % 20_000] ^= 1;
                pieces
            }
        })
    }
}

impl State {
    fn block(&self) -> Option<Block> {
        Some(match self {
            Self::Absent => return None,
            Self::Undefined => Block::new(1),
            Self::Zero => Block::zero(),
            Self::Unmapped => Block::new(3).at(4 * MIB),
            Self::Full(content) => Block::full().fill(content.fill()),
            Self::Partial(content, sectors) => {
                let run = |(start, length): &(u8, u8)| u64::from(*start)..u64::from(*start) + u64::from(*length);
                let sectors: Vec<Range<u64>> = sectors.iter().take(30).map(run).collect();
                Block::partial(&sectors).fill(content.fill())
            }
        })
    }
}

impl Input {
    /// Builds the images, child first.
    fn build(&self) -> Vec<Image> {
        let mut specs: Vec<Spec> = Vec::new();
        for layer in self.layers.iter().take(3) {
            let size = [2 * MIB + 32 * KIB, 2 * MIB + 32 * KIB, MIB, 3 * MIB][usize::from(layer.size % 4)];
            let mut spec = specs.last().map_or_else(|| Spec::empty(size), |parent| Spec::child_of(parent, "parent"));
            (spec.disk_size, spec.block_size) = (size, 1 << (20 + layer.block_shift % 2));
            spec.sector_size = if self.is_4k { 4096 } else { 512 };
            for (number, state) in layer.blocks.iter().enumerate() {
                let block = state.block().filter(|block| spec.has_parent || block.state != 7);
                if let Some(block) = block.filter(|_| (number as u64) * u64::from(spec.block_size) < size) {
                    spec.blocks.insert(number as u64, block);
                }
            }
            specs.push(spec);
        }
        let mut images: Vec<Image> = specs.iter().rev().map(Spec::build).collect();
        let child = specs.last().filter(|spec| !spec.blocks.is_empty());
        if let (Some(dirty), Some(spec)) = (self.dirty, child) {
            images[0] = Dirty::ALL[usize::from(dirty) % Dirty::ALL.len()].build(spec);
        }
        if let Some(image) = images.first_mut() {
            let bitmap = image.places.keys().any(|slot| matches!(slot, crate::kit::builder::Slot::Bitmap(0)));
            let places = Places {
                log: image.spec.log_offset as usize,
                metadata: image.spec.metadata_offset as usize,
                bat: image.spec.bat_offset as usize,
                bitmap: if bitmap { image.bitmap_at(0) as usize } else { 0 },
            };
            apply(&mut image.bytes, &places, &self.changes, self.mends_checksums);
        }
        images
    }
}

pub fn run(input: &Input) {
    let images = input.build();
    if images.is_empty() {
        return;
    }
    let sources: Vec<Source> = images.iter().map(|image| mapped(&image.bytes)).collect();
    let first = sources[0].clone();
    let finder = move |request: &ParentRequest<'_>| Ok(sources.get(request.layer + 1).cloned());
    let (policy, oracle_policy) = policies(input.ignores_log);
    let options = OpenOptions::new().log_policy(policy).parents(Parents::With(Arc::new(finder)));
    let Ok(disk) = Disk::open(first, &options) else { return };
    let layers = disk.layers().len();
    let files: Vec<&dyn FileBytes> = images.iter().map(|image| &image.bytes as &dyn FileBytes).take(layers).collect();
    let oracle = Oracle::open(&files, oracle_policy).expect("the naive reader opens what is opened");
    let mapped_to = extents_agree(&disk, &oracle);
    segments_agree(&disk);
    if layers < 2 {
        assert!(allocated_changes(&disk, 1, |_| ControlFlow::Continue(())).is_err());
        return;
    }
    let ancestor = 1 + usize::from(input.ancestor) % (layers - 1);
    allocated_agree(&disk, ancestor, &oracle, mapped_to);
    let below = Oracle::open(&files[ancestor..], oracle_policy).expect("a part of a chain is one");
    contents_agree(&disk, ancestor, &oracle, &below);
}

/// Compares the extents with the locations that the naive reader finds. Returns the end of the readable map.
fn extents_agree(disk: &Disk, oracle: &Oracle<'_>) -> u64 {
    let mut end = 0;
    for extent in disk.extents(..) {
        let Ok(extent) = extent else { return end };
        assert_eq!((extent.start, extent.len > 0), (end, true));
        end += extent.len;
        let sector_size = oracle.sector_size();
        let sectors = extent.start.div_ceil(sector_size)..end.div_ceil(sector_size);
        let last = sectors.end.saturating_sub(1);
        for sector in sectors.step_by(67).chain([last]).filter(|sector| sector * sector_size >= extent.start) {
            extent_agrees(&extent, sector * sector_size, oracle);
        }
    }
    assert_eq!(end, disk.size());
    end
}

fn extent_agrees(extent: &Run, at: u64, oracle: &Oracle<'_>) {
    // Of a truncated block, the library returns the part that exists.
    let Ok(origin) = oracle.locate(at / oracle.sector_size()) else { return };
    match origin {
        Origin::File { layer, offset } => {
            assert_eq!(extent.layer, layer, "{at:#x} in {extent:?}");
            assert!(matches!(extent.state, Some(FullyPresent | PartiallyPresent)), "{extent:?}");
            match extent.file_offset() {
                Some(place) => assert_eq!(place + (at - extent.start), offset, "{at:#x} in {extent:?}"),
                None if matches!(extent.at, Location::Log(_)) => {}
                // Zeros of a replay, and the first sector of an extent may be partial.
                None => assert_eq!(oracle.file_bytes(layer, offset, 512), [0; 512], "{at:#x} in {extent:?}"),
            }
        }
        Origin::Zero { layer, state } => {
            let state = [None, Some(Undefined), Some(Zero), Some(Unmapped)][usize::from(state)];
            assert_eq!((extent.layer, extent.state, extent.is_data()), (layer, state, false), "{at:#x} in {extent:?}");
        }
        Origin::Absent { layer } => {
            assert_eq!(
                (extent.layer, extent.is_present(), extent.is_data()),
                (layer, false, false),
                "{at:#x} in {extent:?}"
            );
        }
    }
}

/// Asserts that segments have data where the extents have it, and zeros elsewhere.
fn segments_agree(disk: &Disk) {
    let mut by_extent = Vec::new();
    for extent in disk.extents(..).map_while(Result::ok) {
        add(&mut by_extent, (extent.is_data(), extent.len));
    }
    let mut by_segment = Vec::new();
    for segment in disk.segments(..).map_while(Result::ok) {
        add(&mut by_segment, nature(&segment));
    }
    assert_eq!(by_extent, by_segment);
}

fn add(runs: &mut Vec<(bool, u64)>, next: (bool, u64)) {
    match runs.last_mut() {
        Some(last) if last.0 == next.0 => last.1 += next.1,
        _ => runs.push(next),
    }
}

/// Collects changes, which are in order and disjoint.
fn collect(all: &mut Vec<Changed>, next: Changed) -> ControlFlow<()> {
    assert!(next.range.start < next.range.end, "{next:?}");
    if let Some(last) = all.last() {
        assert!(last.range.end <= next.range.start, "{last:?} and {next:?}");
    }
    all.push(next);
    ControlFlow::Continue(())
}

fn change_at(all: &[Changed], at: u64) -> Option<&Changed> {
    all.iter().find(|change| change.range.contains(&at))
}

fn allocated_agree(disk: &Disk, ancestor: usize, oracle: &Oracle<'_>, mapped_to: u64) {
    let mut found = Vec::new();
    let done = allocated_changes(disk, ancestor, |change| collect(&mut found, change));
    assert_eq!(done.is_ok(), mapped_to == disk.size());
    if done.is_err() {
        return;
    }
    for sector in some_sectors(disk) {
        let at = sector * oracle.sector_size();
        let Ok(origin) = oracle.locate(sector) else { continue };
        let (layer, is_data) = match origin {
            Origin::File { layer, .. } => (layer, true),
            Origin::Zero { layer, .. } | Origin::Absent { layer } => (layer, false),
        };
        let change = change_at(&found, at);
        assert_eq!(change.is_some(), layer < ancestor, "{at:#x}: {change:?}");
        // Data in a file may be zeros of a replay.
        assert!(change.is_none_or(|change| is_data || change.is_zero), "{at:#x}: {change:?}");
    }
}

fn contents_agree(disk: &Disk, ancestor: usize, oracle: &Oracle<'_>, below: &Oracle<'_>) {
    let mut found = Vec::new();
    let done = content_changes(disk, ancestor, &ScanOptions::new(), |change| collect(&mut found, change));
    if done.is_err() {
        // A part of the disk or of the ancestor cannot be read.
        return;
    }
    for change in &found {
        let is_whole = |place: u64| place.is_multiple_of(COMPARE_STEP) || place == disk.size();
        assert!(is_whole(change.range.start) && is_whole(change.range.end), "{change:?}");
    }
    let steps = some_sectors(disk).flat_map(|sector| {
        let at = sector * oracle.sector_size();
        (at..at + oracle.sector_size()).step_by(COMPARE_STEP as usize)
    });
    for at in steps {
        let (Ok(now), Ok(mut before)) = (oracle.read(at, 512), below.read(at, 512)) else { continue };
        // A smaller ancestor is followed by zeros.
        before.resize(now.len(), 0);
        assert_eq!(change_at(&found, at).is_some(), now != before, "{at:#x} in {found:?}");
    }
}
