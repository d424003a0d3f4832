//! Every legal disk reads the same by every way of the library as by the model, which knows the intended content, and
//! by the oracle, which reads plainly and slowly.

use std::io::{BufRead, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rayon::iter::ParallelIterator;
use rayon::{ThreadPool, ThreadPoolBuilder};
use uuid::Uuid;
use vhdx_mmap::{Disk, ErrorKind, Location, Run, Segment, ZERO_PAGES_LEN};

use crate::kit::builder::{FileLength, Image, Region, Slot, Spec};
use crate::kit::log::Dirty;
use crate::kit::optional::rounds;
use crate::kit::oracle::{LogPolicy, Oracle, Origin};
use crate::kit::{Bitmap, Block, Fill, Geometry, MIB, Place, pattern};
use crate::lab::{Door, Expected, Rng, number_of, open_through, oracle, run, size, soil, wide};

/// The same cases in each run: this number of them, or fewer: see [`rounds`].
pub(crate) fn cases(all: u32) -> ProptestConfig {
    let cases = u32::try_from(rounds(size(all.into()))).unwrap();
    let rng_seed = RngSeed::Fixed(0x7668_6478);
    ProptestConfig { cases, failure_persistence: None, rng_seed, max_shrink_iters: 200, ..ProptestConfig::default() }
}

/// A random block. Numbers are taken modulo the number of choices.
#[derive(Clone, Debug)]
struct BlockPlan {
    number: u8,
    state: u8,
    stale: Option<u64>,
    sparse: bool,
    present: Vec<(u32, u16)>,
}

/// A random image.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    block_shift: u32,
    sectors: u64,
    blocks: Vec<BlockPlan>,
    bitmap_bits: Vec<(u32, u16)>,
    /// Seed of the layout of the file.
    layout: u64,
    /// Seed of the history of the log, if it has one.
    dirty: Option<u64>,
}

fn block_plan() -> impl Strategy<Value = BlockPlan> {
    // Ranges of sectors: anywhere, or small and at the edges of bytes.
    let range = prop_oneof![(any::<u32>(), 0_u16..3000), (0_u32..40, 0_u16..20), Just((0, u16::MAX))];
    (any::<u8>(), 0_u8..6, proptest::option::of(any::<u64>()), any::<bool>(), proptest::collection::vec(range, 0..6))
        .prop_map(|(number, state, stale, sparse, present)| BlockPlan { number, state, stale, sparse, present })
}

fn plan() -> impl Strategy<Value = Plan> {
    let shift =
        prop_oneof![12 => Just(20_u32), 6 => Just(21_u32), 4 => Just(22_u32), 1 => Just(23_u32), 1 => Just(25_u32)];
    let bits = proptest::collection::vec((any::<u32>(), 0_u16..2000), 0..3);
    let blocks = proptest::collection::vec(block_plan(), 0..9);
    (shift, any::<u64>(), blocks, bits, any::<u64>(), proptest::option::weighted(0.4, any::<u64>())).prop_map(
        |(block_shift, sectors, blocks, bitmap_bits, layout, dirty)| Plan {
            block_shift,
            sectors,
            blocks,
            bitmap_bits,
            layout,
            dirty,
        },
    )
}

/// Base last, so that the number of layers shrinks from its top.
pub(crate) fn chain_plan() -> impl Strategy<Value = (bool, bool, Vec<Plan>)> {
    (any::<bool>(), any::<bool>(), proptest::collection::vec(plan(), 1..=5))
}

impl Plan {
    /// Returns the size of the largest disk with blocks of this size that a test can afford, in bytes.
    fn most(&self) -> u64 {
        [10, 12, 14, 16, 0, 40][size(u64::from(self.block_shift - 20))] * MIB
    }

    fn spec(&self, parent: Option<&Spec>, sector: u32, same_size: bool, layer: usize) -> Spec {
        let name = format!("{}.vhdx", layer + 1);
        let mut spec = parent.map_or_else(|| Spec::empty(MIB), |parent| Spec::child_of(parent, &name));
        (spec.sector_size, spec.block_size) = (sector, 1 << self.block_shift);
        spec.disk_size = match parent {
            Some(parent) if same_size => parent.disk_size,
            _ => (1 + self.sectors % (self.most() / u64::from(sector))) * u64::from(sector),
        };
        self.add_blocks(&mut spec);
        self.add_layout(&mut spec);
        spec
    }

