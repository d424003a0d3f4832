//! Drives that fail to read one of two copies, or a part of an image.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use vhdx_testkit::fuse::Mounted;

use super::fuse::losses;
use crate::kit::builder::{Image, Spec};
use crate::kit::{Block, KIB, MIB};
use crate::lab::{Expected, size};
use crate::support::{Ran, run, temp_dir, vhdx};

/// A child, and its parent with a block that the child does not hold.
fn chain() -> [Image; 2] {
    let base = (0..3).fold(Spec::empty(4 * MIB), |spec, number| spec.block(number, Block::full()));
    let child = Spec::child_of(&base, "fuse\\disk.vhdx").block(1, Block::full());
    [child.build(), base.build()]
}

fn content(chain: &[Image]) -> Vec<u8> {
    let chain: Vec<&Image> = chain.iter().collect();
    let content = Expected::of(&chain);
    content.read(0..content.size())
}

/// A chain in which some bytes of one file cannot be read: paths of its two files.
struct Failing {
    paths: [PathBuf; 2],
    out: PathBuf,
    map: PathBuf,
    _mounted: Mounted,
}

impl Failing {
    /// Makes the file of `layer` fail.
    fn new(folder: &Path, chain: &[Image], layer: usize, bad: &Range<u64>) -> Option<Self> {
        let mut paths = ["child.vhdx", "base.vhdx"].map(|name| folder.join(name));
        for (image, path) in chain.iter().zip(&paths) {
            image.bytes.write_file(path).unwrap();
        }
        let mounted = Mounted::new(&paths[layer], bad)?;
        paths[layer] = mounted.path();
        let [out, map] = ["out", "map"].map(|name| folder.join(name));
        Some(Self { paths, out, map, _mounted: mounted })
    }

    /// Runs a command on the chain, with the parent given.
    fn run(&self, words: &[&str]) -> Ran {
        run(vhdx(words).arg("--parent").arg(&self.paths[1]).arg(&self.paths[0]))
    }

    /// Extracts the disk.
    fn extract(&self, words: &[&str]) -> (Ran, Option<Vec<u8>>) {
        drop(std::fs::remove_file(&self.out));
        let ran = run(vhdx(["extract"]).args(words).arg(&self.paths[0]).arg(&self.out));
        (ran, std::fs::read(&self.out).ok())
    }

    /// Extracts the disk with --salvage, and returns the losses, too.
    fn salvage(&self, words: &[&str]) -> (Ran, Option<Vec<u8>>, Vec<(u64, u64)>) {
        drop(std::fs::remove_file(&self.map));
        let (ran, bytes) = self.extract(&[&["--salvage", "--loss-map", self.map.to_str().unwrap()], words].concat());
        assert!(self.map.exists(), "{}", ran.err);
        (ran, bytes, losses(&self.map))
    }
}

/// Offsets of the two copies and of the signature, none of which is needed for the rest, with the rules that they
/// break.
const COPIES: [(u64, &str); 5] =
    [(0, "V2"), (64 * KIB, "V5"), (128 * KIB, "V5"), (192 * KIB, "V26"), (256 * KIB, "V26")];

#[test]
fn unreadable_copy_counts_as_invalid() {
    let chain = chain();
    let expected = content(&chain);
    for layer in [0, 1] {
        for (at, code) in COPIES {
            let folder = temp_dir();
            let Some(failing) = Failing::new(folder.path(), &chain, layer, &(at..at + 1)) else { return };
            let parent = failing.paths[1].to_str().unwrap();
            // The stored path leads to a mounted parent, too.
            let ways = [&["--parent", parent][..], &[]];
            for way in &ways[..=layer] {
                let report = |ran: &Ran| {
                    let warned = ran.err.lines().filter(|line| line.contains("[V")).collect::<Vec<_>>();
                    let is_match =
                        |line: &&str| line.contains("cannot be read any more") && line.ends_with(&format!("[{code}]"));
                    warned.len() == 1 && warned.iter().all(is_match)
                };
                // A file without a signature is not an image.
                let (exit, bytes) = if code == "V2" { (74, None) } else { (0, Some(&expected)) };
                let (ran, found) = failing.extract(way);
                assert_eq!(ran.status.code(), Some(exit), "{layer} {at:#x} {way:?}: {}", ran.err);
                assert!(found.as_ref() == bytes, "{layer} {at:#x} {way:?}: other bytes");
                assert!(exit != 0 || report(&ran), "{layer} {at:#x} {way:?}: {}", ran.err);
                for more in [&[][..], &["--no-mmap"]] {
                    let (ran, found, lost) = failing.salvage(&[*way, more].concat());
                    assert_eq!((ran.status.code(), lost), (Some(0), vec![]), "{layer} {at:#x} {way:?}: {}", ran.err);
                    assert!(found.as_ref() == Some(&expected), "{layer} {at:#x} {way:?}: other bytes");
                    assert!(report(&ran), "{layer} {at:#x} {way:?}: {}", ran.err);
                }
            }
            for command in [&["info"][..], &["hash", "-a", "crc32"], &["log"]] {
                // These two commands show the image even if its parent cannot be opened.
                let is_read = code != "V2" || (layer == 1 && command[0] != "hash");
                let ran = failing.run(command);
                assert_eq!(
                    ran.status.code(),
                    Some(if is_read { 0 } else { 74 }),
                    "{layer} {command:?} {at:#x}: {}",
                    ran.err
                );
            }
            // A check reports the copy, and that a part of the file cannot be read.
            let ran = failing.run(&["check", "--output", "json"]);
            let findings = ran.json()["findings"].as_array().unwrap().clone();
            let found: BTreeSet<&str> = findings.iter().map(|finding| finding["code"].as_str().unwrap()).collect();
            assert_eq!((ran.status.code(), found), (Some(1), BTreeSet::from([code, "P2"])), "{layer} {at:#x}");
            assert!(findings.iter().all(|finding| finding["layer"] == layer), "{findings:?}");
        }
    }
}

