//! Reads of every kind return what the builder put into the image.

use vhdx_mmap::{Disk, OpenOptions, Parents};
use vhdx_testkit::builder::{Image, Spec};
use vhdx_testkit::cuts::chain_of_three;
use vhdx_testkit::lab::{Door, Expected, Rng, open_chain, open_through};
use vhdx_testkit::log::Dirty;
use vhdx_testkit::{Block, GIB, MIB};

use crate::client::{Client, DF, Mode, server_of};

/// Asks for ranges of all lengths.
fn assert_served(disk: Disk, expected: &Expected, export: &str, what: &str) {
    let has_zeros = what.starts_with("dirty");
    let server = server_of(disk);
    let mut rng = Rng::new(1);
    for mode in [Mode::Simple, Mode::Structured, Mode::Extended] {
        let mut client = Client::open(&server, export, mode, &[]);
        client.has_zeros = has_zeros;
        let size = expected.size();
        let mut ranges = vec![(0, size), (size - 512, 512), (size - 1, 1), (size, 0), (0, 65_536), (0, 65_537)];
        for most in [512, 4096, 65_536, 70_000, MIB, 4 * MIB] {
            for _ in 0..6 {
                let start = rng.below(size);
                ranges.push((start, rng.below(most).min(size - start)));
            }
        }
        for (start, length) in ranges {
            for flags in [0, DF] {
                if flags == DF && mode == Mode::Simple {
                    continue;
                }
                let found = client.read(flags, start, length).unwrap();
                let is_same = found == expected.read(start..start + length);
                assert!(is_same, "{what}: {mode:?} {flags} {start:#x} {length:#x}");
            }
        }
    }
}

fn built() -> [Image; 3] {
    chain_of_three(3 * MIB).map(|spec| spec.build())
}

#[test]
fn chain_through_every_door() {
    let images = built();
    let chain: Vec<&Image> = images.iter().collect();
    for door in Door::ALL {
        // The chain's own names are those of the builder; `open_through` finds parents by its own.
        let disk = if door == Door::Map { mapped(&images) } else { open_through(door, &chain).unwrap() };
        assert_served(disk, &Expected::of(&chain), "", &format!("{door:?}"));
    }
}

/// Maps the chain, from files with the names that it has.
fn mapped(images: &[Image; 3]) -> Disk {
    let folder = vhdx_testkit::support::temp_dir();
    for (image, name) in images.iter().zip(["0.vhdx", "1.vhdx", "2.vhdx"]) {
        image.bytes.write_file(&folder.path().join(name)).unwrap();
    }
    let parents = ["1.vhdx", "2.vhdx"].map(|name| folder.path().join(name)).to_vec();
    let options = vhdx_testkit::support::mapped(OpenOptions::new().parents(Parents::Explicit(parents)));
    Disk::open(vhdx_testkit::support::map(&folder.path().join("0.vhdx")), &options).unwrap()
}

#[test]
fn checkpoints_are_exports() {
    let images = built();
    let chain: Vec<&Image> = images.iter().collect();
    for layer in 0..3 {
        let disk = open_chain(&chain).unwrap();
        assert_served(disk, &Expected::of(&chain[layer..]), &format!("layer{layer}"), "a checkpoint");
    }
}

#[test]
fn dirty_logs_of_every_kind_are_replayed() {
    let parent = Spec::empty(4 * MIB).block(0, Block::full()).block(2, Block::full());
    for dirty in Dirty::ALL {
        let child = Spec::child_of(&parent, "parent.vhdx").block(0, Block::partial(&[3..9, 100..2000]));
        let child = dirty.build(&child.block(1, Block::full()).block(3, Block::full()));
        let parent = parent.build();
        let chain = [&child, &parent];
        assert_served(open_chain(&chain).unwrap(), &Expected::of(&chain), "disk", &format!("dirty: {dirty:?}"));
    }
}

#[test]
fn fragments_of_a_sector_each() {
    // Alternating sectors of both layers, and of nothing: as many chunks as there can be.
    let runs: Vec<_> = (0..2048).step_by(2).map(|sector| sector..sector + 1).collect();
    let parent = Spec::empty(2 * MIB).block(0, Block::full());
    let child = Spec::child_of(&parent, "x").block(0, Block::partial(&runs)).block(1, Block::partial(&runs));
    let (child, parent) = (child.build(), parent.build());
    let chain = [&child, &parent];
    assert_served(open_chain(&chain).unwrap(), &Expected::of(&chain), "", "fragments");
}

#[test]
fn long_reads_of_holes_have_no_data() {
    let image = Spec::empty(8 * GIB).build();
    let server = server_of(open_chain(&[&image]).unwrap());
    for mode in [Mode::Structured, Mode::Extended] {
        let mut client = Client::open(&server, "", mode, &[]);
        for flags in [0, DF] {
            let reply = client.ask(flags, crate::client::READ, 5 * GIB, 32 * MIB);
            assert_eq!((reply.error, reply.data.len(), reply.holes), (0, 0, vec![(5 * GIB, 32 * MIB)]));
        }
    }
}
