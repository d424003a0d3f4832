//! Options, good and bad.

use std::sync::Arc;
use std::time::Duration;

use vhdx_serve::Export;
use vhdx_serve::nbd::{Exports, Limits, Server};
use vhdx_testkit::builder::Spec;
use vhdx_testkit::lab::open_chain;
use vhdx_testkit::{Block, MIB};

use crate::client::{
    ABORT, ACK, Client, Count, EXPORT_NAME, EXTENDED_HEADERS, GO, INFO, INVALID, LIST, LIST_META_CONTEXT, Mode,
    SET_META_CONTEXT, STARTTLS, STRUCTURED_REPLY, TOO_BIG, UNKNOWN, UNSUP, server_of, text,
};

/// A disk of 4 MiB, a child of another.
fn server() -> Arc<Server<Count>> {
    let parent = Spec::empty(4 * MIB).block(0, Block::full());
    let child = Spec::child_of(&parent, "parent.vhdx").block(1, Block::full());
    server_of(open_chain(&[&child.build(), &parent.build()]).unwrap())
}

fn connect(server: &Arc<Server<Count>>) -> Client {
    let mut client = Client::connect(server);
    client.send(&3_u32.to_be_bytes());
    client
}

/// Data of GO or INFO.
fn go(name: &str, infos: &[u16]) -> Vec<u8> {
    let count = u16::try_from(infos.len()).unwrap().to_be_bytes().to_vec();
    [text(name), count, infos.iter().flat_map(|info| info.to_be_bytes()).collect()].concat()
}

#[test]
fn exports_are_listed_and_described() {
    let mut client = connect(&server());
    let replies = client.option(LIST, &[]);
    let names: Vec<String> = replies[..replies.len() - 1]
        .iter()
        .map(|(kind, data)| {
            assert_eq!(*kind, 2);
            let length = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
            String::from_utf8(data[4..][..length].to_vec()).unwrap()
        })
        .collect();
    assert_eq!(names, ["", "disk", "layer0", "layer1"]);
    // Size; has flags, read-only, flush, multi-conn, cache.
    let export = [vec![0, 0], (4 * MIB).to_be_bytes().to_vec(), vec![5, 7]].concat();
    assert_eq!(client.option(INFO, &go("layer1", &[])), [(3, export.clone()), (ACK, vec![])]);
    let replies = client.option(INFO, &go("", &[1, 2, 3, 99]));
    assert_eq!(replies[0], (3, export));
    assert_eq!(replies[1], (3, b"\0\x01disk".to_vec()));
    assert_eq!(replies[2], (3, b"\0\x02the whole disk".to_vec()));
    assert_eq!(replies[3], (3, vec![0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0]));
    assert_eq!(replies.len(), 5);
}

#[test]
fn bad_options_are_refused_and_good_ones_still_work() {
    let server = server();
    let mut client = connect(&server);
    let mut kind = |option, data: &[u8]| client.option(option, data).last().unwrap().0;
    assert_eq!(kind(STARTTLS, &[]), UNSUP);
    assert_eq!(kind(0x7777, &[1, 2, 3]), UNSUP);
    assert_eq!(kind(LIST, &[1]), INVALID);
    assert_eq!(kind(LIST, &vec![0; 65_537]), TOO_BIG);
    assert_eq!(kind(0x7777, &vec![0; 1 << 20]), TOO_BIG);
    assert_eq!(kind(GO, &[]), INVALID);
    assert_eq!(kind(GO, &go("nothing", &[])), UNKNOWN);
    assert_eq!(kind(INFO, &[0xff, 0xff, 0xff, 0xff, 0, 0]), INVALID);
    assert_eq!(kind(INFO, &[0, 0, 0, 1, 0xff, 0, 0]), INVALID, "no UTF-8");
    assert_eq!(kind(INFO, &[0, 0, 0, 0, 0, 2, 0, 1]), INVALID, "two, but only one is there");
    assert_eq!(kind(INFO, &[go("", &[]), vec![0]].concat()), INVALID, "more than there should be");
    let query = |name: &str, queries: &[&str]| {
        let count = u32::try_from(queries.len()).unwrap().to_be_bytes().to_vec();
        [text(name), count, queries.iter().flat_map(|query| text(query)).collect()].concat()
    };
    assert_eq!(kind(SET_META_CONTEXT, &query("", &["base:allocation"])), INVALID, "without structured replies");
    assert_eq!(kind(STRUCTURED_REPLY, &[0]), INVALID);
    assert_eq!(kind(STRUCTURED_REPLY, &[]), ACK);
    assert_eq!(kind(STRUCTURED_REPLY, &[]), INVALID);
    assert_eq!(kind(SET_META_CONTEXT, &query("nothing", &[])), UNKNOWN);
    assert_eq!(kind(SET_META_CONTEXT, &[text(""), vec![0xff; 4]].concat()), INVALID, "4 billion queries");
    assert_eq!(kind(EXTENDED_HEADERS, &[]), ACK);
    assert_eq!(kind(EXTENDED_HEADERS, &[]), INVALID);
    assert_eq!(kind(STRUCTURED_REPLY, &[]), (1 << 31) + 10);
    let names = |replies: Vec<(u32, Vec<u8>)>| -> Vec<String> {
        let names = replies.iter().filter(|(kind, _)| *kind == 4);
        names.map(|(_, data)| String::from_utf8(data[4..].to_vec()).unwrap()).collect()
    };
    for (queries, found) in [
        (&[][..], &["base:allocation", "vhdx:layer"][..]),
        (&["base:"], &["base:allocation"]),
        (&["vhdx:"], &["vhdx:layer"]),
        (&["vhdx:layer", "qemu:", "x"], &["vhdx:layer"]),
    ] {
        assert_eq!(names(client.option(LIST_META_CONTEXT, &query("", queries))), found);
    }
    assert!(names(client.option(SET_META_CONTEXT, &query("", &["base:"]))).is_empty(), "only a whole name is chosen");
    assert_eq!(client.option(ABORT, &[]), [(ACK, vec![])]);
    assert!(client.is_closed());
}

