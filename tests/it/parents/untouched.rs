//! Files that a search must not touch are not opened, not even to inspect them: the system reports every file that is
//! opened.
#![cfg(target_os = "linux")]

use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use vhdx_mmap::{Chain, ErrorKind, FoundBy, Parents};

use crate::kit::builder::Spec;
use crate::support::{skip, temp_dir};

use super::{base, chain, child_at, child_by, found, outcomes, refused, write};

/// Reports which files of some folders are opened.
struct Watch(OwnedFd);

impl Watch {
    fn new(folders: &[&Path]) -> Self {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        for folder in folders {
            inotify::add_watch(&watch, *folder, WatchFlags::OPEN).unwrap();
        }
        Self(watch)
    }

    /// Returns the names of those that were opened since the last call; a folder that was read has none.
    fn opened(&self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        let mut names = Vec::new();
        while let Ok(event) = reader.next() {
            names.extend(event.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        names
    }
}

/// All ways of an image to name a file: relative, absolute, by volume, alone and all together.
fn by_each_path(stored: &str) -> [Spec; 4] {
    let stored = Some(stored);
    [[stored, None, None], [None, stored, None], [None, None, stored], [stored; 3]].map(child_by)
}

#[test]
fn search_opens_no_file_outside() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    // The right parent, in all places where it must not be found.
    let secret = write(&root, "outside/base.vhdx", &base());
    write(&root, "base.vhdx", &base());
    write(&root, "vm-outside/base.vhdx", &base());
    write(&root, "vm/sub/nothing", &Spec { data_write_guid: uuid::Uuid::from_u128(9), ..base() });
    symlink("../outside", root.join("vm/link")).unwrap();
    symlink(root.join("outside"), root.join("vm/absolute")).unwrap();
    symlink("/", root.join("vm/root")).unwrap();
    symlink("../outside/base.vhdx", root.join("vm/file")).unwrap();
    let path = write(&root, "vm/child.avhdx", &child_at("base.vhdx"));

    let absolute = secret.to_str().unwrap();
    let below_root = absolute.trim_start_matches('/');
    let stored = [
        "..\\outside\\base.vhdx".to_owned(),
        "../outside/base.vhdx".to_owned(),
        "..\\base.vhdx".to_owned(),
        "..\\vm-outside\\base.vhdx".to_owned(),
        "sub\\..\\..\\outside\\base.vhdx".to_owned(),
        ".\\..\\.\\outside\\base.vhdx".to_owned(),
        "link\\base.vhdx".to_owned(),
        "sub\\..\\link\\base.vhdx".to_owned(),
        "absolute\\base.vhdx".to_owned(),
        "link\\..\\outside\\base.vhdx".to_owned(),
        format!("root\\{below_root}"),
        "file".to_owned(),
        "FILE".to_owned(),
        absolute.to_owned(),
        absolute.replace('/', "\\"),
        format!("{}{below_root}", "..\\".repeat(60)),
        format!("\\\\?\\{absolute}"),
        format!("\\\\.\\{absolute}"),
        format!("\\\\localhost\\{below_root}"),
        format!("\\\\?\\UNC\\localhost\\{below_root}"),
        format!("file://{absolute}"),
        format!("C:{absolute}"),
        format!("\\\\?\\GLOBALROOT{absolute}"),
        "/proc/self/cwd/base.vhdx".to_owned(),
        "\\proc\\self\\root\\base.vhdx".to_owned(),
    ];
    let outside = ["outside", "", "vm-outside"].map(|name| root.join(name));
    let watch = Watch::new(&outside.each_ref().map(|path| &**path));
    for stored in &stored {
        for spec in by_each_path(stored) {
            write(&root, "vm/child.avhdx", &spec);
            for parents in [Parents::Beside, Parents::Within(vec![root.join("vm")]), Parents::None] {
                let chain = chain(&path, parents);
                assert!(chain.layers().len() == 1 && chain.needs_parent(), "{stored}");
                // The folder of the image is in a watched one.
                let opened: Vec<_> = watch.opened().into_iter().filter(|name| name != "vm").collect();
                assert!(opened.is_empty(), "{stored} opened {opened:?}");
            }
        }
    }
    // An allowed access is detected.
    assert_eq!(found(&path, Parents::Explicit(vec![secret])).1, FoundBy::Given);
    assert!(watch.opened().contains(&"base.vhdx".to_owned()));
}

#[test]
fn search_opens_only_regular_files() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    let path = write(&root, "child.avhdx", &child_at(".\\base.vhdx"));
    let place = root.join("base.vhdx");
    let watch = Watch::new(&[&root]);
    let node = |kind, device| mknodat(CWD, &place, kind, Mode::from_raw_mode(0o600), device);
    let make: [(&str, &dyn Fn() -> bool); 4] = [
        ("a pipe", &|| node(FileType::Fifo, 0).is_ok()),
        ("a socket", &|| UnixListener::bind(&place).is_ok()),
        ("a character device", &|| node(FileType::CharacterDevice, makedev(1, 5)).is_ok()),
        ("a special file", &|| node(FileType::BlockDevice, makedev(7, 200)).is_ok()),
    ];
    for (what, make) in make {
        if !make() {
            skip("mount", &format!("{what} can't be made here"));
            continue;
        }
        for parents in [Parents::Beside, Parents::Within(vec![root.clone()])] {
            watch.opened();
            let chain = chain(&path, parents);
            let opened: Vec<_> = watch.opened().into_iter().filter(|name| name == "base.vhdx").collect();
            assert!(opened.is_empty(), "{what} is opened");
            let error = Chain::broken(&chain).unwrap();
            assert!(outcomes(error).iter().any(|(_, outcome)| *outcome == "not a file"), "{what}: {error}");
        }
        std::fs::remove_file(&place).unwrap();
    }
    // A file is.
    write(&root, "base.vhdx", &base());
    watch.opened();
    found(&path, Parents::Beside);
    assert!(watch.opened().contains(&"base.vhdx".to_owned()));
}

