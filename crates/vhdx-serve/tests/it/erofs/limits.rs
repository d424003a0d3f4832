//! Sizes of metadata, and of what is copied.

use vhdx_mmap::{Disk, OpenOptions, Source};
use vhdx_serve::erofs::{self, Error, Options};
use vhdx_testkit::builder::Spec;
use vhdx_testkit::support::temp_dir;
use vhdx_testkit::{Block, GIB, MIB};

use super::{Files, Written, tree_of};

const TIB: u64 = 1 << 40;

fn sizes(spec: &Spec) -> (u64, u64) {
    sizes_with(spec, &Options::default())
}

fn sizes_with(spec: &Spec, options: &Options) -> (u64, u64) {
    let image = spec.build();
    let (_files, disk) = Files::open(&[&image]);
    let written = Written::with(&tree_of(disk), options);
    (written.metadata.len, written.metadata.copied)
}

/// A disk of 64 TiB in blocks of 32 MiB, as Hyper-V makes them.
fn large() -> Spec {
    Spec { block_size: 32 << 20, bat_length: None, ..Spec::empty(64 * TIB) }
}

#[test]
fn metadata_of_64_tib() {
    let (empty, copied) = sizes(&large());
    // The super block with all inodes, two directories, and `info.json`.
    assert_eq!((empty, copied), (4096 * 4, 0));
    // Data at the beginning, as on a fresh disk: the payload is one piece.
    let first = (0..4).fold(large(), |spec, number| spec.block(number, Block::full()));
    let (len, copied) = sizes(&first);
    assert!(len < 10_000_000 && copied == 0, "{len} {copied}");
    // Blocks in the middle of nothing, each elsewhere in the file.
    let scattered = (1..9).fold(large(), |spec, number| spec.block(number * 222_222, Block::full()));
    let (len, copied) = sizes(&scattered);
    assert!(len < 10_000_000 && copied == 0, "{len} {copied}");
    // With numbers of devices, an index takes twice as much: if it may, or since addresses do not suffice for as many
    // bytes as may be copied.
    let (mut larger, mut none) = (Options::default(), Options::default());
    larger.most_index = 1 << 30;
    none.most_copied = 1 << 60;
    for options in [larger, none] {
        let (numbered, copied) = sizes_with(&scattered, &options);
        assert!((2 * len - 5 * 4096..2 * len).contains(&numbered) && copied == 0, "{len} {numbered} {copied}");
    }
}

/// Large chunks of a sparse disk would have to be copied.
#[test]
fn scattered_data_is_not_copied() {
    let spec = (0..40).fold(Spec::empty(2 * TIB), |spec, number| spec.block(number * 47_111, Block::full()));
    let (len, copied) = sizes(&spec);
    assert!(copied <= 40 * 2 * MIB, "{copied}");
    // With chunks of 1 MiB nothing is copied: that is the most that may be spent.
    assert!(len + copied <= 2 * TIB / MIB * 4 + 4 * 4096, "{len} {copied}");
}

/// Of a partial block, pages with bytes of both files are copied, and little more.
#[test]
fn partial_block_costs_its_borders() {
    let parent = (0..64).fold(Spec::empty(64 * MIB), |spec, number| spec.block(number, Block::full()));
    let child = Spec::child_of(&parent, "1.vhdx").block(7, Block::partial(&[100..101, 1501..1999]));
    let images = [child.build(), parent.build()];
    let (_files, disk) = Files::open(&images.iter().collect::<Vec<_>>());
    let written = Written::new(&tree_of(disk));
    // Three pages have bytes of both files. At this granularity an index of 64 MiB has 128 KiB.
    let (len, copied) = (written.metadata.len, written.metadata.copied);
    assert!(copied >= 3 * 4096 && copied + len <= 3 * 4096 + 2 * 131_072 + 4 * 4096, "{len} {copied}");
}

#[test]
fn limits_are_refused_by_name() {
    let folder = temp_dir();
    let path = folder.path().join("image");
    // Block after block elsewhere in the file: each is a chunk.
    let spec = (0..64).fold(Spec::empty(GIB), |spec, number| spec.block(number * 16, Block::full()));
    spec.build().bytes.write_file(&path).unwrap();
    let tree = tree_of(Disk::open(Source::open(&path).unwrap(), &OpenOptions::new()).unwrap());
    let write = |options: &Options| {
        let out = tempfile::tempfile_in(folder.path()).unwrap();
        let result = erofs::write(&tree, &out, options).map(|_| ());
        assert!(result.is_ok() || out.metadata().unwrap().len() == 0);
        result
    };
    write(&Options::default()).unwrap();
    let mut options = Options::default();
    options.most_metadata = 4096;
    let error = write(&options).unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 4096, .. }), "{error}");
    assert!(error.to_string().contains("expected at most 4096"), "{error}");
}
