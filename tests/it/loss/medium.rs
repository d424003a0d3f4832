//! Every operation over a chain with a file whose medium fails to return a page.

use std::ops::Range;
use std::sync::Arc;

use vhdx_mmap::Strictness;
use vhdx_testkit::fuse::Mounted;

use super::chain::{Chain, Door, open, some_page};
use super::dice::{Dice, size, wide};
use super::operations::{Failure, OPERATIONS, Stage, Trigger};
use super::rounds::{Verdict, copies, manifests, verdict_of};
use crate::support::temp_dir;

/// Number of chains. Each needs a mount.
const CHAINS: u64 = 6;

#[test]
fn every_operation_is_correct_or_an_error_if_a_page_is_unreadable() {
    let first = super::number("VHDX_LOSS_SEED").unwrap_or(1);
    let (mut right, mut lost, mut bad) = (0, 0, Vec::new());
    for seed in first..first + CHAINS {
        let mut dice = Dice::new(seed);
        let mut chain = Chain::new(&mut dice, false);
        let copies = copies(&chain);
        let manifests = manifests(&chain, &copies);
        let layer = size(dice.below(wide(chain.layers.len())));
        let Some(page) = some_page(&chain.layers[layer].image, &mut dice) else { continue };
        let folder = temp_dir();
        let path = folder.path().join("image");
        chain.layers[layer].image.bytes.write_file(&path).unwrap();
        let Some(mounted) = Mounted::new(&path, &page) else { return };
        chain.read_from(layer, mounted.path());
        for (name, act) in OPERATIONS.iter().filter(|(name, _)| *name != "Source::check_lost") {
            let verdict = judge(&chain, (&copies, &manifests), (layer, page.clone()), *act, &mut dice);
            match verdict {
                Verdict::Right => right += 1,
                Verdict::Told => lost += 1,
                Verdict::Wrong(what) | Verdict::Misnamed(what) => {
                    bad.push(format!("VHDX_LOSS_SEED={seed}, {name}, page {page:#x?} of layer {layer}: {what}"));
                }
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(right > 0 && lost > 0, "nothing is shown: {right} right answers, {lost} errors");
}

fn judge(
    chain: &Chain,
    (copies, manifests): (&[vhdx_mmap::Disk], &[Vec<u8>]),
    lost: (usize, Range<u64>),
    act: super::operations::Operation,
    dice: &mut Dice,
) -> Verdict {
    let trigger = Arc::new(Trigger::unset(|| {}));
    trigger.fire();
    let sources = chain.sources(Door::Map);
    let disk = open(&sources, Strictness::Strict, || {});
    let never = &copies[0];
    let stage =
        |disk| Stage { chain, door: Door::Map, sources: &sources, disk, copies, manifests, trigger: &trigger, lost };
    match disk {
        Ok(disk) => {
            let stage = stage(&disk);
            verdict_of(act(&stage, dice), &stage)
        }
        Err(error) => verdict_of(Err(Failure::from(error)), &stage(never)),
    }
}