#[test]
fn drive_error_is_reported_if_no_copy_is_valid() {
    let folder = temp_dir();
    for (first, broken) in
        [(64 * KIB, 128 * KIB), (128 * KIB, 64 * KIB), (192 * KIB, 256 * KIB), (256 * KIB, 192 * KIB)]
    {
        let mut chain = chain();
        chain.iter_mut().for_each(|image| image.bytes.write(broken, b"gone"));
        for layer in [0, 1] {
            // The parent stays intact if the child is to fail.
            let mut files = self::chain();
            files[layer] = chain[layer].clone();
            let Some(failing) = Failing::new(folder.path(), &files, layer, &(first..first + 1)) else { return };
            let (ran, found) = failing.extract(&["--parent", failing.paths[1].to_str().unwrap()]);
            assert_eq!((ran.status.code(), found), (Some(74), None), "{first:#x}: {}", ran.err);
            assert!(ran.err.contains("cannot be read"), "{}", ran.err);
            let ran = failing.run(&["check", "--output", "json"]);
            let findings = ran.json()["findings"].as_array().unwrap().clone();
            let is_of_medium = |code: &str| code == "P2" || (layer == 1 && code == "P1");
            let of_medium = findings.iter().find(|finding| is_of_medium(finding["code"].as_str().unwrap()));
            assert!(of_medium.is_some_and(|finding| finding["severity"] == "unchecked"), "{first:#x}: {findings:?}");
            assert_eq!(ran.json()["format"], "vhdx", "{first:#x}");
        }
    }
}

#[test]
fn salvage_without_mapping_keeps_readable_ranges() {
    let folder = temp_dir();
    let chain = chain();
    // In a block that the child holds, and in one that it does not hold.
    for (layer, block) in [(0, 1), (1, 2)] {
        let bad = chain[layer].block_at(block) + 8 * KIB + 1;
        let Some(failing) = Failing::new(folder.path(), &chain, layer, &(bad..bad + 1)) else { return };
        let lost = block * MIB + 8 * KIB;
        let mut expected = content(&chain);
        expected[size(lost)..size(lost + 4 * KIB)].fill(0);
        let parent = ["--no-mmap", "--parent", failing.paths[1].to_str().unwrap()];
        let (ran, found, losses) = failing.salvage(&parent);
        assert_eq!((ran.status.code(), losses), (Some(65), vec![(lost, 4 * KIB)]), "{}", ran.err);
        assert!(found.as_ref() == Some(&expected), "{layer}: other bytes");
        let (ran, found) = failing.extract(&parent);
        assert_eq!((ran.status.code(), found), (Some(74), None), "{}", ran.err);
        let ran = failing.run(&["check", "--no-mmap", "--payload", "--output", "json"]);
        let json = ran.json();
        let findings = json["findings"].as_array().unwrap();
        let is_lost =
            |finding: &serde_json::Value| finding["message"].as_str().unwrap().contains("failed to return it");
        let has_parent = |json: &serde_json::Value| !json.to_string().contains("P1");
        assert!(findings.iter().any(is_lost) || (layer == 1 && !has_parent(&json)), "{json:#}");
    }
}

#[test]
fn unused_sectors_of_a_block_need_not_be_readable() {
    let folder = temp_dir();
    let base = (0..3).fold(Spec::empty(4 * MIB), |spec, number| spec.block(number, Block::full()));
    // Eight sectors, one page of the file, are in the parent.
    let child = Spec::child_of(&base, "base.vhdx").block(1, Block::partial(&[0..8, 16..2048])).build();
    let page = child.block_at(1) + 4 * KIB;
    let chain = [child, base.build()];
    let Some(failing) = Failing::new(folder.path(), &chain, 0, &(page..page + 4 * KIB)) else { return };
    let parent = failing.paths[1].to_str().unwrap().to_owned();
    let (ran, bytes) = failing.extract(&["--parent", &parent]);
    assert!(ran.status.code() == Some(0) && bytes == Some(content(&chain)), "{}", ran.err);
    for algorithm in ["crc32", "sha256"] {
        let ran = failing.run(&["hash", "-a", algorithm]);
        assert_eq!(ran.status.code(), Some(0), "{algorithm}: {}", ran.err);
    }
    // A sector of the child itself is needed.
    drop(failing);
    let Some(failing) = Failing::new(folder.path(), &chain, 0, &(page + 4 * KIB..page + 5 * KIB)) else { return };
    let (ran, bytes) = failing.extract(&["--parent", &parent]);
    assert!(ran.status.code() == Some(74) && bytes.is_none(), "{}", ran.err);
}
