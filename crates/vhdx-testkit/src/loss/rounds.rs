//! A round: an operation on a chain, a file of which is truncated at some moment.

use std::sync::Arc;

use vhdx_mmap::ops::{Algorithm, manifest};
use vhdx_mmap::{Category, Disk, ScanOptions, Strictness};

use super::chain::{Chain, Door, open, some_cut, some_quiet_cut};
use super::dice::{Dice, wide};
use super::layer::Layer;
use super::operations::{Failure, Judged, OPERATIONS, Operation, Stage, Trigger, judge_manifest};
use crate::PAGE;
use crate::builder::Slot;

/// When a file is truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Before the operation.
    Before,
    /// After another operation on the same disk, and before this one.
    Between,
    /// After another operation, and before this one on another disk over the same sources.
    BetweenDisks,
    /// During the operation, at a call to something that belongs to its caller.
    During,
    Never,
}

#[derive(Debug)]
pub enum Verdict {
    /// The right answer.
    Right,
    /// An error that reports a loss.
    Told,
    /// Another error.
    Misnamed(String),
    /// A wrong answer, or an error although nothing is lost.
    Wrong(String),
}

/// Result of a round.
#[derive(Debug)]
pub struct Round {
    /// The operation whose answer was judged.
    pub operation: &'static str,
    /// Whether the sources were opened for salvage before it.
    pub is_after_salvage: bool,
    pub how: String,
    pub verdict: Verdict,
}

/// Runs `count` rounds over a chain that `dice` choose. In quiet rounds, files are truncated inside their last page
/// only.
pub fn run(dice: &mut Dice, count: usize, is_quiet: bool) -> Vec<Round> {
    let chain = Chain::new(dice, is_quiet);
    let copies = copies(&chain);
    let manifests = manifests(&chain, &copies);
    (0..count).filter_map(|_| round(&chain, &copies, &manifests, dice, is_quiet)).collect()
}

/// The disk of each layer, from memory.
pub fn copies(chain: &Chain) -> Vec<Disk> {
    let sources = chain.sources(Door::Memory);
    let disks = (0..sources.len()).map(|layer| open(&sources[layer..], Strictness::Strict, || {}));
    disks.map(Result::unwrap).collect()
}

/// The manifest of each layer's disk, which is compared with the truth before it is used.
pub fn manifests(chain: &Chain, copies: &[Disk]) -> Vec<Vec<u8>> {
    let made = copies.iter().zip(&chain.truths).map(|(disk, truth)| {
        let mut out = Vec::new();
        manifest::create_manifest(disk, &[Algorithm::Crc32], None, &ScanOptions::new(), &mut out).unwrap();
        judge_manifest(&out, truth, &[Algorithm::Crc32]).unwrap();
        out
    });
    made.collect()
}

