//! What `vhdx info` and `vhdx map` leave in the page cache. A test of its own, since it counts pages of whole files.
#![cfg(target_os = "linux")]
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is a failed test, and what was measured is worth a line"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vhdx_testkit::builder::Spec;
use vhdx_testkit::page_cache::{cached, drop_cached};
use vhdx_testkit::support::{run_to, temp_dir};
use vhdx_testkit::{Block, MIB, TIB};

/// The command on the first of some cold images; returns how much of all of them is in the page cache then.
fn growth(paths: &[PathBuf], words: &[&str]) -> Option<u64> {
    if !paths.iter().all(|path| drop_cached(path)) {
        println!("SKIPPED: the file system does not let go of its pages");
        return None;
    }
    let ran = run_to(Command::new(env!("CARGO_BIN_EXE_vhdx")).args(words).arg(&paths[0]), Stdio::piped());
    assert!(ran.status.success(), "{}: {}", ran.status, ran.err);
    let grown = paths.iter().map(|path| cached(path)).sum();
    println!("{words:?} of {} images: {grown} bytes", paths.len());
    Some(grown)
}

fn write(folder: &Path, name: &str, spec: &Spec) -> PathBuf {
    let path = folder.join(name);
    spec.build().bytes.write_file(&path).unwrap();
    path
}

/// A table of 512 MiB, a few pages of which are written.
#[test]
fn info_and_map_of_a_sparse_table_touch_no_holes() {
    let folder = temp_dir();
    let spec =
        [0, 9_000_000, 40_000_000].iter().fold(Spec::empty(64 * TIB), |spec, block| spec.block(*block, Block::full()));
    let path = write(folder.path(), "disk.vhdx", &spec);
    for words in [&["info"][..], &["info", "--no-mmap"], &["map"], &["map", "--no-mmap"]] {
        let Some(grown) = growth(std::slice::from_ref(&path), words) else { return };
        assert!(grown < 2 * MIB, "{words:?}: {grown} bytes");
    }
}

#[test]
fn info_of_a_long_chain_looks_at_little_of_each_file() {
    let folder = temp_dir();
    let mut spec = Spec::empty(64 * TIB).block(5, Block::full());
    let mut paths = vec![write(folder.path(), "0.vhdx", &spec)];
    for number in 1..257 {
        spec = Spec::child_of(&spec, &format!("{}.vhdx", number - 1));
        paths.insert(0, write(folder.path(), &format!("{number}.vhdx"), &spec));
    }
    for words in [&["info"][..], &["info", "--no-mmap"], &["info", "--backing-chain"]] {
        let Some(grown) = growth(&paths, words) else { return };
        assert!(grown < 64 * MIB, "{words:?}: {grown} bytes");
    }
}
