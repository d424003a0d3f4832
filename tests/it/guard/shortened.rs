//! Files that become shorter in the middle of a page: the system fills the rest of the page with zeros and sends no
//! signal. Every reader has to check the length of the file afterwards.

use std::io::{BufRead, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;

use vhdx_mmap::ops::{self, CheckOptions};
use vhdx_mmap::{
    Chain, Disk, Error, ErrorKind, Input, OpenOptions, Parents, ScanOptions, Severity, Source, Strictness,
};

use super::{WAYS, Way, cut, map, of_io, of_scan};
use crate::kit::builder::{Image, Spec};
use crate::kit::{Block, MIB, Model};
use crate::support::temp_dir;

/// A disk of 16 blocks, all of them data, whose BAT is at the end of the file.
fn table_last() -> Spec {
    let mut spec = (0..16).fold(Spec::empty(16 * MIB), |spec, number| spec.block(number, Block::full()));
    spec.bat_offset = 32 * MIB;
    spec
}

fn write(image: &Image, path: &Path) {
    image.bytes.write_file(path).unwrap();
}

/// Opens an image and maps its parents, too.
fn open_chain(path: &Path) -> Disk {
    Disk::open(map(path), &OpenOptions::new().parents(Parents::Beside)).unwrap()
}

#[track_caller]
fn assert_lost<T: std::fmt::Debug>(what: &str, found: Result<T, Error>) {
    let error = found.expect_err(what);
    assert!(matches!(error.kind(), ErrorKind::Lost), "{what}: {error}");
}

/// Further ways, which read the tables and little else.
const TABLES: [(&str, Way); 9] = [
    ("extents", |disk| disk.extents(..).try_for_each(|extent| extent.map(drop))),
    ("block_states", |disk| disk.image().block_states().map(drop)),
    ("payload_block", |disk| disk.image().payload_block(13).map(drop)),
    ("block", |disk| disk.block(13).map(drop)),
    ("measure", |disk| ops::measure(disk, 0..disk.size()).map(drop)),
    ("losses", |disk| disk.losses(..).next().map_or(Ok(()), |loss| Err(loss.reason))),
    ("shared_blocks", |disk| ops::shared_blocks(disk).into_iter().next().map_or(Ok(()), Err)),
    ("contents", |disk| ops::detect(disk).map(drop)),
    ("first_difference", |disk| {
        let zeros = Source::from_vec(Vec::new());
        ops::first_difference(disk.into(), Input::raw(&zeros), &ScanOptions::new()).map(drop).map_err(of_scan)
    }),
];

#[test]
fn table_truncated_mid_page_is_an_error_of_every_operation() {
    let folder = temp_dir();
    let image = table_last().build();
    for (name, way) in WAYS.into_iter().chain(TABLES) {
        let path = folder.path().join("disk.vhdx");
        write(&image, &path);
        let disk = Disk::open(map(&path), &OpenOptions::new()).unwrap();
        way(&disk).unwrap_or_else(|error| assert!(name == "losses" && disk.losses(..).count() == 0, "{name}: {error}"));
        cut(&path, image.block_entry_at(9));
        assert_lost(name, way(&disk));
        std::fs::remove_file(&path).unwrap();
    }
}

/// If entries of the table are lost, a child would read its parent's blocks.
#[test]
fn child_table_truncated_mid_page_gives_no_stale_blocks() {
    let base = (0..16).fold(Spec::empty(16 * MIB), |spec, number| spec.block(number, Block::full()));
    let mut child = (0..16).fold(Spec::child_of(&base, "base.vhdx"), |spec, number| spec.block(number, Block::full()));
    child.bat_offset = 32 * MIB;
    let (child, base) = (child.build(), base.build());
    let further: [(&str, Way); 3] = [
        ("allocated_changes", |disk| ops::allocated_changes(disk, 1, |_| ControlFlow::Continue(())).map_err(of_scan)),
        ("allocated_changes, until the first", |disk| {
            ops::allocated_changes(disk, 1, |_| ControlFlow::Break(())).map_err(of_scan)
        }),
        ("content_changes", |disk| {
            let options = ScanOptions::new();
            ops::content_changes(disk, 1, &options, |_| ControlFlow::Continue(())).map_err(of_scan)
        }),
    ];
    for (name, way) in WAYS.into_iter().chain(TABLES).chain(further) {
        let folder = temp_dir();
        let path = folder.path().join("child.avhdx");
        write(&base, &folder.path().join("base.vhdx"));
        write(&child, &path);
        let disk = open_chain(&path);
        cut(&path, child.block_entry_at(9));
        assert_lost(name, way(&disk));
    }
}

/// Bytes before the end of the file still exist, and are correct.
#[test]
fn content_truncated_mid_page_keeps_prefix() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    let image = (0..4).fold(Spec::empty(4 * MIB), |spec, number| spec.block(number, Block::full())).build();
    let content = Model::read(&[&image.model], 0, 4 << 20).unwrap();
    write(&image, &path);
    let disk = Disk::open(map(&path), &OpenOptions::new()).unwrap();
    // Accessed before it is truncated, so that the page stays mapped and no signal comes.
    assert_eq!(disk.slice(3 * MIB, 4096).unwrap(), Some(&content[3 << 20..(3 << 20) + 4096]));
    cut(&path, image.block_at(3) + 1000);

    for (length, from) in [(512, 3 * MIB + 512), (4096, 3 * MIB), (64 << 10, 3 * MIB), (2 << 20, 2 * MIB)] {
        let mut buffer = vec![0; length];
        assert_lost("read_at", disk.read_at(&mut buffer, from));
    }
    let mut buffer = vec![0; 1 << 20];
    for block in 0..3_u64 {
        assert_eq!(disk.read_at(&mut buffer, block * MIB).unwrap(), 1 << 20);
        assert!(Some(&buffer[..]) == content.chunks(1 << 20).nth(usize::try_from(block).unwrap()));
    }
    let mut small = [0; 500];
    assert_eq!(disk.read_at(&mut small, 3 * MIB).unwrap(), 500);
    assert!(small == content[3 << 20..(3 << 20) + 500]);
    disk.check_lost(..3 * MIB).unwrap();
    assert_lost("check_lost", disk.check_lost(3 * MIB..));
    assert_lost("segments", disk.segments(..).try_for_each(|segment| segment.map(drop)));
    disk.segments(..3 * MIB).try_for_each(|segment| segment.map(drop)).unwrap();
    assert_lost("check_lost of the source", disk.image().source().check_lost());
}

