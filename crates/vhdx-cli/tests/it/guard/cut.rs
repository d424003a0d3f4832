//! The command, with an image that is truncated at a random moment while it runs: its output is right, or it reports
//! the error and ends with 74. No signal ends it.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use vhdx_testkit::dense::{FIRST_BLOCK, content, cut};

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB, optional};
use crate::lab::Rng;
use crate::support::{Ran, run, temp_dir, vhdx, wait};
use crate::traced::Traced;

/// Words of an argument list, some of which are paths.
macro_rules! args {
    ($($arg:expr),* $(,)?) => {
        vec![$(OsString::from($arg)),*]
    };
}

/// Blocks of the file, and how many times the disk has each of them.
const BLOCKS: u64 = 8;
const TIMES: u64 = 32;

/// An image whose disk is much longer than its file: long work on a file that is quick to make.
fn long_work(folder: &Path) -> PathBuf {
    let disk = BLOCKS * TIMES;
    let mut spec = (0..BLOCKS).fold(Spec::empty(disk * MIB), |spec, number| spec.block(number, Block::full()));
    for number in BLOCKS..disk {
        spec.raw_bat.insert(number, (FIRST_BLOCK + number % BLOCKS * MIB) | 6);
    }
    let path = folder.join("disk.vhdx");
    spec.build().bytes.write_file(&path).unwrap();
    path
}