    fn add_blocks(&self, spec: &mut Spec) {
        let geometry = Geometry::of(spec.disk_size, spec.block_size, spec.sector_size, spec.has_parent);
        let sectors = u64::from(spec.block_size / spec.sector_size);
        let ranges = |plan: &[(u32, u16)], sectors: u64| -> Vec<Range<u64>> {
            let range = |&(start, length): &(u32, u16)| {
                let start = u64::from(start) % sectors;
                start..(start + u64::from(length)).min(sectors)
            };
            plan.iter().map(range).collect()
        };
        for plan in &self.blocks {
            let number = u64::from(plan.number) % geometry.blocks;
            let states: &[u8] = if spec.has_parent { &[7, 6, 0, 1, 2, 3] } else { &[6, 6, 0, 1, 2, 3] };
            let mut block = Block::new(states[usize::from(plan.state)]);
            if block.state == 7 {
                block.present = ranges(&plan.present, sectors);
            }
            if plan.sparse && block.state >= 6 {
                let piece = |&(at, length): &(u32, u16)| {
                    let at = u64::from(at) % u64::from(spec.block_size - 8192);
                    (at, pattern(spec.seed, at, usize::from(length.min(8192))))
                };
                block.fill = Some(Fill::Pieces(plan.present.iter().map(piece).collect()));
            }
            // An unallocated block may have any file offset.
            block.place = match plan.stale.filter(|_| block.state < 6) {
                Some(stale) => Place::At(stale >> 20 << 20),
                None => Place::Auto,
            };
            spec.blocks.insert(number, block);
        }
        if spec.has_parent && !self.bitmap_bits.is_empty() {
            let present = ranges(&self.bitmap_bits, sectors * geometry.blocks.min(geometry.ratio));
            spec.bitmaps.insert(0, Bitmap { state: 6, place: Place::Auto, present });
        }
    }

    /// Adds the layout of the file, and values that do not affect the disk.
    fn add_layout(&self, spec: &mut Spec) {
        let mut rng = Rng::new(self.layout);
        spec.seed = rng.next();
        let mut places: Vec<u64> = (2..10).map(|place| place * 3 * MIB).collect();
        rng.shuffle(&mut places);
        if rng.one_in(2) {
            (spec.log_offset, spec.metadata_offset, spec.bat_offset) = (places[0], places[1], places[2]);
            spec.log_length = u32::try_from(rng.pick(&[1, 2, 3]) * MIB).unwrap();
            spec.metadata_length = u32::try_from(rng.pick(&[1, 2]) * MIB).unwrap();
            spec.bat_length = Some(u32::try_from(rng.pick(&[1, 2, 3]) * MIB).unwrap());
        }
        if rng.one_in(3) {
            let guid = Uuid::from_u128(u128::from(rng.next()));
            spec.extra_regions = vec![Region { guid, offset: places[3], length: 1 << 20, required: 0 }];
        }
        spec.order = spec.blocks.keys().map(|number| Slot::Block(*number)).collect();
        rng.shuffle(&mut spec.order);
        spec.sequence = rng.pick(&[[7, 8], [9, 3], [0, 1], [5, 5], [u64::MAX, 1]]);
        spec.leave_blocks_allocated = rng.one_in(3);
        spec.regions_required = rng.pick(&[0, 1]);
        let junk = rng.below(2 * MIB);
        spec.file_length = rng.pick(&[FileLength::Auto, FileLength::Short, FileLength::Trailing(junk)]);
    }

    /// Builds the file, and damages copies of structures of which one is enough.
    fn build(&self, spec: &Spec) -> Image {
        let mut image = spec.build();
        let mut rng = Rng::new(self.layout ^ 1);
        if let Some(seed) = self.dirty {
            soil(&mut image, &mut Rng::new(seed));
        } else if rng.one_in(4) {
            image.patch_region_table_raw(1 + size(rng.below(2)), 70, &[0xEE]);
        }
        if rng.one_in(4) {
            let stale = if spec.sequence[0] > spec.sequence[1] { 2 } else { 1 };
            image.patch_header_raw(stale, 1000, &[0xEE]);
        }
        image
    }
}

