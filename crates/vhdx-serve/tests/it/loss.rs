//! Files that become shorter while they are served: a lost page is an error of its request, and nothing else.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use vhdx_mmap::{Disk, OpenOptions, Source};
use vhdx_serve::nbd::Server;
use vhdx_testkit::builder::Spec;
use vhdx_testkit::dense::{FIRST_BLOCK, cut, dense};
use vhdx_testkit::support::{map, temp_dir};
use vhdx_testkit::{Block, GIB, MIB, pattern};

use crate::client::{BLOCK_STATUS, Client, Count, DF, EIO, Mode, READ, server_of};

const BLOCKS: u64 = 8;

fn served(path: &Path, is_mapped: bool) -> Arc<Server<Count>> {
    vhdx_mmap::guard_mappings().unwrap();
    let source = if is_mapped { map(path) } else { Source::open(path).unwrap() };
    server_of(Disk::open(source, &OpenOptions::new()).unwrap())
}

#[test]
fn lost_pages_are_errors_of_their_requests() {
    for is_mapped in [true, false] {
        for mode in [Mode::Simple, Mode::Structured, Mode::Extended] {
            // Also in the middle of a page, whose rest reads as zeros without a fault.
            for end in [4 * MIB, 3 * MIB + 4096, 3 * MIB + 100, 3 * MIB + 70_000] {
                let folder = temp_dir();
                let path = dense(folder.path(), "disk.vhdx", BLOCKS);
                let server = served(&path, is_mapped);
                let mut client = Client::open(&server, "", mode, &[]);
                assert_eq!(client.read(0, 0, 8 * MIB).unwrap(), pattern(1, 0, 8 << 20));
                cut(&path, FIRST_BLOCK + end);
                for flags in if mode == Mode::Simple { vec![0] } else { vec![0, DF] } {
                    for (offset, length) in
                        [(0, 8 * MIB), (end - 512, 1024), (end - MIB, 2 * MIB), (end, 512), (6 * MIB, MIB)]
                    {
                        client.request(flags, READ, offset, length);
                        let reply = client.reply(offset, length);
                        assert_eq!(reply.error, EIO, "{is_mapped} {mode:?} {end:#x}: {offset:#x} {length:#x}");
                    }
                    let left = end - 4096;
                    assert_eq!(client.read(flags, 0, left).unwrap(), pattern(1, 0, left as usize));
                    assert_eq!(client.read(flags, 5, 4096).unwrap(), pattern(1, 5, 4096));
                }
                // Others are served, too.
                let mut other = Client::open(&server, "", Mode::Structured, &[]);
                assert_eq!(other.read(0, MIB, MIB).unwrap(), pattern(1, MIB, 1 << 20));
            }
        }
    }
}

/// Waits until there is something to read, without reading it.
fn wait_for_bytes(stream: &UnixStream) {
    let flags = rustix::event::PollFlags::IN;
    let mut polled = [rustix::event::PollFd::new(stream, flags)];
    assert_eq!(rustix::event::poll(&mut polled, None).unwrap(), 1);
}

/// The file is cut while a reply is under way: the server has sent the beginning, and the socket is full.
#[test]
fn file_that_is_cut_in_the_middle_of_a_reply() {
    for mode in [Mode::Structured, Mode::Extended, Mode::Simple] {
        let folder = temp_dir();
        let path = dense(folder.path(), "disk.vhdx", 32);
        let server = served(&path, true);
        let mut client = Client::open(&server, "", mode, &[]);
        client.request(0, READ, 0, 32 * MIB);
        // The reply has begun.
        wait_for_bytes(&client.stream);
        cut(&path, FIRST_BLOCK + 8 * MIB);
        if mode == Mode::Simple {
            // There is no way to say so: the connection ends before the range is complete.
            let mut all = Vec::new();
            std::io::Read::read_to_end(&mut client.stream, &mut all).unwrap();
            assert!((16..=(8 << 20) + 16).contains(&all.len()), "{}", all.len());
            assert!(all[16..] == pattern(1, 0, all.len() - 16));
        } else {
            let reply = client.reply(0, 32 * MIB);
            assert_eq!(reply.error, EIO, "{mode:?}");
            assert_eq!(client.read(0, 0, MIB).unwrap(), pattern(1, 0, 1 << 20));
        }
    }
}

/// A table that is cut away would look like blocks that were never written.
#[test]
fn lost_tables_are_no_holes() {
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", BLOCKS);
    let server = served(&path, true);
    let mut client = Client::open(&server, "", Mode::Structured, &["base:allocation", "vhdx:layer"]);
    assert_eq!(client.ask(0, BLOCK_STATUS, 0, 8 * MIB).status[0], (1, vec![(8 * MIB, 0)]));
    // The table is in the MiB before the first block.
    cut(&path, FIRST_BLOCK - MIB);
    assert_eq!(client.ask(0, BLOCK_STATUS, 0, 8 * MIB).error, EIO);
    assert_eq!(client.ask(8, BLOCK_STATUS, 0, 8 * MIB).error, EIO);
    client.request(0, READ, 0, 4096);
    assert_eq!(client.reply(0, 0).error, EIO);
}

/// What an earlier reply has found is not said again of a file that has lost its table.
#[test]
fn lost_tables_are_not_remembered() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    let image = Spec::empty(64 * GIB).block(40_000, Block::full()).build();
    image.bytes.write_file(&path).unwrap();
    let server = served(&path, true);
    let mut client = Client::open(&server, "", Mode::Structured, &["base:allocation"]);
    for at in [0, 4 * GIB] {
        let reply = client.ask(0, BLOCK_STATUS, at, 2 * GIB);
        assert_eq!(reply.status[0].1.iter().map(|(_, status)| *status).collect::<Vec<_>>(), [3, 3]);
    }
    cut(&path, image.block_entry_at(0) / 4096 * 4096);
    for at in [4 * GIB, 6 * GIB] {
        assert_eq!(client.ask(0, BLOCK_STATUS, at, 2 * GIB).error, EIO);
    }
}

/// Nor of a salvage, for which what is lost is data that cannot be read.
#[test]
fn lost_tables_of_a_salvage_are_not_remembered() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    let image = Spec::empty(64 * GIB).block(40_000, Block::full()).build();
    image.bytes.write_file(&path).unwrap();
    vhdx_mmap::guard_mappings().unwrap();
    let options = OpenOptions::new().strictness(vhdx_mmap::Strictness::Salvage);
    let server = server_of(Disk::open(map(&path), &options).unwrap());
    let mut client = Client::open(&server, "", Mode::Structured, &["base:allocation"]);
    let statuses = |client: &mut Client| {
        let reply = client.ask(0, BLOCK_STATUS, 4 * GIB, 2 * GIB);
        assert_eq!(reply.error, 0);
        reply.status[0].1.iter().map(|(_, status)| *status).collect::<Vec<_>>()
    };
    assert_eq!(statuses(&mut client), [3, 3]);
    cut(&path, image.block_entry_at(0) / 4096 * 4096);
    assert!(statuses(&mut client).iter().all(|status| *status == 0));
}
