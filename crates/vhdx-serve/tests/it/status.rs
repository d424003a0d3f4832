//! Block status, compared with the naive reader sector by sector.

use vhdx_testkit::builder::{Image, Spec};
use vhdx_testkit::cuts::chain_of_three;
use vhdx_testkit::lab::{Door, Rng, open_chain, open_through, oracle};
use vhdx_testkit::log::Dirty;
use vhdx_testkit::oracle::{LogPolicy, Origin};
use vhdx_testkit::{Block, GIB, MIB, TIB};

use crate::client::{BLOCK_STATUS, Client, Mode, REQ_ONE, server_of};

const CONTEXTS: [&str; 2] = ["base:allocation", "vhdx:layer"];

/// Asserts that both contexts say what the naive reader finds.
fn assert_status(chain: &[&Image]) {
    let oracle = oracle(chain, LogPolicy::Replay);
    let server = server_of(open_chain(chain).unwrap());
    for mode in [Mode::Structured, Mode::Extended] {
        let mut client = Client::open(&server, "", mode, &CONTEXTS);
        for (start, end) in [(0, oracle.size()), (512, oracle.size() - 512), (MIB + 4096, 2 * MIB + 512)] {
            let reply = client.ask(0, BLOCK_STATUS, start, end - start);
            let [(1, allocation), (2, layers)] = reply.status.as_slice() else { panic!("{reply:?}") };
            for (context, extents) in [allocation, layers].into_iter().enumerate() {
                assert!(extents.windows(2).all(|pair| pair[0].1 != pair[1].1), "neighbours are equal: {extents:?}");
                let mut at = start;
                for (length, status) in extents {
                    for sector in (at..at + length).step_by(512) {
                        assert_sector(&oracle, sector, context, *status);
                    }
                    at += length;
                }
                assert_eq!(at, end);
            }
            let one = client.ask(REQ_ONE, BLOCK_STATUS, start, end - start);
            assert_eq!(one.status, [(1, vec![allocation[0]]), (2, vec![layers[0]])]);
        }
    }
}

fn assert_sector(oracle: &vhdx_testkit::oracle::Oracle<'_>, at: u64, context: usize, status: u64) {
    let origin = oracle.locate(at / 512).unwrap();
    let is_hole = status == 3;
    let (layer, state, place) = (status & 0xffff, status >> 16 & 15, status >> 20);
    match origin {
        // Zeros that a replay makes are holes, too.
        Origin::File { layer, offset } if context == 0 => {
            assert!(!is_hole || oracle.file_bytes(layer, offset, 512) == [0; 512], "{at:#x}");
        }
        _ if context == 0 => assert!(is_hole, "{at:#x}"),
        Origin::File { layer: expected, offset } => {
            assert_eq!(layer, expected as u64, "{at:#x}");
            assert!(matches!(state, 6 | 7), "{at:#x}: {state}");
            let is_zero = oracle.file_bytes(expected, offset, 512) == [0; 512];
            assert!(matches!(place, 0 | 1) || place == 2 && is_zero, "{at:#x}: {place}");
        }
        Origin::Zero { layer: expected, state: found } => {
            assert_eq!((layer, state, place), (expected as u64, u64::from(found), 2), "{at:#x}");
        }
        Origin::Absent { layer: expected } => {
            assert_eq!((layer, place), (expected as u64, 2), "{at:#x}");
            assert!(matches!(state, 0 | 8), "{at:#x}: {state}");
        }
    }
}

#[test]
fn status_is_what_the_naive_reader_finds() {
    let images = chain_of_three(3 * MIB).map(|spec| spec.build());
    assert_status(&images.iter().collect::<Vec<_>>());
    let spec = Spec::empty(6 * MIB).block(0, Block::full()).block(1, Block::zero()).block(3, Block::new(3));
    for dirty in [Dirty::OneEntry, Dirty::Order, Dirty::Growth] {
        assert_status(&[&dirty.build(&spec.clone().block(5, Block::full()))]);
    }
}

