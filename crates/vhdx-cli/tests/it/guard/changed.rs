//! The command, with images that another program writes to meanwhile.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use vhdx_testkit::dense::{FIRST_BLOCK, make_old};

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB};
use crate::support::{Ran, temp_dir, vhdx, wait};
use crate::traced::Traced;

/// A disk of 256 MiB, all blocks of which are the same MiB of the file.
fn long_work(folder: &Path, name: &str) -> PathBuf {
    let mut spec = Spec::empty(256 * MIB).block(0, Block::full().at(FIRST_BLOCK));
    for number in 1..256 {
        spec.raw_bat.insert(number, FIRST_BLOCK | 6);
    }
    let path = folder.join(name);
    spec.build().bytes.write_file(&path).unwrap();
    path
}

/// Runs the command, and writes to the image when a part of the output has arrived.
fn run_while_written(path: &Path, args: &[&std::ffi::OsStr]) -> Ran {
    make_old(path);
    let mut child = vhdx(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 10]).unwrap();
    // The byte keeps its value, so the output is right.
    let mut byte = [0];
    let file = File::options().read(true).write(true).open(path).unwrap();
    file.read_exact_at(&mut byte, FIRST_BLOCK).unwrap();
    file.write_all_at(&byte, FIRST_BLOCK).unwrap();
    wait(child)
}

#[track_caller]
fn assert_changed(ran: &Ran, name: &str) {
    assert_eq!(ran.status.code(), Some(74), "{}: {}", ran.status, ran.err);
    assert!(
        ran.err.contains(&format!("{name}: changed while it was read")) && ran.err.contains("hint:"),
        "{}",
        ran.err
    );
}

#[test]
fn changed_image_is_an_error() {
    let folder = temp_dir();
    let path = long_work(folder.path(), "disk.vhdx");
    let image = path.as_os_str();
    for words in
        [vec!["extract".as_ref(), image, "-".as_ref()], vec!["read".as_ref(), "--range".as_ref(), "0:".as_ref(), image]]
    {
        assert_changed(&run_while_written(&path, &words), "disk.vhdx");
    }
}

#[test]
fn changed_parent_is_an_error() {
    let folder = temp_dir();
    let base = long_work(folder.path(), "base.vhdx");
    let child = folder.path().join("child.avhdx");
    Spec::child_of(&Spec::empty(256 * MIB), "base.vhdx").build().bytes.write_file(&child).unwrap();
    assert_changed(&run_while_written(&base, &["extract".as_ref(), child.as_os_str(), "-".as_ref()]), "base.vhdx");
}

#[test]
fn changed_image_leaves_no_output() {
    let folder = temp_dir();
    let path = long_work(folder.path(), "disk.vhdx");
    let out = folder.path().join("out");
    let child = folder.path().join("child.avhdx");
    let mut spec = Spec::child_of(&Spec::empty(256 * MIB), "disk.vhdx");
    for number in 0..256 {
        spec.raw_bat.insert(number, FIRST_BLOCK | 6);
    }
    spec.block(0, Block::full().at(FIRST_BLOCK)).build().bytes.write_file(&child).unwrap();
    let cases: [&[&std::ffi::OsStr]; 4] = [
        &["extract".as_ref(), path.as_ref(), out.as_ref()],
        &["hash".as_ref(), "-a".as_ref(), "sha256".as_ref(), "--manifest".as_ref(), out.as_ref(), path.as_ref()],
        &["diff".as_ref(), child.as_ref(), "--delta".as_ref(), out.as_ref()],
        &["hash".as_ref(), "-a".as_ref(), "sha256".as_ref(), path.as_ref()],
    ];
    for words in cases {
        make_old(&path);
        let mut command = vhdx(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let Some(mut running) = Traced::start(&mut command) else { return };
        assert!(super::cut::run_to_mapping(&mut running, &path), "{words:?}");
        File::options().write(true).open(&path).unwrap().write_all_at(&[0], 8 * MIB).unwrap();
        let ran = Ran::from(running.finish());
        assert_eq!(ran.status.code(), Some(74), "{words:?}: {}", ran.err);
        assert!(ran.err.contains("disk.vhdx: changed") && !out.exists(), "{words:?}: {}", ran.err);
        assert!(!String::from_utf8_lossy(&ran.out).contains("disk.vhdx\n"), "no digest of it");
        truncate_again(&path);
    }
}

fn truncate_again(path: &Path) {
    vhdx_testkit::dense::cut(path, FIRST_BLOCK + MIB);
}
