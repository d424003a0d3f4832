//! Operations that end, or are cancelled, before the end of the tables that they read. Random chains rarely have what
//! it takes to show a wrong answer there.

use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use vhdx_mmap::ops::{self, Algorithm, ExtractOptions, manifest};
use vhdx_mmap::{Category, Disk, Input, Progress, ScanOptions, Source, Strictness};

use super::chain::{Chain, Door, open};
use super::operations::{Failure, Trigger, judge_manifest};
use crate::kit::builder::{PARENT_LOCATOR, Slot, Spec};
use crate::kit::{Block, Fill, KIB, MIB};

/// Offset of a BAT after all blocks.
const LAST: u64 = 80 * MIB;

/// Makes a chain, child first, of mapped files.
fn mapped(specs: &[Spec]) -> (Chain, Vec<Source>, Disk) {
    let chain = Chain::in_memory(specs.iter().map(Spec::build).collect());
    let sources = chain.sources(Door::Map);
    let disk = open(&sources, Strictness::Strict, || {}).unwrap();
    (chain, sources, disk)
}

/// Truncates the BAT of the first file before the entry of a block.
fn cut_table(chain: &Chain, block: u64) {
    chain.handle(0).set_len(chain.layers[0].image.block_entry_at(block)).unwrap();
}

#[track_caller]
fn assert_lost<T: std::fmt::Debug>(found: Result<T, impl Into<Failure>>) {
    let found = found.map_err(Into::into);
    assert!(matches!(found, Err(Failure::Told(Category::Io, _))), "{found:?}");
}

#[test]
fn cancelled_allocated_changes() {
    let base = Spec::empty(6 * MIB);
    let middle = Spec::child_of(&base, "base.vhdx").block(3, Block::full());
    let mut child = Spec::child_of(&middle, "middle.vhdx").block(0, Block::full());
    child = (1..6).fold(child, |spec, number| spec.block(number, Block::zero()));
    child.bat_offset = LAST;
    let (chain, _sources, disk) = mapped(&[child, middle, base]);
    cut_table(&chain, 2);
    // The zeros of block 1 seem to end with it, since block 3 seems to be that of the layer below.
    let mut reported = 0;
    assert_lost(ops::allocated_changes(&disk, 2, |_| {
        reported += 1;
        if reported == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }));
    assert_eq!(reported, 2, "the operation was not cancelled");
}

/// A comparison with a disk of so many runs that not all of them are planned at once.
#[test]
fn cancelled_comparison() {
    const BLOCKS: u64 = 36;
    let blocks = |spec: Spec, block: &Block| (0..BLOCKS).fold(spec, |spec, number| spec.block(number, block.clone()));
    let every_other: Vec<_> = (0..2048).step_by(2).map(|sector| sector..sector + 1).collect();
    let same = Fill::Pattern(7);
    // Every other sector is in another file, and all are equal to the disk below.
    let in_pieces = blocks(Spec::empty(BLOCKS * MIB), &Block::full().fill(same.clone()));
    let above = Spec::child_of(&in_pieces, "base.vhdx");
    let above = blocks(above, &Block::partial(&every_other).fill(same.clone()));
    let in_pieces = Chain::in_memory(vec![above.build(), in_pieces.build()]);
    let in_pieces = open(&in_pieces.sources(Door::Memory), Strictness::Strict, || {}).unwrap();

    // An equal block after some that differ: the first difference is reported as soon as the next one is found.
    let mut base = blocks(Spec::empty(BLOCKS * MIB), &Block::full()).block(6, Block::full().fill(same.clone()));
    base.order = (0..BLOCKS).rev().map(Slot::Block).collect();
    let mut child = blocks(Spec::child_of(&base, "base.vhdx"), &Block::full().fill(same));
    child.bat_offset = LAST;
    let (chain, _sources, disk) = mapped(&[child, base]);
    let (one, other) = (Input::disk(&disk), Input::disk(&in_pieces));
    let options = ScanOptions::new();
    assert_eq!(ops::first_difference(one, other, &options).unwrap(), None);
    cut_table(&chain, 2);
    let mut reported = 0;
    let compared = ops::compare(one, other, &options, |_| {
        reported += 1;
        ControlFlow::Break(())
    });
    assert_lost(compared);
    assert_eq!(reported, 1, "the operation was not cancelled");
    assert_lost(ops::first_difference(one, other, &options));
}

/// A reader looks some way ahead, but not to the end of zeros that are followed by data.
#[test]
fn last_zeros_of_a_reader() {
    let block = |spec: Spec| Spec { block_size: u32::try_from(2 * MIB).unwrap(), ..spec };
    let base = block(Spec::empty(8 * MIB)).block(2, Block::full());
    let mut child = Spec::child_of(&base, "base.vhdx").block(1, Block::full());
    child.bat_offset = LAST;
    let (chain, _sources, disk) = mapped(&[child, base]);
    cut_table(&chain, 1);
    let mut reader = disk.reader();
    reader.seek(SeekFrom::Start(3 * MIB + 512 * KIB)).unwrap();
    match reader.fill_buf().map(<[u8]>::len) {
        Ok(length) => {
            reader.consume(length);
            assert_lost(reader.fill_buf().map(<[u8]>::len));
        }
        Err(error) => assert_lost(Err::<(), _>(error)),
    }
}

