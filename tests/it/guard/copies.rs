//! Media that do not give one copy of what is there twice, or not all of what is to be copied.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::fuse::{Mounted, losses};
use crate::kit::builder::{Image, Spec};
use crate::kit::{Block, KIB, MIB};
use crate::lab::{Content, size};
use crate::support::{Ran, run, temp_dir, vhdx};

/// A child and its parent, which has a block that the child has not.
fn chain() -> [Image; 2] {
    let base = (0..3).fold(Spec::empty(4 * MIB), |spec, number| spec.block(number, Block::full()));
    let child = Spec::child_of(&base, "fuse\\disk.vhdx").block(1, Block::full());
    [child.build(), base.build()]
}

fn content(chain: &[Image]) -> Vec<u8> {
    let chain: Vec<&Image> = chain.iter().collect();
    let content = Content::of(&chain);
    content.read(0..content.size())
}

/// A chain of which one file can be read but for some bytes: by which paths its two files are read.
struct Failing {
    paths: [PathBuf; 2],
    out: PathBuf,
    map: PathBuf,
    _mounted: Mounted,
}

impl Failing {
    /// The file of `layer` fails.
    fn new(folder: &Path, chain: &[Image], layer: usize, bad: &Range<u64>) -> Option<Self> {
        let mut paths = ["child.vhdx", "base.vhdx"].map(|name| folder.join(name));
        for (image, path) in chain.iter().zip(&paths) {
            image.bytes.write_file(path).unwrap();
        }
        let mounted = Mounted::new(&paths[layer], bad, &(0..0), 0)?;
        paths[layer] = mounted.path();
        let [out, map] = ["out", "map"].map(|name| folder.join(name));
        Some(Self { paths, out, map, _mounted: mounted })
    }

    /// Runs a command on the chain, whose parent is named.
    fn run(&self, words: &[&str]) -> Ran {
        run(vhdx(words).arg("--parent").arg(&self.paths[1]).arg(&self.paths[0]))
    }

    /// Extracts the disk.
    fn extract(&self, words: &[&str]) -> (Ran, Option<Vec<u8>>) {
        drop(std::fs::remove_file(&self.out));
        let ran = run(vhdx(["extract"]).args(words).arg(&self.paths[0]).arg(&self.out));
        (ran, std::fs::read(&self.out).ok())
    }

    /// The same of what is left, and what is lost.
    fn salvage(&self, words: &[&str]) -> (Ran, Option<Vec<u8>>, Vec<(u64, u64)>) {
        drop(std::fs::remove_file(&self.map));
        let (ran, bytes) = self.extract(&[&["--salvage", "--loss-map", self.map.to_str().unwrap()], words].concat());
        assert!(self.map.exists(), "{}", ran.err);
        (ran, bytes, losses(&self.map))
    }
}

#[test]
fn what_cannot_be_copied_as_a_whole_is_salvaged_where_it_lies() {
    let folder = temp_dir();
    let chain = chain();
    // In a block of the child, and in one that the child has not.
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
        assert!(ran.err.contains("can't be copied as a whole") && !ran.err.contains("hint: "), "{}", ran.err);
        // What else there is to do is said, and not what was done.
        let (ran, found) = failing.extract(&parent);
        assert_eq!((ran.status.code(), found), (Some(74), None), "{}", ran.err);
        let hint = ran.err.lines().find(|line| line.contains("hint: ")).unwrap();
        assert!(hint.contains("--salvage") && !hint.contains("--no-mmap"), "{hint}");
        let ran = failing.run(&["check", "--no-mmap", "--output", "json"]);
        assert_eq!(ran.status.code(), Some(1), "{}", ran.err);
        let json = ran.json();
        let told = if layer == 0 { &json["error"] } else { &json["findings"][0]["message"] };
        assert!(told.as_str().unwrap().contains("cannot be read"), "{json:#}");
    }
}
