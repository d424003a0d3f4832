//! `vhdx serve` with the clients of others: libnbd's tools and QEMU's.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

use crate::kit::builder::{Image, Spec};
use crate::kit::dense::{FIRST_BLOCK, cut, dense};
use crate::kit::log::Dirty;
use crate::kit::{Block, MIB, Model, pattern};
use crate::support::{Ran, run, skip, temp_dir, vhdx, wait};

use super::{args, assert_fails, names_in, vhdx_run, write_image};

/// Whether the tools of a check exist; prints a message if not.
fn has(what: &str, tools: &[&str]) -> bool {
    let is_there = |tool: &&str| Command::new(tool).arg("--version").output().is_ok_and(|ran| ran.status.success());
    let found = tools.iter().all(is_there);
    if !found {
        skip(what, &format!("one of {tools:?} is missing"));
    }
    found
}

fn has_nbd() -> bool {
    static FOUND: LazyLock<bool> = LazyLock::new(|| has("nbd", &["nbdinfo", "nbdcopy"]));
    *FOUND
}

/// A child with a dirty log, its parent, and the content of both disks.
struct Served {
    folder: tempfile::TempDir,
    image: PathBuf,
    content: [Vec<u8>; 2],
}

impl Served {
    fn new() -> Self {
        let folder = temp_dir();
        let parent = Spec::empty(8 * MIB).block(0, Block::full()).block(2, Block::full()).block(6, Block::full());
        let child = Spec::child_of(&parent, "parent.vhdx").block(0, Block::partial(&[3..9, 100..2000]));
        let child = Dirty::ManyEntries.build(&child.block(1, Block::full()).block(6, Block::zero()));
        let parent = parent.build();
        let read = |chain: &[&Image]| {
            let models: Vec<&Model> = chain.iter().map(|image| &image.model).collect();
            Model::read(&models, 0, 8 << 20).unwrap()
        };
        let content = [read(&[&child, &parent]), read(&[&parent])];
        parent.bytes.write_file(&folder.path().join("parent.vhdx")).unwrap();
        let image = folder.path().join("child.avhdx");
        child.bytes.write_file(&image).unwrap();
        Self { folder, image, content }
    }

    /// A new path in the folder.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a program with the server.
    #[track_caller]
    fn with(&self, command: Vec<OsString>) -> Ran {
        run(&mut vhdx([args!["serve", "--quiet", &self.image, "--"], command].concat()))
    }
}

/// The command as a server, and the lines that it prints.
struct Running {
    child: Child,
    uris: Vec<String>,
}

impl Running {
    /// Starts the server, and waits for this number of lines.
    fn start(args: Vec<OsString>, lines: usize) -> Self {
        let mut child = super::stops::command([args!["serve", "--quiet"], args].concat()).spawn().unwrap();
        let out = BufReader::new(child.stdout.as_mut().unwrap());
        let uris = out.lines().take(lines).map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(uris.len(), lines, "{uris:?}");
        Self { child, uris }
    }

    /// Path of the Unix socket.
    fn socket(&self) -> PathBuf {
        PathBuf::from(self.uris[0].split_once("?socket=").unwrap().1)
    }

    /// Ends the server by a signal.
    fn end(self, signal: i32) -> Ran {
        let pid = rustix::process::Pid::from_child(&self.child);
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        wait(self.child)
    }
}