/// Builds the images of a chain, child first.
pub(crate) fn build_chain(sector: u32, same_size: bool, plans: &[Plan]) -> Vec<Image> {
    let mut specs: Vec<Spec> = Vec::new();
    for (above, plan) in plans.iter().rev().enumerate() {
        let layer = plans.len() - 1 - above;
        specs.push(plan.spec(specs.last(), sector, same_size, layer));
    }
    specs.iter().zip(plans.iter().rev()).map(|(spec, plan)| plan.build(spec)).rev().collect()
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn chain_reads_the_same_in_every_way(
        (large_sectors, same_size, plans) in chain_plan(),
        seed in any::<u64>(),
    ) {
        let images = build_chain(if large_sectors { 4096 } else { 512 }, same_size, &plans);
        let chain: Vec<&Image> = images.iter().collect();
        let mut rng = Rng::new(seed);
        let door = rng.pick(&[Door::Memory, Door::Map, Door::Open, Door::Reader]);
        all_ways_agree(&open_through(door, &chain).unwrap(), &chain, &mut rng);
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn disk_of_several_chunks_reads_the_same_in_every_way(
        sector in prop_oneof![3 => Just(512_u32), 1 => Just(4096_u32)],
        sectors in any::<u64>(),
        blocks in proptest::collection::vec((any::<u64>(), 0_u8..6, 0_u64..1500), 1..12),
        junk in any::<u64>(),
        child in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut rng = Rng::new(seed);
        let chunk = (u64::from(sector)) << 23;
        let mut base = Spec::empty((1 + sectors % (3 * chunk / u64::from(sector))) * u64::from(sector));
        base.sector_size = sector;
        add_far_blocks(&mut base, &blocks, &mut rng);
        let geometry = Geometry::of(base.disk_size, base.block_size, sector, false);
        for chunk in 0..(geometry.blocks - 1) / geometry.ratio {
            // Without a parent, the entries of sector bitmaps are not read.
            base.raw_bat.insert(geometry.bitmap_index(chunk), junk);
        }
        let mut images = vec![base.build()];
        if child {
            let mut child = Spec::child_of(&base, "1.vhdx");
            add_far_blocks(&mut child, &blocks, &mut rng);
            images.insert(0, child.build());
        }
        if rng.one_in(2) {
            images.iter_mut().for_each(|image| soil(image, &mut rng));
        }
        let chain: Vec<&Image> = images.iter().collect();
        let door = rng.pick(&[Door::Map, Door::Map, Door::Open, Door::Reader]);
        all_ways_agree(&open_through(door, &chain).unwrap(), &chain, &mut rng);
    }
}

/// Adds blocks near the borders of chunks and at the end of the disk.
fn add_far_blocks(spec: &mut Spec, blocks: &[(u64, u8, u64)], rng: &mut Rng) {
    let geometry = Geometry::of(spec.disk_size, spec.block_size, spec.sector_size, spec.has_parent);
    for (at, state, sector) in blocks {
        let edge = rng.below(geometry.blocks / geometry.ratio + 1) * geometry.ratio + at % 3;
        let number = rng.pick(&[edge.saturating_sub(1), geometry.blocks - 1 - at % 2, at % geometry.blocks]);
        let states: &[u8] = if spec.has_parent { &[7, 7, 6, 0, 2, 3] } else { &[6, 6, 6, 0, 1, 3] };
        let mut block = Block::new(states[usize::from(*state)]);
        let sectors = u64::from(spec.block_size / spec.sector_size);
        block.present = if block.state == 7 { run(sector % sectors..sectors).to_vec() } else { Vec::new() };
        spec.blocks.insert(number.min(geometry.blocks - 1), block);
    }
}

#[test]
fn dirty_image_reads_the_same_in_every_way() {
    let mut rng = Rng::new(1);
    for dirty in Dirty::ALL {
        let base = Spec::default().block(7, Block::full().bytes(b"the last one"));
        let child = Spec::child_of(&base, "1.vhdx").block(1, Block::partial(&run(3..700))).block(6, Block::full());
        let images = [dirty.build(&child), dirty.build(&base)];
        let chain: Vec<&Image> = images.iter().collect();
        for door in Door::ALL {
            all_ways_agree(&open_through(door, &chain).unwrap(), &chain, &mut rng);
        }
    }
}

/// Asserts that all ways to read a disk agree with the model and the oracle.
fn all_ways_agree(disk: &Disk, chain: &[&Image], rng: &mut Rng) {
    let content = Expected::of(chain);
    let oracle = oracle(chain, LogPolicy::Replay);
    assert_eq!(disk.size(), content.size());
    assert_eq!(disk.layers().len(), chain.len());

    let whole = segments(disk, 0..disk.size(), &content);
    extents(disk, 0..disk.size(), chain, &oracle, rng);
    if disk.can_borrow() {
        threads(disk, &whole);
    }
    let affordable = disk.size() / oracle.sector_size() <= 6000;
    if affordable {
        assert_eq!(oracle.read_all(), Ok(content.read(0..disk.size())));
    }
    for _ in 0..24 {
        let range = some_range(disk, rng, &whole);
        segments(disk, range.clone(), &content);
        extents(disk, range.clone(), chain, &oracle, rng);
        copies(disk, range.clone(), &content);
        if !affordable {
            let some = range.start..range.end.min(range.start + 20_000);
            assert_eq!(oracle.read(some.start, size(some.end - some.start)), Ok(content.read(some)));
        }
    }
    blocks(disk, &content, rng);
    reader(disk, &content, rng);
}

/// Pieces of `par_segments` are cut at multiples of this, in bytes.
const SEGMENT_GRAIN: u64 = 8 * MIB;

/// Returns a range of the disk, often near the end of a run or the beginning of a block.
fn some_range(disk: &Disk, rng: &mut Rng, whole: &[(u64, Segment<'_>)]) -> Range<u64> {
    let border = match rng.below(3) {
        0 => rng.pick(whole).0,
        1 => rng.below(disk.size() / disk.block_size() + 1) * disk.block_size(),
        _ => rng.below(disk.size()),
    };
    let reach = rng.pick(&[1, 600, 5000, 70_000, 3 * MIB]);
    let start = border.saturating_sub(rng.below(reach)).min(disk.size());
    let length = rng.below(reach) + rng.below(reach);
    start..(start + length).min(disk.size())
}

/// Checks the segments of a range, and returns them with their offsets.
fn segments<'d>(disk: &'d Disk, range: Range<u64>, content: &Expected) -> Vec<(u64, Segment<'d>)> {
    let mut out: Vec<(u64, Segment<'d>)> = Vec::new();
    let mut at = range.start;
    if !disk.can_borrow() {
        return no_segments(disk, range);
    }
    for segment in disk.segments(range.clone()) {
        let segment = segment.unwrap();
        assert!(segment.len() > 0, "an empty segment at {at:#x} of {range:x?}");
        let two_zeros = matches!((out.last(), segment), (Some((_, Segment::Zero(_))), Segment::Zero(_)));
        assert!(!two_zeros, "zeros in two segments at {at:#x} of {range:x?}");
        assert_eq!(content.differs(at, segment), None, "in the segment at {at:#x} of {range:x?}");
        out.push((at, segment));
        at += segment.len();
    }
    assert_eq!(at, range.end.max(range.start), "the segments of {range:x?} end early or late");
    out
}

/// If nothing can be borrowed: checks that the segments of a range are its zeros before the first data, and an error.
fn no_segments(disk: &Disk, range: Range<u64>) -> Vec<(u64, Segment<'_>)> {
    let data = disk.runs(range.clone()).map(Result::unwrap).find(|run| matches!(run.at, Location::File(_)));
    let mut at = range.start;
    let mut ended = false;
    for segment in disk.segments(range.clone()) {
        match segment {
            Ok(Segment::Zero(length)) => at += length,
            // A sector from a log is in memory.
            Ok(Segment::Data(bytes)) => at += wide(bytes.len()),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::NotBorrowable), "{error}");
                ended = true;
            }
        }
    }
    assert_eq!((at, ended), (data.map_or(range.end.max(range.start), |run| run.start), data.is_some()));
    vec![(range.start, Segment::Zero((range.end - range.start).max(1)))]
}

