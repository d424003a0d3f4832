//! Clients that vanish, are slow, or are many.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use vhdx_serve::Export;
use vhdx_serve::nbd::{Exports, Limits, Listener, Server};
use vhdx_testkit::builder::Spec;
use vhdx_testkit::dense::{content, dense};
use vhdx_testkit::lab::{Rng, open_chain};
use vhdx_testkit::support::{open, temp_dir};
use vhdx_testkit::{Block, MIB, pattern};

use crate::client::{Client, Count, Mode, READ, server_of, wait_for_connections};

#[test]
fn thousand_clients_vanish_in_the_middle_of_a_transfer() {
    let folder = temp_dir();
    let server = server_of(open(&dense(folder.path(), "disk.vhdx", 32)).unwrap());
    let mut rng = Rng::new(7);
    for round in 0..1000 {
        let mode = [Mode::Simple, Mode::Structured, Mode::Extended][round % 3];
        if round % 10 == 9 {
            // In the middle of the handshake.
            let mut client = Client::connect(&server);
            client.send(&b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x20abc"[..4 + rng.below(19) as usize]);
            continue;
        }
        let mut client = Client::open(&server, "", mode, &[]);
        for _ in 0..=rng.below(3) {
            client.request(0, READ, rng.below(16) * MIB, [4096, 65_536, 16 * MIB][rng.below(3) as usize]);
        }
        let mut some = vec![0; rng.below(3 * MIB) as usize / (round % 7 * 100 + 1)];
        // There may be fewer bytes than that: then the client reads nothing and goes.
        client.stream.set_nonblocking(true).unwrap();
        let _ = client.stream.read(&mut some);
    }
    wait_for_connections(&server, 0);
    let mut client = Client::open(&server, "", Mode::Structured, &[]);
    assert!(client.read(0, 0, 32 * MIB).unwrap() == content(32));
}

#[test]
fn slow_reader_waits_alone() {
    let folder = temp_dir();
    let server = server_of(open(&dense(folder.path(), "disk.vhdx", 32)).unwrap());
    let mut slow = Client::open(&server, "", Mode::Structured, &[]);
    slow.request(0, READ, 0, 32 * MIB);
    for _ in 0..3 {
        let mut quick = Client::open(&server, "", Mode::Structured, &[]);
        assert!(quick.read(0, 0, 32 * MIB).unwrap() == content(32));
    }
    let reply = slow.reply(0, 32 * MIB);
    assert!(reply.data.concat_bytes() == content(32));
}

trait Concat {
    fn concat_bytes(&self) -> Vec<u8>;
}

impl Concat for Vec<(u64, Vec<u8>)> {
    fn concat_bytes(&self) -> Vec<u8> {
        self.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect()
    }
}

fn limited(connections: usize) -> Arc<Server<Count>> {
    let disk = Arc::new(open_chain(&[&Spec::empty(2 * MIB).block(0, Block::full()).build()]).unwrap());
    let mut limits = Limits::default();
    limits.connections = connections;
    Arc::new(Server::new(Exports::new(Export::of_disk(&disk, None).unwrap(), true), limits, Count::default()))
}

#[test]
fn more_clients_than_are_allowed_are_disconnected() {
    let server = limited(50);
    let mut clients: Vec<Client> = (0..50).map(|_| Client::open(&server, "", Mode::Structured, &[])).collect();
    let (mut stream, other) = UnixStream::pair().unwrap();
    server.start(vhdx_serve::nbd::Socket::Unix(other));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    for client in &mut clients {
        assert_eq!(client.read(0, 10, 100).unwrap(), pattern(1, 10, 100));
    }
    clients.pop();
    wait_for_connections(&server, 49);
    let mut client = Client::open(&server, "", Mode::Simple, &[]);
    assert_eq!(client.read(0, 10, 100).unwrap(), pattern(1, 10, 100));
}

#[test]
fn server_accepts_on_all_sockets_until_it_is_stopped() {
    let folder = temp_dir();
    let server = limited(100);
    let path = folder.path().join("socket");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let listeners = [Listener::Unix(UnixListener::bind(&path).unwrap()), Listener::Tcp(tcp)];
    let (stop, end) = UnixStream::pair().unwrap();
    let running = Arc::clone(&server);
    let thread = std::thread::spawn(move || running.run(&listeners, stop).unwrap());
    let mut client = Client::greet(UnixStream::connect(&path).unwrap());
    let mut greeting = [0; 18];
    let mut by_tcp = TcpStream::connect(address).unwrap();
    by_tcp.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, *b"NBDMAGICIHAVEOPT\0\x03");
    drop(end);
    thread.join().unwrap();
    assert!(client.is_closed());
    assert_eq!(by_tcp.read(&mut greeting).unwrap(), 0);
    wait_for_connections(&server, 0);
}