#[test]
fn nbdcopy_and_qemu_img_copy_every_export() {
    if !has_nbd() || !has("qemu", &["qemu-img", "qemu-io"]) {
        return;
    }
    let served = Served::new();
    let server = Running::start(args![&served.image], 3);
    for (uri, content) in server.uris.iter().zip([0, 0, 1]) {
        let raw = served.path("raw");
        run(Command::new("nbdcopy").arg(uri).arg(&raw)).done();
        assert!(std::fs::read(&raw).unwrap() == served.content[content], "nbdcopy {uri}");
        run(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "raw"]).arg(uri).arg(&raw)).done();
        assert!(std::fs::read(&raw).unwrap() == served.content[content], "qemu-img convert {uri}");
        run(Command::new("qemu-img").args(["compare", "-f", "raw", "-F", "raw"]).arg(uri).arg(&raw)).done();
        std::fs::remove_file(&raw).unwrap();
    }
    // The map has data where one of the layers has it: not in block 6, which the child has emptied.
    let map = run(Command::new("qemu-img").args(["map", "--output", "json", "-f", "raw"]).arg(&server.uris[0])).done();
    let map: Value = serde_json::from_slice(&map.out).unwrap();
    let data: Vec<(u64, u64)> = map
        .as_array()
        .unwrap()
        .iter()
        .filter(|extent| extent["data"] == true)
        .map(|extent| (extent["start"].as_u64().unwrap(), extent["length"].as_u64().unwrap()))
        .collect();
    assert_eq!(data, [(0, 3 * MIB)]);
    // A write is refused, and what is read is right.
    let io = |line: &str| run(Command::new("qemu-io").args(["-r", "-f", "raw", "-c", line]).arg(&server.uris[0]));
    let dump = io("read -v 1M 512").done().text();
    let first: Vec<String> = served.content[0][1 << 20..][..16].iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(dump.contains(&first.join(" ")), "{dump}");
    assert!(io("write 0 512").text().contains("failed") || !io("write 0 512").status.success());
    let ran = server.end(libc::SIGTERM);
    assert_eq!((ran.status.code(), &*ran.err), (Some(0), ""));
}

#[test]
fn nbdinfo_shows_exports_and_maps() {
    if !has_nbd() {
        return;
    }
    let served = Served::new();
    let shown = served.with(args!["nbdinfo", "--list", "--json", "$uri"]).done();
    let shown: Value = serde_json::from_slice(&shown.out).unwrap();
    let exports = shown["exports"].as_array().unwrap();
    assert_eq!(exports.len(), 4);
    for export in exports {
        assert_eq!(export["export-size"], 8 * MIB);
        assert_eq!(export["is_read_only"], true);
        assert_eq!(export["can_multi_conn"], true);
        assert_eq!(export["contexts"], serde_json::json!(["base:allocation", "vhdx:layer"]));
    }
    let map = |context: &str| {
        let map = served.with(args!["nbdinfo", "--json", format!("--map={context}"), "$uri"]).done();
        let map: Value = serde_json::from_slice(&map.out).unwrap();
        let number = |extent: &Value, key: &str| extent[key].as_u64().unwrap();
        let extents = map.as_array().unwrap().iter();
        extents
            .map(|extent| (number(extent, "offset"), number(extent, "length"), number(extent, "type")))
            .collect::<Vec<_>>()
    };
    assert_eq!(map("base:allocation"), [(0, 3 * MIB, 0), (3 * MIB, 5 * MIB, 3)]);
    let layers = map("vhdx:layer");
    // Sectors 0 to 2 are the parent's, 3 to 8 the child's: fully and partially present.
    assert_eq!(layers[..2], [(0, 1536, 6 << 16 | 1), (1536, 3072, 7 << 16)]);
    // Block 6 is a block of zeros of the child.
    assert!(layers.contains(&(6 * MIB, MIB, 2 << 20 | 2 << 16)), "{layers:?}");
}

#[test]
fn brackets_of_libnbd_start_the_server() {
    if !has_nbd() {
        return;
    }
    let served = Served::new();
    let vhdx = vhdx::<&str>([]).get_program().to_owned();
    for option in ["--stdio", "--quiet"] {
        let raw = served.path("raw");
        run(Command::new("nbdcopy").args(args!["--", "[", &vhdx, "serve", option, &served.image, "]", &raw])).done();
        assert!(std::fs::read(&raw).unwrap() == served.content[0]);
        std::fs::remove_file(&raw).unwrap();
    }
    // Nothing but the disk is written to standard output.
    let ran = run(Command::new("nbdcopy").args(args!["--", "[", &vhdx, "serve", &served.image, "]", "-"])).done();
    assert!(ran.out == served.content[0]);
}