/// Checks the extents of a range.
fn extents(disk: &Disk, range: Range<u64>, chain: &[&Image], oracle: &Oracle<'_>, rng: &mut Rng) {
    let extents: Vec<Run> = disk.extents(range.clone()).collect::<Result<_, _>>().unwrap();
    let mut at = range.start;
    for extent in &extents {
        assert_eq!(extent.start, at, "a gap in the extents of {range:x?}");
        assert!(extent.len > 0, "an empty extent of {range:x?}");
        at += extent.len;
    }
    assert_eq!(at, range.end.max(range.start), "the extents of {range:x?} end early or late");
    for pair in extents.windows(2) {
        let (one, next) = (pair[0], pair[1]);
        let follows = match (one.file_offset(), next.file_offset()) {
            (Some(offset), Some(next)) => offset + one.len == next,
            (None, None) => !matches!(one.at, Location::Log(_)) && !matches!(next.at, Location::Log(_)),
            _ => false,
        };
        assert!(!(follows && one.layer == next.layer && one.state == next.state), "{one:?} and {next:?} are one");
    }
    for _ in 0..extents.len().min(40) {
        let extent = rng.pick(&extents);
        for at in [extent.start, extent.start + rng.below(extent.len), extent.start + extent.len - 1] {
            check_origin(&extent, at, chain, oracle);
        }
    }
}