fn round(chain: &Chain, copies: &[Disk], manifests: &[Vec<u8>], dice: &mut Dice, is_quiet: bool) -> Option<Round> {
    let door =
        dice.pick(&[Door::Map, Door::Map, Door::Map, Door::Map, Door::Open, Door::Open, Door::Reader, Door::Memory]);
    let moment = dice.pick(&[
        Moment::Before,
        Moment::Before,
        Moment::Between,
        Moment::BetweenDisks,
        Moment::During,
        Moment::During,
        Moment::During,
        Moment::Never,
    ]);
    let threads = dice.pick(&[1, 1, 3]);
    let layer = usize::try_from(dice.below(wide(chain.layers.len()))).unwrap();
    let image = &chain.layers[layer].image;
    let length = if is_quiet { some_quiet_cut(image, dice)? } else { some_cut(image, dice) };
    let (operation, act) = some_operation(&chain.layers[layer], length, dice);
    let (before, act_before) = some_operation_before(dice);
    let calls = dice.pick(&[0, 0, 0, 1, 2, 5, 30]);

    let sources = chain.sources(door);
    let disk = open(&sources, Strictness::Strict, || {}).unwrap();
    let other = open(&sources, Strictness::Strict, || {}).unwrap();
    let file = chain.handle(layer);
    let cut = move || file.set_len(length).unwrap();
    let trigger = Arc::new(if moment == Moment::During { Trigger::after(calls, cut) } else { Trigger::unset(cut) });
    let never = Arc::new(Trigger::unset(|| {}));
    let (mut verdict, mut judged) = (Verdict::Right, operation);
    let mut judge = |(name, act): (&'static str, Operation), disk: &Disk, trigger: &Arc<Trigger>, dice: &mut Dice| {
        let (sources, lost) = (&sources[..], (layer, length..u64::MAX));
        let stage = Stage { chain, door, sources, disk, copies, manifests, trigger, lost };
        let answer = on_threads(threads, || act(&stage, dice));
        if matches!(verdict, Verdict::Right) {
            (verdict, judged) = (verdict_of(answer, &stage), name);
        }
    };
    match moment {
        Moment::Before => {
            trigger.fire();
            judge((operation, act), &disk, &trigger, dice);
        }
        Moment::Between | Moment::BetweenDisks => {
            judge((before, act_before), &disk, &never, dice);
            trigger.fire();
            judge((operation, act), if moment == Moment::Between { &disk } else { &other }, &trigger, dice);
        }
        Moment::During => {
            judge((operation, act), &disk, &trigger, dice);
        }
        Moment::Never => judge((operation, act), &disk, &never, dice),
    }
    let is_cut = trigger.is_spent();
    drop(trigger);
    drop((disk, other, sources));
    if is_cut {
        chain.mend(layer);
    }
    let is_between = matches!(moment, Moment::Between | Moment::BetweenDisks);
    let how = format!(
        "{operation} ({threads} threads, {door:?}), file of layer {layer} cut to {length:#x} {moment:?}{}",
        if is_between { format!(" {before}") } else { String::new() }
    );
    let is_after_salvage =
        judged == operation && is_between && ["check", "check, payload", "salvage, losses"].contains(&before);
    Some(Round { operation: judged, is_after_salvage, how, verdict })
}

/// An operation: half of the time one that no other cut, or no other file, can affect.
fn some_operation(layer: &Layer, length: u64, dice: &mut Dice) -> (&'static str, Operation) {
    let start = layer.image.places.get(&Slot::Block(0));
    let named = if start.is_some_and(|start| (*start..start + PAGE).contains(&length)) {
        Some("contents")
    } else if layer.has_shared_blocks() {
        Some("shared_blocks")
    } else {
        None
    };
    match OPERATIONS.iter().find(|(name, _)| Some(*name) == named) {
        Some(operation) if dice.one_in(2) => *operation,
        _ => dice.pick(OPERATIONS),
    }
}

/// An operation that comes before another one: often one that opens the sources in another way.
fn some_operation_before(dice: &mut Dice) -> (&'static str, Operation) {
    let others = ["check", "check, payload", "salvage, losses", "open again"];
    let is_other = |(name, _): &&(&str, Operation)| others.contains(name);
    let others: Vec<_> = OPERATIONS.iter().filter(is_other).copied().collect();
    if dice.one_in(2) { dice.pick(&others) } else { dice.pick(OPERATIONS) }
}

/// Judges an answer.
pub fn verdict_of(judged: Judged, stage: &Stage<'_>) -> Verdict {
    let is_damaged = stage.trigger.is_spent();
    match judged {
        Ok(()) => Verdict::Right,
        Err(Failure::Wrong(what)) => Verdict::Wrong(what),
        // Borrowing is not possible through this door.
        Err(Failure::Told(Category::InvalidInput, text))
            if !stage.disk.can_borrow() && text.contains("cannot be borrowed") =>
        {
            Verdict::Right
        }
        Err(Failure::Told(_, text)) if !is_damaged || stage.door == Door::Memory => {
            Verdict::Wrong(format!("an error without a reason: {text}"))
        }
        Err(Failure::Told(Category::Io, _)) => Verdict::Told,
        Err(Failure::Told(category, text)) => Verdict::Misnamed(format!("{category:?}: {text}")),
    }
}

#[cfg(feature = "rayon")]
fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    static POOLS: std::sync::LazyLock<[rayon::ThreadPool; 2]> = std::sync::LazyLock::new(|| {
        [1, 3].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap())
    });
    POOLS[usize::from(threads > 1)].install(work)
}

#[cfg(not(feature = "rayon"))]
fn on_threads<T>(_: usize, work: impl FnOnce() -> T) -> T {
    work()
}