#[test]
fn bindings_of_python_read_over_standard_streams() {
    let python = "/usr/bin/python3";
    if !Command::new(python).args(["-c", "import nbd"]).output().is_ok_and(|ran| ran.status.success()) {
        skip("nbd", "no python3-libnbd");
        return;
    }
    let served = Served::new();
    let vhdx = vhdx::<&str>([]).get_program().to_owned();
    let script = "
import nbd, sys
h = nbd.NBD()
h.set_export_name('layer1')
h.add_meta_context('vhdx:layer')
h.connect_command(sys.argv[1:])
assert h.is_read_only() and h.can_df() and h.can_cache() and h.can_meta_context('vhdx:layer')
h.cache(4096, 0)
data = h.pread(h.get_size(), 0)
sys.stdout.buffer.write(data)
for wrong in (lambda: h.pread(1, h.get_size()), lambda: h.pwrite(b'x', 0)):
    try:
        wrong()
    except nbd.Error:
        pass
    else:
        sys.exit('no error')
h.shutdown()
";
    let ran = run(Command::new(python).args(args!["-c", script, &vhdx, "serve", "--stdio", &served.image])).done();
    assert!(ran.out == served.content[1]);
}

#[test]
fn nbdfuse_mounts_the_disk_as_a_file() {
    if !has("nbd", &["nbdfuse"]) {
        return;
    }
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        skip("fuse", "no /dev/fuse");
        return;
    }
    let served = Served::new();
    let (mount, raw) = (served.path("mount"), served.path("raw"));
    std::fs::create_dir(&mount).unwrap();
    // The server of the file writes its number into a pipe when it is ready.
    let script = "mkfifo \"$3\"; exec 3<>\"$3\"; nbdfuse -P \"$3\" \"$1\" \"$uri\" 3<&- & \
        read -t 600 -r -N 1 -u 3 _ && cp \"$1/nbd\" \"$2\"; code=$?; fusermount3 -u \"$1\"; wait; exit $code";
    let ran = served.with(args!["bash", "-c", script, "bash", &mount, &raw, served.path("pid")]).done();
    assert!(std::fs::read(&raw).unwrap() == served.content[0], "{}", ran.err);
}

#[test]
fn program_gets_the_uri_and_decides_the_exit_code() {
    let served = Served::new();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        assert_eq!(served.with(args!["sh", "-c", script]).status.code(), Some(code), "{script}");
    }
    let ran = served.with(args!["sh", "-c", "test \"$1\" = \"x=$uri\" && printenv uri", "sh", "x=$uri"]).done();
    let socket = ran.text().trim().split_once("nbd+unix:///?socket=").unwrap().1.to_owned();
    assert!(!Path::new(&socket).exists(), "the socket is left");
    assert!(!Path::new(&socket).parent().unwrap().exists(), "the folder of the socket is left");
    assert_fails(&served.with(args!["/nothing/there"]), 66, &["/nothing/there"]);
}

#[test]
fn socket_is_private_and_is_removed_at_the_end() {
    let served = Served::new();
    let socket = served.path("a socket");
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let server = Running::start(args![&served.image, "--socket", &socket], 3);
        assert!(server.uris[0].ends_with("/a%20socket"), "{:?}", server.uris);
        assert!(server.uris[2].starts_with("nbd+unix:///layer1?socket=/"), "{:?}", server.uris);
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut greeting = [0; 18];
        UnixStream::connect(&socket).unwrap().read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting[..8], b"NBDMAGIC");
        // A second server does not take its place.
        assert_fails(&vhdx_run(args!["serve", &served.image, "-U", &socket]), 73, &["a socket", "hint: remove"]);
        let ran = server.end(signal);
        assert_eq!((ran.status.code(), &*ran.err), (Some(0), ""), "{signal}");
        assert_eq!(names_in(served.folder.path()), ["child.avhdx", "parent.vhdx"]);
    }
    // In a folder of its own.
    let server = Running::start(args![&served.image], 3);
    let socket = server.socket();
    let folder = std::fs::metadata(socket.parent().unwrap()).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    server.end(libc::SIGTERM).done();
    assert!(!socket.parent().unwrap().exists());
}

#[test]
fn port_is_one_of_this_machine() {
    let served = Served::new();
    let server = Running::start(args![&served.image, "--port", "0"], 3);
    let address = server.uris[0].strip_prefix("nbd://127.0.0.1:").unwrap().trim_end_matches('/');
    let mut greeting = [0; 18];
    let port: u16 = address.parse().unwrap();
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting[..8], b"NBDMAGIC");
    server.end(libc::SIGTERM).done();
    assert_fails(&vhdx_run(args!["serve", &served.image, "--bind", "::"]), 2, &["--port"]);
    assert_fails(&vhdx_run(args!["serve", &served.image, "--port", "1", "--stdio"]), 2, &["--stdio"]);
    assert_fails(&vhdx_run(args!["serve"]), 2, &["IMAGE"]);
}

