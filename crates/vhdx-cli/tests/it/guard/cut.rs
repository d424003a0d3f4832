//! The command, with an image that becomes shorter at a random moment while it runs: what it gives is right, or it says
//! so and ends with 74. No signal ends it.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use vhdx_testkit::dense::{FIRST_BLOCK, content, cut};

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB};
use crate::lab::Rng;
use crate::support::{Ran, run, temp_dir, vhdx, wait};
use crate::traced::Traced;

/// Words of an argument list, some of which are paths.
macro_rules! args {
    ($($arg:expr),* $(,)?) => {
        vec![$(OsString::from($arg)),*]
    };
}

/// Blocks of the file, and how often the disk has each of them.
const BLOCKS: u64 = 8;
const TIMES: u64 = 32;

/// An image whose disk is much longer than its file: work of some length on a file that is quickly made.
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

/// Goes on to where the program maps the file: it has looked at its length and times by then. False if it ends before.
pub(super) fn run_to_mapping(program: &mut Traced, path: &Path) -> bool {
    program.run_until(|call| call.is_any(&[libc::SYS_mmap]) && call.file(4).as_deref() == Some(path))
}

/// Starts a program that is held at its first system call.
fn start_traced(args: &[OsString]) -> Option<Traced> {
    Traced::start(vhdx(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// What a run gives if nothing happens, and how many system calls it makes once it maps the file.
fn undisturbed(args: &[OsString], path: &Path) -> Option<(Ran, u64)> {
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

/// What was said, but for the room that a file takes: the system decides on that later.
fn without_size(ran: &Ran) -> Vec<u8> {
    let lines = ran.out.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !line.starts_with(b"disk size")).flatten().copied().collect()
}

#[track_caller]
fn assert_says_so(ran: &Ran) {
    assert_eq!(ran.status.code(), Some(74), "{}: {}", ran.status, ran.err);
    let is_told = ["cannot be read any more", "changed while it was read"].iter().any(|text| ran.err.contains(text));
    assert!(is_told && ran.err.contains("disk.vhdx"), "{}", ran.err);
}

/// Runs a command again and again, and makes its image shorter each time, at a random system call. `is_right` looks at
/// what a success has left.
fn cut_at_random_moments(
    rng: &mut Rng,
    rounds: u64,
    args: impl Fn(&Path) -> Vec<OsString>,
    is_right: impl Fn(&Path, &Ran) -> bool,
) {
    let folder = temp_dir();
    let path = long_work(folder.path());
    let args = args(folder.path());
    let Some((expected, calls)) = undisturbed(&args, &path) else { return };
    assert!(calls > 0 && is_right(folder.path(), &expected));
    drop(std::fs::remove_file(folder.path().join("out")));
    for _ in 0..rounds {
        let path = long_work(path.parent().unwrap());
        let Some(mut program) = start_traced(&args) else { return };
        // Threads share the work in another way each time: there may be fewer calls than before.
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
                "{args:?}: wrong, and nobody was told"
            );
        } else {
            assert_says_so(&ran);
            assert!(!folder.path().join("out").exists(), "{args:?}");
        }
        drop(std::fs::remove_file(folder.path().join("out")));
    }
}

#[test]
fn hash() {
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
fn map_and_info() {
    let mut rng = Rng::new(12);
    for words in [args!["map"], args!["map", "--output", "json"], args!["info"], args!["chain"], args!["log"]] {
        let args = |folder: &Path| [words.clone(), args![folder.join("disk.vhdx")]].concat();
        cut_at_random_moments(&mut rng, 6, args, |_, _| true);
    }
}

#[test]
fn extract_to_a_file() {
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
fn compare_and_verify() {
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

/// The end of a run whose image is cut when a part of its output has come.
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
fn extract_and_read_to_a_pipe() {
    let mut rng = Rng::new(15);
    for words in [
        args!["extract", "--quiet", "IMAGE", "-"],
        args!["extract", "--quiet", "--hash", "crc32", "IMAGE", "-"],
        args!["read", "--range", "0:", "IMAGE"],
    ] {
        for _ in 0..6 {
            assert_says_so(&cut_under_a_pipe(&mut rng, &words, BLOCKS * TIMES * MIB));
        }
    }
    let words = args!["read", "--hex", "--range", "0:", "IMAGE"];
    for _ in 0..6 {
        assert_says_so(&cut_under_a_pipe(&mut rng, &words, 100 * MIB));
    }
}
