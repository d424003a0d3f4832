//! A file that becomes shorter has the same effect through every door: what is left can be read, the rest is lost.

use std::path::Path;

use vhdx_mmap::ops::{self, CheckOptions};
use vhdx_mmap::{Disk, Error, ErrorKind, Image as Opened, OpenOptions, Strictness, guard_mappings};

use super::cut;
use crate::kit::builder::{Image, Slot, Spec};
use crate::kit::{Block, MIB, Model, PAGE};
use crate::lab::{Door, parents_of};
use crate::support::temp_dir;

/// The doors through which a file can become shorter.
const DOORS: [Door; 3] = [Door::Map, Door::Open, Door::Reader];

/// Opens a chain whose first file is at `path`. Its parents are in memory.
fn open(door: Door, path: &Path, chain: &[&Image], strictness: Strictness) -> Disk {
    guard_mappings().unwrap();
    let options = OpenOptions::new().parents(parents_of(chain)).strictness(strictness);
    Disk::open(door.source(path).unwrap(), &options).unwrap()
}

#[track_caller]
fn assert_lost<T: std::fmt::Debug>(what: &str, found: Result<T, Error>) {
    let error = found.expect_err(what);
    assert!(matches!(error.kind(), ErrorKind::Lost), "{what}: {error}");
}

/// A base of 8 blocks, and a child with a part of each. The bitmap of the child is before its blocks, its BAT at `bat`.
fn chain(bat: u64) -> (Image, Image) {
    let base = (0..8).fold(Spec::empty(8 * MIB), |spec, number| spec.block(number, Block::full()));
    let part = |number: u64| Block::partial(&[number..number + 100, 1000..1500]);
    let mut child = (0..8).fold(Spec::child_of(&base, "base.vhdx"), |spec, number| spec.block(number, part(number)));
    child.bat_offset = bat;
    child.order = std::iter::once(Slot::Bitmap(0)).chain((0..8).map(Slot::Block)).collect();
    (child.build(), base.build())
}

/// Structures of a child may be anywhere in its file. Only those that a read needs have to exist.
#[test]
fn truncated_child_keeps_its_intact_blocks() {
    let (child, base) = chain(3 * MIB);
    let content = Model::read(&[&child.model, &base.model], 0, 8 << 20).unwrap();
    let (intact, last) = (0..7, 7);
    for (door, strictness) in
        DOORS.into_iter().flat_map(|door| [(door, Strictness::Strict), (door, Strictness::Salvage)])
    {
        let folder = temp_dir();
        let path = folder.path().join("child.avhdx");
        child.bytes.write_file(&path).unwrap();
        let disk = open(door, &path, &[&child, &base], strictness);
        cut(&path, child.block_at(last) + PAGE + 100);
        for block in intact.clone() {
            let from = usize::try_from(block * MIB).unwrap();
            for length in [512, 4096, 1 << 20] {
                let mut buffer = vec![0; length];
                let read = disk.read_at(&mut buffer, block * MIB);
                assert_eq!(read.unwrap_or_else(|error| panic!("{door:?} {strictness:?}: {error}")), length);
                assert!(buffer == content[from..from + length], "{door:?} {strictness:?} {block} {length}");
            }
            disk.extents(block * MIB..(block + 1) * MIB).try_for_each(|extent| extent.map(drop)).unwrap();
        }
        if strictness == Strictness::Strict {
            assert_lost("read_at", disk.read_at(&mut vec![0; 1 << 20], last * MIB));
            assert_lost("check_lost", disk.check_lost(last * MIB..(last + 1) * MIB));
        }
        disk.check_lost(..intact.end * MIB).unwrap();
    }
}

/// Start and end of the losses of a disk, in order.
fn losses(disk: &Disk) -> Vec<(u64, u64)> {
    disk.losses(..).map(|loss| (loss.range.start, loss.range.end)).collect()
}