#[test]
fn several_images_and_partitions_have_names() {
    if !has_nbd() {
        return;
    }
    let folder = temp_dir();
    // An MBR with one partition: type 0x83, sectors 2048 to 4095.
    let mut mbr = vec![0; 512];
    mbr[446..462].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    let spec = Spec::empty(4 * MIB).block(0, Block::full().bytes(&mbr)).block(1, Block::full());
    let one = write_image(folder.path(), "one.vhdx", &spec);
    let two = write_image(folder.path(), "two.vhdx", &Spec::empty(2 * MIB).block(1, Block::full()));
    let server = Running::start(args![&one, &two], 5);
    let names: Vec<&str> =
        server.uris.iter().map(|uri| uri["nbd+unix:///".len()..].split('?').next().unwrap()).collect();
    assert_eq!(names, ["one", "one/part1", "one/layer0", "two", "two/layer0"]);
    let raw = folder.path().join("raw");
    run(Command::new("nbdcopy").arg(&server.uris[1]).arg(&raw)).done();
    assert!(std::fs::read(&raw).unwrap() == pattern(1, MIB, 1 << 20));
    server.end(libc::SIGTERM).done();
    assert_fails(&vhdx_run(args!["serve", &one, &one]), 2, &["twice"]);
}

#[test]
fn damage_and_loss_are_errors_of_the_reads_that_meet_them() {
    if !has_nbd() || !has("qemu", &["qemu-io"]) {
        return;
    }
    let folder = temp_dir();
    let image = dense(folder.path(), "disk.vhdx", 8);
    let server = Running::start(args![&image], 2);
    let read = |line: &str| {
        let ran = run(Command::new("qemu-io").args(["-r", "-f", "raw", "-c", line]).arg(&server.uris[0]));
        ran.status.success() && !ran.text().contains("failed") && !ran.err.contains("failed")
    };
    assert!(read("read 0 8M"));
    cut(&image, FIRST_BLOCK + 4 * MIB);
    assert!(!read("read 0 8M"));
    assert!(!read("read 4M 512"));
    assert!(read("read 0 4M"));
    let ran = run(Command::new("nbdcopy").arg(&server.uris[0]).arg("null:"));
    assert!(!ran.status.success(), "a copy of what is lost");
    let ran = server.end(libc::SIGTERM);
    assert_fails(&ran, 74, &["export disk: ", "changed while it was read"]);
}

#[test]
fn clients_that_are_killed_in_the_middle_of_a_copy() {
    if !has_nbd() {
        return;
    }
    let folder = temp_dir();
    let image = dense(folder.path(), "disk.vhdx", 16);
    let server = Running::start(args![&image], 2);
    for _ in 0..30 {
        let mut copy = Command::new("nbdcopy");
        let mut copy = copy.arg(&server.uris[0]).arg("-").stdout(Stdio::piped()).spawn().unwrap();
        copy.stdout.take().unwrap().read_exact(&mut [0; 70_000]).unwrap();
        copy.kill().unwrap();
        copy.wait().unwrap();
    }
    let ran = run(Command::new("nbdcopy").arg(&server.uris[0]).arg("-")).done();
    assert!(ran.out == pattern(1, 0, 16 << 20));
    server.end(libc::SIGTERM).done();
}

/// systemd passes such sockets, too (`ListenStream=@name`).
#[test]
#[cfg(target_os = "linux")]
fn sockets_without_a_path_are_served() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    let folder = temp_dir();
    let image = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let name = SocketAddr::from_abstract_name(format!("vhdx-test-{}", std::process::id())).unwrap();
    let listener = UnixListener::bind_addr(&name).unwrap();
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_vhdx")]).args(args!["serve", "--quiet", &image]);
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener))).stdout(Stdio::piped()).stderr(Stdio::piped());
    let server = command.spawn().unwrap();
    let mut greeting = [0; 8];
    UnixStream::connect_addr(&name).unwrap().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"NBDMAGIC");
    let pid = rustix::process::Pid::from_child(&server);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(wait(server).done().err, "");
}
