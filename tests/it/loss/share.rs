//! Extraction by shared blocks: of a file that becomes shorter meanwhile, and of a salvaged disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use vhdx_mmap::ops::{self, ExtractOptions, Extracted, Target, TargetContent};
use vhdx_mmap::{Category, Disk, Input, ScanError, ScanOptions, Strictness};
use vhdx_testkit::device::{Mount, file_system};

use super::chain::{Chain, Door, open};
use super::dice::size;
use super::operations::Trigger;
use crate::kit::builder::{Slot, Spec};
use crate::kit::{Block, MIB};
use crate::support::temp_dir;

/// Number of blocks of the disk.
const BLOCKS: u64 = 12;

/// A child over a base. All blocks of both except one are data. No two blocks of the child are contiguous in its file,
/// so that each is shared on its own. Its BAT is after all blocks if `is_table_last`.
fn specs(is_table_last: bool) -> [Spec; 2] {
    let full = |spec: Spec| (0..BLOCKS).fold(spec, |spec, number| spec.block(number, Block::full()));
    let base = full(Spec::empty(BLOCKS * MIB));
    let mut child = full(Spec::child_of(&base, "1.vhdx")).block(5, Block::zero());
    child.order = (0..BLOCKS).rev().filter(|number| *number != 5).map(Slot::Block).collect();
    if is_table_last {
        child.bat_offset = 32 * MIB;
    }
    [child, base]
}

/// The child without a parent: a block whose entry is lost would be zeros, not the content of the parent.
fn alone(child: &Spec) -> Spec {
    Spec { has_parent: false, locator: None, ..child.clone() }
}

/// Extracts the disk to a new file in a folder.
fn extract(disk: &Disk, folder: &Path, trigger: &Trigger) -> (Result<Extracted, ScanError>, Vec<u8>) {
    let path = folder.join("target");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.set_len(disk.size()).unwrap();
    let options = ExtractOptions::new().scan(ScanOptions::new().progress(trigger));
    let target = Target::new(&file, TargetContent::Zeros);
    let extracted = ops::extract_to_file(Input::disk(disk), &target, &options);
    let mut found = vec![0; size(disk.size())];
    file.read_exact_at(&mut found, 0).unwrap();
    (extracted, found)
}

/// Mounts a file system that shares blocks. Returns `None`, with a message, if that is not possible.
fn xfs(folder: &Path) -> Option<Mount> {
    file_system(folder, "xfs")
}

#[test]
fn table_truncated_during_sharing_is_an_error_or_harmless() {
    let folder = temp_dir();
    let Some(mount) = xfs(folder.path()) else { return };
    let [child, base] = specs(true);
    for (name, images) in [("alone", vec![alone(&child).build()]), ("child", vec![child.build(), base.build()])] {
        let folder = mount.0.join(name);
        std::fs::create_dir(&folder).unwrap();
        let chain = Chain::in_folder(images, &folder);
        let truth = chain.truths[0].read(0..BLOCKS * MIB);
        let whole = open(&chain.sources(Door::Map), Strictness::Strict, || {}).unwrap();
        let (extracted, found) = extract(&whole, &folder, &Trigger::unset(|| {}));
        assert!(found == truth, "{name}");
        assert_eq!(extracted.unwrap().shared, (BLOCKS - 1) * MIB, "{name}: nothing is shown where nothing is shared");
        drop(whole);
        let (mut right, mut lost) = (0, 0);
        for calls in [0, 1, 2, 5, 9, 11] {
            for entry in [1, 3, 6, 11] {
                let (file, length) = (chain.handle(0), chain.layers[0].image.block_entry_at(entry));
                let disk = open(&chain.sources(Door::Map), Strictness::Strict, || {}).unwrap();
                let trigger = Trigger::after(calls, move || file.set_len(length).unwrap());
                let (extracted, found) = extract(&disk, &folder, &trigger);
                match extracted {
                    Ok(_) => {
                        right += 1;
                        assert!(found == truth, "{name}: cut to entry {entry} after {calls} calls");
                    }
                    Err(ScanError::Read(error)) => {
                        lost += 1;
                        assert_eq!(error.category(), Category::Io, "{name}: {error}");
                        assert!(trigger.is_spent(), "{name}: {error}");
                    }
                    Err(error) => panic!("{name}: {error}"),
                }
                drop(disk);
                chain.mend(0);
            }
        }
        assert!(lost > 0, "{name}: no cut is noticed, {right} are harmless");
    }
}

/// Bytes that a salvage cannot read are zero and listed, or an error. So no block may be shared without being read.
#[test]
fn salvaged_disk_shares_no_block() {
    let folder = temp_dir();
    let Some(mount) = xfs(folder.path()) else { return };
    let [child, base] = specs(false);
    for (name, images) in [("alone", vec![alone(&child).build()]), ("child", vec![child.build(), base.build()])] {
        let folder = mount.0.join(name);
        std::fs::create_dir(&folder).unwrap();
        let chain = Chain::in_folder(images, &folder);
        let image = &chain.layers[0].image;
        for length in [None, Some(image.block_at(3) + 5000), Some(image.block_at(0) + 1)] {
            let disk = open(&chain.sources(Door::Map), Strictness::Salvage, || {}).unwrap();
            if let Some(length) = length {
                chain.handle(0).set_len(length).unwrap();
            }
            salvaged(&disk, &chain, length.is_some(), &folder);
            drop(disk);
            chain.mend(0);
        }
    }
}

fn salvaged(disk: &Disk, chain: &Chain, is_cut: bool, folder: &Path) {
    let truth = chain.truths[0].read(0..disk.size());
    let (extracted, found) = extract(disk, folder, &Trigger::unset(|| {}));
    let extracted = match extracted {
        Ok(extracted) => extracted,
        // Bitmaps may be anywhere, so a differencing image that becomes shorter is not read any more.
        Err(ScanError::Read(error)) if is_cut && chain.layers.len() > 1 => {
            assert_eq!(error.category(), Category::Io, "{error}");
            return;
        }
        Err(error) => unreachable!("{error}"),
    };
    assert_eq!(extracted.shared, 0);
    let losses: Vec<_> = disk.losses(..).map(|loss| loss.range).collect();
    assert_eq!(losses.is_empty(), !is_cut, "{losses:x?}");
    for (at, (byte, _)) in (0..).zip(found.iter().zip(&truth)).filter(|(_, (found, truth))| found != truth) {
        assert!(*byte == 0 && losses.iter().any(|range| range.contains(&at)), "byte {at:#x}, losses {losses:x?}");
    }
    let lost: u64 = losses.iter().map(|range| range.end - range.start).sum();
    assert!(lost < disk.size(), "all is lost");
}
