//! Bad requests get errors, and the connection goes on.

use vhdx_mmap::{Disk, OpenOptions, Strictness};
use vhdx_testkit::builder::Spec;
use vhdx_testkit::lab::{open_chain, source};
use vhdx_testkit::{Block, MIB, pattern};

use crate::client::{
    BLOCK_STATUS, CACHE, Client, DF, DISC, EINVAL, EIO, EPERM, FLUSH, Mode, READ, TRIM, WRITE, WRITE_ZEROES, server_of,
};

const MODES: [Mode; 3] = [Mode::Simple, Mode::Structured, Mode::Extended];

#[test]
fn bad_requests_are_errors_of_their_own() {
    let image = Spec::empty(64 * MIB).block(1, Block::full()).build();
    let server = server_of(open_chain(&[&image]).unwrap());
    for mode in MODES {
        let mut client = Client::open(&server, "", mode, &[]);
        let mut fails = |flags, command, offset, length, error| {
            assert_eq!(client.ask(flags, command, offset, length).error, error, "{mode:?} {flags} {command} {offset}");
        };
        fails(0, TRIM, 0, 512, EPERM);
        fails(0, WRITE_ZEROES, 0, 512, EPERM);
        fails(1 | 2 | 16, WRITE_ZEROES, 0, 512, EPERM);
        fails(0, 99, 0, 512, EINVAL);
        fails(0x100, FLUSH, 0, 0, EINVAL);
        fails(8, CACHE, 0, 512, EINVAL);
        fails(0, CACHE, 64 * MIB, 512, EINVAL);
        fails(0, BLOCK_STATUS, 0, 512, EINVAL);
        // A simple reply to a read that fails has no data.
        client.request(0, READ, 64 * MIB - 1, 2);
        assert_eq!(client.reply(64 * MIB - 1, 0).error, EINVAL);
        client.request(0, READ, u64::MAX, 2);
        assert_eq!(client.reply(u64::MAX, 0).error, EINVAL);
        client.request(0, READ, 0, 32 * MIB + 1);
        assert_eq!(client.reply(0, 0).error, EINVAL);
        client.request(1, READ, 0, 512);
        assert_eq!(client.reply(0, 0).error, EINVAL);
        if mode == Mode::Simple {
            client.request(DF, READ, 0, 512);
            assert_eq!(client.reply(0, 0).error, EINVAL);
        }
        // What is written is skipped.
        for length in [1, 512, 3 * MIB] {
            client.request(if mode == Mode::Extended { 32 } else { 0 }, WRITE, 0, length);
            client.send(&vec![0x25; usize::try_from(length).unwrap()]);
            assert_eq!(client.reply(0, 0).error, EPERM);
        }
        if mode == Mode::Extended {
            client.request(32, READ, 0, 512);
            client.send(&[0x21; 512]);
            assert_eq!(client.reply(0, 0).error, EINVAL);
            client.request(0, READ, 0, 1 << 40);
            assert_eq!(client.reply(0, 0).error, EINVAL);
        }
        assert_eq!(client.ask(0, FLUSH, 0, 0).error, 0);
        assert_eq!(client.ask(0, CACHE, 0, 64 * MIB).error, 0);
        assert_eq!(client.read(0, MIB, 5000).unwrap(), pattern(1, MIB, 5000));
        // Many at once are answered in order.
        (0..100).for_each(|_| client.request(0, 98, 0, 0));
        client.request(0, DISC, 0, 0);
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut client.stream, &mut rest).unwrap();
        assert!(rest.len() >= 1600 && rest.len().is_multiple_of(100), "{}", rest.len());
    }
}

#[test]
fn longer_writes_than_are_allowed_end_the_connection() {
    let server = server_of(open_chain(&[&Spec::empty(64 * MIB).build()]).unwrap());
    for mode in MODES {
        let mut client = Client::open(&server, "", mode, &[]);
        client.request(0, WRITE, 0, 32 * MIB + 1);
        assert!(client.is_closed());
    }
}

#[test]
fn block_that_cannot_be_read_is_an_error_alone() {
    let mut spec = Spec::empty(8 * MIB).block(1, Block::full()).block(3, Block::full());
    // A present block beyond the end of the file, and one in a state that does not exist.
    spec.raw_bat.insert(2, 0x7000 << 20 | 6);
    spec.raw_bat.insert(5, 4);
    let image = spec.build();
    let salvage = OpenOptions::new().strictness(Strictness::Salvage);
    for (is_salvaged, disk) in
        [(false, open_chain(&[&image]).unwrap()), (true, Disk::open(source(&image), &salvage).unwrap())]
    {
        assert_eq!(disk.is_salvaged(), is_salvaged);
        let server = server_of(disk);
        for mode in MODES {
            let contexts: &[&str] = if mode == Mode::Simple { &[] } else { &["base:allocation", "vhdx:layer"] };
            let mut client = Client::open(&server, "", mode, contexts);
            for (offset, length) in [(2 * MIB, 512), (2 * MIB, MIB), (5 * MIB - 512, 1024), (0, 8 * MIB)] {
                client.request(0, READ, offset, length);
                let reply = client.reply(offset, length);
                assert_eq!(reply.error, EIO, "{mode:?} {offset:#x} {length:#x}");
            }
            assert_eq!(client.read(0, MIB, MIB).unwrap(), pattern(1, MIB, 1 << 20));
            assert_eq!(client.read(0, 3 * MIB, 2 * MIB).unwrap()[..512], pattern(1, 3 * MIB, 512));
            if mode == Mode::Simple {
                continue;
            }
            let reply = client.ask(0, BLOCK_STATUS, 0, 8 * MIB);
            let [(1, allocation), (2, layer)] = reply.status.as_slice() else { panic!("{reply:?}") };
            assert_eq!(allocation, &[(MIB, 3), (3 * MIB, 0), (MIB, 3), (MIB, 0), (2 * MIB, 3)]);
            let lengths: Vec<u64> = layer.iter().map(|(length, _)| *length).collect();
            assert_eq!(lengths, [MIB, MIB, MIB, MIB, MIB, MIB, 2 * MIB]);
            assert_eq!((layer[2].1 >> 20, layer[5].1 >> 20), (3, 3), "cannot be read");
        }
    }
}
