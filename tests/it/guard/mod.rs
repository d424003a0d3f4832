//! Files that become shorter, or whose medium fails, while they are mapped: an error, never the end of the process, and
//! never zeros. The faults are real ones.
#![cfg(all(feature = "ops", feature = "mmap", feature = "rayon", target_os = "linux"))]

mod changed;
mod each_door;
mod fuse;
mod many;
mod process;
mod race;
mod shortened;
mod table;
mod torn;

use std::io::{BufRead, Read};
use std::ops::ControlFlow;
use std::path::Path;

use rayon::iter::ParallelIterator;
use vhdx_mmap::ops::{self, Algorithm, ExtractOptions, TargetContent, manifest};
use vhdx_mmap::{
    Category, Disk, Error, ErrorKind, Input, OpenOptions, ScanError, ScanOptions, Segment, Source, guard_mappings,
};

use vhdx_testkit::dense::{BLOCKS_OF_WORK, FIRST_BLOCK, content, cut, dense};

/// Maps a file that is to become shorter, or unreadable.
#[expect(unsafe_code, reason = "the library's one unsafe function")]
fn map(path: &Path) -> Source {
    guard_mappings().unwrap();
    // SAFETY: it is not: these tests break the promise. After that, they read lost pages only to see that zeros are
    // distinguished from bytes.
    unsafe { Source::map(path) }.unwrap()
}

fn open(path: &Path) -> Disk {
    Disk::open(map(path), &OpenOptions::new()).unwrap()
}

/// Sums bytes: an access to each.
fn sum(bytes: &[u8]) -> u64 {
    std::hint::black_box(bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_add(u64::from(*byte))))
}

/// Accesses each byte of a segment.
fn look(segment: Segment<'_>) {
    segment.slices().for_each(|bytes| {
        sum(bytes);
    });
}

/// Asserts that an error is the loss of bytes in the file, and returns the offset of the first.
#[track_caller]
fn lost_at(error: &Error) -> u64 {
    assert_eq!(error.category(), Category::Io, "{error}");
    error.offset().unwrap()
}

/// Asserts that an error is the loss of an accessed page of a mapping, and returns its offset.
#[track_caller]
fn touched_at(error: &Error) -> u64 {
    assert!(matches!(error.kind(), ErrorKind::Lost), "{error}");
    lost_at(error)
}

fn of_scan(error: ScanError) -> Error {
    match error {
        ScanError::Read(error) => error,
        other => unreachable!("{other}"),
    }
}

fn of_io(error: std::io::Error) -> Error {
    *error.into_inner().unwrap().downcast::<Error>().unwrap()
}

fn of_extract(error: ScanError) -> Error {
    match error {
        ScanError::Read(error) => error,
        other => unreachable!("{other}"),
    }
}

/// A way to read a whole disk, which accesses each byte. Returns only whether that worked.
type Way = fn(&Disk) -> Result<(), Error>;

/// All ways of the library to read a disk.
const WAYS: [(&str, Way); 14] = [
    ("segments", |disk| disk.segments(..).try_for_each(|segment| segment.map(look))),
    ("slice", |disk| {
        for at in (0..disk.size()).step_by(4096) {
            if let Some(bytes) = disk.slice(at, 4096)? {
                sum(bytes);
                disk.check_lost(at..at + 4096)?;
            } else {
                disk.read_at(&mut [0; 4096], at)?;
            }
        }
        Ok(())
    }),
    ("small reads", |disk| {
        let mut buffer = [0; 5000];
        (0..disk.size()).step_by(buffer.len()).try_for_each(|at| disk.read_at(&mut buffer, at).map(drop))
    }),
    ("large reads", |disk| {
        let mut buffer = vec![0; 1 << 20];
        (0..disk.size()).step_by(buffer.len()).try_for_each(|at| disk.read_at(&mut buffer, at).map(drop))
    }),
    ("Read", |disk| disk.reader().read_to_end(&mut Vec::new()).map(drop).map_err(of_io)),
    ("BufRead", |disk| {
        let mut reader = disk.reader();
        loop {
            let bytes = reader.fill_buf().map_err(of_io)?;
            if bytes.is_empty() {
                return Ok(());
            }
            sum(bytes);
            let length = bytes.len();
            reader.consume(length);
        }
    }),
    ("par_segments", |disk| disk.par_segments(..).try_for_each(|piece| piece.map(|(_, segment)| look(segment)))),
    ("par_segments, kept", |disk| {
        let kept: Vec<_> = disk.par_segments(..).collect::<Result<_, _>>()?;
        kept.iter().for_each(|(_, segment)| look(*segment));
        disk.check_lost(..)
    }),
    ("Input::scan", |disk| {
        let look =
            |_, segments: &[Segment<'_>]| segments.iter().flat_map(|segment| segment.slices()).map(sum).sum::<u64>();
        Input::disk(disk).scan(&ScanOptions::new(), look, |_, _| ()).map_err(of_scan)
    }),
    ("hash, in any order", |disk| {
        ops::hash(disk.into(), &[Algorithm::Crc32, Algorithm::Blake3], &ScanOptions::new()).map(drop).map_err(of_scan)
    }),
    ("hash, in order", |disk| {
        ops::hash(disk.into(), &[Algorithm::Sha256], &ScanOptions::new()).map(drop).map_err(of_scan)
    }),
    ("compare", |disk| {
        let zeros = Source::from_vec(Vec::new());
        let go_on = |_| ControlFlow::Continue(());
        ops::compare(disk.into(), Input::raw(&zeros), &ScanOptions::new(), go_on).map_err(of_scan)
    }),
    ("extract", |disk| {
        let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let target = ops::Target::new(&file, TargetContent::Zeros);
        ops::extract_to_file(disk.into(), &target, &ExtractOptions::new()).map(drop).map_err(of_extract)
    }),
    ("manifest", |disk| {
        let mut out = Vec::new();
        match manifest::create_manifest(disk, &[Algorithm::Crc32], None, &ScanOptions::new(), &mut out) {
            Ok(_) => Ok(()),
            Err(vhdx_mmap::ScanError::Read(error)) => Err(error),
            Err(other) => unreachable!("{other}"),
        }
    }),
];