#[test]
fn long_ranges_take_few_replies() {
    let mut spec = Spec { block_size: 32 << 20, ..Spec::empty(64 * TIB) };
    spec.blocks.insert(0, Block::full().bytes(b"first"));
    spec.blocks.insert(2_000_000, Block::full().bytes(b"late"));
    let server = server_of(open_through(Door::Map, &[&spec.build()]).unwrap());
    let mut client = Client::open(&server, "", Mode::Extended, &["base:allocation"]);
    let reply = client.ask(0, BLOCK_STATUS, 0, 64 * TIB);
    let block = 32 * MIB;
    let (between, after) = (1_999_999 * block, 64 * TIB - 2_000_001 * block);
    assert_eq!(reply.status, [(1, vec![(block, 0), (between, 3), (block, 0), (after, 3)])]);
    let mut client = Client::open(&server, "", Mode::Structured, &["base:allocation"]);
    // Lengths have 32 bits here, and the last extent of a long range may go on past it.
    let late = 2_000_000 * block;
    for (flags, start, length, expected) in [
        (0, block, 4 * GIB - 512, vec![(4 * GIB - 512 - 65_536, 3), (4 * GIB - 65_536, 3)]),
        (0, late - 2 * GIB, GIB, vec![(2 * GIB, 3)]),
        (0, late - 6 * GIB, 3 * GIB, vec![(3 * GIB - 65_536, 3), (3 * GIB + 65_536, 3)]),
        (0, late - GIB, GIB, vec![(GIB, 3)]),
        (0, late - GIB, GIB + block, vec![(GIB, 3), (block, 0)]),
        (0, late - GIB, GIB + 512, vec![(GIB, 3), (block, 0)]),
        (0, late + block, GIB, vec![(GIB - 65_536, 3), (4 * GIB - 65_536, 3)]),
        (0, 64 * TIB - 2 * GIB, GIB, vec![(2 * GIB, 3)]),
        (0, 64 * TIB - GIB, GIB, vec![(GIB, 3)]),
        (0, late - 2 * GIB, GIB - 512, vec![(GIB - 512, 3)]),
        (REQ_ONE, late - 2 * GIB, GIB, vec![(GIB, 3)]),
    ] {
        let reply = client.ask(flags, BLOCK_STATUS, start, length);
        assert_eq!(reply.status, [(1, expected)], "{start:#x} {length:#x}");
    }
}

/// Requests in any order, whose replies may come from what earlier ones have found.
#[test]
fn long_ranges_in_any_order() {
    let (block, count) = (32 * MIB, 3 * TIB / (32 * MIB));
    let mut spec = Spec { block_size: 32 << 20, ..Spec::empty(3 * TIB) };
    let present = [0, 40, 41, 200, 40_000, 40_001, count - 1];
    for number in present {
        spec.blocks.insert(number, Block::full().bytes(b"data"));
    }
    let server = server_of(open_through(Door::Map, &[&spec.build()]).unwrap());
    let mut client = Client::open(&server, "", Mode::Structured, &CONTEXTS);
    let is_present = |at: u64| present.contains(&(at / block));
    let end_of_same = |at: u64| {
        let change = (at / block..count).find(|number| present.contains(number) != is_present(at));
        change.map_or(3 * TIB, |number| number * block)
    };
    let mut rng = Rng::new(11);
    let mut start = 0;
    for number in 0..2000 {
        let asked = (GIB + rng.below(3 * GIB) / 512 * 512).min(3 * TIB - start);
        let reply = client.ask(0, BLOCK_STATUS, start, asked);
        let [(1, allocation), (2, layers)] = reply.status.as_slice() else { panic!("{reply:?}") };
        for (extents, absent, full) in [(allocation, 3, 0), (layers, 2 << 20, 6 << 16)] {
            let mut at = start;
            for (length, status) in extents {
                assert!(at < start + asked && *length > 0, "{number}: {extents:?}");
                assert_eq!(*status, if is_present(at) { full } else { absent }, "{number}: {at:#x}");
                assert!(at + length <= end_of_same(at), "{number}: {extents:?}");
                at += length;
            }
            assert!(at >= start + asked, "{number}: {extents:?}");
        }
        // Mostly on from there, sometimes elsewhere, as clients do.
        let next = start + allocation.iter().map(|(length, _)| length).sum::<u64>();
        start = if next >= 3 * TIB || rng.below(20) == 0 { rng.below(3 * TIB - GIB) / 512 * 512 } else { next };
    }
}