/// Checks the origin of the sector of a byte in an extent.
fn check_origin(extent: &Run, at: u64, chain: &[&Image], oracle: &Oracle<'_>) {
    let sector = at / oracle.sector_size();
    let origin = oracle.locate(sector).unwrap();
    let number = extent.state.map(number_of);
    let expected = match origin {
        Origin::File { layer, offset } => {
            let (within, length) = (at % oracle.sector_size(), 1);
            let byte = oracle.read(at, length).unwrap();
            // If the bytes are not in the file, a replay must have written them.
            let is_there = match extent.file_offset() {
                Some(found) => {
                    found + (at - extent.start) == offset + within
                        && chain[layer].bytes.read(offset + within, length) == byte
                }
                None => is_dirty(chain[layer]) && (matches!(extent.at, Location::Log(_)) || byte == [0]),
            };
            is_there && extent.layer == layer && matches!(number, Some(6 | 7))
        }
        Origin::Zero { layer, state } => !extent.is_data() && (extent.layer, number) == (layer, Some(state)),
        Origin::Absent { layer } => {
            !extent.is_data() && !extent.is_present() && extent.layer == layer && matches!(number, None | Some(0))
        }
    };
    assert!(expected, "{extent:?} at {at:#x}, which is {origin:?}");
}

/// Returns whether the current header of an image has a LogGuid.
fn is_dirty(image: &Image) -> bool {
    let header = Image::header_at(image.current_header());
    image.bytes.read(header + 48, 16) != [0; 16]
}

/// Checks copies, and borrowed slices.
fn copies(disk: &Disk, range: Range<u64>, content: &Expected) {
    let expected = content.read(range.clone());
    let length = range.end - range.start;
    let mut found = vec![0xA5; expected.len()];
    assert_eq!(disk.read_at(&mut found, range.start).unwrap(), expected.len());
    assert!(found == expected, "read_at of {range:x?}");

    if !disk.can_borrow() {
        return;
    }
    let segments: Vec<Segment<'_>> = disk.segments(range.clone()).collect::<Result<_, _>>().unwrap();
    let is_one = match *segments {
        [] | [Segment::Data(_)] => true,
        [Segment::Zero(zeros)] => zeros <= wide(ZERO_PAGES_LEN),
        _ => false,
    };
    match disk.slice(range.start, length).unwrap() {
        Some(slice) => assert!(is_one && slice == expected, "slice of {range:x?}"),
        None => assert!(!is_one, "no slice of {range:x?}, which is one run"),
    }
}