fn start(args: &[OsString]) -> Child {
    vhdx(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs the program until it maps the file: it knows length and times of the file by then. Returns false if it ends
/// before.
pub(super) fn run_to_mapping(program: &mut Traced, path: &Path) -> bool {
    program.run_until(|call| call.is_any(&[libc::SYS_mmap]) && call.file(4).as_deref() == Some(path))
}

/// Starts a program and holds it at its first system call.
fn start_traced(args: &[OsString]) -> Option<Traced> {
    Traced::start(vhdx(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// The result without a disturbance, and the number of system calls after the file was mapped.
fn run_undisturbed(args: &[OsString], path: &Path) -> Option<(Ran, u64)> {
    let mut program = start_traced(args)?;
    let mut count = 0;
    if run_to_mapping(&mut program, path) {
        program.run_until(|_| {
            count += 1;
            false
        });
    }
    Some((Ran::from(program.finish()).done(), count))
}

/// The output without the space that a file occupies, which the system decides later.
fn without_size(ran: &Ran) -> Vec<u8> {
    let lines = ran.out.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !line.starts_with(b"disk size")).flatten().copied().collect()
}

#[track_caller]
fn assert_reported(ran: &Ran) {
    assert_eq!(ran.status.code(), Some(74), "{}: {}", ran.status, ran.err);
    let is_reported =
        ["cannot be read any more", "changed while it was read"].iter().any(|text| ran.err.contains(text));
    assert!(is_reported && ran.err.contains("disk.vhdx"), "{}", ran.err);
}

/// Runs a command many times, and truncates its image at a random system call each time. `is_right` checks the result
/// of a success.
fn cut_at_random_moments(
    rng: &mut Rng,
    rounds: usize,
    args: impl Fn(&Path) -> Vec<OsString>,
    is_right: impl Fn(&Path, &Ran) -> bool,
) {
    let folder = temp_dir();
    let path = long_work(folder.path());
    let args = args(folder.path());
    let Some((expected, calls)) = run_undisturbed(&args, &path) else { return };
    assert!(calls > 0 && is_right(folder.path(), &expected));
    drop(std::fs::remove_file(folder.path().join("out")));
    for _ in 0..optional::rounds(rounds).max(2) {
        let path = long_work(path.parent().unwrap());
        let Some(mut program) = start_traced(&args) else { return };
        // Threads divide the work differently each time, so there may be fewer calls than before.
        let mut left = rng.below(calls);
        if run_to_mapping(&mut program, &path) {
            program.run_until(|_| {
                left = left.saturating_sub(1);
                left == 0
            });
        }
        // Anywhere, also in the middle of a page.
        cut(&path, rng.below(FIRST_BLOCK + BLOCKS * MIB));
        let ran = Ran::from(program.finish());
        if ran.status.success() {
            assert!(
                without_size(&ran) == without_size(&expected) && is_right(folder.path(), &ran),
                "{args:?}: wrong, without an error"
            );
        } else {
            assert_reported(&ran);
            assert!(!folder.path().join("out").exists(), "{args:?}");
        }
        drop(std::fs::remove_file(folder.path().join("out")));
    }
}

#[test]
fn truncated_during_hash() {
    let mut rng = Rng::new(11);
    for algorithm in ["crc32", "sha256", "crc32,blake3,md5"] {
        let args = |folder: &Path| args!["hash", "--quiet", "-a", algorithm, folder.join("disk.vhdx")];
        cut_at_random_moments(&mut rng, 10, args, |_, _| true);
    }
    let args = |folder: &Path| args!["hash", "--file", "-a", "crc32", folder.join("disk.vhdx")];
    cut_at_random_moments(&mut rng, 6, args, |_, _| true);
    let args = |folder: &Path| {
        args!["hash", "--force", "-a", "crc32", "--manifest", folder.join("out"), folder.join("disk.vhdx")]
    };
    cut_at_random_moments(&mut rng, 8, args, |_, _| true);
}

#[test]
fn truncated_during_map_and_info() {
    let mut rng = Rng::new(12);
    for words in [args!["map"], args!["map", "--output", "json"], args!["info"], args!["chain"], args!["log"]] {
        let args = |folder: &Path| [words.clone(), args![folder.join("disk.vhdx")]].concat();
        cut_at_random_moments(&mut rng, 6, args, |_, _| true);
    }
}

#[test]
fn truncated_during_extract_to_a_file() {
    let mut rng = Rng::new(13);
    let one = content(BLOCKS);
    for options in [args![], args!["--hash", "sha256"], args!["--sparse", "blocks", "--verify"]] {
        let args = |folder: &Path| {
            [args!["extract", "--quiet", "--force", folder.join("disk.vhdx"), folder.join("out")], options.clone()]
                .concat()
        };
        cut_at_random_moments(&mut rng, 6, args, |folder, _| {
            let out = std::fs::read(folder.join("out")).unwrap();
            out.len() == one.len() * 32 && out.chunks(one.len()).all(|chunk| chunk == one)
        });
    }
}

#[test]
fn truncated_during_compare_and_verify() {
    let mut rng = Rng::new(14);
    let other = temp_dir();
    let path = long_work(other.path());
    let manifest = other.path().join("manifest");
    run(&mut vhdx(args!["hash", "-a", "crc32", "--manifest", &manifest, &path])).done();
    for words in [args!["compare", "--quiet", &path], args!["compare", "--all", &path]] {
        let args = |folder: &Path| [words.clone(), args![folder.join("disk.vhdx")]].concat();
        cut_at_random_moments(&mut rng, 8, args, |_, _| true);
    }
    let args = |folder: &Path| args!["verify", folder.join("disk.vhdx"), "--manifest", &manifest];
    cut_at_random_moments(&mut rng, 8, args, |_, _| true);
}

/// Ends a run and truncates its image when a part of its output has arrived.
fn cut_under_a_pipe(rng: &mut Rng, words: &[OsString], length: u64) -> Ran {
    let folder = temp_dir();
    let path = long_work(folder.path());
    let args: Vec<OsString> =
        words.iter().map(|word| if word == "IMAGE" { path.clone().into_os_string() } else { word.clone() }).collect();
    let mut child = start(&args);
    // More is left than pipes hold.
    let mut some = vec![0; usize::try_from(rng.below(length - 8 * MIB)).unwrap()];
    child.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    cut(&path, rng.below(FIRST_BLOCK + BLOCKS * MIB));
    wait(child)
}

#[test]
fn truncated_during_extract_and_read_to_a_pipe() {
    let mut rng = Rng::new(15);
    for words in [
        args!["extract", "--quiet", "IMAGE", "-"],
        args!["extract", "--quiet", "--hash", "crc32", "IMAGE", "-"],
        args!["read", "--range", "0:", "IMAGE"],
    ] {
        for _ in 0..6 {
            assert_reported(&cut_under_a_pipe(&mut rng, &words, BLOCKS * TIMES * MIB));
        }
    }
    let words = args!["read", "--hex", "--range", "0:", "IMAGE"];
    for _ in 0..6 {
        assert_reported(&cut_under_a_pipe(&mut rng, &words, 100 * MIB));
    }
}
