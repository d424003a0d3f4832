//! Names, attributes, content and holes.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};
use vhdx_testkit::builder::{Image, Spec};
use vhdx_testkit::lab::{Expected, Rng, oracle};
use vhdx_testkit::log::Dirty;
use vhdx_testkit::oracle::{LogPolicy, Oracle, Origin};
use vhdx_testkit::support::temp_dir;
use vhdx_testkit::{Block, MIB};

use super::{INFO, Mounted};

/// A child with a dirty log and partial blocks, and its parent.
struct Chain {
    folder: tempfile::TempDir,
    path: PathBuf,
    images: [Image; 2],
}

impl Chain {
    fn new() -> Self {
        let folder = temp_dir();
        let parent = Spec::empty(12 * MIB).block(0, Block::full()).block(2, Block::full()).block(6, Block::full());
        let parent = parent.block(7, Block::full()).block(8, Block::full());
        let child = Spec::child_of(&parent, "parent.vhdx").block(0, Block::partial(&[3..9, 100..2000]));
        let child = child.block(1, Block::full()).block(6, Block::zero()).block(10, Block::full());
        let images = [Dirty::ManyEntries.build(&child), parent.build()];
        let path = folder.path().join("child.avhdx");
        images[0].bytes.write_file(&path).unwrap();
        images[1].bytes.write_file(&folder.path().join("parent.vhdx")).unwrap();
        Self { folder, path, images }
    }

    /// The images from a layer on, child first.
    fn from(&self, layer: usize) -> Vec<&Image> {
        self.images[layer..].iter().collect()
    }
}

const WAYS: [&str; 4] = ["", "direct", "opened", "alone"];

#[test]
fn tree_has_the_files_of_the_disk() {
    let chain = Chain::new();
    let Some(mounted) = Mounted::new(&[&chain.path], "") else { return };
    let names = |name: &str| {
        let entries = std::fs::read_dir(mounted.path(name)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["disk.raw", "info.json", "layers"]);
    assert_eq!(names("layers"), ["0.raw", "1.raw"]);
    let time = |path: &Path| path.metadata().unwrap().modified().unwrap();
    let files = time(&chain.path).max(time(&chain.folder.path().join("parent.vhdx")));
    for (name, size) in [("disk.raw", 12 * MIB), ("layers/0.raw", 12 * MIB), ("layers/1.raw", 12 * MIB)] {
        let found = mounted.path(name).metadata().unwrap();
        assert!(found.is_file());
        assert_eq!((found.len(), found.permissions().mode() & 0o7777), (size, 0o444));
        assert_eq!(found.uid(), rustix::process::getuid().as_raw());
        assert_eq!(found.gid(), rustix::process::getgid().as_raw());
    }
    assert_eq!(time(&mounted.path("disk.raw")), files);
    for (name, links) in [("", 3), ("layers", 2)] {
        let found = mounted.path(name).metadata().unwrap();
        assert_eq!((found.permissions().mode() & 0o7777, found.nlink()), (0o555, links));
    }
    assert_eq!(std::fs::read(mounted.path("info.json")).unwrap(), INFO);
    let missing = File::open(mounted.path("part1.raw")).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc_errno::NOENT));
    for path in [mounted.path("disk.raw"), mounted.path("new")] {
        let refused = File::options().write(true).create(true).truncate(false).open(path).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc_errno::ROFS));
    }
    let space = rustix::fs::statvfs(&mounted.directory).unwrap();
    assert_eq!((space.f_bsize, space.f_bfree), (4096, 0));
    assert!(space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY | rustix::fs::StatVfsMountFlags::NOSUID));
    assert_eq!(mounted.end(), [""; 0]);
}

mod libc_errno {
    pub(super) const NOENT: i32 = 2;
    pub(super) const ROFS: i32 = 30;
    pub(super) const NXIO: i32 = 6;
}

#[test]
fn content_is_that_of_the_chain() {
    for way in WAYS {
        let chain = Chain::new();
        let Some(mounted) = Mounted::new(&[&chain.path], way) else { return };
        for (name, layer) in [("disk.raw", 0), ("layers/0.raw", 0), ("layers/1.raw", 1)] {
            let expected = Expected::of(&chain.from(layer)).read(0..12 * MIB);
            let file = mounted.open(name);
            let mut rng = Rng::new(5);
            for _ in 0..200 {
                let start = rng.below(12 * MIB + 5000);
                let length = [1, 511, 4096, 70_000, 3 << 20][rng.below(5) as usize];
                let mut piece = vec![0xA5; length];
                let read = file.read_at(&mut piece, start).unwrap();
                let place = (start as usize).min(expected.len());
                let end = (place + length).min(expected.len());
                // A direct read may be answered in part.
                assert!(read == end - place || way == "direct" && read > 0, "{way}: {start} {length}: {read}");
                assert!(piece[..read] == expected[place..place + read], "{way}: {name} at {start}");
            }
            let mut all = Vec::new();
            mounted.open(name).read_to_end(&mut all).unwrap();
            assert!(all == expected, "{way}: {name}");
        }
        assert_eq!(mounted.end(), [""; 0]);
    }
}

#[test]
fn thirty_two_readers() {
    let chain = Chain::new();
    let expected = Expected::of(&chain.from(0)).read(0..12 * MIB);
    for way in WAYS {
        let Some(mounted) = Mounted::new(&[&chain.path], way) else { return };
        std::thread::scope(|scope| {
            for reader in 0..32 {
                let (mounted, expected) = (&mounted, &expected);
                scope.spawn(move || {
                    let file = mounted.open("disk.raw");
                    let mut rng = Rng::new(reader);
                    for _ in 0..40 {
                        let start = rng.below(11 * MIB);
                        let mut piece = vec![0; 1 + rng.below(MIB) as usize];
                        file.read_exact_at(&mut piece, start).unwrap();
                        assert!(piece == expected[start as usize..][..piece.len()], "{reader} at {start}");
                    }
                });
            }
        });
        assert_eq!(mounted.end(), [""; 0]);
    }
}