/// Checks some blocks, and the last one.
fn blocks(disk: &Disk, content: &Expected, rng: &mut Rng) {
    let count = disk.size().div_ceil(disk.block_size());
    for _ in 0..6 {
        let index = rng.pick(&[count - 1, rng.clone().below(count), rng.clone().below(count.min(12))]);
        rng.next();
        let block = disk.block(index).unwrap();
        assert_eq!((block.index(), block.start()), (index, index * disk.block_size()));
        assert_eq!(block.len(), disk.block_size().min(disk.size() - block.start()));
        let mut at = block.start();
        if !disk.can_borrow() {
            let mut found = vec![0xA5; size(block.len())];
            assert_eq!(disk.read_at(&mut found, at).unwrap(), found.len());
            assert_eq!(content.differs(at, Segment::Data(&found)), None, "in block {index}");
            continue;
        }
        for segment in block.segments() {
            let segment = segment.unwrap();
            assert_eq!(content.differs(at, segment), None, "in block {index}");
            at += segment.len();
        }
        assert_eq!(at, block.start() + block.len());
    }
    assert!(disk.block(count).is_err());
}

/// Checks the stream: reads, borrowed pieces and seeks in any order.
fn reader(disk: &Disk, content: &Expected, rng: &mut Rng) {
    let mut reader = disk.reader();
    let mut at = 0;
    let end = disk.size();
    for _ in 0..40 {
        match rng.below(5) {
            0 => {
                let to = rng.below(end + 5000);
                let distance = |from: u64| i64::try_from(to).unwrap() - i64::try_from(from).unwrap();
                let seek = match rng.below(3) {
                    0 => SeekFrom::Start(to),
                    1 => SeekFrom::End(distance(end)),
                    _ => SeekFrom::Current(distance(at)),
                };
                assert_eq!(reader.seek(seek).unwrap(), to);
                at = to;
            }
            1 | 2 => {
                let borrowed = reader.fill_buf().unwrap();
                assert_eq!(borrowed.is_empty(), at >= end, "nothing borrowed at {at:#x}");
                assert!(
                    borrowed.is_empty() || content.differs(at, Segment::Data(borrowed)).is_none(),
                    "borrowed at {at:#x}"
                );
                let used = rng.below(wide(borrowed.len()) + 1);
                reader.consume(size(used));
                at += used;
            }
            _ => {
                let most = rng.pick(&[1, 511, 4096, 100_000]);
                let mut buffer = vec![0xA5; size(rng.below(most) + 1)];
                let read = reader.read(&mut buffer).unwrap();
                assert_eq!(wide(read), wide(buffer.len()).min(end.saturating_sub(at)), "read at {at:#x}");
                let found = Segment::Data(&buffer[..read]);
                assert!(read == 0 || content.differs(at, found).is_none(), "read at {at:#x}");
                at += wide(read);
            }
        }
    }
    assert_eq!(reader.stream_position().unwrap(), at);
    if end <= 16 * MIB {
        reader.rewind().unwrap();
        let mut all = Vec::new();
        assert_eq!(wide(reader.read_to_end(&mut all).unwrap()), end);
        assert!(all == content.read(0..end), "the stream as a whole");
    }
}

/// Checks that one thread and several find the same pieces: those of the segments, cut at the right offsets.
fn threads(disk: &Disk, whole: &[(u64, Segment<'_>)]) {
    static POOLS: LazyLock<[ThreadPool; 2]> =
        LazyLock::new(|| [1, 3].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap()));
    let place = |bytes: &[u8]| Some(bytes.as_ptr().addr());
    let mut expected = Vec::new();
    for (start, segment) in whole {
        let (mut at, end) = (*start, start + segment.len());
        while at < end {
            let cut = end.min((at / SEGMENT_GRAIN + 1) * SEGMENT_GRAIN);
            let data = match segment {
                Segment::Data(bytes) => place(&bytes[size(at - start)..]),
                Segment::Zero(_) => None,
            };
            expected.push((at, cut - at, data));
            at = cut;
        }
    }
    for pool in &*POOLS {
        let pieces: Vec<_> = pool.install(|| disk.par_segments(..).collect::<Result<_, _>>()).unwrap();
        let found = pieces.into_iter().map(|(at, segment)| match segment {
            Segment::Data(bytes) => (at, wide(bytes.len()), place(bytes)),
            Segment::Zero(length) => (at, length, None),
        });
        assert!(found.eq(expected.iter().copied()), "other pieces with {} threads", pool.current_num_threads());
    }
}