#[test]
fn breach_of_the_protocol_ends_the_connection() {
    let server = server();
    let first: [&[u8]; 4] = [
        b"\0\0\0\x07",
        b"\0\0\0\x03IHAVEOPS\0\0\0\x03\0\0\0\0",
        b"\0\0\0\x03IHAVEOPT\0\0\0\x03\xff\xff\xff\xff",
        // Without the fixed handshake, there is only one option.
        b"\0\0\0\0IHAVEOPT\0\0\0\x03\0\0\0\0",
    ];
    for bytes in first {
        let mut client = Client::connect(&server);
        client.send(bytes);
        assert!(client.is_closed(), "{bytes:?}");
    }
    let mut client = connect(&server);
    client.send_option(EXPORT_NAME, b"nothing");
    assert!(client.is_closed());
    let mut client = Client::open(&server, "", Mode::Simple, &[]);
    client.send(&[0xee; 28]);
    assert!(client.is_closed());
}

#[test]
fn old_clients_get_an_export_by_its_name() {
    let server = server();
    for (flags, zeroes) in [(0_u32, 124), (1, 124), (3, 0)] {
        let mut client = Client::connect(&server);
        client.send(&flags.to_be_bytes());
        client.send_option(EXPORT_NAME, b"layer1");
        assert_eq!(client.take(10), [(4 * MIB).to_be_bytes().as_slice(), &[5, 7]].concat());
        assert_eq!(client.take(zeroes), vec![0; zeroes]);
        let expected = vhdx_testkit::pattern(1, 1000, 2000);
        assert_eq!(client.read(0, 1000, 2000).unwrap(), expected);
    }
}

#[test]
fn contexts_are_those_of_one_export() {
    let server = server();
    for is_old in [false, true] {
        for (export, kind) in [("layer0", [0x80, 1]), ("layer1", [0, 5])] {
            let mut client = connect(&server);
            client.option(STRUCTURED_REPLY, &[]);
            let data = [text("layer1"), 1_u32.to_be_bytes().to_vec(), text("base:allocation")].concat();
            assert_eq!(client.option(SET_META_CONTEXT, &data).len(), 2);
            if is_old {
                client.send_option(EXPORT_NAME, export.as_bytes());
                client.take(10);
            } else {
                assert_eq!(client.option(GO, &go(export, &[])).len(), 2);
            }
            client.send(b"\x25\x60\x95\x13\0\0\0\x07\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\x10\0");
            // The last chunk: an error, or the status.
            assert_eq!(client.take(20)[4..8], [&[0, 1], kind.as_slice()].concat(), "{is_old} {export}");
        }
    }
}

#[test]
fn slow_handshake_ends() {
    let disk = Arc::new(open_chain(&[&Spec::empty(MIB).build()]).unwrap());
    let mut limits = Limits::default();
    limits.handshake = Duration::from_millis(1);
    let exports = Exports::new(Export::of_disk(&disk, None).unwrap(), true);
    let server = Arc::new(Server::new(exports, limits, Count::default()));
    // A client that says nothing at all.
    let mut client = Client::connect(&server);
    assert!(client.is_closed());
}