/// The borrowed buffer of a reader is checked when the next one is requested, also at the end of the disk.
#[test]
fn lost_reader_buffer_is_an_error_of_next_call() {
    for consumed in [4096, 1 << 20] {
        let folder = temp_dir();
        let path = folder.path().join("disk.vhdx");
        let image = (0..4).fold(Spec::empty(4 * MIB), |spec, number| spec.block(number, Block::full())).build();
        write(&image, &path);
        let disk = Disk::open(map(&path), &OpenOptions::new()).unwrap();
        let mut reader = disk.reader();
        reader.seek(SeekFrom::Start(3 * MIB)).unwrap();
        assert_eq!(reader.fill_buf().unwrap().len(), 1 << 20);
        cut(&path, image.block_at(3) + 1000);
        reader.consume(consumed);
        assert_lost("fill_buf", reader.fill_buf().map(<[u8]>::len).map_err(of_io));
    }
}

/// A salvage, and a check, which salvages, have a mode and a list of losses. No other handle to the file has them.
#[test]
fn salvage_affects_no_other_disk_of_source() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    let image = (0..4).fold(Spec::empty(4 * MIB), |spec, number| spec.block(number, Block::full())).build();
    write(&image, &path);
    let source = map(&path);
    let strict = Disk::open(source.clone(), &OpenOptions::new()).unwrap();
    let salvage = OpenOptions::new().strictness(Strictness::Salvage);
    let salvaged = Disk::open(source.clone(), &salvage).unwrap();
    let other = Chain::open(source.clone(), &salvage).unwrap();
    cut(&path, image.block_at(2));

    let report = ops::check(source, &CheckOptions::new(OpenOptions::new()).payload(true)).unwrap();
    assert!(report.count(Severity::Corruption) > 0);
    let mut all = vec![0; 4 << 20];
    assert_lost("a strict disk", strict.read_at(&mut all, 0));
    assert_lost(
        "a digest",
        ops::hash((&strict).into(), &[ops::Algorithm::Sha256], &ScanOptions::new()).map_err(of_scan),
    );
    assert!(!strict.is_salvaged() && salvaged.is_salvaged());
    let found = Disk::from_chain(&other).unwrap();
    assert_eq!(found.losses(..).filter(|loss| matches!(loss.reason.kind(), ErrorKind::MediumFailed)).count(), 0);
}