/// Ranges of a file that are data, as lseek(2) says.
fn data_of(file: &File) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(at)) {
            Err(error) => {
                assert_eq!(error.raw_os_error(), libc_errno::NXIO);
                return found;
            }
            Ok(start) => start,
        };
        at = seek(file, SeekFrom::Hole(start)).unwrap();
        assert!(start < at);
        // From within, too.
        assert_eq!(seek(file, SeekFrom::Hole(at - 1)).unwrap(), at);
        assert_eq!(seek(file, SeekFrom::Data(at - 1)).unwrap(), at - 1);
        found.push((start, at));
    }
}

/// Ranges of sectors that are data by the oracle: what a file or its log has. Zeros that a log has may be a hole.
fn expected_data(oracle: &Oracle<'_>) -> Vec<(u64, u64)> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    for sector in 0..oracle.size() / 512 {
        let Origin::File { layer, offset } = oracle.locate(sector).unwrap() else { continue };
        if oracle.file_bytes(layer, offset, 512) == [0; 512] {
            continue;
        }
        match found.last_mut() {
            Some((_, end)) if *end == sector * 512 => *end += 512,
            _ => found.push((sector * 512, sector * 512 + 512)),
        }
    }
    found
}

#[test]
fn holes_and_allocated_sizes_are_those_of_the_oracle() {
    let chain = Chain::new();
    let Some(mounted) = Mounted::new(&[&chain.path], "") else { return };
    for (name, layer) in [("disk.raw", 0), ("layers/1.raw", 1)] {
        let expected = expected_data(&oracle(&chain.from(layer), LogPolicy::Replay));
        assert!(expected.len() > 1, "{expected:?}");
        assert_eq!(data_of(&mounted.open(name)), expected, "{name}");
        let bytes: u64 = expected.iter().map(|(start, end)| end - start).sum();
        assert_eq!(mounted.path(name).metadata().unwrap().blocks(), bytes / 512, "{name}");
    }
    let file = mounted.open("disk.raw");
    for past in [12 * MIB, 13 * MIB] {
        for seeks in [SeekFrom::Data(past), SeekFrom::Hole(past)] {
            assert_eq!(seek(&file, seeks).unwrap_err().raw_os_error(), libc_errno::NXIO);
        }
    }
    let info = mounted.open("info.json");
    assert_eq!(data_of(&info), [(0, INFO.len() as u64)]);
}

#[test]
fn huge_disk_has_its_size_and_few_blocks() {
    let folder = temp_dir();
    let mut spec = Spec::empty(64 << 40).block(1 << 17, Block::full());
    spec.block_size = 256 << 20;
    let image = spec.build();
    let path = folder.path().join("huge.vhdx");
    image.bytes.write_file(&path).unwrap();
    let Some(mounted) = Mounted::new(&[&path], "") else { return };
    let found = mounted.path("disk.raw").metadata().unwrap();
    assert_eq!((found.len(), found.blocks()), (64 << 40, (256 << 20) / 512));
    assert_eq!(data_of(&mounted.open("disk.raw")), [(32 << 40, (32 << 40) + (256 << 20))]);
    let mut end = [1; 4096];
    mounted.open("disk.raw").read_exact_at(&mut end, (64 << 40) - 4096).unwrap();
    assert_eq!(end, [0; 4096]);
}

#[test]
fn each_image_has_a_directory() {
    let folder = temp_dir();
    let paths = ["a", "b"].map(|name| folder.path().join(name).with_extension("vhdx"));
    let images = [0, 1].map(|block| Spec::empty(2 * MIB).block(block, Block::full()).build());
    for (image, path) in images.iter().zip(&paths) {
        image.bytes.write_file(path).unwrap();
    }
    let Some(mounted) = Mounted::new(&[&paths[0], &paths[1]], "") else { return };
    for (image, name) in images.iter().zip(["a", "b"]) {
        let content = std::fs::read(mounted.path(&format!("{name}/disk.raw"))).unwrap();
        assert!(content == Expected::of(&[image]).read(0..2 * MIB));
    }
    assert_eq!(mounted.directory.metadata().unwrap().nlink(), 4);
}

#[test]
fn unmount_under_load_ends_the_server() {
    let chain = Chain::new();
    let expected = Expected::of(&chain.from(0)).read(0..12 * MIB);
    for way in ["direct", "direct alone"] {
        let Some(mut mounted) = Mounted::new(&[&chain.path], way) else { return };
        let (file, stdin) = (mounted.open("disk.raw"), mounted.server.stdin.take());
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..8)
                .map(|reader| {
                    let (file, expected) = (&file, &expected);
                    scope.spawn(move || {
                        let mut rng = Rng::new(reader);
                        let mut piece = vec![0; 1 << 20];
                        // All that is read is right, until nothing can be read.
                        loop {
                            let start = rng.below(11 * MIB);
                            match file.read_at(&mut piece, start) {
                                Ok(read) => assert!(piece[..read] == expected[start as usize..][..read]),
                                Err(error) => return error,
                            }
                        }
                    })
                })
                .collect();
            drop(stdin);
            for reader in readers {
                let error = reader.join().unwrap();
                // The kernel says that the connection is no more.
                assert!(matches!(error.raw_os_error(), Some(103 | 107 | 5)), "{error}");
            }
        });
        drop(file);
        assert_eq!(mounted.end(), [""; 0]);
    }
}