#[test]
fn search_opens_no_devices() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    let watch = Watch::new(&[Path::new("/dev")]);
    let names = ["zero", "null", "full", "tty", "stdin", "fd\\0", "kmsg"];
    let stored = names.iter().flat_map(|name| {
        ["\\dev\\", "/dev/", "\\\\.\\dev\\", "..\\..\\..\\..\\..\\..\\..\\..\\dev\\", "\\\\?\\dev\\", "dev\\"]
            .map(|folder| format!("{folder}{name}"))
    });
    for stored in stored.chain(["NUL", "CON", "\\\\.\\PhysicalDrive0", "\\\\.\\C:", "COM1:"].map(str::to_owned)) {
        for spec in by_each_path(&stored) {
            let path = write(&root, "child.avhdx", &spec);
            for parents in [Parents::Beside, Parents::Within(vec![root.clone()])] {
                let error = refused(&path, parents);
                assert!(matches!(error.kind(), ErrorKind::ParentNotFound { .. }), "{stored}: {error}");
            }
        }
        // Other tests run at the same time, and use /dev/null: none of them opens these paths.
        let opened = watch.opened();
        assert!(!opened.iter().any(|name| ["full", "kmsg", "zero"].contains(&&**name)), "{stored}: {opened:?}");
    }
    std::fs::File::open("/dev/full").unwrap();
    assert!(watch.opened().contains(&"full".to_owned()));
}

#[test]
fn search_does_not_use_the_network() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let address = server.local_addr().unwrap();
    let port = address.port();
    let path = root.join("child.avhdx");
    for stored in [
        format!("http://{address}/base.vhdx"),
        format!("//{address}/share/base.vhdx"),
        format!("\\\\127.0.0.1@{port}\\share\\base.vhdx"),
        format!("\\\\?\\UNC\\127.0.0.1@{port}\\share\\base.vhdx"),
        format!("nbd://{address}/base.vhdx"),
        format!("/dev/tcp/127.0.0.1/{port}/base.vhdx"),
    ] {
        for spec in by_each_path(&stored) {
            write(&root, "child.avhdx", &spec);
            for parents in [Parents::Beside, Parents::Within(vec![root.clone()])] {
                let error = refused(&path, parents);
                assert!(matches!(error.kind(), ErrorKind::ParentNotFound { .. }), "{stored}: {error}");
            }
            let knock = server.accept().map_err(|error| error.kind());
            assert_eq!(knock.unwrap_err(), std::io::ErrorKind::WouldBlock, "{stored}");
        }
    }
    // The last part of such a name is a file name like any other.
    let beside = write(&root, "base.vhdx", &base());
    assert_eq!(found(&path, Parents::Beside), (beside, FoundBy::FileName));
    // And a connection would have been detected.
    let client = std::net::TcpStream::connect(address).unwrap();
    server.set_nonblocking(false).unwrap();
    assert_eq!(server.accept().unwrap().1, client.local_addr().unwrap());
}

// `tests/bounded` counts the cost of such names.
#[test]
fn long_and_similar_names_terminate() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    for stored in ["a\\".repeat(16_000), "x".repeat(32_000), "..\\a\\".repeat(6000), "a\\..\\".repeat(6000)] {
        for spec in by_each_path(&(stored + "base.vhdx")) {
            let path = write(&root, "child.avhdx", &spec);
            for parents in [Parents::Beside, Parents::Within(vec![root.clone()])] {
                refused(&path, parents);
            }
        }
    }
    // Two thousand files whose names differ in upper and lower case only, none of them the parent.
    for number in 0_u32..2048 {
        let letters = "abcdefghijk".chars().enumerate();
        let name: String = letters
            .map(|(bit, letter)| if number >> bit & 1 == 1 { letter.to_ascii_uppercase() } else { letter })
            .collect();
        std::fs::write(root.join(format!("{name}x")), b"").unwrap();
    }
    let path = write(&root, "child.avhdx", &child_at("ABCDEFGHIJKX"));
    let error = refused(&path, Parents::Beside);
    assert!(outcomes(&error).len() <= 129, "{} places were tried", outcomes(&error).len());
}