/// The state of a block is read after its content, zeros, is known.
#[test]
fn state_of_zero_block_in_manifest() {
    let mut spec = Spec::empty(2 * MIB).block(1, Block::zero());
    spec.bat_offset = LAST;
    let (chain, _sources, disk) = mapped(&[spec]);
    let made = |trigger: &Trigger| {
        let mut out = Vec::new();
        let options = ScanOptions::new().progress(trigger);
        manifest::create_manifest(&disk, &[Algorithm::Crc32], None, &options, &mut out).map(|_| out)
    };
    judge_manifest(&made(&Trigger::unset(|| {})).unwrap(), &chain.truths[0], &[Algorithm::Crc32]).unwrap();
    let (file, length) = (chain.handle(0), chain.layers[0].image.block_entry_at(1));
    assert_lost(made(&Trigger::after(0, move || file.set_len(length).unwrap())));
}

#[test]
fn truncated_parent_locator() {
    let base = Spec::empty(MIB);
    let mut child = Spec::child_of(&base, "base.vhdx");
    child.metadata_offset = LAST;
    for length in [20, 100, 300, 500] {
        let (chain, _sources, disk) = mapped(&[child.clone(), base.clone()]);
        chain.handle(0).set_len(chain.layers[0].image.item_at(PARENT_LOCATOR) + length).unwrap();
        assert_lost(disk.image().parent_locator());
    }
}

/// Calls a function after a number of bytes is done.
struct AtBytes<'a> {
    left: AtomicU64,
    work: &'a (dyn Fn() + Sync),
}

impl Progress for AtBytes<'_> {
    fn advance(&self, bytes: u64) -> ControlFlow<()> {
        let left = self.left.fetch_sub(bytes, Ordering::SeqCst);
        if left > 0 && left <= bytes {
            (self.work)();
            self.left.store(0, Ordering::SeqCst);
        }
        ControlFlow::Continue(())
    }
}

/// A disk of three blocks, in descending order in the file.
fn backwards() -> Spec {
    let mut spec = (0..3).fold(Spec::empty(3 * MIB), |spec, number| spec.block(number, Block::full()));
    spec.order = (0..3).rev().map(Slot::Block).collect();
    spec
}

/// Makes a pipe that holds a MiB. Returns `None`, with a message, if the system allows no such pipe.
fn pipe() -> Option<(io::PipeReader, std::fs::File)> {
    let (reader, writer) = io::pipe().unwrap();
    let writer = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
    let size = rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20);
    if size.is_err() {
        crate::support::skip("pipe", "no pipe can hold 1 MiB");
        return None;
    }
    Some((reader, writer))
}

/// If the file is truncated while pages of it are in the pipe, the reader of the pipe finds zeros.
#[test]
fn pages_in_a_pipe_while_file_is_truncated() {
    let (chain, _sources, disk) = mapped(&[backwards()]);
    let Some((mut reader, writer)) = pipe() else { return };
    let range = 512 * KIB..3 * MIB;
    let length = chain.layers[0].image.block_at(0) + 512 * KIB + 1000;
    let (is_cut, wait) = mpsc::channel();
    let file = chain.handle(0);
    let cut = Arc::new(std::sync::Mutex::new(Some(is_cut)));
    let work = || {
        file.set_len(length).unwrap();
        // The waiting thread continues when this is dropped.
        drop(cut.lock().unwrap().take());
    };
    let progress = AtBytes { left: AtomicU64::new(512 * KIB), work: &work };
    let (extracted, found) = std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            assert_eq!(wait.recv(), Err::<(), _>(mpsc::RecvError));
            let mut found = Vec::new();
            reader.read_to_end(&mut found).map(|_| found)
        });
        let options = ExtractOptions::new().scan(ScanOptions::new().progress(&progress));
        let extracted = ops::extract_to_stream(Input::disk(&disk).range(range.clone()), &writer, &options);
        drop(cut.lock().unwrap().take());
        drop(writer);
        (extracted, reading.join().unwrap().unwrap())
    });
    assert!(extracted.is_err() || found == chain.truths[0].read(range), "zeros were taken out of the pipe");
    assert_lost(extracted);
}

/// Bytes in a pipe after an extraction do not change any more.
#[test]
fn bytes_in_a_pipe_after_extraction() {
    let (chain, _sources, disk) = mapped(&[backwards()]);
    let Some((mut reader, writer)) = pipe() else { return };
    let range = 512 * KIB..MIB;
    let content = Input::disk(&disk).range(range.clone());
    ops::extract_to_stream(content, &writer, &ExtractOptions::new()).unwrap();
    chain.handle(0).set_len(chain.layers[0].image.block_at(0) + 512 * KIB + 1000).unwrap();
    drop(writer);
    let mut found = Vec::new();
    reader.read_to_end(&mut found).unwrap();
    assert!(found == chain.truths[0].read(range), "zeros were taken out of the pipe");
}