#[test]
fn salvage_lists_lost_table_instead_of_failing() {
    let (child, base) = chain(32 * MIB);
    for door in DOORS {
        let folder = temp_dir();
        let path = folder.path().join("child.avhdx");
        child.bytes.write_file(&path).unwrap();
        let disk = open(door, &path, &[&child, &base], Strictness::Salvage);
        let strict = open(door, &path, &[&child, &base], Strictness::Strict);
        // The entry of block 5 is cut, and the entry of the bitmap, which all blocks need, is after it.
        cut(&path, child.block_entry_at(5) + 3);
        assert_eq!(losses(&disk), [(0, 5 * MIB), (5 * MIB, 8 * MIB)], "{door:?}");
        assert!(disk.losses(..).all(|loss| matches!(loss.reason.kind(), ErrorKind::Lost)), "{door:?}");
        let mut buffer = vec![1; 1 << 20];
        disk.read_at(&mut buffer, 0).unwrap();
        assert!(buffer == vec![0; 1 << 20], "{door:?}");
        // The strict disk does not know where its blocks are. Nothing is listed twice.
        assert_eq!(losses(&strict), [(0, 8 * MIB)], "{door:?}");
        assert_lost("read_at", strict.read_at(&mut buffer, 6 * MIB));
    }
}

#[test]
fn losses_of_table_truncated_mid_page_do_not_overlap() {
    let mut spec = (0..16).fold(Spec::empty(16 * MIB), |spec, number| spec.block(number, Block::full()));
    spec.bat_offset = 32 * MIB;
    let image = spec.build();
    for (door, strictness) in
        DOORS.into_iter().flat_map(|door| [(door, Strictness::Strict), (door, Strictness::Salvage)])
    {
        let folder = temp_dir();
        let path = folder.path().join("disk.vhdx");
        image.bytes.write_file(&path).unwrap();
        let disk = open(door, &path, &[&image], strictness);
        cut(&path, image.block_entry_at(9));
        assert_eq!(losses(&disk), [(9 * MIB, 16 * MIB)], "{door:?} {strictness:?}");
    }
}

#[test]
fn truncated_source_does_not_open_again() {
    let image = Spec::empty(8 * MIB).block(1, Block::full()).build();
    for door in DOORS {
        let folder = temp_dir();
        let path = folder.path().join("disk.vhdx");
        image.bytes.write_file(&path).unwrap();
        guard_mappings().unwrap();
        let source = door.source(&path).unwrap();
        let disk = Disk::open(source.clone(), &OpenOptions::new()).unwrap();
        cut(&path, image.block_at(1) + 100);
        assert_lost("open", Disk::open(source.clone(), &OpenOptions::new()));
        assert_lost("identity", Opened::identity(&source));
        assert_lost("check_lost", disk.check_lost(..));
        assert_lost("check_lost of the source", source.check_lost());
        disk.check_lost(..MIB).unwrap();
    }
}

#[test]
fn lost_table_is_an_error_of_shared_blocks() {
    let (child, base) = chain(32 * MIB);
    for door in DOORS {
        let folder = temp_dir();
        let path = folder.path().join("child.avhdx");
        child.bytes.write_file(&path).unwrap();
        let disk = open(door, &path, &[&child, &base], Strictness::Strict);
        cut(&path, child.block_entry_at(5));
        let errors = ops::shared_blocks(&disk);
        assert!(matches!(&errors[..], [error] if matches!(error.kind(), ErrorKind::Lost)), "{door:?}: {errors:?}");
    }
}

/// Space of the file that cannot be read is not known to be zero.
#[test]
fn unreadable_unreferenced_space_is_not_called_zero() {
    let mut spec = Spec::empty(8 * MIB).block(1, Block::full().at(9 * MIB));
    spec.bat_offset = 4 * MIB;
    let image = spec.build();
    for door in DOORS {
        let folder = temp_dir();
        let path = folder.path().join("disk.vhdx");
        image.bytes.write_file(&path).unwrap();
        guard_mappings().unwrap();
        let source = door.source(&path).unwrap();
        cut(&path, 6 * MIB + 100);
        let report = ops::check(source, &CheckOptions::new(OpenOptions::new())).unwrap();
        let zero = report.findings.iter().filter_map(|finding| match finding.detail.kind() {
            ErrorKind::Unreferenced { length, is_zero: true } => finding.detail.offset().map(|offset| offset + length),
            _ => None,
        });
        assert!(zero.max().is_none_or(|end| end <= 6 * MIB + 100), "{door:?}: {:?}", report.findings);
        assert!(report.findings.iter().any(|finding| matches!(finding.detail.kind(), ErrorKind::Lost)), "{door:?}");
    }
}
